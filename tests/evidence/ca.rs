//! The CA's side: the commands of docs/CA.md, the schema of the evidence, and tpm2-tools instead of
//! a device.

use crate::device::{Bundle, Device, TEMPLATES, to_base64};
use serde_json::{Value, json};
use std::fs;
use testkit::folders;
use testkit::module::tool;
use testkit::programs::{program, run};
use testkit::tls::{openssl_server_that_trusts, server_identity, with_provider};

const PAGE: &str = "docs/CA.md";

/// The commands of the page's block `ca`, without its remarks.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(folders::root().join(PAGE)).unwrap();
    let (_, rest) = text.split_once("```bash ca\n").expect("the block");
    let (block, _) = rest.split_once("\n```").expect("its end");
    let commands = block.lines().filter(|line| !line.starts_with('#'));
    commands.map(str::to_owned).collect()
}

/// Runs commands where the page has them run: here device and CA are one folder.
#[track_caller]
fn types(device: &Device, commands: &[String]) {
    let bin = tool().parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = program("bash");
    shell
        .args(["-euo", "pipefail", "-c", &commands.join("\n")])
        .current_dir(device.home.folder())
        .env("PATH", path);
    run(device.home.settle(&mut shell)).ok();
}

/// From an unknown device to a certificate in ten commands, and to TLS with it.
#[test]
fn the_page() {
    let device = Device::new();
    let chain = device.maker.chain(device.home.folder());
    fs::copy(chain, device.path("roots.pem")).unwrap();
    let commands = commands();
    assert_eq!(commands.len(), 10, "{commands:?}");
    types(&device, &commands);

    server_identity(&device.home);
    let server = openssl_server_that_trusts(&device.home, &device.path("ca.pem"), &[]);
    let mut client = with_provider("openssl", &device.home);
    client
        .args(["s_client", "-brief", "-verify_return_error", "-CAfile"])
        .arg(device.path("server.pem"))
        .args(["-connect", &server.address(), "-cert"])
        .arg(device.path("web.pem"))
        .args(["-key", "pkcs11:token=devid;object=web;type=private"]);
    let said = run(&mut client).ok();
    let both = format!("{}{}", said.text(), said.err);
    assert!(both.contains("CONNECTION ESTABLISHED"), "{both}");

    // Nonce and answer were used.
    let again = ["ca", "verify", &device.word("evidence.json")];
    let files = [device.word("roots.pem"), device.word("response.json")];
    let state = device.word("devid-ca-state.json");
    let options = [
        "--roots",
        &files[0],
        "--response",
        &files[1],
        "--state",
        &state,
    ];
    let said = device.ends(1, &[&again[..], &options, &["--json"]].concat());
    let report: Value = serde_json::from_slice(&said.out).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let failed: Vec<&str> = checks
        .filter(|check| check["ok"] == false)
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["activation", "nonce"]);
}

/// The ten commands with each kind of endorsement key, RSA and ECC, in the low and in the high
/// range.
#[test]
fn the_page_with_endorsement_keys_of_every_template() {
    for template in &TEMPLATES {
        let device = Device::endorsed_by(template);
        let chain = device.maker.chain(device.home.folder());
        fs::copy(chain, device.path("roots.pem")).unwrap();
        types(&device, &commands());
        let bundle = Bundle::of_file(&device.path("evidence.json"));
        assert_eq!(bundle.count("ekCertificates"), 1, "{}", template.name);
        let mut verify = program("openssl");
        verify
            .arg("verify")
            .arg("-CAfile")
            .arg(device.path("ca.pem"));
        run(verify.arg(device.path("web.pem"))).ok();
        device.is_clean();
        println!("{}: certified", template.name);
    }
}

