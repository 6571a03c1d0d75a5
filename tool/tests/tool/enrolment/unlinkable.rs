//! The data that two services of a device see, field by field. No field may show that the services
//! are on the same device.

use super::alike::{alike, contains, may_be_equal};
use super::fields::{Fields, hex, of_attest, of_der, of_public, of_signature};
use super::services::{SERVICES, as_user, open_for_all};
use crate::device::est::Est;
use crate::device::{Device, factory, programs};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::chown;
use testkit::host::compiled;
use testkit::module::library_alone;
use testkit::pages::block;
use testkit::tpm::Swtpm;

/// The profiles of the EST server, each with a CA of its own.
const PROFILES: [&str; 2] = ["", "second-profile"];
/// The roots of these CAs.
const ROOTS: [&str; 2] = ["root", "second-root"];

struct Bench {
    device: Device,
    est: Est,
    factory: factory::Identity,
}

/// A device whose TPM has a certified endorsement key and a factory identity, and an attestation key of
/// its own; an EST server with two profiles; and a CA for attestation keys.
fn bench() -> Bench {
    let (tpm, maker) = Swtpm::endorsed(1);
    let tcti = tpm.tcti();
    let device = Device::with(Some(tpm));
    let factory = factory::run(&tcti, &device.path("factory"), &[]);
    device.ends(0, &["provision"]);
    for label in ["other", "another"] {
        device.ends(0, &["key", "generate", label]);
    }
    let other = device.path("other.json").to_str().unwrap().to_owned();
    device.ends(0, &["attest", "other", "--nonce", "00", "--out", &other]);
    let est = Est::start(&device, &factory);
    fs::copy(env!("CARGO_BIN_EXE_devid"), device.path("devid")).unwrap();
    let features = [
        ("soft-rsa", cfg!(feature = "soft-rsa")),
        ("tss", cfg!(feature = "tss")),
    ];
    fs::copy(library_alone(&features), device.path("module.so")).unwrap();
    compiled(&device.home, "seen");
    for (number, root) in ROOTS.iter().enumerate() {
        let path = device.path(&format!("trust/est-{number}.pem"));
        fs::copy(est.certificate(root), path).unwrap();
    }
    let mut ca = programs::program("openssl");
    ca.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3650",
        "-subj",
        "/CN=Attestation CA",
        "-keyout",
    ]);
    ca.arg(device.path("ak-ca.key")).arg("-out");
    programs::run(ca.arg(device.path("ak-ca.pem"))).ok();
    let roots = maker.chain(device.home.folder());
    let both = [fs::read(roots).unwrap(), fs::read(factory.root()).unwrap()];
    device.home.write("roots.pem", both.concat());
    open_for_all(device.home.folder());
    for program in ["devid", "seen", "module.so"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(device.path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    Bench {
        device,
        est,
        factory,
    }
}

impl Bench {
    fn word(&self, name: &str) -> String {
        self.device.path(name).to_str().unwrap().to_owned()
    }

    /// `devid` as the user of a service; its standard output.
    #[track_caller]
    fn user(&self, user: u32, words: &[&str]) -> Vec<u8> {
        let said = as_user(&self.device, user, words);
        assert_eq!(said.status.code(), Some(0), "{said}");
        said.out
    }

    /// Token, key and certificate of a service.
    fn enrolled(&self, number: usize) {
        let (service, group, user) = SERVICES[number];
        self.device
            .ends(0, &["token", "add", service, "--group", group]);
        let (url, root) = (
            self.est.url("good", PROFILES[number]),
            self.est.certificate(ROOTS[0]),
        );
        self.user(
            user,
            &["enroll", "--for", service, "--est", &url, "--trust", &root],
        );
    }

    /// The CA that knows the device certifies the attestation key of a service.
    fn attestation_certified(&self, number: usize) {
        let (service, _, user) = SERVICES[number];
        let state = self.word("ca-state.json");
        let nonce = self
            .device
            .ends(0, &["ca", "nonce", "--state", &state])
            .text();
        let for_ca = [
            "attest",
            "--for",
            service,
            "--to-ca",
            "--nonce",
            nonce.trim(),
        ];
        self.device
            .home
            .write("for-ca.json", self.user(user, &for_ca));
        let challenge = [
            "ca",
            "challenge",
            &self.word("for-ca.json"),
            "--state",
            &state,
        ];
        let challenge = self.device.ends(0, &challenge).out;
        self.device.home.write("challenge.json", challenge);
        let response = self.user(user, &["activate", &self.word("challenge.json")]);
        self.device.home.write("response.json", response);
        let (ca, key) = (self.word("ak-ca.pem"), self.word("ak-ca.key"));
        let issue = [
            "ca",
            "issue",
            &self.word("for-ca.json"),
            "--roots",
            &self.word("roots.pem"),
            "--state",
            &state,
            "--response",
            &self.word("response.json"),
            "--ca-cert",
            &ca,
            "--ca-key",
            &key,
            "--attestation-key",
            "--for",
            service,
        ];
        let pem = self.device.ends(0, &issue).out;
        self.device.home.write("ak.pem", pem);
        self.user(user, &["import-cert", &self.word("ak.pem")]);
    }

    /// All that a service sees: its certificate, a request, evidence, and what the module shows.
    fn seen(&self, number: usize) -> Fields {
        let (service, _, user) = SERVICES[number];
        let mut seen = Fields::new();
        let name = format!("{service}/{service}");
        let pem = self.user(user, &["export", &name, "--cert"]);
        of_der("certificate", &der(&pem), &mut seen);
        let pem = self.user(user, &["csr", &name]);
        of_der("request", &der(&pem), &mut seen);
        let nonce = format!("{:02x}", 0xA0 + number).repeat(20);
        let bundle = self.user(user, &["attest", "--for", service, "--nonce", &nonce]);
        let path = self
            .device
            .home
            .write(&format!("evidence-{number}.json"), &bundle);
        let bundle: Value = serde_json::from_slice(&bundle).unwrap();
        of_bundle("evidence", &bundle, &mut seen);
        // Whoever believes the CA of the attestation key believes the evidence, and learns no device.
        let verified = self.device.json(&[
            "ca",
            "verify",
            path.to_str().unwrap(),
            "--roots",
            &self.word("ak-ca.pem"),
            "--nonce",
            &nonce,
            "--state",
            &self.word("ca-state.json"),
        ]);
        assert_eq!(verified["verified"], true, "{verified:#}");
        assert_eq!(
            verified["device"],
            serde_json::json!({ "serial": null, "model": null })
        );
        assert_eq!(verified["tpm"], Value::Null);
        let id = user.to_string();
        let mut program = programs::program("setpriv");
        program.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        program
            .arg(self.device.path("seen"))
            .arg(self.device.path("module.so"));
        let said = programs::run(self.device.home.settle(&mut program))
            .ok()
            .text();
        for line in said.lines() {
            let (path, value) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            // The slot's number and the label are where it stands in the list, and how it is called.
            let path = path.replace(service, "SERVICE");
            let path = path.replace(&format!("slot/{:x}/", number + 2), "slot/N/");
            let old = seen.insert(format!("pkcs11/{path}"), from_hex(value));
            assert!(old.is_none(), "two fields at {path}");
        }
        seen
    }
}

fn of_bundle(path: &str, value: &Value, into: &mut Fields) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                of_bundle(&format!("{path}/{name}"), value, into);
            }
        }
        Value::Array(all) => {
            for (number, value) in all.iter().enumerate() {
                of_bundle(&format!("{path}/{number}"), value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => {
            let name = path.rsplit('/').next().unwrap();
            match name {
                "public" => of_public(path, &from_base64(text), into),
                "certify" => of_attest(path, &from_base64(text), into),
                "signature" => of_signature(path, &from_base64(text), into),
                "csr" => of_der(path, &from_base64(text), into),
                _ if path.contains("/certificates/") => of_der(path, &from_base64(text), into),
                "nonce" => drop(into.insert(path.into(), from_base64(text))),
                _ => drop(into.insert(path.into(), text.clone().into_bytes())),
            }
        }
        other => panic!("{path}: {other}"),
    }
}

fn der(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(pem);
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    from_base64(&lines.collect::<String>())
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut decode = programs::program("openssl");
    programs::run_with(decode.args(["base64", "-d", "-A"]), text.as_bytes())
        .ok()
        .out
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn two_services_see_nothing_alike() {
    let bench = bench();
    let seen = [0, 1].map(|number| {
        bench.enrolled(number);
        bench.attestation_certified(number);
        bench.seen(number)
    });
    let [first, second] = &seen;
    let same: Vec<String> = alike(first, second)
        .into_iter()
        .map(|(path, value)| format!("{path} = {}", hex(value)))
        .collect();
    assert!(same.is_empty(), "{}", same.join("\n"));
    // The comparison finds what links two keys of the device's own token.
    let own = ["other", "another"].map(|label| {
        let bundle = bench
            .device
            .ends(0, &["attest", label, "--nonce", "00"])
            .out;
        let mut fields = Fields::new();
        let bundle = serde_json::from_slice(&bundle).unwrap();
        of_bundle("evidence", &bundle, &mut fields);
        fields
    });
    let linked: Vec<&String> = alike(&own[0], &own[1])
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    for path in [
        "evidence/attestationKey/public/x",
        "evidence/device/firmware",
        "evidence/device/serial",
        "evidence/ekPublic",
        "evidence/idevid/public/x",
        "evidence/key/certify/firmwareVersion",
        "evidence/key/certify/qualifiedSigner",
        "evidence/key/certify/resetCount",
        "evidence/key/certify/restartCount",
    ] {
        assert!(linked.iter().any(|one| *one == path), "{path}: {linked:?}");
    }
    // No long value of the one stands anywhere in what the other sees.
    for (path, value) in first.iter().filter(|(_, value)| value.len() >= 16) {
        let there = second.iter().find(|(_, other)| contains(other, value));
        let there = there.filter(|(other, _)| !may_be_equal(path) || !may_be_equal(other));
        assert_eq!(
            there.map(|(other, _)| other),
            None,
            "{path} = {}",
            hex(value)
        );
    }
    for (what, value) in of_the_device(&bench) {
        for (path, seen) in first.iter().chain(second) {
            assert!(!contains(seen, &value), "{what} is in {path}");
        }
    }
    // The user of a service sees its token, and a place for keys of peers.
    let labels = first
        .iter()
        .filter(|(path, _)| path.ends_with("/token/label"));
    assert_eq!(labels.count(), 2);
    assert_eq!(bench.device.tpm.as_ref().unwrap().transients(), 0);
}

/// The commands of docs/CA.md: those of the service as its user, the others as root.
#[test]
fn the_commands_of_the_page() {
    let bench = bench();
    bench.enrolled(0);
    let (_, _, user) = SERVICES[0];
    let folder = bench.device.path("both");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(user), Some(user)).unwrap();
    for (from, to) in [
        ("roots.pem", "roots.pem"),
        ("ak-ca.pem", "ca.pem"),
        ("ak-ca.key", "ca.key"),
    ] {
        fs::copy(bench.device.path(from), folder.join(to)).unwrap();
    }
    let path = format!("{}:{}", bench.word(""), std::env::var("PATH").unwrap());
    let id = user.to_string();
    let mut who = String::new();
    for line in block("docs/CA.md", "service-evidence").lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            who = comment.split(':').next().unwrap().to_owned();
            continue;
        }
        let mut shell = programs::program("setpriv");
        if who == "service" {
            shell.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        shell
            .args(["--", "sh", "-ec", line])
            .current_dir(&folder)
            .env("PATH", &path);
        let said = programs::run(bench.device.home.settle(&mut shell)).ok();
        if line.contains("ca verify") {
            assert!(
                said.text().contains("verified: the key of the request"),
                "{said}"
            );
        }
    }
    let evidence = fs::read_to_string(folder.join("evidence.json")).unwrap();
    assert!(!evidence.contains("SN-000001"), "{evidence}");
}

