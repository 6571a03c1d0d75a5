//! Evidence that a key is in the TPM of a device: what the device shows, and what a CA makes of it.

pub mod bundle;

pub use bundle::{Bundle, BundleError};
