//! Files. Files of other programs are read without ever blocking. Files of this project are written
//! atomically.

use crate::system::{Failed, Held, fits_limit, pause, random_digits};
use crate::waiting::WaitLines;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, fchmod, flock, fstat,
    fsync, open, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::path::Arg;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// The prefix of the names of temporary files during a write.
pub(crate) const TEMPORARY: &str = ".new-";
/// The time in which a second change may leave the stamp unchanged, in nanoseconds. The kernel's
/// coarse clock advances every 10 ms at most. The value is larger to allow for clock corrections.
const TICK: i128 = 50_000_000;

/// Reads the whole content of a regular file.
///
/// # Errors
///
/// Fails if the file cannot be read, or has more than `most` bytes. Also fails if the file is not
/// regular: a FIFO could block, and a device may have no end.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    Ok(read_stamped(path, most)?.0)
}

/// Reads the content of a file. Also returns the file's stamp (size, inode, times) from before the
/// read.
pub(crate) fn read_stamped(path: &Path, most: u64) -> io::Result<(Vec<u8>, FileStamp)> {
    let fd = retry_on_intr(|| open(path, FLAGS, Mode::empty()))?;
    let (content, about) = whole(fd, most)?;
    Ok((content, FileStamp::from(&about)))
}

/// Reads the content of a file in this folder, and its stat. A symbolic link is not followed.
pub(crate) fn read_in(folder: impl AsFd, name: &str, most: u64) -> io::Result<(Vec<u8>, Stat)> {
    let flags = FLAGS | OFlags::NOFOLLOW;
    let fd = retry_on_intr(|| openat(&folder, name, flags, Mode::empty()));
    let fd = fd.map_err(|error| match error {
        Errno::LOOP => not("a symbolic link, which is not followed"),
        other => other.into(),
    })?;
    whole(fd, most)
}

fn whole(fd: OwnedFd, most: u64) -> io::Result<(Vec<u8>, Stat)> {
    let about = retry_on_intr(|| fstat(&fd))?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(not("not a regular file"));
    }
    // The buffer has room for the whole content. The content may be a secret, and a growing buffer
    // would leave copies.
    let size = u64::try_from(about.st_size).unwrap_or(0).min(most);
    let mut content = Vec::with_capacity(size as usize + 64);
    File::from(fd).take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("over {most} bytes"),
        ));
    }
    Ok((content, about))
}

/// Writes a file atomically. The earlier file stays until the new file is on the disk.
///
/// # Errors
///
/// If the function fails, nothing was changed, unless the error says that the disk failed after the
/// writing.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put_at(path, content, mode, WriteMode::Replace)
}

/// Writes a new file atomically. Fails if the file exists.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put_at(path, content, mode, WriteMode::CreateNew)
}

fn put_at(path: &Path, content: &[u8], mode: u32, place: WriteMode) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| not("no file name"))?;
    let folder = open(folder_of(path), FOLDER_FLAGS, Mode::empty())?;
    let dress = |fd: &OwnedFd| fchmod(fd, Mode::from_raw_mode(mode)).map_err(Failed::at("fchmod"));
    Ok(put(&folder, name, content, place, dress)?)
}

/// The behaviour of a write if a file of this name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// The new file may replace an existing file.
    Replace,
    /// The write fails with [`Errno::EXIST`] if the file exists.
    CreateNew,
}

/// The reason why a change of a file or folder is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// The file or folder is unchanged.
    Unchanged(Failed),
    /// The change was made and is visible, but the disk did not confirm it. A power loss may undo
    /// the change.
    Unsettled(Failed),
}

impl From<Errno> for Undone {
    fn from(errno: Errno) -> Self {
        Self::Unchanged(errno.into())
    }
}

impl From<Failed> for Undone {
    fn from(failed: Failed) -> Self {
        Self::Unchanged(failed)
    }
}

impl From<Undone> for io::Error {
    fn from(why: Undone) -> Self {
        match why {
            Undone::Unchanged(failed) => failed.into(),
            Undone::Unsettled(failed) => Self::other(format!(
                "the change was made, but the disk did not confirm it: {failed}"
            )),
        }
    }
}

