//! The device's own keys: files in a folder, wrapped by a master key of the TPM. Some keys are in
//! persistent handles as well. The folder also holds certificates and data.
//!
//! There is no index: each file in the folder is an object. A file that another program adds
//! appears at the next scan.

#[cfg(feature = "evidence")]
mod attestation;
mod configured_pin;
mod error;
mod maintenance;
mod master;
mod pins;
mod private;
mod renewal;
mod scan;
#[cfg(test)]
mod scan_tests;
mod secret_keys;
mod succession;
mod take_over;
mod unusable;

pub use crate::tpm::{KeyAlgorithm, KeyPurpose};
pub use error::StoreError;
pub use maintenance::KeyInHandle;
pub(super) use master::MasterRecord;
pub(in crate::store) use pins::PIN_LENGTHS;
pub use private::PrivateKey;
pub use renewal::{Loss, LossKind, Losses, SurvivingKey};
pub use scan::DevidStamp;
pub use succession::Predecessor;
pub use take_over::TakenOver;
pub use unusable::UnusableKey;

use super::folder::{
    Editable, Entry, EntryContent, KeyAuth, KeyFolder, KeyMaterial, KeyOrigin, KeyPair,
    ObjectAttributes, PinSeal,
};
use super::key::{Abilities, SoftKey};
use super::listing::ObjectPart;
use super::{Access, Key, Login, Protection, SignError};
use crate::config::{Config, Master, SecretSource, TokenSettings};
use crate::key::PrivateKeyInfo;
use crate::tpm::{
    AuthValue, PublicArea, Secret, SignatureScheme, Tpm, TpmError, WrappedKey, handle,
};
use log::warn;
use parking_lot::Mutex;
use rustix::fs::stat;
use rustix::process::geteuid;
use scan::CachedObject;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The users who can use a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenedBy {
    /// A user who knows the PIN, if the token has one.
    User,
    /// Every user, without a login.
    Anybody,
}

/// The key folder of one token, and the TPM that its keys are for.
#[derive(Debug)]
pub struct DevidStore {
    tpm: Arc<Tpm>,
    name: String,
    folder: KeyFolder,
    master: Master,
    allow_last_try: bool,
    allows_file_keys: bool,
    pin: Option<SecretSource>,
    /// Parents without an authorisation value, although a wrong value would count towards lockout.
    parents: Vec<u32>,
    allows_raw_rsa: bool,
    is_service: bool,
    /// The secret of the token, while the user is logged in.
    login: Arc<Login>,
    /// The login of the security officer, who uses no keys.
    officer: Arc<Login>,
    /// The objects of the last scan, by name; locked only briefly.
    shown: Mutex<HashMap<String, CachedObject>>,
    /// The times at which certificates of the last scan become valid or expire, the earliest first.
    turns: Mutex<Vec<i64>>,
    /// True if the last scan skipped the question for the TPM's algorithms, to avoid waiting.
    puts_off: AtomicBool,
}

impl DevidStore {
    /// All tokens with a key folder, `devid` first. Reads no file and sends no command.
    pub fn all(config: &Config, tpm: &Arc<Tpm>) -> Vec<Self> {
        let tokens = config.tokens.iter();
        tokens
            .map(|settings| Self::of(config, Arc::clone(tpm), settings))
            .collect()
    }

    /// The TPM of its keys.
    pub(super) fn tpm(&self) -> &Tpm {
        &self.tpm
    }

    /// The name of the token in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the token of one service.
    pub fn is_service(&self) -> bool {
        self.is_service
    }

    /// Whether it is the token of a service that the user of this process runs: who owns its folder, and is
    /// not root. Such a user sees no other token.
    pub fn is_of_own_service(&self) -> bool {
        let user = geteuid();
        self.is_service
            && !user.is_root()
            && stat(self.path()).is_ok_and(|about| about.st_uid == user.as_raw())
    }

