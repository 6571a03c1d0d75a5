//! Checks the identity of the device and its environment, and reports findings with remedies. The
//! checks also work without a TPM, and without a valid configuration.

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

/// The result of a check of `devid doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The identifier of the finding. Programs read it, so it never changes.
    pub id: &'static str,
    /// The severity.
    pub state: Health,
    /// The topic of the check as text, for example `master key`.
    pub about: &'static str,
    /// The object that was checked, if the check covers several objects: a handle, an NV index, a
    /// file or a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The result of the check as text.
    pub text: String,
    /// What the user should do, as text. A remedy never ends an identity, and never destroys a key
    /// that may still be useful.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The command of the remedy, which root runs with sh(1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The check found no fault.
    Ok,
    /// The administrator should know the result, but no function fails.
    Note,
    /// A function of the device fails.
    Problem,
}

/// Runs all checks. Changes nothing. If the configuration is invalid, the checks use the
/// configuration that `instead` returns.
pub fn doctor(config: Result<Config, ConfigError>, instead: impl Fn() -> Config) -> Vec<Finding> {
    let about = "configuration";
    let mut findings = Vec::new();
    let (config, understood) = match config {
        Ok(config) => {
            let text = "config.toml is valid".into();
            findings.push(Finding::ok("configuration", about, text));
            (config, true)
        }
        Err(error) => {
            let text = format!("{error}; the other checks used the default settings");
            let remedy = Remedy::by_hand(match (error.is_of_trust(), error.is_unread()) {
                (true, _) => {
                    "Check that you know the content. Then remove the write permission of all \
                     other users (chown, chmod), also for the folders of the path"
                }
                (false, true) => {
                    "The file may be valid: run devid doctor again, or as a user with permission \
                     to read it. If the error remains, check the file system"
                }
                (false, false) => {
                    "Correct this line; the installed config.toml lists all settings with their \
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
        // A valid configuration may name other paths and handles. devid does nothing with an
        // invalid configuration, so findings about identities are only notes.
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
    /// Lowers a problem to a note. Other severities stay.
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
