//! An identity that somebody else made, such as a cloud's on its virtual TPM: used if its key signs
//! and its certificate leads to a trusted one.
//!
//! The factory identity is not meant: it stays what it is beside the device's own.

use super::Fault;
use super::device::Device;
use super::entry::{EXISTING, Entity, FACTORY, Placed, SOFTWARE};
use super::key_file::{Unread, key_in};
use super::prove::{Proof, UNTRIED, prove};
use super::state::Existing;
use super::trusted_files::{believed, certificates_of};
use crate::config;
use crate::key::hex;
use crate::store::folder::Origin;
use crate::store::{Key, Protection};
use crate::trouble::is_there;
use crate::x509::Certificate;
use crate::x509::checks::unfit;
use crate::x509::clock::now;
use crate::x509::path::Way;
use std::fmt;
use std::path::Path;

/// What was found of it, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) state: Existing,
    pub(super) text: String,
    /// Whether its key is in the TPM.
    pub(super) in_tpm: bool,
}

impl Device {
    /// Looks for the identity that the configuration names, if it names one.
    pub(super) fn existing(&self) -> Found {
        let found = match &self.config.provision.existing {
            None => Ok(None),
            Some(config::Existing::Uri(uri)) => self.by_uri(uri),
            Some(config::Existing::Files { certificate, key }) => self.by_files(certificate, key),
        };
        match found {
            Ok(None) => Found {
                state: Existing::None,
                text: "none".into(),
                in_tpm: false,
            },
            Ok(Some((text, in_tpm))) => Found {
                state: Existing::Usable,
                text,
                in_tpm,
            },
            Err(text) => Found {
                state: Existing::Unusable,
                text,
                in_tpm: false,
            },
        }
    }

    fn by_uri(&self, uri: &str) -> Result<Option<(String, bool)>, String> {
        let wanted = Wanted::parse(uri)?;
        let mut tokens = Vec::new();
        for store in self.stores() {
            // Its officer may have given it another label.
            let label = store.label().map_err(|error| format!("{uri}: {error}"))?;
            if wanted.is_in(store.name(), &label) {
                tokens.push(store);
            }
        }
        if tokens.is_empty() {
            return Err(format!(
                "{uri}: no token of ours is called so; those of the configuration are {}",
                self.tokens().join(", ")
            ));
        }
        let (mut found, mut unread) = (None, None);
        for store in tokens {
            match self.read(store) {
                Ok(read) => {
                    let mut entities = read.entities.into_iter();
                    let entity = entities.find(|one| wanted.is(one, &read.serial));
                    found = found.or(entity.map(|entity| (store, entity)));
                    unread = unread.or(read.unread.map(|fault| fault.text));
                }
                Err((_, fault)) => unread = unread.or(Some(fault.text)),
            }
        }
        let (store, entity) = match (found, unread) {
            (Some(found), _) => found,
            // There it may be.
            (None, Some(why)) => return Err(why),
            (None, None) => return Ok(None),
        };
        self.unlock_store(store)
            .map_err(|fault| format!("{uri}: {fault}"))?;
        let Some(key) = &entity.key else {
            return Err(format!("{uri}: there is a certificate, but no key"));
        };
        let Some(certificate) = entity.certificate() else {
            return Err(format!("{uri}: there is a key, but no certificate"));
        };
        self.signs(key, &uri)?;
        self.leads_to_trust(certificate, &[], uri)?;
        let in_tpm = key.protection() == Protection::Tpm;
        Ok(Some((format!("{uri}: {}", certificate.subject()), in_tpm)))
    }

