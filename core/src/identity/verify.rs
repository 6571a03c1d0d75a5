//! Whether an identity can be believed: its key is there, its certificate is one of a device
//! (IEEE 802.1AR, section 8), and somebody trusted issued it.

use super::chain::{Way, way};
use super::device::{Device, Entity};
use super::profile::{
    CERTIFICATE_POLICIES, Profile, SUBJECT_ALT_NAME, authority_key_id, basic_constraints, critical,
    ends_in_right_form, key_usage,
};
use super::prove::{Proof, prove};
use super::software::SoftwareKey;
use super::time::{now, valid_at};
use super::{Fault, FaultKind};
use crate::certificate::Certificate;
use crate::file;
use crate::store::SignError;
use log::warn;
use serde::Serialize;
use std::path::Path;

/// More bytes than any sane file of certificates has.
const LARGEST_FILE: u64 = 1 << 20;

/// What the verification of an identity gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was verified.
    pub label: String,
    /// Of all points together.
    pub verdict: Verdict,
    /// One line that says the same.
    pub summary: String,
    /// Point by point.
    pub points: Vec<Point>,
}

/// What all points together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All is well.
    Verified,
    /// Something is wrong.
    Failed,
    /// Nothing is wrong, but the certificate of the CA is not here.
    CannotBeVerified,
}

/// One point of the verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub outcome: Outcome,
    /// In words.
    pub text: String,
}

/// How a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it must be.
    Passed,
    /// Not as the standard wants it, but so are many, and nothing follows from it.
    Noted,
    /// It could not be looked at.
    Skipped,
    /// Wrong.
    Failed,
}

impl Device {
    /// Verifies an identity. `authorities` is a file with certificates that are trusted beside
    /// those of the configuration.
    ///
    /// # Errors
    ///
    /// There is nothing to verify, or the file cannot be read, or the TPM cannot be asked.
    pub fn verify(&self, entity: &Entity, authorities: Option<&Path>) -> Result<Report, Fault> {
        let Some(certificate) = entity.certificate() else {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!(
                    "{}: there is no certificate for this key; devid csr {0} makes a request for \
                     one, devid import-cert takes what the CA answers",
                    entity.label
                ),
            ));
        };
        self.unlock_for(entity)?;
        let trusted = self.trusted(authorities)?;
        let others = self.known_authorities();
        let mut points = vec![self.key_point(entity, certificate)?];
        points.extend(profile_points(certificate));
        let now = now();
        points.push(match &now {
            Ok(now) => validity_point(valid_at(certificate, *now), &Profile::of(certificate)),
            Err(built) => Point::skipped(
                "validity",
                format!(
                    "not looked at: the clock stands before {built}, when this program was built; \
                     set it and verify again"
                ),
            ),
        });
        let way = way(certificate, &trusted, &others, now.ok());
        points.push(chain_point(&way));
        Ok(Report::of(entity, &way, points, &self.config.trust))
    }

    /// What is trusted: a file given with the call, and the folder `trust`.
    pub(super) fn trusted(&self, more: Option<&Path>) -> Result<Vec<Certificate>, Fault> {
        let mut trusted = match more {
            Some(path) => certificates_of(path)?,
            None => Vec::new(),
        };
        for path in pem_files(&self.config.trust) {
            match certificates_of(&path) {
                Ok(found) => trusted.extend(found),
                Err(fault) => warn!("{fault}"),
            }
        }
        Ok(trusted)
    }

    /// Certificates of CAs that are not trusted for being known.
    fn known_authorities(&self) -> Vec<Certificate> {
        let all = self.contents().entities.into_iter();
        let certificates = all.flat_map(|one| one.certificates);
        let certificates = certificates.map(|placed| placed.certificate);
        certificates.filter(Certificate::is_authority).collect()
    }

    fn key_point(&self, entity: &Entity, certificate: &Certificate) -> Result<Point, Fault> {
        let name = "key";
        let Some(public) = certificate.public_key() else {
            let why = "the certified key is of a kind that is not supported".into();
            return Ok(Point::skipped(name, why));
        };
        if let Some(path) = &entity.software {
            return Ok(software_point(name, path, certificate));
        }
        let Some(key) = &entity.key else {
            return Ok(match (entity.attests, certificate.is_authority()) {
                (true, _) => Point::skipped(
                    name,
                    "an attestation key signs only what the TPM itself made".into(),
                ),
                (_, true) => Point::skipped(name, "the key of a CA is not in this device".into()),
                _ => Point::failed(name, "no key of this TPM belongs to the certificate".into()),
            });
        };
        Ok(match prove(&self.tpm, key, &public) {
            Proof::Belongs => Point::passed(
                name,
                "it signed fresh random bytes, and the certificate verifies that".into(),
            ),
            Proof::Other => Point::failed(
                name,
                "the certificate does not verify what the key signed: they do not belong together"
                    .into(),
            ),
            Proof::None(SignError::Tpm(error)) => {
                let fault = Fault::from(error);
                if fault.kind == FaultKind::Tpm {
                    return Err(fault);
                }
                Point::failed(name, fault.text)
            }
            Proof::None(SignError::NotLoggedIn) => {
                Point::skipped(name, "the key asks for a PIN".into())
            }
            Proof::None(error) => Point::failed(name, error.to_string()),
        })
    }
}

