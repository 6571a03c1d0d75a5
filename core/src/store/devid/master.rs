//! The master key: a storage key of random at a persistent handle, whose wrapped form is stored
//! nowhere. Whoever evicts it erases every key that it wraps.
//!
//! Its public area is remembered in the folder, so that a TPM that was cleared or exchanged is told from
//! one that never had a master key, and nothing is made anew that would only hide the loss.

use super::{DevidStore, StoreError};
use crate::store::folder::Content;
use crate::tpm::{StorageKey, TpmError};
use log::info;

impl DevidStore {
    /// The key that wraps new keys; made if there is none and the folder has no keys of one.
    pub(super) fn master_for_new_keys(&self) -> Result<StorageKey, StoreError> {
        let handle = self.master.handle;
        let remembered = self.folder.master()?;
        let there = match self.tpm.storage_key(handle) {
            Err(TpmError::Unsupported(_)) if remembered.is_some() || self.has_wrapped_keys()? => {
                return Err(self.other_tpm("holds another key"));
            }
            other => other?,
        };
        match (&remembered, there) {
            (Some(area), Some(key)) if key.area() == area => Ok(key),
            (Some(_), Some(_)) => Err(self.other_tpm("holds another key")),
            (Some(_), None) => Err(self.other_tpm("is empty")),
            (None, None) if self.has_wrapped_keys()? => Err(self.other_tpm("is empty")),
            // Another token's, or of a folder that was lost.
            (None, Some(key)) => {
                if !key.is_as_ours() || self.tpm.is_primary(&key)? {
                    let whose = format!(
                        "handle 0x{handle:08X} holds a storage key that is none of ours: name \
                         another handle in [master]"
                    );
                    return Err(TpmError::Unsupported(whose).into());
                }
                info!("handle 0x{handle:08X} holds a storage key of ours: it is the master key");
                self.folder.remember_master(key.area())?;
                Ok(key)
            }
            (None, None) => {
                // Where nothing can be written no key could be kept, and none is made.
                self.folder.begin(&self.first_serial()?)?;
                self.folder.check_room()?;
                let key = self.tpm.make_storage_key(handle, &self.owner_auth()?)?;
                info!("master key made at 0x{handle:08X}");
                self.folder.remember_master(key.area())?;
                Ok(key)
            }
        }
    }

    /// What is to be said of a wrapped key that the TPM does not load.
    pub(super) fn other_tpm(&self, finding: &str) -> StoreError {
        let (handle, folder) = (self.master.handle, self.folder.path().display());
        StoreError::OtherTpm(format!(
            "handle 0x{handle:08X} {finding}, but the keys of {folder} are wrapped by a key that \
             was there: the TPM was cleared or exchanged, and they are lost with it. Bring back the \
             TPM that the folder belongs to, or begin anew with devid reset --factory --yes"
        ))
    }

    fn has_wrapped_keys(&self) -> Result<bool, StoreError> {
        let listing = self.whole_listing()?;
        Ok(listing.entries.iter().any(|entry| match &entry.content {
            Content::Pair(pair) => pair.material.parent() == Some(self.master.handle),
            _ => false,
        }))
    }
}
