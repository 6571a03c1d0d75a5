//! The factory identity: found in the TPM, never registered, never written to
//! (IEEE 802.1AR; TCG, TPM 2.0 Keys for Device Identity and Attestation, sections 7.3 and 7.8).
//!
//! Makers disagree on where they put key and certificate, so both ranges are searched and paired
//! by public key.

use super::Key;
use crate::certificate::Certificate;
use crate::config::{Config, IdentityHint};
use crate::key::PublicKey;
use crate::tpm::{PublicArea, Tpm, TpmError};
use log::{debug, info, warn};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Where TCG puts DevID certificates and their chains.
const CERTIFICATE_RANGE: std::ops::RangeInclusive<u32> = 0x01C9_0000..=0x01C9_FFFF;
/// No certificate is smaller: the policies that TCG puts into the same range (Keys for Device
/// Identity, section 7.3.2) are not read.
const SMALLEST_CERTIFICATE: u16 = 128;
const PERSISTENT: u32 = 0x8100_0000;
/// The IDevID key's own handle (TCG, TPM 2.0 Provisioning Guidance, section 7.8).
const IDEVID_HANDLE: u32 = 0x8102_0000;
/// Handles of device identities: the likeliest, and read first.
const DEVID_HANDLES: std::ops::RangeInclusive<u32> = 0x8102_0000..=0x8102_FFFF;

/// The label of the first identity.
pub const LABEL: &str = "idev-id";

/// Looks for the factory identity of one TPM, and signs with it.
#[derive(Debug, Clone)]
pub struct IdevidStore {
    hints: Vec<IdentityHint>,
    chain: PathBuf,
    generation: PathBuf,
}

/// All that was found.
#[derive(Debug)]
pub struct Found {
    /// At least one; the first is `idev-id`.
    pub identities: Vec<Identity>,
    /// CA certificates, from the identity's issuer upwards, then others; `idev-id-ca-<n>`.
    pub authorities: Vec<Authority>,
    /// 16 hexadecimal digits that name the device's identity: of SHA-256 of its key's TPM name.
    pub serial: String,
}

/// A certificate and the key that it is for.
#[derive(Debug)]
pub struct Identity {
    /// `idev-id`, `idev-id-p256`, …
    pub label: String,
    /// The end-entity certificate.
    pub certificate: Certificate,
    /// The certified key; `None` for an algorithm that is not supported.
    pub public: Option<PublicKey>,
    /// The private key behind it; `None` if the TPM holds no key for this certificate.
    pub key: Option<Arc<Key>>,
}

/// A CA's certificate.
#[derive(Debug)]
pub struct Authority {
    /// `idev-id-ca-<n>`
    pub label: String,
    /// The certificate.
    pub certificate: Certificate,
}

/// Why there is no identity to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookError {
    /// The TPM, or the way to it.
    Tpm(TpmError),
    /// The TPM answered, but no certificate was found; the text says what was looked at.
    NoIdentity(String),
}

/// What must change before a new look can find something else. Costs no TPM command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    generation: Option<FileStamp>,
    chain: Option<FileStamp>,
    faults: u64,
}

type FileStamp = (u64, u64, SystemTime);

/// Where a certificate was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Nv(u32),
    File(PathBuf),
}

impl IdevidStore {
    /// Nothing is read yet.
    pub fn new(config: &Config) -> Self {
        Self {
            hints: config.identities.clone(),
            chain: config.chain.clone(),
            generation: config.generation.clone(),
        }
    }

    /// The state of what a look depends on; only a look after it changed can differ.
    pub fn stamp(&self, tpm: &Tpm) -> Stamp {
        Stamp {
            generation: file_stamp(&self.generation),
            chain: file_stamp(&self.chain),
            faults: tpm.faults(),
        }
    }

    /// Searches the TPM. One command for each list of handles, two for a certificate (one more for
    /// each further piece of a large one), one for each key until all certificates have theirs.
    pub fn look(&self, tpm: &Tpm) -> Result<Found, LookError> {
        let (mut leaves, mut authorities) = (Vec::new(), Vec::new());
        for (origin, certificate) in self.certificates(tpm)? {
            match certificate.is_authority() {
                true => authorities.push(certificate),
                false => leaves.push((origin, certificate)),
            }
        }
        authorities.extend(self.chain_files());
        if leaves.is_empty() {
            return Err(LookError::NoIdentity(format!(
                "no end-entity certificate in the NV indices 0x{:08X}-0x{:08X} nor in \
                 [[identity]]; has the factory written one?",
                CERTIFICATE_RANGE.start(),
                CERTIFICATE_RANGE.end()
            )));
        }
        let identities = named(self.paired(tpm, leaves)?);
        let Some(first) = identities.first() else {
            return Err(LookError::NoIdentity(
                "only attestation keys have certificates".into(),
            ));
        };
        Ok(Found {
            serial: serial(first),
            authorities: chain_order(&first.certificate, authorities),
            identities,
        })
    }

