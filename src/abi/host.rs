//! Calls functions of the host's C library that concern the calling thread and process.

use crate::snapshot::Caller;
use std::cell::Cell;
use std::ffi::{c_int, c_ulong};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cancelability of the host's thread before the PKCS#11 call (pthread_setcancelstate(3)).
pub(super) struct Cancelability {
    kind: c_int,
    state: c_int,
}

impl Cancelability {
    /// Disables cancellation of the thread. A cancellation would unwind the frames of this module
    /// with an exception that Rust does not know. The process would end.
    ///
    /// The cancelability type is set to deferred too, because the signal handler of glibc 2.36
    /// checks only the type.
    #[inline(always)]
    pub(super) fn disable() -> Self {
        let mut before = Self { kind: 0, state: 0 };
        // SAFETY: type and state are valid constants, and `before` takes the old values.
        unsafe {
            pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &raw mut before.kind);
            pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before.state);
        }
        before
    }

    /// Restores the cancelability of the thread. Does not return if an asynchronous cancellation is
    /// pending.
    #[inline(always)]
    pub(super) fn restore(self) {
        // SAFETY: type and state are values from the C library. An asynchronous cancellation
        // unwinds only `entry` and its caller. Neither has a value to drop.
        unsafe {
            pthread_setcancelstate(self.state, ptr::null_mut());
            pthread_setcanceltype(self.kind, ptr::null_mut());
        }
    }
}

/// Returns the number of the calling thread. No other thread of the process has or had this number.
/// A forked child keeps the number. A thread handle of Rust would stay in the host's memory after
/// C_Finalize.
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

/// Returns true if setuid or file capabilities give the process more rights than its caller
/// (AT_SECURE of getauxval(3)). Also returns true if getauxval fails.
pub(super) fn is_privileged() -> bool {
    // SAFETY: errno belongs to this thread, and getauxval reads memory that the kernel gave this
    // process. getauxval sets errno only if the entry is missing.
    let (said, errno) = unsafe {
        *__errno_location() = 0;
        (getauxval(AT_SECURE), *__errno_location())
    };
    said != 0 || errno != 0
}

// The C headers <pthread.h> of glibc and musl define these values.
const PTHREAD_CANCEL_DISABLE: c_int = 1;
const PTHREAD_CANCEL_DEFERRED: c_int = 0;
/// The C header <elf.h> defines the value of AT_SECURE.
const AT_SECURE: c_ulong = 23;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
    fn getauxval(kind: c_ulong) -> c_ulong;
    /// Returns the address of errno in glibc and musl.
    fn __errno_location() -> *mut c_int;
}
