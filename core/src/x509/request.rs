//! Certificate requests (PKCS#10, RFC 2986) and their contents.

use super::certificate::Certificate;
use super::csr_attributes::CsrAttributes;
use super::issue::{CertificateSigner, IssueError, Subject, unencodable};
use super::requested_names::{alternative_name, key_usage, purpose};
use crate::ber::{BIT_STRING, Element, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET, encoded};
use crate::oid::{EXTENDED_KEY_USAGE, KEY_USAGE, SUBJECT_ALT_NAME};
use crate::tpm::Hash;
use x509_cert::der::Encode;
use x509_cert::der::asn1::{ObjectIdentifier, OctetString};
use x509_cert::der::oid::db::rfc5912::ID_EXTENSION_REQ as EXTENSION_REQUEST;
use x509_cert::ext::Extension;

/// The tag `[0]`, constructed, of the attributes in CertificationRequestInfo.
const ATTRIBUTES: u8 = 0xA0;
/// The KeyUsage with digitalSignature only, in the bit order of RFC 5280, section 4.2.1.3.
const DIGITAL_SIGNATURE: u16 = 1 << 15;

/// The content of a certificate request. Parts that are not set get defaults that depend on the
/// key.
#[derive(Debug, Clone, Default)]
pub struct RequestContent {
    subject: Option<Subject>,
    /// The names for the subjectAltName, each a GeneralName in DER.
    alternative_names: Vec<Vec<u8>>,
    /// The key purposes for extKeyUsage.
    purposes: Vec<ObjectIdentifier>,
    /// The bits of the key usage; the highest bit is digitalSignature. 0 if no usage was given.
    usage: u16,
    /// The extensions that the request contains unchanged.
    extensions: Vec<Extension>,
    /// The hash for the signature of the request. If the key does not support this hash, the
    /// request uses another hash.
    hash: Option<Hash>,
    /// Further attributes of the request (Attribute), each in DER.
    attributes: Vec<Vec<u8>>,
}

impl RequestContent {
    /// Parses the values of a command line: a subject (RFC 4514), names for the subjectAltName,
    /// purposes, and key usages. Names have a prefix (`dns:`, `ip:`, `email:`, `uri:`, `rid:`,
    /// `dirname:`, `upn:`). The prefix may be omitted if the type of the name is clear. Purposes
    /// are words (`serverAuth`) or OIDs. Key usages are words (`digitalSignature`). Commas separate
    /// several values in a text.
    ///
    /// # Errors
    ///
    /// [`IssueError::Subject`] for a value that cannot be parsed.
    pub fn parse(
        subject: Option<&str>,
        names: &[String],
        purposes: &[String],
        usages: &[String],
    ) -> Result<Self, IssueError> {
        let several = |texts: &[String]| -> Vec<String> {
            let parts = texts.iter().flat_map(|text| text.split(','));
            parts.map(|part| part.trim().to_owned()).collect()
        };
        // A directory name itself contains commas, so it is not split.
        let names = names.iter().flat_map(|text| {
            match text.trim().to_ascii_lowercase().starts_with("dirname:") {
                true => vec![text.trim().to_owned()],
                false => several(std::slice::from_ref(text)),
            }
        });
        let usage = several(usages)
            .iter()
            .try_fold(0, |bits, text| key_usage(text).map(|bit| bits | bit))?;
        Ok(Self {
            subject: subject.map(Subject::parse).transpose()?,
            alternative_names: names
                .map(|text| alternative_name(&text))
                .collect::<Result<_, _>>()?,
            purposes: several(purposes)
                .iter()
                .map(|text| purpose(text))
                .collect::<Result<_, _>>()?,
            usage,
            ..Self::default()
        })
    }

    /// Returns the content of a request that renews `certificate`. The content has the usages of
    /// the certificate, and its subject and subjectAltName byte for byte (RFC 7030, section 4.2.2).
    ///
    /// # Errors
    ///
    /// Fails if the names cannot be encoded.
    pub fn renewing(certificate: &Certificate) -> Result<Self, IssueError> {
        let mut content = Self {
            subject: Some(Subject::verbatim(certificate)?),
            ..Self::default()
        };
        for id in [KEY_USAGE, EXTENDED_KEY_USAGE] {
            if let Ok(Some(found)) = certificate.extension(id) {
                content.extensions.push(Extension {
                    extn_id: id,
                    critical: found.critical,
                    extn_value: OctetString::new(found.value).map_err(unencodable)?,
                });
            }
        }
        Ok(content)
    }

