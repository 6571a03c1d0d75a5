//! Signature schemes and signatures (Part 2, sections 11.2.1 and 11.3).

use super::Hash;
#[cfg(feature = "evidence")]
use super::attest::split_sized;
#[cfg(feature = "evidence")]
use super::sized;
use crate::key::pad_left;
use crate::tpm::{TpmError, algorithm};
use std::fmt;

/// A signature scheme with its hash (TPMT_SIG_SCHEME; Part 2, section 11.2.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureScheme {
    /// ECDSA (FIPS 186-5, section 6).
    Ecdsa(Hash),
    /// RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2).
    Rsassa(Hash),
    /// RSASSA-PSS (RFC 8017, section 8.1). The TPM alone decides the length of the salt.
    Rsapss(Hash),
}

impl SignatureScheme {
    /// Returns the TPM_ALG_ID of the scheme, without its hash.
    pub const fn algorithm(self) -> u16 {
        match self {
            Self::Ecdsa(_) => algorithm::ECDSA,
            Self::Rsassa(_) => algorithm::RSASSA,
            Self::Rsapss(_) => algorithm::RSAPSS,
        }
    }

    /// Returns the hash of the scheme, which makes the digest.
    pub const fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(hash) | Self::Rsassa(hash) | Self::Rsapss(hash) => hash,
        }
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = match self {
            Self::Ecdsa(_) => "ECDSA",
            Self::Rsassa(_) => "RSASSA-PKCS1-v1_5",
            Self::Rsapss(_) => "RSASSA-PSS",
        };
        write!(f, "{called} with {}", self.hash())
    }
}

/// A signature as the TPM returned it. Numbers are big-endian; leading zeros may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// The two numbers of an ECDSA signature.
    Ecc {
        /// r
        r: Vec<u8>,
        /// s
        s: Vec<u8>,
    },
    /// An RSA signature of either RSA scheme.
    Rsa(Vec<u8>),
}

impl Signature {
    /// Returns the TPMT_SIGNATURE of a signature in the format of [`Self::fixed`].
    #[cfg(feature = "evidence")]
    pub(crate) fn marshalled(scheme: SignatureScheme, fixed: &[u8]) -> Vec<u8> {
        let words = [scheme.algorithm(), scheme.hash().algorithm()];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        match scheme {
            SignatureScheme::Ecdsa(_) => {
                let (r, s) = fixed.split_at(fixed.len() / 2);
                bytes.extend([sized(r), sized(s)].concat());
            }
            SignatureScheme::Rsassa(_) | SignatureScheme::Rsapss(_) => bytes.extend(sized(fixed)),
        }
        bytes
    }

    /// Parses a TPMT_SIGNATURE into scheme and signature.
    ///
    /// Returns `None` for a scheme that [`SignatureScheme`] lacks, and for a wrong length.
    #[cfg(feature = "evidence")]
    pub(crate) fn read(bytes: &[u8]) -> Option<(SignatureScheme, Self)> {
        let (scheme, rest) = bytes.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        let hash = Hash::of_algorithm(u16::from_be_bytes(*hash))?;
        let (first, rest) = split_sized(rest)?;
        let (scheme, signature, rest) = match u16::from_be_bytes(*scheme) {
            algorithm::ECDSA => {
                let (second, rest) = split_sized(rest)?;
                let (r, s) = (first.to_vec(), second.to_vec());
                (SignatureScheme::Ecdsa(hash), Self::Ecc { r, s }, rest)
            }
            algorithm::RSASSA => (
                SignatureScheme::Rsassa(hash),
                Self::Rsa(first.to_vec()),
                rest,
            ),
            algorithm::RSAPSS => (
                SignatureScheme::Rsapss(hash),
                Self::Rsa(first.to_vec()),
                rest,
            ),
            _ => return None,
        };
        rest.is_empty().then_some((scheme, signature))
    }

    /// Returns the signature as `width` bytes in the format of PKCS#11 (3.0, sections 6.1 and 6.3).
    /// An ECDSA signature is r ‖ s, each as wide as the order of the curve. An RSA signature is as
    /// wide as the modulus.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAnswer`] for a number that needs more bytes.
    pub fn fixed(&self, width: usize) -> Result<Vec<u8>, TpmError> {
        let whole = match self {
            Self::Ecc { r, s } if r.len() == width / 2 && s.len() == width / 2 => {
                Some([&r[..], s].concat())
            }
            Self::Ecc { r, s } => pad_left(r, width / 2)
                .zip(pad_left(s, width / 2))
                .map(|(r, s)| [r, s].concat()),
            Self::Rsa(number) => pad_left(number, width),
        };
        whole.ok_or_else(|| {
            TpmError::WrongAnswer("the signature is longer than its key allows".into())
        })
    }
}
