//! Changes the key folder. Only one writer at a time has the lock, and each file is replaced as a
//! whole.
//!
//! A reader finds the old or the new file. A killed writer leaves at most its temporary file, which
//! the next writer removes.

use super::names::{LOST, SUFFIX, object_name};
use super::read::OpenFolder;
use super::{FolderError, SERIAL};
use crate::file::{self, Lock, Undone, WriteMode, sync_folder};
use crate::system::{Failed, random_digits};
use crate::trust::Owned;
use crate::writers::{NoLock, open_lock, remove_leftovers};
use log::warn;
use rustix::fd::OwnedFd;
use rustix::fs::{
    Access, AtFlags, Gid, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Uid, access, accessat,
    fchmod, fchown, fstat, openat, statat, statx,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgid, getuid};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

pub(super) const LOCK: &str = ".lock";
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// The users who may read a new file of the key folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// The owner of the file and the group of the folder.
    Group,
    /// The owner of the file only.
    Owner,
}

/// The only writer of the key folder at this time. The value holds the lock of the folder.
pub(super) struct Writer<'a> {
    folder: OpenFolder<'a>,
    _lock: Lock,
}

impl<'a> Writer<'a> {
    /// Takes the lock of the folder. Returns `None` if the folder does not exist.
    pub(super) fn open(path: &'a Path, patience: Duration) -> Result<Option<Self>, FolderError> {
        let Some(folder) = OpenFolder::at(path)? else {
            return Ok(None);
        };
        let lock = locked(&folder, patience)?;
        let writer = Self {
            folder,
            _lock: lock,
        };
        // This process holds the lock, so no running writer owns a temporary file.
        remove_leftovers(&writer.folder.fd, |_| false).map_err(FolderError::at(path))?;
        Ok(Some(writer))
    }

    /// Creates the folder if it is missing, and takes its lock. A folder without serial number gets
    /// this number, or a random one.
    pub(super) fn make_folder(
        path: &'a Path,
        patience: Duration,
        serial: Option<&str>,
    ) -> Result<Self, FolderError> {
        if !path.exists() {
            make_folder(path)?;
        }
        let gone = || FolderError::System(path.into(), Errno::NOENT);
        let writer = Self::open(path, patience)?.ok_or_else(gone)?;
        if writer.about(SERIAL)?.is_none() {
            let digits = match serial {
                Some(digits) => digits.to_owned(),
                None => random_digits().map_err(FolderError::at(path))?,
            };
            writer.put(
                SERIAL,
                format!("{digits}\n").as_bytes(),
                Err(Readers::Group),
            )?;
        }
        Ok(writer)
    }

