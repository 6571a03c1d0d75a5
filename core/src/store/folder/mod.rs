//! The key folder of a token: one PEM file for each object, which other programs can read too.
//!
//! A file is an object if its name ends in `.pem` and does not begin with a dot, whoever made it.
//! Reading takes no lock and works where nothing can be written: a file is replaced as a whole or
//! not at all (`write`). What is damaged costs one object, is said once, and is never deleted.

mod entry;
mod fault;
mod format;
mod loading;
mod read;
#[cfg(test)]
mod samples;
mod seals;
#[cfg(test)]
mod tests;
mod text;
mod trust;
mod tss2;
mod write;

pub use entry::{Content, Data, Description, Entry, Material, Origin, Pair, Usage, Use};
pub use fault::FolderError;
pub use seals::{Seal, SealText};
pub(crate) use trust::{distrusted_file, distrusted_folder};
pub use tss2::{Kind as Tss2Kind, NoTss2Key, Tss2Key};

use crate::file::{FileStamp, Moment, random_digits};
use crate::key::{from_hex, hex};
use format::Remarks;
use parking_lot::Mutex;
use read::{Opened, Unread, file_name, is_object};
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trust::Owned;
use write::{Readers, Writer};

/// 16 random hexadecimal digits, made at the first write.
const SERIAL: &str = ".serial";
/// The TPMT_PUBLIC of the key that wraps the folder's keys, in hexadecimal digits.
const MASTER: &str = ".master";
/// How long a writer waits for another.
const PATIENCE: Duration = Duration::from_secs(10);

/// One key folder. It need not exist; it is made at the first write.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    patience: Duration,
    /// What the last listing found. Held for moments only, never while files are read.
    known: Mutex<Arc<Known>>,
}

/// What is in the folder.
#[derive(Debug)]
pub struct Listing {
    /// By name. A file that did not change since the last listing gives the same `Arc`.
    pub entries: Vec<Arc<Entry>>,
    /// Files that give no object, by name.
    pub refused: Vec<Refused>,
    /// As [`KeyFolder::stamp`] of the moment before the files were read.
    pub stamp: Stamp,
}

/// A file that gives no object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Refused {
    /// Its name.
    pub file: String,
    /// Why it gives none.
    pub why: String,
    /// Whether its content is at fault, not who may read or change it.
    pub by_content: bool,
}

/// What must change before a listing can differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stamp {
    folder: Option<FileStamp>,
    files: Vec<FileStamp>,
    /// When it was taken, if something had been changed so shortly before that the next change
    /// could give it the same stamp: then no later one is equal to this.
    unsettled: Option<Moment>,
}

#[derive(Debug, Default)]
struct Known {
    /// The folder as it was when its files were judged.
    folder: Option<Owned>,
    files: HashMap<String, Seen>,
}

/// What a file was at the last listing.
#[derive(Debug, Clone)]
struct Seen {
    stamp: FileStamp,
    /// Whether it must have another stamp if it is now another.
    settled: bool,
    found: Result<Arc<Entry>, Refused>,
}

