//! PINs of the token `devid` in several processes: a process changes a PIN, a process is forked,
//! and a process ends while it writes.

use cryptoki_sys::*;
use std::fs;
use testkit::devid::{PROTECTION, SEALED};
use testkit::fork::Forked;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{P256, YES, folder, generate};
use testkit::pins::{Bench, OFFICER, USER};
use testkit::proxy::{Fault, command};
use testkit::raw::{Code, text};

over_our_transport!(
    another_process_changes_the_pin,
    a_forked_child_and_its_logins,
    who_dies_while_a_pin_is_changed_changes_nothing,
    who_dies_while_beginning_anew_can_begin_again,
    another_process_begins_anew,
    the_configuration_brings_the_pin,
    an_old_seal_still_opens,
);

fn another_process_changes_the_pin(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (public, key) = token.pair(session, "in use", &[]);
    let judge = token.verifier(&bench, session, public);
    let options = ["--token-label", "device keys", "--login", "--pin", USER];
    let change = ["--change-pin", "--new-pin", "second PIN"];
    bench.pkcs11_tool(&[&options[..], &change].concat()).ok();
    // The user stays logged in, because the token's secret is unchanged.
    let signature = token.sign(session, key).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    token.raw.logout(session).unwrap();
    assert_eq!(token.login(session, USER), Err(Code(CKR_PIN_INCORRECT)));
    token.login(session, "second PIN").unwrap();
    let key = token.private_keys(session)[0];
    token.sign(session, key).unwrap();
    bench.idev_id_signs(&token.raw, 1);
}

