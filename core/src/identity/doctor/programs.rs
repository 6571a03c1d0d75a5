//! Checks that other programs find the module: p11-kit by its `.module` files, OpenSSL by its
//! configuration.

use super::installation::{InstallPaths, LIBRARY, is_this_module, read_text};
use super::openssl::{self, ConfigGap};
use super::p11_kit::{self, FormatError, ModuleConfig, UnreadableFile};
use super::{Finding, Health};
use crate::config::Config;
use crate::identity::free_name::free_numbered;
use crate::identity::remedy::Remedy;
use crate::shell::word;
use std::path::{Path, PathBuf};

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    InstallPaths::of_this_system(config).look(findings);
}

impl InstallPaths {
    fn look(&self, findings: &mut Vec<Finding>) {
        let library = self.library();
        findings.push(match &library {
            Some(path) => Finding::ok("module", "module", path.display().to_string()),
            None => Finding::note(
                "module.none",
                "module",
                format!("{LIBRARY} is not in the folders that programs search for PKCS#11 modules"),
            )
            .with_remedy(Remedy::by_hand(format!(
                "Install {LIBRARY} into /usr/lib/<multiarch>/pkcs11/"
            ))),
        });
        let (module_configs, broken) = p11_kit::read(&self.p11_kit_conf, &self.p11_kit);
        // If an invalid file stops p11-kit, it loads no module.
        match broken.is_empty() {
            true => findings.push(self.p11_kit(library.as_deref(), &module_configs)),
            false => findings.extend(broken.iter().map(stops_p11_kit)),
        }
        findings.push(self.openssl(library.as_deref()));
    }

    /// Returns the path of the installed module, if it is in a folder for PKCS#11 modules.
    fn library(&self) -> Option<PathBuf> {
        let paths = self.modules.iter().map(|folder| folder.join(LIBRARY));
        paths.into_iter().find(|path| is_this_module(path))
    }

    fn p11_kit(&self, library: Option<&Path>, module_configs: &[ModuleConfig]) -> Finding {
        let about = "p11-kit";
        let Some((module_config, module)) = self.module_config(module_configs) else {
            let note = Finding::note(
                "p11-kit.none",
                about,
                "no configuration of p11-kit names the module".into(),
            );
            let folder = self.p11_kit.first().cloned().unwrap_or_default();
            // A `.module` file for a missing module would make p11-kit report an error to every
            // program.
            let Some(module) = library else {
                return note.with_remedy(Remedy::by_hand(format!(
                    "Install {LIBRARY}, then run devid doctor again"
                )));
            };
            // A file with the name `devid-pkcs11.module` may already configure another module.
            let free = free_numbered(&folder, "devid-pkcs11", "module");
            return note.with_remedy(Remedy::to_free_name(
                "To configure it, run",
                &[&folder],
                free,
                |target| {
                    format!(
                        "install -d {} && printf 'module: %s\\ntrust-policy: no\\n' {} > {}",
                        word(&folder),
                        word(module),
                        word(target)
                    )
                },
            ));
        };
        let path = self.resolved(module);
        let file = &module_config.file;
        let shown = file.display();
        let wrong = match path.as_deref() {
            Some(path) if is_this_module(path) => {
                let text = format!("{shown}: {}", path.display());
                return match module_config.limits() {
                    None => Finding::ok("p11-kit", about, text),
                    Some(limits) => {
                        Finding::note("p11-kit.limited", about, format!("{text}, {limits}"))
                    }
                };
            }
            Some(path) => format!("{shown} names {}, which is not this module", path.display()),
            None => format!("{shown} names {module}, which does not exist"),
        };
        Finding::problem(
            "p11-kit.wrong",
            about,
            wrong,
            match library {
                Some(library) => named_anew(file, "module:", library),
                None => Remedy::by_hand(format!(
                    "Install {LIBRARY}, and write its path into this file after module:"
                )),
            },
        )
        .about_object(shown.to_string())
    }

