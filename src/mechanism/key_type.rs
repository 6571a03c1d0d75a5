//! Types of keys (PKCS#11 3.0, section 4.7).

use cryptoki_sys::*;
use devid_core::key::{PublicKey, SecretKeyType};
use devid_core::store::folder::Use;
use devid_core::tpm::KeyKind;

/// The type of a key (CKA_KEY_TYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Ec,
    Rsa,
    Aes,
    GenericSecret,
}

impl KeyType {
    /// Returns the key type with this number (CKK_…). Returns `None` if the module supports no keys
    /// of this type.
    pub(crate) fn from_number(number: CK_KEY_TYPE) -> Option<Self> {
        let all = [Self::Ec, Self::Rsa, Self::Aes, Self::GenericSecret];
        all.into_iter().find(|one| one.number() == number)
    }

    pub(crate) const fn from_public(public: &PublicKey) -> Self {
        match public {
            PublicKey::Ec { .. } => Self::Ec,
            PublicKey::Rsa { .. } => Self::Rsa,
        }
    }

    pub(crate) const fn of_secret(key_type: SecretKeyType) -> Self {
        match key_type {
            SecretKeyType::Aes => Self::Aes,
            SecretKeyType::GenericSecret => Self::GenericSecret,
        }
    }

    /// Maps CKK_AES and the other secret key types to the type in the store. Returns `None` for CKK_EC and
    /// CKK_RSA.
    pub(crate) const fn secret(self) -> Option<SecretKeyType> {
        match self {
            Self::Ec | Self::Rsa => None,
            Self::Aes => Some(SecretKeyType::Aes),
            Self::GenericSecret => Some(SecretKeyType::GenericSecret),
        }
    }

    /// Returns the number of the type (CKK_…).
    pub(crate) const fn number(self) -> CK_KEY_TYPE {
        match self {
            Self::Ec => CKK_EC,
            Self::Rsa => CKK_RSA,
            Self::Aes => CKK_AES,
            Self::GenericSecret => CKK_GENERIC_SECRET,
        }
    }

    /// Returns the TPM's type of key for this type. Returns `None` if the TPM does not make such
    /// keys.
    pub(crate) const fn kind_in_tpm(self) -> Option<KeyKind> {
        match self {
            Self::Ec => Some(KeyKind::Ec),
            Self::Rsa => Some(KeyKind::Rsa),
            Self::Aes | Self::GenericSecret => None,
        }
    }

    /// Returns the uses that a private key of this type can have. The attributes of the key in the
    /// TPM may permit fewer uses.
    pub(crate) const fn private_uses(self) -> &'static [Use] {
        match self {
            Self::Ec => &[Use::Sign, Use::Derive],
            Self::Rsa => &[Use::Sign, Use::Decrypt, Use::Unwrap],
            Self::Aes | Self::GenericSecret => &[],
        }
    }

    /// Returns the uses that a secret key of this type can have.
    pub(crate) const fn secret_uses(self) -> &'static [Use] {
        match self {
            Self::Ec | Self::Rsa => &[],
            Self::Aes => &[Use::Encrypt, Use::Decrypt, Use::Unwrap],
            Self::GenericSecret => &[Use::Sign, Use::Verify, Use::Unwrap],
        }
    }

    /// Returns the uses that a public key of this type can have. CKA_DERIVE means that another
    /// private key may agree on a secret with this public key. No function of the module needs that
    /// flag.
    pub(crate) const fn public_uses(self) -> &'static [Use] {
        match self {
            Self::Ec => &[Use::Verify, Use::Derive],
            Self::Rsa => &[Use::Verify, Use::Encrypt],
            Self::Aes | Self::GenericSecret => &[],
        }
    }
}