/// Writes a file into a folder. The content goes into a temporary file, and `dress` sets its owner
/// and mode. The temporary file is then synced and renamed. A killed process leaves at most a file
/// whose name begins with [`TEMPORARY`].
///
/// # Errors
///
/// If the disk does not confirm a new file, the file is removed.
pub(crate) fn put(
    folder: &OwnedFd,
    name: impl Arg + Copy,
    content: &[u8],
    place: WriteMode,
    dress: impl FnOnce(&OwnedFd) -> Result<(), Failed>,
) -> Result<(), Undone> {
    let temporary = format!("{TEMPORARY}{}-{}", std::process::id(), random_digits()?);
    let placed = write_temporary(folder, &temporary, content, dress).and_then(|()| {
        Ok(match place {
            WriteMode::Replace => renameat(folder, &*temporary, folder, name),
            WriteMode::CreateNew => rename_to_free(folder, &temporary, name),
        }?)
    });
    if let Err(failed) = placed {
        // The temporary file may be missing, so an error is ignored.
        let _ = unlinkat(folder, &*temporary, AtFlags::empty());
        return Err(Undone::Unchanged(failed));
    }
    sync_folder(folder).map_err(|failed| match place {
        WriteMode::CreateNew if unlinkat(folder, name, AtFlags::empty()).is_ok() => {
            let _ = sync_folder(folder);
            Undone::Unchanged(failed)
        }
        _ => Undone::Unsettled(failed),
    })
}

/// Removes a file from a folder, and syncs the folder.
pub(crate) fn take_away(folder: &OwnedFd, name: impl Arg) -> Result<(), Undone> {
    unlinkat(folder, name, AtFlags::empty())?;
    sync_folder(folder).map_err(Undone::Unsettled)
}

/// Checks that a file of this size can be written to a folder now. Writes such a file and removes
/// it.
pub(crate) fn try_room(folder: &OwnedFd, bytes: usize) -> Result<(), Failed> {
    let temporary = format!("{TEMPORARY}{}-{}", std::process::id(), random_digits()?);
    let written = write_temporary(folder, &temporary, &vec![b'\n'; bytes], |_| Ok(()));
    let removed = unlinkat(folder, &*temporary, AtFlags::empty());
    written.and(removed.map_err(Failed::from))
}

fn write_temporary(
    folder: &OwnedFd,
    name: &str,
    content: &[u8],
    dress: impl FnOnce(&OwnedFd) -> Result<(), Failed>,
) -> Result<(), Failed> {
    if !fits_limit(content.len() as u64) {
        return Err(Errno::FBIG.into());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
    // The descriptor must not be 0, 1 or 2. A host whose standard output is closed would otherwise
    // print into the file.
    let fd = fcntl_dupfd_cloexec(fd, 3).map_err(Failed::at("fcntl"))?;
    dress(&fd)?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(&fd, rest))?;
        rest = &rest[written..];
    }
    retry_on_intr(|| fsync(&fd)).map_err(Failed::at("fsync"))
}

/// Renames a file within its folder to an unused name. Fails with [`Errno::EXIST`] if the name is
/// in use.
pub(crate) fn rename_to_free(
    folder: &OwnedFd,
    from: &str,
    to: impl Arg + Copy,
) -> rustix::io::Result<()> {
    match renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        // Some file systems and containers do not support the flag RENAME_NOREPLACE. The name is
        // then checked before. The check is safe, because the lock excludes other writers, and
        // names are random.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
            match statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => renameat(folder, from, folder, to),
                Ok(_) => Err(Errno::EXIST),
                Err(error) => Err(error),
            }
        }
        other => other,
    }
}

/// Removes a file. A missing file is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| settle(path)),
    }
}

/// Renames a file within its folder, and syncs the folder.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    settle(to)
}

/// Syncs the folder that contains this file.
fn settle(path: &Path) -> io::Result<()> {
    let folder = open(folder_of(path), FOLDER_FLAGS, Mode::empty());
    let settled = folder.map_err(Failed::from).and_then(sync_folder);
    Ok(settled.map_err(Undone::Unsettled)?)
}

