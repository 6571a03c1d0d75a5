//! TLS on devices: curl and Python connect to an nginx that requires a certificate. Another nginx
//! uses a key in the TPM.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::programs::{program, run};
use testkit::tls::{
    KEY, Server, Site, chain_file, configuration, key_file, nginx, plain_request, server_identity,
    trust_file, with_provider,
};
use testkit::tpm::Swtpm;

over_our_transport!(
    curl_with_the_key_as_a_file,
    curl_with_key_and_certificate_in_one_file,
    curl_with_the_key_as_a_uri,
    python_with_the_key_as_a_file,
    nginx_serves_with_the_key,
);

const SERIAL: &str = "SN-tls-7";

struct Bench {
    _tpm: Swtpm,
    identity: Identity,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(&["--serial", SERIAL]);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        Bench {
            _tpm: tpm,
            identity,
            home,
        }
    }

    /// An nginx that lets nobody in without a certificate of our factory.
    fn strict_server(&self) -> Server {
        server_identity(&self.home);
        let trusted = trust_file(&self.home, &self.identity);
        let site = Site {
            workers: 1,
            certificate: self.home.path("server.pem"),
            key: self.home.path("server.key"),
            lines: format!(
                "ssl_client_certificate {};\nssl_verify_client on;\nssl_verify_depth 2;\n",
                trusted.display()
            ),
            top: String::new(),
        };
        nginx(&self.home, &site, |_| {})
    }

    fn curl(&self, server: &Server, protocol: &str, settle: impl Fn(&mut Command)) -> String {
        let mut curl = with_provider("curl", &self.home);
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "30",
            "--cacert",
        ]);
        curl.arg(self.home.path("server.pem"))
            .args(["--tls-max", protocol, "--tlsv1.2"]);
        settle(&mut curl);
        run(curl.arg(format!("https://{}/", server.address())))
            .ok()
            .text()
    }

    /// curl with these arguments is let in as our device, over both protocols.
    fn curl_is_let_in(&self, settle: impl Fn(&mut Command)) {
        let server = self.strict_server();
        for protocol in ["1.2", "1.3"] {
            let page = self.curl(&server, protocol, &settle);
            assert!(page.contains(&format!("serialNumber={SERIAL}")), "{page}");
            assert!(page.contains(&format!("TLSv{protocol}|")), "{page}");
        }
        let mut stranger = program("curl");
        stranger
            .args(["--silent", "--fail", "--cacert"])
            .arg(self.home.path("server.pem"));
        let refused = run(stranger.arg(format!("https://{}/", server.address())));
        assert!(!refused.status.success(), "{refused}");
    }
}

fn curl_with_the_key_as_a_file(link: Link) {
    let bench = Bench::new(link);
    let (certificate, key) = (
        chain_file(&bench.home, &bench.identity),
        key_file(&bench.home),
    );
    bench.curl_is_let_in(|curl| {
        curl.arg("--cert").arg(&certificate).arg("--key").arg(&key);
    });
}

fn curl_with_key_and_certificate_in_one_file(link: Link) {
    let bench = Bench::new(link);
    let (certificate, key) = (
        chain_file(&bench.home, &bench.identity),
        key_file(&bench.home),
    );
    let both = [certificate, key]
        .map(|file| std::fs::read(file).unwrap())
        .concat();
    let both = bench.home.write("both.pem", both);
    bench.curl_is_let_in(|curl| {
        curl.arg("--cert").arg(&both);
    });
}

/// `--key-type PROV` came with curl 8.12; that one reads no openssl.cnf and asks the provider's
/// own variable for the module. An older curl takes a URI for an engine's, and says so.
fn curl_with_the_key_as_a_uri(link: Link) {
    let bench = Bench::new(link);
    let certificate = chain_file(&bench.home, &bench.identity);
    let settle = |curl: &mut Command| {
        curl.arg("--cert")
            .arg(&certificate)
            .args(["--key-type", "PROV", "--key", KEY]);
        curl.env("PKCS11_PROVIDER_MODULE", testkit::module::library());
    };
    let version = run(program("curl").arg("--version")).ok().text();
    let number = version.split_whitespace().nth(1).expect("a version");
    let mut parts = number
        .split('.')
        .map(|part| part.parse::<u32>().expect("a number"));
    if (parts.next(), parts.next()) >= (Some(8), Some(12)) {
        return bench.curl_is_let_in(settle);
    }
    let server = bench.strict_server();
    let mut curl = with_provider("curl", &bench.home);
    curl.args(["--silent", "--show-error", "--cacert"])
        .arg(bench.home.path("server.pem"));
    settle(&mut curl);
    let refused = run(curl.arg(format!("https://{}/", server.address())));
    assert!(
        !refused.status.success(),
        "curl {number} knows PROV: {refused}"
    );
}

fn python_with_the_key_as_a_file(link: Link) {
    let bench = Bench::new(link);
    let server = bench.strict_server();
    let script = "\
import ssl, sys, urllib.request
url, trusted, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=trusted)
context.load_cert_chain(certificate, key)
print(urllib.request.urlopen(url, context=context).read().decode())
";
    let mut python = with_provider("python3", &bench.home);
    python.args(["-c", script, &format!("https://{}/", server.address())]);
    python.arg(bench.home.path("server.pem"));
    python
        .arg(chain_file(&bench.home, &bench.identity))
        .arg(key_file(&bench.home));
    let pages = run(&mut python).ok().text();
    assert_eq!(
        pages.matches(&format!("serialNumber={SERIAL}")).count(),
        1,
        "{pages}"
    );
}

/// The master reads the key, forks, and each worker signs: fifty handshakes, no failure.
fn nginx_serves_with_the_key(link: Link) {
    let bench = Bench::new(link);
    let conf = configuration(&bench.home);
    let mut top = String::from("env OPENSSL_CONF;\n");
    for (name, _) in bench.home.variables() {
        top += &format!("env {name};\n");
    }
    let site = Site {
        workers: 2,
        certificate: chain_file(&bench.home, &bench.identity),
        key: key_file(&bench.home),
        lines: String::new(),
        top,
    };
    let mut server = nginx(&bench.home, &site, |command| {
        command
            .env("OPENSSL_CONF", &conf)
            .env("TSS2_LOG", "all+none");
        bench.home.settle(command);
    });
    let mut workers = BTreeSet::new();
    let request = |protocol: &str, trusted: &Path| plain_request(&server, trusted, protocol);
    for number in 0..50 {
        let protocol = if number % 2 == 0 {
            "-tls1_2"
        } else {
            "-tls1_3"
        };
        let page = request(protocol, &bench.identity.root());
        let worker = page.split('|').nth(1).expect(&page).to_owned();
        workers.insert(worker);
    }
    // The kernel deals connections out by their ports: that one worker gets all has odds of
    // 1 to 2^49.
    assert_eq!(workers.len(), 2, "both workers have signed: {workers:?}");
    assert!(server.is_running());
    assert!(
        !server.log().contains("[crit]") && !server.log().contains("[alert]"),
        "{}",
        { server.log() }
    );
}
