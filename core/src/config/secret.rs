//! Secrets in the configuration: `hex:…`, `file:/…` or `credential:…`.

use crate::file;
use crate::tpm::Secret;
use crate::trust::{Distrust, distrusted};
use log::warn;
use rustix::fs::stat;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The maximum size of an authorisation value in a TPM: the size of its longest digest.
const LARGEST: u64 = 64;
const WORLD_READS: u32 = 0o004;
/// The number of bytes that are read in addition: a newline, and some text for the error message.
const LEFT_OVER: u64 = 16;

/// The source of a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The configuration contains the secret itself.
    Hex(Secret),
    /// The secret is in a file. A newline (LF) at the end of the file is ignored.
    File(PathBuf),
    /// The secret is in a file of `$CREDENTIALS_DIRECTORY`, where systemd puts the files of
    /// `LoadCredential=` (systemd.exec(5)). A newline at the end of the file is ignored.
    Credential {
        /// The name of the file.
        name: String,
        /// The folder, if the environment variable is set.
        folder: Option<PathBuf>,
    },
}

impl SecretSource {
    /// Sets the folder of credentials.
    pub(super) fn find_in(&mut self, credentials: Option<&Path>) {
        if let Self::Credential { folder, .. } = self {
            *folder = credentials.map(Path::to_owned);
        }
    }

    /// Returns the file of the secret. Returns `None` if the configuration contains the secret.
    ///
    /// # Errors
    ///
    /// Fails if `$CREDENTIALS_DIRECTORY` is not set.
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

    /// Reads the secret now.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing, empty, not a regular file, or too long for an authorisation
    /// value. Fails if other users can write the file. Also fails if the file contains remains of
    /// an editor, or if `$CREDENTIALS_DIRECTORY` is not set.
    pub fn read(&self) -> io::Result<Secret> {
        if let Self::Hex(secret) = self {
            return Ok(secret.clone());
        }
        let path = self.path()?.unwrap_or_default();
        // If another user can write the value, it may be a guess. A wrong value counts towards
        // lockout.
        if let Some(fault) = distrusted(&path) {
            if let Some(errno) = fault.unread {
                return Err(errno.into());
            }
            let why = format!("{fault}, so it is not used");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        if stat(&path).is_ok_and(|about| about.st_mode & WORLD_READS != 0) {
            warn!(
                "{}: all users may read this secret; restrict its mode with chmod o-r",
                path.display()
            );
        }
        let mut secret = Secret::new(file::read(&path, LARGEST + LEFT_OVER)?);
        if secret.last() == Some(&b'\n') {
            secret.pop();
        }
        match left_over(&secret) {
            Some(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            None => Ok(secret),
        }
    }

    /// Returns the file and the reason, if other users could have replaced the secret.
    pub(crate) fn distrusted(&self) -> Option<(PathBuf, Distrust)> {
        let path = self.path().ok()??;
        let fault = distrusted(&path).filter(|fault| fault.unread.is_none())?;
        Some((path, fault))
    }
}

/// Checks that the content of a file is only a secret. Returns the reason if it is not, else
/// `None`. A wrong value counts towards the TPM's lockout, so such a file is refused before a try.
/// Binary contents are accepted unchanged.
#[must_use]
pub fn left_over(secret: &[u8]) -> Option<&'static str> {
    if secret.starts_with(b"\xEF\xBB\xBF") {
        return Some("it begins with a byte order mark, which is not a part of the secret");
    }
    if secret.starts_with(b"\xFF\xFE") || secret.starts_with(b"\xFE\xFF") {
        return Some("it is UTF-16: save it as UTF-8, or give the bytes as hex:");
    }
    if secret.is_empty() {
        return Some("it is empty");
    }
    let text = str::from_utf8(secret).ok();
    let why = text.and_then(|text| match text {
        _ if text.ends_with('\r') => {
            Some("it ends with a carriage return (CRLF, as Windows writes it)")
        }
        _ if text.trim_matches(is_end_of_line).is_empty() => Some("it contains only newlines"),
        _ if text.ends_with('\n') => Some("it ends with more than one newline"),
        _ if text.trim().is_empty() => Some("it contains only blanks"),
        _ if text.starts_with('\n') => Some("it begins with a newline"),
        _ if text.contains(is_end_of_line) => Some("it has more than one line"),
        _ if text.starts_with(char::is_whitespace) => Some("it begins with a blank"),
        _ if text.ends_with(char::is_whitespace) => Some("it ends with a blank"),
        _ if text.contains(char::is_control) => Some("it has a control character"),
        _ if text.contains(is_unseen) => Some("it has an invisible character"),
        _ => None,
    });
    let too_long = || (secret.len() as u64 > LARGEST).then_some("it is longer than 64 bytes");
    why.or_else(too_long)
}

fn is_end_of_line(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}'
    )
}

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The message does not show the text, because the text may be the secret.
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

    /// The file is checked before a try, because a wrong value counts towards the TPM's lockout.
    #[test]
    fn a_file_with_more_than_a_secret_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let source = SecretSource::File(path.clone());
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let secret = source.read();
            secret
                .map(|secret| secret.to_vec())
                .map_err(|why| why.to_string())
        };
        for (content, word) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"\n\n", "newlines"),
            (b"\r\n", "carriage return"),
            (b"  \n", "blanks"),
            (b"1234\r\n", "carriage return"),
            (b"1234\r", "carriage return"),
            (b"1234\n\n", "more than one newline"),
            (b"1234\r\n\r\n", "carriage return"),
            (b"1234\n5678\n", "more than one line"),
            (b"\n1234\n", "begins with a newline"),
            (b"1234\rx", "more than one line"),
            (b"\xEF\xBB\xBF1234\n", "byte order mark"),
            (b"\xFF\xFE1\x002\x003\x004\x00", "UTF-16"),
            (b"1234 \n", "ends with a blank"),
            (b" 1234\n", "begins with a blank"),
            (b"1234\t", "ends with a blank"),
            ("1234\u{A0}\n".as_bytes(), "ends with a blank"),
            (b"1234\0", "control character"),
            (b"12\x1B34", "control character"),
            ("1234\u{200B}".as_bytes(), "invisible character"),
            (&[b'1'; 65], "64 bytes"),
            (&[b'1'; 80], "64 bytes"),
            (&[b'1'; 81], "over 80 bytes"),
            (&[&[b'1'; 64][..], b"\r\n"].concat(), "carriage return"),
        ] {
            let why = read(content).expect_err(&format!("{content:?}"));
            assert!(why.contains(word), "{content:?}: {why}");
            assert!(!why.contains("123") && !why.contains("111"), "{why}");
        }
        let longest = [&[b'1'; 64][..], b"\n"].concat();
        for (content, secret) in [
            (&b"1234"[..], &b"1234"[..]),
            (b"1234\n", b"1234"),
            (b"open sesame\n", b"open sesame"),
            ("Gr\u{FC}\u{DF}e\n".as_bytes(), "Gr\u{FC}\u{DF}e".as_bytes()),
            (&longest, &longest[..64]),
            // In binary content each byte is a part of the secret.
            (b"\x80\x81\r", b"\x80\x81\r"),
            (b"\x80 \n", b"\x80 "),
        ] {
            assert_eq!(read(content).as_deref(), Ok(secret));
        }
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
