//! Runs the commands of the section "Keys of your own" of docs/KEYS.md without changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, tool};
use testkit::openssl::Verifier;
use testkit::own::Own;
use testkit::programs::{Said, program, run, run_with};
use testkit::proxy::Proxy;
use testkit::ssh::{client_options, sshd};
use testkit::tls::{Site, configuration, nginx, plain_request, server_identity};
use testkit::tpm::Swtpm;
use testkit::wrapping::{by_aes_wrapped, keys, random, signs_as};

over_our_transport!(
    a_tls_server_with_a_key_of_its_own,
    programs_make_keys,
    a_program_makes_a_secret_key,
    ssh_logs_in_with_a_key,
    #[ignore = "python-pkcs11 is on PyPI only; DEVID_TEST_PYTHON names a Python that has it"]
    python_makes_keys,
    #[ignore = "python-pkcs11 is on PyPI only; DEVID_TEST_PYTHON names a Python that has it"]
    python_unwraps_a_key,
);

const SECTION: &str = "## Keys of your own\n";

/// The blocks of the section in this language.
fn blocks(language: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/KEYS.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, section) = text.split_once(SECTION).expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let block = |after: &str| after.split("```").next().unwrap().to_owned();
    section.split(&fence).skip(1).map(block).collect()
}

/// The block of shell commands that has this word.
#[track_caller]
fn block(word: &str) -> String {
    let mut found: Vec<_> = blocks("sh")
        .into_iter()
        .filter(|block| block.contains(word))
        .collect();
    assert_eq!(found.len(), 1, "blocks with {word:?}");
    found.remove(0)
}

struct Bench {
    _tpm: Swtpm,
    _proxy: Proxy,
    home: Home,
    configuration: PathBuf,
}

impl Bench {
    /// A TPM with its factory identity, so that both tokens are there.
    fn new(link: Link) -> Bench {
        let (tpm, _identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let configuration = configuration(&home);
        Bench {
            _tpm: tpm,
            _proxy: proxy,
            home,
            configuration,
        }
    }

    /// Commands in the home, with what the page takes for granted.
    fn shell(&self, commands: &str) -> Command {
        let mut shell = program("bash");
        shell
            .args(["-euc", commands])
            .current_dir(self.home.folder());
        let tools = tool().parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap();
        let all = [tools].into_iter().chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(all).unwrap());
        shell
            .env("M", library())
            .env("OPENSSL_CONF", &self.configuration);
        self.home.settle(&mut shell);
        shell
    }

    #[track_caller]
    fn run(&self, commands: &str) -> Said {
        run(&mut self.shell(commands)).ok()
    }

    /// The key signs by pkcs11-tool, and OpenSSL accepts it for the public key that it reads there.
    /// OpenSC signs with keys that it is told by CKA_ID, not by label.
    #[track_caller]
    fn signs(&self, label: &str, mechanism: &str) {
        let tool = "pkcs11-tool --module $M --token-label devid";
        let listed = self
            .run(&format!("{tool} --list-objects --type privkey"))
            .text();
        let of_label = format!("label:      {label}\n");
        let (_, after) = listed.split_once(&of_label).expect("a key with this label");
        let id = after.split_whitespace().nth(1).expect("its ID");
        self.run(&format!(
            "echo hello > message
            {tool} --id {id} --sign --mechanism {mechanism} --signature-format openssl \\
                --input-file message --output-file message.sig
            {tool} --id {id} --read-object --type pubkey --output-file public.der"
        ));
        let judge = Verifier::new(&self.home.path("public.der"));
        let signature = fs::read(self.home.path("message.sig")).unwrap();
        judge.accepts_der("-sha256", b"hello\n", &signature).ok();
    }

    /// A CA's answer to the request: `service.pem`.
    fn certify(&self) {
        server_identity(&self.home);
        let extension = self
            .home
            .write("extension", "subjectAltName=IP:127.0.0.1\n");
        let mut sign = program("openssl");
        sign.args(["x509", "-req", "-days", "30", "-in"]);
        sign.arg(self.home.path("service-request.pem")).arg("-CA");
        sign.arg(self.home.path("server.pem")).arg("-CAkey");
        sign.arg(self.home.path("server.key"))
            .arg("-extfile")
            .arg(extension);
        run(sign.arg("-out").arg(self.home.path("service.pem"))).ok();
    }
}

fn a_tls_server_with_a_key_of_its_own(link: Link) {
    let bench = Bench::new(link);
    let said = bench.run(&block("service-request.pem"));
    assert!(said.all().contains("self-signature verify OK"), "{said}");
    bench.signs("service", "ECDSA-SHA256");
    bench.certify();
    let said = bench.run(&block("--write-object")).text();
    let ids = said.lines().filter(|line| line.starts_with("  ID:"));
    let ids: Vec<_> = ids.collect();
    // The created objects, then all objects: private key, public key and certificate.
    assert_eq!(ids.len(), 4, "{said}");
    assert!(ids.iter().all(|id| *id == ids[0]), "{said}");

    let lines = &blocks("nginx")[..];
    let [lines] = lines else {
        panic!("one block for nginx")
    };
    let file = |name: &str| {
        let setting = lines
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        bench.home.path(setting.unwrap().trim_end_matches(';'))
    };
    // Its workers get no more of the environment than this.
    let mut top = String::from("env OPENSSL_CONF;\n");
    for (name, _) in bench.home.variables() {
        top += &format!("env {name};\n");
    }
    let site = Site {
        workers: 2,
        certificate: file("ssl_certificate"),
        key: file("ssl_certificate_key"),
        lines: String::new(),
        top,
    };
    let server = nginx(&bench.home, &site, |nginx| {
        nginx.env("OPENSSL_CONF", &bench.configuration);
        bench.home.settle(nginx);
    });
    for protocol in ["-tls1_2", "-tls1_3"] {
        for _ in 0..3 {
            let page = plain_request(&server, &bench.home.path("server.pem"), protocol);
            assert!(page.contains("TLSv1."), "{page}");
        }
    }
}

