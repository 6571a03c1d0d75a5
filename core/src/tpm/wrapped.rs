//! Keys in files, wrapped by a key of the TPM. They are loaded when needed.
//!
//! Behind a resource manager a key stays loaded in the space of its connection. A signature then
//! costs one command. Without a resource manager the key is loaded, used and flushed. A signature
//! then costs three commands, and no object stays in the TPM.

use super::connections::{Connection, LoadedKey, connection_for};
use super::exchange::{AuthSubject, Exchange};
use super::public::{counts_wrong_auth, is_storage_key};
use super::{
    Auth, AuthHandle, AuthValue, Link, Obstacle, Parent, Secret, StorageKey, Tpm, TpmError,
    Unloadable, flush, is_gone, name_of, template,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A key that a storage key wrapped and that a file stores.
#[derive(Debug)]
pub struct WrappedKey {
    parent: Parent,
    area: Vec<u8>,
    private: Vec<u8>,
    name: Vec<u8>,
    /// True if the empty authorisation value may be used for the parent without risk of lockout.
    parent_is_open: AtomicBool,
    /// The parent of a new key, until the parent has proven that it can load the key. Otherwise
    /// `None`.
    unproven_below: Mutex<Option<StorageKey>>,
    /// True if each authorisation value for the key is sent only once, even if the response is
    /// lost.
    sends_once: bool,
}

impl WrappedKey {
    /// Creates the value for a key. `area` is a TPMT_PUBLIC, `private` the content of a
    /// TPM2B_PRIVATE.
    pub fn new(parent: Parent, area: Vec<u8>, private: Vec<u8>) -> Self {
        Self {
            // Every TPM refuses a TPMT_PUBLIC whose name cannot be computed.
            name: name_of(&area).unwrap_or_default(),
            parent,
            area,
            private,
            parent_is_open: AtomicBool::new(true),
            unproven_below: Mutex::default(),
            sends_once: false,
        }
    }

    /// Creates the value for a key that was just made below this storage key. The first load of the
    /// key uses an auth session.
    pub(super) fn below(parent: &StorageKey, area: Vec<u8>, private: Vec<u8>) -> Self {
        Self {
            unproven_below: Mutex::new(Some(parent.clone())),
            ..Self::new(Parent::Persistent(parent.handle()), area, private)
        }
    }

    /// Returns the key, with a parent that is not known to this process. The public area of the
    /// parent is then checked before the empty value is used. A wrong value must not count towards
    /// lockout.
    #[must_use]
    pub fn below_stranger(self) -> Self {
        Self {
            parent_is_open: AtomicBool::new(false),
            ..self
        }
    }

    /// Returns the key, with an authorisation value that may be wrong, even if the value is empty.
    /// If the TPM counts wrong values for the key, a value is sent only once. An exchange is then
    /// not repeated after a lost answer.
    #[must_use]
    pub(crate) fn of_unknown_value(self) -> Self {
        Self {
            sends_once: counts_wrong_auth(&self.area),
            ..self
        }
    }

    /// Returns the TPMT_PUBLIC.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Returns the wrapped private part: the content of a TPM2B_PRIVATE.
    pub fn private(&self) -> &[u8] {
        &self.private
    }

    /// Returns the TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Returns the parent of the wrapped key.
    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    /// Loads the key. Returns a transient handle, which the caller must flush.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unloadable`] for all response codes that concern the key or its parent.
    pub(super) fn load(&self, link: &mut Link) -> Result<u32, TpmError> {
        if !self.parent_is_open.load(Ordering::Acquire) {
            self.parent.check(link)?;
        }
        let below = self.unproven_below.lock().clone();
        let loaded = match &self.parent {
            Parent::Persistent(parent) => {
                let salt_key = below.as_ref().map(StorageKey::salt_key);
                let used = match (&below, &salt_key) {
                    (Some(parent), Some(salt_key)) => parent.used(salt_key),
                    _ => AuthHandle::open(*parent, &[]),
                };
                link.load(used, &self.area, &self.private)
            }
            Parent::Owner { rsa } => {
                let root = template::storage_root(*rsa);
                let made = link.create_primary(AuthHandle::owner(Auth::Empty), &root);
                let (parent, _, _) = made.map_err(|error| self.parent.explained(error))?;
                let loaded = link.load(AuthHandle::open(parent, &[]), &self.area, &self.private);
                flush(link, parent, &loaded);
                loaded
            }
        };
        let (handle, name) = loaded.map_err(|error| self.parent.explained(error))?;
        self.parent_is_open.store(true, Ordering::Release);
        if name != self.name {
            flush(link, handle, &Ok(()));
            return Err(TpmError::WrongAnswer("the TPM loaded another key".into()));
        }
        *self.unproven_below.lock() = None;
        Ok(handle)
    }
}

impl Parent {
    /// Changes an error of TPM2_Load below this parent into [`TpmError::Unloadable`], if the error
    /// concerns the key or the parent.
    fn explained(&self, error: TpmError) -> TpmError {
        let TpmError::Response(code) = error else {
            return error;
        };
        match Obstacle::from_code(code) {
            Some(why) => self.refuses(why),
            None => error,
        }
    }

    fn refuses(&self, why: Obstacle) -> TpmError {
        TpmError::Unloadable(Unloadable {
            parent: self.clone(),
            why,
        })
    }

    /// Runs commands with the handle and the name of the parent. A parent without persistent handle
    /// is derived before and flushed afterwards.
    fn run<R>(
        &self,
        link: &mut Link,
        commands: impl FnOnce(&mut Link, (u32, &[u8])) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        match self {
            Self::Persistent(handle) => {
                let (_, name) = link
                    .read_public(*handle)
                    .map_err(|error| self.explained(error))?;
                commands(link, (*handle, &name))
            }
            Self::Owner { rsa } => {
                let root = template::storage_root(*rsa);
                let made = link.create_primary(AuthHandle::owner(Auth::Empty), &root);
                let (parent, _, name) = made.map_err(|error| self.explained(error))?;
                let answer = commands(link, (parent, &name));
                flush(link, parent, &answer);
                answer
            }
        }
    }

    /// Checks by the public area that the empty value can be used for this parent without counting
    /// towards lockout. Sends one command.
    fn check(&self, link: &mut Link) -> Result<(), TpmError> {
        let Self::Persistent(handle) = self else {
            return Ok(());
        };
        let (area, _) = link
            .read_public(*handle)
            .map_err(|error| self.explained(error))?;
        match () {
            () if !is_storage_key(&area) => Err(self.refuses(Obstacle::NoStorageKey)),
            () if counts_wrong_auth(&area) => Err(self.refuses(Obstacle::ParentCounts)),
            () => Ok(()),
        }
    }
}

impl Tpm {
    /// Checks that the TPM loads the key. Does not use the authorisation value of the key.
    pub(crate) fn check_loads(&self, key: &WrappedKey) -> Result<(), TpmError> {
        self.with_wrapped("Load", key, &AuthValue::default(), |_, _| Ok(()))
    }

    /// Returns the key with a new authorisation value. Only the parent of the key and this process
    /// know the new value. `key` itself, and every copy of it, keeps the old value. Below a
    /// persistent parent, the function sends six commands.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAuth`] if the old value is wrong. The TPM counts the wrong value, unless
    /// the key is noDA.
    pub(crate) fn with_new_value(
        &self,
        key: &WrappedKey,
        old: &AuthValue,
        new: &Secret,
    ) -> Result<WrappedKey, TpmError> {
        // The session encrypts the new value, even if the old value is empty.
        let old = old.clone().encrypting_response();
        self.register_flushable(&key.name);
        // The key is loaded for this command only. A connection that keeps keys loaded would later
        // find the key by its name, with the old value. If the TPM counts wrong values, the value
        // is sent only once, even if the answer is lost.
        let exchange = match counts_wrong_auth(&key.area) {
            true => key.exchange("ObjectChangeAuth", &old).writing(),
            false => key.exchange("ObjectChangeAuth", &old),
        };
        let private = self.with_transient(exchange, key, &old, |link, used| {
            key.parent.run(link, |link, parent| {
                link.object_change_auth(used, parent, new)
            })
        })?;
        let changed = WrappedKey::new(key.parent.clone(), key.area.clone(), private);
        let is_open = key.parent_is_open.load(Ordering::Acquire);
        changed.parent_is_open.store(is_open, Ordering::Release);
        Ok(changed)
    }

    /// Runs commands with a loaded wrapped key. `value` is the authorisation value of the key.
    ///
    /// The commands may run twice if the value is empty.
    pub(crate) fn with_wrapped<R>(
        &self,
        what: &str,
        key: &WrappedKey,
        value: &AuthValue,
        commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        self.register_flushable(&key.name);
        match self.tcti().is_managed() {
            true => self.with_connection(what, key, value, commands),
            false => self.with_transient(key.exchange(what, value), key, value, commands),
        }
    }

    fn with_transient<R>(
        &self,
        exchange: Exchange<'_>,
        key: &WrappedKey,
        value: &AuthValue,
        mut commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let salt_key = self.salt_key_for(value)?;
        let auth = Auth::by(value.as_bytes(), salt_key.as_ref());
        exchange.run(self, |link| {
            let mut handle = key.load(link)?;
            let mut answer = commands(link, AuthHandle::new(handle, &key.name, auth));
            // Without a resource manager another program may have flushed the loaded key.
            if is_gone(&answer) {
                handle = key.load(link)?;
                answer = commands(link, AuthHandle::new(handle, &key.name, auth));
            }
            flush(link, handle, &answer);
            answer
        })
    }

    fn with_connection<R>(
        &self,
        what: &str,
        key: &WrappedKey,
        value: &AuthValue,
        mut commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let salt_key = self.salt_key_for(value)?;
        let auth = Auth::by(value.as_bytes(), salt_key.as_ref());
        let exchange = key.exchange(what, value);
        let mut connections = self.wait_for(&self.connections)?;
        let Connection { link, loaded } =
            connection_for(&mut connections, &key.name, self.tcti().keys_in_a_space());
        let result = exchange.run_over(link, self, |link| {
            let faults = self.faults();
            loaded.retain(|one| one.faults == faults);
            let known = loaded.iter().find(|one| one.name == key.name);
            if let Some(handle) = known.map(|known| known.handle) {
                let answer = commands(link, AuthHandle::new(handle, &key.name, auth));
                if !is_gone(&answer) {
                    return answer;
                }
                loaded.retain(|one| one.name != key.name);
            }
            while loaded.len() >= self.tcti().keys_in_a_space() {
                flush(link, loaded.remove(0).handle, &Ok(()));
            }
            let handle = key.load(link)?;
            loaded.push(LoadedKey {
                name: key.name.clone(),
                handle,
                faults,
            });
            commands(link, AuthHandle::new(handle, &key.name, auth))
        });
        drop(connections);
        if let Err(TpmError::Lockout(_)) = result {
            exchange.tell_lockout(self);
        }
        result
    }
}

impl WrappedKey {
    /// Creates an exchange that loads the key and proves this authorisation value.
    fn exchange<'a>(&'a self, what: &'a str, value: &'a AuthValue) -> Exchange<'a> {
        let subject = AuthSubject::new(&self.name, "a wrapped key", value);
        let exchange = Exchange::authorised(what, subject, None).needing_object_slot();
        match self.sends_once {
            true => exchange.writing(),
            false => exchange,
        }
    }
}
