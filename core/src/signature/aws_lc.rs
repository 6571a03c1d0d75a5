//! Verification by aws-lc, for the keys and schemes that it supports. A P-256 signature costs a
//! tenth of what the portable crates need.
//!
//! Only public data goes in. A verification needs no random numbers.

use crate::fork::without_fork;
use crate::key::Curve;
use crate::tpm::Hash;
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};

/// True if r ‖ s is a signature over this number, which is as wide as the order of the curve.
/// `None` if aws-lc cannot decide.
pub(super) fn ecdsa(curve: Curve, point: &[u8], number: &[u8], signature: &[u8]) -> Option<bool> {
    let (scheme, hash) = match curve {
        Curve::P256 => (&ECDSA_P256_SHA256_FIXED, &digest::SHA256),
        Curve::P384 => (&ECDSA_P384_SHA384_FIXED, &digest::SHA384),
        Curve::P521 => (&ECDSA_P521_SHA512_FIXED, &digest::SHA512),
    };
    // The order of P-521 is wider than every hash, so the number begins with zeros.
    let (zeros, digest) = number.split_at_checked(number.len().checked_sub(hash.output_len())?)?;
    if zeros.iter().any(|&byte| byte != 0) {
        return None;
    }
    let digest = Digest::import_less_safe(digest, hash).ok()?;
    // aws-lc makes tables of the curve at their first use.
    without_fork(|| {
        let key = ParsedPublicKey::new(scheme, point).ok()?;
        Some(key.verify_digest_sig(&digest, signature).is_ok())
    })
}

/// True if it is an RSASSA-PKCS1-v1_5 signature over a digest of this hash. `None` if aws-lc cannot
/// decide.
pub(super) fn pkcs1(
    key: (&[u8], &[u8]),
    hash: Hash,
    digest: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let (hash, scheme, _) = schemes(hash)?;
    rsa(key, scheme, hash, digest, signature)
}

/// True if it is an RSASSA-PSS signature over a digest of this hash, with MGF1 of the hash and a
/// salt as long as the digest. `None` if aws-lc cannot decide.
pub(super) fn pss(
    key: (&[u8], &[u8]),
    hash: Hash,
    digest: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let (hash, _, scheme) = schemes(hash)?;
    rsa(key, scheme, hash, digest, signature)
}

/// Returns the hash of aws-lc, and the schemes PKCS#1 v1.5 and PSS with this hash. `None` for SHA-1.
fn schemes(
    hash: Hash,
) -> Option<(
    &'static digest::Algorithm,
    &'static RsaParameters,
    &'static RsaParameters,
)> {
    Some(match hash {
        Hash::Sha1 => return None,
        Hash::Sha256 => (
            &digest::SHA256,
            &RSA_PKCS1_2048_8192_SHA256,
            &RSA_PSS_2048_8192_SHA256,
        ),
        Hash::Sha384 => (
            &digest::SHA384,
            &RSA_PKCS1_2048_8192_SHA384,
            &RSA_PSS_2048_8192_SHA384,
        ),
        Hash::Sha512 => (
            &digest::SHA512,
            &RSA_PKCS1_2048_8192_SHA512,
            &RSA_PSS_2048_8192_SHA512,
        ),
    })
}

fn rsa(
    (n, e): (&[u8], &[u8]),
    scheme: &'static RsaParameters,
    hash: &'static digest::Algorithm,
    digest: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let bits = 8 * u32::try_from(n.len()).ok()?;
    if !(scheme.min_modulus_len()..=scheme.max_modulus_len()).contains(&bits) {
        return None;
    }
    let digest = Digest::import_less_safe(digest, hash).ok()?;
    let key = RsaPublicKeyComponents { n, e };
    // aws-lc makes tables of its methods at their first use.
    without_fork(|| {
        let key = key.to_parsed_public_key(scheme).ok()?;
        Some(key.verify_digest_sig(&digest, signature).is_ok())
    })
}
