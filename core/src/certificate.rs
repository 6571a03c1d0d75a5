//! X.509 certificates as factories leave them (RFC 5280; IEEE 802.1AR, section 8).

use crate::key::{Curve, KeyId, PublicKey};
use sha1::{Digest, Sha1};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DateTime, Decode, Encode, Header, Reader, SliceReader};
use x509_cert::ext::pkix::BasicConstraints;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A certificate with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: CertificateInner<Raw>,
}

/// A day of the Gregorian calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// What follows the last DER certificate is taken for padding.
    ///
    /// # Errors
    ///
    /// The bytes do not begin with a certificate, or a later one is damaged.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, NoCertificate> {
        match bytes
            .windows(PEM_BEGIN.len())
            .position(|window| window == PEM_BEGIN)
        {
            Some(start) => Self::parse_pem(&bytes[start..]),
            None => Self::parse_der(bytes),
        }
    }

    fn parse_pem(text: &[u8]) -> Result<Vec<Self>, NoCertificate> {
        let mut found = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.windows(PEM_BEGIN.len()).position(|w| w == PEM_BEGIN) {
            let block = &rest[start..];
            let next = block[1..]
                .windows(PEM_BEGIN.len())
                .position(|w| w == PEM_BEGIN);
            let end = next.map_or(block.len(), |next| next + 1);
            let (label, der) = x509_cert::der::pem::decode_vec(pem_block(&block[..end]))
                .map_err(|error| NoCertificate(format!("PEM: {error}")))?;
            debug_assert_eq!(label, "CERTIFICATE");
            found.push(Self::from_der(der)?);
            rest = &block[end..];
        }
        Ok(found)
    }

    fn parse_der(bytes: &[u8]) -> Result<Vec<Self>, NoCertificate> {
        const SEQUENCE: u8 = 0x30;
        let mut found = Vec::new();
        let mut rest = bytes;
        while found.is_empty() || rest.first() == Some(&SEQUENCE) {
            let length = der_length(rest)?;
            let der = rest.get(..length).ok_or_else(|| {
                NoCertificate(format!("cut: {} of {length} bytes are there", rest.len()))
            })?;
            found.push(Self::from_der(der.to_vec())?);
            rest = &rest[length..];
        }
        Ok(found)
    }

    fn from_der(der: Vec<u8>) -> Result<Self, NoCertificate> {
        match CertificateInner::<Raw>::from_der(&der) {
            Ok(parsed) => Ok(Self { der, parsed }),
            Err(error) => Err(NoCertificate(format!("no X.509 certificate: {error}"))),
        }
    }

    /// The whole certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
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

    /// The identifier of the certified key.
    pub fn key_id(&self) -> KeyId {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        KeyId::of(info.subject_public_key.raw_bytes())
    }

    /// The certified key, if it is of a kind that this project signs with.
    pub fn public_key(&self) -> Option<PublicKey> {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        let bits = info.subject_public_key.raw_bytes();
        match info.algorithm.oid {
            EC_PUBLIC_KEY => {
                let named = info.algorithm.parameters.as_ref()?.to_der().ok()?;
                let curve = Curve::ALL
                    .into_iter()
                    .find(|curve| curve.oid_der() == named)?;
                PublicKey::from_point(curve, bits)
            }
            RSA_ENCRYPTION => PublicKey::from_rsa_der(bits),
            _ => None,
        }
    }

    /// Whether it says CA:TRUE.
    pub fn is_authority(&self) -> bool {
        self.parsed
            .tbs_certificate()
            .extensions()
            .into_iter()
            .flatten()
            .find(|extension| extension.extn_id == BASIC_CONSTRAINTS)
            .and_then(|found| BasicConstraints::from_der(found.extn_value.as_bytes()).ok())
            .is_some_and(|constraints| constraints.ca)
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

/// From the first BEGIN to the end of its END line: what a strict PEM decoder takes.
fn pem_block(text: &[u8]) -> &[u8] {
    const PEM_END: &[u8] = b"-----END CERTIFICATE-----";
    let end = text
        .windows(PEM_END.len())
        .position(|window| window == PEM_END);
    &text[..end.map_or(text.len(), |end| end + PEM_END.len())]
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
