//! Sets files aside when their master key is lost. The files keep their content, but get names that
//! are not names of objects. The folder remembers the public areas of former master keys.

use super::names::{file_name, is_lost};
use super::read::OpenFolder;
use super::write::Writer;
use super::{FolderError, KeyFolder, PinSeal};
use crate::key::{from_hex, hex};
use rustix::io::Errno;
use std::path::PathBuf;

/// The file with the TPMT_PUBLIC of each former master key, in hexadecimal digits, one key per
/// line.
const FORMER: &str = ".master.former";

impl KeyFolder {
    /// Renames the file of an object, so that the file is no object any more. Does not change its
    /// content. Returns the new name.
    ///
    /// # Errors
    ///
    /// After an error the file has its old name. Fails for a reason that [`remove`](Self::remove)
    /// has.
    pub fn set_aside(&self, name: &str) -> Result<String, FolderError> {
        self.writer_for(name)?.set_aside(&file_name(name))
    }

    /// Renames the file of a seal, if the seal exists. Returns the new name.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn set_seal_aside(&self, seal: PinSeal) -> Result<Option<String>, FolderError> {
        let Some(writer) = Writer::open(&self.path, self.patience)? else {
            return Ok(None);
        };
        match writer.set_aside(seal.file()) {
            Err(FolderError::Gone(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Returns the paths of all files that were set aside.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub fn lost_files(&self) -> Result<Vec<PathBuf>, FolderError> {
        let fault = |error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            FolderError::at(&self.path)(errno)
        };
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(fault)?,
        };
        let mut lost = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fault)?;
            let is_file = entry.file_type().map_err(fault)?.is_file();
            if is_file && is_lost(&entry.file_name().to_string_lossy()) {
                lost.push(entry.path());
            }
        }
        lost.sort_unstable();
        Ok(lost)
    }

    /// Reads the TPMT_PUBLIC of each former master key.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed.
    pub fn former_masters(&self) -> Result<Vec<Vec<u8>>, FolderError> {
        let Some(folder) = self.noted(OpenFolder::at(&self.path))? else {
            return Ok(Vec::new());
        };
        let content = self.content_of(&folder, FORMER)?.unwrap_or_default();
        let text = String::from_utf8(content).unwrap_or_default();
        let areas = text
            .lines()
            .map(|line| from_hex(line).filter(|area| !area.is_empty()));
        let wrong = "the content is not an even number of hexadecimal digits per line";
        let areas: Option<Vec<_>> = areas.collect();
        areas.ok_or_else(|| self.damaged_own(FORMER, wrong))
    }

    /// Records this master key. Adds the earlier master key to the former ones.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn exchange_master(&self, area: &[u8]) -> Result<(), FolderError> {
        let mut former = self.former_masters()?;
        let known = self.master()?;
        if let Some(known) = known.filter(|known| known != area && !former.contains(known)) {
            former.push(known);
            let lines: String = former.iter().map(|one| hex(one) + "\n").collect();
            let writer = Writer::make_folder(&self.path, self.patience, None)?;
            writer.replace(FORMER, lines.as_bytes())?;
        }
        self.remember_master(area)
    }

    /// Removes the record of former master keys.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn forget_former_masters(&self) -> Result<(), FolderError> {
        self.delete_own(FORMER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::folder::{Data, EntryContent, ObjectAttributes};

    fn data() -> EntryContent {
        EntryContent::Data(Data {
            description: ObjectAttributes::labelled("data"),
            application: String::new(),
            object_id: Vec::new(),
            value: vec![7],
        })
    }

    #[test]
    fn what_is_set_aside_is_no_object_and_stays_whole() {
        let home = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(home.path().join("keys"));
        let name = folder.add(data()).unwrap().name;
        let path = folder.path().join(format!("{name}.pem"));
        let content = std::fs::read(&path).unwrap();
        let first = folder.set_aside(&name).unwrap();
        assert_eq!(first, format!("{name}.pem.lost"));
        std::fs::write(&path, &content).unwrap();
        let second = folder.set_aside(&name).unwrap();
        assert_eq!(second, format!("{name}.pem.lost-2"));
        let listing = folder.list().unwrap();
        assert!(listing.entries.is_empty() && listing.left_out.is_empty());
        let lost = folder.lost_files().unwrap();
        assert_eq!(lost, [first, second].map(|name| folder.path().join(name)));
        assert!(
            lost.iter()
                .all(|path| std::fs::read(path).unwrap() == content)
        );
        assert!(matches!(folder.set_aside(&name), Err(FolderError::Gone(_))));
        assert_eq!(folder.set_seal_aside(PinSeal::User).unwrap(), None);
    }

    #[test]
    fn former_master_keys_are_remembered_once() {
        let home = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(home.path().join("keys"));
        for area in [[1, 2], [1, 2], [3, 4], [3, 4], [5, 6]] {
            folder.exchange_master(&area).unwrap();
        }
        assert_eq!(folder.master().unwrap(), Some(vec![5, 6]));
        assert_eq!(folder.former_masters().unwrap(), [vec![1, 2], vec![3, 4]]);
        folder.forget_former_masters().unwrap();
        folder.forget_former_masters().unwrap();
        assert!(folder.former_masters().unwrap().is_empty());
    }
}
