//! Makes public folders beside the state folder. Services read files in a public folder, although
//! their users are not in the group of the state folder.

use super::IdentityError;
use rustix::fs::{Mode, OFlags, fchmod, fstat, mkdir, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::path::Path;

const MODE: u32 = 0o755;

/// Creates a public folder if it is missing. Lets all users enter the folder, whatever the umask
/// is. Returns true if this changed anything. Does not change a folder of another user.
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
