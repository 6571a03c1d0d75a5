//! Tests with certificate chains of various CAs. OpenSSL's result for each chain is known.

use super::*;
use crate::x509::checks::{Outcome, profile_checks};
use crate::x509::samples::in_year;
use std::slice;

/// The name, the leaf and the CAs of a chain, in PEM. One CA can have several leaves.
macro_rules! chain {
    ($name:literal) => {
        chain!($name, $name)
    };
    ($ca:literal, $name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../testdata/chains/", $name, ".leaf.pem")).as_slice(),
            include_bytes!(concat!("../../../testdata/chains/", $ca, ".ca.pem")).as_slice(),
        )
    };
}

fn ends(leaf: &[u8], ca: &[u8]) -> PathResult {
    let all = |pem| Certificate::parse_all(pem).unwrap();
    build_path(&all(leaf)[0], &all(ca), &[], Some(in_year(2026)))
}

/// Asserts a path of the leaf and its root.
#[track_caller]
fn assert_is_trusted(name: &str, found: &PathResult) {
    assert!(
        matches!(found, PathResult::Trusted(path) if path.len() == 2),
        "{name}: {found:?}"
    );
}

#[test]
fn what_openssl_verifies_is_verified() {
    for (name, leaf, ca) in [
        chain!("critical-policies-anypolicy"),
        chain!("critical-policies-cps"),
        chain!("bc-boolean-01"),
        chain!("pathlen-1000"),
        chain!("root-v1"),
        chain!("name-printable-and-utf8"),
        chain!("ml-dsa-44"),
        chain!("ml-dsa-65"),
        chain!("ml-dsa-87"),
    ] {
        assert_is_trusted(name, &ends(leaf, ca));
    }
}

