//! What the core says while it works. Warnings are lines on standard error, or a field of the JSON
//! document; waits are shown. With `-v` its other lines are shown, too, each with its level.

use crate::cli::OutputFormat;
use crate::print::say;
use crate::progress::Progress;
use devid_core::{TICKS, WAITING};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::{Arc, Mutex, PoisonError};

/// What was warned of so far, each text once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    texts: Arc<Mutex<Vec<String>>>,
    progress: Progress,
    /// Whether none is printed (`--quiet`).
    are_mute: bool,
}

impl Warnings {
    /// Hears all warnings from now on. For a person they go to standard error as they come; `verbose`
    /// counts `-v`.
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
        // Fails only if there is a logger already.
        if log::set_boxed_logger(Box::new(logger)).is_ok() {
            // Waits are said at this level.
            log::set_max_level(LevelFilter::Trace);
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

    /// A warning as a line of standard error.
    pub(crate) fn print(&self, text: &str) {
        if !self.are_mute {
            say(format_args!("warning: {text}"));
        }
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

/// The way of lines from the `log` facade.
struct Logger {
    warnings: Warnings,
    form: OutputFormat,
    /// What goes to standard error.
    shown: LevelFilter,
}

impl Log for Logger {
    /// Our own only: what a library says of its work could hold anything.
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
            // The same, less often.
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
