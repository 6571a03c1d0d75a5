//! `devid status` for users who may not read every file.

use crate::device::{Device, programs};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

/// nobody
const USER: u32 = 65_534;

/// A user of the group sees the mode, and all but the key.
#[test]
fn a_software_identity_is_seen_without_its_key() {
    let device = Device::without_tpm();
    device
        .home
        .write("config.toml", "[provision]\nfallback = \"software\"\n");
    device.ends(0, &["provision", "--wait", "0"]);
    let key = device.path("state/software/devid.key.pem");
    allow(device.home.folder());
    set_mode(&key, 0);
    let tool = device.path("devid");
    fs::copy(env!("CARGO_BIN_EXE_devid"), &tool).unwrap();
    let devid = |words: &[&str]| {
        let mut command = std::process::Command::new(&tool);
        device.home.settle(command.args(words));
        // Whoever else runs this test has no right to the file either.
        // SAFETY: asks for our user id, nothing else.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(USER).gid(USER);
        }
        programs::run(&mut command)
    };
    assert!(
        devid(&["status"])
            .ok()
            .text()
            .starts_with("mode software\n")
    );
    let shown = devid(&["show", "devid"]).ok().text();
    assert!(shown.contains("devid.key.pem"), "{shown}");
    // But nothing can be proven.
    let certificate = device.path("state/software/devid.cert.pem");
    let said = devid(&["verify", "devid", "--ca", certificate.to_str().unwrap()]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(said.err.contains("the key was not proven"), "{said}");
    // Without the certificate the purpose of the key is unknown.
    fs::remove_file(certificate).unwrap();
    let said = devid(&["status"]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(said.text().contains("Permission denied"), "{said}");
}

/// Lets all look into the folders.
fn allow(folder: &Path) {
    set_mode(folder, 0o755);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            allow(&path);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
