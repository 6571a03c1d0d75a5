//! Client programs with keys of each algorithm: TLS with pkcs11-provider and with GnuTLS.

use std::fmt::Write as _;
use std::process::Command;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::library;
use testkit::programs::{Said, program, run_with};
use testkit::tls::{
    Server, chain_file, openssl_client, openssl_server_with, server_identity_of,
    without_allowed_mechanisms,
};
use testkit::tpm::Swtpm;

over_our_transport!(
    the_provider_with_each_algorithm,
    the_provider_with_each_rsa_scheme,
    both_clients_with_a_key_for_pkcs1_only,
    both_clients_with_a_key_for_pss_only,
    gnutls_with_each_algorithm,
    gnutls_with_each_rsa_scheme,
);

/// An identity of a device, and what the module calls it.
struct Device {
    identity: Identity,
    serial: String,
    label: String,
}

struct Bench {
    _tpm: Swtpm,
    devices: Vec<Device>,
    home: Home,
}

/// Label of the module, options of the factory.
const EACH: [(&str, &str); 5] = [
    ("idev-id", "--template h2"),
    (
        "idev-id-p384",
        "--template h3 --nv 0x01C90210 --handle 0x81020010",
    ),
    (
        "idev-id-p521",
        "--template h4 --nv 0x01C90211 --handle 0x81020011",
    ),
    (
        "idev-id-rsa2048",
        "--template h1 --nv 0x01C90212 --handle 0x81020012",
    ),
    (
        "idev-id-rsa3072",
        "--template rsa3072 --nv 0x01C90213 --handle 0x81020013",
    ),
];

impl Bench {
    /// One TPM with all keys. The servers have an RSA key.
    fn new(link: Link, each: &[(&str, &str)]) -> Bench {
        let serial = |label: &str| format!("SN-{label}-0");
        let runs: Vec<Vec<String>> = each
            .iter()
            .map(|(label, words)| {
                let words = format!("--name {label} --serial {} {words}", serial(label));
                words.split_whitespace().map(str::to_owned).collect()
            })
            .collect();
        let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        server_identity_of(&home, &["rsa:2048"]);
        let devices = each.iter().zip(identities);
        let devices = devices.map(|((label, _), identity)| Device {
            identity,
            serial: serial(label),
            label: (*label).to_owned(),
        });
        Bench {
            _tpm: tpm,
            devices: devices.collect(),
            home,
        }
    }

    /// A server that lets nobody in without a certificate of our factory.
    fn server(&self, options: &[&str]) -> Server {
        openssl_server_with(&self.home, &self.devices[0].identity, options)
    }

    /// `s_client` with the device's key and certificate.
    fn openssl(&self, device: &Device, server: &Server, protocol: &str) -> Said {
        request(&mut self.openssl_command(device, server, protocol))
    }

    fn openssl_command(&self, device: &Device, server: &Server, protocol: &str) -> Command {
        let Device {
            identity, label, ..
        } = device;
        openssl_client(&self.home, identity, label, server, protocol)
    }

    /// `gnutls-cli` with the device's key and certificate.
    fn gnutls(&self, device: &Device, server: &Server, protocol: &str) -> Said {
        let mut client = program("gnutls-cli");
        client
            .arg("--provider")
            .arg(library())
            .arg("--x509cafile")
            .arg(self.home.path("server.pem"))
            .arg("--x509certfile")
            .arg(chain_file(&self.home, &device.identity))
            .args(["--x509keyfile", &uri(device)])
            .args([
                "--priority",
                &format!("NORMAL:-VERS-ALL:+VERS-TLS{protocol}"),
            ])
            .args(["--port", &server.port.to_string(), "127.0.0.1"]);
        request(self.home.settle(&mut client))
    }
}

fn uri(device: &Device) -> String {
    let label = &device.label;
    format!("pkcs11:token=idev-id;object={label};type=private")
}

fn request(client: &mut Command) -> Said {
    run_with(client, b"GET / HTTP/1.0\r\n\r\n")
}

/// Handshakes tried, for the table, and what went wrong.
#[derive(Default)]
struct Table {
    text: String,
    faults: Vec<String>,
}

impl Table {
    /// The server must have seen the device's certificate, and shown its page.
    fn note(&mut self, what: &str, device: &Device, server: &Server, said: &Said) {
        let page = said.text();
        let good = page.contains("HTTP/1.0 200") && page.contains(&device.serial);
        let word = if good { "TLS" } else { "NO" };
        writeln!(self.text, "{what} | {} | {word}", device.label).unwrap();
        if !good {
            let log = server.log();
            let fault = format!("{what}, {}: {said}\n--- server\n{log}", device.label);
            self.faults.push(fault);
        }
    }

    #[track_caller]
    fn is_good(&self) {
        println!("\n{}", self.text);
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n\n"));
    }
}

