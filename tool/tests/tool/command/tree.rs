//! `devid tree`, `devid show --cert`, and colours.

use crate::device::programs::{self, Said};
use crate::device::{Device, clock, evict};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn in_locale(device: &Device, words: &[&str], locale: &str) -> Said {
    let mut command = device.command(words);
    command.env("LC_ALL", locale);
    programs::run(&mut command).ok()
}

fn branch<'a>(tree: &'a Value, token: &str, label: &str) -> &'a Value {
    let named = |all: &'a Value, field: &str, name: &str| -> &'a Value {
        let mut all = all.as_array().unwrap().iter();
        let found = all.find(|one| one[field] == name);
        found.unwrap_or_else(|| panic!("{token}/{label}: {tree:#}"))
    };
    named(
        &named(&tree["tokens"], "token", token)["objects"],
        "label",
        label,
    )
}

/// How deep a line stands that holds this text.
#[track_caller]
fn depth(text: &str, part: &str) -> usize {
    let line = text.lines().find(|line| line.contains(part));
    let line = line.unwrap_or_else(|| panic!("{part}: {text}"));
    let marks = ["├── ", "└── ", "│   ", "|-- ", "`-- ", "|   ", "    "];
    let mut rest = line;
    let mut depth = 0;
    while let Some(behind) = marks.iter().find_map(|mark| rest.strip_prefix(mark)) {
        rest = behind;
        depth += 1;
    }
    depth
}

/// The end of a certificate, and the same in seconds after the epoch.
const END: &str = "20490101000000Z";
const END_SECONDS: i64 = 2_493_072_000;
const DAY: i64 = 24 * 60 * 60;

/// Gives the key a certificate that ends then.
fn certify(device: &Device, label: &str, ca: &Path) {
    let request = device.path(&format!("{label}.csr"));
    device.ends(0, &["csr", label, "--out", request.to_str().unwrap()]);
    let leaf = device.certified_with(&["--until", END], &request, ca.parent().unwrap());
    device.ends(0, &["import-cert", leaf.to_str().unwrap()]);
}

