//! An edge device that makes its own identity at its first start, and keeps it. Each row of the
//! table runs on real folders and a real TPM.

use crate::device::link::Link;
use crate::device::programs;
use crate::device::tpm::Swtpm;
use crate::device::{Device, files, persistent};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const SOFTWARE: &str = "[provision]\nfallback = \"software\"\n";

/// The device's own identity: the id and the TPM name of its key.
fn identity(device: &Device) -> (String, String) {
    let shown = device.json(&["show", "devid"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&shown["id"]), text(&shown["key"]["tpm_name"]))
}

fn mode(device: &Device) -> String {
    device.json(&["status"])["mode"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(snapshot(&path)),
            false => all.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

#[test]
fn the_first_start_makes_an_identity_and_the_second_nothing() {
    let mut device = Device::blank();
    let before = device.ends(1, &["status"]);
    assert!(before.text().contains("no own identity yet"), "{before}");
    assert!(
        !persistent(&mut device).contains("0x8100"),
        "reading writes nothing"
    );

    device.ends(0, PROVISION);
    let first = identity(&device);
    let marker = fs::read_to_string(device.path("state/tpm_in_use")).unwrap();
    assert!(marker.contains("handle = \"0x81000100\""), "{marker}");
    assert!(marker.contains(&first.1), "{marker}");
    assert!(
        persistent(&mut device).contains("0x81000080"),
        "the master key"
    );
    let shown = device.ends(0, &["status"]).text();
    for said in [
        "mode tpm",
        "devid: p256, 0x81000100",
        "0x81000080: present",
        "lockout",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }

    let inside = snapshot(&device.path("state/devid"));
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
    let again = device.json(PROVISION);
    assert_eq!(again["steps"], Value::Array(Vec::new()));
    assert_eq!(snapshot(&device.path("state/devid")), inside);
    assert!(
        device.path("state/tpm_in_use").exists(),
        "written at every start"
    );

    // Its certificate names nobody else, and can be verified where it is trusted.
    device.ends(3, &["verify", "devid"]);
    let certificate = files(&device, "certificate").remove(0);
    device.ends(
        0,
        &["verify", "devid", "--ca", certificate.to_str().unwrap()],
    );
}

#[test]
fn a_lost_certificate_does_not_cost_the_identity() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let first = identity(&device);
    fs::remove_file(files(&device, "certificate").remove(0)).unwrap();
    let made = device.json(PROVISION);
    assert_eq!(made["steps"].as_array().unwrap().len(), 1, "{made}");
    assert_eq!(identity(&device), first);
    assert_eq!(files(&device, "certificate").len(), 1);
}

#[test]
fn a_key_that_lost_its_handle_gets_it_back() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let first = identity(&device);
    let evict = |device: &mut Device| {
        let mut evict = device.tpm().tool("tpm2_evictcontrol");
        programs::run(evict.args(["-C", "o", "-c", "0x81000100"])).ok();
    };
    evict(&mut device);
    assert_eq!(mode(&device), "error");
    device.ends(0, PROVISION);
    assert_eq!(identity(&device), first);
    assert!(persistent(&mut device).contains("0x81000100"));

    // Meanwhile a foreign key is in the handle: it stays, and our key goes into another handle.
    evict(&mut device);
    let mut primary = device.tpm().tool("tpm2_createprimary");
    let context = device.path("other.ctx");
    programs::run(primary.args(["-C", "o", "-c", context.to_str().unwrap()])).ok();
    let mut other = device.tpm().tool("tpm2_evictcontrol");
    programs::run(other.args(["-C", "o", "-c", context.to_str().unwrap(), "0x81000100"])).ok();
    let mut flush = device.tpm().tool("tpm2_flushcontext");
    programs::run(flush.arg("--transient-object")).ok();
    device.ends(0, PROVISION);
    assert_eq!(identity(&device), first);
    assert!(persistent(&mut device).contains("0x81000101"));
    let marker = fs::read_to_string(device.path("state/tpm_in_use")).unwrap();
    assert!(marker.contains("0x81000101"), "{marker}");
}

#[test]
fn a_certificate_for_another_key_stays_and_nothing_is_made() {
    let (other, factory) = Device::manufactured();
    drop(other);
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    fs::remove_file(files(&device, "certificate").remove(0)).unwrap();
    let wrong = fs::read_to_string(factory.certificate()).unwrap();
    let file = device.path("state/devid/certificate-wrong.pem");
    fs::write(&file, format!("Label: devid\n{wrong}")).unwrap();
    let before = (snapshot(&device.path("state")), persistent(&mut device));
    let said = device.ends(6, PROVISION);
    assert!(
        said.err
            .contains("is for a key that this device does not have"),
        "{said}"
    );
    assert_eq!(
        (snapshot(&device.path("state")), persistent(&mut device)),
        before
    );
    assert_eq!(mode(&device), "error");
}

