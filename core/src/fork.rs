//! Work that a fork must not interrupt.
//!
//! A child of fork(2) has the memory of its parent, but only the thread that forked. Another thread
//! of the parent may make a table at this moment (`LazyLock`, pthread_once(3)), or may hold a lock
//! of a library. In the child this table is never finished, and this lock is never unlocked. A call
//! that needs them would wait for ever.
//!
//! Such work therefore runs inside `without_fork`. The handlers of pthread_atfork(3) call the
//! other functions of this file. A fork waits until no thread is inside, and a thread that wants to
//! enter waits for the end of the fork. The work inside is arithmetic only. It never waits for a
//! TPM, for a file or for another thread.
//!
//! The locks of this project need no such care, because the child tries them and does not wait.

use rustix::thread::{Timespec, futex};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The longest wait. A host may fork while it holds a lock of its own that the other thread needs.
/// After this time the process forks, or the thread enters, without the other.
const PATIENCE: Duration = Duration::from_secs(1);

/// The tables and locks of the libraries belong to the process, and so does the gate.
static GATE: Gate = Gate::new();

thread_local! {
    /// The number of calls of `without_fork` in which this thread is.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `work` while the process does not fork. The work is short: a few milliseconds.
pub(crate) fn without_fork<R>(work: impl FnOnce() -> R) -> R {
    let _inside = GATE.enter();
    work()
}

/// Waits until no other thread is inside `without_fork`, and keeps other threads out. The handler
/// before a fork calls this function.
pub fn before_fork() {
    GATE.close();
}

/// Lets threads enter again. The handler in the parent calls this function.
pub fn after_fork_in_parent() {
    GATE.open();
}

/// Lets threads enter again. The handler in the child calls this function. The only thread of the
/// child is inside if the fork happened in a signal handler.
pub fn after_fork_in_child() {
    GATE.forget_others();
}

/// The number of threads that are inside, plus [`FORK`] for each fork that begins.
struct Gate(AtomicU32);

const FORK: u32 = 1 << 16;
const INSIDE: u32 = FORK - 1;

impl Gate {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn enter(&self) -> Inside<'_> {
        let depth = DEPTH.get();
        if depth == 0 {
            let entered = |gate| (gate < FORK).then_some(gate + 1);
            let enter = || {
                self.0
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, entered)
            };
            if !self.succeeds(enter) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }
        DEPTH.set(depth + 1);
        Inside(self)
    }

    fn leave(&self) {
        let depth = DEPTH.get().saturating_sub(1);
        DEPTH.set(depth);
        if depth > 0 {
            return;
        }
        // The child does not count a thread that a signal interrupted while it entered or left.
        let left = |gate| (gate & INSIDE > 0).then(|| gate - 1);
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, left);
        if before.is_ok_and(|gate| gate >= FORK) {
            self.wake();
        }
    }

    fn close(&self) {
        // A signal handler may fork while its own thread is inside.
        let own = |gate| u32::from(gate & INSIDE > 0 && DEPTH.get() > 0);
        self.0.fetch_add(FORK, Ordering::AcqRel);
        self.succeeds(|| match self.0.load(Ordering::Acquire) {
            gate if gate & INSIDE > own(gate) => Err(gate),
            gate => Ok(gate),
        });
    }

    fn open(&self) {
        self.0.fetch_sub(FORK, Ordering::AcqRel);
        self.wake();
    }

    fn forget_others(&self) {
        let inside = self.0.load(Ordering::Acquire) & INSIDE > 0 && DEPTH.get() > 0;
        self.0.store(u32::from(inside), Ordering::Release);
    }

    /// Repeats `attempt` after each change of the gate. Returns `false` if it still fails after
    /// [`PATIENCE`]. A failed attempt returns the state of the gate.
    fn succeeds(&self, attempt: impl Fn() -> Result<u32, u32>) -> bool {
        let mut end = None;
        while let Err(seen) = attempt() {
            let end = *end.get_or_insert_with(|| Instant::now() + PATIENCE);
            let left = end.saturating_duration_since(Instant::now());
            let Some(left) = Timespec::try_from(left).ok().filter(|_| !left.is_zero()) else {
                return false;
            };
            // An error means that the gate changed, that a signal came or that the time is over.
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, seen, Some(&left));
        }
        true
    }

    fn wake(&self) {
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

/// A thread inside `without_fork`. It leaves at the drop, also after a panic.
struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// Each of two threads does its part of the work in two steps. The other must not come between.
    #[test]
    fn neither_a_fork_nor_the_work_comes_between() {
        const ROUNDS: usize = 2000;
        let (gate, working) = (Gate::new(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let _inside = gate.enter();
                    working.store(true, Ordering::SeqCst);
                    thread::yield_now();
                    working.store(false, Ordering::SeqCst);
                }
            });
            for _ in 0..ROUNDS {
                gate.close();
                let begun = working.load(Ordering::SeqCst);
                thread::yield_now();
                let went_on = working.load(Ordering::SeqCst);
                gate.open();
                assert!(!begun && !went_on, "work during a fork");
            }
        });
        assert_eq!(gate.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn two_forks_keep_threads_out_until_the_later_one_ends() {
        let gate = Gate::new();
        gate.close();
        gate.close();
        gate.open();
        assert!(gate.0.load(Ordering::SeqCst) >= FORK);
        gate.open();
        drop(gate.enter());
        assert_eq!(gate.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_signal_handler_forks_inside_the_work() {
        let gate = Gate::new();
        let begun = Instant::now();
        {
            let _outer = gate.enter();
            let _inner = gate.enter();
            gate.close();
            gate.forget_others();
            assert_eq!(gate.0.load(Ordering::SeqCst), 1, "the child works on");
            // Inside, a fork of another thread is no reason to wait: it waits for this thread.
            gate.close();
            drop(gate.enter());
            gate.open();
        }
        assert_eq!(gate.0.load(Ordering::SeqCst), 0);
        assert!(begun.elapsed() < PATIENCE, "nobody waited");
        // The signal came before this thread noted that it is inside.
        let entered = gate.enter();
        gate.0.store(0, Ordering::SeqCst);
        drop(entered);
        assert_eq!(gate.0.load(Ordering::SeqCst), 0);
    }

    /// The host holds a lock during the fork, and the thread inside waits for this lock.
    #[test]
    fn a_wait_ends() {
        let gate = Gate::new();
        thread::scope(|scope| {
            let inside = scope.spawn(|| std::mem::forget(gate.enter()));
            inside.join().unwrap();
            gate.close();
        });
        let entered = gate.enter();
        gate.forget_others();
        assert_eq!(gate.0.load(Ordering::SeqCst), 1, "the lost thread is gone");
        drop(entered);
        assert_eq!(gate.0.load(Ordering::SeqCst), 0);
    }
}
