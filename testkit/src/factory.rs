//! Runs `scripts/factory`, which gives a TPM its identity. The states are stored in the target
//! folder, one for each set of options, and copied for each test.

use super::folders;
use super::programs;
use super::tpm::{Swtpm, copy_state};
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The files of a device from the factory: certificates and the public key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    folder: PathBuf,
    name: String,
}

impl Identity {
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    pub fn public_key(&self) -> PathBuf {
        self.folder.join(format!("{}-pub.pem", self.name))
    }

    /// Returns the additional certificate of `--wrong-key`.
    pub fn wrong_certificate(&self) -> PathBuf {
        self.folder.join(format!("{}-wrong.pem", self.name))
    }

    /// Returns the identity in `folder` that the factory made with `options`.
    fn of(folder: &Path, options: &[String]) -> Identity {
        let named = options.iter().position(|option| option == "--name");
        let name = match named {
            Some(at) => &options[at + 1],
            None if options.iter().any(|option| option == "--iak") => "iak",
            None => "idev-id",
        };
        Identity {
            folder: folder.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Returns the path of `scripts/factory`.
pub fn script() -> PathBuf {
    folders::root().join("scripts/factory")
}

/// Runs the factory on the TPM at `tcti`. The files of the identity go into `folder`.
pub fn run(tcti: &str, folder: &Path, options: &[String]) -> Identity {
    let mut command = Command::new(script());
    command
        .arg("--tcti")
        .arg(tcti)
        .arg("--out")
        .arg(folder)
        .args(options);
    programs::run(&mut command).ok();
    Identity::of(folder, options)
}

/// Makes the state of a manufactured TPM in the folder `state`, which must not exist yet.
pub fn manufacture(options: &[&str], state: &Path) -> Identity {
    let options: Vec<String> = options.iter().map(ToString::to_string).collect();
    manufacture_all(&[options], state).remove(0)
}

/// Makes the state of a TPM with several identities, with one run of the factory for each set of
/// options.
pub fn manufacture_all(runs: &[Vec<String>], state: &Path) -> Vec<Identity> {
    let mut hasher = DefaultHasher::new();
    for part in [script(), script().with_file_name("authority")] {
        fs::read(part).expect("scripts/factory").hash(&mut hasher);
    }
    runs.hash(&mut hasher);
    let store = folders::scratch().join("factory");
    fs::create_dir_all(&store).expect("a folder for manufactured states");
    let name = format!("{:016x}", hasher.finish());
    let done = store.join(&name);

    let lock = File::create(store.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("a lock");
    if !done.exists() {
        let fresh = store.join(format!("{name}.new"));
        fs::remove_dir_all(&fresh).ok();
        fs::create_dir(&fresh).expect("a folder");
        let mut tpm = Swtpm::blank();
        for options in runs {
            run(&tpm.tcti(), &fresh.join("out"), options);
        }
        tpm.shut_down();
        copy_state(&tpm.state(), &fresh.join("state"));
        fs::rename(&fresh, &done).expect("renamed");
    }
    drop(lock);
    copy_state(&done.join("state"), state);
    let identity = |options: &Vec<String>| Identity::of(&done.join("out"), options);
    runs.iter().map(identity).collect()
}

impl Swtpm {
    /// Starts the TPM of a new device. Returns it with the files from the factory.
    pub fn manufactured() -> (Swtpm, Identity) {
        Swtpm::manufactured_with(&[])
    }

    /// Starts the TPM of a new device that was made with options of scripts/factory, for example
    /// `["--serial", "4711"]`.
    pub fn manufactured_with(options: &[&str]) -> (Swtpm, Identity) {
        let folder = TempDir::new().expect("a temporary folder");
        let identity = manufacture(options, &folder.path().join("state"));
        (Swtpm::on_ports(folder), identity)
    }

    /// Starts a TPM with several identities, made by one run of scripts/factory for each set of
    /// options.
    pub fn manufactured_in_runs(runs: &[Vec<String>]) -> (Swtpm, Vec<Identity>) {
        let folder = TempDir::new().expect("a temporary folder");
        let identities = manufacture_all(runs, &folder.path().join("state"));
        (Swtpm::on_ports(folder), identities)
    }

    /// Starts a manufactured TPM on a Unix socket. Only the module's own transport supports such a
    /// socket on every system.
    pub fn manufactured_on_unix_socket() -> (Swtpm, Identity) {
        let folder = TempDir::new().expect("a temporary folder");
        let identity = manufacture(&[], &folder.path().join("state"));
        (Swtpm::on_unix_socket(folder), identity)
    }
}
