//! An extension of a certificate or CRL (RFC 5280, section 4.2).

use crate::ber::{BOOLEAN, Element, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};
use x509_cert::der::asn1::ObjectIdentifier;

/// An extension: its object identifier, its criticality, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extension<'a> {
    pub(crate) id: ObjectIdentifier,
    pub(crate) critical: bool,
    /// The value in DER: the content of the OCTET STRING extnValue.
    pub(crate) value: &'a [u8],
}

impl<'a> Extension<'a> {
    /// Parses an Extension. Returns `None` if the element is not an Extension.
    pub(super) fn read(element: &Element<'a>) -> Option<Self> {
        let parts = element.children_of(SEQUENCE)?;
        let (id, critical, value) = match parts[..] {
            [id, value] => (id, false, value),
            [id, flag, value] if flag.tag == BOOLEAN => match flag.content {
                [flag] => (id, *flag != 0, value),
                _ => return None,
            },
            _ => return None,
        };
        if (id.tag, value.tag) != (OBJECT_IDENTIFIER, OCTET_STRING) {
            return None;
        }
        Some(Self {
            id: ObjectIdentifier::from_bytes(id.content).ok()?,
            critical,
            value: value.content,
        })
    }
}
