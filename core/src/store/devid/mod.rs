//! The store of own keys: files in a key folder. A master key of the TPM wraps the keys. Some keys
//! are also in persistent handles. The folder also stores certificates and data.
//!
//! The folder has no index: each valid file is an object. A file that another program adds appears
//! at the next scan.

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
    /// A user who knows the PIN, if the token has a PIN.
    User,
    /// Every user, without login.
    Anybody,
}

/// The store of one token: its key folder, and the TPM of its keys.
#[derive(Debug)]
pub struct DevidStore {
    tpm: Arc<Tpm>,
    name: String,
    folder: KeyFolder,
    master: Master,
    allow_last_try: bool,
    allows_file_keys: bool,
    pin: Option<SecretSource>,
    /// The handles of parents with an empty authorisation value. The TPM counts wrong values for
    /// them.
    parents: Vec<u32>,
    allows_raw_rsa: bool,
    is_service: bool,
    /// The secret of the token, while the user is logged in.
    login: Arc<Login>,
    /// The login of the security officer, who may set PINs but may not use keys.
    officer: Arc<Login>,
    /// The objects of the last scan, by name. The mutex is locked only briefly.
    shown: Mutex<HashMap<String, CachedObject>>,
    /// The times at which certificates of the last scan become valid or expire, in ascending order.
    turns: Mutex<Vec<i64>>,
    /// True if the last scan did not ask for the TPM's algorithms, because it would have had to
    /// wait.
    puts_off: AtomicBool,
}

impl DevidStore {
    /// Returns the stores of all tokens, `devid` first. Reads no file and sends no TPM command.
    pub fn all(config: &Config, tpm: &Arc<Tpm>) -> Vec<Self> {
        let tokens = config.tokens.iter();
        tokens
            .map(|settings| Self::of(config, Arc::clone(tpm), settings))
            .collect()
    }

    /// Returns the client of the TPM that wraps or seals the keys of this store.
    pub(super) fn tpm(&self) -> &Tpm {
        &self.tpm
    }

    /// Returns the name of the token in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if the token belongs to one service.
    pub fn is_service(&self) -> bool {
        self.is_service
    }

    /// Returns true if the token belongs to a service, and the user of this process owns its folder
    /// and is not root. This user sees no other token.
    pub fn is_of_own_service(&self) -> bool {
        let user = geteuid();
        self.is_service
            && !user.is_root()
            && stat(self.path()).is_ok_and(|about| about.st_uid == user.as_raw())
    }

