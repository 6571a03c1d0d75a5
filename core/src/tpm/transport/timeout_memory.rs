//! Remembers that a command to a TPM timed out. The TPM is then not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The memory of a timeout. All copies share it. A host process does not use it, and asks the TPM
/// again after a timeout. A tool uses it, because it would otherwise wait for the whole limit at
/// each of many items.
#[derive(Debug, Clone, Default)]
pub struct TimeoutMemory(Option<Arc<AtomicU8>>);

/// The cause of a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) enum TimeoutCause {
    /// Another process used the TPM, and may have finished by now.
    Busy = 1,
    /// The cause is unknown.
    Silent = 2,
}

impl TimeoutMemory {
    /// Creates a memory that all copies of this value share.
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// Returns the cause of the remembered timeout, if there is one.
    pub(in crate::tpm) fn cause(&self) -> Option<TimeoutCause> {
        match self.0.as_ref()?.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(TimeoutCause::Busy),
            _ => Some(TimeoutCause::Silent),
        }
    }

    /// Records a timeout, if this memory is in use. `Silent` replaces `Busy`, but `Busy` does not
    /// replace `Silent`.
    pub(in crate::tpm) fn note(&self, met: TimeoutCause) {
        if let Some(known) = &self.0 {
            known.fetch_max(met as u8, Ordering::Relaxed);
        }
    }
}
