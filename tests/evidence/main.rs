//! `devid` makes evidence that a key is in the device's TPM. OpenSSL and tpm2-tools check the
//! evidence.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub
)]

mod activate;
mod attest;
mod attestation_key;
mod ca;
mod device;
mod endorsement;
mod enrollz;
mod exchange;
mod export;
mod factory;
mod faults;
mod openconfig;
mod refused;
mod structures;
