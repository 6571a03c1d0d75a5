//! The environment of the stories: a TPM and a home folder in their initial state, a proxy that may
//! alter answers, and child processes that run the stories.

use super::report::{Report, Told};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::module::{library, tool};
use testkit::mutation::{Done, Interposer, Kind, Recording};
use testkit::programs::{run, run_within};
use testkit::proxy::{Fault, Proxy, read_packet};
use testkit::raw::Raw;
use testkit::tpm::{Swtpm, copy_state};

/// Far longer than any story takes: what the module may wait is a second for each command.
pub const PATIENCE: Duration = Duration::from_secs(100);
const LIMIT: &str = "timeout_ms = 1000\ngeneration_timeout_ms = 3000\n";

/// TPM_HT (Part 2, section 7.2) as the first handle of its kind.
pub const TRANSIENT: u32 = 0x8000_0000;
pub const SESSIONS: u32 = 0x0200_0000;
pub const PERSISTENT: u32 = 0x8100_0000;

/// Codes of a TPM for a first handle whose object does not exist: TPM_RC_REFERENCE_H0, VALUE and
/// HANDLE of that handle.
const GONE: [u32; 3] = [0x910, 0x184, 0x18B];

/// The resources of a story in its process.
pub struct Scene {
    pub raw: Raw,
}

/// How a child ended: crashed and still running are faults.
pub type Ended = Result<(), String>;
/// The end of a child, and its report.
pub type Outcome = (Ended, Told);

pub struct Stage {
    pub tpm: Swtpm,
    pub proxy: Proxy,
    pub home: Home,
    library: PathBuf,
    tool: PathBuf,
    kept: TempDir,
}

