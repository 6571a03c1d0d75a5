//! The algorithms of keys and signatures in certificates, and the encoding of ECDSA signatures.

use crate::ber::{Element, INTEGER, NULL, OBJECT_IDENTIFIER, SEQUENCE, encoded};
use crate::key::{Curve, PublicKey, algorithm_name, by_curve};
use crate::oid::{
    ECDSA_WITH_SHA_1, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, MGF_1,
    RSASSA_PSS, SHA_1, SHA_1_WITH_RSA_ENCRYPTION, SHA_256, SHA_256_WITH_RSA_ENCRYPTION, SHA_384,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512, SHA_512_WITH_RSA_ENCRYPTION,
};
use crate::tpm::{Hash, SignatureScheme};
use crate::x509::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::oid::db::DB;
use x509_cert::der::{self, Decode};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// Returns the type of the certified key: `P-256`, `RSA-2048`, `ML-DSA-65`. For an unknown type
/// returns its object identifiers.
pub(crate) fn certified_key(certificate: &Certificate) -> String {
    match certificate.public_key() {
        Some(PublicKey::Ec { curve, .. }) => match curve {
            Curve::P256 => "P-256".into(),
            Curve::P384 => "P-384".into(),
            Curve::P521 => "P-521".into(),
        },
        Some(PublicKey::Rsa { modulus, .. }) => {
            let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros());
            format!("RSA-{}", 8 * modulus.len() - zeros as usize)
        }
        None => {
            let info = certificate.public_key_info_der();
            let first = algorithm_of_key(info).first().copied();
            let named = first.and_then(algorithm_name).map(str::to_owned);
            named.unwrap_or_else(|| kind_of_key(info))
        }
    }
}

/// Returns the name of the certificate's signature algorithm: `ecdsa-with-SHA256`, `ML-DSA-65`, or
/// an object identifier. Returns `None` if the algorithm cannot be read.
pub(crate) fn signed_by(certificate: &Certificate) -> Option<String> {
    let oid = certificate.signature_algorithm().ok()?.oid;
    let short = || DB.by_oid(&oid).map(str::to_owned);
    let named = algorithm_name(oid).map(str::to_owned).or_else(short);
    Some(named.unwrap_or_else(|| oid.to_string()))
}

/// Describes a key that this project does not support: its algorithm, and its curve or size.
pub(crate) fn kind_of_key(info: &[u8]) -> String {
    let names: Vec<String> = algorithm_of_key(info).into_iter().map(name).collect();
    match (&names[..], modulus_bits(info)) {
        ([kind], Some(bits)) if kind.starts_with("rsa") => format!("{kind}, {bits} bits"),
        ([], _) => "no algorithm".into(),
        _ => names.join(", "),
    }
}

/// Returns the object identifiers in a SubjectPublicKeyInfo: of the algorithm and, for an EC key,
/// of the named curve.
pub(crate) fn algorithm_of_key(info: &[u8]) -> Vec<ObjectIdentifier> {
    let parts = Element::only(info).and_then(|info| info.children_of(SEQUENCE));
    let algorithm = parts.and_then(|parts| parts.first()?.children());
    let identifier = |element: &Element| {
        let oid = ObjectIdentifier::from_bytes(element.content).ok();
        oid.filter(|_| element.tag == OBJECT_IDENTIFIER)
    };
    algorithm
        .unwrap_or_default()
        .iter()
        .filter_map(identifier)
        .collect()
}

/// Returns the size in bits of the modulus of an RSA key in a SubjectPublicKeyInfo.
fn modulus_bits(info: &[u8]) -> Option<usize> {
    let parts = Element::only(info)?.children_of(SEQUENCE)?;
    let bits = parts.get(1)?;
    let key = Element::only(bits.content.get(1..)?)?.children_of(SEQUENCE)?;
    let modulus = key.first()?.content;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let leading = modulus.get(zeros)?.leading_zeros() as usize;
    Some((modulus.len() - zeros) * 8 - leading)
}

