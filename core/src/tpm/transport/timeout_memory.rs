//! Remembers that a TPM let a command time out, so that it is not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Shared by all copies. A host process asks again after a timeout. A tool remembers the timeout,
/// since it would otherwise wait as long for each of many items.
#[derive(Debug, Clone, Default)]
pub struct TimeoutMemory(Option<Arc<AtomicU8>>);

/// The cause of a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) enum TimeoutCause {
    /// Another process used the TPM, and may be done by now.
    Busy = 1,
    /// The cause is unknown.
    Silent = 2,
}

impl TimeoutMemory {
    /// A memory that all copies of this value share.
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// The cause of the remembered timeout, if any.
    pub(in crate::tpm) fn cause(&self) -> Option<TimeoutCause> {
        match self.0.as_ref()?.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(TimeoutCause::Busy),
            _ => Some(TimeoutCause::Silent),
        }
    }

    /// Records a timeout, if this memory is in use. `Silent` takes precedence.
    pub(in crate::tpm) fn note(&self, met: TimeoutCause) {
        if let Some(known) = &self.0 {
            known.fetch_max(met as u8, Ordering::Relaxed);
        }
    }
}
