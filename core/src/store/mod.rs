//! Stores: where keys and certificates come from.
//!
//! The factory identity is found in the TPM; the key folder holds what was made later, so far as
//! files only. What stores have in common becomes a trait when both have keys that sign.

pub mod folder;
pub mod idevid;
mod key;
mod templates;
mod verify;

pub use key::{Key, SignRequest};
use templates::Templates;
pub use verify::verify;

use crate::tpm::TpmError;
use std::fmt;

/// Why a store gave no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The digest has a length that this key cannot sign rightly.
    DigestLength(usize),
    /// The key does not sign by such a scheme.
    Scheme,
    /// The TPM does not derive the certified key.
    NotInThisTpm,
    /// The TPM, or the way to it.
    Tpm(TpmError),
}

impl From<TpmError> for SignError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DigestLength(bytes) => {
                write!(
                    f,
                    "a digest of {bytes} bytes cannot be signed rightly by this key"
                )
            }
            Self::Scheme => f.write_str("the key does not sign by this scheme"),
            Self::NotInThisTpm => f.write_str("this TPM does not hold the certified key"),
            Self::Tpm(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SignError {}
