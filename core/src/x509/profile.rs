//! The profile of a device's certificate: its fields in readable form (IEEE 802.1AR, section 8;
//! TCG, TPM 2.0 Keys for Device Identity and Attestation, section 8).

use crate::key::hex;
use crate::x509::algorithms::{certified_key, signed_by};
use crate::x509::device::{self, NamedDevice};
use crate::x509::extensions::KeyUsage;
use crate::x509::{Certificate, Unreadable};
use serde::Serialize;
use x509_cert::der::asn1::ObjectIdentifier;

/// Object identifiers in device certificates, and their meanings.
const MEANINGS: [(&str, &str); 13] = [
    ("2.23.133.11.1.1", "verified TPM residency"),
    ("2.23.133.11.1.2", "verified fixedTPM: an IDevID"),
    ("2.23.133.11.1.3", "verified restricted: an IAK"),
    ("2.23.133.8.1", "endorsement key"),
    ("2.23.133.8.2", "platform attributes"),
    ("2.23.133.8.3", "attestation key"),
    ("2.23.133.1.0", "TPM 1.2"),
    ("2.23.133.1.2", "TPM 2.0"),
    ("1.3.6.1.5.5.7.3.1", "TLS server"),
    ("1.3.6.1.5.5.7.3.2", "TLS client"),
    ("1.3.6.1.5.5.7.3.4", "e-mail"),
    ("1.3.6.1.5.5.7.3.8", "time stamping"),
    ("2.5.29.32.0", "any policy"),
];

/// The fields of a certificate in readable form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// The subject in the format of RFC 4514.
    pub subject: String,
    /// The issuer in the format of RFC 4514.
    pub issuer: String,
    /// The serial number of the certificate in hexadecimal digits.
    pub certificate_serial: String,
    /// The type of the certified key: `P-256`, `RSA-2048`, `ML-DSA-65`, or object identifiers.
    pub public_key: String,
    /// The signature algorithm; `None` if it cannot be read.
    pub signature_algorithm: Option<String>,
    /// The serial number of the device that the certificate names.
    pub device_serial: Option<String>,
    /// The field that contains the serial number: `subject`, or a type of name in the
    /// subjectAltName.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_serial_from: Option<&'static str>,
    /// The model of the device that the certificate names.
    pub model: Option<String>,
    /// The start of validity (RFC 3339, UTC). If it cannot be read, a note with the content of the
    /// field.
    pub not_before: String,
    /// The end of validity in the format of `not_before`. `None` for 99991231235959Z, which means
    /// "no end" (RFC 5280, 4.1.2.5).
    pub not_after: Option<String>,
    /// The name of the hardware module, as its manufacturer gave it (RFC 4108, section 5).
    pub hardware_module: Option<HardwareModule>,
    /// The certificate policies (certificatePolicies).
    pub policies: Vec<Meaning>,
    /// The purposes of the key (extended key usage).
    pub extended_key_usage: Vec<Meaning>,
    /// The key usages, with the names of RFC 5280, section 4.2.1.3. `None` if the extension is
    /// missing or cannot be read.
    pub key_usage: Option<Vec<&'static str>>,
    /// The names of extensions that cannot be read or occur twice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// True if the certificate is a CA certificate.
    pub authority: bool,
    /// The keyIdentifier in authorityKeyIdentifier, in hexadecimal digits.
    pub authority_key_id: Option<String>,
    /// The subjectKeyIdentifier in hexadecimal digits.
    pub subject_key_id: Option<String>,
    /// The SHA-256 hash of the whole certificate in hexadecimal digits.
    pub sha256: String,
    /// The SHA-1 hash of the whole certificate in hexadecimal digits.
    pub sha1: String,
}

/// The HardwareModuleName of RFC 4108, section 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HardwareModule {
    /// The field hwType, an object identifier.
    #[serde(rename = "type")]
    pub kind: Meaning,
    /// The field hwSerialNum, as text if it is printable, else in hexadecimal digits.
    pub serial: String,
    /// The field of the subjectAltName that contains the name: `otherName`, as RFC 4108 requires,
    /// or `directoryName`.
    pub place: &'static str,
}

/// An object identifier, with its meaning if the meaning is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meaning {
    /// The object identifier in dotted notation.
    pub oid: String,
    /// The meaning of the object identifier in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<&'static str>,
}

