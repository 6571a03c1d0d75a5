//! Measures the signatures per second of a P-256 key, for each place in which a key can be stored:
//! `cargo bench --bench signatures`.
//!
//! One thread on one core signs digests (CKM_ECDSA). The keys take turns of one second. If the
//! machine changes its speed, all keys are affected equally. The TPM is a swtpm on the same core,
//! so each figure includes the work of swtpm. A hardware TPM needs 20 to 200 ms for a signature for
//! which swtpm needs 1 ms. The output shows wall time, and the processor time of the calling
//! thread.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

use cryptoki_sys::*;
use std::time::{Duration, Instant};
use testkit::home::Home;
use testkit::module::ulong;
use testkit::own::{NO, Own, P256, YES, generate};
use testkit::raw::{Item, Raw};
use testkit::softhsm::{PIN, SoftHsm};
use testkit::tpm::Swtpm;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const PROTECTION: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0004;
const PERSISTENT: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0005;

/// A key that signs, and its results in each round.
struct Key<'a> {
    kind: &'static str,
    raw: &'a Raw,
    session: CK_SESSION_HANDLE,
    handle: CK_OBJECT_HANDLE,
    wall: Vec<f64>,
    thread: Vec<f64>,
}

fn main() {
    let core = stay_on_one_core();
    let tpm = Swtpm::blank();
    let home = Home::new(&tpm.tcti());
    home.quiet();
    let own = Own::new(&home);
    let (_softhsm, other) = SoftHsm::enter();
    other.initialize().expect("C_Initialize of SoftHSM");
    let slot = other.slots(true).expect("C_GetSlotList")[0];
    let session = other.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION);
    let session = session.expect("C_OpenSession");
    other
        .login(session, CKU_USER, PIN.as_bytes())
        .expect("C_Login");

    let kinds: [(&str, &Raw, CK_SESSION_HANDLE, Vec<Item>); 4] = [
        ("TPM, wrapped", &own.raw, own.session, vec![]),
        (
            "TPM, persistent",
            &own.raw,
            own.session,
            vec![(PERSISTENT, YES.to_vec())],
        ),
        (
            "sealed",
            &own.raw,
            own.session,
            vec![(PROTECTION, ulong(2))],
        ),
        ("SoftHSM", &other, session, vec![]),
    ];
    let mut keys: Vec<_> = kinds
        .into_iter()
        .map(|(kind, raw, session, also)| Key::new(kind, raw, session, also))
        .collect();
    for _ in 0..ROUNDS {
        keys.iter_mut().for_each(Key::round);
    }
    println!("P-256 signatures, one thread, core {core}, {ROUNDS} rounds of {ROUND:?} each:");
    println!(
        "{:16} {:>28} {:>18}",
        "key", "per second: median (min-max)", "own µs each"
    );
    for key in &mut keys {
        let (wall, thread) = (spread(&mut key.wall), spread(&mut key.thread));
        let range = format!("{:.0} ({:.0}-{:.0})", wall.1, wall.0, wall.2);
        println!("{:16} {range:>28} {:>18.0}", key.kind, thread.1);
    }
}

impl<'a> Key<'a> {
    fn new(
        kind: &'static str,
        raw: &'a Raw,
        session: CK_SESSION_HANDLE,
        also: Vec<Item>,
    ) -> Key<'a> {
        let token = (CKA_TOKEN, YES.to_vec());
        let public = [token.clone(), (CKA_EC_PARAMS, P256.to_vec())];
        let signs = [token, (CKA_SIGN, YES.to_vec()), (CKA_PRIVATE, NO.to_vec())];
        let private = [&signs[..], &also].concat();
        let made = generate(raw, session, CKM_EC_KEY_PAIR_GEN, &public, &private);
        let (_, handle) = made.expect("C_GenerateKeyPair");
        let mut key = Key {
            kind,
            raw,
            session,
            handle,
            wall: Vec::new(),
            thread: Vec::new(),
        };
        key.sign(); // the first signature does work that later signatures do not repeat
        key
    }

    fn sign(&mut self) {
        let begun = self.raw.sign_init(self.session, CKM_ECDSA, self.handle);
        begun.expect("C_SignInit");
        self.raw.sign(self.session, &[7; 32]).expect("C_Sign");
    }

    fn round(&mut self) {
        let (began, before, mut count) = (Instant::now(), thread_time(), 0.0);
        while began.elapsed() < ROUND {
            self.sign();
            count += 1.0;
        }
        self.wall.push(count / began.elapsed().as_secs_f64());
        let spent = thread_time() - before;
        self.thread.push(spent.as_secs_f64() * 1e6 / count);
    }
}

fn spread(figures: &mut [f64]) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (
        figures[0],
        figures[figures.len() / 2],
        figures[figures.len() - 1],
    )
}

/// Binds this process and its children to the current core. Returns the number of the core.
fn stay_on_one_core() -> usize {
    // SAFETY: `set` is a valid local value, and its size is passed.
    unsafe {
        let core = libc::sched_getcpu() as usize;
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        assert_eq!(
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set),
            0
        );
        core
    }
}

fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid local value.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