/// Returns the name of an object identifier in const-oid's database, with its numbers.
pub(crate) fn name(oid: ObjectIdentifier) -> String {
    let name = DB.by_oid(&oid);
    name.map_or_else(|| oid.to_string(), |name| format!("{name}, {oid}"))
}

/// Encodes r ‖ s, each as wide as the order of the curve, as ECDSA-Sig-Value (RFC 3279, section
/// 2.2.3). Returns `None` if the bytes are not a signature of the curve.
pub(crate) fn ecdsa_to_der(curve: Curve, fixed: &[u8]) -> Option<Vec<u8>> {
    by_curve!(curve, c => {
        let signature = c::ecdsa::Signature::from_slice(fixed).ok()?;
        Some(signature.to_der().as_bytes().to_vec())
    })
}

/// Decodes an ECDSA-Sig-Value to r ‖ s. This is the inverse of [`ecdsa_to_der`].
pub(crate) fn ecdsa_to_fixed(curve: Curve, der: &[u8]) -> Option<Vec<u8>> {
    by_curve!(curve, c => {
        let signature = c::ecdsa::Signature::from_der(der).ok()?;
        Some(signature.to_bytes().to_vec())
    })
}

/// Returns the object identifier of a hash (RFC 5754, section 2).
pub(crate) fn digest_algorithm(hash: Hash) -> ObjectIdentifier {
    match hash {
        Hash::Sha1 => SHA_1,
        Hash::Sha256 => SHA_256,
        Hash::Sha384 => SHA_384,
        Hash::Sha512 => SHA_512,
    }
}

/// Returns the AlgorithmIdentifier of signatures with a signature scheme (RFC 5754, section 3; RFC
/// 4055, section 3.1). The salt of RSASSA-PSS is as long as the digest.
pub(crate) fn signature_algorithm(
    scheme: SignatureScheme,
) -> der::Result<AlgorithmIdentifierOwned> {
    let (oid, parameters) = match scheme {
        SignatureScheme::Ecdsa(hash) => {
            let oid = match hash {
                Hash::Sha1 => ECDSA_WITH_SHA_1,
                Hash::Sha256 => ECDSA_WITH_SHA_256,
                Hash::Sha384 => ECDSA_WITH_SHA_384,
                Hash::Sha512 => ECDSA_WITH_SHA_512,
            };
            (oid, None)
        }
        SignatureScheme::Rsassa(hash) => {
            let oid = match hash {
                Hash::Sha1 => SHA_1_WITH_RSA_ENCRYPTION,
                Hash::Sha256 => SHA_256_WITH_RSA_ENCRYPTION,
                Hash::Sha384 => SHA_384_WITH_RSA_ENCRYPTION,
                Hash::Sha512 => SHA_512_WITH_RSA_ENCRYPTION,
            };
            (oid, Some(Any::null()))
        }
        SignatureScheme::Rsapss(hash) => (RSASSA_PSS, Some(Any::from_der(&pss_parameters(hash))?)),
    };
    Ok(AlgorithmIdentifierOwned { oid, parameters })
}

/// Returns RSASSA-PSS-params (RFC 4055, section 3.1) in DER.
fn pss_parameters(hash: Hash) -> Vec<u8> {
    let identifier = |oid: ObjectIdentifier| encoded(OBJECT_IDENTIFIER, oid.as_bytes());
    let null = encoded(NULL, &[]);
    let digest = encoded(
        SEQUENCE,
        &[identifier(digest_algorithm(hash)), null].concat(),
    );
    let mask = encoded(SEQUENCE, &[identifier(MGF_1), digest.clone()].concat());
    // The salt length is at most 64, so the INTEGER has one byte.
    let salt = encoded(INTEGER, &[hash.width() as u8]);
    let fields = [(0xA0, digest), (0xA1, mask), (0xA2, salt)];
    let fields = fields.map(|(tag, content)| encoded(tag, &content));
    encoded(SEQUENCE, &fields.concat())
}
