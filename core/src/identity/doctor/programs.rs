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
                format!("{LIBRARY} is not where programs look for it"),
            )
            .with_remedy(Remedy::by_hand(format!(
                "Install {LIBRARY} into /usr/lib/<multiarch>/pkcs11/"
            ))),
        });
        let (module_configs, broken) = p11_kit::read(&self.p11_kit_conf, &self.p11_kit);
        // If p11-kit does not start, it knows no module.
        match broken.is_empty() {
            true => findings.push(self.p11_kit(library.as_deref(), &module_configs)),
            false => findings.extend(broken.iter().map(stops_p11_kit)),
        }
        findings.push(self.openssl(library.as_deref()));
    }

    /// The installed module.
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
                "p11-kit does not know the module".into(),
            );
            let folder = self.p11_kit.first().cloned().unwrap_or_default();
            // p11-kit would report the missing module to every program.
            let Some(module) = library else {
                return note.with_remedy(Remedy::by_hand(format!(
                    "Install {LIBRARY}, then run devid doctor again"
                )));
            };
            // An existing file of this name may be for another module.
            let free = free_numbered(&folder, "devid-pkcs11", "module");
            return note.with_remedy(Remedy::to_free_name(
                "Tell it",
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
            Some(path) => format!("{shown} names {}, which is another module", path.display()),
            None => format!("{shown} names {module}, which does not exist"),
        };
        Finding::problem(
            "p11-kit.wrong",
            about,
            wrong,
            match library {
                Some(library) => named_anew(file, "module:", library),
                None => Remedy::by_hand(format!(
                    "Install {LIBRARY}, and name its path there, after module:"
                )),
            },
        )
        .about_object(shown.to_string())
    }

    /// The configuration of our module, and its path.
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

    /// Resolves a bare name in p11-kit's own folder.
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
                            "for programs started with OPENSSL_CONF={}: {}",
                            file.display(),
                            provider.display()
                        ),
                    ),
                    // This file is optional, so a gap in it affects only its users.
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
                            "{shown} names a provider with pkcs11-module-path for another module"
                        ),
                        _ => format!("{shown} names no provider with pkcs11-module-path"),
                    },
                )
                .with_remedy(Remedy::by_hand(format!(
                    "Put pkcs11-conf/openssl.cnf of this project there as {}, with the paths of \
                     provider and module, and start programs with OPENSSL_CONF naming it",
                    target.display()
                )))
            }
            ConfigGap::Module(module) => {
                let text = format!(
                    "pkcs11-module-path = {}, which does not exist or is another module",
                    module.value
                );
                problem(
                    text,
                    match library {
                        Some(library) => set_in(
                            "Name the module that is there",
                            module,
                            "pkcs11-module-path",
                            library.to_str().unwrap_or(","),
                        ),
                        None => {
                            Remedy::by_hand(format!("Install {LIBRARY} there, or name its path"))
                        }
                    },
                )
            }
            ConfigGap::Provider(path) => problem(
                format!("the provider {} does not exist", path.display()),
                Remedy::by_hand(
                    "apt-get install pkcs11-provider (Debian 13); or put what scripts/pkcs11-provider \
                     prints into the section's module line",
                ),
            ),
            ConfigGap::Activation(begun, section) => problem(
                format!("[{section}] has no activate = 1"),
                activated(begun, section),
            ),
            ConfigGap::Inactive(place) => problem(
                format!(
                    "[{}] has activate = {}, which newer releases of OpenSSL treat as no",
                    place.section, place.value
                ),
                set_in("Say yes", place, "activate", "1"),
            ),
            ConfigGap::Default => problem(
                "no provider default is activated, so OpenSSL's own algorithms are missing".into(),
                Remedy::by_hand(
                    "Under the section that providers names: default = default_sect; and [default_sect] \
                     with activate = 1",
                ),
            ),
        }
    }
}

/// The remedy that replaces the module's path in a file.
fn named_anew(file: &Path, setting: &str, library: &Path) -> Remedy {
    let words = "Name the module that is there";
    let pattern = setting.replace(' ', " *");
    let expression = format!("s,^ *{pattern}.*,{setting} {},", library.display());
    in_place(words, file, expression, library.to_str().unwrap_or(","))
}

/// The remedy that sets a value in a section of OpenSSL's configuration, in its file.
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
    in_place("Say so", file, expression, section)
}

/// The remedy with an expression of sed(1) that contains foreign text. Only for text without
/// special characters.
fn in_place(words: &str, file: &Path, expression: String, text: &str) -> Remedy {
    let plain = |one: char| one.is_ascii_alphanumeric() || "/._-+".contains(one);
    // sed(1) cannot see that a line continues.
    let goes_on = read_text(file).is_ok_and(|text| text.contains("\\\n"));
    match text.chars().all(plain) && !goes_on {
        true => Remedy::on_paths(
            words,
            &[file],
            format!("sed -i '{expression}' {}", word(file)),
        ),
        false => Remedy::by_hand(format!("{words}, in {} by hand", file.display())),
    }
}

/// p11-kit stops at the first unreadable file.
fn stops_p11_kit(broken: &UnreadableFile) -> Finding {
    let shown = broken.file.display();
    let numbered = |number: &usize, what: &str| format!("{shown}:{number}: {what}");
    let (what, remedy) = match &broken.why {
        FormatError::NoColon(number) => (
            numbered(number, "the line has no colon"),
            Remedy::by_hand("Write that line as NAME: VALUE, or put # in front of it"),
        ),
        FormatError::Equals(number) => (
            numbered(number, "the line has an equals sign where a colon belongs"),
            Remedy::on_paths(
                "Write the colon",
                &[&broken.file],
                format!("sed -i '{number}s/ *=/:/' {}", word(&broken.file)),
            ),
        ),
        FormatError::Section(number) => (
            numbered(
                number,
                "the line begins a section, and such files have none",
            ),
            Remedy::by_hand("Remove that line"),
        ),
        FormatError::Unreadable(kind) => (
            format!("{shown}: {kind}"),
            Remedy::by_hand("Make it readable for all users, or remove it from the folder"),
        ),
    };
    let text = format!("{what}: p11-kit starts in no program");
    Finding::problem("p11-kit.unreadable", "p11-kit", text, remedy).about_object(shown.to_string())
}

#[cfg(test)]
#[path = "programs_tests.rs"]
mod tests;
