//! Temporary errors: a file or folder cannot be read for some time. After that its objects appear
//! again at the next scan, in the same process. The log names the file and the error once.

use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{identity, loaded, ulong};
use testkit::own::{NO, Own, P256, YES, generate, slot_of, without_tpm};
use testkit::pins::{self, OFFICER, USER};
use testkit::raw::Raw;
use testkit::tpm::Swtpm;
use testkit::trouble::{ALL, ERRORS, Trouble};

troubled!(
    configuration_that_cannot_be_read,
    a_key_folder_at_the_first_look,
    a_key_folder_that_is_known,
    single_calls_that_fail,
    the_factorys_files_at_the_first_look,
    the_factorys_files_that_are_known,
    a_secret_that_cannot_be_read,
    seals_that_cannot_be_read,
    no_descriptor_is_left,
);

/// The handle of each private key and of each certificate, by label.
type Objects = Vec<(String, CK_OBJECT_HANDLE)>;

/// The objects of the token, as a new program would see them. `None`: no token.
fn shown(raw: &Raw, token: &str) -> Option<Objects> {
    // The token may appear between the two calls that a list takes.
    let slots = raw.slots(true).or_else(|_| raw.slots(true));
    let slots = slots.expect("C_GetSlotList");
    let mut all = slots.into_iter();
    let slot = all.find(|slot| {
        let info = raw.token_info(*slot);
        info.is_ok_and(|info| testkit::raw::text(&info.label) == token)
    })?;
    let session = raw.open(slot, CKF_SERIAL_SESSION).ok()?;
    let mut objects = Vec::new();
    for class in [CKO_PRIVATE_KEY, CKO_CERTIFICATE] {
        for object in raw.find(session, &[(CKA_CLASS, ulong(class))]).ok()? {
            let label = raw.attribute(session, object, CKA_LABEL).ok()?;
            objects.push((String::from_utf8(label).unwrap(), object));
        }
    }
    raw.close(session).unwrap();
    objects.sort();
    Some(objects)
}

fn labels(objects: Option<Objects>) -> Vec<String> {
    let all = objects.unwrap_or_default().into_iter();
    all.map(|(label, _)| label).collect()
}

/// How often the log says that this file cannot be read.
fn said(home: &Home, file: &Path, error: i32) -> usize {
    let why = std::io::Error::from_raw_os_error(error).to_string();
    let why = why.split(" (os").next().unwrap().to_owned();
    let file = file.display().to_string();
    let all = home.log();
    all.lines()
        .filter(|line| !line.contains(" DEBUG: ") && line.contains(&file) && line.contains(&why))
        .count()
}

fn forget_log(home: &Home) {
    fs::remove_file(home.path("log")).ok();
}

/// A persistent EINTR would be waited for, as it is only ever said of one call.
fn lasting(error: i32) -> i32 {
    if error == libc::EINTR { 1 } else { ALL }
}

/// A home with the token `files`, in which there is the key `first`.
fn with_a_key() -> (Home, PathBuf) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first");
    own.raw.finalize().unwrap();
    let folder = home.path("files");
    let key = fs::read_dir(&folder)
        .unwrap()
        .map(|one| one.unwrap().path());
    let key = key.filter(|path| path.extension().is_some_and(|end| end == "pem"));
    let key = key.collect::<Vec<_>>().remove(0);
    (home, key)
}

