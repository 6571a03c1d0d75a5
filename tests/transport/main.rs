//! The transport to the TPM: commands, faults, missing answers, interposers, and other TPMs.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub
)]

#[macro_use]
extern crate testkit;

mod command_counts;
mod faults;
mod interposed;
mod mutations;
mod other_tpms;
mod simulators;
mod slow;
mod tpm_changes;
mod unknown_answers;
mod unproven;
