//! Descriptions of bytes that are not a certificate, for error messages.

use super::parts::CertificateParts;
use crate::ber::{
    BIT_STRING, Element, INTEGER, NoElement, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
};
use crate::pem::PemReader;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const ENUMERATED: u8 = 0x0A;
/// The identifier octet of the constructed tag `[0]`.
const CONTEXT: u8 = 0xA0;
/// The content octets of 1.2.840.113549.1.7, with which the object identifiers of PKCS#7 begin.
const PKCS7: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7];
/// The content octets of 1.2.840.113549.1.9.16.1, with which the object identifiers of CMS content
/// types begin.
const CMS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 16, 1];
/// The content octets of 2.23.133.10.1, with which the object identifiers of TSS2 key files begin.
const TSS2: &[u8] = &[0x67, 0x81, 0x05, 0x0A, 1];

const PKCS7_IS: &str = "PKCS#7: openssl pkcs7 -print_certs extracts the certificates (with \
     -inform DER if it is binary)";
const PRIVATE_KEY_IS: &str = "a private key, which is secret, not a certificate";
const PUBLIC_KEY_IS: &str = "a public key, not a certificate";
const REQUEST_IS: &str = "a certificate request (PKCS#10); the CA answers it with a certificate";
const CRL_IS: &str = "a list of revoked certificates (CRL)";
const ATTRIBUTES_IS: &str = "an attribute certificate, which certifies no key";