    fn by_files(&self, certificate: &Path, key: &Path) -> Result<Option<(String, bool)>, String> {
        // What cannot be looked at now may be there.
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
                    "{} is there, but {} is not",
                    one.display(),
                    other.display()
                ));
            }
        }
        for file in [certificate, key] {
            believed(file).map_err(|fault| fault.text)?;
        }
        let place = certificate.display().to_string();
        let certificates = certificates_of(certificate).map_err(|fault| fault.text)?;
        let (leaf, others) = certificates.split_first().ok_or("no certificate")?;
        let private = key_in(key).map_err(|unread| self.no_key_for_memory(key, &unread))?;
        match leaf.public_key() {
            Some(public) if public == *private.public() => {}
            _ => return Err(format!("{place}: the certificate is not for the key")),
        }
        self.signs(&private, &key.display())?;
        self.leads_to_trust(leaf, others, &place)?;
        Ok(Some((format!("{place}: {}", leaf.subject()), false)))
    }

    fn signs(&self, key: &Key, place: &dyn fmt::Display) -> Result<(), String> {
        match prove(&self.tpm, key, key.public()) {
            Proof::Belongs => Ok(()),
            Proof::Other => Err(format!("{place}: another key signed")),
            Proof::Untried => Err(format!("{place}: {UNTRIED}")),
            Proof::None(error) => Err(format!("{place}: the key does not sign: {error}")),
        }
    }

    fn no_key_for_memory(&self, path: &Path, unread: &Unread) -> String {
        let why = unread.at(path);
        match unread {
            Unread::File(_) => why,
            Unread::NoKey(_) => format!(
                "{why}; a key that the TPM wrapped belongs into {}, and is named by a URI",
                self.folder().display()
            ),
        }
    }

    /// The identity in files that the configuration names, if its certificate is there.
    pub(super) fn existing_entity(&self) -> Result<Option<Entity>, Fault> {
        let Some(config::Existing::Files { certificate, key }) = &self.config.provision.existing
        else {
            return Ok(None);
        };
        let there = |path: &Path| is_there(path).map_err(Fault::file(path));
        if !there(certificate)? {
            return Ok(None);
        }
        let all = certificates_of(certificate)?;
        let leaf = all.first().ok_or_else(|| Fault::failed("no certificate"))?;
        Ok(Some(Entity {
            token: SOFTWARE.into(),
            token_label: SOFTWARE.into(),
            label: EXISTING.into(),
            file: String::new(),
            id: leaf.key_id().as_bytes().to_vec(),
            key: None,
            software: there(key)?.then(|| key.clone()),
            public: leaf.public_key(),
            origin: Origin::Unknown,
            certificates: all
                .into_iter()
                .map(|one| placed(one, certificate))
                .collect(),
            attests: false,
            protected: true,
        }))
    }

    /// Whether it is the identity that the configuration names as existing.
    pub(super) fn is_existing(&self, entity: &Entity) -> bool {
        match &self.config.provision.existing {
            None => false,
            Some(config::Existing::Files { .. }) => {
                (entity.token.as_str(), entity.label.as_str()) == (SOFTWARE, EXISTING)
            }
            Some(config::Existing::Uri(uri)) => {
                let is = |wanted: Wanted| {
                    // A serial number told the token when the identity was looked for.
                    let wanted = Wanted {
                        serial: None,
                        ..wanted
                    };
                    wanted.is_in(&entity.token, &entity.token_label) && wanted.is(entity, "")
                };
                Wanted::parse(uri).is_ok_and(is)
            }
        }
    }

    fn leads_to_trust(
        &self,
        leaf: &Certificate,
        others: &[Certificate],
        place: &str,
    ) -> Result<(), String> {
        if let Some(why) = unfit(leaf, now().ok()) {
            return Err(format!("{place}: no device's certificate: {why}"));
        }
        let trusted = self.trusted(None).map_err(|fault| fault.text)?;
        let trust = self.config.trust.display();
        let way = trusted.way(leaf, others, now().ok());
        match way.map_err(|fault| fault.text)? {
            Way::Trusted(_) => Ok(()),
            Way::Open(issuer) => Err(format!(
                "{place}: not trusted: put the certificate of {issuer} into {trust}, or take \
                 [provision] existing out of the configuration"
            )),
            Way::SelfSigned => Err(format!(
                "{place}: not trusted: it is self-signed. Put it into {trust} itself, or take \
                 [provision] existing out of the configuration"
            )),
            Way::Broken(why) => Err(format!("{place}: {why}")),
        }
    }
}

fn placed(certificate: Certificate, path: &Path) -> Placed {
    Placed {
        label: EXISTING.into(),
        id: certificate.key_id().as_bytes().to_vec(),
        certificate,
        place: path.display().to_string(),
        file: String::new(),
    }
}

/// What a PKCS#11 URI (RFC 7512) asks for, as far as it can be meant here.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    token: Option<String>,
    serial: Option<String>,
    label: Option<String>,
    id: Option<String>,
}

impl Wanted {
    fn parse(uri: &str) -> Result<Self, String> {
        let path = uri
            .strip_prefix("pkcs11:")
            .ok_or(format!("{uri}: must begin with pkcs11:"))?;
        let path = path.split('?').next().unwrap_or_default();
        let mut wanted = Self {
            token: None,
            serial: None,
            label: None,
            id: None,
        };
        for part in path.split(';') {
            let (name, value) = part.split_once('=').ok_or(format!("{part}: no value"))?;
            let value = unescaped(value).ok_or(format!("{value}: a % without two digits"))?;
            let text = || String::from_utf8_lossy(&value).into_owned();
            match name {
                "token" if value == FACTORY.as_bytes() => {
                    return Err(format!(
                        "{uri}: an existing identity is in a token with a key folder or in files; \
                         the factory's is none of its kind"
                    ));
                }
                "token" => wanted.token = Some(text()),
                "serial" => wanted.serial = Some(text()),
                "object" => wanted.label = Some(text()),
                "id" => wanted.id = Some(hex(&value)),
                _ => {}
            }
        }
        match wanted {
            Self {
                label: None,
                id: None,
                ..
            } => Err(format!("{uri}: must have object= or id=")),
            wanted => Ok(wanted),
        }
    }

    fn is_in(&self, token: &str, label: &str) -> bool {
        fits(&self.token, token) || fits(&self.token, label)
    }

    fn is(&self, entity: &Entity, serial: &str) -> bool {
        fits(&self.serial, serial)
            && fits(&self.label, &entity.label)
            && fits(&self.id, &hex(&entity.id))
    }
}

fn fits(wanted: &Option<String>, there: &str) -> bool {
    wanted.as_deref().is_none_or(|wanted| wanted == there)
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.get(2..)?.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_read_as_far_as_it_matters() {
        let wanted = Wanted::parse("pkcs11:token=devid;object=my%20cloud;id=%01%Af;type=private");
        assert_eq!(
            wanted,
            Ok(Wanted {
                token: Some("devid".into()),
                serial: None,
                label: Some("my cloud".into()),
                id: Some("01af".into()),
            })
        );
        for wrong in [
            "devid",
            "pkcs11:token=devid",
            "pkcs11:token=idev-id;object=idev-id",
            "pkcs11:object=%0",
            "pkcs11:object",
        ] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong}");
        }
    }
}
