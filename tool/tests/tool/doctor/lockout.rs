//! A TPM in dictionary-attack lockout: every message names the remedy, and not only a code.

use crate::device::link::Link;
use crate::device::mending::{found, named, run};
use crate::device::programs::Said;
use crate::device::tpm::Swtpm;
use crate::device::{Device, programs, tpm2};
use serde_json::Value;
use std::path::Path;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const UNWANTED: &str = "[provision]\nown = false\n";

/// Puts the TPM into lockout, by wrong values for a key that nobody needs.
fn lock(device: &mut Device) {
    let key = device.path("pin.ctx").display().to_string();
    let primary = ["-C", "o", "-p", "right", "-c", &key];
    tpm2(device, "tpm2_createprimary", &primary);
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
    while device.tpm().lockout_counter() < 3 {
        let mut create = device.tpm().tool("tpm2_create");
        let said = programs::run(create.args(["-C", &key, "-P", "wrong"]));
        assert!(!said.status.success(), "{said}");
        tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
    }
}

/// The command that the doctor knows.
#[track_caller]
fn remedy(device: &Device) -> String {
    let locked = found(device, "tpm.lockout-locked");
    assert_eq!(locked["state"], "problem", "{locked}");
    let command = locked["command"].as_str().expect("a command");
    command.to_owned()
}

/// A text about lockout also holds the remedy.
#[track_caller]
fn assert_told(text: &str, remedy: &str) {
    assert!(text.contains(remedy), "{text}");
    assert!(text.contains("lockout"), "{text}");
    assert!(text.contains("Wait"), "{text}");
}

/// Runs `devid` and sees the remedy in what it says to a person and to a program.
#[track_caller]
fn tells(device: &Device, code: i32, words: &[&str], remedy: &str) -> Said {
    let said = device.ends(code, words);
    assert_told(&format!("{}{}", said.text(), said.err), remedy);
    assert_told(&device.json(words).to_string(), &json_text(remedy));
    said
}

/// As it stands inside of a JSON text.
fn json_text(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.trim_matches('"').to_owned()
}

#[test]
fn a_factory_device_is_told_what_ends_it() {
    let (mut device, identity) = Device::manufactured();
    lock(&mut device);
    let remedy = remedy(&device);
    assert!(remedy.contains("--clear-lockout"), "{remedy}");
    let csr = device.path("csr").display().to_string();
    for settings in ["", UNWANTED] {
        device.home.write("config.toml", settings);
        let said = tells(&device, 1, &["status"], &remedy).text();
        assert!(said.starts_with("mode error\n"), "{said}");
        let ca = identity.ca();
        let verify = ["verify", "idev-id", "--ca", ca.to_str().unwrap()];
        let said = tells(&device, 1, &verify, &remedy);
        // The key could not be asked: nothing says that it is wrong.
        assert!(said.err.contains("the key was not proven"), "{said}");
        assert_eq!(device.json(&verify)["verdict"], "not-proven");
        tells(&device, 1, &["csr", "idev-id", "--out", &csr], &remedy);
        // Verbs that need no signature still work.
        device.ends(0, &["show", "idev-id"]);
        device.ends(0, &["list"]);
    }
    tells(&device, 1, PROVISION, &remedy);
    let status = device.json(&["status"]);
    assert_eq!(status["tpm"]["locked"], true, "{status}");
    assert_eq!(status["tpm"]["command"], remedy.as_str(), "{status}");
    assert!(status["tpm"]["mend"].is_string(), "{status}");
    assert_eq!(device.tpm().lockout_counter(), 3, "nothing was tried");

    run(&device, &remedy);
    assert!(named(&device, "tpm.lockout-locked").is_empty());
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "tpm", "{status}");
    assert_eq!(status["tpm"]["locked"], false, "{status}");
    assert!(status["tpm"]["command"].is_null(), "{status}");
}

/// Keys of the device's own count nothing: they sign in lockout, and the line beside them tells.
#[test]
fn an_identity_of_its_own_is_well_in_lockout() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    lock(&mut device);
    let remedy = remedy(&device);
    let said = tells(&device, 0, &["status"], &remedy).text();
    assert!(said.starts_with("mode tpm\n"), "{said}");
    device.ends(3, &["verify", "devid"]);
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
}

