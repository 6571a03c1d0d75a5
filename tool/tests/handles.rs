//! Persistent handles that other programs take, among those that are ours.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::{Device, programs};

const PROVISION: &[&str] = &["provision", "--wait", "0"];

fn tpm2(device: &mut Device, name: &str, arguments: &[&str]) -> String {
    let folder = device.path("");
    let mut tool = device.tpm().tool(name);
    programs::run(tool.args(arguments).current_dir(folder))
        .ok()
        .text()
}

/// It has the attributes of keys of ours, and lies below the storage root key as the master key does.
#[test]
fn a_key_of_another_program_stays() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let uses = "sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
    let create = ["-C", "0x81000001", "-G", "ecc256:ecdsa", "-a", uses];
    let files = ["-u", "key.pub", "-r", "key.priv"];
    tpm2(&mut device, "tpm2_create", &[&create[..], &files].concat());
    let load = ["-C", "0x81000001", "-c", "key.ctx"];
    tpm2(&mut device, "tpm2_load", &[&load[..], &files].concat());
    let keep = ["-C", "o", "-c", "key.ctx", "0x81000155"];
    tpm2(&mut device, "tpm2_evictcontrol", &keep);
    tpm2(&mut device, "tpm2_flushcontext", &["-t"]);

    let doctor = device.devid(&["doctor"]).text();
    assert!(!doctor.contains("evictcontrol"), "{doctor}");
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    let handles = tpm2(&mut device, "tpm2_getcap", &["handles-persistent"]);
    assert!(handles.contains("0x81000155"), "{handles}");
}
