//! Keys that the device makes: the storage key that wraps them, and persistent handles for them.

use super::exchange::Exchange;
use super::flush;
use super::import::duplicate;
use super::{
    Auth, AuthHandle, AuthValue, Hash, Link, PrimaryKey, PublicArea, SRK, SaltKey, Secret,
    SensitiveCreate, Tpm, TpmError, WrappedKey, name_of, template,
};
use crate::key::{Curve, PublicKey};

/// A TPMT_PUBLIC, and the TPM name of the object.
type AreaAndName = (Vec<u8>, Vec<u8>);

/// A loaded object that TPM2_EvictControl is to make persistent.
struct TransientObject {
    /// The transient handle of the object.
    handle: u32,
    /// The TPM name of the object.
    name: Vec<u8>,
    /// The TPMT_PUBLIC of the object, if the TPM2_EvictControl session is salted to the object
    /// itself.
    area: Option<Vec<u8>>,
}

/// A storage key in a persistent handle. The authorisation value of the key is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageKey {
    handle: u32,
    name: Vec<u8>,
    public: PublicKey,
    hash: Hash,
    area: Vec<u8>,
}

/// The algorithm and size of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// An EC key on this curve.
    Ec(Curve),
    /// An RSA key with a modulus of this number of bits, and the exponent 65537.
    Rsa(u32),
}

impl KeyAlgorithm {
    /// Returns the algorithm and size of a public key.
    pub fn of(public: &PublicKey) -> Self {
        match public {
            PublicKey::Ec { curve, .. } => Self::Ec(*curve),
            PublicKey::Rsa { .. } => Self::Rsa(public.bits()),
        }
    }
}

/// The permitted uses of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPurpose {
    /// True if the key may sign.
    pub signs: bool,
    /// RSA: true if the key may decrypt. EC: true if the key may agree on secrets (ECDH).
    pub decrypts: bool,
}

impl StorageKey {
    /// Returns the persistent handle.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Returns the TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Creates the value from a public area that was read from the handle, or that was remembered.
    ///
    /// Returns `None` if the public area is not that of a storage key.
    pub fn from_area(handle: u32, area: &[u8]) -> Option<Self> {
        let parsed = PublicArea::parse(area).filter(PublicArea::is_storage_key)?;
        Some(Self {
            handle,
            name: name_of(area)?,
            hash: parsed.name_hash,
            public: parsed.key,
            area: area.to_vec(),
        })
    }

    /// Returns true if the key has the template that [`Tpm::make_storage_key`] uses.
    pub fn has_our_template(&self) -> bool {
        template::is_storage_root(&self.area)
    }

    /// Returns the TPMT_PUBLIC.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Returns this storage key in the form for salted auth sessions.
    pub fn salt_key(&self) -> SaltKey {
        SaltKey::in_handle(self.handle, &self.public, self.hash, &self.name)
    }

    /// Returns the handle with its authorisation: an auth session that is salted to `salt_key`. The
    /// HMAC of the response then proves that the TPM of `salt_key` answered.
    pub(super) fn used<'a>(&'a self, salt_key: &'a SaltKey) -> AuthHandle<'a> {
        AuthHandle::new(self.handle, &self.name, Auth::Value(&[], Some(salt_key)))
    }
}

impl Tpm {
    /// Reads the storage key in a persistent handle. Returns `None` if the handle is empty.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if the handle contains another kind of object.
    pub fn storage_key(&self, handle: u32) -> Result<Option<StorageKey>, TpmError> {
        let Some((area, _)) = self.public_at(handle)? else {
            return Ok(None);
        };
        let none =
            || TpmError::Unsupported(format!("handle 0x{handle:08X} contains no storage key"));
        StorageKey::from_area(handle, &area)
            .map(Some)
            .ok_or_else(none)
    }

