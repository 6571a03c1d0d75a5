//! TPMs with certified endorsement keys. `swtpm_setup --create-ek-cert` acts as the TPM
//! manufacturer. The states are stored in the target folder, one for each number, and copied for
//! each test.

use super::folders;
use super::programs::{program, run};
use super::tpm::{Swtpm, copy_state};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// NV indices for certificates of endorsement keys: RSA-2048 of the low range, P-384 of the high
/// range.
pub const RSA: u32 = 0x01C0_0002;
pub const P384: u32 = 0x01C0_0016;
/// The handles of the two keys in a TPM from swtpm_setup.
const HANDLES: [u32; 2] = [0x8101_0001, 0x8101_0016];

/// The files of the TPM manufacturer.
#[derive(Clone, Debug)]
pub struct Maker {
    folder: PathBuf,
}

impl Maker {
    /// Returns the certificate of the root CA.
    pub fn root(&self) -> PathBuf {
        self.folder.join("swtpm-localca-rootca-cert.pem")
    }

    /// Returns the private key of the CA that certifies endorsement keys.
    pub fn issuer_key(&self) -> PathBuf {
        self.folder.join("signkey.pem")
    }

    /// Returns the certificate of the CA that certifies endorsement keys.
    pub fn issuer(&self) -> PathBuf {
        self.folder.join("issuercert.pem")
    }

    /// Writes both certificates to one file in the folder of a test.
    pub fn chain(&self, folder: &Path) -> PathBuf {
        let both = [self.root(), self.issuer()].map(|path| fs::read(path).expect("a certificate"));
        let path = folder.join("maker.pem");
        fs::write(&path, both.concat()).expect("a file");
        path
    }
}

impl Swtpm {
    /// Starts a TPM with certified endorsement keys, RSA-2048 (template L-1) and P-384 (H-3), both
    /// in handles. Each number is a different TPM of a different manufacturer.
    pub fn endorsed(number: u32) -> (Swtpm, Maker) {
        let store = folders::scratch().join("endorsed");
        fs::create_dir_all(&store).expect("a folder for states");
        let done = store.join(number.to_string());
        let lock = File::create(store.join(format!("{number}.lock"))).expect("a lock file");
        lock.lock().expect("a lock");
        if !done.exists() {
            let fresh = store.join(format!("{number}.new"));
            fs::remove_dir_all(&fresh).ok();
            make(&fresh);
            fs::rename(&fresh, &done).expect("renamed");
        }
        drop(lock);
        let folder = TempDir::new().expect("a temporary folder");
        copy_state(&done.join("state"), &folder.path().join("state"));
        let ca = done.join("ca");
        (Swtpm::on_ports(folder), Maker { folder: ca })
    }

    /// Removes the certificate of an endorsement key.
    pub fn without_certificate(&self, index: u32) {
        let mut undefine = self.tool("tpm2_nvundefine");
        run(undefine.args(["-C", "p", &format!("{index:#x}")])).ok();
    }

    /// Removes the endorsement keys from their handles, so that programs must derive them.
    pub fn without_endorsement_handles(&self) {
        for handle in HANDLES {
            let mut evict = self.tool("tpm2_evictcontrol");
            run(evict.args(["-C", "o", "-c", &format!("{handle:#x}")])).ok();
        }
    }

    /// Returns the number of loaded sessions.
    pub fn sessions(&self) -> usize {
        let listed = run(self.tool("tpm2_getcap").arg("handles-loaded-session"));
        listed.ok().text().lines().count()
    }
}

fn make(fresh: &Path) {
    let (state, ca) = (fresh.join("state"), fresh.join("ca"));
    for folder in [&state, &ca] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let write = |name: &str, text: String| {
        let path = fresh.join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let settings = write(
        "localca.conf",
        format!(
            "statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = \
             {ca}/issuercert.pem\ncertserial = {ca}/certserial\n",
            ca = ca.display()
        ),
    );
    let options = write(
        "localca.options",
        "--platform-manufacturer Example\n--platform-version 1\n--platform-model Model\n".into(),
    );
    let setup = write(
        "setup.conf",
        format!(
            "create_certs_tool = {}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = \
             {}\n",
            super::programs::find("swtpm_localca").display(),
            settings.display(),
            options.display()
        ),
    );
    let mut command = program("swtpm_setup");
    command.args(["--tpm2", "--create-ek-cert", "--config"]);
    command.arg(setup).arg("--tpmstate").arg(&state);
    run(&mut command).ok();
}
