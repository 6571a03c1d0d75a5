//! TPMs that are not libtpms as Debian 12 ships it: wolfTPM's fwTPM (`scripts/test-fwtpm`). What the
//! TPM has works and is judged by OpenSSL; what it has not is not listed, and is refused.
//!
//! `DEVID_FWTPM_SERVER` names the server. Such a TPM has its own limits, so the stories ask it for
//! few keys at a time.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::ciphers::{mechanism, oaep};
use common::devid::{Inspection, Kind, Own, folder};
use common::factory::{self, Identity};
use common::home::Home;
use common::module::{Opened, tool, ulong};
use common::openssl::Verifier;
use common::own::YES;
use common::pins::{OFFICER, Token};
use common::ports::Pair;
use common::programs::{Running, Said, poll, run};
use common::raw::Code;
use common::signing::{HASHES, Message, Signer, Tried};
use common::wrapping::{KEYS, keys, openssl_wraps, private_key_info, rsa_aes, signs_as, wanted};
use cryptoki_sys::*;
use std::fs::{self, File};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

once!(
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_factory_identities,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_keys_of_the_device,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_pins,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_keys_that_come_in,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_an_identity_of_its_own,
);

/// A running fwTPM that was started up; it ends with this value.
struct Fwtpm {
    ports: Pair,
    folder: TempDir,
    _running: Running,
}

impl Fwtpm {
    fn new() -> Fwtpm {
        let server = std::env::var_os("DEVID_FWTPM_SERVER");
        let server = server.expect("DEVID_FWTPM_SERVER names wolfTPM's fwtpm_server");
        for _ in 0..5 {
            let (ports, folder) = (Pair::claim(), TempDir::new().expect("a temporary folder"));
            let log = File::create(folder.path().join("log")).expect("a log file");
            let mut command = Command::new(&server);
            command.args(["--port", &ports.first.to_string()]);
            command.args(["--platform-port", &(ports.first + 1).to_string()]);
            command.current_dir(folder.path());
            command.stdout(log.try_clone().expect("dup")).stderr(log);
            let mut running = Running::start("fwtpm_server", &mut command);
            let answered = poll(Duration::from_secs(60), || {
                match TcpStream::connect(("127.0.0.1", ports.first)) {
                    _ if !running.is_running() => Some(false),
                    answer => answer.is_ok().then_some(true),
                }
            });
            if answered == Some(true) {
                let fwtpm = Fwtpm {
                    ports,
                    folder,
                    _running: running,
                };
                run(fwtpm.tool("tpm2_startup").arg("-c")).ok();
                return fwtpm;
            } // else a stranger was faster
        }
        panic!("fwtpm_server did not start");
    }

    fn tcti(&self) -> String {
        format!("mssim:host=127.0.0.1,port={}", self.ports.first)
    }

    fn tool(&self, name: &str) -> Command {
        common::tpm::tool(name, &self.tcti())
    }

    /// Plays the device maker.
    fn manufacture(&self, options: &[&str]) -> Identity {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        factory::run(&self.tcti(), &self.folder.path().join("factory"), &options)
    }

    fn lists(&self, what: &str) -> String {
        run(self.tool("tpm2_getcap").arg(what)).ok().text()
    }
}

/// `devid` with these words.
fn devid(home: &Home, words: &[&str]) -> Said {
    let mut command = Command::new(tool());
    run(home.settle(command.args(words)))
}

/// Each mechanism that the slot lists signs, and OpenSSL accepts what it signed.
fn signs_by_what_is_listed(module: &Opened, key: CK_ULONG, judge: Verifier) -> Tried {
    let listed = module
        .raw
        .mechanisms(module.slot)
        .expect("C_GetMechanismList");
    let is_ec = module.raw.attribute(module.session, key, CKA_KEY_TYPE) == Ok(ulong(CKK_EC));
    let signs = |kind: &CK_MECHANISM_TYPE| {
        let info = module
            .raw
            .mechanism_info(module.slot, *kind)
            .expect("C_GetMechanismInfo");
        let ec = [
            CKM_ECDSA,
            CKM_ECDSA_SHA256,
            CKM_ECDSA_SHA384,
            CKM_ECDSA_SHA512,
        ]
        .contains(kind);
        info.flags & CKF_SIGN != 0 && ec == is_ec
    };
    let wanted: Vec<_> = listed.into_iter().filter(signs).collect();
    let message = Message::new();
    let hashes = HASHES
        .iter()
        .filter(|hash| wanted.contains(&hash.pkcs1))
        .collect();
    let signer = Signer {
        module,
        key,
        judge,
        message: &message,
        hashes,
    };
    let tried = signer.try_all(&wanted);
    assert_eq!(tried.faults, Vec::<String>::new());
    assert_eq!(tried.verified, tried.asked);
    tried
}