fn configuration_that_cannot_be_read() {
    let (home, _) = with_a_key();
    let settings = fs::read(home.path("config.toml")).unwrap();
    let drop_in = home.write("config.d/10-files.toml", settings);
    let main = home.write("config.toml", "timeout_ms = 1000\n");
    let raw = loaded(&home);
    let folder = home.path("config.d");
    for (file, calls) in [
        (&main, ["open", "stat", "read"]),
        (&drop_in, ["open", "stat", "read"]),
        (&folder, ["open", "list", "list"]),
    ] {
        for (call, error) in calls
            .iter()
            .flat_map(|call| ERRORS.map(|error| (call, error)))
        {
            let what = format!("{call} {}: {error}", file.display());
            forget_log(&home);
            let trouble = Trouble::new(call, file, 0, lasting(error), error);
            raw.initialize().unwrap();
            if error != libc::EINTR {
                for _ in 0..3 {
                    assert_eq!(shown(&raw, "files"), None, "{what}");
                    assert_eq!(raw.slots(false).unwrap(), [0], "{what}");
                }
            }
            assert!(trouble.over() > 0, "{what}");
            assert_eq!(labels(shown(&raw, "files")), ["first"], "{what}");
            let lines = said(&home, file, error);
            assert!(
                lines == 1 || error == libc::EINTR && lines == 0,
                "{what}: {lines} lines"
            );
            raw.finalize().unwrap();
        }
    }
    // A wrong file stays wrong.
    fs::write(&drop_in, "colour = 1\n").unwrap();
    raw.initialize().unwrap();
    fs::remove_file(&drop_in).unwrap();
    assert_eq!(raw.slots(false).unwrap(), [0]);
    raw.finalize().unwrap();
}

/// Each file of the key folder, and the calls that it is read by.
fn of_folder(home: &Home, key: &Path) -> Vec<(PathBuf, Vec<&'static str>)> {
    let folder = home.path("files");
    vec![
        (folder.clone(), vec!["open", "stat", "list"]),
        (key.to_owned(), vec!["open", "stat", "read"]),
        (folder.join(".serial"), vec!["open", "stat", "read"]),
        (folder.join(".officer.pem"), vec!["open", "stat"]),
    ]
}

fn a_key_folder_at_the_first_look() {
    let (home, key) = with_a_key();
    let raw = loaded(&home);
    for (file, calls) in of_folder(&home, &key) {
        for (call, error) in calls
            .iter()
            .flat_map(|call| ERRORS.map(|error| (call, error)))
        {
            let what = format!("{call} {}: {error}", file.display());
            forget_log(&home);
            raw.initialize().unwrap();
            let trouble = Trouble::new(call, &file, 0, lasting(error), error);
            for _ in 0..3 {
                let objects = labels(shown(&raw, "files"));
                assert!(objects.is_empty() || objects == ["first"], "{what}");
            }
            assert!(trouble.over() > 0, "{what}");
            assert_eq!(labels(shown(&raw, "files")), ["first"], "{what}");
            let lines = said(&home, &file, error);
            assert!(
                lines == 1 || error == libc::EINTR && lines == 0,
                "{what}: {lines} lines"
            );
            raw.finalize().unwrap();
        }
    }
}

/// Known objects stay, under their handles.
fn a_key_folder_that_is_known() {
    let (home, key) = with_a_key();
    let raw = loaded(&home);
    for (file, calls) in of_folder(&home, &key) {
        for (call, error) in calls
            .iter()
            .flat_map(|call| ERRORS.map(|error| (call, error)))
        {
            let what = format!("{call} {}: {error}", file.display());
            forget_log(&home);
            raw.initialize().unwrap();
            let known = shown(&raw, "files");
            assert_eq!(labels(known.clone()), ["first"]);
            let trouble = Trouble::new(call, &file, 0, lasting(error), error);
            for _ in 0..3 {
                assert_eq!(shown(&raw, "files"), known, "{what}");
            }
            trouble.over();
            // Somebody has written it anew, and then it could not be read.
            let content = fs::read(&key).unwrap();
            fs::write(&key, content).unwrap();
            let trouble = Trouble::new(call, &file, 0, lasting(error), error);
            // Or somebody took the right to read it away with the change.
            let may_be_hidden = error == libc::EACCES && file == key;
            let meanwhile = shown(&raw, "files");
            assert!(meanwhile == known || may_be_hidden, "{what}");
            trouble.over();
            let again = shown(&raw, "files");
            assert!(
                again == known || may_be_hidden && labels(again.clone()) == ["first"],
                "{what}"
            );
            let lines = said(&home, &file, error);
            assert!(lines <= 2, "{what}: {lines} lines");
            raw.finalize().unwrap();
        }
    }
}

