//! The keys of the device's own: files in a folder, wrapped by a master key of the TPM, some in
//! persistent handles as well; and the certificates and data beside them.
//!
//! Nothing is registered: what lies in the folder is there, and what another program puts into it
//! appears at the next look.

mod fault;
mod master;
pub(super) mod pins;
mod private;
mod showing;

pub use crate::tpm::{Algorithm, KeyUsage};
pub use fault::StoreError;
pub use private::PrivateKey;

use super::folder::{Content, Description, KeyFolder, Origin, Pair, Tss2Key};
use super::key::Abilities;
use super::listing::Half;
use super::{Access, Key, Login};
use crate::config::{self, Config, Master, SecretSource};
use crate::tpm::{AuthValue, Hash, Parent, PublicArea, Secret, Tpm, TpmError, WrappedKey, name_of};
use log::warn;
use parking_lot::Mutex;
use showing::Known;
use std::collections::HashMap;
use std::sync::Arc;

/// Where persistent keys of ours are (the TCG leaves 0x81000000 to 0x817FFFFF to the owner).
const HANDLES: std::ops::RangeInclusive<u32> = 0x8100_0100..=0x8100_01FF;
const PERSISTENT: u32 = 0x8100_0000;

/// The key folder of one token, and the TPM that its keys are for.
#[derive(Debug)]
pub struct DevidStore {
    tpm: Arc<Tpm>,
    name: String,
    folder: KeyFolder,
    master: Master,
    allow_last_try: bool,
    pin: Option<SecretSource>,
    /// The token's secret, as long as the user is logged in.
    login: Arc<Login>,
    /// The same for the security officer, who uses no keys.
    officer: Arc<Login>,
    /// What the last look showed, by name; held for moments.
    shown: Mutex<HashMap<String, Known>>,
}

impl DevidStore {
    /// The token `devid`. Nothing is read and nothing is sent yet.
    pub fn new(config: &Config, tpm: Arc<Tpm>) -> Self {
        let name = "devid";
        Self {
            tpm,
            name: name.into(),
            folder: KeyFolder::new(config.state.join(name)),
            master: config.master.clone(),
            allow_last_try: config.allow_last_try,
            pin: config.pin.clone(),
            login: Arc::default(),
            officer: Arc::default(),
            shown: Mutex::default(),
        }
    }

    /// A new key of the TPM's own making, not kept yet: nothing of it stays when it is dropped.
    ///
    /// One command; more the very first time, when it makes the master key.
    pub fn generate(&self, algorithm: Algorithm, usage: KeyUsage) -> Result<Arc<Key>, StoreError> {
        let master = self.master_for_new_keys()?;
        let (access, value) = self.access_for_new_key()?;
        let made = self.tpm.create_key(&master, &value, algorithm, usage);
        self.usable(made.map_err(StoreError::of_making)?, access)
    }

    /// A key from outside, not kept yet; it is encrypted for the master key before it reaches the
    /// bus. One command; more the very first time.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadKey`] if its numbers do not belong together.
    pub fn import(&self, private: &PrivateKey, usage: KeyUsage) -> Result<Arc<Key>, StoreError> {
        let (public, secret) = private.halves()?;
        let master = self.master_for_new_keys()?;
        let (access, value) = self.access_for_new_key()?;
        let taken = self
            .tpm
            .import_key(&master, &value, &public, &secret, usage);
        self.usable(taken.map_err(StoreError::of_import)?, access)
    }

    /// Keeps a key that [`DevidStore::generate`] or [`DevidStore::import`] gave; in a persistent
    /// handle too, if that is asked for. Gives the name of the new object.
    ///
    /// The file names the handle before the key is there, so that nothing can be in a handle that
    /// nobody lists.
    pub fn keep(
        &self,
        key: &Key,
        origin: Origin,
        private: Description,
        public: Option<Description>,
        persistent: bool,
    ) -> Result<String, StoreError> {
        let wrapped = key
            .on_disk()
            .ok_or_else(|| StoreError::Unsupported("the key has no wrapped form".into()))?;
        let Parent::Persistent(parent) = *wrapped.parent() else {
            return Err(StoreError::Unsupported("not a key of this token".into()));
        };
        let mut handle = persistent.then(|| self.free_handle(None)).transpose()?;
        let auth = key.auth_salt().map(<[u8]>::to_vec);
        let pair = Pair {
            material: Tss2Key {
                empty_auth: Some(auth.is_none()),
                ..Tss2Key::loadable(parent, wrapped.area().to_vec(), wrapped.private().to_vec())
            },
            auth,
            public: key.public().clone(),
            handle,
            origin,
            private,
            shown_public: public,
        };
        self.folder.begin(&self.first_serial())?;
        let name = self.folder.add(Content::Pair(pair))?.name;
        while let Some(tried) = handle {
            match self.tpm.persist(wrapped, tried, &self.owner_auth()?) {
                Ok(()) => break,
                // Another process was faster.
                Err(TpmError::KeyReplaced(_)) => {
                    let next = self.free_handle(Some(tried))?;
                    self.rewrite(&name, |pair| pair.handle = Some(next))?;
                    handle = Some(next);
                }
                Err(error) => {
                    // Gone already only if somebody else destroyed it: then all is well.
                    let _ = self.folder.remove(&name);
                    return Err(StoreError::of_making(error));
                }
            }
        }
        Ok(name)
    }

