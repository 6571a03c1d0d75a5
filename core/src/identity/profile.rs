//! What the certificate of a device says about it (IEEE 802.1AR, section 8; TCG, TPM 2.0 Keys for
//! Device Identity and Attestation, section 8).

use crate::certificate::Certificate;
use crate::key::hex;
use serde::Serialize;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{DateTime, Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::name::{GeneralName, HardwareModuleName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, ExtendedKeyUsage, KeyUsage,
    KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;

pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
pub(super) const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(super) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
pub(super) const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
pub(super) const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const HARDWARE_MODULE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.4");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");

/// Identifiers that device certificates carry, and what they mean.
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

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// As RFC 4514 writes it.
    pub subject: String,
    /// As RFC 4514 writes it.
    pub issuer: String,
    /// Hexadecimal digits of the certificate's own serial number.
    pub certificate_serial: String,
    /// The device's serial number.
    pub device_serial: Option<String>,
    /// The device's model.
    pub model: Option<String>,
    /// RFC 3339, UTC.
    pub not_before: String,
    /// RFC 3339, UTC; `None` for 99991231235959Z, which means "no end" (RFC 5280, 4.1.2.5).
    pub not_after: Option<String>,
    /// The device as the maker of its hardware module names it (RFC 4108, section 5).
    pub hardware_module: Option<HardwareModule>,
    /// Certificate policies.
    pub policies: Vec<Meaning>,
    /// Purposes of the key.
    pub extended_key_usage: Vec<Meaning>,
    /// Uses of the key, in the words of RFC 5280, section 4.2.1.3; `None` without the extension.
    pub key_usage: Option<Vec<&'static str>>,
    /// Whether it is a CA's.
    pub authority: bool,
    /// Hexadecimal digits.
    pub authority_key_id: Option<String>,
    /// Hexadecimal digits.
    pub subject_key_id: Option<String>,
    /// Of the whole certificate, hexadecimal digits.
    pub sha256: String,
    /// Of the whole certificate, hexadecimal digits.
    pub sha1: String,
}

/// HardwareModuleName of RFC 4108, section 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HardwareModule {
    /// hwType.
    #[serde(rename = "type")]
    pub kind: Meaning,
    /// hwSerialNum: text if it is printable, else hexadecimal digits.
    pub serial: String,
    /// Where the subjectAltName has it: `otherName`, as RFC 4108 wants it, or `directoryName`.
    pub place: &'static str,
}

/// An object identifier and what it means, if that is known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meaning {
    /// Dotted.
    pub oid: String,
    /// In a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<&'static str>,
}

