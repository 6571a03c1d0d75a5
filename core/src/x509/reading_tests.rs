use super::*;
use crate::ber::encoded;

const LEAF: &[u8] = include_bytes!("../../testdata/leaf.pem");

macro_rules! form {
    ($name:literal) => {
        (
            $name,
            &include_bytes!(concat!("../../testdata/forms/", $name))[..],
        )
    };
}

fn leaf() -> Certificate {
    Certificate::parse_all(LEAF).unwrap().remove(0)
}

fn why_not(bytes: &[u8]) -> String {
    Certificate::parse_all(bytes).unwrap_err().to_string()
}

#[test]
fn whatever_openssl_reads_is_read() {
    for (name, bytes) in [
        form!("pem-1line.pem"),
        form!("pem-76.pem"),
        form!("pem-blankline.pem"),
        form!("pem-trailingspace.pem"),
        form!("pem-trusted.pem"),
        form!("pem-x509.pem"),
        form!("tcg-1001.bin"),
        form!("tpm2b.bin"),
        form!("file-bom.pem"),
        form!("file-called.cer"),
        form!("file-called.crt"),
        form!("file-columns-76.pem"),
        form!("file-one-line.pem"),
        form!("file-trailing-spaces.pem"),
        form!("file-trusted-label.pem"),
        form!("file-x509-label.pem"),
    ] {
        let reading = Certificate::read_all(bytes);
        assert_eq!(
            reading.certificates.len(),
            1,
            "{name}: {:?}",
            reading.unread
        );
        assert_eq!(reading.unread, [""; 0], "{name}");
    }
}

#[test]
fn what_is_none_is_named_for_what_it_is() {
    for ((name, bytes), said) in [
        (form!("gzip.bin"), "gzip"),
        (form!("p7-der.bin"), "PKCS#7"),
        (form!("p7-pem.pem"), "PKCS#7"),
        (form!("pem-utf16.bin"), "UTF-16"),
        (form!("pkipath.bin"), "PkiPath"),
        (form!("file-utf16.pem"), "UTF-16"),
        (form!("file-html.pem"), "HTML"),
    ] {
        let why = why_not(bytes);
        assert!(why.contains(said), "{name}: {why}");
    }
}

#[test]
fn what_stands_around_a_certificate_in_nv_is_taken_off() {
    let leaf = leaf();
    let der = leaf.der();
    let size = der.len();
    let [high, low] = (size as u16).to_be_bytes();
    let stored = |inner: &[u8]| {
        let [high, low] = (inner.len() as u16).to_be_bytes();
        [&[0x10, 0x01, 0, high, low], inner].concat()
    };
    let full = [&[0x10, 0x02], der].concat();
    for bytes in [
        stored(der),
        stored(&full),
        full.clone(),
        [&[high, low], der].concat(),
        [&[low, high], der].concat(),
        [&[0, 0, high, low], der].concat(),
        [&[low, high, 0, 0], der].concat(),
        [&[high, low], LEAF].concat(),
    ] {
        for padding in [&[][..], &[0; 30], &[0xFF; 30], b"\n"] {
            let bytes = [&bytes, padding].concat();
            let reading = Certificate::read_all(&bytes);
            assert_eq!(reading.certificates, std::slice::from_ref(&leaf));
            assert_eq!(reading.unread, [""; 0]);
        }
    }
    let twice = [stored(der), stored(der)].concat();
    assert_eq!(Certificate::parse_all(&twice).unwrap().len(), 2);
    assert!(why_not(&stored(&[0x10, 0x03, 7, 7])).contains("a part of a certificate"));
}

#[test]
fn a_cut_certificate_goes_on_elsewhere() {
    let leaf = leaf();
    let prefixed = [&(leaf.der().len() as u16).to_be_bytes()[..], leaf.der()].concat();
    for whole in [leaf.der(), LEAF, &prefixed] {
        for end in [40, whole.len() / 2, whole.len() - 30] {
            let reading = Certificate::read_all(&whole[..end]);
            assert!(reading.is_cut && reading.certificates.is_empty(), "{end}");
        }
        assert!(!Certificate::read_all(whole).is_cut);
    }
    let second = [leaf.der(), &leaf.der()[..100]].concat();
    let reading = Certificate::read_all(&second);
    assert!(reading.is_cut && reading.certificates.len() == 1);
    assert!(
        reading.unread[0].contains("truncated certificate: only 100 of"),
        "{reading:?}"
    );
}

