//! The factory identity. The store searches the TPM for it, so nobody needs to register it. The
//! store never changes it. See IEEE 802.1AR, and TCG, TPM 2.0 Keys for Device Identity and
//! Attestation, sections 7.3 and 7.8.
//!
//! Makers of devices use different handles and NV indices. So the store searches the ranges of both
//! (`nv`). It pairs keys and certificates by their public keys (`pairing`).

mod files;
mod location;
mod nv;
mod owner;
mod pairing;
mod scan;

pub(crate) use files::certificates_in;
pub use nv::NvFinding;

use super::{Key, Login, ScanError, ScanResult, Templates};
use crate::config::{Config, FACTORY, IdentityAuth, IdentityHint, OWNER, ShowOwner};
use crate::key::{PublicKey, hex};
use crate::tpm::{Capabilities, Tpm};
use crate::x509::Certificate;
use files::Files;
use location::CertificateLocation;
use owner::CertificateOrigin;
use parking_lot::Mutex;
pub(in crate::store) use scan::PIN_LENGTHS;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The factory identities of a TPM. A store shows either all identities that need no PIN, or a
/// single identity that needs a PIN.
#[derive(Debug)]
pub struct IdevidStore {
    tpm: Arc<Tpm>,
    hints: Vec<IdentityHint>,
    part: IdentityScope,
    origin: CertificateOrigin,
    files: Files,
    templates: Templates,
    /// The result of the last successful scan, if any. The mutex is locked only briefly.
    last: Mutex<Option<ScanResult>>,
}

/// The state on which a scan depends. Its comparison costs no TPM command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactoryStamp {
    files: files::FilesStamp,
    faults: u64,
    given_up: usize,
    /// The capabilities of the TPM that were known at the time of the scan.
    can: Capabilities,
}

/// The factory identities that one token shows.
#[derive(Debug, Clone)]
enum IdentityScope {
    /// All factory identities that need no PIN.
    Open,
    /// The identity of one `[[identity]]` entry in the configuration, whose key needs a PIN.
    Pin(Arc<Guarded>),
}

/// A factory identity whose key needs a PIN.
#[derive(Debug)]
struct Guarded {
    hint: usize,
    login: Arc<Login>,
    /// The key that the last scan found.
    key: Mutex<Option<Arc<Key>>>,
}

impl IdentityScope {
    /// Keeps the identities that this store shows. Attestation keys are shown together with the
    /// identities that need no PIN. If all identities need a PIN, attestation keys are shown
    /// together with the first of these identities.
    fn retain(&self, identities: &mut Vec<Identity>) {
        let is_open = |one: &Identity| one.pin.is_none() && !one.attests;
        let host = match identities.iter().any(is_open) {
            true => None,
            false => identities.iter().find_map(|one| one.pin),
        };
        identities.retain(|one| match self {
            Self::Open => one.pin.is_none(),
            Self::Pin(guarded) => {
                let shown = Some(guarded.hint);
                one.pin == shown || one.attests && one.pin.is_none() && host == shown
            }
        });
        // The first identity that the scan finds gives the token its label.
        if matches!(self, Self::Pin(_)) {
            identities.sort_by_key(|one| one.attests);
        }
    }

    /// Returns the scope for a forked child. The user is logged out if another thread of the parent
    /// held the mutex of the login.
    fn for_child(&self) -> Self {
        match self {
            Self::Open => Self::Open,
            Self::Pin(guarded) => Self::Pin(Arc::new(Guarded {
                hint: guarded.hint,
                login: Arc::clone(&guarded.login),
                key: Mutex::new(guarded.key.try_lock().and_then(|key| key.clone())),
            })),
        }
    }
}

/// The results of a search for factory identities.
#[derive(Debug)]
pub struct FactoryIdentities {
    /// The identities; at least one. The label of the first is `idev-id`, except in two cases: that
    /// identity has its own slot, or all keys are attestation keys.
    pub identities: Vec<Identity>,
    /// The CA certificates: the issuers of the identity in order, then others. Their labels are
    /// `idev-id-ca-<n>`.
    pub authorities: Vec<CaCertificate>,
    /// The serial number of the token: 16 hexadecimal digits from the SHA-256 of the key's TPM
    /// name. If the key has no handle, they come from the SHA-256 of the certificate.
    pub serial: String,
    /// The error of the first file of `[[identity]]` that could not be read at present.
    pub unread: Option<String>,
    /// The stamps of the TPM and of the files on which this result depends.
    pub stamp: FactoryStamp,
    /// The certificates of the owner for these keys, and the certificates of their CAs. `None`
    /// unless the store shows the certificates of both factory and owner.
    pub owner: Option<(Vec<Identity>, Vec<CaCertificate>)>,
    /// The label of the token, if no identity gives the token a label.
    base_label: &'static str,
}

impl FactoryIdentities {
    /// Returns the label of the token. It is the label of the first identity that is not an
    /// attestation key.
    pub fn label(&self) -> &str {
        let mut labels = self.identities.iter().filter(|one| !one.attests);
        labels.next().map_or(self.base_label, |one| &one.label)
    }
}

