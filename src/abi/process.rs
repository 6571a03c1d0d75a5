//! The module's state in this process, and what a fork does to it.
//!
//! A child of fork(2) has the memory of its parent but one thread: a lock that another thread held
//! stays locked for ever, and a connection to the TPM is the parent's. So the state lives behind a
//! pointer; the child's first call makes a state of its own from what nobody held, leaves the old
//! one where it is, and neither unlocks, drops nor sends anything of the parent's.

use crate::handle::Mint;
use crate::logging::{self, LogSettings, LogTarget};
use crate::module::{Held, Module, Refusals};
use log::{LevelFilter, error};
use parking_lot::{Mutex, RwLock};
use std::ffi::c_int;
use std::mem;
use std::panic::PanicHookInfo;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread;

/// So many lines wait at most.
const MOST_WAITING: usize = 32;

/// Counts forks on the way from the first process that called us to this one.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// One more than the forks of the process whose thread makes, or has made, the state.
static TURN: AtomicU64 = AtomicU64::new(0);
static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());
static PREPARED: Once = Once::new();
static LOG_DOOR: LogDoor = LogDoor;
/// Locks between processes that this one holds.
pub(super) static HELD: Held = Held::new();

/// What one process knows.
pub(super) struct State {
    forks: u64,
    /// Held for moments only.
    pub(super) module: Mutex<Lifecycle>,
    /// Outlives C_Finalize, so that no handle comes twice.
    pub(super) mint: Arc<Mint>,
    /// Outlives C_Finalize, so that no refused authorisation is tried twice.
    pub(super) refusals: Refusals,
    log_target: RwLock<LogTarget>,
    /// Lines that could not be written, since the process had no descriptor left.
    waiting: Mutex<Vec<String>>,
    lines_wait: AtomicBool,
    /// Panics that were caught, or are on their way, and are not logged yet.
    panics: Mutex<Vec<String>>,
}

/// Where this process stands between C_Initialize and C_Finalize.
pub(super) enum Lifecycle {
    /// C_Initialize is awaited.
    Outside,
    /// C_Initialize was called in this process.
    Initialized(Arc<Module>),
    /// It was called in the parent: calls work as there, and C_Initialize begins anew.
    Inherited(Arc<Module>),
}

impl Lifecycle {
    pub(super) fn module(&self) -> Option<Arc<Module>> {
        match self {
            Self::Outside => None,
            Self::Initialized(module) | Self::Inherited(module) => Some(Arc::clone(module)),
        }
    }
}

/// The state of this process, made at its first call and again after a fork.
pub(super) fn state() -> &'static State {
    PREPARED.call_once(|| {
        super::silence_panics();
        // SAFETY: `note_fork` is a function of the type asked for that only changes atomic numbers
        // and closes descriptors, which is safe in the child of a threaded process; it stays mapped, as the library
        // is linked with -z nodelete. A failure (no memory) leaves forks unnoticed, as they would
        // be without the call.
        unsafe { pthread_atfork(None, None, Some(note_fork)) };
        // Fails only if a logger is set already, and this library's copy of `log` is its own.
        let _ = log::set_logger(&LOG_DOOR);
    });
    loop {
        let forks = FORKS.load(Ordering::Acquire);
        let current = STATE.load(Ordering::Acquire);
        // SAFETY: STATE is null or points to a State that `Box::into_raw` gave and that is never
        // freed.
        let known = unsafe { current.as_ref() };
        match known {
            Some(state) if state.forks == forks => return state,
            _ => begin(forks, known),
        }
    }
}

/// Puts a fresh state in the place of the parent's. One thread of this process does it; others
/// find the turn taken and come back, since what two of them take over at once would be locked
/// for one.
fn begin(forks: u64, parent: Option<&State>) {
    let turn = forks + 1;
    let last = TURN.load(Ordering::Acquire);
    let taken = last == turn
        || TURN
            .compare_exchange(last, turn, Ordering::AcqRel, Ordering::Acquire)
            .is_err();
    if taken {
        thread::yield_now();
        return;
    }
    let fresh = Box::into_raw(Box::new(State::begin(forks, parent)));
    STATE.store(fresh, Ordering::Release);
}

