//! The device as a tree: its TPM, tokens, keys, certificates, and the CAs above these.

use super::ca_certificates::above;
use super::description::KeyDescription;
use super::device::{Device, Inventory};
use super::entry::{SOFTWARE, TokenEntry};
use super::expiry::Expiry;
use super::status::{MasterKey, TpmStatus};
use super::{IdentityError, IdentityErrorKind};
use crate::x509::clock::now;
use crate::x509::comparison::is_same_name;
use crate::x509::{Certificate, Profile};
use log::warn;
use serde::Serialize;
use std::path::PathBuf;
use x509_cert::der::DateTime;

/// All that a device has, from the whole to the parts.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceTree {
    /// The serial number of the device, as its first certificate names it.
    pub serial: Option<String>,
    /// Its model, from the same certificate.
    pub model: Option<String>,
    /// Its TPM.
    pub tpm: TpmBranch,
    /// The key that wraps the device's own keys.
    pub master: MasterKey,
    /// Its tokens, `idev-id` first; `software` is what lies beside them.
    pub tokens: Vec<TokenBranch>,
}

/// The TPM.
#[derive(Debug, Clone, Serialize)]
pub struct TpmBranch {
    /// Where it is looked for.
    pub tcti: String,
    /// What it says of itself.
    pub status: Option<TpmStatus>,
    /// Why it says nothing.
    pub problem: Option<String>,
}

/// A token.
#[derive(Debug, Clone, Serialize)]
pub struct TokenBranch {
    /// Its name in the configuration.
    pub token: String,
    /// Its serial number, if it can be read.
    pub serial: Option<String>,
    /// What cannot be read, and why.
    pub problems: Vec<String>,
    /// Keys that were lost with a former master key; `devid prune` deletes these files.
    pub lost: Vec<PathBuf>,
    /// What it holds. The certificate of a CA stands here only if it is above no other.
    pub objects: Vec<ObjectBranch>,
}

/// A key with its certificates, or a certificate alone.
#[derive(Debug, Clone, Serialize)]
pub struct ObjectBranch {
    /// Its label.
    pub label: String,
    /// CKA_ID in hexadecimal digits.
    pub id: String,
    /// The key.
    pub key: Option<KeyDescription>,
    /// True if its key signs only what the TPM itself made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attests: bool,
    /// True if the key is of no use, since the master key that wrapped it is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Its certificates.
    pub certificates: Vec<CertificateBranch>,
}

/// A certificate, with those of the CAs above it.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateBranch {
    /// As RFC 4514 writes it.
    pub subject: String,
    /// NV index or file; `None` of a CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// When it ends.
    pub expiry: Expiry,
    /// True if it names its own subject as its issuer.
    pub self_issued: bool,
    /// True if it is in the folder `trust`.
    pub trusted: bool,
    /// The certificate of its issuer, if the device has it.
    pub issuer: Option<Box<CertificateBranch>>,
    /// The name of an issuer whose certificate the device has not.
    pub missing_issuer: Option<String>,
}

impl Device {
    /// Looks at everything, and changes nothing. What cannot be read stands in the tree.
    pub fn tree(&self) -> DeviceTree {
        let inventory = self.inventory();
        let master = self.master_key(&inventory, None);
        let known = inventory.entries.iter().flat_map(|one| &one.certificates);
        let known = known.map(|placed| &placed.certificate);
        let mut authorities: Vec<Certificate> = known.filter(|one| one.is_ca()).cloned().collect();
        let trusted = self.trusted(None);
        let trusted = trusted.map(|trusted| trusted.certificates);
        let trusted = trusted.unwrap_or_else(|fault| {
            warn!("{fault}");
            Vec::new()
        });
        authorities.extend(trusted.iter().cloned());
        let leaves = inventory.entries.iter().flat_map(TokenEntry::shown_leaves);
        let shown_above = above(&leaves.collect::<Vec<_>>(), &authorities);
        let forest = Forest {
            device: self,
            authorities: &authorities,
            trusted: &trusted,
            shown_above,
            master_is_gone: master.held == Some(false),
            now: now(),
        };
        let mut certificates = inventory.entries.iter().filter_map(TokenEntry::certificate);
        let named = certificates.find_map(|one| {
            let profile = Profile::of(one);
            profile.device_serial.is_some().then_some(profile)
        });
        DeviceTree {
            serial: named.as_ref().and_then(|named| named.device_serial.clone()),
            model: named.and_then(|named| named.model),
            tpm: self.tpm_branch(),
            master,
            tokens: forest.tokens(&inventory),
        }
    }

