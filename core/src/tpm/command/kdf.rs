//! Key derivation (Part 1, section 11.4.10), and secrets that are encrypted for a key of the TPM
//! (Part 1, annexes B.10 and C.6).

use crate::fork::without_fork;
use crate::key::by_curve;
use crate::key::{Curve, PublicKey};
use crate::system::random;
use crate::tpm::structures::hash::by_algorithm;
use crate::tpm::{Hash, TpmError};
use getrandom::SysRng;
use rsa::Oaep;
use rsa::traits::PaddingScheme as _;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// Secret bytes. They are wiped when they are dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// Derives a key by KDFa: counter mode with HMAC (SP 800-108). `label` is without its final zero.
pub(in crate::tpm) fn kdfa(
    hash: Hash,
    key: &[u8],
    label: &str,
    context_u: &[u8],
    context_v: &[u8],
    bits: u32,
) -> Secret {
    let bits_said = bits.to_be_bytes();
    counted(hash, bits, |counter| {
        let parts = [
            counter,
            label.as_bytes(),
            &[0],
            context_u,
            context_v,
            &bits_said,
        ];
        hash.hmac(key, &parts)
    })
}

/// Returns `bits` bits from a sequence of blocks. `block` computes a block from its number.
fn counted(hash: Hash, bits: u32, block: impl Fn(&[u8]) -> Secret) -> Secret {
    let bytes = bits.div_ceil(8) as usize;
    let mut derived = room(bytes + hash.width());
    for counter in 1_u32.. {
        if derived.len() >= bytes {
            break;
        }
        derived.extend_from_slice(&block(&counter.to_be_bytes()));
    }
    derived.truncate(bytes);
    derived
}

/// Returns an empty secret with this capacity. A secret that outgrew its capacity would leave a
/// copy in memory.
pub(in crate::tpm) fn room(bytes: usize) -> Secret {
    Zeroizing::new(Vec::with_capacity(bytes))
}

/// Derives a key by KDFe from the secret of a key agreement (SP 800-56A). `label` is without its
/// final zero.
fn kdfe(hash: Hash, z: &[u8], label: &str, party_u: &[u8], party_v: &[u8], bits: u32) -> Secret {
    counted(hash, bits, |counter| {
        let parts = [counter, z, label.as_bytes(), &[0], party_u, party_v];
        Zeroizing::new(hash.digest(&parts))
    })
}

/// Makes a random secret as wide as a digest of `hash`, and encrypts it for the TPM's key `to`.
/// Returns the secret and the content of the TPM2B_ENCRYPTED_SECRET. `hash` is the nameAlg of the
/// key `to`. `label` is the label of the standard for the purpose.
pub(in crate::tpm) fn share_secret(
    to: &PublicKey,
    hash: Hash,
    label: &str,
) -> Result<(Secret, Vec<u8>), TpmError> {
    match to {
        PublicKey::Ec { curve, point } => share_by_agreement(*curve, point, hash, label),
        PublicKey::Rsa { .. } => {
            let secret = random_secret(hash.width())?;
            // The label includes its final zero (Part 1, section B.4).
            let label = [label.as_bytes(), &[0]].concat();
            let unfit =
                || TpmError::Unsupported("the TPM's RSA key cannot encrypt the secret".into());
            let encrypted = encrypt_oaep(to, hash, hash, &label, &secret).ok_or_else(unfit)?;
            Ok((secret, encrypted))
        }
    }
}

/// Returns `count` bytes of the kernel's random number generator.
///
/// # Errors
///
/// [`TpmError::Unsupported`] if the kernel gives no random bytes.
pub fn random_secret(count: usize) -> Result<Secret, TpmError> {
    let mut secret = Zeroizing::new(vec![0; count]);
    let failed = |error| TpmError::Unsupported(format!("no random bytes: {error}"));
    random(&mut secret).map_err(failed)?;
    Ok(secret)
}

/// Returns a random private scalar, as wide as the order of the curve.
pub(crate) fn random_scalar(curve: Curve) -> Result<Secret, TpmError> {
    loop {
        // Nearly all numbers of this width are valid scalars: all but one in 2^32.
        let mut scalar = random_secret(curve.width())?;
        if curve == Curve::P521 {
            scalar[0] &= 1;
        }
        if curve.public_of(&scalar).is_some() {
            return Ok(scalar);
        }
    }
}