    /// Adds an object that is no pair. Gives its name.
    pub fn add(&self, content: Content) -> Result<String, StoreError> {
        match content {
            Content::Pair(_) => Err(StoreError::Unsupported("a pair is kept, not added".into())),
            content => {
                self.folder.begin(&self.first_serial())?;
                Ok(self.folder.add(content)?.name)
            }
        }
    }

    /// Changes the attributes of an object, as they are on the disk at that moment: all of what
    /// `change` does, or nothing if it fails.
    pub fn describe<E>(
        &self,
        name: &str,
        half: Half,
        change: impl FnOnce(&mut Description) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        let mut outcome = Ok(());
        self.folder.change(name, |entry| {
            let mut content = entry.content.clone();
            outcome = match described(&mut content, half) {
                Some(description) => change(description),
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

    /// Destroys an object; a private key in its persistent handle too. Of a pair the other half
    /// stays.
    pub fn destroy(&self, name: &str, half: Half) -> Result<(), StoreError> {
        if half == Half::Whole {
            return Ok(self.folder.remove(name)?);
        }
        let owner = self.owner_auth()?;
        self.folder.change(name, |entry| {
            let Content::Pair(pair) = &entry.content else {
                return Err(StoreError::Gone);
            };
            if half == Half::Public {
                let hidden = Pair {
                    shown_public: None,
                    ..pair.clone()
                };
                return Ok(Some(Content::Pair(hidden)));
            }
            // First the handle: should the file go first, the key would be in a handle that nobody
            // lists.
            self.evict(pair, &owner)?;
            let shown = pair.shown_public.clone();
            Ok(shown.map(|shown| Content::Public(pair.public.clone(), shown)))
        })?;
        Ok(())
    }

    /// A key of what the TPM gave.
    fn usable(&self, wrapped: WrappedKey, access: Access) -> Result<Arc<Key>, StoreError> {
        let unknown = || TpmError::Unsupported("the TPM made a key of another kind".into());
        let area = PublicArea::parse(wrapped.area()).ok_or_else(unknown)?;
        let key = Key::wrapped(wrapped, area, None, self.abilities());
        Ok(Arc::new(key.opened_by(access)))
    }

    /// Takes a key out of its persistent handle.
    fn evict(&self, pair: &Pair, owner: &AuthValue) -> Result<(), StoreError> {
        let name = name_of(&pair.material.public);
        match (pair.handle, name) {
            (Some(handle), Some(name)) => Ok(self.tpm.evict(handle, &name, owner)?),
            _ => Ok(()),
        }
    }

    /// What the TPM can do; without asking it, all that any can.
    fn abilities(&self) -> Abilities {
        Abilities {
            hashes: self.tpm.known_hashes().unwrap_or(Hash::ALL.to_vec()),
            pss: self.tpm.signs_pss(),
        }
    }

    /// The first free handle of ours, after `last` if that turned out to be taken.
    fn free_handle(&self, last: Option<u32>) -> Result<u32, StoreError> {
        let taken = self.tpm.handles(PERSISTENT)?;
        let free = |handle: &u32| Some(*handle) > last && !taken.contains(handle);
        let none = || StoreError::NoRoom("all persistent handles of ours are taken".into());
        HANDLES.into_iter().find(free).ok_or_else(none)
    }

    fn rewrite(&self, name: &str, edit: impl FnOnce(&mut Pair)) -> Result<(), StoreError> {
        self.folder.change(name, |entry| match &entry.content {
            Content::Pair(pair) => {
                let mut pair = pair.clone();
                edit(&mut pair);
                Ok(Some(Content::Pair(pair)))
            }
            _ => Err(StoreError::Gone),
        })?;
        Ok(())
    }

    /// The user's PIN, if the configuration says where it is.
    pub fn configured_pin(&self) -> Option<Secret> {
        let source = self.pin.as_ref()?;
        let pin = source.read(&config::environment);
        pin.inspect_err(|error| warn!("[[token]] pin {source:?}: {error}"))
            .ok()
    }

    /// The authorisation value of the owner hierarchy.
    fn owner_auth(&self) -> Result<AuthValue, StoreError> {
        let Some(source) = &self.master.owner_auth else {
            return Ok(AuthValue::default());
        };
        let value = source.read(&config::environment).map(AuthValue::new);
        value.map_err(|error| {
            warn!("[master] owner_auth {source:?}: {error}");
            StoreError::Unsupported(format!("[master] owner_auth: {error}"))
        })
    }
}

/// The attributes of what is meant; `None` if it is not there.
fn described(content: &mut Content, half: Half) -> Option<&mut Description> {
    match (content, half) {
        (Content::Pair(pair), Half::Private) => Some(&mut pair.private),
        (Content::Pair(pair), Half::Public) => pair.shown_public.as_mut(),
        (Content::Public(_, description), Half::Whole)
        | (Content::Certificate(_, description), Half::Whole) => Some(description),
        (Content::Data(data), Half::Whole) => Some(&mut data.description),
        _ => None,
    }
}
