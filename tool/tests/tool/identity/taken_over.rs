//! `devid key import` imports keys that other programs made in this TPM. The PIN of the token then
//! protects the keys.

use crate::device::cut::{End, run_until};
use crate::device::programs::{self, program, run};
use crate::device::{Device, files, tpm2};
use std::fs;
use std::path::Path;

const PIN: &str = "open sesame";
const PASSWORD: &str = "the old value";

fn with_pin() -> Device {
    let device = Device::blank();
    device.set_configured_pins(PIN);
    device
}

/// A key that tpm2-openssl makes; below the storage root key in its handle, or below the one that the owner
/// hierarchy derives.
fn of_openssl(device: &mut Device, name: &str, options: &[&str]) -> String {
    let file = device.path(name);
    let mut make = program("openssl");
    make.args([
        "genpkey",
        "-provider",
        "tpm2",
        "-provider",
        "default",
        "-propquery",
        "?provider=tpm2",
    ]);
    make.args(options).arg("-out").arg(&file);
    make.env("TPM2OPENSSL_TCTI", device.tpm().tcti());
    make.env("TSS2_LOG", "all+none");
    run(&mut make).ok();
    file.to_str().unwrap().to_owned()
}

/// `devid sign --raw` by the key, and OpenSSL's judgement by the public key that it shows.
#[track_caller]
fn signs(device: &Device, label: &str) {
    let message = device.home.write("message", "hello");
    let signature = device.path("signature");
    let (message, signature) = (message.to_str().unwrap(), signature.to_str().unwrap());
    for old in ["signature", "request.pem"] {
        fs::remove_file(device.path(old)).ok();
    }
    device.ends(0, &["sign", label, message, "--raw", "--out", signature]);
    let request = device.path("request.pem");
    let request = request.to_str().unwrap();
    device.ends(0, &["csr", label, "--out", request]);
    let public = device.path("public.pem");
    let public = public.to_str().unwrap();
    run(program("openssl").args(["req", "-in", request, "-noout", "-pubkey", "-out", public])).ok();
    let verify = [
        "dgst",
        "-sha256",
        "-verify",
        public,
        "-signature",
        signature,
        message,
    ];
    run(program("openssl").args(verify)).ok();
}

#[test]
fn a_key_with_a_password_comes_under_the_pin() {
    let mut device = with_pin();
    let ec = ["-algorithm", "EC", "-pkeyopt", "group:P-256"];
    let rsa = ["-algorithm", "RSA", "-pkeyopt", "bits:2048"];
    let below = ["-pkeyopt", "parent:0x81000001"];
    let password = format!("user-auth:{PASSWORD}");
    let password = ["-pkeyopt", password.as_str()];
    let auth = device.home.write("auth", PASSWORD);
    let auth = auth.to_str().unwrap();
    for (name, kind, parent) in [
        ("ec-owner", &ec[..], &[][..]),
        ("ec-root", &ec, &below),
        ("rsa-root", &rsa, &below),
    ] {
        let file = of_openssl(&mut device, name, &[kind, parent, &password].concat());
        let before = fs::read(&file).unwrap();
        let taken = device.ends(0, &["key", "import", &file, "--auth-file", auth]);
        assert!(taken.text().contains("was imported"), "{taken}");
        signs(&device, name);
        assert_eq!(fs::read(&file).unwrap(), before, "the file is as it was");
        let again = device.ends(0, &["key", "import", &file, "--auth-file", auth]);
        assert!(again.text().contains("was already stored"), "{again}");
    }
    assert_eq!(files(&device, "key-").len(), 3);
    assert_eq!(device.tpm().lockout_counter(), 0);
    assert_eq!(device.tpm().transients(), 0);
    // Without the PIN nobody uses them.
    device.home.write("config.toml", "");
    let refused = device.devid(&["sign", "ec-root", auth, "--raw"]);
    assert!(refused.err.contains("PIN"), "{refused}");
}

#[test]
fn a_wrong_value_is_shown_once_and_nothing_is_kept() {
    let mut device = with_pin();
    make_key(&mut device, Some(PASSWORD));
    let wrong = device.home.write("wrong", "another value");
    let wrong = wrong.to_str().unwrap();
    let file = device.path("key.pem");
    let import = [
        "key",
        "import",
        file.to_str().unwrap(),
        "--auth-file",
        wrong,
    ];
    let said = device.ends(6, &import);
    assert!(said.err.contains("wrong"), "{said}");
    assert_eq!(device.tpm().lockout_counter(), 1, "{said}");
    // The empty value counts, too.
    device.ends(6, &import[..3]);
    assert_eq!(device.tpm().lockout_counter(), 2);
    // With one try left, neither the PIN nor the value is shown.
    for words in [&import[..], &import[..3]] {
        let said = device.devid(words);
        assert!(!said.status.success(), "{said}");
        assert_eq!(device.tpm().lockout_counter(), 2, "{said}");
    }
    assert!(files(&device, "key-").is_empty());
    assert_eq!(device.tpm().transients(), 0);
}

