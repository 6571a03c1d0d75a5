//! Losses in every order: nothing replaces an identity that existed, and a reset deletes all of its
//! parts.

use crate::device::link::Link;
use crate::device::{Device, programs};
use crate::device::{evict, files, persistent, tpm::Swtpm, tpm2};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const RESET: &[&str] = &["reset", "--factory", "--yes", "--wait", "0"];
const NV: &str = "[provision]\nnv_index = 0x01500000\n";
/// As the copy of our own is defined.
const OURS: &str = "ownerwrite|ppread|ownerread|authread|no_da";

/// The TPM name of what is at a handle.
fn name_at(device: &mut Device, handle: &str) -> String {
    let text = tpm2(device, "tpm2_readpublic", &["-c", handle]).text();
    text.lines().next().unwrap().to_owned()
}

fn read_nv(device: &mut Device) -> Vec<u8> {
    tpm2(device, "tpm2_nvread", &["-C", "o", "0x01500000"]).out
}

/// Puts bytes into the index that is to hold the copy.
fn write_nv(device: &mut Device, attributes: &str, content: &[u8]) {
    let file = device.home.write("content", content);
    let (file, size) = (file.to_str().unwrap().to_owned(), content.len().to_string());
    let define = ["-C", "o", "-s", &size, "-a", attributes, "0x01500000"];
    tpm2(device, "tpm2_nvdefine", &define);
    tpm2(
        device,
        "tpm2_nvwrite",
        &["-C", "o", "-i", &file, "0x01500000"],
    );
}

fn lose_folder(device: &Device) {
    fs::remove_dir_all(device.path("state/devid")).unwrap();
}

fn lose_marker(device: &Device) {
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
}

/// Somebody's certificate, DER.
fn strangers(device: &Device) -> Vec<u8> {
    let path = device.path("stranger");
    let path = path.to_str().unwrap();
    let make = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "/dev/null",
        "-subj",
        "/CN=stranger",
        "-outform",
        "DER",
        "-out",
        path,
    ];
    programs::run(programs::program("openssl").args(make)).ok();
    fs::read(path).unwrap()
}

#[test]
fn folder_and_marker_lost_make_no_other_identity() {
    for settings in ["", NV] {
        let mut device = Device::blank();
        device.home.write("config.toml", settings);
        device.ends(0, PROVISION);
        let copy = (settings == NV).then(|| read_nv(&mut device));
        lose_folder(&device);
        lose_marker(&device);
        let before = persistent(&mut device);
        let said = device.ends(6, PROVISION);
        assert!(
            said.err
                .contains("0x81000100, but the file of the key is missing"),
            "{said}"
        );
        device.ends(1, &["status"]);
        assert_eq!(persistent(&mut device), before);
        assert_eq!((settings == NV).then(|| read_nv(&mut device)), copy);
        assert!(!device.path("state/tpm_in_use").exists());
        device.ends(0, RESET);
        assert_eq!(
            persistent(&mut device),
            before,
            "the old key made room for the new one"
        );
        assert!(copy.is_none_or(|copy| copy != read_nv(&mut device)));
        device.ends(0, &["status"]);
    }
}

/// Keys of other kinds are no sign of an identity.
#[test]
fn a_services_key_that_lost_its_file_does_not_look_like_the_device() {
    let mut device = Device::blank();
    let service = [
        "key",
        "generate",
        "vpn",
        "--algorithm",
        "rsa2048",
        "--persistent",
    ];
    device.ends(0, &service);
    lose_folder(&device);
    device.ends(0, PROVISION);
    assert!(persistent(&mut device).contains("0x81000101"));
    device.ends(0, RESET);
    assert!(
        !persistent(&mut device).contains("0x81000101"),
        "all of ours is gone"
    );
}

#[test]
fn a_certificate_in_nv_is_all_that_is_left() {
    let mut device = Device::blank();
    device.home.write("config.toml", NV);
    device.ends(0, PROVISION);
    let copy = read_nv(&mut device);
    lose_folder(&device);
    lose_marker(&device);
    evict(&mut device, "0x81000100");
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("NV index 0x01500000"), "{said}");
    assert_eq!(read_nv(&mut device), copy);
    device.ends(0, RESET);
    assert_ne!(read_nv(&mut device), copy);
}

#[test]
fn nothing_of_somebody_elses_is_overwritten_in_nv() {
    let mut device = Device::blank();
    device.home.write("config.toml", NV);
    let stranger = strangers(&device);
    // A certificate that could be a lost identity's.
    write_nv(&mut device, OURS, &stranger);
    let said = device.ends(6, PROVISION);
    assert!(said.err.contains("stranger"), "{said}");
    assert!(!persistent(&mut device).contains("0x81000100"));
    // Beside an identity that is whole it is no reason not to use that.
    device.home.write("config.toml", "");
    device.ends(0, PROVISION);
    device.home.write("config.toml", NV);
    for content in [&stranger[..], &[7; 100]] {
        tpm2(&mut device, "tpm2_nvundefine", &["-C", "o", "0x01500000"]);
        write_nv(&mut device, OURS, content);
        let done = device.json(PROVISION);
        assert_eq!(done["steps"], Value::Array(Vec::new()), "{done}");
        let note = done["notes"][0].as_str().unwrap();
        assert!(note.contains("NV index 0x01500000 holds"), "{note}");
        assert_eq!(read_nv(&mut device), content);
        device.ends(0, &["status"]);
    }
}