/// The remedy reaches the TPM also where tpm2-tools call it otherwise than the configuration.
#[test]
fn a_tpm_behind_libtss2_is_named_as_the_tools_name_it() {
    let (mut device, _) = Device::manufactured();
    lock(&mut device);
    let tcti = device.tpm().tcti();
    device.home = device.home.with_tcti(&Link::Tctildr.tcti(&tcti));
    let remedy = remedy(&device);
    tells(&device, 1, &["verify", "idev-id"], &remedy);
    run(&device, &remedy);
    device.ends(3, &["verify", "idev-id"]);
}

/// An index that the administrator named although it counts wrong values.
#[test]
fn a_certificate_that_cannot_be_read_in_lockout() {
    let mut device = Device::blank();
    let content = device.home.write("content", [0x30; 600]);
    let index = "0x01C90400";
    let attributes = "authread|ownerread|ownerwrite";
    let define = ["-C", "o", "-s", "600", "-a", attributes, index];
    tpm2(&mut device, "tpm2_nvdefine", &define);
    let write = ["-C", "o", "-i", content.to_str().unwrap(), index];
    tpm2(&mut device, "tpm2_nvwrite", &write);
    lock(&mut device);
    let setting = format!("{UNWANTED}[[identity]]\nnv = {index}\n");
    device.home.write("config.toml", setting);
    let remedy = remedy(&device);
    tells(&device, 1, &["status"], &remedy);
    tells(&device, 1, &["list"], &remedy);
    tells(&device, 1, PROVISION, &remedy);
}

/// A PIN that is not tried, since the TPM is locked or the next wrong one would lock it.
#[test]
fn a_pin_that_is_not_tried() {
    let (tpm, _) = Swtpm::manufactured_with(&["--auth", "geheim"]);
    let mut device = Device::with(Some(tpm));
    let setting = "[[identity]]\nhandle = 0x81020000\nauth = \"pin\"\n";
    device.home.write("config.toml", setting);
    let wrong = device.home.write("wrong", "falsch\n");
    let right = device.home.write("right", "geheim\n");
    let with = |pin: &Path, verb: &str| {
        let pin = pin.to_str().unwrap().to_owned();
        [verb.to_owned(), "idev-id".into(), "--pin-file".into(), pin]
    };
    for _ in 0..2 {
        device.devid(&with(&wrong, "csr").each_ref().map(String::as_str));
    }
    assert_eq!(device.tpm().lockout_counter(), 2);
    let tcti = device.tpm().tcti();
    let remedy = format!("tpm2_dictionarylockout --tcti {tcti} --clear-lockout");
    let quoted = remedy.replace(&tcti, &format!("'{tcti}'"));
    for verb in ["csr", "verify"] {
        let words = with(&right, verb);
        tells(&device, 1, &words.each_ref().map(String::as_str), &quoted);
    }
    assert_eq!(device.tpm().lockout_counter(), 2, "nothing was tried");
    lock(&mut device);
    for verb in ["csr", "verify"] {
        let words = with(&right, verb);
        tells(&device, 1, &words.each_ref().map(String::as_str), &quoted);
    }
    run(&device, &quoted);
    let words = with(&right, "csr");
    device.ends(0, &words.each_ref().map(String::as_str));
}

/// A factory key with an unknown authorisation value: repeated questions for the state of the
/// device do not lock the TPM.
#[test]
fn asking_again_and_again_counts_once() {
    let (tpm, _) = Swtpm::manufactured_with(&["--auth", "secret"]);
    let device = Device::with(Some(tpm));
    let counter = || device.tpm.as_ref().expect("a TPM").lockout_counter();
    for words in [
        &["status"][..],
        &["status"],
        &["doctor"],
        &["verify", "idev-id"],
    ] {
        devid_runs(&device, words);
        assert_eq!(counter(), 1, "{words:?}");
    }
    let said = devid_runs(&device, &["verify", "idev-id"]);
    assert!(said.text().contains("the key was not used"), "{said}");
}

fn devid_runs(device: &Device, words: &[&str]) -> Said {
    programs::run(&mut device.command(words))
}
