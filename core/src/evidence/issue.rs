//! Issues certificates for the keys in verified evidence bundles.

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

/// The largest size of a file with a private key, in bytes.
const LARGEST_KEY: u64 = 16 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The issuer of a certificate, and the options for the certificate.
#[derive(Debug, Clone)]
pub struct Issuance {
    /// A file with the certificate of the CA first. Certificates of higher CAs may follow.
    pub ca_certificate: PathBuf,
    /// A file with the private key of the CA, in PEM, not encrypted.
    pub ca_key: PathBuf,
    /// The validity of the certificate in days. The certificate expires no later than the CA's
    /// certificate.
    pub days: u32,
    /// The key that the certificate is for.
    pub what: WhatToCertify,
}

/// The key that the certificate is for, and the name in the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhatToCertify {
    /// The attested key (LDevID). The text is the subject (RFC 4514). Without a text, the subject
    /// is the name in the factory's certificate, or else the subject of the request.
    AttestedKey(Option<String>),
    /// The attestation key. The text is the permanent identifier. Without a text, the identifier is
    /// the SHA-256 of the endorsement certificate.
    AttestationKey(Option<String>),
    /// The attestation key of a service. The text is the name of the service. The certificate does
    /// not name the device.
    ServiceAttestationKey(String),
}

/// An issued certificate and the certificates of the CAs above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The issued certificate.
    pub certificate: Certificate,
    /// The certificates of the CA, in the order of the CA's file.
    pub chain: Vec<Certificate>,
}

impl Issued {
    /// Returns the issued certificate and the CA certificates in PEM.
    pub fn pem(&self) -> String {
        let chain = self.chain.iter().map(Certificate::pem);
        chain.fold(self.certificate.pem(), |text, one| text + &one)
    }
}

/// The certificate and the key of the CA.
pub(super) struct Issuer {
    certificates: Vec<Certificate>,
    key: PrivateKeyInfo,
}

/// Parses the subject that the caller requests. A wrong subject must fail before a nonce is used.
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
            return Err(wrong(
                &"the first certificate of the file is not a CA certificate (CA:TRUE)",
            ));
        }
        let usage = first.key_usage().map_err(unread)?;
        if usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(wrong(
                &"the key of the first certificate may not sign certificates",
            ));
        }
        if let Ok(now) = now() {
            let valid = valid_at(first, now);
            valid.map_err(|why| wrong(&format_args!("the first certificate of the file {why}")))?;
        }
        let path = &issuance.ca_key;
        let wrong = at(path);
        let pem = file::read(path, LARGEST_KEY).map_err(IdentityError::file(path))?;
        let key = PrivateKeyInfo::from_pem(&Zeroizing::new(pem)).map_err(|why| wrong(&why))?;
        if first.public_key().as_ref() != Some(key.public()) {
            return Err(wrong(&format_args!(
                "the key does not belong to the first certificate in {}",
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
                    (None, None, None) => {
                        return Err(IdentityError::failed(
                            "the bundle has no certificate request",
                        ));
                    }
                };
                (key, Certified::Device(subject))
            }
            WhatToCertify::AttestationKey(identifier) => {
                let names = names(evidence, identifier.as_deref())?;
                (attestation_key(), Certified::Attestation(names))
            }
            WhatToCertify::ServiceAttestationKey(_) => {
                let subject = subject.ok_or_else(|| IdentityError::failed("no service"))?;
                // A certificate of the attestation key does not prove that the key is in this TPM.
                // Only a verified endorsement certificate does.
                if evidence.report.tpm.is_none() {
                    return Err(IdentityError::failed(
                        "the attestation key of a service is certified only after its TPM has \
                         answered a challenge; give the answer with --response",
                    ));
                }
                if !evidence.is_of_owner {
                    return Err(IdentityError::refused(
                        "the evidence is by an attestation key of the device, which all services \
                         would share; on the device, devid attest --for SERVICE --to-ca makes \
                         evidence by the key of the service",
                    ));
                }
                (attestation_key(), Certified::ServiceAttestation(subject))
            }
        };
        let key = key.ok_or_else(|| IdentityError::failed("the bundle has no key to certify"))?;
        let scheme = scheme(self.key.public());
        let sign =
            |digest: &[u8]| Ok::<_, IdentityError>(sign_in_clear(&self.key, scheme, digest)?);
        let [ca, ..] = &self.certificates[..] else {
            return Err(IdentityError::failed(
                "the file has no certificate of the CA",
            ));
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

/// Returns the names for the certificate of an attestation key. The endorsement certificate must
/// have all three names of the TPM, because verifiers need them.
fn names(evidence: &Evidence, identifier: Option<&str>) -> Result<AttestationNames, IdentityError> {
    let missing = "the certificate of an attestation key contains the names of the TPM from the \
                   endorsement certificate. Verify with the answer to a challenge (--response), \
                   and with an endorsement certificate that has these names";
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

/// Returns the signature scheme for the CA's key. The strength of the hash matches the key.
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
