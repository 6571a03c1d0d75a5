//! CsrAttrs: what an EST server requires in a certificate request (RFC 7030, section 4.5.2; RFC
//! 8951, section 4; RFC 9908).

use super::extension::Extension;
use super::names::Name;
use super::pkcs7::bare_base64;
use crate::ber::{
    Element, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, as_der, count, identifier,
};
use crate::key::Curve;
use crate::oid::{
    EC_PUBLIC_KEY, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, RSA_ENCRYPTION,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use crate::tpm::{Hash, KeyAlgorithm};
use x509_cert::der::asn1::ObjectIdentifier;

const SET: u8 = 0x31;
/// The context-specific tags in a CertificationRequestInfoTemplate: of the SubjectPublicKeyInfo and
/// of the attributes.
const TEMPLATE_KEY: u8 = 0xA0;
const TEMPLATE_ATTRIBUTES: u8 = 0xA1;

const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// id-aa-certificationRequestInfoTemplate and id-aa-extensionReqTemplate (RFC 9908, section 3.4).
const TEMPLATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.61");
const EXTENSION_TEMPLATE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.62");
/// The supported sizes of an RSA key. A server may show the size by a modulus as a placeholder. The
/// length of this modulus in bytes is the size.
const RSA_SIZES: [u32; 3] = [2048, 3072, 4096];

/// What an EST server requires in a certificate request. Unknown attributes in its answer are
/// ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CsrAttributes {
    /// True if the request must contain tls-unique as challengePassword (RFC 7030, section 3.5).
    pub wants_channel_binding: bool,
    /// The required type of key. `Err` describes a type that is not supported.
    pub key: Option<Result<KeyAlgorithm, String>>,
    /// The required hash for the signature of the certificate request.
    pub(super) hash: Option<Hash>,
    /// The required extensions: object identifier, criticality, and value.
    pub(super) extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
    /// The required subject, as a Name in DER.
    pub(super) subject: Option<Vec<u8>>,
}

