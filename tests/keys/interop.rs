//! Key files of other programs in the key folder, and the project's key files in other programs.

use cryptoki_sys::*;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use testkit::der::{body, elements};
use testkit::devid::{Bench, Kind, Own, SRK};
use testkit::home::Home;
use testkit::link::Link;
use testkit::openssl::element;
use testkit::programs::{program, run, run_with};
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_our_transport!(
    keys_of_tpm2_openssl_sign,
    keys_of_tpm2_tools_sign,
    a_key_of_ours_serves_tpm2_openssl,
    a_policy_is_told_and_the_key_refused,
    line_ends_and_booleans_of_others_are_read,
    a_key_with_a_password_is_tried_once,
    a_damaged_file_costs_one_object,
);

/// A folder that has been written to, so that it is there; and the SRK.
fn begun(link: Link) -> (Bench, Own) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "of ours").unwrap();
    (bench, own)
}

/// Drops a file into the folder as an administrator does: it is there at once.
fn drop_in(bench: &Bench, name: &str, file: impl AsRef<[u8]>) {
    let path = bench.folder().join(name);
    fs::write(&path, file).unwrap();
}

/// OpenSSL with the provider of tpm2-openssl, straight at the TPM.
fn tpm2_openssl(tpm: &Swtpm, arguments: &[&str]) -> Command {
    let mut openssl = program("openssl");
    openssl.arg(arguments[0]);
    openssl.args(["-provider", "tpm2", "-provider", "default"]);
    openssl.args(["-propquery", "?provider=tpm2"]);
    openssl.args(&arguments[1..]);
    openssl.env("TPM2OPENSSL_TCTI", tpm.tcti());
    openssl.env("TSS2_LOG", "all+none");
    openssl
}

/// A key that `openssl genpkey` made in the TPM.
fn genpkey(bench: &Bench, name: &str, options: &[&str]) -> Vec<u8> {
    let file = bench.home.path(name);
    let mut make = tpm2_openssl(&bench.tpm, &["genpkey"]);
    make.args(options).arg("-out").arg(&file);
    run(&mut make).ok();
    fs::read(file).unwrap()
}

const EC: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "group:P-256"];
const RSA: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "bits:2048"];

fn keys_of_tpm2_openssl_sign(link: Link) {
    let (bench, own) = begun(link);
    let before = own.keys();
    let below_srk = ["-pkeyopt", "parent:0x81000001"];
    for (stem, options) in [
        ("ec-owner", EC.to_vec()),
        ("rsa-owner", RSA.to_vec()),
        ("ec-srk", [&EC[..], &below_srk].concat()),
        ("rsa-srk", [&RSA[..], &below_srk].concat()),
    ] {
        let file = genpkey(&bench, stem, &options);
        assert!(file.starts_with(b"-----BEGIN TSS2 PRIVATE KEY-----"));
        drop_in(&bench, &format!("{stem}.pem"), file);
        let key = own.key_called(stem);
        own.signs(key);
        assert_eq!(own.attribute(key, CKA_TOKEN), [CK_TRUE]);
        assert_eq!(own.attribute(key, CKA_EXTRACTABLE), [CK_FALSE]);
    }
    assert_eq!(own.keys().len(), before.len() + 4);
    let own = own.anew();
    own.signs(own.key_called("rsa-owner"));
    // They are the token's now.
    own.destroy(own.key_called("ec-srk")).unwrap();
    assert_eq!(own.keys().len(), before.len() + 3);
    assert_eq!(bench.tpm.transients(), 0);
}

/// tpm2_create and tpm2_encodeobject, which says of each key that its authorisation value is not
/// empty.
fn keys_of_tpm2_tools_sign(link: Link) {
    let (bench, own) = begun(link);
    for kind in ["ecc256", "rsa2048"] {
        let stem = format!("tools-{kind}");
        let file = encoded(&bench, kind, "0x81000001");
        drop_in(&bench, &format!("{stem}.pem"), file);
        own.signs(own.key_called(&stem));
    }
    assert_eq!(bench.tpm.transients(), 0);
}

