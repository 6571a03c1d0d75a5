//! A configuration that other users may write: the module uses no part of it, and the log says so.

use cryptoki_sys::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{loaded, ulong};
use testkit::own::slot_of;
use testkit::raw::Raw;
use testkit::tpm::Swtpm;

over_our_transport!(
    a_file_that_others_may_write,
    a_folder_on_the_way_that_others_may_write,
    files_that_are_as_good_as_roots,
    a_chain_that_others_may_write,
    a_secret_that_others_may_write,
    a_certificate_that_others_may_write,
);

const STRANGER: u32 = 12345;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// True if there is a token, with the current configuration.
fn obeyed(raw: &Raw) -> bool {
    raw.initialize().unwrap();
    let slots = raw.slots(true).unwrap();
    raw.finalize().unwrap();
    !slots.is_empty()
}

fn bench(link: Link) -> (Swtpm, Home, Raw) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    home.write("config.toml", "timeout_ms = 20000\n");
    home.write("config.d/more.toml", "random = \"kernel\"\n");
    let raw = loaded(&home);
    assert!(obeyed(&raw));
    (tpm, home, raw)
}

fn a_file_that_others_may_write(link: Link) {
    let (_tpm, home, raw) = bench(link);
    for (file, sound) in [
        ("config.toml", 0o644),
        ("config.d/more.toml", 0o644),
        ("config.d", 0o755),
    ] {
        let path = home.path(file);
        for bits in [0o666, 0o777, 0o1777] {
            mode(&path, bits);
            assert!(!obeyed(&raw), "{file} {bits:o}");
            home.log_says(&[path.to_str().unwrap(), "everybody may write"]);
        }
        mode(&path, sound);
        chown(&path, Some(STRANGER), None).expect("the tests run as root");
        assert_eq!(
            obeyed(&raw),
            file == "config.d",
            "{file}: a folder may be given away"
        );
        chown(&path, Some(0), Some(STRANGER)).unwrap();
        mode(&path, 0o664);
        assert_eq!(
            obeyed(&raw),
            file == "config.d",
            "{file}: so may a folder's group"
        );
        chown(&path, None, Some(0)).unwrap();
        mode(&path, sound);
        assert!(obeyed(&raw), "{file}");
    }
    // Not even where to log is believed.
    let log = home.path("attackers");
    home.write(
        "config.toml",
        format!("[log]\ntarget = \"file:{}\"\n", log.display()),
    );
    mode(&home.path("config.toml"), 0o666);
    home.quiet();
    assert!(!obeyed(&raw));
    assert!(!log.exists());
}

fn a_folder_on_the_way_that_others_may_write(link: Link) {
    let (_tpm, home, raw) = bench(link);
    fs::create_dir_all(home.path("open/etc")).unwrap();
    let file = home.write("open/etc/config.toml", "");
    // SAFETY: nothing else reads the environment now.
    unsafe { std::env::set_var("DEVID_PKCS11_CONFIG", &file) };
    assert!(obeyed(&raw));
    for (folder, bits, good) in [
        ("open/etc", 0o777, false),
        // Other users cannot remove our file there.
        ("open/etc", 0o1777, true),
        ("open/etc", 0o755, true),
        ("open", 0o777, false),
        ("open", 0o1777, true),
        ("open", 0o755, true),
    ] {
        mode(&home.path(folder), bits);
        assert_eq!(obeyed(&raw), good, "{folder} {bits:o}");
    }
    mode(&home.path("open"), 0o1777);
    chown(home.path("open/etc"), Some(STRANGER), None).unwrap();
    assert!(!obeyed(&raw), "a stranger's folder in a folder for all");
    home.log_says(&["open/etc", "user 12345"]);
}

