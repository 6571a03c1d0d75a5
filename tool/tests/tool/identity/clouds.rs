//! Virtual TPMs of clouds. Each is imitated with the handles and NV indices of its platform, and
//! uses the example configuration for it. A platform's attestation key is not an identity.

use crate::device::tpm::Swtpm;
use crate::device::{Device, persistent, programs, tpm2};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The example configuration of a cloud, on the TPM of the test.
fn on(tpm: Swtpm, example: &str) -> Device {
    let device = Device::with(Some(tpm));
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pkcs11-conf/examples");
    let text = fs::read_to_string(examples.join(example)).unwrap();
    let tcti = "tcti = \"device:/dev/tpmrm0\"\n";
    assert!(text.contains(tcti), "{example}");
    device.home.write("config.toml", text.replace(tcti, ""));
    device
}

fn text(device: &Device, name: &str) -> String {
    device.path(name).to_str().unwrap().to_owned()
}

fn listed(device: &Device) -> Vec<Value> {
    device.json(&["list"])["objects"]
        .as_array()
        .unwrap()
        .clone()
}

/// The device gets its own identity, beside the objects of the platform.
fn makes_its_identity(device: &Device) {
    let before = device.json(&["doctor"]);
    let advice = before.as_array().unwrap().iter();
    let harmful = advice.filter(|one| {
        let command = one["command"].as_str().unwrap_or_default();
        ["evictcontrol", "nvundefine", "tpm2_clear"]
            .iter()
            .any(|word| command.contains(word))
    });
    assert_eq!(harmful.count(), 0, "{before:#}");
    device.ends(0, &["provision", "--wait", "0"]);
    let status = device.json(&["status"]);
    assert_eq!(
        (&status["mode"], &status["identity"]),
        (&"tpm".into(), &"own".into()),
        "{status:#}"
    );
    let own = listed(device)
        .into_iter()
        .find(|one| one["label"] == "devid")
        .unwrap();
    assert_ne!(own["attests"], true);
}

/// The certificate that is shown for an attestation key; nothing verifies by it.
fn is_an_attestation_keys(device: &Device, count: usize) {
    let attesting: Vec<Value> = listed(device)
        .into_iter()
        .filter(|one| one["attests"] == true)
        .collect();
    assert_eq!(attesting.len(), count, "{attesting:#?}");
    for one in attesting {
        let label = one["label"].as_str().unwrap();
        assert!(label.starts_with("iak"), "{one:#}");
        let report = device.devid(&["verify", label, "--json"]);
        let report: Value = serde_json::from_slice(&report.out).unwrap();
        assert_eq!(report["verdict"], "not-proven", "{report:#}");
    }
}

#[test]
fn azure_brings_an_attestation_key_in_a_handle() {
    let layout = [
        "--iak",
        "--template",
        "h1",
        "--scheme",
        "rsassa",
        "--handle",
        "0x81000003",
        "--nv",
        "0x01C101D0",
        "--padding",
        "full",
        "--ca-nv",
        "none",
    ];
    let (tpm, _) = Swtpm::manufactured_with(&layout);
    let mut device = on(tpm, "azure.toml");
    is_an_attestation_keys(&device, 1);
    makes_its_identity(&device);
    is_an_attestation_keys(&device, 1);

    // A reset ends what is the device's own, and nothing of the platform's.
    device.ends(0, &["reset", "--factory", "--yes"]);
    assert!(persistent(&mut device).contains("0x81000003"));
    is_an_attestation_keys(&device, 1);
}

/// Puts the certificate of a key into an NV index and its template into the next, as Google does. The
/// template is that of go-tpm-tools for attestation keys: restricted, noDA, no policy; no handle holds
/// the key.
fn brought_by_google(device: &mut Device, algorithm: &str, indices: [&str; 2]) {
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
    let [context, public, area] = ["ak.ctx", "ak.pem", "ak.pub"].map(|name| text(device, name));
    let create = [
        "-C", "e", "-g", "sha256", "-G", algorithm, "-a", attributes, "-c", &context,
    ];
    tpm2(device, "tpm2_createprimary", &create);
    tpm2(
        device,
        "tpm2_readpublic",
        &["-c", &context, "-f", "pem", "-o", &public],
    );
    tpm2(
        device,
        "tpm2_readpublic",
        &["-c", &context, "-f", "tss", "-o", &area],
    );
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);

    let [key, ca] = ["google.key", "google.pem"].map(|name| text(device, name));
    let usage = device.home.write(
        "usage",
        "keyUsage = critical, digitalSignature\nextendedKeyUsage = 2.23.133.8.3\n",
    );
    let openssl = |words: &[&str]| programs::run(programs::program("openssl").args(words)).ok();
    openssl(&[
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=EK,AK CA Intermediate",
        "-keyout",
        &key,
        "-out",
        &ca,
    ]);
    let certificate = text(device, "ak.der");
    openssl(&[
        "x509",
        "-new",
        "-subj",
        "/CN=1234567890",
        "-outform",
        "DER",
        "-force_pubkey",
        &public,
        "-CA",
        &ca,
        "-CAkey",
        &key,
        "-extfile",
        usage.to_str().unwrap(),
        "-out",
        &certificate,
    ]);
    for (index, file) in indices.into_iter().zip([certificate, area]) {
        let size = fs::metadata(&file).unwrap().len().to_string();
        let open = "authread|ownerread|ppread|ownerwrite|no_da";
        tpm2(
            device,
            "tpm2_nvdefine",
            &["-C", "o", "-a", open, "-s", &size, index],
        );
        tpm2(device, "tpm2_nvwrite", &["-C", "o", index, "-i", &file]);
    }
}

#[test]
fn google_brings_certificates_of_keys_without_handle() {
    let mut device = on(Swtpm::blank(), "gcp.toml");
    let rsa = ["0x01C10000", "0x01C10001"];
    brought_by_google(&mut device, "rsa2048:rsassa-sha256:null", rsa);
    let ec = ["0x01C10002", "0x01C10003"];
    brought_by_google(&mut device, "ecc256:ecdsa-sha256:null", ec);
    is_an_attestation_keys(&device, 2);
    makes_its_identity(&device);
    is_an_attestation_keys(&device, 2);
}

#[test]
fn aws_brings_nothing() {
    let device = on(Swtpm::blank(), "aws.toml");
    device.ends(5, &["show", "idev-id"]);
    makes_its_identity(&device);
}
