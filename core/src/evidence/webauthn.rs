//! The attestation statement `tpm` of WebAuthn (Level 2, section 8.3). It has the form that ACME's
//! device-attest-01 accepts: a CBOR map (RFC 8949) without authenticator data.

use super::Bundle;
use crate::tpm::{Hash, Signature, SignatureScheme};

/// The numbers of the CBOR major types (RFC 8949, section 3.1).
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Returns the attestation object, with `fmt` and `attStmt`.
///
/// The nonce of the bundle must be the SHA-256 of the bytes that WebAuthn calls attToBeSigned. For
/// ACME, these bytes are the key authorization.
///
/// # Errors
///
/// Fails if the attestation key has no certificate, because the statement must contain one. Also
/// fails if COSE has no number for the signature scheme.
pub fn attestation_object(bundle: &Bundle) -> Result<Vec<u8>, String> {
    let chain = &bundle.attestation_key.certificates;
    if chain.is_empty() {
        return Err(
            "the attestation key has no certificate, but this form must contain one; devid ca \
             issue --attestation-key issues it"
                .into(),
        );
    }
    let (scheme, _) = Signature::read(&bundle.key.signature)
        .ok_or("the signature of the attestation key cannot be parsed")?;
    let algorithm = cose_algorithm(scheme).ok_or_else(|| {
        format!("COSE has no number for {scheme}, the scheme of the attestation key")
    })?;
    let mut certificates = head(ARRAY, chain.len() as u64);
    for certificate in chain {
        certificates.extend(bytes(certificate));
    }
    let statement = map(&[
        ("ver", text("2.0")),
        // In CBOR, the negative number -1 - n is encoded as n (RFC 8949, section 3.1).
        ("alg", head(NEGATIVE, algorithm)),
        ("x5c", certificates),
        ("sig", bytes(&bundle.key.signature)),
        ("certInfo", bytes(&bundle.key.certify)),
        ("pubArea", bytes(&bundle.key.public)),
    ]);
    Ok(map(&[("fmt", text("tpm")), ("attStmt", statement)]))
}

/// Returns n for the COSE algorithm -1 - n (RFC 9053, section 2.1; RFC 8812, section 2; RFC 8230,
/// section 2).
fn cose_algorithm(scheme: SignatureScheme) -> Option<u64> {
    let number = match scheme {
        SignatureScheme::Ecdsa(Hash::Sha256) => -7,
        SignatureScheme::Ecdsa(Hash::Sha384) => -35,
        SignatureScheme::Ecdsa(Hash::Sha512) => -36,
        SignatureScheme::Rsapss(Hash::Sha256) => -37,
        SignatureScheme::Rsapss(Hash::Sha384) => -38,
        SignatureScheme::Rsapss(Hash::Sha512) => -39,
        SignatureScheme::Rsassa(Hash::Sha256) => -257,
        SignatureScheme::Rsassa(Hash::Sha384) => -258,
        SignatureScheme::Rsassa(Hash::Sha512) => -259,
        SignatureScheme::Rsassa(Hash::Sha1) => -65535,
        SignatureScheme::Ecdsa(Hash::Sha1) | SignatureScheme::Rsapss(Hash::Sha1) => return None,
    };
    u64::try_from(-1 - i64::from(number)).ok()
}

/// Returns the head of a CBOR item. Lengths are definite, and in their shortest form (RFC 8949,
/// section 4.2.1).
fn head(major: u8, count: u64) -> Vec<u8> {
    let major = major << 5;
    let bytes = count.to_be_bytes();
    match count {
        0..=23 => vec![major | bytes[7]],
        24..=0xFF => vec![major | 24, bytes[7]],
        0x100..=0xFFFF => [&[major | 25], &bytes[6..]].concat(),
        0x1_0000..=0xFFFF_FFFF => [&[major | 26], &bytes[4..]].concat(),
        _ => [&[major | 27], &bytes[..]].concat(),
    }
}

fn bytes(content: &[u8]) -> Vec<u8> {
    [&head(BYTES, content.len() as u64), content].concat()
}

fn text(content: &str) -> Vec<u8> {
    [&head(TEXT, content.len() as u64), content.as_bytes()].concat()
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries_of = entries
        .iter()
        .map(|(name, value)| [&text(name)[..], value].concat());
    let content: Vec<Vec<u8>> = entries_of.collect();
    [head(MAP, entries.len() as u64), content.concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::verify::samples::{AK_PURPOSE, Kind, leaf, parts};
    use crate::key::Curve;
    use ciborium::Value;

    fn field<'a>(map: &'a Value, name: &str) -> &'a Value {
        let entries = map.as_map().unwrap();
        let mut found = entries
            .iter()
            .filter(|(key, _)| key.as_text() == Some(name));
        let (Some((_, value)), None) = (found.next(), found.next()) else {
            panic!("{name}");
        };
        value
    }

    #[test]
    fn another_reader_reads_the_statement() {
        for (curve, algorithm) in [(Curve::P256, -7), (Curve::P384, -35), (Curve::P521, -36)] {
            let mut parts = parts(Kind::Ec(curve));
            parts.ak_certificate = Some(leaf("CN=ak", Some(AK_PURPOSE)));
            let bundle = parts.bundle();
            let object = attestation_object(&bundle).unwrap();
            let mut rest = &object[..];
            let read: Value = ciborium::from_reader(&mut rest).unwrap();
            assert!(rest.is_empty());
            assert_eq!(read.as_map().unwrap().len(), 2);
            assert_eq!(field(&read, "fmt").as_text(), Some("tpm"));
            let statement = field(&read, "attStmt");
            assert_eq!(statement.as_map().unwrap().len(), 6);
            assert_eq!(field(statement, "ver").as_text(), Some("2.0"));
            let alg = field(statement, "alg").as_integer().unwrap();
            assert_eq!(i128::from(alg), algorithm);
            let chain = field(statement, "x5c").as_array().unwrap();
            let certificates = &bundle.attestation_key.certificates;
            assert_eq!(chain.len(), certificates.len());
            assert_eq!(chain[0].as_bytes().unwrap()[..], certificates[0][..]);
            for (name, bytes) in [
                ("sig", &bundle.key.signature),
                ("certInfo", &bundle.key.certify),
                ("pubArea", &bundle.key.public),
            ] {
                assert_eq!(field(statement, name).as_bytes().unwrap()[..], bytes[..]);
            }
        }
    }

    #[test]
    fn without_certificate_there_is_no_statement() {
        let why = attestation_object(&parts(Kind::Ec(Curve::P256)).bundle()).unwrap_err();
        assert!(why.contains("--attestation-key"), "{why}");
    }

    /// The examples are from RFC 8949, appendix A.
    #[test]
    fn numbers_are_as_short_as_can_be() {
        for (count, digits) in [
            (0, "20"),
            (9, "29"),
            (99, "3863"),
            (999, "3903e7"),
            (65534, "39fffe"),
            (1_000_000, "3a000f4240"),
            (u64::MAX, "3bffffffffffffffff"),
        ] {
            assert_eq!(crate::key::hex(&head(NEGATIVE, count)), digits);
        }
    }
}
