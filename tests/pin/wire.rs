//! The data that a listener on the bus gets of a PIN, and the processor time of a signature with PIN.

use cryptoki_sys::*;
use std::time::Duration;
use testkit::devid::PERSISTENT;
use testkit::home::Home;
use testkit::link::Link;
use testkit::memory::contains;
use testkit::own::{YES, slot_of};
use testkit::pins::{Bench, OFFICER, Token, USER, key_value, unseal, value_of};
use testkit::programs::thread_time;
use testkit::tpm::Swtpm;

over_both_transports!(nothing_of_a_pin_on_the_wire, nothing_of_a_pin_in_the_log,);
over_our_transport!(the_cpu_of_a_signature);

const FLAG: fn() -> Vec<u8> = || YES.to_vec();

/// The PIN, its authorisation value, the token's secret, and the value that opens a key.
fn secrets(bench: &Bench) -> Vec<(&'static str, Vec<u8>)> {
    let seal = bench.path("state/devid/.user.pem");
    let secret = unseal(bench, &seal, USER).unwrap();
    assert_eq!(secret.len(), 32);
    let derived = key_value(bench, &secret);
    vec![
        ("the PIN", USER.as_bytes().to_vec()),
        ("the officer's PIN", OFFICER.as_bytes().to_vec()),
        ("SHA-256 of the PIN", value_of(USER)),
        ("SHA-256 of the officer's PIN", value_of(OFFICER)),
        ("the token's secret", secret),
        ("the key's authorisation value", derived),
    ]
}

fn nothing_of_a_pin_on_the_wire(link: Link) {
    let bench = Bench::new(link);
    bench.proxy.book().keep();
    let token = bench.token();
    token.become_one_with_pins();
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (public, key) = token.pair(session, "key", &[]);
    let judge = token.verifier(&bench, session, public);
    let signature = token.sign(session, key).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    token.raw.logout(session).unwrap();
    assert!(token.login(session, "a wrong one").is_err());
    let wire = bench.proxy.book().wire();
    assert!(wire.len() > 20);
    let is_seen = |bytes: &[u8]| wire.iter().any(|packet| contains(packet, bytes));
    // The search finds data that did cross the bus: the signature's r.
    assert!(is_seen(&signature[..32]));
    let mut all = secrets(&bench);
    all.push(("the wrong PIN", b"a wrong one".to_vec()));
    all.push(("SHA-256 of the wrong PIN", value_of("a wrong one")));
    for (what, bytes) in all {
        assert!(!is_seen(&bytes), "{what} is on the wire");
    }
    bench.idev_id_signs(&token.raw, 1);
}

fn nothing_of_a_pin_in_the_log(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (_, key) = token.pair(session, "key", &[(CKA_ALWAYS_AUTHENTICATE, FLAG())]);
    token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    token.prove(session, USER).unwrap();
    token.raw.sign(session, b"data").unwrap();
    token.set_pin(session, USER, "second PIN").unwrap();
    token.set_pin(session, "second PIN", USER).unwrap();
    token.raw.logout(session).unwrap();
    assert!(token.login(session, "a wrong one").is_err());
    let log = bench.home.log();
    assert!(log.contains("PIN: wrong PIN"), "the log is at trace");
    let mut all = secrets(&bench);
    all.push(("the wrong PIN", b"a wrong one".to_vec()));
    all.push(("SHA-256 of the wrong PIN", value_of("a wrong one")));
    all.push(("another PIN", b"second PIN".to_vec()));
    for (what, bytes) in all {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let decimal = format!("{bytes:?}");
        let lower = log.to_lowercase();
        for shown in [hex, decimal.trim_matches(['[', ']']).to_owned()] {
            assert!(!lower.contains(&shown), "{what} is in the log");
        }
        if let Ok(text) = String::from_utf8(bytes) {
            assert!(
                !lower.contains(&text.to_lowercase()),
                "{what} is in the log"
            );
        }
    }
    bench.counts(1);
}

/// The processor time of this thread, with the kernel's, for signatures with PIN. The key is
/// persistent, and the TPM is another process at a socket. The limit is for a release build.
fn the_cpu_of_a_signature(link: Link) {
    const ROUNDS: u32 = 30;
    const LIMIT: Duration = Duration::from_micros(150);
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let raw = testkit::module::loaded(&home);
    home.quiet();
    raw.initialize().unwrap();
    let slot = slot_of(&raw, "devid");
    let token = Token { raw, slot };
    token.become_one_with_pins();
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (_, key) = token.pair(session, "persistent", &[(PERSISTENT, FLAG())]);
    token.sign(session, key).unwrap();
    // The best of several: a busy machine takes the caches away.
    let round = |_| {
        let before = thread_time();
        for _ in 0..ROUNDS {
            token.sign(session, key).unwrap();
        }
        (thread_time() - before) / ROUNDS
    };
    let all = (0..10).map(round).min().unwrap();
    println!("CPU of a signature with PIN: {all:?}");
    // A debug build is slower by far, and by how much says nothing.
    assert!(cfg!(debug_assertions) || all <= LIMIT, "{all:?}");
}
