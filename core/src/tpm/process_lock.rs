//! Locks between processes (flock(2)) on one TPM.
//!
//! | lock | what the lock guards | if the lock cannot be taken |
//! |---|---|---|
//! | PIN | reading the TPM's counter of failed tries, and one try | no PIN is tried |
//! | slots | loading and using keys in transient object slots that all processes share | the process continues |
//! | keeping | making a key that must exist only once | the process continues |
//! | generation | no data: the lock tells other processes that the TPM makes a key; several processes can hold the lock together | a busy TPM looks like a TPM that does not answer |
//!
//! The last three locks are advisory, because checks of names and signatures detect a wrong key
//! without a lock.
//!
//! Only users of the TPM can hold a lock. For a kernel TPM the PIN lock is on the device node.
//! Every other lock is on a file in the lock folder. Only root and this user can replace that file
//! ([`crate::trust::alone`]).

use super::Tcti;
use crate::accounts::group_number;
use crate::file::Lock;
use crate::system::{Failed, Held};
use crate::trouble::found;
use crate::trust::{Distrust, Owned, alone};
use crate::writers::{NoLock, open_lock};
use log::{debug, warn};
use rustix::fs::{
    Access, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, access, fchmod, fchown,
    fstat, lstat, major, minor, open, stat, statat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The names of the files in the lock folder.
const PINS: &str = "pin";
const SLOTS: &str = "slots";
const KEEPING: &str = "keep";
const GENERATION: &str = "busy";
/// The group of users who may use a TPM. The group is set by tpm-udev and by the unit of
/// tpm2-abrmd.
const GROUP: &str = "tss";
/// The time limit for the PIN lock after a wait that ended without the lock.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// A lock between processes (flock(2)) on a file or on the TPM's device node.
#[derive(Debug, Clone)]
pub(super) struct ProcessLock {
    target: LockTarget,
    /// The time limit of a wait if the last wait ended without the lock.
    again: Duration,
    /// True if the last wait ended without the lock.
    in_vain: Arc<AtomicBool>,
    /// The list of held locks, which a forked child closes, if this process may fork.
    held: Option<&'static Held>,
    /// The kind of flock(2): exclusive, or shared by several processes.
    sharing: FlockOperation,
}

#[derive(Debug, Clone)]
enum LockTarget {
    /// No lock is needed, because a resource manager separates the clients.
    None,
    File(PathBuf),
    /// The device node of a kernel TPM, and the file to use if the node cannot be opened.
    Node(PathBuf, PathBuf),
}

/// The reason why this process does not hold the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotLocked {
    /// Another process holds the lock on this path.
    Held(PathBuf),
    /// Other users could replace every available lock file.
    Unusable(Distrust),
}

impl ProcessLock {
    /// Creates the lock for the slots of transient objects. The lock has no effect if a resource
    /// manager gives each process its own slots.
    pub(super) fn for_object_slots(tcti: &Tcti, locks: &Path) -> Self {
        Self::at(match tcti.is_managed() {
            true => LockTarget::None,
            false => LockTarget::File(locks.join(SLOTS)),
        })
    }

    /// Creates the lock for one attempt with a PIN.
    pub(super) fn for_pins(tcti: &Tcti, locks: &Path) -> Self {
        let file = locks.join(PINS);
        Self {
            again: SHORT_PATIENCE,
            ..Self::at(match tcti.node() {
                Some(node) => LockTarget::Node(node, file),
                None => LockTarget::File(file),
            })
        }
    }

    /// Creates the lock for the creation of a key that must exist only once.
    pub(super) fn for_new_keys(locks: &Path) -> Self {
        Self::at(LockTarget::File(locks.join(KEEPING)))
    }

    /// Creates the lock of processes for which the TPM makes a key. Several processes can hold this
    /// lock at a time.
    pub(super) fn for_generations(locks: &Path) -> Self {
        Self {
            sharing: FlockOperation::NonBlockingLockShared,
            ..Self::at(LockTarget::File(locks.join(GENERATION)))
        }
    }

    fn at(target: LockTarget) -> Self {
        Self {
            target,
            again: Duration::ZERO,
            in_vain: Arc::default(),
            held: None,
            sharing: FlockOperation::NonBlockingLockExclusive,
        }
    }

    /// Returns this lock; each time it is taken, it is recorded in `held`.
    pub(super) fn noting(self, held: &'static Held) -> Self {
        Self {
            held: Some(held),
            ..self
        }
    }

