//! Why the key folder did not do what was asked.

use crate::system::Failed;
use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why the key folder could not be read or was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderError {
    /// The file system is read-only.
    ReadOnly(PathBuf),
    /// This process has no right to.
    Permission(PathBuf),
    /// There is no room, no more for this user, or files of this process may not be so large.
    NoSpace(PathBuf),
    /// There is no such object, or no more.
    Gone(String),
    /// The file holds no object that can be understood; it stays as it is.
    Damaged {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody may write there who must not (`trust`).
    Unsafe {
        /// The folder or file.
        path: PathBuf,
        /// Who.
        reason: String,
    },
    /// Something else is in the place of a file of ours.
    InTheWay(PathBuf, &'static str),
    /// Somebody else kept the folder locked for too long.
    Locked(String),
    /// The content cannot be kept in a file.
    Unfit(String),
    /// This process may not make the system call of this name, whatever the file.
    Denied(PathBuf, &'static str, Errno),
    /// Anything else that the system said.
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
    /// The file that could not be read now, and what the system said. Of what could not be written
    /// it tells nothing.
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
                write!(f, "{}: this process has no right to", path.display())
            }
            Self::NoSpace(path) => write!(f, "{}: no room is left", path.display()),
            Self::Gone(name) => write!(f, "there is no object {name:?} in the folder"),
            Self::Damaged { file, reason } => write!(f, "{file:?}: {reason}"),
            Self::Unsafe { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::InTheWay(path, what) => write!(
                f,
                "{}: {what}, so nothing can be written (devid doctor names the remedy)",
                path.display()
            ),
            Self::Locked(who) => write!(f, "the key folder is locked by {who}"),
            Self::Unfit(why) => write!(f, "it cannot be kept in a file: {why}"),
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
