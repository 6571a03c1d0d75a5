//! No file is skipped without a message: readable files are read, and the other files are named.

use crate::device::Device;
use crate::device::factory::Identity;
use crate::device::programs::{program, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const VERIFY: &[&str] = &["verify", "idev-id"];
const WARNING: &str = "devid: warning: ";

/// The certificate of the factory's CA, as PEM and as DER.
fn authority(identity: &Identity) -> (Vec<u8>, Vec<u8>) {
    let ca = identity.ca();
    let mut openssl = program("openssl");
    openssl
        .args(["x509", "-outform", "der", "-in"])
        .arg(ca.as_path());
    (fs::read(&ca).unwrap(), run(&mut openssl).ok().out)
}

fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.starts_with(WARNING))
        .collect()
}

fn warnings(document: &Value) -> Vec<&str> {
    let all = document["warnings"].as_array();
    let all = all.unwrap_or_else(|| panic!("no warnings: {document}"));
    all.iter().map(|one| one.as_str().unwrap()).collect()
}

/// Things that hold no certificate that is read, in `folder`.
fn unreadable(folder: &Path, pem: &[u8]) -> Vec<PathBuf> {
    let at = |name: &str| folder.join(name);
    symlink(at("nothing"), at("gone.pem")).unwrap();
    symlink(at("nothing"), at("gone.CRT")).unwrap();
    fs::create_dir(at("folder.cer")).unwrap();
    fs::create_dir(at("more")).unwrap();
    run(program("mkfifo").arg(at("pipe.der"))).ok();
    fs::write(at("empty.pem"), "").unwrap();
    fs::write(at("text.crt"), "no certificate").unwrap();
    for name in ["ca.txt", "ca.pem.disabled", "ca", "ca.p7b"] {
        fs::write(at(name), pem).unwrap();
    }
    let named = [
        "gone.pem",
        "gone.CRT",
        "folder.cer",
        "more",
        "pipe.der",
        "empty.pem",
        "text.crt",
        "ca.txt",
        "ca.pem.disabled",
        "ca",
        "ca.p7b",
    ];
    named.map(at).to_vec()
}

/// Files that editors and users leave in a folder.
fn leftovers(folder: &Path, pem: &[u8]) {
    for name in [
        "ca.pem~",
        ".ca.pem.swp",
        ".hidden.pem",
        "#ca.pem#",
        "README",
        "README.md",
    ] {
        fs::write(folder.join(name), pem).unwrap();
    }
}

#[test]
fn each_ending_and_form_is_trusted() {
    let (device, identity) = Device::manufactured();
    let (pem, der) = authority(&identity);
    for (name, content) in [
        ("ca.pem", &der),
        ("ca.PEM", &pem),
        ("ca.crt", &pem),
        ("ca.CRT", &der),
        ("ca.cer", &der),
        ("ca.Cer", &pem),
        ("ca.der", &der),
        ("ca.DER", &pem),
    ] {
        let file = device.path("trust").join(name);
        fs::write(&file, content).unwrap();
        let said = device.ends(0, VERIFY);
        assert!(!said.err.contains(name), "{said}");
        fs::remove_file(file).unwrap();
    }
    device.ends(3, VERIFY);
}

#[test]
fn what_of_trust_is_not_read_is_named() {
    let (device, identity) = Device::manufactured();
    let (pem, _) = authority(&identity);
    let folder = device.path("trust");
    leftovers(&folder, &pem);
    let said = device.ends(3, VERIFY);
    assert_eq!(lines(&said.err), [] as [&str; 0], "{said}");
    let named = unreadable(&folder, &pem);
    let said = device.ends(3, VERIFY);
    let told = lines(&said.err);
    assert_eq!(told.len(), named.len(), "{said}");
    for path in &named {
        let with_path = format!("{WARNING}{}: ", path.display());
        assert!(
            told.iter().any(|line| line.starts_with(&with_path)),
            "{path:?}: {said}"
        );
    }
    let said = device.ends(3, &[VERIFY, &["--json"]].concat());
    assert_eq!(lines(&said.err), [] as [&str; 0], "{said}");
    let report: Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(warnings(&report).len(), named.len(), "{report}");
    assert_eq!(report["verdict"], "cannot-be-verified");

    // A skipped file becomes readable, and the other files do not disturb it.
    fs::write(folder.join("nothing"), &pem).unwrap();
    let said = device.ends(0, VERIFY);
    assert!(!said.err.contains("gone.pem"), "{said}");
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let (device, _) = Device::manufactured();
    let name = "a\n\u{1B}[31mdevid: all is well.pem";
    fs::write(device.path("trust").join(name), "").unwrap();
    let said = device.ends(3, VERIFY);
    assert_eq!(lines(&said.err).len(), 1, "{said}");
    assert_eq!(said.err.lines().count(), 2, "and the verdict: {said}");
    assert!(!said.err.contains('\u{1B}'), "{said}");
    let report = device.json(VERIFY);
    assert!(warnings(&report)[0].contains(name), "{report}");
}

#[test]
fn the_chain_folder_is_read_alike() {
    let (device, identity) = Device::manufactured();
    let root = fs::read(identity.root()).unwrap();
    let folder = device.path("chain");
    fs::create_dir_all(&folder).unwrap();
    let authorities = |device: &Device| {
        let listed = device.json(&["list"]);
        let all = listed["objects"].as_array().unwrap().clone();
        let label = |one: &Value| one["label"].as_str().unwrap().starts_with("idev-id-ca");
        all.iter().filter(|one| label(one)).count()
    };
    let without = authorities(&device);
    fs::write(folder.join("root.CRT"), &root).unwrap();
    assert_eq!(authorities(&device), without + 1);
    leftovers(&folder, &root);
    assert_eq!(lines(&device.ends(0, &["list"]).err), [] as [&str; 0]);
    let named = unreadable(&folder, &root);
    let said = device.ends(0, &["list"]);
    for path in &named {
        let path = path.display().to_string();
        let told = lines(&said.err);
        let told = told
            .iter()
            .filter(|line| line.contains(&format!("{path}: ")));
        assert_eq!(told.count(), 1, "{path}: {said}");
    }
    let shown = device.json(&["show", "idev-id"]);
    assert_eq!(warnings(&shown).len(), named.len(), "{shown}");
}

