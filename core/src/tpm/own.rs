//! Keys that the device makes: a storage key of its own that wraps them, and their way into a
//! persistent handle and out of it.

use super::duplicate::duplicate;
use super::exchange::Exchange;
use super::wrapped::flush;
use super::{
    Auth, AuthValue, DerivedKey, Hash, Link, Parent, PublicArea, SaltKey, Secret, Secrets, Tpm,
    TpmError, Used, WrappedKey, name_of, template,
};
use crate::key::{Curve, PublicKey};

/// The storage root key (TCG, TPM 2.0 Provisioning Guidance, section 7.8).
pub const SRK: u32 = 0x8100_0001;

/// A TPMT_PUBLIC, and the name of the object that has it.
type AreaAndName = (Vec<u8>, Vec<u8>);

/// A key at a persistent handle that wraps others; its authorisation value is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageKey {
    handle: u32,
    name: Vec<u8>,
    public: PublicKey,
    hash: Hash,
    area: Vec<u8>,
}

/// What kind of key is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// On this curve.
    Ec(Curve),
    /// RSA with a modulus of so many bits, the exponent 65537.
    Rsa(u32),
}

/// What the TPM is to let a key do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// It signs.
    pub signs: bool,
    /// RSA: it decrypts. EC: it agrees on secrets.
    pub decrypts: bool,
}

impl StorageKey {
    /// Its persistent handle.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// The TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The key as found at a handle, or as it was remembered.
    ///
    /// `None` if it wraps no keys.
    pub fn of(handle: u32, area: &[u8]) -> Option<Self> {
        let parsed = PublicArea::parse(area).filter(PublicArea::is_storage_key)?;
        Some(Self {
            handle,
            name: name_of(area)?,
            hash: parsed.name_hash,
            public: parsed.key,
            area: area.to_vec(),
        })
    }

    /// Whether it looks as those that [`Tpm::make_storage_key`] makes.
    pub fn is_as_ours(&self) -> bool {
        template::is_storage_root(&self.area)
    }

    /// Its TPMT_PUBLIC.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Itself as the key that reads salts.
    pub fn salt_key(&self) -> SaltKey {
        SaltKey {
            handle: self.handle,
            public: self.public.clone(),
            hash: self.hash,
            name: self.name.clone(),
        }
    }

    fn used(&self) -> Used<'_> {
        Used::open(self.handle, &self.name)
    }
}

impl Tpm {
    /// The storage key at a persistent handle; `None` if nothing is there.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if what is there wraps no keys.
    pub fn storage_key(&self, handle: u32) -> Result<Option<StorageKey>, TpmError> {
        let Some((area, _)) = self.public_at(handle)? else {
            return Ok(None);
        };
        let none = || TpmError::Unsupported(format!("handle 0x{handle:08X} holds no storage key"));
        StorageKey::of(handle, &area).map(Some).ok_or_else(none)
    }

    /// Makes a storage key of random below the storage root key, and that if there is none; at this
    /// handle. Its wrapped form is stored nowhere: once evicted it is gone, and with it all that it
    /// wraps. Writes to the TPM.
    ///
    /// If another process makes one there at the same time, that is the one.
    pub fn make_storage_key(&self, handle: u32, owner: &AuthValue) -> Result<StorageKey, TpmError> {
        let root = self.root(owner)?;
        let template = template::storage_root(false);
        let made = self.put_at("making the master key", handle, owner, |link| {
            let (area, private) = link.create(root.used(), Secrets::default(), &template)?;
            link.load(root.used(), &area, &private)
        });
        unless_taken(made)?;
        self.storage_key(handle)?.ok_or_else(|| missing(handle))
    }

    /// The first half of [`Tpm::make_storage_key`]: a storage key that is in no handle yet, for
    /// whoever notes which one it is before [`Tpm::persist`]. Its wrapped form is for nothing else.
    pub fn create_storage_key(&self, owner: &AuthValue) -> Result<WrappedKey, TpmError> {
        let root = self.root(owner)?;
        self.create_below(&root, Secrets::default(), &template::storage_root(false))
    }

