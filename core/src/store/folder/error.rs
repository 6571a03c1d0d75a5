//! Errors of the key folder.

use crate::system::Failed;
use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};

/// The reason why the key folder could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderError {
    /// The file system is read-only.
    ReadOnly(PathBuf),
    /// This process lacks the permission to read or write the path.
    Permission(PathBuf),
    /// The disk is full, the quota of this user is used up, or the file exceeds the size limit of
    /// this process.
    NoSpace(PathBuf),
    /// The key folder holds no object of this name.
    Gone(String),
    /// The file holds no valid object. This project leaves the file unchanged.
    Damaged {
        /// The file's name.
        file: String,
        /// The reason why the file is damaged.
        reason: String,
    },
    /// A user without the right to change keys can write to the folder or file (`trust`).
    Unsafe {
        /// The folder or file.
        path: PathBuf,
        /// The user, and the permission that is too wide.
        reason: String,
    },
    /// A file that this project did not make has the name of a file that the project needs.
    InTheWay(PathBuf, &'static str),
    /// Another process held the lock of the key folder for too long.
    Locked(String),
    /// The content of an object cannot be stored in a file of the key folder.
    Unfit(String),
    /// The system does not permit this process to make the named system call.
    Denied(PathBuf, &'static str, Errno),
    /// Any other error of a system call.
    System(PathBuf, Errno),
}

impl FolderError {
    pub(super) fn at<E: Into<Failed>>(path: &Path) -> impl Fn(E) -> Self {
        move |error| {
            let path = path.to_path_buf();
            let failed: Failed = error.into();
            if let Some(call) = failed.denied {
                return Self::Denied(path, call, failed.errno);
            }
            match failed.errno {
                Errno::ROFS => Self::ReadOnly(path),
                Errno::ACCESS | Errno::PERM => Self::Permission(path),
                Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace(path),
                other => Self::System(path, other),
            }
        }
    }
}

impl FolderError {
    /// Returns the file that could not be read, with the error of the system. Returns `None` for
    /// errors of writing.
    pub(crate) fn trouble(&self) -> Option<(&Path, Errno)> {
        match self {
            Self::Permission(path) => Some((path, Errno::ACCESS)),
            Self::System(path, errno) => Some((path, *errno)),
            _ => None,
        }
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly(path) => write!(f, "{}: the file system is read-only", path.display()),
            Self::Permission(path) => {
                write!(f, "{}: this process lacks the permission", path.display())
            }
            Self::NoSpace(path) => write!(
                f,
                "{}: no space is left (disk, quota, or size limit of files)",
                path.display()
            ),
            Self::Gone(name) => write!(f, "the key folder has no object {name:?}"),
            Self::Damaged { file, reason } => write!(f, "{file:?}: {reason}"),
            Self::Unsafe { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::InTheWay(path, what) => write!(
                f,
                "{}: {what}, so the key folder cannot be written; devid doctor names the remedy",
                path.display()
            ),
            Self::Locked(who) => write!(f, "the key folder is locked by {who}"),
            Self::Unfit(why) => write!(f, "the object cannot be stored in a file: {why}"),
            Self::Denied(path, call, error) => write!(
                f,
                "{}: the system call {call} is denied to this process ({error})",
                path.display()
            ),
            Self::System(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for FolderError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_stays_distinct() {
        let path = Path::new("/keys");
        let at = FolderError::at(path);
        assert_eq!(at(Errno::ROFS), FolderError::ReadOnly(path.into()));
        assert_eq!(at(Errno::ACCESS), FolderError::Permission(path.into()));
        assert_eq!(at(Errno::PERM), FolderError::Permission(path.into()));
        assert_eq!(at(Errno::NOSPC), FolderError::NoSpace(path.into()));
        assert_eq!(at(Errno::DQUOT), FolderError::NoSpace(path.into()));
        assert_eq!(at(Errno::FBIG), FolderError::NoSpace(path.into()));
        assert_eq!(at(Errno::IO), FolderError::System(path.into(), Errno::IO));
        let denied = FolderError::at(path)(Failed::at("fsync")(Errno::PERM));
        let wanted = FolderError::Denied(path.into(), "fsync", Errno::PERM);
        assert_eq!(denied, wanted);
    }
}