fn share_by_agreement(
    curve: Curve,
    point: &[u8],
    hash: Hash,
    label: &str,
) -> Result<(Secret, Vec<u8>), TpmError> {
    let unfit =
        |_| TpmError::Unsupported("the TPM's public key is not a point of its curve".into());
    use p256::elliptic_curve::sec1::ToSec1Point;
    let own = random_scalar(curve)?;
    // The first multiplication of the curve's base point makes a table.
    let (z, ephemeral) = without_fork(|| -> Result<_, TpmError> {
        by_curve!(curve, c => {
            let own = c::SecretKey::from_slice(&own).map_err(unfit)?;
            let theirs = c::PublicKey::from_sec1_bytes(point).map_err(unfit)?;
            let shared = own.diffie_hellman(&theirs);
            let z = Zeroizing::new(shared.raw_secret_bytes().to_vec()); // `shared` wipes itself
            Ok((z, own.public_key().to_sec1_point(false).as_bytes().to_vec()))
        })
    })?;
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

/// Encrypts by RSAES-OAEP (RFC 8017, section 7.1.1), with separate hashes for label and mask.
/// Returns `None` if the message is too long or the key is not RSA.
pub(crate) fn encrypt_oaep(
    key: &PublicKey,
    hash: Hash,
    mgf: Hash,
    label: &[u8],
    message: &[u8],
) -> Option<Vec<u8>> {
    let key = key.to_rsa()?;
    by_algorithm!(hash, D => by_algorithm!(mgf, M => {
        let padding = Oaep::<D, M> {
            digest: D::new(),
            mgf_digest: M::new(),
            label: Some(label.into()),
        };
        padding.encrypt(&mut SysRng, &key, message).ok()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The TPM's side of the agreement finds the secret (Part 1, section C.6.1).
    #[test]
    fn a_secret_is_shared_with_a_key_on_a_curve() {
        let scalar = random_scalar(Curve::P256).unwrap();
        let to = Curve::P256.public_of(&scalar).unwrap();
        let (secret, encrypted) = share_secret(&to, Hash::Sha256, "SECRET").unwrap();
        let PublicKey::Ec { point, .. } = to else {
            panic!("a key on a curve")
        };
        assert_eq!(
            (encrypted[..2].to_vec(), encrypted.len()),
            (vec![0, 32], 68)
        );
        let (x, y) = (&encrypted[2..34], &encrypted[36..]);
        let ephemeral = p256::PublicKey::from_sec1_bytes(&[&[4], x, y].concat()).unwrap();
        let own = p256::SecretKey::from_slice(&scalar).unwrap();
        let shared = own.diffie_hellman(&ephemeral);
        let z = shared.raw_secret_bytes();
        let found = kdfe(Hash::Sha256, z, "SECRET", x, &point[1..33], 256);
        assert_eq!(secret, found);
        assert_eq!(secret.len(), 32);
    }

    #[test]
    fn a_secret_is_shared_with_an_rsa_key() {
        // 2^1024 - 105, as a modulus: nobody decrypts here.
        let mut modulus = vec![0xFF; 128];
        modulus[127] = 0x97;
        let exponent = vec![1, 0, 1];
        let to = PublicKey::Rsa { modulus, exponent };
        let share = || share_secret(&to, Hash::Sha256, "SECRET").unwrap();
        let ((secret, encrypted), (other, _)) = (share(), share());
        assert_eq!((secret.len(), encrypted.len()), (32, 128));
        assert_ne!(secret, other);
        let short = encrypt_oaep(&to, Hash::Sha512, Hash::Sha512, b"", &secret);
        assert!(short.is_none(), "128 bytes are too few for two digests");
    }

    /// A buffer that grows leaves copies of a secret.
    #[test]
    fn a_secret_has_room_from_the_beginning() {
        let buffer = room(40);
        assert!(buffer.is_empty() && buffer.capacity() >= 40);
    }

    /// The highest byte of a scalar of P-521 has one bit, which is 0 in half of all scalars.
    #[test]
    fn scalars_are_spread_over_the_whole_order() {
        let first = || random_scalar(Curve::P521).unwrap()[0];
        let seen: Vec<u8> = (0..64).map(|_| first()).collect();
        assert!(seen.contains(&0) && seen.contains(&1), "{seen:?}");
    }

    /// The expected values were computed by an independent program, from Z 00..1F, U 20..3F and V
    /// 40..5F.
    #[test]
    fn a_secret_from_a_key_agreement() {
        let bytes = |from: u8| (from..from + 0x20).collect::<Vec<u8>>();
        let derived = kdfe(
            Hash::Sha256,
            &bytes(0),
            "IDENTITY",
            &bytes(0x20),
            &bytes(0x40),
            256,
        );
        assert_eq!(
            crate::key::hex(&derived),
            "1c73541403051da01a9c8dae6988c5f5db53f8744ad27c896ccdc663d40e3df1"
        );
    }
}
