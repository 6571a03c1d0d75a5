//! The results of scripts/factory, checked without the module. For each template the TPM has the
//! key that the TCG describes. OpenSSL verifies signatures of the key with the certificate in NV.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::programs::{Said, program, run};
use testkit::tpm::Swtpm;

once!(
    each_template_signs_for_its_certificate,
    attestation_keys_are_restricted,
    each_unique_is_another_key,
    a_key_without_a_handle_is_derived_again,
    certificates_come_in_each_form,
    identities_share_a_tpm,
    a_certificate_for_another_key_lies_beside,
    a_key_has_its_authorisation_value,
    rsa_4096_is_refused_with_a_reason,
);

/// A TPM and a factory that works on it.
struct Device {
    tpm: Swtpm,
    out: PathBuf,
}

impl Device {
    fn new() -> Device {
        let tpm = Swtpm::blank();
        let out = tpm.state().with_file_name("out");
        Device { tpm, out }
    }

    fn factory(&self, options: &[&str]) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/factory");
        let mut factory = Command::new(script);
        factory
            .args(["--tcti", &self.tpm.tcti(), "--out"])
            .arg(&self.out);
        run(factory.args(options))
    }

    fn made(options: &[&str]) -> Device {
        let device = Device::new();
        device.factory(options).ok();
        device
    }

    fn file(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> Said {
        run(self.tpm.tool(name).current_dir(&self.out).args(arguments))
    }

    /// The certificate in NV.
    fn nv(&self, index: &str) -> Vec<u8> {
        self.tool("tpm2_nvread", &["-C", "o", index]).ok().out
    }

    /// True if the key signs and OpenSSL verifies the signature with the certificate NAME.pem.
    fn signs(&self, name: &str, key: &str, auth: &str, hash: &str, scheme: &str) -> bool {
        fs::write(self.file("message"), b"message").unwrap();
        let to = ["-f", "plain", "-o", "signature", "message"];
        let how = ["-c", key, "-p", auth, "-g", hash, "-s", scheme];
        if !self
            .tool("tpm2_sign", &[&how[..], &to[..]].concat())
            .status
            .success()
        {
            return false;
        }
        let certificate = self.file(&format!("{name}.pem"));
        let mut public = program("openssl");
        public
            .args(["x509", "-pubkey", "-noout", "-in"])
            .arg(certificate);
        fs::write(self.file("public"), run(&mut public).ok().out).unwrap();
        let mut verify = program("openssl");
        verify
            .current_dir(&self.out)
            .args(["dgst", &format!("-{hash}")]);
        if scheme == "rsapss" {
            verify.args([
                "-sigopt",
                "rsa_padding_mode:pss",
                "-sigopt",
                "rsa_pss_saltlen:auto",
            ]);
        }
        verify.args(["-verify", "public", "-signature", "signature", "message"]);
        run(&mut verify).status.success()
    }

    /// The output of tpm2_readpublic for a key.
    fn public(&self, key: &str) -> String {
        self.tool("tpm2_readpublic", &["-c", key]).ok().text()
    }

    fn public_key(&self, name: &str) -> String {
        fs::read_to_string(self.file(&format!("{name}-pub.pem"))).unwrap()
    }
}

fn der(pem: &Path) -> Vec<u8> {
    let mut convert = program("openssl");
    run(convert.args(["x509", "-outform", "DER", "-in"]).arg(pem))
        .ok()
        .out
}

const IDEVID: &str = "0x81020000";
const IAK: &str = "0x81020001";

fn each_template_signs_for_its_certificate() {
    for (template, scheme, hash, sign_with) in [
        ("h1", "null", "sha256", "rsassa"),
        ("h1", "rsassa", "sha256", "rsassa"),
        ("h1", "rsapss", "sha256", "rsapss"),
        ("h2", "null", "sha256", "ecdsa"),
        ("h2", "ecdsa", "sha256", "ecdsa"),
        ("h3", "ecdsa", "sha384", "ecdsa"),
        ("h4", "ecdsa", "sha512", "ecdsa"),
        ("rsa3072", "null", "sha384", "rsassa"),
    ] {
        let device = Device::made(&["--template", template, "--scheme", scheme]);
        assert!(
            device.signs("idev-id", IDEVID, "", hash, sign_with),
            "{template} {scheme}"
        );
        assert_eq!(
            device.nv("0x01C90200"),
            der(&device.file("idev-id.pem")),
            "{template}"
        );
        let public = device.public(IDEVID);
        assert!(public.contains("raw: 0x400f2"), "{public}");
        assert!(
            public.contains(&format!("value: {hash}")),
            "nameAlg: {public}"
        );
    }
}

