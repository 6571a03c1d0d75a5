//! `devid renew`: renews the certificates of the configuration (`[[certificate]]`) before they end.

use crate::certificates::{subject, taken};
use crate::cli::{OutputFormat, RenewArgs};
use crate::enroll::PENDING;
use crate::est::{Credentials, Enrolment, EstUrl, Outcome, ServerTrust, note_failure};
use crate::hooks;
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use devid_core::config::{self, CertificateSettings, RenewWithin};
use devid_core::identity::{
    Device, EnrolmentRecord, IdentityErrorKind, OWN, RenewalNeed, TokenEntry,
};
use devid_core::x509::RequestContent;
use log::{info, warn};
use serde::Serialize;
use std::time::Duration;

/// The result of `devid renew` for one certificate.
#[derive(Debug, Serialize)]
struct Renewed {
    label: String,
    result: RenewalResult,
    /// When the certificate must be renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    need: Option<RenewalNeed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    /// The reason why the renewal failed. The old certificate stays in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    /// The `reload` commands that failed after the new certificate was stored. The new certificate
    /// stays in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_commands: Vec<String>,
}

/// The kind of result of `devid renew` for one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum RenewalResult {
    /// The new certificate is in use.
    Renewed,
    /// It is too early to renew the certificate.
    NotDue,
    /// The EST server has not decided yet (HTTP status 202).
    Pending,
    /// The renewal failed, and the old certificate stays in use.
    Failed,
    /// The last renewal failed, and the time for the next try has not come.
    Resting,
}

/// Renews all configured certificates that are due.
pub(crate) fn run(
    device: &Device,
    args: RenewArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let mut all = device.config().certificates.clone();
    if let Some(token) = device.service_token() {
        info!(
            "token {token}: reload commands are skipped, because this run has the rights of the service's user"
        );
        all.iter_mut().for_each(|one| one.reload.clear());
    }
    let named = |one: &&CertificateSettings| match &args.label {
        Some(label) => *label == one.label,
        None => device.looks_after(&one.label),
    };
    let chosen: Vec<&CertificateSettings> = all.iter().filter(named).collect();
    if let (true, Some(label)) = (chosen.is_empty(), &args.label) {
        return Err(CommandError::new(
            5,
            format!(
                "{label}: no [[certificate]] in config.toml has this label; add a [[certificate]] with this label, or run devid enroll"
            ),
        ));
    }
    let within = args.within.as_deref().map(str::parse).transpose();
    let within = within.map_err(|why: String| CommandError::new(2, format!("--within {why}")))?;
    let _turn = match chosen.is_empty() {
        true => None,
        false => Some(device.enrolment_turn()?),
    };
    let is_asked_for = args.label.is_some();
    let done = chosen.iter().map(|one| {
        Renewal {
            device,
            settings: one,
            is_asked_for,
        }
        .run(within)
    });
    let done: Vec<Renewed> = done.collect();
    let output = Output::new(form, &done, || done.iter().map(paragraph).collect())?;
    let changed = done.iter().filter(|one| !one.is_unchanged());
    let each = changed.map(|one| (subject(device, one.label.clone()), one.code()));
    let output = Output {
        is_unchanged: done.iter().all(Renewed::is_unchanged),
        each: Some(each.collect()),
        ..output
    };
    let has_failed =
        |one: &Renewed| one.result == RenewalResult::Failed || !one.failed_commands.is_empty();
    let complaints: Vec<String> = done
        .iter()
        .filter(|one| has_failed(one))
        .map(complaint)
        .collect();
    Ok(match complaints.is_empty() {
        true => output,
        false => Output {
            code: 1,
            complaint: Some(complaints.join("; ")),
            ..output
        },
    })
}

impl Renewed {
    /// Returns true if devid did not contact a server.
    fn is_unchanged(&self) -> bool {
        matches!(self.result, RenewalResult::NotDue | RenewalResult::Resting)
    }

    /// Returns the exit code for this certificate. Failed `reload` commands do not change the exit
    /// code.
    fn code(&self) -> u8 {
        match self.result {
            RenewalResult::Failed => 1,
            RenewalResult::Pending => PENDING,
            RenewalResult::Renewed | RenewalResult::NotDue | RenewalResult::Resting => 0,
        }
    }
}

