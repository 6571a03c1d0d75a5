//! Input from other programs, and wrong or repeated arguments.

use crate::device::tpm::Swtpm;
use crate::device::{Device, programs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(words: &[&str]) -> programs::Said {
    programs::run(programs::program("openssl").args(words)).ok()
}

/// The file of the only key that is called so.
fn file_of(device: &Device, label: &str) -> PathBuf {
    let shown = device.json(&["show", label]);
    let place = shown["key"]["place"].as_str().unwrap().to_owned();
    PathBuf::from(place.rsplit("wrapped in ").next().unwrap())
}

/// A certificate whose names begin lines and steer terminals is shown in its own lines.
#[test]
fn what_a_certificate_says_stays_in_its_line() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let (key, certificate) = (device.path("k.pem"), device.path("c.pem"));
    let subject =
        "/serialNumber=S1/CN=a\u{202e}\n  SHA-256       forged\u{1b}]0;b\u{7}\n  \u{9b}2J";
    openssl(&[
        "req",
        "-x509",
        "-utf8",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-keyout",
        text(&key),
        "-out",
        text(&certificate),
        "-subj",
        subject,
        "-days",
        "2",
    ]);
    let written = format!(
        "Label: web\u{202e}bew\n{}",
        fs::read_to_string(&certificate).unwrap()
    );
    let placed = device.path("state/devid/certificate-odd.pem");
    fs::write(&placed, written).unwrap();
    fs::set_permissions(&placed, fs::Permissions::from_mode(0o640)).unwrap();
    let label = "web\u{202e}bew";
    let steers = |one: char| one != '\n' && (one.is_control() || one == '\u{202e}');
    let all: [&[&str]; 7] = [
        &["show", label],
        &["list"],
        &["status"],
        &["doctor"],
        &["verify", label, "--ca", text(&certificate)],
        &["uri", label],
        &["csr", label],
    ];
    for words in all {
        let said = device.devid(words);
        let told = said.text() + &said.err;
        assert!(!told.contains(steers), "{words:?}: {told:?}");
        let forged = told
            .lines()
            .any(|line| line.starts_with("  SHA-256       forged"));
        assert!(!forged, "{words:?}: {told}");
    }
    let shown = device.ends(0, &["show", label]).text();
    assert!(shown.contains("a\\u{202e}\\n  SHA-256"), "{shown}");
    // JSON has a way of its own to write them.
    let shown = device.json(&["show", label]);
    let model = shown["certificates"][0]["model"].as_str().unwrap();
    assert!(model.starts_with("a\u{202e}\n  SHA-256"), "{shown}");
}

#[test]
fn the_factorys_name_is_the_factorys() {
    let (device, _) = Device::manufactured();
    device.ends(6, &["key", "generate", "idev-id"]);
    device.ends(0, &["key", "generate", "web"]);
    // Applications can give that name all the same.
    let file = file_of(&device, "web");
    let renamed = fs::read_to_string(&file).unwrap();
    fs::write(&file, renamed.replace("Label: web", "Label: idev-id")).unwrap();
    assert_eq!(device.json(&["show", "idev-id"])["token"], "idev-id");
    for words in [["uri", "idev-id"], ["csr", "idev-id"]] {
        device.ends(0, &words);
    }
    let own = device.json(&["show", "devid/idev-id"]);
    assert_eq!(own["token"], "devid");
    device.ends(0, &["key", "delete", "devid/idev-id", "--yes"]);
}

#[test]
fn keys_of_one_name_in_two_tokens_are_told_apart_by_these() {
    let device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    let settings = "[[token]]\nname = \"extra\"\n";
    device.home.write("config.toml", settings);
    let (from, to) = (device.path("state/devid"), device.path("state/extra"));
    fs::rename(from, to).unwrap();
    device.ends(0, &["key", "generate", "web"]);
    let said = device.ends(2, &["show", "web"]);
    assert!(said.err.contains("devid/web or extra/web"), "{said}");
    device.ends(0, &["show", "extra/web"]);
}