    /// Returns the p11-kit configuration that names this module, and the path of the module in it.
    fn module_config<'a>(&self, all: &'a [ModuleConfig]) -> Option<(&'a ModuleConfig, &'a str)> {
        let named = |one: &'a ModuleConfig| Some((one, one.module()?));
        let called = |module: &str| Path::new(module).file_name() == Some(LIBRARY.as_ref());
        let resolves = |module: &str| {
            self.resolved(module)
                .is_some_and(|path| is_this_module(&path))
        };
        let right = all.iter().filter_map(named).find(|one| resolves(one.1));
        right.or_else(|| all.iter().filter_map(named).find(|one| called(one.1)))
    }

    /// Returns the path of a module. p11-kit searches a name without folder in its own folder.
    fn resolved(&self, module: &str) -> Option<PathBuf> {
        let folders = self.modules.iter();
        let mut paths = folders.map(|folder| folder.join(module));
        paths.find(|path| path.is_file())
    }

    fn openssl(&self, library: Option<&Path>) -> Finding {
        let about = "OpenSSL";
        let judged = |file: &Path| openssl::find_provider(file, self);
        let ours = self.openssl_of_ours.as_deref();
        match judged(&self.openssl) {
            Ok(provider) => Finding::ok(
                "openssl",
                about,
                format!("{}: {}", self.openssl.display(), provider.display()),
            ),
            Err(ConfigGap::Unmentioned | ConfigGap::Others) => {
                match ours.map(|file| (file, judged(file))) {
                    Some((file, Ok(provider))) => Finding::ok(
                        "openssl",
                        about,
                        format!(
                            "programs that are started with OPENSSL_CONF={} find the module: {}",
                            file.display(),
                            provider.display()
                        ),
                    ),
                    // The configuration for OPENSSL_CONF is optional, so an error in it affects
                    // only programs that select it.
                    Some((file, Err(lack)))
                        if lack != ConfigGap::Unmentioned && lack != ConfigGap::Others =>
                    {
                        Finding {
                            state: Health::Note,
                            ..self.missing_permission(file, &lack, library)
                        }
                    }
                    _ => self.missing_permission(&self.openssl, &ConfigGap::Unmentioned, library),
                }
            }
            Err(lack) => self.missing_permission(&self.openssl, &lack, library),
        }
    }

    fn missing_permission(&self, file: &Path, lack: &ConfigGap, library: Option<&Path>) -> Finding {
        let about = "OpenSSL";
        let shown = file.display();
        let problem = |text: String, remedy: Remedy| {
            Finding::problem("openssl.wrong", about, format!("{shown}: {text}"), remedy)
                .about_object(shown.to_string())
        };
        match lack {
            ConfigGap::Unmentioned | ConfigGap::Others => {
                let target = self.openssl_of_ours.as_deref().unwrap_or(file);
                Finding::note(
                    "openssl.none",
                    about,
                    match lack {
                        ConfigGap::Others => format!(
                            "{shown} names a provider with pkcs11-module-path, but for another \
                             module"
                        ),
                        _ => format!("{shown} names no provider with pkcs11-module-path"),
                    },
                )
                .with_remedy(Remedy::by_hand(format!(
                    "Install pkcs11-conf/openssl.cnf of this project as {}. Write the paths of the \
                     provider and of the module into it. Then start programs with OPENSSL_CONF set \
                     to its path",
                    target.display()
                )))
            }
            ConfigGap::Module(module) => {
                let text = format!(
                    "pkcs11-module-path is {}, which does not exist or is not this module",
                    module.value
                );
                problem(
                    text,
                    match library {
                        Some(library) => set_in(
                            "To write the path of the installed module into the file, run",
                            module,
                            "pkcs11-module-path",
                            library.to_str().unwrap_or(","),
                        ),
                        None => Remedy::by_hand(format!(
                            "Install {LIBRARY} at this path, or write the right path into the file"
                        )),
                    },
                )
            }
            ConfigGap::Provider(path) => problem(
                format!("the provider {} does not exist", path.display()),
                Remedy::by_hand(
                    "On Debian 13 run apt-get install pkcs11-provider. On other systems write the \
                     path that scripts/pkcs11-provider prints after module = in the section",
                ),
            ),
            ConfigGap::Activation(begun, section) => problem(
                format!("the section [{section}] has no line activate = 1"),
                activated(begun, section),
            ),
            ConfigGap::Inactive(place) => problem(
                format!(
                    "the section [{}] has activate = {}, which newer versions of OpenSSL read as no",
                    place.section, place.value
                ),
                set_in("To activate the provider, run", place, "activate", "1"),
            ),
            ConfigGap::Default => problem(
                "the provider default is not activated, so OpenSSL's own algorithms are missing"
                    .into(),
                Remedy::by_hand(
                    "In the section that providers names, write default = default_sect. Then add a \
                     section [default_sect] with activate = 1",
                ),
            ),
        }
    }
}