    /// Returns the content, with the names, purposes and usages of `other` in place of its own, as
    /// far as `other` has them.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        let mut extensions = self.extensions;
        extensions.retain(|one| match one.extn_id {
            EXTENDED_KEY_USAGE => other.purposes.is_empty(),
            KEY_USAGE => other.usage == 0,
            _ => true,
        });
        Self {
            subject: other.subject.or(self.subject),
            extensions,
            ..other
        }
    }

    /// Returns this content with one more attribute of the type `kind`. `value` is in DER.
    #[cfg(feature = "evidence")]
    #[must_use]
    pub(crate) fn with_attribute(mut self, kind: ObjectIdentifier, value: Vec<u8>) -> Self {
        self.attributes.push(attribute(kind, &value));
        self
    }

    /// Returns true if the content has a subject or names for the subjectAltName.
    pub fn names_somebody(&self) -> bool {
        self.subject.is_some() || !self.alternative_names.is_empty()
    }

    /// Adds what an EST server requires in a request (CsrAttrs). Values that the content already
    /// has take precedence.
    ///
    /// # Errors
    ///
    /// [`IssueError::Failed`] for a required content that is not possible.
    pub fn with_wishes(&mut self, wishes: &CsrAttributes) -> Result<(), IssueError> {
        for (id, critical, value) in &wishes.extensions {
            let is_said = match *id {
                SUBJECT_ALT_NAME => {
                    let copied = self
                        .subject
                        .as_ref()
                        .and_then(|one| one.alternative.as_ref());
                    copied.is_some() || !self.alternative_names.is_empty()
                }
                EXTENDED_KEY_USAGE => !self.purposes.is_empty(),
                KEY_USAGE => self.usage != 0,
                _ => false,
            };
            if !is_said && self.extensions.iter().all(|one| one.extn_id != *id) {
                self.extensions.push(Extension {
                    extn_id: *id,
                    critical: *critical,
                    extn_value: OctetString::new(value.as_slice()).map_err(unencodable)?,
                });
            }
        }
        if let (None, Some(der)) = (&self.subject, &wishes.subject) {
            self.subject = Some(Subject::from_der(der)?);
        }
        self.hash = self.hash.or(wishes.hash);
        Ok(())
    }

    /// Returns the hash for the signature of the request. The caller uses this hash if the key
    /// supports it.
    pub(crate) fn hash(&self) -> Option<Hash> {
        self.hash
    }

    /// Returns the subject, if the content has one.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Returns all extensions of the request, for a key with the subject `subject`.
    fn all_extensions(&self, subject: &Subject) -> Result<Vec<Extension>, IssueError> {
        let extension = |extn_id, critical, value: Vec<u8>| {
            let extn_value = OctetString::new(value).map_err(unencodable)?;
            Ok::<_, IssueError>(Extension {
                extn_id,
                critical,
                extn_value,
            })
        };
        let said = |id| self.extensions.iter().any(|one| one.extn_id == id);
        let mut all = Vec::new();
        if self.usage != 0 || !said(KEY_USAGE) {
            let bits = if self.usage == 0 {
                DIGITAL_SIGNATURE
            } else {
                self.usage
            };
            all.push(extension(KEY_USAGE, true, usage_bits(bits))?);
        }
        let copied = subject.alternative.as_ref();
        let mut names = match copied {
            Some(copied) if !self.alternative_names.is_empty() => {
                let names = Element::only(copied.extn_value.as_bytes());
                names.map_or(Vec::new(), |names| names.content.to_vec())
            }
            _ => Vec::new(),
        };
        names.extend(self.alternative_names.concat());
        match copied {
            _ if !names.is_empty() => all.push(extension(
                SUBJECT_ALT_NAME,
                subject.is_empty(),
                encoded(SEQUENCE, &names),
            )?),
            Some(copied) => all.push(copied.clone()),
            None => {}
        }
        if !self.purposes.is_empty() {
            let oids = self
                .purposes
                .iter()
                .map(|oid| encoded(OBJECT_IDENTIFIER, oid.as_bytes()));
            let value = encoded(SEQUENCE, &oids.collect::<Vec<_>>().concat());
            all.push(extension(EXTENDED_KEY_USAGE, false, value)?);
        }
        let is_new = |one: &&Extension| all.iter().all(|there| there.extn_id != one.extn_id);
        let more: Vec<_> = self.extensions.iter().filter(is_new).cloned().collect();
        all.extend(more);
        Ok(all)
    }
}

/// Encodes a KeyUsage in DER, without trailing zero bits.
fn usage_bits(bits: u16) -> Vec<u8> {
    let unused = bits.trailing_zeros();
    let [high, low] = bits.to_be_bytes();
    match unused {
        8.. => encoded(BIT_STRING, &[(unused - 8) as u8, high]),
        _ => encoded(BIT_STRING, &[unused as u8, high, low]),
    }
}

