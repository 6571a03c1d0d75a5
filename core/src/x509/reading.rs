//! Parses certificates in files, in NV indices, and in bytes of a caller.

use super::certificate::Certificate;
use super::decode::NoCertificate;
use super::forms;
use crate::ber::{Element, NoElement, SEQUENCE};
use crate::pem::{PemReader, damaged};
use log::warn;

/// The tags of certificates in NV memory: TCG_PCCLIENT_STORED_CERT and TCG_PCCLIENT_FULL_CERT (TCG,
/// PC Client Implementation Specification for Conventional BIOS, section 7.4.5).
const STORED: [u8; 2] = [0x10, 0x01];
const FULL: [u8; 2] = [0x10, 0x02];
const PARTIAL: [u8; 2] = [0x10, 0x03];

/// The result of parsing bytes that may contain certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedCertificates {
    /// The parsed certificates, in the order of the bytes.
    pub certificates: Vec<Certificate>,
    /// Descriptions of the contents that are not certificates.
    pub unread: Vec<String>,
    /// True if the last certificate is truncated.
    pub is_cut: bool,
}

impl Certificate {
    /// Parses all certificates in `bytes`, and describes other contents. Accepts PEM with text
    /// around it, or a sequence of DER certificates. Before a certificate, a TCG header or size is
    /// ignored; after the certificates, padding is ignored.
    pub fn read_all(bytes: &[u8]) -> ParsedCertificates {
        let scan = match forms::is_certificate(without_header(bytes)) {
            // Text in a DER certificate may look like PEM, but is not PEM.
            true => PemReader::default(),
            false => PemReader::of(without_header(bytes)),
        };
        match scan.blocks.is_empty() {
            true => ParsedCertificates::of_der(bytes),
            false => ParsedCertificates::of_pem(scan),
        }
    }

    /// Parses the certificate at the start of a PEM block. The trust settings that
    /// `openssl x509 -trustout` appends are ignored.
    pub(crate) fn in_block(der: &[u8]) -> Result<Self, NoCertificate> {
        Self::from_der(Element::first(der).map_or(der, |(first, _)| first.whole))
    }

    /// Parses as [`Self::read_all`]. Returns at least one certificate. Other contents are logged.
    ///
    /// # Errors
    ///
    /// Fails if there is no certificate. The error describes the contents.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, NoCertificate> {
        let ParsedCertificates {
            certificates,
            unread,
            ..
        } = Self::read_all(bytes);
        let Some(first) = certificates.first() else {
            return Err(NoCertificate(unread.join("; ")));
        };
        for what in unread {
            warn!(
                "other content in addition to the certificate of {}: {what}",
                first.subject()
            );
        }
        Ok(certificates)
    }
}

impl ParsedCertificates {
    fn of_pem(scan: PemReader) -> Self {
        let mut reading = Self::default();
        for block in scan.blocks {
            let read = block.and_then(|block| match is_certificate_label(block.label) {
                true => Certificate::in_block(&block.der).map_err(|why| why.to_string()),
                false => Err(forms::in_block(block.label, &block.der)),
            });
            match read {
                Ok(certificate) => reading.certificates.push(certificate),
                Err(why) => reading.unread.push(why),
            }
        }
        reading.is_cut = scan.is_cut;
        let boundaries = scan.boundaries.iter();
        reading.unread.extend(boundaries.map(|it| damaged(it)));
        reading
    }

    fn of_der(bytes: &[u8]) -> Self {
        let mut reading = Self::default();
        let mut rest = without_header(bytes);
        while let [SEQUENCE, ..] = rest {
            match Element::first(rest) {
                Ok((element, behind)) => match Certificate::from_der(element.whole) {
                    Ok(certificate) => {
                        reading.certificates.push(certificate);
                        rest = without_header(behind);
                        continue;
                    }
                    Err(why) => reading.unread.push(why.to_string()),
                },
                Err(_) => {
                    reading.is_cut = forms::is_certificate(rest);
                    reading.unread.push(forms::name(rest));
                }
            }
            return reading;
        }
        let padding = |byte: &u8| matches!(byte, 0 | 0xFF) || byte.is_ascii_whitespace();
        let is_padding = rest.iter().all(padding);
        match (reading.certificates.is_empty(), bytes) {
            (true, []) => reading.unread.push("empty".into()),
            (true, _) if bytes.starts_with(&STORED) && rest.starts_with(&PARTIAL) => {
                reading.unread.push(
                    "a part of a certificate with a TCG header (TCG_PCCLIENT_PARTIAL_SMALL_CERT)"
                        .into(),
                )
            }
            (true, _) => reading.unread.push(forms::name(bytes)),
            (false, _) if is_padding => {}
            (false, _) => reading
                .unread
                .push(format!("after the certificate: {}", forms::name(rest))),
        }
        reading
    }
}

/// Returns true for the PEM labels under which OpenSSL also reads a certificate.
pub(crate) fn is_certificate_label(label: &str) -> bool {
    matches!(
        label,
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"
    )
}

/// Removes the prefix of a certificate in NV: a TCG header, or a size as in a TPM2B in either byte
/// order.
fn without_header(bytes: &[u8]) -> &[u8] {
    match bytes {
        [0x10, 0x01, _, _, _, rest @ ..] => return rest.strip_prefix(&FULL).unwrap_or(rest),
        [0x10, 0x02, rest @ ..] if rest.first() == Some(&SEQUENCE) => return rest,
        _ => {}
    }
    let sized = |width: usize| {
        let (size, rest) = bytes.split_at_checked(width)?;
        let fold = |size: usize, byte: &u8| size << 8 | usize::from(*byte);
        let sizes = [size.iter().fold(0, fold), size.iter().rev().fold(0, fold)];
        let length = match Element::first(rest) {
            _ if rest.starts_with(b"-----BEGIN ") => return Some(rest),
            Ok((element, _)) if element.tag == SEQUENCE => element.whole.len(),
            Err(NoElement::Cut(length)) if forms::is_certificate(rest) => length,
            _ => return None,
        };
        sizes.contains(&length).then_some(rest)
    };
    sized(2).or_else(|| sized(4)).unwrap_or(bytes)
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
