//! Successful enrolment by EST against a strict server.

use crate::device::est::Est;
use crate::device::{Device, programs};
use std::fs;
use std::path::Path;

fn openssl(words: &[&str]) -> programs::Said {
    programs::run(programs::program("openssl").args(words))
}

/// A device with a factory identity, and a server that knows its factory.
pub fn bench() -> (Device, Est) {
    let (device, factory) = Device::manufactured();
    let est = Est::start(&device, &factory);
    (device, est)
}

#[track_caller]
fn enrolled(
    device: &Device,
    est: &Est,
    label: &str,
    fault: &str,
    words: &[&str],
) -> programs::Said {
    let said = est.enroll(device, label, fault, words);
    assert_eq!(said.status.code(), Some(0), "{fault}: {said}");
    said
}

/// The certificate of a label, and its key that signs: judged by OpenSSL.
#[track_caller]
pub fn is_whole(device: &Device, est: &Est, label: &str) -> String {
    let chain = device.ends(0, &["export", label, "--fullchain"]).out;
    let file = device.home.write("judged.pem", chain);
    let file = file.to_str().unwrap();
    openssl(&[
        "verify",
        "-CAfile",
        &est.certificate("root"),
        "-untrusted",
        file,
        file,
    ])
    .ok();
    let said = device.ends(0, &["verify", label, "--ca", &est.certificate("root")]);
    assert!(said.text().contains("it signed random bytes"), "{said}");
    openssl(&["x509", "-noout", "-serial", "-subject", "-in", file])
        .ok()
        .text()
}

#[test]
fn a_key_is_made_certified_and_renewed() {
    let (device, est) = bench();
    let said = enrolled(&device, &est, "web", "", &["--san", "web.example"]);
    assert!(said.text().contains("a key was made: web"), "{said}");
    let first = is_whole(&device, &est, "web");
    assert!(first.contains("CN = web"), "{first}");
    let asked = est.operations();
    let names: Vec<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["cacerts", "csrattrs", "simpleenroll"]);
    let factory = openssl(&[
        "x509",
        "-in",
        &device.ends(0, &["export", "idev-id", "--cert"]).text(),
    ]);
    drop(factory);

    // The second time the certificate itself is shown, and its names stand in the request.
    let said = enrolled(&device, &est, "web", "", &[]);
    assert!(said.text().contains("in place of"), "{said}");
    assert_ne!(is_whole(&device, &est, "web"), first);
    let requests = est.requests();
    assert_eq!(
        est.operations()[3..]
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["cacerts", "csrattrs", "simplereenroll"]
    );
    assert_ne!(
        requests[2]["peer"], requests[5]["peer"],
        "the factory's identity, then its own"
    );
    assert!(!device.ends(0, &["enroll", "--help"]).out.is_empty());
}

/// Whatever form an answer has that RFC 8951, or a server of today, gives it.
#[test]
fn every_form_of_an_answer_is_taken() {
    let (device, est) = bench();
    for form in [
        "created",
        "lines",
        "pem",
        "raw",
        "open-lengths",
        "order",
        "crls",
        "extra",
        "chunked",
        "http10",
        "here",
        "wants-404",
        "wants-purpose",
    ] {
        enrolled(&device, &est, "web", form, &["--as", "idev-id"]);
        is_whole(&device, &est, "web");
    }
    let text = device.ends(0, &["export", "web", "--cert"]).out;
    let file = device.home.write("web.pem", text);
    let said = openssl(&["x509", "-noout", "-text", "-in", file.to_str().unwrap()])
        .ok()
        .text();
    assert!(
        said.contains("TLS Web Client Authentication"),
        "the server's wish: {said}"
    );
}

#[test]
fn the_key_is_made_as_the_server_wants_it() {
    let (device, est) = bench();
    enrolled(&device, &est, "strong", "wants-p384", &[]);
    let shown = device.ends(0, &["show", "strong"]).text();
    assert!(shown.contains("P-384"), "{shown}");
    is_whole(&device, &est, "strong");
    enrolled(&device, &est, "web", "", &[]);
    let said = est.enroll(&device, "web", "wants-p384", &["--as", "idev-id"]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(
        said.err.contains("P384") && said.err.contains("web"),
        "{said}"
    );
    for (wish, words) in [
        ("wants-odd", "1.3.132.0.10"),
        ("wants-binding", "tls-unique"),
    ] {
        let said = est.enroll(&device, "odd", wish, &[]);
        assert_eq!(said.status.code(), Some(1), "{said}");
        assert!(said.err.contains(words), "{said}");
        device.ends(5, &["show", "odd"]);
    }
}

/// Servers do not let a certificate for servers alone open a session.
#[test]
fn a_certificate_that_is_not_for_clients_is_renewed_by_the_factorys_identity() {
    let (device, est) = bench();
    for _ in 0..2 {
        enrolled(&device, &est, "web", "", &["--eku", "serverAuth"]);
        is_whole(&device, &est, "web");
    }
    let peers: Vec<_> = est
        .requests()
        .iter()
        .map(|one| one["peer"].clone())
        .collect();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
}

#[test]
fn keys_of_every_kind_enroll_and_renew() {
    let (device, est) = bench();
    for (label, kind) in [
        ("a", "p256"),
        ("b", "p384"),
        ("c", "p521"),
        ("d", "rsa2048"),
    ] {
        device.ends(0, &["key", "generate", label, "--algorithm", kind]);
        enrolled(&device, &est, label, "", &[]);
        is_whole(&device, &est, label);
        // Now the key itself opens the session, with TLS 1.3 and 1.2.
        enrolled(&device, &est, label, "", &[]);
        // OpenSSL wants no client key on P-521 with TLS 1.2: rustls does not list the curve.
        if kind == "p521" {
            continue;
        }
        let url = est.url("tls12", "");
        let root = est.certificate("root");
        device.ends(0, &["enroll", label, "--est", &url, "--trust", &root]);
        is_whole(&device, &est, label);
    }
    assert_eq!(
        est.operations()
            .iter()
            .filter(|(name, _)| name == "simplereenroll")
            .count(),
        7
    );
}

#[test]
fn a_server_that_asks_for_patience_gets_the_same_request_again() {
    let (device, est) = bench();
    let said = est.enroll(&device, "web", "later-2", &[]);
    assert_eq!(said.status.code(), Some(7), "{said}");
    assert!(said.text().contains("pending"), "{said}");
    let said = est.enroll(&device, "web", "later-2", &["--json"]);
    assert_eq!(said.status.code(), Some(7), "{said}");
    assert!(said.text().contains("\"retry_after\": 5"), "{said}");
    enrolled(&device, &est, "web", "later-2", &[]);
    is_whole(&device, &est, "web");
    let posted = est
        .requests()
        .into_iter()
        .filter(|one| !one["request"].is_null());
    let bodies: Vec<_> = posted.map(|one| one["request"].clone()).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|one| *one == bodies[0]), "{bodies:?}");
    // Another time all of it in one go.
    enrolled(&device, &est, "other", "later", &["--wait", "30"]);
    let said = est.enroll(&device, "third", "later-silent", &["--json"]);
    assert!(said.text().contains("\"retry_after\": 60"), "{said}");
}

