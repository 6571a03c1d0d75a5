//! OpenSSL's command line with libp11's engine in the version of Debian 12.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::host::preloaded;
use testkit::link::Link;
use testkit::module::library;
use testkit::openssl::{Verifier, digest};
use testkit::programs::{Said, output, program, run};
use testkit::proxy::{Proxy, command};
use testkit::tls::{chain_file, openssl_server};
use testkit::tpm::Swtpm;

over_our_transport!(
    messages_are_signed,
    pss_signatures,
    requests_are_made,
    a_handshake_is_signed,
);
once!(openssl_hashes_itself);

const PACKAGE: &str = "libengine-pkcs11-openssl";
const EACH: [(&str, &str); 4] = [
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
];

/// One TPM with a key of each algorithm, and a configuration that names the engine's module.
struct Bench {
    _tpm: Swtpm,
    proxy: Proxy,
    identities: Vec<Identity>,
    home: Home,
    configuration: PathBuf,
}

impl Bench {
    /// `None`, with a word about it, where this system has no such engine.
    fn new(link: Link) -> Option<Bench> {
        if !has_engine() {
            println!("\nskipped: this release has no package {PACKAGE}");
            return None;
        }
        let runs = EACH.map(|(label, words)| {
            let words = format!("--name {label} --serial SN-{label}-0 {words}");
            words.split_whitespace().map(str::to_owned).collect()
        });
        let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let text = format!(
            "openssl_conf = openssl_init\n\
             [openssl_init]\nengines = engine_sect\n\
             [engine_sect]\npkcs11 = pkcs11_sect\n\
             [pkcs11_sect]\nengine_id = pkcs11\nMODULE_PATH = {}\ninit = 0\n\
             [req]\ndistinguished_name = name_sect\n[name_sect]\n",
            library().display()
        );
        let configuration = home.write("engine.cnf", text);
        Some(Bench {
            _tpm: tpm,
            proxy,
            identities,
            home,
            configuration,
        })
    }

    fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = program("openssl");
        command
            .args(arguments)
            .env("OPENSSL_CONF", &self.configuration);
        self.home.settle(&mut command);
        command
    }

    /// `openssl dgst` with the engine; the signature.
    fn dgst(&self, hash: &str, label: &str, options: &[&str], data: &Path) -> Vec<u8> {
        let out = self.home.path("signature");
        let mut command = self.openssl(&["dgst", "-engine", "pkcs11", "-keyform", "engine", hash]);
        command.args(["-sign", &uri(label)]).args(options);
        run(command.arg("-out").arg(&out).arg(data)).ok();
        fs::read(out).unwrap()
    }
}

fn uri(label: &str) -> String {
    format!("pkcs11:token=idev-id;object={label};type=private")
}

/// True if the engine is installed. If the release has its package, it must be installed.
fn has_engine() -> bool {
    let told = output("openssl", ["version", "-e"]);
    let told = String::from_utf8_lossy(&told).into_owned();
    let folder = told.split('"').nth(1).expect("ENGINESDIR: \"...\"");
    if Path::new(folder).join("pkcs11.so").is_file() {
        return true;
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|one| one == line);
    let offered = Command::new("apt-cache").args(["show", PACKAGE]).output();
    let offered = offered.is_ok_and(|said| said.status.success());
    let twelve = has("ID=debian") && has("VERSION_ID=\"12\"");
    assert!(
        !offered && !twelve,
        "{PACKAGE} is missing: run scripts/setup test"
    );
    false
}

fn messages_are_signed(link: Link) {
    let Some(bench) = Bench::new(link) else {
        return;
    };
    let data = vec![0x42; 100_000];
    let file = bench.home.write("data", &data);
    for ((label, _), identity) in EACH.iter().zip(&bench.identities) {
        let judge = Verifier::new(&identity.public_key());
        for hash in ["-sha256", "-sha384", "-sha512"] {
            bench.proxy.book().take();
            let signature = bench.dgst(hash, label, &[], &file);
            let seen = bench.proxy.book().take();
            assert_eq!(seen.answered(command::SIGN, 0), 1, "{label}: {seen:?}");
            judge.accepts_der(hash, &data, &signature).ok();
            println!("\n{link:?} | engine | dgst {hash} | {label} | verified");
        }
    }
}

