//! Names of objects: every verb reads labels, `token/label`, identifiers and URIs in the same way.
//! An ambiguous name never selects an object by chance.

use crate::device::Device;
use serde_json::Value;
use std::fs;

const EXTRA: &str = "[[token]]\nname = \"extra\"\n";

/// The file of an own key.
fn file_of(device: &Device, name: &str) -> String {
    let shown = device.json(&["show", name]);
    let place = shown["key"]["place"].as_str().unwrap();
    place.rsplit("wrapped in ").next().unwrap().to_owned()
}

/// Gives a key another label, as applications can.
fn relabel(device: &Device, name: &str, label: &str) {
    let file = file_of(device, name);
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("Label: ") {
        true => format!("Label: {label}\n"),
        false => format!("{line}\n"),
    });
    fs::write(&file, lines.collect::<String>()).unwrap();
}

fn ids(shown: &Value) -> (&Value, &Value) {
    (&shown["token"], &shown["id"])
}

/// Whoever can be shown by a name can be made, used and deleted by it.
#[test]
fn a_name_means_the_same_to_every_verb() {
    let device = Device::blank();
    device.home.write("config.toml", EXTRA);
    for (name, token, label) in [
        ("web", "devid", "web"),
        ("devid/mail", "devid", "mail"),
        ("extra/web", "extra", "web"),
        ("a/b", "devid", "a/b"),
        ("/a", "devid", "/a"),
        ("a/", "devid", "a/"),
        ("devid/devid/x", "devid", "devid/x"),
        ("extra/a/b", "extra", "a/b"),
        ("extra/devid", "extra", "devid"),
        ("pkcs11:token=extra;object=by%20uri", "extra", "by uri"),
        ("pkcs11:object=u;type=private", "devid", "u"),
    ] {
        let made = device.json(&["key", "generate", name]);
        assert_eq!(
            (&made["token"], &made["label"]),
            (&token.into(), &label.into()),
            "{name}"
        );
        let said = device.ends(6, &["key", "generate", name]);
        assert!(said.err.contains("already"), "{said}");
        let other = format!("{token}/{label}");
        let id = made["id"].as_str().unwrap();
        let by_id = format!("{token}/{id}");
        let uri = device.ends(0, &["uri", &other]).text();
        for name in [name, &other, &by_id, uri.trim()] {
            assert_eq!(ids(&device.json(&["show", name])), ids(&made), "{name}");
            device.ends(0, &["csr", name]);
            device.ends(0, &["export", name, "--tss2"]);
            device.ends(0, &["persist", name]);
            let said = device.ends(5, &["verify", name]);
            assert!(said.err.contains("this key has no certificate"), "{said}");
            assert_eq!(device.ends(0, &["uri", name]).text(), uri, "{name}");
            device.ends(6, &["key", "delete", name]);
        }
        device.ends(0, &["key", "delete", name, "--yes"]);
        device.ends(5, &["show", name]);
    }
    let listed = device.json(&["key", "list"]);
    assert_eq!(listed, Value::Array(Vec::new()));
}

/// A token in front is always the token: what bears both names as its label is not meant.
#[test]
fn the_part_before_the_slash_is_a_token_if_there_is_one() {
    let device = Device::blank();
    device.home.write("config.toml", EXTRA);
    device.ends(0, &["key", "generate", "devid/extra/web"]);
    let said = device.ends(5, &["key", "delete", "extra/web", "--yes"]);
    assert!(said.err.contains("the token extra is empty"), "{said}");
    assert_eq!(
        device.json(&["show", "devid/extra/web"])["label"],
        "extra/web"
    );
    let said = device.ends(5, &["show", "devid/nosuch"]);
    assert!(said.err.contains("there are devid/extra/web"), "{said}");
    for name in ["idev-id/web", "sessions/web", "software/web"] {
        let said = device.ends(6, &["key", "generate", name]);
        assert!(said.err.contains("accept new keys: devid, extra"), "{said}");
    }
    for (name, part) in [
        ("pkcs11:token=devid", "object: "),
        ("pkcs11:object=a;id=%01", "id: "),
        ("pkcs11:object=a;type=cert", "type: "),
        ("pkcs11:object=a;tokne=b", "tokne"),
        ("devid/", "printable"),
    ] {
        let said = device.ends(2, &["key", "generate", name]);
        assert!(said.err.contains(part), "{name}: {said}");
    }
    device.ends(6, &["key", "generate", "pkcs11:token=other;object=a"]);
}

/// The answer names each object that can be meant, by a name that means no other.
#[test]
fn of_several_objects_all_are_named() {
    let device = Device::blank();
    device.home.write("config.toml", EXTRA);
    for name in [
        "devid/web",
        "extra/web",
        "devid/one",
        "devid/two",
        "devid/it's",
    ] {
        device.ends(0, &["key", "generate", name]);
    }
    for name in ["devid/one", "devid/two"] {
        relabel(&device, name, "web");
    }
    let verbs: [&[&str]; 7] = [
        &["show", "web"],
        &["verify", "web"],
        &["csr", "web"],
        &["export", "web", "--tss2"],
        &["persist", "web"],
        &["uri", "web"],
        &["key", "delete", "web", "--yes"],
    ];
    let mut told = Vec::new();
    for words in verbs {
        let said = device.ends(2, words);
        let list = said
            .err
            .trim()
            .split("4 keys have this name; use one of these names: ")
            .nth(1);
        let list = list.unwrap_or_else(|| panic!("{said}")).to_owned();
        told.push(list);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    let names: Vec<&str> = told[0].split(" or ").collect();
    assert!(names.contains(&"extra/web"), "{names:?}");
    let mut all: Vec<String> = names
        .iter()
        .map(|name| {
            device.json(&["show", name])["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "{names:?}");
    // By a URI, too.
    let said = device.ends(2, &["show", "pkcs11:object=web"]);
    assert!(said.err.contains("4 keys"), "{said}");
    device.ends(0, &["key", "delete", "extra/web", "--yes"]);
    let said = device.ends(2, &["show", "devid/web"]);
    assert!(said.err.contains("3 keys"), "{said}");
}

/// A label is written so that a shell takes it for one word.
#[test]
fn a_command_that_is_printed_names_the_key() {
    let device = Device::blank();
    for label in ["a b", "$(reboot)", "-x"] {
        device.ends(0, &["key", "generate", "--", label]);
        let said = device.ends(6, &["key", "delete", "--", label]);
        let line = said.err.split("to continue: devid ").nth(1).unwrap();
        let words = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {line}")])
            .output()
            .unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        let words: Vec<&str> = words.lines().collect();
        assert_eq!(words.last(), Some(&label), "{line}");
        device.ends(0, &words);
        device.ends(5, &["show", "--", label]);
    }
}

/// The readable tokens do not have the key, and the verb says so.
#[test]
fn a_tpm_out_of_reach_hides_nothing_else() {
    let device = Device::without_tpm();
    device.ends(4, &["show", "nosuch"]);
    device.ends(5, &["show", "software/nosuch"]);
    device.ends(5, &["show", "pkcs11:token=software;object=nosuch"]);
    device.ends(4, &["show", "idev-id/nosuch"]);
}
