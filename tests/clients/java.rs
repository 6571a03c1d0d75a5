//! A Java program with keys of both tokens and SunPKCS11: digests, RSASSA-PSS, and TLS as client
//! and as server. OpenSSL verifies the results and is the other side.

use cryptoki_sys::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::digests::bytes;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::host::preloaded;
use testkit::link::Link;
use testkit::module::{library, ulong};
use testkit::openssl::{Verifier, certificate_der, digest};
use testkit::own::{Own, P256, P256_KEY, YES, outside};
use testkit::programs::{Running, Said, find, program, run, run_with, run_within};
use testkit::tls::{openssl_server_that_trusts, server_identity_of, trust_file};
use testkit::tpm::Swtpm;

over_our_transport!(
    the_token_hashes_for_java,
    rsassa_pss_is_signed,
    java_is_a_client,
    java_is_a_client_whose_token_hashes,
    java_is_a_server,
);

/// Java takes seconds to start, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
/// The factory's keys, in slot 0, and the device's own, in slot 1.
const TOKENS: [(CK_SLOT_ID, [&str; 2]); 2] = [
    (0, ["idev-id", "idev-id-rsa2048"]),
    (1, ["own-ec", "own-rsa"]),
];
const OWN: [&str; 2] = TOKENS[1].1;

struct Bench {
    _tpm: Swtpm,
    identities: Vec<Identity>,
    home: Home,
}

impl Bench {
    /// Both tokens have an EC and an RSA key, with certificates by the maker and by
    /// `authority.pem`.
    fn new(link: Link) -> Bench {
        let runs = ["--serial SN-ec", "--serial SN-rsa --name rsa --template h1"];
        let places = ["", " --nv 0x01C90212 --handle 0x81020012"];
        let runs = [0, 1].map(|n| {
            let words = format!("{}{}", runs[n], places[n]);
            words.split_whitespace().map(str::to_owned).collect()
        });
        let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        outside(&home, "authority", &P256_KEY);
        server_identity_of(&home, &["rsa:2048"]);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/java/Device.java");
        let mut compile = program("javac");
        compile.args(["-Xlint:all", "-Werror", "-d"]);
        run_within(PATIENCE, compile.arg(home.folder()).arg(source), &[]).ok();
        let bench = Bench {
            _tpm: tpm,
            identities,
            home,
        };
        testkit::fork::Forked::new(|| bench.make_own()).succeeds();
        bench
    }

