//! Faults of a server: the old certificate stays in use, the message says why, and the next try works.

use super::est::{bench, is_whole};

/// Fault, and words of the message.
pub const FAULTS: [(&str, &str); 26] = [
    ("unauthorized", "401: who are you?"),
    ("forbidden", "403: not you"),
    ("gone", "404: nothing here"),
    ("bad", "400: no such subject"),
    ("broken", "500: it fell down"),
    ("busy", "503: later, perhaps"),
    ("no-cacerts", "500: no certificates today"),
    ("silent", "did not answer within 2 s"),
    ("drip", "did not answer within 2 s"),
    ("closed", "closed the connection without an answer"),
    ("truncated", "PKCS#7 that is truncated"),
    ("short", "the answer is incomplete"),
    ("none", "contains no certificate"),
    ("page", "an HTML page"),
    ("empty", "the server answered"),
    ("huge", "over 1048576 bytes"),
    ("around", "redirects too often"),
    ("elsewhere", "redirects to another server"),
    ("wrong-key", "for another key"),
    ("expired-ca", "does not lead to a trusted certificate"),
    ("stranger", "does not lead to a trusted certificate"),
    ("over", "was valid until"),
    ("future", "is not valid before"),
    ("older", "is older"),
    ("authority", "CA:TRUE"),
    ("wants-garbage", "csrattrs"),
];

#[test]
fn a_fault_of_the_server_changes_nothing_and_is_named() {
    let (device, est) = bench();
    assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    let first = is_whole(&device, &est, "web");
    let folder = || {
        let entries = std::fs::read_dir(device.path("state/devid")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = folder();
    for (fault, words) in FAULTS {
        let limit: &[&str] = match fault {
            "silent" | "drip" => &["--timeout", "2"],
            _ => &[],
        };
        let (url, root) = (est.url("good", fault), est.certificate("root"));
        let all = ["enroll", "web", "--est", &url, "--trust", &root];
        let said = device.devid(&[&all[..], limit].concat());
        assert!(matches!(said.status.code(), Some(1 | 6)), "{fault}: {said}");
        assert!(said.err.contains(words), "{fault}: {said}");
        assert!(!said.err.contains('\x1b'), "{fault}: {said}");
        assert_eq!(is_whole(&device, &est, "web"), first, "{fault}");
        assert_eq!(folder(), before, "{fault}");
    }
    // And then it is in order again.
    assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    assert_ne!(is_whole(&device, &est, "web"), first);
}

#[test]
fn a_refused_session_is_named() {
    let (device, est) = bench();
    let root = est.certificate("root");
    for (kind, words) in [
        (
            "alert",
            "does not know the CA of the identity's certificate",
        ),
        (
            "no-question",
            "did not ask for a certificate in the TLS handshake",
        ),
    ] {
        let said = device.ends(
            1,
            &[
                "enroll",
                "web",
                "--est",
                &est.url(kind, ""),
                "--trust",
                &root,
            ],
        );
        assert!(said.err.contains(words), "{kind}: {said}");
    }
    // No server listens on this port any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("https://localhost:{port}");
    let said = device.ends(1, &["enroll", "web", "--est", &url, "--trust", &root]);
    assert!(said.err.contains("refused"), "{said}");
    for wrong in ["http://localhost/", "localhost", "https://a/?x"] {
        device.ends(2, &["enroll", "web", "--est", wrong, "--trust", &root]);
    }
    let said = device.ends(6, &["enroll", "idev-id", "--est", &url, "--trust", &root]);
    assert!(said.err.contains("factory"), "{said}");
}