impl Profile {
    /// Reads the fields of a certificate. `unreadable` lists the extensions that cannot be read.
    pub fn of(certificate: &Certificate) -> Self {
        let device = NamedDevice::of(certificate);
        let not_before = certificate.not_before();
        let not_after = match certificate.not_after() {
            Ok(end) if end.is_no_end() => None,
            Ok(end) => Some(end.to_string()),
            Err(why) => Some(why.to_string()),
        };
        let meanings = |all: Option<Vec<ObjectIdentifier>>| {
            let all = all.unwrap_or_default();
            all.iter().map(Meaning::of).collect()
        };
        let key_usage = certificate.key_usage().ok().flatten();
        let authority = certificate.authority_key_id().ok().flatten();
        let subject = certificate.subject_key_id().ok().flatten();
        Self {
            subject: certificate.subject(),
            issuer: certificate.issuer(),
            certificate_serial: hex(certificate.serial()),
            public_key: certified_key(certificate),
            signature_algorithm: signed_by(certificate),
            device_serial: device.serial,
            device_serial_from: device.source,
            model: device.model,
            not_before: not_before.map_or_else(|why| why.to_string(), |time| time.to_string()),
            not_after,
            hardware_module: hardware_module(certificate),
            policies: meanings(certificate.policies().ok().flatten()),
            extended_key_usage: meanings(certificate.purposes().ok().flatten()),
            key_usage: key_usage.map(KeyUsage::names),
            unreadable: certificate.unreadable(),
            authority: certificate.is_ca(),
            authority_key_id: authority.and_then(|id| id.key).map(hex),
            subject_key_id: subject.map(hex),
            sha256: hex(&certificate.sha256()),
            sha1: hex(&certificate.sha1()),
        }
    }
}

impl Meaning {
    fn of(oid: &ObjectIdentifier) -> Self {
        let oid = oid.to_string();
        let known = MEANINGS.iter().find(|(known, _)| *known == oid);
        Self {
            meaning: known.map(|(_, meaning)| *meaning),
            oid,
        }
    }
}

impl std::fmt::Display for Meaning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.meaning {
            Some(meaning) => write!(f, "{} ({meaning})", self.oid),
            None => f.write_str(&self.oid),
        }
    }
}

fn hardware_module(certificate: &Certificate) -> Option<HardwareModule> {
    let module = device::hardware_module(certificate)?;
    Some(HardwareModule {
        kind: Meaning::of(&module.kind),
        serial: module.serial,
        place: module.place,
    })
}

/// Returns the object identifiers of a certificate's critical extensions.
pub(crate) fn critical(certificate: &Certificate) -> Result<Vec<ObjectIdentifier>, Unreadable> {
    let all = certificate.extensions()?.into_iter();
    Ok(all.filter(|one| one.critical).map(|one| one.id).collect())
}

/// Returns true if notAfter has the encoding that RFC 5280, section 4.1.2.5, requires for its year.
pub(crate) fn ends_in_right_form(certificate: &Certificate) -> bool {
    const GENERALIZED_TIME: u8 = 0x18;
    let (Ok([_, written]), Ok(end)) = (certificate.times(), certificate.not_after()) else {
        return false;
    };
    (written.tag == GENERALIZED_TIME) == (end.day.year >= 2050)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Certificate {
        let pem = include_bytes!("../../testdata/leaf.pem");
        Certificate::parse_all(pem).unwrap().remove(0)
    }

    #[test]
    fn what_a_factory_certificate_says() {
        let profile = Profile::of(&leaf());
        assert_eq!(profile.device_serial.as_deref(), Some("SN-000001"));
        assert_eq!(profile.model.as_deref(), Some("Example-1000"));
        assert_eq!(profile.not_after, None);
        assert_eq!(profile.not_before, "2024-01-01T00:00:00Z");
        let module = profile.hardware_module.unwrap();
        assert_eq!(module.serial, "SN-000001");
        assert_eq!(
            (module.place, &*module.kind.oid),
            ("otherName", "2.23.133.1.2")
        );
        assert_eq!(profile.policies[0].oid, "2.23.133.11.1.2");
        assert_eq!(profile.key_usage, Some(vec!["digitalSignature"]));
        assert!(!profile.authority && profile.subject_key_id.is_none());
        assert!(profile.authority_key_id.is_some());
    }
}
