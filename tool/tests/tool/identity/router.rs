//! A router with a factory identity: start, show, verify.

use crate::device::{Device, programs};
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
    let (tpm, identity) =
        crate::device::tpm::Swtpm::manufactured_with(&["--wrong-key", "0x01C90300"]);
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
    assert!(said.err.contains("this TPM has no key"), "{said}");
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

    // The objects beside the key have URIs too.
    for class in ["private", "public", "cert"] {
        let named = device.ends(0, &["uri", "idev-id", "--type", class]).text();
        let same = uri.trim().replace("type=private", &format!("type={class}"));
        assert_eq!(named.trim(), same);
    }
    let issuer = device.ends(0, &["uri", "idev-id-ca-1"]).text();
    assert!(issuer.ends_with(";type=cert\n"), "{issuer}");
    let missing = device.ends(5, &["uri", "idev-id-ca-1", "--type", "private"]);
    assert!(missing.err.contains("no private key"), "{missing}");
}

/// A certificate may bear another label and another CKA_ID than its key.
#[test]
fn a_uri_names_a_certificate_as_it_is_called() {
    let (device, identity) = Device::manufactured();
    device.ends(0, &["key", "generate", "web"]);
    device.ends(5, &["uri", "web", "--type", "cert"]);
    let request = device.path("web.csr");
    device.ends(0, &["csr", "web", "--out", request.to_str().unwrap()]);
    let leaf = device.certified(&request, identity.ca().parent().unwrap());
    let leaf = fs::read_to_string(leaf).unwrap();
    device.home.write(
        "state/devid/other.pem",
        format!("Label: web of 2026\nID: 0102\n{leaf}"),
    );
    let uri = device.ends(0, &["uri", "web", "--type", "cert"]).text();
    assert_eq!(
        uri,
        "pkcs11:token=devid;object=web%20of%202026;id=%01%02;type=cert\n"
    );
    let key = device.ends(0, &["uri", "web"]).text();
    assert!(
        key.starts_with("pkcs11:token=devid;object=web;id=%"),
        "{key}"
    );
}

/// The factory's identity is all that such a device wants.
#[test]
fn a_device_that_wants_no_identity_of_its_own_is_well() {
    let (mut device, identity) = Device::manufactured();
    device
        .home
        .write("config.toml", "[provision]\nown = false\n");
    let status = device.ends(0, &["status"]).text();
    assert!(status.starts_with("mode tpm\n"), "{status}");
    let provision = ["provision", "--wait", "0"];
    let done = device.json(&provision);
    assert_eq!(done["mode"], "tpm");
    assert_eq!(done["steps"], serde_json::Value::Array(Vec::new()));
    let files = || fs::read_dir(device.path("state")).unwrap().count();
    assert_eq!(files(), 1, "the lock, and no marker");
    let handles = |device: &mut Device| {
        let mut listed = device.tpm().tool("tpm2_getcap");
        programs::run(listed.arg("handles-persistent")).ok().text()
    };
    assert!(!handles(&mut device).contains("0x810000"));

    // Its key is what counts.
    programs::run(device.tpm().tool("tpm2_clear").args(["-c", "p"])).ok();
    let lost = device.ends(1, &["status"]);
    assert!(lost.text().contains("mode error"), "{lost}");
    for words in [
        "certificate = \"/PATH.pem\" under [[identity]]",
        "devid persist idev-id",
    ] {
        assert!(lost.text().contains(words), "{lost}");
    }
    device.ends(5, &provision);
    let certificate = identity.certificate();
    device.home.write(
        "config.toml",
        format!("[provision]\nown = false\n[[identity]]\ncertificate = {certificate:?}\n"),
    );
    device.ends(0, &provision);
    device.tpm().shut_down();
    device.ends(4, &["status"]);
    device.ends(4, &provision);
    // `devid` waits for the TPM.
    let mut waiting = device.command(&["provision", "--wait", "90"]);
    let mut running = programs::Running::start("devid provision", &mut waiting);
    device.tpm().restart();
    let ended = running.wait(std::time::Duration::from_secs(100));
    assert!(ended.expect("it ends").success());
}

#[test]
fn what_is_shown_of_issuers_and_of_unnamed_devices_is_true() {
    let (device, _) = Device::manufactured();
    let issuer = device.ends(0, &["show", "idev-id-ca-1"]).text();
    assert!(
        issuer.contains("certificate in NV index 0x01C90201"),
        "{issuer}"
    );
    let status = device.json(&["status"]);
    let tpm = &status["tpm"];
    assert_eq!(tpm["maker"], "IBM");
    assert_eq!(tpm["lockout_at"], 3);
    let unnamed = Device::blank();
    unnamed.ends(0, &["provision", "--wait", "0"]);
    let shown = unnamed.json(&["show", "devid"]);
    let certificate = &shown["certificates"][0];
    assert!(certificate["device_serial"].is_null(), "{shown}");
    assert!(certificate["model"].is_null(), "{shown}");
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
    // The maker also has the certificate that TPM2_Clear deleted from NV.
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
