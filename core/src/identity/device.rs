//! The device as a whole: its tokens and what is in them.

use super::Fault;
use super::endorsement::tpm_of;
use super::software::Software;
use crate::config::Config;
use crate::key::{PublicKey, hex};
use crate::store::devid::DevidStore;
use crate::store::folder::{Description as About, Origin};
use crate::store::idevid::{Authority, Identity, IdevidStore};
use crate::store::{Key, Kind, Pins, Protection, Shown};
use crate::tpm::{Refusals, Silence, Tpm, recognised};
use crate::x509::Certificate;
use crate::x509::Profile;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The token of the factory identity.
pub const FACTORY: &str = "idev-id";
/// Where a software identity is shown by `devid`: beside the tokens.
pub const SOFTWARE: &str = "software";
/// The label of an identity in files that somebody else made.
pub const EXISTING: &str = "existing";
/// The token of the device's own keys, and the label of its own identity.
pub const OWN: &str = "devid";

/// The device: its configuration, its TPM and its tokens.
#[derive(Debug)]
pub struct Device {
    pub(super) config: Config,
    pub(super) tpm: Arc<Tpm>,
    /// The token `devid`.
    pub(super) own: DevidStore,
    /// The further tokens of the configuration.
    others: Vec<DevidStore>,
    /// How the login went, by token.
    unlocked: Mutex<HashMap<String, Result<(), Fault>>>,
}

/// A key with its certificates, or a certificate without key.
#[derive(Debug, Clone)]
pub struct Entity {
    /// The token that shows it, as the configuration calls it.
    pub token: String,
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
    pub serials: Vec<(String, String)>,
    /// Factory identities, their issuers, own keys, other certificates.
    pub entities: Vec<Entity>,
    /// Tokens that could not be read, and why.
    pub faults: Vec<(String, Fault)>,
    /// Tokens of which a file could not be read now, so that something may be missing, and why.
    pub unread: Vec<(String, Fault)>,
}

