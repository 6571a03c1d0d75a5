//! Key agreement mechanisms (PKCS#11 3.0, sections 6.3.17 to 6.3.19), and the derivation of a key
//! from the shared secret.

use crate::error::Error;
use crate::mechanism::digest::Digest;
use crate::mechanism::params::Parameter;
use crate::mechanism::table::Mechanism;
use cryptoki_sys::*;
use devid_core::key::{Curve, LONGEST_SECRET_KEY};
use devid_core::tpm::Hash;
use devid_core::tpm::Secret;

/// A key agreement mechanism with its parameter.
///
/// All supported curves have the cofactor 1. Therefore CKM_ECDH1_DERIVE and
/// CKM_ECDH1_COFACTOR_DERIVE give equal results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeriveMechanism {
    pub(crate) row: &'static Mechanism,
    /// The hash of the key derivation function. `None`: the function is CKD_NULL.
    kdf: Option<Hash>,
    /// The shared data for the key derivation function.
    shared: Vec<u8>,
    /// The public point of the other side. The point may be inside a DER OCTET STRING.
    pub(crate) public: Vec<u8>,
}

impl DeriveMechanism {
    /// # Errors
    ///
    /// [`Error::MechanismParamInvalid`] for a parameter that is not supported.
    pub(crate) fn new(row: &'static Mechanism, parameter: Parameter) -> Result<Self, Error> {
        let Parameter::Ecdh {
            kdf,
            shared,
            public,
        } = parameter
        else {
            return Err(Error::MechanismParamInvalid);
        };
        let kdf = kdf_of(kdf).ok_or(Error::MechanismParamInvalid)?;
        if kdf.is_none() && !shared.is_empty() {
            return Err(Error::MechanismParamInvalid);
        }
        Ok(Self {
            row,
            kdf,
            shared,
            public,
        })
    }

    /// Returns the length of the derived key in bytes. `wanted` is the length that its template
    /// states.
    pub(crate) fn derived_key_length(
        &self,
        curve: Curve,
        wanted: Option<usize>,
    ) -> Result<usize, Error> {
        let (natural, longest) = match self.kdf {
            None => (curve.width(), curve.width()),
            Some(hash) => (hash.width(), LONGEST_SECRET_KEY),
        };
        match wanted.unwrap_or(natural) {
            length if length <= longest => Ok(length),
            _ => Err(Error::KeySizeRange),
        }
    }

    /// Returns the bytes of the derived key. With CKD_NULL these are the last bytes of the shared
    /// secret (section 6.3.17).
    pub(crate) fn key(&self, secret: &Secret, length: usize) -> Secret {
        match self.kdf {
            None => {
                let from = secret.len().saturating_sub(length);
                Secret::new(secret[from..].to_vec())
            }
            Some(hash) => self.derived(hash, secret, length),
        }
    }

    /// Derives the key by the key derivation function of ANSI X9.63, section 5.6.3.
    fn derived(&self, hash: Hash, secret: &Secret, length: usize) -> Secret {
        // The vector must not grow, because growth would leave a part of the key in memory.
        let mut key = Secret::new(Vec::with_capacity(length + hash.width()));
        let mut counter = 1_u32;
        while key.len() < length {
            let mut hasher = Digest::from(hash).hasher();
            hasher.update(secret);
            hasher.update(&counter.to_be_bytes());
            hasher.update(&self.shared);
            key.extend_from_slice(&Secret::new(hasher.finish()));
            counter += 1;
        }
        key.truncate(length);
        key
    }
}

/// Returns the hash of a key derivation function. Returns `Some(None)` for CKD_NULL, which has no
/// hash. Returns `None` if the function is not supported.
pub(crate) fn kdf_of(kdf: CK_EC_KDF_TYPE) -> Option<Option<Hash>> {
    match kdf {
        CKD_NULL => Some(None),
        CKD_SHA1_KDF => Some(Some(Hash::Sha1)),
        CKD_SHA256_KDF => Some(Some(Hash::Sha256)),
        CKD_SHA384_KDF => Some(Some(Hash::Sha384)),
        CKD_SHA512_KDF => Some(Some(Hash::Sha512)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::from_hex;

    fn agreement(kdf: CK_EC_KDF_TYPE, shared: &[u8]) -> Result<DeriveMechanism, Error> {
        let parameter = Parameter::Ecdh {
            kdf,
            shared: shared.to_vec(),
            public: vec![4],
        };
        let row = Mechanism::find(CKM_ECDH1_DERIVE, CKF_DERIVE)?;
        DeriveMechanism::new(row, parameter)
    }

    #[test]
    fn without_a_function_the_last_bytes_are_the_key() {
        let plain = agreement(CKD_NULL, b"").unwrap();
        let secret = Secret::new((0..32).collect());
        assert_eq!(plain.derived_key_length(Curve::P256, None), Ok(32));
        assert_eq!(
            plain.derived_key_length(Curve::P256, Some(33)),
            Err(Error::KeySizeRange)
        );
        assert_eq!(plain.key(&secret, 16)[..], secret[16..]);
        assert_eq!(
            agreement(CKD_NULL, b"data"),
            Err(Error::MechanismParamInvalid)
        );
        assert_eq!(
            agreement(CKD_SHA224_KDF, b""),
            Err(Error::MechanismParamInvalid)
        );
    }

    /// A NIST test vector (CAVS 12.0, ansx963_2001, SHA-256, shared info of 128 bits).
    #[test]
    fn with_a_function_the_key_is_that_of_x9_63() {
        let bytes = |digits| from_hex(digits).unwrap();
        let secret = Secret::new(bytes("22518b10e70f2a3f243810ae3254139efbee04aa57c7af7d"));
        let shared = bytes("75eef81aa3041e33b80971203d2c0c52");
        let derived = bytes(concat!(
            "c498af77161cc59f2962b9a713e2b215152d139766ce34a776df11866a69bf2e",
            "52a13d9c7c6fc878c50c5ea0bc7b00e0da2447cfd874f6cf92f30d0097111485",
            "500c90c3af8b487872d04685d14c8d1dc8d7fa08beb0ce0ababc11f0bd496269",
            "142d43525a78e5bc79a17f59676a5706dc54d54d4d1f0bd7e386128ec26afc21"
        ));
        let with = agreement(CKD_SHA256_KDF, &shared).unwrap();
        assert_eq!(with.derived_key_length(Curve::P384, None), Ok(32));
        assert_eq!(with.derived_key_length(Curve::P384, Some(128)), Ok(128));
        assert_eq!(with.key(&secret, 128)[..], derived[..]);
        assert_eq!(with.key(&secret, 33)[..], derived[..33]);
    }
}
