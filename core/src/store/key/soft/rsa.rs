//! RSA keys that the module uses in memory. aws-lc computes the RSA operations in constant time.
//!
//! Each operation parses the PrivateKeyInfo again. A parsed key would sign 2.6 times as fast
//! (RSA-2048: 0.27 instead of 0.70 ms). But a parsed key would stay in memory that is not locked.
//! During an operation the numbers are in unlocked memory too. aws-lc wipes memory that it frees.
//!
//! aws-lc has locks that a fork must not find locked, in its random number generator and in each
//! key object. Therefore every call of aws-lc is inside [`without_fork`].

use crate::fork::without_fork;
use crate::key::PrivateKeyInfo;
use crate::store::{DecryptRequest, SignError};
use crate::system::check_getrandom;
use crate::tpm::{Hash, Secret, SignatureScheme, TpmError};
use aws_lc_rs::digest::{Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OAEP_SHA512_MGF1SHA512, OaepAlgorithm, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaSignatureEncoding,
};

/// aws-lc-rs verifies signatures with SHA-1, but does not create them.
pub(super) const HASHES: &[Hash] = &[Hash::Sha256, Hash::Sha384, Hash::Sha512];

/// Generates a key with the exponent 65537.
pub(super) fn generate(bits: u32) -> Result<PrivateKeyInfo, TpmError> {
    let failed = || TpmError::Unsupported(format!("no RSA key of {bits} bits could be generated"));
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(failed()),
    };
    ready()?;
    let info = without_fork(|| KeyPair::generate(size).and_then(|key| key.as_der()));
    let info = info.map_err(|_| failed())?;
    PrivateKeyInfo::from_der(info.as_ref()).map_err(|_| failed())
}

/// Returns the input for the operations below. Returns `None` if the numbers of the key do not
/// belong together.
pub(super) fn usable(private: &PrivateKeyInfo) -> Option<Secret> {
    without_fork(|| KeyPair::from_pkcs8(private.der()).map(drop)).ok()?;
    Some(Secret::new(private.der().to_vec()))
}

/// Signs by RSASSA-PKCS1-v1_5, or by RSASSA-PSS with a salt as long as the digest (RFC 8017,
/// section 8).
pub(super) fn sign(
    info: &[u8],
    scheme: SignatureScheme,
    digest: &[u8],
) -> Result<Vec<u8>, SignError> {
    let by: &'static RsaSignatureEncoding = match scheme {
        SignatureScheme::Rsassa(Hash::Sha256) => &RSA_PKCS1_SHA256,
        SignatureScheme::Rsassa(Hash::Sha384) => &RSA_PKCS1_SHA384,
        SignatureScheme::Rsassa(Hash::Sha512) => &RSA_PKCS1_SHA512,
        SignatureScheme::Rsapss(Hash::Sha256) => &RSA_PSS_SHA256,
        SignatureScheme::Rsapss(Hash::Sha384) => &RSA_PSS_SHA384,
        SignatureScheme::Rsapss(Hash::Sha512) => &RSA_PSS_SHA512,
        SignatureScheme::Rsassa(Hash::Sha1)
        | SignatureScheme::Rsapss(Hash::Sha1)
        | SignatureScheme::Ecdsa(_) => {
            return Err(SignError::Scheme);
        }
    };
    let of = match scheme.hash() {
        Hash::Sha384 => &SHA384,
        Hash::Sha512 => &SHA512,
        _ => &SHA256,
    };
    let length = SignError::DigestLength(digest.len());
    let digest = Digest::import_less_safe(digest, of).map_err(|_| length)?;
    ready()?;
    let signed = without_fork(|| {
        let key = KeyPair::from_pkcs8(info).ok()?;
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign_digest(by, &digest, &mut signature).ok()?;
        Some(signature)
    });
    signed.ok_or(SignError::Scheme)
}

/// Returns true if [`decrypt`] supports this padding. OAEP needs the same hash for the label and
/// for the mask.
pub(super) fn opens(request: DecryptRequest) -> bool {
    match request {
        DecryptRequest::Pkcs1 => true,
        DecryptRequest::Oaep { hash, mgf, .. } => hash == mgf,
    }
}

/// Decrypts a message (RFC 8017, section 7). aws-lc removes the padding in constant time. Every
/// error of the padding gives the same result.
pub(super) fn decrypt(
    info: &[u8],
    request: DecryptRequest,
    ciphertext: &[u8],
) -> Result<Secret, SignError> {
    ready()?;
    without_fork(|| {
        let key = PrivateDecryptingKey::from_pkcs8(info).map_err(|_| SignError::Scheme)?;
        let mut room = Secret::new(vec![0; key.key_size_bytes()]);
        let opened = match request {
            DecryptRequest::Pkcs1 => Pkcs1PrivateDecryptingKey::new(key)
                .and_then(|key| key.decrypt(ciphertext, &mut room).map(|plain| plain.len())),
            DecryptRequest::Oaep { hash, label, .. } => OaepPrivateDecryptingKey::new(key)
                .and_then(|key| {
                    let plain = key.decrypt(oaep(hash), ciphertext, &mut room, Some(label));
                    plain.map(|plain| plain.len())
                }),
        };
        room.truncate(opened.map_err(|_| SignError::Ciphertext)?);
        Ok(room)
    })
}

/// Checks the random number generator, because each use of a private key needs random bytes.
fn ready() -> Result<(), TpmError> {
    check_getrandom().map_err(|failed| TpmError::Unsupported(format!("RSA in memory: {failed}")))
}

fn oaep(hash: Hash) -> &'static OaepAlgorithm {
    match hash {
        Hash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        Hash::Sha384 => &OAEP_SHA384_MGF1SHA384,
        Hash::Sha512 => &OAEP_SHA512_MGF1SHA512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use pkcs1::RsaPrivateKeyRef;
    use pkcs1::der::Decode;
    use pkcs8::PrivateKeyInfoRef;

    #[test]
    fn a_key_is_known_by_each_of_its_primes_and_by_no_other_number() {
        for bits in [2048, 3072] {
            let made = generate(bits).unwrap();
            let PublicKey::Rsa { modulus, exponent } = made.public() else {
                panic!("{made:?}");
            };
            assert_eq!(
                (made.public().bits(), &exponent[..]),
                (bits, &[1, 0, 1][..])
            );
            let info = PrivateKeyInfoRef::try_from(made.der()).unwrap();
            let key = RsaPrivateKeyRef::from_der(info.private_key.as_bytes()).unwrap();
            let primes = [key.prime1, key.prime2].map(|prime| prime.as_bytes().to_vec());
            for prime in &primes {
                let again = PrivateKeyInfo::from_prime(modulus, prime).unwrap();
                assert_eq!(again.public(), made.public());
                assert!(usable(&again).is_some());
            }
            let mut next = primes[0].clone();
            *next.last_mut().unwrap() ^= 2;
            for wrong in [
                &[][..],
                &[0],
                &[1],
                &next,
                modulus,
                &[&[1][..], modulus].concat(),
            ] {
                assert!(PrivateKeyInfo::from_prime(modulus, wrong).is_err());
            }
        }
    }
}
