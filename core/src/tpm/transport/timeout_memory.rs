//! Whether a TPM that let a command wait in vain is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A host process asks again and again. A tool that ran into the limit once has its answer: it would
/// wait that long for each of the many things it looks at.
#[derive(Debug, Clone, Default)]
pub struct TimeoutMemory(Option<Arc<AtomicU8>>);

/// How a command waited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) enum TimeoutCause {
    /// Because of another process, which may be done by now.
    Busy = 1,
    /// Nobody knows why.
    Silent = 2,
}

impl TimeoutMemory {
    /// Remembered from the first time on, by all copies of this.
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// How a command has waited in vain, if it is remembered.
    pub(in crate::tpm) fn cause(&self) -> Option<TimeoutCause> {
        match self.0.as_ref()?.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(TimeoutCause::Busy),
            _ => Some(TimeoutCause::Silent),
        }
    }

    /// Remembers it, if that is wanted. Silence is remembered before all.
    pub(in crate::tpm) fn note(&self, met: TimeoutCause) {
        if let Some(known) = &self.0 {
            known.fetch_max(met as u8, Ordering::Relaxed);
        }
    }
}
