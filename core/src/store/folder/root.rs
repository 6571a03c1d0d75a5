//! What the folder remembers of the TPM's storage root key, beside the master key.

use super::write::Writer;
use super::{FolderError, KeyFolder};
use crate::key::hex;
use crate::shell::word;
use crate::tpm::RootRecord;
use std::path::{Path, PathBuf};

/// In hexadecimal digits.
const ROOT: &str = ".storage-root";

impl RootRecord for KeyFolder {
    fn path(&self) -> PathBuf {
        self.path.join(ROOT)
    }

    fn accepting(&self) -> String {
        let path = self.path.join(ROOT);
        let mut aside = path.clone().into_os_string();
        aside.push(".old");
        format!(
            "Only if you know why: mv -T {} {} (then the key that the TPM has now counts, and is \
             remembered)",
            word(&path),
            word(Path::new(&aside))
        )
    }

    fn recall(&self) -> Result<Option<Vec<u8>>, String> {
        match self.own_file(ROOT, |digits| !digits.is_empty()) {
            // Whoever may not read the folder uses none of its keys either.
            Err(FolderError::Permission(_)) => Ok(None),
            other => other.map_err(|error| error.to_string()),
        }
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
            // Who may only use keys need not be able to write.
            Err(FolderError::Permission(_) | FolderError::ReadOnly(_)) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn forget(&self) -> Result<(), String> {
        self.delete_own(ROOT).map_err(|error| error.to_string())
    }
}
