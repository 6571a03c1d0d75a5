//! Sealed keys and keys in files, which the module uses in memory. They sign, and their attributes
//! show how they are stored.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use testkit::budgets::commands::{OPENING_OF_A_KEY, SALT_KEY};
use testkit::budgets::is_exactly;
use testkit::devid::{IN_FILE, PROTECTION, SEALED};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl;
use testkit::own::{NO, Own, P256, P384, P521, YES, folder, slot_of, without_tpm};
use testkit::programs::{program, run};
use testkit::proxy::Proxy;
use testkit::raw::{Code, Item};
use testkit::tpm::Swtpm;

over_our_transport!(
    a_sealed_key_signs_in_memory,
    a_sealed_key_of_another_tpm,
    a_sealed_key_costs_commands_once,
    what_a_sealed_key_says,
    a_file_key_needs_no_tpm,
    a_file_key_that_others_may_read,
    a_file_key_where_none_is_allowed,
    openssl_makes_a_file_key,
);

fn made(own: &Own, curve: &[u8], protection: CK_ULONG) -> Result<(CK_ULONG, CK_ULONG), Code> {
    let both: [Item; 2] = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, b"soft".to_vec())];
    let public = [&both[..], &[(CKA_EC_PARAMS, curve.to_vec())]].concat();
    let private = [&both[..], &[(PROTECTION, ulong(protection))]].concat();
    own.generate(CKM_EC_KEY_PAIR_GEN, &public, &private)
}

#[track_caller]
fn signs(own: &Own, home: &Home, (public, private): (CK_ULONG, CK_ULONG)) {
    let verifier = own.verifier(home, public);
    for name in ["-sha1", "-sha256", "-sha384", "-sha512"] {
        let digest = openssl::digest(name, b"hello");
        let signature = own.sign(CKM_ECDSA, private, &digest).expect("C_Sign");
        verifier.accepts_digest(&digest, &signature).ok();
    }
}

fn a_sealed_key_signs_in_memory(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    for curve in [&P256[..], &P384, &P521] {
        let own = Own::new(&home);
        let pair = made(&own, curve, SEALED).expect("C_GenerateKeyPair");
        signs(&own, &home, pair);
        own.raw.finalize().unwrap();
        let own = Own::new(&home);
        let find = |class| own.find(&[(CKA_CLASS, ulong(class))])[0];
        signs(&own, &home, (find(CKO_PUBLIC_KEY), find(CKO_PRIVATE_KEY)));
        for object in own.labelled("soft") {
            own.destroy(object).unwrap();
        }
        own.raw.finalize().unwrap();
    }
    assert_eq!(tpm.transients(), 0);
}

fn a_sealed_key_costs_commands_once(link: Link) {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let own = Own::new(&home);
    let (_, private) = made(&own, &P256, SEALED).unwrap();
    proxy.book().take();
    for _ in 0..100 {
        own.sign(CKM_ECDSA, private, &[7; 32]).unwrap();
    }
    let book = proxy.book().take();
    let opening = [SALT_KEY, OPENING_OF_A_KEY].concat();
    is_exactly("all signatures", &book, &opening);
}

fn what_a_sealed_key_says(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    let (_, private) = made(&own, &P256, SEALED).unwrap();
    for (kind, expected) in [
        (PROTECTION, ulong(SEALED)),
        (CKA_SENSITIVE, YES.to_vec()),
        (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
        (CKA_EXTRACTABLE, NO.to_vec()),
        (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
        (CKA_LOCAL, YES.to_vec()),
    ] {
        assert_eq!(own.attribute(private, kind), expected, "{kind:#x}");
    }
    let value = own.raw.attribute(own.session, private, CKA_VALUE);
    assert_eq!(value, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
    let files = folder(&home);
    let file = files
        .iter()
        .find(|file| file.extension().is_some_and(|it| it == "pem"));
    let text = fs::read_to_string(file.unwrap()).unwrap();
    assert!(!text.contains("BEGIN PRIVATE KEY"), "{text}");
    for label in ["TSS2 PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY"] {
        assert!(text.contains(&format!("BEGIN {label}-")), "{text}");
    }
}

fn a_sealed_key_of_another_tpm(link: Link) {
    let (tpm, other) = (Swtpm::blank(), Swtpm::blank());
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    made(&own, &P256, SEALED).unwrap();
    own.raw.finalize().unwrap();
    home.write(
        "config.toml",
        format!("tcti = \"{}\"\n", link.tcti(&other.tcti())),
    );
    // SAFETY: no other thread of this process reads the environment now.
    unsafe { std::env::remove_var("DEVID_PKCS11_TCTI") };
    own.raw.initialize().unwrap();
    let session = own
        .raw
        .open(slot_of(&own.raw, "devid"), CKF_SERIAL_SESSION)
        .unwrap();
    let key = own
        .raw
        .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
        .unwrap()[0];
    own.raw.sign_init(session, CKM_ECDSA, key).unwrap();
    assert_eq!(
        own.raw.sign(session, &[7; 32]),
        Err(Code(CKR_TOKEN_NOT_RECOGNIZED))
    );
}

fn a_file_key_needs_no_tpm(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let pair = own.pair("soft");
    assert_eq!(own.attribute(pair.1, PROTECTION), ulong(IN_FILE));
    assert_eq!(own.attribute(pair.1, CKA_ALWAYS_SENSITIVE), NO);
    signs(&own, &home, pair);
    let written = fs::read_dir(home.path("files")).unwrap().flatten();
    for file in written.filter(|file| file.path().extension().is_some_and(|it| it == "pem")) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let refused = made(&own, &P256, SEALED);
    assert_eq!(refused, Err(Code(CKR_DEVICE_REMOVED)), "no TPM to seal it");
}

fn a_file_key_that_others_may_read(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("soft");
    let written = fs::read_dir(home.path("files")).unwrap().flatten();
    for file in written.filter(|file| file.path().extension().is_some_and(|it| it == "pem")) {
        fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).unwrap();
    }
    assert_eq!(own.labelled("soft"), []);
    home.log_says(&["private key", "chmod 600"]);
}

fn a_file_key_where_none_is_allowed(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    assert_eq!(
        made(&own, &P256, IN_FILE),
        Err(Code(CKR_TEMPLATE_INCONSISTENT))
    );
    home.log_says(&["allow_file_keys"]);
    assert_eq!(own.labelled("soft"), []);
}

/// A key file of OpenSSL is put into the folder, and signs.
fn openssl_makes_a_file_key(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first"); // so that there is a folder
    let file = home.path("files/server.pem");
    let mut make = program("openssl");
    make.args([
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
    ]);
    run(make.arg(&file)).ok();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let find = |class| own.find(&[(CKA_CLASS, ulong(class)), (CKA_LABEL, b"server".to_vec())])[0];
    signs(&own, &home, (find(CKO_PUBLIC_KEY), find(CKO_PRIVATE_KEY)));
}
