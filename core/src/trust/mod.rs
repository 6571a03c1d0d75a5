//! Rules that decide whether a file is trusted.
//!
//! A user who can write a file of a key folder decides which key a program signs with. A user who
//! can write to the folder can replace its files. The danger is equal for configuration files and
//! secrets. The following rules therefore apply:
//!
//! - The owner of the folder is trusted, because an administrator gave the folder to this owner.
//!   The group is trusted if the mode lets the group write.
//! - Root and the effective user of this process are trusted.
//! - No other user may be able to write. A world-writable file is always refused. A group-writable
//!   file must have the group of the folder.
//! - The owner of a file can always make the file writable, so the owner must be trusted. In a
//!   group-writable folder, a file with the group of the folder is also accepted, because only a
//!   member of the group can have set this group.
//!
//! A file or folder that breaks a rule is refused. Access control lists count as far as the group
//! bits of the mode show them. If the check fails, the file is not trusted. Only a missing file
//! (`ENOENT`, `ENOTDIR`) is no danger. For configuration files and the files that they name, the
//! folders of the path are checked too ([`distrusted`]). For a key folder they are not checked.

mod path;

pub(crate) use path::{Distrust, alone, distrusted, names_only_ours};

use crate::trouble::{found, trouble};
use rustix::fs::{Stat, lstat, stat};
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};
use std::fmt;
use std::io;
use std::path::Path;

/// Returns the reason why a folder is not trusted; `None` if it is trusted. A missing folder is
/// like an empty folder.
///
/// With `alone`, a group-writable folder is not trusted either.
///
/// # Errors
///
/// Fails if the check is not possible now.
pub(crate) fn distrusted_folder(path: &Path, alone: bool) -> io::Result<Option<String>> {
    let Some(about) = found(|| stat(path))? else {
        return Ok(None);
    };
    let owned = Owned::from(&about);
    Ok(match owned.as_folder() {
        Ok(()) if alone && owned.is_shared() && owned.group != 0 => Some(format!(
            "everybody in the group {} may write into this folder",
            owned.group
        )),
        judged => judged.err(),
    })
}

/// Returns the reason why a file is not trusted; `None` if it is trusted. With `secret`, a private
/// key that other users can read is not trusted. A missing file is like an empty file.
///
/// # Errors
///
/// The errors of [`distrusted_folder`].
pub(crate) fn distrusted_file(path: &Path, secret: bool) -> io::Result<Option<String>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (Some(file), Some(folder)) = (found(|| lstat(path))?, found(|| stat(folder))?) else {
        return Ok(None);
    };
    let file = Owned::from(&file);
    match file.as_file_in(Owned::from(&folder), geteuid()) {
        Ok(()) if secret => Ok(file.as_secret().err()),
        Ok(()) => Ok(None),
        Err(UntrustedFile { unread, .. }) if unread.is_some() => {
            Err(unread.unwrap_or(Errno::IO).into())
        }
        Err(UntrustedFile { why, .. }) => Ok(Some(why)),
    }
}

/// The reason why a file of a key folder is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UntrustedFile {
    why: String,
    /// The system error, if the owner or mode of the file cannot be checked now.
    pub(crate) unread: Option<Errno>,
}

impl UntrustedFile {
    fn for_good(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            unread: None,
        }
    }
}

impl fmt::Display for UntrustedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

