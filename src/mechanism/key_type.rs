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
    /// The type that a number names; `None` for a type that no key here has.
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

    /// The type of a secret key as the store has it; `None` for a type of key pairs.
    pub(crate) const fn secret(self) -> Option<SecretKeyType> {
        match self {
            Self::Ec | Self::Rsa => None,
            Self::Aes => Some(SecretKeyType::Aes),
            Self::GenericSecret => Some(SecretKeyType::GenericSecret),
        }
    }

    /// CKK_…
    pub(crate) const fn number(self) -> CK_KEY_TYPE {
        match self {
            Self::Ec => CKK_EC,
            Self::Rsa => CKK_RSA,
            Self::Aes => CKK_AES,
            Self::GenericSecret => CKK_GENERIC_SECRET,
        }
    }

    /// The TPM's kind of such a key; `None` for keys that the TPM does not make.
    pub(crate) const fn kind_in_tpm(self) -> Option<KeyKind> {
        match self {
            Self::Ec => Some(KeyKind::Ec),
            Self::Rsa => Some(KeyKind::Rsa),
            Self::Aes | Self::GenericSecret => None,
        }
    }

    /// The uses that such a private key can have, if its TPM lets it.
    pub(crate) const fn private_uses(self) -> &'static [Use] {
        match self {
            Self::Ec => &[Use::Sign, Use::Derive],
            Self::Rsa => &[Use::Sign, Use::Decrypt, Use::Unwrap],
            Self::Aes | Self::GenericSecret => &[],
        }
    }

    /// The uses that such a secret key can have.
    pub(crate) const fn secret_uses(self) -> &'static [Use] {
        match self {
            Self::Ec | Self::Rsa => &[],
            Self::Aes => &[Use::Encrypt, Use::Decrypt, Use::Unwrap],
            Self::GenericSecret => &[Use::Sign, Use::Verify, Use::Unwrap],
        }
    }

    /// The uses that such a public key can have. CKA_DERIVE says that the other side's key may agree with
    /// it; nothing here is done by it.
    pub(crate) const fn public_uses(self) -> &'static [Use] {
        match self {
            Self::Ec => &[Use::Verify, Use::Derive],
            Self::Rsa => &[Use::Verify, Use::Encrypt],
            Self::Aes | Self::GenericSecret => &[],
        }
    }
}
