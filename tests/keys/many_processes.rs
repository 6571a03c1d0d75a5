//! Many processes with many keys use one TPM: a bare TPM, whose three slots all processes share,
//! and a TPM behind tpm2-abrmd.

use cryptoki_sys::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use testkit::devid::{Bench, Judge, Kind, Own, other_process, part, persistent, random, say_ready};
use testkit::home::Home;
use testkit::link::Link;
use testkit::managers::Broker;
use testkit::module::ulong;
use testkit::programs::Running;
use testkit::proxy::Proxy;
use testkit::tpm::Swtpm;

over_our_transport!(four_processes_share_a_bare_tpm,);
// libtss2 alone speaks to tpm2-abrmd.
once!(eight_processes_share_tpm2_abrmd);

const KEYS: usize = 20;
/// So often each process signs with each key, and goes on until it may end.
const TURNS: usize = 3;
const LIMIT: Duration = Duration::from_secs(150);

/// Signs with all keys in turn and writes the signatures to the given file, or signs for ever.
#[test]
#[ignore = "one of the processes of other tests"]
fn signs() {
    let Some(part) = part() else {
        return;
    };
    let own = Own::here();
    let keys: Vec<_> = own
        .keys()
        .into_iter()
        .map(|key| (own.label(key), key))
        .collect();
    assert_eq!(keys.len(), KEYS);
    say_ready();
    let mut signed = Vec::new();
    let start = random(KEYS as u64) as usize;
    for turn in 0.. {
        for at in 0..KEYS {
            let (name, key) = &keys[(start + at) % KEYS];
            let signature = own.sign_data(*key, message(name, turn).as_bytes()).unwrap();
            signed.push((turn, name, signature));
        }
        let may_end = || Path::new(&part).with_file_name(ENOUGH).exists();
        if part != FOR_EVER && turn + 1 >= TURNS && may_end() {
            break;
        }
    }
    let line = |(turn, name, signature): &(usize, &String, Vec<u8>)| {
        let digits: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{turn} {name} {digits}\n")
    };
    fs::write(part, signed.iter().map(line).collect::<String>()).unwrap();
}

const FOR_EVER: &str = "for ever";
/// The file in the home that lets signers end.
const ENOUGH: &str = "enough";

fn message(name: &str, turn: usize) -> String {
    format!("{name}, turn {turn}")
}

/// Twenty keys on the token, and who judges them.
fn keys(own: &Own) -> BTreeMap<String, Judge> {
    let make = |at: usize| {
        let name = format!("key-{at}");
        let key = own.make(Kind::P256, &name).unwrap().private;
        (name, own.judge(key))
    };
    (0..KEYS).map(make).collect()
}

/// A process that signs, and where it leaves its signatures.
struct Signer {
    running: Running,
    file: PathBuf,
}

impl Signer {
    fn start(home: &Home, number: usize) -> Signer {
        let file = home.path(&format!("signatures-{number}"));
        let running = other_process(
            concat!(module_path!(), "::signs"),
            home,
            file.to_str().unwrap(),
        );
        Signer { running, file }
    }

    /// All of its signatures are there and right; how many. OpenSSL judges one turn of each key.
    #[track_caller]
    fn has_signed(&self, judges: &BTreeMap<String, Judge>) -> usize {
        let text = fs::read_to_string(&self.file).unwrap();
        let judged = random(TURNS as u64) as usize;
        for line in text.lines() {
            let [turn, name, digits] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let turn: usize = turn.parse().unwrap();
            if turn == judged {
                let bytes = digits.as_bytes().chunks(2);
                let byte =
                    |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
                let signature: Vec<u8> = bytes.map(byte).collect();
                let data = message(name, turn);
                judges[name].accepts(data.as_bytes(), &signature).ok();
            }
        }
        assert!(text.lines().count() >= KEYS * TURNS);
        text.lines().count()
    }
}

/// Waits for all processes, and fails if one does not end well. Returns the times of the first and
/// of the last.
#[track_caller]
fn await_all(signers: &mut [Signer], mut meanwhile: impl FnMut()) -> (Duration, Duration) {
    let begun = Instant::now();
    let mut ended: Vec<Option<Duration>> = vec![None; signers.len()];
    while ended.iter().any(Option::is_none) {
        assert!(begun.elapsed() < LIMIT, "somebody starves: {ended:?}");
        for (signer, ended) in signers.iter_mut().zip(&mut ended) {
            if ended.is_none()
                && let Some(status) = signer.running.wait(Duration::ZERO)
            {
                assert!(status.success(), "{status}");
                *ended = Some(begun.elapsed());
            }
        }
        meanwhile();
    }
    let ended = || ended.iter().flatten().copied();
    (ended().min().unwrap(), ended().max().unwrap())
}

fn four_processes_share_a_bare_tpm(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let judges = keys(&own);
    let begun = Instant::now();
    let mut signers: Vec<_> = (0..3).map(|at| Signer::start(&bench.home, at)).collect();
    let mut kills = 0;
    let times = await_all(&mut signers, || {
        let mut victim = other_process(concat!(module_path!(), "::signs"), &bench.home, FOR_EVER);
        thread::sleep(Duration::from_micros(random(60_000)));
        victim.kill();
        kills += 1;
        if kills == 3 {
            bench.home.write(ENOUGH, "");
        }
    });
    let signed: usize = signers.iter().map(|one| one.has_signed(&judges)).sum();
    println!(
        "\n{KEYS} keys, 3 processes and one that was killed {kills} times: {signed} signatures, \
         the first and the last were ready after {times:?}, all in {:?}",
        begun.elapsed()
    );
    assert!(kills >= 3, "{kills}");
    // The slots can be used by all, and nothing of ours is in a handle.
    own.keys().iter().take(3).for_each(|key| own.signs(*key));
    assert_eq!(persistent(&bench.tpm).len(), 2);
}

fn eight_processes_share_tpm2_abrmd() {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(Broker::tcti());
    let _broker = Broker::new(&proxy.tcti(), &home);
    let own = Own::new(&home);
    let judges = keys(&own);
    home.write(ENOUGH, "");
    let begun = Instant::now();
    let mut signers: Vec<_> = (0..8).map(|at| Signer::start(&home, at)).collect();
    let times = await_all(&mut signers, thread::yield_now);
    let signed: usize = signers.iter().map(|one| one.has_signed(&judges)).sum();
    println!(
        "\n{KEYS} keys, 8 processes behind tpm2-abrmd: {signed} signatures, the first and the \
         last process were ready after {times:?}, all in {:?}",
        begun.elapsed()
    );
    assert_eq!(own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]).len(), KEYS);
    assert_eq!(signed, 8 * KEYS * TURNS);
}
