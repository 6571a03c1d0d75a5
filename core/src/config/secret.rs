//! Secrets that the configuration names: `hex:…`, `file:/…` or `credential:…`.

use crate::file;
use crate::tpm::Secret;
use crate::trust::{Distrust, distrusted};
use log::warn;
use rustix::fs::stat;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// No authorisation value of a TPM is longer than its widest digest.
const LARGEST: u64 = 64;
const WORLD_READS: u32 = 0o004;

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration itself.
    Hex(Secret),
    /// The content of a file; one newline at its end does not count.
    File(PathBuf),
    /// The content of a file in `$CREDENTIALS_DIRECTORY`, where systemd puts what
    /// `LoadCredential=` names (systemd.exec(5)); the same of newlines.
    Credential {
        /// The file.
        name: String,
        /// The folder, if the environment names it.
        folder: Option<PathBuf>,
    },
}

impl SecretSource {
    /// Says where credentials are.
    pub(super) fn find_in(&mut self, credentials: Option<&Path>) {
        if let Self::Credential { folder, .. } = self {
            *folder = credentials.map(Path::to_owned);
        }
    }

    /// The file that the secret is in; `None` where the configuration itself has it.
    ///
    /// # Errors
    ///
    /// No `$CREDENTIALS_DIRECTORY`.
    pub fn path(&self) -> io::Result<Option<PathBuf>> {
        Ok(match self {
            Self::Hex(_) => None,
            Self::File(path) => Some(path.clone()),
            Self::Credential { name, folder } => {
                let none = || io::Error::new(io::ErrorKind::NotFound, "no $CREDENTIALS_DIRECTORY");
                Some(folder.as_ref().ok_or_else(none)?.join(name))
            }
        })
    }

    /// The secret as it is now.
    ///
    /// # Errors
    ///
    /// A file that others may write, that is missing, empty, no regular file or longer than any authorisation value; no
    /// `$CREDENTIALS_DIRECTORY`.
    pub fn read(&self) -> io::Result<Secret> {
        if let Self::Hex(secret) = self {
            return Ok(secret.clone());
        }
        let path = self.path()?.unwrap_or_default();
        // What others put there may be a guess, and a wrong one counts.
        if let Some(fault) = distrusted(&path) {
            let why = format!("{fault}, so it is not used");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        if stat(&path).is_ok_and(|about| about.st_mode & WORLD_READS != 0) {
            warn!("{}: everybody may read this secret", path.display());
        }
        // One more for the newline.
        let mut secret = Secret::new(file::read(&path, LARGEST + 1)?);
        if secret.last() == Some(&b'\n') {
            secret.pop();
        }
        match secret.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, "empty")),
            false => Ok(secret),
        }
    }

    /// Where it is and who could have put another there, if anybody could.
    pub(crate) fn distrusted(&self) -> Option<(PathBuf, Distrust)> {
        let path = self.path().ok()??;
        distrusted(&path).map(|fault| (path, fault))
    }
}

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Without the text: it may be the secret.
        let wrong = || "expected hex:DIGITS, file:/absolute/path or credential:NAME".to_owned();
        match text.split_once(':').ok_or_else(wrong)? {
            ("hex", digits) => match bytes_of(digits) {
                Some(secret) if (1..=LARGEST).contains(&(secret.len() as u64)) => {
                    Ok(Self::Hex(secret))
                }
                _ => Err("expected 1 to 64 bytes in hexadecimal digits after hex:".into()),
            },
            ("file", path) if Path::new(path).is_absolute() => Ok(Self::File(path.into())),
            ("credential", name) if !name.is_empty() && !name.contains('/') => {
                Ok(Self::Credential {
                    name: name.to_owned(),
                    folder: None,
                })
            }
            _ => Err(wrong()),
        }
    }
}

fn bytes_of(digits: &str) -> Option<Secret> {
    let pairs = (0..digits.len()).step_by(2);
    let bytes = pairs.map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>().map(Secret::new)
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hex(_) => f.write_str("hex:…"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential { name, .. } => write!(f, "credential:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pin"), "secret\n").unwrap();
        for text in [
            "hex:736563726574".to_owned(),
            "credential:pin".to_owned(),
            format!("file:{}/pin", folder.path().display()),
        ] {
            let mut source: SecretSource = text.parse().unwrap();
            source.find_in(Some(folder.path()));
            assert_eq!(**source.read().unwrap(), *b"secret", "{text}");
        }
        let credential: SecretSource = "credential:pin".parse().unwrap();
        assert!(credential.read().is_err());
    }

    #[test]
    fn what_names_no_secret_is_refused_without_being_shown() {
        for text in [
            "secret",
            "hex:",
            "hex:1",
            "hex:zz",
            "file:pin",
            "credential:../pin",
            "",
        ] {
            let fault = text.parse::<SecretSource>().unwrap_err();
            assert!(
                !fault.contains("secret") && !fault.contains("zz"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_secret_is_not_in_what_is_printed() {
        let source: SecretSource = "hex:736563726574".parse().unwrap();
        assert_eq!(format!("{source:?}"), "hex:…");
    }
}
