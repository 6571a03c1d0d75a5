//! Succession: another key, with its certificate, replaces a key. The successor waits in a hidden
//! subfolder. A single rename exchanges the pair. Another subfolder keeps the predecessor for one
//! generation.

use super::{DevidStore, OpenedBy, StoreError};
use crate::store::Key;
use crate::store::folder::{
    Entry, EntryContent, FolderError, KeyAuth, KeyFolder, KeyOrigin, KeyPair, ObjectAttributes,
    Usage, certificate_name, is_shown,
};
use crate::x509::Certificate;
use std::sync::Arc;

const NEXT: &str = ".next";
const PREVIOUS: &str = ".previous";

/// The key and certificate of a pair before its last renewal.
#[derive(Debug, Default)]
pub struct Predecessor {
    /// The earlier key, if the last change replaced the key.
    pub key: Option<Arc<Key>>,
    /// The earlier certificate.
    pub certificate: Option<Certificate>,
    /// The CA certificates above the earlier certificate.
    pub ca_certificates: Vec<Certificate>,
}

impl DevidStore {
    pub(super) fn next(&self) -> KeyFolder {
        self.folder.inside(NEXT)
    }

    pub(super) fn previous(&self) -> KeyFolder {
        self.folder.inside(PREVIOUS)
    }

    /// Returns the objects of the key folder that a token shows.
    pub(super) fn shown_entries(entries: &[Arc<Entry>]) -> Vec<Arc<Entry>> {
        let pair = |name: &str| {
            let at = entries
                .binary_search_by(|entry| entry.name.as_str().cmp(name))
                .ok()?;
            match &entries[at].content {
                EntryContent::Pair(pair) => Some(pair.public.clone()),
                _ => None,
            }
        };
        entries
            .iter()
            .filter(|entry| is_shown(entry, pair))
            .cloned()
            .collect()
    }

    /// Stores a key from [`generate`](Self::generate) as the successor of the pair with this name.
    /// The successor gets the attributes of that pair.
    ///
    /// # Errors
    ///
    /// Fails if the pair does not exist, or if the key cannot be stored.
    pub fn keep_successor(&self, name: &str, key: &Key) -> Result<(), StoreError> {
        let old = self.pair(name)?;
        let material = key.material();
        let material = material
            .ok_or_else(|| StoreError::Unsupported("the key cannot be stored in a file".into()))?;
        // URIs may name the pair by its CKA_ID, so the successor has the same CKA_ID.
        let id = Some(effective_id(&old));
        let named = |about: ObjectAttributes| ObjectAttributes {
            id: id.clone(),
            ..about
        };
        let pair = KeyPair {
            material,
            auth: key.auth(),
            public: key.public().clone(),
            handle: None,
            origin: KeyOrigin::Generated,
            private: named(old.private),
            shown_public: old.shown_public.map(named),
        };
        if pair.auth.salt().is_some() {
            self.check_login()?;
        }
        Ok(self.next().place(name, &EntryContent::Pair(pair))?)
    }