impl Profile {
    /// Reads a certificate. What cannot be read is left out.
    pub fn of(certificate: &Certificate) -> Self {
        let tbs = certificate.parsed().tbs_certificate();
        let subject = tbs.subject();
        let (device_serial, model) = serial_and_model(subject);
        let validity = tbs.validity();
        let serial = tbs.serial_number().as_bytes();
        Self {
            subject: certificate.subject(),
            issuer: tbs.issuer().to_string(),
            certificate_serial: hex(serial),
            device_serial,
            model,
            not_before: validity.not_before.to_date_time().to_string(),
            not_after: end(validity.not_after.to_date_time()).map(|end| end.to_string()),
            hardware_module: hardware_module(certificate),
            policies: policies(certificate),
            extended_key_usage: purposes(certificate).iter().map(Meaning::of).collect(),
            key_usage: key_usage(certificate).map(|usage| usages(&usage)),
            authority: certificate.is_authority(),
            authority_key_id: authority_key_id(certificate).map(|id| hex(&id)),
            subject_key_id: subject_key_id(certificate).map(|id| hex(&id)),
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

/// `None` for a certificate without end.
pub(super) fn end(not_after: DateTime) -> Option<DateTime> {
    (not_after.year() < 9999).then_some(not_after)
}

/// Some makers pack both into the serialNumber: `PID:model SN:serial`. A subject without one names
/// no device, whatever its common name is.
fn serial_and_model(subject: &Name) -> (Option<String>, Option<String>) {
    let whole = attribute(subject, SERIAL_NUMBER);
    let packed = |mark: &str| {
        let words = whole.as_deref()?.split([' ', ',', ';']);
        let found = words.filter_map(|word| word.strip_prefix(mark)).next();
        found.filter(|found| !found.is_empty()).map(str::to_owned)
    };
    let common = || attribute(subject, COMMON_NAME).filter(|_| whole.is_some());
    let model = packed("PID:").or_else(common);
    (packed("SN:").or(whole.clone()), model)
}

fn attribute(name: &Name, kind: ObjectIdentifier) -> Option<String> {
    let found = name.iter().find(|attribute| attribute.oid == kind)?;
    // Every string type of X.520 that makers use is UTF-8, or ASCII, inside.
    String::from_utf8(found.value.value().to_vec()).ok()
}

fn hardware_module(certificate: &Certificate) -> Option<HardwareModule> {
    let names = alternative_names(certificate)?;
    names.iter().find_map(|name| match name {
        GeneralName::OtherName(other) => {
            let module = HardwareModuleName::from_other_name(other).ok()??;
            Some(HardwareModule::of(&module, "otherName"))
        }
        // As swtpm_cert writes it: an attribute of a name.
        GeneralName::DirectoryName(name) => {
            let module = name.iter().find(|one| one.oid == HARDWARE_MODULE_NAME)?;
            let module = module.value.decode_as().ok()?;
            Some(HardwareModule::of(&module, "directoryName"))
        }
        _ => None,
    })
}

/// The subjectAltName.
pub(super) fn alternative_names(certificate: &Certificate) -> Option<Vec<GeneralName>> {
    let names = SubjectAltName::from_der(certificate.extension(SUBJECT_ALT_NAME)?).ok()?;
    Some(names.0)
}

impl HardwareModule {
    fn of(module: &HardwareModuleName, place: &'static str) -> Self {
        let serial = module.hw_serial_num.as_bytes();
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        Self {
            kind: Meaning::of(&module.hw_type),
            serial: match str::from_utf8(serial) {
                Ok(text) if serial.iter().all(printable) => text.to_owned(),
                _ => hex(serial),
            },
            place,
        }
    }
}

fn policies(certificate: &Certificate) -> Vec<Meaning> {
    let value = certificate.extension(CERTIFICATE_POLICIES);
    let policies = value.and_then(|value| CertificatePolicies::from_der(value).ok());
    let all = policies.into_iter().flat_map(|policies| policies.0);
    all.map(|one| Meaning::of(&one.policy_identifier)).collect()
}

fn purposes(certificate: &Certificate) -> Vec<ObjectIdentifier> {
    let value = certificate.extension(EXTENDED_KEY_USAGE);
    let purposes = value.and_then(|value| ExtendedKeyUsage::from_der(value).ok());
    purposes.map(|purposes| purposes.0).unwrap_or_default()
}

pub(super) fn key_usage(certificate: &Certificate) -> Option<KeyUsage> {
    KeyUsage::from_der(certificate.extension(KEY_USAGE)?).ok()
}

fn usages(usage: &KeyUsage) -> Vec<&'static str> {
    let named = |usage| match usage {
        KeyUsages::DigitalSignature => "digitalSignature",
        KeyUsages::NonRepudiation => "nonRepudiation",
        KeyUsages::KeyEncipherment => "keyEncipherment",
        KeyUsages::DataEncipherment => "dataEncipherment",
        KeyUsages::KeyAgreement => "keyAgreement",
        KeyUsages::KeyCertSign => "keyCertSign",
        KeyUsages::CRLSign => "cRLSign",
        KeyUsages::EncipherOnly => "encipherOnly",
        KeyUsages::DecipherOnly => "decipherOnly",
    };
    usage.0.into_iter().map(named).collect()
}

pub(super) fn basic_constraints(certificate: &Certificate) -> Option<BasicConstraints> {
    BasicConstraints::from_der(certificate.extension(BASIC_CONSTRAINTS)?).ok()
}

pub(super) fn authority_key_id(certificate: &Certificate) -> Option<Vec<u8>> {
    let value = certificate.extension(AUTHORITY_KEY_ID)?;
    let id = AuthorityKeyIdentifier::from_der(value)
        .ok()?
        .key_identifier?;
    Some(id.as_bytes().to_vec())
}

pub(super) fn subject_key_id(certificate: &Certificate) -> Option<Vec<u8>> {
    let value = certificate.extension(SUBJECT_KEY_ID)?;
    Some(
        SubjectKeyIdentifier::from_der(value)
            .ok()?
            .0
            .as_bytes()
            .to_vec(),
    )
}

/// Identifiers of the critical extensions.
pub(super) fn critical(certificate: &Certificate) -> Vec<ObjectIdentifier> {
    let extensions = certificate.parsed().tbs_certificate().extensions();
    let critical = extensions.into_iter().flatten().filter(|one| one.critical);
    critical.map(|one| one.extn_id).collect()
}

/// Whether the notAfter stands in the form that RFC 5280, section 4.1.2.5, wants for its year.
pub(super) fn ends_in_right_form(certificate: &Certificate) -> bool {
    let not_after = certificate.parsed().tbs_certificate().validity().not_after;
    let der = not_after.to_der().unwrap_or_default();
    let late = not_after.to_date_time().year() >= 2050;
    AnyRef::from_der(&der).is_ok_and(|any| (any.tag() == Tag::GeneralizedTime) == late)
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

    #[test]
    fn serial_and_model_packed_or_not() {
        let of = |text: &str| serial_and_model(&text.parse().unwrap());
        let some = |text: &str| Some(text.to_owned());
        for (subject, serial, model) in [
            (
                "serialNumber=PID:X-9 SN:123,CN=node",
                some("123"),
                some("X-9"),
            ),
            ("serialNumber=SN:123,CN=node", some("123"), some("node")),
            ("serialNumber=123,CN=node", some("123"), some("node")),
            ("serialNumber=SN:,CN=node", some("SN:"), some("node")),
            ("O=nobody", None, None),
            ("CN=web", None, None),
        ] {
            assert_eq!(of(subject), (serial, model), "{subject}");
        }
    }
}
