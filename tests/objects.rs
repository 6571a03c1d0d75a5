//! C_CreateObject, C_SetAttributeValue and C_DestroyObject on the token of the device's own keys:
//! what is written is there at once, for this process and for the next search of any other.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::home::Home;
use common::module::{library, ulong};
use common::openssl::{Verifier, certificate_der, certificate_says};
use common::own::{NO, Own, P256, YES, ec_public, folder};
use common::programs::{Said, output, program, run};
use common::proxy::Proxy;
use common::raw::{Code, Item};
use common::story::Link;
use common::tpm::Swtpm;
use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};

over_both_links!(
    pkcs11_tool_brings_a_key_and_its_certificate,
    p11tool_brings_a_key
);
over_our_link!(
    certificates_say_what_they_say,
    a_private_key_that_is_brought,
    data_and_public_keys,
    attributes_change_all_or_none,
    what_others_do_is_seen_at_the_next_search,
    a_pair_goes_half_by_half,
    a_folder_that_cannot_be_written,
    listing_costs_no_command,
);

struct Bench {
    _tpm: Swtpm,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let tpm = Swtpm::blank();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            _tpm: tpm,
            proxy,
            home,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// A key pair of OpenSSL's and a certificate for it: `NAME.key`, `NAME.pub`, `NAME.pem`.
    fn outside(&self, name: &str, algorithm: &[&str]) {
        let key = self.file(&format!("{name}.key"));
        let (public, certificate) = (key.with_extension("pub"), key.with_extension("pem"));
        let openssl = |arguments: &[&str], files: &[(&str, &Path)]| {
            let mut command = program("openssl");
            command.args(arguments);
            for (option, file) in files {
                command.arg(option).arg(file);
            }
            run(&mut command).ok();
        };
        openssl(&[&["genpkey"], algorithm].concat(), &[("-out", &key)]);
        openssl(&["pkey", "-pubout"], &[("-in", &key), ("-out", &public)]);
        let subject = format!("/CN={name}");
        let request = ["req", "-x509", "-new", "-days", "30", "-subj", &subject];
        openssl(&request, &[("-key", &key), ("-out", &certificate)]);
    }

    /// A file of OpenSSL's as DER.
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

    fn program(&self, name: &str, option: &str, arguments: &[&str]) -> Said {
        let mut command = program(name);
        command.arg(option).arg(library()).args(arguments);
        run(self.home.settle(&mut command))
    }

    #[track_caller]
    fn pkcs11_tool(&self, arguments: &[&str]) -> Said {
        let arguments = [&["--token-label", "devid"], arguments].concat();
        self.program("pkcs11-tool", "--module", &arguments).ok()
    }
}

const P256_KEY: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA_KEY: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn data(label: &str) -> Vec<Item> {
    vec![
        (CKA_CLASS, ulong(CKO_DATA)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_LABEL, label.into()),
        (CKA_APPLICATION, b"a test".to_vec()),
        (CKA_OBJECT_ID, vec![0x06, 0x03, 0x55, 0x04, 0x03]),
        (CKA_VALUE, vec![0, 1, 2, 255]),
    ]
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
    // Nothing of the private half lies there in clear.
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

fn data_and_public_keys(link: Link) {
    let bench = Bench::new(link);
    bench.outside("other", &P256_KEY);
    let own = Own::new(&bench.home);
    let object = own.create(&data("some")).unwrap();
    for (kind, value) in data("some") {
        assert_eq!(own.attribute(object, kind), value, "{kind:#x}");
    }
    let mut size: CK_ULONG = 0;
    let asked = call!(
        own.raw.table,
        C_GetObjectSize(own.session, object, &raw mut size)
    );
    assert_eq!(asked, Code(CKR_OK));
    assert!((20..4000).contains(&size), "{size}");
    let mut copy = 0;
    let null = std::ptr::null_mut();
    let copied = call!(
        own.raw.table,
        C_CopyObject(own.session, object, null, 0, &raw mut copy)
    );
    assert_eq!(copied, Code(CKR_ACTION_PROHIBITED));

    let public = [
        &ec_public(&bench.file("other.pub"))[..],
        &[(CKA_TOKEN, YES.to_vec())],
    ]
    .concat();
    let public = own.create(&public).unwrap();
    assert_eq!(own.attribute(public, CKA_LOCAL), NO);
    assert_eq!(own.attribute(public, CKA_VERIFY), YES);
    assert_eq!(
        bench.proxy.book().take().of(0x153),
        0,
        "no key is made for these"
    );
    assert_eq!(folder(&bench.home).len(), 2);
    for object in [object, public] {
        assert_eq!(own.destroy(object), Ok(()));
        assert_eq!(own.destroy(object), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    }
    assert_eq!(folder(&bench.home).len(), 0);
}

fn attributes_change_all_or_none(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, key) = own.pair("before");
    let template: [Item; 5] = [
        (CKA_LABEL, b"after".to_vec()),
        (CKA_ID, b"\x01".to_vec()),
        (CKA_SUBJECT, b"\x30\x00".to_vec()),
        (CKA_END_DATE, b"20991231".to_vec()),
        (CKA_SENSITIVE, YES.to_vec()),
    ];
    own.change(key, &template).unwrap();
    for (kind, value) in &template {
        assert_eq!(own.attribute(key, *kind), *value);
    }
    assert_eq!(own.attribute(public, CKA_LABEL), b"before");
    assert_eq!(own.labelled("after"), [key]);
    // Uses are given up and not had again.
    own.change(key, &[(CKA_SIGN, YES.to_vec())]).unwrap();
    own.change(key, &[(CKA_SIGN, NO.to_vec())]).unwrap();
    let refused = own.sign(CKM_ECDSA_SHA256, key, b"data");
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));

    let files: Vec<_> = folder(&bench.home)
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    for (item, code) in [
        ((CKA_SIGN, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_SENSITIVE, NO.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_EXTRACTABLE, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_TOKEN, NO.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_CLASS, ulong(CKO_DATA)), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_LOCAL, NO.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_UNIQUE_ID, b"x".to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_EC_PARAMS, P256.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_MODULUS, vec![1]), CKR_ATTRIBUTE_TYPE_INVALID),
        ((CKA_START_DATE, vec![1]), CKR_ATTRIBUTE_VALUE_INVALID),
        (
            (CKA_LABEL, b"two labels".to_vec()),
            CKR_TEMPLATE_INCONSISTENT,
        ),
    ] {
        let template = [(CKA_LABEL, b"half a change".to_vec()), item];
        assert_eq!(own.change(key, &template), Err(Code(code)));
        assert_eq!(own.attribute(key, CKA_LABEL), b"after");
    }
    let after: Vec<_> = folder(&bench.home)
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    assert_eq!(after, files);

    // The same holds for objects of a session.
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let (public, key) = own.generate(CKM_EC_KEY_PAIR_GEN, &curve, &[]).unwrap();
    own.change(key, &[(CKA_LABEL, b"brief".to_vec())]).unwrap();
    assert_eq!(own.labelled("brief"), [key]);
    let refused = own.change(
        public,
        &[(CKA_LABEL, b"x".to_vec()), (CKA_LOCAL, NO.to_vec())],
    );
    assert_eq!(refused, Err(Code(CKR_ATTRIBUTE_READ_ONLY)));
    assert_eq!(own.attribute(public, CKA_LABEL), b"");
}