/// A P-256 and an RSA key, each with a certificate; SHA-1 and SHA-512 are not there.
fn fwtpm_factory_identities() {
    let tpm = Fwtpm::new();
    let second = [
        "--template",
        "h1",
        "--name",
        "rsa",
        "--handle",
        "0x81020002",
    ];
    let identities = [
        tpm.manufacture(&[]),
        tpm.manufacture(&[&second[..], &["--nv", "0x01C90210"]].concat()),
    ];
    let home = Home::new(&tpm.tcti());
    let module = Opened::new(&home);
    let private = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
    let found = module.raw.find(module.session, &private).expect("a search");
    let judge = |key: &CK_ULONG| {
        let is_ec = module.raw.attribute(module.session, *key, CKA_KEY_TYPE) == Ok(ulong(CKK_EC));
        Verifier::new(&identities[usize::from(!is_ec)].public_key())
    };
    assert_eq!(found.len(), identities.len(), "{}", home.log());
    for key in &found {
        assert!(signs_by_what_is_listed(&module, *key, judge(key)).verified > 0);
    }
    let listed = module
        .raw
        .mechanisms(module.slot)
        .expect("C_GetMechanismList");
    for absent in [
        CKM_SHA1_RSA_PKCS,
        CKM_SHA512_RSA_PKCS,
        CKM_SHA512_RSA_PKCS_PSS,
    ] {
        assert!(!listed.contains(&absent), "{absent:#x} is listed");
    }
}

fn fwtpm_keys_of_the_device() {
    let tpm = Fwtpm::new();
    let home = Home::new(&tpm.tcti());
    let own = Own::new(&home);
    for kind in [Kind::P256, Kind::P384, Kind::Rsa(2048)] {
        let name = format!("{kind:?}");
        let made = own
            .make(kind, &name)
            .unwrap_or_else(|code| panic!("{name}: {code:?}"));
        own.signs(made.private);
    }
    let absent = own.make(Kind::P521, "absent").expect_err("no P-521");
    assert_eq!(absent, Code(CKR_CURVE_NOT_SUPPORTED));
    let kept = own
        .make_persistent(Kind::P256, "kept")
        .expect("a key in a handle");
    own.signs(kept.private);
    let own = own.anew();
    for key in own.keys() {
        own.signs(key);
    }
    assert_eq!(own.keys().len(), 4);
    assert_eq!(tpm.lists("handles-transient"), "");
    own.destroy(own.key_called("kept"))
        .expect("C_DestroyObject");
    for key in own.keys() {
        own.destroy(key).expect("C_DestroyObject");
    }
    assert_eq!(own.keys(), []);
}

/// Its key for parameter encryption leaves out the value that the session proves, so that nobody could
/// log in: the token stays as it was.
fn fwtpm_pins() {
    let tpm = Fwtpm::new();
    let home = Home::new(&tpm.tcti());
    let Own(Opened { raw, slot, session }) = Own::new(&home);
    raw.close(session).expect("C_CloseSession");
    let token = Token { raw, slot };
    let flags = token.flags();
    let refused = token.init(OFFICER, "another label");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)), "{}", home.log());
    assert_eq!(token.flags(), flags);
    let seals = Inspection::of(&folder(&home));
    assert!(!seals.has(".officer.pem") && !seals.has(".user.pem"));
    let own = Own::with(token.raw, "devid");
    let made = own.make(Kind::P256, "after").expect("a key without PIN");
    own.signs(made.private);
    assert_eq!(tpm.lists("handles-transient"), "");
    assert_eq!(tpm.lists("handles-loaded-session"), "");
}

fn fwtpm_keys_that_come_in() {
    let tpm = Fwtpm::new();
    let home = Home::new(&tpm.tcti());
    let own = Own::new(&home);
    keys(&home);
    let (public, key) = own.unwrapping(&[]);
    for (name, _, key_type) in KEYS {
        let info = private_key_info(&home, name);
        let wrapped = openssl_wraps(&home, &own.pem(&home, public), (256, "sha256"), &info);
        let inner = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
        let parameter = rsa_aes(256, &inner);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        let more = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, name.into())];
        let made = own.unwrap(by, key, &wrapped, &wanted(key_type, &more));
        let made = made.unwrap_or_else(|code| panic!("{name}: {code:?}"));
        signs_as(&own, &home, made, name);
    }
    assert_eq!(tpm.lists("handles-transient"), "");
    assert_eq!(tpm.lists("handles-loaded-session"), "");
}

fn fwtpm_an_identity_of_its_own() {
    let tpm = Fwtpm::new();
    tpm.manufacture(&[]);
    let home = Home::new(&tpm.tcti());
    fs::create_dir(home.path("trust")).expect("a folder");
    devid(&home, &["provision"]).ok();
    let status = devid(&home, &["status", "--json"]).ok();
    assert!(status.text().contains("\"mode\": \"tpm\""), "{status}");
    devid(&home, &["provision"]).ok();
    devid(&home, &["key", "generate", "service"]).ok();
    devid(&home, &["reset", "--factory", "--yes"]).ok();
    devid(&home, &["doctor"]).ok();
    assert_eq!(tpm.lists("handles-transient"), "");
    let private = ["list", "--json"];
    assert!(
        devid(&home, &private).ok().text().contains("idev-id"),
        "the factory identity stays"
    );
}