/// A verifier that wants its schema: python3-jsonschema is the judge.
#[test]
fn the_schema() {
    let schema = folders::root().join("docs/evidence.schema.json");
    let validates = |document: &Value| {
        let device_file = Bundle::read(&fs::read(good_bundle()).unwrap());
        let file = device_file.file("document.json", document.to_string().as_bytes());
        let script = "import json, sys, jsonschema\n\
             schema, document = (json.load(open(path)) for path in sys.argv[1:])\n\
             jsonschema.Draft202012Validator.check_schema(schema)\n\
             jsonschema.Draft202012Validator(schema).validate(document)";
        let mut python = program("python3");
        python.args(["-c", script]).arg(&schema).arg(file);
        let said = run(&mut python);
        assert!(!said.err.contains("ModuleNotFoundError"), "{said}");
        said.status.success()
    };
    let good: Value = serde_json::from_slice(&fs::read(good_bundle()).unwrap()).unwrap();
    assert!(validates(&good));
    for (path, value) in [
        ("/format", json!("devid-evidence/2")),
        ("/csr", json!("")),
        ("/csr", json!("MA-_")),
        ("/key/certify", json!(7)),
        ("/ekCertificates", json!(vec!["MAA="; 33])),
        ("/device/serial", json!("x".repeat(1025))),
        ("/attestationKey/public", json!(null)),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(path).unwrap() = value;
        assert!(!validates(&document), "{path}");
        // The CA refuses every document that the schema refuses.
        let device = Device::new();
        let file = device.home.write("document.json", document.to_string());
        let file = file.to_str().unwrap();
        device.refuses(1, &["ca", "challenge", file], &["devid-evidence/1"]);
    }
}

/// Evidence of a device, made once.
fn good_bundle() -> std::path::PathBuf {
    use std::sync::OnceLock;
    static FILE: OnceLock<(Device, std::path::PathBuf)> = OnceLock::new();
    let (_, path) = FILE.get_or_init(|| {
        let device = Device::new();
        device.generate("web", &[]);
        let path = device.path("evidence.json");
        device.ends(
            0,
            &[
                "attest",
                "web",
                "--nonce",
                "0011",
                "--out",
                path.to_str().unwrap(),
            ],
        );
        (device, path)
    });
    path.clone()
}

