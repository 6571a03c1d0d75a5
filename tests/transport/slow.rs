//! A TPM that is slow to make a key. The key is made, and other threads wait. Other processes get
//! the error that the TPM is busy, not that it does not answer.

use cryptoki_sys::*;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use testkit::devid::{Kind, Pair, label, yes};
use testkit::factory::Identity;
use testkit::fork::Forked;
use testkit::fronts::Device;
use testkit::home::Home;
use testkit::link::Link;
use testkit::managers::Broker;
use testkit::module::{Opened, ulong};
use testkit::openssl::Verifier;
use testkit::own::{Own, P256_KEY, RSA_KEY, outside, slot_of};
use testkit::programs::run;
use testkit::proxy::{Book, Fault, Proxy, command};
use testkit::raw::{Code, Raw};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

over_our_transport!(
    forty_seconds,
    threads_wait_and_processes_hear_that_it_is_busy,
    a_fork_during_the_generation,
    every_generation_has_its_own_limit,
    other_commands_keep_theirs,
    a_factory_key_that_is_derived_slowly,
    a_busy_tpm_is_no_missing_token,
);
once!(
    a_busy_device_is_not_silent,
    a_key_generation_behind_tpm2_abrmd,
);

/// Long enough for any command of a software TPM on a busy machine.
const SHORT: Duration = Duration::from_millis(2500);
/// More than that.
const SLOW: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(90);
const FAILED: Result<Vec<u8>, Code> = Err(Code(CKR_DEVICE_ERROR));
const BUSY: &str = "the TPM is busy";

struct Bench {
    tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    fn new(link: Link, options: &[&str]) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            tpm,
            identity,
            proxy,
            home,
        }
    }

    fn short(link: Link) -> Bench {
        let bench = Bench::new(link, &[]);
        bench.be_short();
        bench
    }

    fn be_short(&self) {
        short(&self.home);
    }

    fn judge(&self) -> Verifier {
        Verifier::new(&self.identity.public_key())
    }
}

fn short(home: &Home) {
    let text = format!("timeout_ms = {}\n", SHORT.as_millis());
    home.write("config.toml", text);
}

