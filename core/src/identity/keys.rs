//! Creates and deletes the keys of services. Each service has its own key, and nothing connects
//! these keys.

use super::device::Device;
use super::entry::{FACTORY, OWN, TokenEntry};
use super::{IdentityError, IdentityErrorKind};
use crate::shell::argument;
use crate::store::devid::{DevidStore, KeyAlgorithm, KeyPurpose, OpenedBy};
use crate::store::folder::{KeyOrigin, ObjectAttributes, Usage, Use};
use crate::store::{Key, Protection};
use crate::tpm::{SignatureScheme, TpmError, handle};

/// Where a new key of the token `devid` is stored, and how it is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyStorage {
    /// The key is in a file, wrapped by the master key. The TPM loads the key for each use.
    #[default]
    Wrapped,
    /// The key is also in a persistent handle, so the TPM need not load it.
    Persistent,
    /// The key is in a file, encrypted under a key that the TPM sealed. The module decrypts the key
    /// and uses it in memory. This is fast, but an attack on the process can read the key.
    Sealed,
    /// The key is in a file, wrapped by the storage root key that every program derives. The value
    /// is the fixed signature scheme of the key.
    BelowRoot(SignatureScheme),
}

impl Device {
    /// Creates a key for a service. The name is a label in the token `devid`, or `token/label`, or
    /// a PKCS#11 URI.
    ///
    /// # Errors
    ///
    /// Fails if an object has the name already, or if the store fails.
    pub fn generate_key(
        &self,
        name: &str,
        algorithm: KeyAlgorithm,
        usage: KeyPurpose,
        storage: KeyStorage,
    ) -> Result<TokenEntry, IdentityError> {
        let (store, label) = self.place_of_new(name)?;
        let label = label.as_str();
        if label.is_empty() || label.chars().any(char::is_control) {
            return Err(IdentityError::new(
                IdentityErrorKind::Usage,
                "a label must be printable text, and must not be empty",
            ));
        }
        if label == OWN && store.name() == OWN {
            return Err(IdentityError::refused(format!(
                "{OWN} is the label of the device's own identity, which devid provision makes"
            )));
        }
        if label == FACTORY {
            return Err(IdentityError::refused(format!(
                "{FACTORY} is the label of the factory identity; choose another label"
            )));
        }
        self.refuse_second(store, label)?;
        self.unlock()?;
        self.unlock_store(store)?;
        let generated = |protection| store.generate(algorithm, usage, protection, OpenedBy::User);
        let key = match storage {
            KeyStorage::Wrapped | KeyStorage::Persistent => generated(Protection::Tpm)?,
            KeyStorage::Sealed => generated(Protection::Sealed)?,
            KeyStorage::BelowRoot(scheme) => store.generate_below_root(algorithm, scheme)?,
        };
        let described = |signs, decrypts| {
            let uses = [(usage.signs, signs), (usage.decrypts, decrypts)];
            let uses = uses.into_iter().filter(|(has, _)| *has).map(|(_, one)| one);
            ObjectAttributes {
                usage: Some(uses.collect::<Usage>()),
                ..ObjectAttributes::labelled(label)
            }
        };
        let (for_private, for_public) = match algorithm {
            KeyAlgorithm::Ec(_) => (Use::Derive, Use::Derive),
            KeyAlgorithm::Rsa(_) => (Use::Decrypt, Use::Encrypt),
        };
        let private = described(Use::Sign, for_private);
        let public = described(Use::Verify, for_public);
        let origin = KeyOrigin::Generated;
        // The lock for new keys. Without this lock another process could create a key with the same
        // label at the same time.
        let turn = self.tpm.lock_new_key();
        self.refuse_second(store, label)?;
        let name = store.keep(
            &key,
            origin,
            private,
            Some(public),
            storage == KeyStorage::Persistent,
        )?;
        drop(turn);
        self.tell_others();
        let mut all = self.entries_of(store)?.into_iter();
        all.find(|one| one.file == name).ok_or_else(|| {
            IdentityError::failed("the key was made, but another process deleted it")
        })
    }

    fn refuse_second(&self, store: &DevidStore, label: &str) -> Result<(), IdentityError> {
        store.check_readable()?;
        let entries = self.entries_of(store)?;
        match entries.iter().any(|one| one.label == label) {
            false => Ok(()),
            true => Err(IdentityError::refused(format!(
                "{label}: the token {0} already has an object with this label; choose another \
                 label, or delete the object with devid key delete {1}",
                store.name(),
                argument(&format!("{}/{label}", store.name()))
            ))),
        }
    }

