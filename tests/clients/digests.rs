//! Programs that let the token hash, and programs that must hash themselves although the token
//! lists digests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::digests::bytes;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::host::preloaded;
use testkit::module::library;
use testkit::openssl::digest;
use testkit::own::without_tpm;
use testkit::programs::{Said, program, run, run_with};
use testkit::tls::{
    Server, Site, chain_file, configuration, key_file, nginx, openssl_server_with_identity,
    plain_request, server_identity_of,
};
use testkit::tpm::Swtpm;

once!(
    pkcs11_tool_hashes,
    pkcs11_tool_tests_the_digests,
    openssl_hashes_itself,
    curl_and_python_hash_themselves,
    nginx_hashes_itself,
    gnutls_hashes_itself,
    openssl_hashes_itself_whatever_it_prefers,
);

fn pkcs11_tool_hashes() {
    let home = without_tpm();
    let out = home.path("digest");
    for length in [0, 1, 1000, 100_000] {
        let data = home.write("data", bytes(length));
        for (mechanism, name) in [
            ("SHA-1", "-sha1"),
            ("SHA224", "-sha224"),
            ("SHA256", "-sha256"),
            ("SHA384", "-sha384"),
            ("SHA512", "-sha512"),
        ] {
            let mut tool = program("pkcs11-tool");
            tool.arg("--module").arg(library());
            tool.args(["--token-label", "files", "--hash", "-m", mechanism]);
            tool.arg("-i").arg(&data).arg("-o").arg(&out);
            run(home.settle(&mut tool)).ok();
            let right = digest(name, &bytes(length));
            assert_eq!(fs::read(&out).unwrap(), right, "{mechanism} of {length}");
        }
    }
}

/// OpenSC's own test of a token.
fn pkcs11_tool_tests_the_digests() {
    let home = without_tpm();
    let mut tool = program("pkcs11-tool");
    tool.arg("--module").arg(library());
    tool.args(["--token-label", "files", "--test"]);
    let said = run(home.settle(&mut tool)).all();
    assert!(said.contains("digest functions seem to work"), "{said}");
    for name in ["SHA-1: OK", "SHA256: OK"] {
        assert!(said.contains(name), "{said}");
    }
}

/// A device with an RSA identity, and a module that writes down what it is asked for.
struct Bench {
    _tpm: Swtpm,
    identity: Identity,
    home: Home,
    spy: PathBuf,
}

/// Signatures and calls that hash.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    signatures: usize,
    digests: usize,
}

impl Bench {
    fn new() -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(&["--template", "h1"]);
        let home = Home::new(&tpm.tcti());
        server_identity_of(&home, &["rsa:2048"]);
        let spy = preloaded(home.folder(), "spy");
        Bench {
            _tpm: tpm,
            identity,
            home,
            spy,
        }
    }

    /// The calls that were logged since the last time.
    fn seen(&self) -> Seen {
        let log = self.home.path("spy.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::remove_file(log).ok();
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        Seen {
            signatures: count("C_SignInit"),
            digests: count("C_Digest"),
        }
    }

    /// The program with this configuration of OpenSSL, where the module is the spy.
    fn spied(&self, name: &str, configuration: &Path) -> Command {
        let mut command = program(name);
        command.env("OPENSSL_CONF", configuration);
        self.settle(&mut command);
        command
    }

    fn settle(&self, command: &mut Command) {
        self.home.settle(command).envs(self.variables());
    }

    fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("SPY_MODULE", library()),
            ("SPY_LOG", self.home.path("spy.log")),
        ]
    }

    /// The configuration that we ship, with the spy in place of the module.
    fn configuration(&self) -> PathBuf {
        let shipped = fs::read_to_string(configuration(&self.home)).unwrap();
        let module = format!("pkcs11-module-path = {}", library().display());
        let spy = format!("pkcs11-module-path = {}", self.spy.display());
        assert!(shipped.contains(&module), "{shipped}");
        self.home.write("spy.cnf", shipped.replace(&module, &spy))
    }

    fn server(&self) -> Server {
        openssl_server_with_identity(&self.home, &self.identity)
    }

    fn s_client(&self, configuration: &Path, server: &Server, protocol: &str) -> Said {
        let mut client = self.spied("openssl", configuration);
        client.args(["s_client", "-quiet", "-verify_return_error", protocol]);
        client.args(["-connect", &server.address(), "-CAfile"]);
        client.arg(self.home.path("server.pem"));
        client.arg("-key").arg(key_file(&self.home));
        client
            .arg("-cert")
            .arg(chain_file(&self.home, &self.identity));
        run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n")
    }

    /// An nginx that shows its certificate; what it was asked for in so many handshakes.
    fn nginx(&self, configuration: &Path, handshakes: usize) -> Seen {
        let mut top = String::from("env OPENSSL_CONF;\nenv SPY_MODULE;\nenv SPY_LOG;\n");
        for (name, _) in self.home.variables() {
            top += &format!("env {name};\n");
        }
        let site = Site {
            workers: 2,
            certificate: chain_file(&self.home, &self.identity),
            key: key_file(&self.home),
            lines: String::new(),
            top,
        };
        let server = nginx(&self.home, &site, |command| {
            command.env("OPENSSL_CONF", configuration);
            self.settle(command);
        });
        for number in 0..handshakes {
            let protocol = ["-tls1_2", "-tls1_3"][number % 2];
            plain_request(&server, &self.identity.root(), protocol);
        }
        self.seen()
    }
}

