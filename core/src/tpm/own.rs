//! Keys that the device makes: a storage key of its own that wraps them, and their way into a
//! persistent handle and out of it.

use super::duplicate::duplicate;
use super::exchange::Manner;
use super::{
    Auth, AuthValue, Hash, Parent, PublicArea, SaltKey, Secret, Tpm, TpmError, Used, WrappedKey, template,
};
use crate::key::{Curve, PublicKey};

/// The storage root key (TCG, TPM 2.0 Provisioning Guidance, section 7.8).
const SRK: u32 = 0x8100_0001;

/// A key at a persistent handle that wraps others; its authorisation value is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageKey {
    handle: u32,
    name: Vec<u8>,
    public: PublicKey,
    hash: Hash,
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
    /// The TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
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
        let found = self.exchange("ReadPublic", Manner::READS, |link| {
            match link.read_public(handle) {
                Err(TpmError::Response(code)) if code.is_missing_handle() => Ok(None),
                other => other.map(Some),
            }
        })?;
        let Some((area, name)) = found else {
            return Ok(None);
        };
        let area = PublicArea::parse(&area).filter(PublicArea::is_storage_key);
        let area = area.ok_or_else(|| {
            TpmError::Unsupported(format!("handle 0x{handle:08X} holds no storage key"))
        })?;
        Ok(Some(StorageKey {
            handle,
            name,
            hash: area.name_hash,
            public: area.key,
        }))
    }

    /// Makes a storage key of random below the storage root key, and that if there is none; at this
    /// handle. Its wrapped form is stored nowhere: once evicted it is gone, and with it all that it
    /// wraps. Writes to the TPM.
    ///
    /// If another process makes one there at the same time, that is the one.
    pub fn make_storage_key(&self, handle: u32, owner: &AuthValue) -> Result<StorageKey, TpmError> {
        if self.storage_key(SRK)?.is_none() {
            self.make_root(owner)?;
        }
        let root = self.storage_key(SRK)?.ok_or_else(|| missing(SRK))?;
        let template = template::storage_root(false);
        let salt_key = self.salt_key_for(owner)?;
        let owner = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let writing = Manner::LOADS.writing();
        self.exchange("making the master key", writing, |link| {
            let (area, private) = link.create(root.used(), &[], &template)?;
            let (loaded, name) = link.load(root.used(), &area, &private)?;
            let kept = link.evict(owner, (loaded, &name), handle);
            link.flush(loaded)?;
            unless_taken(kept)
        })?;
        self.storage_key(handle)?.ok_or_else(|| missing(handle))
    }

    fn make_root(&self, owner: &AuthValue) -> Result<(), TpmError> {
        let salt_key = self.salt_key_for(owner)?;
        let owner = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let writing = Manner::LOADS.writing();
        self.exchange("making the storage root key", writing, |link| {
            let template = template::storage_root(false);
            let (root, _, name) = link.create_primary(owner, &template)?;
            let kept = link.evict(owner, (root, &name), SRK);
            link.flush(root)?;
            unless_taken(kept)
        })
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
        let salt_key = parent.salt_key_for(value);
        let used = Used {
            auth: match &salt_key {
                Some(key) => Auth::Value(&[], Some(key)),
                None => Auth::Empty,
            },
            ..parent.used()
        };
        // Twice is harmless: what a lost answer held is held nowhere else.
        let (area, private) = self.exchange("Create", Manner::READS, |link| {
            link.create(used, value, &template)
        })?;
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
        let private = self.exchange("Import", Manner::READS, |link| {
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
    pub fn persist(&self, key: &WrappedKey, handle: u32, owner: &AuthValue) -> Result<(), TpmError> {
        let salt_key = self.salt_key_for(owner)?;
        let owner = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let kept = self.exchange("EvictControl", Manner::LOADS.writing(), |link| {
            let loaded = key.load(link)?;
            let kept = link.evict(owner, (loaded, key.name()), handle);
            if !kept.as_ref().is_err_and(TpmError::is_transport_fault) {
                link.flush(loaded)?;
            }
            kept
        });
        match kept {
            Err(TpmError::Response(code)) if code.is_taken() => Err(TpmError::KeyReplaced(handle)),
            Err(error) if error.is_transport_fault() => match self.holds(handle, key.name())? {
                true => Ok(()),
                false => Err(error),
            },
            other => other,
        }
    }

    /// Whether the persistent handle holds the key of this name.
    pub fn holds(&self, handle: u32, name: &[u8]) -> Result<bool, TpmError> {
        self.exchange("ReadPublic", Manner::READS, |link| {
            match link.read_public(handle) {
                Ok((_, there)) => Ok(there == name),
                Err(TpmError::Response(code)) if code.is_missing_handle() => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Takes the key of this name away from a persistent handle, if it is there. Writes to the TPM.
    pub fn evict(&self, handle: u32, name: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        if !self.holds(handle, name)? {
            return Ok(());
        }
        let salt_key = self.salt_key_for(owner)?;
        let owner = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let gone = self.exchange("EvictControl", Manner::READS.writing(), |link| {
            link.evict(owner, (handle, name), handle)
        });
        match gone {
            Err(error) if error.is_transport_fault() && !self.holds(handle, name)? => Ok(()),
            other => other,
        }
    }
}

impl StorageKey {
    /// Itself as a salt key, for a new key whose authorisation value nobody else may read.
    fn salt_key_for(&self, value: &Secret) -> Option<SaltKey> {
        (!value.is_empty()).then(|| SaltKey {
            handle: self.handle,
            public: self.public.clone(),
            hash: self.hash,
        })
    }
}

fn missing(handle: u32) -> TpmError {
    TpmError::Unsupported(format!(
        "handle 0x{handle:08X} is empty although it was filled"
    ))
}

/// Another process may have put its own there first.
fn unless_taken(kept: Result<(), TpmError>) -> Result<(), TpmError> {
    match kept {
        Err(TpmError::Response(code)) if code.is_taken() => Ok(()),
        other => other,
    }
}
