//! A device of these stories: a TPM with certified endorsement keys, a home, and the tool.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::endorsed::Maker;
use testkit::home::Home;
use testkit::module::tool;
use testkit::programs::{Said, run};
use testkit::tpm::Swtpm;

/// A device.
pub struct Device {
    pub tpm: Swtpm,
    pub maker: Maker,
    pub home: Home,
}

impl Device {
    pub fn new() -> Device {
        Device::of(Swtpm::endorsed(1))
    }

    /// One of another maker, with another TPM.
    pub fn other() -> Device {
        Device::of(Swtpm::endorsed(2))
    }

    fn of((tpm, maker): (Swtpm, Maker)) -> Device {
        let home = Home::new(&tpm.tcti());
        Device { tpm, maker, home }
    }

    /// With a factory identity, of these options for scripts/factory, and with an attestation key of these.
    pub fn with_factory(identity: &[&str], attestation: &[&str]) -> Device {
        let device = Device::new();
        let mut options = identity.to_vec();
        device.manufacture(&options);
        options = [&["--iak"], attestation].concat();
        device.manufacture(&options);
        device
    }

    /// Runs scripts/factory.
    pub fn manufacture(&self, options: &[&str]) -> testkit::factory::Identity {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        testkit::factory::run(&self.tpm.tcti(), &self.home.path("factory"), &options)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(tool());
        self.home.settle(command.args(words).stdin(Stdio::null()));
        command
    }

    pub fn devid(&self, words: &[&str]) -> Said {
        run(&mut self.command(words))
    }

    /// The same, which must end with this code.
    #[track_caller]
    pub fn ends(&self, code: i32, words: &[&str]) -> Said {
        let said = self.devid(words);
        assert_eq!(said.status.code(), Some(code), "{said}");
        said
    }

    /// The same, refused with all of these words.
    #[track_caller]
    pub fn refuses(&self, code: i32, words: &[&str], said: &[&str]) -> Said {
        let answer = self.ends(code, words);
        let text = answer.err.clone();
        for word in said {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
        answer
    }

    /// Evidence of a key.
    #[track_caller]
    pub fn attest(&self, words: &[&str]) -> Bundle {
        let said = self.ends(0, &[&["attest"], words].concat());
        Bundle::read(&said.out)
    }

    #[track_caller]
    pub fn generate(&self, label: &str, options: &[&str]) {
        self.ends(0, &[&["key", "generate", label], options].concat());
    }

    /// One of tpm2-tools, in the home.
    #[track_caller]
    pub fn tpm2(&self, name: &str, words: &[&str]) -> Said {
        let mut tool = self.tpm.tool(name);
        run(tool.args(words).current_dir(self.home.folder())).ok()
    }

    /// Nothing of ours is loaded, and no try was counted.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.tpm.transients(), 0, "transient objects");
        assert_eq!(self.tpm.sessions(), 0, "loaded sessions");
        assert_eq!(self.tpm.lockout_counter(), 0, "failed tries");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// The path as a word.
    pub fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// An evidence bundle.
pub struct Bundle {
    pub json: Value,
    folder: tempfile::TempDir,
}

impl Bundle {
    #[track_caller]
    pub fn read(document: &[u8]) -> Bundle {
        let json: Value = serde_json::from_slice(document).expect("JSON");
        assert_eq!(json["format"], "devid-evidence/1");
        Bundle {
            json,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    #[track_caller]
    pub fn of_file(path: &Path) -> Bundle {
        Bundle::read(&fs::read(path).unwrap())
    }

    /// The byte string at a path with slashes.
    #[track_caller]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let value = self.json.pointer(&format!("/{path}"));
        let text = value.and_then(Value::as_str);
        from_base64(text.unwrap_or_else(|| panic!("no {path}")))
    }

    pub fn count(&self, path: &str) -> usize {
        let list = self.json.pointer(&format!("/{path}"));
        list.and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// A file with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// RFC 4648, section 4.
pub fn from_base64(text: &str) -> Vec<u8> {
    let mut decode = testkit::programs::program("openssl");
    decode.args(["base64", "-d", "-A"]);
    testkit::programs::run_with(&mut decode, text.as_bytes())
        .ok()
        .out
}

pub fn to_base64(bytes: &[u8]) -> String {
    let mut encode = testkit::programs::program("openssl");
    encode.args(["base64", "-A"]);
    let said = testkit::programs::run_with(&mut encode, bytes).ok();
    said.text().trim().to_owned()
}
