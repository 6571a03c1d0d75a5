//! X.509 certificates as factories leave them (RFC 5280; IEEE 802.1AR, section 8).

use crate::key::{KeyId, PublicKey};
use log::warn;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DateTime, Decode, Encode, Header, Reader, SliceReader};
use x509_cert::ext::pkix::BasicConstraints;

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// tcg-cap-verifiedTPMRestricted
const VERIFIED_RESTRICTED: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.11.1.3");
const AIK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const PEM_END: &[u8] = b"-----END CERTIFICATE-----";

/// A certificate with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: CertificateInner<Raw>,
}

/// A day of the Gregorian calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Day {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

/// Why bytes are no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCertificate(String);

impl Certificate {
    /// All certificates in `bytes`: DER, one after the other, or PEM with any text around.
    ///
    /// What follows the last DER certificate is taken for padding, and a damaged PEM block is
    /// passed over; the log says so.
    ///
    /// # Errors
    ///
    /// There is no sound certificate.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, NoCertificate> {
        let parts: Vec<_> = match position(bytes, PEM_BEGIN) {
            Some(_) => pem_blocks(bytes).map(Self::from_pem).collect(),
            None => der_elements(bytes)
                .map(|der| der.and_then(Self::from_der))
                .collect(),
        };
        let mut found = Vec::new();
        let mut fault = None;
        for part in parts {
            match part {
                Ok(certificate) => found.push(certificate),
                Err(why) => fault = Some(why),
            }
        }
        match (found.is_empty(), fault) {
            (true, fault) => Err(fault.unwrap_or_else(|| NoCertificate("empty".into()))),
            (false, Some(why)) => {
                warn!("beside the certificate of {}: {why}", found[0].subject());
                Ok(found)
            }
            (false, None) => Ok(found),
        }
    }

    fn from_pem(block: &[u8]) -> Result<Self, NoCertificate> {
        let decoded = x509_cert::der::pem::decode_vec(block);
        let (_, der) = decoded.map_err(|error| NoCertificate(format!("PEM: {error}")))?;
        Self::from_der(&der)
    }

    /// One certificate, as DER and nothing behind it.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn from_der(der: &[u8]) -> Result<Self, NoCertificate> {
        match CertificateInner::<Raw>::from_der(der) {
            Ok(parsed) => Ok(Self {
                der: der.to_vec(),
                parsed,
            }),
            Err(error) => Err(NoCertificate(format!("no X.509 certificate: {error}"))),
        }
    }

    /// The whole certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The whole certificate as PEM.
    pub fn pem(&self) -> String {
        use x509_cert::der::pem::{LineEnding, encode_string};
        // Bytes of such a length can always be encoded.
        encode_string("CERTIFICATE", LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// SHA-256 of the whole certificate.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// SHA-1 of the whole certificate.
    pub fn sha1(&self) -> [u8; 20] {
        Sha1::digest(&self.der).into()
    }

    /// The subject's Name, DER.
    pub fn subject_der(&self) -> Vec<u8> {
        encoded(self.parsed.tbs_certificate().subject())
    }

    /// The subject as RFC 4514 writes it.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// The issuer's Name, DER.
    pub fn issuer_der(&self) -> Vec<u8> {
        encoded(self.parsed.tbs_certificate().issuer())
    }

    /// The serial number as a whole DER INTEGER.
    pub fn serial_der(&self) -> Vec<u8> {
        encoded(self.parsed.tbs_certificate().serial_number())
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn public_key_info_der(&self) -> Vec<u8> {
        encoded(self.parsed.tbs_certificate().subject_public_key_info())
    }

    /// The identifier of the certified key; of its uncompressed form, should the certificate hold
    /// a compressed point.
    pub fn key_id(&self) -> KeyId {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        match self.public_key() {
            Some(key) => key.id(),
            None => KeyId::of(info.subject_public_key.raw_bytes()),
        }
    }

    /// The certified key, if it is of a kind that this project signs with.
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_info(self.parsed.tbs_certificate().subject_public_key_info())
    }

    /// Whether it says CA:TRUE, or says it in a way that cannot be read: then it is at least no
    /// identity.
    pub fn is_authority(&self) -> bool {
        self.extension(BASIC_CONSTRAINTS).is_some_and(|value| {
            BasicConstraints::from_der(value).map_or(true, |constraints| constraints.ca)
        })
    }

    /// Whether it says that its key is restricted: by TCG's policy for it, or as the purpose of an
    /// attestation key (tcg-kp-AIKCertificate).
    pub fn is_of_attestation_key(&self) -> bool {
        let says = |extension: ObjectIdentifier, what: ObjectIdentifier| {
            let what = encoded(&what);
            self.extension(extension)
                .is_some_and(|value| value.windows(what.len()).any(|window| window == what))
        };
        says(CERTIFICATE_POLICIES, VERIFIED_RESTRICTED) || says(EXTENDED_KEY_USAGE, AIK_CERTIFICATE)
    }

    /// What was signed: the TBSCertificate as it stands in the certificate.
    pub(crate) fn signed_part(&self) -> Option<&[u8]> {
        let mut reader = SliceReader::new(&self.der).ok()?;
        Header::decode(&mut reader).ok()?;
        reader.tlv_bytes().ok()
    }

    /// The certificate as x509-cert has it.
    pub(crate) fn parsed(&self) -> &CertificateInner<Raw> {
        &self.parsed
    }

    pub(crate) fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate().extensions();
        let found = extensions
            .into_iter()
            .flatten()
            .find(|extension| extension.extn_id == id);
        found.map(|extension| extension.extn_value.as_bytes())
    }

    /// First and last second of validity, counted from 1970; 9999-12-31 means "no end".
    pub fn validity_seconds(&self) -> (u64, u64) {
        let validity = self.parsed.tbs_certificate().validity();
        (
            validity.not_before.to_unix_duration().as_secs(),
            validity.not_after.to_unix_duration().as_secs(),
        )
    }

    /// First and last day of validity; 9999-12-31 means "no end" (RFC 5280, section 4.1.2.5).
    pub fn validity(&self) -> (Day, Day) {
        let validity = self.parsed.tbs_certificate().validity();
        (
            validity.not_before.to_date_time().into(),
            validity.not_after.to_date_time().into(),
        )
    }
}

