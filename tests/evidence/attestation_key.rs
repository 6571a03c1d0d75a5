//! Tests which key attests if the TPM has no attestation key of the factory.

use crate::device::Device;
use crate::structures::{attributes, certified, key_info, name};
use std::fs;
use testkit::programs::{program, run};

const FILE: &str = "state/devid/.attestation-key.pem";

/// The key is made once. It is restricted, and in a separate file that no token shows.
#[test]
fn the_attestation_key_is_kept_and_is_no_object() {
    let device = Device::new();
    device.generate("web", &[]);
    let first = device.attest(&["web", "--nonce", "01"]);
    let listed = device.ends(0, &["list"]).text();
    let second = device.attest(&["web", "--nonce", "02"]);
    let signer = first.bytes("attestationKey/public");
    assert_eq!(signer, second.bytes("attestationKey/public"));
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign.
    assert_eq!(attributes(&signer), 0x0005_0472);
    assert_eq!(
        signer[..4],
        [0, 0x23, 0, 0x0B],
        "P-256 with SHA-256: others can read that"
    );
    assert_ne!(
        first.bytes("key/signature"),
        second.bytes("key/signature"),
        "each evidence is made anew"
    );
    assert!(!listed.contains("attestation"), "{listed}");
    assert_eq!(listed, device.ends(0, &["list"]).text());
    let text = fs::read_to_string(device.path(FILE)).unwrap();
    assert!(
        text.starts_with("-----BEGIN TSS2 PRIVATE KEY-----"),
        "{text}"
    );
}

#[test]
fn a_factory_reset_forgets_the_attestation_key() {
    let device = Device::new();
    device
        .home
        .write("config.toml", "[provision]\nown = true\n");
    device.ends(0, &["provision"]);
    let before = device.attest(&["devid/devid", "--nonce", "01"]);
    device.ends(0, &["reset", "--factory", "--yes"]);
    assert!(!device.path(FILE).exists());
    let after = device.attest(&["devid/devid", "--nonce", "01"]);
    assert_ne!(
        before.bytes("attestationKey/public"),
        after.bytes("attestationKey/public")
    );
}

/// After that the evidence shows the CA's certificate.
#[test]
fn a_certificate_for_the_attestation_key_is_taken() {
    let device = Device::new();
    device.generate("web", &[]);
    let bundle = device.attest(&["web", "--nonce", "01"]);
    assert_eq!(bundle.count("attestationKey/certificates"), 0);
    let info = bundle.file("ak.der", &key_info(&bundle.bytes("attestationKey/public")));
    let ca = device.manufacture(&["--no-key"]).ca();
    let mut issue = program("openssl");
    issue
        .args(["x509", "-new", "-subj", "/CN=ak", "-days", "9", "-CA"])
        .arg(&ca);
    issue.arg("-CAkey").arg(ca.with_file_name("ca.key"));
    issue.arg("-force_pubkey").arg(info);
    run(issue.arg("-out").arg(device.path("ak.pem"))).ok();
    let leaf = fs::read_to_string(device.path("ak.pem")).unwrap();
    let both = leaf + &fs::read_to_string(&ca).unwrap();
    device.home.write("both.pem", both);
    device.ends(0, &["import-cert", &device.word("both.pem")]);
    let after = device.attest(&["web", "--nonce", "02"]);
    assert_eq!(after.count("attestationKey/certificates"), 2);
    certified(&after, "key");
}

/// A damaged file, or one of another TPM, costs a clear error and nothing else.
#[test]
fn an_attestation_key_that_the_tpm_does_not_load_is_told() {
    let device = Device::new();
    device.generate("web", &[]);
    device.attest(&["web", "--nonce", "01"]);
    let other = Device::other();
    other.generate("web", &[]);
    other.attest(&["web", "--nonce", "01"]);
    let own = fs::read(device.path(FILE)).unwrap();
    fs::copy(other.path(FILE), device.path(FILE)).unwrap();
    device.refuses(
        1,
        &["attest", "web"],
        &[".attestation-key.pem", "does not load", "mv -T"],
    );
    fs::write(device.path(FILE), &own[..own.len() / 2]).unwrap();
    device.refuses(1, &["attest", "web"], &[".attestation-key.pem"]);
    device.is_clean();
    fs::write(device.path(FILE), own).unwrap();
    device.attest(&["web", "--nonce", "01"]);
}

