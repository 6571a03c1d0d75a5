//! Names that nothing has yet, for files that are put aside or made.

use super::IdentityError;
use crate::trouble::is_there;
use std::path::{Path, PathBuf};

/// The name with this after it that nothing has yet.
///
/// # Errors
///
/// Nobody can say now whether one is free: nothing must be put over what was put aside before.
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

/// A name in a folder that nothing has yet: `NAME.END`, else `NAME-2.END` and so on.
///
/// # Errors
///
/// Nobody can say now whether a name is free.
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
