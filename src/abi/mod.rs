//! The C border (PKCS#11 3.0, chapter 5): the only `unsafe` of this crate.
//!
//! Each call decodes its arguments, calls one method and writes the answer. Every call goes through
//! [`entry`]. No panic reaches the host, and every failure has a log line.
//!
//! The standard gives a caller two duties, and the SAFETY comments rely on them. A pointer is NULL
//! or valid for the length beside it. No other thread writes to the memory during the call. The
//! module still checks for NULL and for lengths beyond the address space. It does not rely on
//! alignment.

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
/// The version of the standard for the default function table.
const V3_2: CK_VERSION = CK_VERSION { major: 3, minor: 2 };

/// Runs one call with cancellation disabled, and returns its code.
///
/// Asynchronous cancellation can unwind the thread from any instruction here and in the caller of
/// `entry`. So both frames must be free of landing pads. Calls of functions with the "C" ABI need
/// none.
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

/// Catches a panic, logs a failure, and returns the code.
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
            // Logging itself may be the cause of the panic.
            let _ = catch_unwind(|| process::state().log_panics());
            CKR_GENERAL_ERROR
        }
        Err(fault) => {
            let rv = fault.rv();
            // The level is not warning, because clients often ask for lengths and for attributes
            // that are missing.
            let logged = catch_unwind(|| debug!("{name}: 0x{rv:X} {fault}"));
            if logged.is_err() {
                let _ = catch_unwind(|| process::state().log_panics());
            }
            rv
        }
    }
}

/// True for a call that frees memory. Such a call must work when memory is exhausted.
fn gives_back(name: &str) -> bool {
    matches!(
        name,
        "C_Finalize" | "C_CloseSession" | "C_CloseAllSessions" | "C_Logout" | "C_FindObjectsFinal"
    )
}

/// True if a usual call can have the memory that it needs. Without this check Rust would end the
/// process. Memory that other threads of the host take meanwhile is not counted.
fn has_memory() -> bool {
    const USUAL: usize = 64 << 10;
    let mut room = Vec::<u8>::new();
    let has = room.try_reserve_exact(USUAL).is_ok();
    // Without this use the compiler would remove the allocation.
    std::hint::black_box(&room);
    has
}

/// The module, if this process called C_Initialize, or its parent did before a fork.
fn module() -> Result<Arc<Module>, Error> {
    match &*process::state().module.lock() {
        Lifecycle::Outside => Err(Error::NotInitialized),
        Lifecycle::Initialized(module) | Lifecycle::Inherited(module) => Ok(Arc::clone(module)),
    }
}

/// A panic is our own fault. It goes to the log, and not to the host's stderr. It is logged after
/// it was caught, because a panic inside the hook would end the host.
fn silence_panics() {
    std::panic::set_hook(Box::new(process::note_panic));
}

/// manufacturerID of the library, the slots and the tokens.
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
