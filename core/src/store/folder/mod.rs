//! The key folder of a token. Each object has one PEM file, which other programs can read too.
//!
//! A file is an object if its name ends in `.pem` and does not begin with a dot. Any program may
//! have written it. Readers take no lock and need no write access, because a writer replaces only
//! whole files (`write`). A damaged file hides only its own object. The module logs a damaged file
//! once and never deletes it.

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

/// The file with the serial number of the token: 16 random hexadecimal digits. The first write
/// creates the file.
const SERIAL: &str = ".serial";
/// The file `.master`, which contains the TPMT_PUBLIC of the master key in hexadecimal digits.
const MASTER: &str = ".master";
/// More bytes than the file [`MASTER`] and the file of a seal need together.
const ROOM: usize = 8 << 10;
/// The longest time to wait for a process that holds the lock of the key folder.
const PATIENCE: Duration = Duration::from_secs(10);

/// The key folder of a token. If the folder does not exist, the first write creates it.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    /// The files of the security officer's and the user's seal. Many calls look for these files,
    /// and must not allocate memory for their paths.
    seals: [PathBuf; 2],
    patience: Duration,
    /// The result of the last listing. The mutex is locked only briefly, never while files are
    /// read.
    known: Mutex<Arc<FolderCache>>,
    /// The paths that could not be read; the folder itself may be among them.
    troubles: Troubles,
}

impl KeyFolder {
    /// Creates the [`KeyFolder`] for this path. Does not access the disk.
    pub fn new(path: PathBuf) -> Self {
        let seals = [PinSeal::SecurityOfficer, PinSeal::User];
        Self {
            seals: seals.map(|seal| path.join(seal.file())),
            path,
            patience: PATIENCE,
            known: Mutex::default(),
            troubles: Troubles::default(),
        }
    }

    /// Returns a copy for a forked child. The child needs new locks, because a thread of the parent
    /// may have held the old locks. The copy takes over the last listing, unless the parent was
    /// replacing the listing.
    pub fn for_child(&self) -> Self {
        let known = self.known.try_lock().map(|known| Arc::clone(&known));
        Self {
            path: self.path.clone(),
            seals: self.seals.clone(),
            patience: self.patience,
            known: Mutex::new(known.unwrap_or_default()),
            troubles: self.troubles.for_child(),
        }
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a new object under a generated name.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written. After an error no object was added, unless the disk
    /// failed after the write.
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

    /// Returns true if [`add`](Self::add) generates names of this form. Returns false for a name
    /// that a person chose.
    pub fn is_generated_name(name: &str) -> bool {
        let kinds = ["key", "secret", "public", "certificate", "data"];
        // The name of a certificate may begin with the name of its key pair.
        let name = name.split_once('.').map_or(name, |(pair, _)| pair);
        let parts = name.split_once('-');
        parts.is_some_and(|(kind, rest)| kinds.contains(&kind) && is_random(rest))
    }

    /// Checks that the disk has space for the file `.master`, before the master key is created.
    ///
    /// # Errors
    ///
    /// Fails if the space is missing, or if the folder is not writable.
    pub fn check_room(&self) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.check_room(ROOM)
    }

    /// Replaces an object by the result of `edit`, or removes it if the result is `None`. The lock
    /// keeps other writers out, so their changes are not lost.
    ///
    /// # Errors
    ///
    /// Fails with the error of `edit`, or if the folder cannot be written. After an error the
    /// object is unchanged.
    pub fn change<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<EntryContent>, E>,
    ) -> Result<Option<Entry>, E> {
        self.exchange(name, edit, |_, failed| Err(failed))
    }

    /// Does what [`change`](Self::change) does, for an object that must not stay unchanged. If the
    /// result of `edit` cannot be written, the whole object is removed. A removal needs no space on
    /// the disk.
    ///
    /// # Errors
    ///
    /// Fails with the error of `edit`, or if the object can neither be written nor removed.
    pub fn reduce<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<EntryContent>, E>,
    ) -> Result<Option<Entry>, E> {
        self.exchange(name, edit, |writer, failed| {
            warn!(
                "{failed}: the remaining part of {name:?} could not be written, so the whole \
                 object is destroyed"
            );
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

    /// Removes an object, whatever content its file has.
    ///
    /// # Errors
    ///
    /// Fails if the object does not exist, or if the folder cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        self.writer_for(name)?.delete(&file_name(name))
    }

    /// Checks as far as possible that files can be changed and removed. Succeeds if the folder is
    /// missing.
    ///
    /// # Errors
    ///
    /// Fails if the folder is not writable.
    pub fn check_writable(&self) -> Result<(), FolderError> {
        match Writer::open(&self.path, self.patience)? {
            Some(writer) => writer.check(""),
            None => Ok(()),
        }
    }

    /// Removes temporary files that killed processes left in the key folder, if the folder is
    /// writable.
    pub fn tidy(&self) {
        let names = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        let mut names = names.map(|entry| entry.file_name());
        if names.any(|name| writer_of(name.as_encoded_bytes()).is_some()) {
            // The constructor of the writer removes the temporary files.
            let _ = Writer::open(&self.path, Duration::ZERO);
        }
    }

    /// Returns files of other programs whose names this project needs, each with the reason.
    /// Examples are a lock that is not a regular file, and a temporary name that no writer removes.
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
                "this file has the name of a temporary file, but no writer of the key folder made \
                 it; it is not removed",
            )
        }));
        found
    }

    /// Creates the folder if it is missing. Gives it this serial number if it has none.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn begin(&self, serial: &str) -> Result<(), FolderError> {
        Writer::make_folder(&self.path, self.patience, Some(serial)).map(drop)
    }

    /// Reads the serial number: 16 hexadecimal digits that never change. Returns `None` before the
    /// first write.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed.
    pub fn serial(&self) -> Result<Option<String>, FolderError> {
        let sound = |digits: &str| digits.len() == 16;
        Ok(self.own_file(SERIAL, sound)?.map(|bytes| hex(&bytes)))
    }

    /// Reads the recorded TPMT_PUBLIC of the master key. Returns `None` if no master key is
    /// recorded.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed.
    pub fn master(&self) -> Result<Option<Vec<u8>>, FolderError> {
        self.own_file(MASTER, |digits| !digits.is_empty())
    }

    /// Records the public area of the master key.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn remember_master(&self, area: &[u8]) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.replace(MASTER, format!("{}\n", hex(area)).as_bytes())
    }

    /// Removes the file `.master`, which records the master key. A missing file is no error.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn forget_master(&self) -> Result<(), FolderError> {
        self.delete_own(MASTER)
    }

    /// Removes a file of this project that is not an object, if the file exists.
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
        let wrong = "the content is not an even number of hexadecimal digits";
        digits
            .map(Some)
            .ok_or_else(|| self.damaged_own(file, wrong))
    }

    /// Returns the error for a file `.master` that is not the public area of a master key.
    pub(in crate::store) fn damaged_master(&self) -> FolderError {
        self.damaged_own(MASTER, "the content is not the public area of a master key")
    }

    /// Returns the error for a missing file `.master`, although keys or seals below a master key
    /// exist.
    pub(in crate::store) fn missing_master(&self) -> FolderError {
        self.damaged_own(MASTER, "the file is missing")
    }

    fn damaged_own(&self, file: &str, what: &str) -> FolderError {
        FolderError::Damaged {
            file: self.path.join(file).display().to_string(),
            reason: format!("{what}; restore the file from a backup"),
        }
    }

    /// Reads the content of a file that is no object. Returns `None` if the file is missing.
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
