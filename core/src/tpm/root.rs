//! Trust in the storage root key (SRK). The administrator may trust certificates of endorsement
//! keys. The TPM must then prove by a certified endorsement key that it has this SRK. Otherwise the
//! first SRK that is used is trusted. The SRK is remembered in both cases. A different SRK later is
//! an error.

use super::endorsement::CERTIFICATES;
use super::exchange::Exchange;
use super::{
    Auth, AuthHandle, CLEARED_OR_EXCHANGED, PublicArea, SRK, SaltKey, SensitiveCreate, Tpm,
    TpmError, template,
};
use crate::key::{PublicKey, hex};
use log::{debug, info, warn};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The reason for the trust in a storage root key: the first byte of the file `.storage-root`.
const AT_FIRST_USE: u8 = 0;
const BY_CERTIFICATE: u8 = 1;

/// Verifies that a certificate belongs to the endorsement key of a genuine TPM.
pub trait EndorsementVerifier: fmt::Debug + Send + Sync {
    /// Returns the endorsement public key of a certificate. `certificate` is the content of an NV
    /// index.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the certificate is not trusted.
    fn key_of(&self, certificate: &[u8]) -> Result<PublicKey, String>;

    /// Returns the remedy for a TPM without a trusted certificate, as a sentence for error
    /// messages.
    fn instead(&self) -> String;
}

/// The reason why the file `.storage-root` gives no storage root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordError {
    /// The file `.storage-root`, which records the storage root key, is damaged.
    Damaged(String),
    /// The file `.storage-root` cannot be read now, or other users may write to the file. The
    /// content may be correct.
    Unread(String),
}

/// Remembers the storage root key between processes, in the file `.storage-root`.
pub trait StorageRootRecord: fmt::Debug + Send + Sync {
    /// Returns the path of the file `.storage-root`.
    fn path(&self) -> PathBuf;

    /// Returns the command that makes this project accept another storage root key, as a sentence.
    fn accepting(&self) -> String;

    /// Returns the content of the file `.storage-root`. Returns `None` if there is no file, or if
    /// this process may not read the file.
    ///
    /// # Errors
    ///
    /// Fails if the file is damaged or unreadable.
    fn recall(&self) -> Result<Option<Vec<u8>>, RecordError>;

    /// Returns the TPMT_PUBLIC of the master key, which wraps the keys of the device, if it is
    /// known.
    fn master(&self) -> Option<Vec<u8>>;

    /// Stores these bytes. Returns `false` if this process may not write, or if the folder does not
    /// exist yet.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the bytes cannot be written.
    fn keep(&self, content: &[u8]) -> Result<bool, String>;

    /// Removes the file `.storage-root`.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the file cannot be removed.
    fn forget(&self) -> Result<(), String>;
}

/// The facts about a TPM's storage root key that are known before the TPM is asked.
#[derive(Debug, Clone, Default)]
pub struct StorageRoot {
    record: Option<Arc<dyn StorageRootRecord>>,
    endorser: Option<Arc<dyn EndorsementVerifier>>,
}

/// The content of the file `.storage-root`.
#[derive(Debug, PartialEq, Eq)]
struct RootEntry {
    name: Vec<u8>,
    by_certificate: bool,
}

impl StorageRoot {
    /// Creates a `StorageRoot` that reads and writes the file `.storage-root` through `record`.
    pub fn remembered_by(record: Arc<dyn StorageRootRecord>) -> Self {
        Self {
            record: Some(record),
            endorser: None,
        }
    }

    /// Returns this `StorageRoot` with a verifier. With a verifier the TPM must show a certificate
    /// that the verifier accepts.
    #[must_use]
    pub fn endorsed_by(self, endorser: Option<Arc<dyn EndorsementVerifier>>) -> Self {
        Self { endorser, ..self }
    }

    fn accepting(&self) -> String {
        let record = self.record.as_ref();
        record.map(|record| record.accepting()).unwrap_or_default()
    }

