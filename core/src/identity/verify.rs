//! Verifies an identity: its key must sign, and a trusted CA must have issued its certificate. The
//! certificate must be a device certificate (IEEE 802.1AR, section 8).

use super::device::Device;
use super::entry::TokenEntry;
use super::key_file::read_key;
use super::prove::{NOT_TRIED, PossessionProof, prove};
use super::trusted_files::{check_trusted, read_certificates};
use super::{IdentityError, IdentityErrorKind};
use crate::file;
use crate::key::PublicKey;
use crate::pem;
use crate::shell::argument;
use crate::store::{Key, LoginError, ObjectKind, SignError, UserType};
use crate::tpm::{Secret, TpmError};
use crate::trouble::trouble;
use crate::x509::Certificate;
use crate::x509::checks::{Check, Outcome, profile_checks, validity_check};
use crate::x509::clock::now;
use crate::x509::crl::Crl;
use crate::x509::files::{self, CertificateFileError};
use crate::x509::path::{PathResult, build_path, revocation};
use log::warn;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_cert::der::DateTime;

/// The largest size of a file with CRLs, in bytes.
const LARGEST_LIST: u64 = 16 << 20;
const KEY: &str = "key";
const REVOCATION: &str = "revocation";

/// The options of `devid verify`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verification<'a> {
    /// A file with additional trusted certificates.
    pub ca_file: Option<&'a Path>,
    /// Files with CRLs in DER or PEM. Without such files, revocation is not checked.
    pub revoked: &'a [PathBuf],
    /// The PIN of the key. The PIN is tried only if the configuration names none. The TPM counts a
    /// wrong PIN.
    pub pin: Option<&'a Secret>,
}

/// The result of `devid verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The label of the verified identity.
    pub label: String,
    /// The result of all checks together.
    pub verdict: Verdict,
    /// The result as one line of text.
    pub summary: String,
    /// True if the clock was plausible, so that the validity was checked.
    pub validity_checked: bool,
    /// True if CRLs cover every certificate below the trusted one, and revoke none of them.
    pub revocation_checked: bool,
    /// The results of the checks.
    pub points: Vec<Check>,
}

/// The result of all checks together: the first variant that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A check of the certificate or of its path failed.
    Failed,
    /// No check failed, but the key made no signature. So the device may not have the key.
    NotProven,
    /// The key made a signature, but the certificate of the issuing CA is missing.
    CannotBeVerified,
    /// The key made a signature, and its certificate leads to a trusted certificate.
    Verified,
}

/// Trusted certificates.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) certificates: Vec<Certificate>,
    /// The error of the first file in the folder that could not be read, if any.
    unread: Option<IdentityError>,
}

impl Trusted {
    /// Returns these trusted certificates together with further trusted certificates.
    #[must_use]
    pub(super) fn and(mut self, more: &[Certificate]) -> Self {
        self.certificates.extend_from_slice(more);
        self
    }

    /// Returns the certification path from a certificate to a trusted certificate. `others` holds
    /// certificates that the path may use.
    ///
    /// # Errors
    ///
    /// Fails if there is no path, but an unreadable file may hold the missing certificate.
    pub(super) fn build_path(
        self,
        leaf: &Certificate,
        others: &[Certificate],
        now: Option<DateTime>,
    ) -> Result<PathResult, IdentityError> {
        match (
            build_path(leaf, &self.certificates, others, now),
            self.unread,
        ) {
            (PathResult::NoIssuer(_) | PathResult::SelfSigned, Some(fault)) => Err(fault),
            (way, _) => Ok(way),
        }
    }
}