fn encoded(bench: &Bench, kind: &str, parent: &str) -> Vec<u8> {
    let [public, private, pem] =
        ["key.pub", "key.priv", "key.pem"].map(|name| bench.home.path(name));
    let files = |tool: &mut Command| {
        let both = ["-u".into(), public.clone(), "-r".into(), private.clone()];
        run(tool.args(["-C", parent]).args::<[PathBuf; 4], _>(both)).ok();
    };
    files(bench.tpm.tool("tpm2_create").args(["-Q", "-G", kind]));
    run(bench.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
    fs::remove_file(&pem).ok();
    files(bench.tpm.tool("tpm2_encodeobject").arg("-o").arg(&pem));
    run(bench.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
    fs::read(pem).unwrap()
}

fn a_key_of_ours_serves_tpm2_openssl(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "ec").unwrap();
    own.make(Kind::Rsa(2048), "rsa").unwrap();
    own.make_persistent(Kind::P384, "kept").unwrap();
    for name in ["ec", "rsa", "kept"] {
        let file = file_of(&bench, name);
        let path = file.to_str().unwrap();
        let (data, signature) = (
            bench.home.write("data", "data"),
            bench.home.path("signature"),
        );
        let mut sign = tpm2_openssl(&bench.tpm, &["dgst", "-sha256", "-sign", path, "-out"]);
        run(sign.arg(&signature).arg(data)).ok();
        let judge = own.judge(own.key_called(name));
        judge
            .accepts_der(b"data", &fs::read(&signature).unwrap())
            .ok();
        let request = ["req", "-new", "-subj", "/CN=ours", "-key", path];
        let request = run(&mut tpm2_openssl(&bench.tpm, &request)).ok();
        let verified = run_with(
            program("openssl").args(["req", "-verify", "-noout"]),
            &request.out,
        );
        assert!(verified.all().contains("verify OK"), "{verified}");
        own.signs(own.key_called(name));
    }
}

/// The file of the object with this label.
fn file_of(bench: &Bench, name: &str) -> PathBuf {
    let files = fs::read_dir(bench.folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let label = format!("Label: {name}\n");
    let has_label =
        |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(&label));
    let mut found = files.filter(has_label);
    found.next().expect("a file with this label")
}

/// The DER in a PEM file.
fn der_of(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(pem.to_vec()).unwrap();
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"));
    let base64: Vec<_> = lines
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .collect();
    let decoded = run_with(
        program("openssl").args(["base64", "-d", "-A"]),
        base64.concat().as_bytes(),
    );
    decoded.ok().out
}

fn pem_of(der: &[u8]) -> String {
    let encoded = run_with(program("openssl").arg("base64"), der).ok().text();
    format!("-----BEGIN TSS2 PRIVATE KEY-----\n{encoded}-----END TSS2 PRIVATE KEY-----\n")
}

/// A key file with another member after `type` and `emptyAuth`.
fn with_member(pem: &[u8], member: &[u8]) -> String {
    let der = der_of(pem);
    let mut members = elements(body(&der));
    members.insert(2, member);
    pem_of(&element(0x30, &members.concat()))
}

fn a_policy_is_told_and_the_key_refused(link: Link) {
    let (bench, own) = begun(link);
    let file = encoded(&bench, "ecc256", "0x81000001");
    // PolicyPCR (TPM_CC 0x17F) with some parameter, as the draft's section 3.1 has it.
    let code = element(0xA0, &element(2, &[0x01, 0x7F]));
    let parameter = element(0xA1, &element(4, &[0; 10]));
    let command = element(0x30, &[code, parameter].concat());
    let policy = element(0xA1, &element(0x30, &command));
    drop_in(&bench, "bound.pem", with_member(&file, &policy));
    let key = own.key_called("bound");
    assert_eq!(own.attribute(key, CKA_KEY_TYPE), CKK_EC.to_ne_bytes());
    let refused = own.sign_data(key, b"data");
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
    bench.home.log_says(&["\"bound\"", "policy"]);
    // Without the policy the key signs. An empty policy counts as no policy.
    let empty = element(0xA1, &element(0x30, &[]));
    drop_in(&bench, "free.pem", with_member(&file, &empty));
    own.signs(own.key_called("free"));
    own.signs(own.key_called("of ours"));
}

/// The file does not tell whether the key has a password: tpm2_encodeobject says so for each key.
fn a_key_with_a_password_is_tried_once(link: Link) {
    let (bench, own) = begun(link);
    let options = [&EC[..], &["-pkeyopt", "user-auth:secret"]].concat();
    drop_in(&bench, "locked.pem", genpkey(&bench, "locked", &options));
    for _ in 0..5 {
        let refused = own.sign_data(own.key_called("locked"), b"data");
        assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    }
    assert!(bench.tpm.lockout_counter() <= 1);
    bench.home.log_says(&["authorisation"]);
    own.signs(own.key_called("of ours"));
}

fn line_ends_and_booleans_of_others_are_read(link: Link) {
    let (bench, own) = begun(link);
    let file = String::from_utf8(genpkey(&bench, "key", &EC)).unwrap();
    let text = file.replace('\n', "\r\n");
    drop_in(
        &bench,
        "of-windows.pem",
        format!("Made elsewhere\r\n{text}"),
    );
    own.signs(own.key_called("of-windows"));
    let flagged = |value: Option<u8>| {
        let der = der_of(file.as_bytes());
        let mut members: Vec<Vec<u8>> = elements(body(&der))
            .into_iter()
            .map(<[u8]>::to_vec)
            .collect();
        assert_eq!(members[1][..4], [0xA0, 3, 1, 1], "emptyAuth");
        match value {
            Some(value) => members[1] = element(0xA0, &element(1, &[value])),
            None => drop(members.remove(1)),
        }
        pem_of(&element(0x30, &members.concat()))
    };
    for (stem, value) in [
        ("false", Some(0)),
        ("one", Some(1)),
        ("true", Some(0xFF)),
        ("none", None),
    ] {
        drop_in(&bench, &format!("{stem}.pem"), flagged(value));
        own.signs(own.key_called(stem));
    }
    // A changed file stays readable for its author.
    own.change(
        own.key_called("of-windows"),
        &[(CKA_LABEL, b"renamed".to_vec())],
    )
    .unwrap();
    own.signs(own.key_called("renamed"));
    let path = bench.folder().join("of-windows.pem");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("Made elsewhere")
    );
    let (data, path) = (
        bench.home.write("data", "data"),
        path.to_str().unwrap().to_owned(),
    );
    let mut sign = tpm2_openssl(&bench.tpm, &["dgst", "-sha256", "-sign", &path]);
    run(sign.arg(data)).ok();
}

