//! The PINs of the token `devid`, call by call (PKCS#11 3.0, sections 5.5.8, 5.5.9 and 5.6.6 to
//! 5.6.10): the rights of each user, and the effect on objects.

use cryptoki_sys::*;
use std::fs;
use std::ptr;
use std::thread;
use testkit::devid::PERSISTENT;
use testkit::link::Link;
use testkit::own::{NO, YES, change, create, folder, generate};
use testkit::own::{P256, slot_of};
use testkit::pins::{Bench, LABEL, OFFICER, Token, USER};
use testkit::proxy::{Fault, command};
use testkit::raw::{Code, text};

over_our_transport!(
    a_token_becomes_one_with_pins,
    who_may_be_there_at_once,
    a_token_with_objects_is_nobodys_to_take,
    the_officer_begins_anew_and_all_is_destroyed,
    the_officer_sets_the_users_pin,
    a_pin_is_changed_by_whoever_knows_it,
    what_is_private_is_unseen_until_login,
    a_key_that_asks_each_time,
    a_session_that_comes_while_the_officer_logs_in,
);

fn a_token_becomes_one_with_pins(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    assert_eq!(token.flags() & CKF_LOGIN_REQUIRED, 0);
    // The token has no PIN, so no PIN is wrong, and the TPM is not asked.
    let session = token.read_write();
    assert_eq!(token.login(session, "whatever"), Ok(()));
    let refused = token.init(OFFICER, LABEL);
    assert_eq!(refused, Err(Code(CKR_SESSION_EXISTS)));
    token.raw.close(session).unwrap();

    for wrong in ["", "123", &"1".repeat(65)] {
        let refused = token.init(wrong, LABEL);
        assert_eq!(refused, Err(Code(CKR_PIN_LEN_RANGE)), "{wrong:?}");
    }
    token.init(OFFICER, LABEL).unwrap();
    let info = token.raw.token_info(token.slot).unwrap();
    assert_eq!(text(&info.label), LABEL);
    assert_eq!((info.ulMinPinLen, info.ulMaxPinLen), (4, 64));
    let set = CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED;
    assert_eq!(info.flags & set, set & !CKF_USER_PIN_INITIALIZED);
    // Only its officer, until he has let users in.
    let session = token.read_write();
    let early = token.login(session, USER);
    assert_eq!(early, Err(Code(CKR_USER_PIN_NOT_INITIALIZED)));
    token.officer(session, OFFICER).unwrap();
    token.init_pin(session, USER).unwrap();
    token.raw.logout(session).unwrap();
    assert_eq!(token.flags() & set, set);

    token.login(session, USER).unwrap();
    let (public, private) = token.pair(session, "first", &[]);
    let judge = token.verifier(&bench, session, public);
    let signature = token.sign(session, private).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    // All of it is still so for the next process.
    token.raw.finalize().unwrap();
    token.raw.initialize().unwrap();
    let session = token.read_only();
    token.login(session, USER).unwrap();
    let key = token.private_keys(session)[0];
    let signature = token.sign(session, key).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    bench.idev_id_signs(&token.raw, 0);
}

