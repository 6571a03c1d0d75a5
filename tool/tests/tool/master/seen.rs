//! The output while the master key is missing, together with other losses, and the number of TPM
//! commands of a renewal.

use crate::device::foreign::occupy;
use crate::device::link::Link;
use crate::device::mending::{assert_harmless, found, mend, named};
use crate::device::proxy::{Proxy, command};
use crate::device::tpm::Swtpm;
use crate::device::{Device, evict, files, persistent, tpm2};
use devid_core::key::Curve;
use devid_core::store::Protection;
use devid_core::store::devid::{KeyAlgorithm, KeyPurpose, OpenedBy};
use devid_core::store::folder::{KeyOrigin, ObjectAttributes};
use std::fs;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RENEW: &[&str] = &["master", "renew", "--yes"];
const MASTER: &str = "0x81000080";
/// TPM_CC of what changes a TPM.
const WRITING: [u32; 8] = [0x120, 0x126, 0x129, 0x12A, 0x131, 0x137, 0x153, 0x156];

fn signs(device: &Device, label: &str) -> bool {
    device.devid(&["csr", label]).status.success()
}

/// The words for a person where the master key is gone, of a verb that needs it.
#[track_caller]
fn refusal(device: &Device) -> String {
    let said = device.devid(&["csr", "web"]);
    assert!(!said.status.success(), "{said}");
    said.err
}

/// The factory's identity is the device's: a service's keys are all that the master key had.
#[test]
fn a_factory_device_with_keys_of_services() {
    let (mut device, _) = Device::manufactured();
    device.ends(0, &["key", "generate", "web"]);
    evict(&mut device, MASTER);
    let gone = found(&device, "master-key.lost");
    let text = gone["text"].as_str().unwrap();
    assert!(
        text.contains("the TPM still has a storage root key"),
        "{gone}"
    );
    assert_harmless(&device);
    let said = refusal(&device);
    assert!(!said.contains("reset"), "{said}");
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "tpm", "{status}");
    assert_eq!(status["identity"], "factory", "{status}");
    mend(&device, "master-key.lost");
    device.ends(0, &["key", "generate", "web"]);
    assert!(signs(&device, "web"));
    assert_eq!(device.json(&["status"])["identity"], "factory");
}

#[test]
fn a_cleared_tpm_is_still_told() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    tpm2(&mut device, "tpm2_clear", &["-c", "p"]);
    let lost = found(&device, "master-key.lost");
    let text = lost["text"].as_str().unwrap();
    assert!(text.contains("cleared or exchanged"), "{lost}");
    assert!(refusal(&device).contains("devid reset"));
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("devid reset --factory --yes"), "{said}");
    assert!(persistent(&mut device).trim().is_empty());

    // Without an identity of its own nothing is lost that a new master key would hide.
    let mut device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    tpm2(&mut device, "tpm2_clear", &["-c", "p"]);
    let lost = found(&device, "master-key.lost");
    let text = lost["text"].as_str().unwrap();
    assert!(text.contains("cleared or exchanged"), "{lost}");
    mend(&device, "master-key.lost");
    device.ends(0, &["key", "generate", "web"]);
    assert!(signs(&device, "web"));
}

/// A further token has the same master key.
#[test]
fn all_tokens_begin_anew() {
    let mut device = Device::blank();
    let settings = "[[token]]\nname = \"second\"\n";
    device.home.write("config.toml", settings);
    device.ends(0, PROVISION);
    let make = |device: &Device, label: &str| {
        let store = device.store(1);
        let usage = KeyPurpose {
            signs: true,
            decrypts: false,
        };
        let made = store.generate(
            KeyAlgorithm::Ec(Curve::P256),
            usage,
            Protection::Tpm,
            OpenedBy::User,
        );
        let described = ObjectAttributes::labelled(label);
        let private = described.clone();
        let kept = store.keep(
            &made.unwrap(),
            KeyOrigin::Generated,
            private,
            Some(described),
            false,
        );
        kept.unwrap();
    };
    make(&device, "other");
    assert!(signs(&device, "second/other"));
    evict(&mut device, MASTER);
    let listed = device.json(&["master", "renew"]);
    let lost = listed["lost"].as_array().unwrap();
    assert_eq!(lost.len(), 1, "{listed}");
    assert_eq!(lost[0]["token"], "second", "{listed}");
    device.ends(0, RENEW);
    assert!(signs(&device, "devid"));
    device.ends(5, &["show", "second/other"]);
    make(&device, "other");
    assert!(signs(&device, "second/other"));
}

