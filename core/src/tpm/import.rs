//! Import of a private key, encrypted for its future parent (Part 1, section 23.3: duplication with
//! an outer wrapper and no inner wrapper).

use super::algorithm::{ECC, RSA};
use super::protected::{Recipient, protect};
use super::{Hash, Secret, TpmError, name_of};
use crate::key::PublicKey;

/// The key size of the parents. The storage keys of this project, and every SRK of the TCG
/// templates, encrypt with AES-128-CFB.
const KEY_BITS: u32 = 128;

/// Encrypts a private key for TPM2_Import. Returns the contents of the TPM2B_PRIVATE and of the
/// TPM2B_ENCRYPTED_SECRET.
///
/// `area` is the TPMT_PUBLIC of the key, and `value` its future authorisation value. `secret` is
/// the scalar of an EC key, or a prime of an RSA key. `parent` is the public key of the parent, and
/// `hash` is the nameAlg of the parent.
pub(super) fn duplicate(
    parent: &PublicKey,
    hash: Hash,
    area: &[u8],
    public: &PublicKey,
    value: &Secret,
    secret: &Secret,
) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    let kind = match public {
        PublicKey::Ec { .. } => ECC,
        PublicKey::Rsa { .. } => RSA,
    };
    // A TPM2B_SENSITIVE that contains a TPMT_SENSITIVE with an empty seed.
    let mut sensitive = Secret::new(kind.to_be_bytes().to_vec());
    for part in [&value[..], &[], &secret[..]] {
        sensitive.extend((part.len() as u16).to_be_bytes());
        sensitive.extend_from_slice(part);
    }
    let name = name_of(area)
        .ok_or_else(|| TpmError::Unsupported("the public area of the key is not valid".into()))?;
    let parent = Recipient {
        public: parent,
        hash,
        key_bits: KEY_BITS,
    };
    protect(parent, "DUPLICATE", &name, &sensitive)
}
