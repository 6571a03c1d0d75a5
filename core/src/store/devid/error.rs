//! Why the token did not do what was asked.

use crate::key::{Curve, PublicKey};
use crate::store::folder::FolderError;
use crate::tpm::{KeyAlgorithm, ResponseCode, TpmError};
use std::fmt;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The TPM, or the way to it.
    Tpm(TpmError),
    /// The folder, or one of its files.
    Folder(FolderError),
    /// The TPM does not hold the master key that wraps this folder's keys: it was cleared, or is
    /// another one. The text says what to do.
    OtherTpm(String),
    /// The TPM or this store cannot make or take such a key.
    Unsupported(String),
    /// The TPM has no keys on this curve.
    NoCurve(String),
    /// This token does not keep such a key in the way that is asked for.
    Protection(String),
    /// The numbers of a private key do not belong together.
    BadKey(String),
    /// The TPM has no room for another persistent key.
    NoRoom(String),
    /// The token asks for a login first.
    NotLoggedIn,
    /// The object was destroyed meanwhile, or never was what is asked for.
    Gone,
}

impl StoreError {
    /// Of a command that makes a key: a parameter that the TPM refuses is a key that it cannot make.
    pub(super) fn of_making(error: TpmError) -> Self {
        match error {
            TpmError::Response(code) if code.is_no_room() => Self::NoRoom(code.to_string()),
            TpmError::Response(code) if code.is_parameter() => Self::Unsupported(format!(
                "the TPM cannot make such a key: it answered {code}"
            )),
            other => Self::Tpm(other),
        }
    }

    /// The same of a key of this kind: on a curve that the TPM does not implement.
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
            "the TPM has no keys on the curve {curve:?}: it answered {code}. devid doctor lists the \
             curves that it has"
        ))
    }

    /// Of TPM2_Import: whatever is wrong with the key shows there.
    pub(super) fn of_import(key: &PublicKey, error: TpmError) -> Self {
        match error {
            TpmError::Response(code) if code.is_unsupported_curve() => match key {
                PublicKey::Ec { curve, .. } => Self::no_curve(*curve, code),
                PublicKey::Rsa { .. } => Self::Tpm(error),
            },
            TpmError::Response(code) if code.is_unsupported_value() => Self::Unsupported(format!(
                "the TPM cannot take such a key: it answered {code}"
            )),
            TpmError::Response(code) if code.is_parameter() => {
                Self::BadKey(format!("the TPM does not take the key: {code}"))
            }
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
                    "{error}: the setting owner_auth of [master] must name it"
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
            Self::NotLoggedIn => f.write_str("the token asks for a login first"),
            Self::Gone => f.write_str("the object is gone"),
        }
    }
}

impl std::error::Error for StoreError {}
