//! A wrong byte in a file of the key folder affects only that file. The TPM never counts as
//! cleared, because it has the master key.

use cryptoki_sys::*;
use std::fs;
use std::path::PathBuf;
use testkit::devid::{Bench, Kind, MASTER, Own, SRK, persistent};
use testkit::link::Link;
use testkit::own::folder;
use testkit::raw::Code;

over_our_transport!(
    a_flipped_byte_of_a_key_file_costs_that_key,
    a_flipped_byte_of_the_masters_record_costs_no_key,
    a_flipped_byte_of_a_seal_counts_no_try,
    a_missing_master_is_still_told,
);

/// The file of the key with this label.
fn file_of(bench: &Bench, label: &str) -> PathBuf {
    let line = format!("Label: {label}\n");
    let has = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(&line));
    folder(&bench.home).into_iter().find(has).expect("a file")
}

/// The allowed answers of a key whose file is damaged.
fn is_modest(answer: &Result<Vec<u8>, Code>) -> bool {
    match answer {
        Ok(_) => true,
        Err(code) => [CKR_DEVICE_ERROR, CKR_KEY_FUNCTION_NOT_PERMITTED].contains(&code.0),
    }
}

fn a_flipped_byte_of_a_key_file_costs_that_key(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "web").unwrap();
    own.make(Kind::P256, "other").unwrap();
    let (file, judge) = (file_of(&bench, "web"), own.judge(own.key_called("web")));
    let whole = fs::read(&file).unwrap();
    let handles = persistent(&bench.tpm);
    let (mut refused, mut unloaded, mut signed) = (0, 0, 0);
    for at in 0..whole.len() {
        for flip in [0x01, 0x20].into_iter().take(1 + usize::from(at % 7 == 0)) {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            fs::write(&file, &damaged).unwrap();
            let keys = own.keys();
            let others: Vec<_> = keys
                .iter()
                .filter(|key| own.label(**key) == "other")
                .collect();
            assert_eq!(others.len(), 1, "byte {at}");
            match keys.iter().find(|key| **key != *others[0]) {
                None => refused += 1,
                Some(key) => {
                    let answer = own.sign_data(*key, b"data");
                    assert!(is_modest(&answer), "byte {at}: {answer:?}");
                    match answer {
                        Err(_) => unloaded += 1,
                        Ok(signature) => {
                            judge.accepts(b"data", &signature).ok();
                            signed += 1;
                        }
                    }
                }
            }
        }
        if at % 100 == 0 {
            own.signs(own.key_called("other"));
        }
    }
    // Some bytes are text for people; most are the key.
    assert!(
        refused > 100 && unloaded > 100 && signed > 0,
        "{refused} {unloaded} {signed}"
    );
    let log = bench.home.log();
    assert!(!log.contains("cleared or exchanged") && !log.contains("devid reset"));
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    bench
        .home
        .log_says(&[&name, "its file is damaged, or another key than its parent"]);
    fs::write(&file, &whole).unwrap();
    own.signs(own.key_called("web"));
    own.make(Kind::P256, "new").unwrap();
    assert_eq!(persistent(&bench.tpm), handles);
    assert_eq!(
        (bench.tpm.transients(), bench.tpm.lockout_counter()),
        (0, 0)
    );
}

fn a_flipped_byte_of_the_masters_record_costs_no_key(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "web").unwrap();
    let file = bench.folder().join(".master");
    let whole = fs::read(&file).unwrap();
    let mut told = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        fs::write(&file, &damaged).unwrap();
        own.sign_data(own.key_called("web"), b"data").unwrap();
        match own.make(Kind::P256, "new") {
            Ok(pair) => own.destroy(pair.private).unwrap(),
            Err(code) => {
                assert_eq!(code, Code(CKR_DEVICE_ERROR), "byte {at}");
                told += 1;
            }
        }
        assert_eq!(fs::read(&file).unwrap(), damaged, "left as it is");
    }
    assert!(told > 150, "{told}");
    let log = bench.home.log();
    assert!(!log.contains("cleared or exchanged"));
    bench
        .home
        .log_says(&[".master", "restore the file from a backup"]);
    fs::write(&file, &whole).unwrap();
    own.make(Kind::P256, "new").unwrap();
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
}

/// The PIN is right, and the TPM never gets to see it where its seal is damaged.
fn a_flipped_byte_of_a_seal_counts_no_try(link: Link) {
    let (bench, token) = testkit::pins::Bench::with_pins(link);
    let session = token.read_write();
    let file = bench.home.path("state/devid/.user.pem");
    let whole = fs::read(&file).unwrap();
    let (mut refused, mut opened) = (0, 0);
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        fs::write(&file, &damaged).unwrap();
        match token.login(session, testkit::pins::USER) {
            Ok(()) => {
                token.raw.logout(session).unwrap();
                opened += 1;
            }
            Err(code) => {
                assert_eq!(code, Code(CKR_DEVICE_ERROR), "byte {at}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused} {opened}");
    assert_eq!(bench.tpm.lockout_counter(), 0);
    let log = bench.home.log();
    assert!(!log.contains("cleared or exchanged") && !log.contains("devid reset"));
    bench
        .home
        .log_says(&[".user.pem", "restore the file from a backup"]);
    fs::write(&file, &whole).unwrap();
    token.login(session, testkit::pins::USER).unwrap();
}

/// If the master key is missing, that is reported before a damaged file.
fn a_missing_master_is_still_told(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "web").unwrap();
    let file = file_of(&bench, "web");
    let text = fs::read_to_string(&file).unwrap();
    let handle = format!("0x{MASTER:08X}");
    let mut evict = bench.tpm.tool("tpm2_evictcontrol");
    testkit::programs::run(evict.args(["-C", "o", "-c", &handle])).ok();
    let lost = own.sign_data(own.key_called("web"), b"data");
    assert_eq!(lost, Err(Code(CKR_TOKEN_NOT_RECOGNIZED)));
    bench.home.log_says(&["is empty", "cleared or exchanged"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}
