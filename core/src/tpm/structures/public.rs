//! Public areas of objects (Part 2, section 12.2.4, TPMT_PUBLIC).

use crate::key::{Curve, PublicKey};
#[cfg(feature = "evidence")]
use crate::tpm::algorithm;
use crate::tpm::{Hash, SignatureScheme};
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::data::{
    TpmAlgId, TpmEccCurve, TpmaObject, TpmtPublic, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms,
};

/// The RSA exponent that the value 0 in a public area stands for.
const DEFAULT_EXPONENT: u32 = 65537;

/// The permitted signature schemes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyScheme {
    /// The key has no fixed scheme. Each signature command names the scheme.
    Any,
    /// The key signs only by this fixed scheme.
    Fixed(SignatureScheme),
}

/// The public area of a key that this project can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicArea {
    /// The public key.
    pub key: PublicKey,
    /// The permitted signature schemes.
    pub scheme: KeyScheme,
    /// The nameAlg, which is the hash of the TPM name.
    pub name_hash: Hash,
    attributes: u32,
    bytes: Vec<u8>,
}

impl PublicArea {
    /// Parses the bytes of a TPMT_PUBLIC.
    ///
    /// Returns `None` unless the area is that of an RSA key or a key on a supported curve. The key
    /// must have no scheme, or a supported signature scheme.
    pub fn parse(area: &[u8]) -> Option<Self> {
        Self::parse_with(area, PublicKey::from_coordinates)
    }

    /// Does what [`parse`](Self::parse) does, for an area that was parsed before. If its point is
    /// still that of the `known` key, the curve is not computed again.
    pub(crate) fn parse_again(area: &[u8], known: &PublicKey) -> Option<Self> {
        Self::parse_with(area, |curve, x, y| {
            match known.has_coordinates(curve, x, y) {
                true => Some(known.clone()),
                false => PublicKey::from_coordinates(curve, x, y),
            }
        })
    }

    fn parse_with(
        area: &[u8],
        point_of: impl FnOnce(Curve, &[u8], &[u8]) -> Option<PublicKey>,
    ) -> Option<Self> {
        let (public, []) = TpmtPublic::unmarshal(area).ok()? else {
            return None;
        };
        let (key, scheme, details) = match (&public.parameters, &public.unique) {
            (TpmuPublicParms::Ecc(parameters), TpmuPublicId::Ecc(point)) => {
                let curve = match parameters.curve_id {
                    TpmEccCurve::NistP256 => Curve::P256,
                    TpmEccCurve::NistP384 => Curve::P384,
                    TpmEccCurve::NistP521 => Curve::P521,
                    _ => return None,
                };
                let key = point_of(curve, &point.x, &point.y)?;
                (key, parameters.scheme.scheme, &parameters.scheme.details)
            }
            (TpmuPublicParms::Rsa(parameters), TpmuPublicId::Rsa(modulus)) => {
                let exponent = match parameters.exponent.value() {
                    0 => DEFAULT_EXPONENT,
                    exponent => exponent,
                };
                let key = PublicKey::from_rsa(modulus, &exponent.to_be_bytes())?;
                (key, parameters.scheme.scheme, &parameters.scheme.details)
            }
            _ => return None,
        };
        let hash = match details {
            TpmuAsymScheme::Hash(hash) => match hash.hash_alg {
                TpmAlgId::Sha1 => Some(Hash::Sha1),
                TpmAlgId::Sha256 => Some(Hash::Sha256),
                TpmAlgId::Sha384 => Some(Hash::Sha384),
                TpmAlgId::Sha512 => Some(Hash::Sha512),
                _ => return None,
            },
            TpmuAsymScheme::Null => None,
        };
        let scheme = match (scheme, hash) {
            (TpmAlgId::Null, None) => KeyScheme::Any,
            (TpmAlgId::Ecdsa, Some(hash)) => KeyScheme::Fixed(SignatureScheme::Ecdsa(hash)),
            (TpmAlgId::Rsassa, Some(hash)) => KeyScheme::Fixed(SignatureScheme::Rsassa(hash)),
            (TpmAlgId::Rsapss, Some(hash)) => KeyScheme::Fixed(SignatureScheme::Rsapss(hash)),
            _ => return None,
        };
        Some(Self {
            key,
            scheme,
            name_hash: name_hash_of(area)?,
            attributes: public.object_attributes.bits(),
            bytes: area.to_vec(),
        })
    }

