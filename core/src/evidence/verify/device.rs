//! Finds the serial number and model of the device. Only certificates for keys that are proven to
//! be in the device's TPM prove these names.

use super::attestation_key::{purpose, way};
use super::{Checks, Expected, Outcome, certificates, certify, chain};
use crate::ber::{Element, SEQUENCE};
use crate::evidence::bundle::{Bundle, CertifiedKey};
use crate::key::PublicKey;
use crate::oid::SUBJECT_ALT_NAME;
use crate::tpm::{Attest, PublicArea};
use crate::x509::Certificate;
use crate::x509::device::{NamedDevice, SUBJECT};
use crate::x509::received_request::Request;
use serde::Serialize;

/// The serial number and model that the certificates of the factory prove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProvenDevice {
    /// The serial number of the device.
    pub serial: Option<String>,
    /// The model of the device.
    pub model: Option<String>,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) proven: ProvenDevice,
    pub(super) certificate: Option<Certificate>,
}

/// Checks that the certificates name only one device. Checks that the request and the bundle name
/// no other device.
pub(super) fn check(
    checks: &mut Checks,
    bundle: &Bundle,
    signer: Option<&PublicArea>,
    key: Option<&PublicKey>,
    request: Option<&Request>,
    expected: &Expected,
) -> Found {
    if let Some(idevid) = &bundle.idevid {
        checks.add("idevid", factory_key(bundle, idevid, signer));
    }
    let named = naming(bundle, signer, key, expected);
    let found = match named.first() {
        Some((certificate, device)) => Found {
            proven: ProvenDevice {
                serial: device.serial.clone(),
                model: device.model.clone(),
            },
            certificate: Some(certificate.clone()),
        },
        None => Found::default(),
    };
    let others = named.iter().skip(1);
    let other = others
        .filter_map(|(_, device)| device.serial.as_ref())
        .find(|serial| Some(*serial) != found.proven.serial.as_ref());
    checks.add(
        "device",
        match other {
            Some(other) => Err(format!(
                "the certificates name two devices; one of them is {other}"
            )),
            None => claims(bundle, &found.proven),
        },
    );
    if let Some(request) = request {
        checks.add("csr-names", requested(request, &found));
    }
    found
}

/// Returns the certificates that prove a name of the device: they are for proven keys, and lead to
/// a trusted certificate.
fn naming(
    bundle: &Bundle,
    signer: Option<&PublicArea>,
    key: Option<&PublicKey>,
    expected: &Expected,
) -> Vec<(Certificate, NamedDevice)> {
    let mut found = Vec::new();
    let mut add = |leaf: Certificate, of: Option<&PublicKey>, way: Outcome| {
        let device = NamedDevice::of(&leaf);
        if leaf.public_key().as_ref() == of
            && of.is_some()
            && way.is_ok()
            && device.serial.is_some()
        {
            found.push((leaf, device));
        }
    };
    let idevid = bundle.idevid.as_ref();
    let idevid_key = idevid
        .and_then(|one| PublicArea::parse(&one.public))
        .map(|area| area.key);
    for (certified, of) in [(Some(&bundle.key), key), (idevid, idevid_key.as_ref())] {
        let Some(certified) = certified else { continue };
        let all = certificates(&certified.certificates);
        if let Some(leaf) = all.first() {
            let way = chain(leaf, &all, expected);
            add(leaf.clone(), of, way);
        }
    }
    let leaf = bundle.attestation_key.certificates.first();
    if let Some(leaf) = leaf.and_then(|leaf| Certificate::from_der(leaf).ok()) {
        let way = purpose(&leaf).and_then(|_| way(bundle, &leaf, expected));
        add(leaf, signer.map(|signer| &signer.key), way);
    }
    found
}

/// Checks that the factory's IDevID key is in the TPM of the attested key.
fn factory_key(bundle: &Bundle, idevid: &CertifiedKey, signer: Option<&PublicArea>) -> Outcome {
    let area = PublicArea::parse(&idevid.public);
    if let Some(why) = certify::first_failure(idevid, area.as_ref(), signer) {
        return Err(why);
    }
    let said = Attest::read(&idevid.certify).map(|attest| attest.extra_data);
    match said == Some(bundle.nonce.as_deref().unwrap_or_default()) {
        true => Ok("the factory key (IDevID) and the attested key are in the same TPM".into()),
        false => Err("the factory key was certified with another nonce".into()),
    }
}

/// Compares the serial number and model that the device claims with the proven names.
fn claims(bundle: &Bundle, proven: &ProvenDevice) -> Outcome {
    let device = &bundle.device;
    let Some(serial) = &proven.serial else {
        return Ok(match &device.serial {
            Some(serial) => format!(
                "the device claims to be {serial} without proof, because no certificate of its \
                 factory leads to a trusted certificate"
            ),
            None => "no certificate names the device".into(),
        });
    };
    let contradicts = |said: &Option<String>, proven: &Option<String>| {
        said.is_some() && proven.is_some() && said != proven
    };
    match contradicts(&device.serial, &proven.serial) || contradicts(&device.model, &proven.model) {
        true => Err(format!(
            "the device claims to be {}, model {}, but its certificate names {serial}, model {}",
            device.serial.as_deref().unwrap_or("-"),
            device.model.as_deref().unwrap_or("-"),
            proven.model.as_deref().unwrap_or("-"),
        )),
        false => Ok(serial.clone()),
    }
}

/// Checks that the certificate request does not name another device.
fn requested(request: &Request, found: &Found) -> Outcome {
    let subject = request
        .subject()
        .ok_or("the subject of the request cannot be read")?;
    let proven = &found.proven.serial;
    if let Some(asked) = NamedDevice::in_name(&subject, SUBJECT).and_then(|named| named.serial) {
        match proven {
            Some(proven) if *proven == asked => {}
            Some(proven) => {
                return Err(format!(
                    "the request names the device {asked}, but this device is {proven}"
                ));
            }
            None => {
                return Err(format!(
                    "the request names the device {asked} without proof; give the root certificate \
                     of its maker with --roots"
                ));
            }
        }
    }
    let asked = request.alternative_names();
    let names_device = asked.as_ref().is_some_and(|value| {
        let names = Element::only(value).and_then(|names| names.children_of(SEQUENCE));
        // The tags of otherName and directoryName. A subjectAltName that cannot be parsed may
        // contain either of them.
        names.is_none_or(|names| names.iter().any(|name| matches!(name.tag, 0xA0 | 0xA4)))
    });
    let factory = found.certificate.as_ref();
    let factory = factory.and_then(|one| one.extension(SUBJECT_ALT_NAME).ok().flatten());
    match names_device && asked.as_deref() != factory.map(|extension| extension.value) {
        true => Err("the request has a subjectAltName of a device without proof".into()),
        false => Ok(subject.to_string()),
    }
}
