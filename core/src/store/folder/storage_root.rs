//! The file `.storage-root` in the key folder, which records the TPM's storage root key (SRK).

use super::write::Writer;
use super::{FolderError, KeyFolder};
use crate::key::hex;
use crate::shell::word;
use crate::tpm::{RecordError, StorageRootRecord};
use std::path::{Path, PathBuf};

/// The file `.storage-root`, which records the storage root key in hexadecimal digits.
const ROOT: &str = ".storage-root";

impl StorageRootRecord for KeyFolder {
    fn path(&self) -> PathBuf {
        self.path.join(ROOT)
    }

    fn accepting(&self) -> String {
        let path = self.path.join(ROOT);
        let mut aside = path.clone().into_os_string();
        aside.push(".old");
        format!(
            "Only if you know why the storage root key changed: mv -T {} {} (then the current \
             storage root key is trusted and recorded)",
            word(&path),
            word(Path::new(&aside))
        )
    }

    fn recall(&self) -> Result<Option<Vec<u8>>, RecordError> {
        match self.own_file(ROOT, |digits| !digits.is_empty()) {
            // A user without permission to read the folder cannot use its keys either.
            Err(FolderError::Permission(_)) => Ok(None),
            Err(error @ FolderError::Damaged { .. }) => {
                Err(RecordError::Damaged(error.to_string()))
            }
            other => other.map_err(|error| RecordError::Unread(error.to_string())),
        }
    }

    fn master(&self) -> Option<Vec<u8>> {
        KeyFolder::master(self).ok().flatten()
    }

    fn keep(&self, content: &[u8]) -> Result<bool, String> {
        let text = format!("{}\n", hex(content));
        let kept = match Writer::open(&self.path, self.patience) {
            Ok(Some(writer)) => writer.replace(ROOT, text.as_bytes()),
            Ok(None) => return Ok(false),
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => Ok(true),
            // A user who only uses keys may lack the permission to write the file `.storage-root`.
            Err(FolderError::Permission(_) | FolderError::ReadOnly(_)) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn forget(&self) -> Result<(), String> {
        self.delete_own(ROOT).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    /// A damaged file gives another error than a file that cannot be read.
    #[test]
    fn what_cannot_be_read_is_not_damaged() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys");
        let folder = KeyFolder::new(path.clone());
        assert_eq!(folder.recall(), Ok(None));
        std::fs::create_dir(&path).unwrap();
        assert!(folder.keep(&[0, 7]).unwrap());
        assert_eq!(folder.recall(), Ok(Some(vec![0, 7])));
        write(path.join(ROOT), "no digits").unwrap();
        assert!(matches!(folder.recall(), Err(RecordError::Damaged(_))));
        set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(folder.recall(), Err(RecordError::Unread(_))));
        set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        std::fs::remove_file(path.join(ROOT)).unwrap();
        std::fs::create_dir(path.join(ROOT)).unwrap();
        assert!(folder.recall().is_err());
    }
}
