//! Signing and verifying (PKCS#11 3.0, sections 5.13 and 5.14).

use super::{args, entry, module};
use crate::handle::{ObjectHandle, SessionHandle};
use crate::mechanism::mac::MacMechanism;
use crate::mechanism::sign::SignMechanism;
use crate::mechanism::table::Algorithm;
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_SignInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_SignInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM.
        match unsafe { args::mechanism(pMechanism, CKF_SIGN) }? {
            Some((row, parameter)) if row.algorithm == Algorithm::Mac => {
                let mechanism = MacMechanism::new(row, &parameter)?;
                session.mac_sign_init(mechanism, ObjectHandle(hKey))
            }
            Some((row, parameter)) => {
                let mechanism = SignMechanism::new(row, &parameter)?;
                session.sign_init(mechanism, ObjectHandle(hKey))
            }
            None => session.sign_cancel(),
        }
    })
}

pub(super) unsafe extern "C" fn C_Sign(
    hSession: CK_SESSION_HANDLE,
    pData: *mut CK_BYTE,
    ulDataLen: CK_ULONG,
    pSignature: *mut CK_BYTE,
    pulSignatureLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_Sign", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pSignature, pulSignatureLen) };
        // SAFETY: `pData` is NULL or valid for `ulDataLen` bytes.
        let answer = unsafe { args::borrow(pData, ulDataLen, |data| session.sign(data, room)) }?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
        unsafe { args::give(pSignature, pulSignatureLen, answer) }
    })
}

pub(super) unsafe extern "C" fn C_SignUpdate(
    hSession: CK_SESSION_HANDLE,
    pPart: *mut CK_BYTE,
    ulPartLen: CK_ULONG,
) -> CK_RV {
    entry("C_SignUpdate", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: `pPart` is NULL or valid for `ulPartLen` bytes.
        unsafe { args::borrow(pPart, ulPartLen, |part| session.sign_update(part)) }
    })
}

pub(super) unsafe extern "C" fn C_SignFinal(
    hSession: CK_SESSION_HANDLE,
    pSignature: *mut CK_BYTE,
    pulSignatureLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_SignFinal", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pSignature, pulSignatureLen) };
        let answer = session.sign_final(room)?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
        unsafe { args::give(pSignature, pulSignatureLen, answer) }
    })
}

pub(super) unsafe extern "C" fn C_VerifyInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_VerifyInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM.
        match unsafe { args::mechanism(pMechanism, CKF_VERIFY) }? {
            Some((row, parameter)) if row.algorithm == Algorithm::Mac => {
                let mechanism = MacMechanism::new(row, &parameter)?;
                session.mac_verify_init(mechanism, ObjectHandle(hKey))
            }
            Some((row, parameter)) => {
                let mechanism = SignMechanism::new(row, &parameter)?;
                session.verify_init(mechanism, ObjectHandle(hKey))
            }
            None => session.verify_cancel(),
        }
    })
}

pub(super) unsafe extern "C" fn C_Verify(
    hSession: CK_SESSION_HANDLE,
    pData: *mut CK_BYTE,
    ulDataLen: CK_ULONG,
    pSignature: *mut CK_BYTE,
    ulSignatureLen: CK_ULONG,
) -> CK_RV {
    entry("C_Verify", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: each pointer is NULL or valid for its length.
        unsafe {
            args::borrow(pData, ulDataLen, |data| {
                args::borrow(pSignature, ulSignatureLen, |signature| {
                    session.verify(data, signature)
                })
            })
        }
    })
}

pub(super) unsafe extern "C" fn C_VerifyUpdate(
    hSession: CK_SESSION_HANDLE,
    pPart: *mut CK_BYTE,
    ulPartLen: CK_ULONG,
) -> CK_RV {
    entry("C_VerifyUpdate", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: `pPart` is NULL or valid for `ulPartLen` bytes.
        unsafe { args::borrow(pPart, ulPartLen, |part| session.verify_update(part)) }
    })
}

pub(super) unsafe extern "C" fn C_VerifyFinal(
    hSession: CK_SESSION_HANDLE,
    pSignature: *mut CK_BYTE,
    ulSignatureLen: CK_ULONG,
) -> CK_RV {
    entry("C_VerifyFinal", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: `pSignature` is NULL or valid for `ulSignatureLen` bytes.
        unsafe {
            args::borrow(pSignature, ulSignatureLen, |signature| {
                session.verify_final(signature)
            })
        }
    })
}
