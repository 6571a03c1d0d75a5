//! Checks the endorsement key, which identifies the TPM (TCG, EK Credential Profile for TPM 2.0,
//! section 3).

use super::{Checks, Expected, Outcome, certificates, chain};
use crate::ber::{Element, SEQUENCE};
use crate::evidence::bundle::Bundle;
use crate::key::{PublicKey, hex};
use crate::oid::{
    SUBJECT_ALT_NAME, TCG_KP_EK_CERTIFICATE, TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION,
};
use crate::tpm::{Hash, PublicArea};
use crate::x509::Certificate;
use crate::x509::names::Name;
use serde::Serialize;

/// The names of the TPM in an endorsement certificate: TPMManufacturer, TPMModel and TPMVersion in
/// a directoryName of its subjectAltName.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TpmNames {
    /// The text `id:` and the manufacturer's four bytes in hexadecimal digits.
    pub manufacturer: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The text `id:` and the firmware version.
    pub version: Option<String>,
    /// The SHA-256 of the endorsement certificate, in hexadecimal digits.
    pub certificate: String,
}

/// Checks the certificate of the endorsement key that the CA made its challenge for. Returns the
/// certificate if all checks pass.
pub(super) fn check(
    checks: &mut Checks,
    bundle: &Bundle,
    expected: &Expected,
) -> Option<Certificate> {
    let challenged = match &expected.activation {
        Some(Ok(activation)) => PublicKey::from_info_der(&activation.endorsement_key),
        _ => None,
    };
    let found = match select(bundle, challenged.as_ref()) {
        Ok(found) => found,
        Err(why) => {
            checks.add("ek-certificate", Err(why));
            return None;
        }
    };
    let before = checks.0.len();
    checks.add("ek-certificate", Ok(found.subject_or_serial()));
    checks.add("ek-key", key(bundle, &found));
    checks.add("ek-purpose", purpose(&found));
    let others = [&bundle.ek_certificates[..], &bundle.ek_chain].concat();
    checks.add("ek-chain", chain(&found, &certificates(&others), expected));
    let all_well = checks.0[before..].iter().all(|check| check.ok);
    all_well.then_some(found)
}

/// Returns the endorsement certificate for `key`. Without `key`, returns the certificate for the
/// bundle's EK public area, or else the first certificate of the bundle.
pub(crate) fn select(bundle: &Bundle, key: Option<&PublicKey>) -> Result<Certificate, String> {
    let all = bundle.ek_certificates.iter();
    let all = all.map(|der| Certificate::from_der(der).map_err(|why| why.to_string()));
    let all: Vec<Certificate> = all.collect::<Result<_, _>>()?;
    let first = all.first().ok_or(
        "the bundle has no endorsement certificate; if the TPM's maker publishes the certificate, \
         pass it to devid attest with --ek-cert",
    )?;
    let public = ek_public(bundle)?.map(|area| area.key);
    let wanted = key.or(public.as_ref());
    let of_wanted = |one: &&Certificate| wanted.is_none() || one.public_key().as_ref() == wanted;
    Ok(all.iter().find(of_wanted).unwrap_or(first).clone())
}

/// Parses the public area of the endorsement key, if the bundle has one.
pub(crate) fn ek_public(bundle: &Bundle) -> Result<Option<PublicArea>, String> {
    match &bundle.ek_public {
        None => Ok(None),
        Some(area) => match PublicArea::parse(area) {
            Some(area) => Ok(Some(area)),
            None => {
                Err("this version does not support the public area of the endorsement key".into())
            }
        },
    }
}

fn key(bundle: &Bundle, certificate: &Certificate) -> Outcome {
    let certified = certificate
        .public_key()
        .ok_or("the key in the certificate has a type that is not supported")?;
    match ek_public(bundle)? {
        None => Ok("the bundle has no public area of the endorsement key".into()),
        Some(area) if !area.is_storage_key() => {
            Err("the public area is not that of a restricted decryption key".into())
        }
        Some(area) if area.key == certified => {
            Ok("the public area has the key of the certificate".into())
        }
        Some(_) => Err("the public area does not have the key of the certificate".into()),
    }
}

fn purpose(certificate: &Certificate) -> Outcome {
    let purposes = certificate.purposes();
    let purposes = purposes.map_err(|why| format!("its extKeyUsage {why}"))?;
    if certificate.is_ca() {
        return Err("the certificate is a CA certificate".into());
    }
    match purposes.is_some_and(|all| all.contains(&TCG_KP_EK_CERTIFICATE)) {
        true => Ok("tcg-kp-EKCertificate".into()),
        false => Err(
            "the certificate is not for an endorsement key (tcg-kp-EKCertificate is missing)"
                .into(),
        ),
    }
}

impl TpmNames {
    pub(crate) fn of(certificate: &Certificate) -> Self {
        let extension = certificate.extension(SUBJECT_ALT_NAME).ok().flatten();
        let names = extension.and_then(|it| Element::only(it.value)?.children_of(SEQUENCE));
        let names = names.unwrap_or_default();
        let directories = names.iter().filter(|name| name.tag == 0xA4);
        let directories: Vec<Name> = directories
            .filter_map(|name| Name::read(name.content))
            .collect();
        let text = |kind| directories.iter().find_map(|name| name.text(kind));
        Self {
            manufacturer: text(TPM_MANUFACTURER),
            model: text(TPM_MODEL),
            version: text(TPM_VERSION),
            certificate: hex(&Hash::Sha256.digest(&[certificate.der()])),
        }
    }
}

impl Certificate {
    /// Returns the subject of the certificate for messages. Most endorsement certificates have an
    /// empty subject. In this case, returns the serial number and the issuer.
    fn subject_or_serial(&self) -> String {
        let subject = self.subject();
        match subject.is_empty() {
            true => format!("number {} of {}", hex(self.serial()), self.issuer()),
            false => subject,
        }
    }
}
