//! An identity that another program made (`[provision] existing`), for example a cloud provider on
//! its virtual TPM. The device uses this identity under two conditions: the key signs, and the
//! certificate leads to a trusted certificate.
//!
//! The factory identity is no existing identity in this sense. It always stays beside the identity
//! `devid`.

use super::IdentityError;
use super::device::Device;
use super::entry::{CertificateEntry, EXISTING, FACTORY, SOFTWARE, TokenEntry};
use super::key_file::{KeyFileError, read_key};
use super::prove::{NOT_TRIED, PossessionProof, prove};
use super::state::ExistingState;
use super::trusted_files::{check_trusted, read_certificates};
use crate::config;
use crate::store::folder::KeyOrigin;
use crate::store::{Key, Protection};
use crate::trouble::is_there;
use crate::uri::Uri;
use crate::x509::Certificate;
use crate::x509::checks::first_failure;
use crate::x509::clock::now;
use crate::x509::path::PathResult;
use std::fmt;
use std::path::Path;

/// The result of the search for the identity that `[provision] existing` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExistingIdentity {
    pub(super) state: ExistingState,
    pub(super) text: String,
    /// True if the key of the identity is in the TPM.
    pub(super) in_tpm: bool,
}

impl Device {
    /// Searches the identity that `[provision] existing` names, if any.
    pub(super) fn existing(&self) -> ExistingIdentity {
        let found = match &self.config.provision.existing {
            None => Ok(None),
            Some(config::ExistingSource::Uri(uri)) => self.by_uri(uri),
            Some(config::ExistingSource::Files { certificate, key }) => {
                self.by_files(certificate, key)
            }
        };
        match found {
            Ok(None) => ExistingIdentity {
                state: ExistingState::None,
                text: "none".into(),
                in_tpm: false,
            },
            Ok(Some((text, in_tpm))) => ExistingIdentity {
                state: ExistingState::Usable,
                text,
                in_tpm,
            },
            Err(text) => ExistingIdentity {
                state: ExistingState::Unusable,
                text,
                in_tpm: false,
            },
        }
    }

    fn by_uri(&self, uri: &str) -> Result<Option<(String, bool)>, String> {
        let wanted = parsed(uri)?;
        let mut tokens = Vec::new();
        for store in self.stores() {
            // The security officer may have changed the label of the token.
            let label = store.label().map_err(|error| format!("{uri}: {error}"))?;
            if wanted.matches_token(&[store.name(), &label]) {
                tokens.push(store);
            }
        }
        if tokens.is_empty() {
            return Err(format!(
                "{uri}: no token has this name; the configured tokens are {}",
                self.tokens().join(", ")
            ));
        }
        let (mut found, mut error) = (None, None);
        for store in tokens {
            match self.token_contents(store) {
                Ok(read) => {
                    let mut entries = read.entries.into_iter();
                    let entry = entries.find(|one| {
                        wanted.matches_serial(&read.serial)
                            && wanted.matches_object(&one.label, &one.id)
                    });
                    found = found.or(entry.map(|entry| (store, entry)));
                    error = error.or(read.unread.map(|fault| fault.text));
                }
                Err((_, fault)) => error = error.or(Some(fault.text)),
            }
        }
        let (store, entry) = match (found, error) {
            (Some(found), _) => found,
            // The identity may be in the token that could not be read.
            (None, Some(why)) => return Err(why),
            (None, None) => return Ok(None),
        };
        self.unlock_store(store)
            .map_err(|fault| format!("{uri}: {fault}"))?;
        let Some(key) = &entry.key else {
            return Err(format!("{uri}: the object is a certificate without key"));
        };
        let Some(certificate) = entry.certificate() else {
            return Err(format!("{uri}: the key has no certificate"));
        };
        self.signs(key, &uri)?;
        self.leads_to_trust(certificate, &[], uri)?;
        let in_tpm = key.protection() == Protection::Tpm;
        Ok(Some((format!("{uri}: {}", certificate.subject()), in_tpm)))
    }

    fn by_files(&self, certificate: &Path, key: &Path) -> Result<Option<(String, bool)>, String> {
        // If a path cannot be checked, its file may exist.
        let there =
            |path: &Path| is_there(path).map_err(|error| format!("{}: {error}", path.display()));
        match (there(certificate)?, there(key)?) {
            (false, false) => return Ok(None),
            (true, true) => {}
            (there, _) => {
                let (one, other) = match there {
                    true => (certificate, key),
                    false => (key, certificate),
                };
                return Err(format!(
                    "{} exists, but {} does not",
                    one.display(),
                    other.display()
                ));
            }
        }
        for file in [certificate, key] {
            check_trusted(file).map_err(|fault| fault.text)?;
        }
        let place = certificate.display().to_string();
        let certificates = read_certificates(certificate).map_err(|fault| fault.text)?;
        let (leaf, others) = certificates.split_first().ok_or("no certificate")?;
        let private = read_key(key).map_err(|error| self.no_key_for_memory(key, &error))?;
        match leaf.public_key() {
            Some(public) if public == *private.public() => {}
            _ => {
                return Err(format!(
                    "{place}: the certificate does not belong to the key"
                ));
            }
        }
        self.signs(&private, &key.display())?;
        self.leads_to_trust(leaf, others, &place)?;
        Ok(Some((format!("{place}: {}", leaf.subject()), false)))
    }

