//! Private keys outside of a TPM, as PrivateKeyInfo (RFC 5958, section 2).

use super::by_curve;
use super::reading::rsa_public;
use super::{Curve, F4, PublicKey, pad_left};
use crate::fork::without_fork;
use p256::elliptic_curve::bigint::ConcatenatingMul;
use pkcs1::RsaPrivateKeyRef;
use pkcs1::der::Encode;
use pkcs1::der::asn1::{OctetStringRef, UintRef};
use pkcs8::PrivateKeyInfoRef;
use rsa::BoxedUint;
use std::fmt;
use zeroize::Zeroizing;

/// A private key outside of a TPM, with its public key. The private key is wiped when it is
/// dropped. Inconsistent numbers of an RSA key are detected only when the key is used.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyInfo {
    pub(super) der: Zeroizing<Vec<u8>>,
    pub(super) public: PublicKey,
}

impl PrivateKeyInfo {
    /// Creates the key of a scalar as wide as the order of the curve. Returns `None` if the scalar
    /// is invalid.
    pub fn from_scalar(curve: Curve, scalar: &[u8]) -> Option<Self> {
        use p256::elliptic_curve::pkcs8::EncodePrivateKey;
        let public = curve.public_of(scalar)?;
        // The encoding contains the public key, too.
        let der = without_fork(|| {
            by_curve!(curve, c => {
                let key = c::SecretKey::from_slice(scalar).ok()?;
                Some(key.to_pkcs8_der().ok()?.as_bytes().to_vec())
            })
        });
        let der = Zeroizing::new(der?);
        Some(Self { der, public })
    }

    /// Creates the RSA key with this modulus and this prime factor, and the exponent 65537.
    ///
    /// # Errors
    ///
    /// Fails if the numbers are inconsistent, or if the key cannot be used in memory.
    pub fn from_prime(modulus: &[u8], prime: &[u8]) -> Result<Self, String> {
        let numbers = RsaNumbers::of(modulus, prime);
        let numbers = numbers.ok_or("the prime is not one of two factors of the modulus")?;
        Self::from_pkcs1(
            &numbers
                .to_der()
                .ok_or("the numbers of the key are invalid")?,
        )
    }

    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, String> {
        let public = rsa_public(der)?;
        let info = OctetStringRef::new(der)
            .and_then(|key| PrivateKeyInfoRef::new(pkcs1::ALGORITHM_ID, key).to_der());
        let der = Zeroizing::new(info.map_err(|why| why.to_string())?);
        Ok(Self { der, public })
    }

    /// Returns the PrivateKeyInfo in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl fmt::Debug for PrivateKeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKeyInfo({})", self.public)
    }
}

/// The numbers of an RSA key, big-endian.
struct RsaNumbers {
    modulus: Vec<u8>,
    exponent: Zeroizing<Vec<u8>>,
    /// The two primes; the larger prime is first.
    primes: [Zeroizing<Vec<u8>>; 2],
    /// The RSA private exponent modulo p - 1 and modulo q - 1, where p and q are the primes.
    exponents: [Zeroizing<Vec<u8>>; 2],
    coefficient: Zeroizing<Vec<u8>>,
}

impl RsaNumbers {
    /// Computes the numbers in constant time. Returns `None` unless the prime is one of two factors
    /// of half the width.
    fn of(modulus: &[u8], prime: &[u8]) -> Option<Self> {
        let half = modulus.len().div_ceil(2);
        let bits = half as u32 * 8;
        let number = |bytes: &[u8], bits| BoxedUint::from_be_slice(bytes, bits).ok();
        let narrow = |bytes: &[u8]| {
            let bytes = Zeroizing::new(pad_left(bytes, half)?);
            Some(Zeroizing::new(number(&bytes, bits)?))
        };
        let whole = number(modulus, 2 * bits)?;
        let divisor = Zeroizing::new(number(prime, 2 * bits)?);
        let divisor = Zeroizing::new(divisor.to_nz().into_option()?);
        let (other, rest) = whole.div_rem(&divisor);
        if !bool::from(rest.is_zero()) {
            return None;
        }
        let other = Zeroizing::new(other);
        let (one, other) = (narrow(prime)?, narrow(&bytes(&other))?);
        let [p, q] = if *one > *other {
            [one, other]
        } else {
            [other, one]
        };

        let unit = BoxedUint::one_with_precision(bits);
        let wiped = |number: &BoxedUint| number.to_nz().into_option().map(Zeroizing::new);
        let less = |prime: &BoxedUint| wiped(&Zeroizing::new(prime.wrapping_sub(&unit)));
        let (p_less, q_less) = (less(&p)?, less(&q)?);
        let f4 = |bits| number(&F4, bits);
        let of_p = Zeroizing::new(f4(bits)?.invert_mod(&p_less).into_option()?);
        let of_q = Zeroizing::new(f4(bits)?.invert_mod(&q_less).into_option()?);
        let order = wiped(&Zeroizing::new(p_less.concatenating_mul(&**q_less)))?;
        let exponent = f4(2 * bits)?.invert_mod(&order).into_option()?;
        let odd = Zeroizing::new(p.to_odd().into_option()?);
        let coefficient = q.invert_odd_mod(&odd).into_option()?;
        Some(Self {
            modulus: modulus.to_vec(),
            exponent: bytes(&Zeroizing::new(exponent)),
            primes: [bytes(&p), bytes(&q)],
            exponents: [bytes(&of_p), bytes(&of_q)],
            coefficient: bytes(&Zeroizing::new(coefficient)),
        })
    }

    /// Returns the RSAPrivateKey in DER.
    fn to_der(&self) -> Option<Zeroizing<Vec<u8>>> {
        let number = |bytes| UintRef::new(bytes).ok();
        let [p, q] = &self.primes;
        let [of_p, of_q] = &self.exponents;
        let key = RsaPrivateKeyRef {
            modulus: number(&self.modulus)?,
            public_exponent: number(&F4)?,
            private_exponent: number(&self.exponent)?,
            prime1: number(p)?,
            prime2: number(q)?,
            exponent1: number(of_p)?,
            exponent2: number(of_q)?,
            coefficient: number(&self.coefficient)?,
            other_prime_infos: None,
        };
        key.to_der().ok().map(Zeroizing::new)
    }
}

fn bytes(number: &BoxedUint) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(number.to_be_bytes().into_vec())
}
