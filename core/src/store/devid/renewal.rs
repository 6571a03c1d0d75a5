//! The loss of the master key: lists the lost objects and the surviving keys, and starts with
//! another master key.

use super::{DevidStore, StoreError};
use crate::key::PublicKey;
use crate::store::folder::{Entry, EntryContent, KeyOrigin, KeyPair, PinSeal, SecretKeyFile};
use crate::tpm::{SRK, StorageKey, TpmError, WrappedKey, handle, name_of};
use std::path::PathBuf;

/// The objects of a folder that are lost with its master key, and the keys that survive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// The lost objects, in the order in which their files are set aside. The order allows an
    /// interrupted run to continue.
    pub lost: Vec<Loss>,
    /// The keys that the master key wrapped and that survive in persistent handles.
    pub kept: Vec<SurvivingKey>,
}

/// An object that is lost with its master key, so that nobody can use the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The label of the object. For a PIN, the user whose PIN it is.
    pub label: String,
    /// The kind of the object.
    pub what: LossKind,
    /// The file of the object.
    pub file: PathBuf,
}

/// The kinds of lost objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// A certificate whose key is lost.
    Certificate,
    /// A key that the master key wrapped, so that only the TPM could use the key.
    Wrapped,
    /// A key that was encrypted under a secret that the TPM sealed.
    Sealed,
    /// A key that needs a PIN, and the seal of the PIN is lost.
    BehindPin,
    /// A PIN.
    Pin(PinSeal),
}

/// A key that survives the loss of the master key, in a persistent handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurvivingKey {
    /// The label of the key.
    pub label: String,
    /// The persistent handle.
    pub handle: u32,
}

impl DevidStore {
    /// Returns the objects that are lost without the master key. Costs one TPM command for each key
    /// with a handle.
    ///
    /// # Errors
    ///
    /// Fails also if one file could not be read.
    pub fn losses(&self) -> Result<Losses, StoreError> {
        let listing = self.whole_listing()?;
        let (mut keys, mut kept, mut living) = (Vec::new(), Vec::new(), Vec::new());
        let mut lost_secrets = Vec::new();
        for entry in &listing.entries {
            let pair = match &entry.content {
                EntryContent::Pair(pair) => pair,
                EntryContent::SecretKey(key) => {
                    lost_secrets.extend(self.loss_of(key).map(|what| self.lost(entry, what)));
                    continue;
                }
                _ => continue,
            };
            match self.fate(pair)? {
                Fate::Lost(what) => keys.push((pair.public.clone(), self.lost(entry, what))),
                Fate::InHandle(handle) => {
                    living.push(&pair.public);
                    let label = pair.private.label.clone();
                    kept.push(SurvivingKey { label, handle });
                }
                Fate::Untouched => living.push(&pair.public),
            }
        }
        let goes = |public: &PublicKey| {
            let is_lost = keys.iter().any(|(lost, _)| lost == public);
            is_lost && !living.contains(&public)
        };
        let certificates = listing.entries.iter().filter_map(|entry| {
            let EntryContent::Certificate(certificate, _) = &entry.content else {
                return None;
            };
            let public = certificate.public_key()?;
            goes(&public).then(|| self.lost(entry, LossKind::Certificate))
        });
        // Certificates go first, because their keys identify them. The names of certificates in the
        // subfolders identify their pairs.
        let mut lost: Vec<Loss> = certificates.collect();
        let gone: Vec<&PathBuf> = keys.iter().map(|(_, key)| &key.file).collect();
        lost.extend(self.lost_successions(&gone)?);
        lost.extend(keys.into_iter().map(|(_, key)| key));
        lost.extend(lost_secrets);
        for seal in [PinSeal::User, PinSeal::SecurityOfficer] {
            if self.folder.has_seal(seal)? {
                let (whose, file) = match seal {
                    PinSeal::User => ("the user's PIN", ".user.pem"),
                    PinSeal::SecurityOfficer => ("the security officer's PIN", ".officer.pem"),
                };
                lost.push(Loss {
                    label: whose.into(),
                    what: LossKind::Pin(seal),
                    file: self.path().join(file),
                });
            }
        }
        Ok(Losses { lost, kept })
    }

    /// Returns the lost successors and predecessors. The certificates of a pair whose file is in
    /// `gone` are lost with the pair.
    fn lost_successions(&self, gone: &[&PathBuf]) -> Result<Vec<Loss>, StoreError> {
        let mut lost = Vec::new();
        for folder in [self.next(), self.previous()] {
            let entries = folder.list()?.whole()?.entries;
            let mut names = Vec::new();
            for entry in &entries {
                if let EntryContent::Pair(pair) = &entry.content
                    && let Fate::Lost(what) = self.fate(pair)?
                {
                    names.push((&entry.name, what));
                }
            }
            for entry in &entries {
                let pair = entry.name.split('.').next().unwrap_or_default();
                let own = names.iter().find(|(name, _)| *name == pair);
                let what = match (&entry.content, own) {
                    (EntryContent::Pair(_), Some((_, what))) => *what,
                    (EntryContent::Certificate(..), Some(_)) => LossKind::Certificate,
                    (EntryContent::Certificate(..), None) if gone.contains(&&self.file(pair)) => {
                        LossKind::Certificate
                    }
                    _ => continue,
                };
                lost.push(Loss {
                    label: entry.content.description().label.clone(),
                    what,
                    file: folder.path().join(format!("{}.pem", entry.name)),
                });
            }
        }
        // Keys come last, because `devid` needs the keys to identify their certificates.
        lost.sort_by_key(|one| one.what != LossKind::Certificate);
        Ok(lost)
    }

