//! Succession: a key with its certificate replaces another key under the same label. The exchange
//! can be reversed.

use super::ca_certificates::above;
use super::device::Device;
use super::entry::{FACTORY, TokenEntry};
use super::prove::{PossessionProof, prove};
use super::provision::certificate_attributes;
use super::{IdentityError, IdentityErrorKind, Imported};
use crate::shell::argument;
use crate::store::Key;
use crate::store::devid::{DevidStore, KeyAlgorithm, KeyPurpose};
use crate::store::folder::Use;
use crate::x509::Certificate;
use log::warn;
use std::sync::Arc;

impl Device {
    /// Returns the key that will replace an entry's key when it has a certificate. This is the
    /// waiting successor, or a new key. The new key has the given type, or else the type of the old
    /// key. Also returns true if the key is new.
    ///
    /// # Errors
    ///
    /// Fails if this tool must not replace the key, or if the store fails.
    pub fn rekey(
        &self,
        entry: &TokenEntry,
        algorithm: Option<KeyAlgorithm>,
    ) -> Result<(TokenEntry, bool), IdentityError> {
        let store = self.store_to_rekey(entry)?;
        self.settle(store, entry)?;
        if let Some(waits) = self.successor(entry)? {
            return Ok((waits, false));
        }
        let Some(key) = &entry.key else {
            return Err(no_key(entry));
        };
        self.unlock_for(entry)?;
        let same = KeyAlgorithm::of(key.public());
        let (uses, opened_by) = store.uses(&entry.file)?;
        let has = |one| uses.is_none_or(|uses| uses.has(one));
        let usage = KeyPurpose {
            signs: true,
            decrypts: uses.is_some() && (has(Use::Decrypt) || has(Use::Derive)),
        };
        let algorithm = algorithm.unwrap_or(same);
        let made = store.generate(algorithm, usage, key.protection(), opened_by)?;
        store.keep_successor(&entry.file, &made)?;
        let waits = self.successor(entry)?;
        let gone = || IdentityError::failed("the new key was made, but another process deleted it");
        waits.map(|waits| (waits, true)).ok_or_else(gone)
    }

    /// Completes a replacement of a key that a killed run began.
    pub(super) fn settle(
        &self,
        store: &DevidStore,
        entry: &TokenEntry,
    ) -> Result<(), IdentityError> {
        store.settle(&entry.file)?;
        self.drop_former_ca_certificates(store, entry)
    }

    /// Removes CA certificates that only the earlier certificate of an entry needs.
    pub(super) fn drop_former_ca_certificates(
        &self,
        store: &DevidStore,
        entry: &TokenEntry,
    ) -> Result<(), IdentityError> {
        let before = store.predecessor(&entry.file)?;
        if let Some(former) = before.and_then(|before| before.certificate)
            && entry
                .certificates
                .iter()
                .all(|one| one.certificate != former)
        {
            self.drop_ca_certificates(store, &entry.label, &[&former])?;
        }
        Ok(())
    }

