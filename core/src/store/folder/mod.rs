//! The key folder of a token: one PEM file for each object, which other programs can read too.
//!
//! A file is an object if its name ends in `.pem` and does not begin with a dot, whoever made it.
//! Reading takes no lock and works where nothing can be written: a file is replaced as a whole or
//! not at all (`write`). What is damaged costs one object, is said once, and is never deleted.

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
/// The TPMT_PUBLIC of the key that wraps the folder's keys, in hexadecimal digits.
const MASTER: &str = ".master";
/// More bytes than [`MASTER`] has, and a seal.
const ROOM: usize = 8 << 10;
/// How long a writer waits for another.
const PATIENCE: Duration = Duration::from_secs(10);

/// One key folder. It need not exist; it is made at the first write.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    patience: Duration,
    /// What the last listing found. Held for moments only, never while files are read.
    known: Mutex<Arc<FolderCache>>,
    /// Files that could not be read, the folder among them.
    troubles: Troubles,
}

impl KeyFolder {
    /// Nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            patience: PATIENCE,
            known: Mutex::default(),
            troubles: Troubles::default(),
        }
    }

    /// The folder in a forked child, where a lock may stay held for ever: knows what is known
    /// unless a thread of the parent was just exchanging it.
    pub fn for_child(&self) -> Self {
        let known = self.known.try_lock().map(|known| Arc::clone(&known));
        Self {
            path: self.path.clone(),
            patience: self.patience,
            known: Mutex::new(known.unwrap_or_default()),
            troubles: self.troubles.for_child(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a new object into the folder, under a name that it makes.
    ///
    /// # Errors
    ///
    /// Then there is no new object, unless the disk failed when all was written.
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

    /// Whether an object's name is one that [`add`](Self::add) makes, and not one that somebody gave
    /// a file.
    pub fn is_generated_name(name: &str) -> bool {
        let kinds = ["key", "secret", "public", "certificate", "data"];
        // A certificate may be named after its pair.
        let name = name.split_once('.').map_or(name, |(pair, _)| pair);
        let parts = name.split_once('-');
        parts.is_some_and(|(kind, rest)| kinds.contains(&kind) && is_random(rest))
    }

    /// That the folder has room for what is remembered of the master key, before that is made.
    ///
    /// # Errors
    ///
    /// It has none, or nothing can be written there.
    pub fn check_room(&self) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.check_room(ROOM)
    }

    /// Exchanges what the object is, as it is now, for what `edit` makes of it; for nothing, if it
    /// makes `None`. No other writer comes between, so nothing that others wrote is lost.
    ///
    /// # Errors
    ///
    /// Those of `edit`, and of the folder; then nothing was changed.
    pub fn change<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<EntryContent>, E>,
    ) -> Result<Option<Entry>, E> {
        self.exchange(name, edit, |_, failed| Err(failed))
    }

    /// The same for what must not stay as it is: if what `edit` makes of the object cannot be
    /// written, the whole object is taken out of the folder. That needs no room.
    ///
    /// # Errors
    ///
    /// Those of `edit`, and of the folder if the object cannot be taken out of it either.
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

    /// Takes the object out of the folder, whatever its file holds by now.
    ///
    /// # Errors
    ///
    /// Also if it is gone already.
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        self.writer_for(name)?.delete(&file_name(name))
    }

    /// That files can be changed and taken away here, as far as that can be asked; a folder that is
    /// missing holds none.
    ///
    /// # Errors
    ///
    /// They cannot.
    pub fn check_writable(&self) -> Result<(), FolderError> {
        match Writer::open(&self.path, self.patience)? {
            Some(writer) => writer.check(""),
            None => Ok(()),
        }
    }

    /// Takes away what killed writers left, if it can be written now.
    pub fn tidy(&self) {
        let names = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        let mut names = names.map(|entry| entry.file_name());
        if names.any(|name| writer_of(name.as_encoded_bytes()).is_some()) {
            // The writer does it before it writes.
            let _ = Writer::open(&self.path, Duration::ZERO);
        }
    }

    /// Files in the place of ours, and what they are: a lock that is none, and what no writer takes
    /// away though it has the name of something that is being written.
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

    /// Makes the folder if there is none, and gives it this serial number if it has none.
    ///
    /// # Errors
    ///
    /// Nothing can be written there.
    pub fn begin(&self, serial: &str) -> Result<(), FolderError> {
        Writer::make_folder(&self.path, self.patience, Some(serial)).map(drop)
    }

    /// 16 hexadecimal digits that stay the same; `None` before the first write.
    ///
    /// # Errors
    ///
    /// They cannot be read, or are none.
    pub fn serial(&self) -> Result<Option<String>, FolderError> {
        let sound = |digits: &str| digits.len() == 16;
        Ok(self.own_file(SERIAL, sound)?.map(|bytes| hex(&bytes)))
    }

    /// The TPMT_PUBLIC of the key that wraps the folder's keys, as it was remembered.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is none.
    pub fn master(&self) -> Result<Option<Vec<u8>>, FolderError> {
        self.own_file(MASTER, |digits| !digits.is_empty())
    }

    /// Remembers it.
    ///
    /// # Errors
    ///
    /// As of [`add`](Self::add).
    pub fn remember_master(&self, area: &[u8]) -> Result<(), FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.replace(MASTER, format!("{}\n", hex(area)).as_bytes())
    }

    /// Forgets it.
    ///
    /// # Errors
    ///
    /// As of [`remove`](Self::remove), but for a name that was not remembered.
    pub fn forget_master(&self) -> Result<(), FolderError> {
        self.delete_own(MASTER)
    }

    /// Takes a file away that is no object, if it is there.
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
        let wrong = "not the hexadecimal digits that belong here";
        digits
            .map(Some)
            .ok_or_else(|| self.damaged_own(file, wrong))
    }

    /// [`master`](Self::master) gave what can be no master key's.
    pub(in crate::store) fn damaged_master(&self) -> FolderError {
        self.damaged_own(MASTER, "not the public area of a master key")
    }

    /// [`master`](Self::master) gave nothing, where keys or seals of one are.
    pub(in crate::store) fn missing_master(&self) -> FolderError {
        self.damaged_own(MASTER, "it is missing")
    }

    fn damaged_own(&self, file: &str, what: &str) -> FolderError {
        FolderError::Damaged {
            file: self.path.join(file).display().to_string(),
            reason: format!("{what}; bring it back from a copy"),
        }
    }

    /// What a file that is no object holds; `None` if there is none.
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