    fn signs(&self, key: &Key, place: &dyn fmt::Display) -> Result<(), String> {
        match prove(&self.tpm, key, key.public()) {
            PossessionProof::Proven => Ok(()),
            PossessionProof::OtherKey => Err(format!("{place}: another key made the signature")),
            PossessionProof::NotTried => Err(format!("{place}: {NOT_TRIED}")),
            PossessionProof::NoSignature(error) => {
                Err(format!("{place}: the key cannot sign: {error}"))
            }
        }
    }

    fn no_key_for_memory(&self, path: &Path, error: &KeyFileError) -> String {
        let why = error.at(path);
        match error {
            KeyFileError::File(_) => why,
            KeyFileError::NoKey(_) => format!(
                "{why}; put a key that the TPM wrapped into {}, and name it with a PKCS#11 URI",
                self.folder().display()
            ),
        }
    }

    /// Returns the identity that `[provision] existing` names by files, if its certificate exists.
    pub(super) fn existing_entity(&self) -> Result<Option<TokenEntry>, IdentityError> {
        let Some(config::ExistingSource::Files { certificate, key }) =
            &self.config.provision.existing
        else {
            return Ok(None);
        };
        let there = |path: &Path| is_there(path).map_err(IdentityError::file(path));
        if !there(certificate)? {
            return Ok(None);
        }
        let all = read_certificates(certificate)?;
        let leaf = all
            .first()
            .ok_or_else(|| IdentityError::failed("no certificate"))?;
        Ok(Some(TokenEntry {
            token: SOFTWARE.into(),
            token_label: SOFTWARE.into(),
            label: EXISTING.into(),
            file: String::new(),
            id: leaf.key_id().as_bytes().to_vec(),
            key: None,
            secret: None,
            software: there(key)?.then(|| key.clone()),
            public: leaf.public_key(),
            origin: KeyOrigin::Unknown,
            certificates: all
                .into_iter()
                .map(|one| placed(one, certificate))
                .collect(),
            attests: false,
            protected: true,
        }))
    }

    /// Returns true for the identity that `[provision] existing` names.
    pub(super) fn is_existing(&self, entry: &TokenEntry) -> bool {
        match &self.config.provision.existing {
            None => false,
            Some(config::ExistingSource::Files { .. }) => {
                (entry.token.as_str(), entry.label.as_str()) == (SOFTWARE, EXISTING)
            }
            Some(config::ExistingSource::Uri(uri)) => {
                // The serial number of the token is ignored, because the search has already
                // compared it.
                let is = |uri: Uri| {
                    uri.matches_token(&[&entry.token, &entry.token_label])
                        && uri.matches_object(&entry.label, &entry.id)
                };
                parsed(uri).is_ok_and(is)
            }
        }
    }

    fn leads_to_trust(
        &self,
        leaf: &Certificate,
        others: &[Certificate],
        place: &str,
    ) -> Result<(), String> {
        if let Some(why) = first_failure(leaf, now().ok()) {
            return Err(format!(
                "{place}: this is not a certificate of a device: {why}"
            ));
        }
        let trusted = self.trusted(None).map_err(|fault| fault.text)?;
        let trust = self.config.trust.display();
        let way = trusted.build_path(leaf, others, now().ok());
        match way.map_err(|fault| fault.text)? {
            PathResult::Trusted(_) => Ok(()),
            PathResult::NoIssuer(issuer) => Err(format!(
                "{place}: the certificate is not trusted. Put the certificate of {issuer} into \
                 {trust}, or remove existing under [provision] from config.toml"
            )),
            PathResult::SelfSigned => Err(format!(
                "{place}: the certificate is not trusted, because it is self-signed. Put it into \
                 {trust}, or remove existing under [provision] from config.toml"
            )),
            PathResult::Invalid(why) => Err(format!("{place}: {why}")),
        }
    }
}

fn placed(certificate: Certificate, path: &Path) -> CertificateEntry {
    CertificateEntry {
        label: EXISTING.into(),
        id: certificate.key_id().as_bytes().to_vec(),
        certificate,
        place: path.display().to_string(),
        file: String::new(),
    }
}

/// Parses the PKCS#11 URI in `[provision] existing`. The URI must name an object.
fn parsed(text: &str) -> Result<Uri, String> {
    let uri = Uri::parse(text)?;
    if uri.names_token(FACTORY) {
        return Err(format!(
            "{text}: this URI names the factory identity; an existing identity must be in files, \
             or in a token with a key folder"
        ));
    }
    match uri.names_object() {
        true => Ok(uri),
        false => Err(format!("{text}: the URI must have object= or id=")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_an_object_outside_of_the_factorys_token() {
        assert!(parsed("pkcs11:token=devid;object=my%20cloud;id=%01%Af;type=private").is_ok());
        assert!(parsed("pkcs11:object=my%20cloud").is_ok());
        for wrong in [
            "devid",
            "pkcs11:token=devid",
            "pkcs11:token=idev-id;object=idev-id",
            "pkcs11:object=%0",
            "pkcs11:object",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
