//! An object that cannot be read, or is not trusted, does not count as missing: nothing replaces
//! it.

use crate::device::{Device, mending, persistent, programs, tpm2};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RESET: &[&str] = &["reset", "--factory", "--yes", "--wait", "0"];
const SOFTWARE: &str = "[provision]\nfallback = \"software\"\n";
/// nobody
const USER: u32 = 65_534;

fn objects(device: &Device) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.path("state/devid"))
        .into_iter()
        .flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "pem"))
        .collect();
    found.sort();
    found
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    // SAFETY: asks for our user id, nothing else.
    unsafe { libc::geteuid() == 0 }
}

fn certificate_of(device: &Device, name: &str) -> serde_json::Value {
    device.json(&["show", name])["certificates"][0]["sha256"].clone()
}

/// The run is refused by this id twice, and `status` gives the same id; nothing changes. Returns
/// the message.
#[track_caller]
fn is_refused(device: &Device, id: &str) -> String {
    let before = objects(device);
    device.ends(6, PROVISION);
    let said = device.ends(6, PROVISION);
    device.ends(1, &["status"]);
    mending::found(device, id);
    mending::assert_harmless(device);
    assert_eq!(objects(device), before);
    said.err
}

#[test]
fn files_that_are_refused_are_not_taken_for_gone() {
    let spoilt: [&dyn Fn(&Path); 3] = [
        &|path| set_mode(path, 0o666),
        &|path| {
            if is_root() {
                chown(path, Some(12_345), None).unwrap();
            } else {
                set_mode(path, 0o666);
            }
        },
        // A crash, on a file system that orders nothing.
        &|path| fs::write(path, "").unwrap(),
    ];
    for (number, spoil) in spoilt.iter().enumerate() {
        for (marker, handle) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut device = Device::blank();
            device.ends(0, PROVISION);
            let shown = certificate_of(&device, "devid");
            let files = objects(&device);
            let contents: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
            let written = fs::read(device.path("state/tpm_in_use")).unwrap();
            files.iter().for_each(|file| spoil(file));
            if !marker {
                fs::remove_file(device.path("state/tpm_in_use")).unwrap();
            }
            if !handle {
                tpm2(
                    &mut device,
                    "tpm2_evictcontrol",
                    &["-C", "o", "-c", "0x81000100"],
                );
            }
            let before = persistent(&mut device);
            let said = is_refused(&device, "identity.unreadable");
            let first = files[0].to_str().unwrap();
            // The mode is not the cause of damage.
            let helps = ["chmod", "chmod", "restore the file from a backup"][number];
            assert!(said.contains(first) && said.contains(helps), "{said}");
            assert!(!said.contains("gone"), "{said}");
            assert_eq!(persistent(&mut device), before);
            let left = fs::read(device.path("state/tpm_in_use")).ok();
            assert_eq!(left, marker.then_some(written));
            // The advised step restores the object.
            for (file, content) in files.iter().zip(&contents) {
                match number {
                    2 => fs::write(file, content).unwrap(),
                    _ => {
                        let found = mending::found(&device, "identity.unreadable");
                        mending::run(&device, found["command"].as_str().unwrap());
                    }
                }
            }
            device.ends(0, PROVISION);
            assert_eq!(certificate_of(&device, "devid"), shown);
        }
    }
}

/// A certificate of a CA, of which the copy on the disk is all there is.
#[test]
fn a_certificate_that_is_refused_is_not_made_again() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let shown = certificate_of(&device, "devid");
    let files = objects(&device);
    let certificate = files
        .iter()
        .find(|path| path.to_str().unwrap().contains("certificate-"));
    set_mode(certificate.unwrap(), 0o666);
    is_refused(&device, "identity.unreadable");
    set_mode(certificate.unwrap(), 0o640);
    device.ends(0, PROVISION);
    assert_eq!(certificate_of(&device, "devid"), shown);
}

#[test]
fn without_tpm_files_that_are_refused_are_not_taken_for_gone_either() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
    objects(&device)
        .iter()
        .for_each(|path| set_mode(path, 0o666));
    let device = device.move_to(None);
    device.home.write("config.toml", SOFTWARE);
    is_refused(&device, "identity.unreadable");
    assert!(!device.path("state/software").exists());
    let said = device.ends(6, RESET);
    assert!(
        said.err.contains("holds no valid object") || said.err.contains("may write"),
        "{said}"
    );
}

#[test]
fn a_reset_ends_what_gives_no_object_and_keeps_it_aside() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let shown = certificate_of(&device, "devid");
    let files = objects(&device);
    files.iter().for_each(|path| set_mode(path, 0o666));
    device.ends(0, RESET);
    device.ends(0, &["status"]);
    assert_ne!(certificate_of(&device, "devid"), shown);
    for file in files {
        let aside = format!("{}.refused", file.display());
        assert!(!file.exists() && Path::new(&aside).exists(), "{aside}");
    }
}