#[test]
fn an_index_that_others_defined_is_read_and_not_written() {
    for link in [Link::Ours, Link::Tctildr] {
        let mut device = Device::blank();
        device.home.write("config.toml", NV);
        let tcti = device.tpm().tcti();
        device.home = device.home.with_tcti(&link.tcti(&tcti));
        let stranger = strangers(&device);
        // As EVE-OS defines it; or so that even the owner cannot read it.
        for attributes in ["ownerread|ownerwrite", "authread|ownerwrite"] {
            write_nv(&mut device, attributes, &stranger);
            let said = device.ends(0, PROVISION);
            assert!(said.text().contains("another program"), "{said}");
            device.ends(0, &["status"]);
            device.ends(0, RESET);
            device.ends(0, PROVISION);
            tpm2(&mut device, "tpm2_nvundefine", &["-C", "o", "0x01500000"]);
        }
        // The device's own certificate counts, whoever put it there, PEM or DER.
        device.ends(0, PROVISION);
        let own = files(&device, "certificate").remove(0);
        let pem = fs::read(&own).unwrap();
        tpm2(&mut device, "tpm2_nvundefine", &["-C", "o", "0x01500000"]);
        write_nv(&mut device, "ownerread|ownerwrite", &pem);
        fs::remove_file(&own).unwrap();
        let said = device.ends(0, PROVISION).text();
        assert!(
            said.contains("restored the certificate from NV memory"),
            "{said}"
        );
        assert!(!said.contains("note"), "{said}");
        assert_eq!(read_nv(&mut device), pem);
    }
}

#[test]
fn the_certificate_comes_back_from_nv() {
    let device = Device::blank();
    device.home.write("config.toml", NV);
    device.ends(0, PROVISION);
    let before = device.json(&["show", "devid"]);
    fs::remove_file(files(&device, "certificate").remove(0)).unwrap();
    let said = device.ends(0, PROVISION).text();
    assert!(
        said.contains("restored the certificate from NV memory"),
        "{said}"
    );
    let fingerprint = |shown: &Value| shown["certificates"][0]["sha256"].clone();
    let after = device.json(&["show", "devid"]);
    assert_eq!(fingerprint(&after), fingerprint(&before), "the very same");

    let fault = device
        .home
        .write("config.toml", "[provision]\nnv_index = 0x01C90200\n");
    assert!(
        device.ends(1, PROVISION).err.contains("0x01BFFFFF"),
        "{fault:?}"
    );
}

#[test]
fn a_reset_forgets_the_copy_even_where_none_is_written_again() {
    let mut device = Device::blank();
    device.home.write("config.toml", NV);
    device.ends(0, PROVISION);
    let indices = |device: &mut Device| tpm2(device, "tpm2_getcap", &["handles-nv-index"]).text();
    assert!(indices(&mut device).contains("0x1500000"));
    // Without a certificate there is nothing to copy.
    let request = device.path("r.csr");
    device.home.write("state/factory-reset", "");
    let words = ["--csr", request.to_str().unwrap()];
    device.ends(0, &[PROVISION, &words].concat());
    assert!(!indices(&mut device).contains("0x1500000"));
}

#[test]
fn a_marker_that_names_a_lost_key_is_believed() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    lose_folder(&device);
    let marker = fs::read(device.path("state/tpm_in_use")).unwrap();
    tpm2(&mut device, "tpm2_clear", &["-c", "p"]);
    let said = device.ends(6, PROVISION);
    assert!(
        said.err.contains("the marker names a key that is missing"),
        "{said}"
    );
    assert!(!persistent(&mut device).contains("0x81000100"));
    assert_eq!(fs::read(device.path("state/tpm_in_use")).unwrap(), marker);
    device.ends(0, RESET);
    device.ends(0, &["status"]);
    // A marker without key may belong to another program.
    let device = Device::blank();
    device.home.write("state/tpm_in_use", "");
    device.ends(0, PROVISION);
}

#[test]
fn after_a_reset_no_copy_of_a_key_loads_though_the_folder_was_lost_before() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let keys = files(&device, "key");
    let web = keys
        .iter()
        .map(text)
        .find(|text| text.contains("Label: web"))
        .unwrap();
    let master = name_at(&mut device, "0x81000080");
    lose_folder(&device);
    device.ends(6, PROVISION);
    device.ends(0, RESET);
    assert_ne!(name_at(&mut device, "0x81000080"), master);
    device.home.write("state/devid/key-web.pem", web);
    let said = device.ends(1, &["csr", "web"]);
    // The master key of this folder is there: the file is the one that does not belong to it.
    assert!(said.err.contains("another key than its parent"), "{said}");
    assert!(!said.err.contains("cleared or exchanged"), "{said}");
    // A new key gives this message too, and no wrong advice.
    tpm2(&mut device, "tpm2_clear", &["-c", "p"]);
    let said = device.ends(6, &["key", "generate", "vpn"]);
    assert!(said.err.contains("devid reset --factory --yes"), "{said}");
}

