//! A device for the tool's stories: a separate TPM, a home folder, and the built `devid`.

pub mod clock;
pub mod cut;
pub mod est;
pub mod foreign;
pub mod machine;
pub mod mending;
pub mod stores;

pub use testkit::{factory, home, link, programs, proxy, tpm};

use factory::Identity;
use home::Home;
use programs::Said;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tpm::Swtpm;

/// A device: a TPM, a home and `devid`.
pub struct Device {
    pub tpm: Option<Swtpm>,
    pub home: Home,
}

impl Device {
    /// With a TPM as its maker leaves it.
    pub fn blank() -> Device {
        Device::with(Some(Swtpm::blank()))
    }

    /// With a factory identity.
    pub fn manufactured() -> (Device, Identity) {
        let (tpm, identity) = Swtpm::manufactured();
        (Device::with(Some(tpm)), identity)
    }

    /// Without TPM, for now.
    pub fn without_tpm() -> Device {
        Device::with(None)
    }

    pub fn with(tpm: Option<Swtpm>) -> Device {
        let tcti = match &tpm {
            Some(tpm) => tpm.tcti(),
            None => "device:/nonexistent/tpm".to_owned(),
        };
        let home = Home::new(&tcti);
        fs::create_dir(home.path("trust")).expect("a folder");
        Device { tpm, home }
    }

    /// The home with another TPM, or without TPM.
    pub fn move_to(self, tpm: Option<Swtpm>) -> Device {
        let Device { home, .. } = self;
        let tcti = tpm
            .as_ref()
            .map_or("device:/nonexistent/tpm".to_owned(), Swtpm::tcti);
        Device {
            tpm,
            home: home.with_tcti(&tcti),
        }
    }

    pub fn tpm(&mut self) -> &mut Swtpm {
        self.tpm.as_mut().expect("a TPM")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// `devid` with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devid"));
        self.home.settle(command.args(words).stdin(Stdio::null()));
        command
    }

    pub fn devid(&self, words: &[&str]) -> Said {
        programs::run(&mut self.command(words))
    }

    /// Runs the command, which must end with this code.
    #[track_caller]
    pub fn ends(&self, code: i32, words: &[&str]) -> Said {
        let said = self.devid(words);
        assert_eq!(said.status.code(), Some(code), "{said}");
        said
    }

    /// A value of what the tool answers in JSON.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let said = self.devid(&[words, &["--json"]].concat());
        serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Has the test's CA certify the request: `ca.pem` and `root.pem` come into `folder`.
    pub fn certified(&self, request: &Path, folder: &Path) -> PathBuf {
        self.certified_with(&[], request, folder)
    }

    /// A certificate with options for scripts/authority.
    pub fn certified_with(&self, options: &[&str], request: &Path, folder: &Path) -> PathBuf {
        let script = factory::script().with_file_name("authority");
        let certificate = folder.join(request.with_extension("cert.pem").file_name().unwrap());
        let mut authority = Command::new(script);
        authority.args(options);
        authority.args(["--serial", "SN-7", "--dir"]).arg(folder);
        authority
            .arg("--request")
            .arg(request)
            .arg("--out")
            .arg(&certificate);
        programs::run(&mut authority).ok();
        certificate
    }

    pub fn trust(&self, certificate: &Path) {
        fs::copy(certificate, self.path("trust/ca.pem")).expect("copied");
    }
}

/// Runs a program of tpm2-tools on the device's TPM, in its home.
#[track_caller]
pub fn tpm2(device: &mut Device, name: &str, words: &[&str]) -> Said {
    let home = device.path("");
    let mut tool = device.tpm().tool(name);
    programs::run(tool.args(words).current_dir(home)).ok()
}

/// Persistent handles, as tpm2-tools list them.
pub fn persistent(device: &mut Device) -> String {
    tpm2(device, "tpm2_getcap", &["handles-persistent"]).text()
}

pub fn evict(device: &mut Device, handle: &str) {
    tpm2(device, "tpm2_evictcontrol", &["-C", "o", "-c", handle]);
}

/// Files of the key folder that begin so.
pub fn files(device: &Device, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.path("state/devid"));
    let paths = entries.into_iter().flatten();
    let paths = paths.map(|entry| entry.expect("an entry").path());
    let is_kind = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(kind)
    };
    let mut found: Vec<_> = paths.filter(is_kind).collect();
    found.sort();
    found
}
