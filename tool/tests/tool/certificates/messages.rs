//! `devid sign`: messages that OpenSSL and a JWS library verify.

use crate::device::tpm::Swtpm;
use crate::device::{Device, programs};
use std::fs;
use std::path::{Path, PathBuf};

/// id-ct-animaJSONVoucher (RFC 8366, section 6.3).
const VOUCHER: &str = "1.2.840.113549.1.9.16.1.40";
const REQUEST: &str = "{\"ietf-voucher-request:voucher\":{\"assertion\":\"proximity\"}}\n";

/// Verifies by jwcrypto and writes what the message holds.
const VERIFY_JWS: &str = r#"
import base64, json, sys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto import jwk, jws
text = open(sys.argv[1]).read()
message = json.loads(text)
assert set(message) <= {"payload", "signatures"} and len(message["signatures"]) == 1
padded = message["signatures"][0]["protected"] + "=="
header = json.loads(base64.urlsafe_b64decode(padded))
chain = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in header["x5c"]]
key = chain[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
detached = len(sys.argv) > 2
if detached:
    assert "payload" not in message
    content = open(sys.argv[2], "rb").read()
    message["payload"] = base64.urlsafe_b64encode(content).decode().rstrip("=")
token = jws.JWS()
token.deserialize(json.dumps(message), jwk.JWK.from_pem(key))
print(header["alg"], header.get("typ"), len(chain))
sys.stdout.flush()
sys.stdout.buffer.write(b"detached" if detached else token.payload)
"#;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn openssl(words: &[&str]) -> programs::Said {
    programs::run(programs::program("openssl").args(words)).ok()
}

fn jws(words: &[&str]) -> programs::Said {
    // Not the first of the path: the library is a package of the system.
    let mut python = programs::program("/usr/bin/python3");
    programs::run(python.args(["-c", VERIFY_JWS]).args(words)).ok()
}

struct Bench {
    device: Device,
    request: String,
}

impl Bench {
    fn new(device: Device) -> Self {
        let request = text(&device.home.write("request.json", REQUEST));
        Self { device, request }
    }

    /// A message of this form in a file.
    fn signed(&self, key: &str, options: &[&str]) -> PathBuf {
        let out = self.device.path("message");
        let _ = fs::remove_file(&out);
        let words = [&["sign", key, &self.request], options];
        let words = [&words.concat()[..], &["--out", out.to_str().unwrap()]];
        self.device.ends(0, &words.concat());
        out
    }
}

/// Each form that a factory key signs in, judged by others.
fn all_forms(options: &[&str], algorithm: &str, digest: &[&str]) {
    all_forms_of("idev-id/idev-id", options, algorithm, digest);
}

fn all_forms_of(key: &str, options: &[&str], algorithm: &str, digest: &[&str]) {
    let (tpm, identity) = Swtpm::manufactured_with(options);
    let bench = Bench::new(Device::with(Some(tpm)));
    let (root, content) = (text(&identity.root()), text(&bench.device.path("content")));

    let cms = text(&bench.signed(key, &["--cms", "--content-type", VOUCHER]));
    let verify = ["cms", "-verify", "-binary", "-inform", "DER", "-CAfile"];
    let verify =
        |more: &[&str]| openssl(&[&verify[..], &[&root, "-purpose", "any"], more].concat());
    verify(&["-in", &cms, "-out", &content]);
    assert_eq!(fs::read_to_string(&content).unwrap(), REQUEST);
    let shown = openssl(&["cms", "-cmsout", "-print", "-inform", "DER", "-in", &cms]).text();
    assert!(shown.contains(&format!("({VOUCHER})")), "{shown}");
    assert!(!shown.contains("signingTime"), "{shown}");

    let cms = text(&bench.signed(key, &["--cms", "--detached"]));
    verify(&["-in", &cms, "-content", &bench.request, "-out", &content]);
    let alone = [
        "cms", "-verify", "-inform", "DER", "-in", &cms, "-CAfile", &root,
    ];
    assert!(
        !programs::run(programs::program("openssl").args(alone))
            .status
            .success()
    );

    let typ = ["--jws", "--typ", "voucher-jws+json"];
    let message = text(&bench.signed(key, &typ));
    let said = jws(&[&message]).text();
    let (first, payload) = said.split_once('\n').unwrap();
    // The device's certificate, and the CA's that the factory left in the TPM.
    assert_eq!(first, format!("{algorithm} voucher-jws+json 2"));
    assert_eq!(payload, REQUEST);
    let message = text(&bench.signed(key, &["--jws", "--detached"]));
    assert!(
        jws(&[&message, &bench.request])
            .text()
            .ends_with("detached")
    );

    let signature = text(&bench.signed(key, &["--raw"]));
    let public = text(&identity.public_key());
    let verify = ["dgst", "-verify", &public, "-signature", &signature];
    openssl(&[&verify[..], digest, &[&bench.request]].concat());
    let tpm = bench.device.tpm.as_ref().unwrap();
    assert_eq!((tpm.lockout_counter(), tpm.transients()), (0, 0));
}

