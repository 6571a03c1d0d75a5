//! A key and its certificate are replaced under the same label. The last replaced pair is kept.

use super::est::{bench, is_whole};
use crate::device::{Device, persistent, programs};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The public key of the only key of that label.
fn public(device: &Device) -> String {
    let listed = device.json(&["key", "list"]);
    let keys = listed.as_array().unwrap();
    let of_label = keys.iter().filter(|one| one["label"] == "web");
    assert_eq!(of_label.count(), 1, "one key: {listed}");
    let request = device
        .home
        .write("public.csr", device.ends(0, &["csr", "web"]).out);
    let mut openssl = programs::program("openssl");
    let words = ["req", "-noout", "-pubkey", "-in", text(&request)];
    programs::run(openssl.args(words)).ok().text()
}

/// A device with a key `web` that a CA certified, and the folder of that CA.
fn certified() -> (Device, PathBuf) {
    let device = Device::blank();
    device.ends(0, &["key", "generate", "web", "--persistent"]);
    let folder = device.path("ca");
    fs::create_dir(&folder).unwrap();
    certify(&device, &folder, &["csr", "web"]);
    device.trust(&folder.join("root.pem"));
    (device, folder)
}

/// Writes the request that these words make, and takes the answer.
fn certify(device: &Device, folder: &Path, words: &[&str]) {
    let answer = answer(device, folder, words);
    device.ends(0, &["import-cert", text(&answer)]);
}

fn answer(device: &Device, folder: &Path, words: &[&str]) -> PathBuf {
    let request = device.path("web.csr");
    device.ends(0, &[words, &["--out", text(&request), "--force"]].concat());
    let leaf = device.certified(&request, folder);
    let whole = [&leaf, &folder.join("ca.pem")].map(|path| fs::read(path).unwrap());
    device.home.write("answer.pem", whole.concat())
}

/// The key signs, and its certificate is for it.
#[track_caller]
fn verifies(device: &Device) {
    let said = device.devid(&["verify", "web"]);
    assert!(matches!(said.status.code(), Some(0)), "{said}");
}

#[test]
fn key_and_certificate_are_exchanged_together_and_back() {
    let (mut device, folder) = certified();
    let (first, uri) = (public(&device), device.ends(0, &["uri", "web"]).text());
    let handles = persistent(&mut device);
    let healthy = device.devid(&["doctor"]).text();
    let leaf = device.ends(0, &["export", "web", "--cert"]).out;

    let request = answer(&device, &folder, &["key", "rekey", "web"]);
    assert_eq!(
        public(&device),
        first,
        "the old one stays until the certificate comes"
    );
    verifies(&device);
    // The same key again, as long as it waits.
    let again = answer(&device, &folder, &["key", "rekey", "web"]);
    let said = device.ends(0, &["import-cert", text(&again)]);
    assert!(said.text().contains("the new key is in use"), "{said}");
    drop(request);
    let second = public(&device);
    assert_ne!(second, first);
    assert_eq!(device.ends(0, &["uri", "web"]).text(), uri);
    verifies(&device);
    assert_eq!(
        persistent(&mut device).lines().count(),
        handles.lines().count(),
        "one for one"
    );
    let now = device.devid(&["doctor"]).text();
    assert_eq!(now.replace("0x81000101", "0x81000100"), healthy);

    let said = device.ends(0, &["renew", "web", "--rollback"]);
    assert!(said.text().contains("the new key is in use"), "{said}");
    assert_eq!(public(&device), first);
    assert_eq!(device.ends(0, &["export", "web", "--cert"]).out, leaf);
    verifies(&device);
    device.ends(0, &["renew", "web", "--rollback"]);
    assert_eq!(public(&device), second);
    verifies(&device);
    assert_eq!(
        persistent(&mut device).lines().count(),
        handles.lines().count()
    );
    device.ends(0, &["key", "delete", "web", "--yes"]);
    for hidden in [".next", ".previous"] {
        let left = fs::read_dir(device.path("state/devid").join(hidden))
            .into_iter()
            .flatten();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        let objects = left
            .iter()
            .filter(|name| text(Path::new(name)).ends_with(".pem"));
        assert_eq!(objects.count(), 0, "{left:?}");
    }
}

#[test]
fn a_renewed_certificate_of_one_key_goes_back_too() {
    let (device, folder) = certified();
    let first = device.ends(0, &["export", "web", "--fullchain"]).out;
    certify(&device, &folder, &["csr", "web", "--subject", "CN=second"]);
    let second = device.ends(0, &["export", "web", "--fullchain"]).out;
    assert_ne!(first, second);
    for wanted in [&first, &second] {
        device.ends(0, &["renew", "web", "--rollback"]);
        assert_eq!(
            device.ends(0, &["export", "web", "--fullchain"]).out,
            *wanted
        );
        verifies(&device);
    }
}

