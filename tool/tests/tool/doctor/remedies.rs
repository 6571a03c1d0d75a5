//! Remedies for an identity with a loss or a fault. Each can be done, solves the problem, and ends
//! no identity.

use crate::device::mending::{assert_gone, assert_harmless, found, mend, run};
use crate::device::{Device, programs};
use crate::device::{evict, files, tpm::Swtpm};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const SOFTWARE: &str = "[provision]\nfallback = \"software\"\n";

fn key(device: &Device) -> Value {
    device.json(&["show", "devid"])["id"].clone()
}

/// A certificate of another device's, as `devid` would keep it.
fn foreign() -> String {
    let (_other, factory) = Device::manufactured();
    let pem = fs::read_to_string(factory.certificate()).unwrap();
    format!("Label: devid\n{pem}")
}

#[test]
fn what_was_begun_goes_on() {
    let mut device = Device::blank();
    mend(&device, "identity.none");
    let first = key(&device);
    evict(&mut device, "0x81000100");
    mend(&device, "identity.handle");
    fs::remove_file(files(&device, "certificate").remove(0)).unwrap();
    mend(&device, "identity.certificate");
    assert_eq!(key(&device), first);
}

/// The key lives on in its handle: whoever evicts it ends the identity.
#[test]
fn a_lost_key_file_is_brought_back() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let first = key(&device);
    let whole = device.path("copy");
    fs::rename(device.path("state/devid"), &whole).unwrap();
    let lost = found(&device, "identity.file-lost");
    assert!(
        lost["text"].as_str().unwrap().contains("0x81000100"),
        "{lost}"
    );
    assert_harmless(&device);
    device.ends(6, PROVISION);
    fs::rename(&whole, device.path("state/devid")).unwrap();
    assert_gone(&device, "identity.file-lost");
    assert_eq!(key(&device), first);

    // With the certificate still there: removing the certificate is not a solution.
    let file = files(&device, "key").remove(0);
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let lost = found(&device, "identity.file-lost");
    assert!(
        lost["mend"]
            .as_str()
            .unwrap()
            .contains("do not change the handle"),
        "{lost}"
    );
    assert!(lost["command"].is_null(), "{lost}");
    assert_harmless(&device);
    fs::write(&file, kept).unwrap();
    assert_gone(&device, "identity.file-lost");
    assert_eq!(key(&device), first);
}

#[test]
fn an_exchanged_tpm_is_brought_back_and_a_cleared_one_begins_anew() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let first = key(&device);
    let Device { tpm: right, home } = device;

    // A TPM that has keys of its own: to begin anew would take them away.
    let other = Device::blank();
    other.ends(0, PROVISION);
    let others = key(&other);
    let Device {
        tpm: wrong,
        home: others_home,
    } = other;
    let mut device = Device { tpm: None, home }.move_to(wrong);
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("cleared or exchanged"), "{said}");
    for id in ["identity.key-lost", "master-key.lost"] {
        let lost = found(&device, id);
        assert!(lost["command"].is_null(), "{lost}");
    }
    assert_harmless(&device);
    let wrong = device.tpm.take();
    let other = Device {
        tpm: None,
        home: others_home,
    }
    .move_to(wrong);
    assert_eq!(key(&other), others, "nothing was taken from it");

    let mut device = device.move_to(right);
    assert_gone(&device, "identity.key-lost");
    assert_eq!(key(&device), first);

    programs::run(device.tpm().tool("tpm2_clear").args(["-c", "p"])).ok();
    found(&device, "master-key.lost");
    mend(&device, "identity.key-lost");
    assert_gone(&device, "master-key.lost");
    assert_ne!(key(&device), first);
    assert!(
        device.path("state.kept/devid").exists(),
        "should it have been the wrong TPM"
    );
}

#[test]
fn a_certificate_for_another_key_is_put_aside_from_where_it_is() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let first = key(&device);
    fs::remove_file(files(&device, "certificate").remove(0)).unwrap();
    let file = device
        .home
        .write("state/devid/certificate-wrong.pem", foreign());
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains(file.to_str().unwrap()), "{said}");
    mend(&device, "identity.mismatch");
    assert_eq!(key(&device), first);
    assert!(device.path("state/certificate-wrong.pem").exists());
}

#[test]
fn a_software_certificate_for_another_key_is_not_looked_for_elsewhere() {
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    device.ends(0, PROVISION);
    let first = key(&device);
    let certificate = device
        .home
        .write("state/software/devid.cert.pem", foreign());
    let wrong = found(&device, "identity.mismatch");
    let text = wrong["text"].as_str().unwrap();
    assert!(text.contains(certificate.to_str().unwrap()), "{wrong}");
    mend(&device, "identity.mismatch");
    assert_eq!(key(&device), first);

    // Without the key nothing is to be made that would take its place.
    let path = device.path("state/software/devid.key.pem");
    let kept = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(found(&device, "identity.mismatch")["command"].is_null());
    fs::write(&path, kept).unwrap();
    assert_eq!(key(&device), first);
    assert_gone(&device, "identity.mismatch");
}

