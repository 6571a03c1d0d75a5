//! Signature mechanisms (PKCS#11 3.0, sections 6.1 and 6.3): what a key can do of them, and how data
//! becomes a request to its store.

use crate::error::Error;
use crate::mechanism::digest::{Digest, Hasher};
use crate::mechanism::params::{Parameter, mgf1};
use crate::mechanism::table::{Algorithm, Mechanism, SignAlgorithm, hash_of};
use devid_core::key::PublicKey;
use devid_core::signature::SignRequest;
use devid_core::store::Key;
use devid_core::tpm::{Hash, SignatureScheme};
use std::borrow::Cow;

/// The widest digest that CKM_ECDSA takes: nothing hashes to more.
pub(crate) const WIDEST_DIGEST: usize = 64;
/// Bytes that PKCS#1 v1.5 needs beside its content (RFC 8017, section 9.2).
const PKCS1_OVERHEAD: usize = 11;

/// A signature mechanism with its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignMechanism {
    pub(crate) row: &'static Mechanism,
    pub(crate) algorithm: SignAlgorithm,
    /// The hash of the signature scheme: the mechanism's own, or for CKM_RSA_PKCS_PSS the parameter's.
    hash: Option<Hash>,
}

impl SignMechanism {
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] for a mechanism that does not sign.
    /// [`Error::MechanismParamInvalid`] for PSS with a mask generation by another hash or a salt of
    /// another length than the digest's: the TPM chooses the length of the salt, so the signature
    /// would not be the one that was agreed upon.
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

    /// Whether a private key can sign by this mechanism with this parameter.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTypeInconsistent`] for a key of another type, [`Error::MechanismInvalid`] if the key
    /// does not have the mechanism, [`Error::MechanismParamInvalid`] if it does not have the hash.
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

    /// What is signed of data in a single part: their digest, or the data themselves where the mechanism
    /// makes no hash.
    pub(crate) fn prepared(self, data: &[u8]) -> Cow<'_, [u8]> {
        match self.hasher() {
            None => data.into(),
            Some(mut hasher) => {
                hasher.update(data);
                hasher.finish().into()
            }
        }
    }

    /// The hash that this mechanism makes itself.
    pub(crate) fn hasher(self) -> Option<Hasher> {
        self.row.digest.map(Digest::hasher)
    }

    /// The request for what came out of [`Self::hasher`], or for the caller's data where the
    /// mechanism makes no hash. `key` signs or verifies it.
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
    /// Whether it is for signatures only. Without padding, a signature decrypts as well.
    pub(crate) fn is_padded(self) -> bool {
        self != Self::RawRsa
    }

    /// How a TPM signs by it over a digest of this hash; `None` if a TPM has no scheme for it.
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
    /// Whether the key can sign by this mechanism, with one parameter at least.
    pub(crate) fn signs_with(&self, key: &Key) -> bool {
        match self.algorithm {
            Algorithm::Sign(SignAlgorithm::RawRsa) => key.signs_unpadded(),
            Algorithm::Sign(algorithm) => self.is_done_by(algorithm, |scheme| key.signs(scheme)),
            _ => false,
        }
    }

    /// Whether a TPM that signs by these schemes can sign by this mechanism. By ECDSA it signs digests of
    /// other hashes than its schemes', too.
    pub(crate) fn signs_by(&self, signs: impl Fn(SignatureScheme) -> bool) -> bool {
        match self.algorithm {
            Algorithm::Sign(algorithm @ SignAlgorithm::Ecdsa) => is_any(algorithm, signs),
            Algorithm::Sign(algorithm) => self.is_done_by(algorithm, signs),
            _ => false,
        }
    }

    /// By the mechanism's hash; by any where it makes none.
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

/// Takes a DigestInfo apart (RFC 8017, section 9.2, note 1). A TPM puts the DigestInfo around the
/// digest itself, always in this form; another form it could not sign.
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
