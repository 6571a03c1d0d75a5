//! Reads the configuration of OpenSSL (config(5)), as far as it configures providers.

use super::installation::{InstallPaths, LIBRARY, is_this_module, read_text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MODULE_PATH: &str = "pkcs11-module-path";
/// How deep files may include other files (`.include`).
const DEPTH: usize = 4;

/// The reason why the PKCS#11 provider of OpenSSL does not find the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConfigGap {
    /// No section configures a PKCS#11 provider, or the configuration file is missing.
    Unmentioned,
    /// The configured PKCS#11 providers use modules of other programs.
    Others,
    /// The named module does not exist, or is not this module.
    Module(ConfigLine),
    /// The file of the configured provider does not exist.
    Provider(PathBuf),
    /// The section of the provider has no line `activate`. The path is that of the last file with
    /// the section.
    Activation(PathBuf, String),
    /// The setting `activate` has a value that means no.
    Inactive(ConfigLine),
    /// OpenSSL's own provider `default` is not activated.
    Default,
}

/// A setting of OpenSSL's configuration, with its file and section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigLine {
    pub(super) file: PathBuf,
    pub(super) section: String,
    pub(super) value: String,
}

/// The sections by name. Settings before the first section have an empty section name.
type Sections = BTreeMap<String, ConfigSection>;

/// A section of OpenSSL's configuration. Several files may contribute to a section.
#[derive(Debug, Default)]
struct ConfigSection {
    /// The last file that contributes to the section.
    file: PathBuf,
    /// The value of each setting, and the last file that sets it.
    settings: BTreeMap<String, (String, PathBuf)>,
}

/// Returns the path of the PKCS#11 provider, if OpenSSL's configuration connects the provider with
/// this module.
pub(super) fn find_provider(file: &Path, paths: &InstallPaths) -> Result<PathBuf, ConfigGap> {
    let mut all = Sections::new();
    let mut section = String::new();
    read(file, &mut section, &mut all, DEPTH).ok_or(ConfigGap::Unmentioned)?;
    let setting = |section: &str, name: &str| all.get(section)?.settings.get(name);
    let value = |section: &str, name: &str| setting(section, name).map(|(said, _)| said.as_str());
    let main = value("", "openssl_conf").ok_or(ConfigGap::Unmentioned)?;
    let list = value(main, "providers").ok_or(ConfigGap::Unmentioned)?;
    let named = all.get(list).ok_or(ConfigGap::Unmentioned)?;
    let named = || named.settings.iter().map(|(name, (said, _))| (name, said));
    let with_module = named().filter_map(|(name, section)| {
        let (module, file) = setting(section, MODULE_PATH)?;
        let module = ConfigLine {
            file: file.clone(),
            section: section.clone(),
            value: module.clone(),
        };
        Some((name, section, module))
    });
    let with_module: Vec<_> = with_module.collect();
    let mut all_of = with_module.iter();
    let right = all_of.find(|(_, _, module)| is_this_module(Path::new(&module.value)));
    let Some((name, section, _)) = right else {
        // If the module exists under another file name, it belongs to another program.
        let meant = |module: &ConfigLine| {
            let path = Path::new(&module.value);
            path.file_name() == Some(LIBRARY.as_ref()) || !path.exists()
        };
        let mut meant = with_module.iter().filter(|(_, _, module)| meant(module));
        return Err(match meant.next() {
            Some((_, _, module)) => ConfigGap::Module(module.clone()),
            None if with_module.is_empty() => ConfigGap::Unmentioned,
            None => ConfigGap::Others,
        });
    };
    let provider = match value(section, "module") {
        Some(path) => PathBuf::from(path),
        None => {
            let file = format!("{}.so", value(section, "identity").unwrap_or(name));
            let paths = paths.providers.iter().map(|folder| folder.join(&file));
            let found = paths.into_iter().find(|path| path.is_file());
            found.ok_or_else(|| ConfigGap::Provider(file.into()))?
        }
    };
    if !provider.is_file() {
        return Err(ConfigGap::Provider(provider));
    }
    let is_active = |section: &str| {
        let off = ["0", "no", "false", "off"];
        let said = value(section, "activate").map(str::to_ascii_lowercase);
        said.is_some_and(|said| !said.is_empty() && !off.contains(&said.as_str()))
    };
    if !is_active(section) {
        let begun = all.get(section.as_str()).map(|one| one.file.clone());
        return Err(match setting(section, "activate") {
            None => ConfigGap::Activation(begun.unwrap_or_default(), (*section).clone()),
            Some((value, file)) => ConfigGap::Inactive(ConfigLine {
                file: file.clone(),
                section: (*section).clone(),
                value: value.clone(),
            }),
        });
    }
    let mut default = named().filter(|(name, _)| *name == "default");
    match default.any(|(_, section)| is_active(section)) {
        true => Ok(provider),
        false => Err(ConfigGap::Default),
    }
}

/// Reads a configuration file and its included files into `all`. Returns `None` if the file cannot
/// be read.
fn read(file: &Path, section: &mut String, all: &mut Sections, depth: usize) -> Option<()> {
    let text = read_text(file).ok()?.replace("\\\n", "");
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            name.trim().clone_into(section);
            all.entry(section.clone()).or_default().file = file.into();
        } else if let Some(path) = line.strip_prefix(".include") {
            let path = path.trim().trim_start_matches('=').trim();
            if depth > 0 {
                include(Path::new(path), section, all, depth - 1);
            }
        } else if let Some((name, value)) = line.split_once('=') {
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            let section = all.entry(section.clone()).or_default();
            let setting = (value, file.to_path_buf());
            section.settings.insert(name.trim().to_owned(), setting);
        }
    }
    Some(())
}

/// Reads an included file, or the `.cnf` and `.conf` files of an included folder.
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
