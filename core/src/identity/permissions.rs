//! Finds missing permissions of the user of this process, and remedies. A remedy tells who can
//! grant the permission, or which mode is wrong. The administrator may have denied the permission
//! on purpose.

use super::remedy::Remedy;
use crate::accounts::{group_name, user_name};
use crate::file;
use crate::pem;
use crate::shell::{quoted, word};
use rustix::fs::{Access, access, stat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups};
use std::path::Path;

/// The groups to which a remedy may add a user, because the permissions of these groups are known.
const GROUPS: [&str; 2] = ["devid", "tss"];

/// Returns the remedy that gives the user of this process access to a path. Returns `None` if the
/// system does not deny the access.
pub(super) fn missing_permission(path: &Path, needed: Access) -> Option<Remedy> {
    let mut way: Vec<&Path> = path.ancestors().skip(1).collect();
    way.retain(|folder| !folder.as_os_str().is_empty());
    let is_denied = |path: &Path, needed: Access| access(path, needed) == Err(Errno::ACCESS);
    let closed = way.iter().rev();
    let mut closed = closed.filter(|folder| is_denied(folder, Access::EXEC_OK));
    match closed.next() {
        Some(folder) => Some(opening(folder, Access::EXEC_OK)),
        None if is_denied(path, needed) => Some(opening(path, needed)),
        None => None,
    }
}

/// Returns true if the user of this process is in a group.
pub(super) fn is_member(group: u32) -> bool {
    let groups = getgroups().unwrap_or_default();
    getegid().as_raw() == group || groups.iter().any(|one| one.as_raw() == group)
}

/// Returns the remedy that adds the user of this process to a group.
pub(super) fn membership(group: &str) -> Remedy {
    let user = geteuid().as_raw();
    let name = user_name(user);
    if name == user.to_string() {
        return Remedy::by_hand(format!(
            "Run the command as a user of the group {group}. User {user} has no account that could \
             join the group"
        ));
    }
    Remedy::by_command(
        "Run this command as root, then log in again",
        format!("usermod -aG {} {}", quoted(group), quoted(&name)),
    )
}

fn opening(closed: &Path, needed: Access) -> Remedy {
    let (user, shown) = (geteuid(), closed.display());
    if user.is_root() {
        return Remedy::by_hand(format!(
            "Check the file system of {shown} and the container, because even root has no \
             permission"
        ));
    }
    let Ok(about) = stat(closed) else {
        return Remedy::by_hand(
            "Run the command as root, or as a user with permission for the folder",
        );
    };
    let (owner, mode) = (user_name(about.st_uid), about.st_mode & 0o7777);
    if about.st_uid == user.as_raw() {
        let more = match needed.contains(Access::WRITE_OK) {
            true => "u+rwX",
            false => "u+rX",
        };
        let command = format!("chmod {more} {}", word(closed));
        return Remedy::on_paths("This user owns the path, so run", &[closed], command);
    }
    let bits = needed.bits().cast_unsigned() << 3;
    let group = group_name(about.st_gid).unwrap_or_else(|| about.st_gid.to_string());
    let is_for_group = mode & bits == bits && about.st_gid != 0;
    match is_for_group && !is_member(about.st_gid) {
        true if GROUPS.contains(&group.as_str()) => membership(&group),
        true => Remedy::by_hand(format!(
            "{shown} belongs to the group {group}. Ask the administrator whether this user may \
             join the group, which gives all permissions of the group. Or run the command as root"
        )),
        false => Remedy::by_hand(format!(
            "{shown} belongs to user {owner} (mode {mode:04o}): run the command as this user, or \
             as root"
        )),
    }
}

/// Returns the remedy for a file of a key folder that holds no valid object. The file may hold an
/// identity, so no remedy moves it away.
pub(super) fn for_unread_file(folder: &Path, file: &Path, by_content: bool) -> Remedy {
    if by_content {
        return Remedy::by_hand(
            "If the file belongs to this device, restore the file from a backup. Otherwise move it \
             out of the folder",
        );
    }
    if let Some(remedy) = missing_permission(file, Access::READ_OK) {
        return remedy;
    }
    let mode = match holds_clear_key(file) {
        true => ONLY_ITS_OWNER,
        false => "u=rw,g-wx,o=",
    };
    for_distrusted_file(folder, file, mode)
}

/// The mode of a file with an unencrypted private key.
pub(super) const ONLY_ITS_OWNER: &str = "u=rw,go=";

/// Returns the remedy for a file that another user may have written. The owner of the folder
/// becomes the owner of the file, and the file gets this mode.
pub(super) fn for_distrusted_file(folder: &Path, file: &Path, mode: &str) -> Remedy {
    Remedy::on_paths(
        "If only its mode or owner is wrong, and no other user wrote or copied it",
        &[folder, file],
        format!(
            "chown --no-dereference --reference={} {1} && chmod {mode} {1}",
            word(folder),
            word(file)
        ),
    )
}

/// Returns the remedy for a folder that every user can write.
pub(super) fn for_open_folder(folder: &Path) -> Remedy {
    let command = format!("chmod o-w {}", word(folder));
    Remedy::on_paths(
        "Check that you know all files in the folder, then run",
        &[folder],
        command,
    )
}

/// Returns true if a file holds an unencrypted private key, or if the file cannot be read.
fn holds_clear_key(file: &Path) -> bool {
    /// The largest size of a file in a key folder, in bytes.
    const LARGEST: u64 = 1 << 20;
    let Ok(content) = file::read(file, LARGEST) else {
        return true;
    };
    let is_clear = |label: &str| {
        let others = ["TSS2 PRIVATE KEY", "ENCRYPTED PRIVATE KEY"];
        label.ends_with("PRIVATE KEY") && !others.contains(&label)
    };
    let blocks = pem::PemReader::of(&content).blocks;
    blocks.iter().flatten().any(|block| is_clear(block.label))
}