    /// Takes the lock. The process holds the lock until the value is dropped or the process dies.
    /// After a wait without success, further waits are short until the lock is free again.
    pub(super) fn take(&self, limit: Duration) -> Result<Option<Lock>, NotLocked> {
        let patience = match self.in_vain.load(Ordering::Relaxed) {
            true => limit.min(self.again),
            false => limit,
        };
        let taken = match &self.target {
            LockTarget::None => return Ok(None),
            LockTarget::File(file) => self.take_file(file, patience),
            LockTarget::Node(node, file) => match shared_node(node) {
                Some((node, fd)) => match self.take_lock(fd, patience) {
                    Ok(taken) => taken.ok_or(NotLocked::Held(node)),
                    Err(failed) => {
                        Err(NotLocked::Unusable(Distrust::of(&node, failed.to_string())))
                    }
                },
                None => self.take_file(file, patience),
            },
        };
        let kept = matches!(taken, Err(NotLocked::Held(_)));
        self.in_vain.store(kept, Ordering::Relaxed);
        taken.map(Some)
    }

    /// Takes the lock if possible. Returns `None` if not; the caller then continues without the
    /// lock.
    pub(super) fn take_if_free(&self, limit: Duration) -> Option<Lock> {
        let known = self.in_vain.load(Ordering::Relaxed);
        let taken = self.take(limit);
        taken.unwrap_or_else(|why| {
            match &why {
                NotLocked::Held(place) if !known => warn!(
                    "{}: another process holds the lock; continuing without it, and not waiting \
                     again",
                    place.display()
                ),
                NotLocked::Held(_) => {}
                NotLocked::Unusable(why) => debug!("{why}; continuing without the lock"),
            }
            None
        })
    }

    /// Returns true if any process holds the lock file now. Creates no file.
    pub(super) fn is_held(&self) -> bool {
        let LockTarget::File(file) = &self.target else {
            return false;
        };
        let Ok((_, fd)) = opened(file, false) else {
            return false;
        };
        let taken = Lock::take_noted(
            fd,
            Duration::ZERO,
            self.held,
            FlockOperation::NonBlockingLockExclusive,
        );
        matches!(taken, Ok(None))
    }

    fn take_lock(&self, fd: OwnedFd, patience: Duration) -> Result<Option<Lock>, Failed> {
        Lock::take_noted(fd, patience, self.held, self.sharing)
    }

    /// Locks a file. Then checks that the path still leads to the locked file, and tries again if
    /// not.
    fn take_file(&self, file: &Path, patience: Duration) -> Result<Lock, NotLocked> {
        let end = Instant::now() + patience;
        loop {
            let (folder, fd) = opened(file, true).map_err(NotLocked::Unusable)?;
            let failed =
                |failed: Failed| NotLocked::Unusable(Distrust::of(file, failed.to_string()));
            let mine = fstat(&fd).map_err(|errno| failed(errno.into()))?;
            let rest = end.saturating_duration_since(Instant::now());
            let Some(lock) = self.take_lock(fd, rest).map_err(failed)? else {
                return Err(NotLocked::Held(file.into()));
            };
            let now =
                name_of(file).and_then(|name| statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW));
            let is_same = |now: Stat| (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino);
            if now.is_ok_and(is_same) {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(NotLocked::Held(file.into()));
            }
        }
    }

    /// Returns the reason why the lock cannot be used. The function ignores whether a process holds
    /// the lock now. Creates no file.
    pub(super) fn fault(&self) -> Option<Distrust> {
        let file = match &self.target {
            LockTarget::None => return None,
            LockTarget::Node(node, _) if shared_node(node).is_some() => return None,
            LockTarget::File(file) | LockTarget::Node(_, file) => file,
        };
        opened(file, false).err().filter(|_| !would_be_made(file))
    }

    /// Returns the path that is locked: the device node if it can be opened, else the file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match &self.target {
            LockTarget::None => None,
            LockTarget::File(file) => Some(file.clone()),
            LockTarget::Node(node, file) => {
                Some(shared_node(node).map_or_else(|| file.clone(), |(node, _)| node))
            }
        }
    }
}

