//! Private keys in files of their own, of every kind that is used in memory.

use super::IdentityError;
use crate::file;
use crate::key::PrivateKeyInfo;
use crate::store::Key;
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// More bytes than a key file has.
const LARGEST: u64 = 16 << 10;

/// Why a file gives no key.
#[derive(Debug)]
pub(super) enum KeyFileError {
    /// It cannot be read.
    File(io::Error),
    /// It holds something else.
    NoKey(String),
}

/// The first private key of a PEM file.
pub(super) fn read_key(path: &Path) -> Result<Key, KeyFileError> {
    let pem = file::read(path, LARGEST).map_err(KeyFileError::File)?;
    let key = PrivateKeyInfo::from_pem(&Zeroizing::new(pem)).map_err(KeyFileError::NoKey)?;
    Key::in_clear(key).map_err(|why| KeyFileError::NoKey(why.into()))
}

impl KeyFileError {
    /// True if there may be a key that this user is not to read.
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
