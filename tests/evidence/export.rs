//! The export of keys to the file formats of other programs.

use crate::device::Device;
use serde_json::Value;
use std::fs;
use testkit::openssl::Verifier;
use testkit::programs::{program, run};

/// Runs the commands that the tool told, in the device's home.
fn follows(device: &Device, told: &str) {
    for line in told.lines() {
        let mut shell = program("sh");
        shell.args(["-c", line]).current_dir(device.home.folder());
        run(shell.env("TPM2TOOLS_TCTI", device.tpm.tcti())).ok();
    }
}

/// tpm2_load takes the files by the command that is told, and the key signs.
#[test]
fn tpm2_tools_load_an_exported_key() {
    let device = Device::new();
    for (label, options) in [
        ("master-ec", &[][..]),
        ("master-rsa", &["--algorithm", "rsa2048"]),
        ("srk-ec", &["--parent", "srk"]),
        (
            "srk-rsa",
            &[
                "--parent",
                "srk",
                "--algorithm",
                "rsa2048",
                "--scheme",
                "rsassa-sha256",
            ],
        ),
    ] {
        device.generate(label, options);
        let folder = device.word(label);
        let told = device
            .ends(0, &["export", label, "--tpm2-tools", &folder])
            .text();
        follows(&device, &told);
        device.tpm2("tpm2_flushcontext", &["-t"]);
        fs::write(device.path("data"), label).unwrap();
        device.tpm2(
            "tpm2_sign",
            &[
                "-c", "key.ctx", "-g", "sha256", "-f", "plain", "-o", "sig", "data",
            ],
        );
        device.tpm2(
            "tpm2_readpublic",
            &["-c", "key.ctx", "-f", "pem", "-o", "key.pem"],
        );
        device.tpm2("tpm2_flushcontext", &["-t"]);
        let signature = fs::read(device.path("sig")).unwrap();
        let verifier = Verifier::new(&device.path("key.pem"));
        verifier
            .accepts_der("-sha256", label.as_bytes(), &signature)
            .ok();
        let mode = fs::metadata(device.path(label).join("key.priv")).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
    }
    device.generate("sealed", &["--sealed"]);
    let folder = device.word("sealed");
    device.refuses(
        6,
        &["export", "sealed", "--tpm2-tools", &folder],
        &["used in memory"],
    );
    assert!(!device.path("sealed").exists());
}

/// The files have the bytes that SPIRE's plugin reads: bare structures, and the certificate with its issuers.
#[test]
fn spire_gets_its_three_files() {
    let device = Device::new();
    let ca = device.manufacture(&["--no-key"]).ca();
    for (label, options) in [
        ("node", &["--parent", "srk"][..]),
        ("node-384", &["--parent", "srk", "--algorithm", "p384"]),
        ("node-rsa", &["--parent", "srk", "--algorithm", "rsa2048"]),
    ] {
        device.generate(label, options);
        let folder = device.word(&format!("spire-{label}"));
        let said = device.ends(0, &["export", label, "--spire", &folder]);
        assert!(said.err.contains("no certificate"), "{said}");
        let (request, certificate) = (device.word("node.csr"), device.word("node.pem"));
        device.ends(0, &["csr", label, "--force", "--out", &request]);
        let mut issue = program("openssl");
        issue
            .args(["x509", "-req", "-days", "9", "-in", &request, "-CA"])
            .arg(&ca);
        issue.arg("-CAkey").arg(ca.with_file_name("ca.key"));
        run(issue.args(["-out", &certificate])).ok();
        let chain = fs::read_to_string(&certificate).unwrap() + &fs::read_to_string(&ca).unwrap();
        fs::write(&certificate, chain).unwrap();
        device.ends(0, &["import-cert", &certificate]);
        let told = device
            .ends(0, &["export", label, "--spire", &folder])
            .text();
        for setting in ["devid_cert_path", "devid_priv_path", "devid_pub_path"] {
            assert!(
                told.contains(&format!("{setting} = \"{folder}/devid.")),
                "{told}"
            );
        }
        let read =
            |name: &str| fs::read(device.path(&format!("spire-{label}")).join(name)).unwrap();
        let bundle = device.attest(&[label, "--nonce", "01"]);
        assert_eq!(
            read("devid.pub"),
            bundle.bytes("key/public"),
            "TPMT_PUBLIC, without a size"
        );
        let pem = String::from_utf8(read("devid.crt.pem")).unwrap();
        assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
        // The older part of go-tpm puts sizes in front, and loads below a new parent.
        let sized = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        fs::write(device.path("key.pub"), sized(read("devid.pub"))).unwrap();
        fs::write(device.path("key.priv"), sized(read("devid.priv"))).unwrap();
        let kind = if label == "node-rsa" {
            "rsa2048"
        } else {
            "ecc"
        };
        let root = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
        device.tpm2(
            "tpm2_createprimary",
            &["-C", "o", "-G", kind, "-a", root, "-c", "root.ctx"],
        );
        let load = [
            "-C", "root.ctx", "-u", "key.pub", "-r", "key.priv", "-c", "key.ctx",
        ];
        device.tpm2("tpm2_load", &load);
        device.tpm2("tpm2_flushcontext", &["-t"]);
    }
}

