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
use crate::trouble::{Sight, Troubles};
use format::Remarks;
use log::warn;
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
    known: Mutex<Arc<Known>>,
    /// Files that could not be read, the folder among them.
    troubles: Troubles,
}

/// What is in the folder.
#[derive(Debug)]
pub struct Listing {
    /// By name. A file that did not change since the last listing gives the same `Arc`.
    pub entries: Vec<Arc<Entry>>,
    /// Files that give no object, by name, and why.
    pub refused: Vec<(String, String)>,
    /// The first of the files that could not be read now, and may hold an object.
    pub unread: Option<FolderError>,
    /// As [`KeyFolder::stamp`] of the moment before the files were read.
    pub stamp: Stamp,
}

/// What must change before a listing can differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stamp {
    folder: Option<FileStamp>,
    files: Vec<FileStamp>,
    /// Objects that could not be read.
    unread: Vec<(String, Errno)>,
    /// When it was taken, if something had been changed so shortly before that the next change
    /// could give it the same stamp, or something of the folder could not be read: then no later
    /// one is equal to this.
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
    /// `None` if it could not be had.
    stamp: Option<FileStamp>,
    /// Whether it must have another stamp if it is now another.
    settled: bool,
    found: Result<Arc<Entry>, String>,
    /// Why it could not be read now, if so; then what is found is of before.
    trouble: Option<Errno>,
}

impl Seen {
    /// A file that cannot be read now: as it was earlier, if it was read then.
    fn hidden(earlier: Option<&Self>, stamp: Option<FileStamp>, errno: Errno) -> Self {
        let found = earlier.and_then(|earlier| earlier.found.as_ref().ok());
        Self {
            stamp,
            settled: false,
            found: found.cloned().ok_or_else(|| errno.to_string()),
            trouble: Some(errno),
        }
    }
}

