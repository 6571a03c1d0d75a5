//! Finds the device that a certificate names, and the field with its name (IEEE 802.1AR, section
//! 8.6).

use super::certificate::Certificate;
use super::names::Name;
use crate::ber::{Element, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};
use crate::key::hex;
use crate::oid::{COMMON_NAME, HARDWARE_MODULE_NAME, SERIAL_NUMBER, SUBJECT_ALT_NAME};
use x509_cert::der::asn1::ObjectIdentifier;

/// The context-specific tags of GeneralName choices (RFC 5280, section 4.2.1.6).
const OTHER_NAME: u8 = 0xA0;
const DIRECTORY_NAME: u8 = 0xA4;
/// The explicit tag `[0]` of the value in an otherName.
const EXPLICIT: u8 = 0xA0;

/// The source of a serial number that is in the subject, as IEEE 802.1AR recommends.
pub(crate) const SUBJECT: &str = "subject";

/// The serial number and model of the device that a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NamedDevice {
    pub(crate) serial: Option<String>,
    pub(crate) model: Option<String>,
    /// The field that contains serial number and model; `None` if there is no serial number.
    pub(crate) source: Option<&'static str>,
}

/// The HardwareModuleName of RFC 4108, section 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HardwareModuleName {
    pub(crate) kind: ObjectIdentifier,
    /// The field hwSerialNum, as text if it is printable, else in hexadecimal digits.
    pub(crate) serial: String,
    /// The type of GeneralName that contains the HardwareModuleName.
    pub(crate) place: &'static str,
}

impl NamedDevice {
    /// Reads the serial number of the device. Tries the serialNumber of the subject, then the
    /// serialNumber of a directoryName in the subjectAltName, then a hardwareModuleName in the
    /// subjectAltName. A common name is not used, because it may name a service.
    pub(crate) fn of(certificate: &Certificate) -> Self {
        let subject = certificate.subject_name().ok();
        if let Some(found) = subject.and_then(|name| Self::in_name(&name, SUBJECT)) {
            return found;
        }
        let alternative = alternative_names(certificate);
        let mut names = alternative.iter().filter_map(directory_name);
        let place = "subjectAltName, directoryName";
        if let Some(found) = names.find_map(|name| Self::in_name(&name, place)) {
            return found;
        }
        match hardware_module(certificate) {
            Some(module) => Self {
                serial: Some(module.serial),
                model: None,
                source: Some("subjectAltName, hardwareModuleName"),
            },
            None => Self::default(),
        }
    }

    pub(crate) fn in_name(name: &Name, place: &'static str) -> Option<Self> {
        let whole = name.text(SERIAL_NUMBER).filter(|text| !text.is_empty())?;
        let packed = Packed::read(&whole);
        Some(Self {
            serial: packed.serial.or(Some(whole)),
            model: packed.model.or_else(|| name.text(COMMON_NAME)),
            source: Some(place),
        })
    }
}

/// A serialNumber attribute in the format of some manufacturers, with model and serial number:
/// `PID:model SN:serial`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Packed {
    serial: Option<String>,
    model: Option<String>,
}

impl Packed {
    /// Parses a serialNumber attribute in this format. A mark (`PID:`, `SN:`) is capital letters
    /// before a colon, at the beginning or after a separator. A value extends to the next mark.
    fn read(text: &str) -> Self {
        let separates = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '/' | '|');
        let mut marks = Vec::new();
        for (colon, _) in text.match_indices(':') {
            let before = text[..colon].trim_end_matches(|c: char| c.is_ascii_uppercase());
            let mark = &text[before.len()..colon];
            if mark.len() >= 2 && (before.is_empty() || before.ends_with(separates)) {
                marks.push((before.len(), mark, colon + 1));
            }
        }
        let ends = marks.iter().skip(1).map(|(start, ..)| *start);
        let ends: Vec<usize> = ends.chain([text.len()]).collect();
        let mut packed = Self::default();
        for ((_, mark, start), end) in marks.into_iter().zip(ends) {
            let value = text[start..end].trim_matches(separates);
            let value = value.split([',', ';']).next().map(str::trim_end);
            let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
            match mark {
                "PID" => packed.model = packed.model.or(value),
                "SN" => packed.serial = packed.serial.or(value),
                _ => {}
            }
        }
        packed
    }
}

/// Returns the first HardwareModuleName in the subjectAltName. swtpm_cert writes it as an attribute
/// of a directoryName instead of an otherName.
pub(crate) fn hardware_module(certificate: &Certificate) -> Option<HardwareModuleName> {
    let names = alternative_names(certificate);
    let other = |name: &Element| {
        let [kind, value] = name.children_of(OTHER_NAME)?[..] else {
            return None;
        };
        let [value] = value.children_of(EXPLICIT)?[..] else {
            return None;
        };
        let wanted =
            kind.tag == OBJECT_IDENTIFIER && kind.content == HARDWARE_MODULE_NAME.as_bytes();
        wanted.then(|| HardwareModuleName::read(&value, "otherName"))?
    };
    let attribute = |name: &Element| {
        let name = directory_name(name)?;
        let mut modules = name
            .attributes()
            .filter(|one| one.kind == Some(HARDWARE_MODULE_NAME));
        modules.find_map(|one| HardwareModuleName::read(&one.value, "directoryName"))
    };
    let mut others = names.iter().filter_map(other);
    others.next().or_else(|| names.iter().find_map(attribute))
}

