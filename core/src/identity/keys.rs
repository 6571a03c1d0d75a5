//! Keys beside the device's own identity: one for each service, and nothing that links them.

use super::device::Device;
use super::entry::{FACTORY, OWN, TokenEntry};
use super::{IdentityError, IdentityErrorKind};
use crate::shell::argument;
use crate::store::devid::{DevidStore, KeyAlgorithm, KeyPurpose, OpenedBy};
use crate::store::folder::{KeyOrigin, ObjectAttributes, Usage, Use};
use crate::store::{Key, Protection};
use crate::tpm::{SignatureScheme, TpmError, handle};

/// How a key of the token `devid` is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyStorage {
    /// On disk, wrapped by the master key: the TPM loads it for each use.
    #[default]
    Wrapped,
    /// In a persistent handle, too: the TPM has it at hand.
    Persistent,
    /// On disk, encrypted under what the TPM sealed, and used in memory: fast, and as safe as the
    /// process.
    Sealed,
    /// On disk, wrapped by the storage root key that every program derives; it signs by this scheme alone.
    BelowRoot(SignatureScheme),
}

impl Device {
    /// Makes a key for a service. Its name is a label of the token `devid`; `token/label` and PKCS#11
    /// URIs name further tokens, too.
    ///
    /// # Errors
    ///
    /// Something is called so already; or those of the store.
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
                "{OWN} is what the device's own identity is called: devid provision makes that"
            )));
        }
        if label == FACTORY {
            return Err(IdentityError::refused(format!(
                "{FACTORY} is what the factory's identity is called; take another label"
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
        // Another process may be about to keep one of that label.
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
                "{label}: there is such an object already in the token {0}; take another label, or \
                 devid key delete {1}",
                store.name(),
                argument(&format!("{}/{label}", store.name()))
            ))),
        }
    }

    /// Deletes a key with its certificates, and those of their CAs that no other certificate needs;
    /// gives the files' names.
    ///
    /// # Errors
    ///
    /// It is the device's own, or the factory's.
    pub fn delete_key(&self, entry: &TokenEntry) -> Result<Vec<String>, IdentityError> {
        if entry.token == FACTORY {
            return Err(IdentityError::refused(format!(
                "{}: the factory's identity is not ours to delete",
                entry.label
            )));
        }
        if entry.protected {
            return Err(IdentityError::refused(format!(
                "{}: this is the device's own identity; only devid reset --factory gives it up",
                entry.label
            )));
        }
        let store = self.store_of(entry).ok_or_else(|| {
            IdentityError::refused(format!(
                "{}: only devid reset --factory gives it up",
                entry.label
            ))
        })?;
        // A certificate that is hidden now may need those of the CAs that go.
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

    /// Puts a key that is in no persistent handle into one: a factory's where the wish says, else at
    /// 0x81020000; one of ours into one of ours. Gives the handle. Writes to the TPM, so only by
    /// explicit wish.
    ///
    /// # Errors
    ///
    /// It is in another handle than the wish says already, no template gives the key, or something
    /// else is at the handle.
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
                "{}: keys of a token go into a handle that their file names; nothing was done. \
                 Leave --handle away",
                entry.label
            ))),
            (Some(store), _, None) => Ok(store.persist_again(&entry.file)?),
            (None, Some(there), Some(wish)) if there != wish => {
                Err(IdentityError::refused(format!(
                    "{}: it is in handle 0x{there:08X} already, and not put into another one",
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
                "handle 0x{handle:08X} is taken; give another with --handle"
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
