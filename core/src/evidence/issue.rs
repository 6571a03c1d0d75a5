//! Makes certificates for keys of verified bundles.

use super::verify::Evidence;
use crate::file;
use crate::identity::IdentityError;
use crate::key::{Curve, PrivateKeyInfo, PublicKey};
use crate::store::sign_in_clear;
use crate::tpm::{Hash, SignatureScheme};
use crate::x509::certify::{AttestationNames, Authority, Certified, PermanentIdentifier, certify};
use crate::x509::clock::{now, valid_at};
use crate::x509::files::LARGEST;
use crate::x509::issue::CertificateSigner;
use crate::x509::{Certificate, Subject};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// A file with a private key is shorter than this number of bytes.
const LARGEST_KEY: u64 = 16 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The issuer of a certificate, and its options.
#[derive(Debug, Clone)]
pub struct Issuance {
    /// A file with the CA's certificate first. The certificates of the CA's own issuers may follow.
    pub ca_certificate: PathBuf,
    /// A file with the CA's private key, PEM, not encrypted.
    pub ca_key: PathBuf,
    /// The certificate's validity in days, within the CA's own validity.
    pub days: u32,
    /// The key to certify.
    pub what: WhatToCertify,
}

/// The key to certify, and the name in its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhatToCertify {
    /// The attested key (LDevID). The subject is this text (RFC 4514), else the device's name in
    /// the factory's certificate, else the subject of the request.
    AttestedKey(Option<String>),
    /// The attestation key, with this permanent identifier; else with SHA-256 of the endorsement
    /// key's certificate.
    AttestationKey(Option<String>),
    /// The attestation key of a service, whom its certificate names: nothing else of the device.
    ServiceAttestationKey(String),
}

/// Certificates, the new one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The new certificate.
    pub certificate: Certificate,
    /// The certificates of the CA, in the order of its file.
    pub chain: Vec<Certificate>,
}

impl Issued {
    /// All certificates, PEM.
    pub fn pem(&self) -> String {
        let chain = self.chain.iter().map(Certificate::pem);
        chain.fold(self.certificate.pem(), |text, one| text + &one)
    }
}

/// The CA's certificate and its key.
pub(super) struct Issuer {
    certificates: Vec<Certificate>,
    key: PrivateKeyInfo,
}

/// Reads the subject that the caller wants, before a nonce is used up.
pub(super) fn subject(issuance: &Issuance) -> Result<Option<Subject>, IdentityError> {
    match &issuance.what {
        WhatToCertify::AttestedKey(Some(subject)) => Ok(Some(Subject::parse(subject)?)),
        WhatToCertify::ServiceAttestationKey(service) => Ok(Some(Subject::named(service)?)),
        _ => Ok(None),
    }
}

