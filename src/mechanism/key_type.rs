//! The types of keys in a TPM, and what their mechanisms do (PKCS#11 3.0, section 4.7).

use crate::mechanism::derive::Agreement;
use crate::mechanism::encrypt::Cipher;
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::store::folder::Use;

/// The type of a key (CKA_KEY_TYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Ec,
    Rsa,
}

impl KeyType {
    pub(crate) const ALL: [Self; 2] = [Self::Ec, Self::Rsa];

    pub(crate) const fn of(public: &PublicKey) -> Self {
        match public {
            PublicKey::Ec { .. } => Self::Ec,
            PublicKey::Rsa { .. } => Self::Rsa,
        }
    }

    /// CKK_…
    pub(crate) const fn number(self) -> CK_KEY_TYPE {
        match self {
            Self::Ec => CKK_EC,
            Self::Rsa => CKK_RSA,
        }
    }

    /// CKM_…_KEY_PAIR_GEN
    pub(crate) const fn generator(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Ec => CKM_EC_KEY_PAIR_GEN,
            Self::Rsa => CKM_RSA_PKCS_KEY_PAIR_GEN,
        }
    }

    /// What C_GetMechanismInfo says of all mechanisms for such keys.
    pub(crate) const fn mechanism_flags(self) -> CK_FLAGS {
        match self {
            Self::Ec => CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS,
            Self::Rsa => 0,
        }
    }

    /// The mechanisms of those that decrypt or agree on secrets.
    pub(crate) const fn opening_mechanisms(self) -> &'static [CK_MECHANISM_TYPE] {
        match self {
            Self::Ec => &Agreement::KINDS,
            Self::Rsa => &Cipher::KINDS,
        }
    }

    /// What C_GetMechanismInfo says of these mechanisms.
    pub(crate) const fn opening_flags(self) -> CK_FLAGS {
        match self {
            Self::Ec => CKF_DERIVE,
            Self::Rsa => CKF_DECRYPT | CKF_ENCRYPT,
        }
    }

    /// The use that these mechanisms are for.
    pub(crate) const fn opening_use(self) -> Use {
        match self {
            Self::Ec => Use::Derive,
            Self::Rsa => Use::Decrypt,
        }
    }

    /// The uses that such a private key can have, if its TPM lets it.
    pub(crate) const fn private_uses(self) -> &'static [Use] {
        match self {
            Self::Ec => &[Use::Sign, Use::Derive],
            Self::Rsa => &[Use::Sign, Use::Decrypt, Use::Unwrap],
        }
    }

    /// The uses that such a public key can have.
    pub(crate) const fn public_uses(self) -> &'static [Use] {
        match self {
            Self::Ec => &[Use::Verify],
            Self::Rsa => &[Use::Verify, Use::Encrypt],
        }
    }
}
