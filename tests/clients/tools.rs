//! pkcs11-tool, p11tool and p11-kit find the identity and show its correct attributes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::library;
use testkit::openssl::{self, Verifier, certificate_der};
use testkit::programs::{Said, program, run};
use testkit::tpm::Swtpm;

over_our_transport!(
    pkcs11_tool_lists,
    pkcs11_tool_reads_what_the_factory_kept,
    pkcs11_tool_signs,
    p11tool_lists,
    p11tool_reads_what_the_factory_kept,
    p11tool_signs,
    p11_kit_finds_the_module,
);

struct Bench {
    _tpm: Swtpm,
    identity: Identity,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let home = Home::new(&link.tcti(&tpm.tcti()));
        Bench {
            _tpm: tpm,
            identity,
            home,
        }
    }

    #[track_caller]
    fn pkcs11_tool(&self, arguments: &[&str]) -> Said {
        let mut command = program("pkcs11-tool");
        command.arg("--module").arg(library()).args(arguments);
        run(self.home.settle(&mut command)).ok()
    }

    #[track_caller]
    fn p11tool(&self, arguments: &[&str]) -> Said {
        let mut command = program("p11tool");
        command
            .arg("--provider")
            .arg(library())
            .arg("--batch")
            .args(arguments);
        run(self.home.settle(&mut command)).ok()
    }

    fn path(&self, name: &str) -> String {
        self.home
            .path(name)
            .to_str()
            .expect("a path in UTF-8")
            .to_owned()
    }
}

#[track_caller]
fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pkcs11_tool_lists(link: Link) {
    let bench = Bench::new(link);
    let slots = bench.pkcs11_tool(&["-L"]).text();
    has_all(
        &slots,
        &[
            "idev-id",
            "devid-pkcs11",
            "token initialized",
            "PIN initialized",
            "readonly",
        ],
    );
    // The token for sessions alone says so, and no other.
    let (with_keys, sessions) = slots.split_once("Slot 2 (0x100)").expect("three slots");
    assert!(!with_keys.contains("login required"), "{slots}");
    assert!(sessions.contains("login required"), "{slots}");
    let objects = bench.pkcs11_tool(&["-O"]);
    let point = hex(&openssl::element(
        4,
        &openssl::point(&bench.identity.public_key()),
    ));
    let text = objects.text();
    has_all(
        &text,
        &[
            "Private Key Object; EC",
            "Public Key Object; EC",
            "EC_POINT 256 bits",
            &point,
        ],
    );
    has_all(&text, &["Certificate Object", "idev-id-ca-1", "sign"]);
    has_all(
        &text,
        &["sensitive, always sensitive, never extractable, local"],
    );
    assert!(!objects.all().to_lowercase().contains("error"), "{objects}");
    let mechanisms = bench.pkcs11_tool(&["-M"]).text();
    has_all(
        &mechanisms,
        &[
            "ECDSA,",
            "ECDSA-SHA256",
            "ECDSA-SHA384",
            "ECDSA-SHA512",
            "{256,256}",
        ],
    );
    // Each of these lines says what its mechanism is for.
    let mut digests: Vec<_> = mechanisms
        .lines()
        .filter(|line| line.contains("digest"))
        .collect();
    digests.sort_unstable();
    let names = ["SHA-1", "SHA224", "SHA256", "SHA384", "SHA512"];
    assert_eq!(digests, names.map(|name| format!("  {name}, digest")));
}

fn pkcs11_tool_reads_what_the_factory_kept(link: Link) {
    let bench = Bench::new(link);
    let out = bench.path("certificate");
    let read = ["--read-object", "--label", "idev-id", "--type"];
    bench.pkcs11_tool(&[&read[..], &["cert", "-o", &out]].concat());
    assert_eq!(
        fs::read(&out).unwrap(),
        certificate_der(&bench.identity.certificate())
    );
    // Not the public key: OpenSC 0.23 makes one from memory that it never set, and fails by chance.
}

