//! Checks the device node of the TPM and its permissions.

use super::Finding;
use crate::accounts::{group_name, user_name};
use crate::config::Config;
use crate::identity::permissions::{membership, missing_permission};
use crate::identity::remedy::Remedy;
use crate::shell::word;
use crate::tpm::Tcti;
use rustix::fs::{Access, access, stat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::path::Path;

const ABOUT: &str = "TPM device";

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    match &config.tcti {
        Tcti::Device(path) => node(path, findings),
        other if other.is_managed() => findings.push(Finding::ok(
            "tpm.way",
            "TPM",
            format!("{other}: a resource manager serves the TPM"),
        )),
        other => findings.push(Finding::note(
            "tpm.shared",
            "TPM",
            format!(
                "{other}: no resource manager serves the TPM, so all programs share its few slots"
            ),
        )),
    }
}

/// Checks that the device node exists and that the user of this process may use it.
fn node(path: &Path, findings: &mut Vec<Finding>) {
    let shown = path.display();
    let Ok(found) = stat(path) else {
        findings.push(missing(path));
        return;
    };
    let (mode, group) = (found.st_mode & 0o777, found.st_gid);
    let group = group_name(group).unwrap_or_else(|| group.to_string());
    let owner = user_name(found.st_uid);
    let text = format!("{shown}: mode {mode:04o}, user {owner}, group {group}");
    findings.push(match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Finding::ok("tpm.node", ABOUT, text),
        // The error EPERM comes from the kernel's list of permitted devices (cgroups(7)), not from
        // the mode.
        Err(Errno::PERM) => Finding::problem(
            "tpm.node-forbidden",
            ABOUT,
            format!(
                "{text}: the system forbids this process to use the TPM, whatever its user and \
                 group are"
            ),
            Remedy::by_hand(format!(
                "For a service, add DeviceAllow={shown} rw to the section [Service] of its unit. \
                 For a container, pass the device with --device {shown}"
            )),
        ),
        Err(_) => {
            let user = user_name(geteuid().as_raw());
            let needed = Access::READ_OK | Access::WRITE_OK;
            // Membership in the group of the device node helps only if the mode gives the group
            // access.
            let remedy = match mode & 0o060 == 0o060 && group != "root" {
                true => missing_permission(path, needed).unwrap_or_else(|| {
                    Remedy::by_hand(
                        "The mode of the file permits the access. Find the cause with strace",
                    )
                }),
                false => Remedy::on_paths(
                    "Install the package tpm-udev, which gives the device to the group tss, and \
                     add this user to the group. To do this until the next boot, run",
                    &[path],
                    format!(
                        "chgrp --no-dereference tss {0} && chmod 0660 {0}",
                        word(path)
                    ) + &added_to_tss(),
                ),
            };
            Finding::problem(
                "tpm.node-closed",
                ABOUT,
                format!("{text}: user {user} has no permission to use the TPM"),
                remedy,
            )
        }
    });
    if !Tcti::Device(path.into()).is_managed() {
        let text = format!(
            "{shown} has no resource manager, so only one program at a time can use the TPM"
        );
        let note = Finding::note("tpm.node-bare", ABOUT, text);
        findings.push(note.with_remedy(Remedy::by_hand(
            "Set tcti = \"device:/dev/tpmrm0\" in config.toml",
        )));
    }
}

/// Returns the part of a command line that adds the user of this process to the group tss.
fn added_to_tss() -> String {
    let command = membership("tss").command;
    command.map_or(String::new(), |command| format!(" && {command}"))
}

fn missing(path: &Path) -> Finding {
    let shown = path.display();
    let others = ["/dev/tpmrm0", "/dev/tpm0"].map(Path::new).into_iter();
    let other = others.filter(|one| *one != path).find(|one| one.exists());
    let kernel = Path::new("/sys/class/tpm/tpm0").exists();
    match (other, kernel) {
        (Some(other), _) => Finding::problem(
            "tpm.node-elsewhere",
            ABOUT,
            format!("{shown} does not exist, but {} does", other.display()),
            Remedy::by_hand(format!(
                "Set tcti = \"device:{}\" in config.toml",
                other.display()
            )),
        ),
        (None, true) => Finding::problem(
            "tpm.node-unmade",
            ABOUT,
            format!("{shown} does not exist, although the kernel found a TPM"),
            Remedy::by_command(
                "To let udev create the file, run this command. A container needs the option \
                 --device",
                "udevadm trigger --settle --subsystem-match=tpm --subsystem-match=tpmrm",
            ),
        ),
        (None, false) => Finding::problem(
            "tpm.none",
            ABOUT,
            format!("{shown} does not exist, and the kernel found no TPM"),
            Remedy::by_command(
                "Enable the TPM in the settings of the firmware, or give the virtual machine a \
                 TPM. If only the driver is missing, run",
                "modprobe tpm_crb; modprobe tpm_tis",
            ),
        ),
    }
}
