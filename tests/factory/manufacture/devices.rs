//! Devices with each type of key, from the empty TPM to a signature by the module.

use super::{Line, MODEL, SERIAL, der, install, writes};
use std::fs;
use testkit::openssl::{Verifier, der as signature_der};

/// The template, pkcs11-tool's name of the mechanism, the hash, and the page's name of the key.
const KINDS: [(&str, &str, &str, &str); 4] = [
    ("h2", "ECDSA-SHA256", "-sha256", "EC_POINT 256 bits"),
    ("h3", "ECDSA-SHA384", "-sha384", "EC_POINT 384 bits"),
    ("h4", "ECDSA-SHA512", "-sha512", "EC_POINT 528 bits"),
    ("h1", "SHA256-RSA-PKCS", "-sha256", "RSA 2048 bits"),
];

#[test]
fn each_kind_is_shown_and_signs() {
    for (template, mechanism, hash, shown) in KINDS {
        let line = Line::with_keys(&["--template", template]);
        line.ends(0, &install("owner"));
        let seen = line.ends(
            0,
            &[
                "verify",
                "--serial",
                SERIAL,
                "--model",
                MODEL,
                "--ca",
                "ca/ca.pem",
            ],
        );
        assert!(!seen.text().contains("WRONG"), "{seen}");
        assert_eq!(line.nv("0x01C90200"), der(&line.path("idevid.pem")));
        assert_eq!(line.nv("0x01C90100"), der(&line.path("iak.pem")));

        let objects = line.pkcs11_tool(&["-O"]).text();
        assert!(objects.contains("idev-id"), "{template}: {objects}");
        assert!(
            objects.contains(shown) || template == "h4",
            "{template}: {objects}"
        );
        fs::write(line.path("data"), "data").unwrap();
        let mut words = vec![
            "--sign",
            "--mechanism",
            mechanism,
            "--input-file",
            "data",
            "--output-file",
            "signature",
            "--label",
            "idev-id",
        ];
        if template != "h1" {
            words.extend(["--signature-format", "openssl"]);
        }
        line.pkcs11_tool(&words);
        let signature = fs::read(line.path("signature")).unwrap();
        let verifier = Verifier::new(&line.path("requests/idevid-pub.pem"));
        verifier.accepts_der(hash, b"data", &signature).ok();

        let root = line.path("ca/root.pem");
        let verified = line.devid(&["verify", "idev-id", "--ca", root.to_str().unwrap()]);
        assert_eq!(verified.status.code(), Some(0), "{verified}");
    }
}

/// The request and both forms of TCG-CSR-IDEVID: OpenSSL verifies what the IDevID key signed.
#[test]
fn requests_are_signed_by_the_new_key() {
    let line = Line::with_keys(&["--template", "h3"]);
    let folder = line.path("requests");
    let mut request = testkit::programs::program("openssl");
    request.args(["req", "-verify", "-noout", "-subject", "-in"]);
    let said = testkit::programs::run(request.arg(folder.join("idevid.csr"))).ok();
    assert!(said.all().contains("verify OK"), "{said}");
    assert!(
        said.text().contains(SERIAL) && said.text().contains(MODEL),
        "{said}"
    );

    let contents = fs::read(folder.join("idevid.tcg-csr")).unwrap();
    assert_eq!(contents.len() % 16, 0);
    for name in [SERIAL, MODEL] {
        assert!(
            contents
                .windows(name.len())
                .any(|bytes| bytes == name.as_bytes())
        );
    }
    // TPMT_SIGNATURE: ECDSA, SHA-384, r and s of 48 bytes.
    let signature = fs::read(folder.join("idevid.tcg-csr.sig")).unwrap();
    assert_eq!(signature[..6], [0, 0x18, 0, 0x0C, 0, 48]);
    let raw = [&signature[6..54], &signature[56..]].concat();
    let verifier = Verifier::new(&folder.join("idevid-pub.pem"));
    verifier
        .accepts_der("-sha384", &contents, &signature_der(&raw))
        .ok();

    let enveloped = fs::read(folder.join("idevid.tcg-csr-enveloped")).unwrap();
    assert_eq!(enveloped[..4], [1, 0, 1, 0]);
    // The same files once more: a later run takes their names again.
    line.request();
    fs::write(folder.join("idevid.tcg-csr"), "notes").unwrap();
    line.ends(
        6,
        &[
            "csr", "--serial", SERIAL, "--model", MODEL, "--out", "requests",
        ],
    );
    assert_eq!(fs::read(folder.join("idevid.tcg-csr")).unwrap(), b"notes");
}

