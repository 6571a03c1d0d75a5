//! The lock of writers of a folder, and the temporary files that killed writers left.

use crate::file::{TEMPORARY, names};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::path::Path;

/// The reason why a lock file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLock {
    /// An object that is not a lock file has the name of the lock.
    InTheWay(&'static str),
    /// A system call failed.
    System(Errno),
}

/// Opens a lock file (flock(2)). With `make`, a missing lock file is created, for its owner only.
/// An existing object is checked before it is opened, and is never changed.
pub(crate) fn open_lock(
    folder: impl AsFd,
    name: impl Arg + Copy,
    make: bool,
) -> Result<OwnedFd, NoLock> {
    const FLAGS: OFlags = OFlags::RDONLY
        .union(OFlags::CLOEXEC)
        .union(OFlags::NOFOLLOW)
        .union(OFlags::NONBLOCK)
        .union(OFlags::NOCTTY);
    /// The number of attempts to open the lock file. Other processes may create or remove the file
    /// between the check and the opening.
    const LOOKS: usize = 3;
    let new = FLAGS | OFlags::CREATE | OFlags::EXCL;
    for _ in 0..LOOKS {
        let opened = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => {
                no_lock(&there).map_or(Ok(()), |what| Err(NoLock::InTheWay(what)))?;
                // The flag CREATE is not used for an existing file. With CREATE the kernel would
                // refuse files of other users in a world-writable folder (protected_regular).
                openat(&folder, name, FLAGS, Mode::empty())
            }
            Err(Errno::NOENT) if make => openat(&folder, name, new, Mode::RUSR | Mode::WUSR),
            Err(error) => Err(error),
        };
        let fd = match opened {
            Err(Errno::EXIST) => continue,
            Err(Errno::NOENT) if make => continue,
            other => other.map_err(NoLock::System)?,
        };
        let there = fstat(&fd).map_err(NoLock::System)?;
        return match no_lock(&there) {
            Some(what) => Err(NoLock::InTheWay(what)),
            None => Ok(fd),
        };
    }
    Err(NoLock::System(Errno::NOENT))
}

/// Returns the reason why a file cannot be a lock. A lock is a regular file with only one name.
pub(crate) fn no_lock(about: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile if about.st_nlink <= 1 => None,
        FileType::RegularFile => Some("the lock file has a second name (a hard link)"),
        FileType::Directory => Some("a folder has the name of the lock file"),
        FileType::Symlink => Some("a symbolic link has the name of the lock file"),
        FileType::Fifo => Some("a pipe has the name of the lock file"),
        _ => Some("a device or socket has the name of the lock file"),
    }
}

/// Returns the process id in a temporary name of [`crate::file::put`]; `None` for other names.
pub(crate) fn writer_of(name: &[u8]) -> Option<u32> {
    const DIGITS: usize = 16;
    let rest = std::str::from_utf8(name).ok()?.strip_prefix(TEMPORARY)?;
    let (process, digits) = rest.split_once('-')?;
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let sound = digits.len() == DIGITS && digits.bytes().all(is_digit);
    let process: u32 = process.parse().ok()?;
    sound.then_some(process)
}

/// Removes the temporary files that killed writers left in a folder. The removed files are regular
/// files with temporary names of this project. Files for which `is_writing` is true stay. A file
/// that cannot be removed stays.
pub(crate) fn remove_leftovers(
    folder: &OwnedFd,
    is_writing: impl Fn(u32) -> bool,
) -> rustix::io::Result<()> {
    for name in names(folder)? {
        let Some(process) = writer_of(name.to_bytes()) else {
            continue;
        };
        let is_file = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::RegularFile);
        if is_file && !is_writing(process) {
            let _ = unlinkat(folder, &name, AtFlags::empty());
        }
    }
    Ok(())
}

/// Returns true if a process lives, as far as this process can see. A zombie does not count
/// (proc_pid_stat(5)), because in a container a zombie may exist for ever.
pub(crate) fn lives(process: u32) -> bool {
    let about = Path::new("/proc").join(process.to_string());
    // The state comes after the name of the program. The name may contain any characters.
    match std::fs::read(about.join("stat")) {
        Ok(stat) => {
            let behind = stat
                .iter()
                .rposition(|byte| *byte == b')')
                .map(|end| end + 2);
            let state = behind.and_then(|at| stat.get(at));
            !matches!(state, Some(b'Z' | b'X' | b'x'))
        }
        Err(_) => about.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::open;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_is_ours_is_taken_away() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at(".new-1-0123456789abcdef")).unwrap();
        symlink("nowhere", at(".new-2-0123456789abcdef")).unwrap();
        let stays = [
            ".new-ideas",
            ".new-4-0123456789ABCDEF",
            ".new-5-0123456789abcdef",
            "new",
        ];
        for name in stays {
            fs::write(at(name), "").unwrap();
        }
        fs::write(at(".new-3-0123456789abcdef"), "").unwrap();
        let folder = open(home.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        remove_leftovers(&folder, |process| process == 5).unwrap();
        assert!(!at(".new-3-0123456789abcdef").exists());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 6);
    }

    #[test]
    fn who_was_killed_lives_no_more() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let home = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let left = home
            .path()
            .join(format!(".new-{}-0123456789abcdef", child.id()));
        fs::write(&left, "").unwrap();
        // The process has ended, but its parent has not waited for it yet.
        let id = Pid::from_raw(child.id().cast_signed()).unwrap();
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(id), ended).unwrap();
        assert!(Path::new("/proc").join(child.id().to_string()).exists());
        let folder = open(home.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        remove_leftovers(&folder, lives).unwrap();
        assert!(!left.exists());
        child.wait().unwrap();
        assert!(lives(std::process::id()) && !lives(u32::MAX));
    }

    #[test]
    fn what_is_in_the_way_is_named_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let folder = open(home.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let opened = |name: &str| open_lock(&folder, name, true).map(drop);
        assert_eq!(opened("new"), Ok(()));
        assert_eq!(opened("new"), Ok(()));
        let none = open_lock(&folder, "none", false).map(drop);
        assert_eq!(none, Err(NoLock::System(Errno::NOENT)));
        fs::create_dir(home.path().join("folder")).unwrap();
        symlink("new", home.path().join("link")).unwrap();
        let told = |name: &str| match opened(name) {
            Err(NoLock::InTheWay(what)) => what,
            other => panic!("{name}: {other:?}"),
        };
        assert!(told("folder").contains("a folder"));
        assert!(told("link").contains("a symbolic link"));
        fs::hard_link(home.path().join("new"), home.path().join("second")).unwrap();
        assert!(told("new").contains("second name"));
    }
}