impl Listing {
    /// This, if no object may be missing from it: for whoever makes, changes or destroys something
    /// because of what is not there.
    ///
    /// # Errors
    ///
    /// A file could not be read now.
    pub fn whole(self) -> Result<Self, FolderError> {
        match self.unread {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// The object of this name.
    ///
    /// # Errors
    ///
    /// There is none, or its file could not be read now.
    pub fn entry(&self, name: &str) -> Result<&Arc<Entry>, FolderError> {
        let found = self.entries.iter().find(|entry| entry.name == name);
        let missing = || match &self.unread {
            Some(error) => error.clone(),
            None => FolderError::Gone(name.into()),
        };
        found.ok_or_else(missing)
    }
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

    /// All objects. Only files that changed are read; a folder that is missing is empty. An object
    /// whose file cannot be read now is as it was, if it was read before.
    ///
    /// # Errors
    ///
    /// The folder as a whole cannot be read or is not to be trusted.
    pub fn list(&self) -> Result<Listing, FolderError> {
        self.noted(self.listed())
    }

    fn listed(&self) -> Result<Listing, FolderError> {
        let now = Moment::now();
        let before = Arc::clone(&self.known.lock());
        let mut stamp = Stamp::default();
        let mut known = Known::default();
        if let Some(folder) = Opened::at(&self.path)? {
            known.folder = Some(folder.owned);
            stamp.folder = Some(folder.stamp);
            let same_folder = before.folder == known.folder;
            for file in folder.names().map_err(FolderError::at(&self.path))? {
                let name = file.to_string_lossy().into_owned();
                let earlier = before.files.get(&name);
                let seen = match folder.file_stamp(&file) {
                    Ok(None) => continue,
                    Ok(Some(about)) => {
                        stamp.files.push(about);
                        match earlier {
                            Some(seen)
                                if same_folder && seen.stamp == Some(about) && seen.settled =>
                            {
                                Some(seen.clone())
                            }
                            earlier => {
                                folder.look_at(&name, about, about.is_settled(now), earlier)?
                            }
                        }
                    }
                    Err(errno) => Some(Seen::hidden(earlier, None, errno)),
                };
                if let Some(seen) = seen {
                    known.files.insert(name, seen);
                }
            }
        }
        let (mut entries, mut refused, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for (name, seen) in &known.files {
            match &seen.found {
                Ok(entry) => entries.push(Arc::clone(entry)),
                Err(reason) => refused.push((name.clone(), reason.clone())),
            }
            unread.extend(seen.trouble.map(|errno| (name.clone(), errno)));
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        refused.sort_unstable();
        unread.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        self.note_objects(&unread);
        stamp.unread = unread;
        stamp.settle(now);
        *self.known.lock() = Arc::new(known);
        let hidden = stamp.unread.iter().find(|(name, _)| {
            let refused = refused.binary_search_by(|(one, _)| one.cmp(name));
            refused.is_ok()
        });
        let hidden = hidden.map(|(name, errno)| FolderError::at(&self.path.join(name))(*errno));
        Ok(Listing {
            entries,
            refused,
            unread: hidden,
            stamp,
        })
    }

    /// Which objects could not be read; the folder itself was.
    fn note_objects(&self, unread: &[(String, Errno)]) {
        let paths: Vec<_> = unread
            .iter()
            .map(|(name, _)| self.path.join(name))
            .collect();
        self.troubles.keep(|path| {
            let of_listing = path == self.path || self.object_in(path).is_some();
            !of_listing || paths.iter().any(|one| one == path)
        });
        for (path, (_, errno)) in paths.iter().zip(unread) {
            self.troubles.note(path, *errno);
        }
    }

    /// The name of the file that is an object, if the path leads to one of this folder.
    fn object_in<'p>(&self, path: &'p Path) -> Option<&'p str> {
        let name = path.strip_prefix(&self.path).ok()?.to_str()?;
        (is_object(name.as_bytes()) && !name.contains('/')).then_some(name)
    }

    /// Notes which file could not be read, if that is why.
    pub(super) fn noted<T>(&self, outcome: Result<T, FolderError>) -> Result<T, FolderError> {
        if let Some((path, errno)) = outcome.as_ref().err().and_then(FolderError::trouble) {
            self.troubles.note(path, errno);
        }
        outcome
    }

    /// The error of a file elsewhere that could not be read now, and that the folder depends on.
    pub(crate) fn unread<T>(&self, path: &Path, errno: Errno) -> Result<T, FolderError> {
        self.noted(Err(FolderError::at(path)(errno)))
    }

    /// The state of what a listing depends on; only one after it changed can differ. Reads no file
    /// but those that could not be read before.
    pub fn stamp(&self) -> Stamp {
        let now = Moment::now();
        let mut stamp = Stamp::default();
        let (objects, others): (Vec<_>, Vec<_>) = self
            .troubles
            .paths()
            .into_iter()
            .partition(|path| self.object_in(path).is_some());
        let looked = self.noted(self.look_over(&objects, &mut stamp));
        stamp.settle(now);
        for path in others.iter().filter(|path| **path != self.path) {
            self.troubles.recheck(path, format::LARGEST);
        }
        // Such trouble may have kept the last look from its end.
        if !others.is_empty() || looked.is_err_and(|error| error.trouble().is_some()) {
            stamp.unsettled = Some(now);
        }
        stamp
    }

    fn look_over(&self, unread: &[PathBuf], stamp: &mut Stamp) -> Result<(), FolderError> {
        let Some(folder) = Opened::at(&self.path).inspect_err(|_| {
            // Not to be trusted, until it is another.
            stamp.folder = match Sight::of(&self.path) {
                Sight::There(about) => Some(about),
                Sight::Missing | Sight::Unread(_) => None,
            };
        })?
        else {
            return Ok(());
        };
        stamp.folder = Some(folder.stamp);
        for file in folder.names().map_err(FolderError::at(&self.path))? {
            let name = file.to_string_lossy();
            let trouble = match folder.file_stamp(&file) {
                Ok(None) => None,
                Ok(Some(about)) => {
                    stamp.files.push(about);
                    let was_unread = unread.iter().any(|path| path.ends_with(&*name));
                    was_unread.then(|| folder.trouble_with(&name)).flatten()
                }
                Err(errno) => {
                    self.troubles.note(&self.path.join(&*name), errno);
                    Some(errno)
                }
            };
            stamp
                .unread
                .extend(trouble.map(|errno| (name.into_owned(), errno)));
        }
        let unread = &mut stamp.unread;
        unread.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(())
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
        edit: impl FnOnce(&Entry) -> Result<Option<Content>, E>,
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
        edit: impl FnOnce(&Entry) -> Result<Option<Content>, E>,
    ) -> Result<Option<Entry>, E> {
        self.exchange(name, edit, |writer, failed| {
            warn!("{failed}: what was to stay of {name:?} is destroyed with the rest");
            writer.delete(&file_name(name))
        })
    }

    fn exchange<E: From<FolderError>>(
        &self,
        name: &str,
        edit: impl FnOnce(&Entry) -> Result<Option<Content>, E>,
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
        let Some(content) = self.content_of(&folder, file)? else {
            return Ok(None);
        };
        let digits = String::from_utf8(content).unwrap_or_default();
        let digits = Some(digits.trim())
            .filter(|digits| sound(digits))
            .and_then(from_hex);
        let wrong = || FolderError::Damaged {
            file: self.path.join(file).display().to_string(),
            reason: "not the hexadecimal digits that belong here; bring it back from a copy".into(),
        };
        digits.map(Some).ok_or_else(wrong)
    }

    /// What a file that is no object holds; `None` if there is none.
    fn content_of(&self, folder: &Opened<'_>, file: &str) -> Result<Option<Vec<u8>>, FolderError> {
        let content = match folder.trusted(file) {
            Err(Unread::Gone) => None,
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
