//! The answer of a verb, and the exit code of the process.

use crate::cli::OutputFormat;
use devid_core::audit::AuditSubject;
use devid_core::config::ConfigError;
use devid_core::identity::{IdentityError, IdentityErrorKind};
use devid_core::x509::IssueError;
use serde::Serialize;
use serde_json::Value;

/// The answer of a verb that succeeded.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) code: u8,
    /// For standard output.
    pub(crate) text: String,
    /// For standard output instead of the text.
    pub(crate) bytes: Option<Vec<u8>>,
    /// The answer in JSON, for `--json`. The text is then empty.
    pub(crate) document: Option<Value>,
    /// For standard error.
    pub(crate) complaint: Option<String>,
    /// The object that the verb used or changed.
    pub(crate) subject: Option<AuditSubject>,
    /// If the verb handled several objects: each with its own exit code.
    pub(crate) each: Option<Vec<(AuditSubject, u8)>>,
    /// True if the verb had nothing to do.
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

    /// The error with the object that the verb used or changed.
    pub(crate) fn about(self, subject: AuditSubject) -> Self {
        Self {
            subject: Some(subject),
            ..self
        }
    }

    /// The value as JSON, or as the text.
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

/// The kind of error in a word, for an exit code.
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

    /// For standard output with `--json`: `{"error": {"code", "kind", "text"}}`.
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
