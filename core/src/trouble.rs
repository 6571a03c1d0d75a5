//! Passing trouble: the system could not read a file now, which says nothing of what is in it.
//!
//! A file that is missing or wrong stays so until it is changed. One that could not be read (no
//! descriptor left, a disk that answers EIO, no permission) may be whole at the next look.

use crate::file::{self, FileStamp};
use log::{trace, warn};
use parking_lot::Mutex;
use rustix::fs::{lstat, stat};
use rustix::io::{Errno, retry_on_intr};
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the system said, if the file may be there and whole; `None` if it is missing or wrong.
pub(crate) fn trouble(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error).filter(|errno| !is_missing(*errno))
}

fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

/// What a call of the system found; `None` if there is nothing.
///
/// # Errors
///
/// Nobody can say now.
pub(crate) fn found<T>(look: impl FnMut() -> rustix::io::Result<T>) -> io::Result<Option<T>> {
    match retry_on_intr(look) {
        Ok(about) => Ok(Some(about)),
        Err(errno) if is_missing(errno) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// True if there is something of this name, a symbolic link that leads nowhere included.
///
/// # Errors
///
/// Nobody can say now: whoever then writes must not take it for missing.
pub(crate) fn is_there(path: &Path) -> io::Result<bool> {
    Ok(found(|| lstat(path))?.is_some())
}

/// The paths of all that is in a folder, sorted; none if the folder is missing.
///
/// # Errors
///
/// Not all of them could be read.
pub(crate) fn paths_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let names = match file::names_at(folder) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let path = |name: CString| folder.join(OsStr::from_bytes(name.to_bytes()));
    let mut paths: Vec<_> = names.into_iter().map(path).collect();
    paths.sort();
    Ok(paths)
}

/// True if a name is that of what editors and people leave beside files that are read: hidden files,
/// copies (`ca.pem~`, `#ca.pem#`), a README.
pub(crate) fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is = name.starts_with(b".")
        || name.ends_with(b"~")
        || (name.starts_with(b"#") && name.ends_with(b"#"))
        || name.starts_with(b"README");
    if is {
        trace!("{}: passed over by its name", path.display());
    }
    is
}

/// What is known of a file without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is missing.
    Missing,
    /// It is this file.
    There(FileStamp),
    /// Nobody can say now.
    Unread(Errno),
}

impl Sight {
    /// Of what the path leads to.
    pub(crate) fn of(path: &Path) -> Self {
        match retry_on_intr(|| stat(path)) {
            Ok(about) => Self::There(FileStamp::from(&about)),
            Err(errno) if is_missing(errno) => Self::Missing,
            Err(errno) => Self::Unread(errno),
        }
    }

    /// What the system said, if it could not say what is there.
    pub(crate) fn trouble(self) -> Option<Errno> {
        match self {
            Self::Unread(errno) => Some(errno),
            Self::Missing | Self::There(_) => None,
        }
    }
}

/// Files that could not be read. Each is logged once, and again only if it was read in between.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<PathBuf, Errno>>);

impl Troubles {
    /// For a forked child, where a lock may stay held for ever.
    pub(crate) fn for_child(&self) -> Self {
        let known = self.0.try_lock().map(|known| known.clone());
        Self(Mutex::new(known.unwrap_or_default()))
    }

    /// The file could not be read.
    pub(crate) fn note(&self, path: &Path, errno: Errno) {
        if self.0.lock().insert(path.to_owned(), errno) != Some(errno) {
            warn!(
                "{}: it could not be read: {errno}; it is read again at the next look",
                path.display()
            );
        }
    }

    /// Tries a file again that could not be read, up to so many bytes.
    pub(crate) fn recheck(&self, path: &Path, most: u64) {
        if self.sight(path, most).trouble().is_none() {
            self.0.lock().remove(path);
        }
    }

    /// Keeps only troubles with these files.
    pub(crate) fn keep(&self, still: impl Fn(&Path) -> bool) {
        self.0.lock().retain(|path, _| still(path));
    }

    /// Why a file could not be read, if so.
    pub(crate) fn with(&self, path: &Path) -> Option<Errno> {
        self.0.lock().get(path).copied()
    }

    /// All files that could not be read.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().keys().cloned().collect()
    }

    /// How a file is now. One that could not be read is tried again, up to so many bytes: it may
    /// have the stamp that it had then.
    pub(crate) fn sight(&self, path: &Path, most: u64) -> Sight {
        let was_unread = self.with(path).is_some();
        let again = match was_unread {
            true => file::read(path, most).err().as_ref().and_then(trouble),
            false => None,
        };
        let sight = again.map_or_else(|| Sight::of(path), Sight::Unread);
        if let Some(errno) = sight.trouble() {
            self.note(path, errno);
        }
        sight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none");
        assert!(!is_there(&none).unwrap());
        assert_eq!(Sight::of(&none), Sight::Missing);
        assert_eq!(Sight::of(&none.join("below")), Sight::Missing);
        assert_eq!(paths_in(&none).unwrap(), [] as [PathBuf; 0]);
        std::fs::write(&none, "").unwrap();
        let no_folder = paths_in(&none).unwrap_err();
        assert_eq!(trouble(&no_folder), None, "it is wrong, and stays so");
        assert!(is_there(&none).unwrap());
        assert!(!is_there(&none.join("below")).unwrap());
        let loops = folder.path().join("loop");
        std::os::unix::fs::symlink(&loops, &loops).unwrap();
        assert!(is_there(&loops).unwrap());
        assert_eq!(Sight::of(&loops), Sight::Unread(Errno::LOOP));
    }

    #[test]
    fn a_trouble_is_known_until_the_file_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let (file, troubles) = (folder.path().join("file"), Troubles::default());
        std::fs::write(&file, "text").unwrap();
        let whole = Sight::of(&file);
        troubles.note(&file, Errno::IO);
        assert_eq!(troubles.paths(), std::slice::from_ref(&file));
        assert_eq!(troubles.sight(&file, 9), whole, "it can be read again");
        assert_eq!(troubles.paths().len(), 1, "but a look has still to read it");
        assert_eq!(troubles.for_child().paths().len(), 1);
        troubles.recheck(&file, 9);
        assert_eq!(troubles.paths().len(), 0);
    }
}
