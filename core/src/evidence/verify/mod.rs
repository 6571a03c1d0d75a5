//! Verifies an evidence bundle. Each check has its own name, and all checks must pass.
//!
//! The checks follow a chain of proofs:
//!
//! - The attestation key is in a certified TPM. A trusted CA certified the endorsement key, and
//!   only its TPM could answer the challenge for the attestation key. Or a trusted CA certified the
//!   attestation key itself.
//! - The attestation key signs only what its TPM states about other keys.
//! - The certified key signed the request.

mod attestation_key;
mod certify;
mod device;
#[cfg(test)]
mod each_check;
mod endorsement;
#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;

#[cfg(feature = "manufacture")]
pub(crate) use certify::first_failure as certification_fault;
pub use device::ProvenDevice;
pub use endorsement::TpmNames;
pub(super) use endorsement::{ek_public, select};

use super::bundle::Bundle;
use super::challenge::Activation;
use crate::key::{PublicKey, hex};
use crate::tpm::{Hash, PublicArea};
use crate::x509::Certificate;
use crate::x509::path::{PathResult, build_path, is_signed_by_its_key};
use crate::x509::received_request::Request;
use serde::Serialize;
use x509_cert::der::DateTime;

/// The size of the smallest accepted RSA key, in bits.
const SMALLEST_RSA: u32 = 2048;

/// The input of a verification besides the bundle: trusted certificates, nonce, and challenge.
pub(crate) struct Expected<'a> {
    /// The trusted certificates, of CAs or of single keys.
    pub(crate) roots: &'a [Certificate],
    /// The nonce that the evidence must contain to be fresh.
    pub(crate) nonce: ExpectedNonce<'a>,
    /// The result of the device's answer to a challenge. `None`: the device answered no challenge.
    pub(crate) activation: Option<Result<Activation, String>>,
    pub(crate) now: DateTime,
}

/// Which nonce the bundle must contain.
pub(crate) enum ExpectedNonce<'a> {
    /// The given nonce. The second value is an error if the nonce was used or has expired.
    Given(&'a [u8], Result<(), String>),
    /// Any nonce, or none. This accepts old evidence.
    Any,
}

/// The result of the verification of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceReport {
    /// True if all checks passed.
    pub verified: bool,
    /// One line for people: `verified`, or the name of the first check that failed.
    pub summary: String,
    /// The key that the evidence is about.
    pub key: AttestedKey,
    /// The device, with the names that certificates prove.
    pub device: ProvenDevice,
    /// The TPM, by the names in the endorsement certificate. `None` if no endorsement certificate
    /// was verified.
    pub tpm: Option<TpmNames>,
    /// The result of each check.
    pub checks: Vec<EvidenceCheck>,
}

/// The attested key, as the bundle describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttestedKey {
    /// The label of the key on the device.
    pub label: Option<String>,
    /// The algorithm of the key, for example `p256` or `rsa2048`. `None` if the public area cannot
    /// be parsed.
    pub algorithm: Option<String>,
    /// The SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal digits.
    pub sha256: Option<String>,
}

/// The result of a check of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvidenceCheck {
    /// The name of the check. Programs read it, so it never changes.
    pub name: &'static str,
    /// True if the check passed.
    pub ok: bool,
    /// The result of the check as text.
    pub detail: String,
}

/// The outcome of a check: the text for a passed check, or the reason why it failed.
type Outcome = Result<String, String>;

/// The results of the checks that were made so far.
#[derive(Default)]
struct Checks(Vec<EvidenceCheck>);

impl Checks {
    fn add(&mut self, name: &'static str, outcome: Outcome) {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        self.0.push(EvidenceCheck { name, ok, detail });
    }
}

/// A verified bundle, for which a CA may issue a certificate.
pub(crate) struct Evidence {
    pub(crate) report: EvidenceReport,
    /// The certificate request of the bundle, if it can be parsed.
    pub(crate) request: Option<Request>,
    /// The certificate that proves the name of the device.
    pub(crate) identity: Option<Certificate>,
    pub(crate) attestation_key: Option<PublicArea>,
    /// True if the attestation key is a primary key of the owner hierarchy. The attestation key of
    /// a service is such a key.
    pub(crate) is_of_owner: bool,
}

