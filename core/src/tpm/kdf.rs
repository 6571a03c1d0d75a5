//! Secrets that are derived from secrets (Part 1, section 11.4.10), and secrets that only a key of
//! the TPM can read (Part 1, annex B.10 and C.6).

use super::{Hash, TpmError};
use crate::key::{Curve, PublicKey};
use getrandom::SysRng;
use rsa::rand_core::{TryRng, UnwrapErr};
use rsa::traits::PaddingScheme as _;
use rsa::{BoxedUint, Oaep, RsaPublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// A secret, wiped when it goes.
pub type Secret = Zeroizing<Vec<u8>>;

/// KDFa: counter mode with HMAC (SP 800-108). `label` without its final zero.
pub(super) fn kdfa(
    hash: Hash,
    key: &[u8],
    label: &str,
    context_u: &[u8],
    context_v: &[u8],
    bits: u32,
) -> Secret {
    let bytes = bits.div_ceil(8) as usize;
    let mut derived = room(bytes + hash.width());
    for counter in 1_u32.. {
        if derived.len() >= bytes {
            break;
        }
        let (counter, bits) = (counter.to_be_bytes(), bits.to_be_bytes());
        let parts = [
            &counter,
            label.as_bytes(),
            &[0],
            context_u,
            context_v,
            &bits,
        ];
        derived.extend_from_slice(&hash.hmac(key, &parts));
    }
    derived.truncate(bytes);
    derived
}

/// Room for a secret: one that grows leaves itself behind wherever it was.
pub(super) fn room(bytes: usize) -> Secret {
    Zeroizing::new(Vec::with_capacity(bytes))
}

/// KDFe: from the secret of a key agreement (SP 800-56A). `label` without its final zero.
fn kdfe(hash: Hash, z: &[u8], label: &str, party_u: &[u8], party_v: &[u8], bits: u32) -> Secret {
    let bytes = bits.div_ceil(8) as usize;
    let mut derived = room(bytes + hash.width());
    for counter in 1_u32.. {
        if derived.len() >= bytes {
            break;
        }
        let parts = [
            &counter.to_be_bytes(),
            z,
            label.as_bytes(),
            &[0],
            party_u,
            party_v,
        ];
        derived.extend_from_slice(&Zeroizing::new(hash.digest(&parts)));
    }
    derived.truncate(bytes);
    derived
}

/// A fresh secret as wide as a digest of `hash`, and the content of the TPM2B_ENCRYPTED_SECRET that
/// lets the TPM's key `to` know it. `hash` is that key's nameAlg; `label` says what for.
pub(super) fn share_secret(
    to: &PublicKey,
    hash: Hash,
    label: &str,
) -> Result<(Secret, Vec<u8>), TpmError> {
    match to {
        PublicKey::Ec { curve, point } => share_by_agreement(*curve, point, hash, label),
        PublicKey::Rsa { modulus, exponent } => {
            let secret = random_secret(hash.width())?;
            let encrypted = encrypt_oaep(modulus, exponent, hash, label, &secret)?;
            Ok((secret, encrypted))
        }
    }
}

/// Bytes of the kernel's random number generator.
pub(crate) fn random_secret(count: usize) -> Result<Secret, TpmError> {
    let mut secret = Zeroizing::new(vec![0; count]);
    let failed = |error| TpmError::Unsupported(format!("no random bytes from the kernel: {error}"));
    SysRng.try_fill_bytes(&mut secret).map_err(failed)?;
    Ok(secret)
}

fn share_by_agreement(
    curve: Curve,
    point: &[u8],
    hash: Hash,
    label: &str,
) -> Result<(Secret, Vec<u8>), TpmError> {
    let unfit = |_| TpmError::Unsupported("the TPM's key is no point of its curve".into());
    macro_rules! through {
        ($curve:ident) => {{
            let own = $curve::SecretKey::from_slice(&curve.random_scalar()?).map_err(unfit)?;
            let theirs = $curve::PublicKey::from_sec1_bytes(point).map_err(unfit)?;
            let shared = own.diffie_hellman(&theirs);
            let z = Zeroizing::new(shared.raw_secret_bytes().to_vec()); // the rest wipes itself
            (z, own.public_key().to_sec1_point(false).as_bytes().to_vec())
        }};
    }
    use p256::elliptic_curve::sec1::ToSec1Point;
    let (z, ephemeral) = match curve {
        Curve::P256 => through!(p256),
        Curve::P384 => through!(p384),
        Curve::P521 => through!(p521),
    };
    // 04 ‖ x ‖ y
    let width = curve.width();
    let (x, y) = (&ephemeral[1..=width], &ephemeral[1 + width..]);
    let bits = 8 * hash.width() as u32;
    let secret = kdfe(hash, &z, label, x, &point[1..=width], bits);
    let mut encrypted = Vec::new();
    for coordinate in [x, y] {
        encrypted.extend((coordinate.len() as u16).to_be_bytes());
        encrypted.extend(coordinate);
    }
    Ok((secret, encrypted))
}

fn encrypt_oaep(
    modulus: &[u8],
    exponent: &[u8],
    hash: Hash,
    label: &str,
    secret: &[u8],
) -> Result<Vec<u8>, TpmError> {
    let unfit = |error| TpmError::Unsupported(format!("the TPM's RSA key: {error}"));
    let number = BoxedUint::from_be_slice_vartime;
    let key = RsaPublicKey::new(number(modulus), number(exponent)).map_err(unfit)?;
    // The label counts with its final zero (Part 1, section B.4).
    let label = [label.as_bytes(), &[0]].concat();
    let mut rng = UnwrapErr(SysRng);
    let encrypted = match hash {
        Hash::Sha1 => Oaep::<Sha1>::new_with_label(label).encrypt(&mut rng, &key, secret),
        Hash::Sha256 => Oaep::<Sha256>::new_with_label(label).encrypt(&mut rng, &key, secret),
        Hash::Sha384 => Oaep::<Sha384>::new_with_label(label).encrypt(&mut rng, &key, secret),
        Hash::Sha512 => Oaep::<Sha512>::new_with_label(label).encrypt(&mut rng, &key, secret),
    };
    encrypted.map_err(unfit)
}
