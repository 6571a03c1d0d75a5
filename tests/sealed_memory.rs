//! The private scalar of a sealed key: in no file, not on the bus, in the process's memory only while
//! it is open, and there only where the kernel does not swap. The host is a forked child whose
//! memory is searched from outside, as in a core image.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::fork::Forked;
use common::memory::{contains, places};
use common::module::ulong;
use common::own::{NO, P256, YES, folder, generate};
use common::pins::{Bench, Token, USER, hex, key_with_value, unseal, unseal_by, value_derived};
use common::programs::{output, program, run};
use common::raw::Item;
use common::story::Link;
use cryptoki_sys::*;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::path::{Path, PathBuf};

// libtss2 keeps copies of what it unsealed.
over_our_link!(
    a_scalar_on_a_token_without_pin,
    a_scalar_on_a_token_with_pins,
);

const PROTECTION: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0004;
const SEALED: u64 = 2;

fn a_scalar_on_a_token_without_pin(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    let key = || {
        let files = folder(&bench.home);
        let holds = |path: &PathBuf| read(path).contains("ENCRYPTED PRIVATE KEY");
        (files.into_iter().find(holds).unwrap(), Vec::new())
    };
    nothing_shows(&bench, &token, None, key);
}

fn a_scalar_on_a_token_with_pins(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let key = || {
        let secret = unseal(&bench, &bench.path("state/devid/.user.pem"), USER).unwrap();
        let file = key_with_value(&bench);
        let value = value_derived(&file, &secret);
        (file, value)
    };
    nothing_shows(&bench, &token, Some(USER), key);
}

/// `key` gives the key's file, and its authorisation value.
fn nothing_shows(
    bench: &Bench,
    token: &Token,
    pin: Option<&str>,
    key: impl FnOnce() -> (PathBuf, Vec<u8>),
) {
    bench.proxy.book().keep();
    let (from_parent, mut to_child) = pipe().unwrap();
    let (mut from_child, to_parent) = pipe().unwrap();
    let child = Forked::new(|| live(token, pin, from_parent, to_parent));
    let mut next = |open: bool| {
        if !open {
            to_child.write_all(&[0]).unwrap();
        }
        from_child.read_exact(&mut [0]).expect("the host lives");
    };
    next(true);
    let host = u32::try_from(child.id()).unwrap();
    let wire = bench.proxy.book().wire();
    let (file, value) = key();
    let (sealing, scalar) = opened(bench, &file, &value);

    // What must be there is found: so the search sees. It is where the kernel does not swap.
    let held = places(host, &scalar);
    assert!(
        !held.is_empty() && held.iter().all(|place| place.locked),
        "{held:?}"
    );
    for half in [&scalar[..16], &scalar[16..]] {
        assert!(places(host, half).iter().all(|place| place.locked));
    }
    assert_eq!(places(host, &sealing), [], "what opens the file");
    for packet in &wire {
        assert!(!contains(packet, &scalar) && !contains(packet, &sealing));
    }
    for path in files(&bench.home.path("")) {
        // Without the ends of lines, which may lie anywhere in base 64.
        let mut bytes = fs::read(&path).unwrap();
        bytes.retain(|&byte| byte != b'\n');
        for secret in [&scalar, &sealing] {
            for form in forms(secret) {
                assert!(!contains(&bytes, &form), "{}", path.display());
            }
        }
    }
    for when in ["C_Logout", "C_Finalize"] {
        next(false);
        if pin.is_some() || when == "C_Finalize" {
            assert_eq!(places(host, &scalar), [], "after {when}");
            assert_eq!(places(host, &scalar[..16]), [], "after {when}");
        }
    }
    to_child.write_all(&[0]).unwrap();
    child.succeeds();
}

/// The host: makes the key, uses it, waits, logs out, waits, ends, waits.
fn live(token: &Token, pin: Option<&str>, mut orders: PipeReader, mut reports: PipeWriter) {
    let mut wait = || {
        reports.write_all(&[0]).unwrap();
        orders.read_exact(&mut [0]).unwrap();
    };
    token.raw.initialize().unwrap();
    let session = token.read_write();
    if let Some(pin) = pin {
        token.login(session, pin).unwrap();
    }
    let both: [Item; 1] = [(CKA_TOKEN, YES.to_vec())];
    let open = [(CKA_PRIVATE, NO.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
    let sealed = [(PROTECTION, ulong(SEALED)), (CKA_DERIVE, YES.to_vec())];
    let (public, private) = ([&both[..], &open].concat(), [&both[..], &sealed].concat());
    let raw = &token.raw;
    let made = generate(raw, session, CKM_EC_KEY_PAIR_GEN, &public, &private);
    let (_, key) = made.expect("C_GenerateKeyPair");
    for _ in 0..3 {
        token.sign(session, key).expect("C_Sign");
    }
    wait();
    if pin.is_some() {
        raw.logout(session).unwrap();
    }
    wait();
    raw.finalize().unwrap();
    wait();
}

/// What the seal in a key's file holds, and the private scalar: by tpm2-tools and OpenSSL.
fn opened(bench: &Bench, file: &Path, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let sealing = unseal_by(bench, file.to_str().unwrap(), value).unwrap();
    let text = read(file);
    let begin = text.find("-----BEGIN ENCRYPTED PRIVATE KEY").unwrap();
    let encrypted = bench.home.write("encrypted.pem", &text[begin..]);
    let password = format!("pass:{}", hex(&sealing));
    let mut open = program("openssl");
    open.args([
        "pkey",
        "-traditional",
        "-outform",
        "DER",
        "-passin",
        &password,
    ]);
    let der = run(open.arg("-in").arg(encrypted)).ok().out;
    // ECPrivateKey (RFC 5915): version 1, then the scalar.
    assert_eq!(der[2..7], [2, 1, 1, 4, 32]);
    fs::remove_file(bench.home.path("encrypted.pem")).unwrap();
    (sealing, der[7..39].to_vec())
}

/// As itself, in hexadecimal digits, and in base 64 wherever it begins in a group of three bytes.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let digits = hex(secret);
    let mut forms = vec![
        secret.to_vec(),
        digits.to_uppercase().into_bytes(),
        digits.into_bytes(),
    ];
    let scratch = tempfile::NamedTempFile::new().unwrap();
    for skip in 0..3 {
        fs::write(scratch.path(), &secret[skip..skip + 24]).unwrap();
        let path = scratch.path().to_str().unwrap();
        forms.push(output("openssl", ["base64", "-A", "-in", path]));
    }
    forms
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let find = output("find", [folder.to_str().unwrap(), "-type", "f"]);
    let text = String::from_utf8(find).unwrap();
    text.lines().map(PathBuf::from).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
