//! What the core says while it works. Warnings are lines on standard error, or a field of the JSON
//! document; waits are shown.

use crate::cli::OutputFormat;
use crate::progress::Progress;
use crate::text::printable;
use devid_core::tpm::WAITING;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::{Arc, Mutex, PoisonError};

/// What was warned of so far, each text once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    texts: Arc<Mutex<Vec<String>>>,
    progress: Progress,
}

impl Warnings {
    /// Hears all warnings from now on. For a person they go to standard error as they come.
    pub(crate) fn install(form: OutputFormat) -> Self {
        let warnings = Self {
            progress: Progress::new(form),
            ..Self::default()
        };
        let logger = Logger {
            warnings: warnings.clone(),
            form,
        };
        // Fails only if there is a logger already.
        if log::set_boxed_logger(Box::new(logger)).is_ok() {
            log::set_max_level(LevelFilter::Info);
        }
        warnings
    }

    /// All so far, which are then forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.texts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing more is waited for, and something else is about to be written.
    pub(crate) fn end_wait(&self) {
        self.progress.end();
    }

    /// Whether it is new.
    fn add(&self, text: &str) -> bool {
        let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !known.iter().any(|one| one == text);
        if is_new {
            known.push(text.to_owned());
        }
        is_new
    }
}

/// A warning as a line of standard error.
pub(crate) fn print(text: &str) {
    eprintln!("devid: warning: {}", printable(text));
}

/// The way of warnings from the `log` facade.
struct Logger {
    warnings: Warnings,
    form: OutputFormat,
}

impl Log for Logger {
    /// Our own only: what a library says of its work could hold anything.
    fn enabled(&self, metadata: &Metadata) -> bool {
        let is_warning = metadata.level() <= Level::Warn;
        (is_warning && metadata.target().starts_with("devid")) || metadata.target() == WAITING
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if record.target() == WAITING {
            return self.warnings.progress.show(&text);
        }
        if self.warnings.add(&text) && self.form == OutputFormat::Text {
            self.warnings.end_wait();
            print(&text);
        }
    }

    fn flush(&self) {}
}
