//! A TPM that needs a long time to make a key. `devid` waits, shows that it waits, and names the
//! process that uses the TPM.

use crate::device::programs::{Running, Said, poll, program};
use crate::device::proxy::{Fault, Proxy, command};
use crate::device::tpm::Swtpm;
use crate::device::{Device, tpm2};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
/// Long enough for any command of a software TPM on a busy machine.
const SETTINGS: &str = "timeout_ms = 2500\n";
/// More than that.
const SLOW: Duration = Duration::from_secs(4);
const MAKING: &str = "devid: the TPM is making a key: ";

/// A device whose TPM has nothing yet, and the way to make it slow.
fn slow() -> (Device, Proxy) {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let mut device = Device::with(Some(tpm));
    device.home = device.home.with_tcti(&proxy.tcti());
    device.home.write("config.toml", SETTINGS);
    (device, proxy)
}

/// A run whose outputs are files.
struct Run {
    running: Running,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Run {
    fn start(device: &Device, command: &mut Command) -> Run {
        let [out, err] = ["out", "err"].map(|name| device.path(name));
        command.stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap());
        command.stderr(File::create(&err).unwrap());
        Run {
            running: Running::start("devid", command),
            out,
            err,
        }
    }

    fn await_text(&self, file: &Path, text: &str) {
        let said = || {
            fs::read_to_string(file)
                .unwrap()
                .contains(text)
                .then_some(())
        };
        poll(PATIENCE, said).unwrap_or_else(|| panic!("{text:?} is not said"));
    }

    /// The exit code and both outputs.
    fn end(mut self) -> (Option<i32>, String, String) {
        let status = self.running.wait(PATIENCE).expect("it ends");
        let [out, err] = [&self.out, &self.err].map(|file| fs::read_to_string(file).unwrap());
        (status.code(), out, err)
    }
}

/// Each of its commands that make a key takes longer than others may.
#[test]
fn every_verb_that_makes_a_key_waits_for_it() {
    let (mut device, proxy) = slow();
    let book = proxy.book();
    book.break_next(command::CREATE_PRIMARY, Fault::Delay(SLOW));
    book.break_times(command::CREATE, Fault::Delay(SLOW), 2);
    device.ends(0, &["provision", "--wait", "0"]);
    assert!(book.all_broken());
    for words in [
        &["key", "generate", "wrapped"][..],
        &["key", "generate", "persistent", "--persistent"],
        &["key", "generate", "sealed", "--sealed"],
    ] {
        book.break_next(command::CREATE, Fault::Delay(SLOW));
        device.ends(0, words);
        assert!(book.all_broken(), "{words:?}");
    }
    tpm2(&mut device, "tpm2_evictcontrol", &["-c", "0x81000080"]).ok();
    book.break_next(command::CREATE, Fault::Delay(SLOW));
    device.ends(0, &["master", "renew", "--yes"]);
    assert!(book.all_broken());
    device.ends(0, &["reset", "--factory", "--yes", "--wait", "0"]);
    assert_eq!(device.json(&["status"])["mode"], "tpm");
}

#[test]
fn progress_is_a_line_on_standard_error() {
    let (device, proxy) = slow();
    proxy.book().break_next(command::CREATE, Fault::Occupy);
    let words = ["key", "generate", "web"];
    let run = Run::start(&device, &mut device.command(&words));
    run.await_text(&run.err, MAKING);
    proxy.book().heal();
    let (code, out, err) = run.end();
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(err.matches("so far").count(), 1, "{err}");
    assert!(out.starts_with("web\n"), "{out}");
    assert!(!out.contains("so far"), "{out}");
}

/// Whoever reads both outputs as one document reads a document.
#[test]
fn json_stands_alone() {
    let (device, proxy) = slow();
    let long = Fault::Delay(Duration::from_secs(7));
    let book = proxy.book();
    book.break_next(command::CREATE, long);
    let both = device.path("both");
    let file = File::create(&both).unwrap();
    let mut command = device.command(&["key", "generate", "web", "--json"]);
    command.stdout(file.try_clone().unwrap()).stderr(file);
    assert!(command.status().unwrap().success());
    let made: serde_json::Value = serde_json::from_slice(&fs::read(both).unwrap()).unwrap();
    assert_eq!(made["label"], "web");
    // Apart, a person may read one of them.
    book.break_next(command::CREATE, long);
    let said = device.ends(0, &["key", "generate", "mail", "--json"]);
    assert!(said.err.contains(MAKING), "{said}");
    let made: serde_json::Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(made["label"], "mail");
    book.break_next(command::CREATE, long);
    let said = device.ends(0, &["key", "generate", "quiet", "-q"]);
    assert_eq!(said.all(), "");
    assert!(book.all_broken());
}

