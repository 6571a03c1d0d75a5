//! Log lines about the reason of a wait. Lines with the target [`WAITING`] are for the log of a
//! program. They appear every few seconds. Lines with the target [`TICKS`] are for a progress
//! display. They appear at once and then twice a second.

use log::{Level, info, log_enabled, trace};
use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

/// The log target of messages about a wait. Their level is `info`.
pub const WAITING: &str = "devid_core::waiting";
/// The target of lines for a progress display. Their level is `trace`. The target is not a module
/// path, so that a log filter for this crate excludes these lines.
pub const TICKS: &str = "waiting";
/// The time from the begin of a wait to its first log line.
const FIRST_LINE: Duration = Duration::from_secs(2);
/// The time between two log lines about one wait.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// The time between two updates of the progress display.
const TICK: Duration = Duration::from_millis(500);

/// The times, from the begin of a wait, of its next log line and its next display line.
#[derive(Debug)]
pub(crate) struct WaitLines {
    line: Cell<Duration>,
    tick: Cell<Duration>,
}

impl WaitLines {
    /// Creates the [`WaitLines`] for a wait that starts now.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            line: Cell::new(FIRST_LINE),
            tick: Cell::new(Duration::ZERO),
        }
    }

    /// Logs the reason of a wait that began at `began`, and its time limit, if it is time for a
    /// line. `what` returns the reason for a wait of this age. Returns the time until the next
    /// call; `None` if no logger listens.
    pub(crate) fn tell<T: fmt::Display>(
        &self,
        (began, now): (Instant, Instant),
        most: Duration,
        what: impl FnOnce(Duration) -> T,
    ) -> Option<Duration> {
        if !log_enabled!(target: WAITING, Level::Info) {
            return None;
        }
        let waited = now - began;
        let has_ticks = log_enabled!(target: TICKS, Level::Trace);
        let ticks = has_ticks && waited >= self.tick.get();
        let is_due = waited >= self.line.get();
        if ticks || is_due {
            let line = Line {
                what: what(waited),
                waited,
                most,
            };
            if is_due {
                self.line.set(waited + BETWEEN_LINES);
                info!(target: WAITING, "{line}");
            }
            if ticks {
                self.tick.set(waited + TICK);
                trace!(target: TICKS, "{line}");
            }
        }
        let next = match has_ticks {
            true => self.tick.get().min(self.line.get()),
            false => self.line.get(),
        };
        Some(next - waited)
    }
}

struct Line<T> {
    what: T,
    waited: Duration,
    most: Duration,
}

impl<T: fmt::Display> fmt::Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, waited, most } = self;
        write!(f, "{what}")?;
        if waited.as_secs() > 0 {
            let most = most.as_secs_f32();
            write!(f, ": {} s so far, at most {most} s", waited.as_secs())?;
        }
        Ok(())
    }
}