/// What cannot be had is refused, and says what to do.
#[test]
fn evidence_of_a_service_waits_for_its_ca() {
    let bench = bench();
    bench.enrolled(0);
    let (service, _, user) = SERVICES[0];
    let name = format!("{service}/{service}");
    let refused = |code: i32, words: &[&str], told: &[&str]| {
        let said = as_user(&bench.device, user, words);
        assert_eq!(said.status.code(), Some(code), "{said}");
        for text in told {
            assert!(said.err.contains(text), "{text}: {said}");
        }
        assert!(said.out.is_empty(), "{said}");
    };
    let next = [
        "no CA has certified",
        "--to-ca",
        "devid ca issue --attestation-key --for mail-relay",
    ];
    refused(6, &["attest", "--for", service, "--nonce", "01"], &next);
    refused(6, &["attest", &name, "--nonce", "01"], &next);
    refused(6, &["csr", &name, "--attest", "--nonce", "01"], &next);
    refused(
        5,
        &["attest", "--for", "nobody"],
        &["devid token add nobody"],
    );
    refused(2, &["attest", &name, "--for", service], &[]);
    bench.attestation_certified(0);
    let root = bench.word("roots.pem");
    refused(
        6,
        &["attest", "--for", service, "--ek-cert", &root],
        &["--to-ca"],
    );
    for form in ["tcg-csr-enveloped", "tcg-csr-ldevid"] {
        refused(
            6,
            &["attest", "--for", service, "--form", form],
            &["names the device", "--to-ca"],
        );
    }
    let statement = [
        "attest", "--for", service, "--form", "webauthn", "--nonce", "01",
    ];
    assert!(!bench.user(user, &statement).is_empty());
    let request = bench.user(user, &["csr", &name, "--attest", "--nonce", "01"]);
    let mut fields = Fields::new();
    of_der("request", &der(&request), &mut fields);
    let common: Value =
        serde_json::from_slice(&fs::read(bench.device.path("other.json")).unwrap()).unwrap();
    let common = from_base64(common["attestationKey"]["public"].as_str().unwrap());
    assert!(
        fields
            .values()
            .all(|value| !contains(value, &common[common.len() - 32..]))
    );
    // The key that the device had is another one after TPM2_Clear.
    let mut clear = bench.device.tpm.as_ref().unwrap().tool("tpm2_clear");
    programs::run(clear.args(["-c", "p"])).ok();
    let said = as_user(
        &bench.device,
        user,
        &["attest", "--for", service, "--nonce", "02"],
    );
    assert_ne!(said.status.code(), Some(0), "{said}");
    assert_eq!(bench.device.tpm.as_ref().unwrap().transients(), 0);
}