#[test]
fn a_reset_needs_no_pin() {
    let settings = |pin: &Path| {
        format!(
            "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
            pin.display()
        )
    };
    for (given, cleared) in [
        (Some("87654321"), true),
        (Some("00000000"), false),
        (None, false),
        (None, true),
    ] {
        let mut device = Device::blank();
        device.set_pins("87654321");
        let pin = device.home.write("pin", "87654321");
        set_mode(&pin, 0o600);
        device.home.write("config.toml", settings(&pin));
        device.ends(0, PROVISION);
        match given {
            Some(given) => fs::write(&pin, given).unwrap(),
            None => drop(device.home.write("config.toml", "")),
        }
        if cleared {
            tpm2(&mut device, "tpm2_clear", &["-c", "p"]);
            let said = device.ends(6, PROVISION);
            assert!(said.err.contains("devid reset --factory --yes"), "{said}");
        }
        device.ends(0, RESET);
        assert!(!device.path("state/factory-reset").exists());
        device.ends(0, &["status"]);
        device.ends(0, PROVISION);
    }
}

/// Applications give the PIN. At the start no program gives it, and the identity still exists.
#[test]
fn a_key_whose_pin_nobody_gave_is_there() {
    let device = Device::blank();
    device.set_pins("87654321");
    let pin = device.home.write("pin", "87654321");
    set_mode(&pin, 0o600);
    let settings = format!(
        "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
        pin.display()
    );
    device.home.write("config.toml", settings);
    device.ends(0, PROVISION);
    device.home.write("config.toml", "");
    let done = device.json(PROVISION);
    assert_eq!(done["mode"], "tpm", "{done}");
    // The key proves nothing.
    device.ends(1, &["verify", "devid"]);
}

#[test]
fn nobody_else_asks_for_a_reset() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let shown = certificate_of(&device, "devid");
    let (state, request) = (device.path("state"), device.path("state/factory-reset"));
    let set = |mode: u32, group: u32, owner: Option<u32>| {
        if is_root() {
            chown(&state, None, Some(group)).unwrap();
        }
        set_mode(&state, mode);
        fs::write(&request, "").unwrap();
        if is_root() {
            chown(&request, owner, None).unwrap();
        }
    };
    let mut cases = vec![(0o777, 0, None)];
    if is_root() {
        cases.extend([(0o770, USER, None), (0o755, 0, Some(USER))]);
    }
    for (mode, group, owner) in cases {
        set(mode, group, owner);
        let said = is_refused(&device, "identity.untrusted");
        assert!(said.contains("state"), "{said}");
        // The remedy deletes the request, and not the identity.
        mending::mend(&device, "identity.untrusted");
        assert!(!request.exists());
        device.ends(0, PROVISION);
        assert_eq!(certificate_of(&device, "devid"), shown);
    }
    // No plain file.
    fs::create_dir(&request).unwrap();
    is_refused(&device, "identity.untrusted");
    mending::mend(&device, "identity.untrusted");
    device.ends(0, PROVISION);
    assert_eq!(certificate_of(&device, "devid"), shown);
    // An authorised user gets the reset.
    fs::write(&request, "").unwrap();
    device.ends(0, PROVISION);
    assert_ne!(certificate_of(&device, "devid"), shown);
}

#[test]
fn a_software_identity_that_others_may_write_or_read_is_not_believed() {
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    device.ends(0, PROVISION);
    let key = device.path("state/software/devid.key.pem");
    let content = fs::read(&key).unwrap();
    for (path, mode) in [
        ("state", 0o777),
        ("state/software", 0o777),
        ("state/software/devid.key.pem", 0o666),
        ("state/software/devid.key.pem", 0o640),
        ("state/software/devid.cert.pem", 0o666),
    ] {
        set_mode(&device.path(path), mode);
        let said = is_refused(&device, "identity.untrusted");
        assert!(said.contains(path), "{said}");
        mending::mend(&device, "identity.untrusted");
        assert!(device.json(&["status"])["mode"] == "software", "{path}");
        assert_eq!(fs::read(&key).unwrap(), content);
    }
}

#[test]
fn what_is_pruned_was_put_aside() {
    let tpm = "device:/nonexistent/tpm";
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    let state = device.path("x.pre-tpm/state");
    fs::create_dir_all(&state).unwrap();
    let devid = |words: &[&str]| {
        let mut command = device.command(words);
        command.env("DEVID_PKCS11_STATE", &state);
        command.env("DEVID_PKCS11_TCTI", tpm);
        programs::run(&mut command).ok()
    };
    devid(PROVISION);
    let software = state.join("software");
    let put = |name: &str| fs::write(software.join(name), "").unwrap();
    let aside = [
        "devid.key.pem.pre-tpm",
        "devid.cert.pem.pre-tpm",
        "devid.key.pem.pre-tpm-2",
    ];
    let others = [
        "mine.pre-tpm",
        "devid.key.pem.pre-tpm.txt",
        "devid.key.pem.pre-tpm-x",
    ];
    aside.iter().chain(&others).for_each(|name| put(name));
    fs::create_dir(software.join("devid.key.pem.pre-tpm-7")).unwrap();
    devid(&["prune"]);
    for name in ["devid.key.pem", "devid.cert.pem", "devid.key.pem.pre-tpm-7"] {
        assert!(software.join(name).exists(), "{name}");
    }
    aside
        .iter()
        .for_each(|name| assert!(!software.join(name).exists(), "{name}"));
    others
        .iter()
        .for_each(|name| assert!(software.join(name).exists(), "{name}"));
    assert!(devid(&["status"]).text().starts_with("mode software"));
}

