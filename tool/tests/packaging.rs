//! What packages install: examples that are understood, units that systemd takes, pages for each
//! verb.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::{Device, programs};
use std::fs;
use std::path::{Path, PathBuf};

fn conf(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("pkcs11-conf").join(name)
}

#[track_caller]
fn assert_understood(device: &Device, text: &str) {
    device.home.write("config.toml", text);
    let findings = device.json(&["doctor"]);
    assert_eq!(findings[0]["text"], "it can be read", "{findings}\n{text}");
}

#[test]
fn the_examples_are_understood() {
    let device = Device::without_tpm();
    for example in ["router.toml", "ssr-vtpm.toml", "eve.toml"] {
        let text = fs::read_to_string(conf("examples").join(example)).unwrap();
        assert_understood(&device, &text);
    }
}

#[test]
fn every_setting_of_the_commented_file_is_understood() {
    let device = Device::without_tpm();
    let text = fs::read_to_string(conf("config.toml")).unwrap();
    let is_setting =
        |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let mut settings: Vec<&str> = text
        .lines()
        .filter(is_setting)
        .map(|line| &line[1..])
        .collect();
    assert!(settings.len() > 15, "{settings:?}");
    // The same setting is shown in both of its forms.
    settings.retain(|line| !line.starts_with("existing = {"));
    assert_understood(&device, &settings.join("\n"));
    let both = text
        .lines()
        .filter(is_setting)
        .find(|line| line.starts_with("#existing = {"));
    assert_understood(&device, &format!("[provision]\n{}", &both.unwrap()[1..]));
}

#[test]
fn each_verb_has_a_page_and_completions_know_it() {
    let device = Device::without_tpm();
    let folder = device.path("man");
    fs::create_dir(&folder).unwrap();
    device.ends(0, &["man", folder.to_str().unwrap()]);
    let completions = device.ends(0, &["completions", "bash"]).text();
    for verb in [
        "status",
        "verify",
        "provision",
        "import-cert",
        "doctor",
        "key-generate",
    ] {
        let page = fs::read_to_string(folder.join(format!("devid-{verb}.1"))).unwrap();
        for section in [".SH SYNOPSIS", ".SH EXAMPLES", ".SH \"SEE ALSO\""] {
            assert!(page.contains(section), "{verb}: {section}");
        }
        // Each page is read alone.
        assert!(!page.contains("As of"), "{verb}");
        assert!(page.contains("\\-\\-json"), "{verb}");
        assert!(
            completions.contains(verb.split('-').next_back().unwrap()),
            "{verb}"
        );
    }
    let main = fs::read_to_string(folder.join("devid.1")).unwrap();
    for section in ["\"EXIT STATUS\"", "FILES", "ENVIRONMENT", "EXAMPLES"] {
        assert!(main.contains(&format!(".SH {section}")), "{section}");
    }
    for word in ["config.toml", "tpm_in_use", "DEVID_PKCS11_STATE"] {
        assert!(main.contains(word), "{word}");
    }
    // Whoever adds a verb adds an example.
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        let holds_verbs = path.ends_with("devid-key.1");
        assert!(
            page.contains(".SH EXAMPLES") || holds_verbs,
            "{}",
            path.display()
        );
    }
}

/// What mandoc or man would complain about.
#[test]
fn the_pages_are_sound() {
    let Some(man) = ["mandoc", "groff"].into_iter().find(|name| has(name)) else {
        return;
    };
    let device = Device::without_tpm();
    let folder = device.path("man");
    fs::create_dir(&folder).unwrap();
    device.ends(0, &["man", folder.to_str().unwrap()]);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut check = programs::program(man);
        match man {
            "mandoc" => check.args(["-T", "lint", "-W", "error"]),
            _ => check.args(["-man", "-ww", "-z", "-T", "utf8"]),
        };
        let said = programs::run(check.arg(&path));
        assert!(said.status.success() && said.err.is_empty(), "{said}");
    }
}

fn has(name: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|folder| folder.join(name).exists())
}

/// Where systemd is there to ask.
#[test]
fn systemd_takes_the_unit() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        return;
    }
    let device = Device::without_tpm();
    let unit = fs::read_to_string(conf("systemd/devid-provision.service")).unwrap();
    let unit = unit.replace("/usr/bin/devid", env!("CARGO_BIN_EXE_devid"));
    let path = device.home.write("devid-provision.service", unit);
    let mut verify = programs::program("systemd-analyze");
    let said = programs::run(verify.args(["verify", "--man=no"]).arg(&path));
    let about_us = said
        .all()
        .lines()
        .filter(|line| line.contains("devid-provision"))
        .count();
    assert_eq!(about_us, 0, "{said}");
}