/// A certificate, and its key if the TPM has the key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The label. `idev-id`, `idev-id-rsa2048`, … for an identity of the factory, and `iak` for an
    /// attestation key. `oidevid` or `oiak` for a certificate of the owner.
    pub label: String,
    /// The identifier of the identity (CKA_ID), if it differs from the SHA-1 hash of the public
    /// key.
    pub id: Option<Vec<u8>>,
    /// The end-entity certificate.
    pub certificate: Certificate,
    /// The place of the certificate: an NV index or a file.
    pub place: String,
    /// The certified public key. `None` if its algorithm is not supported.
    pub public: Option<PublicKey>,
    /// The private key. `None` if the TPM has no key for this certificate, or only an attestation
    /// key.
    pub key: Option<Arc<Key>>,
    /// True if the key is an attestation key.
    pub attests: bool,
    /// The number of the `[[identity]]` entry, if the entry states that the key needs a PIN.
    pub pin: Option<usize>,
}

/// The certificate of a CA.
#[derive(Debug)]
pub struct CaCertificate {
    /// `idev-id-ca-<n>`
    pub label: String,
    /// The certificate.
    pub certificate: Certificate,
    /// The place of the certificate: an NV index or a file.
    pub place: String,
}

impl IdevidStore {
    /// Returns the store of identities that need no PIN, with the certificates of factory and
    /// owner. Reads nothing yet.
    pub fn new(config: &Config, tpm: Arc<Tpm>) -> Self {
        Self::of(config, tpm, IdentityScope::Open, CertificateOrigin::Both)
    }

    /// Returns the store of identities that need no PIN, with the certificates that programs see.
    /// With `[owner] show` these are the owner's instead of the factory's.
    pub fn shown(config: &Config, tpm: Arc<Tpm>) -> Self {
        Self::of(config, tpm, IdentityScope::Open, shown(config))
    }

    /// Returns the store of identities that need no PIN, with the certificates of the owner only.
    pub fn of_owner(config: &Config, tpm: Arc<Tpm>) -> Self {
        Self::of(config, tpm, IdentityScope::Open, CertificateOrigin::Owner)
    }

    /// Returns a store for each identity whose key needs a PIN (`[[identity]] auth = "pin"`), with
    /// the certificates of factory and owner.
    pub fn with_pin(config: &Config, tpm: &Arc<Tpm>) -> Vec<Self> {
        Self::behind_pins(config, tpm, CertificateOrigin::Both)
    }

    /// Returns a store for each identity whose key needs a PIN, with the certificates that programs
    /// see.
    pub fn shown_with_pin(config: &Config, tpm: &Arc<Tpm>) -> Vec<Self> {
        Self::behind_pins(config, tpm, shown(config))
    }

    fn behind_pins(config: &Config, tpm: &Arc<Tpm>, origin: CertificateOrigin) -> Vec<Self> {
        let asks = |hint: &IdentityHint| hint.auth == Some(IdentityAuth::Pin);
        let hints = config.identities.iter().enumerate();
        let guarded = hints
            .filter(|(_, hint)| asks(hint))
            .map(|(hint, _)| Guarded {
                hint,
                login: Arc::default(),
                key: Mutex::default(),
            });
        guarded
            .map(|guarded| {
                Self::of(
                    config,
                    Arc::clone(tpm),
                    IdentityScope::Pin(Arc::new(guarded)),
                    origin,
                )
            })
            .collect()
    }

    fn of(config: &Config, tpm: Arc<Tpm>, part: IdentityScope, origin: CertificateOrigin) -> Self {
        let owner = origin
            .reads_owner()
            .then(|| Box::from(config.owner.certificates.as_path()));
        Self {
            tpm,
            part,
            origin,
            files: Files::new(
                config.chain.clone(),
                config.generation.clone(),
                owner,
                &config.identities,
            ),
            hints: config.identities.clone(),
            templates: Templates::new(config.run.clone()),
            last: Mutex::default(),
        }
    }

    fn owner_file(&self) -> &Path {
        self.files.owner().unwrap_or(Path::new(""))
    }

    fn stamped(&self, files: files::FilesStamp) -> FactoryStamp {
        FactoryStamp {
            files,
            faults: self.tpm.faults(),
            given_up: self.templates.given_up(),
            can: self.tpm.capabilities(),
        }
    }

