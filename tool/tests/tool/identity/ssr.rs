//! A router on a virtual TPM. It looks for an existing identity, and makes an identity only if
//! there is none. Each further key is a separate own key.

use crate::device::Device;
use crate::device::programs;
use std::fs;
use std::path::Path;

const PROVISION: &[&str] = &["provision", "--wait", "0"];

fn labels(device: &Device) -> Vec<String> {
    let listed = device.json(&["key", "list"]);
    let all = listed.as_array().unwrap().iter();
    let mut labels: Vec<_> = all
        .map(|one| one["label"].as_str().unwrap().to_owned())
        .collect();
    labels.sort();
    labels
}

#[test]
fn where_nobody_made_one_there_is_one_identity_and_one_master_key() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web"]);
    device.ends(0, &["key", "generate", "vpn", "--algorithm", "rsa2048"]);
    device.ends(6, &["key", "generate", "web"]);
    device.ends(6, &["key", "generate", "devid"]);
    assert_eq!(labels(&device).len(), 3);
    let ids = device.json(&["key", "list"]);
    let mut ids: Vec<_> = ids
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each its own");
    let listed = device
        .tpm()
        .tool("tpm2_getcap")
        .arg("handles-persistent")
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    // The storage root key, the master key, the device's own; the others are on the disk.
    assert_eq!(listed.lines().count(), 3, "{listed}");

    let text = device.ends(0, &["export", "web", "--tss2"]).text();
    assert!(
        text.starts_with("-----BEGIN TSS2 PRIVATE KEY-----"),
        "{text}"
    );
    device.ends(6, &["key", "delete", "web"]);
    device.ends(6, &["key", "delete", "devid", "--yes"]);
    device.ends(0, &["key", "delete", "web", "--yes"]);
    assert_eq!(labels(&device), ["devid", "vpn"]);
}

#[test]
fn a_services_request_tells_nothing_of_the_device_and_the_devices_own_all() {
    let (device, _) = Device::manufactured();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web", "--algorithm", "p384"]);
    let text = |label: &str| {
        let request = device.path(&format!("{label}.csr"));
        let path = request.to_str().unwrap();
        device.ends(0, &["csr", label, "--out", path]);
        let mut openssl = programs::program("openssl");
        programs::run(openssl.args(["req", "-verify", "-noout", "-text", "-in", path]))
            .ok()
            .text()
            // Later releases of OpenSSL write no spaces there.
            .replace(" = ", "=")
    };
    let (web, own) = (text("web"), text("devid"));
    assert!(web.contains("Subject: CN=web\n"), "{web}");
    assert!(
        !web.contains("SN-000001") && !web.contains("Alternative"),
        "{web}"
    );
    assert!(own.contains("serialNumber=SN-000001"), "{own}");
    let names = ["1.3.6.1.5.5.7.8.4", "Hardware Module Name"];
    assert!(names.iter().any(|name| own.contains(name)), "{own}");
}

#[test]
fn a_certificate_is_taken_for_a_key_that_is_here_and_for_no_other() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let folder = device.path("authority");
    fs::create_dir(&folder).unwrap();
    let request = device.path("devid.csr");
    device.ends(0, &["csr", "devid", "--out", request.to_str().unwrap()]);
    let certificate = device.certified(&request, &folder);
    let before = device.json(&["show", "devid"]);

    let imported = device
        .ends(0, &["import-cert", certificate.to_str().unwrap()])
        .text();
    assert!(imported.contains("in place of"), "{imported}");
    let after = device.json(&["show", "devid"]);
    assert_eq!(after["certificates"].as_array().unwrap().len(), 1);
    assert_ne!(after["certificates"], before["certificates"]);
    assert_eq!(after["id"], before["id"]);
    device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    device.ends(
        0,
        &[
            "verify",
            "devid",
            "--ca",
            folder.join("ca.pem").to_str().unwrap(),
        ],
    );
    device.ends(0, &["status"]);

    // Another device's.
    let other = Device::blank();
    other.ends(0, PROVISION);
    let refused = other.ends(6, &["import-cert", certificate.to_str().unwrap()]);
    assert!(refused.err.contains("nothing was changed"), "{refused}");
    device.home.write("garbage", "garbage");
    device.ends(
        1,
        &["import-cert", device.path("garbage").to_str().unwrap()],
    );
    assert_eq!(device.json(&["show", "devid"]), after);
}

#[test]
fn a_clouds_identity_is_used_if_it_can_be_trusted() {
    let device = Device::blank();
    let folder = device.path("authority");
    fs::create_dir(&folder).unwrap();
    let request = device.path("cloud.csr");
    device.home.write(
        "config.toml",
        "[provision]\nexisting = \"pkcs11:token=devid;object=cloud;type=private\"\n",
    );
    // The cloud's own work, as it happens to be done with the same tool.
    device.ends(0, &["key", "generate", "cloud"]);
    device.ends(0, &["csr", "cloud", "--out", request.to_str().unwrap()]);
    let refused = device.ends(6, PROVISION);
    assert!(
        refused.err.contains("the key has no certificate"),
        "{refused}"
    );
    let certificate = device.certified(&request, &folder);
    device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    let refused = device.ends(6, PROVISION);
    assert!(refused.err.contains("not trusted"), "{refused}");
    assert_eq!(labels(&device), ["cloud"], "and nothing was made beside it");

    device.trust(&folder.join("ca.pem"));
    device.ends(0, PROVISION);
    assert_eq!(labels(&device), ["cloud"]);
    assert_eq!(device.json(&["status"])["mode"], "tpm");
    device.home.write(
        "config.toml",
        "[provision]\nexisting = \"pkcs11:token=idev-id;object=idev-id\"\n",
    );
    let refused = device.ends(6, PROVISION);
    assert!(
        refused.err.contains("names the factory identity"),
        "{refused}"
    );
    // Named and nowhere: then there is none, and the device makes its own.
    device.home.write(
        "config.toml",
        "[provision]\nexisting = \"pkcs11:token=devid;object=azure\"\n",
    );
    device.ends(0, PROVISION);
    assert_eq!(labels(&device), ["cloud", "devid"]);
}

