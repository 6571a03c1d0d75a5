//! Public keys in plain types, shared by certificates, TPM public areas and stores.

use p256::elliptic_curve::sec1::ToSec1Point;
use sha1::{Digest, Sha1};

/// An elliptic curve that this project signs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256, also prime256v1 and secp256r1.
    P256,
}

impl Curve {
    /// Bytes of one coordinate, and of the curve's order.
    pub const fn width(self) -> usize {
        match self {
            Self::P256 => 32,
        }
    }

    /// The curve's object identifier as DER (`namedCurve` of RFC 5480, section 2.1.1).
    pub const fn oid_der(self) -> &'static [u8] {
        match self {
            // 1.2.840.10045.3.1.7
            Self::P256 => &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07],
        }
    }

    /// The field's size in bits, as PKCS#11 counts key sizes.
    pub const fn bits(self) -> u32 {
        match self {
            Self::P256 => 256,
        }
    }
}

/// A public key that a private key of ours may belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The curve the point lies on.
    pub curve: Curve,
    /// `04 ‖ x ‖ y`, each coordinate [`Curve::width`] bytes (SEC 1, section 2.3.3).
    pub point: Vec<u8>,
}

impl PublicKey {
    /// From big-endian coordinates that may lack leading zeros, as a TPM gives them.
    ///
    /// `None` if they are longer than the field or the point is not on the curve.
    pub fn from_coordinates(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        let mut point = vec![0x04];
        point.extend(pad_left(x, curve.width())?);
        point.extend(pad_left(y, curve.width())?);
        Self::from_point(curve, &point)
    }

    /// From a SEC 1 point, compressed or not.
    ///
    /// `None` if it is no point of that curve.
    pub fn from_point(curve: Curve, point: &[u8]) -> Option<Self> {
        let Curve::P256 = curve;
        let key = p256::PublicKey::from_sec1_bytes(point).ok()?;
        Some(Self {
            curve,
            point: key.to_sec1_point(false).as_bytes().to_vec(),
        })
    }

    /// SHA-1 of the bits of the subjectPublicKey (RFC 5280, section 4.2.1.2, method 1).
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.point)
    }
}

/// SHA-1 of the subjectPublicKey bits: links a certificate, a public and a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 20]);

impl KeyId {
    /// The identifier of these subjectPublicKey bits (without the BIT STRING's header).
    pub fn of(subject_public_key: &[u8]) -> Self {
        Self(Sha1::digest(subject_public_key).into())
    }

    /// The 20 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A big-endian number with zeros in front, `width` bytes in all.
///
/// `None` if the number needs more than `width` bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