    /// Makes a random storage key below the storage root key, in this handle. Makes the storage
    /// root key if it is missing. The wrapped form is not stored. If the key is evicted, this key
    /// and all keys below it are lost. Writes to the TPM.
    ///
    /// If another process makes a key in this handle at the same time, that key is returned.
    pub fn make_storage_key(&self, handle: u32, owner: &AuthValue) -> Result<StorageKey, TpmError> {
        let root = self.believed_root(owner)?;
        let template = template::storage_root(false);
        let made = self.create_below(&root, SensitiveCreate::default(), &template)?;
        let owner = owner.clone().salted_to(root.salt_key());
        match self.persist(&made, handle, &owner) {
            Ok(()) => StorageKey::from_area(handle, made.area()).ok_or_else(|| missing(handle)),
            Err(TpmError::KeyReplaced(_)) => {
                let there = self.storage_key(handle)?.ok_or_else(|| missing(handle))?;
                if !there.has_our_template() || self.is_primary(&there)? {
                    return Err(TpmError::KeyReplaced(handle));
                }
                self.prove(&there)?;
                Ok(there)
            }
            Err(error) => Err(error),
        }
    }

    /// Creates a storage key without a handle: the first half of [`Tpm::make_storage_key`]. The
    /// caller must record the name of the key before [`Tpm::persist`]. The caller must not store
    /// the wrapped form.
    pub fn create_storage_key(&self, owner: &AuthValue) -> Result<WrappedKey, TpmError> {
        let root = self.believed_root(owner)?;
        self.create_below(
            &root,
            SensitiveCreate::default(),
            &template::storage_root(false),
        )
    }

    /// Proves that the TPM has this key in its handle now, and that no recorded answer was
    /// replayed. If a storage root key is trusted, the proof also shows that the same TPM has that
    /// storage root key.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unproven`] if the proof fails.
    pub fn prove(&self, key: &StorageKey) -> Result<(), TpmError> {
        match self.wraps_proven(key.handle, &key.name, &self.salt_key()?) {
            Ok(true) => Ok(()),
            Ok(false) | Err(TpmError::WrongAnswer(_)) => Err(TpmError::Unproven(format!(
                "handle 0x{:08X}: the TPM does not have the storage key that its answer showed \
                 for this handle: the answer was replayed, or came from an attacker. Nothing was \
                 made; try again, and check the connection to the TPM if the error repeats",
                key.handle
            ))),
            Err(error) => Err(error),
        }
    }

    /// Returns the trusted storage root key. Makes the key if it is missing.
    pub(super) fn believed_root(&self, owner: &AuthValue) -> Result<StorageKey, TpmError> {
        let root = match self.storage_key(SRK)? {
            Some(root) => root,
            None => self.make_root(owner)?,
        };
        self.believe_root(&root.name)?;
        Ok(root)
    }

    fn make_root(&self, owner: &AuthValue) -> Result<StorageKey, TpmError> {
        let template = template::storage_root(false);
        let salt_key = self.salt_key_for(owner)?;
        let hierarchy = AuthHandle::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let mut made = Vec::new();
        let what = "making the storage root key";
        let remembered = self.remembered_root()?;
        let kept = self.put_at(what, SRK, owner, salt_key.as_ref(), |link| {
            let (root, area, name) = link.create_primary(hierarchy, &template)?;
            if let Some(other) = remembered.as_ref().filter(|known| **known != name) {
                let distrusted = Err(self.other_root_derived(&name, other));
                flush(link, root, &distrusted);
                return distrusted;
            }
            made.clone_from(&area);
            Ok(TransientObject {
                handle: root,
                name,
                area: Some(area),
            })
        });
        // Search the key for salts again: the new storage root key is now that key.
        self.seek_salt_key();
        match kept {
            Ok(()) => StorageKey::from_area(SRK, &made).ok_or_else(|| missing(SRK)),
            // Another process made the handle persistent first. Both processes derived the same
            // key.
            Err(TpmError::KeyReplaced(_)) => self.storage_key(SRK)?.ok_or_else(|| missing(SRK)),
            Err(error) => Err(error),
        }
    }

