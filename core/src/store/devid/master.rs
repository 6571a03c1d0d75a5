//! The master key: a random storage key in a persistent handle. Its wrapped form is stored nowhere.
//! So its eviction destroys all keys that it wraps.
//!
//! The key folder records the public area of the master key. A TPM that was cleared or exchanged
//! has no key with the recorded name. So the loss is noticed, and no new master key hides it. Only
//! this module decides by the name whether the TPM has the master key. A key that does not load
//! proves nothing, because its own file may be damaged.

use super::{DevidStore, StoreError};
use crate::store::folder::{FolderError, KeyFolder};
use crate::tpm::{
    CLEARED_OR_EXCHANGED, Parent, SRK, StorageKey, Tpm, TpmError, Unloadable, handle,
    is_device_key, name_of,
};
use log::{info, warn};
use std::path::PathBuf;

/// Tells whether the TPM has the master key of a key folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MasterPresence {
    /// The TPM holds the master key.
    Held,
    /// The handle of the master key is empty.
    Missing,
    /// The handle of the master key holds another key, or an object that is not a storage key.
    Other,
    /// The key folder has no file `.master`, and the persistent handle for the master key is in
    /// use.
    Unknown,
}

/// Traces that a missing master key left in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MasterTraces {
    /// The master key is in this other persistent handle.
    Elsewhere(u32),
    /// Keys that were created below the master key. So the TPM is the right one, and was not
    /// cleared.
    Children,
    /// The TPM holds only a storage root key. The TPM may be the right one.
    Root,
    /// The TPM holds neither the master key, nor its children, nor a storage root key. The TPM may
    /// have been cleared.
    None,
}

/// The file `.master` of a key folder, which records the TPMT_PUBLIC of the master key.
#[derive(Debug, Clone)]
pub(in crate::store) struct MasterRecord {
    folder: PathBuf,
    handle: u32,
}

impl MasterRecord {
    pub(super) fn new(folder: PathBuf, handle: u32) -> Self {
        Self { folder, handle }
    }

    /// Reads the TPMT_PUBLIC of the master key. Returns `None` if the folder has no record.
    ///
    /// # Errors
    ///
    /// Fails with [`FolderError::Damaged`] also if the area does not have the template of a master
    /// key, or if its point is not on the curve.
    pub(super) fn area(&self) -> Result<Option<Vec<u8>>, FolderError> {
        let folder = KeyFolder::new(self.folder.clone());
        let Some(area) = folder.master()? else {
            return Ok(None);
        };
        match StorageKey::from_area(self.handle, &area).is_some_and(|key| key.has_our_template()) {
            true => Ok(Some(area)),
            false => Err(folder.damaged_master()),
        }
    }

    /// Finds out whether the TPM has the master key. Costs one TPM command.
    ///
    /// # Errors
    ///
    /// Fails if the TPM or the folder cannot be read.
    pub(in crate::store) fn standing(&self, tpm: &Tpm) -> Result<MasterPresence, StoreError> {
        let remembered = match self.area() {
            Err(FolderError::Damaged { .. }) => None,
            other => other?,
        };
        let name = remembered.and_then(|area| name_of(&area));
        Ok(match (name, tpm.name_at(self.handle)?) {
            (_, None) => MasterPresence::Missing,
            (None, Some(_)) => MasterPresence::Unknown,
            (Some(name), Some(there)) if name == there => MasterPresence::Held,
            (Some(_), Some(_)) => MasterPresence::Other,
        })
    }

    /// Explains why the TPM does not load a key of the folder. Returns [`TpmError::ForeignKey`]
    /// only if the master key is the parent of the key, and the TPM does not have the master key.
    pub(in crate::store) fn judged(&self, tpm: &Tpm, error: TpmError) -> TpmError {
        let of_master = matches!(&error, TpmError::Unloadable(Unloadable { parent, .. })
            if *parent == Parent::Persistent(self.handle));
        if !of_master {
            return error;
        }
        match self.standing(tpm) {
            Ok(MasterPresence::Missing) => self.lost(tpm, "is empty"),
            Ok(MasterPresence::Other) => self.lost(tpm, "holds another key"),
            Ok(MasterPresence::Held | MasterPresence::Unknown) | Err(_) => error,
        }
    }

    fn lost(&self, tpm: &Tpm, finding: &str) -> TpmError {
        let loss = self.loss(tpm, finding);
        warn!("{loss}");
        TpmError::ForeignKey(loss)
    }

