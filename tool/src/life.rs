//! `devid status`, `provision`, `reset` and `prune`: the device's own identity

use crate::answer::{Answer, Failure};
use crate::cli::{Form, How};
use crate::show::line;
use devid_core::config::Config;
use devid_core::identity::{
    Device, Mode, Provisioned, Provisioning, Role, Status, Subject, provision,
};
use std::path::PathBuf;
use std::time::Duration;

/// Where the identity lives; exits as the mode is.
pub(crate) fn status(device: &Device, form: Form) -> Result<Answer, Failure> {
    let status = device.status();
    let code = match (status.mode, status.tpm_is_out_of_reach) {
        (Mode::Tpm | Mode::Software, _) => 0,
        (Mode::Error, true) => 4,
        (Mode::Error, false) => 1,
    };
    let answer = match form.json {
        true => Answer::json(&status)?,
        false => Answer::text(paragraph(&status)),
    };
    Ok(Answer { code, ..answer })
}

fn paragraph(status: &Status) -> String {
    let mode = match status.mode {
        Mode::Tpm => "tpm",
        Mode::Software => "software",
        Mode::Error => "error",
    };
    let mut text = format!("mode {mode}\n");
    if let Some(reason) = &status.reason {
        line(&mut text, "reason", reason);
    }
    if let Some(marker) = &status.marker {
        line(&mut text, "marker", marker);
    }
    for Role {
        role,
        label,
        key,
        certificate,
        days_left,
    } in &status.roles
    {
        let key = key.as_deref().unwrap_or("no key");
        line(&mut text, role, &format!("{label}: {key}"));
        if let Some(certificate) = certificate {
            let left = match days_left {
                Some(days) if *days < 0 => format!("over since {} days", -days),
                Some(days) => format!("{days} days left"),
                None => "without end".into(),
            };
            line(&mut text, "", &format!("{certificate}, {left}"));
        }
    }
    let handle = &status.master.handle;
    let master = match (status.master.held, status.master.needed) {
        (Some(true), _) => format!("{handle}: there"),
        (Some(false), _) => format!("{handle}: gone, and with it the keys that it wrapped"),
        (None, true) => format!("{handle}: not known"),
        (None, false) => "none yet".into(),
    };
    line(&mut text, "master key", &master);
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
        }
    }
    text
}

/// Gives the device its identity.
pub(crate) fn make(config: &Config, how: &How, csr: Option<PathBuf>) -> Result<Answer, Failure> {
    let done = provision(config, &provisioning(how, csr)?)?;
    told(&done, how.form)
}

/// Takes it away and gives a new one.
pub(crate) fn reset(config: &Config, yes: bool, how: &How) -> Result<Answer, Failure> {
    if !yes {
        return Err(Failure::new(
            6,
            "this erases every key of the token devid for good, and nothing was done. If that is \
             meant: devid reset --factory --yes",
        ));
    }
    let done = devid_core::identity::reset(config, &provisioning(how, None)?)?;
    told(&done, how.form)
}

/// Deletes what was put aside.
pub(crate) fn prune(config: &Config) -> Result<Answer, Failure> {
    let pruned = devid_core::identity::prune(config)?;
    let names = pruned
        .iter()
        .map(|path| format!("deleted {}\n", path.display()));
    let names: String = names.collect();
    Ok(Answer::text(match names.is_empty() {
        true => "nothing was put aside\n".into(),
        false => names,
    }))
}

fn provisioning(how: &How, request: Option<PathBuf>) -> Result<Provisioning, Failure> {
    Ok(Provisioning {
        wait: Duration::from_secs(how.wait),
        request,
        subject: how.subject.as_deref().map(Subject::parse).transpose()?,
    })
}

fn told(done: &Provisioned, form: Form) -> Result<Answer, Failure> {
    if form.json {
        return Answer::json(done);
    }
    let mut text: String = done.steps.iter().map(|step| format!("{step}\n")).collect();
    text += &format!("mode {}\n", done.mode);
    Ok(Answer::text(text))
}