/// A key in a file is no secret of a TPM's; whether it belongs to the certificate is seen without a
/// signature.
fn software_point(name: &'static str, path: &Path, certificate: &Certificate) -> Point {
    match SoftwareKey::read(path) {
        Ok(key) if certificate.public_key().as_ref() == Some(&key.public) => Point::noted(
            name,
            format!(
                "it belongs to the certificate, but is a file: {}",
                path.display()
            ),
        ),
        Ok(_) => Point::failed(name, "the certificate is for another key".into()),
        Err(fault) => Point::failed(name, fault.text),
    }
}

/// The certificates in a file; why there are none.
pub(super) fn certificates_of(path: &Path) -> Result<Vec<Certificate>, Fault> {
    let bytes = file::read(path, LARGEST_FILE).map_err(Fault::file(path))?;
    let found = Certificate::parse_all(&bytes);
    found.map_err(|why| Fault::failed(format!("{}: {why}", path.display())))
}

/// The PEM files of a folder, in the order of their names; none if it cannot be read.
pub(super) fn pem_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_pem = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "pem");
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_pem).collect();
    files.sort();
    files
}

/// What IEEE 802.1AR, section 8, and the TCG want of a device's certificate.
fn profile_points(certificate: &Certificate) -> Vec<Point> {
    let profile = Profile::of(certificate);
    let tbs = certificate.parsed().tbs_certificate();
    let serial = tbs.serial_number().as_bytes();
    let bits = serial.iter().skip_while(|byte| **byte == 0).count() * 8;
    let version = tbs.version();
    let mut points = vec![
        Point::noted_unless(
            version == x509_cert::certificate::Version::V3,
            "version",
            format!("{version:?}"),
        ),
        Point::noted_unless(
            (64..=160).contains(&bits) && serial.first().is_some_and(|first| first & 0x80 == 0),
            "serial number",
            format!("about {bits} bits; 802.1AR wants 64 to 160, and positive"),
        ),
        Point::failed_unless(
            !tbs.issuer().is_empty(),
            "issuer",
            format!("{:?}", profile.issuer),
        ),
        Point::noted_unless(
            profile.device_serial.is_some(),
            "subject",
            match &profile.device_serial {
                Some(serial) => format!("the device's serial number is {serial}"),
                None => "no serialNumber: the certificate does not name one device".into(),
            },
        ),
    ];
    points.push(match basic_constraints(certificate) {
        _ if certificate.is_authority() => Point::failed(
            "basic constraints",
            "CA:TRUE: a device must not issue certificates".into(),
        ),
        Some(_) => Point::passed("basic constraints", "CA:FALSE".into()),
        None => Point::passed("basic constraints", "none, so no CA".into()),
    });
    points.push(match key_usage(certificate) {
        Some(usage) if !usage.digital_signature() => {
            Point::failed("key usage", "digitalSignature is missing".into())
        }
        Some(_) => Point::passed(
            "key usage",
            profile.key_usage.unwrap_or_default().join(", "),
        ),
        None => Point::noted("key usage", "none: the key may be used for anything".into()),
    });
    points.push(Point::noted_unless(
        authority_key_id(certificate).is_some(),
        "authority key identifier",
        "802.1AR wants one".into(),
    ));
    points.push(match &profile.hardware_module {
        Some(module) if module.place == "otherName" => Point::passed(
            "hardware module name",
            format!("{} {}", module.kind, module.serial),
        ),
        Some(module) => Point::noted(
            "hardware module name",
            format!(
                "inside a {}, not in an otherName as RFC 4108 has it",
                module.place
            ),
        ),
        None => Point::noted("hardware module name", "none".into()),
    });
    points.push(Point::noted_unless(
        ends_in_right_form(certificate),
        "form of the end",
        "GeneralizedTime from 2050 on, UTCTime before".into(),
    ));
    let odd: Vec<String> = critical(certificate)
        .iter()
        .filter(|id| [CERTIFICATE_POLICIES, SUBJECT_ALT_NAME].contains(id))
        .map(ToString::to_string)
        .collect();
    if !odd.is_empty() && !tbs.subject().is_empty() {
        points.push(Point::noted(
            "critical extensions",
            format!("{}: 802.1AR wants them not critical", odd.join(", ")),
        ));
    }
    points
}

