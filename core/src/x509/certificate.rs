//! X.509 certificates as factories made them (RFC 5280; IEEE 802.1AR, section 8).
//!
//! The fields that identify a certificate and its key are unchanged slices of the certificate. The
//! other fields are parsed when a caller asks for them, and the parsing may fail.

use super::decode::{NoCertificate, Unreadable, decoded};
use super::extension::Extension;
use super::forms;
use super::names::{Name, name_text};
use super::parts::CertificateParts;
use super::time::{Date, Time};
use crate::ber::{self, Element, INTEGER, SEQUENCE};
use crate::key::{KeyId, PublicKey};
use crate::oid::{
    ANY_PURPOSE, CERTIFICATE_POLICIES, CLIENT_AUTH, CMC_RA, EXTENDED_KEY_USAGE,
    TCG_CAP_VERIFIED_TPM_RESTRICTED, TCG_KP_AIK_CERTIFICATE,
};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::ops::Range;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Encode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

const EXTENSIONS: u8 = 0xA3;

/// A certificate: its bytes, and the positions of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    parts: CertificateParts,
}

impl Certificate {
    /// Parses a certificate without trailing bytes. Only the fields that identify the certificate
    /// must be readable.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, NoCertificate> {
        match CertificateParts::of(der) {
            Some(parts) => Ok(Self {
                der: der.to_vec(),
                parts,
            }),
            None => Err(NoCertificate(forms::name(der))),
        }
    }

    /// Returns the bytes of the whole certificate, unchanged.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the whole certificate as PEM.
    pub fn pem(&self) -> String {
        use x509_cert::der::pem::{LineEnding, encode_string};
        // PEM encoding fails only for lengths that no certificate has.
        encode_string("CERTIFICATE", LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// Returns the SHA-256 hash of the whole certificate.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Returns the SHA-1 hash of the whole certificate.
    pub fn sha1(&self) -> [u8; 20] {
        Sha1::digest(&self.der).into()
    }

    /// Returns the subject as it is encoded in the certificate (a Name).
    pub fn subject_der(&self) -> &[u8] {
        self.part(&self.parts.subject)
    }

    /// Returns the subject in the format of RFC 4514.
    pub fn subject(&self) -> String {
        name_text(self.subject_name())
    }

    /// Returns the parsed subject.
    pub(crate) fn subject_name(&self) -> Result<Name<'_>, Unreadable> {
        Name::read(self.subject_der()).ok_or_else(Unreadable::nothing)
    }

    /// Returns the issuer as it is encoded in the certificate (a Name).
    pub fn issuer_der(&self) -> &[u8] {
        self.part(&self.parts.issuer)
    }

    /// Returns the issuer in the format of RFC 4514.
    pub fn issuer(&self) -> String {
        name_text(self.issuer_name())
    }

    /// Returns the parsed issuer.
    pub(crate) fn issuer_name(&self) -> Result<Name<'_>, Unreadable> {
        Name::read(self.issuer_der()).ok_or_else(Unreadable::nothing)
    }

    /// Returns the serial number as it is encoded in the certificate: an INTEGER with its header.
    pub fn serial_der(&self) -> &[u8] {
        self.part(&self.parts.serial)
    }

    /// Returns the serial number: the content of the INTEGER, big-endian, in two's complement.
    pub fn serial(&self) -> &[u8] {
        Element::only(self.serial_der()).map_or(&[], |integer| integer.content)
    }

    /// Returns the SubjectPublicKeyInfo as it is encoded in the certificate.
    pub fn public_key_info_der(&self) -> &[u8] {
        self.part(&self.parts.key_info)
    }

    /// Returns the identifier of the certified key. The identifier does not depend on how the
    /// certificate encodes the key (if the key type is supported).
    pub fn key_id(&self) -> KeyId {
        match self.public_key() {
            Some(key) => key.id(),
            None => {
                let info = Element::only(self.public_key_info_der());
                let parts = info.and_then(|info| info.children()).unwrap_or_default();
                let bits = parts.get(1).map_or(&[][..], |bits| bits.content);
                KeyId::of(bits.get(1..).unwrap_or_default())
            }
        }
    }

    /// Returns the certified key in any encoding, if this project supports its type. The stores use
    /// this function to find the private key of a certificate.
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_info_der(self.public_key_info_der())
    }

    /// Returns the certified key, if it has the encoding that every verifier reads.
    pub(crate) fn plain_public_key(&self) -> Option<PublicKey> {
        PublicKey::from_plain_info(self.public_key_info_der())
    }

    /// Returns true if basicConstraints has CA:TRUE, or if basicConstraints cannot be read.
    pub fn is_ca(&self) -> bool {
        self.why_ca().is_some()
    }

    /// Returns the reason why the certificate is, or may be, a CA certificate; `None` if it is
    /// none.
    pub(crate) fn why_ca(&self) -> Option<String> {
        match self.basic_constraints() {
            Ok(constraints) => constraints
                .is_some_and(|it| it.ca)
                .then(|| "it says CA:TRUE".into()),
            Err(why) => Some(format!("the extension basicConstraints {why}")),
        }
    }

    /// Returns true if the certificate states that its key is restricted. The statement is the TCG
    /// policy for restricted keys, or the purpose of an attestation key (tcg-kp-AIKCertificate).
    pub fn is_of_attestation_key(&self) -> bool {
        let says = |extension: ObjectIdentifier, what: ObjectIdentifier| {
            let what = what.to_der().unwrap_or_default();
            let found = self.extension(extension).ok().flatten();
            found.is_some_and(|it| it.value.windows(what.len()).any(|window| window == what))
        };
        says(CERTIFICATE_POLICIES, TCG_CAP_VERIFIED_TPM_RESTRICTED)
            || says(EXTENDED_KEY_USAGE, TCG_KP_AIK_CERTIFICATE)
    }

    /// Returns true if the certificate has a subjectAltName, even if this extension cannot be read.
    #[cfg(feature = "evidence")]
    pub(crate) fn has_alt_name(&self) -> bool {
        !matches!(self.extension(crate::oid::SUBJECT_ALT_NAME), Ok(None))
    }

    /// Returns true if a TLS client may use the certificate. The certificate then has no extended
    /// key usage, or an extended key usage with client authentication (RFC 5280, section 4.2.1.12).
    pub fn is_for_clients(&self) -> bool {
        match self.purposes() {
            Ok(Some(purposes)) => {
                purposes.contains(&CLIENT_AUTH) || purposes.contains(&ANY_PURPOSE)
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Returns true if the certificate is for an EST server: id-kp-cmcRA (RFC 7030, section 3.6.1).
    pub fn is_of_registration_authority(&self) -> bool {
        let purposes = self.purposes().ok().flatten();
        purposes.is_some_and(|purposes| purposes.contains(&CMC_RA))
    }

    /// Returns the signed bytes: the TBSCertificate as it is encoded in the certificate.
    pub(crate) fn signed_part(&self) -> &[u8] {
        self.part(&self.parts.signed)
    }

    /// Returns the version of the certificate: 1, 2 or 3.
    pub(crate) fn version(&self) -> Result<u8, Unreadable> {
        let named = self.part(&self.parts.version);
        if named.is_empty() {
            return Ok(1);
        }
        match Element::only(named)
            .and_then(|named| named.children())
            .as_deref()
        {
            Some([number]) if number.tag == INTEGER => match number.content {
                [number @ 0..=2] => Ok(number + 1),
                _ => Err(Unreadable::nothing()),
            },
            _ => Err(Unreadable::nothing()),
        }
    }

    /// Returns the field signatureAlgorithm, which the signature does not cover.
    pub(crate) fn signature_algorithm(&self) -> Result<AlgorithmIdentifierOwned, Unreadable> {
        decoded(self.part(&self.parts.algorithm))
    }

    /// Returns true if the field signatureAlgorithm and the signed field `signature` are equal (RFC
    /// 5280, section 4.1.1.2).
    pub(crate) fn names_one_algorithm(&self) -> bool {
        self.part(&self.parts.algorithm) == self.part(&self.parts.signed_algorithm)
    }

    /// Returns the signature of the certificate: the content of the BIT STRING, without unused
    /// bits.
    pub(crate) fn signature(&self) -> Result<&[u8], Unreadable> {
        let bits = Element::only(self.part(&self.parts.signature));
        match bits.map(|bits| bits.content) {
            Some([0, signature @ ..]) => Ok(signature),
            _ => Err(Unreadable::nothing()),
        }
    }

    /// Returns all extensions of the certificate.
    ///
    /// # Errors
    ///
    /// Fails if an extension or the list of extensions cannot be read.
    pub(crate) fn extensions(&self) -> Result<Vec<Extension<'_>>, Unreadable> {
        let (found, whole) = self.extensions_there();
        whole.then_some(found).ok_or_else(Unreadable::nothing)
    }

    /// Returns the extension with an object identifier; `None` if it is absent.
    ///
    /// # Errors
    ///
    /// Fails if the extension occurs twice. Also fails if it was not found, but a part of the list
    /// cannot be read.
    pub(crate) fn extension(
        &self,
        id: ObjectIdentifier,
    ) -> Result<Option<Extension<'_>>, Unreadable> {
        let (all, whole) = self.extensions_there();
        let mut found = all.into_iter().filter(|one| one.id == id);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Unreadable("the extension occurs twice".into())),
            (None, _) if !whole => Err(Unreadable::nothing()),
            (found, _) => Ok(found),
        }
    }

    /// Returns the readable extensions, and true if no extension is unreadable.
    fn extensions_there(&self) -> (Vec<Extension<'_>>, bool) {
        let mut rest = self.part(&self.parts.rest);
        let (mut found, mut whole) = (Vec::new(), true);
        while !rest.is_empty() {
            let Ok((element, behind)) = Element::first(rest) else {
                return (found, false);
            };
            rest = behind;
            match element.tag {
                // issuerUniqueID, subjectUniqueID
                0x81 | 0xA1 | 0x82 | 0xA2 => {}
                EXTENSIONS => {
                    let list = Element::only(element.content).filter(|it| it.tag == SEQUENCE);
                    let Some(all) = list.and_then(|list| list.children()) else {
                        return (found, false);
                    };
                    for one in all {
                        match Extension::read(&one) {
                            Some(extension) => found.push(extension),
                            None => whole = false,
                        }
                    }
                }
                _ => whole = false,
            }
        }
        (found, whole)
    }

    /// Checks that x509-cert parses the certificate strictly, except that BER may replace DER.
    /// Times and names are not checked: [`Self::not_before`], [`Self::not_after`] and
    /// [`ComparableName`](super::comparison::ComparableName) read forms that x509-cert rejects.
    ///
    /// # Errors
    ///
    /// Fails if x509-cert cannot parse the certificate.
    pub(crate) fn is_well_formed(&self) -> Result<(), Unreadable> {
        const NO_NAME: &[u8] = &[SEQUENCE, 0];
        const ANY_TIMES: &[u8] = b"\x30\x1e\x17\x0d700101000000Z\x17\x0d700101000000Z";
        let parts = &self.parts;
        let before = parts.version.start..parts.issuer.start;
        let after = parts.key_info.start..parts.rest.end;
        let between = [NO_NAME, ANY_TIMES, NO_NAME].concat();
        let signed = [self.part(&before), &between, self.part(&after)].concat();
        let beside = parts.algorithm.start..parts.signature.end;
        let whole = [&ber::encoded(SEQUENCE, &signed), self.part(&beside)].concat();
        decoded::<CertificateInner<Raw>>(&ber::encoded(SEQUENCE, &whole)).map(drop)
    }

    /// Returns notBefore, the first second of validity.
    ///
    /// # Errors
    ///
    /// Fails if the encoding differs from RFC 5280, section 4.1.2.5.
    pub fn not_before(&self) -> Result<Time, Unreadable> {
        self.times()
            .and_then(|[not_before, _]| Time::read(&not_before))
    }

    /// Returns notAfter, the last second of validity.
    ///
    /// # Errors
    ///
    /// Fails if the encoding differs from RFC 5280, section 4.1.2.5.
    pub fn not_after(&self) -> Result<Time, Unreadable> {
        self.times()
            .and_then(|[_, not_after]| Time::read(&not_after))
    }

    /// Returns notBefore and notAfter as they are encoded in the certificate.
    pub(crate) fn times(&self) -> Result<[Element<'_>; 2], Unreadable> {
        let validity = Element::only(self.part(&self.parts.validity));
        let times = validity.and_then(|validity| validity.children());
        times
            .and_then(|times| times.try_into().ok())
            .ok_or_else(Unreadable::nothing)
    }

    /// Returns the first and the last day of validity, if they can be read. 9999-12-31 means "no
    /// end" (RFC 5280, section 4.1.2.5).
    pub fn validity(&self) -> (Option<Date>, Option<Date>) {
        let day = |time: Result<Time, Unreadable>| time.ok().map(|time| time.day);
        (day(self.not_before()), day(self.not_after()))
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.der.get(range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
