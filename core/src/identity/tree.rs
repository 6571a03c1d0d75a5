//! The device as a tree: its TPM, tokens, keys and certificates, with the CA certificates above
//! them.

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

/// The device as a tree of TPM, tokens, keys and certificates.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceTree {
    /// The serial number of the device, from the first certificate that has one.
    pub serial: Option<String>,
    /// The model of the device, from the certificate that has the serial number.
    pub model: Option<String>,
    /// The TPM of the device.
    pub tpm: TpmBranch,
    /// The master key, which wraps the keys of the device.
    pub master: MasterKey,
    /// The tokens of the device; `idev-id` is the first. `software` stands for an identity in
    /// files.
    pub tokens: Vec<TokenBranch>,
}

/// The TPM of the device, and its state.
#[derive(Debug, Clone, Serialize)]
pub struct TpmBranch {
    /// The configured TCTI.
    pub tcti: String,
    /// The properties of the TPM, if it answers.
    pub status: Option<TpmStatus>,
    /// The reason why the TPM does not answer, if it does not.
    pub problem: Option<String>,
}

/// A token.
#[derive(Debug, Clone, Serialize)]
pub struct TokenBranch {
    /// The name of the token in the configuration.
    pub token: String,
    /// The serial number of the token, if it can be read.
    pub serial: Option<String>,
    /// The reasons why parts of the token cannot be read.
    pub problems: Vec<String>,
    /// The files of keys that were lost with a former master key. `devid prune` deletes these
    /// files.
    pub lost: Vec<PathBuf>,
    /// The objects of the token. A CA certificate is listed only if it is above no other
    /// certificate.
    pub objects: Vec<ObjectBranch>,
}

/// A key with its certificates, or a certificate without key.
#[derive(Debug, Clone, Serialize)]
pub struct ObjectBranch {
    /// The label of the key or certificate.
    pub label: String,
    /// The CKA_ID in hexadecimal digits.
    pub id: String,
    /// The key, if the object has one.
    pub key: Option<KeyDescription>,
    /// True for an attestation key, which signs only data that the TPM itself created.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attests: bool,
    /// True if the key is lost together with the master key that wrapped it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// The certificates of the object.
    pub certificates: Vec<CertificateBranch>,
}

/// A certificate, with the CA certificates above it.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateBranch {
    /// The subject in the format of RFC 4514.
    pub subject: String,
    /// Where the certificate is stored: an NV index or a file. `None` for a CA certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The remaining validity of the certificate.
    pub expiry: Expiry,
    /// True if the subject and the issuer of the certificate are equal.
    pub self_issued: bool,
    /// True if the folder `trust` contains the certificate.
    pub trusted: bool,
    /// The CA certificate of the issuer, with the CA certificates above it, if available.
    pub issuer: Option<Box<CertificateBranch>>,
    /// The name of the issuer, if its certificate is missing.
    pub missing_issuer: Option<String>,
}

impl Device {
    /// Collects the tree of the device. Changes nothing. Unreadable parts appear in the tree with
    /// the reason.
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
    /// Returns the certificates that are shown with their CA certificates: certificates that are
    /// not CA certificates, and all certificates of available keys.
    fn shown_leaves(&self) -> impl Iterator<Item = &Certificate> {
        let is_ours = self.has_key() || self.software.is_some();
        let certificates = self.certificates.iter().map(|placed| &placed.certificate);
        certificates.filter(move |one| is_ours || !one.is_ca())
    }
}

/// The token contents and trusted certificates from which the branches of the tree are made.
struct Forest<'a> {
    device: &'a Device,
    authorities: &'a [Certificate],
    /// The certificates of the folder `trust`.
    trusted: &'a [Certificate],
    /// The CA certificates above a certificate that is shown.
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
                // An empty token is no problem: its branch has no objects.
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

    /// Returns the branch of a token entry. Returns `None` for a CA certificate that is shown above
    /// another certificate.
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

    /// Returns the branch of a certificate. `below` holds the certificates below it, so that two
    /// CAs that certify each other cause no endless loop.
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