#[test]
fn what_is_not_verified_says_why() {
    for ((name, leaf, ca), why) in [
        (
            chain!("keyusage-3-bytes-no-certsign"),
            "cannot be read, or that occurs twice: keyUsage",
        ),
        (
            chain!("keyusage-twice"),
            "cannot be read, or that occurs twice: keyUsage",
        ),
        (chain!("two-algorithms"), "names two algorithms"),
        (
            chain!("issuer-brainpool"),
            "the key of CN=Example Issuing CA,O=Example Devices has an unsupported type \
             (id-ecPublicKey, 1.2.840.10045.2.1, brainpoolP256r1, 1.3.36.3.3.2.8.1.1.7)",
        ),
        (chain!("issuer-rsa2047"), "1.2.840.113549.1.1.1, 2047 bits)"),
        (chain!("issuer-ed25519"), "(id-Ed25519, 1.3.101.112)"),
    ] {
        match ends(leaf, ca) {
            PathResult::Invalid(said) => assert!(said.contains(why), "{name}: {said}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// A keyUsage with three bytes, of which the first contains digitalSignature.
#[test]
fn a_key_usage_that_cannot_be_read_is_not_absent() {
    let leaf = include_bytes!("../../../testdata/shapes/ku-3bytes.der");
    let leaf = Certificate::from_der(leaf).unwrap();
    let points = profile_checks(&leaf);
    let usage = points.iter().find(|one| one.name == "key usage").unwrap();
    assert_eq!(usage.to_string(), "key usage: cannot be read");
    assert_eq!(usage.outcome, Outcome::Failed);
}

#[test]
fn extensions_that_are_there_twice_or_broken_fail_at_their_point() {
    for (der, name) in [
        (
            &include_bytes!("../../../testdata/shapes/ext-dup.der")[..],
            "hardware module name",
        ),
        (
            include_bytes!("../../../testdata/shapes/bc-badvalue.der"),
            "basic constraints",
        ),
    ] {
        let leaf = Certificate::from_der(der).unwrap();
        let points = profile_checks(&leaf);
        let wrong = points.iter().filter(|one| one.outcome == Outcome::Failed);
        let wrong: Vec<_> = wrong.collect();
        assert!(
            matches!(wrong[..], [one] if one.name == name && one.text.contains("cannot be read")),
            "{wrong:?}"
        );
    }
}

/// Unusual certificates of one CA. OpenSSL 3.0 verifies some of them.
#[test]
fn odd_leaves_are_verified_as_openssl_verifies_them() {
    macro_rules! shape {
        ($name:literal) => {
            (
                $name,
                &include_bytes!(concat!("../../../testdata/shapes/", $name))[..],
            )
        };
    }
    let root = include_bytes!("../../../testdata/shapes/root.pem");
    for (name, der) in [
        shape!("nb-year1.der"),
        shape!("nb-1949.der"),
        shape!("nb-utc1950.der"),
        shape!("crit-true-01.der"),
        shape!("str-universal.der"),
        shape!("rdn-multi-unsorted.der"),
        shape!("san-x400.der"),
        shape!("san-uri-utf8.der"),
        shape!("san-dns-underscore-utf8.der"),
        shape!("str-bmp.der"),
        shape!("str-t61.der"),
        shape!("spki-ec-hybrid.der"),
        shape!("spki-rsa-pss-oid.der"),
        shape!("sub-empty-san-dirname-sn.der"),
    ] {
        let found = ends(der, root);
        assert!(matches!(found, PathResult::Trusted(_)), "{name}: {found:?}");
    }
    for ((name, der), why) in [
        (shape!("attr-nonstring-sn.der"), "the subject of"),
        (shape!("spki-ec-explicit.der"), "the type of its key"),
        (shape!("spki-ec-ecdh-oid.der"), "the type of its key"),
        (shape!("bc-badvalue.der"), "basicConstraints"),
        (shape!("ext-dup.der"), "subjectAltName"),
    ] {
        match ends(der, root) {
            PathResult::Invalid(said) => assert!(said.contains(why), "{name}: {said}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// ML-DSA is also verified in a thread of the host process. The stack of this thread may be small.
#[test]
fn ml_dsa_takes_a_small_stack_and_refuses_what_was_altered() {
    let (_, leaf, ca) = chain!("ml-dsa-87");
    let run = move || {
        let (leaf, ca) = (parsed(leaf), parsed(ca));
        assert_eq!(signature::is_signed_by(&leaf, &ca), Ok(true));
        for (_, other, _) in [chain!("ml-dsa-44"), chain!("ml-dsa-65"), chain!("root-v1")] {
            let other = parsed(other);
            assert_eq!(signature::is_signed_by(&other, &ca), Ok(false));
        }
        assert_eq!(
            signature::is_signed_by(&altered_leaf(&leaf), &ca),
            Ok(false)
        );
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(run).unwrap().join().unwrap();
}

/// A device with an ML-DSA key. Its certificate is verified, and the type of its key is shown.
#[test]
fn a_device_with_an_ml_dsa_key() {
    let leaf = include_bytes!("../../../testdata/chains/ml-dsa-device.leaf.pem");
    let ca = include_bytes!("../../../testdata/chains/ml-dsa-87.ca.pem");
    let found = ends(leaf, ca);
    assert!(
        matches!(&found, PathResult::Trusted(path) if path.len() == 2),
        "{found:?}"
    );
}

fn parsed(pem: &[u8]) -> Certificate {
    Certificate::parse_all(pem).unwrap().remove(0)
}

/// Returns the DER with another last byte: the end of the signature.
fn altered(der: &[u8]) -> Vec<u8> {
    let mut der = der.to_vec();
    *der.last_mut().unwrap() ^= 1;
    der
}

/// Does what [`altered`] does, for a certificate.
fn altered_leaf(leaf: &Certificate) -> Certificate {
    Certificate::from_der(&altered(leaf.der())).unwrap()
}

/// Each supported algorithm with each of its hashes. OpenSSL issued and verified these leaves. The
/// salts are as long as the digest, as long as they can be, 20 bytes (the default), and empty.
#[test]
fn each_signature_algorithm_of_a_ca_is_verified() {
    let now = Some(in_year(2030));
    for (name, leaf, ca) in [
        chain!("rsa", "rsa-pkcs1-sha256"),
        chain!("rsa", "rsa-pkcs1-sha384"),
        chain!("rsa", "rsa-pkcs1-sha512"),
        chain!("rsa", "rsa-pss-sha256"),
        chain!("rsa", "rsa-pss-sha384"),
        chain!("rsa", "rsa-pss-sha512"),
        chain!("rsa", "rsa-pss-no-salt"),
        chain!("p384", "p384-sha256"),
        chain!("p384", "p384-sha384"),
        chain!("p521", "p521-sha512"),
    ] {
        let (leaf, ca) = (parsed(leaf), parsed(ca));
        assert_is_trusted(name, &build_path(&leaf, slice::from_ref(&ca), &[], now));
        assert_eq!(signature::is_signed_by(&leaf, &ca), Ok(true), "{name}");
        let of_another = parsed(include_bytes!("../../../testdata/chains/root-v1.ca.pem"));
        for (child, issuer) in [(&altered_leaf(&leaf), &ca), (&leaf, &of_another)] {
            let verified = signature::is_signed_by(child, issuer);
            assert_eq!(verified, Ok(false), "{name}");
        }
    }
}

/// OpenSSL 3.0 verifies these signatures, but this project refuses SHA-1 in all places.
#[test]
fn a_signature_with_sha1_is_refused() {
    for ((name, leaf, ca), why) in [
        (
            chain!("rsa", "rsa-pkcs1-sha1"),
            "is signed with SHA-1, which proves nothing",
        ),
        (
            chain!("rsa", "rsa-pss-sha1"),
            "an unsupported algorithm (id-RSASSA-PSS",
        ),
        (
            chain!("rsa", "rsa-pss-mask-sha1"),
            "an unsupported algorithm (id-RSASSA-PSS",
        ),
    ] {
        let said = signature::is_signed_by(&parsed(leaf), &parsed(ca)).unwrap_err();
        assert!(said.contains(why), "{name}: {said}");
    }
}

/// OpenSSL made these requests and verified them.
#[cfg(feature = "evidence")]
#[test]
fn a_request_is_signed_by_its_own_key() {
    use crate::x509::received_request::Request;

    macro_rules! request {
        ($name:literal) => {
            &include_bytes!(concat!("../../../testdata/chains/", $name, ".request.der"))[..]
        };
    }
    for der in [
        request!("p256"),
        request!("rsa-pkcs1-sha384"),
        request!("rsa-pss-sha512"),
    ] {
        let verified = |der: &[u8]| is_signed_by_its_key(&Request::from_der(der).unwrap());
        assert_eq!(verified(der), Ok(true));
        assert_eq!(verified(&altered(der)), Ok(false));
    }
}