fn what_others_do_is_seen_at_the_next_search(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, key) = own.pair("first");
    let reader = own.raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let sees = |label: &str| own.raw.find(reader, &[(CKA_LABEL, label.into())]).unwrap();
    for n in 0..5 {
        let label = format!("other-{n}");
        let made = [
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            &label,
            "--id",
        ];
        let id = format!("0{n}");
        bench.pkcs11_tool(&[&made[..], &[&id]].concat());
        let found = sees(&label);
        assert_eq!(found.len(), 2);
        assert_eq!(sees("first"), [key, public].as_slice(), "handles stay");
        bench.pkcs11_tool(&["--delete-object", "--type", "privkey", "--label", &label]);
        assert_eq!(sees(&label).len(), 1);
        let gone = found.iter().filter(|one| {
            let asked = own.raw.attribute(reader, **one, CKA_LABEL);
            asked == Err(Code(CKR_OBJECT_HANDLE_INVALID))
        });
        assert_eq!(gone.count(), 1);
    }
    // What somebody else has destroyed is gone when we come to it.
    let object = own.create(&data("theirs")).unwrap();
    for file in folder(&bench.home) {
        if fs::read_to_string(&file).unwrap().contains("theirs") {
            fs::remove_file(file).unwrap();
        }
    }
    let late = own.change(object, &[(CKA_LABEL, b"mine".to_vec())]);
    assert_eq!(late, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    assert_eq!(own.destroy(object), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    assert_eq!(sees("theirs"), []);
}

fn a_pair_goes_half_by_half(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, key) = own.pair("one");
    assert_eq!(own.destroy(public), Ok(()));
    assert_eq!(own.labelled("one"), [key]);
    assert!(own.sign(CKM_ECDSA, key, &[1; 32]).is_ok());
    assert_eq!(own.destroy(key), Ok(()));
    assert_eq!(folder(&bench.home).len(), 0);
    let (public, key) = own.pair("two");
    assert_eq!(own.destroy(key), Ok(()));
    assert_eq!(own.labelled("two").len(), 1);
    let gone = own.raw.attribute(own.session, key, CKA_LABEL);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    for public in own.labelled("two") {
        assert_eq!(own.destroy(public), Ok(()));
    }
    assert!(own.raw.attribute(own.session, public, CKA_LABEL).is_err());
    assert_eq!(folder(&bench.home).len(), 0);
}

/// A full disk, a folder that is none: nothing is half done, and the code tells.
fn a_folder_that_cannot_be_written(link: Link) {
    let bench = Bench::new(link);
    bench
        .home
        .write("state/devid", b"a file where the folder is to be");
    let raw = common::module::loaded(&bench.home);
    raw.initialize().unwrap();
    let tokens = raw.slots(true).unwrap();
    assert_eq!(tokens, [], "neither an identity nor a folder");
    bench.home.log_says(&["devid"]);
}

fn listing_costs_no_command(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for n in 0..20 {
        own.pair(&format!("key-{n}"));
    }
    bench.proxy.book().take();
    own.raw.finalize().unwrap();
    own.raw.initialize().unwrap();
    let session = own.raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let keys = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
    assert_eq!(own.raw.find(session, &keys).unwrap().len(), 20);
    assert_eq!(bench.proxy.book().take().total(), 0);
}
