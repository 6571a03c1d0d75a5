//! A router with a factory identity: start, show, verify.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::{Device, programs};
use std::fs;

#[test]
fn the_factory_identity_is_shown_and_verified() {
    let (device, identity) = Device::manufactured();

    let shown = device.ends(0, &["show", "idev-id"]).text();
    for said in [
        "device serial SN-000001",
        "model         Example-1000",
        "without end",
        "2.23.133.11.1.2 (verified fixedTPM: an IDevID)",
        "SN-000001, type 2.23.133.1.2 (TPM 2.0), in otherName",
        "persistent handle 0x81020000",
        "NV index 0x01C90200",
        "H-2 (P-256, SHA-256)",
    ] {
        assert!(shown.contains(said), "{said}:\n{shown}");
    }
    let json = device.json(&["show", "idev-id"]);
    assert_eq!(json["certificates"][0]["device_serial"], "SN-000001");
    assert_eq!(
        json["certificates"][0]["not_after"],
        serde_json::Value::Null
    );
    assert_eq!(json["key"]["handle"], "0x81020000");
    device.ends(5, &["show", "nobody"]);

    let unknown = device.ends(3, &["verify", "idev-id"]);
    assert!(
        unknown
            .err
            .contains("the CA certificate for it is not available"),
        "{unknown}"
    );
    assert!(unknown.text().contains("ok       key: "), "{unknown}");
    let ca = identity.ca();
    device.ends(0, &["verify", "idev-id", "--ca", ca.to_str().unwrap()]);
    assert_eq!(
        device.json(&["verify", "idev-id"])["verdict"],
        "cannot-be-verified"
    );

    // The root alone will do: the issuing CA's certificate is in the TPM.
    device.trust(&identity.root());
    device.ends(0, &["verify", "idev-id"]);
    let missing = device.ends(1, &["verify", "idev-id", "--ca", "/nonexistent.pem"]);
    assert!(missing.err.contains("/nonexistent.pem"), "{missing}");
}

#[test]
fn a_certificate_for_another_key_is_told_from_a_missing_ca() {
    let (tpm, identity) = common::tpm::Swtpm::manufactured_with(&["--wrong-key", "0x01C90300"]);
    let device = Device::with(Some(tpm));
    let wrong = device.json(&["list"]);
    let label = wrong["objects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["key"].is_null() && one["label"] != "idev-id-ca-1")
        .unwrap()["label"]
        .as_str()
        .unwrap()
        .to_owned();
    let said = device.ends(
        1,
        &["verify", &label, "--ca", identity.ca().to_str().unwrap()],
    );
    assert!(said.err.contains("no key of this TPM"), "{said}");
}

#[test]
fn a_uri_names_the_key_for_programs() {
    let (device, _) = Device::manufactured();
    let pem = device.path("key.pem");
    let uri = device
        .ends(0, &["uri", "idev-id", "--pem", pem.to_str().unwrap()])
        .text();
    assert!(
        uri.starts_with("pkcs11:token=idev-id;object=idev-id;id=%"),
        "{uri}"
    );
    assert!(uri.ends_with(";type=private\n"), "{uri}");
    let written = fs::read_to_string(pem).unwrap();
    assert_eq!(device.ends(0, &["uri2pem", uri.trim()]).text(), written);
    device.ends(2, &["uri2pem", "pkcs11:tokne=idev-id"]);
}

#[test]
fn without_its_tpm_the_tool_says_so() {
    let device = Device::without_tpm();
    for words in [&["list"][..], &["show", "idev-id"], &["verify", "idev-id"]] {
        let said = device.ends(4, words);
        assert!(said.err.contains("/nonexistent/tpm"), "{said}");
    }
}

#[test]
fn after_a_clear_the_factory_key_is_put_back_by_wish() {
    let (mut device, identity) = Device::manufactured();
    let before = device.json(&["show", "idev-id"]);
    programs::run(device.tpm().tool("tpm2_clear").args(["-c", "p"])).ok();
    device.ends(5, &["show", "idev-id"]);
    // What TPM2_Clear took from NV the maker has, too.
    let certificate = identity.certificate();
    device.home.write(
        "config.toml",
        format!("[[identity]]\ncertificate = {certificate:?}\n"),
    );
    let derived = device.json(&["show", "idev-id"]);
    assert!(derived["key"]["handle"].is_null(), "{derived}");
    device.ends(3, &["verify", "idev-id"]);
    device.ends(0, &["persist", "idev-id"]);
    device.ends(0, &["persist", "idev-id"]);
    let after = device.json(&["show", "idev-id"]);
    assert_eq!(after["key"]["tpm_name"], before["key"]["tpm_name"]);
    assert_eq!(after["key"]["handle"], "0x81020000");
    assert_eq!(device.tpm().transients(), 0);
}
