//! Hash algorithms of a TPM (Part 2, section 6.3), and what is computed with them here.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// A hash algorithm by its TPM identifier (Part 2, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// `$body` with `$hash` standing for the algorithm's type.
macro_rules! by_algorithm {
    ($which:expr, $hash:ident => $body:expr) => {
        match $which {
            Hash::Sha1 => {
                type $hash = Sha1;
                $body
            }
            Hash::Sha256 => {
                type $hash = Sha256;
                $body
            }
            Hash::Sha384 => {
                type $hash = Sha384;
                $body
            }
            Hash::Sha512 => {
                type $hash = Sha512;
                $body
            }
        }
    };
}

impl Hash {
    /// All that a signature may be over.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// TPM_ALG_ID.
    pub const fn algorithm(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
        }
    }

    /// The hash with this TPM_ALG_ID.
    pub(crate) fn of_algorithm(algorithm: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|hash| hash.algorithm() == algorithm)
    }

    /// Bytes of a digest.
    pub const fn width(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of these parts, one after the other.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        by_algorithm!(self, H => {
            let mut hash = H::new();
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().to_vec()
        })
    }

    /// HMAC (RFC 2104) of these parts, one after the other.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        by_algorithm!(self, H => match Hmac::<H>::new_from_slice(key) {
            Ok(mut mac) => {
                parts.iter().for_each(|part| mac.update(part));
                Zeroizing::new(mac.finalize().into_bytes().to_vec())
            }
            // HMAC takes keys of every length.
            Err(_) => Zeroizing::default(),
        })
    }

    /// Whether `expected` is that HMAC; takes as long whatever differs.
    pub(crate) fn hmac_is(self, key: &[u8], parts: &[&[u8]], expected: &[u8]) -> bool {
        by_algorithm!(self, H => Hmac::<H>::new_from_slice(key).is_ok_and(|mut mac| {
            parts.iter().for_each(|part| mac.update(part));
            mac.verify_slice(expected).is_ok()
        }))
    }
}
