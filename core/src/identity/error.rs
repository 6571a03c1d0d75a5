//! Errors of operations on identities. Each error has a kind, so that callers can distinguish them.

use crate::config::ConfigError;
use crate::store::devid::StoreError;
use crate::store::folder::FolderError;
use crate::store::{Advised, LoginError, ScanError, SignError};
use crate::tpm::TpmError;
use crate::x509::IssueError;
use std::fmt;
use std::io;
use std::path::Path;

/// The reason why an operation failed, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityError {
    /// The kind of the error.
    pub kind: IdentityErrorKind,
    /// The error message.
    pub text: String,
}

/// The kind of an error, from which `devid` derives its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityErrorKind {
    /// The operation failed.
    Failed,
    /// The user of this process has no permission for the operation.
    Denied,
    /// The command line or an argument was wrong.
    Usage,
    /// The TPM does not answer or does not work.
    Tpm,
    /// No key or certificate has the given name.
    NotFound,
    /// The operation was refused, because it would do harm.
    Refused,
}

impl IdentityError {
    /// Creates an error with its kind and message.
    pub fn new(kind: IdentityErrorKind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, text }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(IdentityErrorKind::Failed, text)
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(IdentityErrorKind::Refused, text)
    }

    pub(crate) fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    ": run devid as root, or as a user with the permission"
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    ": under systemd, add the path to ReadWritePaths= of the unit"
                }
                _ => "",
            };
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => IdentityErrorKind::Denied,
                _ => IdentityErrorKind::Failed,
            };
            Self::new(kind, format!("{}: {error}{hint}", path.display()))
        }
    }

    fn asks_for_pin() -> Self {
        Self::failed(
            "the key needs a PIN. Set pin = \"file:/PATH\" or \"credential:NAME\" in config.toml, \
             under the [[token]] of the key (name = \"devid\" for the device's own key). For a \
             factory key set auth under [[identity]]. devid csr and devid verify also take the PIN \
             by --pin-file FILE",
        )
    }

    /// Returns this error, preceded by the action that failed.
    #[must_use]
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Self {
        let text = format!("{what}: {}", self.text);
        Self { text, ..self }
    }
}

impl From<TpmError> for IdentityError {
    fn from(error: TpmError) -> Self {
        let kind = match &error {
            TpmError::Unreachable(_)
            | TpmError::Broken(_)
            | TpmError::WrongAnswer(_)
            | TpmError::Timeout(_)
            | TpmError::Busy(_) => IdentityErrorKind::Tpm,
            TpmError::Response(code) if code.is_out_of_order() => IdentityErrorKind::Tpm,
            _ => IdentityErrorKind::Failed,
        };
        let next = match &error {
            TpmError::OwnerAuth => {
                "; set owner_auth = \"file:/PATH\" or \"credential:NAME\" under [master] in \
                 config.toml"
            }
            TpmError::Busy(_) => "; run the command again when the other key is made",
            TpmError::Response(_) => "; devid doctor shows the state of the TPM and the remedy",
            _ => "",
        };
        Self::new(kind, format!("{}{next}", Advised(&error)))
    }
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Tpm(error) => error.into(),
            StoreError::Gone => Self::new(
                IdentityErrorKind::NotFound,
                "the object does not exist any more",
            ),
            StoreError::OtherTpm(why) => Self::refused(why),
            StoreError::NotLoggedIn => Self::asks_for_pin(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<LoginError> for IdentityError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Tpm(error) => error.into(),
            LoginError::Store(error) => error.into(),
            LoginError::Wrong => Self::failed(
                "wrong PIN (pin under [[token]]). The PIN is not tried again until it changes, \
                 because each wrong try counts towards the TPM's lockout. Correct the PIN",
            ),
            other => Self::failed(format!("[[token]] pin: {other}")),
        }
    }
}

impl From<FolderError> for IdentityError {
    fn from(error: FolderError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<SignError> for IdentityError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Tpm(error) => error.into(),
            SignError::NotLoggedIn => Self::asks_for_pin(),
            SignError::Refused(_) | SignError::Unloadable(_) => Self::failed(format!(
                "{error}. Other keys are not affected; devid doctor names the remedy"
            )),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<ScanError> for IdentityError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Tpm(error) => error.into(),
            ScanError::NoIdentity(why) => Self::new(IdentityErrorKind::NotFound, why),
            ScanError::Folder(why) | ScanError::Unread(why) => Self::failed(why),
        }
    }
}

impl From<IssueError> for IdentityError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Subject(why) => Self::new(IdentityErrorKind::Usage, why),
            IssueError::Failed(why) => Self::failed(why),
        }
    }
}

impl From<ConfigError> for IdentityError {
    fn from(error: ConfigError) -> Self {
        Self::failed(error.to_string())
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for IdentityError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::ResponseCode;

    /// The exit code tells that the TPM caused the error.
    #[test]
    fn a_tpm_that_is_out_of_order_is_the_tpms_fault() {
        let kind = |code| IdentityError::from(TpmError::Response(ResponseCode(code))).kind;
        assert_eq!([0x100, 0x101].map(kind), [IdentityErrorKind::Tpm; 2]);
        assert_eq!([0x921, 0x9A2].map(kind), [IdentityErrorKind::Failed; 2]);
    }
}
