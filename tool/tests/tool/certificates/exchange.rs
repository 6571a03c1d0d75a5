//! The contents of a request, the allowed answers of a CA, and exported certificates.

use crate::device::{Device, programs};
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(words: &[&str]) -> programs::Said {
    programs::run(programs::program("openssl").args(words)).ok()
}

/// `devid` with these bytes on its standard input.
fn fed(device: &Device, words: &[&str], bytes: &[u8]) -> programs::Said {
    let mut command = device.command(words);
    programs::run_with(command.stdin(Stdio::piped()), bytes)
}

fn with_key(label: &str) -> Device {
    let device = Device::blank();
    device.ends(0, &["key", "generate", label]);
    device
}

#[test]
fn a_request_asks_for_what_was_said() {
    let device = with_key("web");
    let words = [
        "csr",
        "web",
        "--subject",
        "CN=web,O=Example",
        "--san",
        "web.example,192.0.2.7",
        "--san",
        "uri:https://web.example/",
        "--eku",
        "serverAuth,clientAuth",
        "--key-usage",
        "digitalSignature,keyAgreement",
    ];
    let pem = device.ends(0, &words).out;
    let der = device
        .ends(
            0,
            &[&words[..], &["--outform", "der", "--out", "-"]].concat(),
        )
        .out;
    assert_eq!(der[0], 0x30);
    let file = device.path("web.csr");
    device.ends(
        0,
        &[&words[..], &["--outform", "der", "--out", text(&file)]].concat(),
    );
    for (form, bytes) in [
        ("PEM", pem),
        ("DER", der),
        ("DER", fs::read(&file).unwrap()),
    ] {
        let path = device.home.write("asked", bytes);
        let said = openssl(&[
            "req",
            "-verify",
            "-noout",
            "-text",
            "-inform",
            form,
            "-in",
            text(&path),
        ]);
        let said = said.text();
        for wanted in [
            "O = Example, CN = web",
            "DNS:web.example, IP Address:192.0.2.7, URI:https://web.example/",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "Digital Signature, Key Agreement",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }
    for wrong in [
        ["--san", "a b"],
        ["--eku", "server"],
        ["--key-usage", "sign"],
        ["--subject", "web"],
    ] {
        let said = device.ends(2, &[&["csr", "web"][..], &wrong].concat());
        assert!(said.out.is_empty(), "{said}");
        assert!(said.err.contains(wrong[1]), "{said}");
    }
}

/// The names that the factory gave stay beside those that somebody adds.
#[test]
fn further_names_of_the_own_identity_stand_beside_the_factorys() {
    let (device, _) = Device::manufactured();
    device.ends(0, &["provision", "--wait", "0"]);
    let plain = device
        .home
        .write("plain.csr", device.ends(0, &["csr", "devid"]).out);
    let more = device
        .ends(0, &["csr", "devid", "--san", "node.example"])
        .out;
    let more = device.home.write("more.csr", more);
    let names = |path: &Path| {
        let said = openssl(&["req", "-noout", "-text", "-in", text(path)]).text();
        let at = said
            .lines()
            .position(|line| line.contains("Subject Alternative Name"));
        let names = at.map(|at| said.lines().nth(at + 1).unwrap().trim().to_owned());
        names.unwrap_or_default()
    };
    let (plain, more) = (names(&plain), names(&more));
    assert!(more.ends_with("DNS:node.example"), "{more}");
    assert!(more.starts_with(&plain), "{plain} / {more}");
}

#[test]
fn every_form_of_an_answer_is_taken() {
    let device = with_key("web");
    let request = device.path("web.csr");
    device.ends(0, &["csr", "web", "--out", text(&request)]);
    let folder = device.path("ca");
    fs::create_dir(&folder).unwrap();
    let leaf = device.certified(&request, &folder);
    let (ca, root) = (folder.join("ca.pem"), folder.join("root.pem"));
    let p7 = |form: &str| {
        openssl(&[
            "crl2pkcs7",
            "-nocrl",
            "-outform",
            form,
            "-certfile",
            text(&root),
            "-certfile",
            text(&leaf),
            "-certfile",
            text(&ca),
        ])
        .out
    };
    let pem = p7("PEM");
    let lines: Vec<&str> = str::from_utf8(&pem).unwrap().lines().collect();
    let bare = lines[1..lines.len() - 1].concat();
    let whole = [&root, &ca, &leaf]
        .map(|path| fs::read(path).unwrap())
        .concat();
    let wanted: Vec<u8> = [&leaf, &ca, &root]
        .map(|path| openssl(&["x509", "-in", text(path)]).out)
        .concat();
    for (form, bytes) in [
        ("PKCS#7 in DER", p7("DER")),
        ("PKCS#7 in PEM", pem.clone()),
        ("PKCS#7 in base64", bare.into_bytes()),
        ("certificates in PEM", whole),
    ] {
        let said = fed(&device, &["import-cert", "-"], &bytes);
        assert!(said.status.success(), "{form}: {said}");
        let file = device.home.write("answer", &bytes);
        device.ends(0, &["import-cert", text(&file)]);
        let exported = device.ends(0, &["export", "web", "--fullchain"]).out;
        assert_eq!(exported, wanted, "{form}");
    }
    let cut = &pem[..pem.len() / 2];
    for bytes in [&b""[..], b"nonsense", cut, &p7("DER")[..200]] {
        let said = fed(&device, &["import-cert", "-"], bytes);
        assert_eq!(said.status.code(), Some(1), "{said}");
        assert!(said.err.contains("standard input: "), "{said}");
    }
    let exported = device.ends(0, &["export", "web", "--fullchain"]).out;
    assert_eq!(exported, wanted, "nothing was changed");
}

#[test]
fn certificates_are_exported_alone_and_with_their_chain() {
    let device = with_key("web");
    let said = device.ends(5, &["export", "web", "--cert"]);
    assert!(said.err.contains("devid csr web"), "{said}");
    let request = device.path("web.csr");
    device.ends(0, &["csr", "web", "--out", text(&request)]);
    let folder = device.path("ca");
    fs::create_dir(&folder).unwrap();
    let leaf = device.certified(&request, &folder);
    device.ends(0, &["import-cert", text(&leaf)]);
    device.ends(0, &["export", "web", "--cert"]);
    device.ends(5, &["export", "web", "--chain"]);
    let whole = [&leaf, &folder.join("ca.pem")]
        .map(|path| fs::read(path).unwrap())
        .concat();
    let file = device.home.write("answer", whole);
    device.ends(0, &["import-cert", text(&file)]);
    let count = |what: &str| {
        let pem = device.ends(0, &["export", "web", what]).text();
        pem.matches("-----BEGIN CERTIFICATE-----").count()
    };
    assert_eq!(["--cert", "--chain", "--fullchain"].map(count), [1, 1, 2]);
    let out = device.path("chain.pem");
    device.ends(0, &["export", "web", "--fullchain", "--out", text(&out)]);
    assert_eq!(
        fs::read(&out).unwrap(),
        device.ends(0, &["export", "web", "--fullchain"]).out
    );
    device.ends(2, &["export", "web"]);
    device.ends(2, &["export", "web", "--cert", "--tss2"]);
}
