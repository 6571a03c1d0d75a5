//! The environment of the module: its configuration, its log and its folders, all in one temporary
//! folder.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use tempfile::TempDir;

/// A home folder for the module and its programs. If the test fails, the log is printed.
pub struct Home {
    folder: TempDir,
    tcti: String,
    /// True if the environment names the state folder, false if the configuration does.
    names_state: bool,
}

impl Home {
    /// Creates a home with an empty configuration. `tcti` is the address of the TPM.
    pub fn new(tcti: &str) -> Home {
        let folder = TempDir::new().expect("a temporary folder");
        for name in ["config.d", "chain", "run", "state"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let home = Home {
            folder,
            tcti: tcti.to_owned(),
            names_state: true,
        };
        home.write("config.toml", "");
        home
    }

    /// Returns this home. The configuration then names the state folder instead of the environment.
    pub fn without_state(mut self) -> Home {
        self.names_state = false;
        self
    }

    /// Returns this home with another TPM address.
    pub fn with_tcti(mut self, tcti: &str) -> Home {
        tcti.clone_into(&mut self.tcti);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the home, for example `config.toml` or `chain/ca.pem`.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// Returns the log of the module so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Fails unless the log has a line with all of `words`, in upper or lower case.
    #[track_caller]
    pub fn log_says(&self, words: &[&str]) {
        let log = self.log();
        let said = log.lines().any(|line| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(&word.to_lowercase()))
        });
        assert!(said, "no line of the log has {words:?}");
    }

    /// Touches the generation file, as `devid` does after a change.
    pub fn next_generation(&self) {
        let path = self.path("run/generation");
        let mut file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.as_mut().expect("the generation file");
        file.write_all(b"+").expect("written");
    }

    /// Returns the environment variables of this home.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut log = OsString::from("trace,file:");
        log.push(self.path("log"));
        let mut variables = vec![
            ("DEVID_PKCS11_CONFIG", self.path("config.toml").into()),
            ("DEVID_PKCS11_LOG", log),
            ("DEVID_PKCS11_RUN", self.path("run").into()),
            ("DEVID_PKCS11_STATE", self.path("state").into()),
        ];
        variables.retain(|(name, _)| self.names_state || *name != "DEVID_PKCS11_STATE");
        if !self.tcti.is_empty() {
            variables.push(("DEVID_PKCS11_TCTI", self.tcti.clone().into()));
        }
        variables
    }

    /// Sets the environment variables in this process. The module must not be loaded yet.
    pub fn enter(&self) {
        for (name, value) in self.variables() {
            // SAFETY: A story runs alone in its process, and calls this before it starts threads
            // that read the environment.
            unsafe { std::env::set_var(name, value) };
        }
    }

    /// Sets logging to its default, which costs nothing, for measurements.
    pub fn quiet(&self) {
        // SAFETY: The argument of `enter` applies: the story runs alone in its process.
        unsafe { std::env::remove_var("DEVID_PKCS11_LOG") };
    }

    /// Sets the environment variables for a program.
    pub fn settle<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            let from = (from..=log.len())
                .find(|at| log.is_char_boundary(*at))
                .unwrap_or(0);
            eprintln!("--- the module's log ---\n{}---", &log[from..]);
        }
    }
}
