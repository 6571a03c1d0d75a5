//! Private keys for import into the token.

use super::StoreError;
use crate::key::{Curve, F4, PrivateKeyInfo, PublicKey};
use crate::oid::RSA_ENCRYPTION;
use crate::tpm::Secret;
use pkcs1::RsaPrivateKeyRef;
use pkcs8::PrivateKeyInfoRef;
use rsa::BoxedUint;
use std::fmt;

/// A private key from outside; wiped on drop.
pub enum PrivateKey {
    /// The scalar, big-endian, at most as wide as the curve's order.
    Ec(Curve, Secret),
    /// One prime factor of the modulus, big-endian; the exponent is 65537.
    Rsa {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
        /// One of its two factors.
        prime: Secret,
    },
}

impl PrivateKey {
    /// Parses a PrivateKeyInfo, DER (RFC 5958, section 2), without trailing bytes.
    /// [`PrivateKey::halves`] checks that its numbers are consistent.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadKey`] if the bytes are no PrivateKeyInfo, or hold an unsupported key.
    pub fn from_info(der: &[u8]) -> Result<Self, StoreError> {
        let bad = |why: &str| StoreError::BadKey(why.into());
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| bad("no PrivateKeyInfo"))?;
        if info.algorithm.oid != RSA_ENCRYPTION {
            let key = PrivateKeyInfo::from_der(der).map_err(StoreError::BadKey)?;
            return match (key.public(), key.scalar()) {
                (PublicKey::Ec { curve, .. }, Some(scalar)) => Ok(Self::Ec(*curve, scalar)),
                _ => Err(bad("no scalar of a known curve")),
            };
        }
        let key = RsaPrivateKeyRef::try_from(info.private_key.as_bytes());
        let key = key.map_err(|_| bad("no RSAPrivateKey"))?;
        if key.other_prime_infos.is_some() || key.public_exponent.as_bytes() != F4 {
            return Err(bad("an RSA key of more than two primes, or not of 65537"));
        }
        Ok(Self::Rsa {
            modulus: key.modulus.as_bytes().to_vec(),
            prime: Secret::new(key.prime1.as_bytes().to_vec()),
        })
    }

    /// The public key, and the private number that TPM2_Import takes.
    ///
    /// # Errors
    ///
    /// The numbers are inconsistent.
    pub fn halves(&self) -> Result<(PublicKey, Secret), StoreError> {
        let bad = |why: &str| StoreError::BadKey(why.into());
        match self {
            Self::Ec(curve, scalar) => {
                let scalar = fitted(scalar, curve.width())
                    .ok_or_else(|| bad("the scalar is wider than the curve's order"))?;
                let public = curve.public_of(&scalar);
                Ok((public.ok_or_else(|| bad("no scalar of the curve"))?, scalar))
            }
            Self::Rsa { modulus, prime } => {
                let public = PublicKey::from_rsa(modulus, &F4);
                let public = public.ok_or_else(|| bad("no RSA modulus of a known size"))?;
                let width = public.signature_width() / 2;
                let prime = fitted(prime, width).ok_or_else(|| bad("a prime that is too wide"))?;
                match divides(&prime, modulus) {
                    true => Ok((public, prime)),
                    false => Err(bad("the prime does not divide the modulus")),
                }
            }
        }
    }
}

impl PrivateKey {
    /// The key for use in memory.
    ///
    /// # Errors
    ///
    /// The numbers are inconsistent, or this build supports no such key in memory.
    pub(super) fn info(&self) -> Result<PrivateKeyInfo, StoreError> {
        let (_, secret) = self.halves()?;
        match self {
            Self::Ec(curve, _) => PrivateKeyInfo::from_scalar(*curve, &secret)
                .ok_or_else(|| StoreError::BadKey("no scalar of the curve".into())),
            Self::Rsa { modulus, .. } => {
                PrivateKeyInfo::from_prime(modulus, &secret).map_err(StoreError::BadKey)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// A big-endian number in `width` bytes.
fn fitted(number: &Secret, width: usize) -> Option<Secret> {
    crate::key::pad_left(number, width).map(Secret::new)
}

fn divides(prime: &Secret, modulus: &[u8]) -> bool {
    let modulus = BoxedUint::from_be_slice_vartime(modulus);
    let prime = BoxedUint::from_be_slice(prime, modulus.bits_precision());
    let prime = prime.ok().and_then(|prime| prime.into_nz().into_option());
    // A factor of 1 is not acceptable.
    prime.is_some_and(|prime| prime.bits() > 1 && (modulus % prime).is_zero().into())
}