fn who_may_be_there_at_once(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let (one, other) = (token.read_write(), token.read_only());
    // The officer, not beside a read-only session.
    let refused = token.officer(one, OFFICER);
    assert_eq!(refused, Err(Code(CKR_SESSION_READ_ONLY_EXISTS)));
    token.raw.close(other).unwrap();
    token.officer(one, OFFICER).unwrap();
    assert_eq!(token.state(one), CKS_RW_SO_FUNCTIONS);
    let refused = token.raw.open(token.slot, CKF_SERIAL_SESSION);
    assert_eq!(refused, Err(Code(CKR_SESSION_READ_WRITE_SO_EXISTS)));
    let refused = token.officer(one, OFFICER);
    assert_eq!(refused, Err(Code(CKR_USER_ALREADY_LOGGED_IN)));
    let refused = token.login(one, USER);
    assert_eq!(refused, Err(Code(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)));
    // An officer uses no keys and makes none that are private.
    let template = [(CKA_EC_PARAMS, P256.to_vec())];
    let private = [(CKA_PRIVATE, YES.to_vec())];
    let made = generate(&token.raw, one, CKM_EC_KEY_PAIR_GEN, &template, &private);
    assert_eq!(made, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    token.raw.logout(one).unwrap();
    assert_eq!(token.raw.logout(one), Err(Code(CKR_USER_NOT_LOGGED_IN)));

    // One login holds for all sessions of the token, and for no other token.
    let other = token.read_only();
    token.login(other, USER).unwrap();
    assert_eq!(token.state(one), CKS_RW_USER_FUNCTIONS);
    assert_eq!(token.state(other), CKS_RO_USER_FUNCTIONS);
    let idev_id = slot_of(&token.raw, "idev-id");
    let third = token.raw.open(idev_id, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(token.state(third), CKS_RO_PUBLIC_SESSION);
    // The login ends with the last session.
    token.raw.close(other).unwrap();
    assert_eq!(token.state(one), CKS_RW_USER_FUNCTIONS);
    let refused = token.officer(one, OFFICER);
    assert_eq!(refused, Err(Code(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)));
    token.raw.close(one).unwrap();
    let one = token.read_write();
    assert_eq!(token.state(one), CKS_RW_PUBLIC_SESSION);
    let impossible = token.raw.login(one, 7, USER.as_bytes());
    assert_eq!(impossible, Err(Code(CKR_USER_TYPE_INVALID)));
    bench.idev_id_signs(&token.raw, 0);
}

/// Either it comes first or the officer does; never are both there.
fn a_session_that_comes_while_the_officer_logs_in(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    let book = bench.proxy.book();
    book.break_next(command::UNSEAL, Fault::Stall);
    thread::scope(|scope| {
        let login = scope.spawn(|| token.officer(session, OFFICER));
        book.await_stall();
        let other = token.read_only();
        book.release();
        let refused = login.join().unwrap();
        assert_eq!(refused, Err(Code(CKR_SESSION_READ_ONLY_EXISTS)));
        assert_eq!(token.state(other), CKS_RO_PUBLIC_SESSION);
        token.raw.close(other).unwrap();
    });
    token.officer(session, OFFICER).unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

fn a_token_with_objects_is_nobodys_to_take(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    let session = token.read_write();
    let (public, private) = token.pair(session, "provisioned", &[]);
    let judge = token.verifier(&bench, session, public);
    token.raw.close(session).unwrap();
    let refused = token.init(OFFICER, LABEL);
    assert_eq!(refused, Err(Code(CKR_PIN_INCORRECT)));
    bench.home.log_says(&[
        "holds objects but has no PIN of a security officer",
        "destroy",
    ]);
    let session = token.read_write();
    let signature = token.sign(session, private).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    assert_eq!(token.flags() & CKF_LOGIN_REQUIRED, 0);
    // Nor is the factory's.
    let idev_id = slot_of(&token.raw, "idev-id");
    let (mut pin, mut label) = (*b"12345", [b' '; 32]);
    let (pin, label) = (pin.as_mut_ptr(), label.as_mut_ptr());
    let refused = call!(token.raw.table, C_InitToken(idev_id, pin, 5, label));
    assert_eq!(refused, Code(CKR_TOKEN_WRITE_PROTECTED));
    bench.idev_id_signs(&token.raw, 0);
}

fn the_officer_begins_anew_and_all_is_destroyed(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    token.pair(session, "wrapped", &[]);
    token.pair(session, "persistent", &[(PERSISTENT, YES.to_vec())]);
    assert!(bench.holds(0x8100_0100));
    token.raw.close(session).unwrap();
    assert_eq!(
        token.init("another's PIN", LABEL),
        Err(Code(CKR_PIN_INCORRECT))
    );
    assert_eq!(folder(&bench.home).len(), 4, "two keys and two seals");
    assert!(bench.holds(0x8100_0100));

    token.init(OFFICER, "anew").unwrap();
    assert!(!bench.holds(0x8100_0100), "no key stays in the TPM");
    assert_eq!(folder(&bench.home).len(), 1, "the officer's seal");
    let info = token.raw.token_info(token.slot).unwrap();
    assert_eq!(text(&info.label), "anew");
    let session = token.read_write();
    let early = token.login(session, USER);
    assert_eq!(early, Err(Code(CKR_USER_PIN_NOT_INITIALIZED)));
    let on_token = [(CKA_CLASS, CKO_PUBLIC_KEY.to_ne_bytes().to_vec())];
    assert_eq!(token.raw.find(session, &on_token).unwrap(), [0; 0]);
    bench.idev_id_signs(&token.raw, 1);
}

fn the_officer_sets_the_users_pin(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    token.init(OFFICER, LABEL).unwrap();
    let session = token.read_write();
    let nobody = token.init_pin(session, USER);
    assert_eq!(nobody, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    token.officer(session, OFFICER).unwrap();
    for wrong in ["", "123", &"1".repeat(65)] {
        let refused = token.init_pin(session, wrong);
        assert_eq!(refused, Err(Code(CKR_PIN_LEN_RANGE)), "{wrong:?}");
    }
    let null = call!(token.raw.table, C_InitPIN(session, ptr::null_mut(), 5));
    assert_eq!(null, Code(CKR_ARGUMENTS_BAD));
    // A file from another program needs no PIN, also after the initialisation.
    let key = bench.path("state/devid/brought.pem");
    let parent = ["-C", "0x81000080", "-G", "ecc:ecdsa-sha256"];
    let mut make = bench.tpm.tool("tpm2_create");
    let (public, private) = (bench.path("public"), bench.path("private"));
    make.args(parent).args(["-u", &public, "-r", &private]);
    testkit::programs::run(&mut make).ok();
    let mut encode = bench.tpm.tool("tpm2_encodeobject");
    encode.args([
        "-C",
        "0x81000080",
        "-u",
        &public,
        "-r",
        &private,
        "-o",
        &key,
    ]);
    testkit::programs::run(&mut encode).ok();
    let refused = token.init_pin(session, USER);
    assert_eq!(refused, Err(Code(CKR_ACTION_PROHIBITED)));
    bench
        .home
        .log_says(&["brought", "needs no PIN", "destroy such keys, set the PIN"]);
    fs::remove_file(&key).unwrap();
    // The shortest and the longest; the second in the place of the first.
    let longest = "€".repeat(21) + "1";
    for pin in ["1234", &longest] {
        token.init_pin(session, pin).unwrap();
        token.raw.logout(session).unwrap();
        token.login(session, pin).unwrap();
        let user = token.init_pin(session, USER);
        assert_eq!(user, Err(Code(CKR_USER_NOT_LOGGED_IN)));
        token.raw.logout(session).unwrap();
        token.officer(session, OFFICER).unwrap();
    }
    token.raw.logout(session).unwrap();
    bench.counts(0);
    let old = token.login(session, "1234");
    assert_eq!(old, Err(Code(CKR_PIN_INCORRECT)));
    bench.idev_id_signs(&token.raw, 1);
}

fn a_pin_is_changed_by_whoever_knows_it(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (public, _) = token.pair(session, "kept", &[]);
    let judge = token.verifier(&bench, session, public);
    // The user, logged in; then nobody, which means the user.
    token.set_pin(session, USER, "second PIN").unwrap();
    token.raw.logout(session).unwrap();
    token.set_pin(session, "second PIN", "third PIN").unwrap();
    // The officer's own.
    token.officer(session, OFFICER).unwrap();
    token.set_pin(session, OFFICER, "officer 2").unwrap();
    for (wrong, refusal) in [("123", CKR_PIN_LEN_RANGE), ("", CKR_PIN_LEN_RANGE)] {
        let refused = token.set_pin(session, "officer 2", wrong);
        assert_eq!(refused, Err(Code(refusal)));
    }
    token.raw.logout(session).unwrap();
    let info = token.raw.token_info(token.slot).unwrap();
    assert_eq!(text(&info.label), LABEL);
    bench.counts(0);
    // No PIN was ever so short: wrong, without asking the TPM.
    let refused = token.set_pin(session, "1", "fourth PIN");
    assert_eq!(refused, Err(Code(CKR_PIN_INCORRECT)));
    bench.counts(0);
    let refused = token.set_pin(session, "no such PIN", "fourth PIN");
    assert_eq!(refused, Err(Code(CKR_PIN_INCORRECT)));
    bench.counts(1);
    let read_only = token.read_only();
    let refused = token.set_pin(read_only, "third PIN", "fourth PIN");
    assert_eq!(refused, Err(Code(CKR_SESSION_READ_ONLY)));
    token.raw.close(read_only).unwrap();
    token.officer(session, "officer 2").unwrap();
    token.raw.logout(session).unwrap();
    token.login(session, "third PIN").unwrap();
    let key = token.private_keys(session)[0];
    let signature = token.sign(session, key).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    bench.idev_id_signs(&token.raw, 1);
}

fn what_is_private_is_unseen_until_login(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    let data = |private: &[u8]| {
        vec![
            (CKA_CLASS, CKO_DATA.to_ne_bytes().to_vec()),
            (CKA_TOKEN, YES.to_vec()),
            (CKA_PRIVATE, private.to_vec()),
            (CKA_LABEL, b"note".to_vec()),
        ]
    };
    let refused = create(&token.raw, session, &data(YES));
    assert_eq!(refused, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    create(&token.raw, session, &data(NO)).unwrap();
    token.login(session, USER).unwrap();
    create(&token.raw, session, &data(YES)).unwrap();
    let (public, private) = token.pair(session, "hidden", &[]);
    let profiles = [(CKA_CLASS, CKO_PROFILE.to_ne_bytes().to_vec())];
    let profiles = token.raw.find(session, &profiles).unwrap().len();
    let seen = |session| token.raw.find(session, &[]).unwrap().len() - profiles;
    assert_eq!(seen(session), 4);
    let other = token.read_only();
    token.raw.logout(session).unwrap();
    assert_eq!(seen(session), 2, "a public key and a note");
    let gone = Err(Code(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(token.raw.attribute(other, private, CKA_LABEL), gone);
    let label = [(CKA_LABEL, b"mine".to_vec())];
    let changed = change(&token.raw, session, private, &label);
    assert_eq!(changed, gone.map(drop));
    let destroyed = call!(token.raw.table, C_DestroyObject(session, private));
    assert_eq!(destroyed, Code(CKR_OBJECT_HANDLE_INVALID));
    let used = token.raw.sign_init(other, CKM_ECDSA_SHA256, private);
    assert_eq!(used, Err(Code(CKR_KEY_HANDLE_INVALID)));
    let still = token.raw.attribute(session, public, CKA_LABEL).unwrap();
    assert_eq!(still, b"hidden");
    token.login(other, USER).unwrap();
    assert_eq!(seen(session), 4);
    bench.idev_id_signs(&token.raw, 0);
}

fn a_key_that_asks_each_time(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let each_time = [(CKA_ALWAYS_AUTHENTICATE, YES.to_vec())];
    let (public, key) = token.pair(session, "each time", &each_time);
    let (_, once) = token.pair(session, "once", &[]);
    let judge = token.verifier(&bench, session, public);
    let asks = token.raw.attribute(session, key, CKA_ALWAYS_AUTHENTICATE);
    assert_eq!(asks.unwrap(), YES);

    let idle = Err(Code(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(token.prove(session, USER), idle);
    token
        .raw
        .sign_init(session, CKM_ECDSA_SHA256, once)
        .unwrap();
    assert_eq!(token.prove(session, USER), idle, "a key that does not ask");
    token.raw.sign(session, b"data").unwrap();

    let unproven = Err(Code(CKR_USER_NOT_LOGGED_IN));
    assert_eq!(token.sign(session, key), unproven);
    token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    let part = token.raw.sign_update(session, b"data");
    assert_eq!(part, unproven.clone().map(drop));
    for _ in 0..2 {
        token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
        token.prove(session, USER).unwrap();
        let signature = token.raw.sign(session, b"data").unwrap();
        judge.accepts_message("-sha256", b"data", &signature).ok();
        // One PIN entry allows one signature.
        assert_eq!(token.raw.sign(session, b"data"), idle.map(|()| vec![]));
    }
    assert_eq!(token.sign(session, key), unproven);
    bench.counts(0);
    token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    let wrong = token.prove(session, "not the PIN");
    assert_eq!(wrong, Err(Code(CKR_PIN_INCORRECT)));
    assert_eq!(token.raw.sign(session, b"data"), unproven);
    assert_eq!(token.state(session), CKS_RW_USER_FUNCTIONS);
    bench.idev_id_signs(&token.raw, 1);
    // A second thread's logout ends what was begun, and no proof brings it back.
    let other = token.read_only();
    token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    token.raw.logout(other).unwrap();
    assert_eq!(token.prove(session, USER), unproven.clone().map(drop));
    assert_eq!(token.raw.sign(session, b"data"), unproven);
    locked_while_proving(&bench, &token, session);
}

/// A PIN that is refused for the TPM's sake ends the login.
fn locked_while_proving(bench: &Bench, token: &Token, session: CK_SESSION_HANDLE) {
    token.login(session, USER).unwrap();
    let template = [(CKA_ALWAYS_AUTHENTICATE, YES.to_vec())];
    let key = token.raw.find(session, &template).unwrap()[0];
    token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    let wrong = token.prove(session, "nor is this");
    assert_eq!(wrong, Err(Code(CKR_PIN_INCORRECT)));
    let refused = token.prove(session, USER);
    assert_eq!(refused, Err(Code(CKR_PIN_LOCKED)));
    assert_eq!(token.state(session), CKS_RW_PUBLIC_SESSION);
    assert_eq!(token.private_keys(session), [0; 0]);
    bench.idev_id_signs(&token.raw, 2);
}
