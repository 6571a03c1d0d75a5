//! The kernel's character devices `/dev/tpmrm0` and `/dev/tpm0` (Linux,
//! `Documentation/security/tpm/tpm_tis.rst` and `tpm-dev-common.c`).
//!
//! One write sends a command, and one read returns the response. The device stays open. With the
//! resource manager each opening creates a new space, which costs TPM commands.

use super::kept_open::{Endpoint, KeptOpen};
use super::socket::{above_standard_streams, poll_fd};
use super::{CommandClass, FRAME_MAX, HEADER, Timing, Transport, TransportError, Wait, frame_size};
use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fstat, open};
use rustix::io::{Errno, read, write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A TPM device, opened at the first command.
pub(super) struct CharDevice {
    path: PathBuf,
    open: KeptOpen<OpenFile>,
}

/// An open device.
struct OpenFile {
    /// The descriptor; `None` only while the value is dropped.
    fd: Option<OwnedFd>,
    file: FileId,
}

/// The mark of an open file that this module opened. Devices ignore the flag, and no other program
/// has a reason to set the flag.
const MARK: OFlags = OFlags::APPEND;

/// The identity of an opened file. A host process may close descriptors that it did not open
/// (`closefrom`). The number of the descriptor may then belong to another file. The other file may
/// be the same device, opened by the host. The resource manager then knows other objects by our
/// handles, so the open file must have the mark, too.
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

impl OpenFile {
    fn new(fd: OwnedFd) -> Result<Self, Errno> {
        Ok(Self {
            file: FileId::of(&fd)?,
            fd: Some(fd),
        })
    }

    /// Returns the descriptor, if its number still belongs to the opened file.
    fn fd(&self) -> Option<&OwnedFd> {
        let is_marked = |fd: &OwnedFd| fcntl_getfl(fd).is_ok_and(|flags| flags.contains(MARK));
        let own =
            |fd: &&OwnedFd| FileId::of(fd).is_ok_and(|file| file == self.file) && is_marked(fd);
        self.fd.as_ref().filter(own)
    }
}

impl Drop for OpenFile {
    /// Does not close a descriptor whose number now belongs to a file of the host process.
    fn drop(&mut self) {
        if self.fd().is_none() {
            mem::forget(self.fd.take());
        }
    }
}

impl CharDevice {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: KeptOpen::new(),
        }
    }
}

fn opened(path: &Path) -> Result<OpenFile, TransportError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | MARK;
    let fd = open(path, flags, Mode::empty()).map_err(|errno| {
        let path = path.display();
        TransportError::Unreachable(match errno {
            Errno::NOENT => format!(
                "{path} does not exist: the machine has no TPM, or the kernel has no driver"
            ),
            Errno::ACCESS => format!(
                "{path}: permission denied; the user must be in the device's group (usually tss)"
            ),
            // The kernel returns EPERM if its list of allowed devices (cgroups(7)) lacks this
            // device.
            Errno::PERM => format!(
                "{path}: not permitted to this process, whatever its user and group: a service \
                 needs DeviceAllow={path} rw in its unit, a container the device itself (--device \
                 {path})"
            ),
            Errno::BUSY => format!(
                "the TPM is busy: another process has {path} open, which only one process can use \
                 at a time; /dev/tpmrm0 can be shared"
            ),
            other => format!("{path}: {other}"),
        })
    })?;
    let fd = above_standard_streams(fd)?;
    OpenFile::new(fd)
        .map_err(|errno| TransportError::Unreachable(format!("{}: {errno}", path.display())))
}

impl Endpoint for OpenFile {
    fn send(&mut self, command: &[u8], wait: &Wait<'_>) -> Result<(), TransportError> {
        let fd = self.fd.as_ref().ok_or_else(closed)?;
        loop {
            poll_fd(fd.as_fd(), PollFlags::OUT, wait)?;
            match write(fd, command) {
                Ok(sent) if sent == command.len() => return Ok(()),
                Ok(sent) => {
                    return Err(TransportError::Broken(format!(
                        "{sent} of {} bytes sent",
                        command.len()
                    )));
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(TransportError::broken("sending", errno)),
            }
        }
    }

    fn receive(&mut self, wait: &Wait<'_>) -> Result<Vec<u8>, TransportError> {
        response(self.fd.as_ref().ok_or_else(closed)?, wait)
    }
}

fn closed() -> TransportError {
    TransportError::Broken("the device is closed".into())
}

fn response(fd: &OwnedFd, wait: &Wait<'_>) -> Result<Vec<u8>, TransportError> {
    let mut frame = Vec::with_capacity(FRAME_MAX);
    loop {
        poll_fd(fd.as_fd(), PollFlags::IN, wait)?;
        match read(fd, spare_capacity(&mut frame)) {
            Ok(0) => {
                return Err(TransportError::Broken(
                    "the device returned an empty answer".into(),
                ));
            }
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(TransportError::broken("receiving", errno)),
        }
        if frame.len() >= HEADER && frame.len() >= frame_size(&frame)? {
            return Ok(frame);
        }
    }
}

impl Transport for CharDevice {
    fn transact(
        &mut self,
        command: &[u8],
        class: CommandClass,
        timing: &Timing,
    ) -> Result<Vec<u8>, TransportError> {
        let open = self.open.open();
        if open.as_ref().is_some_and(|open| open.fd().is_none()) {
            *open = None;
        }
        let path = &self.path;
        self.open.transact(|| opened(path), command, class, timing)
    }

    fn abandon(&mut self) {
        // The parent has the same open file. Closing the child's descriptor does not close the
        // file.
        *self.open.open() = None;
    }
}
