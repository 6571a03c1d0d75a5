//! The messages of the scripts: all missing packages in one command, and the results of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages that a script names to a user without rights on a machine without packages. Fails
/// if the script names them in more than one command.
#[track_caller]
fn named(script: &str, arguments: &[&str]) -> BTreeSet<String> {
    let stubs = TempDir::new().unwrap();
    for (name, text) in [("id", "echo 1000"), ("dpkg-query", "exit 1")] {
        let file = stubs.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(root().join("scripts").join(script));
    let path = std::env::var("PATH").unwrap();
    command.args(arguments).current_dir(stubs.path());
    command.env("PATH", format!("{}:{path}", stubs.path().display()));
    command.env("XDG_CACHE_HOME", stubs.path()); // no provider from an earlier run
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let commands: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_once("apt-get install -y --no-install-recommends "))
        .collect();
    if output.status.success() {
        assert!(commands.is_empty(), "{said}");
        return BTreeSet::new();
    }
    let [(_, packages)] = commands[..] else {
        panic!("{script} names no single command:\n{said}");
    };
    packages.split(' ').map(str::to_owned).collect()
}

/// Whoever ran the command that one script names is not sent again by a script that it calls.
#[test]
fn a_script_names_all_packages_at_once() {
    let provider = named("pkcs11-provider", &[]);
    let demo = named("demo", &[]);
    assert!(demo.is_superset(&provider), "{demo:?} {provider:?}");
    let test = named("test", &[]);
    assert!(test.is_superset(&demo), "{test:?} {demo:?}");
    assert_eq!(test, named("setup", &["test"]));
    let clients = named("test-clients", &["--fast"]);
    assert!(test.is_superset(&clients), "{test:?} {clients:?}");
    if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        let cross = named("cross", &["i686-unknown-linux-gnu"]);
        assert!(test.is_superset(&cross), "{test:?} {cross:?}");
    }
    let all = named("cross", &[]);
    for package in ["musl-tools", "qemu-user-static", "gcc-aarch64-linux-gnu"] {
        assert!(all.contains(package), "{all:?}");
    }
}

/// A failed test's own output may hold the results of another; a program may end without any.
#[test]
fn totals_and_names_of_what_failed() {
    for (log, wanted) in [
        (
            "cargo-test.txt",
            "tests: 5 passed, 2 failed, 1 ignored\nfailed tests:\n    tests/sign.rs wire::x\n    \
             tests/crash.rs: ended without a result\n5 passed, 2 failed, 1 skipped\n",
        ),
        (
            "nextest.txt",
            "tests: 6 passed, 3 failed, 4 ignored\nfailed tests:\n    devid-pkcs11::sign wire::x\n    \
             devid-pkcs11::crash t\n    devid-pkcs11::faults z\n6 passed, 3 failed, 4 skipped\n",
        ),
    ] {
        let mut results = Command::new(root().join("scripts/results"));
        results.arg(root().join("tests/results").join(log));
        let output = results.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "{log}");
        assert!(output.status.success());
    }
}
