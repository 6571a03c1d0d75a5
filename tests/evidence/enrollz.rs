//! The HMAC challenge of OpenConfig's enrollz and bootz. `devid challenge` answers.
//! `enrollz/owner.py` checks the answers, and is written only from the byte formats of the
//! standard. The test names follow OpenConfig's list.

use crate::device::{Device, TEMPLATES, from_base64, to_base64};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use testkit::openssl::digest;
use testkit::programs::{Said, program, run};

/// Where the maker of these devices puts an IAK.
const IAK: &str = "0x81020001";
pub(crate) const IDEVID_AND_IAK: [(&str, &str); 2] = [("oidevid", "0x81020000"), ("oiak", IAK)];
const RSA_KEY: &str = "0x81010001";
const P384_KEY: &str = "0x81010016";

fn owner(words: &[&str]) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/enrollz/owner.py");
    // Not the first of the path: the library is a package of the system.
    run(program("/usr/bin/python3").arg(script).args(words))
}

/// A challenge for the key in this handle, or in this context file.
#[track_caller]
pub(crate) fn challenge(device: &Device, wrapping: &str, options: &[&str]) -> Value {
    let public = device.word("wrapping.der");
    // A context is loaded for it.
    device.tpm2(
        "tpm2_readpublic",
        &["-c", wrapping, "-f", "der", "-o", &public],
    );
    device.tpm2("tpm2_flushcontext", &["-t"]);
    let said = owner(&[&["challenge", &public, &device.word("secret")], options].concat());
    serde_json::from_slice(&said.ok().out).unwrap()
}

fn request(device: &Device, message: &Value) -> String {
    let path = device.home.write("request.json", message.to_string());
    path.to_str().unwrap().to_owned()
}

/// What the owner makes of the answer.
#[track_caller]
fn answered(device: &Device, message: &Value, options: &[&str]) -> Value {
    let request = request(device, message);
    let said = device.ends(0, &[&["challenge", &request], options].concat());
    let response = device.home.write("response.json", &said.out);
    let judged = owner(&["verify", &device.word("secret"), response.to_str().unwrap()]);
    let judged: Value = serde_json::from_slice(&judged.ok().out).unwrap();
    device.tpm2("tpm2_readpublic", &["-c", IAK, "-n", "iak.name"]);
    assert_eq!(
        judged["name"],
        hex(&fs::read(device.path("iak.name")).unwrap())
    );
    device.is_clean();
    judged
}