/// Makes all checks of the bundle. Stores nothing: `expected` tells whether a nonce or an answer
/// was used before.
pub(crate) fn verify(bundle: &Bundle, expected: &Expected) -> Evidence {
    let mut checks = Checks::default();
    let attestation_key = PublicArea::parse(&bundle.attestation_key.public);
    let endorsement = match expected.activation {
        Some(_) => endorsement::check(&mut checks, bundle, expected),
        None => None,
    };
    attestation_key::check(&mut checks, bundle, attestation_key.as_ref(), expected);
    let area = PublicArea::parse(&bundle.key.public);
    certify::check(
        &mut checks,
        &bundle.key,
        area.as_ref(),
        attestation_key.as_ref(),
    );
    checks.add("nonce", certify::nonce(bundle, &expected.nonce));
    let key = area.map(|area| area.key);
    let request = Request::from_der(&bundle.csr);
    check_request(&mut checks, &request, key.as_ref());
    let request = request.ok();
    let device = device::check(
        &mut checks,
        bundle,
        attestation_key.as_ref(),
        key.as_ref(),
        request.as_ref(),
        expected,
    );
    let Checks(checks) = checks;
    let failed = checks.iter().find(|check| !check.ok);
    let report = EvidenceReport {
        verified: failed.is_none(),
        summary: match failed {
            None => "verified: the key of the request is in this TPM and cannot leave it".into(),
            Some(check) => format!("not verified: {}: {}", check.name, check.detail),
        },
        key: AttestedKey {
            label: bundle.key.label.clone(),
            algorithm: key.as_ref().map(PublicKey::to_string),
            sha256: key.map(|key| hex(&Hash::Sha256.digest(&[&key.info_der()]))),
        },
        device: device.proven,
        tpm: endorsement.as_ref().map(TpmNames::of),
        checks,
    };
    Evidence {
        report,
        request,
        identity: device.certificate,
        attestation_key,
        is_of_owner: attestation_key::is_in_owner_hierarchy(bundle),
    }
}

fn check_request(checks: &mut Checks, request: &Result<Request, String>, key: Option<&PublicKey>) {
    let request = request.as_ref().map_err(Clone::clone);
    checks.add(
        "csr-signature",
        request
            .clone()
            .and_then(|request| match is_signed_by_its_key(request)? {
                true => Ok("the key of the request made the signature".into()),
                false => Err("the key of the request did not make the signature".into()),
            }),
    );
    checks.add(
        "csr-key",
        request.and_then(|request| match (request.public_key(), key) {
            (Some(asked), Some(key)) if asked == *key => {
                Ok("the request is for the certified key".into())
            }
            _ => Err("the request is for another key than the certified key".into()),
        }),
    );
}

/// Checks the certification path from a certificate to a trusted certificate.
fn chain(leaf: &Certificate, others: &[Certificate], expected: &Expected) -> Outcome {
    if let Err(why) = crate::x509::clock::valid_at(leaf, expected.now) {
        return Err(format!("the certificate of {} {why}", leaf.subject()));
    }
    match build_path(leaf, expected.roots, others, Some(expected.now)) {
        PathResult::Trusted(way) => Ok(match &way[..] {
            [_] => "trusted itself".into(),
            [.., root] => format!("leads to {}", root.subject()),
            [] => String::new(),
        }),
        PathResult::NoIssuer(issuer) => Err(format!(
            "the certificate of the issuer {issuer} is missing; give it with --roots"
        )),
        PathResult::SelfSigned => Err("the certificate is self-signed and not trusted".into()),
        PathResult::Invalid(why) => Err(why),
    }
}

/// Returns the certificates of a list of DER byte strings, without those that cannot be parsed.
fn certificates(all: &[super::Bytes]) -> Vec<Certificate> {
    let read = |der: &super::Bytes| Certificate::from_der(der).ok();
    all.iter().filter_map(read).collect()
}

/// Returns the names of the checks of TPM2_Certify that fail, for the attestation key with this
/// public area.
#[cfg(test)]
pub(super) fn failures(key: &super::bundle::CertifiedKey, signer: &[u8]) -> Vec<&'static str> {
    let mut checks = Checks::default();
    let (area, signer) = (PublicArea::parse(&key.public), PublicArea::parse(signer));
    certify::check(&mut checks, key, area.as_ref(), signer.as_ref());
    let failed = checks.0.iter().filter(|check| !check.ok);
    failed.map(|check| check.name).collect()
}

/// Checks that a key has a supported type and is strong enough.
fn kind(area: Option<&PublicArea>) -> Result<&PublicArea, String> {
    let area = area.ok_or("this version does not support its public area")?;
    if area.name_hash == Hash::Sha1 {
        return Err("its name is a SHA-1 digest, which is not secure".into());
    }
    match &area.key {
        key @ PublicKey::Rsa { .. } if key.bits() < SMALLEST_RSA => Err(format!(
            "it is an RSA key of {} bits, but at least {SMALLEST_RSA} bits are required",
            key.bits()
        )),
        _ => Ok(area),
    }
}
