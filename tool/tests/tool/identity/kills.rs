//! A run is killed at each step and repeated: the state and the identity are equal to the result of
//! a run that was not killed.

use crate::device::cut::{End, run_until};
use crate::device::mending::{assert_gone, found, run};
use crate::device::tpm::Swtpm;
use crate::device::{Device, programs};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RESET: &[&str] = &["reset", "--factory", "--yes", "--wait", "0"];

fn names(device: &Device) -> Vec<String> {
    let entries = fs::read_dir(device.path("state/devid"))
        .into_iter()
        .flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn keys(device: &Device) -> Vec<String> {
    let keys = names(device).into_iter();
    keys.filter(|name| name.starts_with("key-")).collect()
}

/// One key, one certificate, and nothing left over in the folder or in persistent handles.
#[track_caller]
fn assert_whole(device: &mut Device, cut: usize) {
    let status = device.ends(0, &["status"]);
    assert!(
        status.text().starts_with("mode tpm\n"),
        "cut {cut}: {status}"
    );
    let names = names(device);
    let visible: Vec<_> = names.iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(visible.len(), 2, "cut {cut}: {names:?}");
    assert_eq!(keys(device).len(), 1, "cut {cut}: {names:?}");
    assert!(
        !names.iter().any(|name| name.starts_with(".new-")),
        "cut {cut}: {names:?}"
    );
    let mut listed = device.tpm().tool("tpm2_getcap");
    let listed = listed.arg("handles-persistent").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let handles: Vec<_> = listed
        .lines()
        .map(|line| line.trim_start_matches("- "))
        .collect();
    assert_eq!(
        handles,
        ["0x81000001", "0x81000080", "0x81000100"],
        "cut {cut}"
    );
    assert!(!device.path("state/factory-reset").exists());
}

#[test]
fn the_first_provisioning() {
    for cut in 1.. {
        let mut device = Device::blank();
        let end = run_until(&mut device.command(PROVISION), cut);
        let begun = keys(&device);
        device.ends(0, PROVISION);
        assert_whole(&mut device, cut);
        if !begun.is_empty() {
            assert_eq!(
                keys(&device),
                begun,
                "cut {cut}: the key that was begun is the one"
            );
        }
        if end == End::Exited(0) {
            assert!(cut > 30, "there are more steps than {cut}");
            break;
        }
        assert_eq!(end, End::Cut);
    }
}

/// Several killed runs leave objects in the few slots of a TPM without resource manager. The next
/// run that needs a slot removes them.
#[test]
fn a_first_provisioning_that_is_killed_again_and_again() {
    const RUNS: usize = 5;
    let mut fullest = 0;
    for cut in 1.. {
        let mut device = Device::blank();
        let ends = [(); RUNS].map(|()| run_until(&mut device.command(PROVISION), cut));
        fullest = fullest.max(transient(&mut device).len());
        device.ends(0, PROVISION);
        assert_whole(&mut device, cut);
        if ends[0] == End::Exited(0) {
            assert!(cut > 30, "there are more steps than {cut}");
            break;
        }
    }
    assert!(fullest >= 2, "no run left anything: {fullest}");
}

/// Keys of ours alone are taken away, however full the TPM is.
#[test]
fn what_others_loaded_stays() {
    let mut device = Device::blank();
    for _ in 0..3 {
        let mut others = device.tpm().tool("tpm2_createprimary");
        others.args(["-C", "o", "-G", "ecc256:aes128cfb", "-c"]);
        programs::run(others.arg(device.path("others.ctx"))).ok();
    }
    assert_eq!(transient(&mut device).len(), 3);
    device.ends(1, PROVISION);
    assert_eq!(transient(&mut device).len(), 3);
    let full = found(&device, "tpm.slots-full");
    assert!(full["text"].as_str().unwrap().contains('3'), "{full:#}");
    run(&device, full["command"].as_str().unwrap());
    device.ends(0, PROVISION);
    assert_gone(&device, "tpm.slots-full");
}

fn transient(device: &mut Device) -> Vec<String> {
    let mut listed = device.tpm().tool("tpm2_getcap");
    let listed = programs::run(listed.arg("handles-transient")).ok();
    listed.text().lines().map(str::to_owned).collect()
}

/// Cuts `words` at each step in turn, until it completes. `begin` makes the initial state, `check`
/// examines the state after it.
fn cut_each<T>(
    device: &mut Device,
    words: &[&str],
    mut begin: impl FnMut(&mut Device) -> T,
    mut check: impl FnMut(&mut Device, T, usize, &End),
) {
    for cut in 1.. {
        let begun = begin(device);
        let end = run_until(&mut device.command(words), cut);
        check(device, begun, cut, &end);
        if end == End::Exited(0) {
            assert!(cut > 3, "there are more steps than {cut}");
            return;
        }
        assert_eq!(end, End::Cut);
    }
}

/// Finishes a reset that may have been cut, and looks at what it left.
#[track_caller]
fn assert_reset(device: &mut Device, first: &[String], cut: usize, end: &End) {
    let asked = *end == End::Exited(0)
        || device.path("state/factory-reset").exists()
        || keys(device) != first;
    device.ends(0, PROVISION);
    assert_whole(device, cut);
    assert_eq!(keys(device) != first, asked, "cut {cut}");
}

const EVE: &str = "[[token]]\nname = \"software\"\nallow_file_keys = true\n[provision]\n\
                   nv_index = 0x01500000\nfallback = \"software\"\n";

fn with_eve(tpm: Option<Swtpm>) -> Device {
    let device = Device::with(tpm);
    device.home.write("config.toml", EVE);
    device
}

/// The content of the NV index.
fn copy(device: &mut Device) -> Vec<u8> {
    let mut read = device.tpm().tool("tpm2_nvread");
    programs::run(read.args(["-C", "0x01500000", "0x01500000"]))
        .ok()
        .out
}

/// The device's certificate, DER.
fn certificate(device: &Device) -> Vec<u8> {
    let mut found = names(device).into_iter();
    let name = found.find(|name| name.starts_with("certificate-")).unwrap();
    let mut openssl = programs::program("openssl");
    openssl.args(["x509", "-outform", "DER", "-in"]);
    openssl.arg(device.path("state/devid").join(name));
    programs::run(&mut openssl).ok().out
}

/// As a device is before its first start.
fn make_blank(device: &mut Device) {
    programs::run(device.tpm().tool("tpm2_clear").args(["-c", "p"])).ok();
    fs::remove_dir_all(device.path("state")).unwrap();
    fs::create_dir(device.path("state")).unwrap();
}

#[test]
fn an_edge_devices_first_start() {
    let mut device = with_eve(Some(Swtpm::blank()));
    cut_each(&mut device, PROVISION, make_blank, |device, (), cut, _| {
        device.ends(0, PROVISION);
        assert_whole(device, cut);
        assert_eq!(copy(device), certificate(device), "cut {cut}");
    });
}

#[test]
fn an_edge_devices_reset() {
    let mut device = with_eve(Some(Swtpm::blank()));
    device.ends(0, PROVISION);
    // The rest of one reset is the initial state of the next.
    let begin = |device: &mut Device| {
        // Objects that were loaded below the previous master key are unknown now.
        let mut flush = device.tpm().tool("tpm2_flushcontext");
        programs::run(flush.arg("--transient-object")).ok();
        keys(device)
    };
    cut_each(&mut device, RESET, begin, |device, first, cut, end| {
        assert_reset(device, &first, cut, end);
        assert_eq!(copy(device), certificate(device), "cut {cut}");
    });
}

#[test]
fn an_edge_device_without_tpm() {
    let mut device = with_eve(None);
    let blank = |device: &mut Device| {
        let _ = fs::remove_dir_all(device.path("state"));
        fs::create_dir(device.path("state")).unwrap();
    };
    cut_each(&mut device, PROVISION, blank, |device, (), cut, _| {
        let key = device.path("state/software/devid.key.pem");
        let begun = fs::read(&key).ok();
        device.ends(0, PROVISION);
        let made = fs::read(&key).unwrap();
        assert!(begun.is_none_or(|begun| begun == made), "cut {cut}");
        let status = device.ends(0, &["status"]);
        assert!(status.text().starts_with("mode software\n"), "{status}");
    });
    // And a reset makes another.
    let key = |device: &mut Device| fs::read(device.path("state/software/devid.key.pem")).unwrap();
    cut_each(&mut device, RESET, key, |device, first, cut, end| {
        let asked = *end == End::Exited(0)
            || device.path("state/factory-reset").exists()
            || fs::read(device.path("state/software/devid.key.pem")).ok() != Some(first.clone());
        device.ends(0, PROVISION);
        assert_eq!(key(device) != first, asked, "cut {cut}");
        device.ends(0, &["status"]);
    });
}

#[test]
fn an_edge_device_moves_to_its_tpm() {
    let software = with_eve(None);
    software.ends(0, PROVISION);
    let key = fs::read(software.path("state/software/devid.key.pem")).unwrap();
    let mut device = with_eve(Some(Swtpm::blank()));
    let begin = |device: &mut Device| {
        make_blank(device);
        fs::create_dir(device.path("state/software")).unwrap();
        let file = device.home.write("state/software/devid.key.pem", &key);
        fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    };
    cut_each(&mut device, PROVISION, begin, |device, (), cut, _| {
        device.ends(0, PROVISION);
        assert_whole(device, cut);
        let left = fs::read_dir(device.path("state/software")).unwrap();
        let mut left: Vec<_> = left.map(|one| one.unwrap().file_name()).collect();
        left.retain(|name| !name.to_str().unwrap().starts_with('.'));
        assert_eq!(left, ["devid.key.pem.pre-tpm"], "cut {cut}");
        assert_eq!(copy(device), certificate(device), "cut {cut}");
    });
}

#[test]
fn a_certificate_that_comes() {
    let mut device = with_eve(Some(Swtpm::blank()));
    device.ends(0, PROVISION);
    let request = device.path("devid.csr");
    device.ends(0, &["csr", "devid", "--out", request.to_str().unwrap()]);
    let authorities = ["one", "other"].map(|name| {
        let folder = device.path(name);
        fs::create_dir(&folder).unwrap();
        let leaf = fs::read(device.certified(&request, &folder)).unwrap();
        let ca = fs::read(folder.join("ca.pem")).unwrap();
        device
            .home
            .write(&format!("{name}.pem"), [leaf, ca].concat())
    });
    // The start of the certificate does not show its key, and the certificate is written to NV in
    // pieces.
    let long = "/OU=a unit with a long name that fills what is written at once".repeat(12);
    let (ca, leaf) = (device.path("other/ca"), device.path("leaf.pem"));
    let mut openssl = programs::program("openssl");
    openssl.args([
        "x509",
        "-req",
        "-days",
        "9",
        "-CAcreateserial",
        "-subj",
        &long,
    ]);
    openssl.arg("-in").arg(&request).arg("-out").arg(&leaf);
    openssl.arg("-CA").arg(ca.with_extension("pem"));
    openssl.arg("-CAkey").arg(ca.with_extension("key"));
    programs::run(&mut openssl).ok();
    let ca = fs::read(ca.with_extension("pem")).unwrap();
    device
        .home
        .write("other.pem", [fs::read(leaf).unwrap(), ca].concat());
    let [one, other] = authorities.map(|path| path.to_str().unwrap().to_owned());
    let only_key = keys(&device);
    let begin = |device: &mut Device| {
        device.ends(0, &["import-cert", &one]);
        certificate(device)
    };
    let words = ["import-cert", other.as_str()];
    cut_each(&mut device, &words, begin, |device, _, cut, _| {
        // Whatever it was cut at, the identity is whole.
        device.ends(0, PROVISION);
        device.ends(0, &["status"]);
        assert_eq!(keys(device), only_key);
        device.ends(0, &["import-cert", &other]);
        let left = names(device).into_iter();
        let left = left.filter(|name| name.starts_with("certificate-"));
        assert_eq!(left.count(), 2, "cut {cut}: one, and its CA's");
        let shown = device.json(&["show", "devid"]);
        let shown = shown["certificates"].as_array().unwrap();
        assert_eq!(shown.len(), 1, "cut {cut}");
        let place = shown[0]["place"].as_str().unwrap();
        let mut openssl = programs::program("openssl");
        openssl.args(["x509", "-outform", "DER", "-in", place]);
        assert_eq!(
            copy(device),
            programs::run(&mut openssl).ok().out,
            "cut {cut}"
        );
    });
}
