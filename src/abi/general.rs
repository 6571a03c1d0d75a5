//! General-purpose calls (PKCS#11 3.0, section 5.4), and calls for parallel functions (section
//! 5.21).

use super::{V3_2, args, entry, host, library_version, manufacturer, module, process};
use crate::error::Error;
use crate::module::Module;
use cryptoki_sys::*;
use process::Lifecycle;
use std::ffi::c_void;
use std::mem;
use std::sync::Arc;

const DESCRIPTION: &str = "Device identity in a TPM 2.0";

pub(super) unsafe extern "C" fn C_Initialize(pInitArgs: *mut c_void) -> CK_RV {
    entry("C_Initialize", || {
        // SAFETY: the argument is NULL or points to CK_C_INITIALIZE_ARGS (section 5.4.1).
        check_initialize_args(unsafe { args::read(pInitArgs.cast()) })?;
        let state = process::state();
        let mut lifecycle = state.module.lock();
        match &*lifecycle {
            Lifecycle::Initialized(_) => return Err(Error::AlreadyInitialized),
            // The forked child logs out the user that the parent process logged in.
            Lifecycle::Inherited(module) => module.finalize(),
            Lifecycle::Outside => {}
        }
        let (mint, refusals) = (Arc::clone(&state.mint), state.refusals.clone());
        let module = Module::configured(
            host::is_privileged(),
            mint,
            refusals,
            process::log_to,
            &process::HELD,
        );
        *lifecycle = Lifecycle::Initialized(Arc::new(module));
        Ok(())
    })
}

/// Checks the argument of C_Initialize. The module always uses the locks of the operating system. A
/// caller that demands its own mutex callbacks gets CKR_CANT_LOCK.
fn check_initialize_args(given: Option<CK_C_INITIALIZE_ARGS>) -> Result<(), Error> {
    let Some(given) = given else { return Ok(()) };
    if !given.pReserved.is_null() {
        return Err(Error::ArgumentsBad("pReserved is not NULL"));
    }
    let callbacks = [
        given.CreateMutex.is_some(),
        given.DestroyMutex.is_some(),
        given.LockMutex.is_some(),
        given.UnlockMutex.is_some(),
    ];
    match callbacks {
        [false, false, false, false] => Ok(()),
        [true, true, true, true] if given.flags & CKF_OS_LOCKING_OK != 0 => Ok(()),
        [true, true, true, true] => Err(Error::CannotLock),
        _ => Err(Error::ArgumentsBad("some mutex callbacks are missing")),
    }
}

pub(super) unsafe extern "C" fn C_Finalize(pReserved: *mut c_void) -> CK_RV {
    entry("C_Finalize", || {
        if !pReserved.is_null() {
            return Err(Error::ArgumentsBad("pReserved is not NULL"));
        }
        let ended = mem::replace(&mut *process::state().module.lock(), Lifecycle::Outside);
        match ended {
            Lifecycle::Outside => Err(Error::NotInitialized),
            Lifecycle::Initialized(module) | Lifecycle::Inherited(module) => {
                module.finalize();
                Ok(())
            }
        }
    })
}

pub(super) unsafe extern "C" fn C_GetInfo(pInfo: *mut CK_INFO) -> CK_RV {
    entry("C_GetInfo", || {
        module()?;
        let info = CK_INFO {
            cryptokiVersion: V3_2,
            manufacturerID: manufacturer(),
            flags: 0,
            libraryDescription: args::padded(DESCRIPTION),
            libraryVersion: library_version(),
        };
        // SAFETY: the caller's pointer is NULL or valid for a CK_INFO.
        unsafe { args::write(pInfo, info, "pInfo is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_GetFunctionStatus(hSession: CK_SESSION_HANDLE) -> CK_RV {
    not_parallel("C_GetFunctionStatus", hSession)
}

pub(super) unsafe extern "C" fn C_CancelFunction(hSession: CK_SESSION_HANDLE) -> CK_RV {
    not_parallel("C_CancelFunction", hSession)
}

fn not_parallel(name: &'static str, _: CK_SESSION_HANDLE) -> CK_RV {
    entry(name, || Err(Error::NotParallel))
}
