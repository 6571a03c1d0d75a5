//! Public folders beside the state folder: services read there, and their users need not be in the
//! group of the state folder.

use super::IdentityError;
use rustix::fs::{Mode, OFlags, fchmod, fstat, mkdir, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::path::Path;

const MODE: u32 = 0o755;

/// Makes the folder if it is missing, and lets all users enter it, independent of the umask.
/// Returns true if this changed anything. A folder of another user stays unchanged.
pub(super) fn make_public_folder(path: &Path) -> Result<bool, IdentityError> {
    let fault = |errno: Errno| IdentityError::file(path)(errno.into());
    let made = match mkdir(path, Mode::from_raw_mode(MODE)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(fault(errno)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty()).map_err(fault)?;
    let about = fstat(&folder).map_err(fault)?;
    let is_narrow = about.st_uid == geteuid().as_raw() && about.st_mode & 0o7777 != MODE;
    if is_narrow {
        fchmod(&folder, Mode::from_raw_mode(MODE)).map_err(fault)?;
    }
    Ok(made || is_narrow)
}