    /// Returns the TPMT_PUBLIC as the TPM gave it. The name of the key contains the digest of these
    /// bytes by the nameAlg.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true for a storage key: the key is restricted, decrypts, and does not sign.
    pub fn is_storage_key(&self) -> bool {
        is_storage_key(&self.bytes)
    }

    /// Returns the AES key size of a storage key (TPMT_SYM_DEF_OBJECT). Returns `None` unless the
    /// key encrypts by AES in CFB mode.
    #[cfg(feature = "evidence")]
    pub(crate) fn aes_key_bits(&self) -> Option<u32> {
        let (_policy, rest) = super::attest::split_sized(self.bytes.get(8..)?)?;
        let word = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        let is_aes_cfb = (word(0)?, word(4)?) == (algorithm::AES, algorithm::CFB);
        is_aes_cfb.then_some(word(2)?.into())
    }

    /// Returns the TPMA_OBJECT attributes (Part 2, section 8.3).
    #[cfg(feature = "evidence")]
    pub(crate) fn attributes(&self) -> u32 {
        self.attributes
    }

    /// Returns true if wrong authorisation values for the key count towards the lockout of the
    /// whole TPM.
    pub fn counts_wrong_auth(&self) -> bool {
        self.attributes & TpmaObject::NO_DA.bits() == 0
    }

    /// Returns true if the key may sign any data: the attribute sign is set, and restricted is
    /// clear.
    pub fn signs(&self) -> bool {
        let all = TpmaObject::RESTRICTED.bits() | TpmaObject::SIGN_ENCRYPT.bits();
        self.attributes & all == TpmaObject::SIGN_ENCRYPT.bits()
    }

    /// Returns true for an attestation key, which signs only data that the TPM itself made.
    pub fn attests(&self) -> bool {
        let all = TpmaObject::RESTRICTED.bits() | TpmaObject::SIGN_ENCRYPT.bits();
        self.attributes & all == all
    }

    /// Returns true if the key decrypts any data, or agrees on secrets with any peer.
    pub fn decrypts(&self) -> bool {
        let all = TpmaObject::RESTRICTED.bits() | TpmaObject::DECRYPT.bits();
        self.attributes & all == TpmaObject::DECRYPT.bits()
    }

    /// Returns true if the key has no fixed scheme, so each signature command may name any scheme.
    pub fn takes_any_scheme(&self) -> bool {
        self.scheme == KeyScheme::Any
    }

    /// Returns true if the use of the key needs a policy, not an authorisation value.
    pub fn asks_for_policy(&self) -> bool {
        self.attributes & TpmaObject::USER_WITH_AUTH.bits() == 0
    }

    /// Returns true if this TPM made the private part, which never existed outside this TPM.
    pub fn is_of_this_tpm(&self) -> bool {
        let set = TpmaObject::FIXED_TPM.bits() | TpmaObject::SENSITIVE_DATA_ORIGIN.bits();
        self.attributes & set == set
    }

    /// Returns true if the key can be an identity (TCG, TPM 2.0 Keys for Device Identity, section
    /// 7.3.4). An identity key signs any data and has no other use. The key cannot move to another
    /// TPM or parent.
    pub fn is_identity(&self) -> bool {
        let set = TpmaObject::SIGN_ENCRYPT.bits()
            | TpmaObject::FIXED_TPM.bits()
            | TpmaObject::FIXED_PARENT.bits()
            | TpmaObject::SENSITIVE_DATA_ORIGIN.bits();
        let clear = TpmaObject::RESTRICTED.bits() | TpmaObject::DECRYPT.bits();
        self.attributes & (set | clear) == set
    }
}