struct Renewal<'a> {
    device: &'a Device,
    settings: &'a CertificateSettings,
    /// True if the user named this certificate. A recent failure is then ignored.
    is_asked_for: bool,
}

impl Renewal<'_> {
    fn run(&self, within: Option<RenewWithin>) -> Renewed {
        let mut done = Renewed {
            label: self.settings.label.clone(),
            result: RenewalResult::NotDue,
            need: None,
            outcome: None,
            fault: None,
            failed_commands: Vec::new(),
        };
        if let Err(error) = self.renew(within, &mut done) {
            warn!("{}: {}", done.label, error.text);
            let entry = self.entry().ok().flatten();
            note_failure(
                self.device,
                self.remembered_by(entry.as_ref()),
                &self.settings.est,
                &error,
            );
            done.result = RenewalResult::Failed;
            done.fault = Some(error.text);
        }
        done
    }

    fn renew(&self, within: Option<RenewWithin>, done: &mut Renewed) -> Result<(), CommandError> {
        let entry = self.entry()?;
        let (token, label) = self.remembered_by(entry.as_ref());
        let record = self.device.enrolment(token, label)?;
        // An earlier run stored the new certificate, and was killed before it ran the `reload`
        // commands.
        if let (Some(entry), Some(record)) = (&entry, record.as_ref().filter(|one| one.reload_due))
        {
            self.reload(entry, record.clone(), done)?;
        }
        let certificate = entry.as_ref().and_then(TokenEntry::certificate);
        let need = RenewalNeed::of(certificate, within.unwrap_or(self.settings.within));
        done.need = Some(need);
        let waits = record
            .as_ref()
            .is_some_and(|one| one.request_der().is_some());
        match need {
            RenewalNeed::Later { .. } | RenewalNeed::Never if !waits => return Ok(()),
            RenewalNeed::ClockWrong => warn!(
                "{}: the clock is wrong, so the end of the certificate cannot be checked; asking the server",
                self.settings.label
            ),
            _ => {}
        }
        // After a failure, the wait before the next try applies only to the server that failed.
        let same = record.as_ref().filter(|one| self.is_of_server(one));
        if let Some(rest) = same.and_then(EnrolmentRecord::rest)
            && !self.is_asked_for
        {
            info!(
                "{}: the next try is in {} s",
                self.settings.label,
                rest.as_secs()
            );
            done.result = RenewalResult::Resting;
            done.fault = record
                .map(|one| one.fault)
                .filter(|fault| !fault.is_empty());
            return Ok(());
        }
        let outcome = self.enrolment()?.run(self.credentials()?)?;
        done.result = match outcome.enrolled {
            Some(_) => RenewalResult::Renewed,
            None => RenewalResult::Pending,
        };
        done.outcome = Some(outcome);
        if done.result == RenewalResult::Renewed
            && let Some(entry) = self.entry()?
            && let Some(record) = self.device.enrolment(&entry.token, &entry.label)?
        {
            self.reload(&entry, record, done)?;
        }
        Ok(())
    }

    /// Returns the token and the label under which the enrolment is recorded. If the key does not
    /// exist yet, these are its future token and label.
    fn remembered_by<'a>(&'a self, entry: Option<&'a TokenEntry>) -> (&'a str, &'a str) {
        match entry {
            Some(entry) => (&entry.token, &entry.label),
            None => self
                .settings
                .label
                .split_once('/')
                .filter(|(token, _)| self.device.tokens().contains(token))
                .unwrap_or((OWN, &self.settings.label)),
        }
    }

    fn is_of_server(&self, record: &EnrolmentRecord) -> bool {
        let url = EstUrl::parse(&self.settings.est).map(|url| url.to_string());
        record.url == self.settings.est || url.is_ok_and(|url| url == record.url)
    }

    fn entry(&self) -> Result<Option<TokenEntry>, CommandError> {
        match self.device.find(&self.settings.label) {
            Ok(entry) => Ok(Some(entry)),
            Err(fault) if fault.kind == IdentityErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    fn enrolment(&self) -> Result<Enrolment<'_>, CommandError> {
        let settings = self.settings;
        let usage = |why: String| CommandError::new(1, format!("[[certificate]] est: {why}"));
        let subject = settings.subject.as_deref();
        // A renewal copies the subject and the subjectAltName of the old certificate.
        let is_first = self
            .entry()?
            .is_none_or(|entry| entry.certificate().is_none_or(|one| one.is_self_signed()));
        let content = match is_first {
            true => RequestContent::parse(subject, &settings.san, &settings.eku, &[])?,
            false => RequestContent::parse(None, &[], &settings.eku, &[])?,
        };
        Ok(Enrolment {
            device: self.device,
            label: settings.label.clone(),
            url: EstUrl::parse(&settings.est).map_err(usage)?,
            trust: match &settings.trust {
                config::ServerTrust::File(path) => ServerTrust::File(path.clone()),
                config::ServerTrust::Fingerprint(print) => ServerTrust::Fingerprint(*print),
            },
            as_identity: settings.identity.clone().filter(|_| is_first),
            content,
            algorithm: None,
            new_key: settings.new_key && !is_first,
            pin: None,
            limit: settings.timeout,
            patience: Duration::ZERO,
            believes_server: false,
            prove: settings.prove.clone(),
            reloads: !settings.reload.is_empty(),
        })
    }

    fn credentials(&self) -> Result<Option<Credentials>, CommandError> {
        let (Some(user), Some(source)) = (&self.settings.user, &self.settings.password) else {
            return Ok(None);
        };
        let password = source.read();
        let password = password
            .map_err(|error| CommandError::new(1, format!("[[certificate]] password: {error}")))?;
        Ok(Some(Credentials {
            user: user.clone(),
            password,
        }))
    }

    /// Runs the `reload` commands after a new certificate was stored, and deletes the record of the
    /// enrolment. A failed command does not stop the other commands.
    fn reload(
        &self,
        entry: &TokenEntry,
        record: EnrolmentRecord,
        done: &mut Renewed,
    ) -> Result<(), CommandError> {
        for command in &self.settings.reload {
            if let Err(why) = hooks::run(command, &entry.label, self.settings.reload_limit) {
                done.failed_commands.push(format!("{command} ({why})"));
            }
        }
        match record.request_der() {
            Some(_) => self.device.keep_enrolment(&EnrolmentRecord {
                reload_due: false,
                ..record
            })?,
            None => self.device.forget_enrolment(&entry.token, &entry.label)?,
        }
        Ok(())
    }
}