impl CsrAttributes {
    /// Parses the answer of a server: base64 with optional blanks, or DER. An empty answer requires
    /// nothing.
    ///
    /// # Errors
    ///
    /// Fails with a description if the answer is not valid.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let der = match body.trim_ascii() {
            [] => return Ok(Self::default()),
            text => bare_base64(text).unwrap_or_else(|| body.to_vec()),
        };
        let damaged = || "it is not a list of attributes (RFC 8951, section 4)".to_owned();
        let all = Element::only(&der).and_then(|list| list.children_of(SEQUENCE));
        let all = all.ok_or_else(damaged)?;
        let mut found = Self::default();
        for one in &all {
            match one.tag {
                OBJECT_IDENTIFIER => found.note(identifier(one).ok_or_else(damaged)?),
                SEQUENCE => {
                    let (kind, values) = attribute(one).ok_or_else(damaged)?;
                    if kind == TEMPLATE {
                        let template = values.first().ok_or_else(damaged)?;
                        // If the answer has a template, its other attributes are ignored (RFC 9908,
                        // section 4).
                        return Self::of_template(template).ok_or_else(damaged);
                    }
                    found.note_attribute(kind, &values).ok_or_else(damaged)?;
                }
                _ => return Err(damaged()),
            }
        }
        Ok(found)
    }

    fn note(&mut self, id: ObjectIdentifier) {
        match id {
            CHALLENGE_PASSWORD => self.wants_channel_binding = true,
            ECDSA_WITH_SHA_256 | SHA_256_WITH_RSA_ENCRYPTION => self.hash = Some(Hash::Sha256),
            ECDSA_WITH_SHA_384 | SHA_384_WITH_RSA_ENCRYPTION => self.hash = Some(Hash::Sha384),
            ECDSA_WITH_SHA_512 | SHA_512_WITH_RSA_ENCRYPTION => self.hash = Some(Hash::Sha512),
            _ => {}
        }
    }

    fn note_attribute(&mut self, kind: ObjectIdentifier, values: &[Element]) -> Option<()> {
        match kind {
            EC_PUBLIC_KEY => {
                if let Some(curve) = values.first() {
                    self.key = Some(curve_of(identifier(curve)?));
                }
            }
            RSA_ENCRYPTION => {
                if let Some(bits) = values.first().filter(|bits| bits.tag == INTEGER) {
                    self.key = Some(rsa_of(count(bits)?));
                }
            }
            EXTENSION_REQUEST | EXTENSION_TEMPLATE => {
                // Older EST servers list only the object identifiers of extensions, without values.
                let lists = values.iter().filter(|value| value.tag == SEQUENCE);
                for one in lists
                    .map(Element::children)
                    .collect::<Option<Vec<_>>>()?
                    .concat()
                {
                    self.note_extension(&one)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Reads a required extension. An extension without a value is ignored, so that the client's
    /// own value is used.
    fn note_extension(&mut self, element: &Element) -> Option<()> {
        let parts = element.children_of(SEQUENCE)?;
        if parts.last()?.tag != OCTET_STRING {
            return Some(());
        }
        let der = as_der(element.whole)?;
        let extension = Element::only(&der)?;
        let extension = Extension::read(&extension)?;
        if !asks_to_fill_in(extension.value) {
            let value = extension.value.to_vec();
            self.extensions
                .push((extension.id, extension.critical, value));
        }
        Some(())
    }

    fn of_template(template: &Element) -> Option<Self> {
        let mut found = Self::default();
        for part in template.children_of(SEQUENCE)? {
            match part.tag {
                SEQUENCE => found.subject = whole_name(&part),
                TEMPLATE_KEY => found.note_key(&part)?,
                TEMPLATE_ATTRIBUTES => {
                    for one in part.children()? {
                        let (kind, values) = attribute(&one)?;
                        found.note_attribute(kind, &values)?;
                    }
                }
                _ => {}
            }
        }
        Some(found)
    }

    /// Reads the SubjectPublicKeyInfo of a template. The key bits may be missing, or be a
    /// placeholder that shows the key size.
    fn note_key(&mut self, part: &Element) -> Option<()> {
        let parts = part.children()?;
        let algorithm = parts.first()?.children_of(SEQUENCE)?;
        match (identifier(algorithm.first()?)?, algorithm.get(1)) {
            (EC_PUBLIC_KEY, Some(curve)) if curve.tag == OBJECT_IDENTIFIER => {
                self.key = Some(curve_of(identifier(curve)?));
            }
            (EC_PUBLIC_KEY, _) => {}
            (RSA_ENCRYPTION, _) => {
                let shown = parts.get(1).map(|bits| bits.content.len() * 8);
                let sizes = RSA_SIZES.into_iter();
                let bits = sizes
                    .rev()
                    .find(|bits| shown.is_some_and(|it| it > *bits as usize));
                self.key = Some(Ok(KeyAlgorithm::Rsa(bits.unwrap_or(2048))));
            }
            (other, _) => self.key = Some(Err(other.to_string())),
        }
        Some(())
    }
}

/// Returns a Name of the template in DER, if all its attributes have values.
fn whole_name(element: &Element) -> Option<Vec<u8>> {
    let der = as_der(element.whole)?;
    let name = Name::read(&der)?;
    let has_all = !name.is_empty() && name.attributes().all(|one| !one.value.content.is_empty());
    has_all.then_some(der)
}

/// Returns true if the server asks the client to fill in the subjectAltName. Its value is then
/// empty, or has an empty directoryName or address (RFC 9908, section 3.4).
fn asks_to_fill_in(value: &[u8]) -> bool {
    let Some(names) = Element::only(value).and_then(|names| names.children_of(SEQUENCE)) else {
        return false;
    };
    let is_empty = |name: &Element| match name.tag {
        0xA4 => name.content == [SEQUENCE, 0],
        0x81 | 0x82 | 0x86 | 0x87 => name.content.is_empty(),
        _ => false,
    };
    names.iter().any(is_empty)
}

fn attribute<'a>(element: &Element<'a>) -> Option<(ObjectIdentifier, Vec<Element<'a>>)> {
    match element.children_of(SEQUENCE)?[..] {
        [kind, values] => Some((identifier(&kind)?, values.children_of(SET)?)),
        _ => None,
    }
}

fn curve_of(id: ObjectIdentifier) -> Result<KeyAlgorithm, String> {
    let curves = [Curve::P256, Curve::P384, Curve::P521];
    let found = curves
        .into_iter()
        .find(|curve| curve.oid_der().ends_with(id.as_bytes()));
    found
        .map(KeyAlgorithm::Ec)
        .ok_or_else(|| format!("an EC key on the curve {id}"))
}

fn rsa_of(bits: usize) -> Result<KeyAlgorithm, String> {
    let found = RSA_SIZES.into_iter().find(|size| *size as usize == bits);
    found
        .map(KeyAlgorithm::Rsa)
        .ok_or_else(|| format!("an RSA key of {bits} bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ber::encoded;

    /// The example of RFC 8951, section 4.
    #[test]
    fn the_standards_example_is_understood() {
        let text = b"MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAi\r\nMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw==\n";
        let found = CsrAttributes::parse(text).unwrap();
        assert!(found.wants_channel_binding);
        assert_eq!(found.key, Some(Ok(KeyAlgorithm::Ec(Curve::P384))));
        assert_eq!(found.hash, Some(Hash::Sha384));
        assert!(
            found.extensions.is_empty(),
            "an identifier without a value requires nothing"
        );
    }

    #[test]
    fn nothing_means_no_wishes() {
        for body in [&b""[..], b"\r\n", b"MAA=", b"\x30\x00"] {
            assert_eq!(CsrAttributes::parse(body), Ok(CsrAttributes::default()));
        }
        for body in [
            &b"<html>"[..],
            b"MA",
            b"\x30\x05\x06",
            b"\x31\x00",
            b"\x30\x02\x05\x00",
        ] {
            assert!(CsrAttributes::parse(body).is_err(), "{body:?}");
        }
    }

    fn oid(text: &str) -> Vec<u8> {
        encoded(
            OBJECT_IDENTIFIER,
            ObjectIdentifier::new_unwrap(text).as_bytes(),
        )
    }

    fn attribute_of(kind: &str, value: Vec<u8>) -> Vec<u8> {
        encoded(SEQUENCE, &[oid(kind), encoded(SET, &value)].concat())
    }

    #[test]
    fn extensions_are_asked_for_as_they_stand() {
        let value = encoded(OCTET_STRING, b"\x30\x03\x82\x01a");
        let extension = encoded(
            SEQUENCE,
            &[oid("2.5.29.17"), vec![1, 1, 0xFF], value].concat(),
        );
        let open = encoded(SEQUENCE, &[oid("2.5.29.37")].concat());
        let list = encoded(SEQUENCE, &[extension, open].concat());
        let body = encoded(SEQUENCE, &attribute_of("1.2.840.113549.1.9.14", list));
        let found = CsrAttributes::parse(&body).unwrap();
        let id = ObjectIdentifier::new_unwrap("2.5.29.17");
        assert_eq!(
            found.extensions,
            [(id, true, b"\x30\x03\x82\x01a".to_vec())]
        );
    }

    #[test]
    fn a_template_goes_before_all_else() {
        let algorithm = encoded(
            SEQUENCE,
            &[oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")].concat(),
        );
        let parts = [vec![2, 1, 0], encoded(TEMPLATE_KEY, &algorithm)];
        let template = attribute_of(
            "1.2.840.113549.1.9.16.2.61",
            encoded(SEQUENCE, &parts.concat()),
        );
        let body = encoded(SEQUENCE, &[oid("1.2.840.113549.1.9.7"), template].concat());
        let found = CsrAttributes::parse(&body).unwrap();
        assert_eq!(found.key, Some(Ok(KeyAlgorithm::Ec(Curve::P256))));
        assert!(!found.wants_channel_binding);
    }

    #[test]
    fn a_key_that_no_device_has_is_named() {
        let body = encoded(
            SEQUENCE,
            &attribute_of("1.2.840.10045.2.1", oid("1.3.132.0.10")),
        );
        let found = CsrAttributes::parse(&body).unwrap();
        assert_eq!(
            found.key,
            Some(Err("an EC key on the curve 1.3.132.0.10".into()))
        );
    }
}