#[test]
fn what_belongs_to_what() {
    let (device, identity) = Device::manufactured();
    device.ends(0, &["provision", "--wait", "0"]);
    for label in ["web", "mail"] {
        device.ends(0, &["key", "generate", label]);
    }
    certify(&device, "web", &identity.ca());
    let said = in_locale(&device, &["tree"], "C.UTF-8");
    let text = said.text();
    assert_eq!(depth(&text, "device "), 0);
    for part in [
        "TPM at swtpm",
        "master key in handle 0x81000080",
        "token idev-id",
        "token devid",
    ] {
        assert_eq!(depth(&text, part), 1, "{part}");
    }
    for part in ["idev-id: p256", "devid: p256", "web: p256", "mail: p256"] {
        assert_eq!(depth(&text, part), 2, "{part}");
    }
    assert!(text.contains("days left"), "{text}");
    assert!(text.contains("└── ") && text.contains("├── "), "{text}");
    let ascii = in_locale(&device, &["tree"], "C").text();
    assert!(ascii.is_ascii(), "{ascii}");
    let plain = text
        .replace("├──", "|--")
        .replace("└──", "`--")
        .replace('│', "|");
    assert_eq!(ascii, plain);

    let tree = device.json(&["tree"]);
    let web = branch(&tree, "devid", "web");
    let certificate = &web["certificates"][0];
    assert!(
        certificate["expiry"]["days_left"].as_i64() > Some(0),
        "{tree:#}"
    );
    // The chain leads to a root, and no CA stands there twice.
    let mut above = &certificate["issuer"];
    let mut length = 0;
    while !above["issuer"].is_null() {
        above = &above["issuer"];
        length += 1;
    }
    assert!(length < 3 && !above.is_null(), "{tree:#}");
    assert!(
        above["self_issued"] == true || above["missing_issuer"].is_string(),
        "{tree:#}"
    );
    // Its root is not in the device, unless somebody trusts it.
    assert!(text.contains("whose certificate is missing"), "{text}");
    device.trust(&identity.ca().with_file_name("root.pem"));
    let trusting = in_locale(&device, &["tree"], "C.UTF-8").text();
    assert!(
        trusting.contains("root CA,O=Example Devices, without end, trusted"),
        "{trusting}"
    );
    assert!(!trusting.contains("is missing"), "{trusting}");
    let labels = |token: &str| -> Vec<String> {
        let tokens = tree["tokens"].as_array().unwrap();
        let token = tokens.iter().find(|one| one["token"] == token).unwrap();
        let objects = token["objects"].as_array().unwrap();
        let labels = objects.iter().map(|one| one["label"].as_str().unwrap());
        let mut labels: Vec<String> = labels.map(str::to_owned).collect();
        labels.sort();
        labels
    };
    assert_eq!(labels("idev-id"), ["idev-id"]);
    assert_eq!(labels("devid"), ["devid", "mail", "web"]);
    assert!(
        branch(&tree, "devid", "mail")["certificates"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn without_a_tpm_it_says_so() {
    let device = Device::without_tpm();
    let text = device.ends(0, &["tree"]).text();
    assert!(text.contains("TPM at device:/nonexistent/tpm: "), "{text}");
    let tree = device.json(&["tree"]);
    assert!(
        tree["tpm"]["status"].is_null() && tree["tpm"]["problem"].is_string(),
        "{tree:#}"
    );
    // An identity in files is there all the same.
    device
        .home
        .write("config.toml", "[provision]\nfallback = \"software\"\n");
    device.ends(0, &["provision", "--wait", "0"]);
    let text = device.ends(0, &["tree"]).text();
    assert!(text.contains("in software: "), "{text}");
}

#[test]
fn many_keys_are_all_there() {
    let device = Device::blank();
    device.ends(0, &["key", "generate", "first"]);
    let folder = device.path("state/devid");
    let entries = fs::read_dir(&folder)
        .unwrap()
        .map(|one| one.unwrap().path());
    let is_key = |path: &std::path::PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("key-")
    };
    let key = entries.into_iter().find(is_key).unwrap();
    let text = fs::read_to_string(&key).unwrap();
    for number in 1..50 {
        let copy = folder.join(format!("key-{number:016x}.pem"));
        fs::copy(&key, &copy).unwrap();
        fs::write(
            &copy,
            text.replace("Label: first", &format!("Label: key {number}")),
        )
        .unwrap();
    }
    let text = device.ends(0, &["tree"]).text();
    for number in 1..50 {
        assert!(
            text.contains(&format!(" key {number}: p256")),
            "{number}: {text}"
        );
    }
}

#[test]
fn what_is_lost_or_over_is_marked() {
    let (mut device, identity) = Device::manufactured();
    device.ends(0, &["provision", "--wait", "0"]);
    for label in ["web", "old"] {
        device.ends(0, &["key", "generate", label]);
    }
    certify(&device, "old", &identity.ca());
    for (seconds, text) in [
        (END_SECONDS - 9 * DAY - 5, ", 9 days left"),
        (END_SECONDS - 5, ", less than a day left"),
        (END_SECONDS + 2 * DAY - 5, ", expired for 1 day"),
    ] {
        let mut command = device.command(&["tree"]);
        let then = clock::at(seconds, device.home.folder(), &mut command);
        let said = programs::run(then).ok();
        assert!(said.text().contains(text), "{text}: {said}");
    }
    evict(&mut device, "0x81000080");
    let text = device.ends(0, &["tree"]).text();
    assert!(text.contains("master key: missing in handle"), "{text}");
    assert!(text.contains("web: p256, lost: "), "{text}");
    let tree = device.json(&["tree"]);
    assert_eq!(branch(&tree, "devid", "web")["lost"], true, "{tree:#}");
    assert_eq!(tree["master"]["held"], false);
    device.ends(0, &["master", "renew", "--yes"]);
    let text = device.ends(0, &["tree"]).text();
    assert!(text.contains("lost with an earlier master key: "), "{text}");
}

/// Any file with certificates, and no TPM.
#[test]
fn a_certificate_of_a_file_is_shown() {
    let device = Device::without_tpm();
    let leaf = include_str!("../../../../core/testdata/leaf.pem");
    let one = device.home.write("one.pem", leaf);
    let two = device.home.write("two.pem", format!("# two\n{leaf}{leaf}"));
    let der = device.path("one.der");
    let p7b = device.path("one.p7b");
    let openssl = |words: &[&str]| programs::run(programs::program("openssl").args(words)).ok();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    openssl(&[
        "x509",
        "-in",
        &text(&one),
        "-outform",
        "DER",
        "-out",
        &text(&der),
    ]);
    openssl(&[
        "crl2pkcs7",
        "-nocrl",
        "-certfile",
        &text(&one),
        "-out",
        &text(&p7b),
    ]);
    let shown = device.json(&["show", "--cert", &text(&one)]);
    let first = &shown["certificates"][0];
    let subject = openssl(&[
        "x509",
        "-in",
        &text(&one),
        "-noout",
        "-subject",
        "-nameopt",
        "RFC2253",
    ]);
    let subject = subject.text();
    let subject = subject.trim().trim_start_matches("subject=");
    let told = first["subject"].as_str().unwrap();
    assert_eq!(told.to_lowercase(), subject.to_lowercase(), "{shown:#}");
    let subject = told;
    for file in [&der, &p7b] {
        let other = device.json(&["show", "--cert", &text(file)]);
        assert_eq!(
            other["certificates"][0]["sha256"], first["sha256"],
            "{other:#}"
        );
    }
    let both = device.json(&["show", "--cert", &text(&two)]);
    assert_eq!(
        both["certificates"].as_array().unwrap().len(),
        2,
        "{both:#}"
    );
    let told = device.ends(0, &["show", "--cert", &text(&one)]).text();
    assert!(
        told.contains(subject) && told.starts_with("  certificate in "),
        "{told}"
    );
    let mut piped = device.command(&["show", "--cert", "-"]);
    let said = programs::run_with(&mut piped, leaf.as_bytes()).ok();
    assert!(said.text().contains(subject), "{said}");
    let none = device.home.write("none.pem", "none");
    let said = device.ends(1, &["show", "--cert", &text(&none)]);
    assert!(said.err.contains("none.pem: "), "{said}");
    device.ends(1, &["show", "--cert", "/dev/zero"]);
    device.ends(1, &["show", "--cert", &text(device.home.folder())]);
    device.ends(2, &["show", "web", "--cert", &text(&one)]);
    device.ends(2, &["show"]);
}

/// The output on a terminal, with these variables.
fn on_terminal(device: &Device, words: &[&str], variables: &[(&str, &str)]) -> String {
    let devid = device.command(words);
    let words = [devid.get_program()].into_iter().chain(devid.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut terminal = programs::program("script");
    terminal.args(["-qec", &words.join(" "), "/dev/null"]);
    device.home.settle(&mut terminal);
    said_with(&mut terminal, variables)
}

fn said_with(command: &mut Command, variables: &[(&str, &str)]) -> String {
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").envs(variables.iter().copied());
    programs::run(command).all()
}

#[test]
fn colours_are_for_terminals_that_have_them() {
    let device = Device::without_tpm();
    for words in [
        &["doctor"][..],
        &["tree"],
        &["frobnicate"],
        &["--help"],
        &["list"],
    ] {
        let mut piped = device.command(words);
        let plain = said_with(&mut piped, &[]);
        assert!(!plain.contains('\u{1b}'), "{words:?}: {plain:?}");
        for variables in [
            &[("NO_COLOR", "1")][..],
            &[("TERM", "dumb")],
            &[("CLICOLOR", "0")],
        ] {
            let said = on_terminal(&device, words, variables);
            assert!(
                !said.contains('\u{1b}'),
                "{words:?} {variables:?}: {said:?}"
            );
        }
    }
    for words in [&["doctor"][..], &["tree"]] {
        let colourful = on_terminal(&device, words, &[]);
        assert!(colourful.contains("\u{1b}["), "{words:?}: {colourful:?}");
        let mut piped = device.command(words);
        let forced = said_with(&mut piped, &[("CLICOLOR_FORCE", "1")]);
        assert!(forced.contains("\u{1b}["), "{words:?}: {forced:?}");
    }
    // A document for programs has none, ever.
    let mut piped = device.command(&["tree", "--json"]);
    let forced = said_with(&mut piped, &[("CLICOLOR_FORCE", "1")]);
    assert!(!forced.contains('\u{1b}'), "{forced:?}");
}