#[test]
fn a_new_key_can_be_given_up() {
    let (device, folder) = certified();
    let first = public(&device);
    device.ends(5, &["key", "rekey", "web", "--discard"]);
    let late = answer(
        &device,
        &folder,
        &["key", "rekey", "web", "--algorithm", "p384"],
    );
    device.ends(0, &["key", "rekey", "web", "--discard"]);
    let said = device.ends(6, &["import-cert", text(&late)]);
    assert!(said.err.contains("no key of this device"), "{said}");
    assert_eq!(public(&device), first);
    device.ends(5, &["renew", "web", "--rollback"]);
    let (factory, _) = Device::manufactured();
    factory.ends(6, &["key", "rekey", "idev-id"]);
    factory.ends(5, &["key", "rekey", "nothing"]);
}

#[test]
fn the_own_identity_gets_a_new_key_and_stays_what_it_is() {
    let mut device = Device::blank();
    device
        .home
        .write("config.toml", "[provision]\nnv_index = 0x01500000\n");
    device.ends(0, &["provision", "--wait", "0"]);
    let folder = device.path("ca");
    fs::create_dir(&folder).unwrap();
    let answer = |device: &Device| {
        let request = device.path("own.csr");
        device.ends(
            0,
            &["key", "rekey", "devid", "--out", text(&request), "--force"],
        );
        device.certified(&request, &folder)
    };
    let leaf = answer(&device);
    let said = device.ends(0, &["import-cert", text(&leaf)]);
    assert!(!said.text().contains("note"), "{said}");
    // No step is left, and the marker names the new key.
    let said = device.ends(0, &["provision", "--wait", "0"]);
    assert!(!said.text().contains("made"), "{said}");
    device.ends(0, &["status"]);
    device.trust(&folder.join("root.pem"));
    fs::copy(folder.join("ca.pem"), device.path("trust/between.pem")).unwrap();
    device.ends(0, &["verify", "devid"]);
    let mut read = device.tpm().tool("tpm2_nvread");
    let copy = programs::run(read.args(["-C", "o", "0x01500000"])).ok().out;
    let shown = device.ends(0, &["export", "devid", "--cert"]).out;
    let file = device.home.write("shown.pem", shown);
    let der = programs::run(programs::program("openssl").args([
        "x509",
        "-outform",
        "DER",
        "-in",
        text(&file),
    ]));
    assert!(copy.starts_with(&der.ok().out));
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    let hidden = device.path("state/devid/.previous");
    let left = fs::read_dir(hidden).into_iter().flatten();
    let left = left.filter(|entry| text(&entry.as_ref().unwrap().path()).ends_with(".pem"));
    assert_eq!(left.count(), 0);
}

/// Old or new, and never neither: the exchange is killed at ever later moments until it gets through.
#[test]
fn a_killed_exchange_leaves_the_old_pair_or_the_new_one() {
    let (mut device, folder) = certified();
    let (mut wholes, mut killed, mut finished) = ([0, 0], 0, 0);
    let handles = persistent(&mut device).lines().count();
    let mut wait = Duration::from_millis(0);
    let mut first = public(&device);
    while finished < 3 || killed < 12 {
        let answer = answer(&device, &folder, &["key", "rekey", "web"]);
        let mut command = device.command(&["import-cert", text(&answer)]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = programs::Running::start("devid", &mut command);
        match child.wait(wait) {
            Some(status) => {
                assert!(status.success());
                finished += 1;
                wait = Duration::from_millis(0);
            }
            None => {
                child.kill();
                killed += 1;
                wait += Duration::from_millis(4);
            }
        }
        let now = public(&device);
        wholes[usize::from(now != first)] += 1;
        verifies(&device);
        first = now;
    }
    assert!(wholes[0] > 0 && wholes[1] > 0, "{wholes:?} {killed}");
    certify(&device, &folder, &["key", "rekey", "web"]);
    verifies(&device);
    assert_eq!(
        persistent(&mut device).lines().count(),
        handles,
        "one for one"
    );
}

#[test]
fn an_enrolment_brings_a_new_key_too() {
    let (device, est) = bench();
    assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    let first = public(&device);
    // The server thinks about it: the old pair stays.
    let said = est.enroll(&device, "web", "later-2", &["--new-key"]);
    assert_eq!(said.status.code(), Some(7), "{said}");
    assert_eq!(public(&device), first);
    for code in [7, 0] {
        let said = est.enroll(&device, "web", "later-2", &["--new-key"]);
        assert_eq!(said.status.code(), Some(code), "{said}");
    }
    assert_ne!(public(&device), first);
    is_whole(&device, &est, "web");
    let posted = est
        .requests()
        .into_iter()
        .filter(|one| !one["request"].is_null());
    let bodies: Vec<_> = posted.map(|one| one["request"].clone()).collect();
    assert_eq!(
        (bodies.len(), &bodies[1]),
        (4, &bodies[3]),
        "the same request three times"
    );
    // A fault leaves the pair that is there.
    let second = public(&device);
    for fault in ["wrong-key", "stranger", "broken"] {
        let said = est.enroll(&device, "web", fault, &["--new-key"]);
        assert!(!said.status.success(), "{said}");
        assert_eq!(public(&device), second);
        is_whole(&device, &est, "web");
    }
}
