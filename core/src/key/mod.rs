//! Public keys as Rust types, for certificates, TPM public areas and stores. Also private keys
//! outside of the TPM.

mod curve;
mod info;
mod private;
mod reading;
#[cfg(test)]
mod reading_tests;
mod secret;

pub use curve::Curve;
pub(crate) use curve::by_curve;
pub use private::PrivateKeyInfo;
pub(crate) use reading::{algorithm_name, refuse_encrypted};
pub use secret::{LONGEST_SECRET_KEY, SecretKeyType};

use crate::oid::{EC_PUBLIC_KEY, RSA_ENCRYPTION};
use pkcs1::der::asn1::UintRef;
use pkcs1::der::{Decode, Encode};
use rsa::{BoxedUint, RsaPublicKey};
use sha1::{Digest, Sha1};
use std::fmt;
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

/// The public exponent of new RSA keys: 65537.
pub const F4: [u8; 3] = [1, 0, 1];

/// A public key of a supported type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on an elliptic curve.
    Ec {
        /// The curve of the point.
        curve: Curve,
        /// `04 ‖ x ‖ y`, each coordinate [`Curve::width`] bytes (SEC 1, section 2.3.3).
        point: Vec<u8>,
    },
    /// An RSA key.
    Rsa {
        /// The modulus, big-endian, without leading zeros.
        modulus: Vec<u8>,
        /// The public exponent, big-endian, without leading zeros.
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// Creates the key from big-endian coordinates. As in answers of a TPM, leading zeros may be
    /// missing.
    ///
    /// Returns `None` if the coordinates are longer than the field, or if the point is not on the
    /// curve.
    pub fn from_coordinates(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        let mut point = vec![0x04];
        point.extend(pad_left(x, curve.width())?);
        point.extend(pad_left(y, curve.width())?);
        Self::from_point(curve, &point)
    }

    /// Returns true if this is an RSA key and a big-endian number is below its modulus.
    pub fn has_below_modulus(&self, number: &[u8]) -> bool {
        match self {
            Self::Rsa { modulus, .. } => {
                pad_left(number, modulus.len()).is_some_and(|number| number < *modulus)
            }
            Self::Ec { .. } => false,
        }
    }

    /// Creates the key from a SEC 1 point, compressed or not.
    ///
    /// Returns `None` if the point is not on the curve.
    pub fn from_point(curve: Curve, point: &[u8]) -> Option<Self> {
        let point = curve.uncompressed(point)?;
        Some(Self::Ec { curve, point })
    }

    /// Returns true if this is the point with these big-endian coordinates. Leading zeros of a
    /// coordinate may be missing.
    pub(crate) fn has_coordinates(&self, on: Curve, x: &[u8], y: &[u8]) -> bool {
        let is = |whole: &[u8], number| {
            let zeros = whole.strip_suffix(number);
            zeros.is_some_and(|zeros| zeros.iter().all(|byte| *byte == 0))
        };
        match self {
            Self::Ec { curve, point } => {
                let parts = point
                    .get(1..)
                    .and_then(|both| both.split_at_checked(on.width()));
                *curve == on && parts.is_some_and(|(own_x, own_y)| is(own_x, x) && is(own_y, y))
            }
            Self::Rsa { .. } => false,
        }
    }

    /// Creates the key from an RSA modulus and exponent, big-endian.
    ///
    /// Returns `None` unless the modulus fills whole bytes (its leading bit is set) and has 1024 to
    /// 4096 bits. The exponent must be odd.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let sound = (128..=512).contains(&modulus.len())
            && modulus.first().is_some_and(|byte| byte & 0x80 != 0)
            && exponent.last().is_some_and(|byte| byte & 1 != 0);
        sound.then(|| Self::Rsa {
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
        })
    }

    /// Returns the content of subjectPublicKey in a certificate, without the header of the BIT
    /// STRING.
    pub fn subject_public_key(&self) -> Vec<u8> {
        match self {
            Self::Ec { point, .. } => point.clone(),
            Self::Rsa { modulus, exponent } => {
                let key = UintRef::new(modulus).and_then(|modulus| {
                    let public_exponent = UintRef::new(exponent)?;
                    pkcs1::RsaPublicKeyRef {
                        modulus,
                        public_exponent,
                    }
                    .to_der()
                });
                // DER encoding cannot fail for numbers of these lengths.
                key.unwrap_or_default()
            }
        }
    }

    /// Returns the SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7). An RSA key has the parameters
    /// NULL (RFC 3279, section 2.3.1). An EC key has the name of its curve (RFC 5480, section
    /// 2.1.1).
    pub fn info_der(&self) -> Vec<u8> {
        let encoded = |oid, parameters, bits: &[u8]| {
            let info = SubjectPublicKeyInfoRef {
                algorithm: AlgorithmIdentifierRef { oid, parameters },
                subject_public_key: BitStringRef::from_bytes(bits)?,
            };
            info.to_der()
        };
        let info = match self {
            Self::Ec { curve, point } => AnyRef::from_der(curve.oid_der())
                .and_then(|curve| encoded(EC_PUBLIC_KEY, Some(curve), point)),
            Self::Rsa { .. } => {
                let bits = self.subject_public_key();
                encoded(RSA_ENCRYPTION, Some(AnyRef::NULL), &bits)
            }
        };
        // DER encoding cannot fail for a key of this length.
        info.unwrap_or_default()
    }

    /// Returns the SHA-1 hash of the bits of the subjectPublicKey (RFC 5280, section 4.2.1.2,
    /// method 1).
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.subject_public_key())
    }

    /// Returns the key in the type of the `rsa` crate. Returns `None` for a key of another type, or
    /// a key that the crate rejects.
    pub(crate) fn to_rsa(&self) -> Option<RsaPublicKey> {
        let number = BoxedUint::from_be_slice_vartime;
        match self {
            Self::Ec { .. } => None,
            Self::Rsa { modulus, exponent } => {
                RsaPublicKey::new(number(modulus), number(exponent)).ok()
            }
        }
    }

    /// Returns the size of the field or of the modulus in bits.
    pub fn bits(&self) -> u32 {
        match self {
            Self::Ec { curve, .. } => curve.bits(),
            Self::Rsa { modulus, .. } => modulus.len() as u32 * 8,
        }
    }

    /// Returns the size of a signature in bytes: that of r and s together, or that of the modulus.
    pub fn signature_width(&self) -> usize {
        match self {
            Self::Ec { curve, .. } => 2 * curve.width(),
            Self::Rsa { modulus, .. } => modulus.len(),
        }
    }
}

