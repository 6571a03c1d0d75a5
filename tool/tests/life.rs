//! What docs/LIFE.md tells people to type.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::{Device, programs};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The lines of a block, with the exit code that each is to have.
fn block(name: &str) -> Vec<(String, i32)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/LIFE.md")).unwrap();
    let begin = format!("```sh {name}\n");
    let (_, rest) = text.split_once(&begin).expect("the block");
    let (block, _) = rest.split_once("\n```").expect("its end");
    let line = |line: &str| {
        let code = line
            .split_once("# -> ")
            .map_or(0, |(_, code)| code[..1].parse().unwrap());
        (line.to_owned(), code)
    };
    block.lines().map(line).collect()
}

/// Runs them in the device's home, which stands for the folders that a device has.
fn run_block(device: &Device, name: &str) {
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let home = device.home.folder().display().to_string();
    let lines = block(name);
    assert!(lines.len() > 7, "{lines:?}");
    for (line, code) in lines {
        let here = line
            .replace("/etc/devid-pkcs11", &home)
            .replace("/persist", &home);
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &here])
            .current_dir(device.home.folder())
            .env("PATH", &path);
        let said = programs::run(device.home.settle(&mut shell));
        assert_eq!(said.status.code(), Some(code), "{line}\n{said}");
    }
}

/// A configuration that is shipped, with the device's home in the place of its folders.
fn example(name: &str, device: &Device) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("pkcs11-conf/examples").join(name)).unwrap();
    text.replace("/persist", &device.home.folder().display().to_string())
}

#[test]
fn a_router() {
    let (device, identity) = Device::manufactured();
    fs::copy(identity.ca(), device.path("ca.pem")).unwrap();
    device
        .home
        .write("config.toml", example("router.toml", &device));
    run_block(&device, "router");
}

#[test]
fn a_router_on_a_virtual_tpm() {
    run_block(&Device::blank(), "ssr");
}

#[test]
fn an_edge_device() {
    let mut device = Device::blank();
    device
        .home
        .write("config.toml", example("eve.toml", &device));
    fs::create_dir(device.path("config")).unwrap();
    device.home = device.home.without_state();
    run_block(&device, "eve");
}
