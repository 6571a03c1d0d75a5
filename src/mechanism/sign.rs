//! Signature mechanisms (PKCS#11 3.0, sections 6.1 and 6.3): which keys can use a mechanism, and
//! which request goes to the key store.

use crate::error::Error;
use crate::mechanism::digest::{Digest, Hasher};
use crate::mechanism::params::{Parameter, mgf1};
use crate::mechanism::table::{Algorithm, Mechanism, SignAlgorithm, hash_of};
use devid_core::key::PublicKey;
use devid_core::signature::SignRequest;
use devid_core::store::Key;
use devid_core::tpm::{Hash, SignatureScheme};
use std::borrow::Cow;

/// The length in bytes of the longest digest for CKM_ECDSA. No hash function of this module makes a
/// longer digest.
pub(crate) const WIDEST_DIGEST: usize = 64;
/// The number of bytes that PKCS#1 v1.5 adds to the content (RFC 8017, section 9.2).
const PKCS1_OVERHEAD: usize = 11;

/// A signature mechanism with its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignMechanism {
    pub(crate) row: &'static Mechanism,
    pub(crate) algorithm: SignAlgorithm,
    /// The hash of the signature scheme. For CKM_RSA_PKCS_PSS the parameter names the hash.
    hash: Option<Hash>,
}

impl SignMechanism {
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] if the mechanism does not sign. [`Error::MechanismParamInvalid`]
    /// for PSS if the mask has another hash, or if the salt is not as long as the digest. The TPM
    /// chooses the salt length itself, so it could not make such a signature.
    pub(crate) fn new(row: &'static Mechanism, parameter: &Parameter) -> Result<Self, Error> {
        let Algorithm::Sign(algorithm) = row.algorithm else {
            return Err(Error::MechanismInvalid);
        };
        row.check_shape(parameter)?;
        let own = row.digest.and_then(Digest::hash);
        let hash = match *parameter {
            Parameter::Pss { hash, mgf, salt } => {
                let named = hash_of(hash).ok_or(Error::MechanismParamInvalid)?;
                let is_right = own.is_none_or(|own| own == named)
                    && mgf == mgf1(named)
                    && usize::try_from(salt) == Ok(named.width());
                if !is_right {
                    return Err(Error::MechanismParamInvalid);
                }
                Some(named)
            }
            _ => own,
        };
        Ok(Self {
            row,
            algorithm,
            hash,
        })
    }

    /// Checks that a private key can sign by this mechanism with this parameter.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTypeInconsistent`] for a key of another type. [`Error::MechanismInvalid`] if the
    /// key cannot sign by the mechanism. [`Error::MechanismParamInvalid`] if the key cannot sign
    /// with the hash.
    pub(crate) fn check(self, key: &Key) -> Result<(), Error> {
        match (self.algorithm, self.hash) {
            _ if !self.row.takes_key(key.public()) => Err(Error::KeyTypeInconsistent),
            _ if !self.row.signs_with(key) => Err(Error::MechanismInvalid),
            (SignAlgorithm::Pss, Some(hash)) if !key.signs(SignatureScheme::Rsapss(hash)) => {
                Err(Error::MechanismParamInvalid)
            }
            _ => Ok(()),
        }
    }

    /// Returns the bytes to be signed: the digest of `data`, or `data` itself if the mechanism does
    /// not hash.
    pub(crate) fn prepared(self, data: &[u8]) -> Cow<'_, [u8]> {
        match self.hasher() {
            None => data.into(),
            Some(mut hasher) => {
                hasher.update(data);
                hasher.finish().into()
            }
        }
    }

    /// Starts the hash of this mechanism. Returns `None` if the mechanism does not hash.
    pub(crate) fn hasher(self) -> Option<Hasher> {
        self.row.digest.map(Digest::hasher)
    }

    /// Returns the request for a signature or verification by `key`. `data` is the digest, or the
    /// caller's data if the mechanism does not hash.
    pub(crate) fn request<'a>(
        self,
        key: &PublicKey,
        data: &'a [u8],
    ) -> Result<SignRequest<'a>, Error> {
        let out_of_range = Err(Error::DataLenRange(data.len()));
        let is_hashed = self.row.digest.is_some();
        let room = key.signature_width();
        match (self.algorithm, self.hash) {
            (SignAlgorithm::Ecdsa, _)
                if !is_hashed && !(1..=WIDEST_DIGEST).contains(&data.len()) =>
            {
                out_of_range
            }
            (SignAlgorithm::Ecdsa, _) => Ok(SignRequest::Ecdsa(data)),
            (SignAlgorithm::Pkcs1, Some(hash)) => Ok(SignRequest::Pkcs1(hash, data)),
            (SignAlgorithm::Pkcs1, None) if data.len() + PKCS1_OVERHEAD > room => out_of_range,
            (SignAlgorithm::Pkcs1, None) => match parse_digest_info(data) {
                Some((hash, digest)) => Ok(SignRequest::Pkcs1(hash, digest)),
                None => Ok(SignRequest::Pkcs1Of(data)),
            },
            (SignAlgorithm::Pss, Some(hash)) if data.len() != hash.width() => out_of_range,
            (SignAlgorithm::Pss, Some(hash)) => Ok(SignRequest::Pss(hash, data)),
            (SignAlgorithm::Pss, None) => Err(Error::MechanismParamInvalid),
            (SignAlgorithm::RawRsa, _) if !(1..=room).contains(&data.len()) => out_of_range,
            (SignAlgorithm::RawRsa, _) if !key.has_below_modulus(data) => Err(Error::DataInvalid),
            (SignAlgorithm::RawRsa, _) => Ok(SignRequest::Unpadded(data)),
        }
    }
}

