//! Converts wrapped objects between the form of a file and the form of the TPM commands.

use super::tss2::{Tss2Key, Tss2Kind};
use crate::tpm::{Parent, WrappedKey, handle};

impl Tss2Key {
    /// Converts a wrapped object into the form of a file. `has_value` is true if the authorisation
    /// value of the object is not empty.
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

    /// Converts the object into the form of the TPM commands.
    ///
    /// # Errors
    ///
    /// Fails if the parent is neither persistent nor in the owner hierarchy.
    pub fn wrapped(&self) -> Result<WrappedKey, &'static str> {
        let parent = match self.parent {
            handle if handle >> 24 == 0x81 => Parent::Persistent(handle),
            handle::OWNER | 0 => Parent::Owner {
                rsa: self.rsa_parent,
            },
            handle::ENDORSEMENT => {
                return Err(
                    "its parent is in the endorsement hierarchy, but only parents in the owner \
                     hierarchy are supported",
                );
            }
            handle::PLATFORM => {
                return Err(
                    "its parent is in the platform hierarchy, but only parents in the owner \
                     hierarchy are supported",
                );
            }
            handle::NULL => {
                return Err(
                    "its parent is in the null hierarchy, whose keys do not survive a restart of \
                     the TPM",
                );
            }
            handle if handle >> 24 == 0x80 => {
                return Err("its parent was in a transient handle, which does not exist any more");
            }
            _ => {
                return Err(
                    "its parent is neither in a persistent handle nor in the owner hierarchy",
                );
            }
        };
        Ok(WrappedKey::new(
            parent,
            self.public.clone(),
            self.private.clone(),
        ))
    }
}
