//! Two processes that change the same key: the second waits until the first has ended.

use super::est::{bench, is_whole};
use crate::device::Device;
use crate::device::est::Est;
use crate::device::programs::{self, Running, poll};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// More than any of this takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

struct Begun {
    running: Running,
    said: PathBuf,
}

/// Runs `devid` with these arguments in the background. Its output goes into a file.
fn begin(device: &Device, name: &str, words: &[&str]) -> Begun {
    let said = device.path(name);
    let mut command = device.command(words);
    command
        .stdout(Stdio::null())
        .stderr(File::create(&said).unwrap());
    let running = Running::start("devid", &mut command);
    Begun { running, said }
}

impl Begun {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    #[track_caller]
    fn ends(mut self, code: i32) -> String {
        let status = self.running.wait(LIMIT).expect("it ends");
        assert_eq!(status.code(), Some(code), "{}", self.said());
        self.said()
    }
}

/// A device whose key `web` was renewed once, and a server that delays the enrolment of another
/// key.
fn held() -> (Device, Est, Begun) {
    let (device, est) = bench();
    for _ in 0..2 {
        assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    }
    let (url, root) = (est.url("good", "held"), est.certificate("root"));
    let words = [
        "enroll",
        "web",
        "--est",
        &url,
        "--trust",
        &root,
        "--new-key",
    ];
    let enrolment = begin(&device, "first", &words);
    let holds = device.path("est/holds");
    poll(LIMIT, || holds.exists().then_some(())).expect("the server has the request");
    (device, est, enrolment)
}

/// The verb waits for the enrolment, which ends well, and then ends with this code.
#[track_caller]
fn waits(device: &Device, enrolment: Begun, words: &[&str], code: i32) -> String {
    let mut second = begin(device, "second", &[&["--verbose"], words].concat());
    let told = poll(LIMIT, || {
        let waits = second.said().contains("another process holds the lock");
        (waits || !second.running.is_running()).then_some(waits)
    });
    assert_eq!(told, Some(true), "{words:?} waits: {}", second.said());
    File::create(device.path("est/go")).unwrap();
    enrolment.ends(0);
    second.ends(code)
}

fn public(device: &Device) -> String {
    let request = device.ends(0, &["csr", "web"]).out;
    let file = device.home.write("public.csr", request);
    let mut openssl = programs::program("openssl");
    let words = ["req", "-noout", "-pubkey", "-in", file.to_str().unwrap()];
    programs::run(openssl.args(words)).ok().text()
}

#[test]
fn a_new_key_is_not_given_up_while_the_server_certifies_it() {
    let (device, est, enrolment) = held();
    let first = public(&device);
    let said = waits(&device, enrolment, &["key", "rekey", "web", "--discard"], 5);
    assert!(said.contains("no new key waits"), "{said}");
    assert_ne!(public(&device), first);
    is_whole(&device, &est, "web");
}

#[test]
fn another_new_key_is_asked_for_afterwards() {
    let (device, est, enrolment) = held();
    let out = device.path("next.csr");
    waits(
        &device,
        enrolment,
        &["key", "rekey", "web", "--out", out.to_str().unwrap()],
        0,
    );
    let now = public(&device);
    let mut openssl = programs::program("openssl");
    let asked =
        programs::run(openssl.args(["req", "-noout", "-pubkey", "-in", out.to_str().unwrap()]));
    assert_ne!(
        asked.ok().text(),
        now,
        "a key after the one that was enrolled"
    );
    is_whole(&device, &est, "web");
}

#[test]
fn an_answer_of_a_ca_is_taken_afterwards() {
    let (device, est, enrolment) = held();
    // The certificate of a CA for the key that the server is certifying.
    let folder = device.path("ca");
    fs::create_dir(&folder).unwrap();
    let request = device.path("waits.csr");
    fs::write(&request, sent(&device)).unwrap();
    let leaf = device.certified(&request, &folder);
    waits(
        &device,
        enrolment,
        &["import-cert", leaf.to_str().unwrap()],
        0,
    );
    device.trust(&folder.join("root.pem"));
    fs::copy(folder.join("ca.pem"), device.path("trust/between.pem")).unwrap();
    device.ends(0, &["verify", "web"]);
    // And back to what the server issued.
    device.ends(0, &["renew", "web", "--rollback"]);
    is_whole(&device, &est, "web");
}

/// The request that the enrolment under way sent, in PEM.
fn sent(device: &Device) -> Vec<u8> {
    let records = fs::read_dir(device.path("state/enrolment")).unwrap();
    let mut records = records.map(|entry| entry.unwrap().path());
    let record = records.find(|path| path.extension().is_some_and(|end| end == "toml"));
    let text = fs::read_to_string(record.expect("a record")).unwrap();
    let line = text.lines().find(|line| line.starts_with("request ="));
    let digits = line
        .expect("a request")
        .split('"')
        .nth(1)
        .unwrap()
        .to_owned();
    let der: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    let file = device.home.write("sent.der", der);
    let mut openssl = programs::program("openssl");
    let words = ["req", "-inform", "DER", "-in", file.to_str().unwrap()];
    programs::run(openssl.args(words)).ok().out
}

#[test]
fn the_way_back_is_gone_afterwards() {
    let (device, est, enrolment) = held();
    let first = public(&device);
    waits(&device, enrolment, &["renew", "web", "--rollback"], 0);
    assert_eq!(
        public(&device),
        first,
        "back from the key that was enrolled"
    );
    is_whole(&device, &est, "web");
}

#[test]
fn a_key_is_deleted_afterwards() {
    let (device, _est, enrolment) = held();
    waits(&device, enrolment, &["key", "delete", "web", "--yes"], 0);
    device.ends(5, &["show", "web"]);
    for hidden in ["", ".next", ".previous"] {
        let left = fs::read_dir(device.path("state/devid").join(hidden));
        let left = left
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path());
        let left: Vec<_> = left
            .filter(|path| path.extension().is_some_and(|end| end == "pem"))
            .collect();
        assert!(left.is_empty(), "{hidden}: {left:?}");
    }
}

/// Each verb that writes keys, certificates or handles waits, and then does its own.
#[test]
fn other_verbs_wait_too() {
    let owner = |device: &Device| {
        let factory = device.ends(0, &["export", "idev-id", "--fullchain"]).out;
        let path = device.home.write("owner.pem", factory);
        path.to_str().unwrap().to_owned()
    };
    let (device, est, enrolment) = held();
    waits(&device, enrolment, &["persist", "web"], 0);
    let shown = device.json(&["show", "web"]);
    assert!(!shown["key"]["handle"].is_null(), "{shown}");
    is_whole(&device, &est, "web");
    let (device, est, enrolment) = held();
    let said = waits(&device, enrolment, &["master", "renew", "--yes"], 6);
    assert!(said.contains("nothing"), "{said}");
    is_whole(&device, &est, "web");
    let (device, est, enrolment) = held();
    let file = owner(&device);
    let said = waits(&device, enrolment, &["import-cert", "--owner", &file], 6);
    assert!(said.contains("already the factory's certificate"), "{said}");
    is_whole(&device, &est, "web");
}

#[test]
fn a_reset_waits_too() {
    let (device, _est, enrolment) = held();
    waits(
        &device,
        enrolment,
        &["reset", "--factory", "--yes", "--wait", "0"],
        0,
    );
    device.ends(5, &["show", "web"]);
}
