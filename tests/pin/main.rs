//! PINs, logins, and the TPM's lockout.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[macro_use]
extern crate testkit;

mod command_counts;
mod configured;
mod factory_key;
mod lockout;
mod memory;
mod open_keys;
mod processes;
mod search;
mod token;
mod turns;
mod wire;
mod wrong_pins;
