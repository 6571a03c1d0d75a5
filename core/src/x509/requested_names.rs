//! Parses names, purposes and key usages from the command line.

use super::issue::{IssueError, Subject};
use crate::ber::{OBJECT_IDENTIFIER, encoded};
use std::net::IpAddr;
use x509_cert::der::asn1::ObjectIdentifier;

const UTF8_STRING: u8 = 0x0C;
/// The otherName type of Microsoft's user principal name (UPN).
const UPN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");

const PURPOSES: [(&str, &str); 8] = [
    ("serverAuth", "1.3.6.1.5.5.7.3.1"),
    ("clientAuth", "1.3.6.1.5.5.7.3.2"),
    ("codeSigning", "1.3.6.1.5.5.7.3.3"),
    ("emailProtection", "1.3.6.1.5.5.7.3.4"),
    ("timeStamping", "1.3.6.1.5.5.7.3.8"),
    ("OCSPSigning", "1.3.6.1.5.5.7.3.9"),
    ("ipsecIKE", "1.3.6.1.5.5.7.3.17"),
    ("smartcardLogon", "1.3.6.1.4.1.311.20.2.2"),
];

/// The KeyUsage names and their bits (RFC 5280, section 4.2.1.3). Bit 0 is first; nonRepudiation
/// has two names.
const USAGES: [(&str, u32); 10] = [
    ("digitalSignature", 0),
    ("nonRepudiation", 1),
    ("contentCommitment", 1),
    ("keyEncipherment", 2),
    ("dataEncipherment", 3),
    ("keyAgreement", 4),
    ("keyCertSign", 5),
    ("cRLSign", 6),
    ("encipherOnly", 7),
    ("decipherOnly", 8),
];

fn wrong(what: String) -> IssueError {
    IssueError::Subject(what)
}

/// Parses a name for the subjectAltName and returns it as a GeneralName in DER (RFC 5280, section
/// 4.2.1.6).
pub(super) fn alternative_name(text: &str) -> Result<Vec<u8>, IssueError> {
    let expected = || {
        wrong(format!(
            "{text:?}: invalid name for the subjectAltName; expected dns:HOST, ip:ADDRESS, \
             email:ADDRESS, uri:URI, rid:OID, dirname:NAME or upn:NAME"
        ))
    };
    let (word, value) = match text.split_once(':') {
        Some((word, value)) => (word.to_ascii_lowercase(), value),
        None => (String::new(), text),
    };
    match word.as_str() {
        "dns" => dns(value),
        "ip" | "ip address" => ip(value).ok_or_else(|| {
            wrong(format!(
                "{value:?}: invalid address; expected for example 192.0.2.1 or 2001:db8::1"
            ))
        }),
        "email" => email(value),
        "uri" => uri(value),
        "rid" | "registeredid" => Ok(encoded(0x88, oid(value)?.as_bytes())),
        "upn" => match value.is_empty() {
            true => Err(expected()),
            false => {
                let value = encoded(0xA0, &encoded(UTF8_STRING, value.as_bytes()));
                let kind = encoded(OBJECT_IDENTIFIER, UPN.as_bytes());
                Ok(encoded(0xA0, &[kind, value].concat()))
            }
        },
        "dirname" => Ok(encoded(0xA4, &Subject::parse(value)?.der)),
        _ => {
            if let Some(address) = ip(text) {
                return Ok(address);
            }
            match text {
                "" => Err(expected()),
                _ if text.contains("://") || word == "urn" || word == "spiffe" => uri(text),
                _ if text.contains('@') => email(text),
                _ if word.is_empty() => dns(text),
                _ => Err(expected()),
            }
        }
    }
}

fn ip(text: &str) -> Option<Vec<u8>> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    Some(match bare.unwrap_or(text).parse().ok()? {
        IpAddr::V4(address) => encoded(0x87, &address.octets()),
        IpAddr::V6(address) => encoded(0x87, &address.octets()),
    })
}

fn dns(text: &str) -> Result<Vec<u8>, IssueError> {
    if !text.is_ascii() {
        return Err(wrong(format!(
            "{text:?}: a host name in a certificate must be in ASCII (xn--...)"
        )));
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-')
    };
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(encoded(0x82, text.as_bytes())),
        false => Err(wrong(format!("{text:?}: invalid host name"))),
    }
}

