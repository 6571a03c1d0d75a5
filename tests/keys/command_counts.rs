//! The number of TPM commands for the device's own keys. The commands are counted between module
//! and TPM, or between resource manager and TPM.

use cryptoki_sys::*;
use std::fs;
use std::time::Instant;
use testkit::budgets::commands::{
    GENERATION, PERSISTENCE, SIGNATURE, SIGNATURE_LOADED, SIGNATURE_WRAPPED,
};
use testkit::devid::{Bench, Kind, Own, TPM_PUBLIC, copy_key, folder, label};
use testkit::home::Home;
use testkit::link::Link;
use testkit::managers::{Broker, Kernel};
use testkit::module::ulong;
use testkit::proxy::{Proxy, Seen, command};
use testkit::tpm::Swtpm;

over_both_transports!(
    a_new_key_costs_a_proof,
    a_key_in_a_handle_costs_one,
    a_key_on_the_disk_costs_three_on_a_bare_tpm,
    a_thousand_pairs_are_listed_without_the_tpm,
    a_key_stays_loaded_behind_the_kernels_manager,
    nine_keys_take_turns_in_eight_places,
    a_dropped_connection_costs_a_load,
);
// libtss2 alone speaks to tpm2-abrmd.
once!(a_key_stays_loaded_behind_tpm2_abrmd);

const CREATE: u32 = 0x153;
const CREATE_PRIMARY: u32 = 0x131;
const LOAD: u32 = 0x157;
const FLUSH_CONTEXT: u32 = 0x165;

/// Signs `times` times, and OpenSSL accepts each.
#[track_caller]
fn sign(own: &Own, key: CK_OBJECT_HANDLE, times: usize) {
    for _ in 0..times {
        own.signs(key);
    }
}

/// Once there is a master key: TPM2_ReadPublic of that, and what the key costs.
fn a_new_key_costs_a_proof(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    // The first RSA key asks once for the algorithms of the TPM.
    own.make(Kind::Rsa(2048), "second").unwrap();
    let codes = |seen: Seen| -> Vec<u32> { seen.0.iter().map(|(code, _)| *code).collect() };
    let expected = [&[command::READ_PUBLIC], GENERATION].concat();
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        bench.proxy.book().take();
        own.make(kind, "key").unwrap();
        assert_eq!(codes(bench.proxy.book().take()), expected);
        own.make_persistent(kind, "kept").unwrap();
        let seen = codes(bench.proxy.book().take());
        assert_eq!(seen, [&expected[..], PERSISTENCE].concat());
    }
}

fn a_key_in_a_handle_costs_one(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        let key = own.make_persistent(kind, "key").unwrap().private;
        sign(&own, key, 1);
        bench.proxy.book().take();
        sign(&own, key, 5);
        let seen = bench.proxy.book().take();
        assert_eq!(
            (seen.total(), seen.answered(command::SIGN, 0)),
            (5 * SIGNATURE, 5),
            "{seen:?}"
        );
    }
}

fn a_key_on_the_disk_costs_three_on_a_bare_tpm(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let key = own.make(Kind::P256, "key").unwrap().private;
    let of_session = own.make_with(Kind::P256, &[], &[]).unwrap().private;
    for key in [key, of_session] {
        sign(&own, key, 1);
        bench.proxy.book().take();
        sign(&own, key, 5);
        let seen = bench.proxy.book().take();
        let counts = [LOAD, command::SIGN, FLUSH_CONTEXT].map(|code| seen.answered(code, 0));
        assert_eq!(
            (seen.total(), counts),
            (5 * SIGNATURE_WRAPPED, [5, 5, 5]),
            "{seen:?}"
        );
    }
}

/// As many files as pairs; all of one key, since it is the files that are read.
fn a_thousand_pairs_are_listed_without_the_tpm(link: Link) {
    const PAIRS: usize = 1000;
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "original").unwrap();
    own.raw.finalize().unwrap();
    copy_key(&bench.folder(), "original", 1..PAIRS);
    bench.proxy.book().take();

    let begun = Instant::now();
    let own = Own::new(&bench.home);
    let keys = own.keys();
    let listed = begun.elapsed();
    assert_eq!(keys.len(), PAIRS);
    for key in &keys {
        own.label(*key);
        own.attribute(*key, TPM_PUBLIC);
    }
    assert_eq!(own.labels(CKO_PUBLIC_KEY).len(), PAIRS);
    let read = begun.elapsed();
    let again = Instant::now();
    assert_eq!(
        own.key_called("999"),
        own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), label("999")])[0]
    );
    println!(
        "\n{PAIRS} pairs: listed {listed:?}, with attributes {read:?}, two searches {:?}",
        again.elapsed()
    );
    let seen = bench.proxy.book().take();
    // Slot 0 looks for its identity; of it there is none.
    let of_identity = seen.of(command::GET_CAPABILITY) + seen.of(command::READ_PUBLIC);
    assert_eq!(seen.total(), of_identity, "{seen:?}");
    a_new_look_costs_nothing(&bench, &own, PAIRS);
    sign(&own, own.key_called("999"), 1);
}

