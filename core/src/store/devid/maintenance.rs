//! Maintains stored keys: puts keys into persistent handles, and removes keys.

use super::{DevidStore, StoreError};
use crate::store::folder::{self, EntryContent, FolderError, KeyFolder, PinSeal, RefusedFile};
use crate::store::unloadable;
use crate::tpm::{SRK, TpmError, handle, is_device_key, name_of};
use log::debug;

/// A key of the device in a persistent handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInHandle {
    /// The persistent handle.
    pub handle: u32,
    /// The TPMT_PUBLIC of the key.
    pub area: Vec<u8>,
    /// The TPM name of the key.
    pub name: Vec<u8>,
}

impl DevidStore {
    /// Makes a key of the folder persistent again, and returns the handle. Uses the handle that the
    /// file of the key names. If another key is in that handle, uses a free handle. If the key is
    /// already in a handle for device keys, corrects only the file. Writes to the TPM.
    pub fn persist_again(&self, name: &str) -> Result<u32, StoreError> {
        let listing = self.folder.list()?;
        let EntryContent::Pair(pair) = &listing.entry(name)?.content else {
            return Err(StoreError::Gone);
        };
        let Some(key) = pair.material.wrapped() else {
            return Err(StoreError::Protection(
                "only a key that the TPM itself uses can be in a persistent handle".into(),
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
        // The search for another handle begins at the first handle for device keys. The handle in
        // the file does not matter.
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

    /// Translates an error of making a key persistent. If the key does not load, its file is
    /// damaged or the TPM is another one.
    fn not_loaded(&self, name: &str, error: TpmError) -> StoreError {
        match self.master_record().judged(&self.tpm, error) {
            TpmError::Unloadable(why) => StoreError::Folder(FolderError::Damaged {
                file: self.file(name).display().to_string(),
                reason: unloadable(&why),
            }),
            error => StoreError::of_making(error),
        }
    }

    /// Returns the handle that holds the key with this TPM name. Searches only the handles for
    /// device keys.
    pub(super) fn handle_with(&self, name: &[u8]) -> Result<Option<u32>, TpmError> {
        for handle in self.tpm.handles(*handle::DEVICE_KEYS.start())? {
            if handle::DEVICE_KEYS.contains(&handle) && self.tpm.holds(handle, name)? {
                return Ok(Some(handle));
            }
        }
        Ok(None)
    }

    /// Chooses a free handle and writes it into the file of the key. The caller makes the key
    /// persistent after that.
    fn name_handle(&self, name: &str, last: Option<u32>) -> Result<u32, StoreError> {
        let handle = self.free_handle(last)?;
        self.rewrite(name, |pair| pair.handle = Some(handle))?;
        Ok(handle)
    }

    /// Decides whether to trust the key that encrypts the owner's authorisation value. Callers use
    /// this function before they lock the folder for a destruction, because the record of the trust
    /// is in the same folder. Ignores errors, because they occur again when the value is used.
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

    /// Checks that the owner's authorisation value can be used, if one of these keys is in its
    /// persistent handle. Callers check this before they destroy anything.
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

    /// Removes a key from its persistent handle.
    pub(super) fn evict(&self, content: &EntryContent) -> Result<(), StoreError> {
        match evictable(content) {
            Some((handle, name)) => Ok(self.tpm.evict(handle, &name, &self.owner_auth()?)?),
            None => Ok(()),
        }
    }

    /// Destroys all objects in the file, and evicts the key from its persistent handle.
    pub fn destroy_whole(&self, name: &str) -> Result<(), StoreError> {
        self.settle_eviction_of(name);
        self.destroy_settled(name)
    }

    fn destroy_settled(&self, name: &str) -> Result<(), StoreError> {
        let evicted = self.folder.change(name, |entry| {
            // The handle is emptied before the file is removed. So no key stays in a handle that no
            // file names.
            self.evict(&entry.content)?;
            Ok::<_, StoreError>(None)
        });
        match evicted {
            Ok(_) | Err(StoreError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks that files can be removed. Callers check this before an irreversible step.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        Ok(self.folder.check_writable()?)
    }

    /// Destroys objects. Destroys certificates first, so that no certificate outlives its key.
    ///
    /// - With `all`, destroys all objects. Without `all`, destroys only objects that the token
    ///   created or that the master key wraps.
    /// - Without `tpm`, spares the keys of the TPM, because they would stay in their handles.
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

    /// Evicts the key in the handle of the master key, if the key has this name. All keys that the
    /// master key wraps are lost. Writes to the TPM.
    pub fn destroy_master(&self, name: &[u8]) -> Result<(), StoreError> {
        Ok(self
            .tpm
            .evict(self.master.handle, name, &self.owner_auth()?)?)
    }

    /// Removes the record of the master key, and the seals of PINs below the master key. The next
    /// key of the folder gets a new master key. Callers use this after
    /// [`destroy_master`](Self::destroy_master), for a folder without keys below the master key.
    pub fn forget_master(&self) -> Result<(), StoreError> {
        for seal in [PinSeal::User, PinSeal::SecurityOfficer] {
            if self.folder.has_seal(seal)? {
                self.folder.remove_seal(seal)?;
            }
        }
        self.folder.forget_former_masters()?;
        Ok(self.folder.forget_master()?)
    }

    /// Evicts the key with this name from a persistent handle for device keys. Writes to the TPM.
    pub fn evict_key(&self, handle: u32, name: &[u8]) -> Result<(), StoreError> {
        match handle::DEVICE_KEYS.contains(&handle) {
            true => Ok(self.tpm.evict(handle, name, &self.owner_auth()?)?),
            false => Ok(()),
        }
    }

    /// Returns the keys in persistent handles that belong to this device.
    ///
    /// | TPM | keys that are returned |
    /// |---|---|
    /// | has a master key | keys below the master key, or below a former master key |
    /// | has no master key | keys with the template of device keys that are not below the storage root key, because keys of other programs are below it |
    /// | returns no qualified name | all keys with the template of device keys |
    pub fn keys_in_handles(&self) -> Result<Vec<KeyInHandle>, StoreError> {
        let mut keys = Vec::new();
        let master = self.master.handle;
        let has_master = match self.tpm.storage_key(master) {
            Err(TpmError::Unsupported(_)) => false,
            other => other?.is_some(),
        };
        // If the file `.master` is damaged, no name of a master key is known.
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

    /// Returns the TPM names of all keys that the folder stores in wrapped form.
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

    /// Returns all objects of the folder. Callers that act because an object is missing need a
    /// complete listing.
    ///
    /// # Errors
    ///
    /// Fails also if one file could not be read.
    pub(super) fn whole_listing(&self) -> Result<folder::FolderListing, StoreError> {
        Ok(self.folder.list()?.whole()?)
    }

    /// Checks that all objects could be read. Callers check this before an action that depends on
    /// missing objects.
    ///
    /// # Errors
    ///
    /// Fails if an object could not be read.
    pub fn check_readable(&self) -> Result<(), StoreError> {
        self.whole_listing().map(drop)
    }

    /// Returns the names of files that hold no valid object.
    ///
    /// # Errors
    ///
    /// Fails also if one file could not be read, because the file may hold an object.
    pub fn damaged_files(&self) -> Result<Vec<RefusedFile>, StoreError> {
        Ok(self.whole_listing()?.refused)
    }

    /// Calls [`KeyFolder::tidy`](crate::store::folder::KeyFolder::tidy).
    pub fn tidy(&self) {
        self.folder.tidy();
    }

    /// Calls [`KeyFolder::in_the_way`](crate::store::folder::KeyFolder::in_the_way).
    pub fn in_the_way(&self) -> Vec<(String, &'static str)> {
        self.folder.in_the_way()
    }

    /// Returns the names of files that hold no valid object, or that could not be read.
    pub fn refused_files(&self) -> Result<Vec<RefusedFile>, StoreError> {
        Ok(self.folder.list()?.refused)
    }

    /// Returns the names of files that the folder ignores because of their names.
    pub fn left_out_files(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.folder.list()?.left_out)
    }
}

/// Returns the handle and the TPM name of a key whose file names a persistent handle.
fn evictable(content: &EntryContent) -> Option<(u32, Vec<u8>)> {
    let EntryContent::Pair(pair) = content else {
        return None;
    };
    let name = pair.material.wrapped().and_then(|key| name_of(&key.public));
    pair.handle.zip(name)
}
