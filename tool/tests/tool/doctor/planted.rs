//! Files of other users in writable folders. The doctor names them, and its commands do no harm
//! when they are copied.

use crate::device::mending::{findings, found, named};
use crate::device::{Device, programs};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const GROUP: u32 = 12345;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Each command that the doctor gives, as root would run it, whether it works or not. Commands that
/// change the machine, or the identity, are not for a test.
fn run_all(device: &Device) -> Vec<String> {
    let all = findings(device).into_iter();
    let commands = all.filter_map(|one| one["command"].as_str().map(str::to_owned));
    let files = ["chown", "chmod", "chgrp", "mv", "rm", "cp", "install"];
    let of_files = |command: &String| {
        let name = command.split(' ').next().unwrap_or_default();
        let of_machine = ["/usr/", "/etc/", "devid "];
        files.contains(&name) && !of_machine.iter().any(|part| command.contains(part))
    };
    let commands: Vec<String> = commands.filter(of_files).collect();
    for command in &commands {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(device.home.folder());
        programs::run(&mut shell);
    }
    commands
}

/// Mode, owner and content.
fn state_of(path: &Path) -> (u32, u32, u32, Vec<u8>) {
    let about = fs::metadata(path).unwrap();
    (
        about.mode(),
        about.uid(),
        about.gid(),
        fs::read(path).unwrap(),
    )
}

#[test]
fn a_link_in_a_key_folder_is_followed_by_nobody() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let victim = device.home.write("victim", "root's own");
    mode(&victim, 0o644);
    chown(&victim, Some(777), Some(778)).expect("the tests run as root");
    let before = state_of(&victim);
    let folder = device.path("state/devid");
    let planted = folder.join("key-0000000000000000.pem");
    for (bits, group) in [(0o2770, GROUP), (0o2750, GROUP)] {
        chown(&folder, None, Some(group)).unwrap();
        mode(&folder, bits);
        symlink(&victim, &planted).unwrap();
        let finding = found(&device, "keys.file");
        assert!(finding["command"].is_null(), "{finding:#}");
        assert!(
            finding["mend"]
                .as_str()
                .unwrap()
                .contains("check this manually"),
            "{finding:#}"
        );
        run_all(&device);
        assert_eq!(state_of(&victim), before);
        fs::remove_file(&planted).unwrap();
        fs::hard_link(&victim, &planted).unwrap();
        assert!(found(&device, "keys.file")["command"].is_null());
        run_all(&device);
        assert_eq!(state_of(&victim), before);
        fs::remove_file(&planted).unwrap();
    }
    // A plain file in a folder that its group may write: it may be exchanged for a link.
    mode(&folder, 0o2770);
    fs::write(&planted, "no key").unwrap();
    mode(&planted, 0o666);
    assert!(found(&device, "keys.file")["command"].is_null());
    mode(&folder, 0o2750);
    assert!(found(&device, "keys.file")["command"].is_string());
}

#[test]
fn a_path_is_one_word_whatever_it_is() {
    for name in [
        "with space",
        "it's",
        "a;touch victim",
        "$(touch victim)",
        "-rf",
        "new\nline",
        "é",
    ] {
        let device = Device::blank();
        let state = device.path(name);
        fs::create_dir(&state).unwrap();
        let with = |words: &[&str]| {
            let mut command = device.command(words);
            programs::run(command.env("DEVID_PKCS11_STATE", &state))
        };
        with(PROVISION).ok();
        fs::write(state.join("devid/key-1.pem"), "no key").unwrap();
        mode(&state.join("devid/key-1.pem"), 0o666);
        let said = with(&["doctor", "--json"]);
        let all: serde_json::Value = serde_json::from_slice(&said.out).unwrap();
        let all = all.as_array().unwrap().iter();
        let one = all.clone().find(|one| one["id"] == "keys.file").unwrap();
        let Some(command) = one["command"].as_str() else {
            assert!(name.contains('\n'), "{one:#}");
            continue;
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", command])
            .current_dir(device.home.folder());
        programs::run(&mut shell).ok();
        let bits = fs::metadata(state.join("devid/key-1.pem")).unwrap().mode();
        assert_eq!(bits & 0o777, 0o640, "{command}");
        assert!(!device.path("victim").exists());
    }
}

/// The file that asks for a reset, and the state folder as a whole.
#[test]
fn what_is_in_a_state_folder_for_all_is_looked_at_by_hand() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let victim = device.home.write("victim", "root's own");
    let before = state_of(&victim);
    let state = device.path("state");
    symlink(&victim, state.join("factory-reset")).unwrap();
    fs::create_dir(device.path("elsewhere")).unwrap();
    symlink(device.path("elsewhere"), state.join("factory-reset.old")).unwrap();
    chown(&state, None, Some(GROUP)).unwrap();
    mode(&state, 0o2770);
    let finding = found(&device, "identity.untrusted");
    assert!(finding["command"].is_null(), "{finding:#}");
    run_all(&device);
    mode(&state, 0o777);
    run_all(&device);
    assert_eq!(state_of(&victim), before);
    assert_eq!(fs::read_dir(device.path("elsewhere")).unwrap().count(), 0);
    assert!(state.join("factory-reset").is_symlink());
}