fn a_damaged_file_costs_one_object(link: Link) {
    let (bench, own) = begun(link);
    let good = genpkey(
        &bench,
        "key",
        &[&EC[..], &["-pkeyopt", "parent:0x81000001"]].concat(),
    );
    let mut bent = der_of(&good);
    let last = bent.len() - 1;
    bent[last] ^= 1;
    for (name, file) in [
        ("empty", Vec::new()),
        ("half", good[..good.len() / 2].to_vec()),
        ("noise", vec![0xFF; 1000]),
        ("huge", vec![b'x'; 70_000]),
        ("short", pem_of(&der_of(&good)[..100]).into_bytes()),
        ("good", good.clone()),
        ("bent", pem_of(&bent).into_bytes()),
    ] {
        drop_in(&bench, &format!("{name}.pem"), file);
    }
    let labels = own.labels(CKO_PRIVATE_KEY);
    assert_eq!(labels, ["bent", "good", "of ours"]);
    own.signs(own.key_called("good"));
    own.signs(own.key_called("of ours"));
    // Only the TPM can tell.
    assert!(own.sign_data(own.key_called("bent"), b"data").is_err());
    own.signs(own.key_called("good"));
    for name in ["empty", "half", "noise", "huge", "short"] {
        bench
            .home
            .log_says(&[&format!("\"{name}.pem\""), "holds no valid object"]);
        assert!(
            bench.folder().join(format!("{name}.pem")).exists(),
            "never deleted"
        );
    }
    let home: &Home = &bench.home;
    let said = home.log();
    own.find(&[]);
    own.find(&[]);
    let again = home.log()[said.len()..]
        .matches("holds no valid object")
        .count();
    assert_eq!(again, 0, "said once");
    assert!(testkit::devid::persistent(&bench.tpm).contains(&SRK));
}
