//! Reads p11-kit's files (pkcs11.conf(5)) with the rules of p11-kit:
//!
//! - p11-kit reads every file of a folder, whatever its name is;
//! - files of the same name configure one module, and the administrator's settings have precedence;
//! - a line that cannot be parsed stops p11-kit in every program.

use super::installation::read_text;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The settings of a PKCS#11 module in p11-kit's `.module` files.
#[derive(Debug, Default)]
pub(super) struct ModuleConfig {
    /// The `.module` file that names the path of the module.
    pub(super) file: PathBuf,
    settings: BTreeMap<String, String>,
}

/// An invalid file, because of which p11-kit does not start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnreadableFile {
    pub(super) file: PathBuf,
    pub(super) why: FormatError,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FormatError {
    /// The line with this number has no colon. The first line has the number 1.
    NoColon(usize),
    /// The line with this number has an equals sign instead of a colon. The first line has the
    /// number 1.
    Equals(usize),
    /// The line with this number begins a section, which p11-kit does not support. The first line
    /// has the number 1.
    Section(usize),
    /// The file cannot be opened.
    Unreadable(ErrorKind),
}

/// Reads the configurations of all modules in these folders. Settings in the first folder have
/// precedence. Also returns the invalid files that stop p11-kit, such as an invalid `main`.
pub(super) fn read(main: &Path, folders: &[PathBuf]) -> (Vec<ModuleConfig>, Vec<UnreadableFile>) {
    let mut broken = Vec::new();
    let mut all: BTreeMap<OsString, ModuleConfig> = BTreeMap::new();
    let mut settings = |file: &Path| match settings_of(file) {
        Ok(settings) => settings,
        Err(why) => {
            broken.push(UnreadableFile {
                file: file.into(),
                why,
            });
            BTreeMap::new()
        }
    };
    if main.exists() {
        settings(main);
    }
    for folder in folders.iter().rev() {
        for file in files_of(folder) {
            let name = file.file_name().unwrap_or_default().to_owned();
            let read = settings(&file);
            let known = all.entry(name).or_default();
            if read.contains_key(MODULE) {
                known.file = file;
            }
            known.settings.extend(read);
        }
    }
    broken.sort_by(|one, other| one.file.cmp(&other.file));
    (all.into_values().collect(), broken)
}

const MODULE: &str = "module";

impl ModuleConfig {
    /// Returns the path or the file name of the module in the setting `module`.
    pub(super) fn module(&self) -> Option<&str> {
        self.settings.get(MODULE).map(String::as_str)
    }

    /// Returns the programs that the configuration limits the module to, as text. Returns `None` if
    /// there is no limit.
    pub(super) fn limits(&self) -> Option<String> {
        let listed = |name: &str| {
            let text = self.settings.get(name)?;
            let names = text.split([',', ' ', '\t']).filter(|name| !name.is_empty());
            Some(names.collect::<Vec<_>>().join(", "))
        };
        match (listed("enable-in"), listed("disable-in")) {
            (Some(none), _) if none.is_empty() => {
                Some("used in no program, because enable-in is empty".into())
            }
            (Some(programs), _) => Some(format!("used only in {programs} (enable-in)")),
            (None, Some(programs)) if !programs.is_empty() => {
                Some(format!("not used in {programs} (disable-in)"))
            }
            (None, _) => None,
        }
    }
}

/// Returns the files in a folder, without its subfolders.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| !file.is_dir());
    files.sort();
    files
}

fn settings_of(file: &Path) -> Result<BTreeMap<String, String>, FormatError> {
    let text = read_text(file).map_err(|error| FormatError::Unreadable(error.kind()))?;
    let mut settings = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(':') {
            _ if line.starts_with('[') => return Err(FormatError::Section(number)),
            _ if line.starts_with("-----BEGIN ") => return Err(FormatError::NoColon(number)),
            Some((key, value)) => {
                settings.insert(key.trim_ascii().into(), value.trim_ascii().into());
            }
            None if line.contains('=') => return Err(FormatError::Equals(number)),
            None => return Err(FormatError::NoColon(number)),
        }
    }
    Ok(settings)
}