const GROUP_WRITES: u32 = 0o020;
const GROUP_PASSES: u32 = 0o010;
const WORLD_WRITES: u32 = 0o002;
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// The owner, group and mode of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Owned {
    /// Checks a key folder. Fails with the reason if the folder is refused.
    pub(crate) fn as_folder(self) -> Result<(), String> {
        match self.lets(WORLD_WRITES) {
            true => Err("everybody may write into this folder".into()),
            false => Ok(()),
        }
    }

    /// Checks a file in the key folder `folder`, for a process of the user `user`. Fails with the
    /// reason if the file is refused.
    pub(crate) fn as_file_in(self, folder: Self, user: Uid) -> Result<(), UntrustedFile> {
        let of_folders_group = self.group == folder.group;
        if self.lets(WORLD_WRITES) {
            return Err(UntrustedFile::for_good("everybody may write this file"));
        }
        if self.lets(GROUP_WRITES) && !of_folders_group {
            return Err(UntrustedFile::for_good(format!(
                "group {} may write this file, but the folder is of group {}",
                self.group, folder.group
            )));
        }
        let trusted = [Uid::ROOT.as_raw(), user.as_raw(), folder.owner];
        let made_by_group = folder.is_shared() && of_folders_group;
        if trusted.contains(&self.owner) || made_by_group {
            return Ok(());
        }
        match path::is_unmapped(self.owner) {
            Ok(true) => Ok(()),
            Ok(false) => Err(UntrustedFile::for_good(format!(
                "the file belongs to user {}, who is not root, the folder's owner {} or this \
                 process's user {}",
                self.owner,
                folder.owner,
                user.as_raw()
            ))),
            Err(error) => Err(UntrustedFile {
                why: error.to_string(),
                unread: Some(trouble(&error).unwrap_or(Errno::IO)),
            }),
        }
    }

    /// Checks a file with a private key in clear. Fails with the reason if the file is refused.
    pub(crate) fn as_secret(self) -> Result<(), String> {
        match self.lets(OTHERS) {
            true => Err(
                "users other than the owner may read this private key: restrict it with chmod 600"
                    .into(),
            ),
            false => Ok(()),
        }
    }

    pub(crate) fn group(self) -> u32 {
        self.group
    }

    pub(crate) fn owner(self) -> u32 {
        self.owner
    }

    /// Returns the same owner and group with the mode `mode`.
    pub(crate) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Returns true if the file belongs to the user of this process.
    pub(crate) fn is_mine(self) -> bool {
        self.owner == geteuid().as_raw()
    }

    /// Returns true if the group of the folder may open files in the folder.
    pub(crate) fn lets_group_in(self) -> bool {
        self.lets(GROUP_PASSES)
    }

    /// Returns true if the group of the folder may create and replace files in the folder.
    pub(crate) fn is_shared(self) -> bool {
        self.lets(GROUP_WRITES)
    }

    fn lets(self, bits: u32) -> bool {
        self.mode & bits != 0
    }
}

impl From<&Stat> for Owned {
    fn from(about: &Stat) -> Self {
        Self {
            owner: about.st_uid,
            group: about.st_gid,
            mode: about.st_mode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1000;
    const OTHER: u32 = 1001;
    const DEVID: u32 = 50;
    const STAFF: u32 = 51;

    fn owned(owner: u32, group: u32, mode: u32) -> Owned {
        Owned { owner, group, mode }
    }

    /// A file is not trusted if the check is not possible.
    #[test]
    fn what_cannot_be_judged_is_not_trusted() {
        let home = tempfile::tempdir().unwrap();
        let (none, around) = (home.path().join("none"), home.path().join("loop"));
        std::os::unix::fs::symlink(&around, &around).unwrap();
        for missing in [&none, &none.join("below")] {
            assert_eq!(distrusted_folder(missing, true).unwrap(), None);
            assert_eq!(distrusted_file(missing, true).unwrap(), None);
        }
        let unread = |error: io::Error| Errno::from_io_error(&error);
        let folder = distrusted_folder(&around, false).map_err(unread);
        assert_eq!(folder, Err(Some(Errno::LOOP)));
        let file = distrusted_file(&around.join("file"), false).map_err(unread);
        assert_eq!(file, Err(Some(Errno::LOOP)));
        let long = home.path().join("x".repeat(300));
        for judged in [distrusted_folder(&long, true), distrusted_file(&long, true)] {
            assert_eq!(judged.map_err(unread), Err(Some(Errno::NAMETOOLONG)));
        }
    }

    #[test]
    fn only_whom_the_administrator_trusted_may_write() {
        let folder = owned(0, DEVID, 0o40750);
        let shared = owned(0, DEVID, 0o42770);
        let given = owned(OTHER, DEVID, 0o40700);
        for (file, folder, trusted) in [
            (owned(0, 0, 0o100644), folder, true),
            (owned(0, DEVID, 0o100660), folder, true),
            (owned(0, STAFF, 0o100660), folder, false),
            (owned(0, DEVID, 0o100642), folder, false),
            (owned(USER, STAFF, 0o100600), folder, true),
            (owned(OTHER, STAFF, 0o100600), folder, false),
            (owned(OTHER, DEVID, 0o100640), folder, false),
            (owned(OTHER, DEVID, 0o100640), shared, true),
            (owned(OTHER, STAFF, 0o100640), shared, false),
            (owned(OTHER, DEVID, 0o100666), shared, false),
            (owned(OTHER, STAFF, 0o100600), given, true),
        ] {
            let judged = file.as_file_in(folder, Uid::from_raw(USER));
            assert_eq!(
                judged.is_ok(),
                trusted,
                "{file:?} in {folder:?}: {judged:?}"
            );
        }
        for (folder, trusted) in [
            (folder, true),
            (shared, true),
            (owned(0, 0, 0o41777), false),
            (owned(USER, STAFF, 0o40702), false),
        ] {
            assert_eq!(folder.as_folder().is_ok(), trusted, "{folder:?}");
        }
    }
}
