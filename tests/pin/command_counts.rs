//! The number of TPM commands of logins, of changes of PINs, and of keys with PIN. The commands are
//! counted between module and TPM, or between module and resource manager.

use cryptoki_sys::*;
use std::os::unix::fs::symlink;
use testkit::budgets::commands::*;
use testkit::budgets::{is_exactly, managed};
use testkit::ciphers::pkcs1;
use testkit::devid::{PERSISTENT, PROTECTION, SEALED};
use testkit::fronts::Device;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::own::{Own, YES};
use testkit::pins::{Bench, LABEL, OFFICER, Token, USER};
use testkit::proxy::Book;
use testkit::raw::{Code, Item};
use testkit::tpm::Swtpm;

over_both_transports!(
    what_pins_and_logins_cost,
    what_each_storage_costs,
    what_a_pin_for_each_signature_costs,
    what_a_decryption_costs,
);
over_our_transport!(what_they_cost_behind_a_resource_manager);

const ANOTHER: &str = "another PIN";

/// Sets both PINs, changes both, and logs both users in and out.
fn what_pins_and_logins_cost(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    let book = bench.proxy.book();
    let is = |what: &str, budget: &[u32]| is_exactly(what, &book.take(), budget);
    let session = token.read_write();
    token.raw.close(session).unwrap();
    book.take();
    token.init(OFFICER, LABEL).unwrap();
    is(
        "C_InitToken, first",
        &[MASTER_KEY, &NEW_PIN[1..], PIN_AGAIN].concat(),
    );
    let session = token.read_write();
    is("C_OpenSession", NOTHING);
    token.officer(session, OFFICER).unwrap();
    is("C_Login of the security officer", LOGIN);
    token.init_pin(session, USER).unwrap();
    is("C_InitPIN", NEW_PIN);
    token.set_pin(session, OFFICER, ANOTHER).unwrap();
    let change = [LOGIN, NEW_PIN].concat();
    is("C_SetPIN of the security officer", &change);
    token.raw.logout(session).unwrap();
    is("C_Logout of the security officer", NOTHING);

    token.login(session, USER).unwrap();
    is("C_Login", LOGIN);
    token.set_pin(session, USER, ANOTHER).unwrap();
    is("C_SetPIN", &change);
    token.raw.logout(session).unwrap();
    is("C_Logout", NOTHING);
    token.set_pin(session, ANOTHER, USER).unwrap();
    is("C_SetPIN before C_Login", &change);
    token.login(session, USER).unwrap();
    is("C_Login, again", LOGIN);
    let repeated = token.login(session, USER);
    assert_eq!(repeated, Err(Code(CKR_USER_ALREADY_LOGGED_IN)));
    is("C_Login of a user who is logged in", NOTHING);
    token.raw.close(session).unwrap();
    is("C_CloseSession", NOTHING);

    let session = token.read_write();
    let wrong = token.login(session, "wrong");
    assert_eq!(wrong, Err(Code(CKR_PIN_INCORRECT)));
    is("C_Login by a wrong PIN", LOGIN_WRONG);
    token.flags();
    is("C_GetTokenInfo after a wrong PIN", TRIES_LEFT);
    token.raw.close(session).unwrap();
    token.init(ANOTHER, LABEL).unwrap();
    is("C_InitToken, again", &change);
    token.raw.finalize().unwrap();
    is("C_Finalize", NOTHING);
}

/// Keys with PIN in each storage, on a bare TPM.
fn what_each_storage_costs(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let book = bench.proxy.book();
    let mut session = token.read_write();
    token.login(session, USER).unwrap();
    token.pair(session, "the master key is made with the first", &[]);
    let persistence = [GENERATION_BY_PIN, PERSISTENCE].concat();
    let checked = [HANDLE_CHECK, SIGNATURE_BY_PIN].concat();
    for (storage, private, generation, first, signature, destruction) in [
        (
            "in a file, wrapped",
            vec![],
            GENERATION_BY_PIN,
            SIGNATURE_WRAPPED_BY_PIN,
            SIGNATURE_WRAPPED_BY_PIN,
            NOTHING,
        ),
        (
            "in a persistent handle",
            vec![(PERSISTENT, YES.to_vec())],
            &persistence,
            &checked,
            SIGNATURE_BY_PIN,
            EVICTION,
        ),
        (
            "sealed",
            vec![(PROTECTION, ulong(SEALED))],
            GENERATION_SEALED,
            OPENING_OF_A_KEY,
            NOTHING,
            NOTHING,
        ),
    ] {
        let is = |doing: &str, budget: &[u32]| {
            is_exactly(&format!("{storage}: {doing}"), &book.take(), budget);
        };
        book.take();
        let (_, key) = token.pair(session, "key", &private);
        is("C_GenerateKeyPair", generation);
        token.sign(session, key).unwrap();
        book.take();
        (0..5).for_each(|_| drop(token.sign(session, key).unwrap()));
        is("C_Sign, five times", &signature.repeat(5));
        token.raw.finalize().unwrap();
        token.raw.initialize().unwrap();
        session = token.read_write();
        token.login(session, USER).unwrap();
        let key = key_called(&token, session, "key");
        book.take();
        token.sign(session, key).unwrap();
        is("C_Sign, first of a process", first);
        token.sign(session, key).unwrap();
        is("C_Sign, again", signature);
        token.raw.logout(session).unwrap();
        token.login(session, USER).unwrap();
        let key = key_called(&token, session, "key");
        book.take();
        token.sign(session, key).unwrap();
        is(
            "C_Sign, first of a login",
            match private.first() {
                Some((PROTECTION, _)) => OPENING_OF_A_KEY,
                _ => signature,
            },
        );
        destroy(&token, session, key);
        is("C_DestroyObject", destruction);
    }
    bench.idev_id_signs(&token.raw, 0);
}

