//! Hidden subfolders for the successors and predecessors of objects. A file in such a subfolder has
//! the name of the object that it replaces, or that replaced it.

use super::names::file_name;
use super::write::Writer;
use super::{Entry, EntryContent, FolderError, KeyFolder, format};
use crate::file::sync_folder;
use crate::key::PublicKey;
use rustix::fs::renameat;
use std::path::PathBuf;

/// The length of a key's SHA-1 identifier in a file name, in hexadecimal digits.
const ID_DIGITS: usize = 40;

impl KeyFolder {
    /// Returns a subfolder of the key folder. No token shows its files, because its name begins
    /// with a dot.
    pub(in crate::store) fn inside(&self, name: &str) -> Self {
        Self::new(self.path.join(PathBuf::from(name)))
    }

    /// Stores an object under this name. Replaces an object that has the name already.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub(in crate::store) fn place(
        &self,
        name: &str,
        content: &EntryContent,
    ) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        let file = format::render(name, content, &format::Remarks::default());
        writer.replace(&file_name(name), &file.map_err(FolderError::Unfit)?)
    }

    /// Renames an object. Replaces an object that has the new name already.
    ///
    /// # Errors
    ///
    /// Fails if the object does not exist any more, or if the folder cannot be written.
    pub(in crate::store) fn rename(&self, name: &str, to: &str) -> Result<(), FolderError> {
        let writer = self.writer_for(name)?;
        let fd = &writer.folder().fd;
        let path = self.path.join(file_name(name));
        renameat(fd, file_name(name), fd, file_name(to)).map_err(FolderError::at(&path))?;
        sync_folder(fd).map_err(FolderError::at(&path))
    }

    /// Moves an object from `other` into this folder. Replaces an object of the same name
    /// atomically.
    ///
    /// # Errors
    ///
    /// After an error no object was moved, unless the disk failed after the move.
    pub(in crate::store) fn take_from(&self, other: &Self, name: &str) -> Result<(), FolderError> {
        let (here, there) = (self.writer_for(name)?, other.writer_for(name)?);
        let (here, there) = (&here.folder().fd, &there.folder().fd);
        let path = self.path.join(file_name(name));
        renameat(there, file_name(name), here, file_name(name)).map_err(FolderError::at(&path))?;
        sync_folder(here).map_err(FolderError::at(&path))?;
        sync_folder(there).map_err(FolderError::at(&path))
    }
}

/// Returns the file name (without `.pem`) of a certificate that belongs to one key of a pair.
pub(in crate::store) fn certificate_name(pair: &str, key: &PublicKey) -> String {
    format!("{pair}.{}", crate::key::hex(key.id().as_bytes()))
}

/// Returns true if the token shows an object. The name of a certificate can contain the name of a
/// pair and the identifier of its key. Such a certificate is shown only while the pair has that
/// key. So a single change of the key file exchanges key and certificate together.
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
