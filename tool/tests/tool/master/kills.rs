//! `devid master renew` is killed at every step, and run again: one new master key, an unchanged
//! identity, and each lost file moved aside once.

use crate::device::cut::{End, run_until};
use crate::device::foreign::{name_at, occupy};
use crate::device::{Device, evict, persistent, tpm2};
use serde_json::Value;
use std::fs;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RENEW: &[&str] = &["master", "renew", "--yes"];
const MASTER: &str = "0x81000080";

/// An identity, and a key of a service in a handle.
fn device() -> Device {
    let device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "kept", "--persistent"]);
    device
}

fn identity(device: &Device) -> Value {
    device.json(&["show", "devid"])["certificates"][0]["sha256"].clone()
}

/// Names in the key folder that end so.
fn names(device: &Device, end: &str) -> Vec<String> {
    let folder = fs::read_dir(device.path("state/devid")).unwrap();
    let names = folder.map(|one| one.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(end)).collect();
    names.sort();
    names
}

/// Handles between the storage root key's and those of the device's keys.
fn masters(device: &mut Device) -> Vec<String> {
    let all = persistent(device);
    let all = all.lines().map(|line| line.trim_start_matches("- "));
    let between = all.filter(|handle| handle.starts_with("0x8100008"));
    between.map(str::to_owned).collect()
}

/// A key that only the master key had, and no master key; gives the key's file.
fn lose(device: &mut Device) -> String {
    // Objects that a killed run loaded are unknown now.
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
    let before = names(device, ".pem");
    device.ends(0, &["key", "generate", "web"]);
    let mut made = names(device, ".pem");
    made.retain(|name| !before.contains(name));
    for handle in masters(device) {
        evict(device, &handle);
    }
    made.remove(0)
}

/// Ends a renewal that may have been cut, and looks at what it left.
#[track_caller]
fn assert_renewed(device: &mut Device, lost: &str, first: &Value, cut: usize, end: &End) {
    let whole = *end == End::Exited(0);
    match whole {
        true => drop(device.ends(6, RENEW)),
        false => {
            let said = device.devid(RENEW);
            // All that was left may have been to tell others.
            let code = said.status.code();
            assert!(matches!(code, Some(0 | 6)), "cut {cut}: {said}");
        }
    }
    assert_eq!(identity(device), *first, "cut {cut}");
    let aside = names(device, ".lost");
    let moved: Vec<_> = aside.iter().filter(|name| name.starts_with(lost)).collect();
    assert_eq!(moved.len(), 1, "cut {cut}: {aside:?}");
    assert!(
        !names(device, ".pem").contains(&lost.to_owned()),
        "cut {cut}"
    );
    let left = fs::read_dir(device.path("state")).unwrap();
    let left: Vec<_> = left.map(|one| one.unwrap().file_name()).collect();
    let begun = left.iter().any(|name| name == ".master-renewal");
    assert!(!begun, "cut {cut}: {left:?}");
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "tpm", "cut {cut}: {status}");
    assert_eq!(status["master"]["held"], true, "cut {cut}: {status}");
    for label in ["devid", "kept"] {
        device.ends(0, &["csr", label]);
    }
    device.ends(0, &["key", "generate", "new"]);
    device.ends(0, &["csr", "new"]);
    device.ends(0, &["key", "delete", "new", "--yes"]);
}

#[test]
fn a_renewal_in_the_same_handle() {
    let mut device = device();
    let first = identity(&device);
    for cut in 1.. {
        let lost = lose(&mut device);
        let end = run_until(&mut device.command(RENEW), cut);
        assert_renewed(&mut device, &lost, &first, cut, &end);
        assert_eq!(masters(&mut device), [MASTER], "cut {cut}");
        if end == End::Exited(0) {
            assert!(cut > 20, "there are more steps than {cut}");
            break;
        }
        assert_eq!(end, End::Cut);
    }
}

#[test]
fn a_renewal_in_another_handle() {
    let mut device = device();
    let first = identity(&device);
    let drop_in = device.path("config.d/devid-master.toml");
    for cut in 1.. {
        let lost = lose(&mut device);
        let _ = fs::remove_file(&drop_in);
        let foreign = occupy(&mut device, MASTER, "as ours");
        let end = run_until(&mut device.command(RENEW), cut);
        // After every cut the written files are valid.
        device.ends(0, &["list"]);
        assert_renewed(&mut device, &lost, &first, cut, &end);
        assert_eq!(name_at(&mut device, MASTER), foreign, "cut {cut}");
        let both = [MASTER, "0x81000081"];
        assert_eq!(masters(&mut device), both, "cut {cut}");
        let written = fs::read_to_string(&drop_in).unwrap();
        assert!(written.contains("handle = 0x81000081\n"), "{written}");
        if end == End::Exited(0) {
            assert!(cut > 20, "there are more steps than {cut}");
            break;
        }
        assert_eq!(end, End::Cut);
    }
}