    /// Searches the TPM. The costs in TPM commands are:
    ///
    /// | for | commands |
    /// |---|---|
    /// | each list of handles | one |
    /// | each certificate | two, and one for each further piece of a large certificate |
    /// | each key, until all certificates have their keys | one |
    pub fn find(&self) -> Result<FactoryIdentities, ScanError> {
        let tpm = &*self.tpm;
        let read = self.files.read();
        let mut stamp = self.stamped(read.stamp);
        let (certificates, unread) = self.certificates(tpm, read.hinted)?;
        let chain = read.chain.into_iter().flat_map(|(file, here)| {
            let origin = CertificateLocation::File(file);
            here.into_iter().map(move |one| (origin.clone(), one))
        });
        let (mut identities, mut authorities) = self.paired(tpm, certificates, chain.collect())?;
        let origin = self.origin;
        self.files.amend(&mut stamp.files);
        // The search may have asked the TPM for its algorithms.
        stamp.can.algorithms = tpm.known_algorithms().known();
        if identities.is_empty() {
            return Err(match read.unread {
                Some(file) => ScanError::Unread(file),
                None => ScanError::NoIdentity(nv::searched(&authorities, unread, &self.hints)),
            });
        }
        let all = identities.len();
        let only_attests =
            origin == CertificateOrigin::Owner || identities.iter().all(|one| one.attests);
        self.part.retain(&mut identities);
        let owner = (origin == CertificateOrigin::Both).then(|| {
            let (mut theirs, mut issuers) = (identities.clone(), Vec::new());
            let file = self.owner_file();
            CertificateOrigin::Owner.apply(read.owner.clone(), file, &mut theirs, &mut issuers);
            let first = theirs.first().map(|one| one.certificate.clone());
            let issuers = first.map(|first| chain_order(OWNER, &first, issuers));
            (theirs, issuers.unwrap_or_default())
        });
        origin.apply(
            read.owner,
            self.owner_file(),
            &mut identities,
            &mut authorities,
        );
        match identities.first() {
            Some(first) if !first.attests || only_attests => Ok(FactoryIdentities {
                serial: serial(first, origin),
                authorities: chain_order(origin.base_label(), &first.certificate, authorities),
                identities,
                unread: read.unread,
                stamp,
                owner,
                base_label: origin.base_label(),
            }),
            None if origin == CertificateOrigin::Owner => Err(ScanError::NoIdentity(format!(
                "{}: the file has no certificate of the owner for a key of this device; devid \
                 import-cert --owner imports one",
                self.owner_file().display()
            ))),
            _ => Err(ScanError::NoIdentity(format!(
                "none of the {all} identities belongs to this slot: an identity with auth = \
                 \"pin\" under [[identity]] has its own slot"
            ))),
        }
    }
}

/// Returns the issuers of the leaf in order, then the other certificates. Returns each certificate
/// once.
fn chain_order(
    base: &str,
    leaf: &Certificate,
    mut authorities: Vec<(CertificateLocation, Certificate)>,
) -> Vec<CaCertificate> {
    let mut ordered: Vec<(CertificateLocation, Certificate)> = Vec::new();
    let mut issuer = leaf.issuer_der().to_vec();
    while let Some(at) = authorities
        .iter()
        .position(|(_, one)| one.subject_der() == issuer)
    {
        let next = authorities.remove(at);
        authorities.retain(|(_, one)| *one != next.1);
        issuer = next.1.issuer_der().to_vec();
        ordered.push(next);
    }
    for other in authorities {
        if !ordered.iter().any(|(_, known)| *known == other.1) {
            ordered.push(other);
        }
    }
    let numbered = ordered
        .into_iter()
        .enumerate()
        .map(|(n, (origin, certificate))| CaCertificate {
            label: format!("{base}-ca-{}", n + 1),
            certificate,
            place: origin.to_string(),
        });
    numbered.collect()
}

/// Returns which certificates programs see on the tokens of the factory.
fn shown(config: &Config) -> CertificateOrigin {
    match config.owner.show {
        ShowOwner::Instead => CertificateOrigin::OwnerFirst,
        ShowOwner::Nowhere | ShowOwner::Token => CertificateOrigin::Factory,
    }
}

fn serial(identity: &Identity, origin: CertificateOrigin) -> String {
    let handle = identity.key.as_ref().filter(|key| key.handle().is_some());
    let mut digest = match handle.and_then(|key| key.name()) {
        Some(name) => Sha256::new_with_prefix(name),
        None => Sha256::new_with_prefix(identity.certificate.der()),
    };
    if origin == CertificateOrigin::Owner {
        digest.update(OWNER);
    }
    hex(&digest.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_stands_once_and_the_issuer_first() {
        let one = |pem: &[u8]| Certificate::parse_all(pem).unwrap().remove(0);
        let leaf = one(include_bytes!("../../../testdata/leaf.pem"));
        let issuer = one(include_bytes!("../../../testdata/ca.pem"));
        // The certificate stands for a self-signed root, which is its own issuer.
        let other = one(include_bytes!("../../../testdata/root.pem"));
        let all = [&other, &issuer, &other, &issuer].into_iter().zip(1..);
        let placed = all.map(|(one, index)| (CertificateLocation::Nv(index), one.clone()));
        let ordered = chain_order(FACTORY, &leaf, placed.collect());
        let labels: Vec<_> = ordered.iter().map(|one| one.label.as_str()).collect();
        assert_eq!(labels, ["idev-id-ca-1", "idev-id-ca-2"]);
        assert_eq!(ordered[0].certificate, issuer);
        assert_eq!(ordered[1].certificate, other);
        let places: Vec<_> = ordered.iter().map(|one| one.place.as_str()).collect();
        assert_eq!(places, ["NV index 0x00000002", "NV index 0x00000001"]);
    }
}
