//! Checks the lock file that devid must lock before it tries a PIN.

use super::{Finding, Health};
use crate::config::Config;
use crate::identity::device::Device;
use crate::identity::permissions::missing_permission;
use crate::identity::remedy::Remedy;
use crate::shell::word;
use crate::store::Pins;
use crate::trust::Distrust;
use rustix::fs::{Access, FileType, stat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::path::Path;

const ABOUT: &str = "lock for PINs";

/// Finds a PIN lock that is not available, and users who can hold the lock without the permission
/// to use the TPM. If devid will create the missing lock folder, there is no finding.
pub(super) fn check(device: &Device, findings: &mut Vec<Finding>) {
    let has_pins = has_pins(device);
    if let Some(fault) = device.tpm.pin_lock_fault() {
        let text = format!(
            "{fault}: no PIN is tried, because this needs a lock that other users cannot replace"
        );
        let found = Finding::problem("lock.none", ABOUT, text, to_have_it(&device.config, &fault));
        findings.push(Finding {
            state: match has_pins {
                true => Health::Problem,
                false => Health::Note,
            },
            ..found
        });
        return;
    }
    let Some(lock) = device.tpm.pin_lock_path() else {
        return;
    };
    let is_node = stat(&lock)
        .is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice);
    match is_node {
        true => findings.extend(outsiders(&lock)),
        false if has_pins => findings.extend(insiders(&device.config)),
        false => {}
    }
}

/// Returns the remedy for a PIN lock that is not available.
fn to_have_it(config: &Config, fault: &Distrust) -> Remedy {
    let folder = config.locks.as_path();
    let denied = || missing_permission(&fault.place, Access::READ_OK);
    match fault.unread {
        Some(Errno::NOENT | Errno::NOTDIR) if config.locks_with_all() => Remedy::by_command(
            "If devid-pkcs11.conf is installed in tmpfiles.d, run this command as root. Otherwise \
             use devid or the module once as root",
            "systemd-tmpfiles --create devid-pkcs11.conf",
        ),
        Some(Errno::NOENT | Errno::NOTDIR) => Remedy::by_hand(format!(
            "This user cannot create the folder {}. Set DEVID_PKCS11_RUN to a folder of this user \
             (mode 0700), or unset it to use the common folder",
            folder.display()
        )),
        Some(Errno::ACCESS | Errno::PERM) if let Some(remedy) = denied() => remedy,
        // A hostile user may have made this path, so no shell command contains the path.
        _ => Remedy::by_hand(format!(
            "Check who made {}, and for which purpose. The folder must belong to root (mode 0750, \
             with the group of the TPM's users) or only to this user. It must hold only regular \
             files of root or of this user. The same rule holds for the folders of its path. After \
             you have removed the wrong object, systemd-tmpfiles or the next use by root creates \
             the folder again",
            word(folder)
        )),
    }
}

/// Finds users who can hold the PIN lock, although they have no permission to use the TPM.
fn outsiders(node: &Path) -> Option<Finding> {
    const READS: u32 = 0o4;
    const WRITES: u32 = 0o2;
    let mode = stat(node).ok()?.st_mode;
    let only_reads = |shift: u32| (mode >> shift) & (READS | WRITES) == READS;
    let (who, taken) = match (only_reads(0), only_reads(3)) {
        (true, true) => ("every user, and every member of its group,", "go-r"),
        (true, false) => ("everybody", "o-r"),
        (false, true) => ("its group", "g-r"),
        (false, false) => return None,
    };
    let shown = node.display();
    let text = format!(
        "{shown}: {who} can read this file (mode {:04o}) but cannot use the TPM. Such a user can \
         hold the lock and delay logins",
        mode & 0o7777
    );
    let remedy = Remedy::on_paths(
        "To change the mode permanently, write a udev rule with MODE=\"0660\". To change it until \
         the next boot, run",
        &[node],
        format!("chmod {taken} {}", word(node)),
    );
    Some(Finding::note("lock.outsiders", ABOUT, text).with_remedy(remedy))
}

/// Finds that other users of the TPM may use another PIN lock. Two processes that try PINs under
/// different locks can put the TPM into lockout.
fn insiders(config: &Config) -> Option<Finding> {
    let folder = config.locks.as_path();
    let owner = stat(folder).map_or(geteuid().as_raw(), |about| about.st_uid);
    if config.locks_with_all() && owner == 0 {
        return None;
    }
    let text = format!(
        "{} is not the common lock folder: a program with another run folder, user or container \
         tries PINs under another lock, and wrong PINs of both can put the TPM into lockout",
        folder.display()
    );
    let remedy = Remedy::by_hand(
        "If no other program uses this TPM, no step is needed. Otherwise use a common lock folder: \
         unset DEVID_PKCS11_RUN, put the users of the programs into the group tss, and mount \
         /run/devid-pkcs11 into containers",
    );
    Some(Finding::note("lock.own", ABOUT, text).with_remedy(remedy))
}

fn has_pins(device: &Device) -> bool {
    device.stores().any(|store| store.pins() != Pins::None)
        || device
            .config
            .identities
            .iter()
            .any(|hint| hint.auth.is_some())
}
