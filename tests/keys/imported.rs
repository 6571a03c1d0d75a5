//! The import of keys and certificates into the token of the device's own keys.

use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::devid::Bench;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl::{Verifier, certificate_der, certificate_says};
use testkit::own::{NO, Own, P256, P256_KEY, RSA_KEY, YES, ec_public, folder, outside};
use testkit::programs::{output, program, run};
use testkit::raw::{Code, Item};

over_our_transport!(
    pkcs11_tool_brings_a_key_and_its_certificate,
    p11tool_brings_a_key,
    certificates_say_what_they_say,
    a_private_key_that_is_brought,
);

/// The steps of these stories on a [`Bench`].
trait Steps {
    fn file(&self, name: &str) -> PathBuf;
    /// A file of OpenSSL's as DER.
    fn der(&self, name: &str, options: &[&str]) -> PathBuf;
    fn outside(&self, name: &str, algorithm: &[&str]);
}

impl Steps for Bench {
    fn file(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    fn der(&self, name: &str, options: &[&str]) -> PathBuf {
        let (from, to) = (self.file(name), self.file(&format!("{name}.der")));
        let mut command = program("openssl");
        command
            .args(options)
            .args(["-outform", "DER", "-in"])
            .arg(from);
        run(command.arg("-out").arg(&to)).ok();
        to
    }

    fn outside(&self, name: &str, algorithm: &[&str]) {
        outside(&self.home, name, algorithm);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn pkcs11_tool_brings_a_key_and_its_certificate(link: Link) {
    let bench = Bench::new(link);
    for (name, kind, id, mechanism) in [
        ("ec", P256_KEY, "01", "ECDSA-SHA256"),
        ("rsa", RSA_KEY, "02", "SHA256-RSA-PKCS"),
    ] {
        bench.outside(name, &kind);
        let key = bench.der(&format!("{name}.key"), &["pkey"]);
        let certificate = bench.der(&format!("{name}.pem"), &["x509"]);
        let public = bench.der(&format!("{name}.pub"), &["pkey", "-pubin", "-pubout"]);
        for (kind, file) in [("privkey", key), ("cert", certificate), ("pubkey", public)] {
            let named = ["--id", id, "--label", name];
            let write = ["--write-object", text(&file), "--type", kind];
            bench.pkcs11_tool(&[&write[..], &named].concat());
        }
        let (data, signature) = (bench.home.write("data", b"data"), bench.file("signature"));
        let sign = ["--sign", "--signature-format", "openssl", "-m", mechanism];
        let what = ["--id", id, "-i", text(&data), "-o", text(&signature)];
        bench.pkcs11_tool(&[&sign[..], &what].concat());
        let made = fs::read(&signature).unwrap();
        let verifier = Verifier::new(&bench.file(&format!("{name}.pub")));
        verifier.accepts_der("-sha256", b"data", &made).ok();
    }
    // No file holds the private half in clear.
    let scalar = output(
        "openssl",
        [
            "pkey",
            "-noout",
            "-text",
            "-in",
            text(&bench.file("ec.key")),
        ],
    );
    let scalar = String::from_utf8(scalar).unwrap();
    let scalar: String = scalar.lines().skip(2).take(3).collect();
    let scalar: String = scalar.chars().filter(char::is_ascii_hexdigit).collect();
    for file in folder(&bench.home) {
        let text = fs::read_to_string(&file).unwrap().to_lowercase();
        assert!(!text.contains(&scalar[2..40]), "{}", file.display());
        assert!(!text.contains("begin private key"));
    }
    let said = bench.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", "01"]);
    assert!(!said.all().contains("error"), "{said}");
    let left = bench.pkcs11_tool(&["-O", "--type", "privkey"]).text();
    assert_eq!(left.matches("Private Key Object").count(), 1, "{left}");
}

fn p11tool_brings_a_key(link: Link) {
    let bench = Bench::new(link);
    bench.outside("ec", &P256_KEY);
    for (option, file) in [
        ("--load-privkey", "ec.key"),
        ("--load-certificate", "ec.pem"),
    ] {
        let (file, url) = (bench.file(file), "pkcs11:token=devid");
        let write = [
            "--batch",
            "--write",
            option,
            text(&file),
            "--label",
            "gnu",
            url,
        ];
        bench.program("p11tool", "--provider", &write).ok();
    }
    let list = ["--batch", "--list-all", "pkcs11:token=devid"];
    let said = bench.program("p11tool", "--provider", &list).ok().text();
    assert_eq!(said.matches("Label: gnu").count(), 2, "{said}");
    let own = Own::new(&bench.home);
    let key = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])[0];
    let signature = own.sign(CKM_ECDSA_SHA256, key, b"data").unwrap();
    let verifier = Verifier::new(&bench.file("ec.pub"));
    verifier
        .accepts_message("-sha256", b"data", &signature)
        .ok();
}

fn certificates_say_what_they_say(link: Link) {
    let bench = Bench::new(link);
    bench.outside("one", &P256_KEY);
    bench.outside("two", &P256_KEY);
    let own = Own::new(&bench.home);
    let pem = bench.file("one.pem");
    let der = certificate_der(&pem);
    let base = vec![
        (CKA_CLASS, ulong(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_VALUE, der.clone()),
    ];
    let with = |more: &[Item]| [&base[..], more].concat();
    let plain = own.create(&base).unwrap();
    let subject = own.attribute(plain, CKA_SUBJECT);
    assert!(certificate_says(&pem, &["-subject"]).contains("one"));
    let repeated = with(&[
        (CKA_SUBJECT, subject.clone()),
        (CKA_ISSUER, own.attribute(plain, CKA_ISSUER)),
        (CKA_SERIAL_NUMBER, own.attribute(plain, CKA_SERIAL_NUMBER)),
        (CKA_CHECK_VALUE, own.attribute(plain, CKA_CHECK_VALUE)),
        (CKA_START_DATE, own.attribute(plain, CKA_START_DATE)),
        (
            CKA_PUBLIC_KEY_INFO,
            own.attribute(plain, CKA_PUBLIC_KEY_INFO),
        ),
        (CKA_URL, vec![]),
        (CKA_TRUSTED, NO.to_vec()),
        (CKA_ID, b"its own".to_vec()),
        (CKA_LABEL, b"named".to_vec()),
    ]);
    let named = own.create(&repeated).unwrap();
    assert_eq!(own.attribute(named, CKA_ID), b"its own");
    assert_eq!(own.attribute(named, CKA_VALUE), der);
    // CKA_ID of the other is that of the key.
    let key = own.create(&ec_public(&bench.file("one.pub"))).unwrap();
    assert_eq!(own.attribute(plain, CKA_ID), own.attribute(key, CKA_ID));

    let files = folder(&bench.home);
    let other = certificate_der(&bench.file("two.pem"));
    let value = |value: Vec<u8>| [&base[..3], &[(CKA_VALUE, value)]].concat();
    for (template, code) in [
        (
            value([&der[..], &[0]].concat()),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            value([der.clone(), other].concat()),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (value(der[1..].to_vec()), CKR_ATTRIBUTE_VALUE_INVALID),
        (value(fs::read(&pem).unwrap()), CKR_ATTRIBUTE_VALUE_INVALID),
        (base[..3].to_vec(), CKR_TEMPLATE_INCOMPLETE),
        (
            with(&[(CKA_SUBJECT, b"\x30\x00".to_vec())]),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            with(&[(CKA_TRUSTED, YES.to_vec())]),
            CKR_ATTRIBUTE_READ_ONLY,
        ),
        (
            with(&[(CKA_UNIQUE_ID, b"x".to_vec())]),
            CKR_ATTRIBUTE_READ_ONLY,
        ),
        (
            with(&[(CKA_CERTIFICATE_TYPE, ulong(CKC_WTLS))]),
            CKR_TEMPLATE_INCONSISTENT,
        ),
    ] {
        assert_eq!(own.create(&template), Err(Code(code)));
    }
    assert_eq!(folder(&bench.home), files);
    // The certificate's own is not to be changed.
    let change = own.change(named, &[(CKA_SUBJECT, subject)]);
    assert_eq!(change, Err(Code(CKR_ATTRIBUTE_READ_ONLY)));
    own.change(named, &[(CKA_ID, b"\x09".to_vec())]).unwrap();
    assert_eq!(own.attribute(named, CKA_ID), [9]);
}

fn a_private_key_that_is_brought(link: Link) {
    let bench = Bench::new(link);
    bench.outside("other", &P256_KEY);
    let own = Own::new(&bench.home);
    let said = output(
        "openssl",
        [
            "pkey",
            "-noout",
            "-text",
            "-in",
            text(&bench.file("other.key")),
        ],
    );
    let said = String::from_utf8(said).unwrap();
    let hex: String = said.lines().skip(2).take(3).collect();
    let bytes: Vec<u8> = hex
        .split(':')
        .map(|byte| u8::from_str_radix(byte.trim(), 16).unwrap())
        .collect();
    let template = |token: &[u8]| {
        vec![
            (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_EC)),
            (CKA_TOKEN, token.to_vec()),
            (CKA_EC_PARAMS, P256.to_vec()),
            (CKA_VALUE, bytes.clone()),
        ]
    };
    let verifier = Verifier::new(&bench.file("other.pub"));
    for token in [NO, YES] {
        let key = own.create(&template(token)).unwrap();
        assert_eq!(own.attribute(key, CKA_TOKEN), token);
        for (kind, value) in [
            (CKA_LOCAL, NO.to_vec()),
            (CKA_ALWAYS_SENSITIVE, NO.to_vec()),
            (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
            (CKA_SENSITIVE, YES.to_vec()),
            (CKA_EXTRACTABLE, NO.to_vec()),
            (CKA_KEY_GEN_MECHANISM, ulong(CK_UNAVAILABLE_INFORMATION)),
        ] {
            assert_eq!(own.attribute(key, kind), value, "{kind:#x}");
        }
        let secret = own.raw.attribute(own.session, key, CKA_VALUE);
        assert_eq!(secret, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
        let signature = own.sign(CKM_ECDSA_SHA256, key, b"data").unwrap();
        verifier
            .accepts_message("-sha256", b"data", &signature)
            .ok();
    }
    assert_eq!(folder(&bench.home).len(), 1);

    bench.outside("stranger", &P256_KEY);
    let point = ec_public(&bench.file("stranger.pub"))[3].clone();
    for (item, code) in [
        (point, CKR_TEMPLATE_INCONSISTENT),
        ((CKA_SENSITIVE, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_EXTRACTABLE, YES.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        (
            (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
            CKR_ATTRIBUTE_READ_ONLY,
        ),
    ] {
        let refused = own.create(&[&template(YES)[..], &[item]].concat());
        assert_eq!(refused, Err(Code(code)));
    }
    for (value, code) in [
        (vec![0; 32], CKR_TEMPLATE_INCONSISTENT),
        (vec![0xFF; 32], CKR_TEMPLATE_INCONSISTENT),
        (vec![1; 33], CKR_ATTRIBUTE_VALUE_INVALID),
    ] {
        let mut wrong = template(YES);
        wrong[4].1 = value;
        assert_eq!(own.create(&wrong), Err(Code(code)));
    }
    assert_eq!(folder(&bench.home).len(), 1);
}
