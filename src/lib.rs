//! The PKCS#11 module. It shows the identities in the TPM 2.0 of a device as tokens and objects.
//!
//! `abi` is the C border and the only room with `unsafe`. Each room imports only rooms that stand
//! below it in this list:
//!
//! - [`module`]: the module between C_Initialize and C_Finalize, its slots and sessions.
//! - [`session`]: the calls of a session, and its operations.
//! - [`slot`]: the source of a token, the scan, the current user, the objects of sessions.
//! - [`template`]: the attributes that a caller asks for.
//! - [`object`]: objects with all attributes.
//! - [`mechanism`]: the mechanisms, their parameters, and their work on data.
//! - [`handle`], [`output`], [`error`], [`snapshot`], [`logging`], [`vendor`]: small types for all
//!   rooms.

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
