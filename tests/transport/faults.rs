//! Faults between a program and a TPM, and their forbidden effects: a module that does not work
//! until a restart, a host that hangs or gets lines on its stderr, a lockout.

use cryptoki_sys::*;
use std::time::{Duration, Instant};
use testkit::PROFILES;
use testkit::devid::{self, Kind, Own};
use testkit::factory::Identity;
use testkit::fronts::Simulator;
use testkit::home::Home;
use testkit::link::Link;
use testkit::managers::Broker;
use testkit::module::{Opened, identity, loaded, ulong};
use testkit::network;
use testkit::openssl::Verifier;
use testkit::programs::run;
use testkit::proxy::{Book, Fault, Proxy, answer, command};
use testkit::raw::Code;
use testkit::story::await_some;
use testkit::tpm::Swtpm;

over_both_transports!(
    answers_that_ask_for_another_try,
    a_tpm_that_always_asks_for_another_try,
    answers_that_are_final,
    broken_connections,
    broken_connections_while_reading,
    a_restart_between_two_signatures,
    a_power_cut_between_two_signatures,
    a_tpm_gone_for_good,
    another_tpm_in_its_place,
);
// libtss2's transport for swtpm waits for ever, that for tpm2-abrmd does not.
over_our_transport!(a_tpm_that_stalls, a_tpm_that_stalls_while_reading);
once!(
    a_command_that_did_not_arrive,
    a_tpm_that_stalls_behind_tpm2_abrmd,
    an_endorsement_key_that_was_left_over_keeps_no_slot,
    two_stalls_behind_tpm2_abrmd
);

/// A device behind a proxy, its module opened and used once, so that everything is known.
struct Bench {
    tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
    module: Opened,
    key: CK_OBJECT_HANDLE,
}

impl Bench {
    fn new(link: Link) -> Bench {
        Bench::with(link, "")
    }

    fn with(link: Link, config: &str) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        home.write("config.toml", config);
        let module = Opened::new(&home);
        let key = module.key();
        let bench = Bench {
            tpm,
            identity,
            proxy,
            home,
            module,
            key,
        };
        bench.signs();
        bench.proxy.book().take();
        bench
    }

    fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, Code> {
        self.module.sign(CKM_ECDSA, self.key, digest)
    }

    /// A valid signature, now.
    #[track_caller]
    fn signs(&self) {
        let digest = [0x5A; 32];
        let signature = self.sign(&digest).expect("a signature");
        Verifier::new(&self.identity.public_key())
            .accepts_digest(&digest, &signature)
            .ok();
    }

    /// The next command `code` meets `fault`; the signature works at once or the next one does.
    #[track_caller]
    fn survives(&self, fault: Fault) -> Option<Code> {
        self.proxy.book().break_next(command::SIGN, fault);
        let failed = self.sign(&[0x5A; 32]).err();
        assert!(self.proxy.book().all_broken(), "{fault:?} did not happen");
        self.signs();
        failed
    }

    fn searches(&self) -> usize {
        self.module
            .raw
            .find(self.module.session, &[])
            .expect("a search")
            .len()
    }
}