    /// Returns the new key that waits to replace the key of a token entry, as an entry without
    /// certificates.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub fn successor(&self, entry: &TokenEntry) -> Result<Option<TokenEntry>, IdentityError> {
        let Some(store) = self.store_of(entry).filter(|_| !entry.file.is_empty()) else {
            return Ok(None);
        };
        let key = store.successor(&entry.file)?;
        Ok(key.map(|key| TokenEntry {
            id: key.public().id().as_bytes().to_vec(),
            public: Some(key.public().clone()),
            key: Some(key),
            certificates: Vec::new(),
            ..entry.clone()
        }))
    }

    /// Deletes the new key that waits to replace the key of a token entry.
    ///
    /// # Errors
    ///
    /// Fails if there is no successor, or if it cannot be removed.
    pub fn discard_successor(&self, entry: &TokenEntry) -> Result<(), IdentityError> {
        let store = self.store_to_rekey(entry)?;
        self.settle(store, entry)?;
        match store.successor(&entry.file)? {
            Some(_) => Ok(store.drop_successor(&entry.file)?),
            None => Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{}: no new key waits for a certificate", entry.label),
            )),
        }
    }

    /// Returns the waiting new key that the certificate is for, and the token entry whose key it
    /// will replace.
    pub(super) fn awaiting(
        &self,
        certificate: &Certificate,
    ) -> Result<Option<(TokenEntry, TokenEntry)>, IdentityError> {
        for store in self.open_stores() {
            match self.awaiting_in(store, certificate) {
                Ok(None) => {}
                // The user of a service can write this key folder. A damaged key folder must not
                // affect other tokens.
                Err(error) if store.is_service() => warn!("token {}: {error}", store.name()),
                found => return found,
            }
        }
        Ok(None)
    }

    fn awaiting_in(
        &self,
        store: &DevidStore,
        certificate: &Certificate,
    ) -> Result<Option<(TokenEntry, TokenEntry)>, IdentityError> {
        let waiting = store.succeeded()?;
        if waiting.is_empty() {
            return Ok(None);
        }
        let public = certificate.public_key();
        let read = self.token_contents(store).map_err(|(_, fault)| fault)?;
        for entry in read
            .entries
            .iter()
            .filter(|one| waiting.contains(&one.file))
        {
            if let Some(waits) = self.successor(entry)?.filter(|one| one.public == public) {
                return Ok(Some((entry.clone(), waits)));
            }
        }
        Ok(None)
    }

    /// Replaces the key of a token entry by its successor, with a certificate for the successor.
    pub(super) fn succeed(
        &self,
        owner: &TokenEntry,
        certificate: &Certificate,
        ca_certificates: &[Certificate],
    ) -> Result<Imported, IdentityError> {
        let store = self.store_to_rekey(owner)?;
        store.check_readable()?;
        let label = &owner.label;
        let (authorities, unrelated) =
            self.add_ca_certificates(store, label, certificate, ca_certificates)?;
        let olds: Vec<String> = owner
            .certificates
            .iter()
            .map(|one| one.file.clone())
            .collect();
        let about = certificate_attributes(label, !owner.protected);
        store.succeed(
            &owner.file,
            certificate,
            about,
            &olds,
            &self.above_of(owner),
        )?;
        let going: Vec<_> = owner
            .certificates
            .iter()
            .map(|one| &one.certificate)
            .collect();
        self.drop_ca_certificates(store, label, &going)?;
        let note = self.note_exchange(store, owner, certificate)?;
        Ok(Imported {
            label: label.clone(),
            replaced: going.iter().map(|old| old.subject()).collect(),
            authorities,
            unrelated,
            known: false,
            rekeyed: true,
            note,
        })
    }

    /// Restores the earlier certificate of an entry. If the last change replaced the key, restores
    /// the earlier key too. Keeps the current state, so that a second call reverses the first call.
    ///
    /// # Errors
    ///
    /// Fails if no earlier state is kept, or if it cannot be restored.
    pub fn roll_back(&self, entry: &TokenEntry) -> Result<Imported, IdentityError> {
        let store = self.store_to_rekey(entry)?;
        self.settle(store, entry)?;
        let nothing = || {
            IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{}: no earlier key or certificate is kept", entry.label),
            )
        };
        let before = store.predecessor(&entry.file)?.ok_or_else(nothing)?;
        let certificate = before.certificate.ok_or_else(nothing)?;
        let is_other = |key: &Arc<Key>| Some(key.public()) != entry.public.as_ref();
        let taken = match before.key.filter(is_other) {
            Some(key) => {
                self.check_former(entry, &key)?;
                store.recall(&entry.file)?;
                self.succeed(entry, &certificate, &before.ca_certificates)
            }
            None => self.take(store, entry, certificate, &before.ca_certificates),
        };
        self.tell_others();
        taken
    }

    /// Checks that the earlier key still signs. Its master key may be lost. Does not try a key that
    /// needs a PIN.
    fn check_former(&self, entry: &TokenEntry, key: &Key) -> Result<(), IdentityError> {
        if key.auth_salt().is_some() {
            return Ok(());
        }
        match prove(&self.tpm, key, key.public()) {
            PossessionProof::NoSignature(error) => Err(IdentityError::refused(format!(
                "{}: the earlier key cannot sign any more ({error}); the current key stays in use",
                entry.label
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the CA certificates in the tokens that are above the certificate of a token entry.
    pub(super) fn above_of(&self, entry: &TokenEntry) -> Vec<Certificate> {
        let Some(leaf) = entry.certificate() else {
            return Vec::new();
        };
        let known = self.known_ca_certificates();
        above(&[leaf], &known).into_iter().cloned().collect()
    }

    /// Updates the marker file and the certificate copy in NV memory after the key of the identity
    /// `devid` changed.
    fn note_exchange(
        &self,
        store: &DevidStore,
        owner: &TokenEntry,
        certificate: &Certificate,
    ) -> Result<Option<String>, IdentityError> {
        if !owner.protected {
            return Ok(None);
        }
        let read = self.token_contents(store).map_err(|(_, fault)| fault)?;
        let key = read.entries.iter().find(|one| one.file == owner.file);
        if let Some(key) = key.and_then(|one| one.key.as_ref()) {
            self.mark_key(key)?;
        }
        self.keep_copy(certificate)
    }

    fn store_to_rekey(&self, entry: &TokenEntry) -> Result<&DevidStore, IdentityError> {
        let refused = |why: &str| IdentityError::refused(format!("{}: {why}", entry.label));
        if entry.token == FACTORY {
            return Err(refused("the factory key cannot be replaced"));
        }
        if entry.software.is_some() {
            return Err(refused(
                "the software identity has one key in a file; only devid reset --factory makes \
                 another key",
            ));
        }
        match self
            .store_of(entry)
            .filter(|_| !entry.file.is_empty() && entry.key.is_some())
        {
            Some(store) => Ok(store),
            None => Err(no_key(entry)),
        }
    }
}

fn no_key(entry: &TokenEntry) -> IdentityError {
    IdentityError::new(
        IdentityErrorKind::NotFound,
        format!(
            "{}: this name has no private key; devid key generate {} makes one",
            entry.label,
            argument(&entry.label)
        ),
    )
}
