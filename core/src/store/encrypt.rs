//! Encryption with public keys, in software: it needs no secret. What is hidden is wiped by whoever
//! brings it.

use super::DecryptRequest;
use crate::key::PublicKey;
use crate::store::verify::rsa_key;
use crate::tpm::Hash;
use getrandom::SysRng;
use rsa::traits::PaddingScheme;
use rsa::{Oaep, Pkcs1v15Encrypt};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The most bytes that fit into one ciphertext by this key (RFC 8017, sections 7.1.1 and 7.2.1);
/// `None` if not even none fit, or the key does not encrypt at all.
pub fn longest_message(key: &PublicKey, request: DecryptRequest) -> Option<usize> {
    let PublicKey::Rsa { modulus, .. } = key else {
        return None;
    };
    modulus.len().checked_sub(match request {
        DecryptRequest::Pkcs1 => 11,
        DecryptRequest::Oaep { hash, .. } => 2 * hash.width() + 2,
    })
}

/// Encrypts a message: a ciphertext as wide as the modulus, another one each time.
///
/// `None` for a message longer than [`longest_message`], and for a key that does not encrypt.
pub fn encrypt(key: &PublicKey, request: DecryptRequest, message: &[u8]) -> Option<Vec<u8>> {
    let PublicKey::Rsa { modulus, exponent } = key else {
        return None;
    };
    if message.len() > longest_message(key, request)? {
        return None;
    }
    let key = rsa_key(modulus, exponent)?;
    macro_rules! with {
        ($hash:expr, $one:ident => $then:expr) => {
            match $hash {
                Hash::Sha1 => {
                    type $one = Sha1;
                    $then
                }
                Hash::Sha256 => {
                    type $one = Sha256;
                    $then
                }
                Hash::Sha384 => {
                    type $one = Sha384;
                    $then
                }
                Hash::Sha512 => {
                    type $one = Sha512;
                    $then
                }
            }
        };
    }
    let made = match request {
        DecryptRequest::Pkcs1 => Pkcs1v15Encrypt.encrypt(&mut SysRng, &key, message),
        DecryptRequest::Oaep { hash, mgf, label } => {
            with!(hash, D => with!(mgf, M => {
                let padding = Oaep::<D, M> {
                    digest: D::new(),
                    mgf_digest: M::new(),
                    label: Some(label.into()),
                };
                padding.encrypt(&mut SysRng, &key, message)
            }))
        }
    };
    made.ok()
}
