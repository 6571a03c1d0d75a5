//! Listing of the folder, and the stamp that tells when a listing can differ.

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

/// The contents of the folder.
#[derive(Debug)]
pub struct FolderListing {
    /// By name. A file that did not change since the last listing gives the same `Arc`.
    pub entries: Vec<Arc<Entry>>,
    /// Files that give no object, by name.
    pub refused: Vec<RefusedFile>,
    /// The names of files that are ignored because of their names.
    pub left_out: Vec<String>,
    /// The first file that could not be read now and may hold an object.
    pub unread: Option<FolderError>,
    /// See [`KeyFolder::stamp`]; taken before the files were read.
    pub stamp: FolderStamp,
}

/// The state on which a listing depends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FolderStamp {
    folder: Option<FileStamp>,
    files: Vec<FileStamp>,
    /// Objects that could not be read.
    unread: Vec<(String, Errno)>,
    /// The time of the stamp, if the stamp is unreliable. A change shortly before might repeat the
    /// stamp, or a part of the folder could not be read. Such a stamp is equal to no later one.
    pub(super) unsettled: Option<Moment>,
}

impl FolderListing {
    /// This listing, if it is complete. For a caller that acts because an object is missing.
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
    /// The object does not exist, or its file could not be read now.
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
    /// All objects. Only changed files are read; a missing folder is empty. If a file cannot be
    /// read now, its earlier object is listed, if there is one.
    ///
    /// # Errors
    ///
    /// The folder as a whole cannot be read or is not trustworthy.
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

    /// Among ignored names, those that an administrator may have meant as objects. Excludes hidden
    /// files (like the module's own), backups of editors, and files that were set aside. Each is
    /// logged once.
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

    /// Records which objects could not be read; the folder itself was readable.
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

    /// The file name, if the path leads to an object of this folder.
    fn object_in<'p>(&self, path: &'p Path) -> Option<&'p str> {
        let name = path.strip_prefix(&self.path).ok()?.to_str()?;
        (is_object(name.as_bytes()) && !name.contains('/')).then_some(name)
    }

    /// Records the file that could not be read, if this caused the error.
    pub(super) fn noted<T>(&self, outcome: Result<T, FolderError>) -> Result<T, FolderError> {
        if let Some((path, errno)) = outcome.as_ref().err().and_then(FolderError::trouble) {
            self.troubles.note(path, errno);
        }
        outcome
    }

    /// The error for a file elsewhere that the folder depends on and that could not be read now.
    pub(crate) fn unread<T>(&self, path: &Path, errno: Errno) -> Result<T, FolderError> {
        self.noted(Err(FolderError::at(path)(errno)))
    }

    /// The state on which a listing depends. Listings differ only if the stamp differs. Reads only
    /// files that could not be read before.
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
        // The fault may have interrupted the last scan, and the fault of an object may be over.
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
            // Not trustworthy until its stamp changes.
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
