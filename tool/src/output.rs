//! The answer of a verb, and the exit code of the process.

use crate::cli::OutputFormat;
use devid_core::audit::AuditSubject;
use devid_core::config::ConfigError;
use devid_core::identity::{IdentityError, IdentityErrorKind};
use devid_core::x509::IssueError;
use serde::Serialize;
use serde_json::Value;

/// The output of a command that succeeded.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) code: u8,
    /// The text for standard output.
    pub(crate) text: String,
    /// Bytes for standard output. If there are bytes, the text is not written.
    pub(crate) bytes: Option<Vec<u8>>,
    /// The answer as JSON, for `--json`. Then the text is empty.
    pub(crate) document: Option<Value>,
    /// The text for standard error.
    pub(crate) complaint: Option<String>,
    /// The object that the command used or changed, for the audit log.
    pub(crate) subject: Option<AuditSubject>,
    /// The objects that the verb handled, each with its own exit code. `None` if the verb handles
    /// only one object.
    pub(crate) each: Option<Vec<(AuditSubject, u8)>>,
    /// True if the command had nothing to do.
    pub(crate) is_unchanged: bool,
}

/// An error: its text, and the exit code.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Output {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Adds the object that the verb used or changed, for the audit line.
    pub(crate) fn about(self, subject: AuditSubject) -> Self {
        Self {
            subject: Some(subject),
            ..self
        }
    }

    /// Makes an output from a value: JSON with `--json`, otherwise the text that `text` returns.
    pub(crate) fn new(
        form: OutputFormat,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<Self, CommandError> {
        match form {
            OutputFormat::Text => Ok(Self::text(text())),
            OutputFormat::Json => {
                let document = serde_json::to_value(value);
                let document = document.map_err(|error| CommandError::new(1, error.to_string()))?;
                Ok(Self {
                    document: Some(document),
                    ..Self::default()
                })
            }
        }
    }
}

/// Returns the name of the error kind for an exit code.
pub(crate) fn kind_of(code: u8) -> &'static str {
    match code {
        2 => "usage",
        4 => "tpm",
        5 => "not-found",
        6 => "refused",
        7 => "pending",
        _ => "failed",
    }
}

impl CommandError {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// Returns the error as JSON for `--json`: `{"error": {"code", "kind", "text"}}`.
    pub(crate) fn json(&self) -> Value {
        let (code, kind, text) = (self.code, kind_of(self.code), &self.text);
        serde_json::json!({ "error": { "code": code, "kind": kind, "text": text } })
    }
}

impl From<IdentityError> for CommandError {
    fn from(fault: IdentityError) -> Self {
        let code = match fault.kind {
            IdentityErrorKind::Failed | IdentityErrorKind::Denied => 1,
            IdentityErrorKind::Usage => 2,
            IdentityErrorKind::Tpm => 4,
            IdentityErrorKind::NotFound => 5,
            IdentityErrorKind::Refused => 6,
        };
        Self::new(code, fault.text)
    }
}

impl From<IssueError> for CommandError {
    fn from(error: IssueError) -> Self {
        IdentityError::from(error).into()
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::new(1, error.to_string())
    }
}
