//! The key folder of a token: one PEM file for each object, which other programs can read too.
//!
//! A file is an object if its name ends in `.pem` and does not begin with a dot, whoever made it.
//! Readers take no lock and need no write access: a file is replaced as a whole or not at all
//! (`write`). A damaged file costs one object, is logged once, and is never deleted.

#[cfg(feature = "evidence")]
mod attestation_key;
mod beside;
mod cache;
mod entry;
mod error;
mod format;
mod listing;
mod names;
mod pin_seals;
mod read;
#[cfg(test)]
mod samples;
mod set_aside;
mod storage_root;
#[cfg(test)]
mod tests;
mod text;
mod tss2;
mod wrapped;
mod write;

#[cfg(feature = "evidence")]
pub use attestation_key::{AttestationKeyFile, AttestationKeyForm};
pub(super) use beside::{certificate_name, is_shown};
pub use cache::RefusedFile;
pub use entry::{
    Data, Editable, Entry, EntryContent, KeyAuth, KeyMaterial, KeyOrigin, KeyPair,
    ObjectAttributes, SecretKeyFile, Usage, Use,
};
pub use error::FolderError;
pub use listing::{FolderListing, FolderStamp};
pub use names::is_random;
pub use pin_seals::{PinSeal, PinSealText};
pub use tss2::{NoTss2Key, Tss2Key, Tss2Kind};

use crate::file::TEMPORARY;
use crate::key::{from_hex, hex};
use crate::system::random_digits;
use crate::trouble::Troubles;
use crate::writers::{no_lock, writer_of};
use cache::FolderCache;
use format::Remarks;
use log::warn;
use names::{file_name, is_object};
use parking_lot::Mutex;
use read::{OpenFolder, ReadError};
use rustix::fs::lstat;
use rustix::io::Errno;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use write::{LOCK, Readers, Writer};

/// 16 random hexadecimal digits, made at the first write.
const SERIAL: &str = ".serial";
/// The TPMT_PUBLIC of the master key, in hexadecimal digits.
const MASTER: &str = ".master";
/// More room than [`MASTER`] and a seal need.
const ROOM: usize = 8 << 10;
/// The time limit for the lock of another writer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key folder. If it does not exist, the first write makes it.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    patience: Duration,
    /// The last listing. Locked only briefly, never while files are read.
    known: Mutex<Arc<FolderCache>>,
    /// Files that could not be read, including the folder itself.
    troubles: Troubles,
}