/// A signature of `data` in a session of its own.
fn signed(raw: &Raw, token: &str, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Code> {
    let session = raw.open(slot_of(raw, token), CKF_SERIAL_SESSION)?;
    raw.sign_init(session, CKM_ECDSA_SHA256, key)?;
    let signature = raw.sign(session, b"data");
    raw.close(session)?;
    signature
}

/// The only private key of a token.
fn key_of(raw: &Raw, token: &str) -> CK_OBJECT_HANDLE {
    let session = raw.open(slot_of(raw, token), CKF_SERIAL_SESSION).unwrap();
    let found = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    raw.close(session).unwrap();
    found.unwrap()[0]
}

fn tell(path: &Path) {
    File::create(path).unwrap();
}

fn await_told(path: &Path) {
    await_some("a file", PATIENCE, || path.exists().then_some(()));
}

/// A process with the only keys of these tokens. On a first command it fails to sign, and on a
/// second command it signs.
fn other_process(raw: &Raw, home: &Home, tokens: &[(&str, &Verifier)]) -> Forked {
    let path = |name: &str| home.path(name);
    let process = Forked::new(|| {
        raw.initialize().unwrap();
        let keys: Vec<_> = tokens.iter().map(|(token, _)| key_of(raw, token)).collect();
        tell(&path("other-is-ready"));
        await_told(&path("other-signs"));
        for ((token, _), key) in tokens.iter().zip(&keys) {
            assert_eq!(signed(raw, token, *key), FAILED, "{token}");
        }
        tell(&path("other-failed"));
        await_told(&path("other-signs-again"));
        for ((token, judge), key) in tokens.iter().zip(&keys) {
            let signature = signed(raw, token, *key).unwrap();
            judge.accepts_message("-sha256", b"data", &signature).ok();
        }
    });
    await_told(&path("other-is-ready"));
    process
}

/// Checks the result of C_GenerateKeyPair: OpenSSL verifies a signature.
#[track_caller]
fn works(own: &Own, made: Result<Pair, Code>) {
    own.signs(made.expect("C_GenerateKeyPair").private);
}

/// With the settings as they are delivered: all but the key generation has 30 s.
fn forty_seconds(link: Link) {
    let bench = Bench::new(link, &[]);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "before").unwrap();
    let judge = bench.judge();
    let other = other_process(&own.raw, &bench.home, &[("idev-id", &judge)]);
    let book = bench.proxy.book();
    book.break_next(command::CREATE, Fault::Delay(Duration::from_secs(40)));
    let idev_id = key_of(&own.raw, "idev-id");
    thread::scope(|scope| {
        let made = scope.spawn(|| own.make(Kind::P256, "slow"));
        await_some("TPM2_Create", PATIENCE, || book.all_broken().then_some(()));
        let raw = &own.raw;
        let signature = scope.spawn(move || signed(raw, "idev-id", idev_id));
        tell(&bench.home.path("other-signs"));
        let signature = signature.join().unwrap().expect("it waited for its turn");
        judge.accepts_message("-sha256", b"data", &signature).ok();
        works(&own, made.join().unwrap());
    });
    await_told(&bench.home.path("other-failed"));
    bench.home.log_says(&[BUSY, "30000 ms"]);
    tell(&bench.home.path("other-signs-again"));
    other.succeeds();
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn threads_wait_and_processes_hear_that_it_is_busy(link: Link) {
    let bench = Bench::short(link);
    let own = Own::new(&bench.home);
    let pair = own.make(Kind::P256, "before").unwrap();
    let judges = [&bench.judge(), &own.verifier(&bench.home, pair.public)];
    let others = [("idev-id", judges[0]), ("devid", judges[1])];
    let other = other_process(&own.raw, &bench.home, &others);
    let book = bench.proxy.book();
    book.break_next(command::CREATE, Fault::Occupy);
    let idev_id = key_of(&own.raw, "idev-id");
    thread::scope(|scope| {
        let made = scope.spawn(|| own.make(Kind::P256, "slow"));
        book.await_stall();
        let raw = &own.raw;
        let keys = [("idev-id", idev_id), ("devid", pair.private)];
        let signatures = keys.map(|(token, key)| scope.spawn(move || signed(raw, token, key)));
        // The other process waits for its limit twice.
        tell(&bench.home.path("other-signs"));
        await_told(&bench.home.path("other-failed"));
        assert!(!made.is_finished());
        for signature in &signatures {
            assert!(!signature.is_finished(), "a thread waits no longer");
        }
        bench.home.log_says(&[BUSY, "2500 ms"]);
        book.release();
        for (signature, judge) in signatures.into_iter().zip(judges) {
            let signature = signature.join().unwrap().expect("it waited for its turn");
            judge.accepts_message("-sha256", b"data", &signature).ok();
        }
        works(&own, made.join().unwrap());
    });
    tell(&bench.home.path("other-signs-again"));
    other.succeeds();
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

/// The child has a connection of its own, and its parent is another process to it.
fn a_fork_during_the_generation(link: Link) {
    let bench = Bench::short(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "before").unwrap();
    let (book, judge) = (bench.proxy.book(), bench.judge());
    let idev_id = key_of(&own.raw, "idev-id");
    signed(&own.raw, "idev-id", idev_id).unwrap();
    for initialises in [true, false] {
        let path = |name: &str| bench.home.path(&format!("{name}-{initialises}"));
        book.break_next(command::CREATE, Fault::Occupy);
        thread::scope(|scope| {
            let raw = &own.raw;
            let made = scope.spawn(|| own.make(Kind::P256, "slow"));
            book.await_stall();
            let child = Forked::new(|| {
                if initialises {
                    raw.initialize().expect("C_Initialize in the child");
                    // The first look at the token needs the TPM.
                    assert_eq!(raw.slots(true).map(|slots| slots.contains(&0)), Ok(false));
                } else {
                    assert_eq!(signed(raw, "idev-id", idev_id), FAILED);
                }
                tell(&path("failed"));
                await_told(&path("go-on"));
                let find = || raw.slots(true).is_ok_and(|slots| slots.contains(&0));
                await_some("the token", PATIENCE, || find().then_some(()));
                let signature = signed(raw, "idev-id", key_of(raw, "idev-id")).unwrap();
                judge.accepts_message("-sha256", b"data", &signature).ok();
            });
            await_told(&path("failed"));
            assert!(!made.is_finished());
            bench.home.log_says(&[BUSY]);
            book.release();
            works(&own, made.join().unwrap());
            tell(&path("go-on"));
            child.succeeds();
        });
    }
}

/// Commands with the longer limit: the storage root key, the master key, a key of either type, a
/// key in a handle, an imported RSA key.
fn every_generation_has_its_own_limit(link: Link) {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    short(&home);
    let own = Own::new(&home);
    let book = proxy.book();
    book.break_next(command::CREATE_PRIMARY, Fault::Delay(SLOW));
    book.break_next(command::CREATE, Fault::Delay(SLOW));
    works(&own, own.make(Kind::P256, "first"));
    assert!(book.all_broken());
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        book.break_next(command::CREATE, Fault::Delay(SLOW));
        works(&own, own.make_persistent(kind, "kept"));
        assert!(book.all_broken());
    }
    outside(&home, "rsa", &RSA_KEY);
    book.break_next(command::IMPORT, Fault::Delay(SLOW));
    let brought = bring(&home, "rsa");
    assert!(brought.contains("RSA"), "{brought}");
    assert!(book.all_broken());
}

/// TPM2_Import of an EC key makes nothing, and neither does a signature.
fn other_commands_keep_theirs(link: Link) {
    let bench = Bench::short(link);
    let own = Own::new(&bench.home);
    let pair = own.make(Kind::P256, "before").unwrap();
    let book = bench.proxy.book();
    book.break_next(command::SIGN, Fault::Delay(SLOW));
    assert_eq!(own.sign_data(pair.private, b"data"), FAILED);
    own.signs(pair.private);
    outside(&bench.home, "ec", &P256_KEY);
    book.break_next(command::IMPORT, Fault::Delay(SLOW));
    let refused = bring(&bench.home, "ec");
    assert!(refused.contains("CKR_DEVICE_ERROR"), "{refused}");
    assert!(book.all_broken());
    assert!(!bench.home.log().contains(BUSY), "nobody makes a key");
}

/// pkcs11-tool brings the private key of `outside`, and says what became of it.
fn bring(home: &Home, name: &str) -> String {
    let (from, to) = (home.path(&format!("{name}.key")), home.path("key.der"));
    let mut convert = testkit::programs::program("openssl");
    convert.args(["pkey", "-outform", "DER", "-in"]).arg(from);
    run(convert.arg("-out").arg(&to)).ok();
    let mut tool = testkit::programs::program("pkcs11-tool");
    tool.arg("--module").arg(testkit::module::library());
    tool.args([
        "--token-label",
        "devid",
        "--label",
        name,
        "--type",
        "privkey",
    ]);
    run(home.settle(tool.arg("--write-object").arg(to))).all()
}

/// A candidate that is not the key costs a key generation, too; a thread waits for the one that
/// derives.
fn a_factory_key_that_is_derived_slowly(link: Link) {
    let bench = Bench::new(link, &["--no-persist"]);
    bench.be_short();
    let module = Opened::new(&bench.home);
    let (book, key, judge) = (bench.proxy.book(), module.key(), bench.judge());
    book.break_times(command::CREATE_PRIMARY, Fault::Delay(SLOW), 2);
    thread::scope(|scope| {
        let sign = || signed(&module.raw, "idev-id", key);
        for signature in [scope.spawn(sign), scope.spawn(sign)] {
            let signature = signature.join().unwrap().expect("a signature");
            judge.accepts_message("-sha256", b"data", &signature).ok();
        }
    });
}

/// A process that makes its first scan while another process makes a key sees no token. It sees the
/// token when the key is made.
fn a_busy_tpm_is_no_missing_token(link: Link) {
    let bench = Bench::new(link, &[]);
    bench.home.write("config.toml", "timeout_ms = 10000\n");
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "before").unwrap();
    let book = bench.proxy.book();
    let (looked, free) = (bench.home.path("looked"), bench.home.path("free"));
    let other = Forked::new(|| {
        await_told(&bench.home.path("look"));
        own.raw.initialize().unwrap();
        let present = || own.raw.slots(true).unwrap().contains(&0);
        let began = Instant::now();
        assert!(!present());
        let took = began.elapsed();
        tell(&looked);
        await_told(&free);
        let began = Instant::now();
        await_some("the token", PATIENCE, || present().then_some(()));
        let rested = began.elapsed();
        assert!(rested < took, "it rested for {rested:?}");
    });
    book.break_next(command::CREATE, Fault::Occupy);
    thread::scope(|scope| {
        let made = scope.spawn(|| own.make(Kind::P256, "slow"));
        book.await_stall();
        tell(&bench.home.path("look"));
        await_told(&looked);
        bench.home.log_says(&[BUSY]);
        book.release();
        works(&own, made.join().unwrap());
    });
    tell(&free);
    other.succeeds();
}

