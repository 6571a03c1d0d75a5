//! Message digests (PKCS#11 3.0, section 5.12), and their state (sections 5.6.4 and 5.6.5).

use super::{args, entry, module};
use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_DigestInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
) -> CK_RV {
    entry("C_DigestInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM, and so are the pointers
        // inside it.
        match unsafe { args::mechanism(pMechanism, CKF_DIGEST) }? {
            Some((mechanism, _)) => session.digest_init(mechanism),
            None => session.digest_cancel(),
        }
    })
}

pub(super) unsafe extern "C" fn C_Digest(
    hSession: CK_SESSION_HANDLE,
    pData: *mut CK_BYTE,
    ulDataLen: CK_ULONG,
    pDigest: *mut CK_BYTE,
    pulDigestLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_Digest", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pDigest, pulDigestLen) };
        // SAFETY: `pData` is NULL or valid for `ulDataLen` bytes.
        let answer = unsafe { args::borrow(pData, ulDataLen, |data| session.digest(data, room)) }?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
        unsafe { args::give(pDigest, pulDigestLen, answer) }
    })
}

pub(super) unsafe extern "C" fn C_DigestUpdate(
    hSession: CK_SESSION_HANDLE,
    pPart: *mut CK_BYTE,
    ulPartLen: CK_ULONG,
) -> CK_RV {
    entry("C_DigestUpdate", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: `pPart` is NULL or valid for `ulPartLen` bytes.
        unsafe { args::borrow(pPart, ulPartLen, |part| session.digest_update(part)) }
    })
}

/// Partly supported: a secret key with CKA_EXTRACTABLE true can become part of a digest.
pub(super) unsafe extern "C" fn C_DigestKey(
    hSession: CK_SESSION_HANDLE,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_DigestKey", || {
        let session = module()?.session(SessionHandle(hSession))?;
        session.digest_key(ObjectHandle(hKey))
    })
}

pub(super) unsafe extern "C" fn C_DigestFinal(
    hSession: CK_SESSION_HANDLE,
    pDigest: *mut CK_BYTE,
    pulDigestLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_DigestFinal", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pDigest, pulDigestLen) };
        let answer = session.digest_final(room)?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
        unsafe { args::give(pDigest, pulDigestLen, answer) }
    })
}

/// Partly supported: returns the state of a digest only.
pub(super) unsafe extern "C" fn C_GetOperationState(
    hSession: CK_SESSION_HANDLE,
    pOperationState: *mut CK_BYTE,
    pulOperationStateLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetOperationState", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pOperationState, pulOperationStateLen) };
        let room = room.ok_or(Error::ArgumentsBad("pulOperationStateLen is NULL"))?;
        let answer = session.operation_state(room)?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
        unsafe { args::give(pOperationState, pulOperationStateLen, answer) }
    })
}

/// Partly supported: restores the state of a digest only.
pub(super) unsafe extern "C" fn C_SetOperationState(
    hSession: CK_SESSION_HANDLE,
    pOperationState: *mut CK_BYTE,
    ulOperationStateLen: CK_ULONG,
    hEncryptionKey: CK_OBJECT_HANDLE,
    hAuthenticationKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_SetOperationState", || {
        let session = module()?.session(SessionHandle(hSession))?;
        if pOperationState.is_null() {
            return Err(Error::ArgumentsBad("pOperationState is NULL"));
        }
        let keys = [hEncryptionKey, hAuthenticationKey];
        let has_keys = keys != [CK_INVALID_HANDLE; 2];
        // SAFETY: `pOperationState` is NULL or valid for `ulOperationStateLen` bytes.
        unsafe {
            args::borrow(pOperationState, ulOperationStateLen, |saved| {
                session.restore_operation(saved, has_keys)
            })
        }
    })
}
