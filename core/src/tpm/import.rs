//! Import of a private key, encrypted for its future parent (Part 1, section 23.3: duplication with
//! an outer wrapper and no inner wrapper).

use super::algorithm::{ECC, RSA};
use super::protected::{Recipient, protect};
use super::{Hash, Secret, TpmError, name_of};
use crate::key::PublicKey;

/// Our storage keys, and every SRK of the TCG templates, encrypt with AES-128-CFB.
const KEY_BITS: u32 = 128;

/// The content of the TPM2B_PRIVATE for TPM2_Import, and of its TPM2B_ENCRYPTED_SECRET.
///
/// `area` is the TPMT_PUBLIC of the key, `value` its future authorisation value, `secret` the
/// scalar or a prime. `parent` is the public key of the parent; `hash` is the nameAlg of the
/// parent.
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
    // TPMT_SENSITIVE, the seed empty; all of it a TPM2B_SENSITIVE.
    let mut sensitive = Secret::new(kind.to_be_bytes().to_vec());
    for part in [&value[..], &[], &secret[..]] {
        sensitive.extend((part.len() as u16).to_be_bytes());
        sensitive.extend_from_slice(part);
    }
    let name = name_of(area).ok_or_else(|| TpmError::Unsupported("no public area".into()))?;
    let parent = Recipient {
        public: parent,
        hash,
        key_bits: KEY_BITS,
    };
    protect(parent, "DUPLICATE", &name, &sensitive)
}
