//! Certificate requests of the device, and the certificates that a CA returns.

use crate::device::tpm::Swtpm;
use crate::device::{Device, programs};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const SOFTWARE: &str = "[provision]\nfallback = \"software\"\n";

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn openssl(words: &[&str]) -> programs::Said {
    programs::run(programs::program("openssl").args(words)).ok()
}

/// The folder of a CA.
fn authority(device: &Device, name: &str) -> PathBuf {
    let folder = device.path(name);
    fs::create_dir(&folder).unwrap();
    folder
}

/// The answer of a CA: the leaf, then the certificates of its CAs.
fn answer(device: &Device, request: &Path, folder: &Path) -> PathBuf {
    let leaf = device.certified(request, folder);
    let parts = [leaf, folder.join("ca.pem"), folder.join("root.pem")];
    let all: Vec<u8> = parts
        .iter()
        .flat_map(|part| fs::read(part).unwrap())
        .collect();
    let name = format!(
        "{}.chain.pem",
        folder.file_name().unwrap().to_str().unwrap()
    );
    device.home.write(&name, all)
}

/// Labels of CA certificates.
fn authorities(device: &Device) -> Vec<String> {
    let listed = device.json(&["list"]);
    let all = listed["objects"].as_array().unwrap().iter();
    let of_authority = all.filter(|one| one["certificates"][0]["authority"] == Value::Bool(true));
    let mut labels: Vec<_> = of_authority
        .map(|one| one["label"].as_str().unwrap().to_owned())
        .collect();
    labels.sort();
    labels
}

fn request(device: &Device, label: &str) -> PathBuf {
    let path = device.path(&format!("{label}.csr"));
    device.ends(0, &["csr", label, "--out", &text(&path)]);
    path
}

fn der(certificate: &Path) -> Vec<u8> {
    openssl(&["x509", "-outform", "DER", "-in", &text(certificate)]).out
}

/// The content of the NV index.
fn copy(device: &mut Device) -> Vec<u8> {
    let mut read = device.tpm().tool("tpm2_nvread");
    programs::run(read.args(["-C", "o", "0x01500000"])).ok().out
}

#[test]
fn a_first_start_asks_a_ca_and_makes_no_certificate() {
    let mut device = Device::blank();
    device
        .home
        .write("config.toml", "[provision]\nnv_index = 0x01500000\n");
    let request = device.path("own.csr");
    let asked = ["--csr", &text(&request), "--subject", "CN=node,O=Example"];
    device.ends(0, &[PROVISION, &asked].concat());
    let shown = device.json(&["show", "devid"]);
    assert_eq!(shown["certificates"], Value::Array(Vec::new()));
    let subject = openssl(&["req", "-noout", "-subject", "-in", &text(&request)]).text();
    // Later releases of OpenSSL write no spaces there.
    let subject = subject.replace(" = ", "=");
    assert!(subject.contains("O=Example, CN=node"), "{subject}");

    let folder = authority(&device, "ca");
    let certificate = device.certified(&request, &folder);
    device.ends(0, &["import-cert", &text(&certificate)]);
    device.ends(0, PROVISION);
    assert_eq!(
        device.json(&["show", "devid"])["id"],
        shown["id"],
        "the same key"
    );
    assert_eq!(copy(&mut device), der(&certificate));
    // A renewed one takes its place at once.
    let folder = authority(&device, "renewed");
    let renewed = device.certified(&request, &folder);
    device.ends(0, &["import-cert", &text(&renewed)]);
    assert_eq!(copy(&mut device), der(&renewed));
}

#[test]
fn a_subject_is_what_the_certificate_names() {
    let device = Device::blank();
    device.ends(
        0,
        &[PROVISION, &["--subject", "CN=node,O=Example"]].concat(),
    );
    let shown = device.json(&["show", "devid"]);
    assert_eq!(shown["certificates"][0]["subject"], "CN=node,O=Example");
}

