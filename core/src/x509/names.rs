//! Names of certificates as text (RFC 5280, section 4.1.2.4), with all string types that
//! manufacturers use.

use super::decode::Unreadable;
use crate::ber::{Element, SEQUENCE, SET, as_der, encoded};
use crate::key::hex;
use std::fmt::{self, Write};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::DB;

const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const UNIVERSAL_STRING: u8 = 0x1C;

/// A Name: its RDNs in the order of the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name<'a>(Vec<Vec<NameAttribute<'a>>>);

/// One attribute of an RDN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameAttribute<'a> {
    /// The object identifier of the attribute. `None` if an arc of the identifier is too large.
    pub(crate) kind: Option<ObjectIdentifier>,
    pub(crate) value: Element<'a>,
}

impl<'a> Name<'a> {
    /// Parses a Name in DER. Returns `None` if the bytes are not a Name.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let sets = Element::only(der)?.children_of(SEQUENCE)?;
        let relative = |set: Element<'a>| -> Option<Vec<NameAttribute<'a>>> {
            let attributes = set.children_of(SET)?.into_iter();
            attributes.map(NameAttribute::read).collect()
        };
        sets.into_iter()
            .map(relative)
            .collect::<Option<_>>()
            .map(Self)
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = &NameAttribute<'a>> {
        self.0.iter().flatten()
    }

    /// Returns the value of the first attribute of the type `kind` that is a string. The value may
    /// contain any characters.
    pub(crate) fn text(&self, kind: ObjectIdentifier) -> Option<String> {
        let mut values = self.attributes().filter(|one| one.kind == Some(kind));
        values.find_map(|one| string(&one.value))
    }

    /// Encodes the name again in DER, with string types that all verifiers support. Returns `None`
    /// if an attribute cannot be encoded.
    pub(crate) fn rewritten(&self) -> Option<Vec<u8>> {
        let relative = |attributes: &Vec<NameAttribute>| -> Option<Vec<u8>> {
            let pairs = attributes.iter().map(NameAttribute::rewritten);
            let mut pairs: Vec<Vec<u8>> = pairs.collect::<Option<_>>()?;
            pairs.sort();
            Some(encoded(SET, &pairs.concat()))
        };
        let all: Vec<Vec<u8>> = self.0.iter().map(relative).collect::<Option<_>>()?;
        Some(encoded(SEQUENCE, &all.concat()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> NameAttribute<'a> {
    fn read(element: Element<'a>) -> Option<Self> {
        match element.children_of(SEQUENCE)?[..] {
            [kind, value] if kind.tag == OBJECT_IDENTIFIER => Some(Self {
                kind: ObjectIdentifier::from_bytes(kind.content).ok(),
                value,
            }),
            _ => None,
        }
    }
}

impl NameAttribute<'_> {
    fn rewritten(&self) -> Option<Vec<u8>> {
        let kind = encoded(OBJECT_IDENTIFIER, self.kind?.as_bytes());
        let value = match (self.value.tag, string(&self.value)) {
            (UNIVERSAL_STRING, Some(text)) => encoded(UTF8_STRING, text.as_bytes()),
            _ => as_der(self.value.whole)?,
        };
        Some(encoded(SEQUENCE, &[kind, value].concat()))
    }
}

impl fmt::Display for Name<'_> {
    /// Writes the format of RFC 4514: the last RDN is first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, relative) in self.0.iter().rev().enumerate() {
            for (beside, attribute) in relative.iter().enumerate() {
                match (at, beside) {
                    (0, 0) => {}
                    (_, 0) => f.write_char(',')?,
                    _ => f.write_char('+')?,
                }
                attribute.fmt(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for NameAttribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.kind.map(|kind| DB.find_names_for_oid(kind));
        let name = names.and_then(|names| names.min_by_key(|name| name.len()));
        match (name, string(&self.value)) {
            (Some(name), Some(text)) => {
                write!(f, "{}=", name.to_ascii_uppercase())?;
                escaped(f, &text)
            }
            _ => {
                match self.kind {
                    Some(kind) => kind.fmt(f)?,
                    None => f.write_str("an unknown attribute")?,
                }
                write!(f, "=#{}", hex(self.value.whole))
            }
        }
    }
}

/// Writes text with the escapes of RFC 4514, section 2.4. Control characters become hexadecimal
/// pairs.
pub(super) fn escaped(f: &mut impl Write, text: &str) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        match c {
            '#' if at == 0 => f.write_str("\\#")?,
            ' ' if at == 0 || at == last => f.write_str("\\ ")?,
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{c}")?,
            c if is_hidden(c) => f.write_str(&pairs(c))?,
            c => f.write_char(c)?,
        }
    }
    Ok(())
}

/// Returns true for characters that a terminal interprets or does not show: control characters and
/// direction marks.
fn is_hidden(c: char) -> bool {
    let marks = ['\u{061C}', '\u{FEFF}'];
    c.is_control()
        || marks.contains(&c)
        || ('\u{200B}'..='\u{200F}').contains(&c)
        || ('\u{2028}'..='\u{202E}').contains(&c)
        || ('\u{2060}'..='\u{2069}').contains(&c)
}

