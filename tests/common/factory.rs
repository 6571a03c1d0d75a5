//! The factory: `scripts/factory` gives a TPM its identity. What it made is kept under the
//! target folder, one state for each set of options, and copied for each test.

use super::programs;
use super::tpm::{Swtpm, copy_state};
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the factory keeps of a device: certificates and the public key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    folder: PathBuf,
}

impl Identity {
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.join("idev-id.pem")
    }

    pub fn public_key(&self) -> PathBuf {
        self.folder.join("idev-id-pub.pem")
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/factory")
}

/// Runs the factory on the TPM behind `tcti`; the identity goes into `folder`.
pub fn run(tcti: &str, folder: &Path, options: &[&str]) -> Identity {
    let mut command = Command::new(script());
    command
        .arg("--tcti")
        .arg(tcti)
        .arg("--out")
        .arg(folder)
        .args(options);
    programs::run(&mut command).ok();
    Identity {
        folder: folder.to_owned(),
    }
}

/// A manufactured TPM's state in the folder `state`, which must not exist yet.
pub fn manufacture(options: &[&str], state: &Path) -> Identity {
    let mut hasher = DefaultHasher::new();
    for part in [script(), script().with_file_name("authority")] {
        fs::read(part).expect("scripts/factory").hash(&mut hasher);
    }
    options.hash(&mut hasher);
    let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("factory");
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
        run(&tpm.tcti(), &fresh.join("out"), options);
        tpm.shut_down();
        copy_state(&tpm.state(), &fresh.join("state"));
        fs::rename(&fresh, &done).expect("renamed");
    }
    drop(lock);
    copy_state(&done.join("state"), state);
    Identity {
        folder: done.join("out"),
    }
}