impl State {
    fn begin(forks: u64, parent: Option<&State>) -> Self {
        let mint = Arc::new(parent.map_or_else(Mint::new, |parent| parent.mint.for_child()));
        let refusals = parent
            .map(|parent| parent.refusals.for_child())
            .unwrap_or_default();
        let module = parent.and_then(|parent| {
            let lifecycle = parent.module.try_lock()?;
            let module = lifecycle.module()?;
            let own = Arc::new(module.for_child(Arc::clone(&mint), &refusals));
            // The parent's module is left as it is: dropping it could reach its connections.
            mem::forget(module);
            Some(own)
        });
        let log_target = parent
            .and_then(|parent| parent.log_target.try_read().map(|target| target.clone()))
            .unwrap_or(LogTarget::Syslog);
        Self {
            forks,
            mint,
            refusals,
            module: Mutex::new(module.map_or(Lifecycle::Outside, Lifecycle::Inherited)),
            log_target: RwLock::new(log_target),
            waiting: Mutex::default(),
            lines_wait: AtomicBool::new(false),
            panics: Mutex::default(),
        }
    }

    /// Logs the panics that were noted.
    pub(super) fn log_panics(&self) {
        let noted = std::mem::take(&mut *self.panics.lock());
        for panic in noted {
            error!("internal error, please report: {panic}");
        }
    }

    /// Writes what could not be written before, the oldest first.
    pub(super) fn write_waiting(&self) {
        if self.lines_wait.load(Ordering::Relaxed)
            && let Some(target) = self.log_target.try_read().map(|target| target.clone())
        {
            self.write_lines(&target, None);
        }
    }

    fn write_lines(&self, target: &LogTarget, line: Option<String>) {
        let Some(mut waiting) = self.waiting.try_lock() else {
            let _ = line.map(|line| logging::write(target, &line));
            return;
        };
        waiting.extend(line);
        let mut lines = std::mem::take(&mut *waiting).into_iter();
        while let Some(line) = lines.next() {
            if logging::write(target, &line).is_err_and(|error| logging::can_wait(&error)) {
                waiting.push(line);
                waiting.extend(lines.by_ref().take(MOST_WAITING - 1));
                break;
            }
        }
        let some = !waiting.is_empty();
        self.lines_wait.store(some, Ordering::Relaxed);
    }
}

/// Sets what this process logs, and where to.
pub(super) fn log_to(settings: LogSettings) {
    log::set_max_level(LevelFilter::Off);
    *state().log_target.write() = settings.target;
    log::set_max_level(settings.level);
}

/// The way of log lines from the `log` facade to their target.
struct LogDoor;

impl log::Log for LogDoor {
    /// Our own lines only: what a library says of its work could hold anything.
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target().starts_with("devid_")
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Not through `state()`: that logs, and a line is not worth a second way into it.
        // SAFETY: as in `state()`.
        let Some(state) = (unsafe { STATE.load(Ordering::Acquire).as_ref() }) else {
            return;
        };
        let target = state.log_target.try_read().map(|target| target.clone());
        if let Some(target) = target {
            state.write_lines(&target, Some(logging::rendered(&target, record)));
        }
    }

    fn flush(&self) {}
}

/// Notes a panic for [`State::log_panics`]; takes no lock that a panic could have left.
pub(super) fn note_panic(panic: &PanicHookInfo) {
    // SAFETY: as in `state()`.
    let state = unsafe { STATE.load(Ordering::Acquire).as_ref() };
    if let Some(mut noted) = state.and_then(|state| state.panics.try_lock())
        && noted.len() < MOST_WAITING
    {
        noted.push(panic.to_string());
    }
}

extern "C" fn note_fork() {
    FORKS.fetch_add(1, Ordering::AcqRel);
    for descriptor in HELD.take_all() {
        // SAFETY: a thread of the parent owned this descriptor when it forked, and that thread is not
        // in the child: nothing here uses or closes it any more. close(2) is safe after a fork.
        unsafe { close(descriptor) };
    }
}

type ForkHandler = Option<extern "C" fn()>;

unsafe extern "C" {
    fn close(descriptor: c_int) -> c_int;
    /// POSIX.1-2017: registers handlers for before a fork, after it in the parent, in the child.
    fn pthread_atfork(prepare: ForkHandler, parent: ForkHandler, child: ForkHandler) -> c_int;
}
