//! A process that forks while another thread computes for the first time. Tables and locks of the
//! libraries inside the module must not stay half made in the child.

use cryptoki_sys::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::module::{loaded, ulong};
use testkit::own::{Own, P256, P384, P521, YES, slot_of, without_tpm};
use testkit::raw::Raw;

once!(
    children_of_the_first_p256_signature,
    children_of_the_first_p384_signature,
    children_of_the_first_p521_signature,
    children_of_rsa_signatures,
);

const TOKEN: &str = "files";
/// The time between two forks, in which the signature goes on.
const PAUSE: Duration = Duration::from_micros(500);
/// If a child still runs so long after the last fork, it hangs.
const LIMIT: Duration = Duration::from_secs(20);

fn children_of_the_first_p256_signature() {
    children_of_the_first_signature(&P256);
}

fn children_of_the_first_p384_signature() {
    children_of_the_first_signature(&P384);
}

fn children_of_the_first_p521_signature() {
    children_of_the_first_signature(&P521);
}

/// aws-lc has locks around its random number generator, which each signature by RSA uses. The end of
/// a process uses them too.
fn children_of_rsa_signatures() {
    let home = without_tpm();
    Forked::new(|| make_rsa(&home)).succeeds();
    let own = Own::on(&home, TOKEN);
    let key = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])[0];
    let enough = AtomicBool::new(false);
    let children =
        std::env::var("DEVID_CHILDREN").map_or(100, |text| text.parse().expect("a number"));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let session = own.raw.open(own.slot, CKF_SERIAL_SESSION);
                let session = session.expect("C_OpenSession");
                while !enough.load(Ordering::Relaxed) {
                    signs_by(&own.raw, session, CKM_SHA256_RSA_PKCS, key);
                }
            });
        }
        let ends = (0..children).map(|child| {
            let child = Forked::new(|| {
                if child % 2 == 0 {
                    signs_anew(&own.raw, CKM_SHA256_RSA_PKCS);
                }
                // SAFETY: A server's child ends so. The destructors of libraries run.
                unsafe { libc::exit(0) }
            });
            child.ends(LIMIT)
        });
        let ends: Vec<_> = ends.collect();
        enough.store(true, Ordering::Relaxed);
        all_ended(&ends);
    });
}

/// The key is in a file without encryption, so that no TPM command takes time.
fn children_of_the_first_signature(curve: &[u8]) {
    let home = without_tpm();
    // Another process makes the key, so that this process computes nothing before the signature.
    Forked::new(|| make(&home, curve)).succeeds();
    let raw = loaded(&home);
    let begin = Barrier::new(2);
    let children = thread::scope(|scope| {
        let signer = scope.spawn(|| {
            begin.wait();
            signs(&raw, CKM_ECDSA);
        });
        begin.wait();
        let mut children = Vec::new();
        while !signer.is_finished() {
            children.push(Forked::new(|| signs_anew(&raw, CKM_ECDSA)));
            thread::sleep(PAUSE);
        }
        signer.join().expect("the parent's thread");
        children
    });
    let deadline = Instant::now() + LIMIT;
    let ends = |child: Forked| child.ends(deadline.saturating_duration_since(Instant::now()));
    let ends: Vec<_> = children.into_iter().map(ends).collect();
    all_ended(&ends);
    println!("\n{} children during the first signature", ends.len());
}

#[track_caller]
fn all_ended(ends: &[Option<libc::c_int>]) {
    let (count, hung) = (ends.len(), ends.iter().filter(|end| end.is_none()).count());
    assert_eq!(hung, 0, "of {count} children, {hung} never ended");
    assert!(
        ends.iter().all(|end| *end == Some(0)),
        "a child failed: {ends:?}"
    );
}

fn make(home: &Home, curve: &[u8]) {
    let both = [(CKA_TOKEN, YES.to_vec())];
    let public = [&both[..], &[(CKA_EC_PARAMS, curve.to_vec())]].concat();
    let own = Own::on(home, TOKEN);
    own.generate(CKM_EC_KEY_PAIR_GEN, &public, &both)
        .expect("C_GenerateKeyPair");
}

fn make_rsa(home: &Home) {
    let both = [(CKA_TOKEN, YES.to_vec())];
    let public = [&both[..], &[(CKA_MODULUS_BITS, ulong(2048))]].concat();
    let own = Own::on(home, TOKEN);
    own.generate(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &both)
        .expect("C_GenerateKeyPair");
}

/// In a child: as pkcs11-provider does it.
fn signs_anew(raw: &Raw, mechanism: CK_MECHANISM_TYPE) {
    let _ = raw.finalize();
    signs(raw, mechanism);
}

fn signs(raw: &Raw, mechanism: CK_MECHANISM_TYPE) {
    raw.initialize().expect("C_Initialize");
    let session = raw.open(slot_of(raw, TOKEN), CKF_SERIAL_SESSION);
    let session = session.expect("C_OpenSession");
    let keys = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    let key = keys.expect("a search")[0];
    signs_by(raw, session, mechanism, key);
}

fn signs_by(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    key: CK_OBJECT_HANDLE,
) {
    raw.sign_init(session, mechanism, key).expect("C_SignInit");
    raw.sign(session, &[2; 32]).expect("C_Sign");
}
