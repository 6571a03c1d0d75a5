//! The values of attributes and their encoding (PKCS#11 3.0, section 4.1). A CK_ULONG has the byte
//! order of the machine.

use cryptoki_sys::*;
use der::Encode;
use der::asn1::OctetStringRef;
use devid_core::store::folder::Use;
use devid_core::tpm::Secret;
use devid_core::x509::Date;
use std::fmt;

/// The attribute (CKA_…) that shows each use of a key.
const USES: [(CK_ATTRIBUTE_TYPE, Use); 9] = [
    (CKA_SIGN, Use::Sign),
    (CKA_SIGN_RECOVER, Use::SignRecover),
    (CKA_DECRYPT, Use::Decrypt),
    (CKA_UNWRAP, Use::Unwrap),
    (CKA_DERIVE, Use::Derive),
    (CKA_VERIFY, Use::Verify),
    (CKA_VERIFY_RECOVER, Use::VerifyRecover),
    (CKA_ENCRYPT, Use::Encrypt),
    (CKA_WRAP, Use::Wrap),
];

/// Returns the attribute that shows this use of a key.
pub(crate) fn attribute_of(wanted: Use) -> CK_ATTRIBUTE_TYPE {
    let found = USES.iter().find(|(_, one)| *one == wanted);
    found.map_or(CK_UNAVAILABLE_INFORMATION, |(kind, _)| *kind)
}

/// Returns the use of a key that this attribute shows.
pub(crate) fn use_of(kind: CK_ATTRIBUTE_TYPE) -> Option<Use> {
    let found = USES.iter().find(|(one, _)| *one == kind);
    found.map(|(_, one)| *one)
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum AttributeValue {
    /// A value in the encoding of C_GetAttributeValue, which every caller may read.
    Bytes(Vec<u8>),
    /// A secret value that a caller may read if the caller sees the object. The value is wiped when
    /// it is dropped.
    Secret(Secret),
    /// The value of a sensitive attribute, which no caller may read (CKR_ATTRIBUTE_SENSITIVE).
    Sensitive,
}

impl fmt::Debug for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes:x?}"),
            Self::Secret(_) | Self::Sensitive => f.write_str("secret"),
        }
    }
}

impl AttributeValue {
    pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into())
    }

    pub(crate) fn flag(flag: bool) -> Self {
        let flag: CK_BBOOL = if flag { CK_TRUE } else { CK_FALSE };
        Self::Bytes(vec![flag])
    }

    pub(crate) fn number(number: CK_ULONG) -> Self {
        Self::Bytes(number.to_ne_bytes().to_vec())
    }

    /// Encodes an array of CK_ULONG, for example CKA_ALLOWED_MECHANISMS.
    pub(crate) fn numbers(numbers: &[CK_ULONG]) -> Self {
        Self::Bytes(
            numbers
                .iter()
                .flat_map(|number| number.to_ne_bytes())
                .collect(),
        )
    }

    /// Encodes CK_DATE: year, month and day in ASCII digits.
    pub(crate) fn date(day: Date) -> Self {
        Self::bytes(format!("{:04}{:02}{:02}", day.year, day.month, day.day))
    }

    /// Encodes CK_DATE, or returns an empty value if there is no date.
    pub(crate) fn some_date(day: Option<Date>) -> Self {
        day.map_or_else(Self::empty, Self::date)
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::bytes(text)
    }

    pub(crate) fn empty() -> Self {
        Self::Bytes(Vec::new())
    }

    /// Encodes CKA_EC_POINT: the point inside a DER OCTET STRING (PKCS#11 3.0, section 6.3.3).
    pub(crate) fn ec_point(point: &[u8]) -> Self {
        let wrapped = OctetStringRef::new(point).and_then(|octets| octets.to_der());
        // A point is shorter than any limit of DER, so the encoding succeeds.
        Self::Bytes(wrapped.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_every_curve_get_a_right_der_header() {
        let AttributeValue::Bytes(short) = AttributeValue::ec_point(&[4; 65]) else {
            unreachable!()
        };
        assert_eq!(short[..3], [0x04, 65, 4]);
        let AttributeValue::Bytes(long) = AttributeValue::ec_point(&[4; 133]) else {
            unreachable!()
        };
        assert_eq!(long[..4], [0x04, 0x81, 133, 4]);
    }

    #[test]
    fn dates_are_eight_digits() {
        let day = Date {
            year: 9999,
            month: 1,
            day: 3,
        };
        assert_eq!(AttributeValue::date(day), AttributeValue::bytes("99990103"));
    }
}