#[test]
fn half_an_existing_identity_is_said_even_without_tpm() {
    let device = Device::without_tpm();
    let certificate = device.path("device.pem");
    let missing = device.path("device.key");
    let setting =
        format!("[provision]\nexisting = {{ certificate = {certificate:?}, key = {missing:?} }}\n");
    device
        .home
        .write("config.toml", format!("{setting}fallback = \"software\"\n"));
    device.home.write("device.pem", foreign());
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("device.key does not"), "{said}");
    let found = found(&device, "identity.existing");
    assert!(
        found["text"].as_str().unwrap().contains("device.key"),
        "{found}"
    );
    device.home.write("config.toml", SOFTWARE);
    assert_gone(&device, "identity.existing");
    device.ends(0, PROVISION);
}

#[test]
fn a_lying_marker_is_found_out() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let marker = device.path("state/tpm_in_use");
    let right = fs::read_to_string(&marker).unwrap();
    assert!(device.json(&["status"])["marker"].is_null());
    let other = "name = \"000b00\"\n";
    for lie in [None, Some(other), Some("")] {
        match lie {
            Some(text) => fs::write(&marker, text).unwrap(),
            None => fs::remove_file(&marker).unwrap(),
        }
        let status = device.ends(0, &["status"]).text();
        assert!(status.contains("marker"), "{status}");
        assert_eq!(found(&device, "marker")["state"], "problem");
        mend(&device, "marker");
        assert_eq!(fs::read_to_string(&marker).unwrap(), right);
    }
}

#[test]
fn a_marker_beside_a_software_identity_is_found_out() {
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    device.ends(0, PROVISION);
    let device = device.move_to(Some(Swtpm::blank()));
    device.home.write("state/tpm_in_use", "name = \"000b00\"\n");
    let before = key(&device);
    mend(&device, "marker");
    assert_eq!(key(&device), before);
}

/// A CA that certifies for this long; gives the certificate's file.
fn certified(device: &Device, request: &Path, from: &str, until: &str) -> PathBuf {
    let folder = device.path("authority");
    fs::create_dir_all(&folder).unwrap();
    device.certified(request, &folder);
    let settings = "[ca]\ndefault_ca = c\n[c]\ndatabase = index\nnew_certs_dir = .\n\
                    rand_serial = yes\ndefault_md = sha256\npolicy = p\npreserve = yes\n\
                    unique_subject = no\n[p]\nCN = optional\nO = optional\nserialNumber = optional\n";
    fs::write(folder.join("short.cnf"), settings).unwrap();
    fs::write(folder.join("index"), "").unwrap();
    let mut openssl = programs::program("openssl");
    openssl
        .current_dir(&folder)
        .args(["ca", "-batch", "-notext", "-config", "short.cnf"]);
    openssl.args([
        "-cert",
        "ca.pem",
        "-keyfile",
        "ca.key",
        "-out",
        "short.pem",
        "-in",
    ]);
    openssl
        .arg(request)
        .args(["-startdate", from, "-enddate", until]);
    programs::run(&mut openssl).ok();
    folder.join("short.pem")
}

#[test]
fn a_certificate_that_is_over_is_found_and_renewed_as_it_says() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    let first = key(&device);
    for (label, from, until, id) in [
        (
            "devid",
            "20240101000000Z",
            "20240201000000Z",
            "certificate.over",
        ),
        (
            "web",
            "20240101000000Z",
            "20240201000000Z",
            "certificate.over",
        ),
        (
            "web",
            "29990101000000Z",
            "29990201000000Z",
            "certificate.not-yet",
        ),
    ] {
        let request = device.path("old.csr");
        device.ends(0, &["csr", label, "--out", request.to_str().unwrap()]);
        let old = fs::read_to_string(certified(&device, &request, from, until)).unwrap();
        for file in files(&device, "certificate") {
            let text = fs::read_to_string(&file).unwrap();
            if text.contains(&format!("Label: {label}\n")) {
                fs::remove_file(file).unwrap();
            }
        }
        let named = format!("Label: {label}\n{old}");
        device.home.write("state/devid/certificate-old.pem", named);
        let over = found(&device, id);
        assert_eq!(
            (&over["object"], &over["state"]),
            (&label.into(), &"problem".into())
        );
        device.ends(1, &["doctor"]);
        if id == "certificate.over" {
            run(&device, over["command"].as_str().unwrap());
            let request = device.path(&format!("{label}.csr"));
            let renewed = device.certified(&request, &device.path("authority"));
            device.ends(0, &["import-cert", renewed.to_str().unwrap()]);
            assert_gone(&device, id);
        }
    }
    assert_eq!(key(&device), first);
}

/// Not root, and not of the group.
#[test]
fn whoever_may_not_is_told_who_may() {
    let device = Device::blank();
    let state = device.path("state");
    let nobody = programs::run(programs::program("setpriv").args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "true",
    ]));
    if !nobody.status.success() {
        return; // only root can become somebody else
    }
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(device.home.folder());
    open(&state);
    let mut other = programs::program("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    other.arg(env!("CARGO_BIN_EXE_devid")).args(PROVISION);
    let said = programs::run(device.home.settle(&mut other));
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(said.err.contains("run devid as root"), "{said}");
}