/// Whichever of the calls fails, once: no look is taken for good.
fn single_calls_that_fail() {
    let (home, key) = with_a_key();
    let raw = loaded(&home);
    let mut failed = 0;
    for (file, calls) in of_folder(&home, &key) {
        for call in calls {
            for (first, error) in (0..8).flat_map(|first| ERRORS.map(|error| (first, error))) {
                raw.initialize().unwrap();
                let trouble = Trouble::new(call, &file, first, 1, error);
                let meanwhile = labels(shown(&raw, "files"));
                failed += trouble.over();
                let what = format!("{call} {}, {first} before: {error}", file.display());
                // A signal is no trouble.
                assert!(error != libc::EINTR || meanwhile == ["first"], "{what}");
                assert_eq!(labels(shown(&raw, "files")), ["first"], "{what}");
                raw.finalize().unwrap();
            }
        }
    }
    println!("{failed} single calls failed");
    assert!(failed > 20 * 7);
}

/// A factory identity whose certificate is in a file, and its issuers' in the `chain/` folder.
fn with_an_identity() -> (Swtpm, Home, Vec<(PathBuf, Vec<&'static str>)>) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    home.write("chain/root.pem", fs::read(identity.root()).unwrap());
    testkit::maker::Maker::new(&tpm).forget_index("0x01C90200");
    let certificate = fs::read(identity.certificate()).unwrap();
    let certificate = home.write("own.pem", certificate);
    let hint = format!(
        "[[identity]]\ncertificate = \"{}\"\n",
        certificate.display()
    );
    home.write("config.toml", hint);
    home.next_generation();
    let files = vec![
        (home.path("chain"), vec!["open", "list", "stat"]),
        (home.path("chain/root.pem"), vec!["open", "stat", "read"]),
        (certificate, vec!["open", "stat", "read"]),
        (home.path("run/generation"), vec!["stat"]),
    ];
    (tpm, home, files)
}

fn the_factorys_files_at_the_first_look() {
    let (_tpm, home, files) = with_an_identity();
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let all = labels(shown(&raw, "idev-id"));
    assert!(all.len() >= 3, "{all:?}");
    raw.finalize().unwrap();
    for (file, calls) in files {
        for (call, error) in calls
            .iter()
            .flat_map(|call| ERRORS.map(|error| (call, error)))
        {
            let what = format!("{call} {}: {error}", file.display());
            forget_log(&home);
            raw.initialize().unwrap();
            let trouble = Trouble::new(call, &file, 0, lasting(error), error);
            for _ in 0..3 {
                let meanwhile = labels(shown(&raw, "idev-id"));
                assert!(meanwhile.iter().all(|one| all.contains(one)), "{what}");
            }
            assert!(trouble.over() > 0, "{what}");
            assert_eq!(labels(shown(&raw, "idev-id")), all, "{what}");
            let lines = said(&home, &file, error);
            assert!(
                lines == 1 || error == libc::EINTR && lines == 0,
                "{what}: {lines} lines"
            );
            raw.finalize().unwrap();
        }
    }
}

fn the_factorys_files_that_are_known() {
    let (_tpm, home, files) = with_an_identity();
    let raw = loaded(&home);
    for (file, calls) in files {
        for (call, error) in calls
            .iter()
            .flat_map(|call| ERRORS.map(|error| (call, error)))
        {
            let what = format!("{call} {}: {error}", file.display());
            raw.initialize().unwrap();
            let known = shown(&raw, "idev-id");
            assert!(known.is_some());
            home.next_generation();
            let trouble = Trouble::new(call, &file, 0, lasting(error), error);
            for _ in 0..3 {
                assert_eq!(shown(&raw, "idev-id"), known, "{what}");
            }
            trouble.over();
            assert_eq!(shown(&raw, "idev-id"), known, "{what}");
            raw.finalize().unwrap();
        }
    }
}

/// The key asks for a value that is in a file: no other one is tried meanwhile.
fn a_secret_that_cannot_be_read() {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--auth", "secret"]);
    let home = Home::new(&tpm.tcti());
    let secret = home.write("secret", "secret\n");
    let hint = format!(
        "[[identity]]\nhandle = 0x81020000\nauth = \"file:{}\"\n",
        secret.display()
    );
    home.write("config.toml", hint);
    let raw = loaded(&home);
    let signs = || {
        let session = raw.open(identity(&raw)?, CKF_SERIAL_SESSION).ok()?;
        let keys = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        let key = *keys.unwrap().first()?;
        raw.sign_init(session, CKM_ECDSA, key).ok()?;
        raw.sign(session, &[1; 32]).ok()
    };
    for call in ["open", "stat", "read"] {
        for error in ERRORS {
            forget_log(&home);
            raw.initialize().unwrap();
            let trouble = Trouble::new(call, &secret, 0, lasting(error), error);
            assert!(signs().is_none() || error == libc::EINTR, "{call}: {error}");
            assert!(trouble.over() > 0);
            assert!(signs().is_some(), "{call}: {error}");
            assert_eq!(tpm.lockout_counter(), 0, "{call}: {error}");
            let lines = said(&home, &secret, error);
            assert!(
                lines == 1 || error == libc::EINTR,
                "{call} {error}: {lines} lines"
            );
            raw.finalize().unwrap();
        }
    }
}

/// A token that asks for a PIN is never taken for one that asks for none.
fn seals_that_cannot_be_read() {
    let (bench, token) = pins::Bench::with_pins(Link::Ours);
    let folder = bench.home.path("state/devid");
    let open = [
        (CKA_EC_PARAMS, P256.to_vec()),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_PRIVATE, NO.to_vec()),
    ];
    for seal in [".officer.pem", ".user.pem"] {
        for (call, error) in [
            ("stat", libc::EIO),
            ("stat", libc::EACCES),
            ("open", libc::EMFILE),
        ] {
            let trouble = Trouble::new(call, &folder.join(seal), 0, ALL, error);
            let what = format!("{call} {seal}: {error}");
            assert!(token.flags() & CKF_LOGIN_REQUIRED != 0, "{what}");
            if seal == ".officer.pem" {
                assert!(token.init("another", "other").is_err(), "{what}");
            }
            let session = token.read_write();
            // Without a word on CKA_PRIVATE the key is private, so it wants the user. A token that took
            // an unreadable seal for a missing one would make it.
            let private = &open[1..2];
            let made = generate(&token.raw, session, CKM_EC_KEY_PAIR_GEN, &open, private);
            assert!(made.is_err(), "{what}");
            let login = token.login(session, USER);
            if login.is_ok() {
                token.raw.logout(session).unwrap();
            }
            token.raw.close(session).unwrap();
            assert!(trouble.over() > 0, "{what}");
        }
    }
    let session = token.read_write();
    token.login(session, USER).unwrap();
    token.raw.logout(session).unwrap();
    token.officer(session, OFFICER).unwrap();
    bench.counts(0);
}

/// The real thing: a process that has used up its descriptors, the log's among them.
fn no_descriptor_is_left() {
    let (home, key) = with_a_key();
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain system calls on this process, which the story has to itself.
    unsafe { assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0) };
    let none = libc::rlimit {
        rlim_cur: 0,
        ..limit
    };
    // SAFETY: as before.
    unsafe { assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none), 0) };
    let slots = raw.slots(true).unwrap();
    // SAFETY: as before.
    unsafe { assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0) };
    assert_eq!(slots, []);
    slot_of(&raw, "files");
    assert_eq!(labels(shown(&raw, "files")), ["first"]);
    let folder = key.parent().unwrap();
    assert_eq!(said(&home, folder, libc::EMFILE), 1);
}
