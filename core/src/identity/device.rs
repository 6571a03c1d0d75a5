//! The device as a whole: its two tokens and what is in them.

use super::software::Software;
use super::{Fault, FaultKind, Profile};
use crate::certificate::Certificate;
use crate::config::Config;
use crate::key::{PublicKey, hex};
use crate::store::devid::DevidStore;
use crate::store::folder::{Description as About, Origin};
use crate::store::idevid::{Authority, Identity, IdevidStore};
use crate::store::{Key, KeyStore, Kind, Pins, Protection, Shown, Who};
use crate::tpm::{Refusals, Tpm, recognised};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The token of the factory identity.
pub const FACTORY: &str = "idev-id";
/// Where a software identity is shown by `devid`: beside the tokens.
pub const SOFTWARE: &str = "software";
/// The label of an identity in files that somebody else made.
pub const EXISTING: &str = "existing";
/// The token of the device's own keys, and the label of its own identity.
pub const OWN: &str = "devid";

/// The device: its configuration, its TPM and its two tokens.
#[derive(Debug)]
pub struct Device {
    pub(super) config: Config,
    pub(super) tpm: Arc<Tpm>,
    pub(super) own: DevidStore,
    unlocked: OnceLock<Result<(), Fault>>,
}

/// A key with its certificates, or a certificate without key.
#[derive(Debug, Clone)]
pub struct Entity {
    /// The token that shows it.
    pub token: &'static str,
    /// The token's own label, which its security officer may have changed.
    pub token_label: String,
    /// Its label.
    pub label: String,
    /// In the key folder the file's name without `.pem`; else empty.
    pub file: String,
    /// The identifier that links its parts.
    pub id: Vec<u8>,
    /// The private key, if the device has it in its TPM.
    pub key: Option<Arc<Key>>,
    /// The private key's file, if it is a software key.
    pub software: Option<PathBuf>,
    /// The public key, if it is of a known kind.
    pub public: Option<PublicKey>,
    /// Where the key comes from.
    pub origin: Origin,
    /// The certificates for the key: valid ones first, then the newest.
    pub certificates: Vec<Placed>,
    /// Whether the key only attests.
    pub attests: bool,
    /// Whether it is the device's own identity, which applications cannot destroy.
    pub protected: bool,
}

/// A certificate and where it is.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The certificate.
    pub certificate: Certificate,
    /// What it is called, which may be something else than its key.
    pub label: String,
    /// Its CKA_ID.
    pub id: Vec<u8>,
    /// NV index or file.
    pub place: String,
    /// In the key folder the file's name without `.pem`; else empty.
    pub file: String,
}

/// What is in the tokens.
#[derive(Debug, Default)]
pub struct Contents {
    /// Serial numbers of the tokens that could be read.
    pub serials: Vec<(&'static str, String)>,
    /// Factory identities, their issuers, own keys, other certificates.
    pub entities: Vec<Entity>,
    /// Tokens that could not be read, and why.
    pub faults: Vec<(&'static str, Fault)>,
}

/// An [`Entity`] in words, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// The token that shows it.
    pub token: &'static str,
    /// Its label.
    pub label: String,
    /// CKA_ID in hexadecimal digits.
    pub id: String,
    /// The private key.
    pub key: Option<KeyDescription>,
    /// The certificates.
    pub certificates: Vec<CertificateDescription>,
}

/// A private key in words.
#[derive(Debug, Clone, Serialize)]
pub struct KeyDescription {
    /// `p256`, `rsa2048`, …
    pub algorithm: String,
    /// Where it lives.
    pub place: String,
    /// Its persistent handle.
    pub handle: Option<String>,
    /// Its TPM name in hexadecimal digits, once known.
    pub tpm_name: Option<String>,
    /// `generated`, `imported` or `unknown`.
    pub origin: &'static str,
    /// The factory template that it was made from, if it is one.
    pub template: Option<String>,
}

/// A certificate in words.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateDescription {
    /// Where it lives.
    pub place: String,
    /// What it says.
    #[serde(flatten)]
    pub profile: Profile,
}

