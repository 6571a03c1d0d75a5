//! The mechanisms that sign (PKCS#11 3.0, sections 6.1 and 6.3): their parameters, what a key can
//! do of them, and how data becomes a request to its store.

use crate::error::Error;
use crate::mechanism::digest::{Digest, Hasher};
use crate::mechanism::key_type::KeyType;
use crate::mechanism::params::{Parameter, hash_of, mgf1};
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::signature::SignRequest;
use devid_core::store::Key;
use devid_core::tpm::{Hash, SignatureScheme};
use std::borrow::Cow;

/// The widest digest that CKM_ECDSA takes: nothing hashes to more.
const WIDEST_DIGEST: usize = 64;
/// Bytes that PKCS#1 v1.5 needs beside its content (RFC 8017, section 9.2).
const PKCS1_OVERHEAD: usize = 11;

/// A mechanism that signs, with its parameter, parsed at the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// CKM_ECDSA: the caller gives the digest.
    Ecdsa,
    /// CKM_ECDSA_SHA256 …: the caller gives the message.
    EcdsaOver(Hash),
    /// CKM_RSA_PKCS: the caller gives a DigestInfo; to a key that also decrypts, anything.
    RsaPkcs,
    /// CKM_RSA_X_509: the caller gives a number, and has padded it.
    RsaX509,
    /// CKM_SHA256_RSA_PKCS …
    RsaPkcsOver(Hash),
    /// CKM_RSA_PKCS_PSS: the caller gives the digest, and says by which hash.
    RsaPss(Hash),
    /// CKM_SHA256_RSA_PKCS_PSS …
    RsaPssOver(Hash),
}

impl Mechanism {
    /// All of them, in the order in which they are listed. RsaPss stands here for any hash.
    pub(crate) const ALL: [Self; 14] = [
        Self::Ecdsa,
        Self::EcdsaOver(Hash::Sha256),
        Self::EcdsaOver(Hash::Sha384),
        Self::EcdsaOver(Hash::Sha512),
        Self::RsaPkcs,
        Self::RsaPkcsOver(Hash::Sha1),
        Self::RsaPkcsOver(Hash::Sha256),
        Self::RsaPkcsOver(Hash::Sha384),
        Self::RsaPkcsOver(Hash::Sha512),
        Self::RsaPss(Hash::Sha256),
        Self::RsaPssOver(Hash::Sha256),
        Self::RsaPssOver(Hash::Sha384),
        Self::RsaPssOver(Hash::Sha512),
        Self::RsaX509,
    ];

