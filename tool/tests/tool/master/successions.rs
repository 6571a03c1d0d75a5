//! New keys that wait for a certificate, and previous keys: their state after the loss of their
//! master key.

use crate::device::{Device, evict};
use crate::enrolment::est::{bench, is_whole};
use std::fs;

const MASTER: &str = "0x81000080";

/// Keys in `.next` and `.previous`.
fn beside(device: &Device) -> Vec<String> {
    let folders = [".next", ".previous"].map(|name| device.path("state/devid").join(name));
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pem")).collect()
}

/// `kept` is in a handle, `lost` is not. Both keys were rekeyed once, and a second rekey waits.
#[test]
fn dead_ones_are_put_aside_and_never_come_into_use() {
    let (mut device, est) = bench();
    device.ends(0, &["key", "generate", "kept", "--persistent"]);
    device.ends(0, &["key", "generate", "lost"]);
    for label in ["kept", "lost"] {
        for words in [&[][..], &["--new-key"]] {
            assert_eq!(est.enroll(&device, label, "", words).status.code(), Some(0));
        }
        device.ends(0, &["key", "rekey", label, "--out", "/dev/null"]);
    }
    let whole = is_whole(&device, &est, "kept");
    evict(&mut device, MASTER);

    let told = device.devid(&["master", "renew"]).text();
    for folder in [".next/", ".previous/"] {
        assert!(told.matches(folder).count() > 1, "{folder}: {told}");
    }
    device.ends(0, &["master", "renew", "--yes"]);
    assert_eq!(beside(&device), Vec::<String>::new());
    assert_eq!(is_whole(&device, &est, "kept"), whole);
    // There is no way back to a key that does not sign.
    let said = device.ends(5, &["renew", "kept", "--rollback"]);
    assert!(
        said.err.contains("no earlier key or certificate is kept"),
        "{said}"
    );
    device.ends(5, &["key", "rekey", "kept", "--discard"]);
    assert_eq!(is_whole(&device, &est, "kept"), whole);
    // A new one is made, and not the dead one used.
    let said = est.enroll(&device, "kept", "", &["--new-key"]);
    assert_eq!(said.status.code(), Some(0), "{said}");
    assert_ne!(is_whole(&device, &est, "kept"), whole);
    // The one before lived in its handle alone, which the new one has now.
    let whole = is_whole(&device, &est, "kept");
    let said = device.ends(6, &["renew", "kept", "--rollback"]);
    assert!(said.err.contains("cannot sign any more"), "{said}");
    assert_eq!(is_whole(&device, &est, "kept"), whole);
    for words in [&["--new-key"], &["--new-key"]] {
        assert_eq!(
            est.enroll(&device, "kept", "", words).status.code(),
            Some(0)
        );
    }
    device.ends(0, &["renew", "kept", "--rollback"]);
    is_whole(&device, &est, "kept");
    let said = est.enroll(&device, "lost", "", &["--as", "idev-id"]);
    assert_eq!(said.status.code(), Some(0), "{said}");
    is_whole(&device, &est, "lost");
    let pruned = device.ends(0, &["prune"]).text();
    assert!(
        pruned.contains(".next/") && pruned.contains(".previous/"),
        "{pruned}"
    );
}

/// Until the master key is renewed, a rollback to the dead key is refused, and the working key
/// stays.
#[test]
fn the_way_back_to_a_dead_key_is_barred() {
    let (mut device, est) = bench();
    device.ends(0, &["key", "generate", "kept", "--persistent"]);
    for words in [&[][..], &["--new-key"]] {
        assert_eq!(
            est.enroll(&device, "kept", "", words).status.code(),
            Some(0)
        );
    }
    let whole = is_whole(&device, &est, "kept");
    evict(&mut device, MASTER);
    let said = device.devid(&["renew", "kept", "--rollback"]);
    assert!(!said.status.success(), "{said}");
    assert_eq!(is_whole(&device, &est, "kept"), whole);
}