/// A key below the storage root key by tpm2-tools, in `key.pem`.
fn make_key(device: &mut Device, value: Option<&str>) {
    let value = value.map_or_else(Vec::new, |value| vec!["-p", value]);
    let halves = ["-u", "key.pub", "-r", "key.priv"];
    let below = ["-Q", "-C", "0x81000001"];
    tpm2(
        device,
        "tpm2_create",
        &[&below[..], &["-G", "ecc256"], &halves, &value].concat(),
    );
    tpm2(device, "tpm2_flushcontext", &["-t"]);
    fs::remove_file(device.path("key.pem")).ok();
    tpm2(
        device,
        "tpm2_encodeobject",
        &[&below[..], &halves, &["-o", "key.pem"]].concat(),
    );
    tpm2(device, "tpm2_flushcontext", &["-t"]);
}

#[test]
fn what_is_no_key_of_this_tpm_is_refused() {
    let mut device = with_pin();
    make_key(&mut device, None);
    let key = fs::read_to_string(device.path("key.pem")).unwrap();
    let other = {
        let mut other = with_pin();
        make_key(&mut other, None);
        fs::read_to_string(other.path("key.pem")).unwrap()
    };
    let public = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";
    for (text, code, word) in [
        (other.as_str(), 1, "another"),
        (&key[..key.len() / 2], 1, "PEM"),
        ("nothing", 1, "PEM"),
        (public, 6, "neither"),
        (&format!("Label: devid\n{key}"), 6, "another label"),
        (&format!("Label: idev-id\n{key}"), 6, "another label"),
        (&format!("Usage: fly\n{key}"), 1, "Usage"),
    ] {
        let file = device.home.write("file.pem", text);
        let said = device.devid(&["key", "import", file.to_str().unwrap()]);
        assert_eq!(said.status.code(), Some(code), "{text}: {said}");
        assert!(said.err.contains(word), "{word}: {said}");
    }
    let key = device.path("key.pem");
    let key = key.to_str().unwrap();
    let said = device.ends(6, &["key", "import", key, "--token", "nosuch"]);
    assert!(said.err.contains("no token has this name"), "{said}");
    assert!(files(&device, "key-").is_empty());
    device.ends(0, &["key", "import", key]);
    // The token has the key already, but for everybody.
    let open = Device::blank();
    let said = open.devid(&["key", "import", key]);
    assert_eq!(said.status.code(), Some(6), "{said}");
    assert!(said.err.contains("no user PIN"), "{said}");
}

/// Killed at each step: the folder has the key as a whole or not at all, and the next run ends the matter.
#[test]
fn killed_at_every_step() {
    for cut in 1.. {
        let mut device = with_pin();
        make_key(&mut device, None);
        let file = device.path("key.pem");
        let import = ["key", "import", file.to_str().unwrap()];
        let end = run_until(&mut device.command(&import), cut);
        for key in files(&device, "key-") {
            assert!(is_whole(&key), "cut {cut}");
        }
        device.ends(0, &import);
        let keys = files(&device, "key-");
        assert_eq!(keys.len(), 1, "cut {cut}: {keys:?}");
        assert!(files(&device, ".new-").is_empty(), "cut {cut}");
        if end == End::Exited(0) {
            assert!(cut > 2, "there are more steps than {cut}");
            signs(&device, "key");
            break;
        }
        assert_eq!(end, End::Cut);
    }
}

fn is_whole(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap();
    text.contains("\nAuth: ") && text.ends_with("-----END TSS2 PRIVATE KEY-----\n")
}

/// The seal of our own token stands for one of another program.
#[test]
fn sealed_data_are_opened_by_their_value() {
    let mut device = with_pin();
    let seal = device.path("state/devid/.user.pem");
    let digest = run(program("openssl")
        .args(["dgst", "-sha256", "-binary"])
        .arg(device.path("pin")))
    .ok();
    let shown = |device: &Device, value: &[u8]| {
        let mut open = device.command(&["key", "unseal"]);
        programs::run_with(open.arg(&seal).args(["--auth-file", "-"]), value)
    };
    assert_eq!(shown(&device, &digest.out).ok().out.len(), 32);
    let wrong = shown(&device, b"guess");
    assert_eq!(wrong.status.code(), Some(6), "{wrong}");
    assert!(
        wrong.out.is_empty() && wrong.err.contains("wrong"),
        "{wrong}"
    );
    assert_eq!(device.tpm().lockout_counter(), 1);
    make_key(&mut device, None);
    let key = device.path("key.pem");
    let said = device.ends(1, &["key", "unseal", key.to_str().unwrap()]);
    assert!(said.err.contains("not sealed data"), "{said}");
}