    /// Returns the path of the key folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the file of an object.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.pem"))
    }

    /// Returns the protection of a new key. `said` is the request of the caller, if any.
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

    /// Creates a key that is not stored yet. If the caller drops the key, nothing remains. With the
    /// default protection the TPM creates the key, and only the TPM uses it.
    ///
    /// The TPM executes six commands, or seven with a PIN: an auth session and TPM2_Create, another
    /// auth session and TPM2_Load, and the commands that use the new key once. The first key of a
    /// folder needs more commands, because the master key is created.
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

    /// Creates a key as [`DevidStore::generate`] does, but below the storage root key, which every
    /// program can derive. The key has a fixed scheme and an empty authorisation value.
    ///
    /// # Errors
    ///
    /// Fails if the owner hierarchy has an authorisation value. No other program could derive the
    /// storage root key without this value.
    pub fn generate_below_root(
        &self,
        algorithm: KeyAlgorithm,
        scheme: SignatureScheme,
    ) -> Result<Arc<Key>, StoreError> {
        let owner = self.owner_auth()?;
        if !owner.is_empty() {
            return Err(StoreError::Unsupported(
                "a key below the storage root key needs an owner hierarchy without authorisation \
                 value, but [master] owner_auth sets a value"
                    .into(),
            ));
        }
        // The folder must exist first, because it stores the record of the storage root key.
        self.folder.begin(&self.first_serial()?)?;
        let value = Secret::default();
        let made = self
            .tpm
            .create_below_owner(algorithm, scheme, &value, &owner);
        let made = made.map_err(|error| StoreError::of_making_a(algorithm, error));
        self.usable(made?, Access::Open)
    }

    /// Imports a key that is not stored yet. A key for the TPM is encrypted for the master key
    /// before it reaches the bus. The import costs as many commands as [`DevidStore::generate`].
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::BadKey`] if the numbers of the key do not belong together.
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

    /// Returns true if the module uses a key with this protection in memory.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Protection`] if this token or this build does not support the
    /// protection.
    fn is_for_memory(&self, protection: Protection, is_rsa: bool) -> Result<bool, StoreError> {
        let refused = |why: &str| Err(StoreError::Protection(why.into()));
        match protection {
            Protection::Tpm => Ok(false),
            Protection::File if !self.allows_file_keys => refused(
                "this token does not allow keys in unencrypted files: set allow_file_keys under \
                 [[token]] in config.toml to allow them",
            ),
            _ if is_rsa && !cfg!(feature = "soft-rsa") => refused(
                "this build uses RSA keys only in the TPM, because it lacks the software \
                 implementation with constant time (feature soft-rsa)",
            ),
            Protection::Sealed | Protection::File => Ok(true),
        }
    }

    /// Returns a key that the module uses in memory.
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

    /// Stores a key from [`DevidStore::generate`] or [`DevidStore::import`]. With `persistent`,
    /// also puts the key into a persistent handle. Returns the name of the new object.
    ///
    /// The file names the handle before the handle holds the key. So every handle with a key is
    /// named in a file.
    pub fn keep(
        &self,
        key: &Key,
        origin: KeyOrigin,
        private: ObjectAttributes,
        public: Option<ObjectAttributes>,
        persistent: bool,
    ) -> Result<String, StoreError> {
        let unfit = || StoreError::Unsupported("the key cannot be stored in a file".into());
        let material = key.material().ok_or_else(unfit)?;
        let wrapped = key.on_disk();
        if persistent && wrapped.is_none() {
            return Err(StoreError::Protection(
                "only a key that the TPM itself uses can be in a persistent handle".into(),
            ));
        }
        // All checks that can fail come before the write of the key's file.
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
                "a token with a PIN cannot store a private key that is used without a PIN".into(),
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

    /// Puts a key into the handle that its file names, or into another free handle if that is
    /// taken.
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

    /// Removes the file of a key that did not get into its handle. Keeps the file if the handle may
    /// hold the key.
    fn take_back(&self, name: &str, wrapped: &WrappedKey, handle: u32) {
        match self.tpm.holds(handle, wrapped.name()) {
            // An error here means that another process removed the file already.
            Ok(false) => drop(self.folder.remove(name)),
            Ok(true) | Err(_) => warn!(
                "{}: {name:?} was created, and may be in handle 0x{handle:08X}",
                self.folder.path().display()
            ),
        }
    }

    /// Adds an object that is not a key pair. Returns the name of the object.
    pub fn add(&self, content: EntryContent) -> Result<String, StoreError> {
        match content {
            EntryContent::Pair(_) | EntryContent::SecretKey(_) => Err(StoreError::Unsupported(
                "a key must be stored with its proof".into(),
            )),
            content => {
                self.folder.begin(&self.first_serial()?)?;
                Ok(self.folder.add(content)?.name)
            }
        }
    }

    /// Reads the file of an object again, applies `change` to the attributes, and writes the file.
    /// If `change` fails, the file stays unchanged.
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

    /// Destroys an object. Evicts a private key from its persistent handle. The other object of the
    /// key pair stays. If the disk has no space to rewrite the public key object, that object is
    /// destroyed too.
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
            // The handle is emptied before the file changes. Otherwise the key could stay in a
            // handle that no file names.
            self.evict(&entry.content)?;
            let shown = pair.shown_public.clone();
            let public = |shown| EntryContent::Public(pair.public.clone(), shown);
            Ok::<_, StoreError>(shown.map(public))
        })?;
        Ok(())
    }

    /// Returns a usable key, after a proof that the key belongs to the TPM. The proof costs one use
    /// of the key, and the load in an auth session.
    fn usable(&self, wrapped: WrappedKey, access: Access) -> Result<Arc<Key>, StoreError> {
        let unknown = || TpmError::Unsupported("the TPM created a key of another type".into());
        let area = PublicArea::parse(wrapped.area()).ok_or_else(unknown)?;
        let key = Key::wrapped(wrapped, area, None, self.abilities()).opened_by(access);
        match key.prove_itself(&self.tpm) {
            Ok(()) => Ok(Arc::new(key)),
            Err(SignError::Tpm(error)) => Err(error.into()),
            Err(SignError::NotLoggedIn) => Err(StoreError::NotLoggedIn),
            Err(error) => Err(StoreError::BadKey(error.to_string())),
        }
    }

    /// Returns the known abilities of the TPM. If they are unknown, assumes all abilities.
    fn abilities(&self) -> Abilities {
        Abilities {
            algorithms: self.tpm.known_algorithms().clone(),
            pss: self.tpm.signs_pss(),
        }
    }

    /// Returns the first free handle for device keys after `last`.
    fn free_handle(&self, last: Option<u32>) -> Result<u32, StoreError> {
        let taken = self.tpm.handles(handle::PERSISTENT)?;
        let free = |handle: &u32| Some(*handle) > last && !taken.contains(handle);
        let none = || StoreError::NoRoom("all handles for device keys are in use".into());
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

    /// Returns the PIN of the user, if the configuration names its source.
    pub fn configured_pin(&self) -> Option<Secret> {
        let source = self.pin.as_ref()?;
        let pin = source.read();
        pin.inspect_err(|error| warn!("[[token]] pin {source:?}: {error}"))
            .ok()
    }

    /// Returns the owner's authorisation value, with a session salted to the recorded master key.
    fn owner_auth_by_master(&self) -> Result<AuthValue, StoreError> {
        let owner = self.owner_auth()?;
        Ok(match self.remembered_master() {
            Ok(master) => owner.salted_to(master.salt_key()),
            Err(_) => owner,
        })
    }

    /// Returns the authorisation value of the owner hierarchy.
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

/// Returns the changeable part of an object, or `None` if the file has no such object.
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
