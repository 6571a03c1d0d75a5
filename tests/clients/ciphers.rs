//! Decryption and key agreement by pkcs11-tool, by OpenSSL with pkcs11-provider, and by nginx. Only
//! the URI selects a key in the TPM, a sealed key or a key in a file.

use cryptoki_sys::*;
use std::fs;
use std::path::PathBuf;
use testkit::ciphers::{openssl_agrees, openssl_encrypts};
use testkit::devid::{Bench, PROTECTION};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{Own, P256, P256_KEY, YES, allow_files, outside};
use testkit::programs::{Said, program, run, run_with};
use testkit::raw::Item;
use testkit::tls::{
    Site, configuration, nginx, openssl_server_that_trusts, plain_request, server_identity,
    with_provider,
};

over_our_transport!(
    pkcs11_tool_decrypts,
    pkcs11_tool_derives,
    openssl_decrypts,
    openssl_derives,
    cms_for_an_rsa_key,
    cms_for_an_ec_key,
    nginx_by_uri_alone,
    a_client_by_uri_alone,
);

/// The steps of these stories on a [`Bench`].
trait Steps {
    /// The public key, in a file, of a pair on the token with the label `mine`.
    fn rsa(&self) -> PathBuf;
    fn ec(&self) -> PathBuf;
    fn path(&self, name: &str) -> String;
    fn openssl(&self, arguments: &[&str]) -> Said;
    /// A certificate for the key `mine`, by itself: it signs, too.
    fn certificate(&self) -> String;
}

impl Steps for Bench {
    fn rsa(&self) -> PathBuf {
        let own = Own::new(&self.home);
        let (public, _) = own.decrypting(&named("mine"));
        let pem = own.pem(&self.home, public);
        own.raw.finalize().unwrap();
        pem
    }

    fn ec(&self) -> PathBuf {
        let own = Own::new(&self.home);
        let (public, _) = own.agreeing(&P256, &named("mine"));
        let pem = own.pem(&self.home, public);
        own.raw.finalize().unwrap();
        pem
    }

    fn path(&self, name: &str) -> String {
        self.home.path(name).to_str().unwrap().to_owned()
    }

    fn openssl(&self, arguments: &[&str]) -> Said {
        run(with_provider("openssl", &self.home).args(arguments))
    }

    fn certificate(&self) -> String {
        let certificate = self.path("mine.pem");
        self.openssl(&[
            "req",
            "-x509",
            "-new",
            "-subj",
            "/CN=mine",
            "-days",
            "30",
            "-key",
            URI,
            "-out",
            &certificate,
        ])
        .ok();
        certificate
    }
}

const URI: &str = "pkcs11:token=devid;object=mine;type=private";

fn named(label: &str) -> [Item; 2] {
    [(CKA_LABEL, label.into()), (CKA_ID, vec![1])]
}

fn pkcs11_tool_decrypts(link: Link) {
    let bench = Bench::new(link);
    let pem = bench.rsa();
    let (from, to) = (bench.path("hidden"), bench.path("plain"));
    let files = ["--input-file", &from, "--output-file", &to];
    let decrypt = [&["--decrypt", "--label", "mine"], &files[..]].concat();
    let hidden = openssl_encrypts(&bench.home, &pem, &[], b"hello");
    fs::write(&from, hidden).unwrap();
    bench.pkcs11_tool(&[&decrypt[..], &["-m", "RSA-PKCS"]].concat());
    assert_eq!(fs::read(&to).unwrap(), b"hello");
    for (name, kind) in [
        ("sha1", "SHA-1"),
        ("sha256", "SHA256"),
        ("sha512", "SHA512"),
    ] {
        let options = [
            "rsa_padding_mode:oaep".to_owned(),
            format!("rsa_oaep_md:{name}"),
        ];
        let options = options.each_ref().map(String::as_str);
        let hidden = openssl_encrypts(&bench.home, &pem, &options, name.as_bytes());
        fs::write(&from, hidden).unwrap();
        let oaep = ["-m", "RSA-PKCS-OAEP", "--hash-algorithm", kind];
        bench.pkcs11_tool(&[&decrypt[..], &oaep].concat());
        assert_eq!(fs::read(&to).unwrap(), name.as_bytes());
    }
}

