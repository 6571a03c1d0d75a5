//! Conversion between wrapped objects in files and those of the TPM.

use super::tss2::{Tss2Key, Tss2Kind};
use crate::tpm::{Parent, WrappedKey, handle};

impl Tss2Key {
    /// The file form of a wrapped object. `has_value`: its authorisation value is not empty.
    pub fn of(kind: Tss2Kind, wrapped: &WrappedKey, has_value: bool) -> Self {
        let (parent, rsa_parent) = match wrapped.parent() {
            Parent::Persistent(handle) => (*handle, false),
            Parent::Owner { rsa } => (handle::OWNER, *rsa),
        };
        Self {
            kind,
            empty_auth: Some(!has_value),
            rsa_parent,
            ..Self::loadable(parent, wrapped.area().to_vec(), wrapped.private().to_vec())
        }
    }

    /// The object in the form of the TPM.
    ///
    /// # Errors
    ///
    /// The parent, if it is neither persistent nor in the owner hierarchy.
    pub fn wrapped(&self) -> Result<WrappedKey, &'static str> {
        let parent = match self.parent {
            handle if handle >> 24 == 0x81 => Parent::Persistent(handle),
            handle::OWNER | 0 => Parent::Owner {
                rsa: self.rsa_parent,
            },
            handle::ENDORSEMENT => {
                return Err("its parent is of the endorsement hierarchy, not of the owner's");
            }
            handle::PLATFORM => {
                return Err("its parent is of the platform hierarchy, not of the owner's");
            }
            handle::NULL => {
                return Err("its parent is of the null hierarchy, which ends with each restart");
            }
            handle if handle >> 24 == 0x80 => {
                return Err("its parent was in a transient handle, which no longer exists");
            }
            _ => return Err("its parent is neither a persistent key nor the owner hierarchy"),
        };
        Ok(WrappedKey::new(
            parent,
            self.public.clone(),
            self.private.clone(),
        ))
    }
}
