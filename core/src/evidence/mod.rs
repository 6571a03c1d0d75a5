//! Evidence that a key is in the TPM of a device: what the device shows, and what a CA makes of it.

mod activate;
mod attestation_key;
pub mod bundle;
pub mod challenge;
mod collect;
mod endorsement;
pub mod json;

pub use activate::{activate, activate_of_tools, is_of_tools};
pub use bundle::Bundle;
pub use challenge::{Challenge, Response};
pub use collect::{Collection, collect};
pub use json::{Bytes, DocumentError};
