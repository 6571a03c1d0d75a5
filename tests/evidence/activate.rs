//! Answers to challenges. tpm2_makecredential makes a challenge too, to check the project's own
//! challenges.

use crate::device::{Bundle, Device, from_base64, to_base64};
use crate::structures::name;
use serde_json::{Value, json};
use std::fs;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A challenge of tpm2_makecredential for the endorsement key in this handle and an attestation
/// key.
fn made(device: &Device, handle: &str, key: &[u8]) -> Vec<u8> {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(device.path("secret"), SECRET).unwrap();
    device.tpm2("tpm2_readpublic", &["-c", handle, "-o", "ek.tss"]);
    device.tpm2(
        "tpm2_makecredential",
        &[
            "-u",
            "ek.tss",
            "-s",
            "secret",
            "-n",
            &hex,
            "-o",
            "credential",
        ],
    );
    fs::read(device.path("credential")).unwrap()
}

/// The challenge in the form of a CA's challenge.
pub(crate) fn challenge(device: &Device, handle: &str, key: &[u8]) -> Value {
    let made = made(device, handle, key);
    let (size, rest) = made[8..].split_at(2);
    let (credential, secret) = rest.split_at(u16::from_be_bytes([size[0], size[1]]).into());
    device.tpm2(
        "tpm2_readpublic",
        &["-c", handle, "-f", "der", "-o", "ek.der"],
    );
    let info = fs::read(device.path("ek.der")).unwrap();
    json!({
        "format": "devid-challenge/1",
        "id": to_base64(&[7; 16]),
        "attestationKeyName": to_base64(key),
        "endorsementKey": to_base64(&info),
        "credential": to_base64(credential),
        "secret": to_base64(&secret[2..]),
    })
}

fn key_of(bundle: &Bundle) -> Vec<u8> {
    name(&bundle.bytes("attestationKey/public"))
}

#[track_caller]
fn opens(device: &Device, challenge: &Value) {
    let file = device.home.write("challenge", challenge.to_string());
    let said = device.ends(0, &["activate", file.to_str().unwrap()]);
    let answer: Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(answer["format"], "devid-response/1");
    assert_eq!(answer["id"], challenge["id"]);
    assert_eq!(from_base64(answer["secret"].as_str().unwrap()), SECRET);
    device.is_clean();
}

/// Endorsement keys of the low range (PolicyA, SHA-256) and of the high one (PolicyB, SHA-384), in handles
/// and derived.
#[test]
fn the_devices_own_attestation_key_is_activated() {
    let device = Device::new();
    device.generate("web", &[]);
    let key = key_of(&device.attest(&["web", "--nonce", "01"]));
    let challenges = ["0x81010001", "0x81010016"].map(|handle| challenge(&device, handle, &key));
    challenges.iter().for_each(|one| opens(&device, one));
    device.tpm.without_endorsement_handles();
    challenges.iter().for_each(|one| opens(&device, one));
}

/// IAKs take a policy session for it, of the hash of their template.
#[test]
fn attestation_keys_of_factories_are_activated() {
    for template in ["h1", "h2", "h3", "h4"] {
        let kind = ["--template", template];
        let device = Device::with_factory(&kind, &kind);
        let key = key_of(&device.attest(&["idev-id", "--nonce", "01"]));
        for handle in ["0x81010001", "0x81010016"] {
            opens(&device, &challenge(&device, handle, &key));
        }
    }
}

#[test]
fn the_file_of_tpm2_makecredential_is_opened_as_it_is() {
    let device = Device::new();
    device.generate("web", &[]);
    let key = key_of(&device.attest(&["web", "--nonce", "01"]));
    let made = made(&device, "0x81010001", &key);
    let (file, out) = (device.word("credential"), device.word("opened"));
    device.ends(0, &["activate", &file, "--out", &out]);
    assert_eq!(fs::read(&out).unwrap(), SECRET);
    let said = device.ends(0, &["activate", &file]).text();
    let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(said.trim(), hex);
    for end in [9, 40, made.len() - 1] {
        fs::write(&file, &made[..end]).unwrap();
        device.refuses(6, &["activate", &file], &["incomplete"]);
    }
    fs::write(&file, [&made[..], &[0]].concat()).unwrap();
    device.refuses(6, &["activate", &file], &["additional bytes"]);
}

/// A challenge for another key is refused in words, and leaves nothing in the TPM.
#[test]
fn a_challenge_for_somebody_else_is_told() {
    let device = Device::new();
    device.generate("web", &[]);
    let key = key_of(&device.attest(&["web", "--nonce", "01"]));
    let right = challenge(&device, "0x81010001", &key);
    let refused = |changed: Value, said: &[&str]| {
        let file = device.home.write("challenge", changed.to_string());
        device.refuses(6, &["activate", file.to_str().unwrap()], said);
        device.is_clean();
    };
    let mut other_key = key.clone();
    other_key[9] ^= 1;
    let with = |field: &str, bytes: &[u8]| {
        let mut changed = right.clone();
        changed[field] = to_base64(bytes).into();
        changed
    };
    refused(
        with("attestationKeyName", &other_key),
        &["attestation key", "this device does not have"],
    );
    // Made for another key, though it names ours.
    let foreign = challenge(&device, "0x81010001", &other_key);
    let mut foreign = foreign;
    foreign["attestationKeyName"] = right["attestationKeyName"].clone();
    refused(foreign, &["does not decrypt the challenge", "devid attest"]);
    let other = Device::other();
    let strange = challenge(&other, "0x81010001", &key);
    refused(strange, &["endorsement key", "this TPM does not have"]);
    let curve = challenge(&device, "0x81010016", &key);
    for right in [&right, &curve] {
        for field in ["credential", "secret"] {
            let bytes = from_base64(right[field].as_str().unwrap());
            let with = |bytes: &[u8]| {
                let mut changed = right.clone();
                changed[field] = to_base64(bytes).into();
                changed
            };
            for at in [0, 3, bytes.len() / 2, bytes.len() - 1] {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                refused(with(&flipped), &["does not decrypt the challenge"]);
            }
            refused(
                with(&bytes[..bytes.len() - 1]),
                &["does not decrypt the challenge"],
            );
            refused(
                with(&[&bytes[..], &[0; 900]].concat()),
                &["does not decrypt the challenge"],
            );
        }
    }
    opens(&device, &right);
    let file = device.home.write("challenge", "{}");
    device.refuses(2, &["activate", file.to_str().unwrap()], &["challenge"]);
}
