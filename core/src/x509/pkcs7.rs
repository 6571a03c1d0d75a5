//! Parses PKCS#7 certificates (RFC 5652, section 5) and other answers of a CA. RFC 5272 calls
//! PKCS#7 without signers certs-only.

use super::certificate::Certificate;
use super::decode::NoCertificate;
use super::reading::is_certificate_label;
use crate::ber::{Element, INTEGER, NoElement, OBJECT_IDENTIFIER, SEQUENCE};
use crate::pem::PemReader;
use log::warn;
use x509_cert::der::oid::db::rfc5911::ID_SIGNED_DATA;
use x509_cert::der::pem::Base64Decoder;

/// The tag `[0]`, constructed: the content of ContentInfo, or the certificates of SignedData.
const CONTEXT_0: u8 = 0xA0;
/// Returns the certificates in the answer of a CA: PEM, DER or PKCS#7. PKCS#7 may also be PEM, or
/// base64 without boundary lines. Lines may have any length.
///
/// # Errors
///
/// Fails if there is no certificate. The error describes the answer.
pub fn certificates_of_answer(bytes: &[u8]) -> Result<Vec<Certificate>, NoCertificate> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match bare_base64(text) {
        Some(der) => of_der(&der),
        _ if bytes.first() == Some(&SEQUENCE) => of_der(bytes),
        _ => of_pem(bytes),
    }
}

fn of_der(bytes: &[u8]) -> Result<Vec<Certificate>, NoCertificate> {
    match signed_data(bytes) {
        Some(content) => in_signed_data(content?),
        None => Certificate::parse_all(bytes),
    }
}

/// Parses the PEM blocks in a CA's answer. A block that contains PKCS#7 may have the label
/// CERTIFICATE.
fn of_pem(bytes: &[u8]) -> Result<Vec<Certificate>, NoCertificate> {
    let mut found = Vec::new();
    for block in PemReader::of(bytes).blocks.into_iter().flatten() {
        match signed_data(&block.der) {
            Some(content) => found.extend(in_signed_data(content?)?),
            None if is_certificate_label(block.label) => {
                found.extend(Certificate::in_block(&block.der).ok());
            }
            None => {}
        }
    }
    // The general parser describes the contents that are ignored or not readable.
    match found.is_empty() {
        true => Certificate::parse_all(bytes),
        false => Ok(found),
    }
}

/// Decodes a text that is only base64, with optional blanks. Returns `None` for other text.
pub(super) fn bare_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let digits = digits
        .strip_suffix(b"==")
        .or(digits.strip_suffix(b"="))
        .unwrap_or(&digits);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if digits.is_empty() || !digits.iter().all(is_digit) {
        return None;
    }
    let mut padded = digits.to_vec();
    padded.resize(digits.len().next_multiple_of(4), b'=');
    let mut decoded = Vec::new();
    let decoder = Base64Decoder::new(&padded);
    decoder
        .and_then(|mut decoder| decoder.decode_to_end(&mut decoded).map(drop))
        .ok()?;
    (decoded.first() == Some(&SEQUENCE)).then_some(decoded)
}

