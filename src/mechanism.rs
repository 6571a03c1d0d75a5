//! The mechanisms (PKCS#11 3.0, section 6.3.12 to 6.3.14): what is listed, what may be signed, and
//! how the message becomes a digest.
//!
//! There are no digest mechanisms: a token that lists them has its host's hashing routed to it.

use crate::error::Error;
use cryptoki_sys::*;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The widest digest that CKM_ECDSA takes: nothing hashes to more.
const WIDEST_DIGEST: usize = 64;

/// A mechanism that signs, parsed at the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// CKM_ECDSA: the caller gives the digest.
    Ecdsa,
    /// CKM_ECDSA_SHA256, _SHA384, _SHA512: the caller gives the message.
    EcdsaOver(Hash),
}

/// A hash that is made here, in software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// A hash under way.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Mechanism {
    /// Those of a P-256 key, in the order in which they are listed.
    pub(crate) const P256: [Self; 4] = [
        Self::Ecdsa,
        Self::EcdsaOver(Hash::Sha256),
        Self::EcdsaOver(Hash::Sha384),
        Self::EcdsaOver(Hash::Sha512),
    ];

    /// From CK_MECHANISM; none of ours takes a parameter.
    pub(crate) fn parse(kind: CK_MECHANISM_TYPE, parameter: usize) -> Result<Self, Error> {
        let known = Self::P256.into_iter().find(|one| one.kind() == kind);
        match (known, parameter) {
            (None, _) => Err(Error::MechanismInvalid),
            (Some(mechanism), 0) => Ok(mechanism),
            (Some(_), _) => Err(Error::MechanismParamInvalid),
        }
    }

    pub(crate) fn kind(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Ecdsa => CKM_ECDSA,
            Self::EcdsaOver(Hash::Sha256) => CKM_ECDSA_SHA256,
            Self::EcdsaOver(Hash::Sha384) => CKM_ECDSA_SHA384,
            Self::EcdsaOver(Hash::Sha512) => CKM_ECDSA_SHA512,
        }
    }

    pub(crate) fn info(self) -> CK_MECHANISM_INFO {
        CK_MECHANISM_INFO {
            ulMinKeySize: 256,
            ulMaxKeySize: 256,
            flags: CKF_HW | CKF_SIGN | CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS,
        }
    }

    /// The hash that this mechanism makes itself.
    pub(crate) fn hasher(self) -> Option<Hasher> {
        match self {
            Self::Ecdsa => None,
            Self::EcdsaOver(Hash::Sha256) => Some(Hasher::Sha256(Sha256::new())),
            Self::EcdsaOver(Hash::Sha384) => Some(Hasher::Sha384(Sha384::new())),
            Self::EcdsaOver(Hash::Sha512) => Some(Hasher::Sha512(Sha512::new())),
        }
    }

    /// The digest to sign for a message that came in one piece.
    pub(crate) fn digest(self, data: &[u8]) -> Result<Vec<u8>, Error> {
        match self.hasher() {
            Some(mut hasher) => {
                hasher.update(data);
                Ok(hasher.finish())
            }
            None if (1..=WIDEST_DIGEST).contains(&data.len()) => Ok(data.to_vec()),
            None => Err(Error::DataLenRange(data.len())),
        }
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(data),
            Self::Sha384(hash) => hash.update(data),
            Self::Sha512(hash) => hash.update(data),
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.finalize().to_vec(),
            Self::Sha384(hash) => hash.finalize().to_vec(),
            Self::Sha512(hash) => hash.finalize().to_vec(),
        }
    }
}
