//! A device with further tokens. Their keys are listed. Keys of other programs are distinguished
//! from the device's own keys.

use crate::device::{Device, persistent, programs};
use std::fs;
use std::path::PathBuf;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RESET: &[&str] = &["reset", "--factory", "--yes", "--wait", "0"];
const EXTRA: &str = "[[token]]\nname = \"extra\"\n";

/// A device on which somebody made keys in the token `extra`.
fn with_keys_in_extra(make: impl Fn(&Device)) -> Device {
    let device = Device::blank();
    // For once it is the token that `devid` makes keys in.
    let folder = device.path("state/extra");
    let settings = format!("[[token]]\nname = \"devid\"\npath = {folder:?}\n");
    device.home.write("config.toml", settings);
    make(&device);
    device.home.write("config.toml", EXTRA);
    device
}

fn generate(device: &Device, words: &[&str]) {
    device.ends(0, &[&["key", "generate"], words].concat());
}

/// A certificate of a CA of this device's own for the key of this label.
fn certify(device: &Device, label: &str) -> PathBuf {
    let folder = device.path("authority");
    fs::create_dir_all(&folder).unwrap();
    let request = device.path(&format!("{label}.csr"));
    device.ends(0, &["csr", label, "--out", request.to_str().unwrap()]);
    device.certified(&request, &folder)
}

fn keys(device: &Device) -> Vec<String> {
    let listed = device.json(&["key", "list"]);
    let all = listed.as_array().unwrap().iter();
    let text = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap().to_owned();
    let mut keys: Vec<_> = all
        .map(|one| format!("{}/{}", text(one, "token"), text(one, "label")))
        .collect();
    keys.sort();
    keys
}

#[test]
fn the_keys_of_a_further_token_are_at_hand() {
    let device = with_keys_in_extra(|device| generate(device, &["web"]));
    device.ends(0, PROVISION);
    assert_eq!(keys(&device), ["devid/devid", "extra/web"]);
    let certificate = certify(&device, "web");
    device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    let shown = device.json(&["show", "extra/web"]);
    let place = shown["certificates"][0]["place"].as_str().unwrap();
    assert!(place.contains("state/extra/certificate-"), "{place}");
    let ca = device.path("authority/ca.pem");
    device.ends(0, &["verify", "web", "--ca", ca.to_str().unwrap()]);
    let uri = device.ends(0, &["uri", "web"]).text();
    assert!(uri.contains("token=extra;object=web"), "{uri}");
    device.ends(0, &["export", "web", "--tss2"]);
    device.ends(0, &["persist", "web"]);
    device.ends(0, &["key", "delete", "web", "--yes"]);
    assert_eq!(keys(&device), ["devid/devid"]);
}

#[test]
fn an_identity_in_a_further_token_is_used() {
    let device = with_keys_in_extra(|device| {
        generate(device, &["cloud"]);
        let certificate = certify(device, "cloud");
        device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    });
    device.trust(&device.path("authority/ca.pem"));
    let existing = |uri: &str| {
        let text = format!("{EXTRA}[provision]\nexisting = \"pkcs11:{uri}\"\n");
        device.home.write("config.toml", text);
    };
    existing("token=nowhere;object=cloud");
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("devid, extra"), "{said}");
    for uri in ["token=extra;object=cloud;type=private", "object=cloud"] {
        existing(uri);
        device.ends(0, PROVISION);
        assert_eq!(device.json(&["status"])["mode"], "tpm");
        assert_eq!(
            keys(&device),
            ["extra/cloud"],
            "and none was made beside it"
        );
    }
    // An existing identity needs no request.
    let request = device.path("r.csr");
    let words = ["--csr", request.to_str().unwrap()];
    device.ends(6, &[PROVISION, &words].concat());
    assert!(!request.exists());
    // In the token that is named there is none, so the device makes its own.
    existing("token=devid;object=cloud");
    device.ends(0, PROVISION);
    assert_eq!(keys(&device), ["devid/devid", "extra/cloud"]);
    existing("token=extra;object=devid");
    fs::remove_dir_all(device.path("state/devid")).unwrap();
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("file of the key is missing"), "{said}");
}

#[test]
fn an_identity_whose_key_does_not_sign_is_not_used() {
    let mut device = with_keys_in_extra(|device| {
        generate(device, &["cloud"]);
        let certificate = certify(device, "cloud");
        device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    });
    device.trust(&device.path("authority/ca.pem"));
    let existing = "[provision]\nexisting = \"pkcs11:token=extra;object=cloud\"\n";
    device
        .home
        .write("config.toml", format!("{EXTRA}{existing}"));
    device.ends(0, PROVISION);
    programs::run(device.tpm().tool("tpm2_clear").args(["-c", "p"])).ok();
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("the key cannot sign"), "{said}");
    assert_eq!(keys(&device), ["extra/cloud"]);
}

#[test]
fn a_persistent_key_of_a_further_token_is_not_left_over() {
    let mut device = with_keys_in_extra(|device| generate(device, &["web", "--persistent"]));
    device.ends(0, PROVISION);
    let findings = device.devid(&["doctor"]).text();
    assert!(
        findings.contains("0x81000100: key web of this device"),
        "{findings}"
    );
    assert!(
        !findings.contains("file of the key is missing"),
        "{findings}"
    );
    assert!(persistent(&mut device).contains("0x81000101"));
}

#[test]
fn a_reset_ends_what_was_made_through_further_tokens_and_leaves_what_others_put_there() {
    let mut device = with_keys_in_extra(|device| {
        generate(device, &["web", "--persistent"]);
        generate(device, &["vpn"]);
        let certificate = certify(device, "vpn");
        device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    });
    device.ends(0, PROVISION);
    // Somebody's own, which the token shows too; and a wrapped key that was given a name.
    let theirs = fs::read(device.path("authority/root.pem")).unwrap();
    device.home.write("state/extra/theirs.pem", &theirs);
    let vpn = device.json(&["show", "vpn"])["key"]["place"].clone();
    let vpn = vpn
        .as_str()
        .unwrap()
        .strip_prefix("wrapped in ")
        .unwrap()
        .to_owned();
    let named = device.path("state/extra/vpn.pem");
    fs::rename(&vpn, &named).unwrap();
    let copy = fs::read(&named).unwrap();

    let asked = device.ends(6, &["reset", "--factory"]);
    assert!(
        asked.err.contains("extra") && asked.err.contains("stay"),
        "{asked}"
    );
    assert_eq!(keys(&device), ["devid/devid", "extra/vpn", "extra/web"]);
    device.ends(0, RESET);
    assert_eq!(keys(&device), ["devid/devid"]);
    let left = fs::read_dir(device.path("state/extra")).unwrap();
    let mut left: Vec<_> = left.map(|one| one.unwrap().file_name()).collect();
    left.retain(|name| !name.to_str().unwrap().starts_with('.'));
    assert_eq!(left, ["theirs.pem"]);
    assert_eq!(
        fs::read(device.path("state/extra/theirs.pem")).unwrap(),
        theirs
    );
    assert!(
        !persistent(&mut device).contains("0x81000101"),
        "all old keys went"
    );
    fs::write(&named, copy).unwrap();
    device.ends(1, &["csr", "vpn"]);
}