fn the_provider_with_each_algorithm(link: Link) {
    let bench = Bench::new(link, &EACH);
    let server = bench.server(&[]);
    let mut table = Table::default();
    for device in &bench.devices {
        for protocol in ["1.2", "1.3"] {
            let said = bench.openssl(device, &server, protocol);
            let what = format!("{link:?} | OpenSSL | {protocol}");
            table.note(&what, device, &server, &said);
        }
    }
    let mut stranger = program("openssl");
    stranger.args(["s_client", "-quiet", "-connect", &server.address()]);
    let refused = request(&mut stranger).text();
    assert!(!refused.contains("HTTP/1.0 200"), "{refused}");
    table.is_good();
}

/// Signature algorithms that a server asks for, and the protocols that have them.
const SCHEMES: [(&str, &[&str]); 6] = [
    ("RSA+SHA256", &["1.2"]),
    ("RSA+SHA384", &["1.2"]),
    ("RSA+SHA512", &["1.2"]),
    ("RSA-PSS+SHA256", &["1.2", "1.3"]),
    ("RSA-PSS+SHA384", &["1.2", "1.3"]),
    ("RSA-PSS+SHA512", &["1.2", "1.3"]),
];

fn with_each_rsa_scheme(
    link: Link,
    client: &str,
    ask: impl Fn(&Bench, &Device, &Server, &str) -> Said,
) {
    let bench = Bench::new(link, &EACH);
    let device = &bench.devices[3];
    let mut table = Table::default();
    for (scheme, protocols) in SCHEMES {
        let server = bench.server(&["-client_sigalgs", scheme]);
        for protocol in protocols {
            let said = ask(&bench, device, &server, protocol);
            let what = format!("{link:?} | {client} | {protocol} | {scheme}");
            table.note(&what, device, &server, &said);
        }
    }
    table.is_good();
}

fn the_provider_with_each_rsa_scheme(link: Link) {
    with_each_rsa_scheme(link, "OpenSSL", Bench::openssl);
}

fn gnutls_with_each_rsa_scheme(link: Link) {
    with_each_rsa_scheme(link, "GnuTLS", Bench::gnutls);
}

/// TLS 1.3 has no PKCS#1 signatures. A server of 1.2 may offer them. By default OpenSSL as client
/// uses PSS, even if the key cannot sign by PSS.
fn both_clients_with_a_key_for_pkcs1_only(link: Link) {
    let options = "--template h1 --scheme rsassa";
    let bench = Bench::new(link, &[("idev-id", options)]);
    let device = &bench.devices[0];
    let mut table = Table::default();
    for asked in [&["-client_sigalgs", "RSA+SHA256"][..], &[]] {
        let server = bench.server(asked);
        let mut client = bench.openssl_command(device, &server, "1.2");
        let said = match asked {
            [] => request(client.args(["-client_sigalgs", "RSA+SHA256"])),
            _ => request(&mut client),
        };
        let scheme = asked.last().unwrap_or(&"any");
        let what = format!("{link:?} | OpenSSL | 1.2 | key RSASSA, {scheme}");
        table.note(&what, device, &server, &said);
        let said = bench.gnutls(device, &server, "1.2");
        let what = format!("{link:?} | GnuTLS | 1.2 | key RSASSA, {scheme}");
        table.note(&what, device, &server, &said);
    }
    let server = bench.server(&[]);
    for protocol in ["1.2", "1.3"] {
        let refused = bench.openssl(device, &server, protocol);
        let why = "CKM_RSA_PKCS_PSS unavailable";
        assert!(refused.all().contains(why), "{protocol}: {refused}");
    }
    table.is_good();
}

/// pkcs11-provider treats a key that only allows PSS as a key of type RSASSA-PSS. The certificate
/// has rsaEncryption, so the provider must ignore CKA_ALLOWED_MECHANISMS.
fn both_clients_with_a_key_for_pss_only(link: Link) {
    let options = "--template h1 --scheme rsapss";
    let bench = Bench::new(link, &[("idev-id", options)]);
    let device = &bench.devices[0];
    let mut table = Table::default();
    let server = bench.server(&["-client_sigalgs", "RSA-PSS+SHA256"]);
    for protocol in ["1.2", "1.3"] {
        let mut client = bench.openssl_command(device, &server, protocol);
        without_allowed_mechanisms(&bench.home, &mut client);
        let said = request(&mut client);
        let what = format!("{link:?} | OpenSSL | {protocol} | key RSAPSS, RSA-PSS+SHA256");
        table.note(&what, device, &server, &said);
        let said = bench.gnutls(device, &server, protocol);
        let what = format!("{link:?} | GnuTLS | {protocol} | key RSAPSS, RSA-PSS+SHA256");
        table.note(&what, device, &server, &said);
    }
    table.is_good();
}

fn gnutls_with_each_algorithm(link: Link) {
    let bench = Bench::new(link, &EACH);
    let server = bench.server(&[]);
    let mut table = Table::default();
    for device in &bench.devices {
        for protocol in ["1.2", "1.3"] {
            let said = bench.gnutls(device, &server, protocol);
            let what = format!("{link:?} | GnuTLS | {protocol}");
            table.note(&what, device, &server, &said);
        }
    }
    table.is_good();
}