    fn lost(&self, entry: &Entry, what: LossKind) -> Loss {
        Loss {
            label: entry.content.description().label.clone(),
            what,
            file: self.file(&entry.name),
        }
    }

    /// Returns how a secret key is lost without the master key. Returns `None` if another key seals
    /// it.
    fn loss_of(&self, key: &SecretKeyFile) -> Option<LossKind> {
        if key.auth.salt().is_some() {
            return Some(LossKind::BehindPin);
        }
        let is_lost = self.was_wrapped_by_master(Some(key.seal.parent), key.origin);
        is_lost.then_some(LossKind::Sealed)
    }

    fn fate(&self, pair: &KeyPair) -> Result<Fate, StoreError> {
        if pair.auth.salt().is_some() {
            return Ok(Fate::Lost(LossKind::BehindPin));
        }
        if !self.was_wrapped_here(pair) {
            return Ok(Fate::Untouched);
        }
        let Some(key) = pair.material.wrapped() else {
            return Ok(Fate::Lost(LossKind::Sealed));
        };
        let name = name_of(&key.public).unwrap_or_default();
        if let Some(handle) = pair.handle
            && self.tpm.holds(handle, &name)?
        {
            return Ok(Fate::InHandle(handle));
        }
        Ok(match self.handle_with(&name)? {
            Some(handle) => Fate::InHandle(handle),
            None => Fate::Lost(LossKind::Wrapped),
        })
    }

    /// Returns true if the master key, or a former master key in another handle, wraps the key.
    /// Keys that the token created have no other parent.
    pub(super) fn was_wrapped_here(&self, pair: &KeyPair) -> bool {
        self.was_wrapped_by_master(pair.material.parent(), pair.origin)
    }

    fn was_wrapped_by_master(&self, parent: Option<u32>, origin: KeyOrigin) -> bool {
        let Some(parent) = parent else {
            return false;
        };
        let ours = origin != KeyOrigin::Unknown
            && handle::STORAGE_KEYS.contains(&parent)
            && parent > SRK
            && !handle::DEVICE_KEYS.contains(&parent)
            && !self.parents.contains(&parent);
        parent == self.master.handle || ours
    }

    /// Returns true if keys or PINs of the folder need a master key.
    pub fn needs_master(&self) -> Result<bool, StoreError> {
        if self.folder.has_seal(PinSeal::SecurityOfficer)? || self.folder.has_seal(PinSeal::User)? {
            return Ok(true);
        }
        let listing = self.whole_listing()?;
        Ok(listing.entries.iter().any(|entry| match &entry.content {
            EntryContent::Pair(pair) => self.was_wrapped_here(pair),
            EntryContent::SecretKey(key) => {
                self.was_wrapped_by_master(Some(key.seal.parent), key.origin)
            }
            _ => false,
        }))
    }

    /// Renames the file of a lost object, and returns the new path. Deletes nothing.
    pub fn set_aside(&self, lost: &Loss) -> Result<Option<PathBuf>, StoreError> {
        let moved = match lost.what {
            LossKind::Pin(seal) => self.folder.set_seal_aside(seal)?,
            _ => {
                let name = lost.file.file_stem().unwrap_or_default();
                let beside = [self.next(), self.previous()].into_iter();
                let folder = beside
                    .filter(|folder| lost.file.parent() == Some(folder.path()))
                    .last();
                let folder = folder.as_ref().unwrap_or(&self.folder);
                let moved = folder.set_aside(&name.to_string_lossy())?;
                return Ok(Some(folder.path().join(moved)));
            }
        };
        Ok(moved.map(|name| self.path().join(name)))
    }

    /// Records another master key. Adds the earlier master key to the former ones.
    pub fn begin_with(&self, master: &StorageKey) -> Result<(), StoreError> {
        Ok(self.folder.exchange_master(master.area())?)
    }

    /// Creates a master key that is not in a persistent handle yet.
    pub fn make_master(&self) -> Result<WrappedKey, StoreError> {
        Ok(self.tpm.create_storage_key(&self.owner_auth()?)?)
    }

    /// Makes a key persistent in the handle of the master key. Writes to the TPM.
    ///
    /// # Errors
    ///
    /// Fails with [`TpmError::KeyReplaced`] if the handle is in use.
    pub fn put_master(&self, key: &WrappedKey) -> Result<(), StoreError> {
        let kept = self
            .tpm
            .persist(key, self.master.handle, &self.owner_auth()?);
        kept.map_err(|error| match error {
            TpmError::KeyReplaced(_) => StoreError::Tpm(error),
            error => StoreError::of_making(error),
        })
    }

    /// Returns the TPM names of the recorded master key and of the former master keys.
    pub(super) fn master_names(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let former = self.folder.former_masters()?;
        let mut names: Vec<_> = former.iter().filter_map(|area| name_of(area)).collect();
        names.extend(self.folder.master()?.and_then(|area| name_of(&area)));
        Ok(names)
    }

    /// Returns true if the key folder used another master key before.
    pub fn had_other_master(&self) -> bool {
        self.folder
            .former_masters()
            .is_ok_and(|former| !former.is_empty())
    }

    /// Returns the files that were set aside after the loss of a master key.
    pub fn lost_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut files = self.folder.lost_files()?;
        for folder in [self.next(), self.previous()] {
            files.extend(folder.lost_files()?);
        }
        Ok(files)
    }
}

/// The fate of a key after the loss of the master key.
enum Fate {
    Lost(LossKind),
    InHandle(u32),
    /// Another key than the master key wraps this key, or no key wraps this key.
    Untouched,
}
