//! Parameters of mechanisms as callers give them, and the hashes that they name (PKCS#11 3.0, sections
//! 6.1.7, 6.1.9, 6.1.23 and 6.3.15).

use cryptoki_sys::*;
use devid_core::tpm::Hash;

/// A mechanism's parameter as the caller gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parameter {
    None,
    /// CK_RSA_PKCS_PSS_PARAMS.
    Pss {
        hash: CK_MECHANISM_TYPE,
        mgf: CK_RSA_PKCS_MGF_TYPE,
        salt: CK_ULONG,
    },
    /// CK_RSA_PKCS_OAEP_PARAMS.
    Oaep {
        hash: CK_MECHANISM_TYPE,
        mgf: CK_RSA_PKCS_MGF_TYPE,
        source: CK_RSA_PKCS_OAEP_SOURCE_TYPE,
        label: Vec<u8>,
    },
    /// CK_ECDH1_DERIVE_PARAMS.
    Ecdh {
        kdf: CK_EC_KDF_TYPE,
        shared: Vec<u8>,
        public: Vec<u8>,
    },
    /// The initial value of an AES key wrap.
    Initial(Vec<u8>),
    /// CK_RSA_AES_KEY_WRAP_PARAMS.
    RsaAes {
        bits: CK_ULONG,
        oaep: Box<Parameter>,
    },
    /// Something of another size.
    Other,
}

pub(crate) fn hash_of(kind: CK_MECHANISM_TYPE) -> Option<Hash> {
    match kind {
        CKM_SHA_1 => Some(Hash::Sha1),
        CKM_SHA256 => Some(Hash::Sha256),
        CKM_SHA384 => Some(Hash::Sha384),
        CKM_SHA512 => Some(Hash::Sha512),
        _ => None,
    }
}

pub(crate) fn mgf1(hash: Hash) -> CK_RSA_PKCS_MGF_TYPE {
    match hash {
        Hash::Sha1 => CKG_MGF1_SHA1,
        Hash::Sha256 => CKG_MGF1_SHA256,
        Hash::Sha384 => CKG_MGF1_SHA384,
        Hash::Sha512 => CKG_MGF1_SHA512,
    }
}
