//! Encryption and decryption (PKCS#11 3.0, sections 5.8 and 5.9).

use super::{args, entry, module};
use crate::handle::{ObjectHandle, SessionHandle};
use crate::mechanism::encrypt::EncryptMechanism;
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_EncryptInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_EncryptInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM and what it names.
        match unsafe { args::mechanism(pMechanism, CKF_ENCRYPT) }? {
            Some((row, parameter)) => {
                let mechanism = EncryptMechanism::new(row, parameter)?;
                session.encrypt_init(mechanism, ObjectHandle(hKey))
            }
            None => session.encrypt_cancel(),
        }
    })
}

pub(super) unsafe extern "C" fn C_Encrypt(
    hSession: CK_SESSION_HANDLE,
    pData: *mut CK_BYTE,
    ulDataLen: CK_ULONG,
    pEncryptedData: *mut CK_BYTE,
    pulEncryptedDataLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_Encrypt", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid.
        let room = unsafe { args::room(pEncryptedData, pulEncryptedDataLen) };
        // SAFETY: `pData` is NULL or valid for `ulDataLen` bytes.
        let answer = unsafe { args::borrow(pData, ulDataLen, |data| session.encrypt(data, room)) }?;
        // SAFETY: an answer means that there is room, hence a length pointer.
        unsafe { args::give(pEncryptedData, pulEncryptedDataLen, answer) }
    })
}

pub(super) unsafe extern "C" fn C_DecryptInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_DecryptInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM and what it names.
        match unsafe { args::mechanism(pMechanism, CKF_DECRYPT) }? {
            Some((row, parameter)) => {
                let mechanism = EncryptMechanism::new(row, parameter)?;
                session.decrypt_init(mechanism, ObjectHandle(hKey))
            }
            None => session.decrypt_cancel(),
        }
    })
}

pub(super) unsafe extern "C" fn C_Decrypt(
    hSession: CK_SESSION_HANDLE,
    pEncryptedData: *mut CK_BYTE,
    ulEncryptedDataLen: CK_ULONG,
    pData: *mut CK_BYTE,
    pulDataLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_Decrypt", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the length pointer is NULL or valid.
        let room = unsafe { args::room(pData, pulDataLen) };
        // SAFETY: `pEncryptedData` is NULL or valid for `ulEncryptedDataLen` bytes.
        let answer = unsafe {
            args::borrow(pEncryptedData, ulEncryptedDataLen, |data| {
                session.decrypt(data, room)
            })
        }?;
        // SAFETY: an answer means that there is room, hence a length pointer.
        unsafe { args::give(pData, pulDataLen, answer) }
    })
}
