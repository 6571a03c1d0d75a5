//! The C border (PKCS#11 3.0, chapter 5): the only `unsafe` of this crate.
//!
//! Each call decodes its arguments, calls one method and writes the answer. Every entry goes
//! through [`entry`]: a panic never crosses into the host, and every failure has its log line.
//!
//! The standard gives a caller these duties, and the SAFETY comments here lean on them: a pointer
//! is NULL or valid for what its length says, and is not written to by another thread during the
//! call. What is checked nonetheless: NULL, alignment (nothing is assumed of it) and lengths beyond
//! the address space.

#![allow(non_snake_case, reason = "the standard's names")]

mod args;
mod digest;
mod encrypt;
mod general;
mod host;
mod keys;
mod objects;
mod process;
mod random;
mod sessions;
mod sign;
mod slots;
mod table;

use crate::error::Error;
use crate::module::Module;
use cryptoki_sys::{CK_RV, CK_UTF8CHAR, CK_VERSION, CKR_GENERAL_ERROR, CKR_OK};
use host::Cancelability;
use log::debug;
use process::Lifecycle;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const MANUFACTURER: &str = "devid-pkcs11";
/// The version of the standard: that of the default function table.
const V3_2: CK_VERSION = CK_VERSION { major: 3, minor: 2 };

/// Runs one call with cancellation disabled, and gives its code.
///
/// A thread that may be cancelled asynchronously can be unwound from any instruction here and in the
/// entry itself. Both must therefore be frames without landing pads, which "C" makes of the calls in
/// them.
#[allow(improper_ctypes_definitions, reason = "only Rust calls it")]
extern "C" fn entry<C>(name: &'static str, call: C) -> CK_RV
where
    C: FnOnce() -> Result<(), Error>,
{
    let cancelability = Cancelability::disable();
    let rv = answer(name, call);
    cancelability.restore();
    rv
}

/// Catches a panic, logs a failure, gives the code.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "only Rust calls it")]
extern "C" fn answer<C>(name: &'static str, call: C) -> CK_RV
where
    C: FnOnce() -> Result<(), Error>,
{
    let call = || {
        if !gives_back(name) && !has_memory() {
            return Err(Error::HostMemory);
        }
        let result = call();
        process::state().write_waiting();
        result
    };
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Error::Panicked));
    match result {
        Ok(()) => CKR_OK,
        Err(Error::Panicked) => {
            // Logging could be what panics.
            let _ = catch_unwind(|| process::state().log_panics());
            CKR_GENERAL_ERROR
        }
        Err(fault) => {
            let rv = fault.rv();
            // Not a warning: asking for lengths and missing attributes is what clients do all day.
            let logged = catch_unwind(|| debug!("{name}: 0x{rv:X} {fault}"));
            if logged.is_err() {
                let _ = catch_unwind(|| process::state().log_panics());
            }
            rv
        }
    }
}

/// Whether a call gives memory back, and so must work where there is none.
fn gives_back(name: &str) -> bool {
    matches!(
        name,
        "C_Finalize" | "C_CloseSession" | "C_CloseAllSessions" | "C_Logout" | "C_FindObjectsFinal"
    )
}

/// Whether the process has memory for what a usual call takes: Rust ends a process that has none. What
/// the host's other threads take meanwhile is not counted.
fn has_memory() -> bool {
    const USUAL: usize = 64 << 10;
    let mut room = Vec::<u8>::new();
    let has = room.try_reserve_exact(USUAL).is_ok();
    // Memory that nobody looks at would not be asked for.
    std::hint::black_box(&room);
    has
}

/// The module, if C_Initialize was called in this process or, before a fork, in its parent.
fn module() -> Result<Arc<Module>, Error> {
    match &*process::state().module.lock() {
        Lifecycle::Outside => Err(Error::NotInitialized),
        Lifecycle::Initialized(module) | Lifecycle::Inherited(module) => Ok(Arc::clone(module)),
    }
}

/// A panic is a fault of ours: said in the log, and nothing on the host's stderr. It is logged once it
/// is caught, as a panic inside the hook would end the host.
fn silence_panics() {
    std::panic::set_hook(Box::new(process::note_panic));
}

/// manufacturerID of the library, its slots and its tokens.
fn manufacturer() -> [CK_UTF8CHAR; 32] {
    args::padded(MANUFACTURER)
}

fn library_version() -> CK_VERSION {
    let part = |text: &str| text.parse().unwrap_or(0);
    CK_VERSION {
        major: part(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: part(env!("CARGO_PKG_VERSION_MINOR")),
    }
}
