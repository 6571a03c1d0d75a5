//! Many TLS handshakes in one process with pkcs11-provider. In each handshake the client signs with
//! the TPM's key and verifies the server.

use std::fs;
use std::process::Command;
use testkit::budgets::commands::{ALGORITHMS, NOTHING, listing};
use testkit::budgets::is_exactly;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::pins::Bench;
use testkit::programs::{program, run};
use testkit::proxy::Proxy;
use testkit::tls::{
    Server, Site, chain_file, handshakes, key_file, nginx, openssl_server_with_identity,
    server_identity_of, trust_file, with_provider, without_early_load,
};
use testkit::tpm::Swtpm;

over_our_transport!(
    with_an_rsa_server,
    with_an_ec_server,
    python_with_a_new_connection_before_the_last_is_gone,
    curl_with_many_urls,
    an_rsa_identity,
    a_pin_that_the_configuration_does_not_know,
    without_the_early_load,
    a_server_that_verifies_its_clients,
    what_the_early_load_costs,
);

const EC: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["rsa:2048"];
const MANY: usize = 20;

/// A client's home, its identity, and a server with a key of this kind that insists on it.
fn with_server(link: Link, kind: &[&str], factory: &[&str]) -> (Swtpm, Home, Identity, Server) {
    let (tpm, identity) = Swtpm::manufactured_with(factory);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    server_identity_of(&home, kind);
    let server = openssl_server_with_identity(&home, &identity);
    (tpm, home, identity, server)
}

fn with_an_rsa_server(link: Link) {
    by_s_time(link, RSA);
}

fn with_an_ec_server(link: Link) {
    by_s_time(link, EC);
}

fn by_s_time(link: Link, kind: &[&str]) {
    let (_tpm, home, identity, server) = with_server(link, kind, &[]);
    let mut time = with_provider("openssl", &home);
    let address = server.address();
    time.args(["s_time", "-new", "-verify", "3", "-connect", &address]);
    time.arg("-cert")
        .arg(chain_file(&home, &identity))
        .arg("-key")
        .arg(key_file(&home));
    time.arg("-CAfile").arg(home.path("server.pem"));
    handshakes(&mut time, 6);
}

/// Each page is read to its end, and the last connection's object lives until the next one is there.
const PYTHON: &str = r#"
import socket, ssl, sys
port, trusted, certificate, key, many = sys.argv[1:]
context = ssl.create_default_context(cafile=trusted)
context.load_cert_chain(certificate, key)
for _ in range(int(many)):
    plain = socket.create_connection(("127.0.0.1", int(port)))
    tls = context.wrap_socket(plain, server_hostname="127.0.0.1")
    tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
    page = b""
    while part := tls.recv(4096):
        page += part
    assert b"serialNumber=" in page, page
    print("ok", flush=True)
"#;

/// A server that goes on while other connections are open, and insists on the client's certificate.
fn nginx_that_verifies(home: &Home, identity: &Identity) -> Server {
    let trusted = trust_file(home, identity);
    let site = Site {
        workers: 1,
        certificate: home.path("server.pem"),
        key: home.path("server.key"),
        lines: format!(
            "ssl_client_certificate {};\nssl_verify_client on;\nssl_verify_depth 3;\n",
            trusted.display()
        ),
        top: String::new(),
    };
    nginx(home, &site, |_| {})
}

fn python(home: &Home, identity: &Identity, server: &Server) -> Command {
    let mut python = with_provider("python3", home);
    python.args(["-c", PYTHON, &server.port.to_string()]);
    python
        .arg(home.path("server.pem"))
        .arg(chain_file(home, identity))
        .arg(key_file(home));
    python.arg(MANY.to_string());
    python
}

/// `curl URL URL ...`
fn curl(home: &Home, identity: &Identity, server: &Server) -> Command {
    let mut curl = with_provider("curl", home);
    curl.args(["-sS", "--no-sessionid", "--cacert"])
        .arg(home.path("server.pem"));
    curl.arg("--cert").arg(chain_file(home, identity));
    curl.arg("--key").arg(key_file(home));
    let url = format!("https://{}/", server.address());
    curl.args(vec![url; MANY]);
    curl
}

#[track_caller]
fn succeeds(command: &mut Command, page: &str) {
    let said = run(command).ok().text();
    assert_eq!(said.matches(page).count(), MANY, "{said}");
}

fn python_with_a_new_connection_before_the_last_is_gone(link: Link) {
    for kind in [EC, RSA] {
        let (_tpm, home, identity, server) = with_server(link, kind, &[]);
        drop(server);
        let server = nginx_that_verifies(&home, &identity);
        succeeds(&mut python(&home, &identity, &server), "ok\n");
    }
}

