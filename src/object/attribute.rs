//! The values of attributes and their encoding (PKCS#11 3.0, section 4.1). A CK_ULONG has the byte
//! order of the machine.

use crate::error::Error;
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

/// The attributes of an object, in the encoding of C_GetAttributeValue. All values share one
/// allocation, because a token may have thousands of objects.
#[derive(Default)]
pub(crate) struct Attributes {
    kinds: Vec<(CK_ATTRIBUTE_TYPE, Place)>,
    values: Vec<u8>,
    /// The value of a secret key, which is wiped when it is dropped.
    secret: Secret,
}

/// The place of an attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The bytes from `start` to `end` of [`Attributes::values`], which every caller may read. An
    /// object is far shorter than 4 GiB (`args::LONGEST_VALUES`, and the limit for a key file).
    Shown { start: u32, end: u32 },
    /// In [`Attributes::secret`]. A caller may read the value if the caller sees the object.
    Secret,
    /// The value of a sensitive attribute, which no caller may read (CKR_ATTRIBUTE_SENSITIVE).
    Sensitive,
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.kinds).finish()
    }
}

impl Attributes {
    /// Returns an empty list with room for the attributes of a usual key.
    pub(super) fn with_room() -> Self {
        Self {
            kinds: Vec::with_capacity(48),
            values: Vec::with_capacity(1 << 10),
            secret: Secret::default(),
        }
    }

    /// Releases the memory that the attributes do not need.
    pub(super) fn fitted(mut self) -> Self {
        self.kinds.shrink_to_fit();
        self.values.shrink_to_fit();
        self
    }

    pub(super) fn bytes(&mut self, kind: CK_ATTRIBUTE_TYPE, bytes: &[u8]) {
        self.shown(kind, |values| values.extend_from_slice(bytes));
    }

    pub(super) fn flag(&mut self, kind: CK_ATTRIBUTE_TYPE, flag: bool) {
        let flag: CK_BBOOL = if flag { CK_TRUE } else { CK_FALSE };
        self.shown(kind, |values| values.push(flag));
    }

    pub(super) fn number(&mut self, kind: CK_ATTRIBUTE_TYPE, number: CK_ULONG) {
        self.bytes(kind, &number.to_ne_bytes());
    }

    /// Encodes an array of CK_ULONG, for example CKA_ALLOWED_MECHANISMS.
    pub(super) fn numbers(&mut self, kind: CK_ATTRIBUTE_TYPE, numbers: &[CK_ULONG]) {
        self.shown(kind, |values| {
            for number in numbers {
                values.extend_from_slice(&number.to_ne_bytes());
            }
        });
    }

    /// Encodes CK_DATE: year, month and day in ASCII digits. The value is empty if there is no
    /// date.
    pub(super) fn date(&mut self, kind: CK_ATTRIBUTE_TYPE, day: Option<Date>) {
        let digits = day.map(|day| format!("{:04}{:02}{:02}", day.year, day.month, day.day));
        self.bytes(kind, digits.unwrap_or_default().as_bytes());
    }

    pub(super) fn text(&mut self, kind: CK_ATTRIBUTE_TYPE, text: &str) {
        self.bytes(kind, text.as_bytes());
    }

    /// Encodes CKA_EC_POINT: the point inside a DER OCTET STRING (PKCS#11 3.0, section 6.3.3).
    pub(super) fn ec_point(&mut self, kind: CK_ATTRIBUTE_TYPE, point: &[u8]) {
        let wrapped = OctetStringRef::new(point).and_then(|octets| octets.to_der());
        // A point is shorter than any limit of DER, so the encoding succeeds.
        self.bytes(kind, &wrapped.unwrap_or_default());
    }

    /// Adds a secret value that a caller may read if the caller sees the object. An object has only
    /// one such value.
    pub(super) fn secret(&mut self, kind: CK_ATTRIBUTE_TYPE, value: Secret) {
        self.secret = value;
        self.kinds.push((kind, Place::Secret));
    }

    pub(super) fn sensitive(&mut self, kind: CK_ATTRIBUTE_TYPE) {
        self.kinds.push((kind, Place::Sensitive));
    }

    fn shown(&mut self, kind: CK_ATTRIBUTE_TYPE, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.values.len() as u32;
        encode(&mut self.values);
        let end = self.values.len() as u32;
        self.kinds.push((kind, Place::Shown { start, end }));
    }

    /// Returns the value of an attribute.
    ///
    /// # Errors
    ///
    /// Fails if the value is sensitive, or if the object does not have the attribute.
    pub(super) fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8], Error> {
        let found = self.kinds.iter().find(|(one, _)| *one == kind);
        let place = found.map(|(_, place)| *place);
        match place.ok_or(Error::AttributeTypeInvalid)? {
            Place::Shown { start, end } => Ok(&self.values[start as usize..end as usize]),
            Place::Secret => Ok(&self.secret),
            Place::Sensitive => Err(Error::AttributeSensitive),
        }
    }

    /// Returns the sum of the lengths of all values in bytes.
    pub(super) fn size(&self) -> usize {
        self.values.len() + self.secret.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encode: impl FnOnce(&mut Attributes)) -> Vec<u8> {
        let mut attributes = Attributes::default();
        attributes.number(CKA_CLASS, 7);
        encode(&mut attributes);
        attributes.flag(CKA_TOKEN, true);
        assert_eq!(attributes.value(CKA_TOKEN), Ok(&[CK_TRUE][..]));
        attributes.fitted().value(CKA_VALUE).unwrap().to_vec()
    }

    #[test]
    fn points_of_every_curve_get_a_right_der_header() {
        let short = encoded(|them| them.ec_point(CKA_VALUE, &[4; 65]));
        assert_eq!((&short[..3], short.len()), (&[0x04, 65, 4][..], 67));
        let long = encoded(|them| them.ec_point(CKA_VALUE, &[4; 133]));
        assert_eq!((&long[..4], long.len()), (&[0x04, 0x81, 133, 4][..], 136));
    }

    #[test]
    fn dates_are_eight_digits() {
        let day = Date {
            year: 9999,
            month: 1,
            day: 3,
        };
        let shown = |day| encoded(|them| them.date(CKA_VALUE, day));
        assert_eq!(shown(Some(day)), b"99990103");
        assert_eq!(shown(None), b"");
    }

    #[test]
    fn each_attribute_has_its_own_value() {
        assert_eq!(encoded(|them| them.text(CKA_VALUE, "text")), b"text");
        let numbers = [1, CK_ULONG::MAX];
        let shown = encoded(|them| them.numbers(CKA_VALUE, &numbers));
        assert_eq!(shown, numbers.map(CK_ULONG::to_ne_bytes).concat());
        let secret = encoded(|them| them.secret(CKA_VALUE, Secret::new(vec![5; 16])));
        assert_eq!(secret, [5; 16]);
        let mut hidden = Attributes::default();
        hidden.sensitive(CKA_VALUE);
        assert_eq!(hidden.value(CKA_VALUE), Err(Error::AttributeSensitive));
        assert_eq!(hidden.value(CKA_ID), Err(Error::AttributeTypeInvalid));
    }
}