    /// Returns the path of the file `.storage-root`. The path is empty if no file is configured.
    pub(crate) fn path(&self) -> PathBuf {
        let record = self.record.as_ref();
        record.map(|record| record.path()).unwrap_or_default()
    }

    fn remembered(&self) -> Result<Option<RootEntry>, TpmError> {
        let Some(record) = &self.record else {
            return Ok(None);
        };
        let unsure = |why: String| {
            let path = record.path();
            TpmError::Distrusted(format!(
                "{}: {why}: this file records the trusted storage root key, so no key is trusted \
                 now. {}",
                path.display(),
                record.accepting()
            ))
        };
        let content = record.recall().map_err(|why| match why {
            RecordError::Damaged(why) => unsure(why),
            RecordError::Unread(why) => TpmError::Unread(format!(
                "{}: {why}: this file records the trusted storage root key, and could not be \
                 read now, so no key is trusted now. The TPM may be correct. If the fault is \
                 permanent, repair the file, then try again",
                record.path().display()
            )),
        })?;
        let known = content.map(|content| RootEntry::parse(&content));
        known
            .map(|known| known.ok_or_else(|| unsure("damaged".into())))
            .transpose()
    }

    /// Checks that the file `.storage-root` contains no storage root key. The caller found no
    /// storage root key in the TPM.
    ///
    /// # Errors
    ///
    /// [`TpmError::Distrusted`] if the file contains a key.
    pub(super) fn check_none_remembered(&self) -> Result<(), TpmError> {
        match self.remembered()? {
            None => Ok(()),
            Some(known) => Err(TpmError::Distrusted(format!(
                "handle 0x{SRK:08X} is empty or contains no storage key, but {} records the \
                 storage root key that was in this handle ({}): the TPM {CLEARED_OR_EXCHANGED}, \
                 another \
                 program emptied the handle, or an attacker between this program and the TPM \
                 hides the key. No authorisation value was sent, and no key was made. {}",
                self.path().display(),
                hex(&known.name),
                self.accepting()
            ))),
        }
    }

    /// Returns true if a certificate is required and the remembered key was not proven by a
    /// certificate.
    pub(super) fn lacks_certificate(&self) -> bool {
        let by_certificate = |known: Option<RootEntry>| known.is_some_and(|one| one.by_certificate);
        self.endorser.is_some() && !self.remembered().is_ok_and(by_certificate)
    }

    /// Returns the TPMT_PUBLIC of the master key, if the key folder contains it.
    pub(super) fn master(&self) -> Option<Vec<u8>> {
        self.record.as_ref()?.master()
    }

    /// Writes the file `.storage-root`. A failure is only logged.
    fn remember(&self, remembered: &RootEntry) {
        let Some(record) = &self.record else {
            return;
        };
        let path = record.path();
        let (path, name) = (path.display(), hex(&remembered.name));
        match record.keep(&remembered.content()) {
            Ok(true) => info!("{path}: the storage root key {name} is remembered"),
            Ok(false) => debug!("{path}: the storage root key {name} is not remembered"),
            Err(why) => warn!("the storage root key {name} is not remembered: {why}"),
        }
    }

    /// Removes the file `.storage-root`. The storage root key that is used next becomes the trusted
    /// key.
    pub(crate) fn forget(&self) -> Result<(), String> {
        self.record
            .as_ref()
            .map_or(Ok(()), |record| record.forget())
    }
}

impl RootEntry {
    fn parse(content: &[u8]) -> Option<Self> {
        let (how, name) = content.split_first()?;
        let by_certificate = match *how {
            BY_CERTIFICATE => true,
            AT_FIRST_USE => false,
            _ => return None,
        };
        (!name.is_empty()).then(|| Self {
            name: name.to_vec(),
            by_certificate,
        })
    }

    fn content(&self) -> Vec<u8> {
        let how = match self.by_certificate {
            true => BY_CERTIFICATE,
            false => AT_FIRST_USE,
        };
        [&[how], &self.name[..]].concat()
    }
}

