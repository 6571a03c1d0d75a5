//! Whether a TPM that let a command wait in vain is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A host process asks again and again. A tool that ran into the limit once has its answer: it would
/// wait that long for each of the many things it looks at.
#[derive(Debug, Clone, Default)]
pub struct Silence(Option<Arc<AtomicBool>>);

impl Silence {
    /// Remembered from the first time on, by all copies of this.
    pub fn remembered() -> Self {
        Self(Some(Arc::default()))
    }

    pub(super) fn is_known(&self) -> bool {
        let known = self.0.as_ref();
        known.is_some_and(|known| known.load(Ordering::Relaxed))
    }

    pub(super) fn note(&self) {
        if let Some(known) = &self.0 {
            known.store(true, Ordering::Relaxed);
        }
    }
}
