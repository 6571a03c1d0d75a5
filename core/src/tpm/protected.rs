//! Data that only one storage key of a TPM can decrypt. The data are bound to the name of an object
//! (Part 1, section 22: protected storage; annexes B.10 and C.6).

use super::command::kdf::{kdfa, share_secret};
use super::{Hash, Secret, TpmError};
use crate::key::PublicKey;
use crate::stack::{Computation, leaving_nothing};
use aes::{Aes128, Aes192, Aes256};
use cfb_mode::Encryptor;
use cfb_mode::cipher::KeyIvInit;

/// The storage key that can decrypt the protected data.
#[derive(Clone, Copy)]
pub(super) struct Recipient<'a> {
    pub(super) public: &'a PublicKey,
    /// The nameAlg of the storage key.
    pub(super) hash: Hash,
    /// The key size of the storage key's symmetric algorithm, AES in CFB mode.
    pub(super) key_bits: u32,
}

/// Encrypts `content`. Returns two byte strings. The first is the integrity HMAC as a TPM2B,
/// followed by the encrypted TPM2B of `content`. The second is the content of the
/// TPM2B_ENCRYPTED_SECRET. `label` is the label of the standard for the purpose.
///
/// # Errors
///
/// [`TpmError::Unsupported`] if the key does not encrypt, if it uses another cipher, or if the
/// system gives no random bytes.
pub(super) fn protect(
    to: Recipient,
    label: &str,
    name: &[u8],
    content: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    let (seed, encrypted_seed) = share_secret(to.public, to.hash, label)?;
    let protected = protected_by(&seed, to.hash, to.key_bits, name, content)?;
    Ok((protected, encrypted_seed))
}

fn protected_by(
    seed: &Secret,
    hash: Hash,
    key_bits: u32,
    name: &[u8],
    content: &[u8],
) -> Result<Vec<u8>, TpmError> {
    let mut encrypted = Secret::new((content.len() as u16).to_be_bytes().to_vec());
    encrypted.extend_from_slice(content);
    let key = kdfa(hash, seed, "STORAGE", name, &[], key_bits);
    macro_rules! encrypt {
        ($aes:ty) => {
            Encryptor::<$aes>::new_from_slices(&key, &[0; 16])
                .map(|cipher| cipher.encrypt(&mut encrypted))
        };
    }
    leaving_nothing(Computation::Cipher, || match key_bits {
        128 => encrypt!(Aes128),
        192 => encrypt!(Aes192),
        _ => encrypt!(Aes256),
    })
    .map_err(|_| TpmError::Unsupported(format!("AES-{key_bits}-CFB")))?;
    let key = kdfa(hash, seed, "INTEGRITY", &[], &[], 8 * hash.width() as u32);
    let integrity = hash.hmac(&key, &[&encrypted, name]);

    let mut protected = (integrity.len() as u16).to_be_bytes().to_vec();
    protected.extend_from_slice(&integrity);
    protected.extend_from_slice(&encrypted);
    Ok(protected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;

    /// Test vectors with the seed 00 01 02 …, the name 000B ‖ 40..5F and the content 80..9F. An
    /// independent program computed them, and swtpm 0.7.1 decrypted them.
    #[test]
    fn the_vectors_of_both_strengths() {
        let name: Vec<u8> = [0x00, 0x0B].into_iter().chain(0x40..=0x5F).collect();
        let content: Vec<u8> = (0x80..=0x9F).collect();
        for (hash, key_bits, encrypted, integrity) in [
            (
                Hash::Sha256,
                128,
                "6e51803964aaae1b55ac710a26be019f306e84293b0633f8bfb97d25657a79ffae4c",
                "fa83334ffbd67084311fa53474f9947aeeb097381b3d838b678b7a02bdb64016",
            ),
            (
                Hash::Sha384,
                256,
                "6a852a15ee6f5ce951fd2b498a980c86e5d317fda4124c6c2b04b327399f9de5890a",
                "a5275d334665ab68d820390401f608d2d66668c3561803534b4c801f350a7a6092f81e9ea1ea9cef984\
                 65a480c7fb1f6",
            ),
        ] {
            let seed = Secret::new((0..hash.width() as u8).collect());
            let made = protected_by(&seed, hash, key_bits, &name, &content).unwrap();
            let length = format!("{:04x}", hash.width());
            assert_eq!(hex(&made), [&length, integrity, encrypted].concat());
        }
        let seed = Secret::new(vec![0; 32]);
        for key_bits in [0, 8, 64, 512] {
            assert!(protected_by(&seed, Hash::Sha256, key_bits, &name, &content).is_err());
        }
    }
}
