//! Findings about the device's identity and its environment, each with a remedy. Works without a
//! TPM, and with an unreadable configuration.

mod configured_files;
mod folders;
mod handles;
mod identity;
mod installation;
mod locks;
mod openssl;
mod p11_kit;
mod programs;
mod tpm;
mod tpm_device;

use super::device::Device;
use super::remedy::Remedy;
use crate::config::{Config, ConfigError};
use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of finding. Programs read it, so it never changes.
    pub id: &'static str,
    /// The severity.
    pub state: Health,
    /// The subject of the check, for a person.
    pub about: &'static str,
    /// The checked object, if there are several: a handle, an NV index, a file, a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The result, for a person.
    pub text: String,
    /// The remedy, for a person. A remedy never ends an identity, and never destroys a key that may
    /// still be useful.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The command of the remedy, for sh(1), as root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// A function fails because of it.
    Problem,
}

/// Runs all checks and changes nothing. If the configuration is wrong, the checks use `instead`.
pub fn doctor(config: Result<Config, ConfigError>, instead: impl Fn() -> Config) -> Vec<Finding> {
    let about = "configuration";
    let mut findings = Vec::new();
    let (config, understood) = match config {
        Ok(config) => {
            let text = "it can be read".into();
            findings.push(Finding::ok("configuration", about, text));
            (config, true)
        }
        Err(error) => {
            let text = format!("{error}; the following checks used the defaults");
            let remedy = Remedy::by_hand(match (error.is_of_trust(), error.is_unread()) {
                (true, _) => {
                    "Check by hand that all its content is yours. Then remove the write \
                     permission of all other users (chown, chmod), also from the folders of its \
                     path"
                }
                (false, true) => {
                    "The file may be valid: run devid doctor again, or as a user who may read it. \
                     If the error remains, check the file system"
                }
                (false, false) => {
                    "Correct that line: the installed config.toml lists all settings with their \
                     defaults"
                }
            });
            findings.push(Finding::problem("configuration", about, text, remedy));
            (instead(), false)
        }
    };
    let device = Device::new(config);
    configured_files::check(&device.config, &mut findings);
    tpm_device::check(&device.config, &mut findings);
    let from = findings.len();
    tpm::check(&device, &mut findings);
    locks::check(&device, &mut findings);
    identity::check(&device, &mut findings);
    if !understood {
        // The identity may be elsewhere, and devid would not act.
        let own = ["identity", "marker", "master key"];
        let findings = findings[from..].iter_mut();
        for finding in findings.filter(|one| own.contains(&one.about)) {
            finding.state = finding.state.min_with_note();
            finding.command = None;
            finding.remedy = None;
        }
    }
    folders::check(&device, &mut findings);
    programs::check(&device.config, &mut findings);
    findings
}

impl Health {
    /// The severity, limited to a note.
    fn min_with_note(self) -> Self {
        match self {
            Self::Ok => Self::Ok,
            Self::Note | Self::Problem => Self::Note,
        }
    }
}

impl Finding {
    fn ok(id: &'static str, about: &'static str, text: String) -> Self {
        Self {
            id,
            state: Health::Ok,
            about,
            object: None,
            text,
            remedy: None,
            command: None,
        }
    }

    fn note(id: &'static str, about: &'static str, text: String) -> Self {
        Self {
            state: Health::Note,
            ..Self::ok(id, about, text)
        }
    }

    fn problem(id: &'static str, about: &'static str, text: String, remedy: Remedy) -> Self {
        Self {
            state: Health::Problem,
            ..Self::ok(id, about, text).with_remedy(remedy)
        }
    }

    fn about_object(self, object: impl Into<String>) -> Self {
        Self {
            object: Some(object.into()),
            ..self
        }
    }

    fn with_remedy(self, by: Remedy) -> Self {
        Self {
            remedy: Some(by.words),
            command: by.command,
            ..self
        }
    }
}