fn complaint(one: &Renewed) -> String {
    match &one.fault {
        Some(fault) => format!("{}: {fault}", one.label),
        None => format!(
            "{}: the new certificate is in use, but {} failed",
            one.label,
            one.failed_commands.join(", ")
        ),
    }
}

fn paragraph(one: &Renewed) -> String {
    let mut text = String::new();
    let days = |seconds: u64| seconds / (24 * 60 * 60);
    match (one.result, one.need) {
        (RenewalResult::Renewed, _) => {}
        (RenewalResult::NotDue, Some(RenewalNeed::Later { seconds })) => row(
            &mut text,
            format_args!("{}: due in {} days", one.label, days(seconds)),
        ),
        (RenewalResult::NotDue, _) => row(
            &mut text,
            format_args!("{}: the certificate has no end", one.label),
        ),
        (RenewalResult::Pending, _) => row(
            &mut text,
            format_args!("{}: pending, the server has not decided yet", one.label),
        ),
        (RenewalResult::Resting, _) => row(
            &mut text,
            format_args!(
                "{}: the last renewal failed; devid tries again later",
                one.label
            ),
        ),
        (RenewalResult::Failed, _) => row(
            &mut text,
            format_args!(
                "{}: failed; the previous certificate stays in use",
                one.label
            ),
        ),
    }
    let enrolled = one
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.enrolled.as_ref());
    if let Some(enrolled) = enrolled {
        text += &taken(&enrolled.imported);
        if let Some(end) = &enrolled.not_after {
            line(&mut text, "until", end);
        }
    }
    if one.need == Some(RenewalNeed::ClockWrong) {
        line(
            &mut text,
            "note",
            "the clock is wrong, so no validity was checked",
        );
    }
    text
}