fn key_called(token: &Token, session: CK_SESSION_HANDLE, name: &str) -> CK_OBJECT_HANDLE {
    let template: [Item; 2] = [
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_LABEL, name.into()),
    ];
    token.raw.find(session, &template).unwrap()[0]
}

fn destroy(token: &Token, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) {
    call!(token.raw.table, C_DestroyObject(session, key))
        .result()
        .unwrap();
}

/// CKA_ALWAYS_AUTHENTICATE: C_Login (CKU_CONTEXT_SPECIFIC) after each C_SignInit.
fn what_a_pin_for_each_signature_costs(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let book = bench.proxy.book();
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let always = [(CKA_ALWAYS_AUTHENTICATE, YES.to_vec())];
    let (_, key) = token.pair(session, "key", &always);
    book.take();
    for _ in 0..3 {
        token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
        is_exactly("C_SignInit", &book.take(), NOTHING);
        token.prove(session, USER).unwrap();
        is_exactly("C_Login, context specific", &book.take(), LOGIN);
        token.raw.sign(session, b"data").unwrap();
        is_exactly("C_Sign", &book.take(), SIGNATURE_WRAPPED_BY_PIN);
    }
}

/// The auth session that proves the PIN also encrypts the answer.
fn what_a_decryption_costs(link: Link) {
    let (bench, Token { raw, slot }) = Bench::with_pins(link);
    let book = bench.proxy.book();
    let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
    raw.login(session, CKU_USER, USER.as_bytes()).unwrap();
    let own = Own(Opened { raw, slot, session });
    let private = (CKA_PRIVATE, YES.to_vec());
    let persistent = (PERSISTENT, YES.to_vec());
    for (also, opening, decryption) in [
        (vec![private.clone()], NOTHING, DECRYPTION_WRAPPED),
        (vec![private, persistent], HANDLE_CHECK, DECRYPTION),
    ] {
        let (public, key) = own.decrypting(&also);
        let hidden = own.encrypt(pkcs1(), public, b"hello").unwrap();
        book.take();
        own.decrypt(pkcs1(), key, &hidden).unwrap();
        let first = [opening, decryption].concat();
        is_exactly("C_Decrypt, first", &book.take(), &first);
        own.decrypt(pkcs1(), key, &hidden).unwrap();
        is_exactly("C_Decrypt", &book.take(), decryption);
    }
}

/// There a seal stays loaded in a space of its own: no flush, and at the second login no load.
fn what_they_cost_behind_a_resource_manager(_: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let device = Device::new(&tpm);
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("tpmrm0");
    symlink(device.path(), &path).unwrap();
    let home = Home::new(&format!("device:{}", path.display()));
    let raw = testkit::module::loaded(&home);
    raw.initialize().unwrap();
    let slot = testkit::own::slot_of(&raw, "devid");
    let token = Token { raw, slot };
    let book = device.book();
    let is = |what: &str, budget: &[u32]| is_exactly(what, &book.take(), budget);
    let new_pin = managed(NEW_PIN);
    token.init(OFFICER, "label").unwrap();
    let session = token.read_write();
    token.officer(session, OFFICER).unwrap();
    book.take();
    token.init_pin(session, USER).unwrap();
    // The seal is tried before the PIN is one; it stays loaded.
    is("C_InitPIN", new_pin);
    let anew = || another_process(&tpm, &token, book);

    let session = anew();
    token.login(session, USER).unwrap();
    is("C_Login", LOGIN_MANAGED);
    token.raw.logout(session).unwrap();
    is("C_Logout", NOTHING);
    token.login(session, USER).unwrap();
    is("C_Login, again", LOGIN_MANAGED_AGAIN);
    token.set_pin(session, USER, USER).unwrap();
    let change = [LOGIN_MANAGED_AGAIN, new_pin].concat();
    is("C_SetPIN", &change);
    let (_, persistent) = token.pair(session, "persistent", &[(PERSISTENT, YES.to_vec())]);
    let (_, wrapped) = token.pair(session, "wrapped", &[]);
    for (key, first) in [(persistent, SIGNATURE_BY_PIN), (wrapped, SIGNATURE_BY_PIN)] {
        token.sign(session, key).unwrap();
        book.take();
        token.sign(session, key).unwrap();
        is("C_Sign", first);
    }
    let session = anew();
    token.login(session, USER).unwrap();
    let wrapped = key_called(&token, session, "wrapped");
    book.take();
    token.sign(session, wrapped).unwrap();
    is("C_Sign, first of a process", SIGNATURE_LOADING_BY_PIN);
    token.sign(session, wrapped).unwrap();
    is("C_Sign, again", SIGNATURE_BY_PIN);
    token.raw.finalize().unwrap();
    is("C_Finalize", NOTHING);
    assert_eq!(tpm.lockout_counter(), 0);
}

/// Begins a process that has nothing loaded, and opens a session. A resource manager flushes the
/// objects of a space that is closed.
fn another_process(tpm: &Swtpm, token: &Token, book: &Book) -> CK_SESSION_HANDLE {
    token.raw.finalize().unwrap();
    let mut flush = tpm.tool("tpm2_flushcontext");
    testkit::programs::run(flush.arg("--transient-object")).ok();
    token.raw.initialize().unwrap();
    let session = token.read_write();
    book.take();
    session
}