/// Our challenge is for every TPM: tpm2_activatecredential opens it, for endorsement keys of both kinds.
#[test]
fn tools_answer_our_challenge() {
    for kind in ["rsa", "ecc"] {
        let device = Device::new();
        device.tpm2(
            "tpm2_createek",
            &["-c", "ek.ctx", "-G", kind, "-u", "ek.pub"],
        );
        device.tpm2(
            "tpm2_createak",
            &[
                "-C", "ek.ctx", "-c", "ak.ctx", "-u", "ak.pub", "-G", "ecc", "-s", "ecdsa",
            ],
        );
        device.tpm2("tpm2_flushcontext", &["-t"]);
        let area = |name: &str| {
            let sized = fs::read(device.path(name)).unwrap();
            to_base64(&sized[2..])
        };
        let mut document: Value =
            serde_json::from_slice(&fs::read(good_bundle()).unwrap()).unwrap();
        document["ekPublic"] = json!(area("ek.pub"));
        document["ekCertificates"] = json!([]);
        document["attestationKey"] = json!({ "public": area("ak.pub") });
        let bundle = device.home.write("bundle.json", document.to_string());
        let bundle = bundle.to_str().unwrap();
        let (challenge, state) = (device.word("challenge.json"), device.word("state.json"));
        device.ends(
            0,
            &[
                "ca",
                "challenge",
                bundle,
                "--state",
                &state,
                "--out",
                &challenge,
            ],
        );
        let challenge = fs::read(device.path("challenge.json")).unwrap();
        let challenge: Value = serde_json::from_slice(&challenge).unwrap();
        let sized = |field: &str| {
            let bytes = crate::device::from_base64(challenge[field].as_str().unwrap());
            [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
        };
        // tpm2-tools: magic, version, then both TPM2Bs.
        let head = b"\xBA\xDC\xC0\xDE\0\0\0\x01".to_vec();
        device.home.write(
            "credential",
            [head, sized("credential"), sized("secret")].concat(),
        );
        device.tpm2(
            "tpm2_startauthsession",
            &["--policy-session", "-S", "session.ctx"],
        );
        device.tpm2("tpm2_policysecret", &["-S", "session.ctx", "-c", "e"]);
        device.tpm2(
            "tpm2_activatecredential",
            &[
                "-c",
                "ak.ctx",
                "-C",
                "ek.ctx",
                "-i",
                "credential",
                "-o",
                "secret",
                "-P",
                "session:session.ctx",
            ],
        );
        let secret = fs::read(device.path("secret")).unwrap();
        let response = json!({
            "format": "devid-response/1",
            "id": challenge["id"],
            "secret": to_base64(&secret),
        });
        let response = device.home.write("response.json", response.to_string());
        let chain = device.maker.chain(device.home.folder());
        let said = device.ends(
            1,
            &[
                "--json",
                "ca",
                "verify",
                bundle,
                "--allow-no-nonce",
                "--state",
                &state,
                "--roots",
                chain.to_str().unwrap(),
                "--response",
                response.to_str().unwrap(),
            ],
        );
        let report: Value = serde_json::from_slice(&said.out).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let ok = |name: &str| {
            let found = checks.iter().find(|check| check["name"] == name);
            found.unwrap_or_else(|| panic!("{name}: {report:#}"))["ok"] == true
        };
        assert!(ok("activation"), "{kind}: {report:#}");
        assert!(ok("activation-ak"), "{kind}: {report:#}");
        // Whose endorsement key it is, no certificate says.
        assert!(!ok("ek-certificate"), "{kind}");
    }
}

/// The names of the checks that fail of real evidence in which something was exchanged.
fn failing(device: &Device, document: &Value) -> Vec<String> {
    let file = device.home.write("changed.json", document.to_string());
    let (challenge, response) = (device.word("challenge.json"), device.word("response.json"));
    let (state, file) = (device.word("state.json"), file.to_str().unwrap());
    let chain = device.maker.chain(device.home.folder());
    device.ends(
        0,
        &[
            "ca",
            "challenge",
            file,
            "--state",
            &state,
            "--out",
            &challenge,
        ],
    );
    device.ends(0, &["activate", &challenge, "--out", &response]);
    let options = ["--roots", chain.to_str().unwrap(), "--state", &state];
    let words = [
        "--json",
        "ca",
        "verify",
        file,
        "--response",
        &response,
        "--nonce",
        "0011",
    ];
    let said = device.devid(&[&words[..], &options].concat());
    let report: Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(report["verified"], said.status.success(), "{said}");
    let checks = report["checks"].as_array().unwrap().iter();
    let failed = checks.filter(|check| check["ok"] == false);
    failed
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect()
}

/// An attacker between device and TPM could replace the device's key by a key in software, or by a
/// key of his own TPM.
#[test]
fn a_key_that_was_exchanged() {
    let (device, other) = (Device::new(), Device::other());
    let evidence = |device: &Device| {
        device.generate("web", &[]);
        device.attest(&["web", "--nonce", "0011"]).json
    };
    let (good, foreign) = (evidence(&device), evidence(&other));
    let mut his = good.clone();
    his["key"] = foreign["key"].clone();
    his["csr"] = foreign["csr"].clone();
    assert_eq!(failing(&device, &his), ["certify-signature"]);

    let folder = device.home.folder();
    let openssl = |words: &[&str]| {
        run(program("openssl").args(words).current_dir(folder)).ok();
    };
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "soft.key",
        "-subj",
        "/CN=web",
        "-outform",
        "DER",
        "-out",
        "soft.csr",
    ]);
    openssl(&[
        "ec", "-in", "soft.key", "-pubout", "-outform", "DER", "-out", "soft.pub",
    ]);
    let info = fs::read(device.path("soft.pub")).unwrap();
    let (x, y) = info[info.len() - 64..].split_at(32);
    // The public area of the real key, with another point.
    let mut area = crate::device::from_base64(good["key"]["public"].as_str().unwrap());
    let start = area.len() - 68;
    area[start + 2..start + 34].copy_from_slice(x);
    area[start + 36..].copy_from_slice(y);
    let mut soft = good.clone();
    soft["key"]["public"] = json!(to_base64(&area));
    soft["csr"] = json!(to_base64(&fs::read(device.path("soft.csr")).unwrap()));
    assert_eq!(failing(&device, &soft), ["certify-name"]);
    assert_eq!(failing(&device, &good), [""; 0]);
}
