//! Private keys in clear from other programs, in a token with `allow_file_keys`. Each readable
//! format signs. The error for each other file names its format.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use testkit::home::Home;
use testkit::own::{Own, P256_KEY, RSA_KEY, without_tpm};
use testkit::programs::{program, run};

once!(
    every_form_of_a_key_signs,
    what_openssl_writes_signs,
    what_is_none_of_them_is_named,
    a_renamed_key_stays_the_same_key,
);

/// A file of tests/inputs/keys.
fn input(name: &str) -> PathBuf {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs/keys");
    inputs.join(format!("{name}.pem"))
}

fn drop_in(home: &Home, stem: &str, file: impl AsRef<[u8]>) {
    let path = home.path(&format!("files/{stem}.pem"));
    fs::write(&path, file).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// The token `files`, with a key so that there is a folder.
fn begun() -> (Home, Own) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first");
    (home, own)
}

/// OpenSSL with these words writes a key.
fn openssl(home: &Home, words: &[&str]) -> Vec<u8> {
    let out = home.path("out.key");
    fs::remove_file(&out).ok();
    let mut make = program("openssl");
    make.arg(words[0]).arg("-out").arg(&out);
    run(make.args(&words[1..])).ok();
    fs::read(out).unwrap()
}

#[track_caller]
fn info_of(own: &Own, stem: &str) -> Vec<u8> {
    own.attribute(own.key_called(stem), CKA_PUBLIC_KEY_INFO)
}

fn every_form_of_a_key_signs() {
    let (home, own) = begun();
    for name in [
        "p8",
        "p8-bom",
        "p8-scalar-33-bytes",
        "sec1",
        "sec1-with-parameters",
    ] {
        drop_in(&home, name, fs::read(input(name)).unwrap());
        own.signs(own.key_called(name));
        assert_eq!(info_of(&own, name), info_of(&own, "p8"), "{name}");
        let text = fs::read_to_string(input(name)).unwrap();
        let stem = format!("{name}-crlf");
        drop_in(&home, &stem, text.replace('\n', "\r\n"));
        own.signs(own.key_called(&stem));
    }
    for name in ["pkcs1", "p8-rsa-without-null"] {
        drop_in(&home, name, fs::read(input(name)).unwrap());
        own.signs(own.key_called(name));
        assert_eq!(info_of(&own, name), info_of(&own, "pkcs1"), "{name}");
    }
}

/// Each curve and size in each form, by OpenSSL's own writers.
fn what_openssl_writes_signs() {
    let (home, own) = begun();
    for curve in ["P-256", "P-384", "P-521"] {
        let curve_is = format!("ec_paramgen_curve:{curve}");
        let p8 = openssl(
            &home,
            &["genpkey", "-algorithm", "EC", "-pkeyopt", &curve_is],
        );
        let key = home.write("made.key", &p8);
        let key = key.to_str().unwrap();
        drop_in(&home, &format!("{curve}-p8"), &p8);
        let forms = [
            ("sec1", &["ec", "-in", key][..]),
            (
                "compressed",
                &["ec", "-in", key, "-conv_form", "compressed"],
            ),
            ("no-public", &["ec", "-in", key, "-no_public"]),
            ("p8-no-public", &["pkey", "-in", key]),
        ];
        for (form, words) in forms {
            let stem = format!("{curve}-{form}");
            drop_in(&home, &stem, openssl(&home, words));
            own.signs(own.key_called(&stem));
            assert_eq!(info_of(&own, &stem), info_of(&own, &format!("{curve}-p8")));
        }
        let name = match curve {
            "P-256" => "prime256v1",
            "P-384" => "secp384r1",
            _ => "secp521r1",
        };
        let stem = format!("{curve}-ecparam");
        drop_in(
            &home,
            &stem,
            openssl(&home, &["ecparam", "-name", name, "-genkey"]),
        );
        own.signs(own.key_called(&stem));
    }
    for bits in ["2048", "3072"] {
        let stem = format!("rsa{bits}");
        drop_in(
            &home,
            &stem,
            openssl(&home, &["genrsa", "-traditional", bits]),
        );
        own.signs(own.key_called(&stem));
    }
}

