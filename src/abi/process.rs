//! The state of the module in this process, and in a forked child.
//!
//! A child of fork(2) has the memory of its parent, but only one thread. A lock that another thread
//! held stays locked for ever. A connection to the TPM still belongs to the parent. Therefore the
//! state is behind a pointer, and the first call in the child makes a new state. The new state
//! takes over the parts that no thread had locked. The old state stays in memory. The child never
//! unlocks, drops or sends anything that belongs to the parent.

use crate::handle::Mint;
use crate::logging::{self, LogSettings, LogTarget};
use crate::module::{Held, Module, Refusals, fork};
use log::{LevelFilter, error};
use parking_lot::{Mutex, RwLock};
use std::ffi::c_int;
use std::mem;
use std::panic::PanicHookInfo;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::thread;

/// The largest number of log lines that are kept in memory until they can be written.
const MOST_WAITING: usize = 32;

/// The number of forks between the first process that called the module and this process.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// The fork number, plus one, of the process that makes or made the current state.
static TURN: AtomicU64 = AtomicU64::new(0);
static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());
static LOG_DOOR: LogDoor = LogDoor;
/// The process locks that this process holds.
pub(super) static HELD: Held = Held::new();

/// The state of one process.
pub(super) struct State {
    forks: u64,
    /// A thread locks this mutex only briefly.
    pub(super) module: Mutex<Lifecycle>,
    /// The source of new handles. It stays after C_Finalize, so that no handle occurs twice.
    pub(super) mint: Arc<Mint>,
    /// Stays after C_Finalize, so that no refused authorisation value is sent to the TPM again.
    pub(super) refusals: Refusals,
    log_target: RwLock<LogTarget>,
    /// Log lines that are not written yet, because the process had no free file descriptor.
    waiting: Mutex<Vec<String>>,
    lines_wait: AtomicBool,
    /// The messages of panics that are not logged yet.
    panics: Mutex<Vec<String>>,
}

/// The state of the module between C_Initialize and C_Finalize.
pub(super) enum Lifecycle {
    /// Neither this process nor its parent called C_Initialize, or C_Finalize was called.
    Outside,
    /// C_Initialize was called in this process.
    Initialized(Arc<Module>),
    /// The parent called C_Initialize, and this child did not. Calls work as in the parent. A call
    /// of C_Initialize makes a new module.
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

/// The dynamic linker calls this function when it loads the library. Before that no thread of the
/// process can be inside the library, so no fork finds this work half done. A first call could.
#[used]
// SAFETY: the section holds pointers to functions of the C ABI. The dynamic linker may pass
// arguments, which `prepare` ignores.
#[unsafe(link_section = ".init_array")]
static PREPARE: extern "C" fn() = prepare;

extern "C" fn prepare() {
    super::silence_panics();
    // SAFETY: the handlers have the right type. They change atomic numbers, wait for a futex with a
    // time limit, and close descriptors. These actions are safe in the child of a process with
    // threads. The functions stay mapped, because the library is linked with -z nodelete. If the
    // call fails for lack of memory, forks are not noticed.
    unsafe { pthread_atfork(Some(before_fork), Some(after_fork), Some(note_fork)) };
    // The call fails only if a logger is set already. This library has its own copy of `log`.
    let _ = log::set_logger(&LOG_DOOR);
}

/// Returns the state of this process. The first call of the process makes it.
pub(super) fn state() -> &'static State {
    loop {
        let forks = FORKS.load(Ordering::Acquire);
        let current = STATE.load(Ordering::Acquire);
        // SAFETY: STATE is null, or points to a State from `Box::into_raw` that is never freed.
        let known = unsafe { current.as_ref() };
        match known {
            Some(state) if state.forks == forks => return state,
            _ => begin(forks, known),
        }
    }
}

/// Replaces the parent's state by a new state. Only one thread of this process does this work, and
/// the other threads try again. If two threads did it at once, each would find the other thread's
/// locks held.
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
            // The parent's module is not dropped, because the drop could send data over the
            // parent's connections.
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

    /// Logs the panics that [`note_panic`] collected.
    pub(super) fn log_panics(&self) {
        let noted = std::mem::take(&mut *self.panics.lock());
        for panic in noted {
            error!("internal error, please report: {panic}");
        }
    }

    /// Writes the log lines that are kept in memory, the oldest first.
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

/// Sets the level and the target of this process's log.
pub(super) fn log_to(settings: LogSettings) {
    log::set_max_level(LevelFilter::Off);
    *state().log_target.write() = settings.target;
    log::set_max_level(settings.level);
}

/// Receives log lines from the `log` facade and passes them to the log target.
struct LogDoor;

impl log::Log for LogDoor {
    /// Accepts only log lines of this project. A log line of another library could hold secrets.
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target().starts_with("devid_")
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // This function does not call `state()`, because `state()` itself logs.
        // SAFETY: STATE is null or points to a State that is never freed, as in `state()`.
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

/// Collects the message of a panic for [`State::log_panics`], unless the list is locked.
pub(super) fn note_panic(panic: &PanicHookInfo) {
    // SAFETY: STATE is null or points to a State that is never freed, as in `state()`.
    let state = unsafe { STATE.load(Ordering::Acquire).as_ref() };
    if let Some(mut noted) = state.and_then(|state| state.panics.try_lock())
        && noted.len() < MOST_WAITING
    {
        noted.push(panic.to_string());
    }
}

/// Waits until no thread uses a library that has locks or unfinished tables.
extern "C" fn before_fork() {
    fork::before_fork();
}

extern "C" fn after_fork() {
    fork::after_fork_in_parent();
}

extern "C" fn note_fork() {
    fork::after_fork_in_child();
    FORKS.fetch_add(1, Ordering::AcqRel);
    for descriptor in HELD.take_all() {
        // SAFETY: a thread of the parent owned this descriptor at the fork. The child does not have
        // that thread, so no other code of the child uses or closes the descriptor. close(2) is
        // safe after a fork.
        unsafe { close(descriptor) };
    }
}

type ForkHandler = Option<extern "C" fn()>;

unsafe extern "C" {
    fn close(descriptor: c_int) -> c_int;
    /// Registers handlers that run before a fork, and after a fork in the parent and in the child
    /// (POSIX.1-2017).
    fn pthread_atfork(prepare: ForkHandler, parent: ForkHandler, child: ForkHandler) -> c_int;
}
