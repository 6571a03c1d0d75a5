//! Session calls (PKCS#11 3.0, section 5.6).

use super::{args, entry, module};
use crate::error::Error;
use crate::handle::{SessionHandle, SlotId};
use cryptoki_sys::*;
use std::ffi::c_void;

pub(super) unsafe extern "C" fn C_OpenSession(
    slotID: CK_SLOT_ID,
    flags: CK_FLAGS,
    _pApplication: *mut c_void,
    // The callback is never called, because no function of this module has surrender points
    // (section 5.22).
    _Notify: CK_NOTIFY,
    phSession: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    entry("C_OpenSession", || {
        let module = module()?;
        if phSession.is_null() {
            return Err(Error::ArgumentsBad("phSession is NULL"));
        }
        let session = module.open_session(SlotId(slotID), flags)?;
        // SAFETY: the pointer is not NULL, so it is valid for a handle.
        unsafe { args::write(phSession, session.0, "phSession is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_CloseSession(hSession: CK_SESSION_HANDLE) -> CK_RV {
    entry("C_CloseSession", || {
        module()?.close_session(SessionHandle(hSession))
    })
}

pub(super) unsafe extern "C" fn C_CloseAllSessions(slotID: CK_SLOT_ID) -> CK_RV {
    entry("C_CloseAllSessions", || {
        module()?.close_all_sessions(SlotId(slotID))
    })
}

pub(super) unsafe extern "C" fn C_GetSessionInfo(
    hSession: CK_SESSION_HANDLE,
    pInfo: *mut CK_SESSION_INFO,
) -> CK_RV {
    entry("C_GetSessionInfo", || {
        let module = module()?;
        let session = module.session(SessionHandle(hSession))?;
        let read_write = match session.is_read_write {
            true => CKF_RW_SESSION,
            false => 0,
        };
        let info = CK_SESSION_INFO {
            slotID: session.slot.id.0,
            state: module.session_state(&session),
            flags: CKF_SERIAL_SESSION | read_write,
            ulDeviceError: 0,
        };
        // SAFETY: the caller's pointer is NULL or valid for a CK_SESSION_INFO.
        unsafe { args::write(pInfo, info, "pInfo is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_Login(
    hSession: CK_SESSION_HANDLE,
    userType: CK_USER_TYPE,
    pPin: *mut CK_UTF8CHAR,
    ulPinLen: CK_ULONG,
) -> CK_RV {
    entry("C_Login", || {
        let module = module()?;
        // SAFETY: `pPin` is NULL or valid for `ulPinLen` bytes.
        let pin = unsafe { args::pin(pPin, ulPinLen) }?;
        let pin = pin.as_ref().map(|pin| &pin[..]);
        module.login(SessionHandle(hSession), userType, pin)
    })
}

pub(super) unsafe extern "C" fn C_InitPIN(
    hSession: CK_SESSION_HANDLE,
    pPin: *mut CK_UTF8CHAR,
    ulPinLen: CK_ULONG,
) -> CK_RV {
    entry("C_InitPIN", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: `pPin` is NULL or valid for `ulPinLen` bytes.
        let pin = unsafe { args::pin(pPin, ulPinLen) }?;
        session.init_pin(&pin.ok_or(Error::ArgumentsBad("pPin is NULL"))?)
    })
}

pub(super) unsafe extern "C" fn C_SetPIN(
    hSession: CK_SESSION_HANDLE,
    pOldPin: *mut CK_UTF8CHAR,
    ulOldLen: CK_ULONG,
    pNewPin: *mut CK_UTF8CHAR,
    ulNewLen: CK_ULONG,
) -> CK_RV {
    entry("C_SetPIN", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: `pOldPin` is NULL or valid for `ulOldLen` bytes.
        let old = unsafe { args::pin(pOldPin, ulOldLen) }?;
        // SAFETY: `pNewPin` is NULL or valid for `ulNewLen` bytes.
        let new = unsafe { args::pin(pNewPin, ulNewLen) }?;
        let missing = Error::ArgumentsBad("a PIN is NULL");
        match (old, new) {
            (Some(old), Some(new)) => session.set_pin(&old, &new),
            _ => Err(missing),
        }
    })
}

pub(super) unsafe extern "C" fn C_Logout(hSession: CK_SESSION_HANDLE) -> CK_RV {
    entry("C_Logout", || module()?.logout(SessionHandle(hSession)))
}

pub(super) unsafe extern "C" fn C_LoginUser(
    hSession: CK_SESSION_HANDLE,
    userType: CK_USER_TYPE,
    pPin: *mut CK_UTF8CHAR,
    ulPinLen: CK_ULONG,
    _pUsername: *mut CK_UTF8CHAR,
    _ulUsernameLen: CK_ULONG,
) -> CK_RV {
    entry("C_LoginUser", || {
        let module = module()?;
        // SAFETY: `pPin` is NULL or valid for `ulPinLen` bytes.
        let pin = unsafe { args::pin(pPin, ulPinLen) }?;
        let pin = pin.as_ref().map(|pin| &pin[..]);
        module.login(SessionHandle(hSession), userType, pin)
    })
}

pub(super) unsafe extern "C" fn C_SessionCancel(
    hSession: CK_SESSION_HANDLE,
    flags: CK_FLAGS,
) -> CK_RV {
    entry("C_SessionCancel", || {
        module()?.session(SessionHandle(hSession))?.cancel(flags);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn C_GetSessionValidationFlags(
    hSession: CK_SESSION_HANDLE,
    kind: CK_SESSION_VALIDATION_FLAGS_TYPE,
    pFlags: *mut CK_FLAGS,
) -> CK_RV {
    entry("C_GetSessionValidationFlags", || {
        module()?.session(SessionHandle(hSession))?;
        if kind != CKS_LAST_VALIDATION_OK {
            return Err(Error::ArgumentsBad(
                "this kind of validation flags does not exist",
            ));
        }
        // The module has no validation authority. Therefore no operation is reported as validated.
        // SAFETY: the caller's pointer is NULL or valid for CK_FLAGS.
        unsafe { args::write(pFlags, 0, "pFlags is NULL") }
    })
}
