//! Unusual and misleading certificates in a certification path, made by OpenSSL.

use crate::device::{Device, programs};
use std::fs;

/// A device with a request for its own key, and OpenSSL for its CAs.
struct Factory(Device);

impl Factory {
    fn new() -> Factory {
        let device = Device::blank();
        let request = device.path("devid.csr");
        device.ends(0, &["provision", "--csr", request.to_str().unwrap()]);
        let factory = Factory(device);
        let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
        factory.0.home.write("ca.ext", ca);
        let usage = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n";
        factory.0.home.write("leaf.ext", usage);
        factory
    }

    /// `openssl WORDS…` in the device's folder.
    fn openssl(&self, words: &str) {
        let mut command = programs::program("openssl");
        command.args(words.split(' ')).current_dir(self.0.path(""));
        programs::run(&mut command).ok();
    }
}

#[test]
fn cas_that_certify_each_other_end_the_search() {
    const EACH: usize = 8;
    let factory = Factory::new();
    for name in ["a", "b"] {
        factory.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key \
             -subj /CN={name} -out {name}.csr"
        ));
    }
    let mut chain = String::new();
    let certify = |request: &str, by: &str, extensions: &str| {
        factory.openssl(&format!(
            "req -x509 -new -key {by}.key -subj /CN={by} -days 30 -out issuer.pem"
        ));
        factory.openssl(&format!(
            "x509 -req -in {request}.csr -CA issuer.pem -CAkey {by}.key -CAcreateserial -days 30 \
             -extfile {extensions} -out made.pem"
        ));
        fs::read_to_string(factory.0.path("made.pem")).unwrap()
    };
    chain += &certify("devid", "a", "leaf.ext");
    for _ in 0..EACH {
        chain += &certify("a", "b", "ca.ext");
        chain += &certify("b", "a", "ca.ext");
    }
    let chain = factory.0.home.write("chain.pem", chain);
    factory.0.ends(0, &["import-cert", chain.to_str().unwrap()]);
    let said = factory.0.devid(&["verify", "devid"]);
    assert!(matches!(said.status.code(), Some(1 | 3)), "{said}");
}

#[test]
fn pss_with_the_longest_salt_is_known() {
    let factory = Factory::new();
    factory.openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout pss.key -subj /CN=pss -days 30 -out pss.pem \
         -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max",
    );
    factory.openssl(
        "x509 -req -in devid.csr -CA pss.pem -CAkey pss.key -CAcreateserial -days 30 \
         -extfile leaf.ext -out leaf.pem -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max",
    );
    let (leaf, ca) = (factory.0.path("leaf.pem"), factory.0.path("pss.pem"));
    factory.0.ends(0, &["import-cert", leaf.to_str().unwrap()]);
    let verify = ["verify", "devid", "--ca", ca.to_str().unwrap()];
    let json = factory.0.json(&verify);
    let points = json["points"].as_array().unwrap();
    let chain = points.iter().find(|point| point["name"] == "chain");
    assert_eq!(chain.unwrap()["outcome"], "passed", "{json}");
}
