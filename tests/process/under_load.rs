//! Servers that fork, threads, and random calls. `scripts/torture forks random` makes these stories long.

use cryptoki_sys::*;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;
use testkit::devid::{Judge, label, yes};
use testkit::factory::Identity;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::host::host;
use testkit::link::Link;
use testkit::module::Opened;
use testkit::own::{Own, P256, generate};
use testkit::pins::{Bench, LABEL, USER};
use testkit::programs::{run, run_within};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

over_our_transport!(
    children_of_a_server,
    children_of_eight_threads,
    random_calls_of_16_threads
);
once!(
    processes_that_share_a_tcp_port,
    processes_that_share_a_unix_socket
);

/// How much longer than usual the stories last.
fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// A C program, without the trace of its calls.
fn quiet<'a>(home: &Home, command: &'a mut Command) -> &'a mut Command {
    let log = format!("warn,file:{}", home.path("log").display());
    command.env("DEVID_PKCS11_LOG", log)
}

/// A bare TPM has three slots for objects, and as many for sessions.
const SLOTS: usize = 3;

/// Objects and sessions in the TPM.
fn held(tpm: &Swtpm) -> [usize; 2] {
    ["handles-transient", "handles-loaded-session"].map(|what| {
        let listed = run(tpm.tool("tpm2_getcap").arg(what)).ok().text();
        listed.lines().count()
    })
}

/// Seven ways of a child: it signs in the inherited session, after C_Initialize, after C_Finalize and
/// C_Initialize; it finalises, exits, executes a program, or is killed while it signs.
fn serves(link: Link, children: u64, threads: u64) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.raw.login(session, CKU_USER, USER.as_bytes()).unwrap();
    let both = [label("served"), yes(CKA_TOKEN)];
    let public = [&both[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
    let private = [&both[..], &[yes(CKA_PRIVATE)]].concat();
    let made = generate(&token.raw, session, CKM_EC_KEY_PAIR_GEN, &public, &private);
    let (public, _) = made.expect("C_GenerateKeyPair");
    let info = token.raw.attribute(session, public, CKA_PUBLIC_KEY_INFO);
    let judge = Judge::new(&info.unwrap(), true);
    token.raw.finalize().unwrap();
    let serve = |children: u64, threads: u64| {
        let numbers = [children, threads].map(|number| number.to_string());
        let words = [LABEL, USER, "served", &numbers[0], &numbers[1]];
        let limit = Duration::from_secs(number("DEVID_STORY_SECONDS", 0) + 160);
        let mut server = host(&bench.home, "prefork", &words);
        let said = run_within(limit, quiet(&bench.home, &mut server), &[]).ok();
        let lines = said.text();
        assert!(!lines.is_empty());
        for line in lines.lines().rev().take(40) {
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
            let signature: Vec<u8> = line.as_bytes().chunks(2).map(byte).collect();
            judge.accepts(b"served", &signature).ok();
        }
        said.err
    };
    println!("\n{threads} threads, {}", serve(children, threads).trim());
    // What killed children leave in the TPM is given back when its slots are needed.
    let left = held(&bench.tpm);
    assert!(left.iter().all(|slots| *slots <= SLOTS), "{left:?}");
    serve(2, 0);
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn children_of_a_server(link: Link) {
    serves(link, number("DEVID_CHILDREN", 7), 0);
}

fn children_of_eight_threads(link: Link) {
    serves(link, number("DEVID_CHILDREN", 7), 8);
}

/// A factory identity, and a token with PIN. `DEVID_RANDOM_SEED` repeats the calls of each thread.
fn random_calls_of_16_threads(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    token.raw.finalize().unwrap();
    let own = Own::on(&bench.home, LABEL);
    own.raw
        .login(own.session, CKU_USER, USER.as_bytes())
        .unwrap();
    own.pair("kept");
    own.raw.finalize().unwrap();
    let seconds = number("DEVID_RANDOM_SECONDS", 10);
    let seed = number("DEVID_RANDOM_SEED", u64::from(std::process::id())).to_string();
    let words = [&seed, "16", "1000000000", &seconds.to_string(), USER];
    let mut random = host(&bench.home, "random", &words);
    let limit = Duration::from_secs(seconds + 150);
    let said = run_within(limit, quiet(&bench.home, &mut random), &[]);
    println!("\n{}", said.all().trim());
    assert!(said.status.success(), "{said}");
    assert_eq!(held(&bench.tpm), [0, 0]);
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

/// swtpm serves one client and lets two wait. All processes of more must get their turns.
fn all_processes_get_turns((tpm, _identity): (Swtpm, Identity)) {
    const PROCESSES: usize = 16;
    const SIGNATURES: u64 = 200;
    let home = Home::new(&tpm.tcti());
    let module = Opened::new(&home);
    let key = module.key();
    let tally = |number: usize| home.path(&format!("tally-{number}"));
    let children: Vec<_> = (0..PROCESSES)
        .map(|number| {
            let mut tally = File::create(tally(number)).expect("a file");
            Forked::new(|| {
                loop {
                    let signed = module.sign(CKM_ECDSA, key, &[0x33; 32]);
                    signed.expect("C_Sign");
                    tally.write_all(b".").expect("written");
                }
            })
        })
        .collect();
    let counts = || (0..PROCESSES).map(|number| fs::metadata(tally(number)).unwrap().len());
    let ended = || children.iter().any(|child| !child.is_running());
    let counted = await_some(
        "a process with its signatures",
        Duration::from_secs(80),
        || {
            let counted: Vec<_> = counts().collect();
            let is_done = ended() || counted.iter().any(|count| *count >= SIGNATURES);
            is_done.then_some(counted)
        },
    );
    println!("\nsignatures of {PROCESSES} processes: {counted:?}");
    assert!(!ended(), "a process ended");
    assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
}

fn processes_that_share_a_tcp_port() {
    all_processes_get_turns(Swtpm::manufactured());
}

fn processes_that_share_a_unix_socket() {
    all_processes_get_turns(Swtpm::manufactured_on_unix_socket());
}
