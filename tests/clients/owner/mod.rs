//! An owner's certificates for the factory keys: which token shows them, which of them are refused,
//! and the effect of a rotation and of a reset. The test names follow OpenConfig's lists
//! (attestz-1.1, enrollz-1).

use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, loaded, tool, ulong};
use testkit::openssl::{Verifier, certificate_der, digest};
use testkit::own::slot_of;
use testkit::programs::{Said, program, run, run_within};
use testkit::raw::text;
use testkit::tls::with_provider;
use testkit::tpm::Swtpm;

mod attestz;
mod nss;
mod refused;

over_our_transport!(
    nowhere_is_the_default,
    instead_of_the_factorys,
    on_a_token_of_their_own,
    java_openssl_and_gnutls_with_both,
    enrollz_1_29_oiak_alone,
    enrollz_1_30_a_restart_keeps_both,
    attestz_1_1_6_a_factory_reset_keeps_the_makers,
    a_rotation_is_whole,
    the_issuer_must_be_there,
    others_may_not_write_them,
    whoever_may_use_the_tpm_sees_them,
    a_key_with_a_pin_has_no_place_on_their_token,
);

/// Java takes seconds to start, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// A device with IDevID and IAK, and an owner's CA: `root.pem`, `ca.pem` in `owner/`.
struct Bench {
    tpm: Swtpm,
    keys: Vec<Identity>,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        Bench::with(link, "--serial SN-7")
    }

    /// With these options for the factory's IDevID.
    fn with(link: Link, idevid: &str) -> Bench {
        let runs = [idevid, "--serial SN-7 --iak"];
        let runs = runs.map(|run| run.split_whitespace().map(str::to_owned).collect());
        let (tpm, keys) = Swtpm::manufactured_in_runs(&runs);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        fs::create_dir(home.path("owner")).unwrap();
        let bench = Bench { tpm, keys, home };
        bench.show("nowhere");
        bench
    }

    fn show(&self, how: &str) {
        let settings = format!("[owner]\nshow = \"{how}\"\n");
        self.home.write("config.toml", settings);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    fn devid(&self, words: &[&str]) -> Said {
        let mut command = Command::new(tool());
        run(self.home.settle(command.args(words).stdin(Stdio::null())))
    }

    #[track_caller]
    fn ends(&self, code: i32, words: &[&str]) -> Said {
        let said = self.devid(words);
        assert_eq!(said.status.code(), Some(code), "{said}");
        said
    }

    /// The owner's certificate for a public key, with the chain in the same file.
    fn certified(&self, name: &str, public: &Path) -> PathBuf {
        let owner = self.path("owner");
        let [key, request, out] =
            ["key", "csr", "leaf"].map(|end| owner.join(format!("{name}.{end}")));
        let mut make = program("openssl");
        make.args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        make.args(["-nodes", "-subj", "/CN=stand-in", "-keyout"])
            .arg(&key);
        run(make.arg("-out").arg(&request)).ok();
        let script = testkit::factory::script().with_file_name("authority");
        let mut authority = program(script.to_str().unwrap());
        authority
            .args(["--serial", "SN-7", "--model", name, "--dir"])
            .arg(&owner);
        run(authority
            .arg("--request")
            .arg(&request)
            .arg("--out")
            .arg(&out))
        .ok();
        // The request's key is a stand-in: the device's own cannot sign one if it is restricted.
        let ours = owner.join(format!("{name}.pem"));
        let mut sign = program("openssl");
        sign.args(["x509", "-req", "-subj"])
            .arg(format!("/CN={name}/serialNumber=SN-7"))
            .arg("-in")
            .arg(&request)
            .arg("-force_pubkey")
            .arg(public);
        sign.arg("-CA")
            .arg(owner.join("ca.pem"))
            .arg("-CAkey")
            .arg(owner.join("ca.key"));
        run(sign
            .args(["-days", "300", "-CAcreateserial", "-out"])
            .arg(&ours))
        .ok();
        let all = ["ca.pem", "root.pem"].map(|one| fs::read(owner.join(one)).unwrap());
        let whole = [fs::read(&ours).unwrap(), all.concat()].concat();
        self.home.write(&format!("{name}-chain.pem"), whole)
    }

    /// Certificates for both keys.
    fn both(&self) -> [PathBuf; 2] {
        let names = ["oidevid", "oiak"];
        [0, 1].map(|n| self.certified(names[n], &self.keys[n].public_key()))
    }

    #[track_caller]
    fn import(&self, files: &[&Path]) -> Said {
        let files: Vec<&str> = files.iter().map(|one| one.to_str().unwrap()).collect();
        self.ends(0, &[&["import-cert", "--owner"], &files[..]].concat())
    }

    #[track_caller]
    fn import_both(&self) -> [PathBuf; 2] {
        let both = self.both();
        self.import(&[&both[0], &both[1]]);
        both
    }

    /// Refused with these words, and what is there stays.
    #[track_caller]
    fn refuses(&self, files: &[&Path], words: &[&str]) {
        let before = fs::read(self.path("state-owner/certificates.pem")).ok();
        let files: Vec<&str> = files.iter().map(|one| one.to_str().unwrap()).collect();
        let said = self.devid(&[&["import-cert", "--owner"], &files[..]].concat());
        assert!(!said.status.success(), "{said}");
        for word in words.iter().chain(&["nothing was changed"]) {
            assert!(said.all().contains(word), "{word}: {said}");
        }
        let after = fs::read(self.path("state-owner/certificates.pem")).ok();
        assert!(before == after, "{said}");
    }

    /// The end-entity certificates of a token.
    fn shown(&self, token: &str) -> Vec<Shown> {
        let raw = loaded(&self.home);
        raw.initialize().unwrap();
        let session = raw.open(slot_of(&raw, token), CKF_SERIAL_SESSION).unwrap();
        let template = [
            (CKA_CLASS, ulong(CKO_CERTIFICATE)),
            (
                CKA_CERTIFICATE_CATEGORY,
                ulong(CK_CERTIFICATE_CATEGORY_TOKEN_USER),
            ),
        ];
        let found = raw.find(session, &template).unwrap();
        let shown = found.into_iter().map(|one| {
            let get = |kind| raw.attribute(session, one, kind).unwrap();
            Shown {
                label: text(&get(CKA_LABEL)),
                der: get(CKA_VALUE),
                id: get(CKA_ID),
            }
        });
        let shown = shown.collect();
        raw.finalize().unwrap();
        shown
    }

    /// Labels of tokens that are there.
    fn tokens(&self) -> Vec<String> {
        let raw = loaded(&self.home);
        raw.initialize().unwrap();
        let slots = raw.slots(true).unwrap().into_iter();
        let labels = slots.map(|slot| text(&raw.token_info(slot).unwrap().label));
        let labels = labels.collect();
        raw.finalize().unwrap();
        labels
    }

    /// The private key of a token signs, and OpenSSL verifies by the certificate's key.
    fn signs(&self, token: &str) {
        let raw = loaded(&self.home);
        raw.initialize().unwrap();
        let session = raw.open(slot_of(&raw, token), CKF_SERIAL_SESSION).unwrap();
        let found = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        let [key] = found.unwrap()[..] else {
            panic!("one private key on {token}");
        };
        let hash = digest("-sha256", b"text");
        raw.sign_init(session, CKM_ECDSA, key).unwrap();
        let signature = raw.sign(session, &hash).unwrap();
        let judge = Verifier::new(&self.keys[0].public_key());
        judge.accepts_digest(&hash, &signature).ok();
        raw.finalize().unwrap();
    }
}