/// The module that the engine loads is one that writes down what it is asked for.
fn openssl_hashes_itself() {
    let Some(bench) = Bench::new(Link::Ours) else {
        return;
    };
    let spy = preloaded(bench.home.folder(), "spy");
    let configuration = fs::read_to_string(&bench.configuration).unwrap();
    let module = library().display().to_string();
    let configuration = configuration.replace(&module, &spy.display().to_string());
    let configuration = bench.home.write("spy.cnf", configuration);
    let (data, log) = (
        bench.home.write("data", [7; 5000]),
        bench.home.path("spy.log"),
    );
    for (label, _) in EACH {
        let mut sign = bench.openssl(&["dgst", "-engine", "pkcs11", "-keyform", "engine"]);
        sign.args(["-sha256", "-sign", &uri(label), "-out"]);
        sign.arg(bench.home.path("signature")).arg(&data);
        sign.env("OPENSSL_CONF", &configuration);
        sign.env("SPY_MODULE", library()).env("SPY_LOG", &log);
        run(&mut sign).ok();
        let seen = fs::read_to_string(&log).unwrap();
        assert_eq!(seen, "C_SignInit\n", "{label}");
        fs::remove_file(&log).unwrap();
    }
}

fn pss_signatures(link: Link) {
    let Some(bench) = Bench::new(link) else {
        return;
    };
    let data = b"a message".to_vec();
    let file = bench.home.write("data", &data);
    let judge = Verifier::new(&bench.identities[3].public_key());
    let options = [
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    for hash in ["sha256", "sha384", "sha512"] {
        let option = format!("-{hash}");
        let signature = bench.dgst(&option, "idev-id-rsa2048", &options, &file);
        let digest = digest(&option, &data);
        judge.accepts_pss(hash, &digest, &signature).ok();
        println!("\n{link:?} | engine | dgst PSS {hash} | idev-id-rsa2048 | verified");
    }
}

fn requests_are_made(link: Link) {
    let Some(bench) = Bench::new(link) else {
        return;
    };
    for ((label, _), identity) in EACH.iter().zip(&bench.identities) {
        let out = bench.home.path("request.pem");
        let mut make = bench.openssl(&["req", "-new", "-engine", "pkcs11", "-keyform", "engine"]);
        make.args(["-key", &uri(label), "-subj", "/CN=a device", "-out"]);
        run(make.arg(&out)).ok();
        let said = |words: &[&str]| -> Said {
            run(program("openssl")
                .arg("req")
                .args(words)
                .arg("-in")
                .arg(&out))
            .ok()
        };
        said(&["-verify", "-noout"]);
        let key = said(&["-noout", "-pubkey"]).text();
        let own = fs::read_to_string(identity.public_key()).unwrap();
        assert_eq!(key.trim(), own.trim(), "{label}");
        println!("\n{link:?} | engine | req | {label} | verified");
    }
}

fn a_handshake_is_signed(link: Link) {
    let Some(bench) = Bench::new(link) else {
        return;
    };
    let server = openssl_server(&bench.home, &bench.identities[0]);
    for ((label, _), identity) in EACH.iter().zip(&bench.identities) {
        for protocol in ["-tls1_2", "-tls1_3"] {
            let mut client = bench.openssl(&["s_client", "-quiet", "-verify_return_error"]);
            client.args([protocol, "-connect", &server.address(), "-CAfile"]);
            client.arg(bench.home.path("server.pem"));
            client.args(["-engine", "pkcs11", "-keyform", "engine"]);
            client.args(["-key", &uri(label), "-cert"]);
            client.arg(chain_file(&bench.home, identity));
            let request = b"GET / HTTP/1.0\r\n\r\n";
            let said = testkit::programs::run_with(&mut client, request);
            let page = said.text();
            let serial = format!("SN-{label}-0");
            assert!(
                page.contains(&serial),
                "{protocol} {label}: {said}\n{}",
                server.log()
            );
            println!("\n{link:?} | engine | s_client {protocol} | {label} | TLS");
        }
    }
}
