//! What happens to a kept key later: it goes back into a persistent handle, or away as a whole.

use super::{DevidStore, StoreError};
use crate::store::folder::{self, EntryContent, FolderError, KeyFolder, PinSeal, RefusedFile};
use crate::store::unloadable;
use crate::tpm::{SRK, TpmError, handle, is_device_key, name_of};
use log::debug;

/// A key in a persistent handle of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInHandle {
    /// The handle.
    pub handle: u32,
    /// Its TPMT_PUBLIC.
    pub area: Vec<u8>,
    /// Its TPM name.
    pub name: Vec<u8>,
}

impl DevidStore {
    /// Puts a key of the folder into a persistent handle again: into the one that its file names,
    /// unless another key is there by now. Where another handle of ours holds the key already, only
    /// the file is mended. Gives the handle. Writes to the TPM.
    pub fn persist_again(&self, name: &str) -> Result<u32, StoreError> {
        let listing = self.folder.list()?;
        let EntryContent::Pair(pair) = &listing.entry(name)?.content else {
            return Err(StoreError::Gone);
        };
        let Some(key) = pair.material.wrapped() else {
            return Err(StoreError::Protection(
                "only a key that the TPM itself uses can be in a handle".into(),
            ));
        };
        let parentless = |why: &str| StoreError::Unsupported(why.into());
        let wrapped = key.wrapped().map_err(parentless)?;
        if let Some(there) = self.handle_with(wrapped.name())? {
            if pair.handle != Some(there) {
                self.rewrite(name, |pair| pair.handle = Some(there))?;
            }
            return Ok(there);
        }
        let mut handle = match pair.handle {
            Some(handle) if handle::DEVICE_KEYS.contains(&handle) => handle,
            _ => self.name_handle(name, None)?,
        };
        // Whatever the file names, the search for another begins at the first.
        let mut last = None;
        loop {
            if self.tpm.holds(handle, wrapped.name())? {
                return Ok(handle);
            }
            let owner = self.owner_auth_by_master()?;
            match self.tpm.persist(&wrapped, handle, &owner) {
                Ok(()) => return Ok(handle),
                Err(TpmError::KeyReplaced(_)) => {
                    handle = self.name_handle(name, last)?;
                    last = Some(handle);
                }
                Err(error) => return Err(self.not_loaded(name, error)),
            }
        }
    }

    /// A fault of a key's way into a handle: that it does not load is its file's fault, or says that
    /// the TPM is another.
    fn not_loaded(&self, name: &str, error: TpmError) -> StoreError {
        match self.master_record().judged(&self.tpm, error) {
            TpmError::Unloadable(why) => StoreError::Folder(FolderError::Damaged {
                file: self.file(name).display().to_string(),
                reason: unloadable(&why),
            }),
            error => StoreError::of_making(error),
        }
    }

    /// The handle of ours that holds the key of this TPM name.
    pub(super) fn handle_with(&self, name: &[u8]) -> Result<Option<u32>, TpmError> {
        for handle in self.tpm.handles(*handle::DEVICE_KEYS.start())? {
            if handle::DEVICE_KEYS.contains(&handle) && self.tpm.holds(handle, name)? {
                return Ok(Some(handle));
            }
        }
        Ok(None)
    }

    /// Writes a free handle into the key's file before the key is there.
    fn name_handle(&self, name: &str, last: Option<u32>) -> Result<u32, StoreError> {
        let handle = self.free_handle(last)?;
        self.rewrite(name, |pair| pair.handle = Some(handle))?;
        Ok(handle)
    }

    /// Before the folder is locked for the destruction of an object: has the key believed to which the
    /// owner's value will be shown, since what is remembered of that is kept in the same folder. What
    /// fails here fails again where the value is shown, if it is at all.
    pub(super) fn settle_eviction_of(&self, name: &str) {
        if self.master.owner_auth.is_some()
            && let Ok(listing) = self.folder.list()
            && let Ok(entry) = listing.entry(name)
            && evictable(&entry.content).is_some()
            && let Ok(owner) = self.owner_auth()
            && let Err(error) = self.tpm.check_shows(&owner)
        {
            debug!("owner_auth: {error}");
        }
    }