/// A certificate on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    label: String,
    der: Vec<u8>,
    id: Vec<u8>,
}

fn labels(shown: &[Shown]) -> Vec<&str> {
    shown.iter().map(|one| one.label.as_str()).collect()
}

fn nowhere_is_the_default(link: Link) {
    let bench = Bench::new(link);
    let before = bench.shown("idev-id");
    bench.home.write("config.toml", "");
    let [oidevid, oiak] = bench.both();
    let said = bench.import(&[&oidevid, &oiak]);
    assert!(said.text().contains("[owner]"), "{said}");
    assert_eq!(bench.shown("idev-id"), before);
    assert!(!bench.tokens().contains(&"oidevid".to_owned()));
    // A person sees both, the factory's first.
    let told = bench.ends(0, &["show", "idev-id"]).text();
    assert!(told.contains("owner/certificates.pem"), "{told}");
    bench.ends(3, &["verify", "idev-id"]);
}

fn instead_of_the_factorys(link: Link) {
    let bench = Bench::new(link);
    let before = bench.shown("idev-id");
    let [oidevid, oiak] = bench.import_both();
    bench.show("instead");
    let shown = bench.shown("idev-id");
    assert_eq!(labels(&shown), labels(&before));
    let ders: Vec<_> = shown.iter().map(|one| one.der.clone()).collect();
    assert_eq!(ders, [certificate_der(&oidevid), certificate_der(&oiak)]);
    let ids = |all: &[Shown]| -> Vec<_> { all.iter().map(|one| one.id.clone()).collect() };
    assert_eq!(ids(&shown), ids(&before));
    bench.signs("idev-id");
    // The factory's is still what devid verifies.
    bench.ends(3, &["verify", "idev-id"]);
}