    /// From CK_MECHANISM.
    ///
    /// # Errors
    ///
    /// [`Error::MechanismParamInvalid`] for a parameter where none belongs, and for PSS with a mask
    /// generation by another hash or a salt of another length than the digest's: the TPM chooses
    /// the length, and a signature with another than agreed upon is worth nothing.
    pub(crate) fn parse(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|one| one.kind() == kind);
        let mechanism = known.ok_or(Error::MechanismInvalid)?;
        let expected = match (mechanism, &parameter) {
            (Self::RsaPss(_), Parameter::Pss { hash, .. }) => hash_of(*hash),
            (Self::RsaPssOver(hash), Parameter::Pss { .. }) => Some(hash),
            (Self::RsaPss(_) | Self::RsaPssOver(_), _) => None,
            (_, Parameter::None) => return Ok(mechanism),
            _ => None,
        };
        match (expected, parameter) {
            (Some(expected), Parameter::Pss { hash, mgf, salt })
                if hash_of(hash) == Some(expected)
                    && mgf == mgf1(expected)
                    && usize::try_from(salt) == Ok(expected.width()) =>
            {
                Ok(match mechanism {
                    Self::RsaPss(_) => Self::RsaPss(expected),
                    other => other,
                })
            }
            _ => Err(Error::MechanismParamInvalid),
        }
    }

    /// Those that this key can do.
    pub(crate) fn of(key: &Key) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|mechanism| mechanism.suits(key))
    }

    /// Whether all is right between this mechanism and the key.
    pub(crate) fn check(self, key: &Key) -> Result<(), Error> {
        match self {
            _ if !self.is_of_type(key.public()) => Err(Error::KeyTypeInconsistent),
            _ if !self.suits(key) => Err(Error::MechanismInvalid),
            Self::RsaPss(hash) if !key.signs(SignatureScheme::Rsapss(hash)) => {
                Err(Error::MechanismParamInvalid)
            }
            _ => Ok(()),
        }
    }

    /// Whether the key is of the mechanism's type.
    pub(crate) fn is_of_type(self, key: &PublicKey) -> bool {
        self.key_type() == KeyType::of(key)
    }

    /// Whether the key can do it, whatever the parameter.
    pub(crate) fn suits(self, key: &Key) -> bool {
        match self {
            Self::EcdsaOver(hash) => key.signs(SignatureScheme::Ecdsa(hash)),
            Self::RsaX509 => key.signs_unpadded(),
            other => other.suits_signer(|scheme| key.signs(scheme)),
        }
    }

    /// Whether whoever signs by these schemes can do it, whatever the parameter. ECDSA takes digests of
    /// other hashes than the signer's, too.
    pub(crate) fn suits_signer(self, signs: impl Fn(SignatureScheme) -> bool) -> bool {
        let any =
            |scheme: fn(Hash) -> SignatureScheme| Hash::ALL.into_iter().any(|h| signs(scheme(h)));
        match self {
            Self::Ecdsa | Self::EcdsaOver(_) => any(SignatureScheme::Ecdsa),
            Self::RsaPkcs => any(SignatureScheme::Rsassa),
            Self::RsaX509 => false,
            Self::RsaPkcsOver(hash) => signs(SignatureScheme::Rsassa(hash)),
            Self::RsaPss(_) => any(SignatureScheme::Rsapss),
            Self::RsaPssOver(hash) => signs(SignatureScheme::Rsapss(hash)),
        }
    }

    pub(crate) fn key_type(self) -> KeyType {
        match self {
            Self::Ecdsa | Self::EcdsaOver(_) => KeyType::Ec,
            Self::RsaPkcs
            | Self::RsaX509
            | Self::RsaPkcsOver(_)
            | Self::RsaPss(_)
            | Self::RsaPssOver(_) => KeyType::Rsa,
        }
    }

    pub(crate) fn kind(self) -> CK_MECHANISM_TYPE {
        let over = |one, two_five_six, three_eight_four, five_one_two| {
            move |hash| match hash {
                Hash::Sha1 => one,
                Hash::Sha256 => two_five_six,
                Hash::Sha384 => three_eight_four,
                Hash::Sha512 => five_one_two,
            }
        };
        match self {
            Self::Ecdsa => CKM_ECDSA,
            Self::EcdsaOver(hash) => over(
                CKM_ECDSA_SHA1,
                CKM_ECDSA_SHA256,
                CKM_ECDSA_SHA384,
                CKM_ECDSA_SHA512,
            )(hash),
            Self::RsaPkcs => CKM_RSA_PKCS,
            Self::RsaX509 => CKM_RSA_X_509,
            Self::RsaPkcsOver(hash) => over(
                CKM_SHA1_RSA_PKCS,
                CKM_SHA256_RSA_PKCS,
                CKM_SHA384_RSA_PKCS,
                CKM_SHA512_RSA_PKCS,
            )(hash),
            Self::RsaPss(_) => CKM_RSA_PKCS_PSS,
            Self::RsaPssOver(hash) => over(
                CKM_SHA1_RSA_PKCS_PSS,
                CKM_SHA256_RSA_PKCS_PSS,
                CKM_SHA384_RSA_PKCS_PSS,
                CKM_SHA512_RSA_PKCS_PSS,
            )(hash),
        }
    }

    /// Whether it is for signatures only: one that makes them without padding decrypts all the same.
    pub(crate) fn is_padded(self) -> bool {
        self != Self::RsaX509
    }

    /// What is signed of data in a single part: their digest, or the data themselves where the mechanism
    /// makes no hash.
    pub(crate) fn prepared(self, data: &[u8]) -> Cow<'_, [u8]> {
        let hash = match self {
            Self::Ecdsa | Self::RsaPkcs | Self::RsaX509 | Self::RsaPss(_) => return data.into(),
            Self::EcdsaOver(hash) | Self::RsaPkcsOver(hash) | Self::RsaPssOver(hash) => hash,
        };
        let mut hasher = Digest::from(hash).hasher();
        hasher.update(data);
        hasher.finish().into()
    }

    /// The hash that this mechanism makes itself.
    pub(crate) fn hasher(self) -> Option<Hasher> {
        match self {
            Self::Ecdsa | Self::RsaPkcs | Self::RsaX509 | Self::RsaPss(_) => None,
            Self::EcdsaOver(hash) | Self::RsaPkcsOver(hash) | Self::RsaPssOver(hash) => {
                Some(Digest::from(hash).hasher())
            }
        }
    }

    /// The request for what came out of [`Mechanism::hasher`], or for the caller's data where the
    /// mechanism makes no hash. `key` signs or verifies it.
    pub(crate) fn request<'a>(
        self,
        key: &PublicKey,
        data: &'a [u8],
    ) -> Result<SignRequest<'a>, Error> {
        let out_of_range = Err(Error::DataLenRange(data.len()));
        match self {
            Self::Ecdsa if !(1..=WIDEST_DIGEST).contains(&data.len()) => out_of_range,
            Self::Ecdsa | Self::EcdsaOver(_) => Ok(SignRequest::Ecdsa(data)),
            Self::RsaPkcs if data.len() + PKCS1_OVERHEAD > key.signature_width() => out_of_range,
            Self::RsaPkcs => match parse_digest_info(data) {
                Some((hash, digest)) => Ok(SignRequest::Pkcs1(hash, digest)),
                None => Ok(SignRequest::Pkcs1Of(data)),
            },
            Self::RsaX509 if !(1..=key.signature_width()).contains(&data.len()) => out_of_range,
            Self::RsaX509 if !key.has_below_modulus(data) => Err(Error::DataInvalid),
            Self::RsaX509 => Ok(SignRequest::Unpadded(data)),
            Self::RsaPkcsOver(hash) => Ok(SignRequest::Pkcs1(hash, data)),
            Self::RsaPss(hash) if data.len() != hash.width() => out_of_range,
            Self::RsaPss(hash) | Self::RsaPssOver(hash) => Ok(SignRequest::Pss(hash, data)),
        }
    }
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

    #[test]
    fn pss_takes_the_salt_of_the_digests_length_and_no_other() {
        let pss = |hash, mgf, salt| Parameter::Pss { hash, mgf, salt };
        let right = || pss(CKM_SHA384, CKG_MGF1_SHA384, 48);
        let parse = Mechanism::parse;
        assert_eq!(
            parse(CKM_RSA_PKCS_PSS, right()),
            Ok(Mechanism::RsaPss(Hash::Sha384))
        );
        assert_eq!(
            parse(CKM_SHA384_RSA_PKCS_PSS, right()),
            Ok(Mechanism::RsaPssOver(Hash::Sha384))
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
