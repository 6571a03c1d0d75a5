//! Evidence of the device's own keys.

use crate::device::{Bundle, Device};
use crate::structures::{attributes, certified};
use std::fs;
use testkit::openssl::digest;
use testkit::programs::{program, run};

/// Each kind of key that the TPM itself uses; the judge of attestation and request is OpenSSL.
#[test]
fn a_key_of_every_kind_has_evidence() {
    let device = Device::new();
    for (label, options) in [
        ("p256", &["--algorithm", "p256"][..]),
        ("p384", &["--algorithm", "p384"]),
        ("p521", &["--algorithm", "p521"]),
        ("rsa", &["--algorithm", "rsa2048"]),
        ("persistent", &["--persistent"]),
        ("srk", &["--parent", "srk"]),
        ("srk-384", &["--parent", "srk", "--algorithm", "p384"]),
        ("srk-rsa", &["--parent", "srk", "--algorithm", "rsa2048"]),
    ] {
        device.generate(label, options);
        let bundle = device.attest(&[label, "--nonce", "00112233"]);
        let certified = certified(&bundle, "key");
        assert_eq!(certified.nonce, [0, 0x11, 0x22, 0x33], "{label}");
        certified.signed_the_request();
        // fixedTPM, fixedParent, sensitiveDataOrigin; not restricted.
        let bits = attributes(&certified.public);
        assert_eq!(bits & 0x1_0032, 0x32, "{label}: {bits:#x}");
        assert_eq!(bundle.json["key"]["label"], label);
        assert_eq!(bundle.json["device"]["maker"], "IBM");
        device.is_clean();
    }
}

#[test]
fn the_nonce_is_what_the_verifier_gave() {
    let device = Device::new();
    device.generate("web", &[]);
    let long = "ab".repeat(33);
    fs::write(device.path("nonce"), [7; 66]).unwrap();
    let file = device.word("nonce");
    let sha256 = |bytes: &[u8]| digest("-sha256", bytes);
    for (given, expected) in [
        ("AbCd", vec![0xAB, 0xCD]),
        (&"5a".repeat(32), vec![0x5A; 32]),
        (&long, sha256(&[0xAB; 33])),
        (&file, sha256(&[7; 66])),
    ] {
        let bundle = device.attest(&["web", "--nonce", given]);
        assert_eq!(certified(&bundle, "key").nonce, expected, "{given}");
        assert_eq!(bundle.bytes("nonce"), expected, "{given}");
    }
    let said = device.ends(0, &["attest", "web"]);
    assert!(said.err.contains("not fresh"), "{said}");
    let bundle = Bundle::read(&said.out);
    assert!(bundle.json["nonce"].is_null());
    assert_eq!(certified(&bundle, "key").nonce, [0; 0]);
    fs::write(device.path("empty"), "").unwrap();
    device.refuses(
        1,
        &["attest", "web", "--nonce", &device.word("empty")],
        &["no nonce"],
    );
    device.refuses(1, &["attest", "web", "--nonce", "xyz"], &["xyz"]);
}

/// A file with other content than evidence is not replaced.
#[test]
fn evidence_goes_to_a_file() {
    let device = Device::new();
    device.generate("web", &[]);
    let out = device.word("web.evidence");
    for nonce in ["01", "02"] {
        let said = device.ends(0, &["attest", "web", "--nonce", nonce, "--out", &out]);
        assert!(said.out.is_empty(), "{said}");
        let bundle = Bundle::of_file(&device.path("web.evidence"));
        assert_eq!(certified(&bundle, "key").nonce.len(), 1);
    }
    fs::write(device.path("web.evidence"), "a letter").unwrap();
    device.refuses(
        6,
        &["attest", "web", "--out", &out],
        &["content of another kind"],
    );
    assert_eq!(fs::read(device.path("web.evidence")).unwrap(), b"a letter");
}

/// The PIN is shown once, where it is right, and nothing is counted.
#[test]
fn a_key_behind_a_pin_has_evidence_by_the_pin() {
    let device = Device::new();
    let pin = |arguments: &[&str]| {
        let mut tool = testkit::programs::program("pkcs11-tool");
        tool.arg("--module").arg(testkit::module::library());
        tool.args(["--token-label", "devid"]).args(arguments);
        testkit::programs::run(device.home.settle(&mut tool)).ok()
    };
    device.generate("seed", &[]);
    device.ends(0, &["key", "delete", "seed", "--yes"]);
    pin(&["--init-token", "--label", "devid", "--so-pin", "officer-7"]);
    pin(&[
        "--init-pin",
        "--login",
        "--so-pin",
        "officer-7",
        "--pin",
        "user-77",
    ]);
    pin(&[
        "--login",
        "--pin",
        "user-77",
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "web",
        "--usage-sign",
    ]);
    device.refuses(1, &["attest", "web", "--nonce", "01"], &["PIN"]);
    device.is_clean();
    let file = device.home.write("pin", "user-77");
    let file = file.to_str().unwrap();
    let bundle = device.attest(&["web", "--nonce", "01", "--pin-file", file]);
    certified(&bundle, "key").signed_the_request();
    device.is_clean();
}

/// The request holds what the TPM certified of its key, and OpenSSL still takes it.
#[test]
fn a_request_holds_what_the_tpm_certified() {
    let device = Device::with_factory(&[], &[]);
    device.generate("web", &[]);
    for label in ["web", "idev-id"] {
        let out = device.word(&format!("{label}.csr"));
        let words = [
            "csr",
            label,
            "--attest",
            "--nonce",
            "c0ffee",
            "--outform",
            "der",
            "--out",
            &out,
        ];
        device.ends(0, &words);
        let mut verify = program("openssl");
        verify.args(["req", "-inform", "DER", "-verify", "-noout", "-in", &out]);
        run(&mut verify).ok();
        let mut parse = program("openssl");
        parse.args(["asn1parse", "-inform", "DER", "-in", &out]);
        let parsed = run(&mut parse).ok().text();
        // No name is known to OpenSSL for id-aa-attestation and tcg-attest-tpm-certify.
        for object in [
            "1.2.840.113549.1.9.16.2.59",
            "2.23.133.20.1",
            "Extension Request",
        ] {
            assert!(parsed.contains(object), "{object}: {parsed}");
        }
        let (_, statement) = parsed.split_once("2.23.133.20.1").unwrap();
        let octets: Vec<&str> = statement
            .lines()
            .filter_map(|line| {
                line.split_once("OCTET STRING      [HEX DUMP]:")
                    .map(|(_, hex)| hex)
            })
            .collect();
        // TPMS_ATTEST of TPM2_Certify with the nonce, TPMT_SIGNATURE, TPMT_PUBLIC.
        assert!(octets[0].starts_with("FF5443478017"), "{parsed}");
        assert!(octets[0].contains("0003C0FFEE"), "{parsed}");
        assert!(octets[1].starts_with("0018000B"), "{parsed}");
        assert!(octets[2].starts_with("0023000B"), "{parsed}");
        device.is_clean();
    }
    device.refuses(2, &["csr", "web", "--nonce", "00"], &["--attest"]);
    device.generate("sealed", &["--sealed"]);
    device.refuses(
        6,
        &["csr", "sealed", "--attest"],
        &["sealed", "no evidence"],
    );
}