#[test]
fn a_late_tpm_costs_nothing() {
    let mut device = Device::blank();
    device.home.write("config.toml", SOFTWARE);
    device.ends(0, PROVISION);
    let first = identity(&device);
    device.tpm().shut_down();
    let before = snapshot(&device.path("state"));
    let said = device.ends(4, PROVISION);
    assert!(said.err.contains("no other identity is made"), "{said}");
    device.ends(4, &["status"]);
    device.ends(4, &["reset", "--factory", "--yes", "--wait", "0"]);
    fs::remove_file(device.path("state/factory-reset")).expect("the request waits");
    // Even with the whole key folder lost the marker remembers.
    fs::rename(device.path("state/devid"), device.path("elsewhere")).unwrap();
    device.ends(4, PROVISION);
    assert!(!device.path("state/software").exists());
    fs::rename(device.path("elsewhere"), device.path("state/devid")).unwrap();
    assert_eq!(snapshot(&device.path("state")), before);

    // `devid` waits for the TPM, and only as long as necessary.
    let mut waiting = device.command(&["provision", "--wait", "90"]);
    let mut running = programs::Running::start("devid provision", &mut waiting);
    device.tpm().restart();
    let ended = running
        .wait(std::time::Duration::from_secs(100))
        .expect("it ends");
    assert!(ended.success());
    assert_eq!(identity(&device), first);
}

#[test]
fn a_device_without_tpm_has_a_software_identity_where_that_is_allowed() {
    let device = Device::without_tpm();
    let said = device.ends(4, PROVISION);
    assert!(said.err.contains("fallback"), "{said}");
    assert!(!device.path("state/software").exists());

    device.home.write("config.toml", SOFTWARE);
    device.ends(0, PROVISION);
    assert_eq!(
        device.ends(0, &["status"]).text().lines().next(),
        Some("mode software")
    );
    let key = device.path("state/software/devid.key.pem");
    let before = fs::read(&key).unwrap();
    let shown = device.ends(0, &["show", "devid"]).text();
    assert!(
        shown.contains("in software: ") && shown.contains("without end"),
        "{shown}"
    );
    assert!(device.ends(0, &["list"]).text().contains("in software"));
    device.ends(3, &["verify", "devid"]);
    let request = device.ends(0, &["csr", "devid"]).text();
    assert!(
        request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"),
        "{request}"
    );
    device.ends(6, &["uri", "devid"]);
    assert!(!device.path("state/tpm_in_use").exists());
    device.ends(0, PROVISION);
    // Without certificate: a new one, on the same key.
    fs::remove_file(device.path("state/software/devid.cert.pem")).unwrap();
    device.ends(0, PROVISION);
    assert_eq!(fs::read(&key).unwrap(), before);
    let certificate = device.path("state/software/devid.cert.pem");
    let public = |args: &[&str]| {
        programs::run(programs::program("openssl").args(args))
            .ok()
            .text()
    };
    assert_eq!(
        public(&[
            "x509",
            "-pubkey",
            "-noout",
            "-in",
            certificate.to_str().unwrap()
        ]),
        public(&["pkey", "-pubout", "-in", key.to_str().unwrap()])
    );
}

/// A TPM that is closed to this user, or broken, is not a missing TPM.
#[test]
fn a_tpm_that_does_not_answer_is_not_a_missing_one() {
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    let node = device.home.write("node", "no TPM at all");
    let device = Device {
        home: device.home.with_tcti(&format!("device:{}", node.display())),
        tpm: None,
    };
    let said = device.ends(4, PROVISION);
    assert!(said.err.contains("a TPM exists"), "{said}");
    assert!(!device.path("state/software").exists());
}

#[test]
fn when_a_tpm_appears_the_software_identity_stays_until_its_certificate_is_renewed() {
    for leave in ["on-new-certificate", "never"] {
        let device = Device::without_tpm();
        let settings = format!("{SOFTWARE}leave_software = \"{leave}\"\n");
        device.home.write("config.toml", &settings);
        device.ends(0, PROVISION);
        let mut device = device.move_to(Some(Swtpm::blank()));
        device.ends(0, PROVISION);
        assert_eq!(mode(&device), "software", "an upgrade changes nothing");
        assert!(!persistent(&mut device).contains("0x8100"));

        fs::remove_file(device.path("state/software/devid.cert.pem")).unwrap();
        let said = device.ends(1, &["status"]).text();
        let moves = said.contains("the TPM gets a new identity");
        assert_eq!(moves, leave != "never", "{said}");
        device.ends(0, PROVISION);
        if leave == "never" {
            assert_eq!(mode(&device), "software");
            continue;
        }
        assert_eq!(mode(&device), "tpm");
        let retired = device.path("state/software/devid.key.pem.pre-tpm");
        assert!(retired.exists() && !device.path("state/software/devid.key.pem").exists());
        device.ends(0, PROVISION);
        assert!(retired.exists(), "until somebody prunes it");
        let pruned = device.ends(0, &["prune"]).text();
        assert!(
            pruned.contains("devid.key.pem.pre-tpm") && !retired.exists(),
            "{pruned}"
        );
    }
}

