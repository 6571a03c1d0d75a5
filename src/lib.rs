//! The PKCS#11 module: what identifies a device and lives in its TPM 2.0, as tokens and objects.
//!
//! `abi` is the C border and the only place with `unsafe`. Behind it everything is plain Rust. Each room
//! uses only those that stand below it here:
//!
//! - [`module`]: what lives between C_Initialize and C_Finalize, slots and sessions.
//! - [`session`]: the calls of a session, and its operations.
//! - [`slot`]: where a token is looked for, who is logged in, the token, the objects of sessions.
//! - [`template`]: what a caller's template asks for.
//! - [`object`]: what a session finds, with all attributes.
//! - [`mechanism`]: the mechanisms, their parameters, and what each does with data.
//! - [`handle`], [`output`], [`error`], [`snapshot`], [`logging`], [`vendor`]: small types for all.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "a C library: its documentation is for those who work on it"
)]

mod abi;
mod error;
mod handle;
mod logging;
mod mechanism;
mod module;
mod object;
mod output;
mod session;
mod slot;
mod snapshot;
mod template;
mod vendor;