    /// Its key folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file of an object.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.pem"))
    }

    /// The protection of a new key; `said` is the caller's request, if any.
    pub fn protection(&self, said: Option<Protection>) -> Protection {
        said.unwrap_or(match self.allows_file_keys {
            true => Protection::File,
            false => Protection::Tpm,
        })
    }

    fn of(config: &Config, tpm: Arc<Tpm>, settings: &TokenSettings) -> Self {
        Self {
            tpm,
            name: settings.name.clone(),
            folder: KeyFolder::new(config.key_folder(settings)),
            master: config.master.clone(),
            allow_last_try: settings.allow_last_try,
            allows_file_keys: settings.allow_file_keys,
            pin: settings.pin.clone(),
            parents: settings.parents.clone(),
            allows_raw_rsa: settings.allow_raw_rsa,
            is_service: settings.service,
            login: Arc::default(),
            officer: Arc::default(),
            shown: Mutex::default(),
            turns: Mutex::default(),
            puts_off: AtomicBool::new(false),
        }
    }

    /// A new key that is not stored yet; dropping it leaves no trace. With the default protection
    /// the TPM makes it, and only the TPM uses it.
    ///
    /// The TPM runs six commands, seven with a PIN. They are an auth session and TPM2_Create,
    /// another session and TPM2_Load, and the use that proves the key. The first key of a folder
    /// needs more commands, to make the master key.
    pub fn generate(
        &self,
        algorithm: KeyAlgorithm,
        usage: KeyPurpose,
        protection: Protection,
        opened_by: OpenedBy,
    ) -> Result<Arc<Key>, StoreError> {
        if self.is_for_memory(protection, matches!(algorithm, KeyAlgorithm::Rsa(_)))? {
            return self.in_memory(&SoftKey::generate(algorithm)?, protection, opened_by);
        }
        let master = self.master_for_new_keys()?;
        let (access, value) = self.access_for_new_key(opened_by)?;
        let made = self.tpm.create_key(&master, &value, algorithm, usage);
        let made = made.map_err(|error| StoreError::of_making_a(algorithm, error));
        self.usable(made?, access)
    }

    /// A new key as from [`DevidStore::generate`], but below the storage root key that every
    /// program can derive. The key has a fixed scheme and no authorisation value.
    ///
    /// # Errors
    ///
    /// The owner hierarchy has an authorisation value; without it no program can derive the storage
    /// root key.
    pub fn generate_below_root(
        &self,
        algorithm: KeyAlgorithm,
        scheme: SignatureScheme,
    ) -> Result<Arc<Key>, StoreError> {
        let owner = self.owner_auth()?;
        if !owner.is_empty() {
            return Err(StoreError::Unsupported(
                "the owner hierarchy has an authorisation value ([master] owner_auth), and a key below the \
                 storage root key is used only where that is empty"
                    .into(),
            ));
        }
        // The folder must exist first: it holds the record of the storage root key.
        self.folder.begin(&self.first_serial()?)?;
        let value = Secret::default();
        let made = self
            .tpm
            .create_below_owner(algorithm, scheme, &value, &owner);
        let made = made.map_err(|error| StoreError::of_making_a(algorithm, error));
        self.usable(made?, Access::Open)
    }

    /// An imported key that is not stored yet. A key for the TPM is encrypted for the master key
    /// before it reaches the bus. As many commands as [`DevidStore::generate`].
    ///
    /// # Errors
    ///
    /// [`StoreError::BadKey`] if its numbers are inconsistent.
    pub fn import(
        &self,
        private: &PrivateKey,
        usage: KeyPurpose,
        protection: Protection,
        opened_by: OpenedBy,
    ) -> Result<Arc<Key>, StoreError> {
        if self.is_for_memory(protection, matches!(private, PrivateKey::Rsa { .. }))? {
            return self.in_memory(&private.info()?, protection, opened_by);
        }
        let (public, secret) = private.halves()?;
        let master = self.master_for_new_keys()?;
        let (access, value) = self.access_for_new_key(opened_by)?;
        let taken = self
            .tpm
            .import_key(&master, &value, &public, &secret, usage);
        let taken = taken.map_err(|error| StoreError::of_import(&public, error));
        self.usable(taken?, access)
    }

    /// True if a key with this protection is used in memory.
    ///
    /// # Errors
    ///
    /// [`StoreError::Protection`] if this token or build supports no such key.
    fn is_for_memory(&self, protection: Protection, is_rsa: bool) -> Result<bool, StoreError> {
        let refused = |why: &str| Err(StoreError::Protection(why.into()));
        match protection {
            Protection::Tpm => Ok(false),
            Protection::File if !self.allows_file_keys => {
                refused("keys in clear are not allowed on this token ([[token]] allow_file_keys)")
            }
            _ if is_rsa && !cfg!(feature = "soft-rsa") => refused(
                "RSA keys are for the TPM only in this build: it lacks the one implementation in \
                 software that is known not to leak them through its timing (feature soft-rsa)",
            ),
            Protection::Sealed | Protection::File => Ok(true),
        }
    }

    /// A key that is used in memory.
    fn in_memory(
        &self,
        private: &PrivateKeyInfo,
        protection: Protection,
        opened_by: OpenedBy,
    ) -> Result<Arc<Key>, StoreError> {
        let (access, value) = self.access_for_new_key(opened_by)?;
        let material = match protection {
            Protection::File => KeyMaterial::Clear(private.clone()),
            Protection::Tpm | Protection::Sealed => {
                let master = self.master_for_new_keys()?;
                SoftKey::sealed(private, |key| {
                    let sealed = self.tpm.seal(&master, &value, key, false);
                    sealed.map_err(StoreError::from)
                })?
            }
        };
        let key = Key::in_memory(private.public(), &material);
        let key = key.map_err(|why| StoreError::BadKey(why.into()))?;
        Ok(Arc::new(key.opened_by(access)))
    }

    /// Stores a key from [`DevidStore::generate`] or [`DevidStore::import`]; with `persistent` also
    /// in a persistent handle. Returns the name of the new object.
    ///
    /// The file names the handle before the key is there, so that no unlisted handle can hold a
    /// key.
    pub fn keep(
        &self,
        key: &Key,
        origin: KeyOrigin,
        private: ObjectAttributes,
        public: Option<ObjectAttributes>,
        persistent: bool,
    ) -> Result<String, StoreError> {
        let unfit = || StoreError::Unsupported("the key has no form for a file".into());
        let material = key.material().ok_or_else(unfit)?;
        let wrapped = key.on_disk();
        if persistent && wrapped.is_none() {
            return Err(StoreError::Protection(
                "only a key that the TPM itself uses can be in a handle".into(),
            ));
        }
        // All checks that can fail come before the file is written.
        let owner = persistent
            .then(|| self.owner_auth_by_master())
            .transpose()?;
        let handle = persistent.then(|| self.free_handle(None)).transpose()?;
        let pair = KeyPair {
            material,
            auth: key.auth(),
            public: key.public().clone(),
            handle,
            origin,
            private,
            shown_public: public,
        };
        let fits = match pair.auth {
            KeyAuth::Salt(_) => true,
            KeyAuth::Open => !pair.private.private,
            KeyAuth::Unsaid => false,
        };
        if !fits && self.folder.has_seal(PinSeal::SecurityOfficer)? {
            return Err(StoreError::Protection(
                "a private key that no PIN opens cannot be kept on a token with a PIN".into(),
            ));
        }
        self.folder.begin(&self.first_serial()?)?;
        if pair.auth.salt().is_some() {
            self.check_login()?;
        }
        let name = self.folder.add(EntryContent::Pair(pair))?.name;
        if let (Some(handle), Some(wrapped), Some(owner)) = (handle, wrapped, owner) {
            self.fill(&name, wrapped, handle, &owner)?;
        }
        Ok(name)
    }

    /// Puts a key into the handle that its file names, or into the next one if another process took
    /// that handle.
    fn fill(
        &self,
        name: &str,
        wrapped: &WrappedKey,
        mut handle: u32,
        owner: &AuthValue,
    ) -> Result<(), StoreError> {
        loop {
            let next = match self.tpm.persist(wrapped, handle, owner) {
                Ok(()) => return Ok(()),
                Err(TpmError::KeyReplaced(_)) => self.free_handle(Some(handle)).and_then(|next| {
                    self.rewrite(name, |pair| pair.handle = Some(next))?;
                    Ok(next)
                }),
                Err(error) => Err(StoreError::of_making(error)),
            };
            handle = next.inspect_err(|_| self.take_back(name, wrapped, handle))?;
        }
    }

    /// Removes the file of a key that did not get into its handle. If this is unknown, the file
    /// stays, since it names the handle.
    fn take_back(&self, name: &str, wrapped: &WrappedKey, handle: u32) {
        match self.tpm.holds(handle, wrapped.name()) {
            // An error here means that another process removed the file already.
            Ok(false) => drop(self.folder.remove(name)),
            Ok(true) | Err(_) => warn!(
                "{}: {name:?} was made, and may be in handle 0x{handle:08X}",
                self.folder.path().display()
            ),
        }
    }

    /// Adds an object that is not a pair. Returns its name.
    pub fn add(&self, content: EntryContent) -> Result<String, StoreError> {
        match content {
            EntryContent::Pair(_) | EntryContent::SecretKey(_) => {
                Err(StoreError::Unsupported("a key is kept, not added".into()))
            }
            content => {
                self.folder.begin(&self.first_serial()?)?;
                Ok(self.folder.add(content)?.name)
            }
        }
    }

    /// Reads the object's file again, applies `change` to its attributes, and writes the file. If
    /// `change` fails, the file stays as it is.
    pub fn edit<E>(
        &self,
        name: &str,
        half: ObjectPart,
        change: impl FnOnce(Editable<'_>) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        let mut outcome = Ok(());
        self.folder.change(name, |entry| {
            let mut content = entry.content.clone();
            outcome = match editable(&mut content, half) {
                Some(editable) => change(editable),
                None => return Err(StoreError::Gone),
            };
            let changed = if outcome.is_ok() {
                content
            } else {
                entry.content.clone()
            };
            Ok::<_, StoreError>(Some(changed))
        })?;
        Ok(outcome)
    }

    /// Destroys an object, and the private key in its persistent handle. The other half of a pair
    /// stays. If there is no room to rewrite the public half, it is destroyed too.
    pub fn destroy(&self, name: &str, half: ObjectPart) -> Result<(), StoreError> {
        if half == ObjectPart::Whole {
            return Ok(self.folder.remove(name)?);
        }
        fn pair_of(entry: &Entry) -> Result<&KeyPair, StoreError> {
            match &entry.content {
                EntryContent::Pair(pair) => Ok(pair),
                _ => Err(StoreError::Gone),
            }
        }
        if half == ObjectPart::Public {
            self.folder.change(name, |entry| {
                let hidden = KeyPair {
                    shown_public: None,
                    ..pair_of(entry)?.clone()
                };
                Ok::<_, StoreError>(Some(EntryContent::Pair(hidden)))
            })?;
            return Ok(());
        }
        self.settle_eviction_of(name);
        self.folder.reduce(name, |entry| {
            let pair = pair_of(entry)?;
            // The handle is emptied first; otherwise the key could stay in an unlisted handle.
            self.evict(&entry.content)?;
            let shown = pair.shown_public.clone();
            let public = |shown| EntryContent::Public(pair.public.clone(), shown);
            Ok::<_, StoreError>(shown.map(public))
        })?;
        Ok(())
    }

    /// A usable key from the TPM's output, after proof that it belongs to the TPM. One use of the
    /// key, and one more command for the auth session of its load.
    fn usable(&self, wrapped: WrappedKey, access: Access) -> Result<Arc<Key>, StoreError> {
        let unknown = || TpmError::Unsupported("the TPM made a key of another kind".into());
        let area = PublicArea::parse(wrapped.area()).ok_or_else(unknown)?;
        let key = Key::wrapped(wrapped, area, None, self.abilities()).opened_by(access);
        match key.prove_itself(&self.tpm) {
            Ok(()) => Ok(Arc::new(key)),
            Err(SignError::Tpm(error)) => Err(error.into()),
            Err(SignError::NotLoggedIn) => Err(StoreError::NotLoggedIn),
            Err(error) => Err(StoreError::BadKey(error.to_string())),
        }
    }

    /// The known abilities of the TPM; if it was not asked, all abilities.
    fn abilities(&self) -> Abilities {
        Abilities {
            algorithms: self.tpm.known_algorithms().clone(),
            pss: self.tpm.signs_pss(),
        }
    }

    /// The first free handle of ours, after `last` if that one was in use.
    fn free_handle(&self, last: Option<u32>) -> Result<u32, StoreError> {
        let taken = self.tpm.handles(handle::PERSISTENT)?;
        let free = |handle: &u32| Some(*handle) > last && !taken.contains(handle);
        let none = || StoreError::NoRoom("all our persistent handles are in use".into());
        handle::DEVICE_KEYS.into_iter().find(free).ok_or_else(none)
    }

    fn rewrite(&self, name: &str, edit: impl FnOnce(&mut KeyPair)) -> Result<(), StoreError> {
        self.folder.change(name, |entry| match &entry.content {
            EntryContent::Pair(pair) => {
                let mut pair = pair.clone();
                edit(&mut pair);
                Ok(Some(EntryContent::Pair(pair)))
            }
            _ => Err(StoreError::Gone),
        })?;
        Ok(())
    }

    /// The user's PIN, if the configuration names its source.
    pub fn configured_pin(&self) -> Option<Secret> {
        let source = self.pin.as_ref()?;
        let pin = source.read();
        pin.inspect_err(|error| warn!("[[token]] pin {source:?}: {error}"))
            .ok()
    }

    /// The owner's authorisation value, salted to the remembered master key if there is one.
    fn owner_auth_by_master(&self) -> Result<AuthValue, StoreError> {
        let owner = self.owner_auth()?;
        Ok(match self.remembered_master() {
            Ok(master) => owner.salted_to(master.salt_key()),
            Err(_) => owner,
        })
    }

    /// The authorisation value of the owner hierarchy.
    pub(crate) fn owner_auth(&self) -> Result<AuthValue, StoreError> {
        let Some(source) = &self.master.owner_auth else {
            return Ok(AuthValue::default());
        };
        let value = source.read().map(AuthValue::new);
        value.map_err(|error| {
            warn!("[master] owner_auth {source:?}: {error}");
            StoreError::Unsupported(format!("[master] owner_auth: {error}"))
        })
    }
}

/// The changeable part of an object; `None` if the file has no such object.
fn editable(content: &mut EntryContent, half: ObjectPart) -> Option<Editable<'_>> {
    let description = match (content, half) {
        (EntryContent::Pair(pair), ObjectPart::Private) => &mut pair.private,
        (EntryContent::Pair(pair), ObjectPart::Public) => pair.shown_public.as_mut()?,
        (EntryContent::Public(_, description), ObjectPart::Whole)
        | (EntryContent::Certificate(_, description), ObjectPart::Whole) => description,
        (EntryContent::SecretKey(key), ObjectPart::Whole) => &mut key.description,
        (EntryContent::Data(data), ObjectPart::Whole) => return Some(Editable::Data(data)),
        _ => return None,
    };
    Some(Editable::Attributes(description))
}