impl KeyFolder {
    /// Creates the object. Reads nothing yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            patience: PATIENCE,
            known: Mutex::default(),
            troubles: Troubles::default(),
        }
    }

    /// The folder in a forked child, where a lock may stay held for ever. Takes over the last
    /// listing unless a thread of the parent was replacing it.
    pub fn for_child(&self) -> Self {
        let known = self.known.try_lock().map(|known| Arc::clone(&known));
        Self {
            path: self.path.clone(),
            patience: self.patience,
            known: Mutex::new(known.unwrap_or_default()),
            troubles: self.troubles.for_child(),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a new object under a generated name.
    ///
    /// # Errors
    ///
    /// No object was added, unless the disk failed after writing.
    pub fn add(&self, content: EntryContent) -> Result<Entry, FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        let kind = match content {
            EntryContent::Pair(_) => "key",
            EntryContent::SecretKey(_) => "secret",
            EntryContent::Public(..) => "public",
            EntryContent::Certificate(..) => "certificate",
            EntryContent::Data(_) => "data",
        };
        let name = format!(
            "{kind}-{}",
            random_digits().map_err(FolderError::at(&self.path))?
        );
        let file = format::render(&name, &content, &Remarks::default());
        let readers = match &content {
            EntryContent::Pair(pair) if matches!(pair.material, KeyMaterial::Clear(_)) => {
                Readers::Owner
            }
            _ => Readers::Group,
        };
        let file = file.map_err(FolderError::Unfit)?;
        writer.put_new(&file_name(&name), &file, readers)?;
        Ok(Entry { name, content })
    }

    /// True if [`add`](Self::add) generates such names; false for names that a person gave.
    pub fn is_generated_name(name: &str) -> bool {
        let kinds = ["key", "secret", "public", "certificate", "data"];
        // A certificate may have the name of its pair.
        let name = name.split_once('.').map_or(name, |(pair, _)| pair);
        let parts = name.split_once('-');
        parts.is_some_and(|(kind, rest)| kinds.contains(&kind) && is_random(rest))
    }

    /// Checks that the folder has room for the record of the master key, before the key is made.
    ///
    /// # Errors
    ///
    /// There is no room, or the folder is not writable.
    pub fn check_room(&self) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.check_room(ROOM)
    }

    /// Replaces an object by the result of `edit`, or removes it if the result is `None`. The lock
    /// keeps other writers out, so no change of theirs is lost.
    ///
    /// # Errors
    ///
    /// Those of `edit` and of the folder; nothing was changed then.
    pub fn change<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<EntryContent>, E>,
    ) -> Result<Option<Entry>, E> {
        self.exchange(name, edit, |_, failed| Err(failed))
    }

    /// [`change`](Self::change) for an object that must not stay unchanged. If the result of `edit`
    /// cannot be written, the whole object is removed, which needs no room.
    ///
    /// # Errors
    ///
    /// Those of `edit`, and of the folder if the object cannot be removed either.
    pub fn reduce<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<EntryContent>, E>,
    ) -> Result<Option<Entry>, E> {
        self.exchange(name, edit, |writer, failed| {
            warn!("{failed}: what was to stay of {name:?} is destroyed with the rest");
            writer.delete(&file_name(name))
        })
    }

    fn exchange<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<EntryContent>, E>,
        unwritten: impl FnOnce(&Writer<'_>, FolderError) -> Result<(), FolderError>,
    ) -> Result<Option<Entry>, E> {
        let writer = self.writer_for(name)?;
        let file = file_name(name);
        writer.check(&file)?;
        let (current, remarks) = writer
            .folder()
            .read(name)
            .map_err(|why| self.because(name, why))?;
        match edit(&current)? {
            None => {
                writer.delete(&file)?;
                Ok(None)
            }
            Some(content) if content == current.content => Ok(Some(current)),
            Some(content) => {
                let rendered = format::render(name, &content, &remarks);
                let rendered = rendered.map_err(FolderError::Unfit)?;
                if let Err(failed) = writer.replace(&file, &rendered) {
                    unwritten(&writer, failed)?;
                    return Ok(None);
                }
                let name = current.name;
                Ok(Some(Entry { name, content }))
            }
        }
    }

    /// Removes an object, whatever its file holds now.
    ///
    /// # Errors
    ///
    /// Also if the object is gone already.
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        self.writer_for(name)?.delete(&file_name(name))
    }

    /// Checks as far as possible that files can be changed and removed. A missing folder passes.
    ///
    /// # Errors
    ///
    /// The folder is not writable.
    pub fn check_writable(&self) -> Result<(), FolderError> {
        match Writer::open(&self.path, self.patience)? {
            Some(writer) => writer.check(""),
            None => Ok(()),
        }
    }

    /// Removes leftovers of killed writers, if the folder is writable now.
    pub fn tidy(&self) {
        let names = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        let mut names = names.map(|entry| entry.file_name());
        if names.any(|name| writer_of(name.as_encoded_bytes()).is_some()) {
            // The writer removes them before it writes.
            let _ = Writer::open(&self.path, Duration::ZERO);
        }
    }

    /// Foreign files with names of ours, and their kinds. Examples are a lock that is not a regular
    /// file, and a temporary name that no writer removes.
    pub fn in_the_way(&self) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        if let Ok(there) = lstat(self.path.join(LOCK))
            && let Some(what) = no_lock(&there)
        {
            found.push((LOCK.to_owned(), what));
        }
        let names = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        let is_left = |entry: &DirEntry| {
            let name = entry.file_name();
            let named = name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            named && !(is_file && writer_of(name.as_encoded_bytes()).is_some())
        };
        found.extend(names.filter(is_left).map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (
                name,
                "no file that was being written here; it is left alone",
            )
        }));
        found
    }

    /// Makes the folder if it is missing, and gives it this serial number if it has none.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn begin(&self, serial: &str) -> Result<(), FolderError> {
        Writer::make_folder(&self.path, self.patience, Some(serial)).map(drop)
    }

    /// 16 constant hexadecimal digits; `None` before the first write.
    ///
    /// # Errors
    ///
    /// The file cannot be read or parsed.
    pub fn serial(&self) -> Result<Option<String>, FolderError> {
        let sound = |digits: &str| digits.len() == 16;
        Ok(self.own_file(SERIAL, sound)?.map(|bytes| hex(&bytes)))
    }

    /// The remembered TPMT_PUBLIC of the master key.
    ///
    /// # Errors
    ///
    /// The file cannot be read or parsed.
    pub fn master(&self) -> Result<Option<Vec<u8>>, FolderError> {
        self.own_file(MASTER, |digits| !digits.is_empty())
    }

    /// Records the master key.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub fn remember_master(&self, area: &[u8]) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.replace(MASTER, format!("{}\n", hex(area)).as_bytes())
    }

    /// Removes the record of the master key.
    ///
    /// # Errors
    ///
    /// Those of [`remove`](Self::remove); a missing record is no error.
    pub fn forget_master(&self) -> Result<(), FolderError> {
        self.delete_own(MASTER)
    }

    /// Removes a file that is no object, if it exists.
    fn delete_own(&self, file: &str) -> Result<(), FolderError> {
        let Some(writer) = Writer::open(&self.path, self.patience)? else {
            return Ok(());
        };
        match writer.delete(file) {
            Err(FolderError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    fn own_file(
        &self,
        file: &str,
        sound: fn(&str) -> bool,
    ) -> Result<Option<Vec<u8>>, FolderError> {
        let Some(folder) = self.noted(OpenFolder::at(&self.path))? else {
            return Ok(None);
        };
        let Some(content) = self.content_of(&folder, file)? else {
            return Ok(None);
        };
        let digits = String::from_utf8(content).unwrap_or_default();
        let digits = Some(digits.trim())
            .filter(|digits| sound(digits))
            .and_then(from_hex);
        let wrong = "not valid hexadecimal digits";
        digits
            .map(Some)
            .ok_or_else(|| self.damaged_own(file, wrong))
    }

    /// The error for a record that cannot belong to a master key.
    pub(in crate::store) fn damaged_master(&self) -> FolderError {
        self.damaged_own(MASTER, "not the public area of a master key")
    }

    /// The error for a missing record, if keys or seals below a master key exist.
    pub(in crate::store) fn missing_master(&self) -> FolderError {
        self.damaged_own(MASTER, "it is missing")
    }

    fn damaged_own(&self, file: &str, what: &str) -> FolderError {
        FolderError::Damaged {
            file: self.path.join(file).display().to_string(),
            reason: format!("{what}; bring it back from a copy"),
        }
    }

    /// The content of a file that is no object; `None` if the file is missing.
    fn content_of(
        &self,
        folder: &OpenFolder<'_>,
        file: &str,
    ) -> Result<Option<Vec<u8>>, FolderError> {
        let content = match folder.trusted(file) {
            Err(ReadError::Gone) => None,
            Err(why) => return self.noted(Err(self.because_file(file, why))),
            Ok(content) => Some(content),
        };
        Ok(content)
    }

    fn writer_for(&self, name: &str) -> Result<Writer<'_>, FolderError> {
        let gone = || FolderError::Gone(name.into());
        if !is_object(file_name(name).as_bytes()) || name.contains(['/', '\0']) {
            return Err(gone());
        }
        Writer::open(&self.path, self.patience)?.ok_or_else(gone)
    }

    fn because(&self, name: &str, why: ReadError) -> FolderError {
        match why {
            ReadError::Gone => FolderError::Gone(name.into()),
            why => self.because_file(&file_name(name), why),
        }
    }

    fn because_file(&self, file: &str, why: ReadError) -> FolderError {
        let path = self.path.join(file);
        match why {
            ReadError::Gone => FolderError::Gone(file.into()),
            ReadError::Untrusted(reason) => FolderError::Unsafe { path, reason },
            ReadError::Damaged(reason) => FolderError::Damaged {
                file: file.into(),
                reason,
            },
            ReadError::Failed(error) => match Errno::from_io_error(&error) {
                Some(errno) => FolderError::at(&path)(errno),
                None => FolderError::Damaged {
                    file: file.into(),
                    reason: error.to_string(),
                },
            },
        }
    }
}
