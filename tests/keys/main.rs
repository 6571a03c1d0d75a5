//! The device's own keys: their creation, storage, protection and search.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[macro_use]
extern crate testkit;

mod clear_files;
mod command_counts;
mod damaged_files;
mod folder;
mod folder_in_the_way;
mod foreign_files;
mod generate;
mod imported;
mod interop;
mod killed_writers;
mod lost_answers;
mod many_processes;
mod master_key;
mod post_quantum;
mod protection;
mod protection_memory;
mod protection_rsa;
mod root_keys;
mod root_replaced;
mod rules;
mod sealed_memory;
mod untold_parents;
