//! What the folder holds, as a store shows it.

use super::DevidStore;
use crate::certificate::Day;
use crate::file;
use crate::key::hex;
use crate::store::folder::{
    Content, Entry, FolderError, Material, Origin, Pair, Seal, Tss2Key, Tss2Kind,
};
use crate::store::key::Source;
use crate::store::listing::{Kind, Listing, Shown};
use crate::store::{Key, KeyStore, LoginError, LookError, Pins, Stamp, Who};
use crate::tpm::{Hash, Parent, PublicArea, SRK, Tpm};
use log::warn;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

impl KeyStore for DevidStore {
    fn stamp(&self) -> Stamp {
        Stamp::Folder(self.folder.stamp(), self.tpm.faults(), self.tpm.signs_pss())
    }

    /// No TPM command, but for a folder without objects if the TPM has not answered yet: such a
    /// token is there for the TPM's sake.
    fn look(&self) -> Result<Listing, LookError> {
        let listing = self.folder.list().map_err(unreadable)?;
        let needs_tpm = listing.entries.is_empty() && !self.allows_file_keys;
        if needs_tpm && !self.tpm.has_answered() {
            self.tpm.random(&mut [0])?;
        }
        let before = std::mem::take(&mut *self.shown.lock());
        let mut objects: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| match before.get(&entry.name) {
                Some(shown) if Arc::ptr_eq(&shown.source, entry) => shown.clone(),
                _ => Known::new(entry, self),
            })
            .collect();
        objects.sort_by_key(|known| rank(&known.shown.kind));
        let shown = objects
            .iter()
            .map(|known| Arc::clone(&known.shown))
            .collect();
        let named = objects
            .into_iter()
            .map(|known| (known.source.name.clone(), known));
        *self.shown.lock() = named.collect();
        Ok(Listing {
            label: self
                .label()
                .map_err(|error| LookError::Folder(error.to_string()))?,
            serial: self.serial().map_err(unreadable)?,
            objects: shown,
        })
    }

    fn for_child(&self, tpm: &Arc<Tpm>) -> Box<dyn KeyStore> {
        let shown = self.shown.try_lock().map(|shown| shown.clone());
        Box::new(Self {
            tpm: Arc::clone(tpm),
            name: self.name.clone(),
            allow_last_try: self.allow_last_try,
            allows_file_keys: self.allows_file_keys,
            pin: self.pin.clone(),
            parents: self.parents.clone(),
            allows_raw_rsa: self.allows_raw_rsa,
            login: Arc::clone(&self.login),
            officer: Arc::clone(&self.officer),
            folder: self.folder.for_child(),
            master: self.master.clone(),
            shown: Mutex::new(shown.unwrap_or_default()),
        })
    }

    fn own(&self) -> Option<&DevidStore> {
        Some(self)
    }

    fn pins(&self) -> Pins {
        match (
            self.folder.has_seal(Seal::Officer),
            self.folder.has_seal(Seal::User),
        ) {
            (false, _) => Pins::None,
            (true, false) => Pins::Officer,
            (true, true) => Pins::User,
        }
    }

    fn login(&self, who: Who, pin: &[u8]) -> Result<(), LoginError> {
        match who {
            Who::User => self.login.begin(self.open(Seal::User, pin)?),
            Who::Officer => self.officer.begin(self.open(Seal::Officer, pin)?),
        }
        Ok(())
    }

    fn logout(&self) {
        self.login.end();
        self.officer.end();
    }

    fn tries_left(&self) -> Option<u32> {
        match self.pins() {
            Pins::None => None,
            Pins::Officer | Pins::User => Some(self.tpm.lockout().ok()?.tries_left()),
        }
    }
}

/// An object as the last look showed it, and what it was made of.
#[derive(Debug, Clone)]
pub(super) struct Known {
    source: Arc<Entry>,
    shown: Arc<Shown>,
}