fn position(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark)
}

/// The PEM blocks in a text, each from BEGIN to END as a strict decoder takes it.
fn pem_blocks(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let block = &rest[position(rest, PEM_BEGIN)?..];
        let next = position(&block[1..], PEM_BEGIN).map_or(block.len(), |next| next + 1);
        let end = position(&block[..next], PEM_END).map_or(next, |end| end + PEM_END.len());
        rest = &block[next..];
        Some(&block[..end])
    })
}

/// The SEQUENCEs at the head of `bytes`, one after the other, until something else or a fault.
fn der_elements(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], NoCertificate>> {
    const SEQUENCE: u8 = 0x30;
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let here = rest.take().filter(|here| here.first() == Some(&SEQUENCE))?;
        let element = der_length(here).and_then(|length| {
            here.split_at_checked(length).ok_or_else(|| {
                NoCertificate(format!("cut: {} of {length} bytes are there", here.len()))
            })
        });
        Some(element.map(|(element, after)| {
            rest = Some(after);
            element
        }))
    })
}

/// The length of the element at the head of `bytes`, header included.
fn der_length(bytes: &[u8]) -> Result<usize, NoCertificate> {
    let broken = |error: x509_cert::der::Error| NoCertificate(format!("no DER: {error}"));
    let mut reader = SliceReader::new(bytes).map_err(broken)?;
    let header = Header::decode(&mut reader).map_err(broken)?;
    let content = usize::try_from(header.length()).map_err(broken)?;
    let start = usize::try_from(reader.position()).map_err(broken)?;
    Ok(start + content)
}

