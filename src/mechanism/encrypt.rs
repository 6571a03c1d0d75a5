//! Encryption mechanisms with their parameters (PKCS#11 3.0, sections 6.1.6 and 6.1.8).

use crate::error::Error;
use crate::mechanism::params::{Parameter, mgf1};
use crate::mechanism::table::{Algorithm, EncryptAlgorithm, Mechanism, hash_of};
use cryptoki_sys::*;
use devid_core::store::DecryptRequest;
use devid_core::tpm::Hash;

/// An encryption mechanism with its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncryptMechanism {
    pub(crate) row: &'static Mechanism,
    scheme: EncryptScheme,
}

/// The encryption scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EncryptScheme {
    Pkcs1,
    Oaep {
        hash: Hash,
        mgf: Hash,
        label: Vec<u8>,
    },
}

impl EncryptMechanism {
    /// Reads the parameter of an encryption mechanism. The hash of the label and the hash of the
    /// mask may differ, because the padding is made in software.
    ///
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] if the mechanism does not encrypt.
    /// [`Error::MechanismParamInvalid`] if the parameter is not supported.
    pub(crate) fn new(row: &'static Mechanism, parameter: Parameter) -> Result<Self, Error> {
        let Algorithm::Encrypt(algorithm) = row.algorithm else {
            return Err(Error::MechanismInvalid);
        };
        row.check_shape(&parameter)?;
        let scheme = match algorithm {
            EncryptAlgorithm::Pkcs1 => EncryptScheme::Pkcs1,
            EncryptAlgorithm::Oaep => oaep(parameter).ok_or(Error::MechanismParamInvalid)?,
        };
        Ok(Self { row, scheme })
    }

    /// Returns the request for a decryption by the key store.
    pub(crate) fn request(&self) -> DecryptRequest<'_> {
        match &self.scheme {
            EncryptScheme::Pkcs1 => DecryptRequest::Pkcs1,
            EncryptScheme::Oaep { hash, mgf, label } => DecryptRequest::Oaep {
                hash: *hash,
                mgf: *mgf,
                label,
            },
        }
    }
}

fn oaep(parameter: Parameter) -> Option<EncryptScheme> {
    let Parameter::Oaep {
        hash,
        mgf,
        source,
        label,
    } = parameter
    else {
        return None;
    };
    let (hash, mgf) = oaep_hashes(hash, mgf)?;
    // CK_RSA_PKCS_OAEP_PARAMS with the source 0 has no label.
    let is_label = source == CKZ_DATA_SPECIFIED || (source == 0 && label.is_empty());
    is_label.then_some(EncryptScheme::Oaep { hash, mgf, label })
}

/// Returns the hashes of the label and of the mask. Returns `None` if they are not supported.
///
/// pkcs11-provider writes 0 for a hash that its user did not name. The value 0 then means OpenSSL's
/// default: SHA-1 for the label, and the label's hash for the mask. The value 0 has no other
/// meaning.
pub(crate) fn oaep_hashes(
    hash: CK_MECHANISM_TYPE,
    mgf: CK_RSA_PKCS_MGF_TYPE,
) -> Option<(Hash, Hash)> {
    let hash = match hash {
        0 => Hash::Sha1,
        named => hash_of(named)?,
    };
    let mask = match mgf {
        0 => hash,
        named => Hash::ALL.into_iter().find(|hash| mgf1(*hash) == named)?,
    };
    Some((hash, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<EncryptScheme, Error> {
        let row = Mechanism::find(kind, CKF_ENCRYPT)?;
        EncryptMechanism::new(row, parameter).map(|mechanism| mechanism.scheme)
    }

    #[test]
    fn oaep_takes_any_hash_with_any_mask_and_no_other() {
        let oaep = |hash, mgf, source, label: &[u8]| {
            let label = label.to_vec();
            let parameter = Parameter::Oaep {
                hash,
                mgf,
                source,
                label,
            };
            parse(CKM_RSA_PKCS_OAEP, parameter)
        };
        let wrong = Err(Error::MechanismParamInvalid);
        let mixed = oaep(CKM_SHA512, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b"label");
        let right = EncryptScheme::Oaep {
            hash: Hash::Sha512,
            mgf: Hash::Sha1,
            label: b"label".to_vec(),
        };
        assert_eq!(mixed, Ok(right));
        assert!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, 0, b"").is_ok());
        assert_eq!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, 0, b"x"), wrong);
        assert_eq!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, 2, b""), wrong);
        let unnamed = EncryptScheme::Oaep {
            hash: Hash::Sha1,
            mgf: Hash::Sha1,
            label: Vec::new(),
        };
        assert_eq!(oaep(0, 0, CKZ_DATA_SPECIFIED, b""), Ok(unnamed));
        assert_eq!(oaep(CKM_SHA224, CKG_MGF1_SHA1, 1, b""), wrong);
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA224, 1, b""), wrong);
        assert_eq!(parse(CKM_RSA_PKCS_OAEP, Parameter::None), wrong);
        assert_eq!(parse(CKM_RSA_PKCS, Parameter::Other), wrong);
        let unknown = parse(CKM_RSA_X_509, Parameter::None);
        assert_eq!(unknown, Err(Error::MechanismInvalid));
    }
}