fn files_that_are_as_good_as_roots(link: Link) {
    let (_tpm, home, raw) = bench(link);
    // As NixOS has it: links to a store that its builders may add to.
    fs::create_dir_all(home.path("store/etc")).unwrap();
    fs::rename(home.path("config.toml"), home.path("store/etc/config.toml")).unwrap();
    mode(&home.path("store"), 0o1775);
    chown(home.path("store"), None, Some(STRANGER)).unwrap();
    symlink("store/etc", home.path("static")).unwrap();
    symlink("static/config.toml", home.path("config.toml")).unwrap();
    assert!(obeyed(&raw));
    fs::rename(home.path("config.d"), home.path("store/config.d")).unwrap();
    symlink("store/config.d", home.path("config.d")).unwrap();
    assert!(obeyed(&raw));
    // A folder that was given to a service, with all in it.
    for name in ["store/config.d", "store/config.d/more.toml"] {
        chown(home.path(name), Some(STRANGER), Some(STRANGER)).unwrap();
    }
    assert!(obeyed(&raw));
    // A link of somebody else's, in a folder for all.
    mode(&home.path("store"), 0o1777);
    symlink(
        home.path("store/etc/config.toml"),
        home.path("store/planted"),
    )
    .unwrap();
    lchown(home.path("store/planted"), Some(STRANGER), None).unwrap();
    fs::remove_file(home.path("config.toml")).unwrap();
    symlink("store/planted", home.path("config.toml")).unwrap();
    assert!(!obeyed(&raw));
}

/// A CA's certificate that no device of the tests has.
fn another_devices() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("core/testdata/root.pem")
}

/// The certificates that the factory's token shows.
fn authorities(raw: &Raw) -> usize {
    raw.initialize().unwrap();
    let session = raw
        .open(slot_of(raw, "idev-id"), CKF_SERIAL_SESSION)
        .unwrap();
    let found = raw.find(session, &[(CKA_CLASS, ulong(CKO_CERTIFICATE))]);
    let count = found.unwrap().len();
    raw.finalize().unwrap();
    count
}

fn a_chain_that_others_may_write(link: Link) {
    let (_tpm, home, raw) = bench(link);
    let without = authorities(&raw);
    let other = another_devices();
    let file = home.write("chain/ca.pem", fs::read(other).unwrap());
    assert_eq!(authorities(&raw), without + 1);
    for (path, bits) in [(&file, 0o666), (&home.path("chain"), 0o777)] {
        mode(path, bits);
        assert_eq!(authorities(&raw), without, "{}", path.display());
        home.log_says(&[path.to_str().unwrap(), "everybody may write"]);
        mode(path, 0o755);
    }
    assert_eq!(authorities(&raw), without + 1);
}

/// Its content may be another user's guess, and each guess counts.
fn a_secret_that_others_may_write(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--auth", "open sesame"]);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let secret = home.write("secret", "open sesame");
    let auth = format!("auth = \"file:{}\"", secret.display());
    home.write(
        "config.toml",
        format!("[[identity]]\nhandle = 0x81020000\n{auth}\n"),
    );
    let raw = loaded(&home);
    let signs = || {
        raw.initialize().unwrap();
        let session = raw
            .open(slot_of(&raw, "idev-id"), CKF_SERIAL_SESSION)
            .unwrap();
        let key = raw
            .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
            .unwrap()[0];
        raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
        let signed = raw.sign(session, b"data").is_ok();
        raw.finalize().unwrap();
        signed
    };
    assert!(signs());
    mode(&secret, 0o666);
    for _ in 0..4 {
        assert!(!signs());
    }
    home.log_says(&["secret", "everybody may write"]);
    fs::remove_file(&secret).unwrap();
    assert!(!signs());
    // Nor was the empty value tried in its place.
    assert_eq!(tpm.lockout_counter(), 0);
    home.write("secret", "open sesame");
    assert!(signs());
}

fn a_certificate_that_others_may_write(link: Link) {
    let (_tpm, home, raw) = bench(link);
    let without = authorities(&raw);
    let other = another_devices();
    let file = home.write("certificate.pem", fs::read(other).unwrap());
    let hint = format!("[[identity]]\ncertificate = \"{}\"\n", file.display());
    home.write("config.toml", hint);
    assert_eq!(authorities(&raw), without + 1);
    mode(&file, 0o666);
    assert_eq!(authorities(&raw), without);
    home.log_says(&["certificate.pem", "everybody may write"]);
}
