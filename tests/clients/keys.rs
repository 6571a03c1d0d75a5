//! Programs that make own keys in another way: Java's keytool, and OpenSSL's genpkey with
//! pkcs11-provider.

use cryptoki_sys::*;
use std::fs;
use testkit::devid::Bench;
use testkit::link::Link;
use testkit::module::{library, ulong};
use testkit::openssl::Verifier;
use testkit::own::{Own, folder};
use testkit::programs::{Said, program, run, run_with};
use testkit::tls::with_provider;

over_our_transport!(
    keytool_makes_keys,
    keytool_makes_keys_on_the_token,
    openssl_makes_keys
);

/// The steps of these stories on a [`Bench`].
trait Steps {
    /// keytool on the keystore that is the token.
    fn keytool(&self, arguments: &[&str]) -> Said;
}

impl Steps for Bench {
    #[track_caller]
    fn keytool(&self, arguments: &[&str]) -> Said {
        let mut command = program("keytool");
        command.args(arguments);
        command.args([
            "-keystore",
            "NONE",
            "-storetype",
            "PKCS11",
            "-storepass",
            "any",
        ]);
        command.args(["-providerClass", "sun.security.pkcs11.SunPKCS11"]);
        command.arg("-providerArg").arg(self.home.path("java.cfg"));
        run(self.home.settle(&mut command)).ok()
    }
}

/// By default Java makes a session key and copies it to the token (C_CopyObject). Its configuration
/// can make the key on the token.
fn keytool_makes_keys(link: Link) {
    let bench = Bench::new(link);
    keytool_makes_keys_by(&bench, "");
}

fn keytool_makes_keys_on_the_token(link: Link) {
    let bench = Bench::new(link);
    let on_token = "attributes(generate, CKO_PRIVATE_KEY, *) = {\n  CKA_TOKEN = true\n}\n";
    keytool_makes_keys_by(&bench, on_token);
}

fn keytool_makes_keys_by(bench: &Bench, attributes: &str) {
    let settings = format!(
        "name = devid\nlibrary = {}\nslot = 1\n{attributes}",
        library().display()
    );
    bench.home.write("java.cfg", settings);
    for (alias, kind) in [
        ("ec", ["-keyalg", "EC", "-groupname", "secp256r1"]),
        ("rsa", ["-keyalg", "RSA", "-keysize", "2048"]),
    ] {
        // Each key has its own subject: the -delete of JDK 21 leaves a certificate whose subject
        // occurs for another key.
        let subject = format!("CN={alias} made by Java");
        let named = ["-alias", alias, "-dname", &subject];
        bench.keytool(&[&["-genkeypair"], &kind[..], &named].concat());
        let request = bench.keytool(&["-certreq", "-alias", alias]).out;
        let mut verify = program("openssl");
        verify.args(["req", "-verify", "-noout"]);
        run_with(&mut verify, &request).ok();
    }
    let list = bench.keytool(&["-list"]).text();
    assert_eq!(list.matches("PrivateKeyEntry").count(), 2, "{list}");
    bench.keytool(&["-delete", "-alias", "rsa"]);
    let list = bench.keytool(&["-list"]).text();
    assert_eq!(list.matches("PrivateKeyEntry").count(), 1, "{list}");
    // The key and its certificate.
    assert_eq!(folder(&bench.home).len(), 2);
}

fn openssl_makes_keys(link: Link) {
    let bench = Bench::new(link);
    let data = bench.home.write("data", b"data");
    let own = Own::new(&bench.home);
    for (label, id, kind) in [
        ("ec", 0x21, ["EC", "ec_paramgen_curve:P-256"]),
        ("rsa", 0x22, ["RSA", "rsa_keygen_bits:2048"]),
    ] {
        let uri = format!("pkcs11_uri:pkcs11:token=devid;object={label};id=%{id:02X}");
        let mut generate = with_provider("openssl", &bench.home);
        generate.args(["genpkey", "-propquery", "provider=pkcs11", "-algorithm"]);
        generate.args([kind[0], "-pkeyopt", kind[1], "-pkeyopt", &uri]);
        // The test does not check that the provider can export the new key.
        run(&mut generate);
        let public = own.find(&[
            (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
            (CKA_LABEL, label.into()),
            (CKA_ID, vec![id]),
        ]);
        assert_eq!(public.len(), 1, "{label}");
        let (key, signature) = (
            format!("pkcs11:token=devid;object={label};type=private"),
            bench.home.path("signature"),
        );
        let mut sign = with_provider("openssl", &bench.home);
        sign.args(["dgst", "-sha256", "-sign", &key, "-out"]);
        run(sign.arg(&signature).arg(&data)).ok();
        let verifier: Verifier = own.verifier(&bench.home, public[0]);
        let made = fs::read(&signature).unwrap();
        verifier.accepts_der("-sha256", b"data", &made).ok();
    }
}
