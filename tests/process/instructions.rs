//! The number of instructions of a start and of a repeated signature, compared with their budgets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use testkit::budgets::commands::{SIGNATURE, listing};
use testkit::budgets::instructions::{self, COLD_START};
use testkit::budgets::{FUNCTIONS_OF_A_SIGNATURE, is_exactly, is_within};
use testkit::home::Home;
use testkit::host::host;
use testkit::programs::{program, run_within};
use testkit::proxy::Proxy;
use testkit::tpm::Swtpm;

/// A host takes 50 times as long under valgrind, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the host `costs` with this number of signatures under callgrind, and returns callgrind's
/// output.
fn callgrind(home: &Home, signatures: u64, options: &[&str]) -> String {
    let host = host(home, "costs", &[&signatures.to_string()]);
    let mut valgrind = program("valgrind");
    valgrind
        .arg("--tool=callgrind")
        .args(options)
        .arg(host.get_program())
        .args(host.get_args());
    for (name, value) in host.get_envs() {
        valgrind.env(name, value.unwrap_or_default());
    }
    run_within(PATIENCE, &mut valgrind, &[]).ok().err
}

/// Instructions of the host `costs` with so many signatures.
fn counted(home: &Home, signatures: u64) -> u64 {
    let said = callgrind(home, signatures, &["--callgrind-out-file=/dev/null"]);
    let (_, after) = said.split_once("Collected : ").expect("a sum");
    let digits = after.split_whitespace().next().expect("a number");
    digits.parse().expect("a number")
}

#[test]
fn a_start_and_a_steady_signature() {
    const MORE: u64 = 20;
    let (tpm, identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&proxy.tcti());
    let first = counted(&home, 1);
    let seen = proxy.book().take().without_retries();
    let all = counted(&home, 1 + MORE);
    is_within("a cold start and its signature", first, COLD_START);
    is_exactly(
        "a cold start",
        &seen,
        &[&listing(&identity)[..], SIGNATURE].concat(),
    );
    let steady = (all - first) / MORE;
    is_within("a steady signature", steady, instructions::SIGNATURE);
}

/// Our functions and closures that a C_Sign enters, by callgrind's list of calls. Functions that
/// only the first C_Sign enters are left out.
fn functions_of_a_signature(home: &Home) -> BTreeSet<String> {
    const SIGNATURES: u64 = 8;
    let list = home.path("calls");
    let out = format!("--callgrind-out-file={}", list.display());
    let only = "--toggle-collect=*::abi::sign::C_Sign";
    callgrind(home, SIGNATURES, &[&out, only, "--compress-strings=no"]);
    let list = std::fs::read_to_string(list).expect("callgrind's list");
    let mut calls = BTreeMap::<&str, u64>::new();
    let mut called = "";
    for line in list.lines() {
        if let Some(function) = line.strip_prefix("cfn=") {
            called = function;
        } else if let Some(count) = line.strip_prefix("calls=") {
            let count = count.split(' ').next().and_then(|count| count.parse().ok());
            *calls.entry(called).or_default() += count.unwrap_or(0);
        }
    }
    let ours = |name: &str| {
        let name = name.trim_start_matches('<');
        name.starts_with("devid_pkcs11::") || name.starts_with("devid_core::")
    };
    let steady = calls
        .into_iter()
        .filter(|&(name, count)| ours(name) && count >= SIGNATURES);
    steady.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_way_of_a_signature_is_short() {
    let (tpm, _identity) = Swtpm::manufactured();
    let functions = functions_of_a_signature(&Home::new(&tpm.tcti()));
    functions.iter().for_each(|name| println!("{name}"));
    let count = functions.len() as u64;
    is_within("functions of a signature", count, FUNCTIONS_OF_A_SIGNATURE);
}
