//! Device identity in a TPM 2.0: the keys, their certificates and the links to the TPM.
//!
//! Nothing here knows PKCS#11. Arrows point one way: [`identity`] → [`store`] → [`tpm`], all → [`key`].

mod accounts;
pub mod certificate;
pub mod config;
mod file;
pub mod identity;
pub mod key;
mod pem;
mod shell;
mod stack;
pub mod store;
mod system;
pub mod tpm;
mod trouble;
mod trust;
pub mod uri;
mod writers;

pub use file::write_out as write_file;
pub use stack::overwrite_stack;
pub use system::{Held, fits_limit, random};
