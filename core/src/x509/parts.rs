//! The positions of the fields in the bytes of a certificate (RFC 5280, section 4.1).

use crate::ber::{BIT_STRING, Element, INTEGER, SEQUENCE};
use std::ops::Range;

const VERSION: u8 = 0xA0;

/// The positions of the fields in the bytes of a certificate. Each range includes the header of the
/// field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateParts {
    pub(super) signed: Range<usize>,
    /// The field `version`. The range is empty for version 1, because a certificate of version 1
    /// omits the field.
    pub(super) version: Range<usize>,
    pub(super) serial: Range<usize>,
    pub(super) signed_algorithm: Range<usize>,
    pub(super) issuer: Range<usize>,
    pub(super) validity: Range<usize>,
    pub(super) subject: Range<usize>,
    pub(super) key_info: Range<usize>,
    /// The optional fields at the end: unique identifiers and extensions.
    pub(super) rest: Range<usize>,
    pub(super) algorithm: Range<usize>,
    pub(super) signature: Range<usize>,
}

impl CertificateParts {
    /// Finds the fields of a certificate. Returns `None` if the bytes are not a certificate.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let [signed, algorithm, signature] = Element::only(der)?.children_of(SEQUENCE)?[..] else {
            return None;
        };
        if (algorithm.tag, signature.tag) != (SEQUENCE, BIT_STRING) || signed.tag != SEQUENCE {
            return None;
        }
        let at = |part: &[u8]| {
            let start = part.as_ptr().addr() - der.as_ptr().addr();
            start..start + part.len()
        };
        let mut rest = signed.content;
        let mut next = |tag: u8| {
            let (element, behind) = Element::first(rest).ok()?;
            (element.tag == tag).then(|| {
                rest = behind;
                at(element.whole)
            })
        };
        let version = next(VERSION);
        let serial = next(INTEGER)?;
        let [signed_algorithm, issuer, validity, subject, key_info] = [
            next(SEQUENCE)?,
            next(SEQUENCE)?,
            next(SEQUENCE)?,
            next(SEQUENCE)?,
            next(SEQUENCE)?,
        ];
        Some(Self {
            signed: at(signed.whole),
            version: version.unwrap_or(serial.start..serial.start),
            serial,
            signed_algorithm,
            issuer,
            validity,
            subject,
            key_info,
            rest: at(rest),
            algorithm: at(algorithm.whole),
            signature: at(signature.whole),
        })
    }
}
