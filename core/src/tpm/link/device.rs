//! The kernel's character devices `/dev/tpmrm0` and `/dev/tpm0`
//! (Linux, `Documentation/security/tpm/tpm_tis.rst` and `tpm-dev-common.c`).
//!
//! One write is one command, one read its response. The device is opened once and kept: with the
//! resource manager each opening is a space of its own, which costs commands to make.

use super::channel::{frame_size, wait};
use super::wire::{FRAME_MAX, Fault, HEADER, Transport};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{Errno, read, write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

/// A TPM device, opened at the first command.
pub(super) struct Device {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    fd: OwnedFd,
    /// What the descriptor was opened on, since a host may close descriptors that are not its own
    /// (`closefrom`) and the number then names another file.
    device: u64,
    /// A command timed out, and its response was not read yet.
    answer_owed: bool,
}

impl Device {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn opened(&mut self) -> Result<&mut Open, Fault> {
        if let Some(open) = self.open.take() {
            match fstat(&open.fd) {
                Ok(stat) if stat.st_rdev == open.device => self.open = Some(open),
                // The number is not ours any more; closing it would close somebody's file.
                _ => mem::forget(open),
            }
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
                        Errno::ACCESS | Errno::PERM => format!(
                            "{path}: permission denied; the user must be in the device's group \
                             (usually tss)"
                        ),
                        Errno::BUSY => format!("{path} is in use; /dev/tpmrm0 can be shared"),
                        other => format!("{path}: {other}"),
                    })
                })?;
                let stat = fstat(&fd)
                    .map_err(|errno| Fault::Unreachable(format!("{}: {errno}", path.display())))?;
                Ok(none.insert(Open {
                    fd,
                    device: stat.st_rdev,
                    answer_owed: false,
                }))
            }
        }
    }
}

impl Open {
    fn transact(&mut self, command: &[u8], deadline: Instant) -> Result<Vec<u8>, Fault> {
        if self.answer_owed {
            self.response(deadline)?;
            self.answer_owed = false;
        }
        loop {
            wait(self.fd.as_fd(), PollFlags::OUT, deadline)?;
            match write(&self.fd, command) {
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
        self.answer_owed = true;
        let response = self.response(deadline)?;
        self.answer_owed = false;
        Ok(response)
    }

    fn response(&self, deadline: Instant) -> Result<Vec<u8>, Fault> {
        let mut frame = vec![0; FRAME_MAX];
        let mut filled = 0;
        loop {
            wait(self.fd.as_fd(), PollFlags::IN, deadline)?;
            match read(&self.fd, &mut frame[filled..]) {
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
}

impl Transport for Device {
    fn transact(&mut self, command: &[u8], deadline: Instant) -> Result<Vec<u8>, Fault> {
        let answer = self.opened()?.transact(command, deadline);
        if let Err(Fault::Broken(_)) = answer {
            self.open = None;
        }
        answer
    }

    fn abandon(&mut self) {
        // The parent holds the same open file: this only closes the child's number for it.
        self.open = None;
    }
}
