//! Killed at every step, and run again: the same state and the same identity.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod common;

use common::Device;
use common::cut::{End, run_until};
use std::fs;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RESET: &[&str] = &["reset", "--factory", "--yes", "--wait", "0"];

fn names(device: &Device) -> Vec<String> {
    let entries = fs::read_dir(device.path("state/devid"))
        .into_iter()
        .flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn keys(device: &Device) -> Vec<String> {
    let keys = names(device).into_iter();
    keys.filter(|name| name.starts_with("key-")).collect()
}

/// One key, one certificate, and nothing left over in the folder or in persistent handles.
#[track_caller]
fn assert_whole(device: &mut Device, cut: usize) {
    let status = device.ends(0, &["status"]);
    assert!(
        status.text().starts_with("mode tpm\n"),
        "cut {cut}: {status}"
    );
    let names = names(device);
    let visible: Vec<_> = names.iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(visible.len(), 2, "cut {cut}: {names:?}");
    assert_eq!(keys(device).len(), 1, "cut {cut}: {names:?}");
    assert!(
        !names.iter().any(|name| name.starts_with(".new-")),
        "cut {cut}: {names:?}"
    );
    let mut listed = device.tpm().tool("tpm2_getcap");
    let listed = listed.arg("handles-persistent").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let handles: Vec<_> = listed
        .lines()
        .map(|line| line.trim_start_matches("- "))
        .collect();
    assert_eq!(
        handles,
        ["0x81000001", "0x81000080", "0x81000100"],
        "cut {cut}"
    );
    assert!(!device.path("state/factory-reset").exists());
    device.ends(3, &["verify", "devid"]);
}

#[test]
fn the_first_provisioning() {
    for cut in 1.. {
        let mut device = Device::blank();
        let end = run_until(&mut device.command(PROVISION), cut);
        let begun = keys(&device);
        device.ends(0, PROVISION);
        assert_whole(&mut device, cut);
        if !begun.is_empty() {
            assert_eq!(
                keys(&device),
                begun,
                "cut {cut}: the key that was begun is the one"
            );
        }
        if end == End::Exited(0) {
            assert!(cut > 30, "there are more steps than {cut}");
            break;
        }
        assert_eq!(end, End::Cut);
    }
}

#[test]
fn a_reset() {
    // As many steps as the other; a cut in three is enough to meet each of its parts.
    for cut in (1..).step_by(3) {
        let mut device = Device::blank();
        device.ends(0, PROVISION);
        let first = keys(&device);
        let end = run_until(&mut device.command(RESET), cut);
        let asked = end == End::Exited(0)
            || device.path("state/factory-reset").exists()
            || keys(&device) != first;
        device.ends(0, PROVISION);
        assert_whole(&mut device, cut);
        assert_eq!(keys(&device) != first, asked, "cut {cut}");
        if end == End::Exited(0) {
            break;
        }
        assert_eq!(end, End::Cut);
    }
}