/// Returns the SignedData in a ContentInfo; `None` if the bytes are not a ContentInfo with
/// SignedData.
fn signed_data(bytes: &[u8]) -> Option<Result<Element<'_>, NoCertificate>> {
    let fault = |what: &str| Some(Err(NoCertificate(format!("PKCS#7 {what}"))));
    let info = match Element::first(bytes) {
        Ok((info, _)) => info,
        // A truncated or BER-encoded ContentInfo: a SEQUENCE whose length is indefinite or too
        // long, followed by the identifier of SignedData.
        Err(why) => {
            let named = bytes.windows(ID_SIGNED_DATA.as_bytes().len()).take(16);
            let is_one = named
                .into_iter()
                .any(|window| window == ID_SIGNED_DATA.as_bytes());
            return match (is_one && bytes.first() == Some(&SEQUENCE), why) {
                (false, _) => None,
                (true, NoElement::Cut(length)) => fault(&format!(
                    "that is truncated: only {} of its {length} bytes are present",
                    bytes.len()
                )),
                (true, NoElement::Broken) => fault("that is damaged"),
            };
        }
    };
    let parts = info.children_of(SEQUENCE)?;
    let [kind, rest @ ..] = &parts[..] else {
        return None;
    };
    if kind.tag != OBJECT_IDENTIFIER || kind.content != ID_SIGNED_DATA.as_bytes() {
        return None;
    }
    let content = match rest {
        [content] if content.tag == CONTEXT_0 => Element::only(content.content),
        _ => None,
    };
    match content.filter(|content| content.tag == SEQUENCE) {
        Some(content) => Some(Ok(content)),
        None => fault("without content"),
    }
}

