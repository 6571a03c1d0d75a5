//! What the system has for us: the device node, rights, other programs' settings.

use super::Finding;
use crate::config::Config;
use crate::tpm::Tcti;
use rustix::fs::{Access, access, stat};
use rustix::process::{getegid, geteuid, getgroups};
use std::path::{Path, PathBuf};

/// Where p11-kit looks for modules.
const P11_KIT: [&str; 2] = ["/usr/share/p11-kit/modules", "/etc/pkcs11/modules"];
const MODULE: &str = "devid-pkcs11.module";
const LIBRARY: &str = "libdevid_pkcs11.so";
const PROVIDER: &str = "pkcs11.so";

/// The way to the TPM, and the folders.
pub(super) fn look_at(config: &Config, findings: &mut Vec<Finding>) {
    match &config.tcti {
        Tcti::Device(path) => node(path, findings),
        other if other.is_managed() => {
            findings.push(Finding::ok(
                "TPM",
                format!("{other}: behind a resource manager"),
            ));
        }
        other => findings.push(Finding::note(
            "TPM",
            format!("{other}: no resource manager, so all programs share its few slots"),
        )),
    }
    folders(config, findings);
}

/// A device node: is it there, and may this user use it?
fn node(path: &Path, findings: &mut Vec<Finding>) {
    let about = "TPM device";
    let shown = path.display();
    let Ok(found) = stat(path) else {
        let kernel = Path::new("/sys/class/tpm/tpm0").exists();
        findings.push(match (kernel, Path::new("/dev/tpm0").exists()) {
            (false, false) => Finding::problem(
                about,
                format!("{shown} is not there, and the kernel knows no TPM"),
                "switch the TPM on in the firmware's settings; else modprobe tpm_tis or tpm_crb"
                    .into(),
            ),
            _ => Finding::problem(
                about,
                format!("{shown} is not there, although the kernel has a TPM"),
                "name the node that is there: tcti = \"device:/dev/tpm0\" in config.toml".into(),
            ),
        });
        return;
    };
    let (mode, group) = (found.st_mode & 0o777, found.st_gid);
    let about_it = format!(
        "{shown}: mode {mode:04o}, user {}, group {group}",
        found.st_uid
    );
    if access(path, Access::READ_OK | Access::WRITE_OK).is_ok() {
        findings.push(Finding::ok(about, about_it));
    } else {
        let group = group_name(group).unwrap_or_else(|| group.to_string());
        findings.push(Finding::problem(
            about,
            format!("{about_it}: user {} may not use it", geteuid().as_raw()),
            format!("usermod -aG {group} USER, and log in again"),
        ));
    }
    if !Tcti::Device(path.into()).is_managed() {
        findings.push(Finding {
            mend: Some("tcti = \"device:/dev/tpmrm0\" in config.toml".into()),
            ..Finding::note(
                about,
                format!("{shown} has no resource manager and lets one program in at a time"),
            )
        });
    }
}

fn folders(config: &Config, findings: &mut Vec<Finding>) {
    let about = "folders";
    let state = config.state.as_path();
    if !state.exists() {
        findings.push(Finding::note(
            about,
            format!(
                "{} is not there yet; devid provision makes it",
                state.display()
            ),
        ));
    } else if access(state, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        findings.push(Finding::note(
            about,
            format!(
                "{}: user {} may not write there, so it can use keys and make none",
                state.display(),
                geteuid().as_raw()
            ),
        ));
    } else {
        findings.push(Finding::ok(
            about,
            format!("{} can be written", state.display()),
        ));
    }
    let Some(devid) = group_number("devid") else {
        findings.push(Finding {
            mend: Some("systemd-sysusers devid-pkcs11.conf, or groupadd --system devid".into()),
            ..Finding::note(
                about,
                "there is no group devid that key folders could be given to".into(),
            )
        });
        return;
    };
    let groups = getgroups().unwrap_or_default();
    let member = getegid().as_raw() == devid || groups.iter().any(|one| one.as_raw() == devid);
    if !member && !geteuid().is_root() {
        findings.push(Finding {
            mend: Some("usermod -aG devid USER, and log in again".into()),
            ..Finding::note(about, "this user is not in the group devid".into())
        });
    }
}

/// p11-kit and OpenSSL.
pub(super) fn look_at_programs(findings: &mut Vec<Finding>) {
    let libraries = below_lib(&format!("pkcs11/{LIBRARY}"));
    findings.push(match libraries.first() {
        Some(path) => Finding::ok("module", path.display().to_string()),
        None => Finding {
            mend: Some(format!(
                "install {LIBRARY} into /usr/lib/<multiarch>/pkcs11/"
            )),
            ..Finding::note(
                "module",
                format!("{LIBRARY} is not where programs look for it"),
            )
        },
    });
    let registered = P11_KIT.iter().map(|folder| Path::new(folder).join(MODULE));
    let registered = registered.into_iter().find(|path| path.exists());
    findings.push(match registered {
        Some(path) => Finding::ok("p11-kit", path.display().to_string()),
        None => Finding {
            mend: Some(format!("cp pkcs11-conf/{MODULE} {}/", P11_KIT[0])),
            ..Finding::note("p11-kit", "it does not know the module".into())
        },
    });
    let providers = below_lib(&format!("ossl-modules/{PROVIDER}"));
    findings.push(match providers.first() {
        Some(path) => Finding::ok("OpenSSL", format!("pkcs11-provider: {}", path.display())),
        None => Finding {
            mend: Some(
                "apt install pkcs11-provider (Debian 13), or scripts/pkcs11-provider".into(),
            ),
            ..Finding::note(
                "OpenSSL",
                "pkcs11-provider is not where OpenSSL looks for it".into(),
            )
        },
    });
}

/// `/usr/lib/<multiarch>/NAME` and `/usr/lib/NAME` that are there.
fn below_lib(name: &str) -> Vec<PathBuf> {
    let lib = Path::new("/usr/lib");
    let folders = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path());
    let all = std::iter::once(lib.to_path_buf()).chain(folders);
    all.map(|folder| folder.join(name))
        .filter(|path| path.exists())
        .collect()
}

/// group(5), without asking any service: a rescue system has none.
fn groups() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let parsed = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    });
    parsed.collect()
}

fn group_name(number: u32) -> Option<String> {
    groups()
        .into_iter()
        .find(|one| one.1 == number)
        .map(|one| one.0)
}

fn group_number(name: &str) -> Option<u32> {
    groups()
        .into_iter()
        .find(|one| one.0 == name)
        .map(|one| one.1)
}
