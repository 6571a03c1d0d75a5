//! Evidence that a key is in the TPM of a device: what the device shows, and what a CA makes of it.

pub mod bundle;
pub mod challenge;
pub mod json;

pub use bundle::Bundle;
pub use challenge::{Challenge, Response};
pub use json::{Bytes, DocumentError};