#[test]
fn an_identity_in_files_is_used_as_a_whole_or_not_at_all() {
    let device = Device::blank();
    let folder = device.path("authority");
    fs::create_dir(&folder).unwrap();
    let (key, request) = (device.path("cloud.key"), device.path("cloud.csr"));
    let openssl = |words: &[&str]| programs::run(programs::program("openssl").args(words)).ok();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        &text(&key),
        "-subj",
        "/CN=cloud",
        "-out",
        &text(&request),
    ]);
    let certificate = device.certified(&request, &folder);
    device.trust(&folder.join("root.pem"));
    let whole = fs::read_to_string(&certificate).unwrap()
        + &fs::read_to_string(folder.join("ca.pem")).unwrap();
    fs::write(&certificate, whole).unwrap();
    device.home.write(
        "config.toml",
        format!("[provision]\nexisting = {{ certificate = {certificate:?}, key = {key:?} }}\n"),
    );
    device.ends(0, PROVISION);
    assert_eq!(device.json(&["status"])["mode"], "software");
    assert!(labels(&device).is_empty());
    fs::rename(&key, device.path("hidden.key")).unwrap();
    let refused = device.ends(6, PROVISION);
    assert!(refused.err.contains("cloud.key does not"), "{refused}");
    assert!(labels(&device).is_empty());
}

/// A key by `openssl genpkey` in every form that OpenSSL writes, and a certificate for it.
#[test]
fn the_key_of_an_identity_in_files_may_be_of_every_kind_that_is_used_in_memory() {
    let device = Device::blank();
    let folder = device.path("authority");
    fs::create_dir(&folder).unwrap();
    let path = |name: &str| device.path(name).to_str().unwrap().to_owned();
    let openssl = |words: &[&str]| programs::run(programs::program("openssl").args(words)).ok();
    let (made, key, request) = (path("made.key"), path("cloud.key"), path("cloud.csr"));
    let provisioned = |certificate: &Path| {
        device.home.write(
            "config.toml",
            format!("[provision]\nexisting = {{ certificate = {certificate:?}, key = {key:?} }}\n"),
        );
        device.devid(PROVISION)
    };
    let curve = |name| ["-algorithm", "EC", "-pkeyopt", name];
    for (algorithm, old) in [
        (curve("ec_paramgen_curve:P-256"), "ec"),
        (curve("ec_paramgen_curve:P-384"), "ec"),
        (curve("ec_paramgen_curve:P-521"), "ec"),
        (
            ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "rsa",
        ),
    ] {
        openssl(&[&["genpkey", "-out", &made], &algorithm[..]].concat());
        openssl(&[
            "req",
            "-new",
            "-key",
            &made,
            "-subj",
            "/CN=cloud",
            "-out",
            &request,
        ]);
        let certificate = device.certified(Path::new(&request), &folder);
        device.trust(&folder.join("ca.pem"));
        let pkcs8 = ["pkcs8", "-topk8", "-in", &made, "-out", &key];
        let pkcs8 = |more: &[&str]| openssl(&[&pkcs8[..], more].concat());
        pkcs8(&["-nocrypt"]);
        provisioned(&certificate).ok();
        let said = device.ends(0, &["verify", "existing"]).text();
        assert!(said.contains("key: it signed random bytes"), "{said}");
        let traditional = match old {
            "rsa" => &["rsa", "-traditional"][..],
            other => &[other],
        };
        let convert = ["-in", &made, "-out", &key];
        openssl(&[traditional, &convert[..]].concat());
        let text = fs::read_to_string(&key).unwrap();
        assert!(
            text.contains(&format!("BEGIN {} PRIVATE", old.to_uppercase())),
            "{text}"
        );
        provisioned(&certificate).ok();
        // As openssl ecparam -genkey writes it, and with the lines of another system.
        let before =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        fs::write(&key, format!("{before}{text}").replace('\n', "\r\n")).unwrap();
        provisioned(&certificate).ok();
        assert_eq!(device.json(&["status"])["mode"], "software");

        for encrypted in [
            [
                traditional,
                &convert,
                &["-aes256", "-passout", "pass:secret"],
            ]
            .concat(),
            ["pkcs8", "-topk8"]
                .into_iter()
                .chain(convert)
                .chain(["-passout", "pass:secret"])
                .collect(),
        ] {
            openssl(&encrypted);
            let refused = provisioned(&certificate);
            assert!(refused.err.contains("is encrypted"), "{refused}");
            assert!(refused.err.contains("cloud.key"), "{refused}");
        }
        openssl(&["genpkey", "-algorithm", "ED25519", "-out", &key]);
        let refused = provisioned(&certificate);
        let named = "Ed25519 (1.3.101.112)";
        assert!(refused.err.contains(named), "{refused}");
        pkcs8(&["-nocrypt"]);
    }
    assert!(labels(&device).is_empty());
}
