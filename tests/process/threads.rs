//! Many threads in one process, and many processes at one TPM.

use cryptoki_sys::*;
use std::thread;
use std::time::Duration;
use testkit::PROFILES;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, library};
use testkit::openssl::Verifier;
use testkit::programs::{poll, program, run};
use testkit::proxy::{Fault, Proxy, command};
use testkit::tpm::Swtpm;

over_both_transports!(
    threads_sign_at_once,
    threads_open_search_and_sign_at_once,
    attributes_do_not_wait_for_a_signature,
);
// libtss2 lets programs that are started inherit its connection, which then stays open.
over_our_transport!(processes_sign_at_once);

fn threads_sign_at_once(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    let signatures: Vec<(Vec<u8>, Vec<u8>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16_u8)
            .map(|number| {
                let (raw, slot) = (&module.raw, module.slot);
                scope.spawn(move || {
                    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
                    let sign = |round: u8| {
                        let digest = vec![number * 16 + round; 32];
                        raw.sign_init(session, CKM_ECDSA, key).unwrap();
                        (digest.clone(), raw.sign(session, &digest).unwrap())
                    };
                    let all: Vec<_> = (0..12).map(sign).collect();
                    raw.close(session).unwrap();
                    all
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(signatures.len(), 16 * 12);
    let judge = Verifier::new(&identity.public_key());
    for (digest, signature) in signatures {
        judge.accepts_digest(&digest, &signature).ok(); // and no thread has another's
    }
}

fn threads_open_search_and_sign_at_once(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    let (raw, slot) = (&module.raw, module.slot);
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for _ in 0..20 {
                    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
                    assert_eq!(raw.find(session, &[]).unwrap().len(), 4 + PROFILES);
                    raw.attribute(session, key, CKA_EC_POINT).unwrap();
                    raw.token_info(slot).unwrap();
                    if number % 2 == 0 {
                        raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
                        raw.sign_update(session, &[number; 100]).unwrap();
                        raw.sign_final(session).unwrap();
                    }
                    raw.close(session).unwrap();
                }
            });
        }
    });
}

fn attributes_do_not_wait_for_a_signature(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    let (raw, slot) = (&module.raw, module.slot);
    proxy.book().break_next(command::SIGN, Fault::Stall);
    thread::scope(|scope| {
        let signature = scope.spawn(|| module.sign(CKM_ECDSA, key, &[1; 32]));
        proxy.book().await_stall();
        let others = scope.spawn(|| {
            let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
            raw.attribute(session, key, CKA_EC_POINT).unwrap();
            assert_eq!(raw.find(session, &[]).unwrap().len(), 4 + PROFILES);
            raw.token_info(slot).unwrap();
            raw.slots(true).unwrap();
            raw.close(session).unwrap();
        });
        let finished = poll(Duration::from_secs(20), || {
            others.is_finished().then_some(())
        });
        let pending = !signature.is_finished();
        proxy.book().release();
        assert!(finished.is_some(), "what needs no TPM waits for it");
        assert!(pending, "the signature was under way all the time");
        signature.join().unwrap().unwrap();
    });
}

/// swtpm serves one connection at a time; nobody may keep it.
fn processes_sign_at_once(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    module.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    let data = home.write("data", [7; 32]);
    thread::scope(|scope| {
        for number in 0..6 {
            let (home, data, identity) = (&home, &data, &identity);
            scope.spawn(move || {
                let signature = home.path(&format!("signature-{number}"));
                let mut sign = program("pkcs11-tool");
                sign.arg("--module")
                    .arg(library())
                    .args(["--sign", "-m", "ECDSA"]);
                sign.args(["--label", "idev-id", "-i"])
                    .arg(data)
                    .arg("-o")
                    .arg(&signature);
                run(home.settle(&mut sign)).ok();
                let signature = std::fs::read(signature).unwrap();
                Verifier::new(&identity.public_key())
                    .accepts_digest(&[7; 32], &signature)
                    .ok();
            });
        }
        for _ in 0..30 {
            module.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
        }
    });
}
