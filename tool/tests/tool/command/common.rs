//! Options of every verb: `-v`, `-q` and `--config`.

use crate::device::Device;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A verb of each kind.
const VERBS: &[&[&str]] = &[
    &["status"],
    &["list"],
    &["show", "web"],
    &["verify", "web"],
    &["doctor"],
    &["provision", "--wait", "0"],
    &["reset", "--factory", "--yes"],
    &["prune"],
    &["key", "generate", "web"],
    &["key", "list"],
    &["key", "delete", "web", "--yes"],
    &["master", "renew"],
    &["csr", "web"],
    &["import-cert", "/nonexistent"],
    &["export", "web", "--tss2"],
    &["sign", "web", "/nonexistent", "--raw"],
    &["persist", "web"],
    &["uri", "web"],
];

fn without_config(device: &Device, words: &[&str]) -> Command {
    let mut command = device.command(words);
    command.env_remove("DEVID_PKCS11_CONFIG");
    command
}

/// The file counts for every verb, before the variable, in every place of the line.
#[test]
fn a_file_of_settings_counts_for_every_verb() {
    let device = Device::without_tpm();
    let other = device.home.write("other.toml", "tcit = 1\n");
    let other = other.to_str().unwrap();
    for words in VERBS {
        for line in [
            [&["--config", other], *words].concat(),
            [*words, &["--config", other]].concat(),
        ] {
            let said = device.ends(1, &line);
            assert!(said.all().contains("other.toml:1: "), "{line:?}: {said}");
        }
    }
    // And it is what is in force.
    let state = device.path("elsewhere");
    fs::create_dir(&state).unwrap();
    device
        .home
        .write("other.toml", format!("state = {state:?}\n"));
    let mut command = device.command(&["doctor", "--json", "--config", "other.toml"]);
    command
        .env_remove("DEVID_PKCS11_STATE")
        .current_dir(device.home.folder());
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.contains("elsewhere"), "{text}");
}

/// A user who copies a command means the same device.
#[test]
fn a_printed_command_names_the_file() {
    let device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    let config = device.path("config.toml");
    let config = config.to_str().unwrap();
    let said = device.ends(6, &["--config", config, "key", "delete", "web"]);
    let command = format!("devid --config {config} key delete --yes web");
    assert!(said.err.contains(&command), "{said}");
    let said = device.ends(6, &["--config", config, "reset", "--factory", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&said.out).unwrap();
    let text = document["error"]["text"].as_str().unwrap();
    assert!(
        text.contains(&format!("devid --config {config} reset")),
        "{text}"
    );
}

/// The file is trusted by the rules of the usual file.
#[test]
fn a_file_that_others_may_write_is_not_obeyed() {
    let device = Device::without_tpm();
    let other = device.home.write("other.toml", "");
    let mode = |bits| fs::set_permissions(&other, fs::Permissions::from_mode(bits)).unwrap();
    mode(0o666);
    let by_option = device.ends(1, &["list", "--config", other.to_str().unwrap()]);
    let mut command = without_config(&device, &["list"]);
    let by_variable = command.env("DEVID_PKCS11_CONFIG", &other).output().unwrap();
    assert_eq!(by_option.err, String::from_utf8_lossy(&by_variable.stderr));
    assert!(by_option.err.contains("other.toml"), "{by_option}");
    mode(0o644);
    device.ends(4, &["list", "--config", other.to_str().unwrap()]);
    for missing in ["/nonexistent/config.toml", "/dev/null/x"] {
        let said = device.ends(1, &["list", "--config", missing]);
        assert!(said.err.contains(missing), "{said}");
    }
    device.ends(2, &["list", "--config", ""]);
    device.ends(2, &["list", "--config"]);
}

#[test]
fn verbose_says_with_its_level_what_is_done() {
    let device = Device::blank();
    let lines = |words: &[&str]| -> Vec<String> {
        let said = device.ends(0, words);
        said.err.lines().map(str::to_owned).collect()
    };
    let quiet = lines(&["provision", "--wait", "0"]);
    assert!(quiet.is_empty(), "{quiet:?}");
    let is_of = |level: &str| {
        let begin = format!("devid: {level}: ");
        move |line: &String| line.starts_with(&begin)
    };
    let informed = lines(&["provision", "--wait", "0", "-v"]);
    assert!(informed.iter().any(is_of("info")), "{informed:?}");
    assert!(!informed.iter().any(is_of("debug")), "{informed:?}");
    for words in [
        &["-vv", "list"][..],
        &["list", "-v", "-v"],
        &["list", "--verbose", "--verbose"],
    ] {
        let all = lines(words);
        assert!(all.iter().any(is_of("debug")), "{words:?}: {all:?}");
        let is_known = |line: &String| {
            ["info", "debug", "warning"]
                .iter()
                .any(|level| is_of(level)(line))
        };
        assert!(all.iter().all(is_known), "{all:?}");
    }
    // The document stands alone.
    let said = device.ends(0, &["list", "-vv", "--json"]);
    serde_json::from_slice::<serde_json::Value>(&said.out).unwrap();
    device.ends(2, &["list", "-v", "-q"]);
}

#[test]
fn quiet_says_errors_and_what_was_asked_for() {
    let device = Device::blank();
    device.home.write("config.d/extra.conf", "");
    let warned = device.ends(0, &["provision", "--wait", "0"]);
    assert!(warned.err.contains("warning: "), "{warned}");
    assert!(!warned.text().is_empty(), "{warned}");
    for words in [
        &["provision", "--wait", "0", "-q"][..],
        &["key", "generate", "web", "--quiet"],
        &["-q", "key", "delete", "web", "--yes"],
        &["prune", "-q"],
    ] {
        let said = device.ends(0, words);
        assert_eq!(said.all(), "", "{words:?}");
    }
    for words in [
        &["list", "-q"][..],
        &["show", "devid", "-q"],
        &["uri", "devid", "-q"],
    ] {
        let said = device.ends(0, words);
        assert!(!said.text().is_empty() && said.err.is_empty(), "{said}");
    }
    let said = device.ends(5, &["-q", "show", "nosuch"]);
    assert!(said.err.starts_with("devid: nosuch: not found"), "{said}");
    // A program that asks for the document gets all of it.
    let document = device.json(&["-q", "provision", "--wait", "0"]);
    assert_eq!(
        document["warnings"].as_array().unwrap().len(),
        1,
        "{document}"
    );
}
