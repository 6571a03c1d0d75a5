//! Runs the commands of docs/LIFE.md.

use crate::device::{Device, programs};
use std::fs;
use std::path::Path;
use std::process::Command;

const LIFE: &str = "docs/LIFE.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The blocks of this name, line by line, with the exit code that each line is to have.
fn blocks(page: &str, name: &str) -> Vec<Vec<(String, i32)>> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let line = |line: &str| {
        let code = line
            .split_once("# -> ")
            .map_or(0, |(_, code)| code[..1].parse().unwrap());
        (line.to_owned(), code)
    };
    let begin = format!("```sh {name}\n");
    let found: Vec<_> = text
        .split(&begin)
        .skip(1)
        .map(|rest| {
            let (block, _) = rest.split_once("\n```").expect("its end");
            block.lines().map(line).collect()
        })
        .collect();
    assert!(!found.is_empty(), "{name}");
    found
}

/// Runs the page's blocks for a device in its home, which replaces the folders of the device.
fn run_blocks(device: &Device, name: &str) {
    let blocks = blocks(LIFE, name);
    assert_eq!(blocks[0].len(), 10, "{:?}", blocks[0]);
    run_lines(device, blocks.into_iter().flatten());
}

/// Runs all blocks of this name of a page.
pub fn run_page(device: &Device, page: &str, name: &str) {
    run_lines(device, blocks(page, name).into_iter().flatten());
}

fn run_lines(device: &Device, lines: impl Iterator<Item = (String, i32)>) {
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let home = device.home.folder().display().to_string();
    for (line, code) in lines {
        let here = line
            .replace("/var/lib/devid-pkcs11", &format!("{home}/state"))
            .replace("/run/devid-pkcs11", &format!("{home}/run"))
            .replace("/etc/devid-pkcs11", &home)
            .replace("/persist", &home);
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &here])
            .current_dir(device.home.folder())
            .env("PATH", &path);
        if let Some(tpm) = &device.tpm {
            shell.env("TPM2TOOLS_TCTI", tpm.tcti());
        }
        let said = programs::run(device.home.settle(&mut shell));
        assert_eq!(said.status.code(), Some(code), "{line}\n{said}");
    }
}

/// The example of this device, with its folders.
fn configure(device: &Device, example: &str) {
    let path = root().join("pkcs11-conf/examples").join(example);
    let home = device.home.folder().display().to_string();
    let example = fs::read_to_string(path).unwrap();
    let here = example.replace("/persist", &home);
    device.home.write("config.toml", here);
}

#[test]
fn a_router() {
    let (device, identity) = Device::manufactured();
    configure(&device, "router.toml");
    fs::copy(identity.ca(), device.path("ca.pem")).unwrap();
    run_blocks(&device, "router");
}

#[test]
fn a_router_on_a_virtual_tpm() {
    let device = Device::blank();
    configure(&device, "ssr-vtpm.toml");
    run_blocks(&device, "ssr");
}

#[test]
fn a_master_key_that_was_evicted() {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    device.ends(0, &["key", "generate", "web"]);
    run_lines(&device, blocks(LIFE, "master").into_iter().flatten());
}

#[test]
fn an_edge_device() {
    let mut device = Device::blank();
    configure(&device, "eve.toml");
    fs::create_dir(device.path("config")).unwrap();
    device.home = device.home.without_state();
    run_blocks(&device, "eve");
}