impl Device {
    /// Verifies the identity of a token entry.
    ///
    /// # Errors
    ///
    /// Fails if the entry has no certificate, if a file cannot be read, if the TPM does not answer,
    /// or if the PIN is wrong.
    pub fn verify(&self, entry: &TokenEntry, how: Verification) -> Result<Report, IdentityError> {
        let Some(certificate) = entry.certificate() else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!(
                    "{}: this key has no certificate; devid csr {} makes a request, devid \
                     import-cert imports the CA's answer",
                    entry.label,
                    argument(&entry.label)
                ),
            ));
        };
        self.unlock_for(entry)?;
        let trusted = self.trusted(how.ca_file)?;
        let others = self.known_ca_certificates();
        let mut lists = Vec::new();
        for path in how.revoked {
            lists.extend(lists_of(path)?);
        }
        let key = self.key_check(entry, certificate, how.pin)?;
        let now = now();
        let way = trusted.build_path(certificate, &others, now.ok())?;
        let mut points = profile_checks(certificate);
        points.push(validity_check(certificate, now));
        points.push(chain_check(&way));
        points.push(revocation_check(&way, &lists, now));
        Ok(Report::of(entry, key, &way, points, &self.config.trust))
    }

    /// Returns the trusted certificates. They come from a file that the caller names, and from the
    /// folder `trust`.
    ///
    /// # Errors
    ///
    /// Fails if the file or the folder cannot be read.
    pub(super) fn trusted(&self, more: Option<&Path>) -> Result<Trusted, IdentityError> {
        let mut trusted = Trusted {
            certificates: more.map(read_certificates).transpose()?.unwrap_or_default(),
            unread: None,
        };
        let folder = &self.config.trust;
        match check_trusted(folder) {
            Ok(()) => {}
            Err(fault) if fault.kind == IdentityErrorKind::Refused => {
                warn!("{fault}");
                return Ok(trusted);
            }
            Err(fault) => return Err(fault),
        }
        for file in files::in_folder(folder).map_err(IdentityError::file(folder))? {
            for what in file.left_out() {
                warn!("{what}");
            }
            match file.certificates {
                Ok(found) => trusted.certificates.extend(found),
                Err(CertificateFileError::Failed(error)) if trouble(&error).is_some() => {
                    let fault = IdentityError::file(&file.path)(error);
                    trusted.unread = trusted.unread.or(Some(fault));
                }
                Err(_) => {}
            }
        }
        Ok(trusted)
    }

    /// Returns the CA certificates in the tokens. A CA certificate in a token need not be trusted.
    pub(super) fn known_ca_certificates(&self) -> Vec<Certificate> {
        self.inventory().ca_certificates()
    }

    /// Checks that the private key makes a signature. The result is passed or noted only if the key
    /// made a signature.
    fn key_check(
        &self,
        entry: &TokenEntry,
        certificate: &Certificate,
        pin: Option<&Secret>,
    ) -> Result<Check, IdentityError> {
        let Some(public) = certificate.public_key() else {
            let why = "the certified key is of a type that is not supported".into();
            return Ok(Check::skipped(KEY, why));
        };
        if let Some(path) = &entry.software {
            return Ok(match self.prove_file(path, &public) {
                Ok(proof) => proof_check(proof, Some(path))?,
                Err(point) => point,
            });
        }
        let Some(key) = &entry.key else {
            return Ok(match (entry.attests, certificate.is_ca()) {
                (true, _) => Check::skipped(
                    KEY,
                    "not checked: an attestation key signs only data that the TPM itself created"
                        .into(),
                ),
                (_, true) => Check::skipped(
                    KEY,
                    "not checked: this device does not have the key of a CA".into(),
                ),
                _ => Check::failed(
                    KEY,
                    "this TPM has no key that belongs to the certificate".into(),
                ),
            });
        };
        let proof = match (prove(&self.tpm, key, &public), pin) {
            (PossessionProof::NoSignature(SignError::NotLoggedIn), Some(pin)) => {
                let opened = self.logged_in(entry, key, pin)?;
                prove(&self.tpm, &opened, &public)
            }
            (proof, _) => proof,
        };
        proof_check(proof, None)
    }

    /// Lets a key in a file sign, and verifies the signature. `Err` holds the check that reports an
    /// unusable file.
    fn prove_file(&self, path: &Path, public: &PublicKey) -> Result<PossessionProof, Check> {
        let key = read_key(path).map_err(|unread| match unread.is_hidden() {
            true => Check::skipped(KEY, unread.at(path)),
            false => Check::failed(KEY, unread.at(path)),
        })?;
        Ok(prove(&self.tpm, &key, public))
    }

    /// Logs in with a PIN to the token of an entry, and returns the private key of the entry.
    pub(super) fn logged_in(
        &self,
        entry: &TokenEntry,
        key: &Arc<Key>,
        pin: &Secret,
    ) -> Result<Arc<Key>, IdentityError> {
        let fault = |error| match error {
            LoginError::Tpm(error) => IdentityError::from(error),
            other => IdentityError::failed(format!("{}: {other}", entry.label)),
        };
        if let Some(store) = self.store_of(entry) {
            store.login(UserType::User, pin).map_err(fault)?;
            return Ok(Arc::clone(key));
        }
        for store in &self.factory_with_pin {
            // The identity that needs the PIN may be in another slot, so an error of this slot does
            // not matter.
            let Ok(listing) = store.scan() else { continue };
            let opened = listing.objects.iter().find_map(|shown| match &shown.kind {
                ObjectKind::Pair { key: shown, .. } if shown.public() == key.public() => {
                    Some(shown)
                }
                _ => None,
            });
            if let Some(opened) = opened {
                store.login(UserType::User, pin).map_err(fault)?;
                return Ok(Arc::clone(opened));
            }
        }
        Ok(Arc::clone(key))
    }
}

