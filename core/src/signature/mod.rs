//! Requests to sign, and the verification of signatures in software.
//!
//! aws-lc verifies where it can. The portable crates verify everything else: builds without aws-lc,
//! SHA-1, short RSA keys, and other salts.

#[cfg(feature = "soft-rsa")]
mod aws_lc;
#[cfg(not(feature = "soft-rsa"))]
#[path = "no_aws_lc.rs"]
mod aws_lc;
#[cfg(test)]
mod tests;

use crate::key::by_curve;
use crate::key::{Curve, PublicKey, pad_left};
use crate::tpm::{Hash, SignatureScheme};
use rsa::hazmat::rsa_encrypt;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

/// A request to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignRequest<'a> {
    /// ECDSA over a digest of any hash. The signature is r ‖ s, each as wide as the order of the
    /// curve.
    Ecdsa(&'a [u8]),
    /// RSASSA-PKCS1-v1_5 over a digest of this hash.
    Pkcs1(Hash, &'a [u8]),
    /// RSASSA-PKCS1-v1_5 with these bytes instead of the DigestInfo.
    Pkcs1Of(&'a [u8]),
    /// The raw private RSA operation on this number. The number is big-endian, below the modulus,
    /// and not longer than the modulus.
    Unpadded(&'a [u8]),
    /// RSASSA-PSS over a digest of this hash, with MGF1 of this hash, and a salt as long as the
    /// digest.
    Pss(Hash, &'a [u8]),
}

impl<'a> SignRequest<'a> {
    /// Returns the request for this scheme, with a digest of the scheme's hash.
    pub fn of(scheme: SignatureScheme, digest: &'a [u8]) -> Self {
        match scheme {
            SignatureScheme::Ecdsa(_) => Self::Ecdsa(digest),
            SignatureScheme::Rsassa(hash) => Self::Pkcs1(hash, digest),
            SignatureScheme::Rsapss(hash) => Self::Pss(hash, digest),
        }
    }
}

/// Returns true if `signature` is valid for this key and request. The signature is r ‖ s, or as
/// wide as the modulus.
///
/// PSS is verified with a salt as long as the digest, and with MGF1 of the hash of the digest.
pub fn verify(key: &PublicKey, request: SignRequest, signature: &[u8]) -> bool {
    match (key, request) {
        (PublicKey::Ec { curve, point }, SignRequest::Ecdsa(digest)) => {
            ecdsa_number(*curve, digest).is_some_and(|number| {
                aws_lc::ecdsa(*curve, point, &number, signature)
                    .unwrap_or_else(|| ecdsa(*curve, point, &number, signature))
            })
        }
        (PublicKey::Rsa { modulus, exponent }, SignRequest::Pkcs1(hash, digest)) => {
            aws_lc::pkcs1((modulus, exponent), hash, digest, signature)
                .unwrap_or_else(|| pkcs1(key, hash, digest, signature))
        }
        (PublicKey::Rsa { .. }, SignRequest::Pkcs1Of(data)) => {
            let padding = Pkcs1v15Sign::new_unprefixed();
            let key = key.to_rsa();
            key.is_some_and(|key| key.verify(padding, data, signature).is_ok())
        }
        (PublicKey::Rsa { .. }, SignRequest::Unpadded(number)) => {
            unpadded(key, number, signature).unwrap_or(false)
        }
        (PublicKey::Rsa { modulus, exponent }, SignRequest::Pss(hash, digest)) => {
            aws_lc::pss((modulus, exponent), hash, digest, signature)
                .unwrap_or_else(|| verify_pss(key, hash, hash.width(), digest, signature))
        }
        _ => false,
    }
}

/// Returns true if the public operation on the signature gives this number.
fn unpadded(key: &PublicKey, number: &[u8], signature: &[u8]) -> Option<bool> {
    let bits = 8 * u32::try_from(key.signature_width()).ok()?;
    let of = |bytes| BoxedUint::from_be_slice(bytes, bits).ok();
    let (number, signature) = (of(number)?, of(signature)?);
    Some(rsa_encrypt(&key.to_rsa()?, &signature).ok()? == number)
}

/// Returns true if this is a PSS signature with the longest salt that fits, and if this salt is
/// longer than the digest. A TPM may make such signatures (TPM 2.0 Library, Part 1, section B.7).
pub(crate) fn has_longest_salt(
    key: &PublicKey,
    hash: Hash,
    digest: &[u8],
    signature: &[u8],
) -> bool {
    let PublicKey::Rsa { modulus, .. } = key else {
        return false;
    };
    // The modulus has room for the hash, the salt, and one byte before and after them (RFC 8017,
    // section 9.1.1).
    let longest = modulus.len().checked_sub(hash.width() + 2);
    let longest = longest.filter(|salt| *salt > hash.width());
    longest.is_some_and(|salt| verify_pss(key, hash, salt, digest, signature))
}

/// Returns true if this is a PSS signature with this salt length, and with MGF1 of the hash of the
/// digest.
pub(crate) fn verify_pss(
    key: &PublicKey,
    hash: Hash,
    salt: usize,
    digest: &[u8],
    signature: &[u8],
) -> bool {
    let Some(key) = key.to_rsa() else {
        return false;
    };
    let verified = match hash {
        Hash::Sha1 => key.verify(Pss::<Sha1>::new_with_salt(salt), digest, signature),
        Hash::Sha256 => key.verify(Pss::<Sha256>::new_with_salt(salt), digest, signature),
        Hash::Sha384 => key.verify(Pss::<Sha384>::new_with_salt(salt), digest, signature),
        Hash::Sha512 => key.verify(Pss::<Sha512>::new_with_salt(salt), digest, signature),
    };
    verified.is_ok()
}

fn pkcs1(key: &PublicKey, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
    let Some(key) = key.to_rsa() else {
        return false;
    };
    let padding = match hash {
        Hash::Sha1 => Pkcs1v15Sign::new::<Sha1>(),
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    };
    key.verify(padding, digest, signature).is_ok()
}

/// The digest as the number that ECDSA signs, as wide as the order. As in `fit`: only the left
/// bytes count, and shorter digests get leading zeros.
fn ecdsa_number(curve: Curve, digest: &[u8]) -> Option<Vec<u8>> {
    pad_left(&digest[..digest.len().min(curve.width())], curve.width())
}

fn ecdsa(curve: Curve, point: &[u8], number: &[u8], signature: &[u8]) -> bool {
    by_curve!(curve, c => {
                use c::ecdsa::signature::hazmat::PrehashVerifier;
                use c::ecdsa::{Signature, VerifyingKey};
                let key = VerifyingKey::from_sec1_bytes(point);
                let signature = Signature::from_slice(signature);
                match (key, signature) {
                    (Ok(key), Ok(signature)) => key.verify_prehash(number, &signature).is_ok(),
                    _ => false,
                }
    })
}