impl Device {
    /// Nothing is read and nothing is sent yet.
    pub fn new(config: Config) -> Self {
        let tpm = Arc::new(Tpm::of(&config, Refusals::default()));
        let own = DevidStore::new(&config, Arc::clone(&tpm));
        Self {
            config,
            tpm,
            own,
            unlocked: OnceLock::new(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logs in to the token `devid`, if it asks for a PIN and the configuration says where that is.
    /// Without it, what needs the PIN fails, and says so.
    pub(super) fn unlock(&self) -> Result<(), Fault> {
        let login = || match (self.own.pins(), self.own.configured_pin()) {
            (Pins::User, Some(pin)) => self.own.login(Who::User, &pin).map_err(Fault::from),
            _ => Ok(()),
        };
        self.unlocked.get_or_init(login).clone()
    }

    /// The key folder of the token `devid`.
    pub fn folder(&self) -> PathBuf {
        let named = self
            .config
            .tokens
            .first()
            .and_then(|token| token.path.clone());
        named.unwrap_or_else(|| self.config.state.join(OWN))
    }

    /// All that the two tokens hold. One that cannot be read does not hide the other.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for entities in [self.factory(), self.own()] {
            match entities {
                Ok((token, serial, entities)) => {
                    contents.serials.push((token, serial));
                    contents.entities.extend(entities);
                }
                Err(fault) => contents.faults.push(fault),
            }
        }
        for entity in [self.software(), self.existing_entity()] {
            match entity {
                Ok(found) => contents.entities.extend(found),
                Err(fault) => contents.faults.push((SOFTWARE, fault)),
            }
        }
        contents
    }

    /// What bears this label, or this CKA_ID in hexadecimal digits; `token/label` says in which
    /// token.
    ///
    /// # Errors
    ///
    /// Nothing bears it, or several keys do.
    pub fn find(&self, name: &str) -> Result<Entity, Fault> {
        let contents = self.contents();
        let mut found = contents.entities.iter().filter(|one| one.is_called(name));
        let Some(first) = found.next() else {
            return Err(contents.no_such(name));
        };
        match found.find(|other| other.key.is_some() && first.key.is_some()) {
            None => Ok(first.clone()),
            Some(other) => Err(Fault::new(
                FaultKind::Usage,
                format!(
                    "{name}: two keys are called so; say which by its id: {} or {}",
                    hex(&first.id),
                    hex(&other.id)
                ),
            )),
        }
    }

    /// The factory's identities and the certificates of their issuers.
    pub(super) fn factory(&self) -> Read {
        let failed = |error: crate::store::LookError| (FACTORY, Fault::from(error));
        let tpm = &self.tpm;
        let stores = std::iter::once(IdevidStore::new(&self.config, Arc::clone(tpm)))
            .chain(IdevidStore::with_pin(&self.config, tpm));
        let (mut serial, mut entities, mut fault) = (None, Vec::new(), None);
        for store in stores {
            match store.find() {
                Ok(found) => {
                    serial.get_or_insert(found.serial);
                    let first = found.identities.first();
                    let token = first.map_or(FACTORY.to_owned(), |one| one.label.clone());
                    let identities = found.identities.into_iter();
                    entities.extend(identities.map(|one| of_identity(&token, one)));
                    let issuers = found.authorities.into_iter();
                    entities.extend(issuers.map(|one| of_authority(&token, one)));
                }
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        match (serial, fault) {
            (Some(serial), _) => Ok((FACTORY, serial, entities)),
            (None, Some(error)) => Err(failed(error)),
            (None, None) => Ok((FACTORY, String::new(), entities)),
        }
    }

    /// The device's own keys and certificates.
    pub(super) fn own(&self) -> Read {
        let listing = self.own.look().map_err(|error| (OWN, error.into()))?;
        let mut entities: Vec<Entity> = Vec::new();
        for shown in &listing.objects {
            match &shown.kind {
                Kind::Pair {
                    key,
                    origin,
                    private,
                    ..
                } => {
                    let id = private.id.clone();
                    entities.push(Entity {
                        token: OWN,
                        token_label: listing.label.clone(),
                        label: private.label.clone(),
                        file: shown.name.clone(),
                        id: id.unwrap_or_else(|| key.public().id().as_bytes().to_vec()),
                        public: Some(key.public().clone()),
                        key: Some(Arc::clone(key)),
                        software: None,
                        origin: *origin,
                        certificates: Vec::new(),
                        attests: false,
                        protected: private.label == OWN && !private.destroyable,
                    });
                }
                Kind::Certificate(certificate, about) => {
                    let placed = self.placed(shown, certificate, about);
                    place(placed, &listing.label, &mut entities);
                }
                Kind::Public(..) | Kind::Data(_) => {}
            }
        }
        Ok((OWN, listing.serial, entities))
    }

    /// The software identity, if there is one.
    fn software(&self) -> Result<Option<Entity>, Fault> {
        let software = Software::of(&self.config.state);
        let Some(public) = software.public()? else {
            return Ok(None);
        };
        let certificate = software.certificate()?;
        let mine = certificate.filter(|one| one.public_key().as_ref() == Some(&public));
        let placed = mine.map(|certificate| Placed {
            label: OWN.into(),
            id: certificate.key_id().as_bytes().to_vec(),
            certificate,
            place: software.certificate_path().display().to_string(),
            file: String::new(),
        });
        Ok(Some(Entity {
            token: SOFTWARE,
            token_label: SOFTWARE.into(),
            label: OWN.into(),
            file: String::new(),
            id: public.id().as_bytes().to_vec(),
            key: None,
            software: Some(software.key_path()),
            public: Some(public),
            origin: Origin::Generated,
            certificates: placed.into_iter().collect(),
            attests: false,
            protected: true,
        }))
    }

    fn placed(&self, shown: &Shown, certificate: &Certificate, about: &About) -> Placed {
        let id = about.id.clone();
        Placed {
            certificate: certificate.clone(),
            label: about.label.clone(),
            id: id.unwrap_or_else(|| certificate.key_id().as_bytes().to_vec()),
            place: self.file_of(&shown.name).display().to_string(),
            file: shown.name.clone(),
        }
    }

    /// The path of an object in the key folder.
    pub(super) fn file_of(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.pem"))
    }

    /// An entity in words.
    pub fn describe(&self, entity: &Entity) -> Description {
        let certificates = entity.certificates.iter().map(|placed| {
            let profile = Profile::of(&placed.certificate);
            let place = placed.place.clone();
            CertificateDescription { place, profile }
        });
        Description {
            token: entity.token,
            label: entity.label.clone(),
            id: hex(&entity.id),
            key: match (&entity.key, &entity.software, &entity.public) {
                (Some(key), _, _) => Some(self.describe_key(entity, key)),
                (None, Some(path), Some(public)) => Some(KeyDescription {
                    algorithm: public.to_string(),
                    place: format!("in software: {}", path.display()),
                    handle: None,
                    tpm_name: None,
                    origin: said(entity.origin),
                    template: None,
                }),
                _ => None,
            },
            certificates: certificates.collect(),
        }
    }

    fn describe_key(&self, entity: &Entity, key: &Key) -> KeyDescription {
        let file = self.file_of(&entity.file);
        let file = file.display();
        let place = match (key.handle(), key.protection()) {
            (_, Protection::Sealed) => format!("sealed in {file}; used in memory"),
            (_, Protection::File) => format!("in clear in {file}"),
            (Some(handle), _) if entity.file.is_empty() => {
                format!("persistent handle 0x{handle:08X}")
            }
            (None, _) if entity.file.is_empty() => {
                "no handle: the TPM derives it whenever it is needed".into()
            }
            (Some(handle), _) => format!("persistent handle 0x{handle:08X}, and wrapped in {file}"),
            (None, _) => format!("wrapped in {file}"),
        };
        KeyDescription {
            algorithm: key.public().to_string(),
            place,
            handle: key.handle().map(|handle| format!("0x{handle:08X}")),
            tpm_name: key.name().map(hex),
            origin: said(entity.origin),
            template: key.public_area().and_then(recognised),
        }
    }
}

fn said(origin: Origin) -> &'static str {
    match origin {
        Origin::Generated => "generated",
        Origin::Imported => "imported",
        Origin::Unknown => "unknown",
    }
}

/// A token's name, serial number and contents; or its name and what is wrong.
type Read = Result<(&'static str, String, Vec<Entity>), (&'static str, Fault)>;

impl Entity {
    /// Whether it is meant by this name.
    fn is_called(&self, name: &str) -> bool {
        let in_token = |label: &str| self.label == label;
        match name.split_once('/') {
            Some((token, label)) if token == self.token => in_token(label),
            _ => in_token(name) || (name.len() >= 8 && hex(&self.id) == name.to_lowercase()),
        }
    }

    /// The certificate to be shown first.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificates.first().map(|placed| &placed.certificate)
    }
}

impl Contents {
    fn no_such(&self, name: &str) -> Fault {
        if let Some((token, fault)) = self.faults.iter().find(|(_, fault)| {
            // What cannot be read may hold it.
            fault.kind != FaultKind::NotFound
        }) {
            return fault.clone().while_doing(format!("token {token}"));
        }
        let labels: Vec<&str> = self.entities.iter().map(|one| one.label.as_str()).collect();
        let why = self.faults.first();
        let hint = match (labels.is_empty(), why) {
            (true, Some((_, fault))) => fault.text.clone(),
            (true, None) => "the tokens are empty".into(),
            (false, _) => format!("there are {}", labels.join(", ")),
        };
        Fault::new(FaultKind::NotFound, format!("{name}: not found; {hint}"))
    }
}

/// Gives a certificate to its key, which was listed before it, or lists it alone.
fn place(placed: Placed, token: &str, all: &mut Vec<Entity>) {
    let public = placed.certificate.public_key();
    let owner = all
        .iter_mut()
        .find(|one| one.key.is_some() && one.public == public && public.is_some());
    match owner {
        Some(owner) => owner.certificates.push(placed),
        None => all.push(Entity {
            token: OWN,
            token_label: token.to_owned(),
            label: placed.label.clone(),
            file: String::new(),
            id: placed.id.clone(),
            key: None,
            software: None,
            public,
            origin: Origin::Unknown,
            certificates: vec![placed],
            attests: false,
            protected: false,
        }),
    }
}

fn of_identity(token: &str, identity: Identity) -> Entity {
    let id = identity.certificate.key_id().as_bytes().to_vec();
    Entity {
        token: FACTORY,
        token_label: token.to_owned(),
        label: identity.label.clone(),
        file: String::new(),
        id: id.clone(),
        key: identity.key,
        software: None,
        public: identity.public,
        origin: Origin::Generated,
        certificates: vec![Placed {
            certificate: identity.certificate,
            label: identity.label,
            id,
            place: identity.place,
            file: String::new(),
        }],
        attests: identity.attests,
        protected: false,
    }
}

fn of_authority(token: &str, authority: Authority) -> Entity {
    let id = authority.certificate.key_id().as_bytes().to_vec();
    Entity {
        token: FACTORY,
        token_label: token.to_owned(),
        label: authority.label.clone(),
        file: String::new(),
        id: id.clone(),
        key: None,
        software: None,
        public: authority.certificate.public_key(),
        origin: Origin::Unknown,
        certificates: vec![Placed {
            certificate: authority.certificate,
            label: authority.label,
            id,
            place: authority.place,
            file: String::new(),
        }],
        attests: false,
        protected: false,
    }
}
