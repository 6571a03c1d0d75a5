//! The master key was evicted, and the TPM was not cleared: the messages about it, and
//! `devid master renew`, which makes a new master key and keeps the identity.

use crate::device::foreign::{OCCUPANTS, name_at, occupy};
use crate::device::mending::{assert_gone, assert_harmless, found, mend, named};
use crate::device::{Device, evict, files, persistent, programs, tpm2};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RENEW: &[&str] = &["master", "renew", "--yes"];
const MASTER: &str = "0x81000080";
const FILES: &str = "[[token]]\nname = \"files\"\nallow_file_keys = true\n";

/// A device with an identity, and with keys of each way to keep them.
fn device() -> Device {
    let device = Device::blank();
    device.home.write("config.toml", FILES);
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    device.ends(0, &["key", "generate", "kept", "--persistent"]);
    device.ends(0, &["key", "generate", "fast", "--sealed"]);
    let folder = device.path("state/files");
    fs::create_dir(&folder).unwrap();
    let mut openssl = programs::program("openssl");
    openssl.args(["genpkey", "-algorithm", "EC", "-pkeyopt"]);
    openssl.args(["ec_paramgen_curve:P-256", "-out"]);
    programs::run(openssl.arg(folder.join("clear.pem"))).ok();
    device
}

fn lockout(device: &mut Device) -> Vec<String> {
    let text = tpm2(device, "tpm2_getcap", &["properties-variable"]).text();
    let about = |line: &&str| line.contains("LOCKOUT") || line.contains("MAX_AUTH_FAIL");
    text.lines().filter(about).map(str::to_owned).collect()
}