/// Returns the certificates in SignedData, in the order of the encoding.
fn in_signed_data(content: Element<'_>) -> Result<Vec<Certificate>, NoCertificate> {
    let fault = |what: &str| NoCertificate(format!("PKCS#7 {what}"));
    let parts = content.children().unwrap_or_default();
    let [version, _, contents, rest @ ..] = &parts[..] else {
        return Err(fault("that is damaged"));
    };
    if (version.tag, contents.tag) != (INTEGER, SEQUENCE) {
        return Err(fault("that is damaged"));
    }
    let Some(set) = rest.first().filter(|part| part.tag == CONTEXT_0) else {
        return Err(fault("that contains no certificate"));
    };
    let mut found = Vec::new();
    for one in set
        .children()
        .ok_or_else(|| fault("whose certificates are damaged"))?
    {
        match Certificate::from_der(one.whole) {
            Ok(certificate) => found.push(certificate),
            // A certificate format that devices do not use (RFC 5652, section 10.2.2).
            Err(_) if one.tag != SEQUENCE => {
                warn!("PKCS#7: a certificate in another format is ignored")
            }
            Err(why) => {
                return Err(fault(&format!(
                    "in which a certificate is not valid: {why}"
                )));
            }
        }
    }
    match found.is_empty() {
        true => Err(fault("that contains no certificate")),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ber::encoded;
    use x509_cert::der::asn1::ObjectIdentifier;
    use x509_cert::der::oid::db::rfc5911::ID_DATA;

    fn leaf() -> Certificate {
        Certificate::parse_all(include_bytes!("../../testdata/leaf.pem"))
            .unwrap()
            .remove(0)
    }

    fn ca() -> Certificate {
        Certificate::parse_all(include_bytes!("../../testdata/ca.pem"))
            .unwrap()
            .remove(0)
    }

    fn oid(oid: ObjectIdentifier) -> Vec<u8> {
        encoded(OBJECT_IDENTIFIER, oid.as_bytes())
    }

    fn certs_only(certificates: &[&Certificate]) -> Vec<u8> {
        let all: Vec<u8> = certificates
            .iter()
            .flat_map(|one| one.der().to_vec())
            .collect();
        wrapped(&encoded(CONTEXT_0, &all))
    }

    fn wrapped(certificates: &[u8]) -> Vec<u8> {
        let version = encoded(INTEGER, &[1]);
        let contents = encoded(SEQUENCE, &oid(ID_DATA));
        let set = || encoded(0x31, &[]);
        let signed = [version, set(), contents, certificates.to_vec(), set()].concat();
        let content = encoded(CONTEXT_0, &encoded(SEQUENCE, &signed));
        encoded(SEQUENCE, &[oid(ID_SIGNED_DATA), content].concat())
    }

    fn base64(der: &[u8], width: usize, end: &str) -> Vec<u8> {
        let pem = crate::pem::render("X", der).unwrap();
        let digits: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let lines = digits
            .as_bytes()
            .chunks(width)
            .flat_map(|line| [line, end.as_bytes()].concat());
        lines.collect()
    }

    #[test]
    fn every_form_of_an_answer_is_read() {
        let (leaf, ca) = (leaf(), ca());
        let der = certs_only(&[&ca, &leaf]);
        let both = vec![ca.clone(), leaf.clone()];
        let pem = |label: &str| crate::pem::render(label, &der).unwrap().into_bytes();
        let mut marked = b"\xEF\xBB\xBF".to_vec();
        marked.extend(base64(&der, 64, "\n"));
        let mut unpadded = base64(&der, 1 << 20, "");
        unpadded.retain(|byte| *byte != b'=');
        for (form, answer) in [
            ("DER", der.clone()),
            ("PEM", pem("PKCS7")),
            ("CMS", pem("CMS")),
            ("another label", pem("CERTIFICATE")),
            ("one line", base64(&der, 1 << 20, "")),
            ("76 columns, CRLF", base64(&der, 76, "\r\n")),
            ("odd lines", base64(&der, 7, "\t \n\n")),
            ("a byte order mark", marked),
            ("without padding", unpadded),
            (
                "two certificates in PEM",
                [ca.pem(), leaf.pem()].concat().into_bytes(),
            ),
            ("two in DER", [ca.der(), leaf.der()].concat()),
        ] {
            assert_eq!(certificates_of_answer(&answer).unwrap(), both, "{form}");
        }
        assert_eq!(
            certificates_of_answer(&base64(leaf.der(), 64, "\n")).unwrap(),
            [leaf]
        );
    }

    /// A BER encoding with indefinite lengths.
    #[test]
    fn an_open_length_is_read() {
        let leaf = leaf();
        let open = |tag: u8, content: &[u8]| [&[tag, 0x80], content, &[0, 0]].concat();
        let contents = open(SEQUENCE, &oid(ID_DATA));
        let version = encoded(INTEGER, &[1]);
        let parts = [
            version,
            encoded(0x31, &[]),
            contents,
            open(CONTEXT_0, leaf.der()),
            encoded(0x31, &[]),
        ];
        let content = open(CONTEXT_0, &open(SEQUENCE, &parts.concat()));
        let whole = open(SEQUENCE, &[oid(ID_SIGNED_DATA), content].concat());
        assert_eq!(certificates_of_answer(&whole).unwrap(), [leaf]);
    }

    #[test]
    fn what_holds_none_is_named() {
        let der = certs_only(&[&leaf()]);
        let said = |bytes: &[u8]| certificates_of_answer(bytes).unwrap_err().to_string();
        assert!(said(&der[..der.len() / 2]).contains("PKCS#7 that is truncated"));
        let cut = base64(&der[..der.len() / 2], 64, "\n");
        assert!(
            said(&cut).contains("PKCS#7 that is truncated"),
            "{}",
            said(&cut)
        );
        assert!(said(&wrapped(&[])).contains("contains no certificate"));
        assert!(said(&wrapped(&encoded(CONTEXT_0, &[]))).contains("contains no certificate"));
        assert!(said(&encoded(SEQUENCE, &oid(ID_SIGNED_DATA))).contains("without content"));
        assert!(
            said(&wrapped(&encoded(CONTEXT_0, &encoded(SEQUENCE, &[5, 0]))))
                .contains("is not valid")
        );
        assert!(said(b"<html>sorry</html>").contains("HTML"));
        assert!(!said(b"").is_empty());
        assert!(!said(&leaf().der()[..20]).is_empty());
    }

    #[test]
    fn nothing_that_is_cut_or_flipped_panics() {
        let der = certs_only(&[&leaf(), &ca()]);
        for at in 0..der.len() {
            let _ = certificates_of_answer(&der[..at]);
            let mut flipped = der.clone();
            flipped[at] ^= 0x81;
            let _ = certificates_of_answer(&flipped);
        }
    }
}
