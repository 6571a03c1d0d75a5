//! Evidence that a key is in the TPM of a device: what the device shows, and what a CA makes of it.

pub mod bundle;
mod ca;
pub mod challenge;
mod issue;
pub mod json;
mod state;
pub mod verify;

pub use bundle::Bundle;
pub use ca::{Ca, EvidencePolicy, LIFETIME};
pub use challenge::{Challenge, Response};
pub use issue::{Issuance, Issued, WhatToCertify};
pub use json::{Bytes, DocumentError};