/// The first bytes of file formats that are not certificates, each with the description of the
/// format.
const MAGIC: [(&[u8], &str); 19] = [
    (b"\x1F\x8B", "gzip: gunzip unpacks it"),
    (b"PK\x03\x04", "a ZIP archive: unzip unpacks it"),
    (b"\x28\xB5\x2F\xFD", "zstd: zstd -d unpacks it"),
    (b"\xFD7zXZ\0", "xz: xz -d unpacks it"),
    (b"BZh", "bzip2: bzip2 -d unpacks it"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive"),
    (b"\x04\x22\x4D\x18", "lz4: lz4 -d unpacks it"),
    (
        b"\xFE\xED\xFE\xED",
        "a Java keystore (JKS): keytool -exportcert extracts a certificate",
    ),
    (
        b"\xCE\xCE\xCE\xCE",
        "a Java keystore (JCEKS): keytool -exportcert extracts a certificate",
    ),
    (b"\x7FELF", "a program (ELF)"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"ssh-", "an OpenSSH public key, not a certificate"),
    (b"ecdsa-sha2-", "an OpenSSH public key, not a certificate"),
    (b"sk-", "an OpenSSH public key, not a certificate"),
    (
        b"---- BEGIN SSH2",
        "an SSH public key (RFC 4716), not a certificate",
    ),
    (
        b"PuTTY-User-Key-File",
        "a PuTTY private key, not a certificate",
    ),
    (
        b"openssh-key-v1\0",
        "an OpenSSH private key, not a certificate",
    ),
    (
        b"Bag Attributes",
        "output of openssl pkcs12 without its PEM blocks",
    ),
];

/// Returns true if `bytes` begin with a certificate or a truncated certificate.
pub(super) fn is_certificate(bytes: &[u8]) -> bool {
    match Element::first(bytes) {
        Ok((element, _)) => CertificateParts::of(element.whole).is_some(),
        Err(NoElement::Cut(_)) => begins_a_certificate(bytes),
        Err(NoElement::Broken) => false,
    }
}

/// Returns true for a SEQUENCE whose first member is a SEQUENCE that begins with a version or a
/// serial number.
fn begins_a_certificate(bytes: &[u8]) -> bool {
    fn inside(bytes: &[u8]) -> Option<&[u8]> {
        let [SEQUENCE, length, rest @ ..] = bytes else {
            return None;
        };
        rest.get(usize::from(length.saturating_sub(0x80))..)
    }
    let signed = inside(bytes).and_then(inside);
    signed.is_some_and(|it| matches!(it, [0xA0, 3, 2, 1, ..] | [INTEGER, 1..=21, ..]))
}

/// Describes bytes that are not a certificate, for an error message.
pub(super) fn name(bytes: &[u8]) -> String {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = text.trim_ascii();
    if let Some(what) = padding(bytes).or_else(|| wide_text(bytes)) {
        return what;
    }
    let known = MAGIC.iter().find(|(magic, _)| text.starts_with(magic));
    if let Some((_, what)) = known {
        return (*what).into();
    }
    if let Some(what) = of_text(text) {
        return what;
    }
    match Element::first(bytes) {
        Err(NoElement::Cut(length)) if begins_a_certificate(bytes) => {
            return format!(
                "a truncated certificate: only {} of its {length} bytes are present",
                bytes.len()
            );
        }
        Ok((_, behind)) if is_certificate(bytes) && !behind.is_empty() => {
            return format!("a certificate that {} other bytes follow", behind.len());
        }
        _ => {}
    }
    structure(bytes).map_or_else(
        || format!("{} bytes that are not a certificate", bytes.len()),
        |what| what.into(),
    )
}

/// Describes the content of a PEM block that is not a certificate. `label` is the label of the
/// block.
pub(super) fn in_block(label: &str, der: &[u8]) -> String {
    let what = match label {
        "OPENSSH PRIVATE KEY" => "an OpenSSH private key, not a certificate".into(),
        "TSS2 PRIVATE KEY" => "a key that a TPM wrapped, not a certificate".into(),
        _ if label.ends_with("PRIVATE KEY") => PRIVATE_KEY_IS.into(),
        _ if label.ends_with("PUBLIC KEY") => PUBLIC_KEY_IS.into(),
        _ if label.ends_with("CERTIFICATE REQUEST") => REQUEST_IS.into(),
        _ if label.ends_with("CRL") => CRL_IS.into(),
        "ATTRIBUTE CERTIFICATE" => ATTRIBUTES_IS.into(),
        "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA" => PKCS7_IS.into(),
        _ if label.starts_with("PGP ") => "an OpenPGP block".into(),
        _ if is_certificate(der) => {
            "a certificate, but under another label than CERTIFICATE: correct the BEGIN and END \
             lines"
                .into()
        }
        _ => name(der),
    };
    format!("the PEM block {label} contains {what}")
}

/// Describes bytes that are all 0x00 or all 0xFF, as in empty or erased storage.
fn padding(bytes: &[u8]) -> Option<String> {
    let first = *bytes.first()?;
    let same = matches!(first, 0 | 0xFF) && bytes.iter().all(|byte| *byte == first);
    same.then(|| {
        format!(
            "{} bytes 0x{first:02X} and nothing else: the storage was never written, or was erased",
            bytes.len()
        )
    })
}

/// Describes text in UTF-16 or UTF-32, which has two or four bytes per character.
fn wide_text(bytes: &[u8]) -> Option<String> {
    let ascii = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let width = match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => 32,
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => 16,
        [first, 0, second, 0, ..] | [0, first, 0, second, ..] if ascii(first) && ascii(second) => {
            16
        }
        [first, 0, 0, 0, second, 0, 0, 0, ..] | [0, 0, 0, first, 0, 0, 0, second, ..]
            if ascii(first) && ascii(second) =>
        {
            32
        }
        _ => return None,
    };
    Some(format!(
        "UTF-{width} text: convert it with iconv -f UTF-{width} -t UTF-8"
    ))
}

fn of_text(text: &[u8]) -> Option<String> {
    let text = str::from_utf8(text).ok()?;
    if text.is_empty() || text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let lower: String = text.chars().take(400).collect::<String>().to_lowercase();
    let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let boundary = PemReader::of(text.as_bytes()).boundaries.into_iter().next();
    Some(if let Some(boundary) = boundary {
        crate::pem::damaged(&boundary)
    } else if lower.starts_with("<!doctype html") || lower.contains("<html") {
        "an HTML page: probably an error page of a web server instead of the file".into()
    } else if lower.starts_with('<') {
        "XML".into()
    } else if text.starts_with(['{', '[']) {
        "JSON".into()
    } else if text.contains("-----BEGIN ") {
        "text in which a PEM block does not begin at the start of a line".into()
    } else if dense.len().is_multiple_of(2) && dense.chars().all(|c| c.is_ascii_hexdigit()) {
        "hexadecimal digits: convert them to bytes with xxd -r -p".into()
    } else if is_base64(&dense) {
        "base64 without the lines -----BEGIN CERTIFICATE----- before it and -----END \
         CERTIFICATE----- after it"
            .into()
    } else {
        "text without a PEM block".into()
    })
}

