//! One wrong byte in a file of the key folder. `devid` names the file and the fault, and advises no
//! step that would end a healthy identity.

use crate::device::programs::Said;
use crate::device::{Device, files, tpm2};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];

/// The file with this line.
fn file_with(device: &Device, line: &str) -> PathBuf {
    let has = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(line));
    files(device, "key-").into_iter().find(has).expect("a file")
}

/// No message claims another TPM, or advises to give up existing objects.
#[track_caller]
fn is_modest(said: &Said, what: &str) {
    let text = said.all();
    for never in [
        "cleared or exchanged",
        "reset --factory --yes",
        "was cleared",
    ] {
        assert!(!text.contains(never), "{what}: {said}");
    }
}

/// Each so manieth byte of a file, flipped; the file is whole again afterwards.
fn flipped(file: &Path, step: usize, mut each: impl FnMut(usize)) {
    let whole = fs::read(file).unwrap();
    for at in (0..whole.len()).step_by(step) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(file, damaged).unwrap();
        each(at);
    }
    fs::write(file, whole).unwrap();
}

#[test]
fn a_flipped_byte_is_told_with_its_file_and_not_as_another_tpm() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    for (label, kind) in [("web", &["--sealed"][..]), ("mail", &[])] {
        device.ends(0, &[&["key", "generate", label], kind].concat());
    }
    for label in ["web", "mail"] {
        let file = file_with(&device, &format!("Label: {label}\n"));
        let name = file.display().to_string();
        let mut failed = 0;
        flipped(&file, 29, |at| {
            let what = format!("{label}, byte {at}");
            let csr = device.devid(&["csr", label]);
            is_modest(&csr, &what);
            let doctor = device.devid(&["doctor"]);
            is_modest(&doctor, &what);
            if !csr.status.success() {
                failed += 1;
                // The line with its name may be what was hit.
                let renamed = csr.all().contains("not found");
                assert!(
                    renamed || doctor.all().contains(&name),
                    "{what}: {csr} {doctor}"
                );
            }
            device.ends(0, &["csr", "devid"]);
        });
        assert!(failed > 10, "{label}: {failed}");
        device.ends(0, &["csr", label]);
    }
}

/// The identity itself is never replaced, and never given up for a byte.
#[test]
fn a_flipped_byte_of_the_identitys_key_ends_nothing() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let file = file_with(&device, "Destroyable: no\n");
    let handles = crate::device::persistent(&mut device);
    let before = files(&device, "");
    flipped(&file, 31, |at| {
        let what = format!("byte {at}");
        for words in [&["status"][..], &["doctor"], &["csr", "devid"], PROVISION] {
            is_modest(&device.devid(words), &what);
        }
        assert_eq!(files(&device, ""), before, "{what}");
    });
    assert_eq!(crate::device::persistent(&mut device), handles);
    device.ends(0, &["csr", "devid"]);

    // Without handle, the file is the only copy of the key.
    crate::device::evict(&mut device, "0x81000100");
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let at = whole.len() - 100;
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    fs::write(&file, damaged).unwrap();
    for words in [&["status"][..], &["doctor"], &["csr", "devid"], PROVISION] {
        let said = device.devid(words);
        is_modest(&said, "evicted");
        assert!(said.all().contains(&file.display().to_string()), "{said}");
    }
    fs::write(&file, whole).unwrap();
    device.ends(0, PROVISION);
    assert_eq!(crate::device::persistent(&mut device), handles);
}

#[test]
fn the_masters_record_is_named_when_it_is_damaged() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    let file = device.path("state/devid/.master");
    flipped(&file, 37, |at| {
        let what = format!("byte {at}");
        device.ends(0, &["csr", "web"]);
        let doctor = device.devid(&["doctor"]);
        is_modest(&doctor, &what);
        let generated = device.devid(&["key", "generate", "new"]);
        is_modest(&generated, &what);
        if !generated.status.success() {
            for said in [&doctor, &generated] {
                assert!(said.all().contains(&file.display().to_string()), "{said}");
            }
        }
        device.devid(&["key", "delete", "new", "--yes"]);
    });
    device.ends(0, &["key", "generate", "new2"]);
}

/// Existing files in the folder do not prevent a new identity.
#[test]
fn files_of_other_programs_do_not_keep_an_identity_from_being_made() {
    let device = Device::blank();
    let folder = device.path("state/devid");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o750)).unwrap();
    for (name, text) in [
        ("notes", "no key at all\n"),
        (
            "web",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
    ] {
        fs::write(folder.join(format!("{name}.pem")), text).unwrap();
    }
    device.ends(0, PROVISION);
    device.ends(0, &["csr", "devid"]);
    let findings = device.json(&["doctor"]);
    let all = findings.as_array().unwrap();
    assert_eq!(all.iter().filter(|one| one["id"] == "keys.file").count(), 2);
}

/// Files of other programs, of which the TPM loads none.
#[test]
fn a_foreign_key_is_named_with_its_reason_and_costs_only_itself() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let mut tool = |name: &str, words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        tpm2(&mut device, name, &words);
        tpm2(&mut device, "tpm2_flushcontext", &["-t"]);
    };
    tool("tpm2_createprimary", "-Q -C o -c parent.ctx");
    tool("tpm2_evictcontrol", "-Q -C o -c parent.ctx 0x81000055");
    tool(
        "tpm2_create",
        "-Q -C 0x81000001 -G ecc256 -u k.pub -r k.priv",
    );
    for (name, parent) in [("absent", "0x81000055"), ("wrong", "0x81000080")] {
        let files = format!("-u k.pub -r k.priv -o state/devid/{name}.pem");
        tool("tpm2_encodeobject", &format!("-C {parent} {files}"));
    }
    tool("tpm2_evictcontrol", "-Q -C o -c 0x81000055");
    for (name, reason) in [
        (
            "absent",
            "its parent is missing: handle 0x81000055 is empty",
        ),
        ("wrong", "another key than its parent (handle 0x81000080)"),
    ] {
        let path = device
            .path(&format!("state/devid/{name}.pem"))
            .display()
            .to_string();
        let csr = device.ends(1, &["csr", name]);
        is_modest(&csr, name);
        for words in [&path[..], reason] {
            assert!(csr.err.contains(words), "{csr}");
        }
        let findings = device.json(&["doctor"]);
        let found = findings
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["object"] == *path);
        let found = found.unwrap_or_else(|| panic!("{findings:#}"));
        assert_eq!(
            (&found["id"], &found["state"]),
            (&"keys.unusable".into(), &"problem".into())
        );
        assert!(found["text"].as_str().unwrap().contains(reason), "{found}");
        assert!(found["command"].is_null(), "{found}");
    }
    device.ends(0, &["csr", "devid"]);
    device.ends(0, &["key", "generate", "web"]);
    device.ends(0, &["status"]);
}
