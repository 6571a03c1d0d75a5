//! `devid status`, `provision`, `reset` and `prune`: the device's own identity

use crate::cli::{OutputFormat, ProvisionArgs};
use crate::destination::Destination;
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use devid_core::audit::AuditSubject;
use devid_core::config::Config;
use devid_core::identity::{
    Device, Expiry, IdentitySource, Mode, OWN, Provisioned, Provisioning, RequestTarget,
    RoleStatus, Status,
};
use devid_core::x509::Subject;
use serde_json::json;
use std::time::Duration;

/// Where the identity lives; exits as the mode is.
pub(crate) fn status(device: &Device, form: OutputFormat) -> Result<Output, CommandError> {
    let status = device.status();
    let code = match (status.mode, status.tpm_is_out_of_reach) {
        (Mode::Tpm | Mode::Software, _) => 0,
        (Mode::Error, true) => 4,
        (Mode::Error, false) => 1,
    };
    let output = Output::new(form, &status, || paragraph(&status))?;
    Ok(Output { code, ..output })
}

fn paragraph(status: &Status) -> String {
    let mode = match status.mode {
        Mode::Tpm => "tpm",
        Mode::Software => "software",
        Mode::Error => "error",
    };
    let mut text = format!("mode {mode}\n");
    if status.identity == Some(IdentitySource::Factory) {
        let whose = "the factory's; the device has none of its own";
        line(&mut text, "identity", whose);
    }
    if let Some(reason) = &status.reason {
        line(&mut text, "reason", reason);
    }
    if let Some(marker) = &status.marker {
        line(&mut text, "marker", marker);
    }
    for RoleStatus {
        role,
        label,
        key,
        certificate,
        expiry,
    } in &status.roles
    {
        let key = key.as_deref().unwrap_or("no key");
        line(&mut text, role, &format!("{label}: {key}"));
        if let Some(certificate) = certificate {
            let ends = expiry.as_ref().map_or(String::new(), ends);
            line(&mut text, "", &format!("{certificate}, {ends}"));
        }
    }
    for one in &status.enrolments {
        let said = match (&one.fault, one.failures) {
            (Some(fault), failures) => {
                format!("{}: failed, {failures} in a row: {fault}", one.label)
            }
            (None, _) => format!("{}: {} has not decided yet", one.label, one.server),
        };
        line(&mut text, "enrolment", &said);
        if one.next_try > 0 {
            let seconds = one.next_try;
            line(
                &mut text,
                "",
                &format!("devid renew asks again in {seconds} s"),
            );
        }
    }
    let handle = &status.master.handle;
    let master = match (status.master.held, status.master.needed) {
        (Some(true), _) => format!("{handle}: there"),
        (Some(false), _) => format!("{handle}: gone from there"),
        (None, true) => format!("{handle}: not known"),
        (None, false) => "none yet".into(),
    };
    line(&mut text, "master key", &master);
    if let Some(remedy) = &status.master.remedy {
        let command = status.master.command.as_deref();
        let command = command.map_or(String::new(), |command| format!(": {command}"));
        line(&mut text, "", &format!("{remedy}{command}"));
    }
    match &status.tpm {
        None => line(
            &mut text,
            "TPM",
            &format!("{}: does not answer", status.tcti),
        ),
        Some(tpm) => {
            let about = format!("{} {}, firmware {}", tpm.maker, tpm.model, tpm.firmware);
            line(&mut text, "TPM", &about);
            let lockout = format!(
                "{} of {} failed tries, one forgotten each {} s; lockout authorisation after {} s",
                tpm.lockout_counter, tpm.lockout_at, tpm.lockout_interval, tpm.lockout_recovery
            );
            line(&mut text, "lockout", &lockout);
            if let (Some(remedy), Some(command)) = (tpm.remedy, &tpm.command) {
                let why = "the TPM is in lockout, and no key of the factory's can sign";
                line(&mut text, "", &format!("{why}. {remedy}: {command}"));
            }
        }
    }
    text
}

/// How long a certificate is still valid.
pub(crate) fn ends(expiry: &Expiry) -> String {
    match expiry {
        Expiry::Never => "without end".into(),
        Expiry::At { days_left, .. } if *days_left < 0 => {
            format!("over since {} days", -days_left)
        }
        Expiry::At { days_left, .. } => format!("{days_left} days left"),
        Expiry::Unreadable { not_after } => format!("its end {not_after}"),
        Expiry::ClockWrong { not_after } => format!("until {not_after}; the clock is wrong"),
    }
}

/// Gives the device its identity.
pub(crate) fn provision(
    config: &Config,
    how: &ProvisionArgs,
    csr: Option<Destination>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let done = devid_core::identity::provision(config, &provisioning(how, csr)?)?;
    summary(&done, form)
}

/// Takes it away and gives a new one.
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
    let mut text = "this erases for good all that is in the token devid".to_owned();
    let others = config.tokens.iter().skip(1);
    let others: Vec<&str> = others.map(|token| token.name.as_str()).collect();
    if !others.is_empty() {
        text += &format!(
            "; of the further tokens ({}) all keys that the TPM wraps, all that was made through \
             them, and their PINs, while files that somebody put into their folders stay",
            others.join(", ")
        );
    }
    text += "; a software identity; the master key, without which no copy of a wrapped key can be \
             used; and the copy of the certificate in NV. The factory identity stays. Nothing was \
             done; if it is meant: devid reset --factory --yes";
    text
}

/// Deletes what was put aside.
pub(crate) fn prune(config: &Config, form: OutputFormat) -> Result<Output, CommandError> {
    let deleted = devid_core::identity::prune(config)?;
    let output = Output::new(form, &json!({ "deleted": deleted }), || {
        let mut text = String::new();
        for path in &deleted {
            row(&mut text, format_args!("deleted {}", path.display()));
        }
        match deleted.is_empty() {
            true => "nothing was put aside\n".into(),
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
        subject: how.subject.as_deref().map(Subject::parse).transpose()?,
    })
}

/// Where a request was asked for on standard output, it stands there alone.
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
