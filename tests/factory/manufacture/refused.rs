//! Refusals: nothing is written, and the existing content stays.

use super::{Line, MODEL, SERIAL, der, install, writes};
use std::fs;
use testkit::programs::{program, run};
use testkit::tpm::Swtpm;

fn persistent(line: &Line) -> String {
    line.tool("tpm2_getcap", &["handles-persistent"])
        .ok()
        .text()
}

#[track_caller]
fn refuses(line: &Line, words: &[&str], why: &str) {
    let before = (persistent(line), line.nv("0x01C90200"));
    line.proxy.book().take();
    let said = line.ends(6, words);
    let seen = line.proxy.book().take();
    assert_eq!(writes(&seen), 0, "{seen:?}");
    assert!(said.all().contains(why), "{why}: {said}");
    assert_eq!((persistent(line), line.nv("0x01C90200")), before);
}

#[test]
fn a_tpm_with_another_identity() {
    let (tpm, _) = Swtpm::manufactured_with(&["--unique", "none"]);
    let line = Line::at(tpm);
    refuses(
        &line,
        &["keys"],
        "0x81020000 holds the key of another identity",
    );
    refuses(
        &line,
        &["keys", "--dry-run"],
        "0x81020000 holds the key of another identity",
    );
    // At another handle and index.
    let (tpm, _) = Swtpm::manufactured_with(&[
        "--unique",
        "x",
        "--handle",
        "0x81020010",
        "--nv",
        "0x01C90020",
    ]);
    refuses(
        &Line::at(tpm),
        &["keys"],
        "0x81020010 holds the key of another identity",
    );
    // A certificate whose key is nowhere.
    let (tpm, _) = Swtpm::manufactured_with(&["--no-key"]);
    refuses(
        &Line::at(tpm),
        &["keys"],
        "holds a certificate of another identity",
    );
}

/// The same key as another maker's tool left it is no other identity.
#[test]
fn a_device_of_the_same_keys_is_taken_as_it_is() {
    let (tpm, identity) = Swtpm::manufactured();
    let line = Line::at(tpm);
    let seen = line.sends(0, &["keys", "--no-iak"]);
    assert_eq!(writes(&seen), 0, "{seen:?}");
    let certificate = identity.certificate();
    let words = [
        "install",
        "--serial",
        "SN-000001",
        "--model",
        "Example-1000",
        "--no-iak",
        "--by",
        "owner",
        "--idevid-cert",
        certificate.to_str().unwrap(),
    ];
    let seen = line.sends(0, &words);
    assert_eq!(writes(&seen), 0, "{seen:?}");
    // Its index would not survive as those of the platform do.
    let mut platform = words;
    platform[7] = "platform";
    refuses(&line, &platform, "the owner hierarchy already defined it");
}

#[test]
fn handles_and_indices_that_hold_something_else() {
    let line = Line::new();
    line.tool(
        "tpm2_createprimary",
        &["-C", "o", "-G", "ecc256", "-c", "storage.ctx"],
    )
    .ok();
    line.tool(
        "tpm2_evictcontrol",
        &["-C", "o", "-c", "storage.ctx", "0x81020001"],
    )
    .ok();
    line.tool("tpm2_flushcontext", &["-t"]).ok();
    refuses(&line, &["keys"], "0x81020001 does not hold the IAK key");

    let line = Line::with_keys(&[]);
    fs::write(line.path("other"), "somebody's").unwrap();
    line.tool("tpm2_nvdefine", &["-C", "o", "-s", "10", "0x01C90100"])
        .ok();
    line.tool("tpm2_nvwrite", &["-C", "o", "-i", "other", "0x01C90100"])
        .ok();
    refuses(
        &line,
        &install("owner"),
        "0x01C90100 cannot hold the IAK certificate",
    );
    assert_eq!(line.nv("0x01C90100"), b"somebody's");
    // Defined, and not written: its owner has a use for it.
    let line = Line::with_keys(&[]);
    line.tool("tpm2_nvdefine", &["-C", "o", "-s", "10", "0x01C90200"])
        .ok();
    refuses(
        &line,
        &install("owner"),
        "0x01C90200 cannot hold the IDevID certificate",
    );
}