/// All files below the state folder with their content, but for locks.
fn state(device: &Device) -> Vec<(PathBuf, Vec<u8>)> {
    fn below(folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => below(&path, all),
                false if path.to_string_lossy().ends_with("lock") => {}
                false => all.push((path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    let mut all = Vec::new();
    below(&device.path("state"), &mut all);
    all.sort();
    all
}

/// True if the key signs a request.
fn signs(device: &Device, label: &str) -> bool {
    device.devid(&["csr", label]).status.success()
}

fn identity(device: &Device) -> Value {
    device.json(&["show", "devid"])["certificates"][0]["sha256"].clone()
}

#[test]
fn the_identity_stays_and_a_new_master_key_begins() {
    let mut device = device();
    let first = identity(&device);
    let old = name_at(&mut device, MASTER);
    evict(&mut device, MASTER);
    let (before, counters) = (state(&device), lockout(&mut device));

    // The message describes the true state: neither a cleared TPM nor a factory reset.
    let gone = found(&device, "master-key.lost");
    let text = gone["text"].as_str().unwrap();
    assert!(text.contains("0x81000080 is empty"), "{gone}");
    assert!(text.contains("evicted"), "{gone}");
    assert_eq!(gone["command"], "devid master renew --yes", "{gone}");
    assert_harmless(&device);
    let said = device.ends(1, &["doctor"]).text();
    assert!(!said.contains("cleared or exchanged"), "{said}");
    assert!(!said.contains("reset"), "{said}");
    let status = device.ends(0, &["status"]).text();
    assert!(status.starts_with("mode tpm\n"), "{status}");
    assert!(status.contains("devid master renew"), "{status}");
    let status = device.json(&["status"]);
    assert_eq!(status["master"]["held"], false, "{status}");
    assert_eq!(status["master"]["command"], "devid master renew --yes");
    let said = device.ends(6, &["key", "generate", "new"]);
    assert!(said.err.contains("devid master renew"), "{said}");
    assert!(!said.err.contains("reset"), "{said}");
    assert!(!said.err.contains("cleared or exchanged"), "{said}");

    // Each lost key is listed, and nothing is done.
    let said = device.ends(6, &["master", "renew"]);
    let all = format!("{}{}", said.text(), said.err);
    for lost in ["web", "fast", "devid master renew --yes"] {
        assert!(all.contains(lost), "{lost}: {said}");
    }
    let listed = device.json(&["master", "renew"]);
    assert_eq!(listed["error"]["code"], 6, "{listed}");
    let labels = |all: &Value| -> Vec<String> {
        let all = all.as_array().unwrap().iter();
        let mut all: Vec<_> = all
            .map(|one| one["label"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    assert_eq!(labels(&listed["lost"]), ["fast", "web"], "{listed}");
    assert_eq!(labels(&listed["kept"]), ["devid", "kept"], "{listed}");
    assert_eq!(state(&device), before);
    assert!(!persistent(&mut device).contains(MASTER));

    let done = device.ends(0, RENEW).text();
    for lost in ["web", "fast"] {
        assert!(done.contains(lost), "{done}");
    }
    assert_ne!(name_at(&mut device, MASTER), old);
    assert_eq!(identity(&device), first);
    for label in ["devid", "kept", "clear"] {
        assert!(signs(&device, label), "{label}");
    }
    device.ends(3, &["verify", "devid"]);
    let left = device.json(&["key", "list"]);
    assert_eq!(labels(&left), ["clear", "devid", "kept"], "{left}");
    let aside = || {
        let folder = fs::read_dir(device.path("state/devid")).unwrap();
        let names = folder.map(|one| one.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".pem.lost")).count()
    };
    assert_eq!(aside(), 2, "moved aside, not deleted");
    assert_gone(&device, "master-key.lost");
    assert!(named(&device, "keys.unusable").is_empty());
    assert!(named(&device, "keys.left-out").is_empty());
    assert_eq!(device.tpm.as_ref().unwrap().transients(), 0);
    assert_eq!(lockout(&mut device), counters);

    // From then on all is as before.
    device.ends(0, &["key", "generate", "web"]);
    device.ends(0, &["key", "generate", "fast", "--sealed"]);
    assert!(signs(&device, "web") && signs(&device, "fast"));
    let done = device.json(PROVISION);
    assert_eq!(done["steps"], Value::Array(Vec::new()), "{done}");
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("holds the master key"), "{said}");
    assert_eq!(named(&device, "keys.lost").len(), 1);
    device.ends(0, &["prune"]);
    assert!(named(&device, "keys.lost").is_empty());
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    assert_ne!(identity(&device), first);
}

#[test]
fn it_refuses_while_the_old_one_is_there() {
    let mut device = Device::blank();
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("no master key exists yet"), "{said}");
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    let (before, handles) = (state(&device), persistent(&mut device));
    for words in [RENEW, &["master", "renew"]] {
        let said = device.ends(6, words);
        assert!(said.err.contains("holds the master key"), "{said}");
    }
    // Also where the configuration names another handle by now.
    let other = "[master]\nhandle = 0x81000090\n";
    device.home.write("config.toml", other);
    for words in [RENEW, &["master", "renew"]] {
        let said = device.ends(6, words);
        assert!(said.err.contains("handle = 0x81000080"), "{said}");
    }
    let elsewhere = found(&device, "master-key.elsewhere");
    let text = elsewhere["mend"].as_str().unwrap();
    assert!(text.contains("handle = 0x81000080"), "{elsewhere}");
    assert!(elsewhere["command"].is_null(), "{elsewhere}");
    device.home.write("config.toml", "");
    assert_gone(&device, "master-key.elsewhere");
    assert!(signs(&device, "web"));
    assert_eq!(state(&device), before);
    assert_eq!(persistent(&mut device), handles);
}

#[test]
fn where_another_program_took_the_handle_another_one_is_taken() {
    for kind in OCCUPANTS {
        let mut device = device();
        let first = identity(&device);
        evict(&mut device, MASTER);
        let foreign = occupy(&mut device, MASTER, kind);
        // The next one is somebody's, too.
        occupy(&mut device, "0x81000081", kind);
        let gone = found(&device, "master-key.lost");
        let text = gone["text"].as_str().unwrap();
        let digits = foreign.trim_start_matches("name: ");
        assert!(text.contains(MASTER), "{gone}");
        assert!(text.contains(&digits[..12]), "the occupant's name: {gone}");
        assert_harmless(&device);
        let said = device.ends(6, &["key", "generate", "new"]);
        assert!(!said.err.contains("reset"), "{said}");
        let said = device.ends(6, &["master", "renew"]);
        let all = format!("{}{}", said.text(), said.err);
        assert!(all.contains(&digits[..12]), "{said}");
        assert!(all.contains("0x81000082"), "{said}");
        assert!(!device.path("config.d").join("devid-master.toml").exists());

        mend(&device, "master-key.lost");
        assert_eq!(name_at(&mut device, MASTER), foreign);
        assert!(persistent(&mut device).contains("0x81000082"));
        let status = device.json(&["status"]);
        assert_eq!(status["master"]["handle"], "0x81000082", "{status}");
        assert_eq!(status["master"]["held"], true, "{status}");
        assert_eq!(identity(&device), first);
        for label in ["devid", "kept", "clear"] {
            assert!(signs(&device, label), "{label}");
        }
        device.ends(0, &["key", "generate", "new"]);
        assert!(signs(&device, "new"));
        device.ends(6, RENEW);
    }
}

/// A file of the administrator comes first. A setting without effect is not written.
#[test]
fn a_configuration_that_names_another_handle_is_left_alone() {
    let mut device = device();
    evict(&mut device, MASTER);
    occupy(&mut device, MASTER, "storage");
    // A later file says otherwise.
    let last = "[master]\nhandle = 0x81000080\n";
    device.home.write("config.d/zzz.toml", last);
    let (before, handles) = (state(&device), persistent(&mut device));
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("handle = 0x81000081"), "{said}");
    assert_eq!(fs::read_dir(device.path("config.d")).unwrap().count(), 1);
    assert_eq!(state(&device), before);
    assert_eq!(persistent(&mut device), handles);
    // As it says.
    let said = "[master]\nhandle = 0x81000081\n";
    device.home.write("config.d/zzz.toml", said);
    device.ends(0, RENEW);
    assert!(persistent(&mut device).contains("0x81000081"));
    assert!(signs(&device, "devid"));
    let left = device.json(&["key", "list"]);
    assert_eq!(left.as_array().unwrap().len(), 3, "{left}");
}

/// An identity that is lost with the master key is not kept by a new one.
#[test]
fn without_the_identity_nothing_is_renewed() {
    let mut device = device();
    evict(&mut device, MASTER);
    evict(&mut device, "0x81000100");
    let (before, handles) = (state(&device), persistent(&mut device));
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("identity"), "{said}");
    // Its file alone is gone.
    let mut device = self::device();
    evict(&mut device, MASTER);
    for file in files(&device, "key") {
        if fs::read_to_string(&file)
            .unwrap()
            .contains("Label: devid\n")
        {
            fs::rename(&file, device.path("aside.pem")).unwrap();
        }
    }
    let said = device.ends(6, RENEW);
    assert!(
        said.err.contains("the file of the key is missing"),
        "{said}"
    );
    let _ = (before, handles);
}

/// A PIN is lost with the master key, and with it all that it opens.
#[test]
fn a_token_with_a_pin() {
    let mut device = Device::blank();
    device.set_configured_pins("87654321");
    device.ends(0, &["key", "generate", "kept", "--persistent"]);
    evict(&mut device, MASTER);
    let listed = device.json(&["master", "renew"]);
    assert_eq!(listed["lost"].as_array().unwrap().len(), 3, "{listed}");
    device.ends(0, RENEW);
    device.ends(0, &["key", "generate", "new"]);
    assert!(signs(&device, "new"));
    assert_eq!(device.tpm().lockout_counter(), 0);

    // An identity that asks for that PIN is lost, too.
    let mut device = Device::blank();
    device.set_configured_pins("87654321");
    device.ends(0, PROVISION);
    evict(&mut device, MASTER);
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("PIN"), "{said}");
}
