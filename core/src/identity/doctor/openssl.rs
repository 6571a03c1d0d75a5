//! OpenSSL's configuration (config(5), in its own words), as far as providers go.

use super::programs::{Places, is_ours, text_of};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const MODULE_PATH: &str = "pkcs11-module-path";
/// So deep may files include others.
const DEPTH: usize = 4;

/// What is missing for the provider to find the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lack {
    /// No such provider is named, or there is no such file.
    Unmentioned,
    /// This module is not there, or is another one.
    Module(PathBuf),
    /// This provider is not there.
    Provider(PathBuf),
    /// This section is not activated.
    Activation(String),
    /// OpenSSL's own algorithms are not.
    Default,
}

/// Sections by name; what stands before the first is in the section without name.
type Sections = HashMap<String, HashMap<String, String>>;

/// The provider's path, if the file has it find our module.
pub(super) fn judge(file: &Path, places: &Places) -> Result<PathBuf, Lack> {
    let mut all = Sections::new();
    let mut section = String::new();
    read(file, &mut section, &mut all, DEPTH).ok_or(Lack::Unmentioned)?;
    let value = |section: &str, name: &str| all.get(section)?.get(name).map(String::as_str);
    let main = value("", "openssl_conf").ok_or(Lack::Unmentioned)?;
    let list = value(main, "providers").ok_or(Lack::Unmentioned)?;
    let named = all.get(list).ok_or(Lack::Unmentioned)?;
    let ours = named
        .iter()
        .find_map(|(name, section)| Some((name, section, value(section, MODULE_PATH)?)));
    let (name, section, module) = ours.ok_or(Lack::Unmentioned)?;
    let module = Path::new(module);
    if !is_ours(module) {
        return Err(Lack::Module(module.into()));
    }
    let provider = match value(section, "module") {
        Some(path) => PathBuf::from(path),
        None => {
            let file = format!("{}.so", value(section, "identity").unwrap_or(name));
            let paths = places.providers.iter().map(|folder| folder.join(&file));
            let found = paths.into_iter().find(|path| path.is_file());
            found.ok_or_else(|| Lack::Provider(file.into()))?
        }
    };
    if !provider.is_file() {
        return Err(Lack::Provider(provider));
    }
    let active = |section: &str| {
        let off = ["0", "no", "false", "off"];
        value(section, "activate").is_some_and(|said| !off.contains(&said))
    };
    if !active(section) {
        return Err(Lack::Activation(section.clone()));
    }
    let default = named.get("default").map(String::as_str);
    match default.is_some_and(active) {
        true => Ok(provider),
        false => Err(Lack::Default),
    }
}

/// `None` if the file cannot be read.
fn read(file: &Path, section: &mut String, all: &mut Sections, depth: usize) -> Option<()> {
    let text = text_of(file).ok()?.replace("\\\n", "");
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            name.trim().clone_into(section);
        } else if let Some(path) = line.strip_prefix(".include") {
            let path = path.trim().trim_start_matches('=').trim();
            if depth > 0 {
                include(Path::new(path), section, all, depth - 1);
            }
        } else if let Some((name, value)) = line.split_once('=') {
            let value = value.trim().trim_matches(['"', '\'']);
            let section = all.entry(section.clone()).or_default();
            section.insert(name.trim().to_owned(), value.to_owned());
        }
    }
    Some(())
}

/// A file, or the `.cnf` and `.conf` files of a folder.
fn include(path: &Path, section: &mut String, all: &mut Sections, depth: usize) {
    if !path.is_dir() {
        read(path, section, all, depth);
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let is_configuration = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "cnf" || end == "conf")
    };
    files.retain(is_configuration);
    files.sort();
    for file in files {
        read(&file, section, all, depth);
    }
}
