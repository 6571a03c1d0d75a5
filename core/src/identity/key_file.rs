//! Reads private keys from files, for all key types that the module can use in memory.

use super::IdentityError;
use crate::file;
use crate::key::PrivateKeyInfo;
use crate::store::Key;
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// The largest size of a key file, in bytes.
const LARGEST: u64 = 16 << 10;

/// The reason why a file gives no private key.
#[derive(Debug)]
pub(super) enum KeyFileError {
    /// The file cannot be opened or read.
    File(io::Error),
    /// The file holds no supported private key.
    NoKey(String),
}

/// Reads the first private key of a PEM file.
pub(super) fn read_key(path: &Path) -> Result<Key, KeyFileError> {
    let pem = file::read(path, LARGEST).map_err(KeyFileError::File)?;
    let key = PrivateKeyInfo::from_pem(&Zeroizing::new(pem)).map_err(KeyFileError::NoKey)?;
    Key::in_clear(key).map_err(|why| KeyFileError::NoKey(why.into()))
}

impl KeyFileError {
    /// Returns true if the user of this process has no permission to read the file, which may hold
    /// a key.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self, Self::File(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    pub(super) fn at(&self, path: &Path) -> String {
        let place = path.display();
        match self {
            Self::File(error) => format!("{place}: {error}"),
            Self::NoKey(why) => format!("{place}: {why}"),
        }
    }

    pub(super) fn fault(self, path: &Path) -> IdentityError {
        match self {
            Self::File(error) => IdentityError::file(path)(error),
            Self::NoKey(_) => IdentityError::failed(self.at(path)),
        }
    }
}
