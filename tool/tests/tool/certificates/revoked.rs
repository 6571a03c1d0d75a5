//! Compares `devid verify --crl` with `openssl verify -crl_check`, on CRLs that `openssl ca`
//! writes.

use crate::device::Device;
use crate::device::programs::{program, run};
use serde_json::Value;
use std::fs;
use std::path::Path;

const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                  subjectKeyIdentifier=hash\n";
const LEAF: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                    authorityKeyIdentifier=keyid\n";
const SETTINGS: &str = "[ca]\ndefault_ca=c\n[c]\ndatabase=index\ndefault_md=sha256\n\
                        crl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n";
/// Serial numbers.
const DEVICE: &str = "1000000000000001";
const ISSUER: &str = "1000000000000002";

/// A device whose identity a CA below a root certified; the root is trusted.
struct Bench(Device);

impl Bench {
    fn new() -> Bench {
        let device = Device::blank();
        let request = device.path("devid.csr");
        device.ends(0, &["provision", "--csr", text(&request)]);
        let bench = Bench(device);
        for (name, content) in [("ca.ext", CA), ("leaf.ext", LEAF), ("ca.cnf", SETTINGS)] {
            bench.0.home.write(name, content);
        }
        for name in ["root", "other"] {
            bench.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key \
                 -subj /CN=root -days 30 -out {name}.pem"
            ));
        }
        bench.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj /CN=ca \
             -out ca.csr",
        );
        bench.openssl(&format!(
            "x509 -req -in ca.csr -CA root.pem -CAkey root.key -set_serial 0x{ISSUER} -days 30 \
             -extfile ca.ext -out ca.pem"
        ));
        bench.openssl(&format!(
            "x509 -req -in devid.csr -CA ca.pem -CAkey ca.key -set_serial 0x{DEVICE} -days 30 \
             -extfile leaf.ext -out leaf.pem"
        ));
        let both = bench.read("leaf.pem") + &bench.read("ca.pem");
        let both = bench.0.home.write("both.pem", both);
        bench.0.ends(0, &["import-cert", text(&both)]);
        bench.0.trust(&bench.0.path("root.pem"));
        bench
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path(name)).unwrap()
    }

    /// `openssl WORDS…` in the device's folder.
    fn openssl(&self, words: &str) {
        let mut command = program("openssl");
        command.args(words.split(' ')).current_dir(self.0.path(""));
        run(&mut command).ok();
    }

    /// A CRL by this CA, as `out`.
    fn crl(&self, by: &str, revoked: &[&str], dates: &str, out: &str) {
        let row = |serial: &&str| {
            format!("R\t490101000000Z\t260301120000Z,keyCompromise\t{serial}\tunknown\t/CN=x\n")
        };
        self.0
            .home
            .write("index", revoked.iter().map(row).collect::<String>());
        self.openssl(&format!(
            "ca -config ca.cnf -gencrl -keyfile {by}.key -cert {by}.pem {dates} -out {out}"
        ));
    }

    /// The output of `devid verify` and the exit code. OpenSSL first confirms the result for the
    /// leaf, or for the whole chain with the option for all.
    #[track_caller]
    fn verify(&self, lists: &[&str], check: &str, code: i32) -> (String, Value) {
        let mut words = vec!["verify".to_owned(), "devid".to_owned()];
        let mut openssl = program("openssl");
        openssl.current_dir(self.0.path(""));
        openssl.args([
            "verify",
            check,
            "-CAfile",
            "root.pem",
            "-untrusted",
            "ca.pem",
        ]);
        for list in lists {
            words.extend(["--crl".to_owned(), text(&self.0.path(list)).to_owned()]);
            openssl.args(["-CRLfile", list]);
        }
        let theirs = run(openssl.arg("leaf.pem"));
        assert_eq!(theirs.status.success(), code == 0, "{theirs}");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = self.0.ends(code, &words);
        let json = self.0.devid(&[&words[..], &["--json"]].concat());
        let json: Value = serde_json::from_slice(&json.out).unwrap();
        (format!("{}{}", said.text(), said.err), json)
    }
}

#[track_caller]
fn says(said: &str, words: &str) {
    assert!(said.contains(words), "{said}, not {words}");
}