/// An [`Entity`] in words, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// The token that shows it.
    pub token: String,
    /// Its label.
    pub label: String,
    /// CKA_ID in hexadecimal digits.
    pub id: String,
    /// The private key.
    pub key: Option<KeyDescription>,
    /// Whether its key signs only what the TPM itself made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attests: bool,
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
        Self::with(config, Silence::remembered())
    }

    /// The same device, of which nothing is known yet but whether its TPM left a command without
    /// answer: then it is not asked again.
    pub(super) fn anew(&self) -> Self {
        Self::with(self.config.clone(), self.tpm.silence().clone())
    }

    fn with(config: Config, silence: Silence) -> Self {
        let tpm = tpm_of(&config, Refusals::default()).remembering(silence);
        let tpm = Arc::new(tpm);
        let mut stores = DevidStore::all(&config, &tpm);
        Self {
            config,
            tpm,
            own: stores.remove(0),
            others: stores,
            unlocked: Mutex::default(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logs in to the token `devid`, if it asks for a PIN and the configuration says where that is.
    /// Without it, what needs the PIN fails, and says so.
    pub(super) fn unlock(&self) -> Result<(), Fault> {
        self.unlock_store(&self.own)
    }

    /// The same of the token that an entity is in.
    pub(super) fn unlock_for(&self, entity: &Entity) -> Result<(), Fault> {
        self.unlock()?;
        self.store_of(entity)
            .map_or(Ok(()), |store| self.unlock_store(store))
    }

    pub(super) fn unlock_store(&self, store: &DevidStore) -> Result<(), Fault> {
        let login = || match store.pins() {
            Pins::User => Ok(store.login_configured(&self.config.run)?),
            Pins::None | Pins::Officer => Ok(()),
        };
        let mut unlocked = self.unlocked.lock();
        let known = unlocked.entry(store.name().to_owned());
        known.or_insert_with(login).clone()
    }

    /// The key folder of the token `devid`.
    pub fn folder(&self) -> PathBuf {
        self.own.path().to_owned()
    }

    /// All tokens with a key folder, `devid` first.
    pub(super) fn stores(&self) -> impl Iterator<Item = &DevidStore> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// What the configuration calls them.
    pub fn tokens(&self) -> Vec<&str> {
        self.stores().map(DevidStore::name).collect()
    }

    /// The one that shows an entity; `None` for what is in no key folder.
    pub(super) fn store_of(&self, entity: &Entity) -> Option<&DevidStore> {
        let is_there = entity.software.is_none() && entity.token != FACTORY;
        self.stores()
            .find(|store| is_there && store.name() == entity.token)
    }

    /// All that the tokens hold. One that cannot be read does not hide the others.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        let own = self.stores().map(|store| self.read(store));
        for entities in std::iter::once(self.factory()).chain(own) {
            match entities {
                Ok(read) => {
                    let unread = read.unread.map(|fault| (read.token.clone(), fault));
                    contents.unread.extend(unread);
                    contents.serials.push((read.token, read.serial));
                    contents.entities.extend(read.entities);
                }
                Err(fault) => contents.faults.push(fault),
            }
        }
        match self.software_entities() {
            Ok(found) => contents.entities.extend(found),
            Err(fault) => contents.faults.push((SOFTWARE.into(), fault)),
        }
        match self.existing_entity() {
            Ok(found) => contents.entities.extend(found),
            Err(fault) => contents.faults.push((SOFTWARE.into(), fault)),
        }
        contents
    }

    /// The factory's identities and the certificates of their issuers.
    pub(super) fn factory(&self) -> Read {
        let failed = |error: crate::store::LookError| (FACTORY.to_owned(), Fault::from(error));
        let tpm = &self.tpm;
        let stores = std::iter::once(IdevidStore::new(&self.config, Arc::clone(tpm)))
            .chain(IdevidStore::with_pin(&self.config, tpm));
        let (mut serial, mut entities, mut fault) = (None, Vec::new(), None);
        let mut unread = None;
        for store in stores {
            match store.find() {
                Ok(found) => {
                    let token = found.label().to_owned();
                    serial.get_or_insert(found.serial);
                    unread = unread.or(found.unread.map(Fault::failed));
                    let identities = found.identities.into_iter();
                    entities.extend(identities.map(|one| of_identity(&token, one)));
                    let issuers = found.authorities.into_iter();
                    entities.extend(issuers.map(|one| of_authority(&token, one)));
                }
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        match (serial, fault) {
            (None, Some(error)) => Err(failed(error)),
            (serial, _) => Ok(Reading {
                token: FACTORY.into(),
                serial: serial.unwrap_or_default(),
                entities,
                unread,
            }),
        }
    }

    /// The keys and certificates of a token.
    pub(super) fn read(&self, store: &DevidStore) -> Read {
        let token = store.name();
        let failed = |error: crate::store::LookError| (token.to_owned(), error.into());
        let listing = store.look().map_err(failed)?;
        let mut entities: Vec<Entity> = Vec::new();
        let software = Software::of(&self.config.state);
        for shown in &listing.objects {
            // The software identity is told of for itself.
            if software.has(&store.file(&shown.name)) {
                continue;
            }
            match &shown.kind {
                Kind::Pair {
                    key,
                    origin,
                    private,
                    ..
                } => {
                    let id = private.id.clone();
                    entities.push(Entity {
                        token: token.to_owned(),
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
                        protected: token == OWN && private.label == OWN && !private.destroyable,
                    });
                }
                Kind::Certificate(certificate, about) => {
                    let placed = placed(store, shown, certificate, about);
                    place(placed, (token, &listing.label), &mut entities);
                }
                Kind::Public(..) | Kind::Data(_) => {}
            }
        }
        Ok(Reading {
            token: token.to_owned(),
            serial: listing.serial,
            entities,
            unread: listing.unread.map(Fault::failed),
        })
    }

    /// An entity in words.
    pub fn describe(&self, entity: &Entity) -> Description {
        let certificates = entity.certificates.iter().map(|placed| {
            let profile = Profile::of(&placed.certificate);
            let place = placed.place.clone();
            CertificateDescription { place, profile }
        });
        Description {
            token: entity.token.clone(),
            label: entity.label.clone(),
            id: hex(&entity.id),
            attests: entity.attests,
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
        let store = self.store_of(entity).unwrap_or(&self.own);
        let file = store.file(&entity.file);
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
            (Some(handle), _) if self.lives_in_handle_alone(entity) => format!(
                "persistent handle 0x{handle:08X} alone: the master key that wrapped {file} is gone"
            ),
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

fn placed(store: &DevidStore, shown: &Shown, certificate: &Certificate, about: &About) -> Placed {
    let id = about.id.clone();
    Placed {
        certificate: certificate.clone(),
        label: about.label.clone(),
        id: id.unwrap_or_else(|| certificate.key_id().as_bytes().to_vec()),
        place: store.file(&shown.name).display().to_string(),
        file: shown.name.clone(),
    }
}

fn said(origin: Origin) -> &'static str {
    match origin {
        Origin::Generated => "generated",
        Origin::Imported => "imported",
        Origin::Unknown => "unknown",
    }
}

/// What a token holds.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) token: String,
    pub(super) serial: String,
    pub(super) entities: Vec<Entity>,
    /// Why something may be missing: a file could not be read now.
    pub(super) unread: Option<Fault>,
}

/// What a token holds; or its name and what is wrong.
type Read = Result<Reading, (String, Fault)>;

impl Entity {
    /// The certificate to be shown first.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificates.first().map(|placed| &placed.certificate)
    }
}

/// Gives a certificate to its key, which was listed before it, or lists it alone.
pub(super) fn place(placed: Placed, token: (&str, &str), all: &mut Vec<Entity>) {
    let public = placed.certificate.public_key();
    let owner = all
        .iter_mut()
        .find(|one| one.key.is_some() && one.public == public && public.is_some());
    match owner {
        Some(owner) => owner.certificates.push(placed),
        None => all.push(Entity {
            token: token.0.to_owned(),
            token_label: token.1.to_owned(),
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
        token: FACTORY.into(),
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
        token: FACTORY.into(),
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