#[test]
fn certificates_that_do_not_fit() {
    let line = Line::with_keys(&[]);
    let with = |name: &'static str| {
        let mut words = install("owner");
        words[6] = name;
        words
    };
    for (name, options, why) in [
        (
            "serial.pem",
            &["--serial", "SN-8"][..],
            "the serial number in the certificate is \"SN-8\"",
        ),
        (
            "model.pem",
            &["--model", "EX-2000"],
            "the model in the certificate is \"EX-2000\"",
        ),
        ("ca-true.pem", &["--constraints", "CA:TRUE"], "CA:TRUE"),
        ("old.pem", &["--until", "20250101000000Z"], "validity"),
        (
            "policy.pem",
            &["--policy", "2.23.133.11.1.3"],
            "certificate policy",
        ),
    ] {
        line.issue(name, options);
        refuses(&line, &with(name), why);
    }
    refuses(&line, &with("iak.pem"), "is not for the IDevID key");
    // Another CA than the one that is to be kept beside it.
    let mut other = install("owner");
    other[10] = "ca/root.pem";
    refuses(&line, &other, "did not sign the certificate");
    other[10] = "idevid.pem";
    refuses(&line, &other, "not a CA certificate");
    line.ends(2, &["keys", "--idevid-handle", "0x81000001"]);
    line.ends(2, &["keys", "--idevid-nv", "0x01C00002"]);
    line.ends(
        2,
        &["csr", "--serial", "", "--model", MODEL, "--out", "requests"],
    );
    // All is well after that.
    line.ends(0, &install("owner"));
    assert_eq!(line.nv("0x01C90200"), der(&line.path("idevid.pem")));
}

/// The owner's value from a file; a wrong one, and the platform's that firmware closed.
#[test]
fn hierarchies_with_values() {
    let line = Line::new();
    line.tool("tpm2_changeauth", &["-c", "o", "owner"]).ok();
    let said = line.ends(1, &["keys"]);
    assert!(said.all().contains("owner hierarchy"), "{said}");
    let file = line.home.write("owner", "owner");
    let owner = format!("file:{}", file.display());
    line.ends(0, &["keys", "--owner-auth", &owner]);
    line.certify();
    line.tool("tpm2_changeauth", &["-c", "p", "closed"]).ok();
    let said = line.ends(6, &install("platform"));
    assert!(
        said.all().contains("platform hierarchy cannot be used"),
        "{said}"
    );
    assert!(line.nv("0x01C90200").is_empty());
    let file = line.home.write("platform", "closed");
    let platform = format!("file:{}", file.display());
    line.ends(
        0,
        &[&install("platform")[..], &["--platform-auth", &platform]].concat(),
    );
    let said = line.ends(0, &["verify", "--serial", SERIAL, "--model", MODEL]);
    assert!(said.text().contains("TPM2_Clear: survives"), "{said}");
}

/// A TPM whose certificate is damaged is told from a right one.
#[test]
fn a_wrong_certificate_is_found() {
    let line = Line::with_keys(&[]);
    run(program("openssl")
        .args([
            "x509", "-in", "iak.pem", "-outform", "DER", "-out", "iak.der",
        ])
        .current_dir(line.home.folder()))
    .ok();
    let size = fs::metadata(line.path("iak.der"))
        .unwrap()
        .len()
        .to_string();
    let open = "authread|ownerread|ppread|ownerwrite|no_da";
    line.tool(
        "tpm2_nvdefine",
        &["-C", "o", "-s", &size, "-a", open, "0x01C90200"],
    )
    .ok();
    line.tool("tpm2_nvwrite", &["-C", "o", "-i", "iak.der", "0x01C90200"])
        .ok();
    let said = line.ends(1, &["verify"]);
    assert!(said.text().contains("WRONG: NV index 0x01C90200"), "{said}");
}
