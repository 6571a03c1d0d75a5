//! Parses certificate requests for a CA (PKCS#10; RFC 2986). Only DER is accepted.

use super::decode::Unreadable;
use super::names::Name;
use crate::ber::Element;
use crate::key::PublicKey;
use crate::oid::{EXTENSION_REQUEST, SUBJECT_ALT_NAME};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::request::CertReq;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// A parsed certificate request (PKCS#10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    der: Vec<u8>,
    parsed: CertReq,
    info: Vec<u8>,
    subject: Vec<u8>,
}

impl Request {
    /// Parses a certificate request in DER without trailing bytes.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the bytes are not a request.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, String> {
        let parsed =
            CertReq::from_der(der).map_err(|why| format!("it is not a PKCS#10 request: {why}"))?;
        // If x509-cert reads an attribute differently, it encodes the request differently. Such a
        // request is refused.
        if parsed.to_der().ok().as_deref() != Some(der) {
            return Err("it is not a PKCS#10 request: it is not in DER".into());
        }
        let encodable = |why| format!("it is not a PKCS#10 request: {why}");
        let info = parsed.info.public_key.to_der().map_err(encodable)?;
        let subject = parsed.info.subject.to_der().map_err(encodable)?;
        Ok(Self {
            der: der.to_vec(),
            parsed,
            info,
            subject,
        })
    }

    /// Returns the SubjectPublicKeyInfo of the certificate request in DER.
    pub(crate) fn public_key_info_der(&self) -> &[u8] {
        &self.info
    }

    /// Returns the public key of the certificate request, if it has the encoding that every
    /// verifier reads.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_plain_info(&self.info)
    }

    /// Returns the requested subject, as a Name in DER.
    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// Returns the requested subject, parsed.
    pub(crate) fn subject(&self) -> Option<Name<'_>> {
        Name::read(&self.subject)
    }

    /// Returns the value of the requested subjectAltName. Returns an empty value if it cannot be
    /// read.
    pub(crate) fn alternative_names(&self) -> Option<Vec<u8>> {
        let attributes = self.parsed.info.attributes.iter();
        let requests = attributes.filter(|one| one.oid == EXTENSION_REQUEST);
        let values = requests.flat_map(|one| one.values.iter());
        let mut names = Vec::new();
        for value in values {
            match value.decode_as::<Vec<Extension>>() {
                Ok(all) => names.extend(
                    all.into_iter()
                        .filter(|one| one.extn_id == SUBJECT_ALT_NAME),
                ),
                Err(_) => return Some(Vec::new()),
            }
        }
        match &names[..] {
            [] => None,
            [one] => Some(one.extn_value.as_bytes().to_vec()),
            _ => Some(Vec::new()),
        }
    }

    /// Returns the CertificationRequestInfo as it is encoded in the request.
    pub(crate) fn signed_part(&self) -> &[u8] {
        let parts = Element::only(&self.der).and_then(|whole| whole.children());
        let first = parts.and_then(|parts| parts.first().map(|info| info.whole));
        first.unwrap_or_default()
    }

    pub(crate) fn signature_algorithm(&self) -> &AlgorithmIdentifierOwned {
        &self.parsed.algorithm
    }

    /// Returns the signature of the certificate request: the content of the BIT STRING, without
    /// unused bits.
    pub(crate) fn signature(&self) -> Result<&[u8], Unreadable> {
        let bits = self.parsed.signature.as_bytes();
        bits.ok_or_else(Unreadable::nothing)
    }
}