fn pkcs11_tool_derives(link: Link) {
    let bench = Bench::new(link);
    let pem = bench.ec();
    outside(&bench.home, "peer", &P256_KEY);
    let theirs = openssl_agrees(&bench.home, &bench.home.path("peer.key"), &pem);
    let (from, to) = (bench.path("peer.der"), bench.path("secret"));
    let mut convert = program("openssl");
    convert.args(["pkey", "-pubin", "-outform", "DER", "-out", &from, "-in"]);
    run(convert.arg(bench.home.path("peer.pub"))).ok();
    let files = ["--input-file", &from, "--output-file", &to];
    let derive = [&["--derive", "--label", "mine"], &files[..]].concat();
    for mechanism in ["ECDH1-DERIVE", "ECDH1-COFACTOR-DERIVE"] {
        bench.pkcs11_tool(&[&derive[..], &["-m", mechanism]].concat());
        assert_eq!(fs::read(&to).unwrap(), theirs, "{mechanism}");
    }
}

fn openssl_decrypts(link: Link) {
    let bench = Bench::new(link);
    let pem = bench.rsa();
    let (from, to) = (bench.path("hidden"), bench.path("plain"));
    for options in [
        &["rsa_padding_mode:pkcs1"][..],
        &["rsa_padding_mode:oaep"],
        &["rsa_padding_mode:oaep", "rsa_oaep_md:sha256"],
        &[
            "rsa_padding_mode:oaep",
            "rsa_oaep_md:sha256",
            "rsa_mgf1_md:sha1",
        ],
    ] {
        let hidden = openssl_encrypts(&bench.home, &pem, options, b"hello");
        fs::write(&from, hidden).unwrap();
        let mut arguments = vec!["pkeyutl", "-decrypt", "-inkey", URI];
        arguments.extend(["-in", &from, "-out", &to]);
        for option in options {
            arguments.extend(["-pkeyopt", option]);
        }
        bench.openssl(&arguments).ok();
        assert_eq!(fs::read(&to).unwrap(), b"hello", "{options:?}");
    }
}

fn openssl_derives(link: Link) {
    let bench = Bench::new(link);
    let pem = bench.ec();
    outside(&bench.home, "peer", &P256_KEY);
    let theirs = openssl_agrees(&bench.home, &bench.home.path("peer.key"), &pem);
    let (peer, to) = (bench.path("peer.pub"), bench.path("secret"));
    let derive = ["pkeyutl", "-derive", "-inkey", URI, "-peerkey", &peer];
    bench.openssl(&[&derive[..], &["-out", &to]].concat()).ok();
    assert_eq!(fs::read(&to).unwrap(), theirs);
}

/// A message in an envelope for the key's certificate, by an OpenSSL that knows nothing of us.
#[track_caller]
fn envelope(bench: &Bench, options: &[&str]) {
    let certificate = bench.certificate();
    bench.home.write("data", b"hello, device");
    let (from, hidden, to) = (
        bench.path("data"),
        bench.path("envelope"),
        bench.path("plain"),
    );
    let mut encrypt = program("openssl");
    encrypt.args(["cms", "-encrypt", "-binary", "-aes256", "-outform", "PEM"]);
    encrypt.args(["-in", &from, "-out", &hidden, "-recip", &certificate]);
    run(encrypt.args(options)).ok();
    let files = ["-in", &hidden, "-out", &to, "-recip", &certificate];
    let decrypt = ["cms", "-decrypt", "-inform", "PEM", "-inkey", URI];
    bench.openssl(&[&decrypt[..], &files].concat()).ok();
    assert_eq!(fs::read(&to).unwrap(), b"hello, device");
}

fn cms_for_an_rsa_key(link: Link) {
    let bench = Bench::new(link);
    bench.rsa();
    envelope(&bench, &[]);
    envelope(&bench, &["-keyopt", "rsa_padding_mode:oaep"]);
}

