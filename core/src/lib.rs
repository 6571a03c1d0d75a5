//! Device identity in a TPM 2.0: the keys, their certificates and the connections to the TPM.
//!
//! This crate does not know PKCS#11. Dependencies point one way: [`identity`] → [`store`] →
//! [`x509`] → [`signature`] → [`tpm`] → [`key`].

mod accounts;
pub mod audit;
mod ber;
pub mod config;
#[cfg(feature = "evidence")]
pub mod evidence;
mod file;
pub mod fork;
pub mod identity;
pub mod key;
#[cfg(feature = "manufacture")]
pub mod manufacture;
#[cfg(feature = "evidence")]
pub mod message;
mod oid;
mod pem;
mod printable;
pub mod shell;
pub mod signature;
mod stack;
pub mod store;
mod system;
pub mod tpm;
mod trouble;
mod trust;
pub mod uri;
mod waiting;
mod writers;
pub mod x509;

pub use file::read as read_file;
pub use printable::printable;
pub use stack::{Computation, overwrite_stack};
pub use system::{Held, fits_limit, random};
pub use waiting::{TICKS, WAITING};
