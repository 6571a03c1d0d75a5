//! Keys in addition to the device's own identity: one for each service, without any link between
//! them.

use super::device::Device;
use super::entry::{FACTORY, OWN, TokenEntry};
use super::{IdentityError, IdentityErrorKind};
use crate::shell::argument;
use crate::store::devid::{DevidStore, KeyAlgorithm, KeyPurpose, OpenedBy};
use crate::store::folder::{KeyOrigin, ObjectAttributes, Usage, Use};
use crate::store::{Key, Protection};
use crate::tpm::{SignatureScheme, TpmError, handle};

/// The storage of a key of the token `devid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyStorage {
    /// In a file, wrapped by the master key. The TPM loads it for each use.
    #[default]
    Wrapped,
    /// Also in a persistent handle, so the TPM need not load it.
    Persistent,
    /// In a file, encrypted under a key that the TPM sealed, and used in memory. Fast, but exposed
    /// to attacks on the process.
    Sealed,
    /// In a file, wrapped by the storage root key that every program derives; it has this fixed
    /// scheme.
    BelowRoot(SignatureScheme),
}

impl Device {
    /// Makes a key for a service. The name is a label in the token `devid`; `token/label` and
    /// PKCS#11 URIs can name other tokens.
    ///
    /// # Errors
    ///
    /// The name is in use, or the store fails.
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
                "a label is printable text",
            ));
        }
        if label == OWN && store.name() == OWN {
            return Err(IdentityError::refused(format!(
                "{OWN} is the label of the device's own identity, which devid provision makes"
            )));
        }
        if label == FACTORY {
            return Err(IdentityError::refused(format!(
                "{FACTORY} is the label of the factory's identity; choose another label"
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
        // Another process may be about to store a key of that label.
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
        all.find(|one| one.file == name)
            .ok_or_else(|| IdentityError::failed("the key was made, and is gone"))
    }

    fn refuse_second(&self, store: &DevidStore, label: &str) -> Result<(), IdentityError> {
        store.check_readable()?;
        let entries = self.entries_of(store)?;
        match entries.iter().any(|one| one.label == label) {
            false => Ok(()),
            true => Err(IdentityError::refused(format!(
                "{label}: the token {0} already has an object with this label; choose another \
                 label, or run devid key delete {1}",
                store.name(),
                argument(&format!("{}/{label}", store.name()))
            ))),
        }
    }

    /// Deletes a key with its certificates, and CA certificates that no other certificate needs.
    /// Returns the file names.
    ///
    /// # Errors
    ///
    /// The key is the device's own or the factory's.
    pub fn delete_key(&self, entry: &TokenEntry) -> Result<Vec<String>, IdentityError> {
        if entry.token == FACTORY {
            return Err(IdentityError::refused(format!(
                "{}: devid cannot delete the factory's identity",
                entry.label
            )));
        }
        if entry.protected {
            return Err(IdentityError::refused(format!(
                "{}: this is the device's own identity; only devid reset --factory removes it",
                entry.label
            )));
        }
        let store = self.store_of(entry).ok_or_else(|| {
            IdentityError::refused(format!(
                "{}: only devid reset --factory removes it",
                entry.label
            ))
        })?;
        // An unreadable certificate may need the CA certificates.
        store.check_readable()?;
        let certificates = entry.certificates.iter();
        let going: Vec<_> = certificates.clone().map(|one| &one.certificate).collect();
        // Before the key: what is remembered of a key that is gone would be told for ever.
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

    /// Makes a key persistent. A factory key goes to the handle `wish`, by default 0x81020000; one
    /// of our keys goes to one of our handles. Returns the handle. Writes to the TPM, so only at
    /// explicit request.
    ///
    /// # Errors
    ///
    /// The key is in another handle already, no template gives the key, or the handle is in use.
    pub fn persist(&self, entry: &TokenEntry, wish: Option<u32>) -> Result<u32, IdentityError> {
        refuse_secret_key(
            entry,
            "it is used in memory, and only a key that the TPM itself uses can be in a handle",
        )?;
        let Some(key) = &entry.key else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{}: this TPM has no key for it", entry.label),
            ));
        };
        let store = self.store_of(entry);
        match (store, key.handle(), wish) {
            (Some(_), _, Some(_)) => Err(IdentityError::refused(format!(
                "{}: the file of a token's key names its handle; nothing was done. Omit --handle",
                entry.label
            ))),
            (Some(store), _, None) => Ok(store.persist_again(&entry.file)?),
            (None, Some(there), Some(wish)) if there != wish => {
                Err(IdentityError::refused(format!(
                    "{}: it is in handle 0x{there:08X} already, so it was not put into another one",
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
            .ok_or_else(|| IdentityError::failed("the key was not derived"))?;
        let owner = self.own.owner_auth()?;
        match self.tpm.persist_primary(derived, handle, &owner) {
            Err(TpmError::KeyReplaced(_)) => Err(IdentityError::refused(format!(
                "handle 0x{handle:08X} is in use; choose another one with --handle"
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