impl Known {
    fn new(entry: &Arc<Entry>, store: &DevidStore) -> Self {
        let kind = match &entry.content {
            Content::Pair(pair) => Kind::Pair {
                key: Arc::new(store.key_of(&entry.name, pair)),
                origin: pair.origin,
                private: pair.private.clone(),
                public: pair.shown_public.clone(),
            },
            Content::Public(key, description) => Kind::Public(key.clone(), description.clone()),
            Content::Certificate(certificate, description) => {
                Kind::Certificate(certificate.clone(), description.clone())
            }
            Content::Data(data) => Kind::Data(data.clone()),
        };
        let name = entry.name.clone();
        Self {
            source: Arc::clone(entry),
            shown: Arc::new(Shown { name, kind }),
        }
    }
}

impl DevidStore {
    /// The folder's own; before the first write what it will be then.
    fn serial(&self) -> Result<String, FolderError> {
        Ok(self.folder.serial()?.unwrap_or_else(|| self.first_serial()))
    }

    /// Of this installation and token: machine-id(5) must not be shown as it is, only hashed with
    /// something that is ours.
    pub(super) fn first_serial(&self) -> String {
        let machine = file::read(Path::new("/etc/machine-id"), 64).unwrap_or_default();
        let what = format!("devid-pkcs11 {}", self.folder.path().display());
        hex(&Hash::Sha256.hmac(machine.trim_ascii(), &[what.as_bytes()])[..8])
    }

    fn key_of(&self, name: &str, pair: &Pair) -> Key {
        let key = match &pair.material {
            Material::Wrapped(key) => self.wrapped_key(key, pair.handle),
            Material::Clear(_) if !self.allows_file_keys => {
                Err("it is in clear, and [[token]] allow_file_keys does not allow that here")
            }
            material => Key::in_memory(&pair.public, material),
        };
        let key = key.unwrap_or_else(|why| Key::refused(pair.public.clone(), why));
        let key = key.allowing_unpadded(self.allows_raw_rsa).kept_in(Source {
            file: self.file(name),
            master: self.master_record(),
            is_ours: pair.origin != Origin::Unknown,
        });
        if let Some(why) = key.obstacle() {
            warn!("the key {name:?} cannot be used: {why}");
        }
        match &pair.auth {
            None => key,
            Some(salt) => key.opened_by(self.access(salt)),
        }
    }

    /// Whether the empty value may be shown to a parent, though a wrong one may count: to those that
    /// have none by convention, or by what the configuration says.
    fn is_open(&self, parent: &Parent) -> bool {
        match *parent {
            Parent::Owner { .. } => true,
            Parent::Persistent(handle) => {
                handle == SRK || handle == self.master.handle || self.parents.contains(&handle)
            }
        }
    }

    fn wrapped_key(&self, key: &Tss2Key, handle: Option<u32>) -> Result<Key, &'static str> {
        let area = PublicArea::parse(&key.public).ok_or("its public area is not understood")?;
        if key.has_policy() {
            return Err("it needs a policy, by what its file says");
        }
        if key.kind != Tss2Kind::Loadable {
            return Err(
                "it is importable: another program must import it into the TPM first \
                        (TPM2_Import)",
            );
        }
        let wrapped = key.wrapped()?;
        let wrapped = match self.is_open(wrapped.parent()) {
            true => wrapped,
            false => wrapped.below_stranger(),
        };
        self.tpm.own(wrapped.name());
        Ok(Key::wrapped(wrapped, area, handle, self.abilities()))
    }
}

fn unreadable(error: FolderError) -> LookError {
    LookError::Folder(error.to_string())
}

/// Pairs, public keys, certificates that are valid now and then the others, the newest first; data.
fn rank(kind: &Kind) -> (u8, bool, std::cmp::Reverse<Option<Day>>) {
    let (class, validity) = match kind {
        Kind::Pair { .. } => (0, None),
        Kind::Public(..) => (1, None),
        Kind::Certificate(certificate, _) => (2, Some(certificate.validity())),
        Kind::Data(_) => (3, None),
    };
    let today = Day::today();
    let now = validity.is_none_or(|(first, last)| first <= today && today <= last);
    (
        class,
        !now,
        std::cmp::Reverse(validity.map(|(first, _)| first)),
    )
}
