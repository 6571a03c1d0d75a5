//! The answer of a verb: text or JSON on standard output, errors on standard error.

use devid_core::identity::{IdentityError, IdentityErrorKind};
use devid_core::manufacture::{Inspection, Step, StepState};
use devid_core::printable;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// The answer, and the exit code.
#[derive(Debug, Default)]
pub(crate) struct Output {
    code: u8,
    text: String,
    complaint: Option<String>,
}

impl Output {
    pub(crate) fn text(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    fn document(document: &Value) -> Self {
        Self::text(format!("{document:#}\n"))
    }

    /// Returns a line for each step, and a line with the number of steps that wrote to the TPM.
    pub(crate) fn steps(steps: &[Step], is_json: bool) -> Self {
        if is_json {
            return Self::document(&json!({ "steps": steps }));
        }
        let mut text: String = steps.iter().map(|step| format!("{step}\n")).collect();
        let count = |state| steps.iter().filter(|step| step.state == state).count();
        text.push_str(&format!(
            "{} done, {} already done, {} would be done\n",
            count(StepState::Done),
            count(StepState::Already),
            count(StepState::Planned)
        ));
        Self::text(text)
    }

    pub(crate) fn paths(paths: &[PathBuf], is_json: bool) -> Self {
        if is_json {
            return Self::document(&json!({ "files": paths }));
        }
        let lines = paths.iter().map(|path| format!("{}\n", path.display()));
        Self::text(lines.collect())
    }

    pub(crate) fn inspection(seen: &Inspection, is_json: bool) -> Self {
        let output = match is_json {
            true => Self::document(&json!({ "right": seen.is_right(), "findings": seen.findings })),
            false => Self::text(
                seen.findings
                    .iter()
                    .map(|one| format!("{}\n", printable(one)))
                    .collect(),
            ),
        };
        Self {
            code: u8::from(!seen.is_right()),
            ..output
        }
    }

    pub(crate) fn failed(error: &IdentityError, is_json: bool) -> Self {
        let (code, kind) = match error.kind {
            IdentityErrorKind::Failed | IdentityErrorKind::Denied => (1, "failed"),
            IdentityErrorKind::Usage => (2, "usage"),
            IdentityErrorKind::Tpm => (4, "tpm"),
            IdentityErrorKind::NotFound => (5, "not-found"),
            IdentityErrorKind::Refused => (6, "refused"),
        };
        let told = json!({ "error": { "code": code, "kind": kind, "text": error.text } });
        let output = match is_json {
            true => Self::document(&told),
            false => Self::default(),
        };
        Self {
            code,
            complaint: Some(error.text.clone()),
            ..output
        }
    }

    pub(crate) fn print(self) -> ExitCode {
        let mut out = stdout().lock();
        let written = out
            .write_all(self.text.as_bytes())
            .and_then(|()| out.flush());
        if let Some(complaint) = self.complaint {
            say(complaint);
        }
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                say(format_args!("standard output: {error}"));
                ExitCode::FAILURE
            }
            _ => ExitCode::from(self.code),
        }
    }
}

/// Returns a value as JSON on one line.
pub(crate) fn line(value: &impl serde::Serialize) -> Result<String, IdentityError> {
    let text = serde_json::to_string(value);
    let text = text
        .map_err(|error| IdentityError::new(IdentityErrorKind::Failed, format!("JSON: {error}")))?;
    Ok(format!("{text}\n"))
}

/// Writes a line to standard error. A failed write is ignored.
pub(crate) fn say(said: impl Display) {
    let line = format!("devid-manufacture: {}\n", printable(said));
    let _ = stderr().write_all(line.as_bytes());
}

/// Sends the core's warnings to standard error.
pub(crate) fn hear_warnings() {
    // The call fails only if the process already has a logger.
    if log::set_boxed_logger(Box::new(Warnings)).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

struct Warnings;

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target().starts_with("devid") && metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            say(format_args!("warning: {}", record.args()));
        }
    }

    fn flush(&self) {}
}
