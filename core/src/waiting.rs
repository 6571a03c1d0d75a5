//! Lines of the log that say what is waited for. With the target [`WAITING`] they come now and then, for the
//! log of a program that waits. With the target [`TICKS`] they come as a clock ticks, and the first one at
//! once, so that whoever shows them to a person can tell the time.

use log::{Level, info, log_enabled, trace};
use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

/// The target of the lines for a log, at level `info`.
pub const WAITING: &str = "devid_core::waiting";
/// The target of the lines for a person, at level `trace`. It is no path of a module, so that a log that
/// takes all of ours takes none of these.
pub const TICKS: &str = "waiting";
/// How old a wait is at its first line for a log.
const FIRST_LINE: Duration = Duration::from_secs(2);
/// Time between two lines for a log.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// Time between two lines for a person.
const TICK: Duration = Duration::from_millis(500);

/// When the next lines about a wait are due, by its age.
#[derive(Debug)]
pub(crate) struct WaitLines {
    line: Cell<Duration>,
    tick: Cell<Duration>,
}

impl WaitLines {
    /// Of a wait that begins.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            line: Cell::new(FIRST_LINE),
            tick: Cell::new(Duration::ZERO),
        }
    }

    /// Says what is waited for since `began`, and for how long at most, if it is time to; `what` is told
    /// how old the wait is. Gives the time until this is to be called again; `None` where nobody listens.
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
