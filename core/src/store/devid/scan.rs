//! Lists the objects of the key folder for the token.

use super::{DevidStore, StoreError};
use crate::key::PublicKey;
use crate::store::folder::{
    self, Entry, EntryContent, FolderError, KeyMaterial, KeyOrigin, KeyPair, PinSeal,
    SecretKeyFile, Tss2Key, Tss2Kind,
};
use crate::store::key::KeyFile;
use crate::store::listing::{ObjectKind, ScanResult, StoredObject};
use crate::store::machine;
use crate::store::{self, Key, LoginError, Pins, Protection, ScanError, SecretKey, UserType};
use crate::tpm::{Capabilities, Lockout, Parent, PublicArea, SRK, Tpm};
use crate::x509::{Certificate, Time};
use log::warn;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Operations that [`Store`](crate::store::Store) calls.
impl DevidStore {
    pub(in crate::store) fn stamp(&self) -> store::StoreStamp {
        let stamp = self.stamped(self.folder.stamp(), now());
        store::StoreStamp::Folder(stamp)
    }

    /// Lists the objects. Normally sends no TPM command. There are two exceptions:
    ///
    /// - A folder without objects asks the TPM for random bytes, if the TPM has not answered yet.
    ///   An empty token is shown only if its TPM answers.
    /// - A folder with RSA keys asks once for the TPM's algorithms, because they limit the
    ///   mechanisms of each key. The scan does not ask while it would have to wait.
    ///
    /// # Errors
    ///
    /// Fails with [`ScanError`] if the token cannot be shown.
    pub fn scan(&self) -> Result<ScanResult, ScanError> {
        let listing = self.listing()?;
        let needs_tpm = listing.objects.is_empty() && !self.allows_file_keys;
        if needs_tpm && !self.tpm.has_answered() {
            self.tpm.random(&mut [0])?;
        }
        let is_asked = |shown: &Arc<StoredObject>| match &shown.kind {
            ObjectKind::Pair { key, .. } => {
                let is_rsa = matches!(key.public(), PublicKey::Rsa { .. });
                is_rsa && key.protection() == Protection::Tpm
            }
            ObjectKind::SecretKey(..)
            | ObjectKind::Public(..)
            | ObjectKind::Certificate(..)
            | ObjectKind::Data(_) => false,
        };
        let before = self.tpm.capabilities();
        let asks = self.tpm.has_answered() && listing.objects.iter().any(is_asked);
        let puts_off = asks && !self.tpm.learn_algorithms();
        self.puts_off.store(puts_off, Ordering::Relaxed);
        match self.tpm.capabilities() == before {
            true => Ok(listing),
            false => self.listing(),
        }
    }

    pub(in crate::store) fn for_child(&self, tpm: &Arc<Tpm>) -> Self {
        let shown = self.shown.try_lock().map(|shown| shown.clone());
        let turns = self.turns.try_lock().map(|turns| turns.clone());
        Self {
            tpm: Arc::clone(tpm),
            name: self.name.clone(),
            allow_last_try: self.allow_last_try,
            allows_file_keys: self.allows_file_keys,
            pin: self.pin.clone(),
            parents: self.parents.clone(),
            allows_raw_rsa: self.allows_raw_rsa,
            is_service: self.is_service,
            login: Arc::clone(&self.login),
            officer: Arc::clone(&self.officer),
            folder: self.folder.for_child(),
            master: self.master.clone(),
            shown: Mutex::new(shown.unwrap_or_default()),
            turns: Mutex::new(turns.unwrap_or_default()),
            puts_off: AtomicBool::new(self.puts_off.load(Ordering::Relaxed)),
        }
    }

    /// Returns which PINs are set. Costs no TPM command.
    pub fn pins(&self) -> Pins {
        // If the system does not tell whether a PIN is set, a PIN is assumed. So no key is used
        // without a PIN by mistake.
        let has = |seal| self.folder.has_seal(seal).unwrap_or(true);
        match has(PinSeal::SecurityOfficer) {
            false => Pins::None,
            true if has(PinSeal::User) => Pins::User,
            true => Pins::SecurityOfficer,
        }
    }

    /// Logs in with this PIN, which the TPM checks.
    ///
    /// # Errors
    ///
    /// After an error no user is logged in.
    pub fn login(&self, who: UserType, pin: &[u8]) -> Result<(), LoginError> {
        match who {
            UserType::User => self.login.begin(self.open(PinSeal::User, pin)?),
            UserType::SecurityOfficer => self
                .officer
                .begin(self.open(PinSeal::SecurityOfficer, pin)?),
        }
        Ok(())
    }

    pub(in crate::store) fn logout(&self) {
        self.login.end();
        self.officer.end();
    }

    pub(in crate::store) fn lockout(&self) -> Option<Lockout> {
        match self.pins() {
            Pins::None => None,
            Pins::SecurityOfficer | Pins::User => self.tpm.lockout().ok(),
        }
    }
}

