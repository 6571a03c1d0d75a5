//! A device manufacturer that uses tpm2-tools, for cases that `scripts/factory` does not support.

use super::programs::{program, run};
use super::tpm::Swtpm;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// The NV index of the factory's certificate, and its attributes.
pub const INDEX: &str = "0x01C90200";
pub const OPEN: &str = "authread|ownerread|ppread|ownerwrite|no_da";

/// Makes keys, certificates and NV indices in one TPM.
pub struct Maker<'a> {
    tpm: &'a Swtpm,
    folder: TempDir,
}

impl Maker<'_> {
    pub fn new(tpm: &Swtpm) -> Maker<'_> {
        let folder = TempDir::new().expect("a temporary folder");
        Maker { tpm, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a primary key persistent at 0x81020000. `algorithm` is an argument of
    /// tpm2_createprimary, `auth` the authorisation value. Returns the public key as a PEM file.
    pub fn key(&self, algorithm: &str, auth: &str) -> PathBuf {
        let (context, public) = (self.file("key.ctx"), self.file("key.pem"));
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
        let mut create = self.tpm.tool("tpm2_createprimary");
        create.args([
            "-C", "e", "-g", "sha256", "-G", algorithm, "-a", attributes, "-p", auth,
        ]);
        create.arg("-c").arg(&context).args(["-f", "pem", "-o"]);
        run(create.arg(&public)).ok();
        let mut keep = self.tpm.tool("tpm2_evictcontrol");
        keep.args(["-C", "o", "-c"]).arg(&context);
        run(keep.arg("0x81020000")).ok();
        run(self.tpm.tool("tpm2_flushcontext").arg("--transient-object")).ok();
        public
    }

    /// Returns a certificate for `public` in DER, issued by a temporary CA.
    pub fn certificate(&self, public: &PathBuf) -> Vec<u8> {
        let (key, authority) = (self.file("ca.key"), self.file("ca.pem"));
        let mut found = program("openssl");
        found.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]);
        found.args(["ec_paramgen_curve:P-256", "-subj", "/CN=Maker", "-keyout"]);
        run(found.arg(&key).arg("-out").arg(&authority)).ok();
        let usage = self.file("usage");
        fs::write(&usage, "keyUsage = critical, digitalSignature\n").expect("a file");
        let mut issue = program("openssl");
        issue.args(["x509", "-new", "-subj", "/CN=Device", "-outform", "DER"]);
        issue.arg("-force_pubkey").arg(public);
        issue.arg("-CA").arg(authority).arg("-CAkey").arg(key);
        run(issue.arg("-extfile").arg(usage)).ok().out
    }

    /// Makes an NV index with `content`, these attributes and the authorisation value `auth`.
    pub fn index(&self, index: &str, attributes: &str, auth: &str, content: &[u8]) {
        let file = self.file("content");
        fs::write(&file, content).expect("a file");
        let mut define = self.tpm.tool("tpm2_nvdefine");
        define.args(["-C", "o", "-a", attributes, "-p", auth, "-s"]);
        run(define.arg(content.len().to_string()).arg(index)).ok();
        let mut write = self.tpm.tool("tpm2_nvwrite");
        run(write.args(["-C", "o", index, "-i"]).arg(file)).ok();
    }

    pub fn forget_index(&self, index: &str) {
        let mut undefine = self.tpm.tool("tpm2_nvundefine");
        run(undefine.args(["-C", "o", index])).ok();
    }
}