/// Returns the remedy that writes the path of the installed module into a configuration file.
fn named_anew(file: &Path, setting: &str, library: &Path) -> Remedy {
    let words = "To write the path of the installed module into the file, run";
    let pattern = setting.replace(' ', " *");
    let expression = format!("s,^ *{pattern}.*,{setting} {},", library.display());
    in_place(words, file, expression, library.to_str().unwrap_or(","))
}

/// Returns the remedy that sets a value in a section of OpenSSL's configuration.
fn set_in(words: &str, place: &openssl::ConfigLine, setting: &str, value: &str) -> Remedy {
    let section = &place.section;
    let expression = format!(
        "/^[ \\t]*\\[[ \\t]*{section}[ \\t]*\\]/,/^[ \\t]*\\[/s,^[ \\t]*{setting}[ \\t]*=.*,{setting} = \
         {value},"
    );
    in_place(words, &place.file, expression, &format!("{section}{value}"))
}

fn activated(file: &Path, section: &str) -> Remedy {
    let expression = format!("s,^[ \\t]*\\[[ \\t]*{section}[ \\t]*\\].*,&\\nactivate = 1,");
    in_place("To activate the provider, run", file, expression, section)
}

/// Returns the remedy with an expression of sed(1). The expression contains text from a file, so
/// the remedy has a command only if the text has no special characters.
fn in_place(words: &str, file: &Path, expression: String, text: &str) -> Remedy {
    let plain = |one: char| one.is_ascii_alphanumeric() || "/._-+".contains(one);
    // If a line continues on the next line, sed(1) would change only a part of the setting.
    let goes_on = read_text(file).is_ok_and(|text| text.contains("\\\n"));
    match text.chars().all(plain) && !goes_on {
        true => Remedy::on_paths(
            words,
            &[file],
            format!("sed -i '{expression}' {}", word(file)),
        ),
        false => Remedy::by_hand(format!(
            "{words} (without a command: edit {})",
            file.display()
        )),
    }
}

/// Returns the finding for a file that stops p11-kit.
fn stops_p11_kit(broken: &UnreadableFile) -> Finding {
    let shown = broken.file.display();
    let numbered = |number: &usize, what: &str| format!("{shown}:{number}: {what}");
    let (what, remedy) = match &broken.why {
        FormatError::NoColon(number) => (
            numbered(number, "the line has no colon"),
            Remedy::by_hand("Write this line as NAME: VALUE, or put # in front of it"),
        ),
        FormatError::Equals(number) => (
            numbered(number, "the line has an equals sign instead of a colon"),
            Remedy::on_paths(
                "To write a colon instead, run",
                &[&broken.file],
                format!("sed -i '{number}s/ *=/:/' {}", word(&broken.file)),
            ),
        ),
        FormatError::Section(number) => (
            numbered(
                number,
                "the line begins a section, but files of p11-kit have no sections",
            ),
            Remedy::by_hand("Remove this line"),
        ),
        FormatError::Unreadable(kind) => (
            format!("{shown}: {kind}"),
            Remedy::by_hand("Make the file readable for all users, or remove it from the folder"),
        ),
    };
    let text = format!("{what}. p11-kit does not start in any program");
    Finding::problem("p11-kit.unreadable", "p11-kit", text, remedy).about_object(shown.to_string())
}

#[cfg(test)]
#[path = "programs_tests.rs"]
mod tests;