#[test]
fn what_tpm2_clear_leaves() {
    for (by, survives) in [("owner", false), ("platform", true)] {
        let line = Line::with_keys(&[]);
        let told = line.ends(0, &install(by)).text();
        assert!(told.contains(&format!("authorisation: {by}")), "{told}");
        let promised = match survives {
            true => "TPM2_Clear: survives",
            false => "TPM2_Clear: deletes it",
        };
        assert!(told.contains(promised), "{told}");
        line.tool("tpm2_clear", &["-c", "p"]).ok();
        let listed = line.devid(&["list"]);
        assert_eq!(
            listed.text().contains("\nidev-id\n"),
            survives,
            "{by}: {listed}"
        );
        assert_eq!(!line.nv("0x01C90200").is_empty(), survives);
        // The key comes back from the endorsement seed, so the certificate is still right.
        line.ends(0, &["keys"]);
        line.ends(0, &install(by));
        line.ends(0, &["verify", "--ca", "ca/ca.pem"]);
        assert_eq!(line.nv("0x01C90200"), der(&line.path("idevid.pem")));
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let line = Line::new();
    let seen = line.sends(0, &["keys", "--dry-run"]);
    assert_eq!(writes(&seen), 0, "{seen:?}");
    let seen = line.sends(0, &["keys"]);
    assert_eq!(writes(&seen), 2, "{seen:?}");
    line.certify();
    let dry = [&install("platform")[..], &["--dry-run"]].concat();
    let seen = line.sends(0, &dry);
    assert_eq!(writes(&seen), 0, "{seen:?}");
    let planned = line.ends(0, &dry).text();
    assert_eq!(planned.matches("would be done;").count(), 9, "{planned}");
    let seen = line.sends(0, &install("platform"));
    assert!(writes(&seen) >= 9, "{seen:?}");
}

/// A second run, and all that only looks.
#[test]
fn a_finished_device_is_written_no_more() {
    let line = Line::with_keys(&[]);
    line.ends(0, &install("owner"));
    for words in [
        &["keys"][..],
        &install("owner"),
        &["verify"],
        &["record"],
        &[
            "csr", "--serial", SERIAL, "--model", MODEL, "--out", "requests",
        ],
    ] {
        let seen = line.sends(0, words);
        assert_eq!(writes(&seen), 0, "{words:?}: {seen:?}");
    }
}

#[test]
fn the_record_is_one_line() {
    let line = Line::with_keys(&["--template", "h3"]);
    line.ends(5, &["record"]);
    line.ends(0, &install("owner"));
    let text = line.ends(0, &["record"]).text();
    assert_eq!(
        (text.matches('\n').count(), text.ends_with('\n')),
        (1, true)
    );
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["format"], "devid-manufacture/1");
    assert_eq!(
        (&record["serial"], &record["model"]),
        (&SERIAL.into(), &MODEL.into())
    );
    assert_eq!(record["keys"][0]["role"], "IDevID");
    assert_eq!(record["keys"][0]["certificate"]["survives_clear"], false);
    assert_eq!(record["keys"][1]["handle"], "0x81020001");

    // Appended once, and behind a line that a killed run left half.
    let (file, torn) = (line.path("records"), &text.as_bytes()[..40]);
    fs::write(&file, torn).unwrap();
    for _ in 0..2 {
        line.ends(0, &["record", "--append", "records"]);
        let there = fs::read_to_string(&file).unwrap();
        assert_eq!(there.lines().count(), 1, "{there}");
        assert!(there.ends_with('\n') && there.contains(SERIAL), "{there}");
    }
    fs::write(&file, "notes of somebody").unwrap();
    line.ends(1, &["record", "--append", "records"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "notes of somebody");
}

#[test]
fn the_manual_page_names_the_verbs() {
    let page = Line::new().ends(0, &["man"]).text();
    for verb in ["keys", "csr", "install", "verify", "record"] {
        assert!(page.contains(verb), "{verb}");
    }
}