fn on_a_token_of_their_own(link: Link) {
    let bench = Bench::new(link);
    let before = bench.shown("idev-id");
    bench.show("token");
    assert!(!bench.tokens().contains(&"oidevid".to_owned()));
    let [oidevid, oiak] = bench.import_both();
    assert_eq!(bench.shown("idev-id"), before);
    let shown = bench.shown("oidevid");
    assert_eq!(labels(&shown), ["oidevid", "oiak"]);
    assert_eq!(shown[0].der, certificate_der(&oidevid));
    assert_eq!(shown[1].der, certificate_der(&oiak));
    for one in &shown {
        assert!(before.iter().all(|other| other.id != one.id), "{one:?}");
    }
    bench.signs("oidevid");
    let listed = bench.ends(0, &["list"]).text();
    assert!(
        listed.contains("oidevid") && listed.contains("oiak"),
        "{listed}"
    );
    bench.ends(0, &["show", "oidevid"]);
    bench.ends(0, &["show", "pkcs11:token=oidevid;object=oidevid"]);
}

/// Java reads the slot's KeyStore, OpenSSL signs by URI, and p11tool lists. Two tokens hold two
/// certificates of one key.
fn java_openssl_and_gnutls_with_both(link: Link) {
    let bench = Bench::new(link);
    bench.import_both();
    bench.show("token");
    let mut p11tool = program("p11tool");
    p11tool.arg("--provider").arg(library());
    let listed = run(bench
        .home
        .settle(p11tool.args(["--batch", "--list-all-certs", "pkcs11:"])));
    let listed = listed.ok().text();
    for label in ["object=idev-id;", "object=oidevid;", "object=oiak;"] {
        assert!(listed.contains(label), "{label}: {listed}");
    }
    let slots = {
        let raw = loaded(&bench.home);
        raw.initialize().unwrap();
        let slots = ["idev-id", "oidevid"].map(|token| slot_of(&raw, token));
        raw.finalize().unwrap();
        slots
    };
    for (slot, alias) in slots.into_iter().zip(["idev-id", "oidevid"]) {
        let settings = format!("name=devid\nlibrary={}\nslot={slot}\n", library().display());
        let settings = bench.home.write("java.cfg", settings);
        let mut keytool = program("keytool");
        keytool.args([
            "-list",
            "-keystore",
            "NONE",
            "-storetype",
            "PKCS11",
            "-storepass",
            "",
        ]);
        keytool.args([
            "-providerclass",
            "sun.security.pkcs11.SunPKCS11",
            "-providerarg",
        ]);
        keytool.arg(settings);
        let said = run_within(PATIENCE, bench.home.settle(&mut keytool), &[])
            .ok()
            .text();
        assert!(
            said.contains(&format!("{alias}, PrivateKeyEntry")),
            "{said}"
        );
    }
    let message = bench.home.write("message", "text");
    let signature = bench.path("signature");
    let mut sign = with_provider("openssl", &bench.home);
    sign.args([
        "dgst",
        "-sha256",
        "-sign",
        "pkcs11:token=oidevid;object=oidevid;type=private",
    ]);
    run(sign.arg("-out").arg(&signature).arg(&message)).ok();
    let made = fs::read(&signature).unwrap();
    let judge = Verifier::new(&bench.keys[0].public_key());
    judge.accepts_der("-sha256", b"text", &made).ok();
}

fn enrollz_1_29_oiak_alone(link: Link) {
    let bench = Bench::new(link);
    bench.show("token");
    let [_, oiak] = bench.both();
    bench.import(&[&oiak]);
    let shown = bench.shown("oidevid");
    assert_eq!(labels(&shown), ["oiak"]);
    bench.show("instead");
    assert_eq!(bench.shown("idev-id")[1].der, certificate_der(&oiak));
    bench.signs("idev-id");
}

fn enrollz_1_30_a_restart_keeps_both(link: Link) {
    let mut bench = Bench::new(link);
    bench.import_both();
    bench.show("token");
    let before = bench.shown("oidevid");
    bench.tpm.kill();
    bench.tpm.restart();
    assert_eq!(bench.shown("oidevid"), before);
    bench.signs("oidevid");
}

fn attestz_1_1_6_a_factory_reset_keeps_the_makers(link: Link) {
    let bench = Bench::new(link);
    let before = bench.shown("idev-id");
    bench.import_both();
    bench.show("instead");
    assert_ne!(bench.shown("idev-id"), before);
    bench.ends(0, &["reset", "--factory", "--yes"]);
    assert_eq!(bench.shown("idev-id"), before);
    assert!(!bench.path("state-owner/certificates.pem").exists());
}

