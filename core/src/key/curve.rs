//! Curves (NIST SP 800-186, section 3.2.1), and the crates that implement them.

use super::PublicKey;
use crate::fork::without_fork;
use p256::elliptic_curve::sec1::ToSec1Point;

/// Runs `$body`. In `$body` the name `$c` is the crate of this curve: `p256`, `p384` or `p521`.
macro_rules! by_curve {
    ($curve:expr, $c:ident => $body:expr) => {
        match $curve {
            $crate::key::Curve::P256 => {
                use p256 as $c;
                $body
            }
            $crate::key::Curve::P384 => {
                use p384 as $c;
                $body
            }
            $crate::key::Curve::P521 => {
                use p521 as $c;
                $body
            }
        }
    };
}

pub(crate) use by_curve;

/// An elliptic curve that this project supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256, also prime256v1 and secp256r1.
    P256,
    /// NIST P-384, also secp384r1.
    P384,
    /// NIST P-521, also secp521r1.
    P521,
}

impl Curve {
    /// All curves.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// Returns the size of a coordinate of the curve and of its order, in bytes.
    pub const fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Returns the curve's object identifier in DER (`namedCurve` of RFC 5480, section 2.1.1).
    pub const fn oid_der(self) -> &'static [u8] {
        match self {
            // 1.2.840.10045.3.1.7
            Self::P256 => &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07],
            // 1.3.132.0.34
            Self::P384 => &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22],
            // 1.3.132.0.35
            Self::P521 => &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// Returns the size of the field in bits, as in PKCS#11 key sizes.
    pub const fn bits(self) -> u32 {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// Returns the public key of a private scalar as wide as the order; `None` if the scalar is
    /// invalid.
    pub(crate) fn public_of(self, scalar: &[u8]) -> Option<PublicKey> {
        // The first multiplication of the curve's base point makes a table.
        without_fork(|| {
            by_curve!(self, c => {
                let secret = c::SecretKey::from_slice(scalar).ok()?;
                let point = secret.public_key().to_sec1_point(false);
                PublicKey::from_point(self, point.as_bytes())
            })
        })
    }

    /// Returns a SEC 1 point in uncompressed form; `None` if the point is not on the curve.
    pub(super) fn uncompressed(self, point: &[u8]) -> Option<Vec<u8>> {
        by_curve!(self, c => {
            let key = c::PublicKey::from_sec1_bytes(point).ok()?;
            match point.first() {
                // This form has only one encoding.
                Some(4) => Some(point.to_vec()),
                _ => Some(key.to_sec1_point(false).as_bytes().to_vec()),
            }
        })
    }
}
