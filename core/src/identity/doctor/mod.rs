//! What is wrong with the device's identity and its surroundings, and what mends it. Of use without
//! a TPM, and with a configuration that cannot be read.

mod system;
mod tpm;

use super::{Device, Fault, FaultKind};
use crate::config::{Config, ConfigError};
use serde::Serialize;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub state: Health,
    /// What was looked at.
    pub about: &'static str,
    /// In words.
    pub text: String,
    /// What to do: a command, or a line for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something does not work because of it.
    Problem,
}

/// Looks at everything, and changes nothing.
pub fn doctor(config: Result<Config, ConfigError>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match config {
        Ok(config) => {
            findings.push(Finding::ok("configuration", "it can be read".into()));
            Some(config)
        }
        Err(error) => {
            let mend = "correct that line; what stands there by default is in the example".into();
            findings.push(Finding::problem("configuration", error.to_string(), mend));
            None
        }
    };
    if let Some(config) = config {
        system::look_at(&config, &mut findings);
        let device = Device::new(config);
        tpm::look_at(&device, &mut findings);
        identity(&device, &mut findings);
        folder(&device, &mut findings);
    }
    system::look_at_programs(&mut findings);
    findings
}

/// The device's own identity, as the table sees it.
fn identity(device: &Device, findings: &mut Vec<Finding>) {
    let about = "identity";
    let status = device.status();
    findings.push(match (status.mode, status.reason) {
        (super::Mode::Tpm, _) => Finding::ok(about, "it is in the TPM".into()),
        (super::Mode::Software, _) => Finding::note(about, "it is in files, not in a TPM".into()),
        (super::Mode::Error, reason) => {
            Finding::problem(about, reason.unwrap_or_default(), "devid provision".into())
        }
    });
    if let Err((_, fault)) = device.factory() {
        findings.push(match fault.kind {
            // Said already.
            FaultKind::Tpm => return,
            _ => Finding::note("factory identity", fault.text),
        });
    }
    match device.trusted(None) {
        Ok(trusted) if trusted.is_empty() => findings.push(Finding {
            mend: Some(format!("cp CA.pem {}/", device.config.trust.display())),
            ..Finding::note(
                "trust",
                format!(
                    "{} has no certificate: no identity can be verified (devid verify answers 3)",
                    device.config.trust.display()
                ),
            )
        }),
        Ok(trusted) => findings.push(Finding::ok(
            "trust",
            format!("{} certificates", trusted.len()),
        )),
        Err(fault) => findings.push(Finding::note("trust", fault.text)),
    }
}

/// The key folder: files that are no objects, keys that cannot be used.
fn folder(device: &Device, findings: &mut Vec<Finding>) {
    let about = "key folder";
    let path = device.folder();
    let refused = match device.own.refused_files() {
        Ok(refused) => refused,
        Err(error) => {
            let mend = format!("ls -ld {0}; chmod 0750 {0}", path.display());
            findings.push(Finding::problem(about, Fault::from(error).text, mend));
            return;
        }
    };
    for (file, why) in refused {
        let file = path.join(file);
        let mend = format!(
            "look at {0}; then mend it, or mv {0} elsewhere",
            file.display()
        );
        findings.push(Finding::problem(
            about,
            format!("{}: {why}", file.display()),
            mend,
        ));
    }
    let retired = super::software::Software::of(&device.config.state).retired();
    if !retired.is_empty() {
        findings.push(Finding {
            mend: Some("devid prune".into()),
            ..Finding::note(
                about,
                format!("{} files from before the TPM", retired.len()),
            )
        });
    }
    if let Ok(entities) = device.own_entities() {
        let lone = entities.iter().filter(|one| {
            one.key.is_none()
                && !one
                    .certificate()
                    .is_some_and(crate::certificate::Certificate::is_authority)
        });
        for one in lone {
            findings.push(Finding::note(
                about,
                format!("{}: a certificate whose key is not here", one.label),
            ));
        }
    }
}

impl Finding {
    fn ok(about: &'static str, text: String) -> Self {
        Self {
            state: Health::Ok,
            about,
            text,
            mend: None,
        }
    }

    fn note(about: &'static str, text: String) -> Self {
        Self {
            state: Health::Note,
            ..Self::ok(about, text)
        }
    }

    fn problem(about: &'static str, text: String, mend: String) -> Self {
        Self {
            state: Health::Problem,
            mend: Some(mend),
            ..Self::ok(about, text)
        }
    }
}
