//! Checks certificates before a maker writes them to NV memory. A certificate must be for the key
//! and the device, and must satisfy IEEE 802.1AR.

use super::{KeyPlace, Product};
use crate::file;
use crate::identity::IdentityError;
use crate::key::PublicKey;
use crate::tpm::DevIdKind;
use crate::x509::checks::{profile_checks, validity_check};
use crate::x509::clock::now;
use crate::x509::device::NamedDevice;
use crate::x509::files::LARGEST;
use crate::x509::path::is_signed_by;
use crate::x509::{Certificate, Check, Outcome, Profile};
use std::path::{Path, PathBuf};

/// Certificate policies of the TCG: tcg-cap-verifiedTPMFixed for an IDevID,
/// tcg-cap-verifiedTPMRestricted for an IAK.
const IDEVID_POLICY: &str = "2.23.133.11.1.2";
const IAK_POLICY: &str = "2.23.133.11.1.3";

/// A certificate that the operator gives in a file, with the path of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenCertificate {
    path: PathBuf,
    certificate: Certificate,
}

impl GivenCertificate {
    /// Reads the first certificate of a file in DER or PEM.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if it holds no certificate.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
        let found = Certificate::parse_all(&bytes);
        let mut found = found
            .map_err(|why| IdentityError::failed(format!("{}: {why}", path.display())))?
            .into_iter();
        let certificate = found.next();
        let certificate = certificate.ok_or_else(|| {
            IdentityError::failed(format!("{}: the file holds no certificate", path.display()))
        })?;
        Ok(Self {
            path: path.to_owned(),
            certificate,
        })
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Checks that the certificate is for the factory key and the device. Returns the failed checks
    /// that do not prevent installation.
    pub(super) fn check(
        &self,
        place: &KeyPlace,
        key: &PublicKey,
        product: &Product,
        issuer: Option<&Self>,
    ) -> Result<Vec<Check>, IdentityError> {
        let refused = |why: String| {
            Err(IdentityError::refused(format!(
                "{}: {why}. Nothing was written; correct the certificate and run the command again",
                self.path.display()
            )))
        };
        let one = &self.certificate;
        if one.public_key().as_ref() != Some(key) {
            return refused(format!(
                "the certificate is not for the {} key in handle 0x{:08X}",
                place.called(),
                place.handle
            ));
        }
        let named = NamedDevice::of(one);
        for (what, said, wanted) in [
            ("serial number", &named.serial, Some(&product.serial)),
            ("model", &named.model, product.model.as_ref()),
        ] {
            if said.as_ref() != wanted {
                let quoted = |text: Option<&String>| match text {
                    Some(text) => format!("{text:?}"),
                    None => "none".into(),
                };
                return refused(format!(
                    "the {what} in the certificate is {}, not {}",
                    quoted(said.as_ref()),
                    quoted(wanted)
                ));
            }
        }
        let policies = Profile::of(one).policies;
        let other = match place.kind {
            DevIdKind::Identity => IAK_POLICY,
            DevIdKind::Attestation => IDEVID_POLICY,
        };
        if policies.iter().any(|policy| policy.oid == other) {
            return refused(format!(
                "the certificate policy {other} is not the policy of an {}",
                place.called()
            ));
        }
        let mut checks = profile_checks(one);
        checks.push(validity_check(one, now()));
        let mut failed = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Failed);
        if let Some(check) = failed.next() {
            return refused(format!("IEEE 802.1AR: {check}"));
        }
        if let Some(issuer) = issuer {
            match is_signed_by(one, &issuer.certificate) {
                Ok(true) => {}
                Ok(false) => {
                    return refused(format!(
                        "{} did not sign the certificate",
                        issuer.certificate.subject()
                    ));
                }
                Err(why) => return refused(why.to_string()),
            }
        }
        checks.retain(|check| check.outcome == Outcome::Noted);
        Ok(checks)
    }

    /// Checks that the certificate is a CA certificate, before it is written as the issuer's
    /// certificate.
    pub(super) fn check_ca(&self) -> Result<(), IdentityError> {
        match self.certificate.is_ca() {
            true => Ok(()),
            false => Err(IdentityError::refused(format!(
                "{}: this is not a CA certificate. Nothing was written",
                self.path.display()
            ))),
        }
    }
}
