//! Progress messages for a user who waits. The messages are written to standard error. The first
//! message is written two seconds after the start of the run.

use crate::cli::OutputFormat;
use crate::text::printable;
use std::fs::File;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time after the start of the run in which no progress is shown.
const SILENCE: Duration = Duration::from_secs(2);
/// The time between two lines if standard error is not a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);
/// Moves the cursor to the start of the line, and erases the line (ECMA-48, EL).
const ERASE: &str = "\r\x1b[K";

/// Shows the progress of a wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<ProgressLine>>);

/// The target of progress messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ProgressTarget {
    /// A terminal: one line, which the next message replaces.
    Terminal,
    /// A file or pipe: few, complete lines.
    File,
    #[default]
    Nowhere,
}

#[derive(Debug)]
struct ProgressLine {
    target: ProgressTarget,
    /// The time at which the run of `devid` began.
    began: Instant,
    /// The progress line that is now on the terminal.
    open: Option<String>,
    last: Option<Instant>,
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self {
            target: ProgressTarget::Nowhere,
            began: Instant::now(),
            open: None,
            last: None,
        }
    }
}

impl Progress {
    /// Makes the progress of a run that starts now. With JSON output, no progress is shown if
    /// standard output and standard error are the same file.
    pub(crate) fn new(form: OutputFormat, quiet: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
        let target = match (stderr().is_terminal(), form) {
            _ if quiet => ProgressTarget::Nowhere,
            (true, _) if !is_dumb => ProgressTarget::Terminal,
            (_, OutputFormat::Json) if outputs_are_one() => ProgressTarget::Nowhere,
            _ => ProgressTarget::File,
        };
        let line = ProgressLine {
            target,
            ..ProgressLine::default()
        };
        Self(Arc::new(Mutex::new(line)))
    }

    /// Shows the progress of a wait.
    pub(crate) fn show(&self, text: &str) {
        self.write(|line| line.next_text(text, Instant::now()));
    }

    /// Erases the line before other text is written.
    pub(crate) fn end(&self) {
        self.write(ProgressLine::erase);
    }

    fn write(&self, change: impl FnOnce(&mut ProgressLine) -> Option<String>) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = change(&mut line) {
            // A failed write of progress is ignored.
            let _ = stderr().write_all(text.as_bytes());
        }
    }
}

impl ProgressLine {
    fn next_text(&mut self, text: &str, now: Instant) -> Option<String> {
        if now - self.began < SILENCE {
            return None;
        }
        let text = printable(text);
        match self.target {
            ProgressTarget::Nowhere => None,
            ProgressTarget::Terminal => {
                if self.open.as_ref() == Some(&text) {
                    return None;
                }
                let shown = format!("{ERASE}devid: {text}");
                self.open = Some(text);
                Some(shown)
            }
            ProgressTarget::File => {
                let is_due = |last: Instant| now - last >= BETWEEN_LINES;
                if !self.last.is_none_or(is_due) {
                    return None;
                }
                self.last = Some(now);
                Some(format!("devid: {text}\n"))
            }
        }
    }

    fn erase(&mut self) -> Option<String> {
        self.open.take().map(|_| ERASE.to_owned())
    }
}

/// Returns true if standard output and standard error are the same file or pipe (`2>&1`), or if the
/// function cannot find out.
fn outputs_are_one() -> bool {
    let about = |file: BorrowedFd<'_>| {
        let file = File::from(file.try_clone_to_owned().ok()?);
        let about = file.metadata().ok()?;
        Some((about.dev(), about.ino()))
    };
    let (out, err) = (about(stdout().as_fd()), about(stderr().as_fd()));
    out.is_none() || err.is_none() || out == err
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: ProgressTarget) -> ProgressLine {
        ProgressLine {
            target,
            began: Instant::now() - SILENCE,
            ..ProgressLine::default()
        }
    }

    #[test]
    fn nothing_is_said_at_first() {
        let began = Instant::now();
        let mut line = ProgressLine {
            began,
            ..line(ProgressTarget::File)
        };
        for (after, is_said) in [(0, false), (1999, false), (2000, true), (2500, false)] {
            let said = line.next_text("text", began + Duration::from_millis(after));
            assert_eq!(said.is_some(), is_said, "{after} ms");
        }
    }

    #[test]
    fn a_terminal_has_one_line_and_in_the_end_none() {
        let (mut line, now) = (line(ProgressTarget::Terminal), Instant::now());
        assert_eq!(line.erase(), None);
        for text in ["5 s", "10 s"] {
            let next_text = line.next_text(text, now).unwrap();
            assert_eq!(next_text, format!("\r\x1b[Kdevid: {text}"));
        }
        assert_eq!(line.erase().unwrap(), "\r\x1b[K");
        assert_eq!(line.erase(), None);
    }

    #[test]
    fn a_file_has_few_lines() {
        let (mut line, began) = (line(ProgressTarget::File), Instant::now());
        let mut next_text = |second| line.next_text("text", began + Duration::from_secs(second));
        let lines: Vec<u64> = (5..=300)
            .step_by(5)
            .filter(|at| next_text(*at).is_some())
            .collect();
        assert_eq!(lines, [5, 35, 65, 95, 125, 155, 185, 215, 245, 275]);
        assert_eq!(line.erase(), None);
    }

    #[test]
    fn a_document_stands_alone() {
        assert_eq!(
            line(ProgressTarget::Nowhere).next_text("text", Instant::now()),
            None
        );
    }
}