fn only(signatures: usize) -> Seen {
    Seen {
        signatures,
        digests: 0,
    }
}

fn openssl_hashes_itself() {
    let bench = Bench::new();
    let configuration = bench.configuration();
    // The spy sees what a program asks of it.
    let mut tool = program("pkcs11-tool");
    tool.arg("--module")
        .arg(&bench.spy)
        .args(["--hash", "-m", "SHA256", "-i"]);
    bench.settle(&mut tool);
    run(tool.arg(bench.home.path("server.pem"))).ok();
    assert!(bench.seen().digests > 0);

    let data = bench.home.write("data", bytes(300_000));
    for arguments in [&["dgst", "-sha256"][..], &["dgst", "-sha512", "-hex"]] {
        run(bench
            .spied("openssl", &configuration)
            .args(arguments)
            .arg(&data))
        .ok();
        assert_eq!(bench.seen(), only(0), "{arguments:?}");
    }
    let key = key_file(&bench.home);
    let pss = ["-sigopt", "rsa_padding_mode:pss"];
    for options in [
        &[][..],
        &[&pss[..], &["-sigopt", "rsa_pss_saltlen:digest"]].concat(),
    ] {
        let mut sign = bench.spied("openssl", &configuration);
        sign.args(["dgst", "-sha384", "-sign"])
            .arg(&key)
            .args(options);
        run(sign
            .arg("-out")
            .arg(bench.home.path("signature"))
            .arg(&data))
        .ok();
        assert_eq!(bench.seen(), only(1), "{options:?}");
    }
    let mut request = bench.spied("openssl", &configuration);
    request.args(["req", "-new", "-subj", "/CN=a device", "-key"]);
    run(request
        .arg(&key)
        .arg("-out")
        .arg(bench.home.path("request")))
    .ok();
    assert_eq!(bench.seen(), only(1), "openssl req");
    let server = bench.server();
    for protocol in ["-tls1_2", "-tls1_3"] {
        let page = bench.s_client(&configuration, &server, protocol).text();
        assert!(page.contains("HTTP/1.0 200"), "{page}");
        assert_eq!(bench.seen(), only(1), "{protocol}");
    }
}

