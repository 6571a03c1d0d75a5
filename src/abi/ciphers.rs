//! Encryption, decryption, unwrapping and key agreement (PKCS#11 3.0, sections 5.8, 5.9, 5.18.4 and
//! 5.18.5).

use super::{args, entry, module};
use crate::agreement::Agreement;
use crate::cipher::Cipher;
use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use crate::wrapping::Wrapping;
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_EncryptInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_EncryptInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM and what it names.
        match unsafe { args::mechanism(pMechanism, &Cipher::KINDS) } {
            Some((kind, parameter)) => {
                let cipher = Cipher::parse(kind, parameter)?;
                session.encrypt_init(cipher, ObjectHandle(hKey))
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
        match unsafe { args::mechanism(pMechanism, &Cipher::KINDS) } {
            Some((kind, parameter)) => {
                let cipher = Cipher::parse(kind, parameter)?;
                session.decrypt_init(cipher, ObjectHandle(hKey))
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

pub(super) unsafe extern "C" fn C_UnwrapKey(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hUnwrappingKey: CK_OBJECT_HANDLE,
    pWrappedKey: *mut CK_BYTE,
    ulWrappedKeyLen: CK_ULONG,
    pTemplate: *mut CK_ATTRIBUTE,
    ulAttributeCount: CK_ULONG,
    phKey: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_UnwrapKey", || {
        let module = module()?;
        let session = SessionHandle(hSession);
        module.session(session)?;
        if phKey.is_null() {
            return Err(Error::ArgumentsBad("phKey is NULL"));
        }
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM and what it names.
        let mechanism = unsafe { args::mechanism(pMechanism, &Wrapping::RSA) };
        let (kind, parameter) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        let wrapping = Wrapping::parse(kind, parameter)?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let template = unsafe { args::template(pTemplate, ulAttributeCount) }?;
        let unwrapping = ObjectHandle(hUnwrappingKey);
        // SAFETY: `pWrappedKey` is NULL or valid for `ulWrappedKeyLen` bytes.
        let key = unsafe {
            args::borrow(pWrappedKey, ulWrappedKeyLen, |wrapped| {
                module.unwrap_key(session, &wrapping, unwrapping, wrapped, &template)
            })
        }?;
        // SAFETY: not NULL, hence valid for a handle.
        unsafe { args::write(phKey, key.0, "phKey is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_DeriveKey(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hBaseKey: CK_OBJECT_HANDLE,
    pTemplate: *mut CK_ATTRIBUTE,
    ulAttributeCount: CK_ULONG,
    phKey: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_DeriveKey", || {
        let module = module()?;
        let session = SessionHandle(hSession);
        module.session(session)?;
        if phKey.is_null() {
            return Err(Error::ArgumentsBad("phKey is NULL"));
        }
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM and what it names.
        let mechanism = unsafe { args::mechanism(pMechanism, &Agreement::KINDS) };
        let (kind, parameter) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        let agreement = Agreement::parse(kind, parameter)?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let template = unsafe { args::template(pTemplate, ulAttributeCount) }?;
        let base = ObjectHandle(hBaseKey);
        let key = module.derive_key(session, &agreement, base, &template)?;
        // SAFETY: not NULL, hence valid for a handle.
        unsafe { args::write(phKey, key.0, "phKey is NULL") }
    })
}