#[test]
fn a_software_identity_asks_a_ca_too() {
    let device = Device::without_tpm();
    device.home.write("config.toml", SOFTWARE);
    let request = device.path("own.csr");
    device.ends(0, &[PROVISION, &["--csr", &text(&request)]].concat());
    let certificate = device.path("state/software/devid.cert.pem");
    assert!(!certificate.exists(), "none was asked for");
    let key = fs::read(device.path("state/software/devid.key.pem")).unwrap();

    let folder = authority(&device, "ca");
    let first = answer(&device, &request, &folder);
    let said = device.ends(0, &["import-cert", &text(&first)]).text();
    assert!(said.contains("with its CA"), "{said}");
    device.ends(0, PROVISION);
    assert_eq!(device.json(&["status"])["mode"], "software");
    assert_eq!(
        fs::read(device.path("state/software/devid.key.pem")).unwrap(),
        key
    );
    assert_eq!(authorities(&device), ["devid-ca-1", "devid-ca-2"]);
    let root = folder.join("root.pem");
    device.ends(0, &["verify", "devid", "--ca", &text(&root)]);

    // The certificate again. Then a certificate of another CA, which replaces it together with its
    // chain.
    let said = device.ends(0, &["import-cert", &text(&first)]).text();
    assert!(
        said.contains("the certificate was already stored"),
        "{said}"
    );
    let leaf = device.certified(&request, &folder);
    device.ends(0, &["import-cert", &text(&leaf)]);
    assert_eq!(authorities(&device).len(), 2, "these lead up from it too");
    let folder = authority(&device, "other");
    let leaf = device.certified(&request, &folder);
    let said = device.ends(0, &["import-cert", &text(&leaf)]).text();
    assert!(said.contains("in place of"), "{said}");
    assert!(authorities(&device).is_empty());

    // When it moves to a TPM that appeared it takes nothing of that with it.
    device.ends(0, &["import-cert", &text(&first)]);
    let device = device.move_to(Some(Swtpm::blank()));
    fs::remove_file(&certificate).unwrap();
    device.ends(0, PROVISION);
    assert_eq!(device.json(&["status"])["mode"], "tpm");
    let left = fs::read_dir(device.path("state/software")).unwrap();
    let left: Vec<_> = left
        .map(|one| one.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.iter().all(|name| name.ends_with(".pre-tpm")),
        "{left:?}"
    );
    device.ends(0, &["prune"]);
    assert_eq!(
        fs::read_dir(device.path("state/software")).unwrap().count(),
        0
    );
}

#[test]
fn the_certificates_of_cas_come_and_go_with_those_they_issued() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    for label in ["web", "vpn"] {
        device.ends(0, &["key", "generate", label]);
    }
    let folder = authority(&device, "ca");
    let chain = answer(&device, &request(&device, "web"), &folder);
    // The file holds an unrelated certificate too.
    let foreign = authority(&device, "foreign");
    device.certified(&request(&device, "web"), &foreign);
    let mut all = fs::read(&chain).unwrap();
    all.extend(fs::read(foreign.join("root.pem")).unwrap());
    fs::write(&chain, all).unwrap();
    let said = device.ends(0, &["import-cert", &text(&chain)]).text();
    assert!(
        said.contains("not in the chain of the certificate"),
        "{said}"
    );
    assert_eq!(authorities(&device), ["web-ca-1", "web-ca-2"]);

    // Another key has a certificate of the same CA, so that is here already.
    let second = answer(&device, &request(&device, "vpn"), &folder);
    device.ends(0, &["import-cert", &text(&second)]);
    assert_eq!(authorities(&device), ["web-ca-1", "web-ca-2"]);
    // The first moves to another CA; what the second needs stays.
    let renewed = answer(&device, &request(&device, "web"), &foreign);
    device.ends(0, &["import-cert", &text(&renewed)]);
    assert_eq!(
        authorities(&device),
        ["web-ca-1", "web-ca-2", "web-ca-3", "web-ca-4"]
    );
    device.ends(0, &["key", "delete", "web", "--yes"]);
    assert_eq!(authorities(&device), ["web-ca-1", "web-ca-2"]);
    let ca = folder.join("root.pem");
    device.ends(0, &["verify", "vpn", "--ca", &text(&ca)]);
}

#[test]
fn a_renewal_by_another_ca_leaves_nothing_of_the_old_one() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let asked = request(&device, "devid");
    for name in ["one", "two", "three"] {
        let folder = authority(&device, name);
        let chain = answer(&device, &asked, &folder);
        device.ends(0, &["import-cert", &text(&chain)]);
        assert_eq!(authorities(&device).len(), 2, "{:?}", authorities(&device));
    }
}

#[test]
fn the_factorys_key_is_not_ours_to_delete_or_to_move() {
    let (device, _) = Device::manufactured();
    let before = device.json(&["show", "idev-id"]);
    let said = device.ends(6, &["key", "delete", "idev-id", "--yes"]);
    assert!(said.err.contains("cannot delete"), "{said}");
    let said = device.ends(6, &["persist", "idev-id", "--handle", "0x81020005"]);
    assert!(said.err.contains("already in handle 0x81020000"), "{said}");
    device.ends(0, &["persist", "idev-id"]);
    device.ends(0, &["persist", "idev-id", "--handle", "0x81020000"]);
    assert_eq!(device.json(&["show", "idev-id"]), before);
    device.ends(0, PROVISION);
    device.ends(6, &["persist", "devid", "--handle", "0x81020005"]);
}