impl Tpm {
    /// Checks that the storage root key of this name may be trusted. The caller found this name in
    /// the handle of the storage root key.
    ///
    /// # Errors
    ///
    /// [`TpmError::Distrusted`] if another key is remembered, or if a required certificate is
    /// missing.
    pub(super) fn believe_root(&self, name: &[u8]) -> Result<(), TpmError> {
        let root = self.root();
        let remembered = root.remembered()?;
        if let Some(other) = remembered.as_ref().filter(|known| known.name != name) {
            let path = root.path();
            return Err(TpmError::Distrusted(format!(
                "handle 0x{SRK:08X} contains another storage root key (TPM name {}) than the key \
                 that {} records ({}): the TPM {CLEARED_OR_EXCHANGED}, another program put its \
                 key there, or an attacker between this program and the TPM shows his own key. No \
                 authorisation value was sent, and no key was made. {}",
                hex(name),
                path.display(),
                hex(&other.name),
                root.accepting()
            )));
        }
        let proven = remembered
            .as_ref()
            .is_some_and(|known| known.by_certificate);
        let by_certificate = match root.endorser {
            Some(_) if !proven => {
                self.prove_root(name)?;
                true
            }
            _ => proven,
        };
        let now = RootEntry {
            name: name.to_vec(),
            by_certificate,
        };
        if remembered.as_ref() != Some(&now) {
            root.remember(&now);
        }
        Ok(())
    }

    /// Returns the TPM name of the remembered storage root key.
    pub(super) fn remembered_root(&self) -> Result<Option<Vec<u8>>, TpmError> {
        let remembered = self.root().remembered()?;
        Ok(remembered.map(|known| known.name))
    }

    /// Returns the error for a TPM that derives another storage root key than the remembered key.
    pub(super) fn other_root_derived(&self, name: &[u8], other: &[u8]) -> TpmError {
        let root = self.root();
        TpmError::Distrusted(format!(
            "the storage root key that the TPM derives (TPM name {}) is not the key that {} \
             records ({}): the TPM {CLEARED_OR_EXCHANGED}, or an attacker between this program \
             and the TPM shows his own key. Nothing was made persistent in the TPM. {}",
            hex(name),
            root.path().display(),
            hex(other),
            root.accepting()
        ))
    }

    /// Returns true if a storage root key is remembered, and its handle is empty or contains
    /// another key.
    pub(crate) fn has_other_root(&self) -> Result<bool, TpmError> {
        let remembered = self.root().remembered()?;
        let there = self.name_at(SRK)?;
        Ok(remembered.is_some_and(|known| there.as_ref() != Some(&known.name)))
    }

    /// Proves by a certified endorsement key that the TPM of this endorsement key has this storage
    /// root key.
    fn prove_root(&self, name: &[u8]) -> Result<(), TpmError> {
        let Some(endorsement) = self.endorsement_key()? else {
            return Ok(());
        };
        match self.wraps_proven(SRK, name, &endorsement) {
            Ok(true) => Ok(()),
            Ok(false) | Err(TpmError::WrongAnswer(_)) => Err(TpmError::Distrusted(format!(
                "handle 0x{SRK:08X}: the TPM whose endorsement key is certified does not have \
                 this storage root key (TPM name {}): an attacker between this program and the \
                 TPM shows his own key. No authorisation value was sent, and no key was made. \
                 Check the connection to the TPM",
                hex(name)
            ))),
            Err(error) => Err(error),
        }
    }

