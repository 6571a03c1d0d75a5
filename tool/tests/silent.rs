//! A TPM that takes commands and never answers: one is sent, and that is known then.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::Device;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const SETTINGS: &str = "timeout_ms = 300\n";

/// A device whose TPM is silent, and how often somebody came to it.
fn silent() -> (Device, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        let mut held = Vec::new();
        for client in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(client);
        }
    });
    let device = Device::without_tpm();
    let home = device
        .home
        .with_tcti(&format!("swtpm:host=127.0.0.1,port={port}"));
    home.write("config.toml", SETTINGS);
    (Device { tpm: None, home }, count)
}

#[test]
fn each_run_asks_once() {
    let (device, count) = silent();
    let runs: [(i32, &[&str]); 6] = [
        (4, &["status"]),
        (1, &["doctor"]),
        (4, &["list"]),
        (4, &["provision", "--wait", "0"]),
        (4, &["key", "generate", "web"]),
        (4, &["reset", "--factory", "--yes", "--wait", "0"]),
    ];
    for (code, words) in runs {
        count.store(0, Ordering::SeqCst);
        device.ends(code, words);
        assert_eq!(count.load(Ordering::SeqCst), 1, "{words:?}");
    }
}

/// Also where it would go on without a TPM: one that is silent is there.
#[test]
fn a_software_identity_is_not_made_over_one_silence() {
    let (device, count) = silent();
    let settings = format!("{SETTINGS}[provision]\nfallback = \"software\"\n");
    device.home.write("config.toml", settings);
    device.ends(4, &["provision", "--wait", "0"]);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// Who is told to wait asks until then.
#[test]
fn a_wait_asks_again() {
    let (device, count) = silent();
    device.ends(4, &["provision", "--wait", "1"]);
    assert!(count.load(Ordering::SeqCst) > 1);
}
