//! Temporary faults: the system could not read a file now, but its content may be valid.
//!
//! A missing or wrong file stays missing or wrong until it is changed. A file that could not be
//! read (no free descriptor, EIO of the disk, no permission) may be valid at the next scan.

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

/// Returns the error of the system, if the file may exist and be valid. Returns `None` if the file
/// is missing.
pub(crate) fn trouble(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error).filter(|errno| !is_missing(*errno))
}

fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

/// Returns the result of a system call; `None` if the file does not exist.
///
/// # Errors
///
/// Fails if it is unknown now whether the file exists.
pub(crate) fn found<T>(look: impl FnMut() -> rustix::io::Result<T>) -> io::Result<Option<T>> {
    match retry_on_intr(look) {
        Ok(about) => Ok(Some(about)),
        Err(errno) if is_missing(errno) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns true if a file of this name exists. A symbolic link to a missing file counts as a file.
///
/// # Errors
///
/// Fails if it is unknown now whether the file exists. A writer must then not assume that the file
/// is missing.
pub(crate) fn is_there(path: &Path) -> io::Result<bool> {
    Ok(found(|| lstat(path))?.is_some())
}

/// Returns the sorted paths of all files in a folder. Returns none if the folder is missing.
///
/// # Errors
///
/// Fails if a part of the folder could not be read.
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

/// Returns true for the names of files that are ignored without a message: hidden files, copies
/// (`ca.pem~`, `#ca.pem#`), and READMEs.
pub(crate) fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is = name.starts_with(b".")
        || name.ends_with(b"~")
        || (name.starts_with(b"#") && name.ends_with(b"#"))
        || name.starts_with(b"README");
    if is {
        trace!("{}: ignored because of its name", path.display());
    }
    is
}

/// The state of a file (missing, present or unreadable), without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The file is missing.
    Missing,
    /// The file exists. The stamp holds its size, inode and times.
    There(FileStamp),
    /// The system call failed, so the state of the file is unknown now.
    Unread(Errno),
}

impl Sight {
    /// Returns the state of the file at a path. Symbolic links are followed.
    pub(crate) fn of(path: &Path) -> Self {
        match retry_on_intr(|| stat(path)) {
            Ok(about) => Self::There(FileStamp::from(&about)),
            Err(errno) if is_missing(errno) => Self::Missing,
            Err(errno) => Self::Unread(errno),
        }
    }

    /// Returns the error of the system call, if the state of the file is unknown.
    pub(crate) fn trouble(self) -> Option<Errno> {
        match self {
            Self::Unread(errno) => Some(errno),
            Self::Missing | Self::There(_) => None,
        }
    }
}

/// Files that could not be read. Each file is logged once. A file is logged again only if it was
/// readable in the meantime.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<PathBuf, Errno>>);

impl Troubles {
    /// Returns a copy for a forked child, in which a lock of the parent may stay locked for ever.
    pub(crate) fn for_child(&self) -> Self {
        let known = self.0.try_lock().map(|known| known.clone());
        Self(Mutex::new(known.unwrap_or_default()))
    }

    /// Records that the file could not be read.
    pub(crate) fn note(&self, path: &Path, errno: Errno) {
        if self.0.lock().insert(path.to_owned(), errno) != Some(errno) {
            warn!(
                "{}: the file could not be read: {errno}; it is read again at the next scan",
                path.display()
            );
        }
    }

    /// Reads a file again that could not be read, up to `most` bytes. A file that can be read now
    /// is forgotten.
    pub(crate) fn recheck(&self, path: &Path, most: u64) {
        if self.sight(path, most).trouble().is_none() {
            self.0.lock().remove(path);
        }
    }

    /// Forgets all files for which `still` returns false.
    pub(crate) fn keep(&self, still: impl Fn(&Path) -> bool) {
        self.0.lock().retain(|path, _| still(path));
    }

    /// Returns the reason why a file could not be read, if the last read of the file failed.
    pub(crate) fn with(&self, path: &Path) -> Option<Errno> {
        self.0.lock().get(path).copied()
    }

    /// Returns all files that could not be read.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().keys().cloned().collect()
    }

    /// Returns the current state of a file. A file that could not be read is read again, up to
    /// `most` bytes, because its stamp may be unchanged.
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
        assert_eq!(
            trouble(&no_folder),
            None,
            "the path is wrong until it is changed"
        );
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
        assert_eq!(
            troubles.sight(&file, 9),
            whole,
            "the file can be read again"
        );
        assert_eq!(
            troubles.paths().len(),
            1,
            "but a scan must still read the file"
        );
        assert_eq!(troubles.for_child().paths().len(), 1);
        troubles.recheck(&file, 9);
        assert_eq!(troubles.paths().len(), 0);
    }
}
