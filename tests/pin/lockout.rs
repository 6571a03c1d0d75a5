//! A wrong authorisation value counts towards the TPM's lockout, which affects every user of the
//! TPM. The module has only the empty value, and must not send it repeatedly.

use cryptoki_sys::*;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::maker::{INDEX, Maker, OPEN};
use testkit::module::{Opened, identity, loaded};
use testkit::proxy::{Proxy, command};
use testkit::raw::{Code, Raw};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

over_our_transport!(
    a_protected_index_is_passed_over,
    a_protected_index_that_is_named_is_tried_once,
    a_protected_index_and_nothing_else,
    a_protected_index_that_is_named_is_tried_once_in_a_process,
    a_protected_key_is_tried_once,
    a_protected_key_and_a_child,
    a_protected_key_and_many_threads,
    a_protected_key_is_tried_once_in_a_process,
);

/// In the range of identities, beside the factory's own indices.
const PROTECTED: &str = "0x01C90400";
const LOOKS: usize = 8;

/// A device with an additional index, whose authorisation value the module does not know.
fn with_protected_index() -> Swtpm {
    let (tpm, identity) = Swtpm::manufactured();
    let certificate = testkit::openssl::certificate_der(&identity.ca());
    protect(&tpm, &certificate);
    tpm
}

fn protect(tpm: &Swtpm, content: &[u8]) {
    let attributes = "authread|ownerread|ownerwrite";
    Maker::new(tpm).index(PROTECTED, attributes, "secret", content);
    assert_eq!(tpm.lockout_counter(), 0);
}

fn name_it(home: &Home) {
    home.write("config.toml", format!("[[identity]]\nnv = {PROTECTED}\n"));
}

/// Makes the module look again and again.
#[track_caller]
fn looks(home: &Home, raw: &Raw) {
    for _ in 0..LOOKS {
        home.next_generation();
        assert!(identity(raw).is_some(), "the identity is shown");
    }
    let looks = home.log().matches("token idev-id with").count();
    assert!(looks >= LOOKS, "{looks} looks");
}

fn a_protected_index_is_passed_over(link: Link) {
    let tpm = with_protected_index();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let raw = loaded(&home);
    raw.initialize().unwrap();
    looks(&home, &raw);
    assert_eq!(tpm.lockout_counter(), 0);
    home.log_says(&["01C90400", "lockout"]);
}

/// The administrator named it: perhaps its authorisation is empty.
fn a_protected_index_that_is_named_is_tried_once(link: Link) {
    let tpm = with_protected_index();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    name_it(&home);
    let raw = loaded(&home);
    raw.initialize().unwrap();
    looks(&home, &raw);
    assert_eq!(tpm.lockout_counter(), 1);
    home.log_says(&["01C90400", "authorisation"]);
}

fn a_protected_index_that_is_named_is_tried_once_in_a_process(link: Link) {
    let tpm = with_protected_index();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    name_it(&home);
    let raw = loaded(&home);
    for _ in 0..3 {
        raw.initialize().unwrap();
        assert!(identity(&raw).is_some(), "the identity is shown");
        raw.finalize().unwrap();
    }
    assert_eq!(tpm.lockout_counter(), 1);
}

/// A slot without a token looks again each second, for as long as somebody asks.
fn a_protected_index_and_nothing_else(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--no-cert"]);
    protect(&tpm, &[0x30; 500]);
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    name_it(&home);
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let mut looks = 0;
    await_some("three looks", Duration::from_secs(60), || {
        assert_eq!(identity(&raw), None);
        looks += proxy.book().take().of(command::GET_CAPABILITY);
        (looks >= 3).then_some(())
    });
    assert_eq!(tpm.lockout_counter(), 1);
    home.log_says(&["01C90400", "authorisation"]);
}

/// A device whose key is not noDA and has an authorisation value.
fn with_protected_key() -> Swtpm {
    let tpm = Swtpm::blank();
    let maker = Maker::new(&tpm);
    let public = maker.key("ecc256:ecdsa-sha256", "secret");
    maker.index(INDEX, OPEN, "", &maker.certificate(&public));
    assert_eq!(tpm.lockout_counter(), 0);
    tpm
}

fn a_protected_key_is_tried_once(link: Link) {
    let tpm = with_protected_key();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    for _ in 0..LOOKS {
        let key = module.key();
        for _ in 0..3 {
            let refused = module.sign(CKM_ECDSA, key, &[1; 32]);
            assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
        }
        home.next_generation();
    }
    assert_eq!(tpm.lockout_counter(), 1);
    home.log_says(&["81020000", "authorisation"]);
}

/// The child knows what the parent found out.
fn a_protected_key_and_a_child(link: Link) {
    let tpm = with_protected_key();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    let refused = || module.sign(CKM_ECDSA, key, &[1; 32]) == Err(Code(CKR_DEVICE_ERROR));
    assert!(refused());
    for _ in 0..2 {
        Forked::new(|| assert!(refused())).succeeds();
        assert!(refused());
    }
    assert_eq!(tpm.lockout_counter(), 1);
}

/// A thread that waits for the TPM must get the result of the first thread.
fn a_protected_key_and_many_threads(link: Link) {
    const THREADS: usize = 4;
    let tpm = with_protected_key();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let (raw, key) = (&module.raw, module.key());
    let start = Barrier::new(THREADS);
    let signs = || {
        let session = raw.open(module.slot, CKF_SERIAL_SESSION).unwrap();
        raw.sign_init(session, CKM_ECDSA, key).unwrap();
        start.wait();
        raw.sign(session, &[1; 32])
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(signs)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Err(Code(CKR_DEVICE_ERROR)));
        }
    });
    assert_eq!(tpm.lockout_counter(), 1);
}

fn a_protected_key_is_tried_once_in_a_process(link: Link) {
    let tpm = with_protected_key();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    for _ in 0..3 {
        let module = Opened::new(&home);
        let refused = module.sign(CKM_ECDSA, module.key(), &[1; 32]);
        assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
        module.raw.finalize().unwrap();
    }
    assert_eq!(tpm.lockout_counter(), 1);
}
