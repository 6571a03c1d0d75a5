//! Certificates for unit tests. They may have contents that no CA would issue.

use crate::key::{Curve, PublicKey, from_hex};
use crate::oid::{
    AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, EXTENDED_KEY_USAGE, KEY_USAGE,
    NAME_CONSTRAINTS, SUBJECT_ALT_NAME, SUBJECT_KEY_ID,
};
use crate::tpm::Hash;
use crate::x509::Certificate;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DateTime, Encode};
use x509_cert::name::Name;

const SEQUENCE: u8 = 0x30;
pub(crate) const ECDSA_SHA256: &str = "300a06082a8648ce3d040302";
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The key and the name of a CA or a device.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) name: &'static str,
    key: SigningKey,
}

/// The content of a test certificate. [`Sample::of_device`] returns the content of a correct device
/// certificate.
#[derive(Clone)]
pub(crate) struct Sample {
    /// The version; `None` for version 1, for which a certificate omits the field.
    pub(crate) version: Option<u8>,
    /// The serial number: the content of the INTEGER.
    pub(crate) serial: Vec<u8>,
    pub(crate) subject: &'static str,
    pub(crate) from: (u8, &'static str),
    pub(crate) until: (u8, &'static str),
    pub(crate) extensions: Vec<Extension>,
}

/// An extension: object identifier, criticality, and the value in hexadecimal digits.
pub(crate) type Extension = (ObjectIdentifier, bool, &'static str);

pub(crate) const IS_CA: Extension = (BASIC_CONSTRAINTS, true, "30030101ff");
pub(crate) const IS_NO_CA: Extension = (BASIC_CONSTRAINTS, true, "3000");
pub(crate) const NO_CA_BELOW: Extension = (BASIC_CONSTRAINTS, true, "30060101ff020100");
pub(crate) const SIGNS: Extension = (KEY_USAGE, true, "03020780");
pub(crate) const AGREES: Extension = (KEY_USAGE, true, "03020308");
pub(crate) const SIGNS_CERTIFICATES: Extension = (KEY_USAGE, true, "03020204");
/// A subjectKeyIdentifier with the identifier to which [`BY_SOMEBODY`] refers.
pub(crate) const IS_SOMEBODY: Extension = (SUBJECT_KEY_ID, false, "0403010203");
pub(crate) const IS_ANOTHER: Extension = (SUBJECT_KEY_ID, false, "0403040506");
pub(crate) const BY_SOMEBODY: Extension = (AUTHORITY_KEY_ID, false, "30058003010203");
/// The extension certificatePolicies with the TCG's policy 2.23.133.11.1.2 (verified fixedTPM).
pub(crate) const POLICY: Extension = (CERTIFICATE_POLICIES, false, "300a300806066781050b0102");
/// The extension extKeyUsage with the purpose serverAuth.
pub(crate) const PURPOSE: Extension = (EXTENDED_KEY_USAGE, true, "300a06082b06010505070301");
/// Policies 1.2.3, 1.2.4 and anyPolicy, and name constraints that exclude the DNS names below
/// `example`.
pub(crate) const POLICY_3: Extension = (CERTIFICATE_POLICIES, false, "3006300406022a03");
pub(crate) const POLICY_4: Extension = (CERTIFICATE_POLICIES, false, "3006300406022a04");
pub(crate) const ANY_POLICY: Extension = (CERTIFICATE_POLICIES, true, "300830060604551d2000");
pub(crate) const NAMES: Extension = (NAME_CONSTRAINTS, true, "300da10b3009820765 78616d706c65");
/// The extension subjectAltName with a HardwareModuleName (RFC 4108): type 2.23.133.1.2, serial
/// number 7.
pub(crate) const MODULE: Extension = (
    SUBJECT_ALT_NAME,
    false,
    "301aa01806082b06010505070804a00c300a060567810501020401 37",
);

impl Party {
    pub(crate) fn new(name: &'static str, number: u8) -> Self {
        let key = SigningKey::from_slice(&[number; 32]).unwrap();
        Self { name, key }
    }

    pub(crate) fn public(&self) -> PublicKey {
        let point = self.key.verifying_key().to_sec1_point(false);
        PublicKey::from_point(Curve::P256, point.as_bytes()).unwrap()
    }

    /// Signs with the key of this party. Returns the signed part, the signature algorithm and the
    /// signature in a SEQUENCE.
    pub(crate) fn sealed(&self, signed: &[u8]) -> Vec<u8> {
        let digest = Hash::Sha256.digest(&[signed]);
        let signature: Signature = self.key.sign_prehash(&digest).unwrap();
        let bits = [&[0], signature.to_der().as_bytes()].concat();
        let whole = [signed, &unhex(ECDSA_SHA256), &element(3, &bits)].concat();
        element(SEQUENCE, &whole)
    }

    /// Returns a CA certificate for this party, issued by `issuer`.
    pub(crate) fn certified_by(&self, issuer: &Self, extensions: &[Extension]) -> Certificate {
        let sample = Sample {
            subject: self.name,
            extensions: extensions.to_vec(),
            ..Sample::of_device()
        };
        sample.issued(issuer, self)
    }
}

impl Sample {
    /// Returns the content of a device certificate that is valid from 2024 on, without end.
    pub(crate) fn of_device() -> Self {
        Self {
            version: Some(2),
            serial: vec![0x40; 16],
            subject: "serialNumber=7,CN=X-1",
            from: (UTC_TIME, "240101000000Z"),
            until: (GENERALIZED_TIME, "99991231235959Z"),
            extensions: vec![SIGNS, BY_SOMEBODY, POLICY, MODULE],
        }
    }

    /// Adds an extension to the content, or replaces the extension of the same type.
    pub(crate) fn with(mut self, extension: Extension) -> Self {
        self.extensions.retain(|one| one.0 != extension.0);
        self.extensions.push(extension);
        self
    }

    pub(crate) fn without(mut self, identifier: ObjectIdentifier) -> Self {
        self.extensions.retain(|one| one.0 != identifier);
        self
    }

    /// Sets notAfter to a time before 2050.
    pub(crate) fn until(self, end: &'static str) -> Self {
        Self {
            until: (UTC_TIME, end),
            ..self
        }
    }

    /// Returns a certificate for the key of `holder`, with the signature of `issuer`.
    pub(crate) fn issued(&self, issuer: &Party, holder: &Party) -> Certificate {
        self.issued_for(issuer, &holder.public())
    }

    /// Returns a certificate for a key of any type, with the signature of `issuer`.
    pub(crate) fn issued_for(&self, issuer: &Party, key: &PublicKey) -> Certificate {
        let mut parts = Vec::new();
        parts.extend(self.version.map(|number| element(0xA0, &[2, 1, number])));
        parts.push(element(2, &self.serial));
        parts.push(unhex(ECDSA_SHA256));
        parts.push(name(issuer.name));
        let times = [self.from, self.until];
        let times = times.map(|(tag, text)| element(tag, text.as_bytes()));
        parts.push(element(SEQUENCE, &times.concat()));
        parts.push(name(self.subject));
        parts.push(key.info_der());
        if self.version.is_some() {
            let extensions: Vec<Vec<u8>> = self.extensions.iter().map(extension).collect();
            let all = element(SEQUENCE, &extensions.concat());
            parts.push(element(0xA3, &all));
        }
        Certificate::from_der(&issuer.sealed(&element(SEQUENCE, &parts.concat()))).unwrap()
    }
}

/// Returns the first of July of a year, as the current time of a test.
pub(crate) fn in_year(year: u16) -> DateTime {
    DateTime::new(year, 7, 1, 0, 0, 0).unwrap()
}

fn extension((identifier, critical, value): &Extension) -> Vec<u8> {
    let mut parts = identifier.to_der().unwrap();
    if *critical {
        parts.extend([1, 1, 0xFF]);
    }
    parts.extend(element(4, &unhex(value)));
    element(SEQUENCE, &parts)
}

pub(crate) fn name(text: &str) -> Vec<u8> {
    match text {
        "" => element(SEQUENCE, &[]),
        text => text.parse::<Name>().unwrap().to_der().unwrap(),
    }
}

pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    from_hex(&digits.replace(' ', "")).unwrap()
}

pub(crate) fn element(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        size @ 0..=0x7F => vec![size as u8],
        size @ 0x80..=0xFF => vec![0x81, size as u8],
        size => vec![0x82, (size >> 8) as u8, size as u8],
    };
    [&[tag], &length[..], body].concat()
}
