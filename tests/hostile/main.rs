//! Callers and files that try to do harm.
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

mod calls;
mod files;
mod inner_pointers;
