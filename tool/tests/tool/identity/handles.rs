//! Persistent handles: handles of this project that other programs use, and keys that need no
//! handle.

use crate::device::{Device, persistent, programs, tpm2};

const PROVISION: &[&str] = &["provision", "--wait", "0"];

/// The key has our attributes, and is below the storage root key like the master key.
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
    let handles = persistent(&mut device);
    assert!(handles.contains("0x81000155"), "{handles}");
}

/// A sealed key needs neither handle nor room in the TPM: it is used in memory, and says so.
#[test]
fn a_sealed_key_takes_no_handle() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let before = persistent(&mut device);
    device.ends(2, &["key", "generate", "web", "--sealed", "--persistent"]);
    let said = device
        .ends(0, &["key", "generate", "web", "--sealed"])
        .text();
    assert!(said.contains("sealed"), "{said}");
    let request = device.path("web.csr");
    device.ends(0, &["csr", "web", "--out", request.to_str().unwrap()]);
    let mut verify = programs::program("openssl");
    verify.args(["req", "-noout", "-verify", "-in"]);
    programs::run(verify.arg(&request)).ok();
    device.ends(6, &["export", "web", "--tss2"]);
    let after = persistent(&mut device);
    assert_eq!(after, before);
}
