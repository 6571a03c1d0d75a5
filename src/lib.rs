//! The PKCS#11 module: what identifies a device and lives in its TPM 2.0, as tokens and objects.
//!
//! `abi` is the C border and the only place with `unsafe`; behind it everything is plain Rust:
//! [`module`] holds the slots and sessions, [`slot`] where a token is looked for, [`token`] what was
//! found there, [`snapshot`] the lists of which a caller has asked the length, [`session`] the state of
//! one session, [`object`] what it finds, [`making`] and [`writing`] what it makes and changes,
//! [`mechanism`] how it signs, [`ciphering`] how it encrypts, decrypts and agrees on secrets, and
//! [`digesting`] how it hashes.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "a C library: its documentation is for those who work on it"
)]

mod abi;
mod agreement;
mod attribute;
mod cipher;
mod ciphering;
mod digest;
mod digesting;
mod error;
mod handle;
mod keeping;
mod logging;
mod login;
mod making;
mod mechanism;
mod module;
mod object;
mod output;
mod session;
mod slot;
mod snapshot;
mod template;
mod token;
mod unwrapping;
mod vendor;
mod wrapping;
mod writing;
