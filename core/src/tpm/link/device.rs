//! The kernel's character devices `/dev/tpmrm0` and `/dev/tpm0`
//! (Linux, `Documentation/security/tpm/tpm_tis.rst` and `tpm-dev-common.c`).
//!
//! One write is one command, one read its response. The device is opened once and kept: with the
//! resource manager each opening is a space of its own, which costs commands to make.

use super::channel::{above_standard_streams, wait};
use super::{FRAME_MAX, Fault, HEADER, Patience, Transport, Waits, frame_size};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{Errno, read, write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// A TPM device, opened at the first command.
pub(super) struct Device {
    path: PathBuf,
    open: Option<Open>,
}

/// An open device.
struct Open {
    /// `None` only once dropped.
    fd: Option<OwnedFd>,
    file: FileId,
    /// A command timed out, and its response was not read yet.
    answer_owed: bool,
}

/// What a descriptor was opened on. A host may close descriptors that are not its own
/// (`closefrom`), and the number then names another file.
#[derive(PartialEq, Eq)]
struct FileId {
    file_system: u64,
    inode: u64,
    device: u64,
}

impl FileId {
    fn of(fd: &OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(fd)?;
        Ok(Self {
            file_system: stat.st_dev,
            inode: stat.st_ino,
            device: stat.st_rdev,
        })
    }
}

impl Open {
    fn new(fd: OwnedFd) -> Result<Self, Errno> {
        Ok(Self {
            file: FileId::of(&fd)?,
            fd: Some(fd),
            answer_owed: false,
        })
    }

    /// The descriptor, as long as its number still names what was opened.
    fn fd(&self) -> Option<&OwnedFd> {
        let own = |fd: &&OwnedFd| FileId::of(fd).is_ok_and(|file| file == self.file);
        self.fd.as_ref().filter(own)
    }
}

impl Drop for Open {
    /// Closing a number that is not ours any more would close somebody's file.
    fn drop(&mut self) {
        if self.fd().is_none() {
            mem::forget(self.fd.take());
        }
    }
}

impl Device {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn opened(&mut self) -> Result<&mut Open, Fault> {
        if self.open.as_ref().is_some_and(|open| open.fd().is_none()) {
            self.open = None;
        }
        let path = &self.path;
        match &mut self.open {
            Some(open) => Ok(open),
            none => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let fd = open(path, flags, Mode::empty()).map_err(|errno| {
                    let path = path.display();
                    Fault::Unreachable(match errno {
                        Errno::NOENT => format!("{path} does not exist: no TPM, or no driver"),
                        Errno::ACCESS => format!(
                            "{path}: permission denied; the user must be in the device's group \
                             (usually tss)"
                        ),
                        // As the kernel's list of allowed devices does (cgroups(7)).
                        Errno::PERM => format!(
                            "{path}: not permitted to this process, whatever its user and group: a \
                             service needs DeviceAllow={path} rw in its unit, a container the device \
                             itself (--device {path})"
                        ),
                        Errno::BUSY => format!(
                            "the TPM is busy: another process has {path} open, which one at a time \
                             can use; /dev/tpmrm0 can be shared"
                        ),
                        other => format!("{path}: {other}"),
                    })
                })?;
                let opened = above_standard_streams(fd)?;
                let opened = Open::new(opened)
                    .map_err(|errno| Fault::Unreachable(format!("{}: {errno}", path.display())))?;
                Ok(none.insert(opened))
            }
        }
    }
}

/// One command over an open device.
fn transact(
    fd: &OwnedFd,
    answer_owed: &mut bool,
    command: &[u8],
    waits: Waits<'_>,
) -> Result<Vec<u8>, Fault> {
    let before = waits.before_sending();
    if *answer_owed {
        response(fd, &before)?;
        *answer_owed = false;
    }
    loop {
        wait(fd.as_fd(), PollFlags::OUT, &before)?;
        match write(fd, command) {
            Ok(sent) if sent == command.len() => break,
            Ok(sent) => {
                return Err(Fault::Broken(format!(
                    "{sent} of {} bytes sent",
                    command.len()
                )));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Fault::broken("sending", errno)),
        }
    }
    *answer_owed = true;
    let response = response(fd, &waits.for_answer())?;
    *answer_owed = false;
    Ok(response)
}

fn response(fd: &OwnedFd, patience: &Patience<'_>) -> Result<Vec<u8>, Fault> {
    let mut frame = vec![0; FRAME_MAX];
    let mut filled = 0;
    loop {
        wait(fd.as_fd(), PollFlags::IN, patience)?;
        match read(fd, &mut frame[filled..]) {
            Ok(0) => return Err(Fault::Broken("the device gave an empty answer".into())),
            Ok(got) => filled += got,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(Fault::broken("receiving", errno)),
        }
        if filled >= HEADER && filled >= frame_size(&frame)? {
            frame.truncate(filled);
            return Ok(frame);
        }
    }
}

impl Transport for Device {
    fn transact(&mut self, command: &[u8], waits: Waits<'_>) -> Result<Vec<u8>, Fault> {
        let Open {
            fd, answer_owed, ..
        } = self.opened()?;
        let Some(fd) = fd else {
            return Err(Fault::Broken("the device is closed".into()));
        };
        let owed_before = *answer_owed;
        let answer = transact(fd, answer_owed, command, waits);
        match answer {
            Err(Fault::Broken(_)) => self.open = None,
            // The kernel may have thrown the owed answer away: it does not come a second time.
            Err(Fault::Timeout(_)) if owed_before => self.open = None,
            _ => {}
        }
        answer
    }

    fn abandon(&mut self) {
        // The parent holds the same open file: this only closes the child's number for it.
        self.open = None;
    }
}
