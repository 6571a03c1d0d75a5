//! Evidence of factory keys: policy sessions with each hash.

use crate::device::Device;
use crate::structures::{certified, name};
use std::fs;

/// The templates H-1 to H-4, each with an attestation key of its own kind.
#[test]
fn a_factory_key_of_every_template_has_evidence() {
    for (template, hash) in [("h1", 0x0B), ("h2", 0x0B), ("h3", 0x0C), ("h4", 0x0D)] {
        let kind = ["--template", template];
        let device = Device::with_factory(&kind, &kind);
        let bundle = device.attest(&["idev-id", "--nonce", "aabb"]);
        let certified = certified(&bundle, "key");
        assert_eq!(certified.nonce, [0xAA, 0xBB], "{template}");
        certified.signed_the_request();
        assert_eq!(bundle.bytes("key/public")[3], hash, "{template}: nameAlg");
        let signer = bundle.bytes("attestationKey/public");
        device.tpm2("tpm2_readpublic", &["-c", "0x81020001", "-n", "iak.name"]);
        assert_eq!(
            fs::read(device.path("iak.name")).unwrap(),
            name(&signer),
            "{template}"
        );
        for (path, count) in [("attestationKey/certificates", 2), ("key/certificates", 2)] {
            assert_eq!(bundle.count(path), count, "{template}: {path}");
        }
        assert_eq!(bundle.json["device"]["serial"], "SN-000001");
        assert_eq!(bundle.json["device"]["model"], "Example-1000");
        device.is_clean();
    }
}

/// Without handles both keys come from their templates.
#[test]
fn factory_keys_without_handles_have_evidence() {
    for template in ["h2", "h1"] {
        let kind = ["--template", template, "--no-persist"];
        let device = Device::with_factory(&kind, &kind);
        let bundle = device.attest(&["idev-id", "--nonce", "aabb"]);
        certified(&bundle, "key").signed_the_request();
        assert_eq!(bundle.count("attestationKey/certificates"), 2, "{template}");
        device.is_clean();
    }
}

/// A service's key and the identity are certified by one attestation key, with one nonce.
#[test]
fn the_identity_stands_beside_a_services_key() {
    let device = Device::with_factory(&["--template", "h3"], &["--template", "h3"]);
    device.generate("web", &[]);
    let bundle = device.attest(&["web", "--nonce", "aabb"]);
    for path in ["key", "idevid"] {
        assert_eq!(certified(&bundle, path).nonce, [0xAA, 0xBB], "{path}");
    }
    assert_eq!(bundle.json["idevid"]["label"], "idev-id");
    assert_eq!(bundle.count("idevid/certificates"), 2);
}

/// The factory's attestation key may have an authorisation value: its policy serves, and nothing is tried
/// that could be counted.
#[test]
fn values_of_factory_keys_are_not_guessed() {
    let device = Device::with_factory(&[], &["--auth", "secret"]);
    let bundle = device.attest(&["idev-id", "--nonce", "aabb"]);
    certified(&bundle, "key");
    device.is_clean();
}
