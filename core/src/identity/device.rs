//! The device: its TPM, its tokens, and the keys and certificates in the tokens.

use super::IdentityError;
use super::endorsement::configured_tpm;
use super::entry::{CertificateEntry, FACTORY, OWN, SOFTWARE, TokenEntry, add_certificate};
use super::software::Software;
use crate::config::{Config, OWNER, ShowOwner};
use crate::store::devid::DevidStore;
use crate::store::folder::{KeyOrigin, ObjectAttributes};
use crate::store::idevid::{CaCertificate, Identity, IdevidStore};
use crate::store::{ObjectKind, Pins, StoredObject};
use crate::tpm::{Refusals, TimeoutMemory, Tpm, handle};
use crate::x509::Certificate;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A device: its configuration, its TPM and its tokens.
#[derive(Debug)]
pub struct Device {
    pub(super) config: Config,
    pub(crate) tpm: Arc<Tpm>,
    /// The store of factory identities whose keys need no PIN.
    pub(super) factory: IdevidStore,
    /// The stores of factory identities whose keys need a PIN. Each identity has its own store.
    pub(super) factory_with_pin: Vec<IdevidStore>,
    /// The store of the token `devid`.
    pub(crate) own: DevidStore,
    /// The stores of the other tokens in the configuration.
    others: Vec<DevidStore>,
    /// For each token to which devid has logged in: the result of the login.
    unlocked: Mutex<HashMap<String, Result<(), IdentityError>>>,
}

/// The keys and certificates of all tokens.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The names and serial numbers of the tokens that could be read.
    pub serials: Vec<(String, String)>,
    /// The keys and certificates of all tokens: of the factory, of its CAs, of the key folders, and
    /// of the owner.
    pub entries: Vec<TokenEntry>,
    /// The tokens that could not be read, each with the error.
    pub faults: Vec<(String, IdentityError)>,
    /// The tokens with a file that could not be read. A key or certificate of such a token may be
    /// missing.
    pub unread: Vec<(String, IdentityError)>,
}

impl Device {
    /// Creates the device from its configuration. Reads no file and sends no TPM command.
    pub fn new(config: Config) -> Self {
        Self::with(config, TimeoutMemory::shared())
    }

    /// Returns this device again, without the token contents that were read before. Keeps only the
    /// memory of timeouts: a TPM that did not answer a command is not asked again.
    pub(super) fn reopened(&self) -> Self {
        Self::with(self.config.clone(), self.tpm.timeout_memory().clone())
    }

    fn with(config: Config, timeouts: TimeoutMemory) -> Self {
        let tpm = configured_tpm(&config, Refusals::default()).with_timeout_memory(timeouts);
        let tpm = Arc::new(tpm);
        let mut stores = DevidStore::all(&config, &tpm);
        Self {
            factory: IdevidStore::new(&config, Arc::clone(&tpm)),
            factory_with_pin: IdevidStore::with_pin(&config, &tpm),
            config,
            tpm,
            own: stores.remove(0),
            others: stores,
            unlocked: Mutex::default(),
        }
    }

    /// Returns the configuration of the device.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logs in to the token `devid`, if the token needs a PIN and the configuration names its
    /// source. Without a login, an operation that needs the PIN fails with a message about the PIN.
    pub(super) fn unlock(&self) -> Result<(), IdentityError> {
        self.unlock_store(&self.own)
    }

    /// Logs in to the token that shows a token entry, and to the token `devid`.
    pub(super) fn unlock_for(&self, entry: &TokenEntry) -> Result<(), IdentityError> {
        self.unlock()?;
        self.store_of(entry)
            .map_or(Ok(()), |store| self.unlock_store(store))
    }

    pub(super) fn unlock_store(&self, store: &DevidStore) -> Result<(), IdentityError> {
        let login = || match store.pins() {
            Pins::User => Ok(store.login_configured(&self.config.run)?),
            Pins::None | Pins::SecurityOfficer => Ok(()),
        };
        let mut unlocked = self.unlocked.lock();
        let known = unlocked.entry(store.name().to_owned());
        known.or_insert_with(login).clone()
    }

    /// Returns the path of the key folder of the token `devid`.
    pub fn folder(&self) -> PathBuf {
        self.own.path().to_owned()
    }

    /// Returns all tokens with a key folder; `devid` is the first.
    pub(super) fn stores(&self) -> impl Iterator<Item = &DevidStore> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// Returns the names of the tokens with a key folder.
    pub fn tokens(&self) -> Vec<&str> {
        self.stores().map(DevidStore::name).collect()
    }