    fn certificates(&self, tpm: &Tpm) -> Result<Vec<(Origin, Certificate)>, LookError> {
        let mut found = Vec::new();
        for file in self
            .hints
            .iter()
            .filter_map(|hint| hint.certificate.as_ref())
        {
            let here = read_certificates(file);
            found.extend(
                here.into_iter()
                    .map(|one| (Origin::File(file.clone()), one)),
            );
        }
        let hinted = self.hints.iter().filter_map(|hint| hint.nv);
        let ranged = tpm
            .handles(*CERTIFICATE_RANGE.start())?
            .into_iter()
            .filter(|index| CERTIFICATE_RANGE.contains(index));
        let mut indices: Vec<u32> = Vec::new();
        for index in hinted.chain(ranged) {
            if !indices.contains(&index) {
                indices.push(index);
            }
        }
        for index in indices {
            match read_nv(tpm, index) {
                Ok(here) => found.extend(here.into_iter().map(|one| (Origin::Nv(index), one))),
                Err(NvFault::Skipped(why)) => warn!("NV index 0x{index:08X}: {why}"),
                Err(NvFault::Tpm(error)) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    fn chain_files(&self) -> Vec<Certificate> {
        let Ok(entries) = std::fs::read_dir(&self.chain) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
            .collect();
        files.sort();
        files
            .iter()
            .flat_map(|file| read_certificates(file))
            .collect()
    }

    /// Each certificate with the key behind it, if the TPM has that; attestation keys left out.
    fn paired(
        &self,
        tpm: &Tpm,
        leaves: Vec<(Origin, Certificate)>,
    ) -> Result<Vec<Leaf>, LookError> {
        let mut leaves: Vec<Leaf> = leaves
            .into_iter()
            .map(|(origin, certificate)| Leaf {
                origin,
                public: certificate.public_key(),
                certificate,
                key: None,
                attestation: false,
            })
            .collect();
        for handle in self.handles(tpm)? {
            if leaves
                .iter()
                .all(|leaf| leaf.key.is_some() || leaf.public.is_none())
            {
                break;
            }
            let (area, resident) = match tpm.resident_key(handle) {
                Ok(found) => found,
                Err(error @ (TpmError::Response(_) | TpmError::Unsupported(_))) => {
                    debug!("handle 0x{handle:08X}: {error}");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(area) = PublicArea::parse(&area) else {
                continue;
            };
            if !leaves
                .iter()
                .any(|leaf| leaf.public.as_ref() == Some(&area.key))
            {
                continue;
            }
            let attestation = !area.is_identity();
            let hashes = match area.key {
                PublicKey::Rsa { .. } => tpm.hashes()?,
                PublicKey::Ec { .. } => Vec::new(),
            };
            let key = Arc::new(Key::new(resident, area, hashes));
            for leaf in &mut leaves {
                if leaf.key.is_none() && leaf.public.as_ref() == Some(key.public()) {
                    leaf.attestation = attestation;
                    leaf.key = Some(Arc::clone(&key));
                }
            }
        }
        leaves.retain(|leaf| {
            match (&leaf.key, leaf.attestation) {
                (Some(key), true) => {
                    let handle = key.handle();
                    info!(
                        "{}: for key 0x{handle:08X}, which is no identity",
                        leaf.origin
                    );
                }
                (Some(key), false) => {
                    info!("{}: identity, key 0x{:08X}", leaf.origin, key.handle());
                }
                (None, _) => warn!(
                    "{}: no persistent key of this TPM belongs to the certificate of {}; it is \
                     shown without a private key",
                    leaf.origin,
                    leaf.certificate.subject()
                ),
            }
            !leaf.attestation
        });
        Ok(leaves)
    }

    /// Persistent handles, the likeliest first.
    fn handles(&self, tpm: &Tpm) -> Result<Vec<u32>, LookError> {
        let mut handles = tpm.handles(PERSISTENT)?;
        handles.sort_by_key(|handle| {
            let hinted = self.hints.iter().any(|hint| hint.handle == Some(*handle));
            (!hinted, !DEVID_HANDLES.contains(handle), *handle)
        });
        Ok(handles)
    }
}

struct Leaf {
    origin: Origin,
    certificate: Certificate,
    public: Option<PublicKey>,
    key: Option<Arc<Key>>,
    attestation: bool,
}

/// Orders and labels: the key at 0x81020000, other keys by where their certificates are, then
/// certificates without key.
fn named(mut leaves: Vec<Leaf>) -> Vec<Identity> {
    leaves.sort_by_key(|leaf| {
        let handle = leaf.key.as_ref().map(|key| key.handle());
        let index = match leaf.origin {
            Origin::File(_) => 0,
            Origin::Nv(index) => index,
        };
        (
            handle.is_none(),
            handle != Some(IDEVID_HANDLE),
            index,
            handle,
        )
    });
    let mut labels: Vec<String> = Vec::new();
    leaves
        .into_iter()
        .map(|leaf| {
            let base = match (labels.is_empty(), &leaf.public) {
                (true, _) => LABEL.to_owned(),
                (false, Some(public)) => format!("{LABEL}-{public}"),
                (false, None) => format!("{LABEL}-other"),
            };
            let label = (1..)
                .map(|n| {
                    if n == 1 {
                        base.clone()
                    } else {
                        format!("{base}-{n}")
                    }
                })
                .find(|label| !labels.contains(label))
                .unwrap_or(base);
            labels.push(label.clone());
            let Leaf {
                certificate,
                public,
                key,
                ..
            } = leaf;
            Identity {
                label,
                certificate,
                public,
                key,
            }
        })
        .collect()
}

/// From the leaf's issuer upwards, then what belongs to none of that; each certificate once.
fn chain_order(leaf: &Certificate, mut authorities: Vec<Certificate>) -> Vec<Authority> {
    let mut ordered: Vec<Certificate> = Vec::new();
    let mut issuer = leaf.issuer_der();
    while let Some(at) = authorities
        .iter()
        .position(|one| one.subject_der() == issuer)
    {
        let next = authorities.remove(at);
        issuer = next.issuer_der();
        ordered.push(next);
    }
    for other in authorities {
        if !ordered.contains(&other) {
            ordered.push(other);
        }
    }
    ordered
        .into_iter()
        .enumerate()
        .map(|(n, certificate)| Authority {
            label: format!("{LABEL}-ca-{}", n + 1),
            certificate,
        })
        .collect()
}

fn serial(identity: &Identity) -> String {
    let digest = match &identity.key {
        Some(key) => Sha256::digest(key.name()),
        None => Sha256::digest(identity.certificate.der()),
    };
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

enum NvFault {
    /// Nothing to be had from this index; the search goes on.
    Skipped(String),
    Tpm(TpmError),
}

fn read_nv(tpm: &Tpm, index: u32) -> Result<Vec<Certificate>, NvFault> {
    let skip = |error| match error {
        TpmError::Response(code) => NvFault::Skipped(format!("TPM answered {code}")),
        TpmError::Unsupported(why) => NvFault::Skipped(why),
        other => NvFault::Tpm(other),
    };
    let public = tpm.nv_public(index).map_err(skip)?;
    if public.size < SMALLEST_CERTIFICATE {
        return Ok(Vec::new());
    }
    if !public.readable_by_own_auth() {
        return Err(NvFault::Skipped(format!(
            "not readable by its own authorisation (attributes 0x{:08X})",
            public.attributes
        )));
    }
    let content = tpm.nv_read(index, public.size).map_err(skip)?;
    Certificate::parse_all(&content).map_err(|why| NvFault::Skipped(why.to_string()))
}

fn read_certificates(file: &Path) -> Vec<Certificate> {
    let parsed = std::fs::read(file)
        .map_err(|error| error.to_string())
        .and_then(|bytes| Certificate::parse_all(&bytes).map_err(|error| error.to_string()));
    parsed.unwrap_or_else(|why| {
        warn!("{}: {why}", file.display());
        Vec::new()
    })
}

fn file_stamp(path: &Path) -> Option<FileStamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

impl From<TpmError> for LookError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tpm(error) => error.fmt(f),
            Self::NoIdentity(looked) => f.write_str(looked),
        }
    }
}

impl std::error::Error for LookError {}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nv(index) => write!(f, "NV index 0x{index:08X}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
