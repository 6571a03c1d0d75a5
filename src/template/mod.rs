//! Reads the templates of callers (PKCS#11 3.0, section 4.1). Each function reads one value in the
//! type of its attribute.

pub(crate) mod create;
pub(crate) mod key_pair;
pub(crate) mod private;
pub(crate) mod rules;
pub(crate) mod secret;

use crate::error::Error;
use crate::object::Object;
use crate::object::attribute::{attribute_of, use_of};
use cryptoki_sys::*;
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, PrintableStringRef};
use der::{Decode, Tag, Tagged};
use devid_core::key::{Curve, PublicKey};
use devid_core::store::folder::{ObjectAttributes, Usage, Use};
use devid_core::tpm::Secret;
use devid_core::x509::Date;

/// A copy of a caller's template. The copy may hold a private key, so it is wiped when it is
/// dropped.
#[derive(Default, Clone)]
pub(crate) struct Template(pub(crate) Vec<(CK_ATTRIBUTE_TYPE, Secret)>);

impl Template {
    /// Returns true if the object has the value of every attribute in the template. An empty
    /// template matches every object.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        let mut wanted = self.0.iter();
        wanted.all(|(kind, value)| object.attribute(*kind) == Ok(value))
    }

    /// Checks that no attribute has two different values, and returns the template. An attribute
    /// that occurs twice with equal values is accepted, as section 4.1.1 recommends.
    pub(crate) fn consistent(&self) -> Result<&Self, Error> {
        let twice = |(n, (kind, value)): (usize, &(CK_ATTRIBUTE_TYPE, Secret))| {
            let mut before = self.0[..n].iter();
            before.any(|(other, said)| other == kind && said != value)
        };
        match self.0.iter().enumerate().any(twice) {
            true => Err(Error::TemplateInconsistent),
            false => Ok(self),
        }
    }

    pub(crate) fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        let found = self.0.iter().find(|(one, _)| *one == kind);
        found.map(|(_, value)| &value[..])
    }

    pub(crate) fn required(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8], Error> {
        self.value(kind).ok_or(Error::TemplateIncomplete)
    }

    /// Reads a CK_ULONG.
    pub(crate) fn number(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<CK_ULONG>, Error> {
        self.value(kind).map(number).transpose()
    }

    /// Reads a CK_BBOOL.
    pub(crate) fn flag(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<bool>, Error> {
        self.value(kind).map(flag).transpose()
    }

    /// Reads a CK_BBOOL. Returns false if the template does not have the attribute.
    pub(crate) fn flag_or_false(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<bool, Error> {
        self.flag(kind).map(Option::unwrap_or_default)
    }

    /// Reads the attributes that describe an object and are not part of its value. The uses of a
    /// key are not read.
    pub(crate) fn description(&self) -> Result<ObjectAttributes, Error> {
        let mut description = ObjectAttributes::labelled("");
        for (kind, value) in &self.0 {
            match *kind {
                CKA_ALWAYS_AUTHENTICATE => description.always_authenticate = flag(value)?,
                CKA_HASH_OF_SUBJECT_PUBLIC_KEY => description.subject_key_hash = value.to_vec(),
                CKA_HASH_OF_ISSUER_PUBLIC_KEY => description.issuer_key_hash = value.to_vec(),
                CKA_ALLOWED_MECHANISMS => description.mechanisms = mechanisms(value)?,
                _ => describe(&mut description, *kind, value)?,
            }
        }
        Ok(description)
    }

    /// Returns those of the `possible` uses that the template sets to true. A use that the template
    /// does not mention is taken if `unnamed` contains it.
    pub(crate) fn uses(&self, possible: &[Use], unnamed: &[Use]) -> Result<Usage, Error> {
        // A CK_BBOOL of a wrong length or value is an error, even for a use that the key cannot
        // have.
        for (kind, value) in &self.0 {
            use_of(*kind).map(|_| flag(value)).transpose()?;
        }
        let mut usage = Usage::NONE;
        for &one in possible {
            let had = self.flag(attribute_of(one))?;
            if had.unwrap_or(unnamed.contains(&one)) {
                usage = usage.with(one);
            }
        }
        Ok(usage)
    }
}

/// Sets an attribute of an object or of its copy, if the attribute can be changed. Ignores other
/// attributes.
pub(crate) fn describe(
    description: &mut ObjectAttributes,
    kind: CK_ATTRIBUTE_TYPE,
    value: &[u8],
) -> Result<(), Error> {
    match kind {
        CKA_LABEL => description.label = text(value)?,
        // If CKA_ID is empty, the object gets the default identifier of its key.
        CKA_ID => description.id = Some(value.to_vec()).filter(|id| !id.is_empty()),
        CKA_SUBJECT => description.subject = value.to_vec(),
        CKA_START_DATE => description.start = date(value)?,
        CKA_END_DATE => description.end = date(value)?,
        CKA_PRIVATE => description.private = flag(value)?,
        CKA_MODIFIABLE => description.modifiable = flag(value)?,
        CKA_COPYABLE => description.copyable = flag(value)?,
        CKA_DESTROYABLE => description.destroyable = flag(value)?,
        _ => {}
    }
    Ok(())
}

pub(crate) fn number(value: &[u8]) -> Result<CK_ULONG, Error> {
    let bytes = value.try_into().map(CK_ULONG::from_ne_bytes);
    bytes.map_err(|_| Error::AttributeValueInvalid)
}

pub(crate) fn flag(value: &[u8]) -> Result<bool, Error> {
    match value {
        [CK_FALSE] => Ok(false),
        [CK_TRUE] => Ok(true),
        _ => Err(Error::AttributeValueInvalid),
    }
}

/// Reads an RFC 2279 string, for example CKA_LABEL or CKA_APPLICATION.
pub(crate) fn text(value: &[u8]) -> Result<String, Error> {
    String::from_utf8(value.to_vec()).map_err(|_| Error::AttributeValueInvalid)
}

fn mechanisms(value: &[u8]) -> Result<Vec<u64>, Error> {
    let (numbers, rest) = value.as_chunks();
    match rest {
        [] => Ok(numbers
            .iter()
            .map(|bytes| CK_ULONG::from_ne_bytes(*bytes) as _)
            .collect()),
        _ => Err(Error::AttributeValueInvalid),
    }
}

/// Reads a CK_DATE. An empty value means that there is no date.
fn date(value: &[u8]) -> Result<Option<Date>, Error> {
    if value.is_empty() {
        return Ok(None);
    }
    let digits = |part: &[u8]| {
        part.iter().try_fold(0_u16, |number, byte| {
            let digit = char::from(*byte).to_digit(10)?;
            Some(number * 10 + u16::try_from(digit).ok()?)
        })
    };
    let parts = value
        .first_chunk::<8>()
        .filter(|_| value.len() == 8)
        .and_then(|date| {
            Some((
                digits(&date[..4])?,
                digits(&date[4..6])?,
                digits(&date[6..])?,
            ))
        });
    match parts {
        Some((year, month @ 1..=12, day @ 1..=31)) => Ok(Some(Date {
            year,
            month: month as u8,
            day: day as u8,
        })),
        _ => Err(Error::AttributeValueInvalid),
    }
}

/// Reads CKA_EC_POINT, or the other side's public point of a key agreement. Some clients omit the
/// OCTET STRING. A point without OCTET STRING can look like an OCTET STRING, so the curve decides.
pub(crate) fn point_on(curve: Curve, point: &[u8]) -> Option<PublicKey> {
    let wrapped = <&OctetStringRef>::from_der(point).ok();
    wrapped
        .and_then(|wrapped| PublicKey::from_point(curve, wrapped.as_bytes()))
        .or_else(|| PublicKey::from_point(curve, point))
}

/// Reads CKA_EC_PARAMS: the object identifier of a curve, or its name as a PrintableString (section
/// 6.3.3). Explicit parameters (SEQUENCE) and the parameters of the CA (NULL) are valid, but not
/// supported.
pub(crate) fn curve(parameters: &[u8]) -> Result<Curve, Error> {
    let element = AnyRef::from_der(parameters).map_err(|_| Error::DomainParamsInvalid)?;
    let well_formed = match element.tag() {
        Tag::ObjectIdentifier => <ObjectIdentifier as Decode>::from_der(parameters).is_ok(),
        Tag::PrintableString => {
            PrintableStringRef::from_der(parameters).is_ok_and(|name| !name.as_bytes().is_empty())
        }
        Tag::Sequence => {
            <Vec<AnyRef<'_>>>::from_der(parameters).is_ok_and(|parts| !parts.is_empty())
        }
        Tag::Null => element.value().is_empty(),
        _ => false,
    };
    let name = match element.tag() {
        Tag::PrintableString => element.value(),
        _ => &[],
    };
    let is = |curve: &Curve| curve.oid_der() == parameters || names(*curve).contains(&name);
    let found = Curve::ALL.into_iter().find(is);
    found.ok_or(match well_formed {
        true => Error::CurveNotSupported,
        false => Error::DomainParamsInvalid,
    })
}

/// Returns the names of a curve in SEC 2, X9.62 and FIPS 186.
const fn names(curve: Curve) -> &'static [&'static [u8]] {
    match curve {
        Curve::P256 => &[b"secp256r1", b"prime256v1", b"P-256"],
        Curve::P384 => &[b"secp384r1", b"P-384"],
        Curve::P521 => &[b"secp521r1", b"P-521"],
    }
}

#[cfg(test)]
impl<const N: usize> From<[(CK_ATTRIBUTE_TYPE, &[u8]); N]> for Template {
    fn from(items: [(CK_ATTRIBUTE_TYPE, &[u8]); N]) -> Self {
        let copied = items
            .into_iter()
            .map(|(kind, value)| (kind, Secret::new(value.to_vec())));
        Self(copied.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_by_number_and_by_name() {
        assert_eq!(curve(Curve::P384.oid_der()), Ok(Curve::P384));
        assert_eq!(curve(b"\x13\x09secp521r1"), Ok(Curve::P521));
        assert_eq!(curve(b"\x13\x0Aprime256v1"), Ok(Curve::P256));
        for unknown in [
            &b"\x13\x09secp256k1"[..],
            b"\x06\x01\x01",
            b"\x30\x03\x02\x01\x01",
            b"\x05\x00",
        ] {
            assert_eq!(curve(unknown), Err(Error::CurveNotSupported));
        }
        for malformed in [
            &b""[..],
            b"P-256",
            b"\x13\x00",
            b"\x13\x0Asecp256r1",
            b"\x06\x00",
            b"\x06\x02\x2A\x86",
            b"\x30\x00",
            b"\x30\x02\x02\x05",
            b"\x05\x01\x00",
            &[Curve::P256.oid_der(), &[0]].concat(),
            &Curve::P256.oid_der()[..9],
        ] {
            assert_eq!(
                curve(malformed),
                Err(Error::DomainParamsInvalid),
                "{malformed:x?}"
            );
        }
    }

    #[test]
    fn dates_are_days_of_the_calendar_or_wrong() {
        let day = |year, month, day| Some(Date { year, month, day });
        assert_eq!(date(b"20301231"), Ok(day(2030, 12, 31)));
        assert_eq!(date(b""), Ok(None));
        for wrong in ["2030123", "203012310", "20301331", "20300001", "2030-1-1"] {
            assert_eq!(date(wrong.as_bytes()), Err(Error::AttributeValueInvalid));
        }
    }

    #[test]
    fn one_value_twice_is_one_and_two_values_are_none() {
        let same = Template::from([(CKA_LABEL, &b"a"[..]), (CKA_ID, b"1"), (CKA_LABEL, b"a")]);
        assert!(same.consistent().is_ok());
        let other = Template::from([(CKA_LABEL, &b"a"[..]), (CKA_ID, b"1"), (CKA_LABEL, b"b")]);
        assert_eq!(other.consistent().err(), Some(Error::TemplateInconsistent));
    }

    #[test]
    fn uses_are_those_asked_for_that_the_key_has() {
        let asked = Template::from([
            (CKA_SIGN_RECOVER, &[CK_TRUE][..]),
            (CKA_DERIVE, &[CK_TRUE]),
            (CKA_SIGN, &[CK_FALSE]),
        ]);
        let ec = [Use::Sign, Use::Derive];
        let usage = asked.uses(&ec, &[Use::Sign]).unwrap();
        assert_eq!(usage, Usage::NONE.with(Use::Derive));
        let nothing = Template::default().uses(&ec, &[Use::Sign]).unwrap();
        assert_eq!(nothing, Usage::NONE.with(Use::Sign));
        let broken = Template::from([(CKA_SIGN_RECOVER, &[2][..])]);
        assert_eq!(broken.uses(&ec, &[]), Err(Error::AttributeValueInvalid));
    }
}
