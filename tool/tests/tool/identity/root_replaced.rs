//! Another program's key in the handle of the storage root key, and an owner with a password. A
//! reset completes, keys can be deleted, and the doctor reports the state.

use crate::device::{Device, files, persistent, programs, tpm2};

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RESET: &[&str] = &["reset", "--factory", "--yes", "--wait", "0"];
const MASTER: &str = "0x81000080";
const OWNER: &str = "s3cret";

/// A device whose keys are in handles, and the owner's password is set.
fn device() -> Device {
    let mut device = Device::blank();
    tpm2(&mut device, "tpm2_changeauth", &["-c", "o", OWNER]);
    let file = device.home.write("owner", OWNER);
    let setting = format!("[master]\nowner_auth = \"file:{}\"\n", file.display());
    device.home.write("config.toml", setting);
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web", "--persistent"]);
    device
}

fn evict_as_owner(device: &mut Device, handle: &str) {
    let words = ["-C", "o", "-P", OWNER, "-c", handle];
    tpm2(device, "tpm2_evictcontrol", &words);
}

/// An RSA key of another program in the handle of the storage root key.
fn replace_root(device: &mut Device) {
    evict_as_owner(device, "0x81000001");
    let owner = ["-C", "o", "-P", OWNER];
    let make = [&owner[..], &["-G", "rsa2048", "-c", "other.ctx"]].concat();
    tpm2(device, "tpm2_createprimary", &make);
    let keep = [&owner[..], &["-c", "other.ctx", "0x81000001"]].concat();
    tpm2(device, "tpm2_evictcontrol", &keep);
    tpm2(device, "tpm2_flushcontext", &["-t"]);
}

#[test]
fn a_reset_ends_whatever_key_is_the_root_key() {
    for (root, master) in [
        ("other", "held"),
        ("gone", "held"),
        ("other", "gone"),
        ("gone", "gone"),
    ] {
        let mut device = device();
        match root {
            "other" => replace_root(&mut device),
            _ => evict_as_owner(&mut device, "0x81000001"),
        }
        if master == "gone" {
            evict_as_owner(&mut device, MASTER);
        }
        let before = files(&device, "key-");
        device.ends(0, RESET);
        assert!(!device.path("state/factory-reset").exists());
        let after = files(&device, "key-");
        assert!(
            !after.is_empty() && !before.contains(&after[0]),
            "{root} {master}"
        );
        let handles = persistent(&mut device);
        assert!(
            !handles.contains("0x81000101"),
            "{root} {master}: {handles}"
        );
        device.ends(0, &["key", "generate", "web", "--persistent"]);
    }
}

#[test]
fn a_key_is_deleted_and_the_doctor_names_the_other_root_key() {
    let mut device = device();
    let finding = |device: &Device| {
        let said = device.json(&["doctor"]);
        let all = said
            .as_array()
            .or(said["findings"].as_array())
            .unwrap()
            .clone();
        all.into_iter().find(|one| one["id"] == "tpm.root-other")
    };
    assert_eq!(finding(&device), None);
    replace_root(&mut device);
    let found = finding(&device).expect("a finding");
    let text = found.to_string();
    for word in ["0x81000001", ".storage-root", "mv -T"] {
        assert!(text.contains(word), "{text}");
    }
    device.ends(0, &["key", "delete", "web", "--yes"]);
    assert!(!persistent(&mut device).contains("0x81000101"));
    // The remedy, as it is printed.
    let command = found["command"].as_str().unwrap();
    programs::run(std::process::Command::new("sh").args(["-c", command])).ok();
    assert_eq!(finding(&device), None);
    device.ends(0, &["key", "generate", "web", "--persistent"]);
}