    /// The storage root key; made if there is none.
    fn root(&self, owner: &AuthValue) -> Result<StorageKey, TpmError> {
        if self.storage_key(SRK)?.is_none() {
            self.make_root(owner)?;
        }
        self.storage_key(SRK)?.ok_or_else(|| missing(SRK))
    }

    fn make_root(&self, owner: &AuthValue) -> Result<(), TpmError> {
        let template = template::storage_root(false);
        let salt_key = self.salt_key_for(owner)?;
        let hierarchy = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        unless_taken(
            self.put_at("making the storage root key", SRK, owner, |link| {
                let (root, _, name) = link.create_primary(hierarchy, &template)?;
                Ok((root, name))
            }),
        )
    }

    /// Puts what `load` gives, a transient handle and a name, at a persistent handle, and flushes it.
    fn put_at(
        &self,
        what: &str,
        handle: u32,
        owner: &AuthValue,
        mut load: impl FnMut(&mut Link) -> Result<(u32, Vec<u8>), TpmError>,
    ) -> Result<(), TpmError> {
        let salt_key = self.salt_key_for(owner)?;
        let owner = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let kept = Exchange::new(what).loading().writing().run(self, |link| {
            let (loaded, name) = load(link)?;
            let kept = link.evict(owner, (loaded, &name), handle);
            flush(link, loaded, &kept);
            kept
        });
        by_owner(kept)
    }

    /// A new key below a storage key. One command.
    pub fn create_key(
        &self,
        parent: &StorageKey,
        value: &Secret,
        algorithm: Algorithm,
        usage: KeyUsage,
    ) -> Result<WrappedKey, TpmError> {
        let template = template::own_key(algorithm, usage);
        let secrets = Secrets { value, data: &[] };
        self.create_below(parent, secrets, &template)
    }

    /// Seals data so that only this authorisation value opens them. One command, and one more for
    /// the auth session that hides them. `counts`: a wrong value counts towards lockout.
    pub fn seal(
        &self,
        parent: &StorageKey,
        value: &Secret,
        data: &Secret,
        counts: bool,
    ) -> Result<WrappedKey, TpmError> {
        self.create_below(parent, Secrets { value, data }, &template::sealed(counts))
    }

    /// Opens what [`Tpm::seal`] made, hidden from whoever listens on the bus. Four commands, or
    /// three where it stays loaded.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAuth`] for a wrong value, which was counted.
    pub fn unseal(&self, sealed: &WrappedKey, value: &AuthValue) -> Result<Secret, TpmError> {
        let value = value.clone().hiding_response();
        self.with_wrapped("Unseal", sealed, &value, |link, used| link.unseal(used))
    }

    fn create_below(
        &self,
        parent: &StorageKey,
        secrets: Secrets,
        template: &[u8],
    ) -> Result<WrappedKey, TpmError> {
        // Secrets go in an auth session, which encrypts them.
        let open = secrets.value.is_empty() && secrets.data.is_empty();
        let salt_key = parent.salt_key();
        let used = Used {
            auth: match open {
                true => Auth::Empty,
                false => Auth::Value(&[], Some(&salt_key)),
            },
            ..parent.used()
        };
        // Twice is harmless: what a lost answer held is held nowhere else.
        let (area, private) =
            Exchange::new("Create").run(self, |link| link.create(used, secrets, template))?;
        Ok(WrappedKey::new(
            Parent::Persistent(parent.handle),
            area,
            private,
        ))
    }