impl SignAlgorithm {
    /// Returns true if the algorithm adds a padding. RSA without padding can also decrypt.
    pub(crate) fn is_padded(self) -> bool {
        self != Self::RawRsa
    }

    /// Returns the TPM's signature scheme with this hash. Returns `None` if the TPM has no such
    /// scheme.
    const fn scheme(self, hash: Hash) -> Option<SignatureScheme> {
        match self {
            Self::Ecdsa => Some(SignatureScheme::Ecdsa(hash)),
            Self::Pkcs1 => Some(SignatureScheme::Rsassa(hash)),
            Self::Pss => Some(SignatureScheme::Rsapss(hash)),
            Self::RawRsa => None,
        }
    }
}

impl Mechanism {
    /// Returns true if the key can sign by this mechanism with at least one parameter.
    pub(crate) fn signs_with(&self, key: &Key) -> bool {
        match self.algorithm {
            Algorithm::Sign(SignAlgorithm::RawRsa) => key.signs_unpadded(),
            Algorithm::Sign(algorithm) => self.is_done_by(algorithm, |scheme| key.signs(scheme)),
            _ => false,
        }
    }

    /// Returns true if a TPM can sign by this mechanism. `signs` returns true for each scheme of
    /// the TPM. With ECDSA the TPM also signs digests whose hash its schemes do not name.
    pub(crate) fn signs_by(&self, signs: impl Fn(SignatureScheme) -> bool) -> bool {
        match self.algorithm {
            Algorithm::Sign(algorithm @ SignAlgorithm::Ecdsa) => is_any(algorithm, signs),
            Algorithm::Sign(algorithm) => self.is_done_by(algorithm, signs),
            _ => false,
        }
    }

    /// Returns true if `signs` is true for the mechanism's own hash. If the mechanism does not
    /// hash, any hash is sufficient.
    fn is_done_by(
        &self,
        algorithm: SignAlgorithm,
        signs: impl Fn(SignatureScheme) -> bool,
    ) -> bool {
        match self.digest {
            None => is_any(algorithm, signs),
            Some(digest) => {
                let hash = digest.hash();
                hash.and_then(|hash| algorithm.scheme(hash))
                    .is_some_and(signs)
            }
        }
    }
}

fn is_any(algorithm: SignAlgorithm, signs: impl Fn(SignatureScheme) -> bool) -> bool {
    let mut schemes = Hash::ALL
        .into_iter()
        .filter_map(|hash| algorithm.scheme(hash));
    schemes.any(signs)
}

/// Parses a DigestInfo (RFC 8017, section 9.2, note 1). The TPM adds the DigestInfo itself and
/// always uses this encoding. The TPM cannot sign another encoding.
fn parse_digest_info(data: &[u8]) -> Option<(Hash, &[u8])> {
    Hash::ALL.into_iter().find_map(|hash| {
        let digest = data.strip_prefix(hash.digest_info())?;
        (digest.len() == hash.width()).then_some((hash, digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki_sys::*;

    #[test]
    fn pss_takes_the_salt_of_the_digests_length_and_no_other() {
        let pss = |hash, mgf, salt| Parameter::Pss { hash, mgf, salt };
        let right = || pss(CKM_SHA384, CKG_MGF1_SHA384, 48);
        let parse = |kind, parameter| {
            let row = Mechanism::find(kind, CKF_SIGN)?;
            SignMechanism::new(row, &parameter)
        };
        let parsed = |kind| {
            let parsed = parse(kind, right());
            parsed.map(|it| (it.algorithm, it.row.digest, it.hash))
        };
        assert_eq!(
            parsed(CKM_RSA_PKCS_PSS),
            Ok((SignAlgorithm::Pss, None, Some(Hash::Sha384)))
        );
        assert_eq!(
            parsed(CKM_SHA384_RSA_PKCS_PSS),
            Ok((SignAlgorithm::Pss, Some(Digest::Sha384), Some(Hash::Sha384)))
        );
        for (kind, parameter) in [
            (CKM_SHA256_RSA_PKCS_PSS, right()),
            (CKM_RSA_PKCS_PSS, pss(CKM_SHA384, CKG_MGF1_SHA384, 47)),
            (CKM_RSA_PKCS_PSS, pss(CKM_SHA384, CKG_MGF1_SHA256, 48)),
            (CKM_RSA_PKCS_PSS, pss(CKM_MD5, CKG_MGF1_SHA1, 16)),
            (CKM_RSA_PKCS_PSS, Parameter::None),
            (CKM_RSA_PKCS_PSS, Parameter::Other),
            (CKM_RSA_PKCS, right()),
            (CKM_ECDSA, Parameter::Other),
        ] {
            assert_eq!(parse(kind, parameter), Err(Error::MechanismParamInvalid));
        }
        assert_eq!(
            parse(CKM_SHA256, Parameter::None),
            Err(Error::MechanismInvalid)
        );
    }

    #[test]
    fn a_digest_info_is_taken_apart_or_refused() {
        let prefix =
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
        let info = [&prefix[..], &[7; 32]].concat();
        assert_eq!(parse_digest_info(&info), Some((Hash::Sha256, &[7; 32][..])));
        for wrong in [&info[..50], &[&info[..], &[0]].concat(), &[7; 32], &[]] {
            assert_eq!(parse_digest_info(wrong), None);
        }
    }
}