impl Issuer {
    pub(super) fn read(issuance: &Issuance) -> Result<Self, IdentityError> {
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |why: &dyn std::fmt::Display| IdentityError::failed(format!("{path}: {why}"))
        };
        let path = &issuance.ca_certificate;
        let wrong = at(path);
        let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
        let certificates = Certificate::parse_all(&bytes).map_err(|why| wrong(&why))?;
        let first = certificates
            .first()
            .ok_or_else(|| wrong(&"no certificate"))?;
        let unread = |why| wrong(&format_args!("an extension of its first certificate {why}"));
        let constraints = first.basic_constraints().map_err(unread)?;
        if !constraints.is_some_and(|constraints| constraints.ca) {
            return Err(wrong(&"its first certificate is not a CA's (CA:TRUE)"));
        }
        let usage = first.key_usage().map_err(unread)?;
        if usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(wrong(
                &"the key of its first certificate may not sign certificates",
            ));
        }
        if let Ok(now) = now() {
            let valid = valid_at(first, now);
            valid.map_err(|why| wrong(&format_args!("its first certificate {why}")))?;
        }
        let path = &issuance.ca_key;
        let wrong = at(path);
        let pem = file::read(path, LARGEST_KEY).map_err(IdentityError::file(path))?;
        let key = PrivateKeyInfo::from_pem(&Zeroizing::new(pem)).map_err(|why| wrong(&why))?;
        if first.public_key().as_ref() != Some(key.public()) {
            return Err(wrong(&format_args!(
                "it is not the key of the first certificate in {}",
                issuance.ca_certificate.display()
            )));
        }
        Ok(Self { certificates, key })
    }

    pub(super) fn issue(
        self,
        evidence: &Evidence,
        issuance: &Issuance,
        subject: Option<Subject>,
    ) -> Result<Issued, IdentityError> {
        let attestation_key = || {
            evidence
                .attestation_key
                .as_ref()
                .map(|area| area.key.clone())
        };
        let (key, certified) = match &issuance.what {
            WhatToCertify::AttestedKey(_) => {
                let request = evidence.request.as_ref();
                let key = request.and_then(|request| request.public_key());
                let subject = match (subject, &evidence.identity, request) {
                    (Some(subject), ..) => subject,
                    (None, Some(factory), _) => Subject::copied(factory)?,
                    (None, None, Some(request)) => Subject::asked_for(request)?,
                    (None, None, None) => return Err(IdentityError::failed("there is no request")),
                };
                (key, Certified::Device(subject))
            }
            WhatToCertify::AttestationKey(identifier) => {
                let names = names(evidence, identifier.as_deref())?;
                (attestation_key(), Certified::Attestation(names))
            }
            WhatToCertify::ServiceAttestationKey(_) => {
                let subject = subject.ok_or_else(|| IdentityError::failed("no service"))?;
                // A certificate is no proof that the key is in this TPM.
                if evidence.report.tpm.is_none() {
                    return Err(IdentityError::failed(
                        "a service's attestation key is certified when its TPM has answered a challenge: \
                         give the answer with --response",
                    ));
                }
                if !evidence.is_of_owner {
                    return Err(IdentityError::refused(
                        "this is evidence by an attestation key of the device, which every service would \
                         share: on the device, devid attest --for SERVICE --to-ca makes evidence by the key \
                         of the service",
                    ));
                }
                (attestation_key(), Certified::ServiceAttestation(subject))
            }
        };
        let key = key.ok_or_else(|| IdentityError::failed("there is no key to certify"))?;
        let scheme = scheme(self.key.public());
        let sign =
            |digest: &[u8]| Ok::<_, IdentityError>(sign_in_clear(&self.key, scheme, digest)?);
        let [ca, ..] = &self.certificates[..] else {
            return Err(IdentityError::failed("there is no certificate of the CA"));
        };
        let authority = Authority {
            certificate: ca,
            signer: CertificateSigner {
                public: self.key.public(),
                scheme,
                sign: &sign,
            },
        };
        let lifetime = DAY.saturating_mul(issuance.days);
        let certificate = certify(&key, certified, lifetime, &authority)?;
        Ok(Issued {
            certificate,
            chain: self.certificates,
        })
    }
}

/// The TPM's three names in the endorsement key's certificate; verifiers need all three.
fn names(evidence: &Evidence, identifier: Option<&str>) -> Result<AttestationNames, IdentityError> {
    let missing = "the attestation key's certificate takes the TPM's names from the endorsement \
                   key's certificate: verify with the answer to a challenge (--response), and \
                   with an endorsement certificate that has these names";
    let tpm = evidence.report.tpm.as_ref();
    let tpm = tpm.ok_or_else(|| IdentityError::failed(missing))?;
    let named = |name: &Option<String>| name.clone().ok_or_else(|| IdentityError::failed(missing));
    Ok(AttestationNames {
        tpm: [
            named(&tpm.manufacturer)?,
            named(&tpm.model)?,
            named(&tpm.version)?,
        ],
        identifier: match identifier {
            Some(text) => PermanentIdentifier::Named(text.into()),
            None => PermanentIdentifier::OfEkCertificate(tpm.certificate.clone()),
        },
    })
}

/// The signature scheme of a CA's key, with a hash of matching strength.
fn scheme(key: &PublicKey) -> SignatureScheme {
    match key {
        PublicKey::Ec { curve, .. } => SignatureScheme::Ecdsa(match curve {
            Curve::P256 => Hash::Sha256,
            Curve::P384 => Hash::Sha384,
            Curve::P521 => Hash::Sha512,
        }),
        PublicKey::Rsa { .. } => SignatureScheme::Rsassa(Hash::Sha256),
    }
}

#[cfg(test)]
#[path = "issue_tests.rs"]
mod tests;