fn is_base64(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
    text.len() >= 64 && text.trim_end_matches('=').chars().all(digit)
}

/// Describes an ASN.1 structure that is not a certificate.
fn structure(bytes: &[u8]) -> Option<&'static str> {
    let whole = match Element::first(bytes) {
        Ok((whole, _)) => whole,
        // A truncated SEQUENCE whose type is unknown.
        Err(NoElement::Cut(_)) if bytes.first() == Some(&SEQUENCE) => {
            return Some("a truncated ASN.1 structure");
        }
        Err(_) => return None,
    };
    let parts = whole.children_of(SEQUENCE)?;
    let tags: Vec<u8> = parts.iter().map(|part| part.tag).collect();
    let inner = parts.first().and_then(|first| first.children());
    let inner = inner.unwrap_or_default();
    let inside: Vec<u8> = inner.iter().map(|part| part.tag).collect();
    let names = |oid: &[u8]| parts.first().is_some_and(|it| it.content.starts_with(oid));
    Some(match (&tags[..], &inside[..]) {
        ([OBJECT_IDENTIFIER, ..], _) if names(PKCS7) || names(CMS) => PKCS7_IS,
        ([OBJECT_IDENTIFIER, ..], _) if names(TSS2) => {
            "a key that a TPM wrapped, not a certificate"
        }
        ([INTEGER, SEQUENCE, ..], _) if is_pkcs12(&parts) => {
            "PKCS#12: openssl pkcs12 -in … -nokeys -clcerts extracts the certificate"
        }
        ([INTEGER, SEQUENCE, OCTET_STRING, ..], _)
        | ([INTEGER, OCTET_STRING, ..], _)
        | ([INTEGER, INTEGER, INTEGER, INTEGER, ..], _)
        | ([SEQUENCE, OCTET_STRING], [OBJECT_IDENTIFIER, ..]) => PRIVATE_KEY_IS,
        ([SEQUENCE, BIT_STRING], [OBJECT_IDENTIFIER, ..]) | ([INTEGER, INTEGER], _) => {
            PUBLIC_KEY_IS
        }
        ([SEQUENCE, SEQUENCE, BIT_STRING], _) => return Some(signed(&inside)),
        ([SEQUENCE, ..], _)
            if parts
                .iter()
                .all(|one| CertificateParts::of(one.whole).is_some()) =>
        {
            "a PkiPath (several certificates in a SEQUENCE), a format that is not supported: \
             write each certificate as PEM, or concatenate the DER certificates"
        }
        ([ENUMERATED, ..], _) => "an answer about revocation (OCSP)",
        _ => "an ASN.1 structure that is not a certificate",
    })
}

/// Describes a signed structure, which is recognised by the tags of its signed part.
fn signed(inside: &[u8]) -> &'static str {
    match inside {
        [INTEGER, SEQUENCE, SEQUENCE, CONTEXT] | [INTEGER, SEQUENCE, SEQUENCE] => REQUEST_IS,
        [INTEGER, SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..]
        | [SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..] => CRL_IS,
        [INTEGER, SEQUENCE, CONTEXT | SEQUENCE, SEQUENCE, INTEGER, ..]
        | [
            SEQUENCE | CONTEXT | 0xA1,
            CONTEXT | SEQUENCE,
            SEQUENCE,
            INTEGER,
            ..,
        ] => ATTRIBUTES_IS,
        _ => "a damaged certificate: its fields do not have the order of RFC 5280",
    }
}

/// Returns true for a PFX (RFC 7292, section 4): version 3 and contents of PKCS#7.
fn is_pkcs12(parts: &[Element]) -> bool {
    let contents = parts.get(1).and_then(|contents| contents.children());
    let kind = contents.and_then(|contents| contents.first().copied());
    let is_pkcs7 = kind.is_some_and(|kind| kind.content.starts_with(PKCS7));
    parts.first().is_some_and(|version| version.content == [3]) && is_pkcs7
}
