//! Output to a closed pipe or a full disk: the exit code is as documented, and the program does not
//! panic.

use crate::device::Device;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::pipe;
use std::process::Stdio;

/// A way to be without a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A pipe whose reader has gone: `| true`.
    Gone,
    /// A disk without room.
    Full,
}

impl End {
    fn open(self) -> Stdio {
        match self {
            End::Gone => pipe().unwrap().1.into(),
            End::Full => File::options()
                .write(true)
                .open("/dev/full")
                .unwrap()
                .into(),
        }
    }
}

/// A line for each verb, which ends with the same code however often it is run.
const LINES: &[(i32, &str)] = &[
    (0, "status"),
    (0, "list"),
    (0, "show idev-id"),
    (5, "show nosuch"),
    (1, "show --cert /nonexistent"),
    (0, "tree"),
    (3, "verify idev-id"),
    (1, "doctor"),
    (0, "bench"),
    (0, "provision --wait 0"),
    (6, "reset --factory"),
    (0, "prune"),
    (6, "key generate web"),
    (0, "key list"),
    (1, "key import /nonexistent"),
    (1, "key unseal /nonexistent"),
    (6, "key delete web"),
    (5, "key delete nosuch --yes"),
    (6, "master renew"),
    (0, "csr web"),
    (1, "import-cert /nonexistent"),
    (0, "renew"),
    (5, "renew web"),
    (5, "renew web --rollback"),
    (0, "key rekey web"),
    (5, "key rekey nosuch"),
    (1, "enroll web --est https://localhost --trust /nonexistent"),
    (2, "enroll web --est https://localhost"),
    (0, "export web --tss2"),
    (0, "sign idev-id /etc/os-release --jws"),
    (1, "sign idev-id /nonexistent --raw"),
    (5, "attest nosuch"),
    (1, "activate /nonexistent"),
    (1, "challenge /nonexistent"),
    (1, "ca nonce --state /nonexistent/x"),
    (1, "ca challenge /nonexistent"),
    (1, "ca verify /nonexistent --roots /nonexistent"),
    (
        1,
        "ca issue /nonexistent --roots /nonexistent --ca-cert /nonexistent --ca-key /nonexistent",
    ),
    (
        1,
        "enroll web --est https://127.0.0.1:1 --trust /nonexistent",
    ),
    (2, "token add ../x --group root"),
    (6, "token add mail --group nosuch"),
    (5, "token remove nosuch"),
    (0, "persist idev-id"),
    (0, "uri web"),
    (0, "uri2pem pkcs11:token=idev-id"),
    (0, "completions bash"),
    (0, "completions zsh"),
    (0, "completions fish"),
    // Not about the device.
    (0, "--help"),
    (0, "help"),
    (0, "help key generate"),
    (0, "key --help"),
    (0, "show --help"),
    (0, "--version"),
    (2, ""),
    (2, "key"),
    (2, "delete web"),
    (2, "show"),
    (2, "show web --nosuch"),
    (1, "--config /nonexistent list"),
];

fn device() -> Device {
    let (device, _) = Device::manufactured();
    device.ends(0, &["provision", "--wait", "0"]);
    device.ends(0, &["key", "generate", "web"]);
    // A problem that stays, for the doctor.
    device.home.write("state/devid/key-odd.pem", "no key");
    device
}

/// The exit code, and what came through the outputs that were not taken away.
fn run(device: &Device, line: &str, out: Option<End>, err: Option<End>) -> (i32, String, String) {
    let words: Vec<_> = line.split_whitespace().collect();
    let mut command = device.command(&words);
    if let Some(end) = out {
        command.stdout(end.open());
    }
    if let Some(end) = err {
        command.stderr(end.open());
    }
    let ended = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = ended.status.code().expect("no signal ended it");
    (code, text(&ended.stdout), text(&ended.stderr))
}

/// Each line, also with `--json`.
fn lines() -> impl Iterator<Item = (i32, String)> {
    let plain = LINES.iter().map(|(code, line)| (*code, (*line).to_owned()));
    let json = |(code, line): &(i32, &str)| (*code, format!("--json {line}"));
    plain.chain(LINES.iter().map(json))
}

#[test]
fn a_reader_that_went_away_changes_no_exit_code() {
    let device = device();
    for (code, line) in lines() {
        for (out, err) in [
            (Some(End::Gone), None),
            (None, Some(End::Gone)),
            (Some(End::Gone), Some(End::Gone)),
            (None, Some(End::Full)),
            (Some(End::Gone), Some(End::Full)),
        ] {
            let (ended, _, said) = run(&device, &line, out, err);
            assert_eq!(ended, code, "devid {line}, {out:?} and {err:?}: {said}");
            assert!(
                !said.to_lowercase().contains("pipe"),
                "devid {line}: {said}"
            );
            assert!(!said.contains("panicked"), "devid {line}: {said}");
        }
    }
}

#[test]
fn what_a_full_disk_swallows_has_failed() {
    let device = device();
    for (code, line) in lines() {
        let (_, text, _) = run(&device, &line, None, None);
        let wanted = if text.is_empty() { code } else { 1 };
        let (ended, _, said) = run(&device, &line, Some(End::Full), None);
        assert_eq!(ended, wanted, "devid {line}: {said}");
        let is_said = said.contains("devid: standard output: No space left on device");
        assert_eq!(is_said, !text.is_empty(), "devid {line}: {said}");
        let (ended, ..) = run(&device, &line, Some(End::Full), Some(End::Full));
        assert_eq!(ended, wanted, "devid {line}");
    }
}

/// The work is done once, even if its output is lost.
#[test]
fn a_key_is_made_though_nobody_hears_of_it() {
    let device = device();
    for (label, end, code) in [("gone", End::Gone, 0), ("full", End::Full, 1)] {
        let line = format!("key generate {label}");
        assert_eq!(run(&device, &line, Some(end), None).0, code);
        device.ends(0, &["show", label]);
    }
}

/// Whoever adds a verb adds a line.
#[test]
fn each_verb_has_its_line() {
    let device = Device::without_tpm();
    let pages = device.path("man");
    fs::create_dir(&pages).unwrap();
    let written = device.json(&["man", pages.to_str().unwrap()]);
    let written = written["files"].as_array().unwrap();
    let verbs = written.iter().filter_map(|name| {
        let page = name.as_str()?.strip_prefix("devid-")?.strip_suffix(".1")?;
        Some(page.to_owned())
    });
    let covered: BTreeSet<String> = LINES
        .iter()
        .flat_map(|(_, line)| {
            let words: Vec<_> = line.split(' ').collect();
            [words[0].to_owned(), words[..words.len().min(2)].join("-")]
        })
        .chain(["ca", "master", "token"].map(str::to_owned))
        .collect();
    for verb in verbs {
        assert!(covered.contains(&verb), "{verb}");
    }
    for name in ["gone", "full"] {
        let (device, end) = match name {
            "gone" => (&device, End::Gone),
            _ => (&device, End::Full),
        };
        let folder = device.path(name);
        fs::create_dir(&folder).unwrap();
        let line = format!("man {}", folder.display());
        assert_eq!(run(device, &line, Some(end), None).0, 0);
    }
}