impl fmt::Display for PublicKey {
    /// Writes the algorithm of the key in the form for labels: `p256`, `rsa2048`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ec { curve, .. } => write!(f, "p{}", curve.bits()),
            Self::Rsa { .. } => write!(f, "rsa{}", self.bits()),
        }
    }
}

/// The SHA-1 hash of the subjectPublicKey bits. The hash links a certificate, a public key and a
/// private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 20]);

impl KeyId {
    /// Returns the identifier of these subjectPublicKey bits (without the header of the BIT
    /// STRING).
    pub fn of(subject_public_key: &[u8]) -> Self {
        Self(Sha1::digest(subject_public_key).into())
    }

    /// Returns the 20 bytes of the SHA-1 hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Returns a big-endian number with leading zeros, `width` bytes in total.
///
/// Returns `None` if the number needs more than `width` bytes.
pub fn pad_left(number: &[u8], width: usize) -> Option<Vec<u8>> {
    let excess = number.len().saturating_sub(width);
    if number[..excess].iter().any(|&byte| byte != 0) {
        return None;
    }
    let number = &number[excess..];
    let mut padded = vec![0; width - number.len()];
    padded.extend_from_slice(number);
    Some(padded)
}

/// Returns two lower-case hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes an even number of hexadecimal digits in upper or lower case.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = (0..digits.len()).step_by(2);
    let digit = |at| digits.get(at..at + 1)?.chars().next()?.to_digit(16);
    pairs
        .map(|at| Some((digit(at)? << 4 | digit(at + 1)?) as u8))
        .collect()
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::Certificate;