/// The user of a service may write the file of its attestation key. Root's certificates go to the keys of
/// tokens all the same, and a damaged file stops no import.
#[test]
fn a_service_diverts_no_certificate_of_the_device() {
    let bench = bench();
    bench.enrolled(0);
    bench.attestation_certified(0);
    let folder = bench.device.path("state-services").join(SERVICES[0].0);
    let file = folder.join(".attestation-key.pem");
    let evidence = fs::read_to_string(bench.device.path("other.json")).unwrap();
    let evidence: Value = serde_json::from_str(&evidence).unwrap();
    let area = from_base64(evidence["key"]["public"].as_str().unwrap());
    let kept = fs::read_to_string(&file).unwrap();
    let (_, kept) = kept.split_once("TEMPLATE-----").unwrap();
    let (kept, _) = kept.split_once("-----END").unwrap();
    let kept = from_base64(&kept.replace('\n', ""));
    let template = &kept[..2 + usize::from(u16::from_be_bytes([kept[0], kept[1]]))];
    let size = u16::try_from(area.len()).unwrap().to_be_bytes();
    let forged = [template, &size, &area].concat();
    let mut encode = programs::program("openssl");
    let lines = programs::run_with(encode.arg("base64"), &forged)
        .ok()
        .text();
    let label = "TPM PRIMARY KEY TEMPLATE";
    let forged = format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n");
    let request = bench.device.path("other.csr");
    let out = request.to_str().unwrap();
    bench.device.ends(0, &["csr", "other", "--out", out]);
    for content in [forged.as_str(), "no PEM"] {
        fs::write(&file, content).unwrap();
        let factory = bench.device.path("factory");
        let certificate = bench.device.certified(&request, &factory);
        let said = bench
            .device
            .ends(0, &["import-cert", certificate.to_str().unwrap()]);
        assert!(said.text().contains("other"), "{said}");
        let shown = bench.device.ends(0, &["export", "other", "--cert"]).out;
        assert_eq!(der(&shown), der(&fs::read(&certificate).unwrap()));
        let stays = fs::read_to_string(&file).unwrap();
        assert_eq!(stays, content, "the service's file stays as it is");
        // From the second round on, his folder of waiting keys cannot be read either.
        if !folder.join(".next").exists() {
            fs::write(folder.join(".next"), "no folder").unwrap();
        }
    }
}

