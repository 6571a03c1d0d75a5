//! What the folder holds, as a store shows it.

use super::{DevidStore, StoreError};
use crate::file;
use crate::key::hex;
use crate::store::folder::{
    self, Content, Entry, FolderError, Material, Pair, Seal, Tss2Key, Tss2Kind,
};
use crate::store::listing::{Kind, Listing, Shown};
use crate::store::{self, Key, KeyStore, LoginError, LookError, Pins, Who};
use crate::tpm::{Hash, PublicArea, Tpm};
use crate::trouble::trouble;
use log::warn;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

impl KeyStore for DevidStore {
    fn stamp(&self) -> store::Stamp {
        let stamp = self.stamped(self.folder.stamp(), now());
        store::Stamp::Folder(stamp)
    }

    /// No TPM command, but for a folder without objects if the TPM has not answered yet: such a
    /// token is there for the TPM's sake.
    fn look(&self) -> Result<Listing, LookError> {
        let listing = self.listing()?;
        let needs_tpm = listing.objects.is_empty() && !self.allows_file_keys;
        if needs_tpm && !self.tpm.has_answered() {
            self.tpm.random(&mut [0])?;
        }
        Ok(listing)
    }

    fn for_child(&self, tpm: &Arc<Tpm>) -> Box<dyn KeyStore> {
        let shown = self.shown.try_lock().map(|shown| shown.clone());
        let turns = self.turns.try_lock().map(|turns| turns.clone());
        Box::new(Self {
            tpm: Arc::clone(tpm),
            name: self.name.clone(),
            allow_last_try: self.allow_last_try,
            allows_file_keys: self.allows_file_keys,
            pin: self.pin.clone(),
            login: Arc::clone(&self.login),
            officer: Arc::clone(&self.officer),
            folder: self.folder.for_child(),
            master: self.master.clone(),
            shown: Mutex::new(shown.unwrap_or_default()),
            turns: Mutex::new(turns.unwrap_or_default()),
        })
    }

    fn own(&self) -> Option<&DevidStore> {
        Some(self)
    }