/// A new pair replaces the old pair. A new certificate for one key does not change the other key's
/// certificate. A running program sees the change at its next search.
fn a_rotation_is_whole(link: Link) {
    let bench = Bench::new(link);
    let [_, oiak] = bench.import_both();
    bench.show("token");
    let first = bench.shown("oidevid");
    let next = bench.certified("next", &bench.keys[0].public_key());
    let said = bench.import(&[&next]);
    assert!(said.text().contains("in place of"), "{said}");
    let second = bench.shown("oidevid");
    assert_eq!(second[0].der, certificate_der(&next));
    assert_eq!(second[1].der, certificate_der(&oiak));
    assert_eq!(second[0].id, first[0].id);
    // A second import changes nothing, and reports no replaced certificate.
    let again = bench.import(&[&next]);
    assert!(!again.text().contains("in place of"), "{again}");
    assert_eq!(bench.shown("oidevid"), second);
    let kept = fs::read_to_string(bench.path("state-owner/certificates.pem")).unwrap();
    assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 4, "{kept}");
}

fn the_issuer_must_be_there(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, _] = bench.both();
    let text = fs::read_to_string(&oidevid).unwrap();
    let end = text.find("-----END CERTIFICATE-----").unwrap() + 26;
    let leaf = bench.home.write("leaf.pem", &text[..end]);
    bench.refuses(&[&leaf], &["issuer", "missing"]);
    let ca = bench.path("owner/ca.pem");
    for place in ["trust", "chain"] {
        fs::create_dir_all(bench.path(place)).unwrap();
        let known = bench.path(place).join("owner.pem");
        fs::copy(&ca, &known).unwrap();
        bench.import(&[&leaf]);
        fs::remove_file(known).unwrap();
    }
    bench.import(&[&leaf, &ca]);
    bench.refuses(&[&ca], &["only certificates of CAs"]);
}

/// Certificates that a stranger may exchange are not shown: those of the factory are.
fn others_may_not_write_them(link: Link) {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(link);
    let before = bench.shown("idev-id");
    bench.import_both();
    bench.show("instead");
    let file = bench.path("state-owner/certificates.pem");
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(bench.shown("idev-id"), before);
    bench.home.log_says(&["certificates.pem", "may write"]);
}

/// As packages have it: only root and the group `devid` may enter the state folder.
fn whoever_may_use_the_tpm_sees_them(link: Link) {
    use std::os::unix::fs::PermissionsExt;
    const STRANGER: libc::uid_t = 12345;
    let bench = Bench::new(link);
    bench.show("token");
    let both = bench.both();
    let mut command = Command::new(tool());
    command.args(["import-cert", "--owner"]).args(&both);
    let narrow = || {
        // SAFETY: one system call, between fork and exec.
        unsafe { libc::umask(0o077) };
        Ok(())
    };
    // SAFETY: as before.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, narrow) };
    run(bench.home.settle(&mut command)).ok();
    let mode = |name: &str, bits: u32| {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(bits)).unwrap();
    };
    mode("", 0o755);
    mode("state", 0o750);
    let raw = loaded(&bench.home);
    testkit::fork::Forked::new(|| {
        // SAFETY: plain system calls of a process with one thread.
        unsafe {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setgid(STRANGER), 0);
            assert_eq!(libc::setuid(STRANGER), 0);
        }
        raw.initialize().unwrap();
        slot_of(&raw, "oidevid");
    })
    .succeeds();
}

/// `devid` tells of no token that the module does not show. The attestation key, which needs no PIN, has
/// its certificates: the factory's beside the identity with the PIN, the owner's where they are shown.
fn a_key_with_a_pin_has_no_place_on_their_token(link: Link) {
    let bench = Bench::with(link, "--serial SN-7 --auth 1234");
    let with_pin = |show: &str| {
        let settings = format!(
            "[owner]\nshow = \"{show}\"\n[[identity]]\nhandle = 0x81020000\nauth = \"pin\"\n"
        );
        bench.home.write("config.toml", settings);
    };
    with_pin("token");
    assert_eq!(labels(&bench.shown("idev-id")), ["idev-id", "iak"]);
    bench.ends(0, &["show", "iak"]);
    let [oidevid, oiak] = bench.both();
    bench.import(&[&oiak]);
    assert_eq!(labels(&bench.shown("oidevid")), ["oiak"]);
    with_pin("instead");
    let shown = bench.shown("idev-id");
    assert_eq!(labels(&shown), ["idev-id", "iak"]);
    assert_eq!(shown[1].der, certificate_der(&oiak));
    fs::remove_file(bench.path("state-owner/certificates.pem")).unwrap();
    with_pin("token");
    bench.import(&[&oidevid]);
    assert!(!bench.tokens().contains(&"oidevid".to_owned()));
    let listed = bench.ends(0, &["list", "--json"]).text();
    assert!(!listed.contains("\"label\": \"oidevid\""), "{listed}");
    let told = bench.ends(0, &["show", "idev-id"]).text();
    assert!(told.contains("state-owner/certificates.pem"), "{told}");
}
