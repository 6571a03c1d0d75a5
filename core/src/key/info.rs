//! Parses SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) in the various encodings of
//! certificates.

use super::{Curve, PublicKey, from_hex};
use crate::ber::{BIT_STRING, Element, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};

/// The contents of OBJECT IDENTIFIERs.
mod oid {
    /// id-ecPublicKey, 1.2.840.10045.2.1
    pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1];
    /// prime-field, 1.2.840.10045.1.1
    pub(super) const PRIME_FIELD: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 1, 1];
    /// id-ecDH and id-ecMQV, 1.3.132.1.12 and 13 (RFC 5480, section 2.1.2)
    pub(super) const EC_DH: &[u8] = &[0x2B, 0x81, 4, 1, 12];
    pub(super) const EC_MQV: &[u8] = &[0x2B, 0x81, 4, 1, 13];
    /// rsaEncryption, 1.2.840.113549.1.1.1
    pub(super) const RSA_ENCRYPTION: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
    /// id-RSAES-OAEP and id-RSASSA-PSS (RFC 4055, sections 1.2 and 3.1)
    pub(super) const RSA_OAEP: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 7];
    pub(super) const RSA_PSS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 10];
    /// rsa of X.509, 2.5.8.1.1
    pub(super) const RSA: &[u8] = &[0x55, 8, 1, 1];
}

/// The parameters of a curve in hexadecimal digits: prime, b, order, and the base point's x and y
/// (NIST SP 800-186, section 3.2.1). The coefficient a is always the prime minus 3.
struct CurveParameters {
    prime: &'static str,
    b: &'static str,
    order: &'static str,
    base: [&'static str; 2],
}

/// The fields of a SubjectPublicKeyInfo: algorithm, optional parameters, and bits of the key.
struct KeyInfo<'a> {
    algorithm: &'a [u8],
    parameters: Option<Element<'a>>,
    bits: &'a [u8],
}

impl PublicKey {
    /// Parses a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) in any encoding. A curve may be
    /// named or have explicit parameters. A point may be compressed. The algorithm may restrict the
    /// use of the key.
    ///
    /// Returns `None` if the algorithm is not supported, or if the key is invalid.
    pub fn from_info_der(der: &[u8]) -> Option<Self> {
        let info = KeyInfo::read(der)?;
        match info.algorithm {
            oid::EC_PUBLIC_KEY | oid::EC_DH | oid::EC_MQV => {
                Self::from_point(curve(&info.parameters?)?, &usual_point(info.bits)?)
            }
            oid::RSA_ENCRYPTION | oid::RSA_OAEP | oid::RSA_PSS | oid::RSA => rsa(info.bits),
            _ => None,
        }
    }

    /// Parses a SubjectPublicKeyInfo. Returns `None` unless [`Self::is_plain_info`] is true.
    pub(crate) fn from_plain_info(der: &[u8]) -> Option<Self> {
        Self::from_info_der(der).filter(|_| Self::is_plain_info(der))
    }

    /// Returns true if a SubjectPublicKeyInfo has the usual encoding: rsaEncryption (RFC 3279,
    /// section 2.3.1), or id-ecPublicKey with a named curve (RFC 5480, section 2.1.1). Other
    /// encodings restrict the key, or many verifiers cannot read them.
    pub fn is_plain_info(der: &[u8]) -> bool {
        KeyInfo::read(der).is_some_and(|info| match info.algorithm {
            oid::RSA_ENCRYPTION => true,
            oid::EC_PUBLIC_KEY => info
                .parameters
                .is_some_and(|parameters| parameters.tag == OBJECT_IDENTIFIER),
            _ => false,
        })
    }
}

impl<'a> KeyInfo<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let [algorithm, bits] = Element::only(der)?.children_of(SEQUENCE)?[..] else {
            return None;
        };
        let (algorithm, parameters) = match algorithm.children_of(SEQUENCE)?[..] {
            [algorithm] => (algorithm, None),
            [algorithm, parameters] => (algorithm, Some(parameters)),
            _ => return None,
        };
        match bits.content {
            [0, key @ ..] if (algorithm.tag, bits.tag) == (OBJECT_IDENTIFIER, BIT_STRING) => {
                Some(Self {
                    algorithm: algorithm.content,
                    parameters,
                    bits: key,
                })
            }
            _ => None,
        }
    }
}

