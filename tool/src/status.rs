//! `devid status`: shows the location of the identity, and the state of its TPM.

use crate::cli::OutputFormat;
use crate::output::{CommandError, Output};
use crate::text::line;
use devid_core::identity::{
    Device, EnrolmentStatus, IdentitySource, Mode, OWN, RoleStatus, Status,
};

/// Prints the location of the identity. The exit code depends on the mode.
pub(crate) fn run(device: &Device, form: OutputFormat) -> Result<Output, CommandError> {
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
        let whose = "the factory identity; the device has no own identity";
        line(&mut text, "identity", whose);
    }
    if let Some(reason) = &status.reason {
        line(&mut text, "reason", reason);
    }
    if let Some(marker) = &status.marker {
        line(&mut text, "marker", marker);
    }
    for fault in &status.unread {
        line(&mut text, "unread", fault);
    }
    let (services, named): (Vec<_>, Vec<_>) =
        status.roles.iter().partition(|one| one.role == "service");
    for RoleStatus {
        role,
        label,
        key,
        certificate,
        expiry,
        ..
    } in named
    {
        let key = key.as_deref().unwrap_or("no key");
        line(&mut text, role, &format!("{label}: {key}"));
        if let Some(certificate) = certificate {
            let ends = expiry.as_ref().map_or(String::new(), ToString::to_string);
            line(&mut text, "", &format!("{certificate}, {ends}"));
        }
    }
    for (number, one) in services.iter().enumerate() {
        let name = match number {
            0 => "services",
            _ => "",
        };
        line(&mut text, name, &service(one));
    }
    if !status.missing.is_empty() {
        let labels = status.missing.join(", ");
        let text_of = format!("{labels}: no certificate yet; devid renew requests the certificate");
        line(&mut text, "certificate", &text_of);
    }
    enrolments(&mut text, &status.enrolments);
    let handle = &status.master.handle;
    let master = match (status.master.held, status.master.needed) {
        (Some(true), _) => format!("{handle}: present"),
        (Some(false), _) => format!("{handle}: missing"),
        (None, true) => format!("{handle}: unknown"),
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
                "{} of {} failed tries; the TPM forgets one try each {} s; after a wrong lockout authorisation it refuses others for {} s",
                tpm.lockout_counter, tpm.lockout_at, tpm.lockout_interval, tpm.lockout_recovery
            );
            line(&mut text, "lockout", &lockout);
            if let (Some(remedy), Some(command)) = (tpm.remedy, &tpm.command) {
                let why = "the TPM is in lockout, and the factory keys cannot sign";
                line(&mut text, "", &format!("{why}. {remedy}: {command}"));
            }
        }
    }
    text
}

/// Returns the state of a service in one line.
fn service(one: &RoleStatus) -> String {
    let label = match one.token.as_str() {
        OWN => one.label.clone(),
        token => format!("{token}/{}", one.label),
    };
    let key = one.algorithm.as_deref().unwrap_or("no key");
    let mut said = format!("{label}: {key}");
    if one.lost {
        return said + ", lost with an earlier master key";
    }
    if let Some(expiry) = &one.expiry {
        said += &format!(", {expiry}");
    }
    if let Some(subject) = &one.certificate {
        said += &format!(" ({subject})");
    }
    said
}

/// Writes the failed enrolments. Enrolments that failed at one server for one reason share a line.
fn enrolments(text: &mut String, all: &[EnrolmentStatus]) {
    let mut groups: Vec<Vec<&EnrolmentStatus>> = Vec::new();
    for one in all {
        let is_alike = |other: &&EnrolmentStatus| {
            one.fault == other.fault && one.server == other.server && one.fault.is_some()
        };
        match groups.iter_mut().find(|group| is_alike(&group[0])) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    for group in groups {
        let labels: Vec<&str> = group.iter().map(|one| one.label.as_str()).collect();
        let labels = labels.join(", ");
        let failures = group.iter().map(|one| one.failures).max().unwrap_or(0);
        let said = match (&group[0].fault, group.len()) {
            (Some(fault), 1) => format!("{labels}: failed, {failures} in a row: {fault}"),
            (Some(fault), many) => {
                format!("{many} failed, up to {failures} in a row: {fault} ({labels})")
            }
            (None, _) => format!("{labels}: {} has not decided yet", group[0].server),
        };
        line(text, "enrolment", &said);
        let next = group.iter().map(|one| one.next_try).min().unwrap_or(0);
        if next > 0 {
            let said = format!("devid renew asks again in {next} s");
            line(text, "", &said);
        }
    }
}
