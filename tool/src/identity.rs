//! `devid provision`, `reset` and `prune`: makes, erases and cleans up the device's own identity.

use crate::cli::{OutputFormat, ProvisionArgs};
use crate::destination::Destination;
use crate::output::{CommandError, Output};
use crate::text::row;
use devid_core::audit::AuditSubject;
use devid_core::config::Config;
use devid_core::identity::{OWN, Provisioned, Provisioning, RequestTarget};
use devid_core::x509::SubjectTemplate;
use serde_json::json;
use std::time::Duration;

/// Makes the device's own identity, or maintains it.
pub(crate) fn provision(
    config: &Config,
    how: &ProvisionArgs,
    csr: Option<Destination>,
    new_certificate: bool,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let how = Provisioning {
        new_certificate,
        ..provisioning(how, csr)?
    };
    let done = devid_core::identity::provision(config, &how)?;
    summary(&done, form)
}

/// Erases the device's own identity and makes a new identity.
pub(crate) fn reset(
    config: &Config,
    yes: bool,
    how: &ProvisionArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    if !yes {
        return Err(CommandError::new(6, what_is_lost(config)));
    }
    let done = devid_core::identity::reset(config, &provisioning(how, None)?)?;
    summary(&done, form)
}

fn what_is_lost(config: &Config) -> String {
    let mut text = "this command permanently erases everything in the token devid".to_owned();
    let others = config.tokens.iter().skip(1);
    let others: Vec<&str> = others.map(|token| token.name.as_str()).collect();
    if !others.is_empty() {
        text += &format!(
            "; in the further tokens ({}) all keys that the TPM wraps, all objects made through them, and \
             their PINs, but not other files in their folders",
            others.join(", ")
        );
    }
    text += "; a software identity; the master key, so that copies of wrapped keys become useless; and the \
             copy of the certificate in NV. The factory identity stays. Nothing was done; to continue: \
             devid reset --factory --yes";
    text
}

/// Deletes files that devid moved aside.
pub(crate) fn prune(config: &Config, form: OutputFormat) -> Result<Output, CommandError> {
    let deleted = devid_core::identity::prune(config)?;
    let output = Output::new(form, &json!({ "deleted": deleted }), || {
        let mut text = String::new();
        for path in &deleted {
            row(&mut text, format_args!("deleted {}", path.display()));
        }
        match deleted.is_empty() {
            true => "no files were put aside\n".into(),
            false => text,
        }
    })?;
    Ok(Output {
        is_unchanged: deleted.is_empty(),
        ..output
    })
}

fn provisioning(
    how: &ProvisionArgs,
    request: Option<Destination>,
) -> Result<Provisioning, CommandError> {
    Ok(Provisioning {
        wait: Duration::from_secs(how.wait),
        request: request.map(|request| match request {
            Destination::StandardOutput => RequestTarget::Answer,
            Destination::File(file) => RequestTarget::File(file),
        }),
        subject: how
            .subject
            .as_deref()
            .map(SubjectTemplate::parse)
            .transpose()?,
        new_certificate: false,
    })
}

/// Describes the result. If the certificate request goes to standard output, no other text is
/// written to standard output.
fn summary(done: &Provisioned, form: OutputFormat) -> Result<Output, CommandError> {
    let output = Output::new(form, done, || {
        if let Some(request) = &done.request {
            return request.clone();
        }
        let mut text = String::new();
        for step in &done.steps {
            row(&mut text, step);
        }
        for note in &done.notes {
            row(&mut text, format_args!("note: {note}"));
        }
        row(&mut text, format_args!("mode {}", done.mode));
        text
    })?;
    Ok(Output {
        is_unchanged: done.steps.is_empty(),
        ..output.about(AuditSubject {
            token: Some(OWN.into()),
            label: Some(OWN.into()),
            ..AuditSubject::default()
        })
    })
}
