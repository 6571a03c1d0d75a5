//! The master key: a storage key of random at a persistent handle, whose wrapped form is stored
//! nowhere. Whoever evicts it erases every key that it wraps.
//!
//! Its public area is remembered in the folder, so that a TPM that was cleared or exchanged is told from
//! one that never had a master key, and nothing is made anew that would only hide the loss. Whether
//! the TPM has it is judged here alone, by its name: a key that does not load proves nothing, since
//! its own file may be damaged.

use super::{DevidStore, StoreError};
use crate::store::folder::{FolderError, KeyFolder};
use crate::tpm::{
    CLEARED_OR_EXCHANGED, Parent, SRK, StorageKey, Tpm, TpmError, Unloadable, handle,
    is_device_key, name_of,
};
use log::{info, warn};
use std::path::PathBuf;

/// True if the TPM holds the master key of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MasterPresence {
    /// It does.
    Held,
    /// Its handle is empty.
    Missing,
    /// Another key is at its handle, or something that is no storage key.
    Other,
    /// The folder does not say which key it is, and something is at its handle.
    Unknown,
}

/// What a TPM without the master key shows of where that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MasterTraces {
    /// The master key itself, in this handle.
    Elsewhere(u32),
    /// Keys that were made below it: it is the TPM, and was not cleared since.
    Children,
    /// A storage root key: it may be the TPM.
    Root,
    /// Not even that, as of a TPM that was cleared.
    None,
}

/// The master key of one folder, as the folder remembers it.
#[derive(Debug, Clone)]
pub(in crate::store) struct MasterRecord {
    folder: PathBuf,
    handle: u32,
}

impl MasterRecord {
    pub(super) fn new(folder: PathBuf, handle: u32) -> Self {
        Self { folder, handle }
    }

    /// Its TPMT_PUBLIC; `None` if none was remembered.
    ///
    /// # Errors
    ///
    /// [`FolderError::Damaged`] also for what can be no master key's: each has the attributes of our
    /// template, and a point on its curve.
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

    /// True if the TPM holds it: one command.
    ///
    /// # Errors
    ///
    /// The TPM, or the folder cannot be read.
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

    /// What it means that the TPM does not load a key of the folder. [`TpmError::ForeignKey`] only
    /// where the master key should wrap it and is missing, or is another.
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

    /// What is to be said where the TPM does not have it.
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
                "it was evicted, since keys that were made below it are still in the TPM. What it \
                 wrapped is lost; devid master renew lists that, and begins a new master key"
                    .to_owned()
            }
            MasterTraces::Root => format!(
                "it was evicted, or the TPM {CLEARED_OR_EXCHANGED}. devid doctor says what helps, and \
                 devid master renew lists what is lost"
            ),
            MasterTraces::None => format!(
                "the TPM {CLEARED_OR_EXCHANGED}, and they are lost with it. Bring back the TPM \
                 that the folder belongs to, or begin anew with devid reset --factory --yes"
            ),
        };
        format!(
            "handle 0x{:08X} {finding}, but the keys of {} are wrapped by a key that was there: \
             {seen}",
            self.handle,
            self.folder.display()
        )
    }

    /// What is left in the TPM of the one that had the master key.
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
    /// The master key as the folder remembers it.
    pub(super) fn master_record(&self) -> MasterRecord {
        MasterRecord::new(self.folder.path().to_owned(), self.master.handle)
    }

    /// The key that wraps new keys; made if there is none and the folder has no keys of one.
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
            // Another token's, or of a folder that was lost.
            (None, Some(key)) => {
                if !key.has_our_template() || self.tpm.is_primary(&key)? {
                    let whose = format!(
                        "handle 0x{handle:08X} holds a storage key that is none of ours: name \
                         another handle in [master]"
                    );
                    return Err(TpmError::Unsupported(whose).into());
                }
                // What is remembered of the storage root key lies there.
                self.folder.begin(&self.first_serial()?)?;
                self.tpm.prove(&key)?;
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

    /// The master key as it was remembered: what a PIN is salted to.
    pub(super) fn remembered_master(&self) -> Result<StorageKey, StoreError> {
        let area = self.master_record().area()?;
        let master = area.and_then(|area| StorageKey::from_area(self.master.handle, &area));
        master.ok_or_else(|| self.folder.missing_master().into())
    }

    /// What is to be said where the TPM does not have the master key.
    fn other_tpm(&self, finding: &str) -> StoreError {
        StoreError::OtherTpm(self.master_record().loss(&self.tpm, finding))
    }

    fn has_wrapped_keys(&self) -> Result<bool, StoreError> {
        let listing = self.whole_listing()?;
        let master = Some(self.master.handle);
        let mut entries = listing.entries.iter();
        Ok(entries.any(|entry| entry.content.parent() == master))
    }

    /// True if the TPM holds the master key of this folder; `None` if the folder remembers none.
    pub fn master_is_held(&self) -> Result<Option<bool>, StoreError> {
        let record = self.master_record();
        if record.area()?.is_none() {
            return Ok(None);
        }
        Ok(Some(record.standing(&self.tpm)? == MasterPresence::Held))
    }

    /// The TPM name of the master key, as the folder remembers it.
    pub fn master_name(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.master_record().area()?.and_then(|area| name_of(&area)))
    }
}
