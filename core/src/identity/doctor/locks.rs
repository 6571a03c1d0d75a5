//! The lock without which no PIN is tried.

use super::{Finding, Health};
use crate::identity::device::Device;
use crate::identity::mend::Mend;
use crate::shell::word;
use crate::store::{KeyStore, Pins};
use rustix::process::geteuid;

const ABOUT: &str = "lock for PINs";

/// Nothing is said of a lock that can be had, nor of a folder that root makes when it is needed.
pub(super) fn look_at(device: &Device, findings: &mut Vec<Finding>) {
    let Some(fault) = device.tpm.no_turn_to_try() else {
        return;
    };
    let folder = &device.config.locks;
    let missing = !folder.exists() && !folder.is_symlink();
    if missing && geteuid().is_root() {
        return;
    }
    let text = format!("{fault}: no PIN is tried without a lock that others cannot take away");
    let mend = match missing {
        true => Mend::run(
            "As root, where devid-pkcs11.conf is installed in tmpfiles.d; or run devid or the \
             module once as root",
            "systemd-tmpfiles --create devid-pkcs11.conf",
        ),
        // Whoever made it may be watching: nothing is said for sh(1) about a path of theirs.
        false => Mend::by(format!(
            "Look at {} by hand: see who made it and why. It is to be a folder of root's (0750, \
             with the group of those who use the TPM) or of this user's alone, on the way to it too, \
             with plain files that root or this user made. Once what is in the way is gone, \
             systemd-tmpfiles or the next use by root makes it anew",
            word(folder)
        )),
    };
    let found = Finding::problem("lock.none", ABOUT, text, mend);
    findings.push(Finding {
        state: match has_pins(device) {
            true => Health::Problem,
            false => Health::Note,
        },
        ..found
    });
}

fn has_pins(device: &Device) -> bool {
    device.stores().any(|store| store.pins() != Pins::None)
        || device
            .config
            .identities
            .iter()
            .any(|hint| hint.auth.is_some())
}
