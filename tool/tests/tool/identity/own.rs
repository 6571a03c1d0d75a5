//! The setting `own`, which may be unset, true or false: whether the device needs its own identity.

use crate::device::mending::{findings, found, named};
use crate::device::tpm::Swtpm;
use crate::device::{Device, evict, files, persistent, programs, tpm2};
use serde_json::Value;
use std::fs;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const WANTED: &str = "[provision]\nown = true\n";
const UNWANTED: &str = "[provision]\nown = false\n";

fn set(device: &Device, settings: &str) {
    device.home.write("config.toml", settings);
}

/// The mode, the identity and the reason of `devid status`, which ends with this code.
#[track_caller]
fn status(device: &Device, code: i32) -> (String, Value, String) {
    device.ends(code, &["status"]);
    let status = device.json(&["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&status["mode"]),
        status["identity"].clone(),
        text(&status["reason"]),
    )
}

/// No finding has a remedy that would write to the TPM.
#[track_caller]
fn assert_advises_no_write(device: &Device) {
    for one in findings(device) {
        for words in [&one["mend"], &one["command"]] {
            let words = words.as_str().unwrap_or_default();
            for verb in ["provision", "persist", "reset", "master renew", "tpm2_"] {
                assert!(!words.contains(verb), "{verb}: {one:#}");
            }
        }
        let text = one["text"].as_str().unwrap();
        assert!(!text.contains("devid provision"), "{one:#}");
    }
}

#[test]
fn a_factory_device_is_well_as_it_comes() {
    let (mut device, _) = Device::manufactured();
    let before = persistent(&mut device);
    for settings in ["", UNWANTED, "[provision]\nfallback = \"software\"\n"] {
        set(&device, settings);
        let text = device.ends(0, &["status"]).text();
        assert!(text.starts_with("mode tpm\n"), "{settings}: {text}");
        assert!(text.contains("the factory identity"), "{settings}: {text}");
        let (mode, identity, reason) = status(&device, 0);
        assert_eq!((mode.as_str(), &identity), ("tpm", &"factory".into()));
        assert_eq!(reason, "");
        let identity = found(&device, "identity");
        assert_eq!(identity["state"], "ok", "{identity}");
        assert_advises_no_write(&device);
    }
    // To look writes nothing: neither a marker nor to the TPM.
    assert_eq!(fs::read_dir(device.path("state")).unwrap().count(), 0);
    assert_eq!(persistent(&mut device), before);
    fs::remove_dir(device.path("state")).unwrap();
    set(&device, "");
    status(&device, 0);
    assert_advises_no_write(&device);

    set(&device, WANTED);
    let (mode, identity, reason) = status(&device, 1);
    assert_eq!((mode.as_str(), &identity), ("error", &Value::Null));
    assert!(reason.contains("devid provision"), "{reason}");
    let none = found(&device, "identity.none");
    assert_eq!(
        (&none["state"], &none["command"]),
        (&"problem".into(), &"devid provision".into()),
        "{none}"
    );
    // A run of `devid provision` makes an identity, also without a setting.
    set(&device, "");
    device.ends(0, PROVISION);
    let (mode, identity, _) = status(&device, 0);
    assert_eq!((mode.as_str(), &identity), ("tpm", &"own".into()));
}

/// A key of a service is no identity.
#[test]
fn keys_of_services_change_nothing() {
    let (device, _) = Device::manufactured();
    device.ends(0, &["key", "generate", "web"]);
    device.ends(0, &["key", "generate", "vpn", "--persistent"]);
    let (mode, identity, _) = status(&device, 0);
    assert_eq!((mode.as_str(), &identity), ("tpm", &"factory".into()));
    assert!(!device.path("state/tpm_in_use").exists());
    assert!(named(&device, "marker").is_empty());
}

/// A trace of an identity counts, also if no identity is requested.
#[test]
fn what_is_left_of_an_identity_is_an_error() {
    let (mut device, _) = Device::manufactured();
    for marker in ["", "handle = \"0x81000100\"\nname = \"000b00\"\n"] {
        let path = device.home.write("state/tpm_in_use", marker);
        let (mode, _, reason) = status(&device, 1);
        assert_eq!(mode, "error", "{marker}: {reason}");
        fs::remove_file(path).unwrap();
        status(&device, 0);
    }
    // A key whose certificate is lost; a key in its handle alone; a file that nobody can read.
    device.ends(0, PROVISION);
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
    let certificate = files(&device, "certificate").remove(0);
    let kept = fs::read(&certificate).unwrap();
    fs::remove_file(&certificate).unwrap();
    let (mode, _, reason) = status(&device, 1);
    assert_eq!(mode, "error");
    assert!(reason.contains("devid provision"), "{reason}");
    fs::write(&certificate, kept).unwrap();
    let folder = device.path("state/devid");
    let aside = device.path("aside");
    fs::rename(&folder, &aside).unwrap();
    let (_, _, reason) = status(&device, 1);
    assert!(
        reason.contains("0x81000100, but the file of the key is missing"),
        "{reason}"
    );
    evict(&mut device, "0x81000100");
    status(&device, 0);
    fs::create_dir(&folder).unwrap();
    device
        .home
        .write("state/devid/key-0123456789abcdef.pem", "nothing");
    let (_, _, reason) = status(&device, 1);
    assert!(reason.contains("may hold the identity"), "{reason}");
    // With `own = false` no identity is requested.
    set(&device, UNWANTED);
    status(&device, 0);
}

/// A device without any identity names the way to one.
#[test]
fn without_a_factory_identity_one_is_missed() {
    let device = Device::blank();
    for settings in ["", WANTED] {
        set(&device, settings);
        let (mode, identity, reason) = status(&device, 1);
        assert_eq!((mode.as_str(), &identity), ("error", &Value::Null));
        assert!(reason.contains("no own identity yet"), "{reason}");
        assert!(reason.contains("devid provision"), "{reason}");
        assert_eq!(found(&device, "identity.none")["state"], "problem");
    }
}

/// The factory's certificate without its key: no other identity is advised just so.
#[test]
fn a_factory_certificate_without_key_is_an_error() {
    let (mut device, _) = Device::manufactured();
    evict(&mut device, "0x81020000");
    // The key comes back from its template: that is as well as before.
    status(&device, 0);
    let (tpm, _) = Swtpm::manufactured_with(&["--wrong-key", "0x01C90300"]);
    let mut device = Device::with(Some(tpm));
    tpm2(&mut device, "tpm2_nvundefine", &["-C", "o", "0x01C90200"]);
    for settings in ["", UNWANTED] {
        set(&device, settings);
        let (mode, identity, reason) = status(&device, 1);
        assert_eq!((mode.as_str(), &identity), ("error", &Value::Null));
        assert!(
            reason.contains("can neither find nor derive the certified key"),
            "{reason}"
        );
        let finding = found(&device, "identity.factory");
        assert!(finding["command"].is_null(), "{finding}");
    }
}

#[test]
fn a_tpm_that_does_not_answer_is_said_before_anything_else() {
    let (device, _) = Device::manufactured();
    let Device { tpm, home } = device;
    let device = Device { tpm: None, home }.move_to(None);
    for settings in ["", WANTED, UNWANTED] {
        set(&device, settings);
        let (mode, identity, reason) = status(&device, 4);
        assert_eq!((mode.as_str(), &identity), ("error", &Value::Null));
        assert!(reason.contains("/nonexistent/tpm"), "{reason}");
    }
    // Held by another process, or not for this user: there, and silent.
    let busy = device.home.write("tpm0", "");
    let device = Device {
        home: device.home.with_tcti(&format!("device:{}", busy.display())),
        tpm: None,
    };
    set(&device, "");
    let (mode, _, reason) = status(&device, 4);
    assert_eq!(mode, "error");
    assert!(reason.contains("tpm0"), "{reason}");
    assert!(!reason.contains("devid provision"), "{reason}");
    let device = device.move_to(tpm);
    status(&device, 0);
}

/// Files that this user may not read are not gone.
#[test]
fn what_cannot_be_read_may_be_an_identity() {
    let (device, _) = Device::manufactured();
    let folder = device.path("state/devid");
    fs::create_dir(&folder).unwrap();
    let loops = folder.join("key-0123456789abcdef.pem");
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    let (mode, _, reason) = status(&device, 1);
    assert_eq!(mode, "error");
    assert!(reason.contains("key-0123456789abcdef.pem"), "{reason}");
    fs::remove_file(loops).unwrap();
    status(&device, 0);
    fs::create_dir(device.path("state/tpm_in_use")).unwrap();
    let (mode, _, reason) = status(&device, 1);
    assert_eq!(mode, "error");
    assert!(reason.contains("tpm_in_use"), "{reason}");
}

/// EVE's and SSR's examples ask for an identity: a factory's in the TPM does not do there.
#[test]
fn the_examples_of_devices_that_make_one_ask_for_it() {
    let (device, _) = Device::manufactured();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../pkcs11-conf/examples");
    for (example, mode) in [
        ("eve.toml", "error"),
        ("ssr-vtpm.toml", "error"),
        ("router.toml", "tpm"),
    ] {
        let text = fs::read_to_string(format!("{examples}/{example}")).unwrap();
        set(&device, &text);
        let mut status = device.command(&["status", "--json"]);
        let said = programs::run(&mut status);
        let status: Value = serde_json::from_slice(&said.out).unwrap();
        assert_eq!(status["mode"], mode, "{example}: {status}");
    }
}
