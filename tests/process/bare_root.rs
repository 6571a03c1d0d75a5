//! The module in a root that holds the C library and nothing else: no libtss2, no libcrypto.

use rustix::process::geteuid;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::home::Home;
use testkit::host::compiled;
use testkit::module::library;
use testkit::programs::{output, program, run};
use testkit::tpm::Swtpm;

/// The libraries that these files need, as the loader finds them.
fn needed(files: &[&Path]) -> Vec<PathBuf> {
    let listed = String::from_utf8(output("ldd", files)).unwrap();
    let path = |line: &str| {
        let found = line.split_whitespace().find(|word| word.starts_with('/'));
        found.map(|path| PathBuf::from(path.trim_end_matches(':')))
    };
    let mut all: Vec<PathBuf> = listed.lines().filter_map(path).collect();
    all.sort();
    all.dedup();
    all.retain(|path| !files.contains(&path.as_path()));
    all
}

/// Whether this user may have a root of its own.
fn may_change_root() -> bool {
    geteuid().is_root() || {
        let tried = run(program("unshare").args(["--user", "--map-root-user", "true"]));
        tried.status.success()
    }
}

#[test]
fn it_signs_without_libtss2() {
    if !may_change_root() {
        println!("skipped: this user may not change the root folder");
        return;
    }
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let host = compiled(&home, "costs");
    let root = home.path("root");
    let files = needed(&[&host, &library()]);
    for file in &files {
        let name = file.display().to_string();
        assert!(!name.contains("tss2") && !name.contains("crypto"), "{name}");
        let there = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(file, there).unwrap();
    }
    fs::copy(&host, root.join("costs")).unwrap();
    fs::copy(library(), root.join("module.so")).unwrap();
    let mut inside = program("unshare");
    if !geteuid().is_root() {
        inside.args(["--user", "--map-root-user"]);
    }
    inside
        .arg("--root")
        .arg(&root)
        .args(["/costs", "/module.so", "3"])
        .env("DEVID_PKCS11_TCTI", tpm.tcti());
    run(&mut inside).ok();
}