fn attestation_keys_are_restricted() {
    for (template, scheme) in [("h1", "rsapss"), ("h1", "rsassa"), ("h2", "ecdsa")] {
        let device = Device::made(&["--iak", "--template", template, "--scheme", scheme]);
        assert!(
            device.signs("iak", IAK, "", "sha256", scheme),
            "{template} {scheme}"
        );
        assert!(device.public(IAK).contains("raw: 0x500f2"));
        assert_eq!(device.nv("0x01C90100"), der(&device.file("iak.pem")));
    }
}

fn each_unique_is_another_key() {
    let device = Device::new();
    let mut keys = HashSet::new();
    for unique in ["both", "x", "split", "none"] {
        let options = [
            "--unique",
            unique,
            "--name",
            unique,
            "--no-cert",
            "--no-persist",
        ];
        device.factory(&options).ok();
        keys.insert(device.public_key(unique));
    }
    assert_eq!(keys.len(), 4);
}

fn a_key_without_a_handle_is_derived_again() {
    let device = Device::made(&["--no-persist"]);
    assert_eq!(
        device
            .tool("tpm2_getcap", &["handles-persistent"])
            .ok()
            .text(),
        ""
    );
    assert_eq!(device.nv("0x01C90200"), der(&device.file("idev-id.pem")));
    device.factory(&["--no-cert", "--name", "again"]).ok();
    assert_eq!(device.public_key("again"), device.public_key("idev-id"));

    let lost = Device::made(&["--no-key"]);
    lost.factory(&["--no-cert", "--name", "again"]).ok();
    assert_ne!(lost.public_key("again"), lost.public_key("idev-id"));
}

fn certificates_come_in_each_form() {
    let in_nv = |options: &[&str]| {
        let device = Device::made(options);
        let pem = device.file("idev-id.pem");
        (device.nv("0x01C90200"), der(&pem), fs::read(&pem).unwrap())
    };
    let (nv, _, pem) = in_nv(&["--form", "pem"]);
    assert_eq!(nv, pem);
    let (nv, der, _) = in_nv(&["--padding", "1300", "--pad-byte", "ff"]);
    assert_eq!(nv, [der, vec![0xff; 1300]].concat());
    let (nv, der, _) = in_nv(&["--padding", "7"]);
    assert_eq!(nv, [der, vec![0; 7]].concat());
    let (nv, der, _) = in_nv(&["--padding", "-20"]);
    assert_eq!(nv, der[..der.len() - 20]);
    let locked = Device::made(&["--nv-auth", "secret"]);
    let read = |auth| {
        locked.tool(
            "tpm2_nvread",
            &["-C", "0x01C90200", "-P", auth, "0x01C90200"],
        )
    };
    assert!(!read("").status.success() && read("secret").status.success());
}

fn identities_share_a_tpm() {
    let device = Device::made(&[]);
    let places = ["--handle", "0x81020002", "--nv", "0x01C90000"];
    device
        .factory(&[&["--template", "h1", "--name", "rsa"], &places[..]].concat())
        .ok();
    device.factory(&["--iak"]).ok();
    assert!(device.signs("idev-id", IDEVID, "", "sha256", "ecdsa"));
    assert!(device.signs("rsa", "0x81020002", "", "sha256", "rsassa"));
    assert!(device.signs("iak", IAK, "", "sha256", "ecdsa"));
    let mut verify = program("openssl");
    verify
        .current_dir(&device.out)
        .args(["verify", "-CAfile", "root.pem"]);
    verify.args(["-untrusted", "ca.pem", "idev-id.pem", "rsa.pem", "iak.pem"]);
    run(&mut verify).ok();
    assert_eq!(device.nv("0x01C90201"), der(&device.file("ca.pem")));
}

fn a_certificate_for_another_key_lies_beside() {
    let device = Device::made(&["--wrong-key", "0x01C90000"]);
    assert_eq!(
        device.nv("0x01C90000"),
        der(&device.file("idev-id-wrong.pem"))
    );
    assert!(device.signs("idev-id", IDEVID, "", "sha256", "ecdsa"));
    assert!(!device.signs("idev-id-wrong", IDEVID, "", "sha256", "ecdsa"));
}

fn a_key_has_its_authorisation_value() {
    let device = Device::made(&["--auth", "secret"]);
    assert!(device.signs("idev-id", IDEVID, "secret", "sha256", "ecdsa"));
    assert!(!device.signs("idev-id", IDEVID, "", "sha256", "ecdsa"));
    device
        .factory(&["--no-cert", "--no-persist", "--name", "open"])
        .ok();
    assert_eq!(device.public_key("open"), device.public_key("idev-id"));
}

fn rsa_4096_is_refused_with_a_reason() {
    let refused = Device::new().factory(&["--template", "rsa4096"]);
    assert!(!refused.status.success());
    assert!(
        refused.err.contains("does not support RSA-4096 (0x2C4)"),
        "{refused}"
    );
}
