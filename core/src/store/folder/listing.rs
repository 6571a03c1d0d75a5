//! Lists the key folder. A stamp tells when a new listing may differ from the last listing.

use super::cache::{CachedFile, FolderCache, RefusedFile};
use super::names::{SUFFIX, is_lost, is_object};
use super::read::OpenFolder;
use super::{Entry, FolderError, KeyFolder, format};
use crate::config::not_read;
use crate::file::{FileStamp, Moment};
use crate::trouble::{Sight, is_leftover};
use log::warn;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of listing the key folder.
#[derive(Debug)]
pub struct FolderListing {
    /// The objects, sorted by name. A file that did not change since the last listing gives the
    /// same `Arc`.
    pub entries: Vec<Arc<Entry>>,
    /// The files that hold no valid object, sorted by name.
    pub refused: Vec<RefusedFile>,
    /// The names of files that are not objects, because of their names.
    pub left_out: Vec<String>,
    /// The first file that cannot be read at present, but may hold an object.
    pub unread: Option<FolderError>,
    /// The stamp of the folder before its files were read; see [`KeyFolder::stamp`].
    pub stamp: FolderStamp,
}

/// The state of the files and of the folder on which a listing depends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FolderStamp {
    folder: Option<FileStamp>,
    files: Vec<FileStamp>,
    /// The names of objects that could not be read, with the errors of the system.
    unread: Vec<(String, Errno)>,
    /// The time at which the stamp was taken, if the stamp is unreliable. A change shortly before
    /// may have left the stamp unchanged, or a part of the folder could not be read. An unreliable
    /// stamp differs from every later stamp.
    pub(super) unsettled: Option<Moment>,
}

impl FolderListing {
    /// Returns this listing, if it is complete. Callers that act because an object is missing need
    /// a complete listing.
    ///
    /// # Errors
    ///
    /// Fails if a file could not be read.
    pub fn whole(self) -> Result<Self, FolderError> {
        match self.unread {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// Returns the object of this name.
    ///
    /// # Errors
    ///
    /// Fails if the object does not exist, or if a file that may hold it could not be read.
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
    /// Lists all objects. Reads only files that changed. A missing folder gives an empty listing.
    /// If a file cannot be read at present, the listing contains the object of an earlier reading.
    ///
    /// # Errors
    ///
    /// Fails if the folder itself cannot be read or is not trustworthy.
    pub fn list(&self) -> Result<FolderListing, FolderError> {
        self.noted(self.listed())
    }

    fn listed(&self) -> Result<FolderListing, FolderError> {
        let now = Moment::now();
        let before = Arc::clone(&self.known.lock());
        let mut stamp = FolderStamp::default();
        let mut known = FolderCache::default();
        if let Some(folder) = OpenFolder::at(&self.path)? {
            known.folder = Some(folder.owned);
            stamp.folder = Some(folder.stamp);
            let same_folder = before.folder == known.folder;
            let names = folder.names().map_err(FolderError::at(&self.path))?;
            known.left_out = self.left_out(names.others, &before);
            for file in names.objects {
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
                    Err(errno) => Some(CachedFile::hidden(&name, earlier, None, errno)),
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
                Err(why) => refused.push(why.clone()),
            }
            unread.extend(seen.trouble.map(|errno| (name.clone(), errno)));
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        refused.sort_unstable();
        unread.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        self.note_objects(&unread);
        stamp.unread = unread;
        stamp.settle(now);
        let left_out = known.left_out.clone();
        *self.known.lock() = Arc::new(known);
        let hidden = stamp.unread.iter().find(|(name, _)| {
            let refused = refused.binary_search_by(|one| one.file.cmp(name));
            refused.is_ok()
        });
        let hidden = hidden.map(|(name, errno)| FolderError::at(&self.path.join(name))(*errno));
        Ok(FolderListing {
            entries,
            refused,
            left_out,
            unread: hidden,
            stamp,
        })
    }

    /// Returns the ignored names that an administrator may have meant as objects. Leaves out hidden
    /// files, backups of editors, and files that were set aside. Logs each name once.
    fn left_out(&self, others: Vec<String>, before: &FolderCache) -> Vec<String> {
        let is_own = |name: &str| name.contains(".pem.pre-tpm") || is_lost(name);
        let mut left: Vec<String> = others;
        left.retain(|name| !is_leftover(Path::new(name)) && !is_own(name));
        left.sort_unstable();
        for name in left.iter().filter(|name| !before.left_out.contains(name)) {
            warn!("{}", not_read(&self.path.join(name), SUFFIX));
        }
        left
    }

    /// Records the objects that could not be read. The folder itself was readable.
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

    /// Returns the file name, if the path belongs to an object of this folder.
    fn object_in<'p>(&self, path: &'p Path) -> Option<&'p str> {
        let name = path.strip_prefix(&self.path).ok()?.to_str()?;
        (is_object(name.as_bytes()) && !name.contains('/')).then_some(name)
    }

    /// Records the file that caused the error, if the error means that a file could not be read.
    pub(super) fn noted<T>(&self, outcome: Result<T, FolderError>) -> Result<T, FolderError> {
        if let Some((path, errno)) = outcome.as_ref().err().and_then(FolderError::trouble) {
            self.troubles.note(path, errno);
        }
        outcome
    }

    /// Returns the error for a file outside the folder that an object depends on. The file could
    /// not be read.
    pub(crate) fn unread<T>(&self, path: &Path, errno: Errno) -> Result<T, FolderError> {
        self.noted(Err(FolderError::at(path)(errno)))
    }

    /// Returns the state on which a listing depends. Two listings differ only if their stamps
    /// differ. Reads only files that could not be read before.
    pub fn stamp(&self) -> FolderStamp {
        let now = Moment::now();
        let mut stamp = FolderStamp::default();
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
        // A file that is readable again calls for a new scan. The fault may have interrupted the
        // last scan.
        let is_over = objects.iter().any(|path| {
            let is = |(name, _): &(String, Errno)| path.ends_with(name);
            !stamp.unread.iter().any(is)
        });
        if is_over || !others.is_empty() || looked.is_err_and(|error| error.trouble().is_some()) {
            stamp.unsettled = Some(now);
        }
        stamp
    }

    fn look_over(&self, unread: &[PathBuf], stamp: &mut FolderStamp) -> Result<(), FolderError> {
        let Some(folder) = OpenFolder::at(&self.path).inspect_err(|_| {
            // The folder is not trustworthy. Its stamp tells when that may have changed.
            stamp.folder = match Sight::of(&self.path) {
                Sight::There(about) => Some(about),
                Sight::Missing | Sight::Unread(_) => None,
            };
        })?
        else {
            return Ok(());
        };
        stamp.folder = Some(folder.stamp);
        let names = folder.names().map_err(FolderError::at(&self.path))?;
        for file in names.objects {
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
}

impl FolderStamp {
    fn settle(&mut self, now: Moment) {
        let all = self.folder.iter().chain(&self.files);
        let settled = all.into_iter().all(|stamp| stamp.is_settled(now));
        self.unsettled = (!settled).then_some(now);
    }
}