#[test]
fn a_downgrade_to_software_is_a_new_identity_and_the_way_back_is_open() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let first = identity(&device);
    // The old software knows nothing of us, and makes its own pair.
    let without = Device::without_tpm();
    without.home.write("config.toml", SOFTWARE);
    without.ends(0, PROVISION);
    let software = device.path("state/software");
    fs::create_dir(&software).unwrap();
    for file in ["devid.key.pem", "devid.cert.pem"] {
        fs::copy(
            without.path("state/software").join(file),
            software.join(file),
        )
        .unwrap();
    }
    device.ends(0, PROVISION);
    assert_eq!((mode(&device).as_str(), identity(&device)), ("tpm", first));
    assert!(
        software.join("devid.key.pem.pre-tpm").exists(),
        "put aside, not deleted"
    );
}

#[test]
fn a_reset_makes_another_identity_and_leaves_the_factorys() {
    let (mut device, _) = Device::manufactured();
    device.ends(0, PROVISION);
    let first = identity(&device);
    let factory = device.json(&["show", "idev-id"]);
    let shown = device.json(&["show", "devid"]);
    assert_eq!(
        shown["certificates"][0]["subject"], factory["certificates"][0]["subject"],
        "an LDevID names the same device"
    );
    let kept = device.path("kept");
    fs::create_dir(&kept).unwrap();
    let old = files(&device, "key").remove(0);
    fs::copy(&old, kept.join("old.pem")).unwrap();

    device.ends(2, &["reset"]);
    let refused = device.ends(6, &["reset", "--factory"]);
    assert!(refused.err.contains("--yes"), "{refused}");
    assert_eq!(identity(&device), first);

    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    let second = identity(&device);
    assert_ne!(second, first);
    assert_eq!(device.json(&["show", "idev-id"]), factory);
    assert!(persistent(&mut device).contains("0x81020000"));
    assert!(!device.path("state/factory-reset").exists());
    let again = device.json(PROVISION);
    assert_eq!(again["steps"], Value::Array(Vec::new()), "one reset, once");

    // The old key's file is of no use any more, whoever kept a copy.
    let text = fs::read_to_string(kept.join("old.pem")).unwrap();
    let text = text.replace("Label: devid", "Label: old");
    fs::write(device.path("state/devid/key-old.pem"), text).unwrap();
    let mut certify = device.ends(1, &["csr", "old"]);
    certify.err.make_ascii_lowercase();
    // The master key of this folder is there, so nothing is said of another TPM.
    assert!(
        certify.err.contains("another key than its parent"),
        "{certify}"
    );
}

#[test]
fn a_reset_is_asked_for_by_a_file_once() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let first = identity(&device);
    device.home.write("state/factory-reset", "");
    device.ends(0, PROVISION);
    let second = identity(&device);
    assert_ne!(second, first);
    device.ends(0, PROVISION);
    assert_eq!(identity(&device), second);
}

#[test]
fn a_cleared_tpm_is_told_and_nothing_is_made_over_the_loss() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let first = identity(&device);
    let before = snapshot(&device.path("state"));
    programs::run(device.tpm().tool("tpm2_clear").args(["-c", "p"])).ok();
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("cleared or exchanged"), "{said}");
    let status = device.ends(1, &["status"]).text();
    assert!(status.contains("0x81000080: missing"), "{status}");
    assert_eq!(snapshot(&device.path("state")), before);
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    assert_ne!(identity(&device), first);
}

#[test]
fn a_key_folder_that_is_lost_is_not_replaced_silently() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    fs::remove_dir_all(device.path("state/devid")).unwrap();
    let said = device.ends(6, PROVISION);
    assert!(
        said.err.contains("0x81000100") && said.err.contains("file of the key is missing"),
        "{said}"
    );
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    assert!(
        !persistent(&mut device).contains("0x81000101"),
        "the old key was evicted"
    );
}

#[test]
fn all_of_it_goes_through_libtss2_and_with_an_owner_that_asks() {
    let mut device = Device::blank();
    programs::run(
        device
            .tpm()
            .tool("tpm2_changeauth")
            .args(["-c", "o", "secret"]),
    )
    .ok();
    device.home.write(
        "config.toml",
        "[master]\nowner_auth = \"hex:736563726574\"\n[provision]\nnv_index = 0x01500000\n",
    );
    let tcti = device.tpm().tcti();
    device.ends(0, PROVISION);
    let first = identity(&device);
    let tpm = device.tpm.take();
    let mut device = Device {
        home: device.home.with_tcti(&Link::Tctildr.tcti(&tcti)),
        tpm,
    };
    let quiet = |mut command: std::process::Command| {
        programs::run(command.env("TSS2_LOG", "all+none")).ok()
    };
    quiet(device.command(PROVISION));
    assert_eq!(identity(&device), first);
    quiet(device.command(&["reset", "--factory", "--yes", "--wait", "0"]));
    assert_ne!(identity(&device), first);
    assert!(persistent(&mut device).contains("0x81000100"));
}
