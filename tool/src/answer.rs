//! What a verb answers, and what the process exits with.

use devid_core::config::ConfigError;
use devid_core::identity::{Fault, FaultKind};
use serde::Serialize;

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) code: u8,
    /// For standard output.
    pub(crate) text: String,
    /// For standard error.
    pub(crate) complaint: Option<String>,
}

/// A failure with what to tell and what to exit with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Failure> {
        let json = serde_json::to_string_pretty(value);
        let json = json.map_err(|error| Failure::new(1, error.to_string()))?;
        Ok(Self::text(json + "\n"))
    }
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let code = match fault.kind {
            FaultKind::Failed => 1,
            FaultKind::Usage => 2,
            FaultKind::Tpm => 4,
            FaultKind::NotFound => 5,
            FaultKind::Refused => 6,
        };
        Self::new(code, fault.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(1, error.to_string())
    }
}
