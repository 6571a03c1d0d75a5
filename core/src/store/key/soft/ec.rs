//! Keys on a curve that the module uses in memory. A scalar has the length of the curve's order.

use crate::fork::without_fork;
use crate::key::by_curve;
use crate::key::{Curve, PrivateKeyInfo, pad_left};
use crate::store::SignError;
use crate::tpm::{Secret, TpmError, random_scalar};
use ecdsa::hazmat::sign_prehashed_rfc6979;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

pub(super) fn generate(curve: Curve) -> Result<PrivateKeyInfo, TpmError> {
    let made = PrivateKeyInfo::from_scalar(curve, &random_scalar(curve)?);
    made.ok_or_else(|| {
        TpmError::Unsupported("the random number is not a scalar of the curve".into())
    })
}

/// Returns r ‖ s for a digest (FIPS 186-5, section 6.4, with the nonce of RFC 6979).
pub(super) fn sign(curve: Curve, scalar: &[u8], digest: &[u8]) -> Result<Vec<u8>, SignError> {
    let unfit = || SignError::DigestLength(digest.len());
    let counted = &digest[..digest.len().min(curve.width())];
    let digest = pad_left(counted, curve.width()).ok_or_else(unfit)?;
    // A SigningKey would compute the public key for each signature.
    macro_rules! through {
        ($curve:ident, $point:ident, $hash:ident) => {{
            let key = $curve::SecretKey::from_slice(scalar).map_err(|_| SignError::Scheme)?;
            let scalar = Zeroizing::new(key.to_nonzero_scalar());
            let (signature, _) =
                sign_prehashed_rfc6979::<$curve::$point, $hash>(&scalar, &digest, &[]);
            signature.to_bytes().to_vec()
        }};
    }
    // The first multiplication of the curve's base point makes a table.
    without_fork(|| {
        Ok(match curve {
            Curve::P256 => through!(p256, NistP256, Sha256),
            Curve::P384 => through!(p384, NistP384, Sha384),
            Curve::P521 => through!(p521, NistP521, Sha512),
        })
    })
}

/// Returns the x coordinate of the shared point (SEC 1, section 3.3.1).
pub(super) fn agree(curve: Curve, scalar: &[u8], point: &[u8]) -> Result<Secret, SignError> {
    Ok(by_curve!(curve, c => {
                let own = c::SecretKey::from_slice(scalar).map_err(|_| SignError::Scheme)?;
                let theirs =
                    c::PublicKey::from_sec1_bytes(point).map_err(|_| SignError::Ciphertext)?;
                Secret::new(own.diffie_hellman(&theirs).raw_secret_bytes().to_vec())
    }))
}
