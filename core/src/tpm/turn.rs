//! Whose turn it is among our processes, on a TPM whose few slots for objects all of them share.
//!
//! Nobody is kept from using the TPM by it: who cannot get a turn (no right to the folder, or one
//! that somebody keeps) goes on without, and then it is the checks of names and signatures alone
//! that tell one key from another.
//!
//! The tries of PINs have turns of their own, behind a resource manager too: between reading how many
//! are left and making one, nobody else is to make the last.

use super::{Hash, Tcti};
use crate::file::Lock;
use crate::key::hex;
use log::{debug, warn};
use rustix::fs::{Mode, OFlags, chmod, open};
use rustix::io::Errno;
use std::fs::create_dir_all;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where turns are taken; nowhere behind a resource manager, which keeps clients apart.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    file: Option<PathBuf>,
}

impl Turn {
    pub(super) fn of(tcti: &Tcti, locks: &Path) -> Self {
        let name = || hex(&Hash::Sha256.digest(&[tcti.to_string().as_bytes()])[..8]);
        Self {
            file: (!tcti.is_managed()).then(|| locks.join(name())),
        }
    }

    /// The turns of those who try PINs.
    pub(super) fn of_pins(tcti: &Tcti, locks: &Path) -> Self {
        Self::to("PIN", tcti, locks)
    }

    /// The turns of those who keep a key of which there is to be one only.
    pub(super) fn of_keeping(tcti: &Tcti, locks: &Path) -> Self {
        Self::to("keep", tcti, locks)
    }

    fn to(what: &str, tcti: &Tcti, locks: &Path) -> Self {
        let place = format!("{what} {tcti}");
        let name = hex(&Hash::Sha256.digest(&[place.as_bytes()])[..8]);
        Self {
            file: Some(locks.join(name)),
        }
    }

    /// Held until it is dropped, or its process dies.
    pub(super) fn take(&self, limit: Duration) -> Option<Lock> {
        let file = self.file.as_ref()?;
        let fd = match opened(file) {
            Ok(fd) => fd,
            Err(errno) => {
                debug!("{}: {errno}; going on without a turn", file.display());
                return None;
            }
        };
        let taken = Lock::take(fd, limit);
        if !matches!(taken, Ok(Some(_))) {
            let why = taken.as_ref().err().unwrap_or(&Errno::WOULDBLOCK);
            warn!(
                "{}: {why}: another process keeps its turn; going on without",
                file.display()
            );
        }
        taken.unwrap_or_default()
    }
}

/// The lock file, made for all users if it is missing. Not made where it is there: the kernel keeps
/// one from creating what another user owns in a folder for all (protected_regular).
fn opened(file: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match open(file, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    if let Some(folder) = file.parent()
        && !folder.exists()
    {
        let made = create_dir_all(folder).is_ok();
        if made {
            // Best effort: whoever may not change it shares it with fewer.
            let _ = chmod(folder, Mode::from_raw_mode(0o1777));
        }
    }
    open(file, flags | OFlags::CREATE, Mode::from_raw_mode(0o644))
}
