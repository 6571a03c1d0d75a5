//! Certificate requests, signed by keys of the device.

use super::device::Device;
use super::entry::{FACTORY, TokenEntry};
use super::key_file::read_key;
use super::keys::refuse_secret_key;
use super::prove::{PossessionProof, prove};
use super::signer::Signer;
use super::{IdentityError, IdentityErrorKind};
use crate::key::PublicKey;
use crate::store::{Key, SignError};
use crate::tpm::Secret;
use crate::x509::{RequestContent, Subject};
use std::sync::Arc;

impl Device {
    /// A request for a certificate (PKCS#10, DER). If the content has no subject, the device's own
    /// identity gets the factory's subject, and the key of a service gets its label. The PIN is
    /// tried only if the configuration has none; the TPM counts a wrong PIN.
    ///
    /// # Errors
    ///
    /// The entry has no private key, the key does not sign, or a name cannot be encoded.
    pub fn request(
        &self,
        entry: &TokenEntry,
        content: &RequestContent,
        pin: Option<&Secret>,
    ) -> Result<Vec<u8>, IdentityError> {
        refuse_secret_key(entry, "no certificate is for a secret key")?;
        let key = self.signing_key(entry, pin)?;
        let subject = self.subject_of(entry, content, key.public())?;
        Signer(&self.tpm, &key).request(&subject, content)
    }

    /// The private key of an entry, after a login if needed; also of a software identity.
    ///
    /// # Errors
    ///
    /// The entry has no private key, or its file cannot be read.
    pub(super) fn signing_key(
        &self,
        entry: &TokenEntry,
        pin: Option<&Secret>,
    ) -> Result<Arc<Key>, IdentityError> {
        if let Some(path) = &entry.software {
            let key = read_key(path).map_err(|unread| unread.fault(path))?;
            return Ok(Arc::new(key));
        }
        let Some(key) = &entry.key else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{}: this device has no key for it", entry.label),
            ));
        };
        self.unlock_for(entry)?;
        match (prove(&self.tpm, key, key.public()), pin) {
            (PossessionProof::NoSignature(SignError::NotLoggedIn), Some(pin)) => {
                self.logged_in(entry, key, pin)
            }
            _ => Ok(Arc::clone(key)),
        }
    }

    /// The subject of a request.
    fn subject_of(
        &self,
        entry: &TokenEntry,
        content: &RequestContent,
        public: &PublicKey,
    ) -> Result<Subject, IdentityError> {
        Ok(match content.subject() {
            Some(subject) => subject.clone(),
            None if entry.protected => self.own_subject(public)?,
            None if entry.token == FACTORY => match entry.certificate() {
                Some(certificate) => Subject::copied(certificate)?,
                None => Subject::of_key(public)?,
            },
            None => Subject::named(&entry.label)?,
        })
    }
}
