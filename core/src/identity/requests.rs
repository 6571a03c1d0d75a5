//! Certificate requests that keys of the device sign.

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
    /// Returns a certificate request (PKCS#10, DER). If the content has no subject, the identity
    /// `devid` gets the subject of the factory identity. The key of a service gets its label as
    /// subject. The PIN is tried only if the configuration names none. The TPM counts a wrong PIN.
    ///
    /// # Errors
    ///
    /// Fails if the entry has no private key, if the key does not sign, or if a name cannot be
    /// encoded.
    pub fn request(
        &self,
        entry: &TokenEntry,
        content: &RequestContent,
        pin: Option<&Secret>,
    ) -> Result<Vec<u8>, IdentityError> {
        refuse_secret_key(entry, "a secret key cannot have a certificate")?;
        let key = self.signing_key(entry, pin)?;
        let subject = self.subject_of(entry, content, key.public())?;
        Signer(&self.tpm, &key).request(&subject, content)
    }

    /// Returns the private key of an entry, after a login if needed. The entry may be a software
    /// identity.
    ///
    /// # Errors
    ///
    /// Fails if the entry has no private key, or if its file cannot be read.
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
                format!("{}: this device does not have the private key", entry.label),
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

    /// Returns the subject for a certificate request of a token entry.
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
