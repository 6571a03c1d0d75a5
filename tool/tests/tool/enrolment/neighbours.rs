//! Enrolment with identities of every type, and with servers in every configuration.

use super::est::is_whole;
use crate::device::est::Est;
use crate::device::tpm::Swtpm;
use crate::device::{Device, programs};

/// The factory's identity opens a session with the newest TLS and with TLS 1.2, by whatever it signs with.
#[test]
fn factory_identities_of_every_kind_open_a_session() {
    for (options, kinds) in [
        (&["--template", "h1"][..], &["good", "tls12"][..]),
        (
            &["--template", "h1", "--scheme", "rsapss"],
            &["good", "tls12"],
        ),
        (
            &["--template", "h1", "--scheme", "rsassa"],
            &["good", "tls12"],
        ),
        (&["--template", "h3"], &["good", "tls12"]),
        // OpenSSL's servers want no client key on P-521 with TLS 1.2: rustls does not list the curve.
        (&["--template", "h4"], &["good"]),
    ] {
        let (tpm, factory) = Swtpm::manufactured_with(options);
        let device = Device::with(Some(tpm));
        let est = Est::start(&device, &factory);
        for kind in kinds {
            let (url, root) = (est.url(kind, ""), est.certificate("root"));
            let words = ["enroll", kind, "--est", &url, "--trust", &root];
            let said = device.devid(&words);
            assert_eq!(said.status.code(), Some(0), "{options:?} {kind}: {said}");
            is_whole(&device, &est, kind);
        }
        assert!(
            est.requests().iter().all(|one| !one["peer"].is_null()),
            "{options:?}"
        );
    }
}

/// A URL without port means 443. The server stands at an address of this machine that nobody else uses, with
/// the certificate of a registration authority, which counts whatever its name is.
#[test]
fn a_server_without_port_is_asked_at_443() {
    let (device, factory) = Device::manufactured();
    let [.., b, c] = std::process::id().to_be_bytes();
    let address = format!("127.83.{b}.{}", c.max(1));
    let kind = "registration-authority";
    let options = ["--bind", &address, "--default-port", kind];
    let est = Est::start_at(&device, &factory, &options);
    let (url, root) = (format!("https://{address}"), est.certificate("root"));
    device.ends(0, &["enroll", "web", "--est", &url, "--trust", &root]);
    is_whole(&device, &est, "web");
}

/// An address of IPv6, and a proxy in the environment, by which no EST goes.
#[test]
fn a_server_is_reached_by_its_address_and_without_a_proxy() {
    let (device, factory) = Device::manufactured();
    let est = Est::start_at(&device, &factory, &["--bind", "::1"]);
    let root = est.certificate("root");
    let url = est.url("good", "").replace("localhost", "[::1]");
    let mut command = device.command(&["enroll", "web", "--est", &url, "--trust", &root]);
    for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"] {
        command.env(name, "http://192.0.2.1:3128");
    }
    programs::run(&mut command).ok();
    is_whole(&device, &est, "web");
    // By a path of one's own there is nothing.
    let url = url.replace("/.well-known/est", "/elsewhere");
    let said = device.ends(1, &["enroll", "web", "--est", &url, "--trust", &root]);
    assert!(
        said.err.contains("the path of the URL may be wrong"),
        "{said}"
    );
}