    /// Keys of the token `devid`, each with a certificate.
    fn make_own(&self) {
        let own = Own::new(&self.home);
        let curve = (CKA_EC_PARAMS, P256.to_vec());
        let bits = (CKA_MODULUS_BITS, ulong(2048));
        let kinds = [
            (CKM_EC_KEY_PAIR_GEN, curve),
            (CKM_RSA_PKCS_KEY_PAIR_GEN, bits),
        ];
        for (label, (mechanism, kind)) in OWN.iter().zip(kinds) {
            let both = [
                (CKA_TOKEN, YES.to_vec()),
                (CKA_LABEL, label.as_bytes().to_vec()),
            ];
            let public = [&both[..], &[kind]].concat();
            let (public, _) = own.generate(mechanism, &public, &both).unwrap();
            let pem = own.pem(&self.home, public);
            fs::copy(pem, self.home.path(&format!("{label}.pub"))).unwrap();
            let certificate = self.home.path(&format!("{label}.pem"));
            let mut certify = program("openssl");
            certify.args([
                "x509",
                "-new",
                "-subj",
                &format!("/CN={label}"),
                "-days",
                "30",
            ]);
            certify
                .arg("-force_pubkey")
                .arg(self.home.path(&format!("{label}.pub")));
            certify.arg("-CA").arg(self.home.path("authority.pem"));
            certify.arg("-CAkey").arg(self.home.path("authority.key"));
            run(certify.arg("-out").arg(&certificate)).ok();
            let der = certificate_der(&certificate);
            let id = own.attribute(public, CKA_ID);
            let described = [
                (CKA_CLASS, ulong(CKO_CERTIFICATE)),
                (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
                (CKA_VALUE, der),
                (CKA_ID, id),
            ];
            own.create(&[&both[..], &described].concat()).unwrap();
        }
    }

    /// The file with the public key of this alias.
    fn public(&self, alias: &str) -> PathBuf {
        match alias {
            "idev-id" => self.identities[0].public_key(),
            "idev-id-rsa2048" => self.identities[1].public_key(),
            own => self.home.path(&format!("{own}.pub")),
        }
    }

    /// A program `Device` on this slot, with this module.
    fn java(&self, slot: CK_SLOT_ID, module: &Path, arguments: &[&str]) -> Command {
        let settings = format!("name=devid\nlibrary={}\nslot={slot}\n", module.display());
        let settings = self.home.write(&format!("java-{slot}.cfg"), settings);
        let mut java = program("java");
        java.arg("-cp").arg(self.home.folder()).arg("Device");
        java.arg(settings).args(arguments);
        self.home.settle(&mut java);
        java
    }

    #[track_caller]
    fn device(&self, slot: CK_SLOT_ID, arguments: &[&str]) -> Said {
        run_within(PATIENCE, &mut self.java(slot, &library(), arguments), &[]).ok()
    }

    fn path(&self, name: &str) -> String {
        self.home.path(name).to_str().unwrap().to_owned()
    }

    /// The certificates of whoever certified the keys.
    fn trusted(&self) -> PathBuf {
        let maker = fs::read(trust_file(&self.home, &self.identities[0])).unwrap();
        let authority = fs::read(self.home.path("authority.pem")).unwrap();
        self.home.write("all.pem", [maker, authority].concat())
    }
}

fn the_token_hashes_for_java(link: Link) {
    let bench = Bench::new(link);
    for (slot, _) in TOKENS {
        for length in [0, 1000, 200_000] {
            let data = bytes(length);
            bench.home.write("data", &data);
            let (file, folder) = (bench.path("data"), bench.path(""));
            bench.device(slot, &["digests", &file, &folder]);
            for bits in ["1", "224", "256", "384", "512"] {
                let made = fs::read(bench.home.path(&format!("SHA-{bits}"))).unwrap();
                assert_eq!(made, digest(&format!("-sha{bits}"), &data), "SHA-{bits}");
            }
        }
    }
}

fn rsassa_pss_is_signed(link: Link) {
    let bench = Bench::new(link);
    let data = bytes(5000);
    bench.home.write("data", &data);
    let (file, folder) = (bench.path("data"), bench.path(""));
    for (slot, [_, alias]) in TOKENS {
        bench.device(slot, &["signs", alias, &file, &folder]);
        let judge = Verifier::new(&bench.public(alias));
        for bits in ["256", "384", "512"] {
            let name = format!("sha{bits}");
            let hash = digest(&format!("-{name}"), &data);
            let made = |kind: &str| fs::read(bench.home.path(&format!("{kind}-{bits}"))).unwrap();
            judge.accepts_pss(&name, &hash, &made("PSS")).ok();
            judge.accepts_pkcs1(&name, &hash, &made("PKCS1")).ok();
        }
    }
}

/// Java hashes itself: a module that writes down what it is asked for sees signatures only.
fn java_is_a_client(link: Link) {
    let bench = Bench::new(link);
    assert_eq!(asks(&bench, false), [0, 0]);
}

/// If its provider is before Java's own providers, the token hashes. JSSE copies the hash of each
/// handshake by C_GetOperationState.
fn java_is_a_client_whose_token_hashes(link: Link) {
    let bench = Bench::new(link);
    let digests = asks(&bench, true);
    assert!(digests.iter().all(|count| *count > 0), "{digests:?}");
}

/// Each key of each token asks a server that insists on a certificate. The calls that hash, by token.
fn asks(bench: &Bench, first: bool) -> [usize; 2] {
    let server = openssl_server_that_trusts(&bench.home, &bench.trusted(), &[]);
    let (port, peer) = (server.port.to_string(), bench.path("server.pem"));
    let spy = preloaded(bench.home.folder(), "spy");
    let log = bench.home.path("spy.log");
    TOKENS.map(|(slot, aliases)| {
        let asks = ["asks", "127.0.0.1", &port, &peer];
        let mut java = bench.java(slot, &spy, &[&asks[..], &aliases].concat());
        java.env("SPY_MODULE", library()).env("SPY_LOG", &log);
        java.env("JDK_JAVA_OPTIONS", format!("-Dfirst={first}"));
        let said = run_within(PATIENCE, &mut java, &[]);
        assert!(said.status.success(), "{said}\n{}", server.log());
        let text = said.text();
        let pages: Vec<_> = text.split("=== ").skip(1).collect();
        let asked = aliases
            .iter()
            .flat_map(|alias| ["1.2", "1.3"].map(|one| (alias, one)));
        assert_eq!(pages.len(), 4, "{text}");
        for (page, (alias, protocol)) in pages.iter().zip(asked) {
            assert!(
                page.starts_with(&format!("{alias} TLSv{protocol}")),
                "{page}"
            );
            assert!(page.contains("HTTP/1.0 200"), "{page}");
            assert!(page.contains(&format!("New, TLSv{protocol}")), "{page}");
            let subject = match *alias {
                "idev-id" => "SN-ec",
                "idev-id-rsa2048" => "SN-rsa",
                own => own,
            };
            let (_, shown) = page.split_once("Client certificate").expect(page);
            assert!(shown.contains(subject), "{page}");
        }
        let seen = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        let count = |call: &str| seen.lines().filter(|line| line.starts_with(call)).count();
        assert!(count("C_SignInit") >= 4, "{seen}");
        count("C_Digest")
    })
}

/// OpenSSL's client checks the certificate.
fn java_is_a_server(link: Link) {
    let bench = Bench::new(link);
    let trusted = bench.trusted();
    for (slot, aliases) in TOKENS {
        let mut java = bench.java(slot, &library(), &[&["serves"][..], &aliases].concat());
        let errors = fs::File::create(bench.home.path("java.log")).unwrap();
        let mut server = Running::start("java", java.stdout(Stdio::piped()).stderr(errors));
        let out = BufReader::new(server.child().stdout.take().unwrap());
        for (alias, line) in aliases.iter().zip(out.lines()) {
            let line = line.unwrap();
            let (name, port) = line.split_once(' ').unwrap();
            assert_eq!(name, *alias);
            for protocol in ["1.2", "1.3"] {
                let mut client = Command::new(find("openssl"));
                client.args(["s_client", "-quiet", "-verify_return_error", "-connect"]);
                client
                    .arg(format!("127.0.0.1:{port}"))
                    .arg("-CAfile")
                    .arg(&trusted);
                client.arg(format!("-tls{}", protocol.replace('.', "_")));
                let said = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n");
                let page = format!("{alias} by TLSv{protocol}");
                let log = fs::read_to_string(bench.home.path("java.log")).unwrap();
                assert!(said.text().contains(&page), "{said}\n{log}");
            }
        }
    }
}