fn answers_that_ask_for_another_try(link: Link) {
    let bench = Bench::new(link);
    for code in [
        answer::RETRY,
        answer::YIELDED,
        answer::TESTING,
        answer::NV_RATE,
    ] {
        let failed = bench.survives(Fault::Code(code));
        assert_eq!(
            failed, None,
            "{code:#x} means that nothing was done: try again"
        );
    }
    for code in [answer::RETRY, answer::YIELDED, answer::TESTING] {
        bench
            .proxy
            .book()
            .break_times(command::SIGN, Fault::Code(code), 3);
        bench.signs();
        assert!(bench.proxy.book().all_broken());
    }
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn a_tpm_that_always_asks_for_another_try(link: Link) {
    let bench = Bench::with(link, "timeout_ms = 1500\n");
    for code in [answer::RETRY, answer::NV_RATE] {
        bench
            .proxy
            .book()
            .break_times(command::SIGN, Fault::Code(code), u32::MAX);
        assert_eq!(
            bench.sign(&[1; 32]),
            Err(Code(CKR_DEVICE_ERROR)),
            "{code:#x}"
        );
        bench.proxy.book().heal();
        // Pauses of 1, 2, 4 … 200 ms allow 15 tries within the limit; libtss2 makes five commands
        // of each try.
        let seen = bench.proxy.book().take();
        assert!(seen.total() < 100, "tries are paced, and end: {seen:?}");
        bench.signs();
    }
}

fn answers_that_are_final(link: Link) {
    let bench = Bench::new(link);
    for code in [answer::FAILURE, answer::LOCKOUT] {
        let failed = bench.survives(Fault::Code(code));
        assert_eq!(failed, Some(Code(CKR_DEVICE_ERROR)), "{code:#x}");
    }
    assert!(
        bench.home.log().to_lowercase().contains("lockout"),
        "{}",
        bench.home.log()
    );
    let failed = bench.survives(Fault::Code(answer::OBJECT_MEMORY));
    let allowed = [
        None,
        Some(Code(CKR_DEVICE_MEMORY)),
        Some(Code(CKR_DEVICE_ERROR)),
    ];
    assert!(allowed.contains(&failed), "{failed:?}");
}

/// A signature with empty authorisation is harmless twice: it is asked for again, on a new
/// connection.
fn broken_connections(link: Link) {
    let bench = Bench::new(link);
    for fault in [Fault::Drop, Fault::Lost, Fault::Half] {
        assert_eq!(bench.survives(fault), None, "{fault:?}");
    }
    // An answer that makes no sense may be an error.
    let failed = bench.survives(Fault::Garbage);
    assert!(
        [None, Some(Code(CKR_DEVICE_ERROR))].contains(&failed),
        "{failed:?}"
    );
    // Again and again is no transport's hiccup any more; but it never poisons.
    for fault in [Fault::Drop, Fault::Lost, Fault::Half, Fault::Garbage] {
        bench.proxy.book().break_times(command::SIGN, fault, 50);
        let failed = bench.sign(&[1; 32]).expect_err("a TPM that never answers");
        assert!(
            [CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED].contains(&failed.0),
            "{fault:?}: {failed:?}"
        );
        bench.proxy.book().heal();
        bench.signs();
    }
    assert_eq!(bench.searches(), 4 + PROFILES);
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn broken_connections_while_reading(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let raw = loaded(&home);
    for code in [
        command::NV_READ,
        command::NV_READ_PUBLIC,
        command::READ_PUBLIC,
    ] {
        for fault in [
            Fault::Drop,
            Fault::Half,
            Fault::Garbage,
            Fault::Code(answer::RETRY),
        ] {
            proxy.book().heal();
            proxy.book().break_next(code, fault);
            raw.initialize().unwrap();
            let slot = await_some("a token", Duration::from_secs(60), || identity(&raw));
            let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
            let found = raw
                .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
                .unwrap();
            assert_eq!(found.len(), 1, "{fault:?} on {code:#x}");
            raw.finalize().unwrap();
        }
    }
}

fn a_tpm_that_stalls(link: Link) {
    let bench = Bench::with(link, "timeout_ms = 1500\n");
    bench
        .proxy
        .book()
        .break_times(command::SIGN, Fault::Stall, u32::MAX);
    let begin = Instant::now();
    assert_eq!(bench.sign(&[1; 32]), Err(Code(CKR_DEVICE_ERROR)));
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(1000),
        "it is waited for: {took:?}"
    );
    // As long as the TPM is silent only the limit can end the call.
    bench.home.log_says(&["1500 ms"]);
    assert_eq!(bench.searches(), 4 + PROFILES, "what is known needs no TPM");
    bench.proxy.book().heal();
    bench.signs();
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

/// The queue of a software TPM may become full during a handshake. Then only the client has a
/// connection, and its kernel sends the command again and again, with pauses that double.
fn a_command_that_did_not_arrive() {
    if let Err(error) = network::enter_own() {
        println!("\nskipped: packets cannot be dropped here: {error}");
        return;
    }
    let arrives_once = |book: &Book, port: u16, sign: &dyn Fn()| {
        sign();
        book.take();
        network::drop_packets(port, 2000);
        sign();
        assert!(network::dropped() > 10, "too few packets were dropped");
        let seen = book.take();
        assert_eq!((seen.total(), seen.of(command::SIGN)), (1, 1));
    };
    let bench = Bench::new(Link::Ours);
    arrives_once(bench.proxy.book(), bench.proxy.port(), &|| bench.signs());
    // The protocol of the TPM simulator.
    let front = Simulator::new(&bench.tpm);
    bench.module.raw.finalize().unwrap();
    let module = Opened::new(&Home::new(&front.tcti()));
    let key = module.key();
    arrives_once(front.book(), front.port(), &|| {
        module.sign(CKM_ECDSA, key, &[0x5A; 32]).expect("C_Sign");
    });
}

fn a_tpm_that_stalls_behind_tpm2_abrmd() {
    let (tpm, identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(Broker::tcti());
    home.write("config.toml", "timeout_ms = 1500\n");
    let _broker = Broker::new(&proxy.tcti(), &home);
    let module = Opened::new(&home);
    let key = module.key();
    let sign = || module.sign(CKM_ECDSA, key, &[1; 32]);
    sign().expect("a signature");
    proxy
        .book()
        .break_times(command::SIGN, Fault::Stall, u32::MAX);
    // As long as the TPM is silent only the limit can end the call.
    assert_eq!(sign(), Err(Code(CKR_DEVICE_ERROR)));
    home.log_says(&["1500 ms"]);
    proxy.book().heal();
    let judge = Verifier::new(&identity.public_key());
    judge
        .accepts_digest(&[1; 32], &sign().expect("a signature"))
        .ok();
}

/// The second ends the connection, and with it the handles of what was loaded.
fn two_stalls_behind_tpm2_abrmd() {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(Broker::tcti());
    home.write("config.toml", "timeout_ms = 1500\n");
    let _broker = Broker::new(&proxy.tcti(), &home);
    let own = Own::new(&home);
    let keys = ["one", "two"].map(|name| own.make(Kind::P256, name).unwrap().private);
    keys.iter().for_each(|key| own.signs(*key));
    proxy
        .book()
        .break_times(command::SIGN, Fault::Stall, u32::MAX);
    for _ in 0..2 {
        let silent = own.sign_data(keys[0], b"data");
        assert_eq!(silent, Err(Code(CKR_DEVICE_ERROR)));
    }
    proxy.book().heal();
    for key in keys {
        await_some("a signature", Duration::from_secs(60), || {
            own.sign_data(key, b"data").ok()
        });
        own.signs(key);
    }
}

fn a_tpm_that_stalls_while_reading(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    home.write("config.toml", "timeout_ms = 1500\n");
    proxy
        .book()
        .break_times(command::NV_READ, Fault::Stall, u32::MAX);
    let raw = loaded(&home);
    raw.initialize().unwrap();
    // As long as the TPM is silent only the limit can end the call.
    assert_eq!(identity(&raw), None);
    home.log_says(&["1500 ms"]);
    proxy.book().heal();
    await_some("a token", Duration::from_secs(60), || identity(&raw));
}

fn a_restart_between_two_signatures(link: Link) {
    let (mut tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let (key, judge) = (module.key(), Verifier::new(&identity.public_key()));
    for round in 0..3 {
        let digest = [round; 32];
        let signature = module.sign(CKM_ECDSA, key, &digest).expect("a signature");
        judge.accepts_digest(&digest, &signature).ok();
        assert_eq!(tpm.lockout_counter(), 0);
        tpm.shut_down();
        tpm.restart();
    }
    let found = module
        .raw
        .find(module.session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    assert_eq!(
        found,
        Ok(vec![key]),
        "the session and the objects outlive it"
    );
}

fn a_power_cut_between_two_signatures(link: Link) {
    let (mut tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let (key, judge) = (module.key(), Verifier::new(&identity.public_key()));
    for round in 0..2 {
        let digest = [round; 32];
        let signature = module.sign(CKM_ECDSA, key, &digest).expect("a signature");
        judge.accepts_digest(&digest, &signature).ok();
        // The TPM counts one failed authorisation for the cut itself, and never more.
        assert!(tpm.lockout_counter() <= u32::from(round));
        tpm.kill();
        tpm.restart();
    }
}

fn a_tpm_gone_for_good(link: Link) {
    let mut bench = Bench::with(link, "timeout_ms = 1500\n");
    let raw_objects = bench.searches();
    bench.tpm.shut_down();
    for _ in 0..3 {
        let failed = bench.sign(&[1; 32]).expect_err("there is no TPM");
        assert!(
            [CKR_DEVICE_REMOVED, CKR_DEVICE_ERROR].contains(&failed.0),
            "{failed:?}"
        );
    }
    assert_eq!(bench.searches(), raw_objects);
    let (raw, session) = (&bench.module.raw, bench.module.session);
    raw.attribute(session, bench.key, CKA_EC_POINT)
        .expect("an attribute");
    let other = raw.open(bench.module.slot, CKF_SERIAL_SESSION);
    assert!(
        other.is_ok() || other == Err(Code(CKR_DEVICE_REMOVED)),
        "{other:?}"
    );
    bench.tpm.restart();
    bench.signs();
}

/// A handle is only a number: after a restart the key behind it may be another's. Then nothing
/// is signed in the first one's name.
fn another_tpm_in_its_place(link: Link) {
    let (mut tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    module.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    tpm.shut_down();
    module
        .sign(CKM_ECDSA, key, &[1; 32])
        .expect_err("there is no TPM");
    let (mut other, other_identity) = Swtpm::manufactured_with(&["--serial", "another"]);
    other.shut_down();
    testkit::tpm::copy_state(&other.state(), &tpm.state());
    tpm.restart();
    if let Ok(signature) = module.sign(CKM_ECDSA, key, &[2; 32]) {
        let judge = Verifier::new(&other_identity.public_key());
        let others = judge.accepts_digest(&[2; 32], &signature).status.success();
        assert!(
            !others,
            "signed with another key than the one that was asked for"
        );
    }
}

/// A killed `devid attest` leaves the endorsement key in the TPM. A key in a file needs two slots of three.
fn an_endorsement_key_that_was_left_over_keeps_no_slot() {
    let bench = devid::Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    let key = own.make(Kind::P256, "key").unwrap().private;
    own.signs(key);
    for name in ["one", "two"] {
        let mut make = bench.tpm.tool("tpm2_createek");
        make.args(["-G", "ecc", "-u", "/dev/null", "-c"]);
        run(make.arg(bench.home.path(name))).ok();
    }
    assert_eq!(bench.tpm.transients(), 2);
    own.signs(key);
}
