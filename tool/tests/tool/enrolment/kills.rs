//! Enrolment, rekeying and renewal are killed at each of their steps. The old pair or the new pair
//! is in use, complete, and the command can be repeated.

use super::est::{bench, is_whole};
use crate::device::cut::{End, run_until};
use crate::device::est::Est;
use crate::device::{Device, persistent};
use std::fs;

/// Runs the command, killed at its first step, then at its second, until it completes. After each
/// kill a pair is complete, and the command then succeeds. Returns how often each pair was in use.
fn cut_each(device: &mut Device, est: &Est, words: &[&str]) -> [usize; 2] {
    let mut found = [0, 0];
    let mut before = is_whole(device, est, "web");
    for cut in 1.. {
        let end = run_until(&mut device.command(words), cut);
        let now = is_whole(device, est, "web");
        found[usize::from(now != before)] += 1;
        if end == End::Exited(0) {
            assert!(cut > 10, "there are more steps than {cut}");
            return found;
        }
        assert_eq!(end, End::Cut, "cut {cut}");
        device.ends(0, words);
        assert_ne!(is_whole(device, est, "web"), before, "cut {cut}");
        before = is_whole(device, est, "web");
    }
    found
}

#[test]
fn a_renewal_with_the_same_key() {
    let (mut device, est) = bench();
    assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    let (url, root) = (est.url("good", ""), est.certificate("root"));
    let words = ["enroll", "web", "--est", &url, "--trust", &root];
    let found = cut_each(&mut device, &est, &words);
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
}

#[test]
fn a_renewal_with_a_new_key_in_a_handle() {
    let (mut device, est) = bench();
    device.ends(0, &["key", "generate", "web", "--persistent"]);
    assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    let handles = persistent(&mut device).lines().count();
    let (url, root) = (est.url("good", ""), est.certificate("root"));
    let words = [
        "enroll",
        "web",
        "--est",
        &url,
        "--trust",
        &root,
        "--new-key",
    ];
    let found = cut_each(&mut device, &est, &words);
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    assert_eq!(
        persistent(&mut device).lines().count(),
        handles,
        "one for one"
    );
}

/// Between the exchange and each of two commands, too: once the new certificate is in use both run, if need
/// be by the next run.
#[test]
fn a_renewal_with_commands() {
    let (device, est) = bench();
    let ran = device.path("ran");
    let commands = ["one", "two"].map(|word| format!("\"echo {word} >> {}\"", ran.display()));
    device.home.write(
        "config.toml",
        format!(
            "[[certificate]]\nlabel = \"web\"\nest = \"{}\"\ntrust = \"{}\"\nreload = [{}]\n",
            est.url("good", ""),
            est.certificate("root"),
            commands.join(", ")
        ),
    );
    device.ends(0, &["renew"]);
    let mut found = [0, 0];
    let mut between = 0;
    for cut in 1.. {
        fs::remove_file(&ran).ok();
        let before = is_whole(&device, &est, "web");
        let end = run_until(&mut device.command(&["renew", "--within", "40d"]), cut);
        let is_new = is_whole(&device, &est, "web") != before;
        found[usize::from(is_new)] += 1;
        let first = fs::read_to_string(&ran).unwrap_or_default();
        between += usize::from(first.contains("one") && !first.contains("two"));
        device.ends(0, &["renew", "web"]);
        let ran = fs::read_to_string(&ran).unwrap_or_default();
        if is_whole(&device, &est, "web") != before {
            assert!(
                ran.contains("one\n") && ran.contains("two\n"),
                "cut {cut}: {ran}"
            );
        }
        if end == End::Exited(0) {
            break;
        }
        assert_eq!(end, End::Cut, "cut {cut}");
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    assert!(between > 0, "it was never killed between two commands");
}

/// The first one: whatever it is killed at, the second call brings the certificate, and there is one key.
#[test]
fn a_first_enrolment() {
    let (device, est) = bench();
    for cut in 1.. {
        let label = format!("web-{cut}");
        let (url, root) = (est.url("good", "later"), est.certificate("root"));
        let words = [
            "enroll", &label, "--est", &url, "--trust", &root, "--wait", "0",
        ];
        let end = run_until(&mut device.command(&words), cut);
        if end != End::Cut {
            assert_eq!(end, End::Exited(7), "cut {cut}");
            break;
        }
        for _ in 0..2 {
            let said = device.devid(&words);
            assert!(
                matches!(said.status.code(), Some(0 | 7)),
                "cut {cut}: {said}"
            );
        }
        is_whole(&device, &est, &label);
        let listed = device.json(&["key", "list"]);
        let keys = listed
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["label"] == label.as_str());
        assert_eq!(keys.count(), 1, "cut {cut}");
    }
}