#[test]
fn drop_ins_of_another_name_are_named() {
    let (device, _) = Device::manufactured();
    let folder = device.path("config.d");
    fs::create_dir_all(&folder).unwrap();
    for name in ["10-log.conf", "20.toml.disabled", "30.TOML"] {
        fs::write(folder.join(name), "nonsense").unwrap();
    }
    fs::write(folder.join("README"), "text").unwrap();
    fs::write(folder.join("40.toml~"), "text").unwrap();
    let said = device.ends(0, &["show", "idev-id"]);
    let told = lines(&said.err);
    assert_eq!(told.len(), 3, "{said}");
    for name in ["10-log.conf: ", "20.toml.disabled: ", "30.TOML: "] {
        assert!(
            told.iter().any(|line| line.contains(name)),
            "{name}: {said}"
        );
    }
    assert!(told[0].contains(".toml"), "what to do: {said}");
}

#[test]
fn files_of_the_key_folder_of_another_name_are_named() {
    let (device, _) = Device::manufactured();
    device.ends(0, &["key", "generate", "web"]);
    let folder = device.path("state/devid");
    let key = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let key = key.filter(|path| path.extension().is_some_and(|end| end == "pem"));
    let key = fs::read(key.last().unwrap()).unwrap();
    assert_eq!(
        lines(&device.ends(0, &["key", "list"]).err),
        [] as [&str; 0]
    );
    let names = ["a.tpm", "b.key", "c.tss", "d.PEM", "e.tss2"];
    for name in names {
        fs::write(folder.join(name), &key).unwrap();
    }
    fs::write(folder.join("web.pem~"), &key).unwrap();
    let said = device.ends(0, &["key", "list"]);
    let told = lines(&said.err);
    assert_eq!(told.len(), names.len(), "{said}");
    for name in names {
        assert!(
            told.iter().any(|line| line.contains(name)),
            "{name}: {said}"
        );
    }
    // An array has no field: the lines go to standard error.
    let said = device.ends(0, &["key", "list", "--json"]);
    assert!(
        serde_json::from_slice::<Value>(&said.out)
            .unwrap()
            .is_array()
    );
    assert_eq!(lines(&said.err).len(), names.len(), "{said}");
    let findings = device.json(&["doctor"]);
    for name in names {
        let path = folder.join(name).display().to_string();
        let one = finding(&findings, &path);
        assert_eq!(one["state"], "note", "{one}");
        assert!(one["mend"].as_str().unwrap().contains(".pem"), "{one}");
    }
}

/// The one finding about this path.
fn finding<'a>(findings: &'a Value, path: &str) -> &'a Value {
    let all = findings.as_array().unwrap();
    let here: Vec<_> = all.iter().filter(|one| one["object"] == path).collect();
    assert_eq!(here.len(), 1, "{path}: {findings}");
    here[0]
}

#[test]
fn the_doctor_names_each() {
    let (device, identity) = Device::manufactured();
    let (pem, der) = authority(&identity);
    for name in ["trust", "chain"] {
        let folder = device.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("sound.der"), &der).unwrap();
        leftovers(&folder, &pem);
        for path in unreadable(&folder, &pem) {
            let shown = path.display().to_string();
            let findings = device.json(&["doctor"]);
            let one = finding(&findings, &shown);
            let by_ending = ["pem", "CRT", "cer", "der", "crt"];
            let end = path.extension().unwrap_or_default().to_str().unwrap();
            let state = match by_ending.contains(&end) {
                true => "problem",
                false => "note",
            };
            assert_eq!(one["state"], state, "{one}");
            assert!(one["mend"].is_string(), "{one}");
        }
        let findings = device.json(&["doctor"]);
        for name in ["sound.der", "ca.pem~", "README", ".hidden.pem"] {
            let shown = folder.join(name).display().to_string();
            assert!(
                !findings.to_string().contains(&format!("{shown}\"")),
                "{findings}"
            );
        }
    }
    let drop_ins = device.path("config.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let conf = drop_ins.join("10-log.conf");
    fs::write(&conf, "x").unwrap();
    let findings = device.json(&["doctor"]);
    let one = finding(&findings, conf.to_str().unwrap());
    assert_eq!(one["state"], "note", "{one}");
    assert!(one["mend"].as_str().unwrap().contains(".toml"), "{one}");
}

#[test]
fn every_object_document_has_its_warnings() {
    let (device, identity) = Device::manufactured();
    device.trust(&identity.ca());
    for words in [
        &["status"][..],
        &["show", "idev-id"],
        VERIFY,
        &["uri", "idev-id"],
        &["prune"],
    ] {
        let document = device.json(words);
        assert_eq!(warnings(&document), [] as [&str; 0], "{words:?}");
    }
    let failed = device.json(&["show", "nobody"]);
    assert_eq!(failed["error"]["kind"], "not-found");
    assert_eq!(warnings(&failed), [] as [&str; 0]);
    let misused = device.json(&["show"]);
    assert_eq!(misused["error"]["kind"], "usage");
    assert_eq!(warnings(&misused), [] as [&str; 0]);
}
