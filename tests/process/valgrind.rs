//! Hosts under valgrind memcheck: it reports no error, and after C_Finalize no memory of the module
//! is lost.

use std::process::Command;
use std::time::Duration;
use testkit::home::Home;
use testkit::host::host;
use testkit::module::library;
use testkit::programs::{program, run_within};
use testkit::tpm::Swtpm;

/// A host takes 50 times as long under memcheck, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// The exit code of a host in which valgrind found an error.
const FOUND: &str = "99";

/// Runs the program under memcheck. An error fails it. Memory without a pointer at its end fails it
/// too.
fn checked(host: &Command) -> Command {
    let mut valgrind = program("valgrind");
    valgrind
        .args(["--tool=memcheck", "--leak-check=full", "--num-callers=30"])
        .args(["--errors-for-leak-kinds=definite,indirect,possible"])
        .args(["--show-leak-kinds=definite,indirect,possible"])
        .arg(format!("--error-exitcode={FOUND}"))
        .arg(concat!(
            "--suppressions=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/c/valgrind.supp"
        ))
        .arg(host.get_program())
        .args(host.get_args());
    for (name, value) in host.get_envs() {
        valgrind.env(name, value.unwrap_or_default());
    }
    valgrind
}

fn manufactured() -> (Swtpm, Home) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    (tpm, home)
}

#[track_caller]
fn is_clean(name: &str, arguments: &[&str]) {
    let (_tpm, home) = manufactured();
    let said = run_within(PATIENCE, &mut checked(&host(&home, name, arguments)), &[]).ok();
    assert!(said.err.contains("ERROR SUMMARY: 0 errors"), "{said}");
}

#[test]
fn what_hosts_do_all_day() {
    is_clean("everyday", &[]);
}

#[test]
fn mistakes_of_a_host() {
    is_clean("mistakes", &[]);
}

#[test]
fn counts_and_lengths_that_cannot_be_meant() {
    is_clean("huge", &[]);
}

#[test]
fn calls_with_a_cancellation_pending() {
    is_clean("cancelled", &["pending"]);
}

/// pkcs11-tool itself loses some memory.
#[test]
fn pkcs11_tool_lists() {
    let (_tpm, home) = manufactured();
    let mut listing = program("pkcs11-tool");
    listing.arg("--module").arg(library()).arg("-L");
    home.settle(&mut listing);
    let mut valgrind = checked(&listing);
    valgrind.arg("-O");
    let said = run_within(PATIENCE, &mut valgrind, &[]);
    assert!(said.text().contains("idev-id"), "{said}");
    assert!(said.err.contains("ERROR SUMMARY"), "{said}");
    for frame in ["devid_pkcs11::", "devid_core::", "libdevid_pkcs11.so)"] {
        assert!(!said.err.contains(frame), "{said}");
    }
}