fn curl_with_many_urls(link: Link) {
    for kind in [EC, RSA] {
        let (_tpm, home, identity, server) = with_server(link, kind, &[]);
        succeeds(&mut curl(&home, &identity, &server), "Client certificate");
    }
}

fn an_rsa_identity(link: Link) {
    for kind in [EC, RSA] {
        let (_tpm, home, identity, server) = with_server(link, kind, &["--template", "h1"]);
        succeeds(&mut curl(&home, &identity, &server), "Client certificate");
        drop(server);
        let server = nginx_that_verifies(&home, &identity);
        succeeds(&mut python(&home, &identity, &server), "ok\n");
    }
}

/// The provider would ask a person for it.
fn a_pin_that_the_configuration_does_not_know(link: Link) {
    let bench = Bench::new(link);
    bench.token().become_one_with_pins();
    let (home, identity) = (&bench.home, &bench.identity);
    server_identity_of(home, EC);
    let server = nginx_that_verifies(home, identity);
    succeeds(&mut python(home, identity, &server), "ok\n");
    succeeds(&mut curl(home, identity, &server), "serialNumber=");
    bench.counts(0);
}

/// The provider then keeps each server's key at the token for sessions; without that token the second
/// handshake fails.
fn without_the_early_load(link: Link) {
    let (_tpm, home, identity, server) = with_server(link, EC, &[]);
    let mut late = curl(&home, &identity, &server);
    without_early_load(&home, &mut late);
    succeeds(&mut late, "Client certificate");
    home.write("config.toml", "session_slot = false\n");
    let mut late = curl(&home, &identity, &server);
    without_early_load(&home, &mut late);
    let said = run(&mut late).all();
    assert_eq!(said.matches("Client certificate").count(), 1, "{said}");
}

/// nginx with the TPM's key and two workers, and clients with ECDSA certificates.
fn a_server_that_verifies_its_clients(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    server_identity_of(&home, EC);
    let trusted = trust_file(&home, &identity);
    for early in [true, false] {
        let configuration = testkit::tls::configuration(&home);
        let site = Site {
            workers: 2,
            certificate: chain_file(&home, &identity),
            key: key_file(&home),
            lines: format!(
                "ssl_client_certificate {};\nssl_verify_client on;\n",
                home.path("server.pem").display()
            ),
            top: "env DEVID_PKCS11_TCTI;\nenv DEVID_PKCS11_CONFIG;\nenv DEVID_PKCS11_STATE;\n\
                  env DEVID_PKCS11_RUN;\nenv DEVID_PKCS11_LOG;\n"
                .into(),
        };
        let server = nginx(&home, &site, |command| {
            home.settle(command);
            command.env("OPENSSL_CONF", &configuration);
            if !early {
                without_early_load(&home, command);
            }
        });
        let mut client = program("curl");
        client.args([
            "-sSk",
            "--no-sessionid",
            "-H",
            "Connection: close",
            "--cacert",
        ]);
        client.arg(&trusted);
        client.arg("--cert").arg(home.path("server.pem"));
        client.arg("--key").arg(home.path("server.key"));
        let url = format!("https://{}/", server.address());
        client.args(vec![url; MANY]);
        succeeds(&mut client, "CN=localhost");
    }
}

/// Each process that reads the configuration asks the TPM for its identity, even if it does not use
/// the identity. Without the line no process asks.
fn what_the_early_load_costs(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let data = home.write("data", b"data");
    let mut digest = with_provider("openssl", &home);
    digest.args(["dgst", "-sha256"]).arg(&data);
    proxy.book().take();
    run(&mut digest).ok();
    let seen = proxy.book().take();
    // The identity, and once the algorithms of the TPM in which `devid` makes keys.
    let with_algorithms = [&listing(&identity)[..], ALGORITHMS].concat();
    is_exactly("the early load", &seen, &with_algorithms);
    without_early_load(&home, &mut digest);
    run(&mut digest).ok();
    is_exactly("no early load", &proxy.book().take(), NOTHING);
    // A TPM that is not there costs no program its work.
    drop(proxy);
    drop(tpm);
    let mut digest = with_provider("openssl", &home);
    digest.args(["dgst", "-sha256"]).arg(&data);
    let said = run(&mut digest).ok().text();
    assert!(said.contains("data"), "{said}");
    assert_eq!(fs::read(&data).unwrap(), b"data");
}
