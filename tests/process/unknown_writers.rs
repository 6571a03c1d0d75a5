//! Files that other users may write, while a system call cannot show who may write them. They are
//! not trusted, neither then nor later in this process.

use cryptoki_sys::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::devid::{Bench, persistent};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{loaded, tool, ulong};
use testkit::own::slot_of;
use testkit::programs::run;
use testkit::raw::Raw;
use testkit::tpm::Swtpm;
use testkit::trouble::{ALL, Trouble, for_program};

troubled!(
    a_reset_that_somebody_else_asked_for,
    configuration_of_others,
    configuration_behind_a_link_of_others,
    a_chain_of_others,
    a_secret_of_others,
);

/// More than the calls of one kind that one look makes on one path.
const CALLS: i32 = 8;
const ERRORS: [i32; 2] = [libc::EIO, libc::EACCES];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn devid(home: &Home, words: &[&str]) -> Command {
    let mut command = Command::new(tool());
    home.settle(command.args(words).stdin(Stdio::null()));
    command
}

fn a_reset_that_somebody_else_asked_for() {
    let bench = Bench::new(Link::Ours);
    let home = &bench.home;
    let provision = &["provision", "--wait", "0"];
    run(&mut devid(home, provision)).ok();
    let handles = persistent(&bench.tpm);
    let state = home.path("state");
    // As who may write the folder does it: the file stays root's.
    mode(&state, 0o777);
    let request = state.join("factory-reset");
    fs::rename(state.join("tpm_in_use"), &request).unwrap();
    for path in [&state, &request] {
        for error in ERRORS {
            for (first, count) in (0..CALLS).map(|first| (first, 1)).chain([(0, ALL)]) {
                let mut command = devid(home, provision);
                for_program(&mut command, "stat", path, first, count, error);
                let said = run(&mut command);
                let what = format!("{}: {error}, {first} before: {said}", path.display());
                assert!(!said.status.success(), "{what}");
                assert_eq!(persistent(&bench.tpm), handles, "{what}");
                assert!(request.exists(), "{what}");
            }
        }
    }
}

/// True if there is a token, now and in a later scan of this process.
fn obeyed(raw: &Raw, call: &str, path: &Path, (first, error): (i32, i32)) -> bool {
    let trouble = Trouble::new(call, path, first, 1, error);
    raw.initialize().unwrap();
    let meanwhile = !raw.slots(true).unwrap().is_empty();
    trouble.over();
    let later = !raw.slots(true).unwrap().is_empty();
    raw.finalize().unwrap();
    meanwhile || later
}

fn bench() -> (Swtpm, Home, Raw) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    for folder in ["way/config.d", "way/chain"] {
        fs::create_dir_all(home.path(folder)).unwrap();
    }
    home.write("way/config.toml", "timeout_ms = 20000\n");
    home.write("way/config.d/more.toml", "random = \"kernel\"\n");
    let raw = loaded(&home);
    // SAFETY: nothing else reads the environment now.
    unsafe { std::env::set_var("DEVID_PKCS11_CONFIG", home.path("way/config.toml")) };
    (tpm, home, raw)
}

fn configuration_of_others() {
    let (_tpm, home, raw) = bench();
    let none = home.path("none");
    assert!(obeyed(&raw, "stat", &none, (0, libc::EIO)));
    for (file, sound) in [
        ("way/config.toml", 0o644),
        ("way/config.d", 0o755),
        ("way/config.d/more.toml", 0o644),
        ("way", 0o755),
    ] {
        let path = home.path(file);
        mode(&path, 0o777);
        for error in ERRORS {
            for first in 0..CALLS {
                let is = obeyed(&raw, "stat", &path, (first, error));
                assert!(!is, "{file}: {error}, {first} before");
            }
        }
        mode(&path, sound);
        for first in 0..CALLS {
            let trouble = Trouble::new("stat", &path, first, 1, libc::EIO);
            raw.initialize().unwrap();
            raw.slots(true).unwrap();
            trouble.over();
            let tokens = raw.slots(true).unwrap();
            assert!(!tokens.is_empty(), "{file}, {first} before");
            raw.finalize().unwrap();
        }
    }
}

fn configuration_behind_a_link_of_others() {
    let (_tpm, home, raw) = bench();
    let file = home.path("way/config.toml");
    fs::create_dir(home.path("open")).unwrap();
    fs::rename(&file, home.path("open/config.toml")).unwrap();
    mode(&home.path("open"), 0o777);
    symlink(home.path("open/config.toml"), &file).unwrap();
    for error in ERRORS {
        for first in 0..CALLS {
            let is = obeyed(&raw, "link", &file, (first, error));
            assert!(!is, "{error}, {first} before");
        }
    }
    // The folder that a relative path begins in.
    std::env::set_current_dir(home.path("open")).unwrap();
    // SAFETY: nothing else reads the environment now.
    unsafe { std::env::set_var("DEVID_PKCS11_CONFIG", "config.toml") };
    for error in [libc::EIO, libc::ENOENT] {
        for first in 0..CALLS {
            let is = obeyed(&raw, "cwd", &home.path("open"), (first, error));
            assert!(!is, "{error}, {first} before");
        }
    }
}

fn a_chain_of_others() {
    let (_tpm, home, raw) = bench();
    let file = home.path("way/chain/ca.pem");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/testdata/root.pem");
    let shown = || {
        let session = raw
            .open(slot_of(&raw, "idev-id"), CKF_SERIAL_SESSION)
            .unwrap();
        let found = raw.find(session, &[(CKA_CLASS, ulong(CKO_CERTIFICATE))]);
        raw.close(session).unwrap();
        found.unwrap().len()
    };
    let looked = || {
        raw.initialize().unwrap();
        let count = shown();
        raw.finalize().unwrap();
        count
    };
    let without = looked();
    home.write("way/chain/ca.pem", fs::read(root).unwrap());
    assert_eq!(looked(), without + 1);
    for path in [home.path("way/chain"), file] {
        mode(&path, 0o777);
        for error in ERRORS {
            for first in 0..CALLS {
                let what = format!("{}: {error}, {first} before", path.display());
                let trouble = Trouble::new("stat", &path, first, 1, error);
                raw.initialize().unwrap();
                assert_eq!(shown(), without, "{what}");
                trouble.over();
                assert_eq!(shown(), without, "{what}, later");
                raw.finalize().unwrap();
            }
        }
        mode(&path, 0o755);
    }
    assert_eq!(looked(), without + 1);
}

/// A wrong value counts in the TPM.
fn a_secret_of_others() {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--auth", "open sesame"]);
    let home = Home::new(&tpm.tcti());
    let secret = home.write("secret", "a guess");
    mode(&secret, 0o666);
    let auth = format!("auth = \"file:{}\"", secret.display());
    home.write(
        "config.toml",
        format!("[[identity]]\nhandle = 0x81020000\n{auth}\n"),
    );
    let raw = loaded(&home);
    for error in ERRORS {
        for first in 0..CALLS {
            let trouble = Trouble::new("stat", &secret, first, 1, error);
            raw.initialize().unwrap();
            let slot = slot_of(&raw, "idev-id");
            let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
            let keys = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
            if let Some(key) = keys.unwrap().first() {
                let begun = raw.sign_init(session, CKM_ECDSA, *key);
                assert!(begun.is_err() || raw.sign(session, &[1; 32]).is_err());
            }
            trouble.over();
            raw.finalize().unwrap();
            assert_eq!(tpm.lockout_counter(), 0, "{error}, {first} before");
        }
    }
}
