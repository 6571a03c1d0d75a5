//! The errors of a store.

use super::advice::{Advised, WAIT};
use super::devid::StoreError;
use crate::tpm::{Tcti, TpmError};
use std::fmt;

/// The reason why a scan does not return the objects of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanError {
    /// The TPM or the connection to it failed. The result of an earlier scan remains valid.
    Tpm(TpmError),
    /// The TPM answered every command, and holds no certificate of an identity. The text names the
    /// searched places.
    NoIdentity(String),
    /// The key folder as a whole is damaged or not trustworthy.
    Folder(String),
    /// A file that the scan needs could not be read. The error is already in the log.
    Unread(String),
}

/// The reason why a login failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// The PIN is wrong. The TPM has counted the attempt towards lockout.
    Wrong,
    /// The token holds objects but was never initialised, so it has no PIN. No PIN was tried.
    NotEmpty,
    /// The length of the PIN is not permitted.
    Length,
    /// The PIN was not tried. A wrong PIN would put this TPM into lockout, or the TPM is in lockout
    /// already.
    Locked(Tcti),
    /// No PIN was ever set for this user.
    NotInitialized,
    /// Another user must log in first.
    NotLoggedIn,
    /// The operation is refused at present. The text names the cause and the remedy.
    Refused(String),
    /// The key folder or the master key caused an error.
    Store(StoreError),
    /// The TPM or the connection failed.
    Tpm(TpmError),
}

/// The reason why a store cannot use a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The key cannot sign a digest of this length.
    DigestLength(usize),
    /// The key does not sign by this scheme.
    Scheme,
    /// The ciphertext is invalid, its plaintext is invalid, or the peer's point is not on the
    /// curve.
    Ciphertext,
    /// The key needs a login.
    NotLoggedIn,
    /// No user can use the key. The text names the cause.
    Refused(String),
    /// The TPM does not load the key from its file; the text names the cause.
    Unloadable(String),
    /// The TPM does not derive the key of the certificate.
    NotInThisTpm,
    /// The TPM or the connection failed.
    Tpm(TpmError),
}

impl SignError {
    /// Returns the error for a signature that cannot be verified. Another key made the signature,
    /// or the TPM computed it wrongly.
    pub(super) fn unverified(scheme: &str) -> Self {
        let why = format!(
            "the signature ({scheme}) cannot be verified with the public key, so it is discarded: \
             another key signed, or the TPM computes such signatures wrongly. Sign again; if the \
             error repeats, use another mechanism or hash, and report it to the maker of the TPM"
        );
        TpmError::WrongAnswer(why).into()
    }
}

impl From<TpmError> for SignError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DigestLength(bytes) => {
                write!(f, "the key cannot sign a digest of {bytes} bytes")
            }
            Self::Scheme => f.write_str("the key does not support this scheme"),
            Self::NotLoggedIn => f.write_str("the key needs a login of the user first"),
            Self::Ciphertext => f.write_str("the ciphertext cannot be decrypted with this key"),
            Self::Refused(why) | Self::Unloadable(why) => {
                write!(f, "the key cannot be used: {why}")
            }
            Self::NotInThisTpm => {
                f.write_str("this TPM can neither find nor derive the certified key")
            }
            Self::Tpm(error) => Advised(error).fmt(f),
        }
    }
}

impl std::error::Error for SignError {}

impl From<TpmError> for ScanError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tpm(error) => Advised(error).fmt(f),
            Self::NoIdentity(why) | Self::Folder(why) | Self::Unread(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ScanError {}

impl From<StoreError> for LoginError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Tpm(error) => Self::Tpm(error),
            other => Self::Store(other),
        }
    }
}

impl From<TpmError> for LoginError {
    fn from(error: TpmError) -> Self {
        match error {
            TpmError::NoTryLeft(tcti) => Self::Locked(tcti),
            error => Self::Tpm(error),
        }
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong => f.write_str("wrong PIN; the TPM has counted the failed try"),
            Self::NotEmpty => f.write_str(
                "the token holds objects but has no PIN of a security officer, so it is not \
                 initialised; first destroy its objects (devid list, devid key delete)",
            ),
            Self::NotInitialized => f.write_str("this PIN was never set"),
            Self::NotLoggedIn => f.write_str("another user must log in first"),
            Self::Refused(why) => f.write_str(why),
            Self::Store(error) => error.fmt(f),
            Self::Length => f.write_str("the length of the PIN is not permitted"),
            Self::Locked(tcti) => write!(
                f,
                "the PIN was not tried: a wrong PIN would lock the whole TPM, or the TPM is in \
                 lockout already. {WAIT}: {}",
                tcti.clearing_lockout()
            ),
            Self::Tpm(error) => Advised(error).fmt(f),
        }
    }
}

impl std::error::Error for LoginError {}