fn validity_point(valid: Result<(), String>, profile: &Profile) -> Point {
    match valid {
        Err(why) => Point::failed("validity", format!("the certificate {why}")),
        Ok(()) => Point::passed(
            "validity",
            match &profile.not_after {
                Some(end) => format!("until {end}"),
                None => "without end".into(),
            },
        ),
    }
}

fn chain_point(way: &Way) -> Point {
    match way {
        Way::Trusted(subjects) => Point::passed("chain", subjects.join(" <- ")),
        Way::Open(issuer) => {
            Point::skipped("chain", format!("the certificate of {issuer} is not here"))
        }
        Way::Broken(why) => Point::failed("chain", why.clone()),
    }
}

impl Report {
    fn of(entity: &Entity, way: &Way, points: Vec<Point>, trust: &Path) -> Self {
        let label = entity.label.clone();
        let wrong: Vec<&str> = points
            .iter()
            .filter(|point| point.outcome == Outcome::Failed)
            .map(|point| point.text.as_str())
            .collect();
        let (verdict, summary) = match way {
            _ if !wrong.is_empty() => (
                Verdict::Failed,
                format!("{label}: verification failed: {}", wrong.join("; ")),
            ),
            Way::Open(issuer) => (
                Verdict::CannotBeVerified,
                format!(
                    "{label}: cannot be verified, because the CA certificate for it is not \
                     available: that of {issuer}. Give it with --ca FILE, or put it into {}",
                    trust.display()
                ),
            ),
            Way::Trusted(_) | Way::Broken(_) => (Verdict::Verified, format!("{label}: verified")),
        };
        Self {
            label,
            verdict,
            summary,
            points,
        }
    }
}

impl Point {
    fn new(name: &'static str, outcome: Outcome, text: String) -> Self {
        Self {
            name,
            outcome,
            text,
        }
    }

    fn passed(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Passed, text)
    }

    fn noted(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Noted, text)
    }

    fn skipped(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Skipped, text)
    }

    fn failed(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Failed, text)
    }

    fn noted_unless(good: bool, name: &'static str, text: String) -> Self {
        match good {
            true => Self::passed(name, text),
            false => Self::noted(name, text),
        }
    }

    fn failed_unless(good: bool, name: &'static str, text: String) -> Self {
        match good {
            true => Self::passed(name, text),
            false => Self::failed(name, text),
        }
    }
}