fn what_is_none_of_them_is_named() {
    let (home, own) = begun();
    let labels = own.labels(CKO_PRIVATE_KEY);
    let genpkey = |words: &[&str]| openssl(&home, &[&["genpkey"], words].concat());
    let curve = |name: &str| {
        let named = format!("ec_paramgen_curve:{name}");
        genpkey(&["-algorithm", "EC", "-pkeyopt", &named])
    };
    let ec = genpkey(&P256_KEY);
    let key = home.write("made.key", &ec);
    let key = key.to_str().unwrap();
    let rsa = home.write("made.rsa", genpkey(&RSA_KEY));
    let rsa = rsa.to_str().unwrap();
    let dsa = home.path("dsa.parameters");
    let mut make = program("openssl");
    make.args(["dsaparam", "-out"]).arg(&dsa).arg("2048");
    run(&mut make).ok();
    let openssh = home.path("openssh");
    run(program("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-N", "", "-f"])
        .arg(&openssh))
    .ok();
    let secret = ["-passout", "pass:secret"];
    let encrypted = |words: &[&str]| openssl(&home, &[words, &secret].concat());
    let explicit = ["ec", "-in", key, "-param_enc", "explicit"];
    let explicit_p8 = ["pkey", "-in", key, "-ec_param_enc", "explicit"];
    for (stem, file, words) in [
        (
            "p8-encrypted",
            fs::read(input("p8-encrypted")).unwrap(),
            "is encrypted",
        ),
        (
            "sec1-encrypted",
            fs::read(input("sec1-encrypted")).unwrap(),
            "is encrypted",
        ),
        (
            "pkcs1-encrypted",
            encrypted(&["rsa", "-traditional", "-in", rsa, "-aes256"]),
            "is encrypted",
        ),
        (
            "p8-pbes1",
            encrypted(&["pkcs8", "-topk8", "-in", key, "-v1", "PBE-SHA1-3DES"]),
            "is encrypted",
        ),
        ("brainpool", curve("brainpoolP256r1"), "brainpoolP256r1"),
        ("bitcoin", curve("secp256k1"), "secp256k1"),
        ("p224", curve("P-224"), "P-224"),
        ("edwards", genpkey(&["-algorithm", "ED25519"]), "Ed25519"),
        ("edwards448", genpkey(&["-algorithm", "ED448"]), "Ed448"),
        ("montgomery", genpkey(&["-algorithm", "X25519"]), "X25519"),
        (
            "dsa",
            openssl(&home, &["gendsa", dsa.to_str().unwrap()]),
            "DSA",
        ),
        (
            "small",
            openssl(&home, &["genrsa", "1024"]),
            "an RSA key of 1024 bits",
        ),
        (
            "primes",
            openssl(&home, &["genrsa", "-traditional", "-primes", "3", "2048"]),
            "more than two primes",
        ),
        (
            "pss",
            genpkey(&["-algorithm", "RSA-PSS"]),
            "RSASSA-PSS only",
        ),
        ("openssh", fs::read(&openssh).unwrap(), "OpenSSH's own form"),
        ("explicit", openssl(&home, &explicit), "EC key"),
        (
            "explicit-p8",
            openssl(&home, &explicit_p8),
            "describes its curve",
        ),
        (
            "two",
            [
                fs::read(input("p8")).unwrap(),
                fs::read(input("sec1")).unwrap(),
            ]
            .concat(),
            "more than one PEM block",
        ),
    ] {
        drop_in(&home, stem, file);
        assert_eq!(own.labels(CKO_PRIVATE_KEY), labels, "{stem}");
        home.log_says(&[&format!("\"{stem}.pem\""), words]);
    }
    own.signs(own.key_called("first"));
}

/// A file that is written again holds a PrivateKeyInfo that OpenSSL reads.
fn a_renamed_key_stays_the_same_key() {
    let (home, own) = begun();
    for name in [
        "p8-bom",
        "p8-scalar-33-bytes",
        "sec1-with-parameters",
        "pkcs1",
        "p8-rsa-without-null",
    ] {
        drop_in(&home, name, fs::read(input(name)).unwrap());
        let info = info_of(&own, name);
        let renamed = format!("renamed {name}");
        own.change(own.key_called(name), &[(CKA_LABEL, renamed.clone().into())])
            .unwrap();
        own.signs(own.key_called(&renamed));
        assert_eq!(info_of(&own, &renamed), info, "{name}");
        let file = home.path(&format!("files/{name}.pem"));
        let mut read = program("openssl");
        run(read.args(["pkey", "-noout", "-check", "-in"]).arg(&file)).ok();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
