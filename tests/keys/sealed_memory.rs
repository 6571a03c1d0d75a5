//! The private scalar of a sealed key is in no file and never on the bus. It is in the process's
//! memory only while the key is open, and only in pages that are not swapped. The host is a forked
//! child whose memory is searched from outside, as in a core image.

use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::devid::{PROTECTION, SEALED};
use testkit::link::Link;
use testkit::memory::{Host, contains, places};
use testkit::module::ulong;
use testkit::own::{NO, P256, YES, folder, generate};
use testkit::pins::{Bench, Token, USER, hex, key_with_value, unseal, unseal_by, value_derived};
use testkit::programs::{output, program, run};
use testkit::proxy::{Fault, command};
use testkit::raw::Item;

// libtss2 keeps copies of what it unsealed.
over_our_transport!(
    a_scalar_on_a_token_without_pin,
    a_scalar_on_a_token_with_pins,
    a_logout_while_a_key_is_opened,
    a_logout_while_a_key_is_in_use_and_its_file_changed,
);

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
    nothing_shows(&bench, &token, Some(USER), || guarded(&bench));
}

/// The file of the key, and its authorisation value.
fn guarded(bench: &Bench) -> (PathBuf, Vec<u8>) {
    let secret = unseal(bench, &bench.path("state/devid/.user.pem"), USER).unwrap();
    let file = key_with_value(bench);
    let value = value_derived(&file, &secret);
    (file, value)
}

/// The TPM gives the key when nobody is logged in any more.
fn a_logout_while_a_key_is_opened(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let mut host = Host::new(|wait| {
        token.raw.initialize().unwrap();
        let session = token.read_write();
        token.login(session, USER).unwrap();
        let key = sealed_key(&token, session);
        wait();
        std::thread::scope(|scope| {
            scope.spawn(|| token.sign(session, key));
            wait();
            token.raw.logout(session).unwrap();
            wait();
        });
        wait();
    });
    host.waits();
    let (file, value) = guarded(&bench);
    let (_, scalar) = opened(&bench, &file, &value);
    bench.proxy.book().break_next(command::UNSEAL, Fault::Stall);
    host.goes_on();
    bench.proxy.book().await_stall();
    host.goes_on();
    bench.proxy.book().release();
    host.goes_on();
    assert_eq!(places(host.id(), &scalar), []);
    host.ends();
}

/// Meanwhile the token shows another object.
fn a_logout_while_a_key_is_in_use_and_its_file_changed(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let mut host = Host::new(|wait| {
        token.raw.initialize().unwrap();
        let session = token.read_write();
        token.login(session, USER).unwrap();
        let key = sealed_key(&token, session);
        token.sign(session, key).unwrap();
        token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
        wait();
        let label = [(CKA_LABEL, b"another".to_vec())];
        assert_eq!(token.raw.find(session, &label).unwrap().len(), 2);
        token.raw.logout(session).unwrap();
        wait();
    });
    host.waits();
    let (file, value) = guarded(&bench);
    let (_, scalar) = opened(&bench, &file, &value);
    assert!(!places(host.id(), &scalar).is_empty());
    let text = read(&file);
    let changed = text.replace("Label: sealed", "Label: another");
    assert_ne!(text, changed);
    fs::write(&file, changed).unwrap();
    host.goes_on();
    assert_eq!(places(host.id(), &scalar), []);
    host.ends();
}

/// `key` gives the key's file, and its authorisation value.
fn nothing_shows(
    bench: &Bench,
    token: &Token,
    pin: Option<&str>,
    key: impl FnOnce() -> (PathBuf, Vec<u8>),
) {
    bench.proxy.book().keep();
    let mut host = Host::new(|wait| live(token, pin, wait));
    host.waits();
    let wire = bench.proxy.book().wire();
    let (file, value) = key();
    let (sealing, scalar) = opened(bench, &file, &value);

    // The search finds data that must be there, which proves the search. The data is in pages that
    // are not swapped.
    let held = places(host.id(), &scalar);
    assert!(
        !held.is_empty() && held.iter().all(|place| place.locked),
        "{held:?}"
    );
    for half in [&scalar[..16], &scalar[16..]] {
        assert!(places(host.id(), half).iter().all(|place| place.locked));
    }
    assert_eq!(places(host.id(), &sealing), [], "what opens the file");
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
        host.goes_on();
        if pin.is_some() || when == "C_Finalize" {
            assert_eq!(places(host.id(), &scalar), [], "after {when}");
            assert_eq!(places(host.id(), &scalar[..16]), [], "after {when}");
        }
    }
    host.ends();
}

/// The host: makes the key, uses it, waits, logs out, waits, ends, waits.
fn live(token: &Token, pin: Option<&str>, wait: &mut dyn FnMut()) {
    token.raw.initialize().unwrap();
    let session = token.read_write();
    if let Some(pin) = pin {
        token.login(session, pin).unwrap();
    }
    let key = sealed_key(token, session);
    for _ in 0..3 {
        token.sign(session, key).expect("C_Sign");
    }
    wait();
    if pin.is_some() {
        token.raw.logout(session).unwrap();
    }
    wait();
    token.raw.finalize().unwrap();
    wait();
}

fn sealed_key(token: &Token, session: CK_SESSION_HANDLE) -> CK_OBJECT_HANDLE {
    let both: [Item; 2] = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, b"sealed".to_vec())];
    let open = [(CKA_PRIVATE, NO.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
    let sealed = [(PROTECTION, ulong(SEALED))];
    let (public, private) = ([&both[..], &open].concat(), [&both[..], &sealed].concat());
    let by = CKM_EC_KEY_PAIR_GEN;
    let made = generate(&token.raw, session, by, &public, &private);
    made.expect("C_GenerateKeyPair").1
}

/// The content of the seal in a key's file, and the private scalar, by tpm2-tools and OpenSSL.
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