/// An object of the last scan, with the content of its file.
#[derive(Debug, Clone)]
pub(super) struct CachedObject {
    source: Arc<Entry>,
    shown: Arc<StoredObject>,
    /// The capabilities of the TPM that were known at the time of the scan.
    can: Capabilities,
}

impl CachedObject {
    /// Returns this object. If the known capabilities of the TPM changed, its attributes are
    /// updated.
    fn anew(&self, can: Capabilities) -> Self {
        let shown = match self.can == can {
            true => Arc::clone(&self.shown),
            false => self.shown.anew(can),
        };
        let source = Arc::clone(&self.source);
        Self { source, shown, can }
    }

    fn new(entry: &Arc<Entry>, store: &DevidStore, can: Capabilities) -> Self {
        let kind = match &entry.content {
            EntryContent::Pair(pair) => ObjectKind::Pair {
                key: Arc::new(store.key_of(&entry.name, pair)),
                origin: pair.origin,
                private: pair.private.clone(),
                public: pair.shown_public.clone(),
            },
            EntryContent::SecretKey(file) => ObjectKind::SecretKey(
                Arc::new(store.secret_key_of(&entry.name, file)),
                file.origin,
                file.description.clone(),
            ),
            EntryContent::Public(key, description) => {
                ObjectKind::Public(key.clone(), description.clone())
            }
            EntryContent::Certificate(certificate, description) => {
                ObjectKind::Certificate(certificate.clone(), description.clone())
            }
            EntryContent::Data(data) => ObjectKind::Data(data.clone()),
        };
        let name = entry.name.clone();
        Self {
            source: Arc::clone(entry),
            shown: Arc::new(StoredObject { name, kind }),
            can,
        }
    }
}

impl DevidStore {
    /// Returns the objects of the folder without any TPM command. Certificates that are valid now
    /// come before other certificates, and newer certificates before older ones.
    ///
    /// # Errors
    ///
    /// Fails with [`ScanError::Folder`] or [`ScanError::Unread`].
    pub fn listing(&self) -> Result<ScanResult, ScanError> {
        let (now, faults, can) = (now(), self.tpm.faults(), self.tpm.capabilities());
        let listing = self.folder.list().map_err(unreadable)?;
        let before = std::mem::take(&mut *self.shown.lock());
        let mut objects: Vec<_> = Self::shown_entries(&listing.entries)
            .iter()
            .map(|entry| match before.get(&entry.name) {
                Some(known) if Arc::ptr_eq(&known.source, entry) => known.anew(can),
                _ => CachedObject::new(entry, self, can),
            })
            .collect();
        objects.sort_by_key(|known| rank(&known.shown.kind, now));
        let shown = objects.iter().map(|known| Arc::clone(&known.shown));
        let shown: Vec<_> = shown.collect();
        let mut turns: Vec<i64> = shown.iter().flat_map(|one| turns_of(&one.kind)).collect();
        turns.sort_unstable();
        let passed = passed(&turns, now);
        *self.turns.lock() = turns;
        let named = objects
            .into_iter()
            .map(|known| (known.source.name.clone(), known));
        *self.shown.lock() = named.collect();
        let label = self.label().map_err(|error| match error {
            StoreError::Folder(error) => unreadable(error),
            other => ScanError::Folder(other.to_string()),
        })?;
        Ok(ScanResult {
            label,
            serial: self.serial().map_err(unreadable)?,
            objects: shown,
            refused: listing.refused,
            unread: listing.unread.map(|error| error.to_string()),
            stamp: store::StoreStamp::Folder(DevidStamp {
                folder: listing.stamp,
                faults,
                can,
                asks: false,
                passed,
            }),
        })
    }

    fn stamped(&self, folder: folder::FolderStamp, now: i64) -> DevidStamp {
        DevidStamp {
            folder,
            faults: self.tpm.faults(),
            can: self.tpm.capabilities(),
            asks: self.puts_off.load(Ordering::Relaxed) && self.tpm.can_ask_algorithms(),
            passed: passed(&self.turns.lock(), now),
        }
    }

    /// Returns the serial number of the folder. Before the first write, returns the number that the
    /// folder will get.
    fn serial(&self) -> Result<String, FolderError> {
        match self.folder.serial()? {
            Some(serial) => Ok(serial),
            None => self.first_serial(),
        }
    }

    /// Returns the serial number for this installation and folder.
    ///
    /// # Errors
    ///
    /// Fails if machine-id(5) could not be read. With another value the serial number would change
    /// later.
    pub(super) fn first_serial(&self) -> Result<String, FolderError> {
        let serial = machine::serial(&self.folder.path().display().to_string());
        serial.or_else(|errno| self.folder.unread(Path::new(machine::MACHINE), errno))
    }