    /// Returns the store of the token that shows a token entry. Returns `None` if the entry is in
    /// no key folder.
    pub(super) fn store_of(&self, entry: &TokenEntry) -> Option<&DevidStore> {
        let is_there = entry.software.is_none() && entry.token != FACTORY;
        self.stores()
            .find(|store| is_there && store.name() == entry.token)
    }

    /// Returns the persistent handles that may hold keys of the factory. Handles of `[[identity]]`
    /// come first, in the order of the configuration. Handles that the TCG registry reserves
    /// follow.
    pub(crate) fn factory_handles(&self) -> Result<Vec<u32>, IdentityError> {
        let mut there = self.tpm.handles(handle::PERSISTENT)?;
        let named: Vec<u32> = self
            .config
            .identities
            .iter()
            .filter_map(|one| one.handle)
            .collect();
        there.retain(|one| named.contains(one) || handle::DEVID_KEYS.contains(one));
        there.sort_by_key(|one| {
            let place = named.iter().position(|named| named == one);
            (place.unwrap_or(named.len()), *one)
        });
        Ok(there)
    }

    /// Reads all tokens. A token that cannot be read does not hide other tokens.
    pub fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        let own = self.stores().map(|store| self.token_contents(store));
        for entries in std::iter::once(self.factory_contents()).chain(own) {
            match entries {
                Ok(read) => {
                    let unread = read.unread.map(|fault| (read.token.clone(), fault));
                    inventory.unread.extend(unread);
                    inventory.serials.push((read.token, read.serial));
                    inventory.entries.extend(read.entries);
                }
                Err(fault) => inventory.faults.push(fault),
            }
        }
        match Software::in_state(&self.config.state).entries() {
            Ok(found) => inventory.entries.extend(found),
            Err(fault) => inventory.faults.push((SOFTWARE.into(), fault)),
        }
        match self.existing_entity() {
            Ok(found) => inventory.entries.extend(found),
            Err(fault) => inventory.faults.push((SOFTWARE.into(), fault)),
        }
        inventory
    }

    /// Returns the factory identities and the certificates of their issuers.
    pub(super) fn factory_contents(&self) -> TokenResult {
        let failed =
            |error: crate::store::ScanError| (FACTORY.to_owned(), IdentityError::from(error));
        let stores = std::iter::once(&self.factory).chain(&self.factory_with_pin);
        let (mut serial, mut entries, mut fault) = (None, Vec::new(), None);
        let mut unread = None;
        for store in stores {
            match store.find() {
                Ok(found) => {
                    let token = found.label().to_owned();
                    serial.get_or_insert(found.serial);
                    unread = unread.or(found.unread.map(IdentityError::failed));
                    let identities = found.identities.into_iter();
                    entries.extend(identities.map(|one| of_identity(&token, one)));
                    let issuers = found.authorities.into_iter();
                    entries.extend(issuers.map(|one| of_ca_certificate(&token, one)));
                    let (owner, issuers) = found.owner.unwrap_or_default();
                    self.add_owner(owner, issuers, &mut entries);
                }
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        match (serial, fault) {
            (None, Some(error)) => Err(failed(error)),
            (serial, _) => Ok(TokenContents {
                token: FACTORY.into(),
                serial: serial.unwrap_or_default(),
                entries,
                unread,
            }),
        }
    }

    /// Adds the owner's certificates for factory keys. If they are on a separate token, they become
    /// separate entries. Otherwise they are added to the entries of the factory's keys.
    fn add_owner(
        &self,
        owner: Vec<Identity>,
        issuers: Vec<CaCertificate>,
        entries: &mut Vec<TokenEntry>,
    ) {
        let has_token =
            |one: &Identity| self.config.owner.show == ShowOwner::Token && one.pin.is_none();
        let (shown, beside): (Vec<_>, Vec<_>) = owner.into_iter().partition(has_token);
        for one in beside {
            let theirs = of_identity(OWNER, one);
            let of_key = |entry: &&mut TokenEntry| entry.public == theirs.public;
            if let Some(entry) = entries.iter_mut().find(of_key) {
                entry.certificates.extend(theirs.certificates);
            }
        }
        if !shown.is_empty() {
            entries.extend(shown.into_iter().map(|one| of_identity(OWNER, one)));
            let issuers = issuers.into_iter();
            entries.extend(issuers.map(|one| of_ca_certificate(OWNER, one)));
        }
    }

    /// Returns the keys and certificates of a token with a key folder.
    pub(super) fn token_contents(&self, store: &DevidStore) -> TokenResult {
        let token = store.name();
        let failed = |error: crate::store::ScanError| (token.to_owned(), error.into());
        let listing = store.scan().map_err(failed)?;
        let mut entries: Vec<TokenEntry> = Vec::new();
        let software = Software::in_state(&self.config.state);
        for shown in &listing.objects {
            // The software identity has its own entry, so its files in the key folder are skipped.
            if software.has(&store.file(&shown.name)) {
                continue;
            }
            match &shown.kind {
                ObjectKind::Pair {
                    key,
                    origin,
                    private,
                    ..
                } => {
                    let id = private.id.clone();
                    entries.push(TokenEntry {
                        token: token.to_owned(),
                        token_label: listing.label.clone(),
                        label: private.label.clone(),
                        file: shown.name.clone(),
                        id: id.unwrap_or_else(|| key.public().id().as_bytes().to_vec()),
                        public: Some(key.public().clone()),
                        key: Some(Arc::clone(key)),
                        secret: None,
                        software: None,
                        origin: *origin,
                        certificates: Vec::new(),
                        attests: false,
                        protected: token == OWN && private.label == OWN && !private.destroyable,
                    });
                }
                ObjectKind::SecretKey(key, origin, about) => entries.push(TokenEntry {
                    token: token.to_owned(),
                    token_label: listing.label.clone(),
                    label: about.label.clone(),
                    file: shown.name.clone(),
                    id: about.id.clone().unwrap_or_default(),
                    public: None,
                    key: None,
                    secret: Some(Arc::clone(key)),
                    software: None,
                    origin: *origin,
                    certificates: Vec::new(),
                    attests: false,
                    protected: false,
                }),
                ObjectKind::Certificate(certificate, about) => {
                    let placed = placed(store, shown, certificate, about);
                    add_certificate(placed, (token, &listing.label), &mut entries);
                }
                ObjectKind::Public(..) | ObjectKind::Data(_) => {}
            }
        }
        Ok(TokenContents {
            token: token.to_owned(),
            serial: listing.serial,
            entries,
            unread: listing.unread.map(IdentityError::failed),
        })
    }
}

fn placed(
    store: &DevidStore,
    shown: &StoredObject,
    certificate: &Certificate,
    about: &ObjectAttributes,
) -> CertificateEntry {
    let id = about.id.clone();
    CertificateEntry {
        certificate: certificate.clone(),
        label: about.label.clone(),
        id: id.unwrap_or_else(|| certificate.key_id().as_bytes().to_vec()),
        place: store.file(&shown.name).display().to_string(),
        file: shown.name.clone(),
    }
}

/// The keys and certificates of a token.
#[derive(Debug)]
pub(super) struct TokenContents {
    pub(super) token: String,
    pub(super) serial: String,
    pub(super) entries: Vec<TokenEntry>,
    /// The error, if a file of the token could not be read. A key or certificate may be missing
    /// then.
    pub(super) unread: Option<IdentityError>,
}

/// The keys and certificates of a token. `Err` holds the name of the token and the error.
type TokenResult = Result<TokenContents, (String, IdentityError)>;

fn of_identity(token: &str, identity: Identity) -> TokenEntry {
    let id = identity.certificate.key_id().as_bytes().to_vec();
    let id = identity.id.unwrap_or(id);
    TokenEntry {
        token: FACTORY.into(),
        token_label: token.to_owned(),
        label: identity.label.clone(),
        file: String::new(),
        id: id.clone(),
        key: identity.key,
        secret: None,
        software: None,
        public: identity.public,
        origin: KeyOrigin::Generated,
        certificates: vec![CertificateEntry {
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

fn of_ca_certificate(token: &str, authority: CaCertificate) -> TokenEntry {
    let id = authority.certificate.key_id().as_bytes().to_vec();
    TokenEntry {
        token: FACTORY.into(),
        token_label: token.to_owned(),
        label: authority.label.clone(),
        file: String::new(),
        id: id.clone(),
        key: None,
        secret: None,
        software: None,
        public: authority.certificate.public_key(),
        origin: KeyOrigin::Unknown,
        certificates: vec![CertificateEntry {
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