#[test]
fn of_those_who_make_one_key_at_once_one_does() {
    let device = Device::blank();
    device.ends(0, &["key", "generate", "first"]);
    let start = |_| {
        device
            .command(&["key", "generate", "same"])
            .spawn()
            .unwrap()
    };
    let started: Vec<_> = (0..4).map(start).collect();
    let code = |mut one: std::process::Child| one.wait().unwrap().code().unwrap();
    let mut codes: Vec<i32> = started.into_iter().map(code).collect();
    codes.sort();
    assert_eq!(codes, [0, 6, 6, 6]);
    let listed = device.json(&["key", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
}

#[test]
fn a_request_is_signed_by_every_kind_of_key_in_a_file() {
    let device = Device::without_tpm();
    let (key, certificate) = (device.path("k.pem"), device.path("c.pem"));
    device.home.write(
        "config.toml",
        format!("[provision]\nexisting = {{ certificate = {certificate:?}, key = {key:?} }}\n"),
    );
    let request = device.path("r.csr");
    for kind in [
        "ec_paramgen_curve:P-384",
        "ec_paramgen_curve:P-521",
        "rsa_keygen_bits:2048",
    ] {
        let algorithm = if kind.starts_with("rsa") { "rsa" } else { "ec" };
        openssl(&[
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            algorithm,
            "-pkeyopt",
            kind,
            "-keyout",
            text(&key),
            "-out",
            text(&certificate),
            "-subj",
            "/serialNumber=S1",
            "-days",
            "2",
        ]);
        device.ends(0, &["csr", "existing", "--out", text(&request)]);
        openssl(&["req", "-verify", "-noout", "-in", text(&request)]);
        let public = |words: &[&str]| openssl(&[words, &["-noout", "-pubkey"]].concat()).text();
        assert_eq!(
            public(&["req", "-in", text(&request)]),
            public(&["x509", "-in", text(&certificate)]),
            "{kind}"
        );
    }
}

#[test]
fn a_request_by_a_key_that_asks_for_a_pin() {
    let (tpm, _) = Swtpm::manufactured_with(&["--auth", "geheim"]);
    let mut device = Device::with(Some(tpm));
    let setting = "[[identity]]\nhandle = 0x81020000\nauth = \"pin\"\n";
    device.home.write("config.toml", setting);
    let said = device.ends(1, &["csr", "idev-id"]);
    assert!(said.err.contains("--pin-file FILE"), "{said}");
    assert_eq!(device.tpm().lockout_counter(), 0, "nothing was tried");
    let (right, wrong) = (
        device.home.write("right", "geheim\n"),
        device.home.write("wrong", "falsch\n"),
    );
    let said = device.ends(1, &["csr", "idev-id", "--pin-file", text(&wrong)]);
    assert!(said.err.contains("wrong PIN"), "{said}");
    let out = device.path("r.csr");
    let words = [
        "csr",
        "idev-id",
        "--pin-file",
        text(&right),
        "--out",
        text(&out),
    ];
    device.ends(0, &words);
    openssl(&["req", "-verify", "-noout", "-in", text(&out)]);
    assert_eq!(device.tpm().lockout_counter(), 1);
}

#[test]
fn files_of_all_tokens_are_looked_at() {
    let device = Device::blank();
    device
        .home
        .write("config.toml", "[[token]]\nname = \"extra\"\n");
    fs::create_dir(device.path("state/extra")).unwrap();
    let junk = device.home.write("state/extra/key-odd.pem", "no key");
    fs::set_permissions(&junk, fs::Permissions::from_mode(0o640)).unwrap();
    let leaf = include_str!("../../../../core/testdata/leaf.pem");
    let written = format!("Label: lone\n{leaf}");
    let lone = device
        .home
        .write("state/extra/certificate-lone.pem", written);
    fs::set_permissions(&lone, fs::Permissions::from_mode(0o640)).unwrap();
    let findings = device.json(&["doctor"]);
    let findings = findings.as_array().unwrap();
    let object = |id: &str| {
        let found = findings.iter().find(|one| one["id"] == id);
        found.unwrap_or_else(|| panic!("{id}"))["object"].clone()
    };
    assert_eq!(object("keys.file"), text(&junk));
    assert_eq!(object("keys.lone-certificate"), "extra/lone");
}

/// Each error message names the next step.
#[test]
fn a_fault_names_the_next_step() {
    let mut device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    let serial = device.path("state/devid/.serial");
    fs::write(&serial, "").unwrap();
    let said = device.ends(1, &["key", "list"]);
    assert!(said.err.contains(text(&serial)), "{said}");

    device = Device::blank();
    let mut owner = device.tpm().tool("tpm2_changeauth");
    programs::run(owner.args(["-c", "o", "secret"])).ok();
    let said = device.ends(1, PROVISION);
    assert!(said.err.contains("owner_auth = \"file:/PATH\""), "{said}");
}