fn email(text: &str) -> Result<Vec<u8>, IssueError> {
    let parts = text.split_once('@');
    let sound = parts.is_some_and(|(local, host)| !local.is_empty() && dns(host).is_ok());
    match sound && text.is_ascii() && !text.contains(char::is_whitespace) {
        true => Ok(encoded(0x81, text.as_bytes())),
        false => Err(wrong(format!(
            "{text:?}: invalid mail address; expected ASCII"
        ))),
    }
}

fn uri(text: &str) -> Result<Vec<u8>, IssueError> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let sound = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(allowed)
        && scheme.len() + 1 < text.len();
    match sound && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(encoded(0x86, text.as_bytes())),
        false => Err(wrong(format!(
            "{text:?}: invalid URI; expected a scheme, in ASCII"
        ))),
    }
}

fn oid(text: &str) -> Result<ObjectIdentifier, IssueError> {
    ObjectIdentifier::new(text).map_err(|_| {
        wrong(format!(
            "{text:?}: invalid OID; expected for example 1.2.3.4"
        ))
    })
}

/// Parses a key purpose for extKeyUsage: a word or an OID.
pub(super) fn purpose(text: &str) -> Result<ObjectIdentifier, IssueError> {
    let known = PURPOSES
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text));
    let written = known.map_or(text, |(_, oid)| oid);
    ObjectIdentifier::new(written).map_err(|_| {
        let words: Vec<_> = PURPOSES.iter().map(|(word, _)| *word).collect();
        wrong(format!(
            "{text:?}: invalid purpose of a key; expected {} or an OID",
            words.join(", ")
        ))
    })
}

/// Parses a key usage and returns its bit. The highest bit is digitalSignature.
pub(super) fn key_usage(text: &str) -> Result<u16, IssueError> {
    let known = USAGES
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text));
    known.map(|(_, bit)| 1 << (15 - bit)).ok_or_else(|| {
        let words: Vec<_> = USAGES.iter().map(|(word, _)| *word).collect();
        wrong(format!(
            "{text:?}: invalid key usage; expected {}",
            words.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind() {
        for (text, tag, content) in [
            ("dns:a.example", 0x82, &b"a.example"[..]),
            ("DNS:*.a.example", 0x82, b"*.a.example"),
            ("a.example", 0x82, b"a.example"),
            ("IP:10.0.0.1", 0x87, b"\x0a\0\0\x01"),
            (
                "2001:db8::1",
                0x87,
                b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
            ),
            ("ip:[::1]", 0x87, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
            ("a@b.example", 0x81, b"a@b.example"),
            ("URI:https://a.example/x", 0x86, b"https://a.example/x"),
            (
                "https://a.example:8443/x",
                0x86,
                b"https://a.example:8443/x",
            ),
            ("spiffe://a/b", 0x86, b"spiffe://a/b"),
            ("urn:x:y", 0x86, b"urn:x:y"),
            ("rid:1.2.3", 0x88, b"\x2a\x03"),
        ] {
            assert_eq!(
                alternative_name(text).unwrap(),
                encoded(tag, content),
                "{text}"
            );
        }
        let directory = alternative_name("dirname:CN=a,O=b").unwrap();
        assert_eq!(directory[..2], [0xA4, 0x1A]);
        assert_eq!(alternative_name("upn:a@b").unwrap()[0], 0xA0);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "dns:",
            "dns:a..b",
            "dns:a b",
            "dns:\u{e4}.example",
            "ip:300.1.1.1",
            "ip:",
            "email:a",
            "email:@b",
            "uri:nothing",
            "uri:x:",
            "rid:x",
            "upn:",
            "web:8080",
            "dirname:x",
            "-a",
        ] {
            assert!(alternative_name(text).is_err(), "{text}");
        }
        for text in ["", "server", "1.x"] {
            assert!(purpose(text).is_err(), "{text}");
        }
        assert!(key_usage("sign").is_err());
        assert_eq!(
            purpose("SERVERAUTH").unwrap().to_string(),
            "1.3.6.1.5.5.7.3.1"
        );
    }
}
