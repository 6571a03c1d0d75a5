//! Output files that a user names: no content is lost without `--force`.

use crate::device::Device;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAMCAQc=\n-----END PRIVATE KEY-----\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn device() -> Device {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    for label in ["web", "mail"] {
        device.ends(0, &["key", "generate", label]);
    }
    device
}

/// Each verb that writes a file, and how what it writes begins.
fn writers(path: &str) -> [(Vec<&str>, &'static str); 5] {
    [
        (
            vec!["csr", "web", "--out", path],
            "-----BEGIN CERTIFICATE REQUEST",
        ),
        (
            vec!["export", "web", "--tss2", "--out", path],
            "-----BEGIN TSS2 PRIVATE KEY",
        ),
        (
            vec!["uri", "web", "--pem", path],
            "-----BEGIN PKCS#11 PROVIDER URI",
        ),
        (
            vec!["uri2pem", "pkcs11:token=devid", "--out", path],
            "-----BEGIN PKCS#11 PROVIDER URI",
        ),
        (
            vec!["provision", "--wait", "0", "--csr", path],
            "-----BEGIN CERTIFICATE REQUEST",
        ),
    ]
}

#[test]
fn no_verb_replaces_a_key_or_an_unrelated_file() {
    let device = device();
    let path = device.path("out");
    for (words, begins) in writers(text(&path)) {
        for old in [
            KEY,
            "notes\n",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&path, old).unwrap();
            let said = device.ends(6, &words);
            assert!(said.err.contains("--force"), "{said}");
            assert!(said.err.contains(text(&path)), "{said}");
            assert_eq!(said.err.contains("private key"), old == KEY, "{said}");
            assert_eq!(said.text(), "", "{words:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), old, "{words:?}");
        }
        // Replacing an equal file or an empty file loses nothing.
        device.ends(0, &[&words[..], &["--force"]].concat());
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.starts_with(begins), "{words:?}: {written}");
        device.ends(0, &words);
        fs::write(&path, "").unwrap();
        device.ends(0, &words);
        fs::remove_file(&path).unwrap();
        device.ends(0, &words);
        fs::remove_file(&path).unwrap();
    }
    // Another key's request may go; another key may not.
    device.ends(0, &["csr", "mail", "--out", text(&path)]);
    device.ends(0, &["csr", "web", "--out", text(&path)]);
    fs::remove_file(&path).unwrap();
    device.ends(0, &["export", "mail", "--tss2", "--out", text(&path)]);
    let kept = fs::read(&path).unwrap();
    device.ends(6, &["export", "web", "--tss2", "--out", text(&path)]);
    assert_eq!(fs::read(&path).unwrap(), kept);
    let left = |name: &str| name.starts_with(".new-");
    let names = fs::read_dir(device.home.folder()).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.any(|name| left(&name)));
}

/// A refusal comes before the work: no key is made for a request that has no place.
#[test]
fn a_refused_file_leaves_the_device_as_it_is() {
    let device = Device::blank();
    let path = device.home.write("out", KEY);
    device.ends(6, &["provision", "--wait", "0", "--csr", text(&path)]);
    assert!(!device.path("state/devid").exists());
    assert!(!device.path("state/tpm_in_use").exists());
}

#[test]
fn pages_of_the_manual_replace_pages_only() {
    let device = Device::without_tpm();
    let folder = device.path("man");
    fs::create_dir(&folder).unwrap();
    let words = ["man", text(&folder)];
    device.ends(0, &words);
    device.ends(0, &words);
    let page = folder.join("devid-show.1");
    fs::write(&page, KEY).unwrap();
    fs::remove_file(folder.join("devid.1")).unwrap();
    let said = device.ends(6, &words);
    assert!(said.err.contains("devid-show.1"), "{said}");
    assert!(!folder.join("devid.1").exists(), "nothing was written");
    device.ends(0, &[&words[..], &["--force"]].concat());
    assert!(fs::read_to_string(page).unwrap().contains(".SH"));
}

/// Links, pipes, devices and open files are written through.
#[test]
fn what_is_no_file_is_written_into() {
    let device = device();
    let (target, link) = (device.path("target"), device.path("link"));
    fs::write(&target, "").unwrap();
    symlink(&target, &link).unwrap();
    for (words, begins) in writers(text(&link)) {
        fs::write(&target, "").unwrap();
        device.ends(0, &words);
        assert!(link.is_symlink());
        assert!(fs::read_to_string(&target).unwrap().starts_with(begins));
        fs::write(&target, KEY).unwrap();
        device.ends(6, &words);
        assert_eq!(fs::read_to_string(&target).unwrap(), KEY);
    }
    for (words, _) in writers("/dev/null") {
        device.ends(0, &words);
    }
    for (words, _) in writers("/dev/full") {
        let said = device.ends(1, &words);
        assert!(said.err.contains("No space left"), "{said}");
    }
    for (words, _) in writers(text(device.home.folder())) {
        let said = device.ends(1, &words);
        assert!(said.err.contains("folder"), "{said}");
    }
    let nowhere = device.path("nowhere");
    symlink("none", &nowhere).unwrap();
    for (words, _) in writers(text(&nowhere)) {
        device.ends(1, &words);
    }
}

/// A dash is standard output; so are the names that shells have for it. `>>` stays what it is.
#[test]
fn a_dash_is_standard_output() {
    let device = device();
    for name in ["-", "/dev/stdout", "/dev/fd/1"] {
        for (words, begins) in writers(name) {
            let said = device.ends(0, &words);
            assert!(said.text().starts_with(begins), "{words:?}: {said}");
            assert_eq!(said.text().matches("-----BEGIN").count(), 1, "{said}");
            assert!(said.text().ends_with("-----\n"), "{said}");
            let document = device.json(&words);
            let file = document.get("file").unwrap_or(&serde_json::Value::Null);
            assert!(file.is_null(), "{document}");
        }
        let all = device.home.write("all.pem", KEY);
        let file = fs::OpenOptions::new().append(true).open(&all).unwrap();
        let mut command = device.command(&["csr", "web", "--out", name]);
        assert!(command.stdout(file).status().unwrap().success());
        let all = fs::read_to_string(all).unwrap();
        assert!(
            all.starts_with(KEY) && all.contains("CERTIFICATE REQUEST"),
            "{all}"
        );
    }
    assert!(!device.path("-").exists());
}
