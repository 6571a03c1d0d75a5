//! Wrong PINs. Each wrong PIN counts towards the lockout of the whole TPM, and in lockout the
//! factory identity could not sign. Therefore the factory identity signs at the end of each story,
//! and the counter is checked.

use cryptoki_sys::*;
use testkit::budgets::commands::TRIES_LEFT;
use testkit::budgets::is_exactly;
use testkit::link::Link;
use testkit::own::YES;
use testkit::pins::{Bench, CARE, OFFICER, USER};
use testkit::proxy::{Fault, command};
use testkit::raw::Code;

over_both_transports!(
    the_flags_tell_how_many_tries_are_left,
    the_last_try_is_made_where_the_configuration_says_so,
    a_try_whose_answer_was_lost_is_not_repeated,
    a_locked_tpm_is_not_asked,
    programs_that_try_and_try,
    the_same_wrong_pin_counts_once,
);
// tests/pin/turns.rs shows that many processes at once never make the last try.
over_our_transport!(lost_answers_leave_no_session_behind);

const WRONG: CK_RV = CKR_PIN_INCORRECT;
const LOCKED: CK_RV = CKR_PIN_LOCKED;

fn the_flags_tell_how_many_tries_are_left(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    let one = CKF_USER_PIN_COUNT_LOW | CKF_SO_PIN_COUNT_LOW;
    let of_officer = CKF_SO_PIN_COUNT_LOW;
    let last = CKF_USER_PIN_FINAL_TRY | CKF_SO_PIN_FINAL_TRY;
    assert_eq!(token.flags() & CARE, 0);
    // swtpm locks at the third. The officer's tries count as the user's do.
    assert_eq!(token.officer(session, "wrong"), Err(Code(WRONG)));
    assert_eq!(token.flags() & CARE, one);
    bench.counts(1);
    // Until the next right PIN of the same user (PKCS#11 3.0, section 3.2); the TPM counts on.
    token.login(session, USER).unwrap();
    assert_eq!(token.flags() & CARE, of_officer);
    token.raw.logout(session).unwrap();
    assert_eq!(token.login(session, "wrong again"), Err(Code(WRONG)));
    assert_eq!(token.flags() & CARE, one | last);
    bench.counts(2);
    // The right one too: whether it is right, only a try would tell.
    for pin in ["wrong once more", USER] {
        assert_eq!(token.login(session, pin), Err(Code(LOCKED)));
    }
    assert_eq!(token.officer(session, OFFICER), Err(Code(LOCKED)));
    let changed = token.set_pin(session, USER, "another PIN");
    assert_eq!(changed, Err(Code(LOCKED)));
    token.raw.close(session).unwrap();
    assert_eq!(token.init(OFFICER, "label"), Err(Code(LOCKED)));
    bench.home.log_says(&["not tried", "lock the whole TPM"]);
    bench.idev_id_signs(&token.raw, 2);
    // The owner of the TPM resets the counter. Meanwhile a logged-in service continues.
    let mut reset = bench.tpm.tool("tpm2_dictionarylockout");
    testkit::programs::run(reset.arg("--clear-lockout")).ok();
    assert_eq!(token.flags() & CARE, 0);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

fn the_last_try_is_made_where_the_configuration_says_so(link: Link) {
    let bench = Bench::new(link);
    let config = "[[token]]\nname = \"devid\"\nallow_last_try = true\n";
    bench.home.write("config.toml", config);
    let token = bench.token();
    token.become_one_with_pins();
    let session = token.read_write();
    for wrong in ["wrong", "wrong again"] {
        assert_eq!(token.login(session, wrong), Err(Code(WRONG)));
    }
    token.login(session, USER).unwrap();
    token.raw.logout(session).unwrap();
    bench.idev_id_signs(&token.raw, 2);
    assert_eq!(token.login(session, "the last"), Err(Code(WRONG)));
    bench.counts(3);
    let locked = CKF_USER_PIN_LOCKED | CKF_SO_PIN_LOCKED;
    // The officer's PIN was right when it was last entered.
    assert_eq!(token.flags() & CARE, locked | CKF_USER_PIN_COUNT_LOW);
    assert_eq!(token.login(session, USER), Err(Code(LOCKED)));
}

fn a_try_whose_answer_was_lost_is_not_repeated(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    let book = bench.proxy.book();
    book.take();
    book.break_next(command::UNSEAL, Fault::Lost);
    let failed = token.login(session, "wrong");
    assert_eq!(failed, Err(Code(CKR_DEVICE_ERROR)));
    assert!(book.all_broken());
    assert_eq!(book.take().of(command::UNSEAL), 1);
    assert_eq!(token.state(session), CKS_RW_PUBLIC_SESSION);
    // The try did count, as the lost answer says.
    bench.idev_id_signs(&token.raw, 1);
    // A loss before the try does not count, and the next login is normal.
    for lost in [command::LOAD, command::START_AUTH_SESSION] {
        book.break_next(lost, Fault::Lost);
        assert!(token.login(session, USER).is_err(), "{lost:#x}");
        assert!(book.all_broken());
    }
    token.login(session, USER).unwrap();
    bench.idev_id_signs(&token.raw, 1);
}

/// A TPM has three auth sessions for all.
fn lost_answers_leave_no_session_behind(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    let book = bench.proxy.book();
    for n in 0..6 {
        let fault = [Fault::Lost, Fault::Garbage, Fault::Half][n % 3];
        book.break_next(command::UNSEAL, fault);
        assert!(token.login(session, &format!("wrong {n}")).is_err());
        assert!(book.all_broken(), "{fault:?}");
        bench.counts(1);
        let mut reset = bench.tpm.tool("tpm2_dictionarylockout");
        testkit::programs::run(reset.arg("--clear-lockout")).ok();
    }
    token.login(session, USER).unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

fn a_locked_tpm_is_not_asked(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (public, key) = token.pair(session, "in use", &[]);
    let judge = token.verifier(&bench, session, public);
    // Somebody else's wrong tries.
    for _ in 0..2 {
        let seal = Bench::path(&bench, "state/devid/.user.pem");
        testkit::pins::unseal(&bench, &seal, "no such PIN").expect_err("wrong");
    }
    bench.counts(2);
    // The user stays logged in, because the keys are noDA.
    let signature = token.sign(session, key).unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    token.raw.logout(session).unwrap();
    bench.proxy.book().take();
    assert_eq!(token.login(session, USER), Err(Code(LOCKED)));
    let seen = bench.proxy.book().take();
    is_exactly("C_Login before lockout", &seen, TRIES_LEFT);
    bench.idev_id_signs(&token.raw, 2);
}

fn programs_that_try_and_try(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    for n in 0..4 {
        let pin = format!("wrong {n}");
        let options = [
            "--token-label",
            "device keys",
            "--login",
            "--pin",
            &pin,
            "-O",
        ];
        let said = bench.pkcs11_tool(&options).all();
        assert!(said.contains("CKR_PIN_"), "{said}");
        let url = format!("pkcs11:token=device%20keys;pin-value=wronger%20{n}");
        let said = bench.p11tool(&["--login", "--list-all", &url]);
        assert!(!said.status.success(), "{said}");
        assert!(token.login(session, &format!("wrongest {n}")).is_err());
        assert!(token.officer(session, &format!("wrongest {n}")).is_err());
        assert!(token.set_pin(session, &pin, "123456").is_err());
    }
    bench.idev_id_signs(&token.raw, 2);
}

/// A program that repeats its PIN without asking the user.
fn the_same_wrong_pin_counts_once(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    for _ in 0..5 {
        assert_eq!(token.login(session, "wrong"), Err(Code(WRONG)));
    }
    bench.idev_id_signs(&token.raw, 1);
    token.login(session, USER).unwrap();
    token.raw.logout(session).unwrap();
    // The PIN is correct after it was set.
    token.officer(session, OFFICER).unwrap();
    token.init_pin(session, "wrong").unwrap();
    token.raw.logout(session).unwrap();
    token.login(session, "wrong").unwrap();
    let (_, key) = token.pair(session, "made now", &[(CKA_SENSITIVE, YES.to_vec())]);
    token.sign(session, key).unwrap();
    bench.idev_id_signs(&token.raw, 1);
}