    /// A key from outside, encrypted for the storage key all the way. One command.
    ///
    /// `secret` is the scalar of an EC key, or one prime of an RSA key's modulus.
    pub fn import_key(
        &self,
        parent: &StorageKey,
        value: &Secret,
        public: &PublicKey,
        secret: &Secret,
        usage: KeyUsage,
    ) -> Result<WrappedKey, TpmError> {
        let area = template::imported_key(public, usage);
        let (duplicate, seed) =
            duplicate(&parent.public, parent.hash, &area, public, value, secret)?;
        let private = Exchange::new("Import").run(self, |link| {
            link.import(parent.used(), &area, &duplicate, &seed)
        })?;
        Ok(WrappedKey::new(
            Parent::Persistent(parent.handle),
            area,
            private,
        ))
    }

    /// Puts a wrapped key at a persistent handle too. Writes to the TPM; three commands.
    ///
    /// # Errors
    ///
    /// [`TpmError::KeyReplaced`] if something is there already.
    pub fn persist(
        &self,
        key: &WrappedKey,
        handle: u32,
        owner: &AuthValue,
    ) -> Result<(), TpmError> {
        self.persist_loaded(key.name(), handle, owner, |link| key.load(link))
    }

    /// The same of a derived key.
    pub fn persist_derived(
        &self,
        key: &DerivedKey,
        handle: u32,
        owner: &AuthValue,
    ) -> Result<(), TpmError> {
        self.persist_loaded(key.name(), handle, owner, |link| key.load(link))
    }

    fn persist_loaded(
        &self,
        name: &[u8],
        handle: u32,
        owner: &AuthValue,
        mut load: impl FnMut(&mut Link) -> Result<u32, TpmError>,
    ) -> Result<(), TpmError> {
        let load = |link: &mut Link| Ok((load(link)?, name.to_vec()));
        match self.put_at("EvictControl", handle, owner, load) {
            Err(TpmError::Response(code)) if code.is_taken() => Err(TpmError::KeyReplaced(handle)),
            // It may have run: what is there now decides.
            Err(error) if error.is_transport_fault() => match self.holds(handle, name)? {
                true => Ok(()),
                false => Err(error),
            },
            other => other,
        }
    }

    /// The name of what is at a persistent handle; `None` if nothing is.
    pub(crate) fn name_at(&self, handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
        Ok(self.public_at(handle)?.map(|(_, name)| name))
    }

    /// Whether the persistent handle holds the key of this name.
    pub fn holds(&self, handle: u32, name: &[u8]) -> Result<bool, TpmError> {
        Ok(self.name_at(handle)?.is_some_and(|there| there == name))
    }

    /// The TPMT_PUBLIC and the name of what is at a persistent handle; `None` if nothing is.
    fn public_at(&self, handle: u32) -> Result<Option<AreaAndName>, TpmError> {
        Exchange::new("ReadPublic").run(self, |link| match link.read_public(handle) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => Ok(None),
            other => other.map(Some),
        })
    }

    /// Takes the key of this name away from a persistent handle, if it is there. Writes to the TPM.
    pub fn evict(&self, handle: u32, name: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        if !self.holds(handle, name)? {
            return Ok(());
        }
        let salt_key = self.salt_key_for(owner)?;
        let owner = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let gone = Exchange::new("EvictControl")
            .writing()
            .run(self, |link| link.evict(owner, (handle, name), handle));
        match by_owner(gone) {
            Err(error) if error.is_transport_fault() && !self.holds(handle, name)? => Ok(()),
            other => other,
        }
    }
}

fn missing(handle: u32) -> TpmError {
    TpmError::Unsupported(format!(
        "handle 0x{handle:08X} is empty although it was filled"
    ))
}

/// Nobody but the owner of the TPM may fill or empty a persistent handle.
pub(super) fn by_owner<R>(result: Result<R, TpmError>) -> Result<R, TpmError> {
    result.map_err(|error| match error {
        TpmError::Response(code) if code.is_wrong_auth() => TpmError::OwnerAuth,
        other => other,
    })
}

/// Another process may have put its own there first.
fn unless_taken(kept: Result<(), TpmError>) -> Result<(), TpmError> {
    match kept {
        Err(TpmError::Response(code)) if code.is_taken() => Ok(()),
        other => other,
    }
}