#[test]
fn a_lock_that_is_none_is_named_and_no_command_touches_it() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let lock = device.path("state/devid/.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    fs::create_dir(device.path("state/devid/.new-x")).unwrap();
    let all = named(&device, "keys.in-the-way");
    assert_eq!(all.len(), 2, "{all:#?}");
    for one in &all {
        assert!(one["command"].is_null(), "{one:#}");
        assert!(
            one["mend"]
                .as_str()
                .unwrap()
                .starts_with("Check who made this file"),
            "{one:#}"
        );
    }
    let said = device.ends(1, &["key", "generate", "web"]);
    assert!(said.err.contains("state/devid/.lock"), "{said}");
    fs::remove_dir(&lock).unwrap();
    device.ends(0, &["key", "generate", "web"]);
    // The lock of those who provision.
    let lock = device.path("state/.provision.lock");
    fs::remove_file(&lock).unwrap();
    let victim = device.home.write("victim", "root's own");
    symlink(&victim, &lock).unwrap();
    let said = device.ends(1, PROVISION);
    assert!(
        said.err.contains(".provision.lock") && said.err.contains("symbolic link"),
        "{said}"
    );
    let one = found(&device, "state.in-the-way");
    assert!(one["command"].is_null(), "{one:#}");
}

#[test]
fn what_a_killed_run_left_goes_with_the_next() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    fs::create_dir_all(device.path("state/software")).unwrap();
    // No process has this number.
    let left = ".new-4194999-0123456789abcdef";
    let folders = ["state", "state/devid", "state/software"];
    for folder in folders {
        fs::write(device.path(folder).join(left), "half").unwrap();
        fs::write(device.path(folder).join(".new-ideas"), "somebody's").unwrap();
    }
    let mine = format!(".new-{}-0123456789abcdef", std::process::id());
    fs::write(device.path("state").join(&mine), "is being written").unwrap();
    device.ends(0, PROVISION);
    for folder in folders {
        assert!(!device.path(folder).join(left).exists(), "{folder}");
        assert!(device.path(folder).join(".new-ideas").exists(), "{folder}");
    }
    assert!(device.path("state").join(&mine).exists());
}

#[test]
fn configuration_that_others_may_write_is_a_finding() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let file = device.path("config.toml");
    mode(&file, 0o666);
    let one = found(&device, "configuration");
    assert_eq!(one["state"], "problem", "{one:#}");
    assert!(
        one["text"]
            .as_str()
            .unwrap()
            .contains("everybody may write"),
        "{one:#}"
    );
    let said = device.devid(PROVISION);
    assert!(said.err.contains("everybody may write"), "{said}");
    mode(&file, 0o644);
    assert_eq!(found(&device, "configuration")["state"], "ok");
}

#[test]
fn what_is_trusted_must_be_written_by_whom_one_trusts() {
    let (device, factory) = Device::manufactured();
    device.trust(&factory.root());
    device.ends(0, &["verify", "idev-id"]);
    for (path, bits, sound) in [("trust/ca.pem", 0o666, 0o644), ("trust", 0o777, 0o755)] {
        let path = device.path(path);
        mode(&path, bits);
        assert_ne!(device.devid(&["verify", "idev-id"]).status.code(), Some(0));
        let one = found(&device, "distrusted");
        assert!(
            one["text"]
                .as_str()
                .unwrap()
                .contains("everybody may write"),
            "{one:#}"
        );
        mode(&path, sound);
        assert_eq!(named(&device, "distrusted").len(), 0);
    }
    device.ends(0, &["verify", "idev-id"]);
    let chain = device
        .home
        .write("chain/ca.pem", fs::read(factory.ca()).unwrap());
    mode(&chain, 0o666);
    let one = found(&device, "distrusted");
    assert_eq!(one["object"], chain.to_str().unwrap());
    fs::remove_file(chain).unwrap();
    let secret = device.home.write("secret", "owner");
    device.home.write(
        "config.toml",
        format!("[master]\nowner_auth = \"file:{}\"\n", secret.display()),
    );
    mode(&secret, 0o666);
    let one = found(&device, "distrusted");
    assert_eq!(one["object"], secret.to_str().unwrap());
}

/// Cases in which the lock for PINs is reliable, and cases in which it is not.
#[test]
fn the_lock_for_pins_is_looked_at() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    assert_eq!(named(&device, "lock.none").len(), 0);
    let lock = device.path("run/lock");
    fs::remove_dir_all(&lock).ok();
    fs::create_dir(&lock).unwrap();
    chown(&lock, Some(GROUP), None).unwrap();
    let one = found(&device, "lock.none");
    assert!(
        one["command"].is_null() && one["state"] == "note",
        "{one:#}"
    );
    assert!(
        one["mend"].as_str().unwrap().starts_with("Check who made "),
        "{one:#}"
    );
    fs::remove_dir_all(&lock).unwrap();
    assert_eq!(named(&device, "lock.none").len(), 0);
}