#[test]
fn what_a_crl_revokes_is_not_verified() {
    let bench = Bench::new();
    let days = "-crldays 7";
    let plain = bench.0.devid(&["verify", "devid"]).ok();
    says(&plain.text(), "skipped  revocation: not checked");
    says(&plain.text(), "devid: verified; revocation not checked\n");
    let json = bench.0.json(&["verify", "devid"]);
    assert_eq!(json["revocation_checked"], false);

    bench.crl("ca", &[], days, "ca.crl");
    bench.crl("root", &[], days, "root.crl");
    let (said, json) = bench.verify(&["ca.crl"], "-crl_check", 0);
    says(&said, "no CRL was given for CN=ca");
    assert_eq!(json["revocation_checked"], false);
    let (said, json) = bench.verify(&["ca.crl", "root.crl"], "-crl_check_all", 0);
    says(&said, "devid: verified; not revoked\n");
    assert_eq!(json["revocation_checked"], true);
    // DER; both in a file.
    bench.openssl("crl -in ca.crl -outform der -out ca.der");
    bench.verify(&["ca.der", "root.crl"], "-crl_check_all", 0);
    bench
        .0
        .home
        .write("both.crl", bench.read("ca.crl") + &bench.read("root.crl"));
    let (_, json) = bench.verify(&["both.crl"], "-crl_check_all", 0);
    assert_eq!(json["revocation_checked"], true);

    bench.crl("ca", &[ISSUER, DEVICE], days, "ca-revoked.crl");
    let (said, json) = bench.verify(&["ca-revoked.crl"], "-crl_check", 1);
    says(
        &said,
        "was revoked on 2026-03-01T12:00:00Z (keyCompromise) according to the CRL of CN=ca",
    );
    assert_eq!(json["verdict"], "failed");
    bench.crl("root", &[ISSUER], days, "root-revoked.crl");
    let (said, _) = bench.verify(&["ca.crl", "root-revoked.crl"], "-crl_check_all", 1);
    says(&said, "the certificate of CN=ca was revoked");
}

#[test]
fn a_crl_that_proves_nothing_verifies_nothing() {
    let bench = Bench::new();
    let days = "-crldays 7";
    let past = "-crl_lastupdate 20250101000000Z -crl_nextupdate 20250201000000Z";
    bench.crl("ca", &[], past, "old.crl");
    let (said, _) = bench.verify(&["old.crl"], "-crl_check", 1);
    says(&said, "was valid until 2025-02-01T00:00:00Z");
    bench.crl("root", &[], days, "root.crl");
    let (said, _) = bench.verify(&["root.crl"], "-crl_check", 1);
    says(&said, "none of the given CRLs is from the CA CN=ca");
    // A root of that name with another key.
    bench.crl("ca", &[], days, "ca.crl");
    bench.crl("other", &[], days, "other.crl");
    let (said, _) = bench.verify(&["ca.crl", "other.crl"], "-crl_check_all", 1);
    says(&said, "the CRL of CN=root");
}

#[test]
fn a_file_that_is_no_crl_is_named() {
    let bench = Bench::new();
    bench.crl("ca", &[], "-crldays 7", "ca.crl");
    bench.openssl("crl -in ca.crl -outform der -out ca.der");
    let whole = fs::read(bench.0.path("ca.der")).unwrap();
    bench.0.home.write("cut.crl", &whole[..whole.len() - 9]);
    bench.0.home.write("text.crl", "nothing\n");
    for (name, why) in [
        ("leaf.pem", "the first PEM block is CERTIFICATE"),
        ("cut.crl", "it is not a CRL"),
        ("text.crl", "it is not a CRL: there is no PEM block"),
        ("missing.crl", "No such file"),
    ] {
        let path = bench.0.path(name);
        let words = ["verify", "devid", "--crl", text(&path)];
        let said = bench.0.ends(1, &words);
        says(&said.err, text(&path));
        says(&said.err, why);
        assert!(!said.text().contains("verified"), "{said}");
        let json = bench.0.devid(&[&words[..], &["--json"]].concat());
        let json: Value = serde_json::from_slice(&json.out).unwrap();
        says(&json.to_string(), name);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
