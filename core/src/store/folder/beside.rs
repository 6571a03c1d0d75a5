//! Objects of a folder beside others of the same names: what will take their place, and what had it.

use super::names::file_name;
use super::write::Writer;
use super::{Entry, EntryContent, FolderError, KeyFolder, format};
use crate::file::sync_folder;
use crate::key::PublicKey;
use rustix::fs::renameat;
use std::path::PathBuf;

/// Digits of a key's identifier.
const ID_DIGITS: usize = 40;

impl KeyFolder {
    /// A folder inside of this one, which no token shows: its name begins with a dot.
    pub(in crate::store) fn inside(&self, name: &str) -> Self {
        Self::new(self.path.join(PathBuf::from(name)))
    }

    /// Puts an object into the folder under this name, in the place of what has it.
    ///
    /// # Errors
    ///
    /// As of [`add`](Self::add).
    pub(in crate::store) fn place(
        &self,
        name: &str,
        content: &EntryContent,
    ) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        let file = format::render(name, content, &format::Remarks::default());
        writer.replace(&file_name(name), &file.map_err(FolderError::Unfit)?)
    }

    /// Gives an object another name, in the place of what has that.
    ///
    /// # Errors
    ///
    /// Also if it is gone.
    pub(in crate::store) fn rename(&self, name: &str, to: &str) -> Result<(), FolderError> {
        let writer = self.writer_for(name)?;
        let fd = &writer.folder().fd;
        let path = self.path.join(file_name(name));
        renameat(fd, file_name(name), fd, file_name(to)).map_err(FolderError::at(&path))?;
        sync_folder(fd).map_err(FolderError::at(&path))
    }

    /// Moves an object into this folder, in the place of what has its name, at once: whoever looks finds
    /// the one or the other.
    ///
    /// # Errors
    ///
    /// Then nothing was moved, unless the disk failed afterwards.
    pub(in crate::store) fn take_from(&self, other: &Self, name: &str) -> Result<(), FolderError> {
        let (here, there) = (self.writer_for(name)?, other.writer_for(name)?);
        let (here, there) = (&here.folder().fd, &there.folder().fd);
        let path = self.path.join(file_name(name));
        renameat(there, file_name(name), here, file_name(name)).map_err(FolderError::at(&path))?;
        sync_folder(here).map_err(FolderError::at(&path))?;
        sync_folder(there).map_err(FolderError::at(&path))
    }
}

/// The name of the certificate of a pair in this file while it has this key.
pub(in crate::store) fn certificate_name(pair: &str, key: &PublicKey) -> String {
    format!("{pair}.{}", crate::key::hex(key.id().as_bytes()))
}

/// True if an object is shown: a certificate that is named after a pair and its key only as long as the
/// pair has that key. So one change of a key's file exchanges key and certificate together.
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