/// Parts of a certificate that was decoded can be encoded; an empty answer never occurs.
fn encoded(part: &impl Encode) -> Vec<u8> {
    part.to_der().unwrap_or_default()
}

impl From<DateTime> for Day {
    fn from(time: DateTime) -> Self {
        Self {
            year: time.year(),
            month: time.month(),
            day: time.day(),
        }
    }
}

impl std::fmt::Display for NoCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoCertificate {}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: &[u8] = include_bytes!("../testdata/leaf.pem");
    const CA: &[u8] = include_bytes!("../testdata/ca.pem");

    fn one(pem: &[u8]) -> Certificate {
        Certificate::parse_all(pem).unwrap().remove(0)
    }

    #[test]
    fn what_a_certificate_says() {
        let (leaf, ca) = (one(LEAF), one(CA));
        assert!(!leaf.is_authority() && ca.is_authority());
        assert_eq!(leaf.issuer_der(), ca.subject_der());
        assert_eq!(
            leaf.subject(),
            "SERIALNUMBER=SN-000001,CN=Example-1000,O=Example Devices"
        );
        assert_eq!(
            leaf.validity().1,
            Day {
                year: 9999,
                month: 12,
                day: 31
            }
        );
        let key = leaf.public_key().unwrap();
        assert_eq!(key.id(), leaf.key_id());
        assert!(
            leaf.public_key_info_der()
                .ends_with(&key.subject_public_key())
        );
        assert_eq!(leaf.serial_der()[0], 0x02, "a whole INTEGER");
    }

    #[test]
    fn every_form_that_factories_write() {
        let (leaf, ca) = (one(LEAF), one(CA));
        let both = vec![leaf.clone(), ca.clone()];
        let concatenated = [leaf.der(), ca.der()].concat();
        let parse = |bytes: &[u8]| Certificate::parse_all(bytes).unwrap();
        assert_eq!(parse(&concatenated), both);
        assert_eq!(parse(&[LEAF, b"\nsome text\n", CA].concat()), both);
        assert_eq!(parse(&[LEAF, &[0; 40]].concat()), both[..1]);
        for padding in [0x00, 0xFF] {
            assert_eq!(parse(&[leaf.der(), &[padding; 100]].concat()), both[..1]);
        }
    }

    #[test]
    fn what_is_broken_behind_a_sound_certificate_costs_only_itself() {
        let leaf = one(LEAF);
        let stale = [leaf.der(), &leaf.der()[..20]].concat();
        assert_eq!(
            Certificate::parse_all(&stale).unwrap(),
            std::slice::from_ref(&leaf)
        );
        let broken = &LEAF[..LEAF.len() / 2];
        let mixed = [LEAF, broken, b"\n", CA].concat();
        assert_eq!(Certificate::parse_all(&mixed).unwrap(), [leaf, one(CA)]);
    }

    #[test]
    fn a_cut_or_damaged_certificate_is_none_and_never_a_panic() {
        let der = one(LEAF).der().to_vec();
        for end in 0..der.len() {
            assert!(Certificate::parse_all(&der[..end]).is_err(), "{end}");
        }
        for end in 30..LEAF.len() - 30 {
            assert!(Certificate::parse_all(&LEAF[..end]).is_err(), "{end}");
        }
        for (at, flip) in (0..der.len()).flat_map(|at| [(at, 0x01), (at, 0x80), (at, 0xFF)]) {
            let mut damaged = der.clone();
            damaged[at] ^= flip;
            for certificate in Certificate::parse_all(&damaged).unwrap_or_default() {
                // Whatever still parses can be shown.
                certificate.public_key();
                certificate.validity();
                certificate.is_authority();
                assert!(!certificate.subject_der().is_empty());
            }
        }
    }
}