/// An invalid request (2), or a key that the TPM does not take (6); nothing stays in the TPM.
#[track_caller]
fn refused(device: &Device, code: i32, message: &Value, words: &[&str]) {
    let request = request(device, message);
    let out = device.word("none.json");
    device.refuses(code, &["challenge", &request, "--out", &out], words);
    assert!(!device.path("none.json").exists());
    device.is_clean();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A device with IDevID and IAK of P-384, as OpenConfig asks for.
pub(crate) fn switch() -> Device {
    Device::with_factory(&["--template", "h3"], &["--template", "h3"])
}

fn with(message: &Value, field: &str, value: Value) -> Value {
    let mut changed = message.clone();
    changed[field] = value;
    changed
}

fn bytes(message: &Value, field: &str) -> Vec<u8> {
    from_base64(message[field].as_str().unwrap())
}

/// The certificate that an owner's CA makes for a public key.
pub(crate) fn certified(device: &Device, common_name: &str, public: &str) -> PathBuf {
    let ca = ["ca.key", "ca.pem"].map(|name| device.word(name));
    if !device.path("ca.pem").exists() {
        let mut authority = program("openssl");
        authority.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        authority.args(["ec_paramgen_curve:P-384", "-nodes", "-days", "9"]);
        authority.args(["-subj", "/CN=owner", "-keyout", &ca[0], "-out", &ca[1]]);
        run(&mut authority).ok();
    }
    let leaf = device.path(&format!("{common_name}.leaf"));
    let mut issue = program("openssl");
    issue.args(["x509", "-new", "-days", "5", "-subj"]);
    issue.arg(format!("/CN={common_name}/serialNumber=SN-000001"));
    issue.args([
        "-force_pubkey",
        public,
        "-CA",
        &ca[1],
        "-CAkey",
        &ca[0],
        "-out",
    ]);
    run(issue.arg(&leaf)).ok();
    let both = [fs::read(&leaf).unwrap(), fs::read(&ca[1]).unwrap()].concat();
    device.home.write(&format!("{common_name}.pem"), both)
}

/// From the challenge to the owner's certificates.
#[track_caller]
fn enrolled(device: &Device, wrapping: &str, options: &[&str]) {
    let options = [&["--message", "enrollz"], options].concat();
    let message = challenge(device, wrapping, &options);
    answered(device, &message, &[]);
    let csr = device.word("csr");
    for kept in ["csr", "csr.sig"] {
        fs::remove_file(device.path(kept)).ok();
    }
    device.ends(
        0,
        &[
            "attest", "idev-id", "--nonce", "00", "--form", "tcg-csr", "--out", &csr,
        ],
    );
    let mut files = Vec::new();
    for (name, handle) in IDEVID_AND_IAK {
        let public = device.word(&format!("{name}.pub"));
        device.tpm2(
            "tpm2_readpublic",
            &["-c", handle, "-f", "pem", "-o", &public],
        );
        files.push(
            certified(device, name, &public)
                .to_str()
                .unwrap()
                .to_owned(),
        );
    }
    device.ends(0, &["import-cert", "--owner", &files[0], &files[1]]);
    let shown = device.ends(0, &["show", "idev-id"]).text();
    assert!(shown.contains("certificates.pem"), "{shown}");
}

/// Every template for endorsement keys that swtpm makes.
#[test]
fn enrollz_1_1_an_owner_knows_the_endorsement_key() {
    for template in &TEMPLATES {
        let device = Device::endorsed_by(template);
        for key in ["", "--iak"] {
            let options = ["--template", "h3", key];
            device.manufacture(&options[..if key.is_empty() { 2 } else { 3 }]);
        }
        let context = match device.path("ek.ctx").exists() {
            true => "ek.ctx",
            false if template.name == "L-1" => RSA_KEY,
            false => P384_KEY,
        };
        enrolled(&device, context, &[]);
    }
}

/// A platform primary key is in a handle of the platform's.
#[test]
fn enrollz_1_2_an_owner_knows_the_platform_primary_key() {
    let device = switch();
    platform_key(&device, "rsa2048", "0x81800001");
    enrolled(&device, "0x81800001", &["--key", "KEY_PPK"]);
    platform_key(&device, "ecc256", "0x81800002");
    let message = challenge(
        &device,
        "0x81800002",
        &["--message", "enrollz", "--key", "KEY_PPK"],
    );
    answered(&device, &message, &[]);
}

fn platform_key(device: &Device, algorithm: &str, handle: &str) {
    let attributes =
        "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
    let create = [
        "-C", "p", "-G", algorithm, "-a", attributes, "-c", "ppk.ctx",
    ];
    device.tpm2("tpm2_createprimary", &create);
    device.tpm2("tpm2_evictcontrol", &["-C", "p", "-c", "ppk.ctx", handle]);
    device.tpm2("tpm2_flushcontext", &["-t"]);
}

/// Templates of IAKs: each is certified by its policy, of its own hash, in a handle or derived.
#[test]
fn iaks_of_every_template_are_certified() {
    for template in ["h1", "h2", "h3", "h4"] {
        let kind = ["--template", template, "--auth", "secret"];
        let device = Device::with_factory(&kind[..2], &kind);
        answered(&device, &challenge(&device, RSA_KEY, &[]), &[]);
    }
    let kind = ["--template", "h3", "--no-persist"];
    let device = Device::with_factory(&kind, &kind);
    let message = challenge(&device, RSA_KEY, &[]);
    let said = device.ends(0, &["challenge", &request(&device, &message)]);
    let response = device.home.write("response.json", &said.out);
    owner(&["verify", &device.word("secret"), response.to_str().unwrap()]).ok();
    device.is_clean();
}

/// Both forms of field names, both alphabets, numbers for names; and each message has an answer of its own.
#[test]
fn messages_are_protojson() {
    let device = switch();
    let bare = challenge(&device, P384_KEY, &[]);
    let url = |field: &str| {
        let text = bare[field].as_str().unwrap();
        text.replace('+', "-")
            .replace('/', "_")
            .trim_end_matches('=')
            .to_owned()
    };
    let snake = json!({
        "hmac_pub_key": url("hmacPubKey"), "duplicate": url("duplicate"), "in_sym_seed": url("inSymSeed"),
    });
    answered(&device, &snake, &[]);
    let request = json!({ "key": 1, "challenge": bare, "control_card_selection": { "slot": "1" } });
    answered(&device, &request, &[]);
    let said: Value =
        serde_json::from_slice(&fs::read(device.path("response.json")).unwrap()).unwrap();
    let response = &said["challengeResp"];
    let public = bytes(response, "iakPub");
    assert_eq!(
        usize::from(public[0]) * 256 + usize::from(public[1]),
        public.len() - 2
    );
    assert_eq!(bytes(response, "iakCertifyInfoSignature").len(), 36);
    refused(
        &device,
        2,
        &json!({ "key": 1, "challenge": bare, "keyType": 1 }),
        &["two messages"],
    );
    refused(&device, 2, &json!({ "nonce": "AA==" }), &["nonce"]);
    refused(&device, 2, &json!([]), &["not a message"]);
    let twice = bare.to_string().replacen('{', "{\"duplicate\":\"\",", 1);
    device.home.write("twice.json", twice);
    device.refuses(
        2,
        &["challenge", &device.word("twice.json")],
        &["duplicate"],
    );
}

/// The answer to a bootz server is bound to the transport key: TPMT_HA in extraData.
#[test]
fn bootz_binds_the_transport_key() {
    let device = switch();
    let message = challenge(&device, RSA_KEY, &["--message", "bootz"]);
    let key = [&[0x08, 2, 0x12, 32][..], &[7; 32]].concat();
    device.home.write("transport.key", &key);
    let option = ["--transport-key", &device.word("transport.key")];
    let judged = answered(&device, &message, &option);
    let expected = [&[0, 0x0B][..], &digest("-sha256", &key)].concat();
    assert_eq!(judged["extraData"], hex(&expected));
    let response = fs::read(device.path("response.json")).unwrap();
    let response: Value = serde_json::from_slice(&response).unwrap();
    assert_eq!(bytes(&response, "serializedTransportKey"), key);
    refused(&device, 2, &message, &["--transport-key"]);
    let enrollz = challenge(&device, RSA_KEY, &["--message", "enrollz"]);
    let request = request(&device, &enrollz);
    device.refuses(
        2,
        &["challenge", &request, option[0], option[1]],
        &["no field for a transport key"],
    );
    // A bare challenge has a place for both.
    let bare = challenge(&device, RSA_KEY, &[]);
    assert_eq!(answered(&device, &bare, &[])["extraData"], "");
    assert_eq!(
        answered(&device, &bare, &option)["extraData"],
        hex(&expected)
    );
}

#[test]
fn enrollz_1_8_an_unspecified_key() {
    let device = switch();
    let message = challenge(&device, RSA_KEY, &["--message", "enrollz"]);
    for key in [json!("KEY_UNSPECIFIED"), json!(0), json!(null)] {
        refused(
            &device,
            2,
            &with(&message, "key", key),
            &["invalid request", "KEY_UNSPECIFIED"],
        );
    }
    for key in [json!("KEY_SRK"), json!(3), json!("")] {
        refused(
            &device,
            2,
            &with(&message, "key", key),
            &["invalid request", "KEY_EK"],
        );
    }
}

#[track_caller]
fn empty(field: &str) {
    let device = switch();
    let mut message = challenge(&device, RSA_KEY, &[]);
    for value in [json!(""), json!(null)] {
        refused(
            &device,
            2,
            &with(&message, field, value),
            &["invalid request", field, "empty"],
        );
    }
    message.as_object_mut().unwrap().remove(field);
    refused(&device, 2, &message, &["invalid request", field, "empty"]);
}

#[test]
fn enrollz_1_9_an_empty_hmac_pub_key() {
    empty("hmacPubKey");
}

#[test]
fn enrollz_1_10_an_empty_duplicate() {
    empty("duplicate");
}

#[test]
fn enrollz_1_11_an_empty_in_sym_seed() {
    empty("inSymSeed");
}

/// Each field cut, longer than it says, with a flipped bit at some places, and of zeros; for an RSA
/// endorsement key and for P-384.
#[track_caller]
fn malformed(field: &str) {
    let device = switch();
    for wrapping in [RSA_KEY, P384_KEY] {
        let message = challenge(&device, wrapping, &[]);
        let right = bytes(&message, field);
        let changed = |bytes: &[u8]| with(&message, field, to_base64(bytes).into());
        for end in [1, 2, 3, right.len() / 2, right.len() - 1] {
            refused(
                &device,
                2,
                &changed(&right[..end]),
                &["invalid request", field],
            );
        }
        refused(
            &device,
            2,
            &changed(&[&right[..], &[0]].concat()),
            &["invalid request", field],
        );
        for at in [2, 5, right.len() / 2, right.len() - 1] {
            let mut flipped = right.clone();
            flipped[at] ^= 0x10;
            let request = request(&device, &changed(&flipped));
            let said = device.devid(&["challenge", &request]);
            assert!(
                matches!(said.status.code(), Some(2 | 6)),
                "{field}, {at}: {said}"
            );
            device.is_clean();
        }
        let mut sized = right[..2].to_vec();
        sized.resize(right.len(), 0);
        let request = request(&device, &changed(&sized));
        let said = device.devid(&["challenge", &request]);
        assert!(
            matches!(said.status.code(), Some(2 | 6)),
            "{field}, zeros: {said}"
        );
        device.is_clean();
        let short = [&[0, 20][..], &[7; 20]].concat();
        let request = self::request(&device, &changed(&short));
        let said = device.devid(&["challenge", &request]);
        assert!(
            matches!(said.status.code(), Some(2 | 6)),
            "{field}, short: {said}"
        );
        device.is_clean();
        let other = with(&message, field, json!("no base64!"));
        refused(&device, 2, &other, &["invalid request", field, "base64"]);
        answered(&device, &message, &[]);
    }
}

#[test]
fn enrollz_1_12_a_malformed_hmac_pub_key() {
    malformed("hmacPubKey");
}

#[test]
fn enrollz_1_13_a_malformed_duplicate() {
    malformed("duplicate");
}

#[test]
fn enrollz_1_14_a_malformed_in_sym_seed() {
    malformed("inSymSeed");
}

#[test]
fn enrollz_1_15_an_hmac_key_for_another_endorsement_key() {
    let (device, other) = (switch(), Device::other());
    for wrapping in [RSA_KEY, P384_KEY] {
        let message = challenge(&other, wrapping, &["--message", "enrollz"]);
        refused(
            &device,
            6,
            &message,
            &["does not import", "another endorsement key"],
        );
    }
    // A storage key that is no endorsement key.
    let create = ["-C", "o", "-G", "rsa2048", "-c", "srk.ctx"];
    device.tpm2("tpm2_createprimary", &create);
    device.tpm2("tpm2_flushcontext", &["-t"]);
    let message = challenge(&device, "srk.ctx", &["--message", "enrollz"]);
    refused(&device, 6, &message, &["endorsement key"]);
}

#[test]
fn enrollz_1_16_an_hmac_key_for_another_platform_primary_key() {
    let (device, other) = (switch(), Device::other());
    let options = ["--message", "enrollz", "--key", "KEY_PPK"];
    platform_key(&other, "rsa2048", "0x81800001");
    let message = challenge(&other, "0x81800001", &options);
    refused(
        &device,
        6,
        &message,
        &["no such platform primary key", "0x81800000"],
    );
    platform_key(&device, "rsa2048", "0x81800001");
    refused(
        &device,
        6,
        &message,
        &["does not import", "another platform primary key"],
    );
    // Nor does an endorsement key serve as one.
    let message = challenge(&device, RSA_KEY, &options);
    refused(&device, 6, &message, &["another platform primary key"]);
}

#[test]
fn enrollz_1_31_a_restart_after_the_request_begins_anew() {
    let mut device = switch();
    enrolled(&device, RSA_KEY, &[]);
    device.tpm.shut_down();
    device.tpm.restart();
    enrolled(&device, RSA_KEY, &[]);
}

#[test]
fn attestz_1_1_2_a_device_without_iak_says_so() {
    let device = Device::new();
    let message = challenge(&device, RSA_KEY, &[]);
    refused(
        &device,
        6,
        &message,
        &["this device has no IAK", "devid-manufacture keys"],
    );
    device.ends(
        5,
        &[
            "attest", "idev-id", "--nonce", "00", "--form", "tcg-csr", "--out", "x",
        ],
    );
}

/// HMAC keys of other kinds than enrollz has: none is loaded, or does not stay.
#[test]
fn other_keys_are_refused_by_what_is_wrong_with_them() {
    let device = switch();
    let of = |options: &[&str]| challenge(&device, RSA_KEY, options);
    for (attributes, what) in [
        ("00040440", "restricted"),
        ("00010440", "sign"),
        ("00050400", "userWithAuth"),
        ("00050040", "noDA"),
        ("00070440", "decrypt"),
        ("00050442", "fixedTPM"),
        ("00050450", "fixedParent"),
        ("00050C40", "encryptedDuplication"),
    ] {
        refused(
            &device,
            2,
            &of(&["--attributes", attributes]),
            &["hmacPubKey", what],
        );
    }
    refused(
        &device,
        2,
        &of(&["--scheme", "00050099"]),
        &["hmacPubKey", "scheme"],
    );
    refused(
        &device,
        6,
        &of(&["--auth", "736563726574"]),
        &["authorisation value"],
    );
    refused(
        &device,
        6,
        &of(&["--other-halves"]),
        &["hmacPubKey", "duplicate"],
    );
    // SHA-384 is another hash than that of attestz, and as good.
    device.ends(
        0,
        &[
            "challenge",
            &request(&device, &of(&["--scheme", "0005000C"])),
        ],
    );
    device.is_clean();
}

/// The endorsement hierarchy's authorisation value is not guessed.
#[test]
fn a_value_of_the_endorsement_hierarchy_is_told() {
    let device = switch();
    let message = challenge(&device, RSA_KEY, &[]);
    device.tpm2("tpm2_changeauth", &["-c", "e", "secret"]);
    refused(&device, 1, &message, &["endorsement hierarchy"]);
}