    /// Makes the object from `load` persistent in a handle, and flushes the transient object. The
    /// HMAC of the response proves that the TPM with the salt key ran the command. Without
    /// `salt_key` the session is salted to the loaded key itself.
    ///
    /// # Errors
    ///
    /// [`TpmError::KeyReplaced`] if the handle is in use.
    fn put_at(
        &self,
        what: &str,
        handle: u32,
        owner: &AuthValue,
        salt_key: Option<&SaltKey>,
        mut load: impl FnMut(&mut Link) -> Result<TransientObject, TpmError>,
    ) -> Result<(), TpmError> {
        let unfit =
            || TpmError::Unsupported("the TPM made a key that cannot decrypt a salt".into());
        let mut put = None;
        let putting = Exchange::new(what).needing_object_slot().writing();
        let kept = by_owner(putting.run(self, |link| {
            let loaded = load(link)?;
            let own = loaded.salt_key(loaded.handle);
            let kept = match salt_key.or(own.as_ref()) {
                Some(salt_key) => {
                    let owner = AuthHandle::owner(Auth::Value(owner.as_bytes(), Some(salt_key)));
                    link.evict(owner, (loaded.handle, &loaded.name), handle)
                }
                None => Err(unfit()),
            };
            flush(link, loaded.handle, &kept);
            put = Some(loaded);
            kept
        }));
        match (kept, put) {
            (Err(TpmError::Response(code)), _) if code.is_taken() => {
                Err(TpmError::KeyReplaced(handle))
            }
            // The command may have run despite the error. The content of the handle decides.
            (Err(error), Some(loaded)) if !error.is_silence() => {
                let own = loaded.salt_key(handle);
                let salt_key = salt_key.or(own.as_ref()).ok_or_else(unfit)?;
                match self.holds_proven(handle, &loaded.name, salt_key) {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => Err(error),
                }
            }
            (kept, _) => kept,
        }
    }

    /// Makes a new key below a storage key. Sends two commands. The HMAC of the response proves
    /// that the TPM with the storage key made the new key.
    pub fn create_key(
        &self,
        parent: &StorageKey,
        value: &Secret,
        algorithm: KeyAlgorithm,
        usage: KeyPurpose,
    ) -> Result<WrappedKey, TpmError> {
        let template = template::device_key(algorithm, usage);
        let secrets = SensitiveCreate { value, data: &[] };
        self.create_below(parent, secrets, &template)
    }

    /// Seals data under this authorisation value. Sends two commands, in an auth session that
    /// encrypts the data. `counts`: true if a wrong value counts towards lockout.
    pub fn seal(
        &self,
        parent: &StorageKey,
        value: &Secret,
        data: &Secret,
        counts: bool,
    ) -> Result<WrappedKey, TpmError> {
        self.create_below(
            parent,
            SensitiveCreate { value, data },
            &template::sealed(counts),
        )
    }

    /// Unseals a result of [`Tpm::seal`]. The data are encrypted on the bus. Sends four commands,
    /// or three if the object stays loaded.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAuth`] for a wrong value. The TPM has then counted the wrong value.
    pub fn unseal(&self, sealed: &WrappedKey, value: &AuthValue) -> Result<Secret, TpmError> {
        let value = value.clone().encrypting_response();
        self.with_wrapped("Unseal", sealed, &value, |link, used| link.unseal(used))
    }

    pub(super) fn create_below(
        &self,
        parent: &StorageKey,
        secrets: SensitiveCreate,
        template: &[u8],
    ) -> Result<WrappedKey, TpmError> {
        let salt_key = parent.salt_key();
        let used = parent.used(&salt_key);
        // A repetition is harmless, because TPM2_Create leaves no object in the TPM.
        let (area, private) =
            Exchange::new("Create").run(self, |link| link.create(used, secrets, template))?;
        Ok(WrappedKey::below(parent, area, private))
    }

    /// Imports a key from outside the TPM, encrypted for the storage key. Sends two commands.
    ///
    /// `secret` is the scalar of an EC key, or one prime of an RSA modulus.
    pub fn import_key(
        &self,
        parent: &StorageKey,
        value: &Secret,
        public: &PublicKey,
        secret: &Secret,
        usage: KeyPurpose,
    ) -> Result<WrappedKey, TpmError> {
        let area = template::imported_key(public, usage);
        let (duplicate, seed) =
            duplicate(&parent.public, parent.hash, &area, public, value, secret)?;
        let salt_key = parent.salt_key();
        let used = parent.used(&salt_key);
        let private = Exchange::new("Import")
            .run(self, |link| link.import(used, &area, &duplicate, &seed))?;
        Ok(WrappedKey::below(parent, area, private))
    }

