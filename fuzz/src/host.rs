//! The files and environment variables of a host of the module, in memory.

use crate::memory::TCTI;
use devid_core::config::{Config, LoadedConfig, load};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

fn place(variable: &str) -> Option<OsString> {
    let below = |name: &str| Some(crate::folder().join(name).into());
    match variable {
        "DEVID_PKCS11_CONFIG" => below("config.toml"),
        "DEVID_PKCS11_RUN" => below("run"),
        "DEVID_PKCS11_STATE" => below("state"),
        "DEVID_PKCS11_TCTI" => Some(TCTI.into()),
        _ => None,
    }
}

/// Loads the configuration with this text as its file. The file is written only if the text
/// changes.
pub fn config(text: &str) -> Config {
    let loaded = loaded(text.as_bytes());
    loaded.config.expect("a configuration")
}

/// Loads a configuration whose text may be wrong.
pub fn loaded(text: &[u8]) -> LoadedConfig {
    let path = crate::folder().join("config.toml");
    if fs::read(&path).ok().as_deref() != Some(text) {
        fs::write(&path, text).expect("a file");
    }
    load(&place)
}

/// Writes the configuration file, and sets the environment for the module.
pub fn settle(text: &str) {
    fs::write(crate::folder().join("config.toml"), text).expect("a file");
    for name in ["CONFIG", "RUN", "STATE", "TCTI"] {
        let name = format!("DEVID_PKCS11_{name}");
        // SAFETY: There is no other thread yet.
        unsafe { std::env::set_var(&name, place(&name).expect("a value")) };
    }
}

/// All files below a folder, with their contents.
#[derive(PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    pub fn of(folder: &Path) -> Self {
        let mut files = Vec::new();
        collect(folder, &mut files);
        files.sort();
        Self(files)
    }

    /// Returns true if a temporary file of a writer remains.
    pub fn has_unfinished(&self) -> bool {
        let begun = |path: &Path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-"))
        };
        self.0.iter().any(|(path, _)| begun(path))
    }

    /// Makes the folder contain these files and no other files.
    pub fn restore(&self, folder: &Path) {
        if Self::of(folder) == *self {
            return;
        }
        fs::remove_dir_all(folder).ok();
        for (path, content) in &self.0 {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("a file");
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => collect(&path, files),
            path => {
                let content = fs::read(&path).unwrap_or_default();
                files.push((path, content));
            }
        }
    }
}
