//! Finds file names that are not in use.

use super::IdentityError;
use crate::trouble::is_there;
use std::path::{Path, PathBuf};

/// Returns an unused path: `path` with the suffix `suffix`. If a file has this name, adds the first
/// number that gives an unused name.
///
/// # Errors
///
/// Fails if the system does not tell whether a name is in use. A file that was set aside must never
/// be overwritten.
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

/// Returns an unused name in a folder: `NAME.END`, `NAME-2.END`, `NAME-3.END` and so on.
///
/// # Errors
///
/// Fails if the system does not tell whether a name is in use.
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