/// Returns the TPMA_OBJECT of a TPMT_PUBLIC of any kind; 0 if the TPMT_PUBLIC is truncated.
pub(in crate::tpm) fn attributes_of(area: &[u8]) -> u32 {
    let bytes = area.get(4..8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

/// Returns [`PublicArea::is_storage_key`] for an object of any kind.
pub(in crate::tpm) fn is_storage_key(area: &[u8]) -> bool {
    let set = TpmaObject::RESTRICTED.bits() | TpmaObject::DECRYPT.bits();
    attributes_of(area) & (set | TpmaObject::SIGN_ENCRYPT.bits()) == set
}

/// Returns true if wrong authorisation values for an object of any kind count towards lockout.
pub(in crate::tpm) fn counts_wrong_auth(area: &[u8]) -> bool {
    attributes_of(area) & TpmaObject::NO_DA.bits() == 0
}

/// Returns the reason why [`PublicArea::parse`] rejects this TPMT_PUBLIC.
pub fn other_kind(area: &[u8]) -> &'static str {
    let Ok((public, [])) = TpmtPublic::unmarshal(area) else {
        return "its public area is damaged or has an unsupported algorithm";
    };
    let scheme = match &public.parameters {
        TpmuPublicParms::KeyedHash(_) => return "it is sealed data or an HMAC key, not a key pair",
        TpmuPublicParms::SymCipher(_) => return "it is a symmetric key, not a key pair",
        TpmuPublicParms::Ecc(parameters) => match parameters.curve_id {
            TpmEccCurve::NistP256 | TpmEccCurve::NistP384 | TpmEccCurve::NistP521 => {
                parameters.scheme.scheme
            }
            _ => return "its curve is not P-256, P-384 or P-521",
        },
        TpmuPublicParms::Rsa(parameters) => parameters.scheme.scheme,
        _ => return "its public area has an unsupported algorithm",
    };
    match scheme {
        TpmAlgId::Oaep => "it can only decrypt by OAEP with one hash",
        TpmAlgId::Rsaes => "it can only decrypt by RSAES-PKCS1-v1_5",
        TpmAlgId::Null | TpmAlgId::Ecdsa | TpmAlgId::Rsassa | TpmAlgId::Rsapss => {
            "its public key or its hash has an unsupported type"
        }
        _ => "its scheme is not ECDSA, RSASSA or RSAPSS",
    }
}

/// Returns the authPolicy of a TPMT_PUBLIC of any kind.
#[cfg_attr(not(feature = "evidence"), allow(dead_code))]
pub(super) fn auth_policy_of(area: &[u8]) -> Option<&[u8]> {
    let (size, rest) = area.get(8..)?.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*size)))
}

pub(in crate::tpm) fn name_hash_of(area: &[u8]) -> Option<Hash> {
    let algorithm = area.get(2..4)?.try_into().ok()?;
    Hash::of_algorithm(u16::from_be_bytes(algorithm))
}

/// Returns the name of an object with this TPMT_PUBLIC: its nameAlg and the digest (Part 1, section
/// 16).
///
/// Returns `None` if the nameAlg is not supported.
pub(crate) fn name_of(area: &[u8]) -> Option<Vec<u8>> {
    let hash = name_hash_of(area)?;
    let digest = hash.digest_of_public(area);
    Some([&hash.algorithm().to_be_bytes()[..], &digest].concat())
}

/// Returns the qualified name of an object with this name, below a parent with this qualified name
/// (Part 1, section 16: "Names").
pub(crate) fn qualified_name_below(parent: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let algorithm = name.first_chunk()?;
    let hash = Hash::of_algorithm(u16::from_be_bytes(*algorithm))?;
    Some([&algorithm[..], &hash.digest(&[parent, name])].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fake::{FIXED, IDENTITY, p256_area as idevid};

    #[test]
    fn the_factory_template_is_an_identity() {
        let area = PublicArea::parse(&idevid(IDENTITY, FIXED)).unwrap();
        assert!(area.is_identity());
        assert_eq!(
            area.scheme,
            KeyScheme::Fixed(SignatureScheme::Ecdsa(Hash::Sha256))
        );
        let open = PublicArea::parse(&idevid(IDENTITY, &[0x00, 0x10])).unwrap();
        assert_eq!(open.scheme, KeyScheme::Any);
    }

    #[test]
    fn other_keys_are_none() {
        for (attributes, what) in [
            (0x000500F2, "restricted: an attestation key"),
            (0x000600F2, "decrypts too"),
            (0x000200F2, "does not sign"),
            (0x000400F0, "may move to another TPM"),
            (0x000400E2, "may move to another parent"),
            (0x000400D2, "was made outside the TPM"),
        ] {
            let area = PublicArea::parse(&idevid(attributes, FIXED)).unwrap();
            assert!(!area.is_identity(), "{what}");
        }
    }

    #[test]
    fn cut_areas_are_no_keys() {
        let area = idevid(IDENTITY, FIXED);
        for end in 0..area.len() {
            assert_eq!(PublicArea::parse(&area[..end]), None);
        }
    }
}
