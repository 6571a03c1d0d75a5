//! OpenSSL 3 with pkcs11-provider: the store, signatures, requests, and s_client.

use std::fs;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::openssl::{self, Verifier, certificate_der};
use testkit::programs::{Said, program, run, run_with};
use testkit::proxy::{Proxy, command};
use testkit::tls::{KEY, chain_file, key_file, openssl_server, with_provider};
use testkit::tpm::Swtpm;

over_our_transport!(
    the_store_is_listed,
    the_certificate_and_the_public_key,
    messages_are_signed,
    a_digest_is_signed,
    a_request_is_made,
    a_handshake_is_signed,
    one_handshake_is_one_signature,
);

const SERIAL: &str = "SN-clients-42";

struct Bench {
    tpm: Swtpm,
    identity: Identity,
    home: Home,
    tcti: String,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(&["--serial", SERIAL]);
        let tcti = link.tcti(&tpm.tcti());
        let home = Home::new(&tcti);
        Bench {
            tpm,
            identity,
            home,
            tcti,
        }
    }

    #[track_caller]
    fn openssl(&self, arguments: &[&str]) -> Said {
        run(with_provider("openssl", &self.home).args(arguments)).ok()
    }

    fn path(&self, name: &str) -> String {
        self.home
            .path(name)
            .to_str()
            .expect("a path in UTF-8")
            .to_owned()
    }
}

fn the_store_is_listed(link: Link) {
    let bench = Bench::new(link);
    let listed = bench
        .openssl(&["storeutl", "-noout", "-text", "pkcs11:token=idev-id"])
        .all();
    for words in ["PKCS11 EC Private Key (256 bits)", "Total found: 4", SERIAL] {
        assert!(listed.contains(words), "no {words:?} in\n{listed}");
    }
    let certificates = bench
        .openssl(&["storeutl", "-certs", "pkcs11:token=idev-id"])
        .all();
    assert_eq!(
        certificates.matches("BEGIN CERTIFICATE").count(),
        2,
        "{certificates}"
    );
}

fn the_certificate_and_the_public_key(link: Link) {
    let bench = Bench::new(link);
    let uri = "pkcs11:token=idev-id;object=idev-id;type=cert";
    let der = bench.openssl(&["x509", "-in", uri, "-outform", "DER"]).out;
    assert_eq!(der, certificate_der(&bench.identity.certificate()));
    let info = openssl::public_key_der(&bench.identity.public_key());
    for uri in [KEY, "pkcs11:token=idev-id;object=idev-id;type=public"] {
        let public = if uri == KEY { "-pubout" } else { "-pubin" };
        let read = bench.openssl(&["pkey", "-in", uri, public, "-pubout", "-outform", "DER"]);
        assert_eq!(read.out, info, "{uri}");
    }
}

fn messages_are_signed(link: Link) {
    let bench = Bench::new(link);
    let judge = Verifier::new(&bench.identity.public_key());
    let data = vec![0x42; 100_000];
    let file = bench.home.write("data", &data);
    let key = key_file(&bench.home);
    for hash in ["-sha256", "-sha384", "-sha512"] {
        for key in [KEY, key.to_str().unwrap()] {
            let out = bench.path("signature");
            bench.openssl(&[
                "dgst",
                hash,
                "-sign",
                key,
                "-out",
                &out,
                file.to_str().unwrap(),
            ]);
            judge
                .accepts_der(hash, &data, &fs::read(&out).unwrap())
                .ok();
        }
    }
}

fn a_digest_is_signed(link: Link) {
    let bench = Bench::new(link);
    let digest = openssl::digest("-sha256", b"a message");
    let file = bench.home.write("digest", &digest);
    let out = bench.path("signature");
    let options = ["-pkeyopt", "digest:sha256", "-out", &out];
    let sign = [
        "pkeyutl",
        "-sign",
        "-inkey",
        KEY,
        "-in",
        file.to_str().unwrap(),
    ];
    bench.openssl(&[&sign[..], &options].concat());
    let judge = Verifier::new(&bench.identity.public_key());
    judge
        .accepts_der("-sha256", b"a message", &fs::read(&out).unwrap())
        .ok();
}

fn a_request_is_made(link: Link) {
    let bench = Bench::new(link);
    let out = bench.path("request.pem");
    bench.openssl(&[
        "req",
        "-new",
        "-key",
        KEY,
        "-subj",
        "/CN=a device",
        "-out",
        &out,
    ]);
    let verify = ["req", "-verify", "-noout", "-in", &out];
    run(program("openssl").args(verify)).ok();
    let key = run(program("openssl").args(["req", "-noout", "-pubkey", "-in", &out]))
        .ok()
        .text();
    assert_eq!(
        key.trim(),
        fs::read_to_string(bench.identity.public_key())
            .unwrap()
            .trim()
    );
}

fn a_handshake_is_signed(link: Link) {
    let bench = Bench::new(link);
    let server = openssl_server(&bench.home, &bench.identity);
    let (certificate, issuer) = (bench.identity.certificate(), bench.identity.ca());
    let key = key_file(&bench.home);
    for key in [KEY, key.to_str().unwrap()] {
        for protocol in ["-tls1_2", "-tls1_3"] {
            let mut client = with_provider("openssl", &bench.home);
            client.args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                protocol,
                "-CAfile",
            ]);
            client
                .arg(bench.home.path("server.pem"))
                .args(["-connect", &server.address()]);
            client
                .args(["-key", key, "-cert"])
                .arg(&certificate)
                .arg("-cert_chain")
                .arg(&issuer);
            let page = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n").ok().text();
            assert!(
                page.contains(SERIAL),
                "{protocol} with {key}:\n{page}\n{}",
                server.log()
            );
        }
    }
    let mut stranger = program("openssl");
    stranger.args(["s_client", "-quiet", "-connect", &server.address()]);
    let refused = run_with(&mut stranger, b"GET / HTTP/1.0\r\n\r\n").text();
    assert!(
        !refused.contains("HTTP/1.0 200"),
        "the server demands a certificate: {refused}"
    );
}

/// From the start of a program to the end of its handshake.
fn one_handshake_is_one_signature(link: Link) {
    let bench = Bench::new(link);
    let proxy = Proxy::new(&bench.tpm);
    let home = Home::new(&bench.tcti.replace(&bench.tpm.tcti(), &proxy.tcti()));
    let server = openssl_server(&home, &bench.identity);
    let chain = chain_file(&home, &bench.identity);
    let mut client = with_provider("openssl", &home);
    client.args(["s_client", "-quiet", "-verify_return_error", "-CAfile"]);
    client
        .arg(home.path("server.pem"))
        .args(["-connect", &server.address(), "-key", KEY]);
    client.arg("-cert").arg(chain);
    let page = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n").ok().text();
    assert!(page.contains(SERIAL), "{page}");
    let seen = proxy.book().take();
    assert_eq!(seen.answered(command::SIGN, 0), 1, "{seen:?}");
}
