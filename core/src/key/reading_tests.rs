//! Private keys in the formats of other programs. They were made with OpenSSL 3.0 and its
//! `asn1parse -genconf`.

use super::{Curve, PrivateKeyInfo, PublicKey};

const P8: &[u8] = include_bytes!("../../../tests/inputs/keys/p8.pem");
const P8_BOM: &[u8] = include_bytes!("../../../tests/inputs/keys/p8-bom.pem");
const P8_33: &[u8] = include_bytes!("../../../tests/inputs/keys/p8-scalar-33-bytes.pem");
const P8_RSA_BARE: &[u8] = include_bytes!("../../../tests/inputs/keys/p8-rsa-without-null.pem");
const P8_ENCRYPTED: &[u8] = include_bytes!("../../../tests/inputs/keys/p8-encrypted.pem");
const SEC1: &[u8] = include_bytes!("../../../tests/inputs/keys/sec1.pem");
const SEC1_PARAMETERS: &[u8] =
    include_bytes!("../../../tests/inputs/keys/sec1-with-parameters.pem");
const SEC1_ENCRYPTED: &[u8] = include_bytes!("../../../tests/inputs/keys/sec1-encrypted.pem");
const PKCS1: &[u8] = include_bytes!("../../../tests/inputs/keys/pkcs1.pem");

fn read(file: &[u8]) -> PrivateKeyInfo {
    PrivateKeyInfo::from_pem(file).unwrap()
}

#[test]
fn one_key_in_each_of_its_forms_is_one_key() {
    let plain = read(P8);
    for (name, file) in [
        ("bom", P8_BOM),
        ("33", P8_33),
        ("sec1", SEC1),
        ("parameters", SEC1_PARAMETERS),
    ] {
        let key = read(file);
        assert_eq!(key.public(), plain.public(), "{name}");
        assert_eq!(key.scalar(), plain.scalar(), "{name}");
        assert_eq!(key.scalar().map(|scalar| scalar.len()), Some(32), "{name}");
    }
    let crlf = String::from_utf8(SEC1_PARAMETERS.to_vec()).unwrap();
    let crlf = crlf.replace('\n', "\r\n");
    assert_eq!(read(crlf.as_bytes()).public(), plain.public());
}

#[cfg(feature = "soft-rsa")]
#[test]
fn an_rsa_key_without_the_null_gets_it() {
    let (bare, whole) = (read(P8_RSA_BARE), read(PKCS1));
    assert_eq!(bare.der(), whole.der());
    assert_eq!(PrivateKeyInfo::from_der(bare.der()), Ok(whole));
}

#[test]
fn an_encrypted_key_is_called_so() {
    for file in [P8_ENCRYPTED, SEC1_ENCRYPTED] {
        let why = PrivateKeyInfo::from_pem(file).unwrap_err();
        assert!(why.contains("is encrypted"), "{why}");
    }
}

/// Returns an ECPrivateKey with this number. The key names the curve in the enclosing structure,
/// itself, or not at all.
fn sec1(number: &[u8], curve: Option<Curve>, public: Option<&[u8]>) -> Vec<u8> {
    let of = |tag: u8, content: &[u8]| {
        let mut der = vec![tag];
        match content.len() {
            length @ ..128 => der.push(length as u8),
            length => der.extend([0x81, length as u8]),
        }
        der.extend(content);
        der
    };
    let mut body = of(2, &[1]);
    body.extend(of(4, number));
    if let Some(curve) = curve {
        body.extend(of(0xA0, curve.oid_der()));
    }
    if let Some(point) = public {
        body.extend(of(0xA1, &of(3, &[&[0], point].concat())));
    }
    of(0x30, &body)
}

fn from_sec1(der: &[u8]) -> Result<PrivateKeyInfo, String> {
    let pem = crate::pem::render("EC PRIVATE KEY", der).unwrap();
    PrivateKeyInfo::from_pem(pem.as_bytes())
}

#[test]
fn a_scalar_has_the_width_that_its_program_gave_it() {
    for curve in Curve::ALL {
        let width = curve.width();
        let mut scalar = vec![0; width];
        scalar[width - 9..].fill(7);
        let known = PrivateKeyInfo::from_scalar(curve, &scalar).unwrap();
        let PublicKey::Ec { point, .. } = known.public() else {
            panic!("{known:?}");
        };
        for number in [
            &scalar[width - 9..],
            &scalar,
            &[&[0; 2], &scalar[..]].concat(),
        ] {
            for public in [None, Some(&point[..])] {
                let key = from_sec1(&sec1(number, Some(curve), public)).unwrap();
                assert_eq!(key, known, "{} bytes", number.len());
            }
        }
        // If no curve is named, the size of the number identifies the curve.
        assert_eq!(from_sec1(&sec1(&scalar, None, None)), Ok(known.clone()));
        let mut other = point.clone();
        other[width] ^= 1;
        for (number, curve, public, why) in [
            (&vec![0xFF; width], curve, None, "not a valid private key"),
            (&vec![0; width], curve, None, "not a valid private key"),
            (&vec![1; width + 1], curve, None, "longer than the order"),
            (&scalar, curve, Some(&other[..]), "public key"),
        ] {
            let said = from_sec1(&sec1(number, Some(curve), public)).unwrap_err();
            assert!(said.contains(why), "{said}, not {why}");
        }
    }
    let said = from_sec1(&sec1(&[7; 20], None, None)).unwrap_err();
    assert!(said.contains("does not name its curve"), "{said}");
}
