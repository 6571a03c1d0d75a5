//! The master key: a random storage key in a persistent handle. Its wrapped form is stored nowhere,
//! so evicting it destroys all keys that it wraps.
//!
//! The folder remembers its public area. With this record a cleared or exchanged TPM can be told
//! from one that never had a master key. So no new master key hides the loss. Only this module
//! decides if the TPM has the master key, by its name. A key that does not load proves nothing,
//! since its own file may be damaged.

use super::{DevidStore, StoreError};
use crate::store::folder::{FolderError, KeyFolder};
use crate::tpm::{
    CLEARED_OR_EXCHANGED, Parent, SRK, StorageKey, Tpm, TpmError, Unloadable, handle,
    is_device_key, name_of,
};
use log::{info, warn};
use std::path::PathBuf;

/// The presence of a folder's master key in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MasterPresence {
    /// The TPM holds it.
    Held,
    /// Its handle is empty.
    Missing,
    /// Its handle holds another key, or an object that is not a storage key.
    Other,
    /// The folder has no record of the master key, and its handle is in use.
    Unknown,
}

/// Traces of a missing master key in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MasterTraces {
    /// The master key itself, in this other handle.
    Elsewhere(u32),
    /// Keys that were made below it. So the TPM is the right one, and was not cleared.
    Children,
    /// Only a storage root key: the TPM may be the right one.
    Root,
    /// No trace, as in a TPM that was cleared.
    None,
}

/// The record of one folder's master key.
#[derive(Debug, Clone)]
pub(in crate::store) struct MasterRecord {
    folder: PathBuf,
    handle: u32,
}

impl MasterRecord {
    pub(super) fn new(folder: PathBuf, handle: u32) -> Self {
        Self { folder, handle }
    }

    /// Its TPMT_PUBLIC; `None` if there is no record.
    ///
    /// # Errors
    ///
    /// [`FolderError::Damaged`] also if the area differs from our template, or its point is not on
    /// the curve.
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

    /// The presence of the master key in the TPM: one command.
    ///
    /// # Errors
    ///
    /// The TPM or the folder cannot be read.
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

    /// Explains why the TPM does not load a key of the folder. The error is
    /// [`TpmError::ForeignKey`] only if the master key should wrap it and is missing or different.
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

    /// The message for a TPM without the master key.
    fn loss(&self, tpm: &Tpm, finding: &str) -> String {
        let seen = match self.traces(tpm).unwrap_or(MasterTraces::Root) {
            MasterTraces::Elsewhere(handle) => {
                return format!(
                    "handle 0x{:08X} {finding}, but the master key that wraps the keys of {} is in \
                     handle 0x{handle:08X}: write handle = 0x{handle:08X} under [master] in \
                     config.toml",
                    self.handle,
                    self.folder.display()
                );
            }
            MasterTraces::Children => {
                "it was evicted, since keys that were made below it are still in the TPM. The \
                 keys that it wrapped are lost; devid master renew lists them, and makes a new \
                 master key"
                    .to_owned()
            }
            MasterTraces::Root => format!(
                "it was evicted, or the TPM {CLEARED_OR_EXCHANGED}. devid doctor names the \
                 remedy, and devid master renew lists the lost keys"
            ),
            MasterTraces::None => format!(
                "the TPM {CLEARED_OR_EXCHANGED}, and they are lost with it. Bring back the TPM of \
                 the folder, or start again with devid reset --factory --yes"
            ),
        };
        format!(
            "handle 0x{:08X} {finding}, but the keys of {} are wrapped by a key that was there: \
             {seen}",
            self.handle,
            self.folder.display()
        )
    }

    /// The traces of the missing master key in the TPM.
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
    /// The record of the master key in this folder.
    pub(super) fn master_record(&self) -> MasterRecord {
        MasterRecord::new(self.folder.path().to_owned(), self.master.handle)
    }

    /// The parent for new keys. Made if it is missing and the folder has no keys below one.
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
            // The key of another token, or of a lost folder.
            (None, Some(key)) => {
                if !key.has_our_template() || self.tpm.is_primary(&key)? {
                    let whose = format!(
                        "handle 0x{handle:08X} holds a storage key that is none of ours: name \
                         another handle in [master]"
                    );
                    return Err(TpmError::Unsupported(whose).into());
                }
                // The folder must exist first: it holds the record of the storage root key.
                self.folder.begin(&self.first_serial()?)?;
                self.tpm.prove(&key)?;
                info!("handle 0x{handle:08X} holds a storage key of ours: it is the master key");
                self.folder.remember_master(key.area())?;
                Ok(key)
            }
            (None, None) => {
                // The folder is checked first: without room for a key file, no master key is made.
                self.folder.begin(&self.first_serial()?)?;
                self.folder.check_room()?;
                let key = self.tpm.make_storage_key(handle, &self.owner_auth()?)?;
                info!("master key made at 0x{handle:08X}");
                self.folder.remember_master(key.area())?;
                Ok(key)
            }
        }
    }

    /// The remembered master key, to which PIN sessions are salted.
    pub(super) fn remembered_master(&self) -> Result<StorageKey, StoreError> {
        let area = self.master_record().area()?;
        let master = area.and_then(|area| StorageKey::from_area(self.master.handle, &area));
        master.ok_or_else(|| self.folder.missing_master().into())
    }

    /// The error for a TPM without the master key.
    fn other_tpm(&self, finding: &str) -> StoreError {
        StoreError::OtherTpm(self.master_record().loss(&self.tpm, finding))
    }

    fn has_wrapped_keys(&self) -> Result<bool, StoreError> {
        let listing = self.whole_listing()?;
        let master = Some(self.master.handle);
        let mut entries = listing.entries.iter();
        Ok(entries.any(|entry| entry.content.parent() == master))
    }

    /// True if the TPM holds the master key of this folder; `None` if the folder has no record.
    pub fn master_is_held(&self) -> Result<Option<bool>, StoreError> {
        let record = self.master_record();
        if record.area()?.is_none() {
            return Ok(None);
        }
        Ok(Some(record.standing(&self.tpm)? == MasterPresence::Held))
    }

    /// The TPM name of the remembered master key.
    pub fn master_name(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.master_record().area()?.and_then(|area| name_of(&area)))
    }
}
