//! What the host's C library knows of the thread and the process that call us.

use crate::snapshot::Caller;
use std::cell::Cell;
use std::ffi::{c_int, c_ulong};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cancelability of the host's thread, as it was before our call (pthread_setcancelstate(3)).
pub(super) struct Cancelability {
    kind: c_int,
    state: c_int,
}

impl Cancelability {
    /// Disables cancellation. It would unwind our frames with an exception that is not Rust's, and
    /// that ends the process.
    ///
    /// The type is deferred meanwhile: the handler of glibc 2.36 looks at the type only.
    #[inline(always)]
    pub(super) fn disable() -> Self {
        let mut before = Self { kind: 0, state: 0 };
        // SAFETY: type and state are among those that there are, and `before` takes the old ones.
        unsafe {
            pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &raw mut before.kind);
            pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before.state);
        }
        before
    }

    /// Gives the thread its old cancelability back. Where cancellation is asynchronous and was asked
    /// for meanwhile, this call does not return.
    #[inline(always)]
    pub(super) fn restore(self) {
        // SAFETY: type and state are what the C library gave. An asynchronous cancellation unwinds
        // `entry` and the entry itself, which have nothing to drop.
        unsafe {
            pthread_setcancelstate(self.state, ptr::null_mut());
            pthread_setcanceltype(self.kind, ptr::null_mut());
        }
    }
}

/// What tells this thread from all others that the process ever had, and stays as it is in a forked child. Rust's
/// own handle of a thread would stay in the host's memory after C_Finalize.
pub(super) fn caller() -> Caller {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        Caller(number.get())
    })
}

/// Whether the process has more rights than its caller, by setuid or by file capabilities: AT_SECURE of
/// getauxval(3). An answer that cannot be had counts as yes.
pub(super) fn is_privileged() -> bool {
    // SAFETY: errno is the thread's own, and getauxval reads what the kernel gave this process. It sets
    // errno only if it has no such entry.
    let (said, errno) = unsafe {
        *__errno_location() = 0;
        (getauxval(AT_SECURE), *__errno_location())
    };
    said != 0 || errno != 0
}

// As <pthread.h> of glibc and musl has them.
const PTHREAD_CANCEL_DISABLE: c_int = 1;
const PTHREAD_CANCEL_DEFERRED: c_int = 0;
/// <elf.h>
const AT_SECURE: c_ulong = 23;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
    fn getauxval(kind: c_ulong) -> c_ulong;
    /// errno of the C libraries of Linux.
    fn __errno_location() -> *mut c_int;
}
