//! What files hold of the TPM's, as the TPM loads it and gives it.

use super::tss2::{Kind, OWNER, Tss2Key};
use crate::tpm::{Parent, WrappedKey};

impl Tss2Key {
    /// What the TPM wrapped; `has_value`: it has an authorisation value.
    pub fn of(kind: Kind, wrapped: &WrappedKey, has_value: bool) -> Self {
        let (parent, rsa_parent) = match wrapped.parent() {
            Parent::Persistent(handle) => (*handle, false),
            Parent::Owner { rsa } => (OWNER, *rsa),
        };
        Self {
            kind,
            empty_auth: Some(!has_value),
            rsa_parent,
            ..Self::loadable(parent, wrapped.area().to_vec(), wrapped.private().to_vec())
        }
    }

    /// The same for the TPM; `None` if what wraps it is neither a persistent key nor the owner
    /// hierarchy's.
    pub fn wrapped(&self) -> Option<WrappedKey> {
        let parent = match self.parent {
            handle if handle >> 24 == 0x81 => Parent::Persistent(handle),
            OWNER | 0 => Parent::Owner {
                rsa: self.rsa_parent,
            },
            _ => return None,
        };
        Some(WrappedKey::new(
            parent,
            self.public.clone(),
            self.private.clone(),
        ))
    }
}