    fn tpm_branch(&self) -> TpmBranch {
        let read = TpmStatus::read(&self.tpm).map_err(IdentityError::from);
        TpmBranch {
            tcti: self.config().tcti.to_string(),
            problem: read.as_ref().err().map(|fault| fault.text.clone()),
            status: read.ok(),
        }
    }
}

impl TokenEntry {
    /// The certificates below which those of CAs are shown: all that are no CA's, and all of a key that
    /// the device has.
    fn shown_leaves(&self) -> impl Iterator<Item = &Certificate> {
        let is_ours = self.has_key() || self.software.is_some();
        let certificates = self.certificates.iter().map(|placed| &placed.certificate);
        certificates.filter(move |one| is_ours || !one.is_ca())
    }
}

/// What is needed to draw each branch.
struct Forest<'a> {
    device: &'a Device,
    authorities: &'a [Certificate],
    /// Those of the folder `trust`.
    trusted: &'a [Certificate],
    /// Those of the authorities that are above a certificate that is shown.
    shown_above: Vec<&'a Certificate>,
    master_is_gone: bool,
    now: Result<DateTime, DateTime>,
}

impl Forest<'_> {
    fn tokens(&self, inventory: &Inventory) -> Vec<TokenBranch> {
        let read = inventory.serials.iter().map(|(token, serial)| {
            let unread = inventory.unread.iter().filter(|(one, _)| one == token);
            let problems = unread.map(|(_, fault)| fault.text.clone()).collect();
            self.token(token, Some(serial), problems, inventory)
        });
        let failed = inventory.faults.iter().map(|(token, fault)| {
            let problem = match fault.kind {
                // That it is empty is said by what it holds.
                IdentityErrorKind::NotFound => Vec::new(),
                _ => vec![fault.text.clone()],
            };
            self.token(token, None, problem, inventory)
        });
        let mut tokens: Vec<TokenBranch> = read.chain(failed).collect();
        let is_shown = |name: &str| tokens.iter().any(|one| one.token == name);
        let has_software = inventory.entries.iter().any(|one| one.token == SOFTWARE);
        if has_software && !is_shown(SOFTWARE) {
            tokens.push(self.token(SOFTWARE, None, Vec::new(), inventory));
        }
        tokens
    }

    fn token(
        &self,
        name: &str,
        serial: Option<&String>,
        problems: Vec<String>,
        inventory: &Inventory,
    ) -> TokenBranch {
        let store = self.device.stores().find(|store| store.name() == name);
        let lost = store.map(|store| store.lost_files().unwrap_or_default());
        let entries = inventory.entries.iter().filter(|one| one.token == name);
        TokenBranch {
            token: name.to_owned(),
            serial: serial.cloned(),
            problems,
            lost: lost.unwrap_or_default(),
            objects: entries.filter_map(|one| self.object(one)).collect(),
        }
    }

    /// `None` for the certificate of a CA that is shown above another.
    fn object(&self, entry: &TokenEntry) -> Option<ObjectBranch> {
        let has_key = entry.has_key() || entry.software.is_some();
        let certificates = entry.certificates.iter().map(|placed| &placed.certificate);
        let is_shown = |one: &Certificate| self.shown_above.contains(&one);
        if !has_key && !entry.attests && certificates.clone().all(is_shown) {
            return None;
        }
        let described = self.device.describe(entry);
        let certificates = entry.certificates.iter().map(|placed| CertificateBranch {
            place: Some(placed.place.clone()),
            ..self.certificate(&placed.certificate, &mut Vec::new())
        });
        Some(ObjectBranch {
            label: described.label,
            id: described.id,
            lost: self.master_is_gone && self.device.is_wrapped_away(entry),
            key: described.key,
            attests: described.attests,
            certificates: certificates.collect(),
        })
    }

    /// `below` are the certificates that lead here: CAs may certify each other.
    fn certificate<'b>(
        &'b self,
        certificate: &'b Certificate,
        below: &mut Vec<&'b Certificate>,
    ) -> CertificateBranch {
        let self_issued = is_same_name(certificate.issuer_der(), certificate.subject_der());
        let issuer = match self_issued {
            true => None,
            false => above(&[certificate], self.authorities)
                .into_iter()
                .find(|one| *one != certificate && !below.contains(one)),
        };
        below.push(certificate);
        CertificateBranch {
            subject: certificate.subject(),
            place: None,
            expiry: Expiry::of(certificate, self.now),
            self_issued,
            trusted: self.trusted.contains(certificate),
            missing_issuer: (issuer.is_none() && !self_issued).then(|| certificate.issuer()),
            issuer: issuer.map(|one| Box::new(self.certificate(one, below))),
        }
    }
}
