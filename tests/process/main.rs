//! The process of the host: forks, threads, signals, rights, limits, files, memory.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[macro_use]
extern crate testkit;

mod audit;
mod bare_root;
mod c_hosts;
mod denied_calls;
mod descriptors;
mod fork;
mod fork_first_use;
mod heap;
mod instructions;
mod log;
mod rights;
mod room;
mod soak;
mod threads;
mod trusted_config;
mod under_load;
mod unknown_writers;
mod unreadable_files;
mod unreadable_files_tool;
mod valgrind;
