//! Signatures, their verification, and digests.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
extern crate testkit;

mod digest_state;
mod digested_keys;
mod digests;
mod ecdsa;
mod esapi_oracle;
mod fixed_hash;
mod padded_in_software;
mod rsa;
mod verify;
