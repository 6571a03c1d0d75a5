//! The errors of a store of own keys.

use crate::key::{Curve, PublicKey};
use crate::store::folder::FolderError;
use crate::tpm::{KeyAlgorithm, ResponseCode, TpmError};
use std::fmt;

/// The reason why an operation of the store failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The TPM or the connection to it failed.
    Tpm(TpmError),
    /// The key folder or one of its files caused an error.
    Folder(FolderError),
    /// The TPM does not have the master key that wraps the keys of this folder. The TPM was cleared
    /// or exchanged. The text names the remedy.
    OtherTpm(String),
    /// The TPM or this store does not support keys of the requested type or size.
    Unsupported(String),
    /// The TPM does not support this curve.
    NoCurve(String),
    /// This token cannot store the key in the requested form: wrapped, sealed or in clear.
    Protection(String),
    /// The numbers of a private key do not form a valid key.
    BadKey(String),
    /// The TPM has no room for another persistent key.
    NoRoom(String),
    /// The token needs a login first.
    NotLoggedIn,
    /// The object was destroyed in the meantime, or is not an object of the expected type.
    Gone,
}

impl StoreError {
    /// Translates an error of a command that creates a key. If the TPM refuses a parameter, it does
    /// not support the requested kind of key.
    pub(super) fn of_making(error: TpmError) -> Self {
        match error {
            TpmError::Response(code) if code.is_no_room() => Self::NoRoom(code.to_string()),
            TpmError::Response(code) if code.is_parameter() => Self::Unsupported(format!(
                "the TPM cannot create a key of this kind: it returned {code}"
            )),
            other => Self::Tpm(other),
        }
    }

    /// Translates an error as [`of_making`](Self::of_making) does. Knows the algorithm, and so
    /// reports a curve that the TPM does not support.
    pub(super) fn of_making_a(algorithm: KeyAlgorithm, error: TpmError) -> Self {
        match (algorithm, error) {
            (KeyAlgorithm::Ec(curve), TpmError::Response(code)) if code.is_unsupported_value() => {
                Self::no_curve(curve, code)
            }
            (_, error) => Self::of_making(error),
        }
    }

    fn no_curve(curve: Curve, code: ResponseCode) -> Self {
        Self::NoCurve(format!(
            "the TPM does not support the curve {curve:?}: it returned {code}. devid doctor lists \
             the supported curves"
        ))
    }

    /// Translates an error of TPM2_Import. The TPM checks the key and refuses invalid keys.
    pub(super) fn of_import(key: &PublicKey, error: TpmError) -> Self {
        match error {
            TpmError::Response(code) if code.is_unsupported_curve() => match key {
                PublicKey::Ec { curve, .. } => Self::no_curve(*curve, code),
                PublicKey::Rsa { .. } => Self::Tpm(error),
            },
            TpmError::Response(code) if code.is_unsupported_value() => Self::Unsupported(format!(
                "the TPM cannot import a key of this kind: it returned {code}"
            )),
            TpmError::Response(code) if code.is_parameter() => Self::BadKey(format!(
                "the TPM refuses the key as invalid: it returned {code}"
            )),
            other => Self::Tpm(other),
        }
    }
}

impl From<TpmError> for StoreError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<FolderError> for StoreError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Gone(_) => Self::Gone,
            other => Self::Folder(other),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tpm(error @ TpmError::OwnerAuth) => {
                write!(
                    f,
                    "{error}: set owner_auth under [master] in config.toml to its source"
                )
            }
            Self::Tpm(error) => crate::store::Advised(error).fmt(f),
            Self::Folder(error) => error.fmt(f),
            Self::OtherTpm(why)
            | Self::Unsupported(why)
            | Self::NoCurve(why)
            | Self::Protection(why)
            | Self::BadKey(why)
            | Self::NoRoom(why) => f.write_str(why),
            Self::NotLoggedIn => f.write_str("the token needs a login of the user first"),
            Self::Gone => f.write_str("the object does not exist any more"),
        }
    }
}

impl std::error::Error for StoreError {}
