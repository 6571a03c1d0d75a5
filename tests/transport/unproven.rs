//! The module trusts results of a TPM only after it has verified one result: signatures of each
//! scheme, and the seals of PINs.

use cryptoki_sys::*;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use testkit::devid::{self, Kind, Own};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::Opened;
use testkit::pins::{Bench, OFFICER, USER};
use testkit::proxy::{Book, Proxy, command, number_at};
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_both_transports!(
    the_first_signature_of_each_scheme_is_verified,
    a_scheme_that_was_proven_is_believed,
    a_token_is_not_initialised_by_a_seal_that_does_not_open,
);
over_our_transport!(
    a_pin_is_not_set_by_a_seal_that_does_not_open,
    padding_of_our_own_where_the_tpms_is_wrong,
);

/// From now on each signature is another number, with the size that it had.
fn signs_wrongly(book: &Book) {
    book.alter(command::SIGN, |_, mut answer| {
        let parameters = usize::try_from(number_at(&answer, 10)).unwrap();
        answer[14 + parameters - 1] ^= 1;
        answer
    });
}

fn the_first_signature_of_each_scheme_is_verified(link: Link) {
    for (template, mechanisms) in [
        ("h2", vec![CKM_ECDSA_SHA256]),
        ("h3", vec![CKM_ECDSA_SHA384]),
        (
            "h1",
            vec![
                CKM_SHA1_RSA_PKCS,
                CKM_SHA256_RSA_PKCS,
                CKM_SHA384_RSA_PKCS,
                CKM_SHA512_RSA_PKCS,
            ],
        ),
    ] {
        let (tpm, _identity) = Swtpm::manufactured_with(&["--template", template]);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let module = Opened::new(&home);
        let key = module.key();
        let mut proven = Vec::new();
        for mechanism in mechanisms {
            signs_wrongly(proxy.book());
            let refused = module.sign(mechanism, key, b"data");
            assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)), "{mechanism:#x}");
            home.log_says(&["cannot be verified with the public key", "discarded"]);
            proxy.book().heal();
            module.sign(mechanism, key, b"data").expect("a signature");
            proven.push(mechanism);
        }
        assert!(
            !home.log().contains("connection to the TPM failed"),
            "{}",
            home.log()
        );
        module.raw.finalize().unwrap();
    }
}

/// A steady signature is not verified: whoever can alter it can alter the first one.
fn a_scheme_that_was_proven_is_believed(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    module
        .sign(CKM_ECDSA_SHA256, key, b"data")
        .expect("a signature");
    signs_wrongly(proxy.book());
    module
        .sign(CKM_ECDSA_SHA256, key, b"data")
        .expect("a signature");
}

/// RSA keys of ours that may decrypt too sign by the private operation, if the TPM's scheme is wrong.
fn padding_of_our_own_where_the_tpms_is_wrong(link: Link) {
    let bench = devid::Bench::new(link);
    let own = Own::new(&bench.home);
    let both = [(CKA_DECRYPT, vec![CK_TRUE]), (CKA_SIGN, vec![CK_TRUE])];
    let key = own.make_with(Kind::Rsa(2048), &[], &both).unwrap().private;
    signs_wrongly(bench.proxy.book());
    own.signs(key);
    bench
        .home
        .log_says(&["the module makes the padding in software instead"]);
}

/// After the first `right` times the TPM's nonce is changed. So TPM and module compute different
/// keys of the auth session, as if one of them computed it wrongly.
fn computes_other_session_keys(book: &Book, right: usize) {
    let begun = AtomicUsize::new(0);
    book.alter(command::START_AUTH_SESSION, move |_, mut answer| {
        // Header, handle, size.
        answer[16] ^= u8::from(begun.fetch_add(1, Ordering::SeqCst) >= right);
        answer
    });
}

fn files(home: &Home) -> Vec<(String, Vec<u8>)> {
    let Ok(folder) = fs::read_dir(devid::folder(home)) else {
        return Vec::new();
    };
    let files = folder.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "pem"))
        .map(|path| {
            let content = fs::read(&path).unwrap();
            (path.display().to_string(), content)
        })
        .collect();
    files.sort();
    files
}

fn a_token_is_not_initialised_by_a_seal_that_does_not_open(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    // Now there is a master key.
    let session = token.read_write();
    let (public, private) = token.pair(session, "key", &[]);
    for key in [public, private] {
        let destroyed = call!(token.raw.table, C_DestroyObject(session, key)).result();
        destroyed.unwrap();
    }
    token.raw.close(session).unwrap();
    // The seal is made in one auth session, loaded in the next and opened in the third.
    for (right, what) in [
        (0, "the right authorisation value of the parent"),
        (1, "it did not load the new seal"),
        (2, "it rejected the right PIN as wrong"),
    ] {
        computes_other_session_keys(bench.proxy.book(), right);
        assert_eq!(token.init(OFFICER, "label"), Err(Code(CKR_DEVICE_ERROR)));
        bench.home.log_says(&[what, "the token is unchanged"]);
        assert_eq!(files(&bench.home), [], "no PIN and no key");
        bench.proxy.book().heal();
    }
    bench.counts(1);
    assert_eq!(
        token.flags() & CKF_LOGIN_REQUIRED,
        0,
        "keys need no PIN, as before"
    );
    token.become_one_with_pins();
    let session = token.read_write();
    token.login(session, USER).unwrap();
}

fn a_pin_is_not_set_by_a_seal_that_does_not_open(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    token.pair(session, "key", &[]);
    token.raw.logout(session).unwrap();
    let before = files(&bench.home);
    assert_eq!(before.len(), 3, "two seals and a key");

    // The old PIN is opened rightly, the new seal is not.
    let second_fails = |book: &Book| {
        let seen = AtomicBool::new(false);
        book.alter(command::UNSEAL, move |_, mut answer| {
            answer[16] ^= u8::from(seen.swap(true, Ordering::SeqCst));
            answer
        });
    };
    second_fails(bench.proxy.book());
    let refused = token.set_pin(session, USER, "another PIN");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    token.raw.close(session).unwrap();
    bench.proxy.book().heal();
    second_fails(bench.proxy.book());
    assert_eq!(token.init(OFFICER, "other"), Err(Code(CKR_DEVICE_ERROR)));
    assert_eq!(files(&bench.home), before, "the token is as it was");
    bench.proxy.book().heal();

    let session = token.read_write();
    token.officer(session, OFFICER).unwrap();
    computes_other_session_keys(bench.proxy.book(), 1);
    assert_eq!(
        token.init_pin(session, "a new PIN"),
        Err(Code(CKR_DEVICE_ERROR))
    );
    assert_eq!(files(&bench.home), before, "the token is as it was");
    bench.proxy.book().heal();
    token.init_pin(session, "a new PIN").unwrap();
    token.raw.logout(session).unwrap();
    token.login(session, "a new PIN").unwrap();
    let key = token.private_keys(session)[0];
    token.sign(session, key).unwrap();
}