    #[test]
    fn short_numbers_get_zeros_and_long_ones_lose_only_zeros() {
        assert_eq!(pad_left(&[1], 3), Some(vec![0, 0, 1]));
        assert_eq!(pad_left(&[], 2), Some(vec![0, 0]));
        assert_eq!(pad_left(&[0, 0, 7, 8], 2), Some(vec![7, 8]));
        assert_eq!(pad_left(&[1, 7, 8], 2), None);
    }

    #[test]
    fn a_point_off_the_curve_is_no_key() {
        let mut x = [0x11; 32];
        assert_eq!(
            PublicKey::from_coordinates(Curve::P256, &x, &[0x22; 32]),
            None
        );
        x[0] = 0;
        assert_eq!(
            PublicKey::from_coordinates(Curve::P256, &x[1..], &[0x22; 33]),
            None
        );
    }

    #[test]
    fn a_point_has_only_its_own_coordinates() {
        let leaf = Certificate::parse_all(include_bytes!("../../testdata/leaf.pem")).unwrap();
        let key = leaf[0].public_key().unwrap();
        let PublicKey::Ec { curve, point } = &key else {
            panic!("{key}");
        };
        let (x, y) = point[1..].split_at(curve.width());
        assert!(key.has_coordinates(*curve, x, y));
        assert!(!key.has_coordinates(*curve, y, x));
        assert!(!key.has_coordinates(Curve::P384, x, y));
        assert!(
            !key.has_coordinates(*curve, &x[1..], y),
            "no zero is missing"
        );
        assert!(!key.has_coordinates(*curve, &[&[0], x].concat(), y));
        let short = PublicKey::Ec {
            curve: Curve::P256,
            point: [&[4, 0, 0][..], &[7; 30], &[9; 32]].concat(),
        };
        for zeros in 0..3 {
            let x = [&[0; 2][..zeros], &[7; 30]].concat();
            assert!(short.has_coordinates(Curve::P256, &x, &[9; 32]));
        }
        let rsa = PublicKey::from_rsa(&[0xC1; 256], &[1, 0, 1]).unwrap();
        assert!(!rsa.has_coordinates(Curve::P256, x, y));
    }

    #[test]
    fn an_rsa_key_goes_to_der_and_back() {
        let modulus = [&[0x80][..], &[7; 255]].concat();
        let key = PublicKey::from_rsa(&[&[0, 0], &modulus[..]].concat(), &[1, 0, 1]).unwrap();
        assert_eq!(PublicKey::from_info_der(&key.info_der()), Some(key.clone()));
        assert_eq!((key.bits(), key.signature_width()), (2048, 256));
        assert_eq!(key.to_string(), "rsa2048");
        assert_eq!(
            PublicKey::from_rsa(&modulus[1..], &[1, 0, 1]),
            None,
            "2040 bits and no top bit"
        );
        assert_eq!(PublicKey::from_rsa(&modulus, &[2]), None);
        assert_eq!(PublicKey::from_rsa(&modulus, &[]), None);
    }

    #[test]
    fn a_key_goes_to_its_info_and_back() {
        let leaf = Certificate::parse_all(include_bytes!("../../testdata/leaf.pem")).unwrap();
        let key = leaf[0].public_key().unwrap();
        assert_eq!(key.info_der(), leaf[0].public_key_info_der());
        let rsa = PublicKey::from_rsa(&[0xC1; 256], &[1, 0, 1]).unwrap();
        // The algorithm rsaEncryption with NULL, as RFC 3279 requires.
        let algorithm = "300d06092a864886f70d0101010500";
        assert!(hex(&rsa.info_der()).contains(algorithm));
        for key in [key, rsa] {
            let der = key.info_der();
            assert_eq!(PublicKey::from_info_der(&der), Some(key));
            assert_eq!(PublicKey::from_info_der(&der[..der.len() - 1]), None);
        }
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(from_hex("00aBff"), Some(vec![0x00, 0xAB, 0xFF]));
        assert_eq!(from_hex(""), Some(vec![]));
        for wrong in ["0", "0g", "+1", "é", "0102 "] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }
}
