//! Describes to the operator each step that writes to the TPM.

use super::KeyPlace;
use crate::tpm::NvHierarchy;
use serde::Serialize;
use std::fmt;

/// The TPM command of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// TPM2_EvictControl, which makes a key persistent.
    Persist,
    /// TPM2_NV_DefineSpace.
    Define,
    /// TPM2_NV_Write.
    Write,
    /// TPM2_NV_WriteLock.
    Lock,
}

/// Tells whether a step was executed, and in which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// The step was executed in this run.
    Done,
    /// An earlier run executed the step, so this run skipped it.
    Already,
    /// The step was not executed, because the caller set `dry_run`.
    Planned,
}

/// A step that writes to the TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The key or certificate that the step writes, for example `IDevID key`.
    pub what: String,
    /// The TPM command of the step.
    pub action: Action,
    /// The persistent handle or the NV index that the step writes to.
    pub place: String,
    /// The hierarchy whose authorisation the step needs: `owner` or `platform`.
    pub authorisation: &'static str,
    /// What a later TPM2_Clear does with the key or the NV index.
    pub tpm2_clear: &'static str,
    /// Tells whether the step was executed, and in which run.
    pub state: StepState,
}

impl NvHierarchy {
    /// Returns the name of the hierarchy: `owner` or `platform`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Platform => "platform",
        }
    }

    /// Returns true if an NV index of this hierarchy survives TPM2_Clear.
    pub fn survives_clear(self) -> bool {
        self == Self::Platform
    }

    pub(super) fn after_clear(self) -> &'static str {
        match self.survives_clear() {
            true => "survives",
            false => "deletes it; install the certificate again",
        }
    }
}

impl Step {
    pub(super) fn persist(place: &KeyPlace, state: StepState) -> Self {
        Self {
            what: format!("{} key", place.called()),
            action: Action::Persist,
            place: format!("handle 0x{:08X}", place.handle),
            authorisation: NvHierarchy::Owner.name(),
            tpm2_clear: "empties the handle; the TPM can derive the key again from its template",
            state,
        }
    }

    pub(super) fn nv(
        what: &str,
        action: Action,
        index: u32,
        by: NvHierarchy,
        state: StepState,
    ) -> Self {
        Self {
            what: what.to_owned(),
            action,
            place: format!("NV index 0x{index:08X}"),
            authorisation: by.name(),
            tpm2_clear: by.after_clear(),
            state,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Persist => "persist",
            Action::Define => "define",
            Action::Write => "write",
            Action::Lock => "lock",
        };
        let state = match self.state {
            StepState::Done => "done",
            StepState::Already => "already done",
            StepState::Planned => "would be done",
        };
        let Self {
            what,
            place,
            authorisation,
            tpm2_clear,
            ..
        } = self;
        write!(
            f,
            "{action} {what}, {place}: {state}; authorisation: {authorisation}; TPM2_Clear: {tpm2_clear}"
        )
    }
}