    /// Returns the endorsement key of a trusted certificate. Returns `None` if no certificate is
    /// required.
    ///
    /// # Errors
    ///
    /// [`TpmError::Distrusted`] if the TPM has no trusted certificate.
    pub(super) fn endorsement_key(&self) -> Result<Option<SaltKey>, TpmError> {
        let Some(endorser) = &self.root().endorser else {
            return Ok(None);
        };
        let mut reasons = Vec::new();
        for (index, _) in CERTIFICATES {
            let mut no = |why: &str| reasons.push(format!("NV index 0x{index:08X}: {why}"));
            let about = match self.nv_public(index) {
                Err(TpmError::Response(code)) if code.is_missing_handle() => continue,
                Err(error) if is_answer(&error) => {
                    no(&error.to_string());
                    continue;
                }
                other => other?,
            };
            if !about.readable_by_own_auth() || about.counts_wrong_auth() {
                no("not every user may read this index");
                continue;
            }
            let content = match self.nv_read(index, about.size) {
                Err(error) if is_answer(&error) => {
                    no(&error.to_string());
                    continue;
                }
                other => other?,
            };
            let public = match endorser.key_of(&content) {
                Ok(public) => public,
                Err(why) => {
                    no(&why);
                    continue;
                }
            };
            match self.endorsement_key_of(&public, Some(index))? {
                Some(key) => return Ok(Some(key.salt_key().clone())),
                None => no("the TPM does not have the key of this certificate"),
            }
        }
        if reasons.is_empty() {
            reasons.push("no NV index contains the certificate of an endorsement key".into());
        }
        Err(TpmError::Distrusted(format!(
            "a TPM whose endorsement key is certified is required, and this TPM has none: {}. No \
             authorisation value was sent, and no key was made. {}",
            reasons.join("; "),
            endorser.instead()
        )))
    }

    /// Returns true if the handle contains a storage key of this name that this TPM made. As proof,
    /// the TPM seals a byte below the storage key, in a session that is salted to `salt_key`. Sends
    /// three commands.
    ///
    /// A public area alone proves nothing. TPM2_LoadExternal accepts any public area, and the HMAC
    /// covers the name, not the handle. An attacker on the bus could therefore show his own key.
    /// But only the TPM itself can load a key with fixedTPM including the private part.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAnswer`] if another TPM answered.
    pub(super) fn wraps_proven(
        &self,
        handle: u32,
        name: &[u8],
        salt_key: &SaltKey,
    ) -> Result<bool, TpmError> {
        let Some((area, _)) = self.public_at(handle)? else {
            return Ok(false);
        };
        let is_named = super::name_of(&area).is_some_and(|there| there == name);
        let is_bound = PublicArea::parse(&area)
            .is_some_and(|area| area.is_storage_key() && area.is_of_this_tpm());
        if !is_named || !is_bound {
            return Ok(false);
        }
        let used = AuthHandle::new(handle, name, Auth::Value(&[], Some(salt_key)));
        let secrets = SensitiveCreate {
            value: &[],
            data: &[0],
        };
        let template = template::sealed(false);
        let sealing = Exchange::new("Create").salted(Some(salt_key));
        match sealing.run(self, |link| link.create(used, secrets, &template)) {
            Ok(_) => Ok(true),
            Err(TpmError::Response(code)) if code.is_definite() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns true if the handle contains the object of this name. The HMAC of the response proves
    /// the name: only the TPM that has the private part of `salt_key` can compute the HMAC. The
    /// caller must know already that the TPM has the private part of the object. Sends three
    /// commands.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAnswer`] if another TPM answered.
    pub(super) fn holds_proven(
        &self,
        handle: u32,
        name: &[u8],
        salt_key: &SaltKey,
    ) -> Result<bool, TpmError> {
        if !self.holds(handle, name)? {
            return Ok(false);
        }
        let used = AuthHandle::new(handle, name, Auth::Value(&[], Some(salt_key)));
        let reading = Exchange::new("ReadPublic").salted(Some(salt_key));
        match reading.run(self, |link| link.read_public_proven(used)) {
            Ok(area) => Ok(super::name_of(&area).is_some_and(|there| there == name)),
            // The HMAC covers the name, so the handle is empty or contains another object.
            Err(TpmError::Response(code)) if code.is_missing_handle() || code.is_wrong_auth() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns true if the TPM returned a response code that concerns only this object. Other objects
/// may still be readable.
pub(super) fn is_answer(error: &TpmError) -> bool {
    matches!(
        error,
        TpmError::Response(_)
            | TpmError::NeedsAuth(_)
            | TpmError::Unsupported(_)
            | TpmError::Lockout(_)
    )
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
