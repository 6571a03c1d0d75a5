//! Hash algorithms of a TPM (Part 2, section 6.3), and computations with them in software.

use crate::stack::{Computation, leaving_nothing};
use crate::tpm::algorithm;
use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::fmt;
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

/// Evaluates `$body`. In `$body` the name `$hash` is the Rust type of the algorithm.
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

pub(in crate::tpm) use by_algorithm;

impl fmt::Display for Hash {
    /// Writes the name of the hash in FIPS 180-4.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

impl Hash {
    /// All hashes that signatures of this project use.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Returns the TPM_ALG_ID.
    pub const fn algorithm(self) -> u16 {
        match self {
            Self::Sha1 => algorithm::SHA1,
            Self::Sha256 => algorithm::SHA256,
            Self::Sha384 => algorithm::SHA384,
            Self::Sha512 => algorithm::SHA512,
        }
    }

    /// Returns the hash with this TPM_ALG_ID.
    pub(crate) fn of_algorithm(algorithm: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|hash| hash.algorithm() == algorithm)
    }

    /// Returns the size of a digest in bytes.
    pub const fn width(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Returns the prefix of a digest in a DigestInfo (RFC 8017, section 9.2, note 1).
    pub const fn digest_info(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
            Self::Sha256 => {
                b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
            }
            Self::Sha384 => {
                b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
            }
            Self::Sha512 => {
                b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
            }
        }
    }

    /// Returns the kind of the computation, for the stack that it leaves.
    const fn computation(self) -> Computation {
        Computation::of_hash(self.width())
    }

    /// Returns the digest of the concatenated parts.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        leaving_nothing(self.computation(), || {
            by_algorithm!(self, H => {
                let mut hash = H::new();
                parts.iter().for_each(|part| hash.update(part));
                // The digest is written directly to its destination. The input may be a PIN, so no
                // copy may stay on the stack.
                let mut digest = vec![0; self.width()];
                if let Ok(place) = digest.as_mut_slice().try_into() {
                    Digest::finalize_into(hash, place);
                }
                digest
            })
        })
    }

    /// Returns the digest of bytes that are not secret. Leaves copies on the stack.
    pub(crate) fn digest_of_public(self, bytes: &[u8]) -> Vec<u8> {
        by_algorithm!(self, H => H::digest(bytes).to_vec())
    }

    /// Returns the HMAC (RFC 2104) of the concatenated parts.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        leaving_nothing(self.computation(), || {
            by_algorithm!(self, H => match Hmac::<H>::new_from_slice(key) {
                Ok(mut mac) => {
                    parts.iter().for_each(|part| mac.update(part));
                    let mut code = Zeroizing::new(vec![0; self.width()]);
                    if let Ok(place) = code.as_mut_slice().try_into() {
                        mac.finalize_into(place);
                    }
                    code
                }
                // HMAC accepts keys of any length.
                Err(_) => Zeroizing::default(),
            })
        })
    }

    /// Returns true if `expected` is the HMAC of the parts. Compares in constant time.
    pub(crate) fn hmac_is(self, key: &[u8], parts: &[&[u8]], expected: &[u8]) -> bool {
        leaving_nothing(self.computation(), || {
            by_algorithm!(self, H => Hmac::<H>::new_from_slice(key).is_ok_and(|mut mac| {
                parts.iter().for_each(|part| mac.update(part));
                mac.verify_slice(expected).is_ok()
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_codes_are_those_of_the_standards() {
        let hex = |bytes: &[u8]| crate::key::hex(bytes);
        let digest = Hash::Sha256.digest(&[b"a", b"bc"]);
        assert_eq!(hex(&digest[..8]), "ba7816bf8f01cfea"); // FIPS 180-2, B.1
        assert_eq!(Hash::Sha256.digest_of_public(b"abc"), digest);
        let code = Hash::Sha256.hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&code[..8]), "5bdcc146bf60754e"); // RFC 4231, 4.3
        assert!(
            Hash::ALL
                .iter()
                .all(|hash| hash.digest(&[]).iter().any(|byte| *byte != 0))
        );
    }
}
