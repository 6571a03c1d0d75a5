//! Encryption and decryption (PKCS#11 3.0, sections 5.8 and 5.9).

use super::{args, entry, module};
use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use crate::mechanism::cipher::{CipherMechanism, Direction};
use crate::mechanism::encrypt::EncryptMechanism;
use crate::mechanism::table::Algorithm;
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_EncryptInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_EncryptInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM, and so are the pointers
        // inside it.
        match unsafe { args::mechanism(pMechanism, CKF_ENCRYPT) }? {
            Some((row, parameter)) if matches!(row.algorithm, Algorithm::Cipher(_)) => {
                let mechanism = CipherMechanism::new(row, parameter)?;
                session.cipher_init(&mechanism, ObjectHandle(hKey), Direction::Encrypt)
            }
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
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pEncryptedData, pulEncryptedDataLen) };
        // SAFETY: `pData` is NULL or valid for `ulDataLen` bytes.
        let answer = unsafe { args::borrow(pData, ulDataLen, |data| session.encrypt(data, room)) }?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
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
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM, and so are the pointers
        // inside it.
        match unsafe { args::mechanism(pMechanism, CKF_DECRYPT) }? {
            Some((row, parameter)) if matches!(row.algorithm, Algorithm::Cipher(_)) => {
                let mechanism = CipherMechanism::new(row, parameter)?;
                session.cipher_init(&mechanism, ObjectHandle(hKey), Direction::Decrypt)
            }
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
        // SAFETY: the length pointer is NULL or valid for a read.
        let room = unsafe { args::room(pData, pulDataLen) };
        // SAFETY: `pEncryptedData` is NULL or valid for `ulEncryptedDataLen` bytes.
        let answer = unsafe {
            args::borrow(pEncryptedData, ulEncryptedDataLen, |data| {
                session.decrypt(data, room)
            })
        }?;
        // SAFETY: the call has an answer only if the length pointer is not NULL.
        unsafe { args::give(pData, pulDataLen, answer) }
    })
}

pub(super) unsafe extern "C" fn C_EncryptUpdate(
    hSession: CK_SESSION_HANDLE,
    pPart: *mut CK_BYTE,
    ulPartLen: CK_ULONG,
    pEncryptedPart: *mut CK_BYTE,
    pulEncryptedPartLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_EncryptUpdate", || {
        let direction = Direction::Encrypt;
        // SAFETY: PKCS#11 requires caller pointers that are NULL or valid for their lengths.
        unsafe {
            update(
                hSession,
                direction,
                (pPart, ulPartLen),
                (pEncryptedPart, pulEncryptedPartLen),
            )
        }
    })
}

pub(super) unsafe extern "C" fn C_EncryptFinal(
    hSession: CK_SESSION_HANDLE,
    pLastEncryptedPart: *mut CK_BYTE,
    pulLastEncryptedPartLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_EncryptFinal", || {
        let direction = Direction::Encrypt;
        // SAFETY: PKCS#11 requires caller pointers that are NULL or valid for their lengths.
        unsafe {
            finish(
                hSession,
                direction,
                (pLastEncryptedPart, pulLastEncryptedPartLen),
            )
        }
    })
}

pub(super) unsafe extern "C" fn C_DecryptUpdate(
    hSession: CK_SESSION_HANDLE,
    pEncryptedPart: *mut CK_BYTE,
    ulEncryptedPartLen: CK_ULONG,
    pPart: *mut CK_BYTE,
    pulPartLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_DecryptUpdate", || {
        let direction = Direction::Decrypt;
        // SAFETY: PKCS#11 requires caller pointers that are NULL or valid for their lengths.
        unsafe {
            update(
                hSession,
                direction,
                (pEncryptedPart, ulEncryptedPartLen),
                (pPart, pulPartLen),
            )
        }
    })
}

pub(super) unsafe extern "C" fn C_DecryptFinal(
    hSession: CK_SESSION_HANDLE,
    pLastPart: *mut CK_BYTE,
    pulLastPartLen: *mut CK_ULONG,
) -> CK_RV {
    entry("C_DecryptFinal", || {
        let direction = Direction::Decrypt;
        // SAFETY: PKCS#11 requires caller pointers that are NULL or valid for their lengths.
        unsafe { finish(hSession, direction, (pLastPart, pulLastPartLen)) }
    })
}

/// Processes a part, and writes its output.
///
/// # Safety
///
/// The part is NULL or valid for its length. The output's length pointer is NULL or valid. The
/// output is NULL or valid for writes of the length that its pointer holds.
unsafe fn update(
    session: CK_SESSION_HANDLE,
    direction: Direction,
    part: (*const CK_BYTE, CK_ULONG),
    output: (*mut CK_BYTE, *mut CK_ULONG),
) -> Result<(), Error> {
    let session = module()?.session(SessionHandle(session))?;
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let room = unsafe { args::room(output.0, output.1) };
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let answer = unsafe {
        args::borrow(part.0, part.1, |part| match direction {
            Direction::Encrypt => session.encrypt_update(part, room),
            Direction::Decrypt => session.decrypt_update(part, room),
        })
    }?;
    // SAFETY: the call has an answer only if the length pointer is not NULL.
    unsafe { args::give(output.0, output.1, answer) }
}

/// Ends the operation, and writes the output that remains.
///
/// # Safety
///
/// The contract of [`update`] applies.
unsafe fn finish(
    session: CK_SESSION_HANDLE,
    direction: Direction,
    output: (*mut CK_BYTE, *mut CK_ULONG),
) -> Result<(), Error> {
    let session = module()?.session(SessionHandle(session))?;
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let room = unsafe { args::room(output.0, output.1) };
    let answer = match direction {
        Direction::Encrypt => session.encrypt_final(room),
        Direction::Decrypt => session.decrypt_final(room),
    }?;
    // SAFETY: the call has an answer only if the length pointer is not NULL.
    unsafe { args::give(output.0, output.1, answer) }
}
