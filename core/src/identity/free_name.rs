//! Unused names for files that are set aside or made.

use super::IdentityError;
use crate::trouble::is_there;
use std::path::{Path, PathBuf};

/// The name with this suffix, numbered if necessary, that is unused.
///
/// # Errors
///
/// It is unknown if a name is unused. A file that was set aside must never be overwritten.
pub(super) fn free_name(path: &Path, suffix: &str) -> Result<PathBuf, IdentityError> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{suffix}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let name = PathBuf::from(name);
        if !is_there(&name).map_err(IdentityError::file(path))? {
            return Ok(name);
        }
        number += 1;
    }
}

/// An unused name in a folder: `NAME.END`, else `NAME-2.END` and so on.
///
/// # Errors
///
/// It is unknown if a name is unused.
pub(super) fn free_numbered(
    folder: &Path,
    name: &str,
    end: &str,
) -> Result<PathBuf, IdentityError> {
    let mut path = folder.join(format!("{name}.{end}"));
    let mut number = 2;
    while is_there(&path).map_err(IdentityError::file(&path))? {
        path.set_file_name(format!("{name}-{number}.{end}"));
        number += 1;
    }
    Ok(path)
}