/// Syncs a folder. An error of a file system that does not support this is ignored.
pub(crate) fn sync_folder(folder: impl AsFd) -> Result<(), Failed> {
    match retry_on_intr(|| fsync(&folder)) {
        Err(Errno::INVAL) => Ok(()),
        other => other.map_err(Failed::at("fsync")),
    }
}

/// Returns the names of all files in a folder, without `.` and `..`. If a signal interrupts the
/// listing, it starts again.
pub(crate) fn names(folder: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    retry_on_intr(|| {
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    })
}

/// Returns [`names`] of the folder at this path.
pub(crate) fn names_at(path: &Path) -> rustix::io::Result<Vec<CString>> {
    names(retry_on_intr(|| open(path, FOLDER_FLAGS, Mode::empty()))?)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn not(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// A file lock of this process (flock(2)). The process holds the lock until the value is dropped or
/// the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: OwnedFd,
    noted: Option<(&'static Held, usize)>,
}

impl Lock {
    /// Takes the lock. Returns `None` if another process still held the lock after `patience`. The
    /// kernel has no time limit for a lock, so the function tries again and again.
    pub(crate) fn take(file: OwnedFd, patience: Duration) -> Result<Option<Self>, Failed> {
        let alone = FlockOperation::NonBlockingLockExclusive;
        Self::take_noted(file, patience, None, alone)
    }

    /// Takes the lock and records it in `held` for forked children. `sharing` is a non-blocking
    /// operation of flock(2).
    pub(crate) fn take_noted(
        file: OwnedFd,
        patience: Duration,
        held: Option<&'static Held>,
        sharing: FlockOperation,
    ) -> Result<Option<Self>, Failed> {
        // The lock is recorded before it is taken, because a child may be forked at any moment.
        let noted = held.and_then(|held| Some((held, held.note(file.as_raw_fd())?)));
        let lock = Self { file, noted };
        const FIRST_PAUSE: Duration = Duration::from_micros(200);
        let (began, lines) = (Instant::now(), WaitLines::new());
        let end = began + patience;
        let mut rest = FIRST_PAUSE;
        loop {
            match flock(&lock.file, sharing) {
                Ok(()) => return Ok(Some(lock)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < end => {
                    let age = (began, Instant::now());
                    lines.tell(age, patience, |_| held_by_another(&lock.file));
                    pause(rest);
                    rest = next_pause(rest);
                }
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(Failed::at("flock")(error)),
            }
        }
    }
}

/// Returns the pause after this pause, while a lock is polled.
fn next_pause(pause: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_millis(5);
    LONGEST.min(pause * 2)
}

/// Returns the error message for a lock file that another process has locked.
fn held_by_another(file: &OwnedFd) -> String {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match path {
        Ok(path) => format!("another process holds the lock {}", path.display()),
        Err(_) => "another process holds a lock".into(),
    }
}

impl Drop for Lock {
    /// Unlocks explicitly. If another thread forked in the meantime, the forked process has a copy
    /// of the descriptor, and close(2) alone would not release the lock.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
        if let Some((held, place)) = self.noted {
            held.forget(place);
        }
    }
}

/// The identity and change times of a file. Different contents have different stamps, unless a
/// stamp is not [settled](Self::is_settled).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    inode: u64,
    size: u64,
    content_changed: i128,
    inode_changed: i128,
}

impl FileStamp {
    /// Returns true if any change after `now` gives another stamp. A file that was changed recently
    /// may change again within one clock tick, with an unchanged stamp. A stamp from the future is
    /// settled, because a change would set the current time.
    pub(crate) fn is_settled(&self, now: Moment) -> bool {
        (now.0 - self.inode_changed).abs() > TICK
    }
}

impl From<&Stat> for FileStamp {
    fn from(about: &Stat) -> Self {
        Self {
            inode: about.st_ino as _,
            size: about.st_size as _,
            content_changed: nanoseconds(about.st_mtime as _, about.st_mtime_nsec as _),
            inode_changed: nanoseconds(about.st_ctime as _, about.st_ctime_nsec as _),
        }
    }
}

/// A time stamp of a file (mtime or ctime), in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(i128);

impl Moment {
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        let from = |since: Duration| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
        Self(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => from(since),
            Err(before) => -from(before.duration()),
        })
    }
}

fn nanoseconds(seconds: i64, part: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(part)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
