//! TPM2_MakeCredential in software: encrypts a secret for the TPM that has a given endorsement key
//! (Part 1, section 24; Part 3, section 12.6).

use super::protected::{Recipient, protect};
use super::{Hash, PublicArea, TpmError};
use crate::key::{Curve, PublicKey};

/// The inputs of TPM2_ActivateCredential. Both inputs are without the size field of their TPM2B.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// TPMS_ID_OBJECT.
    pub(crate) id_object: Vec<u8>,
    /// The content of the TPM2B_ENCRYPTED_SECRET.
    pub(crate) encrypted_secret: Vec<u8>,
}

/// Makes a credential for the object of this name in the TPM of this endorsement key. `area` is the
/// TPMT_PUBLIC of the endorsement key. Without `area` the TCG template for such a key is assumed
/// (EK Credential Profile, annex B). `secret` is at most as long as a digest of the nameAlg.
///
/// # Errors
///
/// [`TpmError::Unsupported`] if the key cannot decrypt credentials, if its template is unknown, or
/// if the system gives no random bytes.
pub(crate) fn make_credential(
    key: &PublicKey,
    area: Option<&PublicArea>,
    name: &[u8],
    secret: &[u8],
) -> Result<Credential, TpmError> {
    let (hash, key_bits) = match area {
        Some(area) => by_area(area)?,
        None => by_template(key)?,
    };
    let to = Recipient {
        public: key,
        hash,
        key_bits,
    };
    let (id_object, encrypted_secret) = protect(to, "IDENTITY", name, secret)?;
    Ok(Credential {
        id_object,
        encrypted_secret,
    })
}

fn by_area(area: &PublicArea) -> Result<(Hash, u32), TpmError> {
    if !area.is_storage_key() {
        let why = "the endorsement key is not a restricted decryption key";
        return Err(TpmError::Unsupported(why.into()));
    }
    let unknown =
        || TpmError::Unsupported("the endorsement key has no symmetric algorithm AES-CFB".into());
    let bits = area.aes_key_bits().ok_or_else(unknown)?;
    Ok((area.name_hash, bits))
}

fn by_template(key: &PublicKey) -> Result<(Hash, u32), TpmError> {
    match key {
        PublicKey::Ec { curve, .. } => Ok(match curve {
            Curve::P256 => (Hash::Sha256, 128),
            Curve::P384 => (Hash::Sha384, 256),
            Curve::P521 => (Hash::Sha512, 256),
        }),
        PublicKey::Rsa { .. } => match key.bits() {
            2048 => Ok((Hash::Sha256, 128)),
            3072 => Ok((Hash::Sha384, 256)),
            bits => Err(TpmError::Unsupported(format!(
                "the template of an endorsement key of RSA-{bits} is not known: its public area \
                 must be given"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fake::{IDENTITY, p256_area};

    #[test]
    fn lengths_are_those_that_a_tpm_takes() {
        for (curve, hash) in [(Curve::P256, 32), (Curve::P384, 48), (Curve::P521, 64)] {
            let scalar = [&vec![0; curve.width() - 1][..], &[7]].concat();
            let key = curve.public_of(&scalar).unwrap();
            let made = make_credential(&key, None, &[0; 34], &[5; 32]).unwrap();
            assert_eq!(made.id_object.len(), 2 + hash + 2 + 32);
            assert_eq!(made.encrypted_secret.len(), 2 * (2 + curve.width()));
            let again = make_credential(&key, None, &[0; 34], &[5; 32]).unwrap();
            assert_ne!(made, again);
        }
        let rsa = |bytes| PublicKey::from_rsa(&vec![0xC1; bytes], &[1, 0, 1]).unwrap();
        let made = make_credential(&rsa(256), None, &[0; 34], &[5; 32]).unwrap();
        assert_eq!(made.encrypted_secret.len(), 256);
        let made = make_credential(&rsa(384), None, &[0; 34], &[5; 32]).unwrap();
        assert_eq!(
            (made.id_object.len(), made.encrypted_secret.len()),
            (84, 384)
        );
        let why = make_credential(&rsa(512), None, &[0; 34], &[5; 32]).unwrap_err();
        assert!(why.to_string().contains("RSA-4096"), "{why}");
    }

    #[test]
    fn a_signing_key_reads_no_credential() {
        let area = PublicArea::parse(&p256_area(IDENTITY, &[0, 0x10])).unwrap();
        assert!(make_credential(&area.key.clone(), Some(&area), &[0; 34], &[5; 32]).is_err());
        // This storage key has no symmetric algorithm.
        let area = PublicArea::parse(&p256_area(0x0003_00B2, &[0, 0x10])).unwrap();
        assert!(make_credential(&area.key.clone(), Some(&area), &[0; 34], &[5; 32]).is_err());
    }
}