    fn pins(&self) -> Pins {
        // What nobody can say now may be there: no key is given to whoever shows no PIN.
        let has = |seal| self.folder.has_seal(seal).unwrap_or(true);
        match (has(Seal::Officer), has(Seal::User)) {
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
    /// What the folder holds, without asking the TPM. Certificates that are valid now come before
    /// those that are not, and the newest first.
    ///
    /// # Errors
    ///
    /// [`LookError::Folder`] and [`LookError::Unread`].
    pub fn listing(&self) -> Result<Listing, LookError> {
        let (now, faults, pss) = (now(), self.tpm.faults(), self.tpm.signs_pss());
        let listing = self.folder.list().map_err(unreadable)?;
        let before = std::mem::take(&mut *self.shown.lock());
        let mut objects: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| match before.get(&entry.name) {
                Some(shown) if Arc::ptr_eq(&shown.source, entry) => shown.clone(),
                _ => Known::new(entry, self),
            })
            .collect();
        objects.sort_by_key(|known| rank(&known.shown.kind, now));
        let shown = objects.iter().map(|known| Arc::clone(&known.shown));
        let shown: Vec<_> = shown.collect();
        let mut turns: Vec<u64> = shown.iter().flat_map(|one| turns_of(&one.kind)).collect();
        turns.sort_unstable();
        let passed = passed(&turns, now);
        *self.turns.lock() = turns;
        let named = objects
            .into_iter()
            .map(|known| (known.source.name.clone(), known));
        *self.shown.lock() = named.collect();
        let label = self.label().map_err(|error| match error {
            StoreError::Folder(error) => unreadable(error),
            other => LookError::Folder(other.to_string()),
        })?;
        Ok(Listing {
            label,
            serial: self.serial().map_err(unreadable)?,
            objects: shown,
            refused: listing.refused,
            unread: listing.unread.map(|error| error.to_string()),
            stamp: store::Stamp::Folder(Stamp {
                folder: listing.stamp,
                faults,
                pss,
                passed,
            }),
        })
    }

    fn stamped(&self, folder: folder::Stamp, now: u64) -> Stamp {
        Stamp {
            folder,
            faults: self.tpm.faults(),
            pss: self.tpm.signs_pss(),
            passed: passed(&self.turns.lock(), now),
        }
    }

    /// The folder's own; before the first write what it will be then.
    fn serial(&self) -> Result<String, FolderError> {
        match self.folder.serial()? {
            Some(serial) => Ok(serial),
            None => self.first_serial(),
        }
    }

    /// Of this installation and token: machine-id(5) must not be shown as it is, only hashed with
    /// something that is ours. A machine without one has the serial number of none.
    ///
    /// # Errors
    ///
    /// It could not be read now: the serial number would change when it can.
    pub(super) fn first_serial(&self) -> Result<String, FolderError> {
        const MACHINE: &str = "/etc/machine-id";
        let machine = match file::read(Path::new(MACHINE), 64) {
            Ok(machine) => machine,
            Err(error) => match trouble(&error) {
                Some(errno) => return self.folder.unread(Path::new(MACHINE), errno),
                None => Vec::new(),
            },
        };
        let what = format!("devid-pkcs11 {}", self.folder.path().display());
        Ok(hex(
            &Hash::Sha256.hmac(machine.trim_ascii(), &[what.as_bytes()])[..8]
        ))
    }

    fn key_of(&self, name: &str, pair: &Pair) -> Key {
        let key = match &pair.material {
            Material::Wrapped(key) => self.wrapped_key(key, pair.handle),
            Material::Clear(_) if !self.allows_file_keys => {
                Err("it is in clear, and [[token]] allow_file_keys does not allow that here")
            }
            material => Key::in_memory(&pair.public, material).ok_or("it is of no kind to be used"),
        };
        let key = key.unwrap_or_else(|why| {
            warn!(
                "{}: the key {name:?} cannot be used: {why}",
                self.folder.path().display()
            );
            Key::refused(pair.public.clone(), why)
        });
        match &pair.auth {
            None => key,
            Some(salt) => key.opened_by(self.access(salt)),
        }
    }

    fn wrapped_key(&self, key: &Tss2Key, handle: Option<u32>) -> Result<Key, &'static str> {
        let area = PublicArea::parse(&key.public).ok_or("its public area is not understood")?;
        if key.has_policy() {
            return Err("its file names a policy, which is not supported");
        }
        if key.kind != Tss2Kind::Loadable {
            return Err("it must be imported first");
        }
        let parentless = "its parent is neither a persistent key nor the owner hierarchy";
        let wrapped = key.wrapped().ok_or(parentless)?;
        self.tpm.own(wrapped.name());
        Ok(Key::wrapped(wrapped, area, handle, self.abilities()))
    }
}

fn unreadable(error: FolderError) -> LookError {
    match error.trouble() {
        Some(_) => LookError::Unread(error.to_string()),
        None => LookError::Folder(error.to_string()),
    }
}

/// What a look at a key folder depended on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    folder: folder::Stamp,
    /// Transport faults so far.
    faults: u64,
    /// Whether the TPM does PSS.
    pss: bool,
    /// How many of the certificates' validities have begun or ended.
    passed: usize,
}

/// Seconds from 1970, by the system's clock.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// How many of these moments, the earliest first, lie in the past.
fn passed(turns: &[u64], now: u64) -> usize {
    turns.partition_point(|turn| *turn <= now)
}

/// The seconds at which an object begins and ceases to be valid.
fn turns_of(kind: &Kind) -> Vec<u64> {
    match kind {
        Kind::Certificate(certificate, _) => {
            let (first, last) = certificate.validity_seconds();
            vec![first, last.saturating_add(1)]
        }
        _ => Vec::new(),
    }
}

/// Pairs, public keys, certificates that are valid now and then the others, the newest first; data.
/// Of two that began together the one that lasts longer comes first.
fn rank(kind: &Kind, now: u64) -> (u8, bool, Reverse<Option<(u64, u64)>>) {
    let (class, validity) = match kind {
        Kind::Pair { .. } => (0, None),
        Kind::Public(..) => (1, None),
        Kind::Certificate(certificate, _) => (2, Some(certificate.validity_seconds())),
        Kind::Data(_) => (3, None),
    };
    let is_over = validity.is_some_and(|(first, last)| now < first || last < now);
    (class, is_over, Reverse(validity))
}
