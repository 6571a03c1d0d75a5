//! Structures of the TPM (Part 2), as Rust types and as bytes.

#[cfg(feature = "evidence")]
pub(crate) mod attest;
pub(super) mod endorsement;
pub(super) mod hash;
mod nv;
// Only the feature `evidence` uses keys with policies.
#[cfg_attr(not(feature = "evidence"), allow(dead_code, unreachable_pub))]
pub(super) mod policy;
mod property;
pub(super) mod public;
mod response_code;
mod signature;
pub(super) mod template;

pub use hash::Hash;
pub use nv::NvPublic;
pub use property::Property;
pub use public::{KeyScheme, PublicArea, other_kind};
pub(crate) use public::{name_of, qualified_name_below};
pub use response_code::ResponseCode;
pub use signature::{Signature, SignatureScheme};

/// Returns a TPM2B with this content (Part 2, section 10.4).
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut sized = (bytes.len() as u16).to_be_bytes().to_vec();
    sized.extend(bytes);
    sized
}