/// The token that has the keys is looked at anew, and all is listed, with no command at all.
#[track_caller]
fn a_new_look_costs_nothing(bench: &Bench, own: &Own, pairs: usize) {
    fs::write(bench.folder().join("one-more.pem"), "damaged").unwrap();
    bench.proxy.book().take();
    assert_eq!(own.keys().len(), pairs);
    own.raw.token_info(own.slot).unwrap();
    let seen = bench.proxy.book().take();
    assert_eq!(seen.total(), 0, "{seen:?}");
}

/// A TPM behind the kernel's manager.
fn managed(link: Link) -> (Swtpm, Home, Kernel) {
    let tpm = Swtpm::blank();
    // The home knows its TPM by its own path, so it is made twice.
    let home = Home::new("");
    let kernel = Kernel::new(&tpm, &home);
    let tcti = link.tcti(&kernel.tcti());
    home.write(
        "config.toml",
        format!("tcti = \"{tcti}\"\ntimeout_ms = 5000\n"),
    );
    (tpm, home, kernel)
}

/// Loads and signatures, and that no key was made.
#[track_caller]
fn loads_and_signatures(seen: &Seen) -> (usize, usize) {
    assert_eq!(seen.of(CREATE) + seen.of(CREATE_PRIMARY), 0, "{seen:?}");
    (seen.of(LOAD), seen.of(command::SIGN))
}

fn a_key_stays_loaded_behind_the_kernels_manager(link: Link) {
    let (_tpm, home, kernel) = managed(link);
    let own = Own::new(&home);
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        let key = own.make(kind, "key").unwrap().private;
        sign(&own, key, 1);
        kernel.book().take();
        sign(&own, key, 10);
        let seen = kernel.book().take();
        assert_eq!(
            (seen.total(), seen.answered(command::SIGN, 0)),
            (10 * SIGNATURE_LOADED, 10),
            "{seen:?}"
        );
    }
}

fn nine_keys_take_turns_in_eight_places(link: Link) {
    let (_tpm, home, kernel) = managed(link);
    let own = Own::new(&home);
    let generate = |at: usize| own.make(Kind::P256, &at.to_string()).unwrap().private;
    let keys: Vec<_> = (0..9).map(generate).collect();
    for key in &keys {
        sign(&own, *key, 1);
    }
    let costs = |keys: &[CK_OBJECT_HANDLE]| {
        kernel.book().take();
        keys.iter().for_each(|key| sign(&own, *key, 1));
        loads_and_signatures(&kernel.book().take())
    };
    let mut last_eight = keys[1..].to_vec();
    assert_eq!(costs(&last_eight), (0, 8), "they are all loaded");
    last_eight.reverse();
    assert_eq!(costs(&last_eight), (0, 8));
    // The ninth was used the longest ago, and goes.
    assert_eq!(costs(&keys[..1]), (1, 1));
    assert_eq!(costs(&keys[..8]), (0, 8));
    assert_eq!(costs(&keys[8..]), (1, 1));
    assert_eq!(costs(&keys[1..8]), (0, 7));
    // In turn, each is the one that went before it is needed: that is what a ninth key costs.
    costs(&keys);
    assert_eq!(costs(&keys), (9, 9));
}

fn a_dropped_connection_costs_a_load(link: Link) {
    let (_tpm, home, mut kernel) = managed(link);
    let own = Own::new(&home);
    let key = own.make(Kind::P256, "key").unwrap().private;
    sign(&own, key, 2);
    for _ in 0..3 {
        kernel.drop_connections();
        kernel.book().take();
        sign(&own, key, 1);
        assert_eq!(loads_and_signatures(&kernel.book().take()), (1, 1));
        sign(&own, key, 3);
        assert_eq!(loads_and_signatures(&kernel.book().take()), (0, 3));
    }
}

fn a_key_stays_loaded_behind_tpm2_abrmd() {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(Broker::tcti());
    let _broker = Broker::new(&proxy.tcti(), &home);
    let own = Own::new(&home);
    let generate = |at: usize| own.make(Kind::P256, &at.to_string()).unwrap().private;
    let mut keys: Vec<_> = (0..3).map(generate).collect();
    keys.push(own.make_persistent(Kind::P256, "kept").unwrap().private);
    for key in &keys {
        sign(&own, *key, 1);
    }
    for key in &keys {
        proxy.book().take();
        sign(&own, *key, 5);
        let seen = proxy.book().take();
        assert_eq!(loads_and_signatures(&seen), (0, 5), "{seen:?}");
        println!("\nfive signatures below tpm2-abrmd: {seen:?}");
    }
    assert!(folder(&home).is_dir());
}
