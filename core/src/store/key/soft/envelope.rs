//! Encrypts and decrypts a sealed key in its file: PBES2 (RFC 8018, section 6.2) under a random
//! key.

use crate::key::PrivateKeyInfo;
use crate::system::random;
use crate::tpm::Secret;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};

/// The number of PBKDF2 iterations. More iterations would add no security, because the encrypting
/// key is random.
const ITERATIONS: u32 = 1000;
/// The length of the encrypting key in bytes.
pub(super) const KEY: usize = 32;

/// Returns an EncryptedPrivateKeyInfo in DER (RFC 5958, section 3).
pub(super) fn encrypted(info: &PrivateKeyInfo, key: &Secret) -> Option<Vec<u8>> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    random(&mut salt).ok()?;
    random(&mut iv).ok()?;
    let parameters =
        pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, iv).ok()?;
    let info = PrivateKeyInfoRef::try_from(info.der()).ok()?;
    let encrypted = info.encrypt_with_params(parameters, password(key)).ok()?;
    Some(encrypted.as_bytes().to_vec())
}

/// Decrypts an EncryptedPrivateKeyInfo. Returns `None` if the key is wrong, or if the file asks for
/// more iterations than [`encrypted`] uses. A changed file could otherwise ask for an endless
/// derivation.
pub(super) fn decrypted(encrypted: &[u8], key: &Secret) -> Option<Secret> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(encrypted).ok()?;
    let parameters = encrypted.encryption_algorithm.pbes2()?;
    let kdf = parameters.kdf.pbkdf2()?;
    if kdf.iteration_count > ITERATIONS {
        return None;
    }
    let info = encrypted.decrypt(password(key)).ok()?;
    Some(Secret::new(info.as_bytes().to_vec()))
}

/// Returns the key in hexadecimal digits, so that any program with PBES2 can use it as a password.
fn password(key: &Secret) -> Secret {
    let digits = key.iter().flat_map(|byte| {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0') as u8;
        [digit(byte >> 4), digit(byte & 15)]
    });
    Secret::new(digits.collect())
}
