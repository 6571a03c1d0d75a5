//! Reads the doctor's findings, and runs the commands that they suggest.

use super::{Device, programs};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// All findings.
#[track_caller]
pub fn findings(device: &Device) -> Vec<Value> {
    let all = device.json(&["doctor"]);
    all.as_array().expect("a list").clone()
}

/// The findings of this name.
#[track_caller]
pub fn named(device: &Device, id: &str) -> Vec<Value> {
    let all = findings(device).into_iter();
    all.filter(|one| one["id"] == id).collect()
}

/// The only one of this name.
#[track_caller]
pub fn found(device: &Device, id: &str) -> Value {
    let mut all = named(device, id);
    assert_eq!(all.len(), 1, "{id}: {:#?}", findings(device));
    all.remove(0)
}

/// Runs a command line as a person would, in the device's home.
#[track_caller]
pub fn run(device: &Device, command: &str) {
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).env("PATH", path);
    shell.current_dir(device.home.folder());
    programs::run(device.home.settle(&mut shell)).ok();
}

/// Runs the finding's command, and sees the finding gone.
#[track_caller]
pub fn mend(device: &Device, id: &str) {
    let found = found(device, id);
    let command = found["command"].as_str().expect("a command");
    run(device, command);
    assert_gone(device, id);
}

#[track_caller]
pub fn assert_gone(device: &Device, id: &str) {
    let left = named(device, id);
    assert!(left.is_empty(), "{left:#?}");
}

/// No finding advises a step that would end an identity or a key.
#[track_caller]
pub fn assert_harmless(device: &Device) {
    for one in findings(device) {
        for words in [&one["mend"], &one["command"]] {
            let words = words.as_str().unwrap_or_default();
            for harm in [
                "tpm2_evictcontrol -",
                "reset --factory",
                "tpm2_clear",
                "prune;",
            ] {
                assert!(!words.contains(harm), "{one:#}");
            }
        }
    }
}
