//! Whether a TPM that let a command wait in vain is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A host process asks again and again. A tool that ran into the limit once has its answer: it would
/// wait that long for each of the many things it looks at.
#[derive(Debug, Clone, Default)]
pub struct Silence(Option<Arc<Met>>);

#[derive(Debug, Default)]
struct Met {
    silent: AtomicBool,
    busy: AtomicBool,
}

impl Silence {
    /// Remembered from the first time on, by all copies of this.
    pub fn remembered() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether the TPM let a command wait in vain, and nobody knows why.
    pub(super) fn is_known(&self) -> bool {
        self.0.as_ref().is_some_and(|met| is(&met.silent))
    }

    /// Whether it did so because of another process, which may be done by now.
    pub(super) fn was_busy(&self) -> bool {
        self.0.as_ref().is_some_and(|met| is(&met.busy))
    }

    pub(super) fn note(&self) {
        if let Some(met) = &self.0 {
            met.silent.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn note_busy(&self) {
        if let Some(met) = &self.0 {
            met.busy.store(true, Ordering::Relaxed);
        }
    }
}

fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}