#[test]
fn a_tpm_that_does_not_answer_is_there_whoever_speaks_to_it() {
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    for tcti in ["device:/dev/null", "libtss2-tcti-device.so.0:/dev/null"] {
        let mut command = device.command(PROVISION);
        let said = programs::run(command.env("DEVID_PKCS11_TCTI", tcti));
        assert_eq!(said.status.code(), Some(4), "{tcti}: {said}");
        assert!(!device.path("state/software").exists(), "{tcti}");
    }
}

/// A TPM that answers so many connections and then accepts none.
fn dying(port: u16, most: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for _ in 0..most {
            let (mut client, _) = listener.accept().unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass(&mut from, &mut to));
            pass(&mut server, &mut client);
        }
        drop(listener);
    });
    near
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_tpm_that_answered_once_is_there() {
    for most in 1..4 {
        let mut device = Device::blank();
        device.home.write("config.toml", SOFTWARE);
        let tcti = device.tpm().tcti();
        let port = tcti.rsplit('=').next().unwrap().parse().unwrap();
        let near = dying(port, most);
        let mut command = device.command(PROVISION);
        let tcti = format!("swtpm:host=127.0.0.1,port={near}");
        let said = programs::run(command.env("DEVID_PKCS11_TCTI", tcti));
        assert!(!device.path("state/software").exists(), "{most}: {said}");
    }
}

/// A CA's certificate for the device's key with so many names.
fn certificate_with(device: &Device, names: usize) -> PathBuf {
    let request = device.path("devid.csr");
    device.ends(0, &["csr", "devid", "--out", request.to_str().unwrap()]);
    let names: Vec<_> = (0..names)
        .map(|n| format!("DNS:host{n}.example.org"))
        .collect();
    let extensions = format!(
        "keyUsage=digitalSignature\nsubjectAltName={}\n",
        names.join(",")
    );
    device.home.write("extensions", extensions);
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                  -keyout ca.key -out ca.pem -subj /CN=CA -days 10 && \
                  openssl x509 -req -in devid.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
                  -out large.pem -extfile extensions -days 5";
    let mut shell = Command::new("sh");
    programs::run(
        shell
            .args(["-ec", script])
            .current_dir(device.home.folder()),
    )
    .ok();
    device.path("large.pem")
}

#[test]
fn a_certificate_that_no_index_holds_is_used_without_a_copy() {
    let mut device = Device::blank();
    device
        .home
        .write("config.toml", "[provision]\nnv_index = 0x01500000\n");
    device.ends(0, PROVISION);
    let read = ["-C", "o", "0x01500000"];
    let copy = tpm2(&mut device, "tpm2_nvread", &read).out;
    let large = certificate_with(&device, 100);
    let said = device.ends(0, &["import-cert", large.to_str().unwrap()]);
    assert!(
        said.text()
            .contains("an index of this TPM holds at most 2048"),
        "{said}"
    );
    let shown = certificate_of(&device, "devid");
    assert_eq!(
        tpm2(&mut device, "tpm2_nvread", &read).out,
        copy,
        "not lost"
    );
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
    let done = device.json(PROVISION);
    let note = done["notes"][0].as_str().unwrap();
    assert!(note.contains("no copy of the certificate"), "{note}");
    assert!(device.path("state/tpm_in_use").exists());
    mending::found(&device, "nv.too-large");
    assert_eq!(certificate_of(&device, "devid"), shown);
    device.ends(0, &["status"]);
}

#[test]
fn a_full_tpm_keeps_the_copy_that_it_has() {
    let mut device = Device::blank();
    device
        .home
        .write("config.toml", "[provision]\nnv_index = 0x01500000\n");
    device.ends(0, PROVISION);
    let read = ["-C", "o", "0x01500000"];
    let copy = tpm2(&mut device, "tpm2_nvread", &read).out;
    let larger = certificate_with(&device, 40);
    let mut index = 0x0150_0001;
    for size in ["2000", "500", "100"] {
        let mut define = |index: u32| {
            let words = ["-C", "o", "-s", size, &format!("0x{index:08X}")];
            programs::run(device.tpm().tool("tpm2_nvdefine").args(words))
        };
        while define(index).status.success() {
            index += 1;
        }
    }
    let said = device.ends(0, &["import-cert", larger.to_str().unwrap()]);
    assert!(said.text().contains("Free NV memory in the TPM"), "{said}");
    assert_eq!(tpm2(&mut device, "tpm2_nvread", &read).out, copy);
    let done = device.json(PROVISION);
    assert_eq!(done["mode"], "tpm", "{done}");
}
