//! Verifies the signatures of certificates and CRLs.

use super::ml_dsa::ParameterSet;
use crate::key::PublicKey;
use crate::oid::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, RSASSA_PSS, SHA_256,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384, SHA_384_WITH_RSA_ENCRYPTION, SHA_512,
    SHA_512_WITH_RSA_ENCRYPTION,
};
use crate::signature::{SignRequest, verify, verify_pss};
use crate::tpm::Hash;
use crate::x509::algorithms::ecdsa_to_fixed;
use crate::x509::algorithms::{algorithm_of_key, kind_of_key, name};
use crate::x509::crl::Crl;
#[cfg(feature = "evidence")]
use crate::x509::received_request::Request;
use crate::x509::{Certificate, Unreadable};
use pkcs1::RsaPssParams;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// The prefixes of the object identifiers of RSA algorithms and of EC algorithms.
const OF_RSA: &str = "1.2.840.113549.1.1.";
const OF_CURVES: &str = "1.2.840.10045.4.";

/// A signed structure: a certificate, a CRL or a certificate request.
pub(crate) struct Signed<'a> {
    /// The description of the structure for error messages.
    what: String,
    part: &'a [u8],
    algorithm: Result<AlgorithmIdentifierOwned, Unreadable>,
    /// True if the field signatureAlgorithm and the signed field `signature` are equal.
    names_one_algorithm: bool,
    signature: Result<&'a [u8], Unreadable>,
}

impl<'a> From<&'a Certificate> for Signed<'a> {
    fn from(certificate: &'a Certificate) -> Self {
        Self {
            what: format!("the certificate of {}", certificate.subject()),
            part: certificate.signed_part(),
            algorithm: certificate.signature_algorithm(),
            names_one_algorithm: certificate.names_one_algorithm(),
            signature: certificate.signature(),
        }
    }
}

impl<'a> From<&'a Crl> for Signed<'a> {
    fn from(list: &'a Crl) -> Self {
        Self {
            what: format!("the CRL of {}", list.issuer()),
            part: list.signed_part(),
            algorithm: list.signature_algorithm(),
            names_one_algorithm: list.names_one_algorithm(),
            signature: list.signature(),
        }
    }
}

#[cfg(feature = "evidence")]
impl<'a> From<&'a Request> for Signed<'a> {
    fn from(request: &'a Request) -> Self {
        Self {
            what: "the request".into(),
            part: request.signed_part(),
            algorithm: Ok(request.signature_algorithm().clone()),
            names_one_algorithm: true,
            signature: request.signature(),
        }
    }
}

/// Returns true if a certificate request is signed by the key in the request.
///
/// # Errors
///
/// The errors of [`is_signed_by`].
#[cfg(feature = "evidence")]
pub(crate) fn is_signed_by_its_key(request: &Request) -> Result<bool, String> {
    is_signed_by_key(request.into(), request.public_key_info_der(), "the request")
}

/// Returns true if the key of `issuer` made the signature of `child`.
///
/// # Errors
///
/// Fails if the algorithm or the key is not supported, or if the signature cannot be read.
pub(crate) fn is_signed_by<'a>(
    child: impl Into<Signed<'a>>,
    issuer: &Certificate,
) -> Result<bool, String> {
    is_signed_by_key(
        child.into(),
        issuer.public_key_info_der(),
        &issuer.subject(),
    )
}

/// Verifies as [`is_signed_by`], with the key in a SubjectPublicKeyInfo. `whose` is the owner of
/// the key for error messages.
fn is_signed_by_key(child: Signed, info: &[u8], whose: &str) -> Result<bool, String> {
    let what = &child.what;
    let unreadable = |why: Unreadable| format!("the signature of {what} {why}");
    let algorithm = child.algorithm.map_err(unreadable)?;
    if !child.names_one_algorithm {
        return Err(format!(
            "{what} names two algorithms: its fields signatureAlgorithm and signature differ"
        ));
    }
    if let Some(set) = ParameterSet::of(&algorithm) {
        let signature = child.signature.map_err(unreadable)?;
        return Ok(set.verifies(info, child.part, signature));
    }
    let scheme =
        SignatureAlgorithm::of(&algorithm).ok_or_else(|| match is_sha1(algorithm.oid) {
            true => format!("{what} is signed with SHA-1, which proves nothing"),
            false => format!(
                "{what} is signed by an unsupported algorithm ({})",
                name(algorithm.oid)
            ),
        })?;
    if is_ml_dsa(info) {
        return Ok(false);
    }
    let key = PublicKey::from_plain_info(info).ok_or_else(|| {
        format!(
            "{what} cannot be verified: the key of {whose} has an unsupported type ({})",
            kind_of_key(info)
        )
    })?;
    let digest = scheme.hash().digest(&[child.part]);
    let bits = child.signature.map_err(unreadable)?;
    Ok(match (&key, scheme) {
        (PublicKey::Ec { curve, .. }, SignatureAlgorithm::Ecdsa(_)) => ecdsa_to_fixed(*curve, bits)
            .is_some_and(|signature| verify(&key, SignRequest::Ecdsa(&digest), &signature)),
        (PublicKey::Rsa { .. }, SignatureAlgorithm::Pkcs1(hash)) => {
            verify(&key, SignRequest::Pkcs1(hash, &digest), bits)
        }
        (PublicKey::Rsa { .. }, SignatureAlgorithm::Pss { hash, salt }) => {
            verify_pss(&key, hash, salt, &digest, bits)
        }
        _ => false,
    })
}

