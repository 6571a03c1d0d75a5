//! Certificates and keys of ML-DSA (FIPS 204, RFC 9881), made by OpenSSL 3.5. Certificates are
//! shown completely, keys are reported with their algorithm, and other objects are unaffected.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::home::Home;
use testkit::module::{tool, ulong};
use testkit::openssl::certificate_der;
use testkit::own::{Own, YES, without_tpm};
use testkit::programs::{Said, run};

once!(an_ml_dsa_certificate_is_shown_and_hinders_nothing);

/// A certificate for an ML-DSA-65 key, signed by ML-DSA-87.
fn certificate() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.join("core/testdata/chains/ml-dsa-device.leaf.pem")
}

fn devid(home: &Home, words: &[&str]) -> Said {
    run(home.settle(Command::new(tool()).args(words)))
}

fn an_ml_dsa_certificate_is_shown_and_hinders_nothing() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (_, private) = own.pair("first");
    let shown = own.find(&[]);
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs/keys/ml-dsa-65.pem");
    let beside = home.path("files/quantum.pem");
    fs::copy(key, &beside).unwrap();
    fs::set_permissions(&beside, PermissionsExt::from_mode(0o600)).unwrap();
    let der = certificate_der(&certificate());
    let made = own
        .create(&[
            (CKA_CLASS, ulong(CKO_CERTIFICATE)),
            (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
            (CKA_TOKEN, YES.to_vec()),
            (CKA_LABEL, b"quantum".to_vec()),
            (CKA_VALUE, der.clone()),
        ])
        .unwrap();
    assert_eq!(own.find(&[]).len(), shown.len() + 1, "{}", home.log());
    assert_eq!(own.attribute(made, CKA_VALUE), der);
    for part in [CKA_SUBJECT, CKA_ISSUER, CKA_PUBLIC_KEY_INFO] {
        let value = own.attribute(made, part);
        assert!(
            value.len() > 40 && testkit::memory::contains(&der, &value),
            "{part:#x}"
        );
    }
    let info = own.attribute(made, CKA_PUBLIC_KEY_INFO);
    assert!(info.len() > 1952, "an ML-DSA-65 key has 1952 bytes");
    let judge = own.verifier(&home, private);
    own.raw
        .sign_init(own.session, CKM_ECDSA_SHA256, private)
        .unwrap();
    let signature = own.raw.sign(own.session, b"data").unwrap();
    judge.accepts_message("-sha256", b"data", &signature).ok();
    let said = devid(&home, &["show", "quantum"]).ok().text();
    assert!(
        said.contains("certified key ML-DSA-65") && said.contains("signed by     ML-DSA-87"),
        "{said}"
    );
    let json = devid(&home, &["show", "quantum", "--json"]).ok().text();
    assert!(
        json.contains("\"signature_algorithm\": \"ML-DSA-87\""),
        "{json}"
    );
    assert!(
        home.log().contains("a private key for ML-DSA-65"),
        "{}",
        home.log()
    );
}
