//! `--json`: every run writes one document to standard output.

use crate::device::Device;
use serde_json::Value;
use std::fs;

const PROVISION: &[&str] = &["provision", "--wait", "0"];

#[test]
fn every_verb_answers_in_json() {
    let (device, identity) = Device::manufactured();
    device.ends(0, PROVISION);
    let made = device.json(&["key", "generate", "web"]);
    assert_eq!(made["label"], "web");
    let uri = device.json(&["uri", "web"]);
    assert_eq!(
        format!("{}\n", uri["uri"].as_str().unwrap()),
        device.ends(0, &["uri", "web"]).text()
    );
    let pem = device.json(&["uri2pem", uri["uri"].as_str().unwrap()]);
    assert!(pem["pem"].as_str().unwrap().contains("PROVIDER URI"));

    let request = device.path("web.csr");
    let csr = device.json(&["csr", "web", "--out", request.to_str().unwrap()]);
    assert_eq!(csr["file"], request.to_str().unwrap());
    assert_eq!(csr["pem"], fs::read_to_string(&request).unwrap());
    let ca = identity.ca();
    let leaf = device.certified(&request, ca.parent().unwrap());
    let imported = device.json(&["import-cert", leaf.to_str().unwrap()]);
    assert_eq!(
        (&imported["label"], &imported["known"]),
        (&"web".into(), &false.into())
    );
    let exported = device.json(&["export", "web", "--tss2"]);
    assert!(
        exported["pem"]
            .as_str()
            .unwrap()
            .contains("TSS2 PRIVATE KEY")
    );
    assert!(exported["file"].is_null());

    let persisted = device.json(&["persist", "idev-id"]);
    assert_eq!(persisted["handle"], "0x81020000");
    let deleted = device.json(&["key", "delete", "web", "--yes"]);
    assert_eq!(deleted["deleted"].as_array().unwrap().len(), 2, "{deleted}");
    assert_eq!(device.json(&["prune"])["deleted"], Value::Array(Vec::new()));
    assert!(device.json(&["completions", "bash"])["script"].is_string());
    let pages = device.path("man");
    fs::create_dir(&pages).unwrap();
    let written = device.json(&["man", pages.to_str().unwrap()]);
    assert!(written["files"].as_array().unwrap().len() > 15, "{written}");
    for words in [
        &["status"][..],
        &["list"],
        &["doctor"],
        &["key", "list"],
        PROVISION,
    ] {
        assert!(!device.json(words).is_null());
    }
    // Before the verb it means the same.
    let before = device.ends(0, &["--json", "uri", "devid"]);
    assert!(
        serde_json::from_slice::<Value>(&before.out).is_ok(),
        "{before}"
    );
}

#[test]
fn a_failure_is_json_too_and_ends_with_the_same_code() {
    let device = Device::without_tpm();
    for (code, kind, words) in [
        (1, "failed", &["import-cert", "/nonexistent"][..]),
        (2, "usage", &["show"]),
        (2, "usage", &["uri2pem", "pkcs11:tokne=x"]),
        (4, "tpm", &["show", "idev-id"]),
        (4, "tpm", PROVISION),
        (6, "refused", &["reset", "--factory"]),
    ] {
        let plain = device.ends(code, words);
        assert!(plain.text().is_empty(), "{plain}");
        let said = device.ends(code, &[words, &["--json"]].concat());
        let error: Value = serde_json::from_slice(&said.out).expect("JSON");
        let error = &error["error"];
        assert_eq!(
            (&error["code"], &error["kind"]),
            (&code.into(), &kind.into())
        );
        let text = error["text"].as_str().unwrap();
        assert!(said.err.contains(text), "for people as before: {said}");
    }
    device.home.write("config.toml", "tcit = 1\n");
    let wrong = device.json(&["status"]);
    assert_eq!(wrong["error"]["code"], 1);
    let (healthy, _) = Device::manufactured();
    assert_eq!(
        healthy.json(&["show", "nobody"])["error"]["kind"],
        "not-found"
    );
    // A report that is no good is a report.
    assert_eq!(
        healthy.json(&["verify", "idev-id"])["verdict"],
        "cannot-be-verified"
    );
}