    /// Returns the open folder. No other writer can change it while this writer exists.
    pub(super) fn folder(&self) -> &OpenFolder<'a> {
        &self.folder
    }

    /// Checks as far as possible that a file can be changed and removed. Callers check this before
    /// an irreversible step outside the folder.
    pub(super) fn check(&self, file: &str) -> Result<(), FolderError> {
        let both = Access::WRITE_OK | Access::EXEC_OK;
        let asked = match accessat(&self.folder.fd, ".", both, AtFlags::EACCESS) {
            // The kernel is too old for faccessat2(2), or a container filter denies it. The filter
            // returns the same error number as an immutable folder. access(2) checks the real user
            // and group, and the C library does not emulate it.
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) if is_as_started() => {
                match access(self.folder.path, both) {
                    Err(Errno::NOSYS | Errno::PERM) => self.not_immutable(),
                    other => other,
                }
            }
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => self.not_immutable(),
            other => other,
        };
        asked.map_err(FolderError::at(&self.folder.path.join(file)))
    }

    /// Checks that the key folder is not immutable (chattr(1)), if the file system can tell this.
    fn not_immutable(&self) -> rustix::io::Result<()> {
        let about = statx(&self.folder.fd, ".", AtFlags::empty(), StatxFlags::MODE);
        match about {
            Ok(about) if about.stx_attributes.contains(StatxAttributes::IMMUTABLE) => {
                Err(Errno::PERM)
            }
            _ => Ok(()),
        }
    }

    /// Writes a new file. Fails if the key folder has a file of this name.
    pub(super) fn put_new(
        &self,
        file: &str,
        content: &[u8],
        readers: Readers,
    ) -> Result<(), FolderError> {
        self.put(file, content, Err(readers))
    }

    /// Replaces a file. Keeps its owner, group and mode.
    pub(super) fn replace(&self, file: &str, content: &[u8]) -> Result<(), FolderError> {
        match self.about(file)? {
            Some(old) => self.put(file, content, Ok(&old)),
            None => self.put(file, content, Err(Readers::Group)),
        }
    }

    /// Checks that the disk has space for a file of this size.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), FolderError> {
        file::try_room(&self.folder.fd, bytes).map_err(FolderError::at(self.folder.path))
    }

    /// Renames a file to a name with the suffix for lost files. Returns the new name.
    pub(super) fn set_aside(&self, file: &str) -> Result<String, FolderError> {
        let stem = file.strip_suffix(SUFFIX).unwrap_or(file);
        for number in 1.. {
            let aside = match number {
                1 => format!("{stem}{LOST}"),
                _ => format!("{stem}{LOST}-{number}"),
            };
            match file::rename_to_free(&self.folder.fd, file, &*aside) {
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => break,
                Err(errno) => {
                    return Err(FolderError::at(&self.folder.path.join(file))(errno));
                }
                Ok(()) => {
                    let settled = sync_folder(&self.folder.fd).map_err(Undone::Unsettled);
                    return self.settled(file, settled).map(|()| aside);
                }
            }
        }
        Err(FolderError::Gone(object_name(file).into()))
    }

    /// Removes a file.
    pub(super) fn delete(&self, file: &str) -> Result<(), FolderError> {
        match file::take_away(&self.folder.fd, file) {
            Err(Undone::Unchanged(failed)) if failed.errno == Errno::NOENT => {
                Err(FolderError::Gone(object_name(file).into()))
            }
            other => self.settled(file, other),
        }
    }

    /// Writes a file. `old` is the stat of the file to replace, or the permitted readers of a new
    /// file.
    fn put(
        &self,
        file: &str,
        content: &[u8],
        old: Result<&Stat, Readers>,
    ) -> Result<(), FolderError> {
        let place = match old {
            Ok(_) => WriteMode::Replace,
            Err(_) => WriteMode::CreateNew,
        };
        let dress = |fd: &OwnedFd| self.dress(fd, old);
        let put = file::put(&self.folder.fd, file, content, place, dress);
        self.settled(file, put)
    }

    /// Reports success for a completed change, even if the disk did not confirm the change. After
    /// an error the caller would assume that the folder is unchanged.
    fn settled(&self, file: &str, changed: Result<(), Undone>) -> Result<(), FolderError> {
        let path = self.folder.path.join(file);
        match changed {
            Ok(()) => Ok(()),
            Err(Undone::Unchanged(failed)) => Err(FolderError::at(&path)(failed)),
            Err(Undone::Unsettled(failed)) => {
                warn!(
                    "{}: the file was changed, but the disk did not confirm the change: {failed}; \
                     a power failure may undo it",
                    path.display()
                );
                Ok(())
            }
        }
    }

    /// Sets the owner, the group and the mode of a file. A replaced file keeps its old values. A
    /// new file is readable by the group of the folder. If the group cannot be set, only the owner
    /// may read the file.
    fn dress(&self, fd: &OwnedFd, old: Result<&Stat, Readers>) -> Result<(), Failed> {
        let made = fstat(fd)?;
        let (owner, group, mode) = match old {
            Ok(old) => (old.st_uid, old.st_gid, old.st_mode & 0o777),
            Err(Readers::Group) => (made.st_uid, self.folder.owned.group(), FILE_MODE),
            Err(Readers::Owner) => (made.st_uid, made.st_gid, FILE_MODE & 0o600),
        };
        // Only root can change the owner. Otherwise the user of this process owns the file.
        if owner != made.st_uid {
            let _ = fchown(fd, Some(Uid::from_raw(owner)), None);
        }
        let of_group = group == made.st_gid || fchown(fd, None, Some(Gid::from_raw(group))).is_ok();
        let mode = if of_group { mode } else { mode & 0o600 };
        fchmod(fd, Mode::from_raw_mode(mode)).map_err(Failed::at("fchmod"))
    }

    /// Returns the stat of the file, or `None` if the file does not exist.
    fn about(&self, file: &str) -> Result<Option<Stat>, FolderError> {
        match statat(&self.folder.fd, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(about)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FolderError::at(&self.folder.path.join(file))(error)),
        }
    }
}