    /// That the owner's value can be shown, if one of these keys is in its handle: before anything is
    /// gone.
    fn check_evictable<'a>(
        &self,
        contents: impl Iterator<Item = &'a EntryContent>,
    ) -> Result<(), StoreError> {
        if self.master.owner_auth.is_none() {
            return Ok(());
        }
        for (handle, name) in contents.filter_map(evictable) {
            if self.tpm.holds(handle, &name)? {
                return Ok(self.tpm.check_shows(&self.owner_auth()?)?);
            }
        }
        Ok(())
    }

    /// Takes a key out of its persistent handle.
    pub(super) fn evict(&self, content: &EntryContent) -> Result<(), StoreError> {
        match evictable(content) {
            Some((handle, name)) => Ok(self.tpm.evict(handle, &name, &self.owner_auth()?)?),
            None => Ok(()),
        }
    }

    /// Destroys all that the file holds, and evicts the key from its persistent handle.
    pub fn destroy_whole(&self, name: &str) -> Result<(), StoreError> {
        self.settle_eviction_of(name);
        self.destroy_settled(name)
    }

    fn destroy_settled(&self, name: &str) -> Result<(), StoreError> {
        let evicted = self.folder.change(name, |entry| {
            // First the handle, so that no key is in one that nobody lists.
            self.evict(&entry.content)?;
            Ok::<_, StoreError>(None)
        });
        match evicted {
            Ok(_) | Err(StoreError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// That nothing keeps files from being taken away, before anything else is done for good.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        Ok(self.folder.check_writable()?)
    }

    /// Destroys objects, certificates first: one whose key is gone would be for no key of the
    /// device. `all` of them, or those that were made through the token or that the master key
    /// wraps; without `tpm` no key that is the TPM's, since it would stay in its handle.
    pub fn erase(&self, all: bool, tpm: bool) -> Result<(), StoreError> {
        let listing = self.whole_listing()?;
        let goes = listing.entries.iter().filter(|entry| {
            let parent = entry.content.parent();
            let is_ours =
                parent == Some(self.master.handle) || KeyFolder::is_generated_name(&entry.name);
            (all || is_ours) && (tpm || parent.is_none())
        });
        let goes: Vec<_> = goes.collect();
        self.check_evictable(goes.iter().map(|entry| &entry.content))?;
        let (certificates, others): (Vec<_>, Vec<_>) = goes
            .into_iter()
            .partition(|entry| matches!(entry.content, EntryContent::Certificate(..)));
        for entry in certificates.into_iter().chain(others) {
            self.destroy_settled(&entry.name)?;
        }
        if tpm {
            self.erase_successions()?;
        }
        #[cfg(feature = "evidence")]
        if (all || self.is_service) && tpm {
            self.folder.forget_attestation_key()?;
        }
        Ok(())
    }

    /// Evicts the key at the master key's handle if it is the one of this name: every key that it
    /// wraps is erased by that. Writes to the TPM.
    pub fn destroy_master(&self, name: &[u8]) -> Result<(), StoreError> {
        Ok(self
            .tpm
            .evict(self.master.handle, name, &self.owner_auth()?)?)
    }

    /// Forgets which key was the master key, and the PINs that it sealed: the next key of the folder
    /// gets a new one. Only for a folder without keys of it, after
    /// [`destroy_master`](Self::destroy_master).
    pub fn forget_master(&self) -> Result<(), StoreError> {
        for seal in [PinSeal::User, PinSeal::SecurityOfficer] {
            if self.folder.has_seal(seal)? {
                self.folder.remove_seal(seal)?;
            }
        }
        self.folder.forget_former_masters()?;
        Ok(self.folder.forget_master()?)
    }

    /// Takes a key away from a persistent handle of ours, if it is the one of this name. Writes to
    /// the TPM.
    pub fn evict_key(&self, handle: u32, name: &[u8]) -> Result<(), StoreError> {
        match handle::DEVICE_KEYS.contains(&handle) {
            true => Ok(self.tpm.evict(handle, name, &self.owner_auth()?)?),
            false => Ok(()),
        }
    }

    /// Keys in persistent handles of ours that lie below the master key, or below one that the folder
    /// remembers; where there is none, those that are as ours and do not lie below the storage root
    /// key, as other programs' do. Where the TPM does not tell what a key lies below, those that are as
    /// ours.
    pub fn keys_in_handles(&self) -> Result<Vec<KeyInHandle>, StoreError> {
        let mut keys = Vec::new();
        let master = self.master.handle;
        let has_master = match self.tpm.storage_key(master) {
            Err(TpmError::Unsupported(_)) => false,
            other => other?.is_some(),
        };
        // A damaged record says nothing of any.
        let known = self.master_names().unwrap_or_default();
        for handle in self.tpm.handles(*handle::DEVICE_KEYS.start())? {
            if handle::DEVICE_KEYS.contains(&handle) {
                let (area, key) = self.tpm.persistent_key(handle)?;
                let name = key.name().to_vec();
                let mut is_ours = match has_master {
                    true => {
                        let below = self.tpm.lies_below(master, handle, &name)?;
                        below.unwrap_or_else(|| is_device_key(&area))
                    }
                    false => {
                        let below_root = self.tpm.lies_below(SRK, handle, &name)?;
                        is_device_key(&area) && below_root != Some(true)
                    }
                };
                for known in known.iter().filter(|_| has_master) {
                    is_ours = is_ours || self.tpm.lay_below(known, handle, &name)? == Some(true);
                }
                if is_ours {
                    keys.push(KeyInHandle { handle, area, name });
                }
            }
        }
        Ok(keys)
    }

    /// The TPM names of the keys that the folder has a wrapped form of.
    pub fn wrapped_names(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let name = |content: &EntryContent| match content {
            EntryContent::Pair(pair) => name_of(&pair.material.wrapped()?.public),
            _ => None,
        };
        let listing = self.whole_listing()?;
        Ok(listing
            .entries
            .iter()
            .filter_map(|entry| name(&entry.content))
            .collect())
    }

    /// All objects of the folder, for whoever writes because of what is not there.
    ///
    /// # Errors
    ///
    /// Also if one of them could not be read now.
    pub(super) fn whole_listing(&self) -> Result<folder::FolderListing, StoreError> {
        Ok(self.folder.list()?.whole()?)
    }

    /// That no object can seem to be missing, before something is done because it does.
    ///
    /// # Errors
    ///
    /// One could not be read now.
    pub fn check_readable(&self) -> Result<(), StoreError> {
        self.whole_listing().map(drop)
    }

    /// Files of the folder that give no object because of what is in them, by name.
    ///
    /// # Errors
    ///
    /// Also if a file could not be read now: it may be an object.
    pub fn damaged_files(&self) -> Result<Vec<RefusedFile>, StoreError> {
        Ok(self.whole_listing()?.refused)
    }

    /// As [`KeyFolder::tidy`](crate::store::folder::KeyFolder::tidy).
    pub fn tidy(&self) {
        self.folder.tidy();
    }

    /// As [`KeyFolder::in_the_way`](crate::store::folder::KeyFolder::in_the_way).
    pub fn in_the_way(&self) -> Vec<(String, &'static str)> {
        self.folder.in_the_way()
    }

    /// Files of the folder that give no object, by name.
    pub fn refused_files(&self) -> Result<Vec<RefusedFile>, StoreError> {
        Ok(self.folder.list()?.refused)
    }

    /// Files of the folder that are not read for their names.
    pub fn left_out_files(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.folder.list()?.left_out)
    }
}

/// The handle and the TPM name of a key that its file says to be in a persistent handle.
fn evictable(content: &EntryContent) -> Option<(u32, Vec<u8>)> {
    let EntryContent::Pair(pair) = content else {
        return None;
    };
    let name = pair.material.wrapped().and_then(|key| name_of(&key.public));
    pair.handle.zip(name)
}