/// The kernel's device queues a command behind those of others. An outstanding answer is awaited
/// first.
fn a_busy_device_is_not_silent() {
    let (tpm, identity) = Swtpm::manufactured();
    let device = Device::new(&tpm);
    let home = Home::new(&device.tcti());
    short(&home);
    let module = Opened::new(&home);
    let (book, key): (&Book, _) = (device.book(), module.key());
    let sign = || module.sign(CKM_ECDSA, key, &[1; 32]);
    sign().unwrap();
    // As another process that has a key made.
    let folder = home.path("run/lock");
    fs::create_dir_all(&folder).unwrap();
    let generation = File::create(folder.join("busy")).unwrap();
    generation.lock_shared().unwrap();
    book.break_next(command::SIGN, Fault::Stall);
    assert_eq!(sign(), FAILED);
    home.log_says(&[BUSY, "2500 ms"]);
    generation.unlock().unwrap();
    book.release();
    let judge = Verifier::new(&identity.public_key());
    judge.accepts_digest(&[1; 32], &sign().unwrap()).ok();
    // Without such a process it is silence.
    book.break_next(command::SIGN, Fault::Stall);
    assert_eq!(sign(), FAILED);
    home.log_says(&["no answer from the TPM within 2500 ms"]);
    book.release();
    judge.accepts_digest(&[1; 32], &sign().unwrap()).ok();
}

/// Each key has a connection of its own there, so that a signature is queued by the broker.
fn a_key_generation_behind_tpm2_abrmd() {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(Broker::tcti());
    short(&home);
    let _broker = Broker::new(&proxy.tcti(), &home);
    let own = Own::new(&home);
    let pair = own
        .make_with(Kind::P256, &[label("before"), yes(CKA_TOKEN)], &[])
        .unwrap();
    own.signs(pair.private);
    proxy.book().break_next(command::CREATE, Fault::Delay(SLOW));
    thread::scope(|scope| {
        let made = scope.spawn(|| own.make(Kind::P256, "slow"));
        await_some("TPM2_Create", PATIENCE, || {
            proxy.book().all_broken().then_some(())
        });
        let raw = &own.raw;
        let signature = scope.spawn(move || signed(raw, "devid", pair.private));
        let signature = signature.join().unwrap().expect("it waited for its turn");
        let judge = own.verifier(&home, pair.public);
        judge.accepts_message("-sha256", b"data", &signature).ok();
        works(&own, made.join().unwrap());
    });
}
