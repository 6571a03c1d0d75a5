//! Runs the commands of docs/OPENCONFIG.md without changes. Each public case of OpenConfig must
//! have a test, or a line with the reason why it has none.

use crate::device::Device;
use crate::enrollz::{IDEVID_AND_IAK, certified, challenge, switch};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use testkit::folders;
use testkit::module::tool;
use testkit::openssl::Verifier;
use testkit::pages::block;
use testkit::programs::{program, run};

const PAGE: &str = "docs/OPENCONFIG.md";

#[test]
fn the_page() {
    let device = switch();
    let message = challenge(&device, "0x81010001", &["--message", "enrollz"]);
    device.home.write("request.json", message.to_string());
    device.home.write("transport.key", "a transport key");
    for (name, handle) in IDEVID_AND_IAK {
        let public = device.word(&format!("{name}.pub"));
        device.tpm2(
            "tpm2_readpublic",
            &["-c", handle, "-f", "pem", "-o", &public],
        );
        certified(&device, name, &public);
    }
    let commands = block(PAGE, "openconfig");
    let mut shell = program("bash");
    shell.args(["-euo", "pipefail", "-c", &commands]);
    shell.current_dir(device.home.folder());
    let path = std::env::var_os("PATH").unwrap();
    let ours = tool().parent().unwrap().to_owned();
    let all = [ours].into_iter().chain(std::env::split_paths(&path));
    shell.env("PATH", std::env::join_paths(all).unwrap());
    run(device.home.settle(&mut shell)).ok();
    let judge = Verifier::new(&device.path("oidevid.pub"));
    let signature = fs::read(device.path("transport.sig")).unwrap();
    judge
        .accepts_der("-sha384", b"a transport key", &signature)
        .ok();
    assert!(device.path("idevid.csr.sig").exists());
}

/// The lists of OpenConfig, by their names.
fn names() -> Vec<String> {
    let numbered = |list: &str, last: u32| -> Vec<String> {
        (1..=last)
            .map(|number| format!("{list}.{number}"))
            .collect()
    };
    [
        numbered("enrollz-1", 31),
        numbered("attestz-1.1", 9),
        numbered("attestz-1.2", 3),
        numbered("attestz-1.3", 3),
    ]
    .concat()
}

/// All of the sources below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// A test in backquotes exists; a case has the test of its own name, or the line says whose it is.
#[test]
fn each_case_has_a_test_or_a_reason() {
    let page = fs::read_to_string(folders::root().join(PAGE)).unwrap();
    let mut tests = String::new();
    for folder in ["tests", "tool/tests"] {
        sources(&folders::root().join(folder), &mut tests);
    }
    let mut told = BTreeMap::new();
    for line in page.lines() {
        let mut cells = line.split('|').skip(1).map(str::trim);
        if let (Some(case), Some(shown)) = (cells.next(), cells.next())
            && let Some((name, _)) = case.split_once(' ')
            && ["enrollz-", "attestz-"]
                .iter()
                .any(|list| name.starts_with(list))
        {
            assert!(
                told.insert(name.to_owned(), shown.to_owned()).is_none(),
                "{name} twice"
            );
        }
    }
    for name in names() {
        let shown = told
            .remove(&name)
            .unwrap_or_else(|| panic!("{name} is not on the page"));
        let named = shown.split('`').skip(1).step_by(2);
        let named: Vec<&str> = named.filter(|word| word.contains('_')).collect();
        for test in &named {
            assert!(
                tests.contains(&format!("fn {test}(")),
                "{name}: no test {test}"
            );
        }
        let own = name.replace(['-', '.'], "_") + "_";
        let has_own = named.iter().any(|test| test.starts_with(&own));
        let is_of_the_service = [
            "a field of the service's request",
            "the TLS connection of the service",
        ]
        .iter()
        .any(|part| shown.starts_with(part));
        assert!(has_own || is_of_the_service, "{name}: {shown}");
    }
    assert!(told.is_empty(), "of no list: {told:?}");
}

/// A service compares the template of the request with that of the key, which `devid` tells.
#[test]
fn enrollz_1_20_the_template_can_be_told() {
    for (template, told) in [("h2", "H-2"), ("h3", "H-3")] {
        let kind = ["--template", template];
        let device = Device::with_factory(&kind, &kind);
        let shown = device.ends(0, &["show", "idev-id", "--json"]).text();
        assert!(shown.contains(told), "{shown}");
    }
}