    pub(super) fn key_of(&self, name: &str, pair: &KeyPair) -> Key {
        let key = match &pair.material {
            KeyMaterial::Wrapped(key) => {
                let area = PublicArea::parse_again(&key.public, &pair.public);
                self.wrapped_key(key, area, pair.handle)
            }
            KeyMaterial::Clear(_) if !self.allows_file_keys => Err(
                "its file is not encrypted, and allow_file_keys under [[token]] does not allow \
                 such files",
            ),
            material => Key::in_memory(&pair.public, material),
        };
        let key = key.unwrap_or_else(|why| Key::refused(pair.public.clone(), why));
        let key = key.allowing_unpadded(self.allows_raw_rsa);
        let key = key.kept_in(self.key_file(name, pair.origin));
        if let Some(why) = key.obstacle() {
            warn!("the key {name:?} cannot be used: {why}");
        }
        key.opened_by(self.access_of(&pair.auth))
    }

    fn key_file(&self, name: &str, origin: KeyOrigin) -> KeyFile {
        KeyFile {
            file: self.file(name),
            master: self.master_record(),
            is_ours: origin != KeyOrigin::Unknown,
        }
    }

    fn secret_key_of(&self, name: &str, file: &SecretKeyFile) -> SecretKey {
        let key = SecretKey::of_file(file).kept_in(self.key_file(name, file.origin));
        if let Some(why) = key.obstacle() {
            warn!("the key {name:?} cannot be used: {why}");
        }
        key.opened_by(self.access_of(&file.auth))
    }

    /// Returns true if the empty authorisation value may be tried for a parent, although the TPM
    /// may count a wrong value. The value of such a parent is empty by convention or by
    /// configuration.
    pub(super) fn is_open(&self, parent: &Parent) -> bool {
        match *parent {
            Parent::Owner { .. } => true,
            Parent::Persistent(handle) => {
                handle == SRK || handle == self.master.handle || self.parents.contains(&handle)
            }
        }
    }

    pub(super) fn wrapped_key(
        &self,
        key: &Tss2Key,
        area: Option<PublicArea>,
        handle: Option<u32>,
    ) -> Result<Key, &'static str> {
        let area = area.ok_or("this version does not support its public area")?;
        if key.has_policy() {
            return Err("its file states that a use needs a policy");
        }
        if key.kind != Tss2Kind::Loadable {
            return Err(
                "it is importable, but not imported: another program must first import it into the \
                 TPM (TPM2_Import)",
            );
        }
        let wrapped = key.wrapped()?;
        let wrapped = match self.is_open(wrapped.parent()) {
            true => wrapped,
            false => wrapped.below_stranger(),
        };
        self.tpm.register_flushable(wrapped.name());
        Ok(Key::wrapped(wrapped, area, handle, self.abilities()))
    }
}

fn unreadable(error: FolderError) -> ScanError {
    match error.trouble() {
        Some(_) => ScanError::Unread(error.to_string()),
        None => ScanError::Folder(error.to_string()),
    }
}

/// The state on which a scan of a key folder depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevidStamp {
    folder: folder::FolderStamp,
    /// The number of transport faults until now.
    faults: u64,
    /// The capabilities of the TPM that are known now.
    can: Capabilities,
    /// True if an earlier scan did not ask the TPM for its algorithms, and the TPM can be asked
    /// now.
    asks: bool,
    /// The number of certificates' validity limits that are in the past.
    passed: usize,
}

/// Returns the seconds since 1970 by the system clock.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() as i64
}

/// Returns how many of these sorted times are in the past.
fn passed(turns: &[i64], now: i64) -> usize {
    turns.partition_point(|turn| *turn <= now)
}

/// Returns the times at which an object becomes valid and expires.
fn turns_of(kind: &ObjectKind) -> Vec<i64> {
    match kind {
        ObjectKind::Certificate(certificate, _) => {
            let (first, last) = validity(certificate);
            let end = last.map(|last| last.saturating_add(1));
            first.into_iter().chain(end).collect()
        }
        _ => Vec::new(),
    }
}

/// The first and the last second of validity since 1970. `None` stands for a time that cannot be
/// parsed.
type Validity = (Option<i64>, Option<i64>);

fn validity(certificate: &Certificate) -> Validity {
    let seconds = |time: Result<Time, _>| time.ok().map(Time::unix_seconds);
    (
        seconds(certificate.not_before()),
        seconds(certificate.not_after()),
    )
}

/// Returns the sort key of an object. The order is: key pairs, other keys, certificates that are
/// valid now, other certificates, data. Newer certificates come first. For equal start times the
/// longer validity comes first. A certificate with an unreadable validity counts as not valid.
fn rank(kind: &ObjectKind, now: i64) -> (u8, bool, Reverse<Validity>) {
    let (class, validity) = match kind {
        ObjectKind::Pair { .. } => (0, None),
        ObjectKind::SecretKey(..) | ObjectKind::Public(..) => (1, None),
        ObjectKind::Certificate(certificate, _) => (2, Some(validity(certificate))),
        ObjectKind::Data(_) => (3, None),
    };
    let is_valid = |(first, last): Validity| {
        first.is_some_and(|first| first <= now) && last.is_some_and(|last| now <= last)
    };
    let is_over = validity.is_some_and(|validity| !is_valid(validity));
    (class, is_over, Reverse(validity.unwrap_or_default()))
}
