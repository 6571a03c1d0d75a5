//! Hidden folders for successors and predecessors, which have the names of the objects that they
//! replace.

use super::names::file_name;
use super::write::Writer;
use super::{Entry, EntryContent, FolderError, KeyFolder, format};
use crate::file::sync_folder;
use crate::key::PublicKey;
use rustix::fs::renameat;
use std::path::PathBuf;

/// Length of a key's identifier in hexadecimal digits.
const ID_DIGITS: usize = 40;

impl KeyFolder {
    /// A subfolder that no token shows, since its name begins with a dot.
    pub(in crate::store) fn inside(&self, name: &str) -> Self {
        Self::new(self.path.join(PathBuf::from(name)))
    }

    /// Stores an object under this name, and replaces an existing one.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub(in crate::store) fn place(
        &self,
        name: &str,
        content: &EntryContent,
    ) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        let file = format::render(name, content, &format::Remarks::default());
        writer.replace(&file_name(name), &file.map_err(FolderError::Unfit)?)
    }

    /// Renames an object, and replaces an existing one of the new name.
    ///
    /// # Errors
    ///
    /// Also if the object is gone.
    pub(in crate::store) fn rename(&self, name: &str, to: &str) -> Result<(), FolderError> {
        let writer = self.writer_for(name)?;
        let fd = &writer.folder().fd;
        let path = self.path.join(file_name(name));
        renameat(fd, file_name(name), fd, file_name(to)).map_err(FolderError::at(&path))?;
        sync_folder(fd).map_err(FolderError::at(&path))
    }

    /// Moves an object into this folder, and atomically replaces an object of the same name.
    ///
    /// # Errors
    ///
    /// Nothing was moved, unless the disk failed afterwards.
    pub(in crate::store) fn take_from(&self, other: &Self, name: &str) -> Result<(), FolderError> {
        let (here, there) = (self.writer_for(name)?, other.writer_for(name)?);
        let (here, there) = (&here.folder().fd, &there.folder().fd);
        let path = self.path.join(file_name(name));
        renameat(there, file_name(name), here, file_name(name)).map_err(FolderError::at(&path))?;
        sync_folder(here).map_err(FolderError::at(&path))?;
        sync_folder(there).map_err(FolderError::at(&path))
    }
}

/// The file name of a certificate for this key of a pair.
pub(in crate::store) fn certificate_name(pair: &str, key: &PublicKey) -> String {
    format!("{pair}.{}", crate::key::hex(key.id().as_bytes()))
}

/// True if the token shows an object. A certificate that is named after a pair and its key is shown
/// only while the pair has that key. So one change of the key file exchanges key and certificate
/// together.
pub(in crate::store) fn is_shown(
    entry: &Entry,
    mut pair: impl FnMut(&str) -> Option<PublicKey>,
) -> bool {
    let Some((name, digits)) = entry.name.split_once('.') else {
        return true;
    };
    let digits = digits.split('-').next().unwrap_or_default();
    let is_id = digits.len() == ID_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (&entry.content, is_id) {
        (EntryContent::Certificate(..), true) => {
            pair(name).is_none_or(|key| crate::key::hex(key.id().as_bytes()) == digits)
        }
        _ => true,
    }
}
