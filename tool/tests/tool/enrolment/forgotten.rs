//! The record of an enrolment is deleted when its key is deleted, or when a certificate for the key
//! is imported by hand.

use super::est::bench;
use super::services::{SERVICES, as_user, bench as bench_of_services};
use crate::device::est::Est;
use crate::device::{Device, files};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// `web` waits for the server, and the enrolment of `mail` failed.
fn remembered() -> (Device, Est) {
    let (device, est) = bench();
    let said = est.enroll(&device, "web", "later", &[]);
    assert_eq!(said.status.code(), Some(7), "{said}");
    device.ends(0, &["key", "generate", "mail"]);
    let said = est.enroll(&device, "mail", "broken", &[]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert_eq!(told(&device), ["mail", "web"]);
    (device, est)
}

/// Labels of which `status` tells an enrolment.
fn told(device: &Device) -> Vec<String> {
    let status = device.json(&["status"]);
    let all = status["enrolments"].as_array().unwrap().iter();
    let mut labels: Vec<String> = all
        .map(|one| one["label"].as_str().unwrap().to_owned())
        .collect();
    labels.sort();
    labels
}

/// Files of records in a folder.
fn records(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect()
}

#[test]
fn a_key_that_is_deleted_is_not_told_of() {
    let (device, _est) = remembered();
    for (label, left) in [("web", &["mail"][..]), ("mail", &[])] {
        device.ends(0, &["key", "delete", label, "--yes"]);
        assert_eq!(told(&device), left);
        assert_eq!(records(&device.path("state/enrolment")).len(), left.len());
    }
    let check = device.json(&["status", "--check"]);
    assert!(!check["findings"].to_string().contains("web"), "{check}");
}

/// Keys also go through the module, or with their files.
#[test]
fn a_key_that_went_otherwise_is_not_told_of() {
    let (device, _est) = remembered();
    for file in files(&device, "key-") {
        fs::remove_file(file).unwrap();
    }
    device.home.next_generation();
    assert_eq!(told(&device), [""; 0]);
    // One that the configuration wants is asked for again.
    device.home.write(
        "config.toml",
        "[[certificate]]\nlabel = \"web\"\nest = \"https://localhost:1\"\ntrust = \"/x\"\n",
    );
    assert_eq!(told(&device), ["web"]);
}

#[test]
fn a_reset_forgets_all_enrolments() {
    let (device, _est) = remembered();
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    assert_eq!(told(&device), [""; 0]);
    assert_eq!(
        records(&device.path("state/enrolment")),
        [""; 0].map(PathBuf::from)
    );
}

/// A new key under the label begins anew, and a certificate from elsewhere ends the wait.
#[test]
fn a_certificate_that_came_by_hand_ends_the_wait() {
    let (device, est) = remembered();
    let folder = device.path("by-hand");
    fs::create_dir(&folder).unwrap();
    for label in ["web", "mail"] {
        let request = device.path("by-hand.csr");
        let out = request.to_str().unwrap();
        device.ends(0, &["csr", label, "--force", "--out", out]);
        let leaf = device.certified(&request, &folder);
        device.ends(0, &["import-cert", leaf.to_str().unwrap()]);
    }
    assert_eq!(told(&device), [""; 0]);
    assert!(records(&device.path("state/enrolment")).is_empty());
    // A new key of which the server still has a request, and whose certificate comes by hand.
    let said = est.enroll(&device, "web", "later-9", &["--new-key", "--as", "idev-id"]);
    assert_eq!(said.status.code(), Some(7), "{said}");
    assert_eq!(told(&device), ["web"]);
    let request = device.path("rekeyed.csr");
    let out = request.to_str().unwrap();
    device.ends(0, &["key", "rekey", "web", "--out", out]);
    let leaf = device.certified(&request, &folder);
    device.ends(0, &["import-cert", leaf.to_str().unwrap()]);
    assert_eq!(told(&device), [""; 0]);
}

/// What its user remembers lies in the token of the service.
#[test]
fn the_records_of_a_service_go_with_its_key() {
    let (device, est) = bench_of_services();
    let (service, group, user) = SERVICES[0];
    device.ends(0, &["token", "add", service, "--group", group]);
    let (url, root) = (est.url("good", "later"), est.certificate("root"));
    let words = ["enroll", "--for", service, "--est", &url, "--trust", &root];
    let said = as_user(&device, user, &words);
    assert_eq!(said.status.code(), Some(7), "{said}");
    let folder = device.path(&format!("state-services/{service}/.enrolment"));
    assert_eq!(records(&folder).len(), 1);
    let name = format!("{service}/{service}");
    device.ends(0, &["key", "delete", &name, "--yes"]);
    assert!(records(&folder).is_empty());
    // And by the user.
    assert_eq!(as_user(&device, user, &words).status.code(), Some(7));
    let said = as_user(&device, user, &["key", "delete", &name, "--yes"]);
    assert_eq!(said.status.code(), Some(0), "{said}");
    assert!(records(&folder).is_empty());
    let said = as_user(&device, user, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(status["enrolments"].as_array().map(Vec::len), Some(0));
}
