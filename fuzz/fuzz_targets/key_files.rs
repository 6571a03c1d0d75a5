//! Files of a key folder (PEM with its description, TSS2, PKCS#8, sealed and secret keys), and keys
//! that are imported.
#![no_main]

use devid_core::key::{PrivateKeyInfo, PublicKey};
use devid_core::store::folder::{FolderError, KeyFolder, Tss2Key};
use devid_fuzz::folder;
use libfuzzer_sys::fuzz_target;
use std::fs;

fuzz_target!(|data: &[u8]| {
    let _ = PrivateKeyInfo::from_pem(data);
    if let Ok(key) = PrivateKeyInfo::from_der(data) {
        let again = PrivateKeyInfo::from_der(key.der()).expect("our own encoding");
        assert!(again.public() == key.public());
    }
    if let Some(key) = PublicKey::from_info_der(data) {
        assert_eq!(PublicKey::from_info_der(&key.info_der()), Some(key));
    }
    if let Ok(key) = Tss2Key::from_der(data) {
        let der = key.to_der().expect("what was read");
        assert!(Tss2Key::from_der(&der).is_ok_and(|again| again == key));
    }
    let path = folder().join("keys");
    fs::create_dir_all(&path).expect("a folder");
    for file in fs::read_dir(&path).expect("a folder").flatten() {
        fs::remove_file(file.path()).expect("a file");
    }
    fs::write(path.join("one.pem"), data).expect("a file");
    let keys = KeyFolder::new(path);
    let Ok(listing) = keys.list() else { return };
    let Ok(entry) = listing.entry("one") else {
        return;
    };
    // An entry that is written again must be read with the same content.
    let (before, name) = (entry.content.clone(), entry.name.clone());
    let kept: Result<_, FolderError> = keys.change(&name, |entry| Ok(Some(entry.content.clone())));
    if kept.is_ok() {
        let listing = keys.list().expect("the folder");
        let after = listing.entry(&name).expect("the file");
        assert!(after.content == before, "{before:?}\n{after:?}");
    }
});