    /// Deletes a key and its certificates. Also deletes CA certificates that no other certificate
    /// needs. Returns the names of the deleted files.
    ///
    /// # Errors
    ///
    /// Fails for the identity `devid` and for the factory identity.
    pub fn delete_key(&self, entry: &TokenEntry) -> Result<Vec<String>, IdentityError> {
        if entry.token == FACTORY {
            return Err(IdentityError::refused(format!(
                "{}: devid cannot delete the factory identity",
                entry.label
            )));
        }
        if entry.protected {
            return Err(IdentityError::refused(format!(
                "{}: this is the own identity of the device; only devid reset --factory removes it",
                entry.label
            )));
        }
        let store = self.store_of(entry).ok_or_else(|| {
            IdentityError::refused(format!(
                "{}: only devid reset --factory removes this object",
                entry.label
            ))
        })?;
        // A file that cannot be read may hold a certificate that needs the CA certificates.
        store.check_readable()?;
        let certificates = entry.certificates.iter();
        let going: Vec<_> = certificates.clone().map(|one| &one.certificate).collect();
        // The enrolment records are removed before the key. Otherwise, after an interruption, devid
        // would report the records of a deleted key for ever.
        self.forget_enrolments_of(&entry.token, &entry.label)?;
        let mut gone = self.drop_ca_certificates(store, &entry.label, &going)?;
        let key = Some(&entry.file).filter(|file| !file.is_empty());
        if let Some(file) = key {
            store.drop_successor(file)?;
            store.forget_predecessor(file)?;
        }
        for file in certificates.map(|one| &one.file).chain(key) {
            store.destroy_whole(file)?;
            gone.push(file.clone());
        }
        self.tell_others();
        Ok(gone)
    }

    /// Makes a key persistent, and returns the handle. Writes to the TPM, so the user must request
    /// it explicitly.
    ///
    /// | key | handle |
    /// |---|---|
    /// | of the factory | `wish`, by default 0x81020000 |
    /// | of a key folder | a handle for device keys |
    ///
    /// # Errors
    ///
    /// Fails if the key is in another handle already, if no template gives the key, or if the
    /// handle is in use.
    pub fn persist(&self, entry: &TokenEntry, wish: Option<u32>) -> Result<u32, IdentityError> {
        refuse_secret_key(
            entry,
            "it is used in memory, and only a key that the TPM itself uses can be in a persistent \
             handle",
        )?;
        let Some(key) = &entry.key else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{}: this TPM does not have the key", entry.label),
            ));
        };
        let store = self.store_of(entry);
        match (store, key.handle(), wish) {
            (Some(_), _, Some(_)) => Err(IdentityError::refused(format!(
                "{}: the file of this key names its handle, so --handle cannot be used; nothing \
                 was done. Run the command without --handle",
                entry.label
            ))),
            (Some(store), _, None) => Ok(store.persist_again(&entry.file)?),
            (None, Some(there), Some(wish)) if there != wish => {
                Err(IdentityError::refused(format!(
                    "{}: the key is already in handle 0x{there:08X}, so it was not put into \
                     another handle",
                    entry.label
                )))
            }
            (None, Some(there), _) => Ok(there),
            (None, None, wish) => self.persist_factory(key, wish.unwrap_or(handle::IDEVID_KEY)),
        }
    }

    fn persist_factory(&self, key: &Key, handle: u32) -> Result<u32, IdentityError> {
        key.prepare(&self.tpm)?;
        let derived = key
            .derived()
            .ok_or_else(|| IdentityError::failed("the TPM did not derive the key"))?;
        let owner = self.own.owner_auth()?;
        match self.tpm.persist_primary(derived, handle, &owner) {
            Err(TpmError::KeyReplaced(_)) => Err(IdentityError::refused(format!(
                "handle 0x{handle:08X} is in use; choose another handle with --handle"
            ))),
            other => {
                other?;
                self.tell_others();
                Ok(handle)
            }
        }
    }

    pub(super) fn own_entities(&self) -> Result<Vec<TokenEntry>, IdentityError> {
        self.entries_of(&self.own)
    }

    fn entries_of(&self, store: &DevidStore) -> Result<Vec<TokenEntry>, IdentityError> {
        let read = self.token_contents(store).map_err(|(_, fault)| fault)?;
        Ok(read.entries)
    }
}

pub(super) fn refuse_secret_key(entry: &TokenEntry, why: &str) -> Result<(), IdentityError> {
    match &entry.secret {
        Some(key) => Err(IdentityError::refused(format!(
            "{}: this is a secret key ({key}); {why}",
            entry.label
        ))),
        None => Ok(()),
    }
}