impl KeyFolder {
    /// Nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            patience: PATIENCE,
            known: Mutex::default(),
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
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All objects. Only files that changed are read; a folder that is missing is empty.
    ///
    /// # Errors
    ///
    /// The folder as a whole cannot be read or is not to be trusted.
    pub fn list(&self) -> Result<Listing, FolderError> {
        let now = Moment::now();
        let before = Arc::clone(&self.known.lock());
        let mut stamp = Stamp::default();
        let mut known = Known::default();
        if let Some(folder) = Opened::at(&self.path)? {
            known.folder = Some(folder.owned);
            stamp.folder = Some(folder.stamp);
            let same_folder = before.folder == known.folder;
            for name in folder.names().map_err(FolderError::at(&self.path))? {
                let Some(about) = folder.file_stamp(&name) else {
                    continue;
                };
                stamp.files.push(about);
                let name = name.to_string_lossy().into_owned();
                let seen = match before.files.get(&name) {
                    Some(seen) if same_folder && seen.stamp == about && seen.settled => {
                        Some(seen.clone())
                    }
                    earlier => folder.look_at(&name, about, about.is_settled(now), earlier)?,
                };
                if let Some(seen) = seen {
                    known.files.insert(name, seen);
                }
            }
        }
        stamp.settle(now);
        let (mut entries, mut refused) = (Vec::new(), Vec::new());
        for seen in known.files.values() {
            match &seen.found {
                Ok(entry) => entries.push(Arc::clone(entry)),
                Err(why) => refused.push(why.clone()),
            }
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        refused.sort_unstable();
        *self.known.lock() = Arc::new(known);
        Ok(Listing {
            entries,
            refused,
            stamp,
        })
    }

    /// The state of what a listing depends on; only one after it changed can differ. Reads no file.
    pub fn stamp(&self) -> Stamp {
        let now = Moment::now();
        let mut stamp = Stamp::default();
        match Opened::at(&self.path) {
            Ok(None) => {}
            Ok(Some(folder)) => {
                stamp.folder = Some(folder.stamp);
                let names = folder.names().unwrap_or_default();
                let stamps = names.iter().filter_map(|name| folder.file_stamp(name));
                stamp.files = stamps.collect();
            }
            // Then a listing fails, until the folder is another.
            Err(_) => stamp.folder = FileStamp::of(&self.path),
        }
        stamp.settle(now);
        stamp
    }

    /// Puts a new object into the folder, under a name that it makes.
    ///
    /// # Errors
    ///
    /// Then there is no new object, unless the disk failed when all was written.
    pub fn add(&self, content: Content) -> Result<Entry, FolderError> {
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        let kind = match content {
            Content::Pair(_) => "key",
            Content::Public(..) => "public",
            Content::Certificate(..) => "certificate",
            Content::Data(_) => "data",
        };
        let name = format!(
            "{kind}-{}",
            random_digits().map_err(FolderError::at(&self.path))?
        );
        let file = format::render(&name, &content, &Remarks::default());
        let readers = match &content {
            Content::Pair(pair) if matches!(pair.material, Material::Clear(_)) => Readers::Owner,
            _ => Readers::Group,
        };
        let file = file.map_err(FolderError::Unfit)?;
        writer.put_new(&file_name(&name), &file, readers)?;
        Ok(Entry { name, content })
    }

    /// Whether an object's name is one that [`add`](Self::add) makes, and not one that somebody gave
    /// a file.
    pub fn named(name: &str) -> bool {
        let digits = |digits: &str| {
            let lower = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            digits.len() == 16 && digits.bytes().all(lower)
        };
        let kinds = ["key", "public", "certificate", "data"];
        let parts = name.split_once('-');
        parts.is_some_and(|(kind, rest)| kinds.contains(&kind) && digits(rest))
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
        edit: impl FnOnce(&Entry) -> Result<Option<Content>, E>,
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
                writer.replace(&file, &rendered.map_err(FolderError::Unfit)?)?;
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
        let Some(writer) = Writer::open(&self.path, self.patience)? else {
            return Ok(());
        };
        match writer.delete(MASTER) {
            Err(FolderError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    fn own_file(
        &self,
        file: &str,
        sound: fn(&str) -> bool,
    ) -> Result<Option<Vec<u8>>, FolderError> {
        let Some(folder) = Opened::at(&self.path)? else {
            return Ok(None);
        };
        let content = match folder.trusted(file) {
            Err(Unread::Gone) => return Ok(None),
            other => other.map_err(|why| self.because_file(file, why))?,
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

    fn writer_for(&self, name: &str) -> Result<Writer<'_>, FolderError> {
        let gone = || FolderError::Gone(name.into());
        if !is_object(file_name(name).as_bytes()) || name.contains(['/', '\0']) {
            return Err(gone());
        }
        Writer::open(&self.path, self.patience)?.ok_or_else(gone)
    }

    fn because(&self, name: &str, why: Unread) -> FolderError {
        match why {
            Unread::Gone => FolderError::Gone(name.into()),
            why => self.because_file(&file_name(name), why),
        }
    }

    fn because_file(&self, file: &str, why: Unread) -> FolderError {
        let path = self.path.join(file);
        match why {
            Unread::Gone => FolderError::Gone(file.into()),
            Unread::Untrusted(reason) => FolderError::Unsafe { path, reason },
            Unread::Damaged(reason) => FolderError::Damaged {
                file: file.into(),
                reason,
            },
            Unread::Failed(error) => match Errno::from_io_error(&error) {
                Some(errno) => FolderError::at(&path)(errno),
                None => FolderError::Damaged {
                    file: file.into(),
                    reason: error.to_string(),
                },
            },
        }
    }
}

impl Stamp {
    fn settle(&mut self, now: Moment) {
        let all = self.folder.iter().chain(&self.files);
        let settled = all.into_iter().all(|stamp| stamp.is_settled(now));
        self.unsettled = (!settled).then_some(now);
    }
}