    /// Returns the new key that waits for its certificate before it replaces a pair, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub fn successor(&self, name: &str) -> Result<Option<Arc<Key>>, StoreError> {
        Ok(match self.content_in(&self.next(), name)? {
            Some(EntryContent::Pair(pair)) => Some(Arc::new(self.key_of(name, &pair))),
            _ => None,
        })
    }

    /// Returns the names of pairs that have a successor.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub fn succeeded(&self) -> Result<Vec<String>, StoreError> {
        let entries = self.next().list()?.whole()?.entries;
        Ok(entries.iter().map(|entry| entry.name.clone()).collect())
    }

    /// Removes a successor.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed.
    pub fn drop_successor(&self, name: &str) -> Result<(), StoreError> {
        gone_is_well(self.next().remove(name))
    }

    /// Returns the earlier key and certificate of a pair, if they are stored.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read.
    pub fn predecessor(&self, name: &str) -> Result<Option<Predecessor>, StoreError> {
        let mut found = Predecessor::default();
        for entry in self.generation(name)? {
            match &entry.content {
                EntryContent::Pair(pair) => {
                    found.key = Some(Arc::new(self.key_of(&entry.name, pair)));
                }
                EntryContent::Certificate(one, _) if one.is_ca() => {
                    found.ca_certificates.push(one.clone());
                }
                EntryContent::Certificate(one, _) => found.certificate = Some(one.clone()),
                _ => {}
            }
        }
        Ok(Some(found).filter(|found| found.certificate.is_some() || found.key.is_some()))
    }

    /// Stores the current certificate of a pair and the CA certificates in the subfolder of
    /// predecessors. With `with_key`, stores the key too, because the key will change.
    fn keep_generation(
        &self,
        name: &str,
        with_key: bool,
        ca_certificates: &[Certificate],
    ) -> Result<(), StoreError> {
        self.forget_predecessor(name)?;
        let entries = self.whole_listing()?.entries;
        let pair = self.pair(name)?;
        let shown = Self::shown_entries(&entries);
        let leaf = shown.iter().find(|entry| match &entry.content {
            EntryContent::Certificate(one, _) => one.public_key().as_ref() == Some(&pair.public),
            _ => false,
        });
        let previous = self.previous();
        if let Some(leaf) = leaf {
            previous.place(&certificate_name(name, &pair.public), &leaf.content)?;
            for (number, ca) in (1..).zip(ca_certificates) {
                let content = EntryContent::Certificate(
                    ca.clone(),
                    ObjectAttributes::labelled(format!("{}-ca-{number}", pair.private.label)),
                );
                previous.place(&format!("{name}.ca-{number}"), &content)?;
            }
        }
        if with_key {
            previous.place(name, &EntryContent::Pair(pair))?;
        }
        Ok(())
    }

    /// Stores a new certificate for the current key of a pair. The new certificate replaces the
    /// certificate in the file `old` atomically. The old certificate is kept for one generation.
    ///
    /// # Errors
    ///
    /// After an error the old certificate is still stored.
    pub fn renew_certificate(
        &self,
        name: &str,
        old: &str,
        certificate: &Certificate,
        about: ObjectAttributes,
        above_old: &[Certificate],
    ) -> Result<(), StoreError> {
        self.keep_generation(name, false, above_old)?;
        let id = self.pair(name)?.private.id;
        let about = ObjectAttributes { id, ..about };
        let renewed = EntryContent::Certificate(certificate.clone(), about);
        self.folder
            .change(old, |_| Ok::<_, StoreError>(Some(renewed)))?;
        Ok(())
    }

    /// Replaces a pair by its successor, together with the certificate. `olds` are the files of the
    /// old certificates.
    ///
    /// # Errors
    ///
    /// After an error either the old or the new pair is complete. [`settle`](Self::settle)
    /// completes the exchange.
    pub fn succeed(
        &self,
        name: &str,
        certificate: &Certificate,
        about: ObjectAttributes,
        olds: &[String],
        above_old: &[Certificate],
    ) -> Result<(), StoreError> {
        let pair = self.pair(name)?;
        let Some(EntryContent::Pair(next)) = self.content_in(&self.next(), name)? else {
            return Err(StoreError::Gone);
        };
        // After the renaming, each certificate is shown only while its key is shown.
        let bound = certificate_name(name, &pair.public);
        for (number, old) in olds.iter().enumerate() {
            let to = match number {
                0 => bound.clone(),
                _ => format!("{bound}-{}", number + 1),
            };
            if *old != to {
                self.folder.rename(old, &to)?;
            }
        }
        self.keep_generation(name, true, above_old)?;
        let content = EntryContent::Certificate(certificate.clone(), about);
        self.folder
            .place(&certificate_name(name, &next.public), &content)?;
        self.folder.take_from(&self.next(), name)?;
        self.settle(name)
    }

    /// Completes an exchange that a killed writer began. If the certificate of the successor is
    /// stored, the successor replaces the pair. The remaining files of the old key are removed.
    ///
    /// # Errors
    ///
    /// Fails if the exchange cannot be completed at present.
    pub fn settle(&self, name: &str) -> Result<(), StoreError> {
        if let Some(EntryContent::Pair(next)) = self.content_in(&self.next(), name)? {
            let waits = certificate_name(name, &next.public);
            let certified = self.content_in(&self.folder, &waits)?.is_some();
            if !certified {
                return Ok(());
            }
            self.keep_generation(name, true, &[])?;
            self.folder.take_from(&self.next(), name)?;
        }
        let pair = self.pair(name)?;
        let bound = certificate_name(name, &pair.public);
        let entries = self.whole_listing()?.entries;
        let shown = Self::shown_entries(&entries);
        for entry in &entries {
            let is_hidden = shown.iter().all(|one| one.name != entry.name);
            if is_hidden
                && entry.name.starts_with(&format!("{name}."))
                && !entry.name.starts_with(&bound)
            {
                gone_is_well(self.folder.remove(&entry.name))?;
            }
        }
        let previous = self.previous();
        if let Some(EntryContent::Pair(old)) = self.content_in(&previous, name)?
            && old.handle.is_some()
            && old.public != pair.public
        {
            if pair.handle.is_none() && pair.material.wrapped().is_some() {
                self.persist_again(name)?;
            }
            self.evict(&EntryContent::Pair(old.clone()))?;
            previous.place(
                name,
                &EntryContent::Pair(KeyPair {
                    handle: None,
                    ..old
                }),
            )?;
        }
        Ok(())
    }

    /// Stores the predecessor of a pair as its successor again.
    ///
    /// # Errors
    ///
    /// Fails if the pair has another successor already, or no predecessor.
    pub fn recall(&self, name: &str) -> Result<(), StoreError> {
        if self.successor(name)?.is_some() {
            return Err(StoreError::Unsupported(
                "another new key already waits for its certificate; devid key rekey --discard \
                 deletes it"
                    .into(),
            ));
        }
        match self.content_in(&self.previous(), name)? {
            Some(pair @ EntryContent::Pair(_)) => Ok(self.next().place(name, &pair)?),
            _ => Err(StoreError::Gone),
        }
    }

    /// Removes the predecessor of a pair, and evicts its key from its handle.
    ///
    /// # Errors
    ///
    /// Fails if the files cannot be removed.
    pub fn forget_predecessor(&self, name: &str) -> Result<(), StoreError> {
        let current = self.pair(name).ok();
        for entry in self.generation(name)? {
            if let EntryContent::Pair(old) = &entry.content
                && current
                    .as_ref()
                    .is_none_or(|pair| pair.public != old.public)
            {
                self.evict(&entry.content)?;
            }
            gone_is_well(self.previous().remove(&entry.name))?;
        }
        Ok(())
    }

    /// Destroys all new and all previous keys and certificates of renewals.
    pub(super) fn erase_successions(&self) -> Result<(), StoreError> {
        for folder in [self.next(), self.previous()] {
            for entry in &folder.list()?.entries {
                self.evict(&entry.content)?;
                gone_is_well(folder.remove(&entry.name))?;
            }
        }
        Ok(())
    }

    /// Returns all files of the previous key and certificate of a pair.
    fn generation(&self, name: &str) -> Result<Vec<Arc<Entry>>, StoreError> {
        let mut entries = self.previous().list()?.whole()?.entries;
        let of_pair = format!("{name}.");
        entries.retain(|entry| entry.name == name || entry.name.starts_with(&of_pair));
        Ok(entries)
    }

    fn pair(&self, name: &str) -> Result<KeyPair, StoreError> {
        match self.content_in(&self.folder, name)? {
            Some(EntryContent::Pair(pair)) => Ok(pair),
            _ => Err(StoreError::Gone),
        }
    }

    fn content_in(
        &self,
        folder: &KeyFolder,
        name: &str,
    ) -> Result<Option<EntryContent>, StoreError> {
        match folder.list()?.entry(name) {
            Ok(entry) => Ok(Some(entry.content.clone())),
            Err(FolderError::Gone(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the uses that the file of a pair permits, and the users of the pair. The uses are
    /// `None` if the file has no line about them.
    ///
    /// # Errors
    ///
    /// Fails if the pair does not exist.
    pub fn uses(&self, name: &str) -> Result<(Option<Usage>, OpenedBy), StoreError> {
        let pair = self.pair(name)?;
        let opened_by = match pair.auth {
            KeyAuth::Open => OpenedBy::Anybody,
            KeyAuth::Salt(_) | KeyAuth::Unsaid => OpenedBy::User,
        };
        Ok((pair.private.usage, opened_by))
    }
}

/// Returns the CKA_ID of a pair: the stored CKA_ID, else the identifier of the public key.
fn effective_id(pair: &KeyPair) -> Vec<u8> {
    let id = pair.private.id.clone();
    id.unwrap_or_else(|| pair.public.id().as_bytes().to_vec())
}

fn gone_is_well(removed: Result<(), FolderError>) -> Result<(), StoreError> {
    match removed {
        Ok(()) | Err(FolderError::Gone(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
