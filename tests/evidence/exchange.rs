//! Device and CA together: an unknown device gets a certificate. An attacker who replaced the
//! device's key gets no certificate.

use crate::device::{Bundle, Device, from_base64};
use crate::structures::key_info;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::interposer::Impostor;
use testkit::programs::{program, run, run_with};
use testkit::proxy::Proxy;

/// The CA's side of an exchange with a device.
struct Ca<'a> {
    device: &'a Device,
    roots: PathBuf,
    state: String,
}

impl<'a> Ca<'a> {
    fn of(device: &'a Device) -> Ca<'a> {
        Ca {
            roots: device.maker.chain(device.home.folder()),
            state: device.word("ca-state.json"),
            device,
        }
    }

    /// A fresh nonce, as a file.
    fn nonce(&self) -> String {
        let nonce = self.device.word("nonce");
        self.device.ends(
            0,
            &[
                "ca",
                "nonce",
                "--force",
                "--state",
                &self.state,
                "--out",
                &nonce,
            ],
        );
        nonce
    }

    /// A challenge for this evidence, as a file.
    fn challenge(&self, evidence: &str) -> String {
        let challenge = self.device.word("challenge");
        let words = [
            "ca",
            "challenge",
            evidence,
            "--state",
            &self.state,
            "--out",
            &challenge,
        ];
        self.device.ends(0, &words);
        challenge
    }

    /// `devid ca issue` by this issuer, which must end with this code; the certificate's file.
    #[track_caller]
    fn issue(&self, code: i32, evidence: &str, response: &str, issuer: &Path) -> String {
        let certificate = self.device.word("certificate.pem");
        let key = issuer.with_file_name("ca.key");
        let words = [
            "ca",
            "issue",
            evidence,
            "--roots",
            self.roots.to_str().unwrap(),
            "--state",
            &self.state,
            "--response",
            response,
            "--ca-cert",
            issuer.to_str().unwrap(),
            "--ca-key",
            key.to_str().unwrap(),
            "--out",
            &certificate,
        ];
        self.device.ends(code, &words);
        certificate
    }

    /// The report, and the names of the checks that failed.
    fn verify(&self, evidence: &str, response: &str) -> (Value, Vec<String>) {
        let roots = self.roots.to_str().unwrap();
        let words = [
            "ca",
            "verify",
            evidence,
            "--roots",
            roots,
            "--state",
            &self.state,
            "--response",
            response,
            "--json",
        ];
        let said = self.device.devid(&words);
        let report: Value = serde_json::from_slice(&said.out).unwrap_or_else(|_| panic!("{said}"));
        let checks = report["checks"]
            .as_array()
            .unwrap_or_else(|| panic!("{said}"));
        let failed = checks.iter().filter(|one| one["ok"] == false);
        let failed = failed
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect();
        (report, failed)
    }
}

/// RSA-2048 and P-384 endorsement keys; own attestation key and those of factories.
#[test]
fn an_unknown_device_is_verified() {
    for lacks in [testkit::endorsed::P384, testkit::endorsed::RSA] {
        let device = Device::new();
        device.tpm.without_certificate(lacks);
        device.generate("web", &[]);
        let ca = Ca::of(&device);
        let (evidence, response) = (device.word("evidence"), device.word("response"));
        device.ends(
            0,
            &["attest", "web", "--nonce", &ca.nonce(), "--out", &evidence],
        );
        let challenge = ca.challenge(&evidence);
        device.ends(0, &["activate", &challenge, "--out", &response]);
        let (report, failed) = ca.verify(&evidence, &response);
        assert_eq!(failed, [""; 0], "{lacks:#x}: {report:#}");
        assert_eq!(report["verified"], true);
        // A nonce or challenge does not work twice.
        let (_, failed) = ca.verify(&evidence, &response);
        assert!(!failed.is_empty());
        device.is_clean();
    }
}

/// A device whose key was replaced by an attacker during its provisioning. The file holds the
/// public half of the attacker's key, and the attacker stays between tool and TPM. Everything works
/// except the evidence.
#[test]
fn a_key_that_an_interposer_put_in_the_place_of_the_devices_is_refused() {
    let device = Device::new();
    device.generate("web", &[]);
    let genuine = device.attest(&["web", "--nonce", "01"]).bytes("key/public");
    let mut impostor = Impostor::new(|_| false);
    let shown = impostor.false_area(&genuine);
    let folder = device.path("state/devid");
    let files = fs::read_dir(folder).unwrap().map(|one| one.unwrap().path());
    let file = files
        .into_iter()
        .find(|one| one.to_str().unwrap().contains("key-"))
        .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let begin = text.find("-----BEGIN").unwrap();
    let base64: String = text[begin..]
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let der = from_base64(&base64);
    let at = der
        .windows(genuine.len())
        .position(|part| part == genuine)
        .unwrap();
    let der = [&der[..at], &shown, &der[at + genuine.len()..]].concat();
    let mut pem = program("openssl");
    let lines = run_with(pem.args(["base64", "-e"]), &der).ok().text();
    let head = &text[..begin];
    fs::write(
        &file,
        format!("{head}-----BEGIN TSS2 PRIVATE KEY-----\n{lines}-----END TSS2 PRIVATE KEY-----\n"),
    )
    .unwrap();
    let proxy = Proxy::new(&device.tpm);
    proxy.book().interpose(impostor.between());
    let between = |words: &[&str]| {
        let mut command = device.command(words);
        run(command.env("DEVID_PKCS11_TCTI", proxy.tcti()))
    };
    let ca = Ca::of(&device);
    let (evidence, response) = (device.word("evidence"), device.word("response"));
    between(&["attest", "web", "--nonce", &ca.nonce(), "--out", &evidence]).ok();
    let bundle = Bundle::of_file(&device.path("evidence"));
    assert_eq!(
        bundle.bytes("key/public"),
        shown,
        "the tool believes in that key"
    );
    let request = bundle.file("request.der", &bundle.bytes("csr"));
    let mut verify = program("openssl");
    verify.args(["req", "-verify", "-noout", "-inform", "DER", "-in"]);
    run(verify.arg(request)).ok();
    let challenge = ca.challenge(&evidence);
    between(&["activate", &challenge, "--out", &response]).ok();
    let (report, failed) = ca.verify(&evidence, &response);
    assert_eq!(report["verified"], false, "{report:#}");
    assert_eq!(failed.len(), 1, "{report:#}");
    assert!(
        ["signature", "name"]
            .iter()
            .any(|what| failed[0].contains(what)),
        "{failed:?}"
    );
    let issuer = device.manufacture(&["--no-key"]).ca();
    ca.issue(1, &evidence, &response, &issuer);
    assert!(!device.path("certificate.pem").exists());
}

/// The certificate is for the key, and `devid` verifies both.
#[test]
fn the_certificate_of_a_verified_key_is_the_keys() {
    let device = Device::with_factory(&[], &[]);
    device.generate("web", &[]);
    let ca = Ca::of(&device);
    let (evidence, response) = (device.word("evidence"), device.word("response"));
    device.ends(
        0,
        &["attest", "web", "--nonce", &ca.nonce(), "--out", &evidence],
    );
    let challenge = ca.challenge(&evidence);
    device.ends(0, &["activate", &challenge, "--out", &response]);
    let factory = device.path("factory/root.pem");
    let roots = device.path("all-roots.pem");
    let all = [fs::read(&ca.roots).unwrap(), fs::read(factory).unwrap()].concat();
    fs::write(&roots, all).unwrap();
    let ca = Ca { roots, ..ca };
    let issuer = device.path("factory/ca.pem");
    let certificate = ca.issue(0, &evidence, &response, &issuer);
    let bundle = Bundle::of_file(&device.path("evidence"));
    let mut shown = program("openssl");
    shown.args(["x509", "-noout", "-pubkey", "-in", &certificate]);
    let pem = bundle.file("pub.pem", &run(&mut shown).ok().out);
    let info = testkit::openssl::public_key_der(&pem);
    assert_eq!(info, key_info(&bundle.bytes("key/public")));
    device.ends(0, &["import-cert", &certificate]);
    device.ends(
        0,
        &[
            "verify",
            "devid/web",
            "--ca",
            device.path("factory/root.pem").to_str().unwrap(),
        ],
    );
}
