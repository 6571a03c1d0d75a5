//! General-purpose calls (PKCS#11 3.0, section 5.4) and those for parallel functions (5.21).

use super::{args, entry, host, module, process, table};
use crate::error::Error;
use crate::module::Module;
use cryptoki_sys::*;
use process::Lifecycle;
use std::ffi::{CStr, c_char, c_void};
use std::mem;
use std::sync::Arc;

const MANUFACTURER: &str = "devid-pkcs11";
const DESCRIPTION: &str = "Device identity in a TPM 2.0";

pub(super) fn manufacturer() -> [CK_UTF8CHAR; 32] {
    args::padded(MANUFACTURER)
}

pub(super) unsafe extern "C" fn C_Initialize(pInitArgs: *mut c_void) -> CK_RV {
    entry("C_Initialize", || {
        // SAFETY: the argument is NULL or points to CK_C_INITIALIZE_ARGS (section 5.4.1).
        check_initialize_args(unsafe { args::read(pInitArgs.cast()) })?;
        let state = process::state();
        let mut lifecycle = state.module.lock();
        match &*lifecycle {
            Lifecycle::Initialized(_) => return Err(Error::AlreadyInitialized),
            // Whoever was logged in in the parent is not so here, and leaves nothing behind.
            Lifecycle::Inherited(module) => module.end(),
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

/// We lock with the system's means, which suits every caller but one that demands its own.
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
                module.end();
                Ok(())
            }
        }
    })
}

pub(super) unsafe extern "C" fn C_GetInfo(pInfo: *mut CK_INFO) -> CK_RV {
    entry("C_GetInfo", || {
        module()?;
        let info = CK_INFO {
            cryptokiVersion: table::V3_2,
            manufacturerID: manufacturer(),
            flags: 0,
            libraryDescription: args::padded(DESCRIPTION),
            libraryVersion: library_version(),
        };
        // SAFETY: the caller's pointer is NULL or valid for a CK_INFO.
        unsafe { args::write(pInfo, info, "pInfo is NULL") }
    })
}

pub(super) fn library_version() -> CK_VERSION {
    let part = |text: &str| text.parse().unwrap_or(0);
    CK_VERSION {
        major: part(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: part(env!("CARGO_PKG_VERSION_MINOR")),
    }
}

/// # Safety
///
/// As the standard has it: `ppFunctionList` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetFunctionList(
    ppFunctionList: *mut *mut CK_FUNCTION_LIST,
) -> CK_RV {
    entry("C_GetFunctionList", || {
        let list = (&raw const table::LIST_2_40).cast_mut();
        // SAFETY: as this function's contract.
        unsafe { args::write(ppFunctionList, list, "ppFunctionList is NULL") }
    })
}

/// # Safety
///
/// As the standard has it: `pulCount` is NULL or valid, `pInterfacesList` NULL or valid for writes
/// of `*pulCount` items.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInterfaceList(
    pInterfacesList: *mut CK_INTERFACE,
    pulCount: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetInterfaceList", || {
        let interfaces = table::INTERFACES.each_ref().map(|one| one.interface);
        // SAFETY: as this function's contract.
        unsafe { args::give_list(pInterfacesList, pulCount, |_| interfaces) }
    })
}

/// # Safety
///
/// As the standard has it: `pInterfaceName` is NULL or a NUL-terminated string, `pVersion` NULL or
/// valid for a read, `ppInterface` NULL or valid for a write.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInterface(
    pInterfaceName: *mut CK_UTF8CHAR,
    pVersion: *mut CK_VERSION,
    ppInterface: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    entry("C_GetInterface", || {
        let named = pInterfaceName.is_null() || {
            // SAFETY: not NULL, hence a NUL-terminated string by this function's contract.
            let name = unsafe { CStr::from_ptr(pInterfaceName.cast::<c_char>()) };
            name == table::INTERFACE_NAME
        };
        // SAFETY: as this function's contract.
        let version = unsafe { args::read(pVersion) };
        let found = table::INTERFACES.iter().find(|one| {
            named
                && version.is_none_or(|wanted| {
                    (wanted.major, wanted.minor) == (one.version.major, one.version.minor)
                })
                && flags & !one.interface.flags == 0
        });
        let interface = &raw const found.ok_or(Error::NoSuchInterface)?.interface;
        // SAFETY: as this function's contract.
        unsafe { args::write(ppInterface, interface.cast_mut(), "ppInterface is NULL") }
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
