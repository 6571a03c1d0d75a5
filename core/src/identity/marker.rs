//! The marker file `tpm_in_use`. If it exists, the identity `devid` is in the TPM. The file also
//! names the key, so that devid notices a wrong marker. Other programs read the marker. For devid,
//! the marker only shows that the TPM had an identity before.

use super::IdentityError;
use crate::file;
use crate::key::{from_hex, hex};
use serde::Deserialize;
use std::io::ErrorKind;
use std::path::Path;

/// The largest size of a marker file, in bytes.
const LARGEST: u64 = 4096;

/// The content of a marker file. The marker file of another program may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MarkerFile {
    /// The persistent handle of the key `devid`.
    pub(super) handle: Option<u32>,
    /// The TPM name of the key `devid`.
    pub(super) name: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct MarkerText {
    handle: Option<String>,
    name: Option<String>,
}

impl MarkerFile {
    /// Reads the marker. Returns `None` if the file does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let content = match file::read(path, LARGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(IdentityError::file(path))?,
        };
        let text = String::from_utf8(content).unwrap_or_default();
        // A marker file without valid content still counts, because other programs create an empty
        // file.
        let written = toml::from_str::<MarkerText>(&text).ok();
        let handle = written.as_ref().and_then(|written| {
            let digits = written.handle.as_ref()?.strip_prefix("0x")?;
            u32::from_str_radix(digits, 16).ok()
        });
        let name = written.and_then(|written| from_hex(&written.name?));
        Ok(Some(Self { handle, name }))
    }

    /// Writes the marker file. devid writes it at each start of the device.
    pub(super) fn write(&self, path: &Path) -> Result<(), IdentityError> {
        let mut text = String::from("# The device's identity is in the TPM. Written by devid.\n");
        if let Some(handle) = self.handle {
            text.push_str(&format!("handle = \"0x{handle:08X}\"\n"));
        }
        if let Some(name) = &self.name {
            text.push_str(&format!("name = \"{}\"\n", hex(name)));
        }
        file::write(path, text.as_bytes(), 0o644).map_err(IdentityError::file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_and_any_file_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tpm_in_use");
        assert_eq!(MarkerFile::read(&path), Ok(None));
        let mark = MarkerFile {
            handle: Some(0x8100_0100),
            name: Some(vec![0, 11, 7]),
        };
        mark.write(&path).unwrap();
        assert_eq!(MarkerFile::read(&path), Ok(Some(mark)));
        for other in ["", "garbage\u{0}", "handle = 7", "name = \"xyz\""] {
            std::fs::write(&path, other).unwrap();
            assert_eq!(
                MarkerFile::read(&path),
                Ok(Some(MarkerFile::default())),
                "{other:?}"
            );
        }
        assert!(MarkerFile::read(folder.path()).is_err());
    }
}
