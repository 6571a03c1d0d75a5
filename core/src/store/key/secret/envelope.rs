//! Encrypts and decrypts a secret key in its file. The cipher is AES-256-GCM (NIST SP 800-38D)
//! under a random key, which encrypts nothing else. The result is nonce ‖ ciphertext ‖ tag.

use crate::key::SecretKeyType;
use crate::stack::{Computation, leaving_nothing};
use crate::tpm::Secret;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

/// The length of the encrypting key in bytes.
pub(super) const KEY: usize = 32;
/// The length of the nonce in bytes.
pub(super) const NONCE: usize = 12;
const TAG: usize = 16;

/// Encrypts a secret key. `key` must have [`KEY`] bytes, `nonce` must have [`NONCE`] bytes.
pub(super) fn encrypted(
    key_type: SecretKeyType,
    value: &[u8],
    key: &[u8],
    nonce: &[u8],
) -> Option<Vec<u8>> {
    let number = Nonce::try_from(nonce).ok()?;
    let about = about(key_type);
    let payload = Payload {
        msg: value,
        aad: &about,
    };
    let encrypted = leaving_nothing(Computation::Cipher, || {
        let cipher = Aes256Gcm::new_from_slice(key).ok()?;
        cipher.encrypt(&number, payload).ok()
    })?;
    Some([nonce, &encrypted].concat())
}

/// Decrypts a secret key. Returns `None` unless [`encrypted`] created the data with the given type
/// and `key`.
pub(super) fn decrypted(key_type: SecretKeyType, encrypted: &[u8], key: &[u8]) -> Option<Secret> {
    let (nonce, encrypted) = encrypted.split_at_checked(NONCE)?;
    let number = Nonce::try_from(nonce).ok()?;
    let about = about(key_type);
    let payload = Payload {
        msg: encrypted,
        aad: &about,
    };
    leaving_nothing(Computation::Cipher, || {
        let cipher = Aes256Gcm::new_from_slice(key).ok()?;
        cipher.decrypt(&number, payload).ok().map(Secret::new)
    })
}

/// Returns the length of the encrypted key in bytes. Returns `None` if the data are too short.
pub(super) fn length(encrypted: &[u8]) -> Option<usize> {
    encrypted.len().checked_sub(NONCE + TAG)
}

/// Returns the additional data that the tag authenticates.
fn about(key_type: SecretKeyType) -> Vec<u8> {
    [b"devid-pkcs11 secret key ", key_type.word().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_opens_as_what_it_is_and_not_otherwise() {
        let (right, wrong, nonce) = ([1; KEY], [2; KEY], [3; NONCE]);
        for (key_type, value) in [
            (SecretKeyType::Aes, &[7; 32][..]),
            (SecretKeyType::GenericSecret, &[8; 100]),
        ] {
            let hidden = encrypted(key_type, value, &right, &nonce).unwrap();
            assert_eq!(length(&hidden), Some(value.len()));
            let opened = decrypted(key_type, &hidden, &right).unwrap();
            assert_eq!(opened[..], *value);
            assert_eq!(decrypted(key_type, &hidden, &wrong), None);
            for other in [SecretKeyType::Aes, SecretKeyType::GenericSecret] {
                let opens = decrypted(other, &hidden, &right).is_some();
                assert_eq!(opens, other == key_type);
            }
            for at in 0..hidden.len() {
                let mut changed = hidden.clone();
                changed[at] ^= 1;
                assert_eq!(decrypted(key_type, &changed, &right), None);
            }
            for end in 0..hidden.len() {
                assert_eq!(decrypted(key_type, &hidden[..end], &right), None);
            }
        }
    }
}
