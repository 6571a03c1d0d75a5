//! SoftHSM, another PKCS#11 module. A test of standard behaviour must pass with both modules. The
//! comparison validates the tests.

use super::programs::{self, program};
use super::raw::Raw;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

pub const PIN: &str = "1234";

/// A SoftHSM with one initialised token in its own folder.
pub struct SoftHsm {
    _folder: TempDir,
}

impl SoftHsm {
    /// Makes the token, and sets the environment of this process for it.
    pub fn enter() -> (SoftHsm, Raw) {
        let folder = TempDir::new().expect("a temporary folder");
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).expect("a folder");
        let conf = folder.path().join("softhsm2.conf");
        fs::write(
            &conf,
            format!(
                "directories.tokendir = {}\nlog.level = ERROR\n",
                tokens.display()
            ),
        )
        .expect("a file");
        let mut make = program("softhsm2-util");
        make.env("SOFTHSM2_CONF", &conf).args([
            "--init-token",
            "--free",
            "--label",
            "soft",
            "--pin",
            PIN,
            "--so-pin",
            "5678",
        ]);
        programs::run(&mut make).ok();
        // SAFETY: A story runs alone in its process, and no thread reads the environment yet.
        unsafe { std::env::set_var("SOFTHSM2_CONF", &conf) };
        (SoftHsm { _folder: folder }, Raw::load(library()))
    }
}

/// Returns the path of the library in the Debian package.
pub fn library() -> &'static Path {
    [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ]
    .map(Path::new)
    .into_iter()
    .find(|path| path.is_file())
    .expect("libsofthsm2.so is missing: run scripts/setup test")
}