/// Returns true if a self-issued certificate is signed by its own key. If the algorithm is not
/// supported, the function only checks that it fits the type of the key.
pub(super) fn is_self_signed(certificate: &Certificate) -> bool {
    match is_signed_by(certificate, certificate) {
        Ok(signed) => signed,
        Err(_) => {
            let algorithm = certificate.signature_algorithm();
            let algorithm = algorithm.map(|it| it.oid.to_string()).unwrap_or_default();
            match certificate.plain_public_key() {
                Some(PublicKey::Rsa { .. }) => algorithm.starts_with(OF_RSA),
                Some(PublicKey::Ec { .. }) => algorithm.starts_with(OF_CURVES),
                None => false,
            }
        }
    }
}

/// Returns true if other verifiers can read the encoding of the key: a plain key, an RSA key for
/// PSS only, or an ML-DSA key.
pub(super) fn is_usual_key(certificate: &Certificate) -> bool {
    let info = certificate.public_key_info_der();
    PublicKey::is_plain_info(info)
        || algorithm_of_key(info).first() == Some(&RSASSA_PSS)
        || is_ml_dsa(info)
}

fn is_ml_dsa(info: &[u8]) -> bool {
    let algorithm = algorithm_of_key(info);
    let first = algorithm.first();
    first.is_some_and(|oid| ParameterSet::by_oid(*oid).is_some())
}

/// Returns true for sha1WithRSAEncryption, ecdsa-with-SHA1 and their older names.
fn is_sha1(oid: ObjectIdentifier) -> bool {
    let known = ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.3.14.3.2.29"];
    known.contains(&oid.to_string().as_str())
}

#[derive(Clone, Copy)]
enum SignatureAlgorithm {
    Ecdsa(Hash),
    Pkcs1(Hash),
    /// RSASSA-PSS with a salt of this length in bytes.
    Pss {
        hash: Hash,
        salt: usize,
    },
}

impl SignatureAlgorithm {
    fn of(algorithm: &AlgorithmIdentifierOwned) -> Option<Self> {
        let parameters = algorithm.parameters.as_ref();
        let scheme = match algorithm.oid {
            ECDSA_WITH_SHA_256 => Self::Ecdsa(Hash::Sha256),
            ECDSA_WITH_SHA_384 => Self::Ecdsa(Hash::Sha384),
            ECDSA_WITH_SHA_512 => Self::Ecdsa(Hash::Sha512),
            SHA_256_WITH_RSA_ENCRYPTION => Self::Pkcs1(Hash::Sha256),
            SHA_384_WITH_RSA_ENCRYPTION => Self::Pkcs1(Hash::Sha384),
            SHA_512_WITH_RSA_ENCRYPTION => Self::Pkcs1(Hash::Sha512),
            RSASSA_PSS => return Self::pss(&parameters?.to_der().ok()?),
            _ => return None,
        };
        // The parameters of the AlgorithmIdentifier must be absent or NULL (RFC 5758, section 3.2;
        // RFC 4055, section 5).
        let none = parameters.is_none_or(|parameters| *parameters == Any::null());
        none.then_some(scheme)
    }

    fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(hash) | Self::Pkcs1(hash) | Self::Pss { hash, .. } => hash,
        }
    }

    /// Parses RSASSA-PSS-params (RFC 8017, appendix A.2.3). Returns `None` if the parameters cannot
    /// be parsed, or if MGF1 uses another hash than the signature.
    fn pss(parameters: &[u8]) -> Option<Self> {
        let parameters = RsaPssParams::<Any>::from_der(parameters).ok()?;
        let hash = match parameters.hash.oid {
            SHA_256 => Hash::Sha256,
            SHA_384 => Hash::Sha384,
            SHA_512 => Hash::Sha512,
            _ => return None,
        };
        let of_mask = parameters.mask_gen.parameters?.oid;
        (of_mask == parameters.hash.oid).then_some(Self::Pss {
            hash,
            salt: parameters.salt_len.into(),
        })
    }
}
