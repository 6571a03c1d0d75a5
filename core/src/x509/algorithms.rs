//! Algorithms of keys and signatures as certificates name them, and the form of ECDSA signatures.

use crate::ber::{Element, OBJECT_IDENTIFIER, SEQUENCE};
use crate::key::{Curve, PublicKey, algorithm_name, by_curve};
use crate::x509::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::DB;

/// What the certified key is: `P-256`, `RSA-2048`, `ML-DSA-65`; for a kind without a name here its
/// object identifiers.
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

/// By which algorithm the certificate is signed: `ecdsa-with-SHA256`, `ML-DSA-65`, or the object
/// identifier; `None` if that cannot be read.
pub(crate) fn signed_by(certificate: &Certificate) -> Option<String> {
    let oid = certificate.signature_algorithm().ok()?.oid;
    let short = || DB.by_oid(&oid).map(str::to_owned);
    let named = algorithm_name(oid).map(str::to_owned).or_else(short);
    Some(named.unwrap_or_else(|| oid.to_string()))
}

/// The kind of a key that is not known here: what its algorithm, its curve or its size is called.
pub(crate) fn kind_of_key(info: &[u8]) -> String {
    let names: Vec<String> = algorithm_of_key(info).into_iter().map(name).collect();
    match (&names[..], modulus_bits(info)) {
        ([kind], Some(bits)) if kind.starts_with("rsa") => format!("{kind}, {bits} bits"),
        ([], _) => "without a name".into(),
        _ => names.join(", "),
    }
}

/// The identifiers of a SubjectPublicKeyInfo: of the algorithm, and of a named curve.
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

/// Bits of the modulus of an RSA key in a SubjectPublicKeyInfo.
fn modulus_bits(info: &[u8]) -> Option<usize> {
    let parts = Element::only(info)?.children_of(SEQUENCE)?;
    let bits = parts.get(1)?;
    let key = Element::only(bits.content.get(1..)?)?.children_of(SEQUENCE)?;
    let modulus = key.first()?.content;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let leading = modulus.get(zeros)?.leading_zeros() as usize;
    Some((modulus.len() - zeros) * 8 - leading)
}

/// Its name in const-oid's database, and its numbers.
pub(crate) fn name(oid: ObjectIdentifier) -> String {
    let name = DB.by_oid(&oid);
    name.map_or_else(|| oid.to_string(), |name| format!("{name}, {oid}"))
}

/// An ECDSA-Sig-Value (RFC 3279, section 2.2.3) of r ‖ s, each as wide as the curve's order; `None`
/// for what is no signature of this curve.
pub(crate) fn ecdsa_to_der(curve: Curve, fixed: &[u8]) -> Option<Vec<u8>> {
    by_curve!(curve, c => {
        let signature = c::ecdsa::Signature::from_slice(fixed).ok()?;
        Some(signature.to_der().as_bytes().to_vec())
    })
}

/// Reverses [`ecdsa_to_der`].
pub(crate) fn ecdsa_to_fixed(curve: Curve, der: &[u8]) -> Option<Vec<u8>> {
    by_curve!(curve, c => {
        let signature = c::ecdsa::Signature::from_der(der).ok()?;
        Some(signature.to_bytes().to_vec())
    })
}