fn curl_and_python_hash_themselves() {
    let bench = Bench::new();
    let configuration = bench.configuration();
    let (key, chain) = (
        key_file(&bench.home),
        chain_file(&bench.home, &bench.identity),
    );
    let (server, trusted) = (bench.server(), bench.home.path("server.pem"));
    let url = format!("https://{}/", server.address());
    for protocol in ["1.2", "1.3"] {
        let mut curl = bench.spied("curl", &configuration);
        curl.args(["--silent", "--show-error", "--fail", "--tls-max", protocol]);
        curl.arg("--cacert").arg(&trusted).arg("--cert").arg(&chain);
        run(curl.arg("--key").arg(&key).arg(&url)).ok();
        assert_eq!(bench.seen(), only(1), "curl {protocol}");
    }
    // A process that hashes before and after the module was loaded.
    let script = "\
import hashlib, ssl, sys, urllib.request
url, trusted, certificate, key = sys.argv[1:]
def hash():
    for name in 'sha1', 'sha224', 'sha256', 'sha384', 'sha512':
        hashlib.new(name, b'x' * 100000).hexdigest()
hash()
context = ssl.create_default_context(cafile=trusted)
context.load_cert_chain(certificate, key)
hash()
for n in range(3):
    urllib.request.urlopen(url, context=context).read()
    hash()
";
    let mut python = bench.spied("python3", &configuration);
    python.args(["-c", script, &url]).arg(&trusted).arg(&chain);
    run(python.arg(&key)).ok();
    assert_eq!(bench.seen(), only(3), "Python");
}

fn nginx_hashes_itself() {
    let bench = Bench::new();
    let configuration = bench.configuration();
    assert_eq!(bench.nginx(&configuration, 10), only(10));
}

fn gnutls_hashes_itself() {
    let bench = Bench::new();
    let server = bench.server();
    for protocol in ["1.2", "1.3"] {
        let mut client = program("gnutls-cli");
        client.arg("--provider").arg(&bench.spy).arg("--x509cafile");
        client
            .arg(bench.home.path("server.pem"))
            .arg("--x509certfile");
        client.arg(chain_file(&bench.home, &bench.identity));
        client.args(["--x509keyfile", testkit::tls::KEY, "--priority"]);
        client.arg(format!("NORMAL:-VERS-ALL:+VERS-TLS{protocol}"));
        client.args(["--port", &server.port.to_string(), "127.0.0.1"]);
        bench.settle(&mut client);
        let page = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n").text();
        assert!(page.contains("HTTP/1.0 200"), "{page}");
        let seen = bench.seen();
        assert_eq!(seen.digests, 0, "{protocol}");
        // GnuTLS asks for the length first.
        assert!(seen.signatures > 0, "{protocol}");
    }
}

/// With the provider before OpenSSL's own, or preferred by the default properties, and the module
/// loaded at once. As a client the provider fails then, whatever the module lists.
fn openssl_hashes_itself_whatever_it_prefers() {
    let bench = Bench::new();
    let shipped = fs::read_to_string(bench.configuration()).unwrap();
    let early = "activate = 1\npkcs11-module-load-behavior = early\n\n# Makes";
    let early = shipped.replace("activate = 1\n\n# Makes", early);
    assert_ne!(early, shipped);
    let order = ["default = default_sect\n", "pkcs11 = pkcs11_sect\n"];
    let [one, other] = order;
    let first = early.replace(&order.concat(), &[other, one].concat());
    let preferred = early.replace(
        "[openssl_init]\n",
        "[preferred]\ndefault_properties = ?provider=pkcs11\n[openssl_init]\nalg_section = preferred\n",
    );
    let blocked = "pkcs11-module-block-operations = digest\n";
    for (what, text) in [("first", first), ("preferred", preferred)] {
        assert_ne!(text, early, "{what}");
        let configuration = bench.home.write("other.cnf", &text);
        assert_eq!(bench.nginx(&configuration, 6), only(6), "{what}");
        // The line makes the difference: so the spy would see it.
        let unblocked = text.replace(blocked, "");
        assert_ne!(unblocked, text, "the shipped file blocks digests");
        let configuration = bench.home.write("other.cnf", unblocked);
        let mut hash = bench.spied("openssl", &configuration);
        run(hash
            .args(["dgst", "-sha256"])
            .arg(bench.home.path("server.pem")));
        assert!(bench.seen().digests > 0, "{what}");
    }
}