/// ASN.1 structures whose shape is similar to a certificate. Only their tags differ.
#[test]
fn neighbours_of_certificates_are_named() {
    let sequence = |parts: &[&[u8]]| encoded(SEQUENCE, &parts.concat());
    let (zero, one, bits) = (&[2, 1, 0][..], &[2, 1, 1][..], &[3, 2, 0, 7][..]);
    let (empty, octets, time) = (
        &[0x30, 0][..],
        &[4, 1, 7][..],
        &b"\x17\x0d200101000000Z"[..],
    );
    let signed = |parts: &[&[u8]]| sequence(&[&sequence(parts), empty, bits]);
    let algorithm = sequence(&[&[6, 1, 0x2A]]);
    let pkcs7 = sequence(&[&[6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 1]]);
    for (bytes, said) in [
        (signed(&[zero, empty, empty, &[0xA0, 0]]), "PKCS#10"),
        (signed(&[one, empty, empty, time, time]), "CRL"),
        (signed(&[empty, empty, time, time]), "CRL"),
        (
            signed(&[one, empty, &[0xA0, 0], empty, one, empty, empty]),
            "attribute certificate",
        ),
        (sequence(&[&algorithm, bits]), "public key"),
        (sequence(&[zero, &algorithm, octets]), "private key"),
        (sequence(&[one, octets]), "private key"),
        (
            sequence(&[zero, one, one, one, one, one, one, one, one]),
            "private key",
        ),
        (sequence(&[&algorithm, octets]), "private key"),
        (sequence(&[&[2, 1, 3], &pkcs7]), "PKCS#12"),
        (sequence(&[one, one]), "public key"),
        (signed(&[one, one]), "damaged certificate"),
        (
            sequence(&[&[6, 6, 0x67, 0x81, 5, 0x0A, 1, 3], one]),
            "TPM wrapped",
        ),
        (sequence(&[one]), "ASN.1"),
        (vec![0x04, 2, 7, 7], "4 bytes that are not a certificate"),
    ] {
        let why = why_not(&bytes);
        assert!(why.contains(said), "{why}, not {said}");
        assert!(!why.contains("tag") && !why.contains("empty"), "{why}");
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let base64: String = String::from_utf8_lossy(LEAF)
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let text = String::from_utf8_lossy(LEAF);
    let wide =
        |order: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(order).collect() };
    let pem = |label: &str| text.replace("CERTIFICATE", label).into_bytes();
    for (bytes, said) in [
        (b"".to_vec(), "empty"),
        (vec![0xFF; 900], "0xFF and nothing else"),
        (vec![0; 900], "0x00 and nothing else"),
        (b" \n".to_vec(), "2 bytes"),
        (base64.clone().into_bytes(), "base64 without"),
        (LEAF[28..LEAF.len() - 27].to_vec(), "base64 without"),
        (crate::key::hex(leaf().der()).into_bytes(), "hexadecimal"),
        (wide(u16::to_le_bytes), "UTF-16"),
        (wide(u16::to_be_bytes), "UTF-16"),
        (b"PK\x03\x04 and so on".to_vec(), "ZIP"),
        (b"\x28\xB5\x2F\xFD and so on".to_vec(), "zstd"),
        (b"<!DOCTYPE html><title>404</title>".to_vec(), "HTML"),
        (b"\n<html><body>gone".to_vec(), "HTML"),
        (b"<?xml version='1.0'?><a/>".to_vec(), "XML"),
        (b"{\"errors\": []}".to_vec(), "JSON"),
        (
            format!("cert: {}", text.replace('\n', "\\n")).into_bytes(),
            "begin at the start of a line",
        ),
        (b"ssh-ed25519 AAAA nobody".to_vec(), "OpenSSH public key"),
        (b"Not found".to_vec(), "text without a PEM block"),
        (
            b"0 is the first byte of a SEQUENCE, too".to_vec(),
            "text without",
        ),
        (
            text.replace("-----B", "----B").into_bytes(),
            "boundary is damaged",
        ),
        (
            text.replace("-----END", "----END").into_bytes(),
            "boundary is damaged",
        ),
        (pem("OPENSSH PRIVATE KEY"), "an OpenSSH private key"),
        (pem("EC PRIVATE KEY"), "a private key"),
        (pem("ENCRYPTED PRIVATE KEY"), "a private key"),
        (pem("PUBLIC KEY"), "a public key"),
        (pem("NEW CERTIFICATE REQUEST"), "PKCS#10"),
        (pem("X509 CRL"), "CRL"),
        (pem("PGP MESSAGE"), "OpenPGP"),
        (pem("X.509 CERTIFICATE"), "under another label"),
        (pem("certificate"), "under another label"),
        (LEAF[..200].to_vec(), "no end"),
    ] {
        let why = why_not(&bytes);
        assert!(why.contains(said), "{why}, not {said}");
        assert_eq!(why.contains("empty"), bytes.is_empty(), "{why}");
    }
}

#[test]
fn what_is_beside_a_certificate_is_told() {
    let key = String::from_utf8_lossy(LEAF).replace("CERTIFICATE", "PRIVATE KEY");
    let file = [LEAF, key.as_bytes(), b"----BEGIN CERTIFICATE----\n"].concat();
    let reading = Certificate::read_all(&file);
    assert_eq!(reading.certificates, [leaf()]);
    assert_eq!(reading.unread.len(), 2, "{reading:?}");
    assert!(reading.unread[0].contains("a private key"));
    assert!(reading.unread[1].contains("boundary"));
    let junk = [leaf().der(), b"\x1F\x8Bjunk"].concat();
    let reading = Certificate::read_all(&junk);
    assert_eq!(reading.certificates, [leaf()]);
    assert!(reading.unread[0].contains("gzip"), "{reading:?}");
}

#[test]
fn damage_is_never_a_panic() {
    let twice = [LEAF, LEAF].concat();
    let stored = [&[0x10, 0x01, 0, 2, 0], leaf().der()].concat();
    for (_, whole) in [
        form!("p7-pem.pem"),
        form!("pem-utf16.bin"),
        form!("pkipath.bin"),
        form!("tpm2b.bin"),
        form!("file-trusted-label.pem"),
        ("twice", &twice[..]),
        ("stored", &stored[..]),
    ] {
        for at in 0..whole.len() {
            for flip in [0x01, 0x20, 0x80, 0xFF] {
                let mut damaged = whole.to_vec();
                damaged[at] ^= flip;
                let cut = Certificate::read_all(&damaged[..at]);
                let all = Certificate::read_all(&damaged);
                for reading in [cut, all] {
                    let said = !reading.unread.is_empty() || !reading.certificates.is_empty();
                    assert!(said, "{at}: there is neither a certificate nor a reason");
                    for one in reading.certificates {
                        one.subject();
                        one.public_key();
                        assert!(one.extensions().is_ok() || one.is_well_formed().is_err());
                    }
                }
            }
        }
    }
}
