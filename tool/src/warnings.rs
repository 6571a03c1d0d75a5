//! Receives the log lines of the core. Warnings become lines on standard error, or a field of the
//! JSON document. Waits are shown as progress. `-v` shows the other lines with their levels.

use crate::cli::OutputFormat;
use crate::print::say;
use crate::progress::Progress;
use devid_core::{TICKS, WAITING};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::{Arc, Mutex, PoisonError};

/// The warnings of this run. Each text occurs only once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    texts: Arc<Mutex<Vec<String>>>,
    progress: Progress,
    /// True if warnings are not printed (`--quiet`).
    are_mute: bool,
}

impl Warnings {
    /// Starts to collect warnings. With text output, each warning is written to standard error at
    /// once. `verbose` is the number of `-v` options.
    pub(crate) fn install(form: OutputFormat, verbose: u8, quiet: bool) -> Self {
        let warnings = Self {
            progress: Progress::new(form, quiet),
            are_mute: quiet,
            ..Self::default()
        };
        let logger = Logger {
            warnings: warnings.clone(),
            form,
            shown: match verbose {
                0 => LevelFilter::Warn,
                1 => LevelFilter::Info,
                _ => LevelFilter::Debug,
            },
        };
        // The call fails only if the process already has a logger.
        if log::set_boxed_logger(Box::new(logger)).is_ok() {
            // Messages about waits are logged at the level `trace`.
            log::set_max_level(LevelFilter::Trace);
        }
        warnings
    }

    /// Returns the collected warnings, and clears the list.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.texts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the progress line before other text is written.
    pub(crate) fn end_wait(&self) {
        self.progress.end();
    }

    /// Prints a warning as a line on standard error.
    pub(crate) fn print(&self, text: &str) {
        if !self.are_mute {
            say(format_args!("warning: {text}"));
        }
    }

    /// Adds a warning. Returns true if the list did not contain its text.
    fn add(&self, text: &str) -> bool {
        let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !known.iter().any(|one| one == text);
        if is_new {
            known.push(text.to_owned());
        }
        is_new
    }
}

/// Receives lines from the `log` facade.
struct Logger {
    warnings: Warnings,
    form: OutputFormat,
    /// The lowest level of lines that go to standard error.
    shown: LevelFilter,
}

impl Log for Logger {
    /// Accepts only log lines of this project. A log line of another library could contain secrets.
    fn enabled(&self, metadata: &Metadata) -> bool {
        let target = metadata.target();
        let is_shown = target.starts_with("devid") && metadata.level() <= self.shown;
        matches!(target, TICKS | WAITING) || is_shown
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        match record.target() {
            TICKS => return self.warnings.progress.show(&text),
            // The progress output already shows this wait.
            WAITING => return,
            _ => {}
        }
        if record.level() > Level::Warn {
            self.warnings.end_wait();
            let level = record.level().as_str().to_ascii_lowercase();
            return say(format_args!("{level}: {text}"));
        }
        if self.warnings.add(&text) && self.form == OutputFormat::Text {
            self.warnings.end_wait();
            self.warnings.print(&text);
        }
    }

    fn flush(&self) {}
}