/// Parses an RSAPublicKey (RFC 8017, appendix A.1.1). The zero before the leading bit of the
/// modulus may be missing.
fn rsa(der: &[u8]) -> Option<PublicKey> {
    match Element::only(der)?.children_of(SEQUENCE)?[..] {
        [modulus, exponent] if (modulus.tag, exponent.tag) == (INTEGER, INTEGER) => {
            PublicKey::from_rsa(modulus.content, exponent.content)
        }
        _ => None,
    }
}

/// Parses ECParameters (RFC 3279, section 2.3.5): the name of a curve, or its parameters.
fn curve(parameters: &Element) -> Option<Curve> {
    let mut all = Curve::ALL.into_iter();
    match parameters.tag {
        OBJECT_IDENTIFIER => all.find(|curve| curve.oid_der()[2..] == *parameters.content),
        SEQUENCE => all.find(|curve| described(parameters, *curve).is_some()),
        _ => None,
    }
}

/// Returns `None` unless these are the parameters of that curve. Seed and cofactor are optional and
/// ignored.
fn described(parameters: &Element, curve: Curve) -> Option<()> {
    let numbers = curve.numbers();
    let parts = parameters.children()?;
    let [_version, field, coefficients, base, order, ..] = parts[..] else {
        return None;
    };
    let [kind, prime] = field.children_of(SEQUENCE)?[..] else {
        return None;
    };
    let [a, b, ..] = coefficients.children_of(SEQUENCE)?[..] else {
        return None;
    };
    let tags = [kind, prime, a, b, base, order].map(|part| part.tag);
    let right = [
        OBJECT_IDENTIFIER,
        INTEGER,
        OCTET_STRING,
        OCTET_STRING,
        OCTET_STRING,
        INTEGER,
    ];
    let is = |number: &[u8], digits: &str| {
        let wanted = from_hex(digits);
        wanted.is_some_and(|wanted| number_of(number) == number_of(&wanted))
    };
    let mut less_three = from_hex(numbers.prime)?;
    // The last byte of each of these primes is 255, so no borrow occurs.
    *less_three.last_mut()? -= 3;
    let point = PublicKey::from_point(curve, &usual_point(base.content)?)?;
    let [x, y] = numbers.base.map(from_hex);
    let same = tags == right
        && kind.content == oid::PRIME_FIELD
        && is(prime.content, numbers.prime)
        && number_of(a.content) == number_of(&less_three)
        && is(b.content, numbers.b)
        && is(order.content, numbers.order)
        && Some(point) == PublicKey::from_coordinates(curve, &x?, &y?);
    same.then_some(())
}

/// Converts the hybrid form of a point (ITU-T X9.62, section 4.3.6), which contains a bit of y
/// twice, to the uncompressed form.
fn usual_point(point: &[u8]) -> Option<Vec<u8>> {
    match point {
        [form @ (6 | 7), both @ ..] => {
            let odd = both.last()? & 1;
            (odd == form & 1).then(|| [&[4], both].concat())
        }
        point => Some(point.to_vec()),
    }
}

fn number_of(bytes: &[u8]) -> &[u8] {
    super::without_zeros(bytes)
}

impl Curve {
    const fn numbers(self) -> CurveParameters {
        match self {
            Self::P256 => CurveParameters {
                prime: "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
                b: "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
                order: "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
                base: [
                    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
                    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
                ],
            },
            Self::P384 => CurveParameters {
                prime: "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe\
                        ffffffff0000000000000000ffffffff",
                b: "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875a\
                    c656398d8a2ed19d2a85c8edd3ec2aef",
                order: "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                        581a0db248b0a77aecec196accc52973",
                base: [
                    "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a38\
                     5502f25dbf55296c3a545e3872760ab7",
                    "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c0\
                     0a60b1ce1d7e819d7a431d7c90ea0e5f",
                ],
            },
            Self::P521 => CurveParameters {
                prime: "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                        ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                        ffff",
                b: "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef1\
                    09e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b50\
                    3f00",
                order: "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                        fffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e9138\
                        6409",
                base: [
                    "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d\
                     3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5\
                     bd66",
                    "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e\
                     662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd1\
                     6650",
                ],
            },
        }
    }
}