fn programs_make_keys(link: Link) {
    let bench = Bench::new(link);
    let block = block("p11tool");
    let (makes, deletes) = block.split_at(block.rfind("devid key").unwrap());
    bench.run(makes);
    for (label, mechanism) in [
        ("by-opensc", "SHA256-RSA-PKCS"),
        ("by-gnutls", "ECDSA-SHA256"),
        ("by-openssl", "ECDSA-SHA256"),
    ] {
        bench.signs(label, mechanism);
    }
    let request = fs::read(bench.home.path("request.pem")).unwrap();
    let verified = run_with(
        program("openssl").args(["req", "-verify", "-noout"]),
        &request,
    );
    assert!(verified.all().contains("verify OK"), "{verified}");
    bench.run(deletes);
    let list = "pkcs11-tool --module $M --token-label devid --list-objects --type privkey";
    let said = bench.run(list).text();
    assert!(
        !said.contains("by-opensc") && said.contains("by-gnutls"),
        "{said}"
    );
    bench.home.write("message", "for mail only\n");
    bench.run(&self::block("cms -decrypt"));
    let plain = fs::read_to_string(bench.home.path("plain")).unwrap();
    assert_eq!(plain.trim_end(), "for mail only");
}

fn a_program_makes_a_secret_key(link: Link) {
    let bench = Bench::new(link);
    bench.home.write("message", "hello");
    bench.run(&block("AES:32"));
    let read = |name| fs::read(bench.home.path(name)).unwrap();
    assert_eq!(read("opened"), b"hello");
    assert_eq!(read("sealed").len(), 16);
}

fn ssh_logs_in_with_a_key(link: Link) {
    let bench = Bench::new(link);
    bench.run(&block("service-request.pem"));
    let server = sshd(&bench.home);
    let options = client_options(server.port);
    let said = run(bench.shell(&block("ssh-keygen")).env("SERVER", &options)).ok();
    assert_eq!(said.text(), "hello\n", "{said}");
    assert!(
        server.log().contains("Accepted publickey"),
        "{}",
        server.log()
    );
    // Without the key nobody is let in.
    fs::write(bench.home.path("authorized_keys"), "").unwrap();
    let login = "ssh -o PKCS11Provider=$M $SERVER echo hello";
    let refused = run(bench.shell(login).env("SERVER", &options));
    assert!(!refused.status.success(), "{refused}");
}

const PYTHON: &str = r#"
import os, pkcs11
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(os.environ["M"]).get_token(token_label="devid")
with token.open(rw=True) as session:
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    curve = session.create_domain_parameters(KeyType.EC, curve, local=True)
    public, private = curve.generate_keypair(store=True, label="by-python")
    signature = private.sign(b"data", mechanism=Mechanism.ECDSA_SHA256)
    assert public.verify(b"data", signature, mechanism=Mechanism.ECDSA_SHA256)
    session.generate_keypair(KeyType.RSA, 2048, store=True, label="by-python-rsa")
    session.generate_keypair(KeyType.RSA, 2048, store=False)
"#;

fn python_makes_keys(link: Link) {
    let python = std::env::var("DEVID_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let bench = Bench::new(link);
    bench.home.write("keys.py", PYTHON);
    bench.run(&format!("{python} keys.py"));
    bench.signs("by-python", "ECDSA-SHA256");
    bench.signs("by-python-rsa", "SHA256-RSA-PKCS");
}

const PYTHON_UNWRAPS: &str = r#"
import os, pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
token = pkcs11.lib(os.environ["M"]).get_token(token_label="devid")
with token.open(rw=True) as session:
    transport = session.create_object({
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.VALUE: open("transport", "rb").read(),
        Attribute.UNWRAP: True,
    })
    for name, kind in [("p256", KeyType.EC), ("rsa", KeyType.RSA)]:
        wrapped = open(name + ".wrapped", "rb").read()
        transport.unwrap_key(ObjectClass.PRIVATE_KEY, kind, wrapped, label=name, store=True,
                             mechanism=Mechanism.AES_KEY_WRAP_KWP)
"#;

fn python_unwraps_a_key(link: Link) {
    let python = std::env::var("DEVID_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let bench = Bench::new(link);
    let (home, value) = (&bench.home, random(32));
    keys(home);
    home.write("transport", &value);
    for name in ["p256", "rsa"] {
        let wrapped = by_aes_wrapped(home, &value, name);
        home.write(&format!("{name}.wrapped"), wrapped);
    }
    home.write("unwrap.py", PYTHON_UNWRAPS);
    bench.run(&format!("{python} unwrap.py"));
    let own = Own::new(home);
    for name in ["p256", "rsa"] {
        let found = own.labelled(name);
        assert_eq!(found.len(), 1, "{name}");
        signs_as(&own, home, found[0], name);
    }
}