/// Makes a PKCS#10 request and returns it in DER. `subject` is used if the content has no subject.
///
/// # Errors
///
/// The errors of the signer, or [`IssueError`].
pub(crate) fn request<E: From<IssueError>>(
    subject: &Subject,
    content: &RequestContent,
    signer: &CertificateSigner<'_, E>,
) -> Result<Vec<u8>, E> {
    let subject = content.subject.as_ref().unwrap_or(subject);
    let extensions = content.all_extensions(subject)?;
    let extensions = extensions.to_der().map_err(unencodable)?;
    let mut attributes = content.attributes.clone();
    attributes.push(attribute(EXTENSION_REQUEST, &extensions));
    // DER sorts the members of a SET OF by their bytes.
    attributes.sort();
    let info = [
        encoded(INTEGER, &[0]),
        subject.der.clone(),
        signer.public.info_der(),
        encoded(ATTRIBUTES, &attributes.concat()),
    ];
    let info = encoded(SEQUENCE, &info.concat());
    let signature = [&[0], &signer.signature(&info)?[..]].concat();
    let parts = [info, signer.algorithm()?, encoded(BIT_STRING, &signature)];
    Ok(encoded(SEQUENCE, &parts.concat()))
}

/// Encodes an Attribute with one value in DER.
fn attribute(kind: ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    let kind = encoded(OBJECT_IDENTIFIER, kind.as_bytes());
    encoded(SEQUENCE, &[kind, encoded(SET, value)].concat())
}

/// Returns a certificate request in PEM.
pub fn request_pem(der: &[u8]) -> String {
    use x509_cert::der::pem::{LineEnding, encode_string};
    // PEM encoding fails only for lengths that no certificate request has.
    encode_string("CERTIFICATE REQUEST", LineEnding::LF, der).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(
        names: &[&str],
        purposes: &[&str],
        usages: &[&str],
    ) -> Result<RequestContent, IssueError> {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        RequestContent::parse(None, &texts(names), &texts(purposes), &texts(usages))
    }

    fn extensions(content: &RequestContent) -> Vec<(ObjectIdentifier, bool, Vec<u8>)> {
        let subject = Subject::parse("CN=x").unwrap();
        let all = content.all_extensions(&subject).unwrap();
        let parts = |one: Extension| {
            (
                one.extn_id,
                one.critical,
                one.extn_value.into_bytes().to_vec(),
            )
        };
        all.into_iter().map(parts).collect()
    }

    #[test]
    fn nothing_said_asks_for_signatures_alone() {
        let content = RequestContent::default();
        assert_eq!(
            extensions(&content),
            [(KEY_USAGE, true, vec![3, 2, 7, 0x80])]
        );
    }

    #[test]
    fn what_is_said_stands_in_the_request() {
        let content = parsed(
            &["web.example, 192.0.2.1", "uri:urn:x"],
            &["serverAuth,clientAuth", "1.2.3"],
            &["digitalSignature,keyAgreement", "decipherOnly"],
        );
        let all = extensions(&content.unwrap());
        assert_eq!(all[0], (KEY_USAGE, true, vec![3, 3, 7, 0x88, 0x80]));
        let names = b"\x30\x1a\x82\x0bweb.example\x87\x04\xc0\x00\x02\x01\x86\x05urn:x";
        assert_eq!(all[1], (SUBJECT_ALT_NAME, false, names.to_vec()));
        let purposes = b"\x30\x18\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02\x06\x02\x2a\x03";
        assert_eq!(all[2], (EXTENDED_KEY_USAGE, false, purposes.to_vec()));
    }

    #[test]
    fn a_servers_wish_yields_to_what_was_said() {
        let mut content = parsed(&[], &["clientAuth"], &[]).unwrap();
        let other = ObjectIdentifier::new_unwrap("1.2.3.4");
        let wishes = CsrAttributes {
            extensions: vec![
                (EXTENDED_KEY_USAGE, true, b"\x30\x00".to_vec()),
                (other, false, b"\x05\x00".to_vec()),
            ],
            ..CsrAttributes::default()
        };
        content.with_wishes(&wishes).unwrap();
        let all = extensions(&content);
        assert_eq!(
            all.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
            [KEY_USAGE, EXTENDED_KEY_USAGE, other]
        );
        assert!(!all[1].1, "the criticality is that of the command line");
    }

    /// Some servers compare the bytes of the names (globalsign/est).
    #[test]
    fn a_renewal_names_the_same_to_the_byte() {
        for shape in [
            &include_bytes!("../../testdata/leaf.pem")[..],
            include_bytes!("../../testdata/shapes/str-universal.der"),
        ] {
            let old = Certificate::parse_all(shape).unwrap().remove(0);
            let content = RequestContent::renewing(&old).unwrap();
            let subject = content.subject().unwrap();
            assert_eq!(subject.der, old.subject_der());
            let all = content.all_extensions(subject).unwrap();
            let written = all.iter().find(|one| one.extn_id == SUBJECT_ALT_NAME);
            let there = old.extension(SUBJECT_ALT_NAME).unwrap();
            assert_eq!(
                written.map(|one| (one.critical, one.extn_value.as_bytes())),
                there.map(|one| (one.critical, one.value))
            );
        }
    }
}
