//! Progress while the TPM is waited for: on standard error, for a person.

use crate::cli::OutputFormat;
use crate::text::plain;
use std::io::{IsTerminal, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines where standard error is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);
/// To the beginning of the line, and all of it erased (ECMA-48, EL).
const ERASE: &str = "\r\x1b[K";

/// What is shown of a wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Shown>>);

/// Where it is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// A line that the next one replaces.
    Terminal,
    /// Few lines, each whole.
    File,
    #[default]
    Nowhere,
}

#[derive(Debug, Default)]
struct Shown {
    place: Place,
    /// Whether the terminal's cursor stands behind a line of ours.
    is_open: bool,
    last: Option<Instant>,
}

impl Waiting {
    /// A document in JSON may be read from both outputs, so a file gets nothing beside it.
    pub(crate) fn shown(form: OutputFormat) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
        let place = match (stderr().is_terminal(), form) {
            (true, _) if !is_dumb => Place::Terminal,
            (_, OutputFormat::Text) => Place::File,
            (_, OutputFormat::Json) => Place::Nowhere,
        };
        let shown = Shown {
            place,
            ..Shown::default()
        };
        Self(Arc::new(Mutex::new(shown)))
    }

    /// Says how a wait goes on.
    pub(crate) fn tell(&self, text: &str) {
        self.write(|shown| shown.told(text, Instant::now()));
    }

    /// Erases what was said, before something else is written.
    pub(crate) fn end(&self) {
        self.write(Shown::ended);
    }

    fn write(&self, change: impl FnOnce(&mut Shown) -> Option<String>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = change(&mut shown) {
            // Nobody need read it.
            let _ = stderr().write_all(text.as_bytes());
        }
    }
}

impl Shown {
    fn told(&mut self, text: &str, now: Instant) -> Option<String> {
        let text = plain(text);
        match self.place {
            Place::Nowhere => None,
            Place::Terminal => {
                self.is_open = true;
                Some(format!("{ERASE}devid: {text}"))
            }
            Place::File => {
                let is_due = |last: Instant| now - last >= BETWEEN_LINES;
                if !self.last.is_none_or(is_due) {
                    return None;
                }
                self.last = Some(now);
                Some(format!("devid: {text}\n"))
            }
        }
    }

    fn ended(&mut self) -> Option<String> {
        std::mem::take(&mut self.is_open).then(|| ERASE.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(place: Place) -> Shown {
        Shown {
            place,
            ..Shown::default()
        }
    }

    #[test]
    fn a_terminal_has_one_line_and_in_the_end_none() {
        let (mut shown, now) = (shown(Place::Terminal), Instant::now());
        assert_eq!(shown.ended(), None);
        for text in ["5 s", "10 s"] {
            let told = shown.told(text, now).unwrap();
            assert_eq!(told, format!("\r\x1b[Kdevid: {text}"));
        }
        assert_eq!(shown.ended().unwrap(), "\r\x1b[K");
        assert_eq!(shown.ended(), None);
    }

    #[test]
    fn a_file_has_few_lines() {
        let (mut shown, began) = (shown(Place::File), Instant::now());
        let mut told = |second| shown.told("text", began + Duration::from_secs(second));
        let lines: Vec<u64> = (5..=300)
            .step_by(5)
            .filter(|at| told(*at).is_some())
            .collect();
        assert_eq!(lines, [5, 35, 65, 95, 125, 155, 185, 215, 245, 275]);
        assert_eq!(shown.ended(), None);
    }

    #[test]
    fn a_document_stands_alone() {
        assert_eq!(shown(Place::Nowhere).told("text", Instant::now()), None);
    }
}
