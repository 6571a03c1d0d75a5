//! Inspects a device after manufacturing: the keys in persistent handles, the certificates in NV
//! memory, and signatures by the keys.

use super::certificates::GivenCertificate;
use super::{KeyPlace, Maker, Product};
use crate::evidence::certified_by;
use crate::evidence::verify::certification_fault;
use crate::identity::{IdentityError, IdentityErrorKind, PossessionProof, prove};
use crate::tpm::{DevIdKind, NvHierarchy, NvPublic, PublicArea};
use crate::x509::checks::profile_checks;
use crate::x509::device::NamedDevice;
use crate::x509::path::is_signed_by;
use crate::x509::{Certificate, Outcome};
use serde::Serialize;
use std::fmt;

/// A result of the inspection of one handle or NV index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// True if the key or certificate is correct.
    pub right: bool,
    /// The inspected key or certificate and the result, as text.
    pub text: String,
}

/// All results of the inspection of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Inspection {
    /// The results, in the order of the inspection.
    pub findings: Vec<Finding>,
}

/// A factory certificate in NV memory, and the public area of its NV index.
pub(super) struct BurnedIn {
    pub(super) certificate: Certificate,
    pub(super) about: NvPublic,
}

impl Inspection {
    /// Returns true if the inspection found no wrong or missing key or certificate.
    pub fn is_right(&self) -> bool {
        self.findings.iter().all(|finding| finding.right)
    }

    fn add(&mut self, right: bool, text: impl Into<String>) {
        let text = text.into();
        self.findings.push(Finding { right, text });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.right { "ok" } else { "WRONG" };
        write!(f, "{mark}: {}", self.text)
    }
}

impl Maker {
    /// Inspects the factory keys in their handles and their certificates in NV memory. Each key
    /// makes a test signature. Writes nothing.
    ///
    /// # Errors
    ///
    /// Fails with the errors of the TPM. A missing or wrong object is no error but a finding.
    pub fn inspect(
        &self,
        places: &[KeyPlace],
        product: Option<&Product>,
        ca: Option<&GivenCertificate>,
    ) -> Result<Inspection, IdentityError> {
        let mut seen = Inspection::default();
        for place in places {
            let called = place.called();
            let resident = match self.resident(place) {
                Err(error) if error.kind == IdentityErrorKind::NotFound => {
                    seen.add(false, error.text);
                    continue;
                }
                other => other?,
            };
            let is_there = format!(
                "{called} key in handle 0x{:08X}: {}, as the templates of the TCG require",
                place.handle, resident.area.key
            );
            seen.add(true, is_there);
            match place.kind {
                DevIdKind::Identity => {
                    let proof = prove(&self.tpm, &resident.key, &resident.area.key);
                    let said = match &proof {
                        PossessionProof::Proven => "signs",
                        PossessionProof::OtherKey => "makes signatures of another key",
                        PossessionProof::NotTried => {
                            "was not used, because the TPM already counts failed tries"
                        }
                        PossessionProof::NoSignature(_) => "cannot sign",
                    };
                    seen.add(
                        proof == PossessionProof::Proven,
                        format!("{called} key {said}"),
                    );
                }
                DevIdKind::Attestation => self.inspect_iak(place, places, &mut seen)?,
            }
            let Some(burned) = self.burned_in(place.index)? else {
                seen.add(
                    false,
                    format!("NV index 0x{:08X} holds no certificate", place.index),
                );
                continue;
            };
            let one = &burned.certificate;
            seen.add(
                one.public_key().as_ref() == Some(&resident.area.key),
                format!(
                    "NV index 0x{:08X}: the certificate of {} is for this key",
                    place.index,
                    one.subject()
                ),
            );
            let named = NamedDevice::of(one);
            if let Some(product) = product {
                let is_ours =
                    named.serial.as_ref() == Some(&product.serial) && named.model == product.model;
                let said = |name: Option<String>| name.unwrap_or_else(|| "none".into());
                seen.add(
                    is_ours,
                    format!(
                        "the {called} certificate names the serial number {}, model {}",
                        said(named.serial),
                        said(named.model)
                    ),
                );
            }
            for check in profile_checks(one) {
                if matches!(check.outcome, Outcome::Failed | Outcome::Noted) {
                    seen.add(
                        check.outcome != Outcome::Failed,
                        format!("{called} certificate: {check}"),
                    );
                }
            }
            if let Some(ca) = ca {
                let by = ca.certificate();
                seen.add(
                    is_signed_by(one, by) == Ok(true),
                    format!("the {called} certificate is signed by {}", by.subject()),
                );
            }
            let by = NvHierarchy::of(burned.about);
            let lock = match burned.about.is_locked() {
                true => "locked",
                false => "not locked",
            };
            seen.add(
                true,
                format!(
                    "NV index 0x{:08X}: {lock}; defined by the {} hierarchy; TPM2_Clear: {}",
                    place.index,
                    by.name(),
                    by.after_clear()
                ),
            );
        }
        Ok(seen)
    }

    /// Lets the IAK certify the IDevID key (TPM2_Certify). Does nothing if there is no IDevID key.
    fn inspect_iak(
        &self,
        iak: &KeyPlace,
        places: &[KeyPlace],
        seen: &mut Inspection,
    ) -> Result<(), IdentityError> {
        let of_idevid = |place: &&KeyPlace| place.kind == DevIdKind::Identity;
        let Some(Ok(idevid)) = places.iter().find(of_idevid).map(|one| self.resident(one)) else {
            return Ok(());
        };
        let signer = self.attestation_key(iak)?;
        let mut nonce = [0; 16];
        crate::random(&mut nonce).map_err(|error| {
            IdentityError::failed(format!("the system gives no random bytes: {error}"))
        })?;
        let certified = certified_by(&self.tpm, (&idevid.key, &signer), &nonce)?;
        let signer = PublicArea::parse(signer.area());
        let fault = certification_fault(&certified, Some(&idevid.area), signer.as_ref());
        let said = "the IAK certifies the IDevID key (TPM2_Certify)";
        match fault {
            None => seen.add(true, said),
            Some(why) => seen.add(false, format!("{said}: {why}")),
        }
        Ok(())
    }

    /// Returns the first certificate in an NV index that can be read without authorisation. Returns
    /// `None` if there is no such certificate.
    pub(super) fn burned_in(&self, index: u32) -> Result<Option<BurnedIn>, IdentityError> {
        let Some(content) = self.tpm.open_nv(index)? else {
            return Ok(None);
        };
        let first = Certificate::read_all(&content)
            .certificates
            .into_iter()
            .next();
        let about = self.tpm.nv_public(index)?;
        Ok(first.map(|certificate| BurnedIn { certificate, about }))
    }
}