/// Returns true if taking the lock would create missing parts of the path.
fn would_be_made(file: &Path) -> bool {
    let is_there = |path: &Path| !matches!(found(|| lstat(path)), Ok(None));
    let may_add = |folder: &Path| access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let folder = file.parent().unwrap_or(Path::new("/"));
    match alone(folder) {
        Ok(Some(there)) => {
            let is_mine = stat(&there).is_ok_and(|about| Owned::from(&about).is_mine());
            is_mine && may_add(&there) && !is_there(file)
        }
        Ok(None) => {
            let mut above = folder.ancestors();
            above.find(|path| is_there(path)).is_some_and(may_add)
        }
        Err(_) => false,
    }
}

/// Opens a device node that all users of this TPM, and no other users, can open at the same time.
/// The function chooses the node of the resource manager, because the other node admits only one
/// process at a time.
fn shared_node(node: &Path) -> Option<(PathBuf, OwnedFd)> {
    let node = node.canonicalize().ok()?;
    let about = stat(&node).ok()?;
    let is_device =
        |about: &Stat| FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice;
    if !is_device(&about) {
        return None;
    }
    let numbers = format!("{}:{}", major(about.st_rdev), minor(about.st_rdev));
    let known = std::fs::read_link(Path::new("/sys/dev/char").join(numbers));
    let known = known.unwrap_or_else(|_| node.clone());
    let name = known.file_name()?.to_str()?;
    let number = name
        .strip_prefix("tpm")
        .filter(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let node = match number {
        Some(number) => node.with_file_name(format!("tpmrm{number}")),
        None => node,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = open(&node, flags | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    fstat(&fd)
        .is_ok_and(|about| is_device(&about))
        .then_some((node, fd))
}

/// Opens a lock file and its folder, if other users can replace neither of them. With `make`,
/// creates the missing file or folder.
fn opened(file: &Path, make: bool) -> Result<(OwnedFd, OwnedFd), Distrust> {
    let at = |place: &Path| {
        let place = place.to_path_buf();
        move |errno: Errno| Distrust {
            unread: Some(errno),
            ..Distrust::of(&place, said(errno))
        }
    };
    let path = file.parent().unwrap_or(Path::new("/"));
    let mut there = alone(path)?;
    if there.is_none() && make {
        make_folder(path).map_err(at(path))?;
        there = alone(path)?;
    }
    let there = there.ok_or_else(|| at(path)(Errno::NOENT))?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // An open with O_PATH does not need the right to list the folder.
    let folder = open(&there, flags | OFlags::PATH, Mode::empty()).map_err(at(path))?;
    let about = Owned::from(&fstat(&folder).map_err(at(path))?);
    let name = name_of(file).map_err(at(file))?;
    let fd = made_lock(&folder, name, about, make).map_err(|why| match why {
        NoLock::InTheWay(what) => Distrust::of(file, what),
        NoLock::System(errno) => at(file)(errno),
    })?;
    let there = fstat(&fd).map_err(at(file))?;
    match there.st_uid == 0 || Owned::from(&there).is_mine() {
        true => Ok((folder, fd)),
        false => Err(Distrust::of(
            file,
            format!(
                "the file belongs to user {}, who can replace it",
                there.st_uid
            ),
        )),
    }
}

fn name_of(file: &Path) -> Result<&std::ffi::OsStr, Errno> {
    file.file_name().ok_or(Errno::INVAL)
}

fn said(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "it does not exist".into(),
        Errno::ACCESS | Errno::PERM => {
            format!("user {} has no right to open it", geteuid().as_raw())
        }
        other => other.to_string(),
    }
}

/// Creates the lock folder. Root creates it for all users of the TPM; other users create it only
/// for themselves.
fn make_folder(path: &Path) -> Result<(), Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let made = |mode: u32, all: bool, path: &Path| {
        let made = DirBuilder::new().mode(mode).recursive(all).create(path);
        match made.map_err(errno) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    };
    if let Some(above) = path.parent() {
        made(0o755, true, above)?;
    }
    made(0o700, false, path)?;
    if !geteuid().is_root() {
        return Ok(());
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let folder = open(path, flags, Mode::empty())?;
    if let Some(group) = group_number(GROUP)
        && fchown(&folder, None, Some(Gid::from_raw(group))).is_ok()
    {
        fchmod(&folder, Mode::from_raw_mode(0o750))?;
    }
    // Root also creates the files, because other users could not create files in this folder.
    let about = Owned::from(&fstat(&folder)?);
    for name in [PINS, SLOTS, KEEPING, GENERATION] {
        if let Err(NoLock::System(errno)) = made_lock(&folder, name, about, true) {
            return Err(errno);
        }
    }
    Ok(())
}

/// Opens a lock file that all users of its folder can open. Creates a missing file if this user
/// owns the folder.
fn made_lock(
    folder: &OwnedFd,
    name: impl rustix::path::Arg + Copy,
    about: Owned,
    make: bool,
) -> Result<OwnedFd, NoLock> {
    match open_lock(folder, name, false) {
        Err(NoLock::System(Errno::NOENT)) if make && about.is_mine() => {}
        other => return other,
    }
    let fd = open_lock(folder, name, true)?;
    if about.lets_group_in() && fchown(&fd, None, Some(Gid::from_raw(about.group()))).is_ok() {
        fchmod(&fd, Mode::from_raw_mode(0o640)).map_err(NoLock::System)?;
    }
    Ok(fd)
}

impl std::fmt::Display for NotLocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(place) => {
                write!(f, "{}: another process holds the lock", place.display())
            }
            Self::Unusable(why) => why.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc::channel;
    use std::thread;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let locks = home.path().join("run/lock");
        (home, locks)
    }

    fn lock(locks: &Path) -> ProcessLock {
        ProcessLock::for_pins(&"swtpm".parse().unwrap(), locks)
    }

    /// If the lock file is replaced while a process waits, the process then waits for the new file.
    #[test]
    fn a_file_that_was_exchanged_is_no_lock() {
        let (_home, locks) = home();
        let first = lock(&locks).take(Duration::ZERO).unwrap().unwrap();
        let waiting = lock(&locks);
        let (tell, told) = channel();
        let waiter = thread::spawn(move || {
            let taken = waiting.take(Duration::from_secs(60));
            tell.send(()).unwrap();
            taken.unwrap().unwrap()
        });
        // Wait until the second thread has opened the lock file, too.
        let of_lock = |path: PathBuf| fs::read_link(path).is_ok_and(|to| to == locks.join(PINS));
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().flatten();
        while descriptors().filter(|fd| of_lock(fd.path())).count() < 2 {
            assert!(!waiter.is_finished());
            thread::yield_now();
        }
        fs::remove_file(locks.join(PINS)).unwrap();
        let second = lock(&locks).take(Duration::ZERO).unwrap().unwrap();
        drop(first);
        let early = told.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "two threads hold the lock");
        drop(second);
        let third = waiter.join().unwrap();
        assert!(matches!(
            lock(&locks).take(Duration::ZERO),
            Err(NotLocked::Held(_))
        ));
        drop(third);
        assert!(lock(&locks).take(Duration::ZERO).is_ok());
    }

    #[test]
    fn looking_makes_nothing() {
        let (home, locks) = home();
        assert_eq!(
            lock(&locks).fault(),
            None,
            "the lock file is created when it is needed"
        );
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        drop(lock(&locks).take(Duration::ZERO).unwrap());
        assert_eq!(lock(&locks).fault(), None);
        // The lock folder is from an earlier run, without the lock file for PINs.
        fs::remove_file(locks.join(PINS)).unwrap();
        fs::write(locks.join(SLOTS), "").unwrap();
        assert_eq!(lock(&locks).fault(), None);
        assert!(!locks.join(PINS).exists());
        fs::create_dir(locks.join(PINS)).unwrap();
        assert!(lock(&locks).fault().is_some());
        let none = home.path().join("run/lock/slots/below");
        let why = lock(&none).fault().unwrap();
        assert_eq!(
            why.to_string(),
            format!("{}: it does not exist", none.display())
        );
    }

    #[test]
    fn what_is_no_device_is_no_node() {
        let (home, _) = home();
        let file = home.path().join("tpm0");
        fs::write(&file, "").unwrap();
        assert!(shared_node(&file).is_none());
        assert!(shared_node(Path::new("/nonexistent")).is_none());
        let (path, _) = shared_node(Path::new("/dev/null")).unwrap();
        assert_eq!(path, Path::new("/dev/null"));
    }

    #[test]
    fn one_wait_in_vain_makes_the_next_short() {
        let (_home, locks) = home();
        let kept = lock(&locks).take(Duration::ZERO).unwrap();
        let other = lock(&locks);
        assert!(other.take(Duration::ZERO).is_err());
        assert!(other.in_vain.load(Ordering::Relaxed));
        drop(kept);
        drop(other.take(Duration::ZERO).unwrap());
        assert!(!other.in_vain.load(Ordering::Relaxed));
    }
}