/// A certificate without its key would be in the way of the next.
#[test]
fn certificates_go_with_their_keys() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let folder = device.path("authority");
    fs::create_dir(&folder).unwrap();
    let certify = |label: &str| {
        let request = device.path(&format!("{label}.csr"));
        device.ends(0, &["csr", label, "--out", request.to_str().unwrap()]);
        let leaf = device.certified(&request, &folder);
        device.ends(0, &["import-cert", leaf.to_str().unwrap()]);
    };
    device.ends(0, &["key", "generate", "web"]);
    certify("web");
    certify("devid");
    evict(&mut device, MASTER);
    let listed = device.json(&["master", "renew"]);
    let kinds = listed["lost"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds.map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["certificate", "wrapped"], "{listed}");
    device.ends(0, RENEW);
    assert_eq!(
        files(&device, "certificate").len(),
        2,
        "one beside its place"
    );
    device.ends(5, &["show", "web"]);
    device.ends(0, &["key", "generate", "web"]);
    let shown = device.json(&["show", "devid"]);
    assert_eq!(shown["certificates"].as_array().unwrap().len(), 1);
    device.ends(0, &["status"]);
}

/// A failure that can be foreseen happens before files are moved.
#[test]
fn without_the_owners_password_nothing_is_done() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    evict(&mut device, MASTER);
    tpm2(&mut device, "tpm2_changeauth", &["-c", "o", "secret"]);
    let before = files(&device, "");
    let said = device.ends(1, RENEW);
    assert!(said.err.contains("owner_auth"), "{said}");
    assert_eq!(files(&device, ""), before);
    let file = device.home.write("owner", "secret");
    let setting = format!("[master]\nowner_auth = \"file:{}\"\n", file.display());
    device.home.write("config.toml", setting);
    device.ends(0, RENEW);
    device.ends(0, &["key", "generate", "web"]);
    assert!(signs(&device, "web") && signs(&device, "devid"));
    assert_eq!(device.tpm().lockout_counter(), 0);
}

/// A file of that name that somebody else wrote is not written over.
#[test]
fn a_drop_in_of_somebody_elses_stays() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    evict(&mut device, MASTER);
    occupy(&mut device, MASTER, "signing");
    let theirs = "[master]\n# mine\n";
    let path = device.home.write("config.d/devid-master.toml", theirs);
    let said = device.ends(6, RENEW);
    assert!(said.err.contains("handle = 0x81000081"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
    assert!(!persistent(&mut device).contains("0x81000081"));
}

/// Its handle alone had the identity: once that is empty, too, nothing brings it back.
#[test]
fn an_identity_that_lives_in_its_handle_alone() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    evict(&mut device, MASTER);
    device.ends(0, RENEW);
    let alone = found(&device, "handle.alone");
    assert_eq!(alone["object"], "0x81000100", "{alone}");
    assert!(named(&device, "keys.unusable").is_empty());
    let said = device.ends(6, &["export", "devid", "--tss2"]);
    assert!(said.err.contains("Only its handle holds the key"), "{said}");
    let shown = device.ends(0, &["show", "devid"]).text();
    assert!(
        shown.contains("persistent handle 0x81000100 only"),
        "{shown}"
    );
    // Without its file the key does not exist, and no other key is made.
    let key = files(&device, "key").remove(0);
    let aside = device.path("aside.pem");
    fs::rename(&key, &aside).unwrap();
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
    let certificate = files(&device, "certificate").remove(0);
    let kept = fs::read(&certificate).unwrap();
    fs::remove_file(&certificate).unwrap();
    let said = device.ends(6, PROVISION);
    assert!(
        said.err.contains("the file of the key is missing"),
        "{said}"
    );
    fs::rename(&aside, &key).unwrap();
    fs::write(&certificate, kept).unwrap();
    device.ends(0, PROVISION);
    evict(&mut device, "0x81000100");
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("only the handle held the key"), "{said}");
    assert!(!persistent(&mut device).contains("0x81000100"));
}

/// The renewal writes one key and one handle. A verb that only reads writes nothing.
#[test]
fn each_verb_writes_what_it_must() {
    for link in [Link::Ours, Link::Tctildr] {
        let tpm = Swtpm::blank();
        let proxy = Proxy::new(&tpm);
        let mut device = Device::with(Some(tpm));
        device.home = device.home.with_tcti(&link.tcti(&proxy.tcti()));
        device.ends(0, PROVISION);
        device.ends(0, &["key", "generate", "web"]);
        evict(&mut device, MASTER);
        let written = |words: &[&str], code: i32| {
            proxy.book().take();
            device.ends(code, words);
            let seen = proxy.book().take();
            WRITING.map(|code| (code, seen.of(code)))
        };
        let none = WRITING.map(|code| (code, 0));
        for (words, code) in [
            (&["status"][..], 0),
            (&["doctor"], 1),
            (&["master", "renew"], 6),
            (&["list"], 0),
        ] {
            assert_eq!(written(words, code), none, "{link:?} {words:?}");
        }
        let renewed = written(RENEW, 0);
        let expected = WRITING.map(|code| match code {
            command::EVICT_CONTROL | command::CREATE => (code, 1),
            _ => (code, 0),
        });
        assert_eq!(renewed, expected, "{link:?}");
        assert_eq!(written(RENEW, 6), none, "{link:?}");
        assert!(signs(&device, "devid"), "{link:?}");
        assert_eq!(device.tpm().transients(), 0, "{link:?}");
    }
}