impl Stage {
    /// A device with the factory's identity, and what `prepare` makes of it.
    pub fn new(settings: &str, prepare: impl FnOnce(&Stage)) -> Stage {
        let (tpm, _) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&proxy.tcti());
        home.write("config.toml", settings);
        home.write("limited.toml", format!("{LIMIT}{settings}"));
        fs::create_dir(home.path("trust")).expect("a folder");
        let kept = TempDir::new().expect("a temporary folder");
        let mut stage = Stage {
            tpm,
            proxy,
            home,
            library: library(),
            tool: tool(),
            kept,
        };
        prepare(&stage);
        stage.tpm.shut_down();
        copy_state(&stage.tpm.state(), &stage.kept.path().join("tpm"));
        for name in ["state", "run"] {
            copy(&stage.home.path(name), &stage.kept.path().join(name));
        }
        stage.tpm.restart();
        stage
    }

    /// All is as it was before.
    pub fn reset(&mut self) {
        self.proxy.book().mutate(None);
        self.tpm.kill();
        copy_state(&self.kept.path().join("tpm"), &self.tpm.state());
        for name in ["state", "run"] {
            fs::remove_dir_all(self.home.path(name)).expect("removed");
            copy(&self.kept.path().join(name), &self.home.path(name));
        }
        self.home.write("log", "");
        self.tpm.restart();
    }

    /// A child runs the story over its own connection to the TPM.
    pub fn plays(&self, story: impl FnOnce(&Scene, &mut Report)) -> Outcome {
        self.child(&self.tpm.tcti(), "config.toml", story)
    }

    /// A child tells the story through the proxy, and waits a second for each command.
    pub fn plays_through_proxy(&self, story: impl FnOnce(&Scene, &mut Report)) -> Outcome {
        self.child(&self.proxy.tcti(), "limited.toml", story)
    }

    fn child(&self, tcti: &str, config: &str, story: impl FnOnce(&Scene, &mut Report)) -> Outcome {
        let file = self.home.path("report");
        let child = Forked::new(|| {
            let mut report = Report::new(&file);
            self.home.enter();
            for (name, value) in [
                ("DEVID_PKCS11_TCTI", tcti.to_owned()),
                ("DEVID_PKCS11_CONFIG", self.path(config)),
            ] {
                // SAFETY: the child has one thread.
                unsafe { std::env::set_var(name, value) };
            }
            let scene = Scene {
                raw: Raw::load(&self.library),
            };
            story(&scene, &mut report);
        });
        let ended = match child.ends(PATIENCE) {
            Some(0) => Ok(()),
            Some(status) if libc::WIFSIGNALED(status) => Err(format!(
                "the host died of signal {}",
                libc::WTERMSIG(status)
            )),
            Some(status) => Err(format!("the story failed: status {status:#x}")),
            None => Err(format!("the host hangs for {PATIENCE:?}")),
        };
        (ended, Told::by(&file))
    }

    pub fn path(&self, name: &str) -> String {
        let path = self.home.path(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// The answers of this story when nobody alters any. All is as before afterwards.
    pub fn record(&mut self, story: impl FnOnce(&Stage) -> Ended) -> Recording {
        self.reset();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&answers);
        self.proxy.book().mutate(Some(Box::new(move |code, answer| {
            noted.lock().unwrap().push((code, answer.clone()));
            testkit::proxy::Reply::Whole(answer)
        })));
        story(self).expect("the story without alterations");
        let recording = std::mem::take(&mut *answers.lock().unwrap());
        self.reset();
        Arc::new(recording)
    }

    /// From now on answers are altered as this seed has it.
    pub fn alter(&self, seed: u64, recording: &Recording) -> Done {
        let (interposer, done) = Interposer::new(seed, recording);
        self.proxy.book().mutate(Some(interposer.boxed()));
        done
    }

    /// From now on one command with this code, behind so many others with it, meets this fault.
    pub fn break_after(&self, code: u32, spared: u32, fault: Fault) -> Done {
        let kind = match fault {
            Fault::Code(code) if GONE.contains(&code) => Kind::Gone,
            Fault::Code(_) | Fault::Drop => Kind::Unsent,
            Fault::Stall => Kind::Silent,
            _ => Kind::Closed,
        };
        self.proxy.book().break_after(code, spared, fault);
        Arc::new(Mutex::new(vec![(code, kind)]))
    }

    /// The handles of a kind that the TPM holds, ascending.
    pub fn handles(&self, first: u32) -> Vec<u32> {
        let handles = self.capability([1, first, 254]);
        let of_kind = |handle: &u32| handle >> 24 == first >> 24;
        handles.into_iter().filter(of_kind).collect()
    }

    /// Files that a writer began and did not end.
    pub fn half_written(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.home.path("state"), self.home.path("run")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(".new-") {
                    found.push(path.clone());
                }
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
        found
    }

    /// TPM_PT_LOCKOUT_COUNTER.
    pub fn tries(&self) -> u32 {
        self.capability([6, 0x20E, 1])[1]
    }

    pub fn forgets_tries(&self) {
        if self.tries() > 0 {
            self.tool("tpm2_dictionarylockout", &["--clear-lockout"]);
        }
    }

    /// TPM2_GetCapability by hand, beside the proxy: the numbers of the list.
    fn capability(&self, asked: [u32; 3]) -> Vec<u32> {
        let mut tpm = self.tpm.place().connect().expect("swtpm answers");
        let mut command = vec![0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7A];
        for number in asked {
            command.extend(number.to_be_bytes());
        }
        tpm.write_all(&command).expect("written");
        let answer = read_packet(&mut tpm).expect("an answer");
        tpm.end();
        assert_eq!(answer[6..10], [0; 4], "TPM2_GetCapability");
        let numbers = answer[19..].chunks_exact(4);
        numbers
            .map(|number| u32::from_be_bytes(number.try_into().expect("four bytes")))
            .collect()
    }

    /// Runs `devid` with each of these arguments over this TCTI. It must not die of a signal, and
    /// must not panic.
    pub fn runs_devid(&self, tcti: &str, first: &[&str], second: &[&str]) -> Outcome {
        let config = match tcti == self.proxy.tcti() {
            true => "limited.toml",
            false => "config.toml",
        };
        let (mut told, mut ended) = (Told::default(), Ok(()));
        for words in [first, second] {
            let mut command = Command::new(&self.tool);
            self.home.settle(command.args(words));
            command.env("DEVID_PKCS11_TCTI", tcti);
            command.env("DEVID_PKCS11_CONFIG", self.path(config));
            let said = run_within(PATIENCE, &mut command, &[]);
            told.add(words[0], &said);
            let log = self.home.log() + &said.err;
            self.home.write("log", log);
            if said.status.code().is_none() || said.err.contains("panicked") {
                ended = Err(format!("devid {}: {said}", words.join(" ")));
            }
        }
        (ended, told)
    }

    /// Other programs take all slots for objects except one. A key in a file needs two slots,
    /// because its parent in a handle takes one too. So the module must know which slots hold its
    /// own left-over objects.
    pub fn fill(&self) {
        const SLOTS: usize = 2;
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
        let context = self.path("others.ctx");
        for _ in self.handles(TRANSIENT).len()..SLOTS {
            self.tool(
                "tpm2_createprimary",
                &[
                    "-C",
                    "n",
                    "-G",
                    "ecc256:ecdsa-sha256:null",
                    "-a",
                    attributes,
                    "-c",
                    &context,
                ],
            );
        }
    }

    /// A tpm2-tools command that must succeed.
    pub fn tool(&self, name: &str, arguments: &[&str]) {
        run(self.tpm.tool(name).args(arguments)).ok();
    }
}

/// Copies a folder with its files, links and rights.
fn copy(from: &Path, to: &Path) {
    let rights = fs::metadata(from).expect("a folder").permissions();
    fs::create_dir_all(to).expect("a folder");
    fs::set_permissions(to, rights).expect("rights");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => copy(&entry.path(), &to),
            kind if kind.is_symlink() => {
                let target = fs::read_link(entry.path()).expect("a link");
                std::os::unix::fs::symlink(target, to).expect("a link");
            }
            _ => drop(fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}