/// Returns the check that reports whether the key made a signature. `file` is the path of a
/// software key.
fn proof_check(proof: PossessionProof, file: Option<&Path>) -> Result<Check, IdentityError> {
    let signed = "it signed random bytes, and the public key of the certificate verifies the \
                  signature";
    Ok(match (proof, file) {
        (PossessionProof::Proven, None) => Check::passed(KEY, signed.into()),
        // IEEE 802.1AR requires that the key of a device cannot be copied.
        (PossessionProof::Proven, Some(path)) => Check::noted(
            KEY,
            format!(
                "{signed}; but the key is in a file and can be copied: {}",
                path.display()
            ),
        ),
        (PossessionProof::OtherKey, _) => Check::failed(
            KEY,
            "the public key of the certificate does not verify the key's signature: key and \
             certificate do not belong together"
                .into(),
        ),
        (PossessionProof::NotTried, _) => Check::skipped(KEY, NOT_TRIED.into()),
        // The TPM is in lockout, so the key made no signature. The key itself may be without fault.
        (PossessionProof::NoSignature(SignError::Tpm(error @ TpmError::Lockout(_))), _) => {
            Check::skipped(KEY, IdentityError::from(error).text)
        }
        (PossessionProof::NoSignature(SignError::Tpm(error)), _) => {
            let fault = IdentityError::from(error);
            if fault.kind == IdentityErrorKind::Tpm {
                return Err(fault);
            }
            Check::failed(KEY, fault.text)
        }
        (PossessionProof::NoSignature(SignError::NotLoggedIn), _) => Check::skipped(
            KEY,
            "it needs a PIN: give the PIN with --pin-file FILE, or name its source in config.toml \
             (auth under [[identity]], pin under [[token]])"
                .into(),
        ),
        (PossessionProof::NoSignature(error), _) => Check::failed(KEY, error.to_string()),
    })
}

fn chain_check(way: &PathResult) -> Check {
    let name = "chain";
    match way {
        PathResult::Trusted(path) => {
            let subjects: Vec<String> = path.iter().map(Certificate::subject).collect();
            Check::passed(name, subjects.join(" <- "))
        }
        PathResult::NoIssuer(issuer) => {
            Check::skipped(name, format!("the certificate of {issuer} is missing"))
        }
        PathResult::SelfSigned => Check::skipped(name, "self-signed: no CA issued it".into()),
        PathResult::Invalid(why) => Check::failed(name, why.clone()),
    }
}

/// Checks whether a certificate of the path was revoked.
fn revocation_check(way: &PathResult, lists: &[Crl], now: Result<DateTime, DateTime>) -> Check {
    let PathResult::Trusted(path) = way else {
        let why = "not checked: the chain leads to no trusted certificate";
        return Check::skipped(REVOCATION, why.into());
    };
    if lists.is_empty() {
        let why = "not checked: no CRL was given (--crl FILE)";
        return Check::skipped(REVOCATION, why.into());
    }
    match revocation::check(path, lists, now.ok()) {
        Err(why) => Check::failed(REVOCATION, why),
        Ok(said) if said.by.is_empty() => Check::skipped(
            REVOCATION,
            "not checked: the certificate itself is trusted".into(),
        ),
        Ok(said) => {
            let dates = match now {
                Ok(_) => "",
                Err(_) => "; the dates of the CRLs were not checked",
            };
            let by = format!("not revoked: {}{dates}", said.by.join(", "));
            match said.unknown.is_empty() {
                true => Check::passed(REVOCATION, by),
                false => Check::noted(
                    REVOCATION,
                    format!("{by}; no CRL was given for {}", said.unknown.join(", ")),
                ),
            }
        }
    }
}

