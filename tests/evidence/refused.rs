//! Keys that cannot have evidence. Each is refused with its reason, before a TPM command is sent.

use crate::device::Device;
use testkit::own::P256_KEY;
use testkit::programs::{program, run};

fn openssl_key(device: &Device, name: &str) -> String {
    let mut make = program("openssl");
    make.arg("genpkey").args(P256_KEY).arg("-out");
    run(make.arg(device.path(name))).ok();
    device.word(name)
}

#[test]
fn a_key_that_the_tpm_does_not_use_is_refused() {
    let device = Device::new();
    device.home.write(
        "config.toml",
        format!(
            "[[token]]\nname = \"files\"\npath = \"{}\"\nallow_file_keys = true\n",
            device.word("files")
        ),
    );
    std::fs::create_dir(device.path("files")).unwrap();
    device.generate("sealed", &["--sealed"]);
    openssl_key(&device, "files/clear.pem");
    device.refuses(6, &["attest", "sealed"], &["sealed", "uses it in memory"]);
    device.refuses(6, &["attest", "clear"], &["in a file"]);
    device.refuses(5, &["attest", "missing"], &["not found"]);
    device.is_clean();
}

#[test]
fn an_imported_key_is_refused_since_no_verifier_accepts_it() {
    let device = Device::new();
    let key = openssl_key(&device, "outside.pem");
    let der = device.word("outside.der");
    let mut convert = program("openssl");
    convert.args([
        "pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", &key, "-out", &der,
    ]);
    run(&mut convert).ok();
    let mut import = program("pkcs11-tool");
    import.arg("--module").arg(testkit::module::library());
    import.args(["--token-label", "devid", "--write-object", &der]);
    import.args(["--type", "privkey", "--label", "outside", "--usage-sign"]);
    run(device.home.settle(&mut import)).ok();
    device.refuses(
        6,
        &["attest", "outside"],
        &["outside of the TPM", "fixedTPM"],
    );
}

/// adminWithPolicy with another policy: only its author can let the TPM certify the key.
#[test]
fn a_factory_key_whose_policy_is_not_known_is_refused() {
    let device = Device::new();
    let policy = [7; 32];
    std::fs::write(device.path("policy"), policy).unwrap();
    device.tpm2(
        "tpm2_createprimary",
        &[
            "-C",
            "e",
            "-G",
            "ecc256:ecdsa-sha256",
            "-L",
            "policy",
            "-c",
            "odd.ctx",
            "-a",
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|sign",
        ],
    );
    device.tpm2(
        "tpm2_evictcontrol",
        &["-C", "o", "-c", "odd.ctx", "0x81020000"],
    );
    device.tpm2("tpm2_flushcontext", &["-t"]);
    device.tpm2(
        "tpm2_readpublic",
        &["-c", "0x81020000", "-f", "pem", "-o", "odd.pub"],
    );
    let ca = device.manufacture(&["--no-key"]).ca();
    let mut issue = program("openssl");
    issue.args([
        "x509",
        "-new",
        "-subj",
        "/CN=Odd/serialNumber=SN-9",
        "-days",
        "9",
        "-CA",
    ]);
    issue
        .arg(&ca)
        .arg("-CAkey")
        .arg(ca.with_file_name("ca.key"));
    issue.arg("-force_pubkey").arg(device.path("odd.pub"));
    run(issue.arg("-out").arg(device.path("odd.pem"))).ok();
    device.home.write(
        "config.toml",
        format!(
            "[[identity]]\ncertificate = \"{}\"\nhandle = 0x81020000\n",
            device.word("odd.pem")
        ),
    );
    let said = device.ends(0, &["list"]).text();
    let label = said
        .lines()
        .find(|line| line.starts_with("idev-id") && !line.contains("-ca"));
    let label = label.expect("an identity");
    device.refuses(
        6,
        &["attest", label],
        &["policy", "not a policy of the TCG"],
    );
    device.is_clean();
}
