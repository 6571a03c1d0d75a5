//! The parent under which a key was made. The qualified name of the key shows it (Part 1, section
//! 16: "Names").
//!
//! Some TPMs return the name instead of the qualified name. In that case templates and handles
//! decide, in this file and in its callers.

use super::exchange::Exchange;
use super::flush;
use super::{
    Auth, AuthHandle, SRK, StorageKey, Tpm, TpmError, handle, qualified_name_below, template,
};

/// The facts about the parent of the key in a persistent handle.
enum Ancestry {
    /// The persistent handle contains no object.
    Empty,
    /// The qualified name of the key. The qualified name is a digest over the names of all
    /// ancestors.
    Below(Vec<u8>),
    /// TPM2_ReadPublic of this TPM returns no qualified name, so the parent is unknown.
    Untold,
}

impl Tpm {
    /// Returns true if the key is a primary key. A primary key can be derived again from its
    /// template after any eviction.
    ///
    /// If the TPM returns no qualified name, the key is compared with the primary key of the same
    /// template. The comparison costs two more commands.
    pub fn is_primary(&self, key: &StorageKey) -> Result<bool, TpmError> {
        const HIERARCHIES: [u32; 3] = [handle::OWNER, handle::ENDORSEMENT, handle::PLATFORM];
        let below = |one: u32| qualified_name_below(&one.to_be_bytes(), key.name());
        match self.place(key.handle())? {
            Ancestry::Empty => Ok(false),
            Ancestry::Below(there) => Ok(HIERARCHIES
                .into_iter()
                .any(|one| below(one).as_ref() == Some(&there))),
            Ancestry::Untold => self.comes_back(key),
        }
    }

    /// Returns true if the owner hierarchy derives this key from the storage key template. Also
    /// returns true if the key is in a handle that is reserved for primary keys.
    fn comes_back(&self, key: &StorageKey) -> Result<bool, TpmError> {
        if key.handle() == SRK || handle::ENDORSEMENT_KEYS.contains(&key.handle()) {
            return Ok(true);
        }
        if !key.has_our_template() {
            return Ok(false);
        }
        let template = template::storage_root(false);
        let derived = Exchange::new("CreatePrimary")
            .needing_object_slot()
            .run(self, |link| {
                let (handle, _, name) =
                    link.create_primary(AuthHandle::owner(Auth::Empty), &template)?;
                flush(link, handle, &Ok(()));
                Ok(name)
            });
        match derived {
            Ok(name) => Ok(name == key.name()),
            // Without the owner's authorisation the key can only be compared with the storage root
            // key.
            Err(TpmError::Response(code)) if code.is_definite() => {
                Ok(self.name_at(SRK)?.is_some_and(|root| root == key.name()))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns true if the key of this name, in a persistent handle, was made below the key in the
    /// other handle. Returns `None` if the TPM returns no qualified name.
    pub fn lies_below(
        &self,
        parent: u32,
        handle: u32,
        name: &[u8],
    ) -> Result<Option<bool>, TpmError> {
        let parent = match self.place(parent)? {
            Ancestry::Empty => return Ok(Some(false)),
            Ancestry::Untold => return Ok(None),
            Ancestry::Below(parent) => parent,
        };
        self.is_at(qualified_name_below(&parent, name), handle)
    }

    /// Returns true if the key with this name, in a persistent handle, is a child of the storage
    /// key named `parent`. The function assumes that the parent is a child of the storage root key.
    /// The parent need not be in the TPM now. Returns `None` if the TPM returns no qualified name.
    pub fn lay_below(
        &self,
        parent: &[u8],
        handle: u32,
        name: &[u8],
    ) -> Result<Option<bool>, TpmError> {
        let root = match self.place(SRK)? {
            Ancestry::Empty => return Ok(Some(false)),
            Ancestry::Untold => return Ok(None),
            Ancestry::Below(root) => root,
        };
        let parent = qualified_name_below(&root, parent);
        let below = parent.and_then(|parent| qualified_name_below(&parent, name));
        self.is_at(below, handle)
    }

    /// Returns true if the object in a handle has this qualified name.
    fn is_at(&self, qualified: Option<Vec<u8>>, handle: u32) -> Result<Option<bool>, TpmError> {
        Ok(match self.place(handle)? {
            Ancestry::Empty => Some(false),
            Ancestry::Untold => None,
            Ancestry::Below(there) => Some(qualified.is_some_and(|one| one == there)),
        })
    }

    /// Reads the qualified name of the object in a persistent handle, by TPM2_ReadPublic.
    fn place(&self, handle: u32) -> Result<Ancestry, TpmError> {
        Exchange::new("ReadPublic").run(self, |link| match link.qualified_name(handle) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => Ok(Ancestry::Empty),
            other => Ok(other?.map_or(Ancestry::Untold, Ancestry::Below)),
        })
    }
}
