//! Devices that are made from one image: certificate names from variables, certificates that a CA
//! issues later, and clones.

use super::life::run_page;
use crate::device::programs::{self, Said};
use crate::device::tpm::Swtpm;
use crate::device::{Device, cut, files, machine, persistent};

const ID: &str = "0123456789abcdef0123456789abcdef\n";
const SERIAL: &str = "SN/42, \"A+B\"\n";

fn provision(device: &Device, id: Option<&str>, serial: Option<&str>, words: &[&str]) -> Said {
    let mut command = device.command(&[&["provision", "--wait", "0"][..], words].concat());
    programs::run(machine::on(device, id, serial, &mut command))
}

fn named(device: &Device, template: &str) {
    let settings = format!("[provision]\nfallback = \"software\"\nsubject = '{template}'\n");
    device.home.write("config.toml", settings);
}

fn subject(device: &Device) -> String {
    let shown = device.json(&["show", "devid"]);
    shown["certificates"][0]["subject"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn mode(device: &Device) -> String {
    device.json(&["status"])["mode"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn id(device: &Device) -> String {
    device.json(&["show", "devid"])["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn variables_name_each_device() {
    let (manufactured, _) = Device::manufactured();
    for (device, template, name) in [
        (
            Device::blank(),
            "CN=${machine-id},O=Example",
            "CN=0123456789abcdef0123456789abcdef,O=Example",
        ),
        (
            Device::without_tpm(),
            "CN=node-${machine-id}",
            "CN=node-0123456789abcdef0123456789abcdef",
        ),
        (
            Device::blank(),
            "CN=${dmi.serial},O=Example",
            "CN=SN/42\\, \\\"A\\+B\\\",O=Example",
        ),
        (
            manufactured,
            "serialNumber=${idev-id.serial},O=Example",
            "SERIALNUMBER=SN-000001,O=Example",
        ),
    ] {
        named(&device, template);
        let said = provision(&device, Some(ID), Some(SERIAL), &[]);
        assert_eq!(said.status.code(), Some(0), "{template}: {said}");
        assert_eq!(subject(&device), name);
    }
}

/// No certificate is made under another name, and no file is left.
#[test]
fn a_name_that_cannot_be_had_stops_before_anything_is_written() {
    let mut device = Device::blank();
    let long = format!("{}\n", "7".repeat(65));
    for (template, machine_id, serial, code, why) in [
        (
            "CN=${serial}",
            Some(ID),
            Some(SERIAL),
            1,
            "no variable ${serial}",
        ),
        (
            "CN=${machine-id",
            Some(ID),
            Some(SERIAL),
            1,
            "without a closing }",
        ),
        ("${machine-id}", Some(ID), Some(SERIAL), 1, "not a subject"),
        ("CN=${machine-id}", None, Some(SERIAL), 6, "/etc/machine-id"),
        ("CN=${machine-id}", Some("\n"), None, 6, "machine-id(5)"),
        (
            "CN=${machine-id}",
            Some("uninitialized\n"),
            None,
            6,
            "uninitialized",
        ),
        ("CN=${dmi.serial}", Some(ID), None, 6, "product_serial"),
        (
            "CN=${dmi.serial}",
            Some(ID),
            Some("\n"),
            6,
            "many devices have in common",
        ),
        (
            "CN=${dmi.serial}",
            Some(ID),
            Some("Default string\n"),
            6,
            "many devices have in common",
        ),
        (
            "CN=${dmi.serial}",
            Some(ID),
            Some("0000000\n"),
            6,
            "many devices have in common",
        ),
        (
            "CN=${dmi.serial}",
            Some(ID),
            Some("a\u{7}b\n"),
            6,
            "control characters",
        ),
        (
            "CN=${dmi.serial}",
            Some(ID),
            Some(&long),
            6,
            "64 characters",
        ),
        (
            "CN=${idev-id.serial}",
            Some(ID),
            None,
            6,
            "no factory identity",
        ),
    ] {
        named(&device, template);
        let said = provision(&device, machine_id, serial, &[]);
        let told = said.err.contains(why);
        assert!(
            told && said.status.code().is_some_and(|found| found != 0),
            "{template}: {said}"
        );
        if template.contains('}') && !template.contains("${serial}") && template.contains('=') {
            assert_eq!(said.status.code(), Some(code), "{template}: {said}");
        }
        assert_eq!(
            files(&device, ""),
            [] as [std::path::PathBuf; 0],
            "{template}"
        );
        assert!(!device.path("state/software").exists());
        let request = device.path("devid.csr");
        let csr = ["--csr", request.to_str().unwrap()];
        assert_ne!(
            provision(&device, machine_id, serial, &csr).status.code(),
            Some(0)
        );
        assert!(!request.exists() && !device.path("state/awaited-certificate").exists());
    }
    assert!(!persistent(&mut device).contains("0x8100"));
    // The option overrides the configuration, also with variables.
    let words = ["--subject", "CN=by-hand-${machine-id}"];
    assert_eq!(
        provision(&device, Some(ID), None, &words).status.code(),
        Some(0)
    );
    assert!(subject(&device).starts_with("CN=by-hand-0123"));
    // A name of before needs no value any more.
    named(&device, "CN=${dmi.serial}");
    assert_eq!(provision(&device, None, None, &[]).status.code(), Some(0));
}

#[test]
fn a_request_waits_for_its_answer_at_every_start() {
    for software in [false, true] {
        let device = match software {
            false => Device::blank(),
            true => Device::without_tpm(),
        };
        named(&device, "CN=${machine-id}");
        let request = device.path("devid.csr");
        let csr = ["--csr", request.to_str().unwrap()];
        let said = provision(&device, Some(ID), None, &csr);
        assert_eq!(said.status.code(), Some(0), "{said}");
        // No start certifies the key, whatever the machine is called then.
        for machine_id in [Some("fedcba9876543210fedcba9876543210\n"), None] {
            let said = provision(&device, machine_id, None, &[]);
            assert_eq!(said.status.code(), Some(0), "{said}");
            assert!(said.text().contains("waits for the certificate"), "{said}");
        }
        let certificates = device.json(&["show", "devid"]);
        assert_eq!(
            certificates["certificates"].as_array().map(Vec::len),
            Some(0)
        );
        let status = device.ends(1, &["status"]).text();
        assert!(status.contains("waits for the certificate"), "{status}");
        let doctor = device.devid(&["doctor"]).text();
        assert!(doctor.contains("waits for the certificate"), "{doctor}");
        assert!(!doctor.contains("PROBLEM  identity"), "{doctor}");
        // The request again, with the requested name.
        let again = device.path("again.csr");
        let csr = ["--csr", again.to_str().unwrap()];
        assert_eq!(provision(&device, None, None, &csr).status.code(), Some(0));
        let mut openssl = programs::program("openssl");
        openssl
            .args(["req", "-noout", "-subject", "-in"])
            .arg(&again);
        let said = programs::run(&mut openssl).ok().text();
        assert!(said.contains("CN = 0123456789abcdef"), "{said}");
        let key = id(&device);
        let certificate = device.certified(&request, device.home.folder());
        device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
        let said = provision(&device, None, None, &[]);
        assert!(!said.text().contains("waits"), "{said}");
        assert_eq!(id(&device), key);
        device.ends(0, &["status"]);
        // A self-signed certificate does not replace a certificate of a CA.
        let said = provision(&device, Some(ID), None, &["--new-certificate"]);
        assert_eq!(said.status.code(), Some(6), "{said}");
        let shown = device.json(&["show", "devid"]);
        let issued = &shown["certificates"][0];
        assert_ne!(issued["issuer"], issued["subject"]);
    }
}

#[test]
fn waiting_is_given_up_in_so_many_words_only() {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0", "--csr", "/dev/null"]);
    device.ends(1, &["status"]);
    let key = id(&device);
    device.ends(0, &["provision", "--wait", "0", "--new-certificate"]);
    device.ends(0, &["status"]);
    assert_eq!(id(&device), key);
    // A reset forgets the request too.
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0", "--csr", "/dev/null"]);
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    device.ends(0, &["status"]);
}

#[test]
fn a_run_that_is_killed_before_its_request_is_out_never_certifies_the_key() {
    for step in 1.. {
        let device = Device::blank();
        let mut command = device.command(&["provision", "--wait", "0", "--csr", "/dev/null"]);
        let end = cut::run_until(&mut command, step);
        if end != cut::End::Cut {
            assert!(step > 10, "{step}");
            break;
        }
        let waits = device.path("state/awaited-certificate").exists();
        device.ends(0, &["provision", "--wait", "0"]);
        let certified = !files(&device, "certificate-").is_empty();
        assert_eq!(certified, !waits, "step {step}");
        // A cut before the mark made no key.
        if certified {
            device.ends(0, &["status"]);
        }
    }
}

#[test]
fn a_new_certificate_is_made_by_a_command() {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    let (key, first) = (id(&device), device.json(&["show", "devid"]));
    let said = device.ends(
        0,
        &[
            "provision",
            "--wait",
            "0",
            "--new-certificate",
            "--subject",
            "CN=new",
        ],
    );
    assert!(said.text().contains("made a new certificate"), "{said}");
    assert_eq!((id(&device), subject(&device)), (key, "CN=new".into()));
    let now = device.json(&["show", "devid"]);
    assert_eq!(
        now["certificates"].as_array().map(Vec::len),
        Some(1),
        "{now}"
    );
    assert_ne!(
        now["certificates"][0]["sha256"],
        first["certificates"][0]["sha256"]
    );
    device.ends(0, &["status"]);
    // The factory's is its maker's.
    let (factory, _) = Device::manufactured();
    factory
        .home
        .write("config.toml", "[provision]\nown = false\n");
    factory.ends(6, &["provision", "--wait", "0", "--new-certificate"]);
}

/// Without a key of the device's own there is no request: that is said, and nothing is written.
#[test]
fn a_request_is_refused_where_the_device_has_no_key_of_its_own() {
    let (device, _) = Device::manufactured();
    device
        .home
        .write("config.toml", "[provision]\nown = false\n");
    let out = device.path("own.csr");
    for target in [out.to_str().unwrap(), "-"] {
        let said = device.ends(6, &["provision", "--wait", "0", "--csr", target]);
        assert!(said.err.contains("no request was written"), "{said}");
        assert!(said.err.contains("devid csr idev-id"), "{said}");
        assert!(said.out.is_empty() && !out.exists(), "{said}");
    }
    device.ends(0, &["provision", "--wait", "0"]);
    // Where there is no factory identity either, the same.
    let blank = Device::blank();
    blank
        .home
        .write("config.toml", "[provision]\nown = false\n");
    let said = blank.devid(&["provision", "--wait", "0", "--csr", "-"]);
    assert_ne!(said.status.code(), Some(0), "{said}");
    assert!(said.out.is_empty(), "{said}");
}

#[test]
fn a_software_identity_moves_to_its_tpm_with_a_new_certificate() {
    for leave in ["on-new-certificate", "never"] {
        let device = Device::without_tpm();
        let settings =
            format!("[provision]\nfallback = \"software\"\nleave_software = \"{leave}\"\n");
        device.home.write("config.toml", &settings);
        device.ends(0, &["provision", "--wait", "0"]);
        let first = id(&device);
        let device = device.move_to(Some(Swtpm::blank()));
        device.ends(0, &["provision", "--wait", "0"]);
        assert_eq!(
            (mode(&device), id(&device)),
            ("software".into(), first.clone())
        );
        device.ends(0, &["provision", "--wait", "0", "--new-certificate"]);
        let moved = leave != "never";
        assert_eq!(mode(&device) == "tpm", moved);
        assert_eq!(id(&device) != first, moved);
        let retired = device.path("state/software/devid.key.pem.pre-tpm");
        assert_eq!(retired.exists(), moved);
        device.ends(0, &["provision", "--wait", "0"]);
        assert_eq!(mode(&device) == "tpm", moved);
    }
    // With a CA the old identity serves until the answer is there.
    let device = Device::without_tpm();
    device
        .home
        .write("config.toml", "[provision]\nfallback = \"software\"\n");
    device.ends(0, &["provision", "--wait", "0"]);
    let device = device.move_to(Some(Swtpm::blank()));
    let request = device.path("devid.csr");
    let csr = request.to_str().unwrap();
    let words = [
        "provision",
        "--wait",
        "0",
        "--new-certificate",
        "--csr",
        csr,
    ];
    device.ends(0, &words);
    device.ends(0, &["provision", "--wait", "0"]);
    assert_eq!(mode(&device), "software");
    device.ends(0, &["status"]);
    let certificate = device.certified(&request, device.home.folder());
    device.ends(0, &["import-cert", certificate.to_str().unwrap()]);
    device.ends(0, &["provision", "--wait", "0"]);
    assert_eq!(mode(&device), "tpm");
    device.ends(0, &["status"]);
}

/// Each kill leaves the old identity or the new one.
#[test]
fn a_move_that_is_killed_leaves_an_identity() {
    let mut outcomes = [0, 0];
    for step in (1..).step_by(3) {
        let device = Device::without_tpm();
        device
            .home
            .write("config.toml", "[provision]\nfallback = \"software\"\n");
        device.ends(0, &["provision", "--wait", "0"]);
        let first = id(&device);
        let device = device.move_to(Some(Swtpm::blank()));
        let mut command = device.command(&["provision", "--wait", "0", "--new-certificate"]);
        let end = cut::run_until(&mut command, step);
        device.ends(0, &["provision", "--wait", "0"]);
        device.ends(0, &["status"]);
        let moved = mode(&device) == "tpm";
        outcomes[usize::from(moved)] += 1;
        if !moved {
            assert_eq!(
                device.json(&["show", "software/devid"])["id"],
                first.as_str()
            );
            device.ends(0, &["provision", "--wait", "0", "--new-certificate"]);
        }
        assert_eq!(mode(&device), "tpm", "step {step}");
        if end != cut::End::Cut {
            break;
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn what_the_page_says_of_images_and_clones() {
    let device = Device::blank();
    run_page(&device, "docs/IMAGES.md", "image");
    let device = Device::blank();
    run_page(&device, "docs/IMAGES.md", "waits");
    let settings = "[provision]\nfallback = \"software\"\n";
    // A clone has the files and another TPM; a restored backup has the files and the same TPM.
    let device = Device::blank();
    device.home.write("config.toml", settings);
    device.ends(0, &["provision", "--wait", "0"]);
    device.ends(0, &["key", "generate", "web"]);
    let clone = device.move_to(Some(Swtpm::blank()));
    run_page(&clone, "docs/IMAGES.md", "clone");
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    device.ends(0, &["key", "generate", "web"]);
    run_page(&device, "docs/IMAGES.md", "backup");
}
