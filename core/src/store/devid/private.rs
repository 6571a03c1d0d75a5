//! Private keys for an import into the token.

use super::StoreError;
use crate::key::{Curve, F4, PrivateKeyInfo, PublicKey};
use crate::oid::RSA_ENCRYPTION;
use crate::tpm::Secret;
use pkcs1::RsaPrivateKeyRef;
use pkcs8::PrivateKeyInfoRef;
use rsa::BoxedUint;
use std::fmt;

/// A private key that was created outside the token. The value is wiped on drop.
pub enum PrivateKey {
    /// The scalar, big-endian, at most as wide as the curve's order.
    Ec(Curve, Secret),
    /// One prime factor of the modulus, big-endian; the exponent is 65537.
    Rsa {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
        /// One of the two prime factors.
        prime: Secret,
    },
}

impl PrivateKey {
    /// Parses a PrivateKeyInfo in DER (RFC 5958, section 2) without trailing bytes.
    /// [`PrivateKey::halves`] checks that the numbers belong together.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::BadKey`] if the bytes are no PrivateKeyInfo, or hold a key that is
    /// not supported.
    pub fn from_info(der: &[u8]) -> Result<Self, StoreError> {
        let bad = |why: &str| StoreError::BadKey(why.into());
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| bad("no PrivateKeyInfo"))?;
        if info.algorithm.oid != RSA_ENCRYPTION {
            let key = PrivateKeyInfo::from_der(der).map_err(StoreError::BadKey)?;
            return match (key.public(), key.scalar()) {
                (PublicKey::Ec { curve, .. }, Some(scalar)) => Ok(Self::Ec(*curve, scalar)),
                _ => Err(bad("not a private key of a supported curve")),
            };
        }
        let key = RsaPrivateKeyRef::try_from(info.private_key.as_bytes());
        let key = key.map_err(|_| bad("no RSAPrivateKey"))?;
        if key.other_prime_infos.is_some() || key.public_exponent.as_bytes() != F4 {
            return Err(bad(
                "an RSA key with more than two primes, or with another public exponent than 65537",
            ));
        }
        Ok(Self::Rsa {
            modulus: key.modulus.as_bytes().to_vec(),
            prime: Secret::new(key.prime1.as_bytes().to_vec()),
        })
    }

    /// Returns the public key, and the private number that TPM2_Import needs.
    ///
    /// # Errors
    ///
    /// Fails if the numbers do not belong together.
    pub fn halves(&self) -> Result<(PublicKey, Secret), StoreError> {
        let bad = |why: &str| StoreError::BadKey(why.into());
        match self {
            Self::Ec(curve, scalar) => {
                let scalar = fitted(scalar, curve.width())
                    .ok_or_else(|| bad("the scalar is wider than the curve's order"))?;
                let public = curve.public_of(&scalar);
                Ok((
                    public.ok_or_else(|| {
                        bad("the scalar is zero, or not smaller than the curve's order")
                    })?,
                    scalar,
                ))
            }
            Self::Rsa { modulus, prime } => {
                let public = PublicKey::from_rsa(modulus, &F4);
                let public = public.ok_or_else(|| bad("not an RSA modulus of a supported size"))?;
                let width = public.signature_width() / 2;
                let prime = fitted(prime, width)
                    .ok_or_else(|| bad("a prime that is too long for the modulus"))?;
                match divides(&prime, modulus) {
                    true => Ok((public, prime)),
                    false => Err(bad("the prime does not divide the modulus")),
                }
            }
        }
    }
}

impl PrivateKey {
    /// Returns the private key as a PrivateKeyInfo, for use in memory.
    ///
    /// # Errors
    ///
    /// Fails if the numbers form no valid key, or if this build does not support the key in memory.
    pub(super) fn info(&self) -> Result<PrivateKeyInfo, StoreError> {
        let (_, secret) = self.halves()?;
        match self {
            Self::Ec(curve, _) => PrivateKeyInfo::from_scalar(*curve, &secret).ok_or_else(|| {
                StoreError::BadKey(
                    "the scalar is zero, or not smaller than the curve's order".into(),
                )
            }),
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

/// Returns a big-endian number in `width` bytes, or `None` if the number is longer.
fn fitted(number: &Secret, width: usize) -> Option<Secret> {
    crate::key::pad_left(number, width).map(Secret::new)
}

fn divides(prime: &Secret, modulus: &[u8]) -> bool {
    let modulus = BoxedUint::from_be_slice_vartime(modulus);
    let prime = BoxedUint::from_be_slice(prime, modulus.bits_precision());
    let prime = prime.ok().and_then(|prime| prime.into_nz().into_option());
    // The number 1 divides every modulus, but is not a prime.
    prime.is_some_and(|prime| prime.bits() > 1 && (modulus % prime).is_zero().into())
}