#[test]
fn a_p256_identity_signs_messages() {
    all_forms(&[], "ES256", &["-sha256"]);
}

#[test]
fn a_p384_identity_signs_messages() {
    all_forms(&["--template", "h3"], "ES384", &["-sha384"]);
}

#[test]
fn a_p521_identity_signs_messages() {
    all_forms(&["--template", "h4"], "ES512", &["-sha512"]);
}

#[test]
fn an_rsa_identity_signs_messages() {
    all_forms(&["--template", "h1"], "RS256", &["-sha256"]);
}

#[test]
fn an_identity_fixed_to_pss_signs_messages() {
    let pss = [
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    let digest = [&["-sha256"], &pss[..]].concat();
    all_forms(
        &["--template", "h1", "--scheme", "rsapss"],
        "PS256",
        &digest,
    );
}

/// An attestation key signs what the TPM hashed for it, in a handle and derived; its authorisation value
/// is not asked for.
#[test]
fn attestation_keys_sign_messages() {
    let key = "idev-id/iak";
    for kept in ["--persist", "--no-persist"] {
        let with = |options: &[&'static str]| -> Vec<&'static str> {
            let kept = (kept == "--no-persist").then_some(kept);
            [&["--iak"], options]
                .concat()
                .into_iter()
                .chain(kept)
                .collect()
        };
        all_forms_of(key, &with(&["--auth", "secret"]), "ES256", &["-sha256"]);
        all_forms_of(key, &with(&["--template", "h3"]), "ES384", &["-sha384"]);
    }
    all_forms_of(key, &["--iak", "--template", "h4"], "ES512", &["-sha512"]);
    let rsassa = ["--iak", "--template", "h1", "--scheme", "rsassa"];
    all_forms_of(key, &rsassa, "RS256", &["-sha256"]);
    let pss = [
        "-sha256",
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    all_forms_of(key, &["--iak", "--template", "h1"], "PS256", &pss);
}

/// Whatever the TPM could have said itself is refused, before the TPM is asked.
#[test]
fn an_attestation_key_signs_no_statement_of_the_tpm() {
    let (tpm, identity) = Swtpm::manufactured_with(&["--iak"]);
    let bench = Bench::new(Device::with(Some(tpm)));
    let device = &bench.device;
    let sign = |content: &[u8], code: i32, words: &[&str]| {
        let file = text(&device.home.write("content", content));
        let _ = fs::remove_file(device.path("signature"));
        let out = text(&device.path("signature"));
        let line = [&["sign", "iak", &file, "--out", &out], words].concat();
        (file.clone(), out.clone(), device.ends(code, &line))
    };
    let statement = [0xFF, 0x54, 0x43, 0x47, 0x80, 0x17];
    let long = [&statement[..], &[0; 5000]].concat();
    for content in [&statement[..4], &statement, &long] {
        let (_, _, said) = sign(content, 6, &["--raw"]);
        assert!(said.err.contains("TPM_GENERATED_VALUE"), "{said}");
    }
    for short in [&b""[..], b"a", b"abc"] {
        let (_, _, said) = sign(short, 6, &["--raw"]);
        assert!(said.err.contains("fewer than 4 bytes"), "{said}");
    }
    let (_, _, said) = sign(&[7; (1 << 20) + 1], 6, &["--raw"]);
    assert!(said.err.contains("--cms"), "{said}");
    let (_, _, said) = sign(b"data", 6, &["--raw", "--hash", "sha384"]);
    assert!(said.err.contains("SHA-384"), "{said}");
    // Around the bounds of a piece; the forms with a frame take everything.
    let public = text(&identity.public_key());
    for length in [4, 1023, 1024, 1025, 2048, 5000] {
        let (file, signature, _) = sign(&vec![7; length], 0, &["--raw"]);
        openssl(&[
            "dgst",
            "-verify",
            &public,
            "-signature",
            &signature,
            "-sha256",
            &file,
        ]);
    }
    for form in ["--cms", "--jws"] {
        sign(&statement, 0, &[form]);
    }
    sign(&[7; (1 << 20) + 1], 0, &["--cms"]);
    let tpm = device.tpm.as_ref().unwrap();
    assert_eq!((tpm.lockout_counter(), tpm.transients()), (0, 0));
}

/// A bootz server hashes by the algorithm of the certificate's signature, and not by the key's own.
#[test]
fn a_raw_signature_has_the_hash_that_is_asked_for() {
    for (template, hashes) in [
        ("h1", &["sha256", "sha384", "sha512"][..]),
        ("h2", &["sha256", "sha384", "sha512"]),
        ("h3", &["sha256", "sha384", "sha512"]),
    ] {
        let (tpm, identity) = Swtpm::manufactured_with(&["--template", template]);
        let bench = Bench::new(Device::with(Some(tpm)));
        let public = text(&identity.public_key());
        for hash in hashes {
            let signature = text(&bench.signed("idev-id/idev-id", &["--raw", "--hash", hash]));
            let digest = format!("-{hash}");
            openssl(&[
                "dgst",
                &digest,
                "-verify",
                &public,
                "-signature",
                &signature,
                &bench.request,
            ]);
        }
    }
    let (device, _) = Device::manufactured();
    let bench = Bench::new(device);
    for form in ["--cms", "--jws"] {
        bench.device.ends(
            2,
            &["sign", "idev-id", &bench.request, form, "--hash", "sha256"],
        );
    }
}

#[test]
fn keys_of_the_devices_own_sign_messages() {
    for sealed in [false, true] {
        let bench = Bench::new(Device::blank());
        let device = &bench.device;
        let kind: &[&str] = if sealed { &["--sealed"] } else { &[] };
        device.ends(0, &[&["key", "generate", "web"], kind].concat());
        let message = bench.signed("web", &["--raw"]);
        assert!(message.metadata().unwrap().len() > 60);

        // Readers take the signer's certificate from the message.
        let missing = device.ends(5, &["sign", "web", &bench.request, "--cms"]);
        assert!(missing.err.contains("devid csr web"), "{missing}");

        let folder = device.path("ca");
        fs::create_dir(&folder).unwrap();
        let request = device.path("web.csr");
        device.ends(0, &["csr", "web", "--out", request.to_str().unwrap()]);
        let leaf = device.certified(&request, &folder);
        let parts = [leaf, folder.join("ca.pem")].map(|part| fs::read(part).unwrap());
        let chain = device.home.write("chain.pem", parts.concat());
        device.ends(0, &["import-cert", chain.to_str().unwrap()]);
        let cms = text(&bench.signed("web", &["--cms"]));
        let root = text(&folder.join("root.pem"));
        openssl(&[
            "cms",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            &cms,
            "-CAfile",
            &root,
            "-purpose",
            "any",
            "-out",
            "/dev/null",
        ]);
    }
}

#[test]
fn what_cannot_be_signed_is_said() {
    let (device, _identity) = Device::manufactured();
    let bench = Bench::new(device);
    let device = &bench.device;
    let request = bench.request.as_str();
    device.ends(2, &["sign", "idev-id", request]);
    device.ends(2, &["sign", "idev-id", request, "--cms", "--jws"]);
    device.ends(2, &["sign", "idev-id", request, "--raw", "--detached"]);
    device.ends(
        2,
        &[
            "sign",
            "idev-id",
            request,
            "--jws",
            "--content-type",
            VOUCHER,
        ],
    );
    let unknown = device.ends(
        2,
        &["sign", "idev-id", request, "--cms", "--content-type", "x.y"],
    );
    assert!(unknown.err.contains("x.y"), "{unknown}");
    device.ends(5, &["sign", "nobody", request, "--cms"]);
    let missing = device.ends(1, &["sign", "idev-id", "/nonexistent", "--cms"]);
    assert!(missing.err.contains("/nonexistent"), "{missing}");

    // Neither the content nor a key is overwritten.
    let kept = device.ends(6, &["sign", "idev-id", request, "--cms", "--out", request]);
    assert!(kept.err.contains("--force"), "{kept}");
    assert_eq!(fs::read_to_string(request).unwrap(), REQUEST);

    // Standard input and standard output.
    let mut command = device.command(&["sign", "idev-id", "-", "--jws"]);
    let said = programs::run_with(&mut command, REQUEST.as_bytes()).ok();
    let message = device.home.write("from-input.jws", said.out);
    assert!(jws(&[&text(&message)]).text().ends_with(REQUEST));

    let json = device.json(&["sign", "idev-id", request, "--jws"]);
    assert_eq!(json["algorithm"], "ECDSA with SHA-256");
    assert!(json["message"].is_string(), "{json}");
}