/// A key made with the old secret could never be opened again.
fn another_process_begins_anew(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    token.pair(session, "before", &[]);
    let begin = [
        "--init-token",
        "--label",
        "device keys",
        "--slot-index",
        "1",
    ];
    bench
        .pkcs11_tool(&[&begin[..], &["--so-pin", OFFICER]].concat())
        .ok();
    let both = [(CKA_TOKEN, YES.to_vec()), (CKA_PRIVATE, YES.to_vec())];
    let public = [(CKA_TOKEN, YES.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
    let sealed = (PROTECTION, ulong(SEALED));
    for also in [&[][..], &[sealed]] {
        let private = [&both[..], also].concat();
        let by = CKM_EC_KEY_PAIR_GEN;
        let made = generate(&token.raw, session, by, &public, &private);
        assert_eq!(made, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    }
    bench.home.log_says(&["initialised again after the login"]);
    let files = folder(&bench.home);
    assert_eq!(files, [bench.home.path("state/devid/.officer.pem")]);
    token.raw.logout(session).unwrap();
    token.officer(session, OFFICER).unwrap();
    token.init_pin(session, "the next PIN").unwrap();
    token.raw.logout(session).unwrap();
    token.login(session, "the next PIN").unwrap();
    let (_, key) = token.pair(session, "after", &[]);
    token.sign(session, key).unwrap();
}

fn a_forked_child_and_its_logins(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (public, key) = token.pair(session, "shared", &[]);
    let judge = token.verifier(&bench, session, public);
    // The inherited login works, and the child's logout is its own.
    Forked::new(|| {
        let signature = token.sign(session, key).unwrap();
        judge.accepts_message("-sha256", b"data", &signature).ok();
        token.raw.logout(session).unwrap();
        assert_eq!(token.private_keys(session), [0; 0]);
    })
    .succeeds();
    // After C_Initialize no user is logged in.
    Forked::new(|| {
        token.raw.initialize().unwrap();
        let session = token.read_only();
        assert_eq!(token.state(session), CKS_RO_PUBLIC_SESSION);
        assert_eq!(token.private_keys(session), [0; 0]);
        token.login(session, USER).unwrap();
        let key = token.private_keys(session)[0];
        token.sign(session, key).unwrap();
    })
    .succeeds();
    let signature = token.sign(session, key).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    bench.idev_id_signs(&token.raw, 0);
}

fn who_dies_while_a_pin_is_changed_changes_nothing(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let before = fs::read(bench.path("state/devid/.user.pem")).unwrap();
    token.raw.finalize().unwrap();
    let book = bench.proxy.book();
    book.break_next(command::CREATE, Fault::Stall);
    let dies = Forked::new(|| {
        token.raw.initialize().unwrap();
        let session = token.read_write();
        token.set_pin(session, USER, "second PIN").unwrap();
    });
    book.await_stall();
    drop(dies); // SIGKILL
    book.heal();
    assert_eq!(
        fs::read(bench.path("state/devid/.user.pem")).unwrap(),
        before
    );
    token.raw.initialize().unwrap();
    let session = token.read_write();
    token.login(session, USER).unwrap();
    token.raw.logout(session).unwrap();
    token.set_pin(session, USER, "second PIN").unwrap();
    token.login(session, "second PIN").unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

fn who_dies_while_beginning_anew_can_begin_again(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    token.pair(session, "one", &[]);
    token.pair(session, "two", &[]);
    token.raw.finalize().unwrap();
    let book = bench.proxy.book();
    book.break_next(command::CREATE, Fault::Stall);
    let dies = Forked::new(|| {
        token.raw.initialize().unwrap();
        token.init(OFFICER, "anew").unwrap();
    });
    book.await_stall();
    drop(dies);
    book.heal();
    // Nothing is destroyed before the new seal exists. The security officer's PIN is unchanged.
    assert_eq!(folder(&bench.home).len(), 4);
    token.raw.initialize().unwrap();
    let stranger = token.init("a stranger's", "his");
    assert_eq!(stranger, Err(Code(CKR_PIN_INCORRECT)));
    token.init(OFFICER, "anew").unwrap();
    let info = token.raw.token_info(token.slot).unwrap();
    assert_eq!(text(&info.label), "anew");
    let session = token.read_write();
    token.officer(session, OFFICER).unwrap();
    token.init_pin(session, USER).unwrap();
    token.raw.logout(session).unwrap();
    token.login(session, USER).unwrap();
    let (_, key) = token.pair(session, "anew", &[]);
    token.sign(session, key).unwrap();
    bench.idev_id_signs(&token.raw, 1);
}

/// CKF_PROTECTED_AUTHENTICATION_PATH: nobody is asked, pPin is NULL.
fn the_configuration_brings_the_pin(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let protected = CKF_PROTECTED_AUTHENTICATION_PATH;
    assert_eq!(token.flags() & protected, 0);
    let session = token.read_write();
    let login = || {
        let null = std::ptr::null_mut();
        call!(token.raw.table, C_Login(session, CKU_USER, null, 0)).result()
    };
    assert_eq!(login(), Err(Code(CKR_ARGUMENTS_BAD)));
    token.raw.finalize().unwrap();
    let pin = bench.home.write("pin", format!("{USER}\n"));
    let config = format!(
        "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
        pin.display()
    );
    bench.home.write("config.toml", config);
    token.raw.initialize().unwrap();
    assert_eq!(token.flags() & protected, protected);
    let session = token.read_write();
    let null = std::ptr::null_mut();
    let login = call!(token.raw.table, C_Login(session, CKU_USER, null, 0));
    assert_eq!(login, Code(CKR_OK));
    let (_, key) = token.pair(session, "for a daemon", &[]);
    token.sign(session, key).unwrap();
    // p11tool sees the flag and asks nobody.
    let said = bench
        .p11tool(&["--login", "--list-all", "pkcs11:token=device%20keys"])
        .ok();
    assert!(said.text().contains("for%20a%20daemon"), "{said}");
    bench.idev_id_signs(&token.raw, 0);
}

/// SECURITY.md says so.
fn an_old_seal_still_opens(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let seal = bench.path("state/devid/.user.pem");
    let old = fs::read(&seal).unwrap();
    let session = token.read_write();
    token.set_pin(session, USER, "second PIN").unwrap();
    fs::write(&seal, old).unwrap();
    token.login(session, USER).unwrap();
    bench.idev_id_signs(&token.raw, 0);
}