/// Many commands that are each answered soon are a wait, too.
#[test]
fn a_tpm_that_is_slow_at_everything_is_waited_for() {
    let (device, proxy) = slow();
    device.ends(0, &["provision", "--wait", "0"]);
    let book = proxy.book();
    book.break_times(
        command::GET_CAPABILITY,
        Fault::Delay(Duration::from_millis(900)),
        3,
    );
    let said = device.devid(&["doctor"]);
    assert!(book.all_broken());
    assert!(
        said.err.starts_with("devid: waiting for the TPM\n"),
        "{said}"
    );
}

/// `devid` names the lock of another process for which it waits, and continues when the lock is
/// free.
#[test]
fn a_lock_that_another_process_has_is_named() {
    let (device, _proxy) = slow();
    device.ends(0, &["provision", "--wait", "0"]);
    for label in ["web", "mail"] {
        device.ends(0, &["key", "generate", label]);
    }
    for (lock, words) in [
        ("state/devid/.lock", &["key", "delete", "web", "--yes"][..]),
        ("state/.provision.lock", &["provision", "--wait", "0"]),
    ] {
        let lock = device.path(lock);
        let held = File::open(&lock).unwrap();
        held.lock().unwrap();
        let run = Run::start(&device, &mut device.command(words));
        let text = format!("devid: another process holds the lock {}", lock.display());
        run.await_text(&run.err, &text);
        held.unlock().unwrap();
        let (code, _, err) = run.end();
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

/// A TPM that is not there yet is waited for, and said to be.
#[test]
fn a_tpm_that_is_not_there_is_named() {
    let device = Device::without_tpm();
    let run = Run::start(
        &device,
        &mut device.command(&["provision", "--wait", "600"]),
    );
    run.await_text(
        &run.err,
        "devid: the TPM at device:/nonexistent/tpm does not answer: ",
    );
    drop(run);
}

/// The line is gone when something else is written.
#[test]
fn progress_on_a_terminal_is_erased() {
    let (device, proxy) = slow();
    proxy.book().break_next(command::CREATE, Fault::Occupy);
    let mut terminal = program("script");
    let devid = device.command(&["key", "generate", "web"]);
    let words = [devid.get_program()].into_iter().chain(devid.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    terminal.args(["-qefc", &words.join(" "), "/dev/null"]);
    device.home.settle(&mut terminal);
    let run = Run::start(&device, terminal.env("TERM", "xterm"));
    run.await_text(&run.out, &format!("\r\x1b[K{MAKING}"));
    proxy.book().heal();
    let (code, out, err) = run.end();
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let last = out.rsplit("\x1b[K").next().unwrap();
    assert!(last.starts_with("web\r\n"), "{last:?}");
}

/// Another process makes a key. `devid` says so, waits for one limit only, and the next run works.
#[test]
fn a_tpm_that_is_busy_for_others_is_not_silent() {
    let (device, proxy) = slow();
    proxy.book().break_next(command::CREATE, Fault::Occupy);
    let making = Run::start(&device, &mut device.command(&["key", "generate", "web"]));
    proxy.book().await_stall();
    let busy = |said: Said| {
        assert!(said.all().contains("the TPM is busy"), "{said}");
    };
    busy(device.ends(4, &["key", "generate", "other"]));
    let silent = device.json(&["doctor"]);
    let findings = silent.as_array().unwrap();
    assert!(
        findings.iter().any(|one| one["id"] == "tpm.busy"),
        "{silent:#}"
    );
    // A TPM that is busy is there.
    let fallback = "[provision]\nfallback = \"software\"\n";
    device
        .home
        .write("config.toml", SETTINGS.to_owned() + fallback);
    busy(device.ends(4, &["provision", "--wait", "0"]));
    // Beside TPM2_Create one command of each of these runs has waited.
    let seen = proxy.book().take();
    let waiting = seen.0.iter().filter(|(_, answer)| answer.is_none());
    assert_eq!(waiting.count(), 1 + 3, "{seen:?}");
    proxy.book().heal();
    assert_eq!(making.end().0, Some(0));
    device.ends(0, &["key", "generate", "other"]);
    let listed = device.ends(0, &["key", "list"]).text();
    assert!(
        listed.contains("web") && listed.contains("other"),
        "{listed}"
    );
}
