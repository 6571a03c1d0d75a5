//! System calls that do not concern files. A filter of system calls (seccomp(2)) or an old kernel
//! may deny each call. In that case an alternative is used, or the error names the call.

use crate::key::hex;
use rustix::event::{Timespec, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// A system call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The error number (errno) of the system call.
    pub(crate) errno: Errno,
    /// The name of the system call, if the system denied the call itself. `None` if the system
    /// denied the access to a file.
    pub(crate) denied: Option<&'static str>,
}

impl Failed {
    /// Creates the error for a call that does not depend on permissions of a file.
    pub(crate) fn at(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self {
            errno,
            denied: matches!(errno, Errno::PERM | Errno::NOSYS | Errno::ACCESS).then_some(call),
        }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            denied: None,
        }
    }
}

impl From<Failed> for std::io::Error {
    fn from(failed: Failed) -> Self {
        match failed.denied {
            Some(_) => Self::other(failed.to_string()),
            None => failed.errno.into(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denied {
            Some(call) => write!(
                f,
                "the system call {call} is denied to this process ({})",
                self.errno
            ),
            None => self.errno.fmt(f),
        }
    }
}

/// The descriptors of locks that this process holds or waits for. A forked child closes these
/// descriptors at once. Otherwise the child would hold the locks after the parent has died.
#[derive(Debug)]
pub struct Held([AtomicI32; Held::MOST]);

impl Held {
    /// The maximum number of descriptors. A process holds few locks at a time, because only one
    /// thread at a time is in an exchange with the TPM.
    const MOST: usize = 32;
    const NONE: i32 = -1;

    /// Creates an empty list of lock descriptors.
    #[allow(clippy::new_without_default, reason = "there is one for a process")]
    pub const fn new() -> Self {
        Self([const { AtomicI32::new(Self::NONE) }; Self::MOST])
    }

    /// Records a descriptor and returns its index. Returns `None` if the record is full.
    pub(crate) fn note(&self, descriptor: RawFd) -> Option<usize> {
        let is_free = |place: &AtomicI32| {
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            let noted = place.compare_exchange(Self::NONE, descriptor, success, failure);
            noted.is_ok()
        };
        self.0.iter().position(is_free)
    }

    pub(crate) fn forget(&self, place: usize) {
        if let Some(place) = self.0.get(place) {
            place.store(Self::NONE, Ordering::Release);
        }
    }

    /// Removes and returns all recorded descriptors, for a forked child. Uses no lock and allocates
    /// no memory.
    pub fn take_all(&self) -> impl Iterator<Item = RawFd> {
        let all = self.0.iter();
        let all = all.map(|place| place.swap(Self::NONE, Ordering::AcqRel));
        all.filter(|descriptor| *descriptor != Self::NONE)
    }
}

/// Fills `bytes` with random bytes of the kernel (getrandom(2)).
///
/// # Errors
///
/// Fails if the call fails. If the call was denied, the error names the call.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    Ok(fill(bytes)?)
}

fn fill(bytes: &mut [u8]) -> Result<(), Failed> {
    getrandom::fill(bytes).map_err(|error| {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        Failed::at("getrandom")(errno.unwrap_or(Errno::NOSYS))
    })
}

/// Returns 16 random hexadecimal digits in lower case.
pub(crate) fn random_digits() -> Result<String, Failed> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Checks that aws-lc can get random bytes. If getrandom(2) is denied, aws-lc ends the process. If
/// the kernel lacks the call, aws-lc uses another source.
#[cfg_attr(
    not(feature = "soft-rsa"),
    allow(dead_code, reason = "no RSA in memory")
)]
pub(crate) fn check_getrandom() -> Result<(), Failed> {
    match getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) {
        Ok(_) | Err(Errno::NOSYS | Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(errno) => Err(Failed {
            errno,
            denied: Some("getrandom"),
        }),
    }
}

/// Waits at most this long. A signal ends the wait, and a denied call returns at once.
pub(crate) fn pause(time: Duration) {
    let time = Timespec::try_from(time).ok();
    if time.is_none_or(|time| poll(&mut [], Some(&time)).is_err()) {
        std::thread::yield_now();
    }
}

/// Returns true if this process may write a file of this size. For a larger file the kernel sends
/// SIGXFSZ, which ends a host without a handler. The caller then writes no byte. If the limit is
/// unknown, the function returns true.
pub fn fits_limit(bytes: u64) -> bool {
    let limit = rlimit::getrlimit(rlimit::Resource::FSIZE);
    !limit.is_ok_and(|(limit, _)| bytes > limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_pause_takes_its_time() {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            pause(Duration::from_millis(20));
        }
        pause(Duration::ZERO);
    }

    #[test]
    fn a_call_is_named_where_it_is_at_fault() {
        let failed = Failed::at("fsync");
        assert!(failed(Errno::PERM).to_string().contains("fsync"));
        assert!(failed(Errno::NOSYS).to_string().contains("fsync"));
        assert_eq!(failed(Errno::IO), Failed::from(Errno::IO));
        assert_eq!(Failed::from(Errno::PERM).denied, None);
    }

    #[test]
    fn what_is_held_is_given_once() {
        let held = Held::new();
        let places: Vec<_> = (3..6).map(|fd| held.note(fd).unwrap()).collect();
        held.forget(places[1]);
        assert_eq!(held.take_all().collect::<Vec<_>>(), [3, 5]);
        assert_eq!(held.take_all().count(), 0);
        let noted = (0..40).filter(|fd| held.note(*fd).is_some());
        assert_eq!(noted.count(), Held::MOST);
    }

    #[test]
    fn random_digits_differ() {
        let (one, other) = (random_digits().unwrap(), random_digits().unwrap());
        assert_eq!((one.len(), other.len()), (16, 16));
        assert_ne!(one, other);
        let mut bytes = [0; 600];
        random(&mut bytes).unwrap();
        assert!(bytes.iter().any(|byte| *byte != 0));
        check_getrandom().unwrap();
    }
}
