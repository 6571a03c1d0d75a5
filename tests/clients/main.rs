//! Programs that use the module. scripts/test-clients runs the scripts in this folder.
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

mod algorithms;
mod ciphers;
mod devid;
mod digests;
mod engine;
mod handshakes;
mod java;
mod keys;
mod life;
mod migration;
mod openssl;
mod own_keys;
mod owner;
mod pages;
mod pins;
mod ssh;
mod sztp;
mod tls;
mod tools;
mod workers;
