//! Object calls (PKCS#11 3.0, section 5.7).

use super::{args, entry, module};
use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use cryptoki_sys::*;

pub(super) unsafe extern "C" fn C_CreateObject(
    hSession: CK_SESSION_HANDLE,
    pTemplate: *mut CK_ATTRIBUTE,
    ulCount: CK_ULONG,
    phObject: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_CreateObject", || {
        let module = module()?;
        let session = SessionHandle(hSession);
        module.session(session)?;
        if phObject.is_null() {
            return Err(Error::ArgumentsBad("phObject is NULL"));
        }
        // SAFETY: the caller's template is NULL or valid for `ulCount` items and their values.
        let template = unsafe { args::template(pTemplate, ulCount) }?;
        let [object] = module.create(session, |session, mint| {
            Ok([session.create(&template, mint)?])
        })?;
        // SAFETY: the pointer is not NULL, so it is valid for a handle.
        unsafe { args::write(phObject, object.0, "phObject is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_DestroyObject(
    hSession: CK_SESSION_HANDLE,
    hObject: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_DestroyObject", || {
        let module = module()?;
        let session = module.session(SessionHandle(hSession))?;
        session.destroy(ObjectHandle(hObject), &module.mint)
    })
}

/// Partly supported: keys of a token are not copied. Their CKA_COPYABLE is false.
pub(super) unsafe extern "C" fn C_CopyObject(
    hSession: CK_SESSION_HANDLE,
    hObject: CK_OBJECT_HANDLE,
    pTemplate: *mut CK_ATTRIBUTE,
    ulCount: CK_ULONG,
    phNewObject: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_CopyObject", || {
        let module = module()?;
        let session = SessionHandle(hSession);
        module.session(session)?;
        if phNewObject.is_null() {
            return Err(Error::ArgumentsBad("phNewObject is NULL"));
        }
        // SAFETY: the caller's template is NULL or valid for `ulCount` items and their values.
        let template = unsafe { args::template(pTemplate, ulCount) }?;
        let [copy] = module.create(session, |session, mint| {
            Ok([session.copy(ObjectHandle(hObject), &template, mint)?])
        })?;
        // SAFETY: the pointer is not NULL, so it is valid for a handle.
        unsafe { args::write(phNewObject, copy.0, "phNewObject is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_GetObjectSize(
    hSession: CK_SESSION_HANDLE,
    hObject: CK_OBJECT_HANDLE,
    pulSize: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetObjectSize", || {
        let session = module()?.session(SessionHandle(hSession))?;
        let size = session.slot.object(ObjectHandle(hObject))?.size() as CK_ULONG;
        // SAFETY: the caller's pointer is NULL or valid for a CK_ULONG.
        unsafe { args::write(pulSize, size, "pulSize is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_SetAttributeValue(
    hSession: CK_SESSION_HANDLE,
    hObject: CK_OBJECT_HANDLE,
    pTemplate: *mut CK_ATTRIBUTE,
    ulCount: CK_ULONG,
) -> CK_RV {
    entry("C_SetAttributeValue", || {
        let module = module()?;
        let session = module.session(SessionHandle(hSession))?;
        // SAFETY: the caller's template is NULL or valid for `ulCount` items and their values.
        let template = unsafe { args::template(pTemplate, ulCount) }?;
        session.change(ObjectHandle(hObject), &template, &module.mint)
    })
}

pub(super) unsafe extern "C" fn C_GetAttributeValue(
    hSession: CK_SESSION_HANDLE,
    hObject: CK_OBJECT_HANDLE,
    pTemplate: *mut CK_ATTRIBUTE,
    ulCount: CK_ULONG,
) -> CK_RV {
    entry("C_GetAttributeValue", || {
        let session = module()?.session(SessionHandle(hSession))?;
        let object = session.slot.object(ObjectHandle(hObject))?;
        // SAFETY: the caller's template is NULL or valid for `ulCount` items and their values.
        unsafe { args::fill(pTemplate, ulCount, &object) }
    })
}

pub(super) unsafe extern "C" fn C_FindObjectsInit(
    hSession: CK_SESSION_HANDLE,
    pTemplate: *mut CK_ATTRIBUTE,
    ulCount: CK_ULONG,
) -> CK_RV {
    entry("C_FindObjectsInit", || {
        let module = module()?;
        let session = module.session(SessionHandle(hSession))?;
        // SAFETY: the caller's template is NULL or valid for `ulCount` items and their values.
        let template = unsafe { args::template(pTemplate, ulCount) }?;
        session.find_init(&template, &module.mint)
    })
}

pub(super) unsafe extern "C" fn C_FindObjects(
    hSession: CK_SESSION_HANDLE,
    phObject: *mut CK_OBJECT_HANDLE,
    ulMaxObjectCount: CK_ULONG,
    pulObjectCount: *mut CK_ULONG,
) -> CK_RV {
    entry("C_FindObjects", || {
        let session = module()?.session(SessionHandle(hSession))?;
        if pulObjectCount.is_null() || (phObject.is_null() && ulMaxObjectCount != 0) {
            return Err(Error::ArgumentsBad("phObject or pulObjectCount is NULL"));
        }
        let most = usize::try_from(ulMaxObjectCount).unwrap_or(usize::MAX);
        let found = session.find(most)?;
        for (n, handle) in found.iter().enumerate() {
            // SAFETY: the pointer is not NULL, and `n` is below the number of handles that fit into
            // the buffer.
            unsafe { args::write(phObject.add(n), handle.0, "phObject is NULL") }?;
        }
        let count = found.len() as CK_ULONG;
        // SAFETY: the caller's pointer is NULL or valid for a CK_ULONG.
        unsafe { args::write(pulObjectCount, count, "pulObjectCount is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_FindObjectsFinal(hSession: CK_SESSION_HANDLE) -> CK_RV {
    entry("C_FindObjectsFinal", || {
        module()?.session(SessionHandle(hSession))?.find_final()
    })
}