    /// Returns the error message for a TPM that does not hold the master key.
    fn loss(&self, tpm: &Tpm, finding: &str) -> String {
        let seen = match self.traces(tpm).unwrap_or(MasterTraces::Root) {
            MasterTraces::Elsewhere(handle) => {
                return format!(
                    "handle 0x{:08X} {finding}, but the master key that wraps the keys of {} is in \
                     handle 0x{handle:08X}: set handle = 0x{handle:08X} under [master] in \
                     config.toml",
                    self.handle,
                    self.folder.display()
                );
            }
            MasterTraces::Children => {
                "it was evicted, because keys that were created below it are still in the TPM. The \
                 keys that it wrapped are lost. devid master renew lists the lost keys and creates \
                 a new master key"
                    .to_owned()
            }
            MasterTraces::Root => format!(
                "it was evicted, or the TPM {CLEARED_OR_EXCHANGED}. devid doctor names the \
                 remedy, and devid master renew lists the lost keys"
            ),
            MasterTraces::None => format!(
                "the TPM {CLEARED_OR_EXCHANGED}, and the keys are lost with it. Bring back the TPM \
                 of the folder, or start again with devid reset --factory --yes"
            ),
        };
        format!(
            "handle 0x{:08X} {finding}, but the keys of {} are wrapped by a master key that was in \
             this handle: {seen}",
            self.handle,
            self.folder.display()
        )
    }

    /// Searches the TPM for traces of the missing master key.
    pub(in crate::store) fn traces(&self, tpm: &Tpm) -> Result<MasterTraces, StoreError> {
        if let Some(name) = self.area()?.and_then(|area| name_of(&area)) {
            let mut has_children = false;
            for handle in tpm.handles(handle::PERSISTENT)? {
                let Some(key) = tpm.name_at(handle)? else {
                    continue;
                };
                if key == name {
                    return Ok(MasterTraces::Elsewhere(handle));
                }
                has_children |= handle::DEVICE_KEYS.contains(&handle)
                    && match tpm.lay_below(&name, handle, &key)? {
                        Some(lay_below) => lay_below,
                        None => is_device_key(&tpm.persistent_key(handle)?.0),
                    };
            }
            if has_children {
                return Ok(MasterTraces::Children);
            }
        }
        Ok(match tpm.name_at(SRK)? {
            Some(_) => MasterTraces::Root,
            None => MasterTraces::None,
        })
    }
}

impl DevidStore {
    /// Returns the [`MasterRecord`] of this key folder.
    pub(super) fn master_record(&self) -> MasterRecord {
        MasterRecord::new(self.folder.path().to_owned(), self.master.handle)
    }

    /// Returns the parent for new keys. Creates the master key if the TPM does not have it and the
    /// folder has no keys below a master key.
    pub(super) fn master_for_new_keys(&self) -> Result<StorageKey, StoreError> {
        let handle = self.master.handle;
        let remembered = self.master_record().area()?;
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
            // The storage key was created for another token, or for a key folder that is lost.
            (None, Some(key)) => {
                if !key.has_our_template() || self.tpm.is_primary(&key)? {
                    let whose = format!(
                        "handle 0x{handle:08X} holds a storage key that devid did not create: set \
                         another handle under [master] in config.toml"
                    );
                    return Err(TpmError::Unsupported(whose).into());
                }
                // The key folder must exist first, because it stores the file `.storage-root`.
                self.folder.begin(&self.first_serial()?)?;
                self.tpm.prove(&key)?;
                info!(
                    "handle 0x{handle:08X} holds a storage key that devid created: it becomes the \
                     master key"
                );
                self.folder.remember_master(key.area())?;
                Ok(key)
            }
            (None, None) => {
                // The folder is checked first. If the disk has no space for the file of a key, no
                // master key is created.
                self.folder.begin(&self.first_serial()?)?;
                self.folder.check_room()?;
                let key = self.tpm.make_storage_key(handle, &self.owner_auth()?)?;
                info!("created the master key in handle 0x{handle:08X}");
                self.folder.remember_master(key.area())?;
                Ok(key)
            }
        }
    }

    /// Returns the recorded master key. The auth sessions for PINs are salted to this key.
    pub(super) fn remembered_master(&self) -> Result<StorageKey, StoreError> {
        let area = self.master_record().area()?;
        let master = area.and_then(|area| StorageKey::from_area(self.master.handle, &area));
        master.ok_or_else(|| self.folder.missing_master().into())
    }

    /// Returns the error for a TPM that does not hold the master key.
    fn other_tpm(&self, finding: &str) -> StoreError {
        StoreError::OtherTpm(self.master_record().loss(&self.tpm, finding))
    }

    fn has_wrapped_keys(&self) -> Result<bool, StoreError> {
        let listing = self.whole_listing()?;
        let master = Some(self.master.handle);
        let mut entries = listing.entries.iter();
        Ok(entries.any(|entry| entry.content.parent() == master))
    }

    /// Returns true if the TPM has the master key of this key folder. Returns `None` if the folder
    /// has no file `.master`.
    pub fn master_is_held(&self) -> Result<Option<bool>, StoreError> {
        let record = self.master_record();
        if record.area()?.is_none() {
            return Ok(None);
        }
        Ok(Some(record.standing(&self.tpm)? == MasterPresence::Held))
    }

    /// Returns the TPM name of the master key that the file `.master` records.
    pub fn master_name(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.master_record().area()?.and_then(|area| name_of(&area)))
    }
}
