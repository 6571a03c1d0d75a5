//! The contents that a factory writes to a TPM, and the token `idev-id` that shows them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

#[macro_use]
extern crate testkit;

mod certificates;
mod derived_keys;
mod identity;
mod manufacture;
mod script;
mod several_identities;
mod templates;