/// Returns the CRLs in a file. Fails with the reason if the file holds none.
fn lists_of(path: &Path) -> Result<Vec<Crl>, IdentityError> {
    let bytes = file::read(path, LARGEST_LIST).map_err(IdentityError::file(path))?;
    let fault = |why: String| IdentityError::failed(format!("{}: {why}", path.display()));
    if bytes.first() == Some(&0x30) {
        return Ok(vec![Crl::from_der(&bytes).map_err(fault)?]);
    }
    let parts = pem::parse(&bytes).map_err(|why| fault(format!("it is not a CRL: {why}")))?;
    let is_list = |block: &&pem::Block| matches!(block.label, "X509 CRL" | "CRL");
    let lists = parts.blocks.iter().filter(is_list);
    let lists: Result<Vec<Crl>, _> = lists.map(|block| Crl::from_der(&block.der)).collect();
    match lists.map_err(fault)? {
        lists if lists.is_empty() => Err(fault(format!(
            "it is not a CRL: the first PEM block is {}",
            parts.blocks.first().map_or("nothing", |block| block.label)
        ))),
        lists => Ok(lists),
    }
}

impl Report {
    fn of(
        entry: &TokenEntry,
        key: Check,
        way: &PathResult,
        points: Vec<Check>,
        trust: &Path,
    ) -> Self {
        let label = entry.label.clone();
        let signed = matches!(key.outcome, Outcome::Passed | Outcome::Noted);
        let not_signed = key.text.clone();
        let mut all = vec![key];
        all.extend(points);
        let is = |outcome| move |point: &&Check| point.outcome == outcome;
        let wrong: Vec<String> = all
            .iter()
            .filter(is(Outcome::Failed))
            .map(Check::to_string)
            .collect();
        let validity = all.iter().find(|point| point.name == "validity");
        let unseen = validity.filter(is(Outcome::Skipped));
        let but = unseen.map_or(String::new(), |point| format!(", but its {point}"));
        let revocation = all.iter().find(|point| point.name == REVOCATION);
        let revocation_checked = revocation.is_some_and(|it| it.outcome == Outcome::Passed);
        let unchecked = match revocation.filter(is(Outcome::Noted)) {
            Some(point) => format!("; {point}"),
            None if revocation_checked => "; not revoked".into(),
            None => "; revocation not checked".into(),
        };
        let trust = trust.display();
        let (verdict, summary) = match way {
            _ if !wrong.is_empty() => (
                Verdict::Failed,
                format!("verification failed: {}", wrong.join("; ")),
            ),
            PathResult::Invalid(why) => (Verdict::Failed, format!("verification failed: {why}")),
            _ if !signed => (
                Verdict::NotProven,
                format!("not verified, because the key was not proven: {not_signed}"),
            ),
            PathResult::SelfSigned => (
                Verdict::CannotBeVerified,
                format!(
                    "cannot be verified, because the CA certificate for it is not available: it is \
                     self-signed{but}. {}; or trust this certificate itself, with --ca FILE or in \
                     {trust}",
                    certified_by_a_ca(entry)
                ),
            ),
            PathResult::NoIssuer(issuer) => (
                Verdict::CannotBeVerified,
                format!(
                    "cannot be verified, because the CA certificate for it is not available: that \
                     of {issuer}{but}. Give the certificate with --ca FILE, or put it into {trust}"
                ),
            ),
            PathResult::Trusted(_) => (Verdict::Verified, format!("verified{but}{unchecked}")),
        };
        Self {
            summary: format!("{label}: {summary}"),
            label,
            verdict,
            validity_checked: unseen.is_none(),
            revocation_checked,
            points: all,
        }
    }
}

fn certified_by_a_ca(entry: &TokenEntry) -> String {
    format!(
        "Ask a CA to certify it (devid csr {}, then devid import-cert)",
        argument(&entry.label)
    )
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
