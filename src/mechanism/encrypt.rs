//! The mechanisms that encrypt and decrypt (PKCS#11 3.0, sections 6.1.6 and 6.1.8), with their
//! parameters.

use crate::error::Error;
use crate::mechanism::params::{Parameter, hash_of, mgf1};
use cryptoki_sys::*;
use devid_core::store::DecryptRequest;
use devid_core::tpm::Hash;

/// A mechanism that encrypts and decrypts, with its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cipher {
    /// CKM_RSA_PKCS
    Pkcs1,
    /// CKM_RSA_PKCS_OAEP
    Oaep {
        hash: Hash,
        mgf: Hash,
        label: Vec<u8>,
    },
}

impl Cipher {
    pub(crate) const KINDS: [CK_MECHANISM_TYPE; 2] = [CKM_RSA_PKCS, CKM_RSA_PKCS_OAEP];

    /// From CK_MECHANISM. Hash and mask generation may differ: padding is none of the TPM's.
    pub(crate) fn parse(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<Self, Error> {
        let cipher = match (kind, parameter) {
            (CKM_RSA_PKCS, Parameter::None) => Some(Self::Pkcs1),
            (
                CKM_RSA_PKCS_OAEP,
                Parameter::Oaep {
                    hash,
                    mgf,
                    source,
                    label,
                },
            ) => oaep_hashes(hash, mgf)
                // No label at all is an empty one.
                .filter(|_| source == CKZ_DATA_SPECIFIED || (source == 0 && label.is_empty()))
                .map(|(hash, mgf)| Self::Oaep { hash, mgf, label }),
            (CKM_RSA_PKCS | CKM_RSA_PKCS_OAEP, _) => None,
            _ => return Err(Error::MechanismInvalid),
        };
        cipher.ok_or(Error::MechanismParamInvalid)
    }

    pub(crate) fn kind(&self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Pkcs1 => CKM_RSA_PKCS,
            Self::Oaep { .. } => CKM_RSA_PKCS_OAEP,
        }
    }

    /// As the store takes it.
    pub(crate) fn request(&self) -> DecryptRequest<'_> {
        match self {
            Self::Pkcs1 => DecryptRequest::Pkcs1,
            Self::Oaep { hash, mgf, label } => DecryptRequest::Oaep {
                hash: *hash,
                mgf: *mgf,
                label,
            },
        }
    }
}

/// The hashes of the label and of the mask; `None` for what is not supported.
///
/// pkcs11-provider writes 0 for what its user has not named, and means what OpenSSL does then: SHA-1,
/// and the mask by the label's hash. Nothing else can be meant by it.
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
            Cipher::parse(CKM_RSA_PKCS_OAEP, parameter)
        };
        let wrong = Err(Error::MechanismParamInvalid);
        let mixed = oaep(CKM_SHA512, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b"label");
        let right = Cipher::Oaep {
            hash: Hash::Sha512,
            mgf: Hash::Sha1,
            label: b"label".to_vec(),
        };
        assert_eq!(mixed, Ok(right));
        assert!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, 0, b"").is_ok());
        assert_eq!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, 0, b"x"), wrong);
        assert_eq!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, 2, b""), wrong);
        let unnamed = Cipher::Oaep {
            hash: Hash::Sha1,
            mgf: Hash::Sha1,
            label: Vec::new(),
        };
        assert_eq!(oaep(0, 0, CKZ_DATA_SPECIFIED, b""), Ok(unnamed));
        assert_eq!(oaep(CKM_SHA224, CKG_MGF1_SHA1, 1, b""), wrong);
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA224, 1, b""), wrong);
        assert_eq!(Cipher::parse(CKM_RSA_PKCS_OAEP, Parameter::None), wrong);
        assert_eq!(Cipher::parse(CKM_RSA_PKCS, Parameter::Other), wrong);
        let unknown = Cipher::parse(CKM_RSA_X_509, Parameter::None);
        assert_eq!(unknown, Err(Error::MechanismInvalid));
    }
}