/// On a cloud's TPM the attestation key lies outside the range of the TCG's Registry. Its empty value would
/// count if it were wrong, so it is used only where the configuration names the handle.
#[test]
fn an_attestation_key_in_a_named_handle_attests() {
    for (kind, scheme) in [("ecc", "ecdsa"), ("rsa", "rsassa")] {
        let device = Device::new();
        device.generate("web", &[]);
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
        let algorithm = format!("{kind}:{scheme}:null");
        let create = [
            "-C", "e", "-G", &algorithm, "-a", attributes, "-c", "ak.ctx",
        ];
        device.tpm2("tpm2_createprimary", &create);
        let persist = ["-C", "o", "-c", "ak.ctx", "0x81000003"];
        device.tpm2("tpm2_evictcontrol", &persist);
        device.tpm2("tpm2_flushcontext", &["-t"]);
        let own = device.attest(&["web", "--nonce", "01"]);
        device
            .home
            .write("config.toml", "[[identity]]\nhandle = 0x81000003\n");
        let bundle = device.attest(&["web", "--nonce", "02"]);
        let signer = bundle.bytes("attestationKey/public");
        assert_ne!(signer, own.bytes("attestationKey/public"), "{kind}");
        device.tpm2("tpm2_readpublic", &["-c", "0x81000003", "-n", "ak.name"]);
        assert_eq!(
            fs::read(device.path("ak.name")).unwrap(),
            name(&signer),
            "{kind}"
        );
        certified(&bundle, "key").signed_the_request();
        // A challenge for this key is answered, too.
        let document = crate::activate::challenge(&device, "0x81010016", &name(&signer));
        device.home.write("challenge", document.to_string());
        device.ends(0, &["activate", &device.word("challenge")]);
        device.is_clean();
        // A value that the configuration has is not the empty one: the key is left alone.
        device.home.write(
            "config.toml",
            "[[identity]]\nhandle = 0x81000003\nauth = \"hex:00\"\n",
        );
        let after = device.attest(&["web", "--nonce", "03"]);
        assert_eq!(
            after.bytes("attestationKey/public"),
            own.bytes("attestationKey/public")
        );
        device.is_clean();
    }
}

/// A value that the configuration does not name, and is not empty, costs one counted try and no second.
#[test]
fn an_attestation_key_in_a_named_handle_may_have_a_value() {
    let device = Device::new();
    device.generate("web", &[]);
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
    let create = [
        "-C",
        "e",
        "-G",
        "ecc:ecdsa:null",
        "-a",
        attributes,
        "-p",
        "secret",
        "-c",
        "ak.ctx",
    ];
    device.tpm2("tpm2_createprimary", &create);
    device.tpm2(
        "tpm2_evictcontrol",
        &["-C", "o", "-c", "ak.ctx", "0x81000003"],
    );
    device.tpm2("tpm2_flushcontext", &["-t"]);
    device
        .home
        .write("config.toml", "[[identity]]\nhandle = 0x81000003\n");
    device.refuses(
        1,
        &["attest", "web", "--nonce", "01"],
        &["the attestation key"],
    );
    assert_eq!(device.tpm.lockout_counter(), 1);
    let most = device.tpm.lockout_counter() + 1;
    device.tpm2(
        "tpm2_dictionarylockout",
        &["-s", "-n", &most.to_string(), "-t", "1000", "-l", "1000"],
    );
    device.refuses(1, &["attest", "web", "--nonce", "01"], &["lockout"]);
    assert_eq!(device.tpm.lockout_counter(), 1);
}
