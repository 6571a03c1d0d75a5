//! The C interface (PKCS#11 3.0, chapter 5). Only this folder of the crate has `unsafe`.
//!
//! Each PKCS#11 function decodes its arguments, calls one method and writes the answer. Every
//! function runs inside [`entry`]. No panic reaches the host, and every failure has a log line.
//!
//! By the standard a caller has two duties, and the SAFETY comments rely on both. Each pointer is
//! NULL or valid for the length that stands beside it. No other thread writes to the memory during
//! the call. The module still checks for NULL and for lengths beyond the address space. The module
//! does not rely on alignment.

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
/// The PKCS#11 version of the default function table.
const V3_2: CK_VERSION = CK_VERSION { major: 3, minor: 2 };

/// Runs one call with cancellation disabled, and returns its code.
///
/// Asynchronous cancellation can unwind the thread at any instruction of `entry` and of its caller.
/// Therefore both frames must have no landing pads. Calls of functions with the "C" ABI need no
/// landing pads.
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

/// Runs a PKCS#11 call: catches a panic, logs a failure, and returns the CK_RV.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "only Rust calls it")]
extern "C" fn answer<C>(name: &'static str, call: C) -> CK_RV
where
    C: FnOnce() -> Result<(), Error>,
{
    let call = || {
        if !has_memory(usual_memory(name)) {
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
            // The code that writes the log may itself have caused the panic.
            let _ = catch_unwind(|| process::state().log_panics());
            CKR_GENERAL_ERROR
        }
        Err(fault) => {
            let rv = fault.rv();
            // The log level is debug. Clients often ask for lengths and for missing attributes, and
            // then get an error code.
            let logged = catch_unwind(|| debug!("{name}: 0x{rv:X} {fault}"));
            if logged.is_err() {
                let _ = catch_unwind(|| process::state().log_panics());
            }
            rv
        }
    }
}

/// Returns the number of bytes that a usual call of this function allocates at most.
fn usual_memory(name: &str) -> usize {
    match name {
        // These functions free memory. They must work when memory is exhausted.
        "C_Finalize" | "C_CloseSession" | "C_CloseAllSessions" | "C_Logout"
        | "C_FindObjectsFinal" => 0,
        // Copies stored values. Only the path of the key folder, and lines of the log, need memory.
        // Programs call this function most. glibc keeps blocks of up to 1032 bytes for each thread,
        // so the check costs few instructions. For 4 KiB it costs 640.
        "C_GetAttributeValue" => 1000,
        _ => 64 << 10,
    }
}

/// Returns true if the memory that a usual call needs can be allocated. Without this check Rust
/// would end the process. The check does not see memory that other threads of the host take later.
fn has_memory(bytes: usize) -> bool {
    let mut room = Vec::<u8>::new();
    let has = room.try_reserve_exact(bytes).is_ok();
    // Without this use the compiler would remove the allocation of `room`.
    std::hint::black_box(&room);
    has
}

/// Returns the module, if this process or its parent called C_Initialize.
fn module() -> Result<Arc<Module>, Error> {
    match &*process::state().module.lock() {
        Lifecycle::Outside => Err(Error::NotInitialized),
        Lifecycle::Initialized(module) | Lifecycle::Inherited(module) => Ok(Arc::clone(module)),
    }
}

/// Installs the panic hook. The hook notes a panic for the log, and writes nothing to the host's
/// stderr. The panic is logged only after it was caught, because a panic inside the hook would end
/// the host.
fn silence_panics() {
    std::panic::set_hook(Box::new(process::note_panic));
}

/// Returns manufacturerID for the library, the slots and the tokens.
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