fn pkcs11_tool_signs(link: Link) {
    let bench = Bench::new(link);
    let judge = Verifier::new(&bench.identity.public_key());
    let data = bench
        .home
        .write("data", b"a message of some length, for every hash");
    let data = data.to_str().unwrap();
    let out = bench.path("signature");
    for (mechanism, hash) in [("ECDSA-SHA256", "-sha256"), ("ECDSA-SHA384", "-sha384")] {
        bench.pkcs11_tool(&["--sign", "-m", mechanism, "-i", data, "-o", &out]);
        judge
            .accepts_message(hash, &fs::read(data).unwrap(), &fs::read(&out).unwrap())
            .ok();
        let openssl = ["--signature-format", "openssl"];
        let sign = ["--sign", "-m", mechanism, "-i", data, "-o", &out];
        bench.pkcs11_tool(&[&sign[..], &openssl].concat());
        judge
            .accepts_der(hash, &fs::read(data).unwrap(), &fs::read(&out).unwrap())
            .ok();
    }
    let digest = bench.home.write("digest", [0xA7; 32]);
    let id = hex(&openssl::digest(
        "-sha1",
        &openssl::point(&bench.identity.public_key()),
    ));
    let digest = digest.to_str().unwrap();
    bench.pkcs11_tool(&[
        "--sign", "-m", "ECDSA", "--id", &id, "-i", digest, "-o", &out,
    ]);
    judge
        .accepts_digest(&[0xA7; 32], &fs::read(&out).unwrap())
        .ok();
}

fn p11tool_lists(link: Link) {
    let bench = Bench::new(link);
    let tokens = bench.p11tool(&["--list-tokens"]).text();
    has_all(
        &tokens,
        &[
            "Label: idev-id",
            "Manufacturer: devid-pkcs11",
            "token=idev-id",
        ],
    );
    let all = bench
        .p11tool(&["--list-all", "pkcs11:token=idev-id"])
        .text();
    has_all(
        &all,
        &[
            "Type: X.509 Certificate",
            "Type: Private key (EC/ECDSA",
            "Type: Public key (EC",
        ],
    );
    has_all(
        &all,
        &[
            "object=idev-id;type=private",
            "object=idev-id-ca-1;type=cert",
        ],
    );
    let id = openssl::digest("-sha1", &openssl::point(&bench.identity.public_key()));
    let id: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        all.matches(&format!("ID: {}", id.join(":"))).count(),
        3,
        "{all}"
    );
    let mechanisms = bench
        .p11tool(&["--list-mechanisms", "pkcs11:token=idev-id"])
        .text();
    has_all(&mechanisms, &["CKM_ECDSA", "CKM_ECDSA_SHA256"]);
}

fn p11tool_reads_what_the_factory_kept(link: Link) {
    let bench = Bench::new(link);
    let out = bench.path("certificate.pem");
    let url = "pkcs11:token=idev-id;object=idev-id;type=cert";
    bench.p11tool(&["--export", url, "--outfile", &out]);
    let read = certificate_der(Path::new(&out));
    assert_eq!(read, certificate_der(&bench.identity.certificate()));
    let url = "pkcs11:token=idev-id;object=idev-id;type=public";
    bench.p11tool(&["--export-pubkey", url, "--outfile", &out]);
    let read = openssl::public_key_der(Path::new(&out));
    assert_eq!(read, openssl::public_key_der(&bench.identity.public_key()));
}

fn p11tool_signs(link: Link) {
    let bench = Bench::new(link);
    let url = "pkcs11:token=idev-id;object=idev-id;type=private";
    let tested = bench.p11tool(&["--test-sign", url]);
    assert!(
        tested.all().contains("ok"),
        "GnuTLS signs, and verifies with its own code: {tested}"
    );
}

fn p11_kit_finds_the_module(link: Link) {
    let bench = Bench::new(link);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pkcs11-conf/devid-pkcs11.module");
    let shipped = fs::read_to_string(shipped).unwrap();
    let line = "module: libdevid_pkcs11.so";
    assert!(shipped.contains(line), "{shipped}");
    let copy = bench.home.path("libdevid_pkcs11.so");
    fs::copy(library(), &copy).unwrap();
    let here = shipped.replace(line, &format!("module: {}", copy.display()));
    let modules = bench.home.path("pkcs11/modules");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("devid-pkcs11.module"), here).unwrap();
    let mut list = program("p11-kit");
    list.arg("list-modules")
        .env("XDG_CONFIG_HOME", bench.home.folder());
    // p11-kit reads nothing of a user who is root; then nobody asks, who needs a copy to read.
    // SAFETY: asks for our user id, nothing else.
    if unsafe { libc::geteuid() } == 0 {
        // The log is for nobody to write. A folder for all would not be believed.
        let log = bench.home.write("log", bench.home.log());
        fs::set_permissions(log, Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(bench.home.folder(), Permissions::from_mode(0o755)).unwrap();
        list.uid(65534).gid(65534);
    }
    let listed = run(bench.home.settle(&mut list)).ok().text();
    has_all(
        &listed,
        &[
            "devid-pkcs11",
            "token: idev-id",
            "manufacturer: devid-pkcs11",
        ],
    );
    has_all(&listed, &["token-initialized", "write-protected"]);
}
