//! Key pairs, unwrapping and key agreement (PKCS#11 3.0, sections 5.18.2, 5.18.4 and 5.18.5).

use super::{args, entry, module};
use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use crate::mechanism::derive::DeriveMechanism;
use crate::mechanism::unwrap::UnwrapMechanism;
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_GenerateKey(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    pTemplate: *mut CK_ATTRIBUTE,
    ulCount: CK_ULONG,
    phKey: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_GenerateKey", || {
        let module = module()?;
        let session = SessionHandle(hSession);
        module.session(session)?;
        if phKey.is_null() {
            return Err(Error::ArgumentsBad("phKey is NULL"));
        }
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let template = unsafe { args::template(pTemplate, ulCount) }?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM.
        let mechanism = unsafe { args::mechanism(pMechanism, CKF_GENERATE) }?;
        let (mechanism, _) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        let [key] = module.create(session, |session, mint| {
            Ok([session.generate_secret_key(mechanism, &template, mint)?])
        })?;
        // SAFETY: the pointer is not NULL, so it is valid for a handle.
        unsafe { args::write(phKey, key.0, "phKey is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_GenerateKeyPair(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    pPublicKeyTemplate: *mut CK_ATTRIBUTE,
    ulPublicKeyAttributeCount: CK_ULONG,
    pPrivateKeyTemplate: *mut CK_ATTRIBUTE,
    ulPrivateKeyAttributeCount: CK_ULONG,
    phPublicKey: *mut CK_OBJECT_HANDLE,
    phPrivateKey: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_GenerateKeyPair", || {
        let module = module()?;
        let session = SessionHandle(hSession);
        module.session(session)?;
        if phPublicKey.is_null() || phPrivateKey.is_null() {
            return Err(Error::ArgumentsBad("phPublicKey or phPrivateKey is NULL"));
        }
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM.
        let mechanism = unsafe { args::mechanism(pMechanism, CKF_GENERATE_KEY_PAIR) }?;
        let (mechanism, _) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let public = unsafe { args::template(pPublicKeyTemplate, ulPublicKeyAttributeCount) }?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let private = unsafe { args::template(pPrivateKeyTemplate, ulPrivateKeyAttributeCount) }?;
        let [public, private] = module.create(session, |session, mint| {
            session.generate(mechanism, &public, &private, mint)
        })?;
        // SAFETY: neither pointer is NULL, so both pointers are valid for a handle.
        unsafe {
            args::write(phPublicKey, public.0, "phPublicKey is NULL")?;
            args::write(phPrivateKey, private.0, "phPrivateKey is NULL")
        }
    })
}

/// Partly supported: unwraps private keys, not secret keys.
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
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM, and so are the pointers
        // inside it.
        let mechanism = unsafe { args::mechanism(pMechanism, CKF_UNWRAP) }?;
        let (row, parameter) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        let mechanism = UnwrapMechanism::new(row, parameter)?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let template = unsafe { args::template(pTemplate, ulAttributeCount) }?;
        let unwrapping = ObjectHandle(hUnwrappingKey);
        let unwrap = |wrapped: Option<&[u8]>| {
            module.create(session, |session, mint| {
                let key = session.unwrap(&mechanism, unwrapping, wrapped, &template, mint);
                Ok([key?])
            })
        };
        // SAFETY: `pWrappedKey` is NULL or valid for `ulWrappedKeyLen` bytes.
        let [key] = unsafe { args::borrow(pWrappedKey, ulWrappedKeyLen, unwrap) }?;
        // SAFETY: the pointer is not NULL, so it is valid for a handle.
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
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM, and so are the pointers
        // inside it.
        let mechanism = unsafe { args::mechanism(pMechanism, CKF_DERIVE) }?;
        let (row, parameter) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        let mechanism = DeriveMechanism::new(row, parameter)?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let template = unsafe { args::template(pTemplate, ulAttributeCount) }?;
        let base = ObjectHandle(hBaseKey);
        let [key] = module.create(session, |session, mint| {
            Ok([session.derive(&mechanism, base, &template, mint)?])
        })?;
        // SAFETY: the pointer is not NULL, so it is valid for a handle.
        unsafe { args::write(phKey, key.0, "phKey is NULL") }
    })
}