#[test]
fn a_password_is_shown_where_the_server_asks_for_it() {
    let (device, est) = bench();
    let right = device.home.write("password", "secret\n");
    let wrong = device.home.write("wrong", "guess");
    for scheme in ["password", "digest"] {
        let words = ["--user", "est", "--password-file", right.to_str().unwrap()];
        enrolled(&device, &est, scheme, scheme, &words);
        let words = ["--user", "est", "--password-file", wrong.to_str().unwrap()];
        let said = est.enroll(&device, scheme, scheme, &words);
        assert_eq!(said.status.code(), Some(1), "{said}");
        assert!(
            said.err.contains("401") && said.err.contains("password"),
            "{said}"
        );
        assert!(!said.err.contains("guess"), "{said}");
    }
}

#[test]
fn a_fingerprint_says_which_server_is_believed() {
    let (device, est) = bench();
    let print = |name: &str| {
        let words = [
            "x509",
            "-noout",
            "-fingerprint",
            "-sha256",
            "-in",
            &est.certificate(name),
        ];
        let said = openssl(&words).ok().text();
        said.trim().split_once('=').unwrap().1.to_owned()
    };
    let url = est.url("good", "");
    let said = device.ends(
        0,
        &[
            "enroll",
            "web",
            "--est",
            &url,
            "--fingerprint",
            &print("root"),
        ],
    );
    let shown = print("root").replace(':', "").to_lowercase();
    assert!(
        said.text().contains("trusted by its fingerprint") && said.text().contains(&shown),
        "{said}"
    );
    is_whole(&device, &est, "web");
    let before = est.requests().len();
    let said = device.ends(
        1,
        &[
            "enroll",
            "web",
            "--est",
            &url,
            "--fingerprint",
            &print("stranger"),
        ],
    );
    assert!(
        said.err.contains("not trusted") && said.err.contains("CN=root"),
        "{said}"
    );
    assert_eq!(est.requests().len(), before + 1, "cacerts alone");
    assert!(
        est.requests()[before]["peer"].is_null(),
        "no identity was shown"
    );
    for words in [&["--fingerprint", "abc"][..], &[]] {
        device.ends(2, &[&["enroll", "web", "--est", &url], words].concat());
    }
}

/// A server can be trusted by its own certificate, by its name, or by a purpose in its certificate.
#[test]
fn a_server_is_believed_for_its_name_its_task_or_itself() {
    let (device, est) = bench();
    let root = est.certificate("root");
    let chain = fs::read_to_string(Path::new(&root).with_file_name("other.chain")).unwrap();
    let pinned = device.home.write(
        "pinned.pem",
        chain
            .split_inclusive("-----END CERTIFICATE-----\n")
            .next()
            .unwrap(),
    );
    let pinned = pinned.to_str().unwrap();
    for (kind, trust, code) in [
        ("registration-authority", root.as_str(), 0),
        ("other-name", &root, 1),
        ("other-name", pinned, 0),
        ("expired", &root, 1),
        ("good", &est.certificate("stranger"), 1),
        ("good", &est.certificate("expired"), 1),
        ("plain", &root, 1),
    ] {
        let url = est.url(kind, "");
        let said = device.devid(&[
            "enroll",
            "web",
            "--est",
            &url,
            "--trust",
            trust,
            "--timeout",
            "20",
        ]);
        // A pinned server tells its CAs itself.
        assert_eq!(said.status.code(), Some(code), "{kind} {trust}: {said}");
        if code != 0 {
            let words = [
                "not trusted",
                "no server can be trusted",
                "does not use TLS",
            ];
            assert!(
                words.iter().any(|words| said.err.contains(words)),
                "{kind}: {said}"
            );
        }
    }
}