fn cms_for_an_ec_key(link: Link) {
    let bench = Bench::new(link);
    bench.ec();
    envelope(&bench, &[]);
}

#[derive(Clone, Copy)]
enum Kind {
    Ec,
    Rsa,
}

/// Keys of all protections, each by its URI and with a certificate of its own in a file.
fn keys(bench: &Bench) -> Vec<(String, PathBuf)> {
    allow_files(&bench.home);
    let keys = [
        ("devid", "one", 1, Kind::Ec),
        ("devid", "two", 2, Kind::Ec),
        ("devid", "two-rsa", 2, Kind::Rsa),
        ("files", "three", 3, Kind::Ec),
        ("files", "three-rsa", 3, Kind::Rsa),
    ];
    let made = keys.into_iter().map(|(on, name, protection, kind)| {
        let own = Own::on(&bench.home, on);
        let token = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, name.into())];
        let (mechanism, public) = match kind {
            Kind::Ec => (CKM_EC_KEY_PAIR_GEN, (CKA_EC_PARAMS, P256.to_vec())),
            Kind::Rsa => (CKM_RSA_PKCS_KEY_PAIR_GEN, (CKA_MODULUS_BITS, ulong(2048))),
        };
        let public = [&token[..], &[public]].concat();
        let private = [&token[..], &[(PROTECTION, ulong(protection))]].concat();
        own.generate(mechanism, &public, &private)
            .expect("C_GenerateKeyPair");
        own.raw.finalize().unwrap();
        let uri = format!("pkcs11:token={on};object={name};type=private");
        let certificate = bench.home.path(&format!("{name}.pem"));
        let mut request = with_provider("openssl", &bench.home);
        request.args(["req", "-x509", "-new", "-days", "30", "-key", &uri]);
        request.args(["-subj", "/CN=localhost", "-addext"]);
        request.args(["subjectAltName=IP:127.0.0.1", "-out"]);
        run(request.arg(&certificate)).ok();
        (uri, certificate)
    });
    made.collect()
}

/// nginx's settings differ in the key's URI.
fn nginx_by_uri_alone(link: Link) {
    let bench = Bench::new(link);
    let keys = keys(&bench);
    let conf = configuration(&bench.home);
    let mut top = String::from("env OPENSSL_CONF;\n");
    for (name, _) in bench.home.variables() {
        top += &format!("env {name};\n");
    }
    for (uri, certificate) in keys {
        let mut wrap = std::process::Command::new(testkit::module::tool());
        let pem = run(wrap.args(["uri2pem", &uri])).ok().text();
        let site = Site {
            workers: 1,
            certificate: certificate.clone(),
            key: bench.home.write("key.pem", pem),
            lines: String::new(),
            top: top.clone(),
        };
        let server = nginx(&bench.home, &site, |command| {
            command
                .env("OPENSSL_CONF", &conf)
                .env("TSS2_LOG", "all+none");
            bench.home.settle(command);
        });
        for protocol in ["-tls1_2", "-tls1_3"] {
            let page = plain_request(&server, &certificate, protocol);
            assert!(page.contains("TLSv1"), "{uri}: {page}");
        }
    }
}

/// So do a client's, which proves to a server who it is.
fn a_client_by_uri_alone(link: Link) {
    let bench = Bench::new(link);
    server_identity(&bench.home);
    for (uri, certificate) in keys(&bench) {
        let server = openssl_server_that_trusts(&bench.home, &certificate, &[]);
        for protocol in ["-tls1_2", "-tls1_3"] {
            let mut client = with_provider("openssl", &bench.home);
            client.args(["s_client", "-quiet", "-verify_return_error", protocol]);
            client.args(["-connect", &server.address(), "-key", &uri, "-cert"]);
            client.arg(&certificate).arg("-CAfile");
            client.arg(bench.home.path("server.pem"));
            let page = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n").ok().text();
            assert!(page.contains("Client certificate"), "{uri}: {page}");
        }
    }
}