/// Returns true if the effective user and group are the real user and group.
fn is_as_started() -> bool {
    getuid() == geteuid() && getgid() == getegid()
}

fn locked(folder: &OpenFolder<'_>, patience: Duration) -> Result<Lock, FolderError> {
    let path = folder.path.join(LOCK);
    let lock = match open_lock(&folder.fd, LOCK, true) {
        // A removal must work on a full disk, where no lock file can be created. So the writer
        // locks the folder itself.
        Err(NoLock::System(Errno::NOSPC | Errno::DQUOT)) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(&folder.fd, ".", flags, Mode::empty()).map_err(FolderError::at(&path))?
        }
        Err(NoLock::System(errno)) => return Err(FolderError::at(&path)(errno)),
        Err(NoLock::InTheWay(what)) => return Err(FolderError::InTheWay(path, what)),
        Ok(lock) => {
            keep_for_writers(&lock, folder.owned).map_err(FolderError::at(&path))?;
            lock
        }
    };
    let inode = fstat(&lock).map_err(FolderError::at(&path))?.st_ino;
    let taken = Lock::take(lock, patience).map_err(FolderError::at(&path))?;
    taken.ok_or_else(|| FolderError::Locked(holder(inode)))
}

/// Sets the permissions of the lock file. A process that can open the lock file can block all
/// writers. So only users with write access to the folder may open it.
fn keep_for_writers(lock: &OwnedFd, folder: Owned) -> rustix::io::Result<()> {
    let about = fstat(lock)?;
    let mode = if folder.is_shared() { 0o640 } else { 0o600 };
    let is_so = Owned::from(&about).with_mode(about.st_mode & 0o777) == folder.with_mode(mode);
    let me = geteuid();
    if is_so || !(me.is_root() || me.as_raw() == about.st_uid) {
        return Ok(());
    }
    // The lock file gets the owner and group of the folder, as far as the system permits.
    let _ = fchown(lock, Some(Uid::from_raw(folder.owner())), None);
    let of_group = fchown(lock, None, Some(Gid::from_raw(folder.group()))).is_ok();
    let mode = if of_group { mode } else { 0o600 };
    match fchmod(lock, Mode::from_raw_mode(mode)) {
        // The file belongs to another user, or the system denies fchmod(2). The file stays readable
        // by its owner only.
        Err(Errno::PERM | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// Returns the name of the process that holds the lock, from /proc/locks (proc_locks(5)).
fn holder(inode: u64) -> String {
    let inode = format!(":{inode}");
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let process = locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = fields[..] else {
            return None;
        };
        file.ends_with(&inode).then(|| process.to_owned())
    });
    match process {
        Some(process) => {
            let command = std::fs::read_to_string(format!("/proc/{process}/comm"));
            let command = command.unwrap_or_default();
            format!("process {process} ({})", command.trim_end().escape_debug())
        }
        None => "another process".into(),
    }
}

/// Creates the folder and its missing parents. Syncs each folder before its contents.
fn make_folder(path: &Path) -> Result<(), FolderError> {
    let fault =
        |error: io::Error| FolderError::at(path)(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && !parent.exists()
    {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other
            .and_then(|()| std::fs::File::open(parent.unwrap_or(Path::new("."))))
            .map_err(fault)
            .and_then(|parent| sync_folder(&parent).map_err(FolderError::at(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_only_read_holds_no_lock() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let lock = folder.path().join(LOCK);
        std::fs::write(&lock, b"").unwrap();
        set(&lock, 0o640);
        for (of_folder, of_lock) in [(0o750, 0o600), (0o770, 0o640), (0o700, 0o600)] {
            set(folder.path(), of_folder);
            Writer::open(folder.path(), Duration::ZERO).unwrap();
            let mode = lock.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, of_lock, "{of_folder:o}");
        }
    }
}
