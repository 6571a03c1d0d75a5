//! What a key was made below: told by its qualified name (Part 1, section 16: "Names").
//!
//! Some TPMs give the name in the place of the qualified name. They do not tell; then template and
//! handle decide, here and in those who ask.

use super::exchange::Exchange;
use super::flush;
use super::{
    Auth, AuthHandle, SRK, StorageKey, Tpm, TpmError, handle, qualified_name_below, template,
};

/// Where the key in a persistent handle was made.
enum Ancestry {
    /// Nothing is in the handle.
    Empty,
    /// The key's qualified name, which tells what it lies below.
    Below(Vec<u8>),
    /// The TPM does not tell.
    Untold,
}

impl Tpm {
    /// True if the key at its handle is a primary key, which comes back from its template however
    /// often it is evicted.
    ///
    /// A TPM that does not tell what a key lies below is asked for the primary key of the same template
    /// instead: two commands more.
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

    /// True if the owner hierarchy derives this key from the template of storage keys, or it is in the
    /// handle of one that is derived.
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
            // Whoever may not ask the owner hierarchy has the storage root key to compare with.
            Err(TpmError::Response(code)) if code.is_definite() => {
                Ok(self.name_at(SRK)?.is_some_and(|root| root == key.name()))
            }
            Err(error) => Err(error),
        }
    }

    /// True if the key of this name in a persistent handle was made below the one in another; `None` if
    /// the TPM does not tell.
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

    /// True if the key of this name in a persistent handle was made below a storage key of this name
    /// that itself lay below the storage root key, wherever that one is now; `None` if the TPM does not
    /// tell.
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

    /// True if this is the qualified name of what is in a handle.
    fn is_at(&self, qualified: Option<Vec<u8>>, handle: u32) -> Result<Option<bool>, TpmError> {
        Ok(match self.place(handle)? {
            Ancestry::Empty => Some(false),
            Ancestry::Untold => None,
            Ancestry::Below(there) => Some(qualified.is_some_and(|one| one == there)),
        })
    }

    /// Where what is in a persistent handle was made.
    fn place(&self, handle: u32) -> Result<Ancestry, TpmError> {
        Exchange::new("ReadPublic").run(self, |link| match link.qualified_name(handle) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => Ok(Ancestry::Empty),
            other => Ok(other?.map_or(Ancestry::Untold, Ancestry::Below)),
        })
    }
}
