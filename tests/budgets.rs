//! Instructions that a start and a steady signature cost, held to their budgets.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[macro_use]
#[allow(
    unused_macros,
    reason = "the module is in other processes, so no story is needed"
)]
mod common;

use common::budgets::instructions::{COLD_START, SIGNATURE};
use common::home::Home;
use common::host::host;
use common::programs::{program, run_within};
use common::tpm::Swtpm;
use std::time::Duration;

/// A host takes 50 times as long under valgrind, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Instructions of the host `costs` with so many signatures.
fn instructions(home: &Home, signatures: u64) -> u64 {
    let host = host(home, "costs", &[&signatures.to_string()]);
    let mut valgrind = program("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(host.get_program())
        .args(host.get_args());
    for (name, value) in host.get_envs() {
        valgrind.env(name, value.unwrap_or_default());
    }
    let said = run_within(PATIENCE, &mut valgrind, &[]).ok();
    let (_, after) = said.err.split_once("Collected : ").expect("a sum");
    let digits = after.split_whitespace().next().expect("a number");
    digits.parse().expect("a number")
}

#[track_caller]
fn is_within(what: &str, cost: u64, budget: u64) {
    println!("{what}: {cost} instructions, budget {budget}");
    assert!(
        cost <= budget,
        "{what}: {cost} instructions; the budget of {budget} stands in tests/common/budgets.rs"
    );
    assert!(
        cost >= budget / 2,
        "{what}: only {cost} instructions: lower its budget in tests/common/budgets.rs"
    );
}

#[test]
fn a_start_and_a_steady_signature() {
    const MORE: u64 = 20;
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let (first, all) = (instructions(&home, 1), instructions(&home, 1 + MORE));
    is_within("a cold start and its signature", first, COLD_START);
    is_within("a steady signature", (all - first) / MORE, SIGNATURE);
}