fn pairs(c: char) -> String {
    let mut buffer = [0; 4];
    let bytes = c.encode_utf8(&mut buffer).bytes();
    bytes.map(|byte| format!("\\{byte:02x}")).collect()
}

/// Returns a string of X.520 without trailing NULs; `None` if the value is not a string.
pub(crate) fn string(value: &Element) -> Option<String> {
    const BMP: u8 = 0x1E;
    let bytes = value.content;
    let text = match value.tag {
        // The ASN.1 string types UTF8String, NumericString, PrintableString, T61String, IA5String,
        // VisibleString and GeneralString.
        UTF8_STRING | 0x12 | 0x13 | 0x14 | 0x16 | 0x1A | 0x1B => eight_bit(bytes),
        BMP => {
            let (units, rest) = bytes.as_chunks();
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            let text: Result<String, _> = char::decode_utf16(units).collect();
            text.ok().filter(|_| rest.is_empty())?
        }
        UNIVERSAL_STRING => {
            let (points, rest) = bytes.as_chunks();
            let mut points = points.iter().map(|point| u32::from_be_bytes(*point));
            let text: Option<String> = points.try_fold(String::new(), |mut text, point| {
                text.push(char::from_u32(point)?);
                Some(text)
            });
            text.filter(|_| rest.is_empty())?
        }
        _ => return None,
    };
    Some(text.trim_end_matches('\0').to_owned())
}

/// Decodes UTF-8, whatever the string type. Bytes that are not UTF-8 are decoded as Latin-1, as
/// OpenSSL does for a T61String.
fn eight_bit(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Returns the name in the format of RFC 4514, or a text that says that the name cannot be read.
pub(crate) fn name_text(name: Result<Name, Unreadable>) -> String {
    name.map_or_else(
        |_| "a name that cannot be read".into(),
        |name| name.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CN: &[u8] = &[6, 3, 0x55, 4, 3];

    fn name(values: &[(u8, &[u8])]) -> Vec<u8> {
        let relative = values.iter().map(|(tag, text)| {
            let pair = [CN, &encoded(*tag, text)].concat();
            encoded(SET, &encoded(SEQUENCE, &pair))
        });
        encoded(SEQUENCE, &relative.collect::<Vec<_>>().concat())
    }

    fn said(tag: u8, text: &[u8]) -> String {
        Name::read(&name(&[(tag, text)])).unwrap().to_string()
    }

    #[test]
    fn every_string_type_is_text() {
        for (tag, text) in [
            (0x0C, "Ger\u{e4}t".as_bytes()),
            (0x14, b"Ger\xE4t"),
            (0x13, b"Ger\xE4t"),
            (0x1B, "Ger\u{e4}t".as_bytes()),
            (0x1E, b"\0G\0e\0r\0\xE4\0t"),
            (0x1E, b"\0G\0e\0r\0\xE4\0t\0\0\0\0"),
            (0x1C, b"\0\0\0G\0\0\0e\0\0\0r\0\0\0\xE4\0\0\0t"),
            (0x14, b"Ger\xE4t\0\0\0"),
        ] {
            assert_eq!(said(tag, text), "CN=Ger\u{e4}t", "{tag:x}");
        }
    }

    #[test]
    fn what_is_no_string_is_shown_as_it_stands() {
        for (tag, content, shown) in [
            (0x02, &b"*"[..], "2.5.4.3=#02012a"),
            (0x1E, b"\0G\0", "2.5.4.3=#1e03004700"),
            (0x1E, b"\xD8\0", "2.5.4.3=#1e02d800"),
            (0x1C, b"\0\x11\0\0", "2.5.4.3=#1c0400110000"),
        ] {
            assert_eq!(said(tag, content), shown);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        let cn = ObjectIdentifier::new_unwrap("2.5.4.3");
        for (text, said) in [
            ("a\x1b[2J", "a\\1b[2J"),
            ("a\nb\0c", "a\\0ab\\00c"),
            ("a\u{202e}b\u{85}", "a\\e2\\80\\aeb\\c2\\85"),
        ] {
            let der = name(&[(0x0C, text.as_bytes())]);
            let name = Name::read(&der).unwrap();
            assert_eq!(name.text(cn).unwrap(), text);
            assert_eq!(name.to_string(), format!("CN={said}"));
        }
        assert_eq!(said(0x0C, b" #a, b "), "CN=\\ #a\\, b\\ ");
    }

    #[test]
    fn the_first_string_counts_and_what_is_no_name_is_none() {
        let cn = ObjectIdentifier::new_unwrap("2.5.4.3");
        let der = name(&[(2, b"*"), (0x13, b"first"), (0x13, b"second")]);
        let read = Name::read(&der).unwrap();
        assert_eq!(read.text(cn).as_deref(), Some("first"));
        assert!(read.to_string().starts_with("CN=second,CN=first,"));
        assert_eq!(Name::read(&der[1..]), None);
        assert!(Name::read(&[0x30, 0]).unwrap().is_empty());
    }
}