    /// Makes a wrapped key persistent in a handle. The wrapped key stays usable. Writes to the TPM,
    /// and sends four commands.
    ///
    /// # Errors
    ///
    /// [`TpmError::KeyReplaced`] if the handle is in use.
    pub fn persist(
        &self,
        key: &WrappedKey,
        handle: u32,
        owner: &AuthValue,
    ) -> Result<(), TpmError> {
        self.persist_loaded(handle, owner, |link| {
            TransientObject::of(key.load(link)?, key.name())
        })
    }

    /// Makes a primary key persistent in a handle, as [`Tpm::persist`] does for a wrapped key.
    pub fn persist_primary(
        &self,
        key: &PrimaryKey,
        handle: u32,
        owner: &AuthValue,
    ) -> Result<(), TpmError> {
        self.persist_loaded(handle, owner, |link| {
            TransientObject::of(key.load(link)?, key.name())
        })
    }

    fn persist_loaded(
        &self,
        handle: u32,
        owner: &AuthValue,
        load: impl FnMut(&mut Link) -> Result<TransientObject, TpmError>,
    ) -> Result<(), TpmError> {
        let salt_key = self.session_key(owner)?;
        self.put_at("EvictControl", handle, owner, Some(&salt_key), load)
    }

    /// Returns the TPM name of the object in a persistent handle. Returns `None` if the handle is
    /// empty.
    pub(crate) fn name_at(&self, handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
        Ok(self.public_at(handle)?.map(|(_, name)| name))
    }

    /// Returns true if the persistent handle contains the key with this TPM name.
    pub fn holds(&self, handle: u32, name: &[u8]) -> Result<bool, TpmError> {
        Ok(self.name_at(handle)?.is_some_and(|there| there == name))
    }

    /// Returns the TPMT_PUBLIC and the name of the object in a persistent handle. Returns `None` if
    /// the handle is empty.
    pub(super) fn public_at(&self, handle: u32) -> Result<Option<AreaAndName>, TpmError> {
        Exchange::new("ReadPublic").run(self, |link| match link.read_public(handle) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => Ok(None),
            other => other.map(Some),
        })
    }

    /// Removes the key of this name from a persistent handle. Does nothing if the handle is empty
    /// or contains another key. Writes to the TPM.
    pub fn evict(&self, handle: u32, name: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        if !self.holds(handle, name)? {
            return Ok(());
        }
        let salt_key = self.salt_key_for(owner)?;
        let owner = AuthHandle::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let gone = Exchange::new("EvictControl")
            .salted(salt_key.as_ref())
            .writing()
            .run(self, |link| link.evict(owner, (handle, name), handle));
        match by_owner(gone) {
            Err(error) if error.is_transport_fault() && !self.holds(handle, name)? => Ok(()),
            other => other,
        }
    }
}

impl TransientObject {
    fn of(handle: u32, name: &[u8]) -> Result<Self, TpmError> {
        Ok(Self {
            handle,
            name: name.to_vec(),
            area: None,
        })
    }

    /// Returns the object as a key for salts, as it will be in this handle.
    fn salt_key(&self, handle: u32) -> Option<SaltKey> {
        SaltKey::from_area(handle, self.area.as_deref()?)
    }
}

fn missing(handle: u32) -> TpmError {
    TpmError::Unsupported(format!(
        "handle 0x{handle:08X} is empty, although a key was put into it"
    ))
}

/// Changes a "wrong authorisation" error into [`TpmError::OwnerAuth`], because only the owner may
/// change persistent handles.
pub(super) fn by_owner<R>(result: Result<R, TpmError>) -> Result<R, TpmError> {
    result.map_err(|error| match error {
        TpmError::Response(code) if code.is_wrong_auth() => TpmError::OwnerAuth,
        other => other,
    })
}
