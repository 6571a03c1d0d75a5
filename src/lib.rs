//! The PKCS#11 module. The module shows the identities in the TPM 2.0 of a device as tokens and
//! objects.
//!
//! `abi` is the C interface, and only `abi` has `unsafe`. Each Rust module imports only modules
//! that stand below it in this list:
//!
//! - [`module`]: the state between C_Initialize and C_Finalize: the slots and sessions.
//! - [`session`]: the PKCS#11 functions of a session, and the operations of a session.
//! - [`slot`]: the source of a token, the scan, the current user, the objects of sessions.
//! - [`template`]: the attributes that a caller asks for.
//! - [`object`]: objects with all their attributes.
//! - [`mechanism`]: the mechanisms, their parameters, and their work on data.
//! - [`handle`], [`output`], [`error`], [`snapshot`], [`logging`], [`vendor`]: small types for all
//!   modules.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "a C library: its documentation is for its developers"
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
