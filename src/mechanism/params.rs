//! The parameters that callers pass with a mechanism (PKCS#11 3.0, sections 6.1.7, 6.1.9, 6.1.23,
//! 6.3.15 and 6.16).

use cryptoki_sys::*;
use devid_core::tpm::Hash;

/// The C type of a mechanism's parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    None,
    /// CK_RSA_PKCS_PSS_PARAMS
    Pss,
    /// CK_RSA_PKCS_OAEP_PARAMS
    Oaep,
    /// CK_ECDH1_DERIVE_PARAMS
    Ecdh,
    /// The initial value of an AES key wrap. The caller may omit it.
    Initial,
    /// CK_RSA_AES_KEY_WRAP_PARAMS
    RsaAes,
    /// The initialisation vector of CBC.
    Iv,
    /// CK_GCM_PARAMS
    Gcm,
    /// CK_MAC_GENERAL_PARAMS
    CodeLength,
}

/// The parameter of a mechanism that the caller gave.
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
    /// The initialisation vector of CBC.
    Iv([u8; 16]),
    /// CK_GCM_PARAMS.
    Gcm {
        iv: Vec<u8>,
        aad: Vec<u8>,
        tag_bits: CK_ULONG,
    },
    /// CK_MAC_GENERAL_PARAMS: the length of the message authentication code in bytes.
    CodeLength(CK_ULONG),
    /// A parameter that does not have the mechanism's [`Shape`].
    Other,
}

/// Returns CKG_MGF1_…, the mask generation function with this hash.
pub(crate) fn mgf1(hash: Hash) -> CK_RSA_PKCS_MGF_TYPE {
    match hash {
        Hash::Sha1 => CKG_MGF1_SHA1,
        Hash::Sha256 => CKG_MGF1_SHA256,
        Hash::Sha384 => CKG_MGF1_SHA384,
        Hash::Sha512 => CKG_MGF1_SHA512,
    }
}
