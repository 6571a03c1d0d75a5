//! Encrypts with RSA public keys in software. The caller must wipe the plaintext.

use super::DecryptRequest;
use crate::key::PublicKey;
use crate::tpm::encrypt_oaep;
use getrandom::SysRng;
use rsa::Pkcs1v15Encrypt;
use rsa::traits::PaddingScheme;

/// Returns the length of the longest message for a ciphertext of this key (RFC 8017, sections 7.1.1
/// and 7.2.1). Returns `None` if the key is too small or cannot encrypt.
pub fn longest_message(key: &PublicKey, request: DecryptRequest) -> Option<usize> {
    let PublicKey::Rsa { modulus, .. } = key else {
        return None;
    };
    modulus.len().checked_sub(match request {
        DecryptRequest::Pkcs1 => 11,
        DecryptRequest::Oaep { hash, .. } => 2 * hash.width() + 2,
    })
}

/// Encrypts a message. The ciphertext is as long as the modulus, and differs each time.
///
/// Returns `None` if the message is longer than [`longest_message`], or if the key cannot encrypt.
pub fn encrypt(key: &PublicKey, request: DecryptRequest, message: &[u8]) -> Option<Vec<u8>> {
    if message.len() > longest_message(key, request)? {
        return None;
    }
    match request {
        DecryptRequest::Pkcs1 => Pkcs1v15Encrypt
            .encrypt(&mut SysRng, &key.to_rsa()?, message)
            .ok(),
        DecryptRequest::Oaep { hash, mgf, label } => encrypt_oaep(key, hash, mgf, label, message),
    }
}