#[test]
fn a_key_that_spire_cannot_use_is_refused_with_the_reason() {
    let device = Device::with_factory(&[], &[]);
    device.generate("web", &[]);
    let folder = device.word("spire");
    for (label, why) in [("web", "in a handle"), ("idev-id", "policy")] {
        device.refuses(
            6,
            &["export", label, "--spire", &folder],
            &[why, "--parent srk"],
        );
    }
    assert!(!device.path("spire").exists());
    device.refuses(
        2,
        &[
            "key",
            "generate",
            "x",
            "--parent",
            "srk",
            "--scheme",
            "rsassa-sha256",
        ],
        &["RSA"],
    );
    device.refuses(
        2,
        &["key", "generate", "x", "--scheme", "ecdsa-sha256"],
        &["--parent"],
    );
    // Every program that loads such a key would need the owner's value.
    device.tpm2("tpm2_changeauth", &["-c", "owner", "secret"]);
    device.home.write("owner", "secret");
    let settings = format!("[master]\nowner_auth = \"file:{}\"\n", device.word("owner"));
    device.home.write("config.toml", settings);
    device.refuses(
        1,
        &["key", "generate", "node", "--parent", "srk"],
        &["owner"],
    );
}

#[test]
fn keylime_gets_its_settings_and_certificates() {
    let device = Device::with_factory(&["--template", "h3"], &["--template", "h3"]);
    let folder = device.word("keylime");
    let told = device
        .ends(0, &["show", "idev-id", "--keylime", "--out", &folder])
        .text();
    for line in [
        "enable_iak_idevid = true",
        "iak_idevid_template = \"H-3\"",
        "idevid_handle = \"0x81020000\"",
        "iak_handle = \"0x81020001\"",
        &format!("idevid_cert = \"{folder}/idevid-cert.crt\""),
        &format!("iak_cert = \"{folder}/iak-cert.crt\""),
    ] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    for (file, handle) in [
        ("idevid-cert.crt", "0x81020000"),
        ("iak-cert.crt", "0x81020001"),
    ] {
        device.tpm2(
            "tpm2_readpublic",
            &["-c", handle, "-f", "pem", "-o", "key.pem"],
        );
        let mut shown = program("openssl");
        shown
            .args(["x509", "-noout", "-pubkey", "-in"])
            .arg(device.path("keylime").join(file));
        let shown = run(&mut shown).ok().out;
        assert_eq!(shown, fs::read(device.path("key.pem")).unwrap(), "{file}");
    }
    let json: Value = serde_json::from_slice(
        &device
            .ends(0, &["show", "idev-id", "--keylime", "--json"])
            .out,
    )
    .unwrap();
    assert!(json["usage"].is_array());
    device.generate("web", &[]);
    device.refuses(6, &["show", "web", "--keylime"], &["factory"]);
}