#[test]
fn a_reset_leaves_a_storage_key_of_somebody_elses_and_says_so() {
    let mut device = Device::blank();
    let (parent, child) = (device.path("parent.ctx"), device.path("child"));
    let (parent, child) = (parent.to_str().unwrap(), child.to_str().unwrap());
    let (public, private) = (format!("{child}.pub"), format!("{child}.priv"));
    let context = format!("{child}.ctx");
    let storage = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth";
    tpm2(
        &mut device,
        "tpm2_createprimary",
        &["-C", "o", "-c", parent],
    );
    let create = [
        "-C",
        parent,
        "-G",
        "rsa2048:aes128cfb",
        "-a",
        storage,
        "-u",
        &public,
        "-r",
        &private,
    ];
    tpm2(&mut device, "tpm2_create", &create);
    tpm2(&mut device, "tpm2_flushcontext", &["--transient-object"]);
    let load = ["-C", parent, "-u", &public, "-r", &private, "-c", &context];
    tpm2(&mut device, "tpm2_load", &load);
    for (key, why) in [
        (parent, "primary key"),
        (&context[..], "that devid did not create"),
    ] {
        tpm2(&mut device, "tpm2_flushcontext", &["--transient-object"]);
        tpm2(
            &mut device,
            "tpm2_evictcontrol",
            &["-C", "o", "-c", key, "0x81000080"],
        );
        tpm2(&mut device, "tpm2_flushcontext", &["--transient-object"]);
        let name = name_at(&mut device, "0x81000080");
        let said = device.ends(6, RESET);
        assert!(
            said.err.contains("0x81000080") && said.err.contains(why),
            "{said}"
        );
        assert!(
            said.err.contains("factory-reset"),
            "how to take it back: {said}"
        );
        assert_eq!(name_at(&mut device, "0x81000080"), name);
        evict(&mut device, "0x81000080");
    }
    device.ends(0, RESET);
}

#[test]
fn a_reset_ends_the_software_identity_too() {
    let settings = "[provision]\nfallback = \"software\"\n";
    let device = Device::without_tpm();
    device.home.write("config.toml", settings);
    device.ends(0, PROVISION);
    let key = device.path("state/software/devid.key.pem");
    let first = fs::read(&key).unwrap();
    device
        .home
        .write("state/software/devid.key.pem.pre-tpm", "older");
    device.ends(0, RESET);
    assert_ne!(fs::read(&key).unwrap(), first);
    assert!(!device.path("state/software/devid.key.pem.pre-tpm").exists());
    assert!(!device.path("state/factory-reset").exists());

    // And where a TPM came meanwhile.
    let mut device = device.move_to(Some(Swtpm::blank()));
    device.ends(0, RESET);
    assert_eq!(device.json(&["status"])["mode"], "tpm");
    let left = fs::read_dir(device.path("state/software")).unwrap();
    assert_eq!(
        left.count(),
        0,
        "nothing is put aside of what is to be gone"
    );
    assert!(persistent(&mut device).contains("0x81000100"));
}

#[test]
fn the_marker_chooses_among_keys() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let marker = || fs::read(device.path("state/tpm_in_use")).unwrap();
    let (first, key) = (marker(), files(&device, "key").remove(0));
    let aside = device.path("aside.pem");
    fs::rename(&key, &aside).unwrap();
    fs::remove_file(files(&device, "certificate").remove(0)).unwrap();
    lose_marker(&device);
    evict(&mut device, "0x81000100");
    device.ends(0, PROVISION);
    let second = fs::read(device.path("state/tpm_in_use")).unwrap();
    fs::rename(&aside, &key).unwrap();
    for named in [first, second] {
        for certificate in files(&device, "certificate") {
            fs::remove_file(certificate).unwrap();
        }
        device.home.write("state/tpm_in_use", &named);
        device.ends(0, PROVISION);
        let written = fs::read_to_string(device.path("state/tpm_in_use")).unwrap();
        let name = |text: &str| text.lines().last().unwrap().to_owned();
        assert_eq!(name(&written), name(&String::from_utf8(named).unwrap()));
        let listed = device.json(&["key", "list"]);
        let certified = listed.as_array().unwrap().iter();
        let certified: Vec<_> = certified
            .filter(|one| !one["certificates"].as_array().unwrap().is_empty())
            .map(|one| one["key"]["tpm_name"].as_str().unwrap())
            .collect();
        assert_eq!(certified.len(), 1, "{listed}");
        assert!(written.contains(certified[0]), "{written}");
    }
}

#[test]
fn a_reset_that_waits_for_its_tpm_says_how_to_take_it_back() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    device.tpm().shut_down();
    let said = device.ends(4, RESET);
    let request = device.path("state/factory-reset");
    assert!(
        said.err.contains(&format!("rm {}", request.display())),
        "{said}"
    );
}