impl HardwareModuleName {
    fn read(value: &Element, place: &'static str) -> Option<Self> {
        let [kind, serial] = value.children_of(SEQUENCE)?[..] else {
            return None;
        };
        if (kind.tag, serial.tag) != (OBJECT_IDENTIFIER, OCTET_STRING) {
            return None;
        }
        let text = str::from_utf8(serial.content)
            .map(|text| text.trim_end_matches('\0'))
            .ok()
            .filter(|text| !text.is_empty() && !text.contains(char::is_control));
        Some(Self {
            kind: ObjectIdentifier::from_bytes(kind.content).ok()?,
            serial: text.map_or_else(|| hex(serial.content), str::to_owned),
            place,
        })
    }
}

/// Returns the GeneralNames of the subjectAltName. Other names are returned even if one name cannot
/// be read.
fn alternative_names(certificate: &Certificate) -> Vec<Element<'_>> {
    let extension = certificate.extension(SUBJECT_ALT_NAME).ok().flatten();
    let names = extension.and_then(|it| Element::only(it.value)?.children_of(SEQUENCE));
    names.unwrap_or_default()
}

fn directory_name<'a>(name: &Element<'a>) -> Option<Name<'a>> {
    (name.tag == DIRECTORY_NAME).then(|| Name::read(name.content))?
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! named {
        ($name:literal) => {{
            let der = include_bytes!(concat!("../../testdata/shapes/", $name, ".der"));
            let certificate = Certificate::from_der(der).unwrap();
            let device = NamedDevice::of(&certificate);
            let module = hardware_module(&certificate).map(|module| module.serial);
            (device.serial, device.model, device.source, module)
        }};
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn names_of_every_string_type_name_the_device() {
        for (said, model) in [
            (named!("str-bmp"), "Gerät 7"),
            (named!("str-t61"), "Gerät 7"),
            (named!("str-universal"), "Gerät 7"),
            (named!("ca-true-leaf"), "EX-1000"),
        ] {
            assert_eq!(said.0, some("SN000123"));
            assert_eq!((said.1, said.2), (some(model), Some(SUBJECT)));
        }
        let number = named!("attr-nonstring-sn");
        assert_eq!(number.2, Some("subjectAltName, hardwareModuleName"));
    }

    #[test]
    fn one_odd_name_does_not_cost_the_others() {
        for said in [
            named!("san-x400"),
            named!("san-uri-utf8"),
            named!("san-dns-underscore-utf8"),
        ] {
            assert_eq!(said.3, some("SN000123"));
        }
    }

    #[test]
    fn a_device_that_only_the_alternative_name_names() {
        let module = named!("sub-nosn-hwname");
        let source = Some("subjectAltName, hardwareModuleName");
        assert_eq!((module.0, module.2), (some("SN000123"), source));
        let directory = named!("sub-empty-san-dirname-sn");
        let source = Some("subjectAltName, directoryName");
        assert_eq!((directory.0, directory.2), (some("SNDIR"), source));
    }

    #[test]
    fn serial_and_model_packed_by_their_makers() {
        assert_eq!(named!("pid-slash").0, some("FOC7"));
        assert_eq!(named!("pid-slash").1, some("EX"));
        assert_eq!(named!("pid-space").0, some("FOC2"));
        assert_eq!(named!("pid-space").1, some("EX-1"));
        assert_eq!(named!("pid-pidspaces").0, some("FOC5"));
        assert_eq!(named!("pid-pidspaces").1, some("IE 4000 4TC"));
        for (text, serial, model) in [
            ("PID:X-9 SN:123", Some("123"), Some("X-9")),
            ("PID:EX/SN:FOC7", Some("FOC7"), Some("EX")),
            ("PID:EX/A-1/SN:FOC7", Some("FOC7"), Some("EX/A-1")),
            ("PID: X SN: Y", Some("Y"), Some("X")),
            ("SN:123,PID:X", Some("123"), Some("X")),
            ("PID:X;VID:V01;SN:1", Some("1"), Some("X")),
            ("PID:X VID:V01 SN:1 VER:2", Some("1"), Some("X")),
            ("SN:123", Some("123"), None),
            ("SN:", None, None),
            ("PID: SN:7", Some("7"), None),
            ("PID:X SN:7, made in 2020", Some("7"), Some("X")),
            ("123", None, None),
            ("00:1A:2B", None, None),
            ("XSN:7", None, None),
            ("a PSN:7", None, None),
        ] {
            let packed = Packed::read(text);
            let said = (packed.serial.as_deref(), packed.model.as_deref());
            assert_eq!(said, (serial, model), "{text}");
        }
    }
}