/// What must be in nothing that a service sees.
fn of_the_device(bench: &Bench) -> Vec<(&'static str, Vec<u8>)> {
    let read = |name: &str| fs::read(bench.device.path(name)).unwrap();
    let for_ca: Value = serde_json::from_slice(&read("for-ca.json")).unwrap();
    let bytes = |path: &str| from_base64(for_ca.pointer(path).unwrap().as_str().unwrap());
    let other: Value = serde_json::from_slice(&read("other.json")).unwrap();
    let common = from_base64(other["attestationKey"]["public"].as_str().unwrap());
    let idevid = der(&fs::read(bench.factory.certificate()).unwrap());
    let mut fields = Fields::new();
    of_der("idevid", &idevid, &mut fields);
    let end = |bytes: Vec<u8>| bytes[bytes.len() - 32..].to_vec();
    let mut found = vec![
        ("the endorsement key", end(bytes("/ekPublic"))),
        ("its certificate", end(bytes("/ekCertificates/0"))),
        ("another's certificate", end(bytes("/ekCertificates/1"))),
        ("the IDevID key", end(bytes("/idevid/public"))),
        ("the IDevID certificate", end(idevid)),
        ("its number", fields["idevid/0/1"].clone()),
        ("the serial number", b"SN-000001".to_vec()),
        ("the model", b"Example-1000".to_vec()),
        ("the device's attestation key", end(common)),
    ];
    for (name, handle) in [
        ("the storage root key", "0x81000001"),
        ("the master key", "0x81000080"),
    ] {
        let file = bench.device.path("name");
        let mut tool = bench.device.tpm.as_ref().unwrap().tool("tpm2_readpublic");
        programs::run(tool.args(["-c", handle, "-n"]).arg(&file)).ok();
        found.push((name, fs::read(file).unwrap()));
    }
    for (name, value) in &found {
        assert!(value.len() > 8, "{name}: {}", hex(value));
    }
    found
}
