//! Signing, verifying, key pairs and random numbers (PKCS#11 3.0, sections 5.13, 5.14, 5.18.2 and
//! 5.20).

use super::{args, entry, module};
use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use crate::making::Generator;
use crate::mechanism::Mechanism;
use cryptoki_sys::*;
use std::ptr;

/// Random bytes are made this many at a time.
const RANDOM_CHUNK: usize = 4096;
/// One call makes no more. A TPM that makes them takes hours for so many.
const MOST_RANDOM: usize = 1 << 24;

pub(super) unsafe extern "C" fn C_SignInit(
    hSession: CK_SESSION_HANDLE,
    pMechanism: *mut CK_MECHANISM,
    hKey: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_SignInit", || {
        let session = module()?.session(SessionHandle(hSession))?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM.
        match unsafe { args::mechanism(pMechanism, &[]) } {
            Some((kind, parameter)) => {
                let mechanism = Mechanism::parse(kind, parameter)?;
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
        // SAFETY: the length pointer is NULL or valid.
        let room = unsafe { args::room(pSignature, pulSignatureLen) };
        // SAFETY: `pData` is NULL or valid for `ulDataLen` bytes.
        let answer = unsafe { args::borrow(pData, ulDataLen, |data| session.sign(data, room)) }?;
        // SAFETY: an answer means that there is room, hence a length pointer.
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
        // SAFETY: the length pointer is NULL or valid.
        let room = unsafe { args::room(pSignature, pulSignatureLen) };
        let answer = session.sign_final(room)?;
        // SAFETY: an answer means that there is room, hence a length pointer.
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
        match unsafe { args::mechanism(pMechanism, &[]) } {
            Some((kind, parameter)) => {
                let mechanism = Mechanism::parse(kind, parameter)?;
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
        let mechanism = unsafe { args::mechanism(pMechanism, &[]) };
        let (kind, parameter) = mechanism.ok_or(Error::ArgumentsBad("pMechanism is NULL"))?;
        let generator = Generator::parse(kind, parameter)?;
        // SAFETY: the caller's template is NULL or valid for its items and their values.
        let public = unsafe { args::template(pPublicKeyTemplate, ulPublicKeyAttributeCount) }?;
        // SAFETY: as above.
        let private = unsafe { args::template(pPrivateKeyTemplate, ulPrivateKeyAttributeCount) }?;
        let (public, private) = module.generate_pair(session, generator, &public, &private)?;
        // SAFETY: neither is NULL, hence both are valid for a handle.
        unsafe {
            args::write(phPublicKey, public.0, "phPublicKey is NULL")?;
            args::write(phPrivateKey, private.0, "phPrivateKey is NULL")
        }
    })
}

pub(super) unsafe extern "C" fn C_SeedRandom(
    hSession: CK_SESSION_HANDLE,
    _pSeed: *mut CK_BYTE,
    _ulSeedLen: CK_ULONG,
) -> CK_RV {
    entry("C_SeedRandom", || {
        module()?.session(SessionHandle(hSession))?;
        Err(Error::RandomSeedNotSupported)
    })
}

pub(super) unsafe extern "C" fn C_GenerateRandom(
    hSession: CK_SESSION_HANDLE,
    RandomData: *mut CK_BYTE,
    ulRandomLen: CK_ULONG,
) -> CK_RV {
    entry("C_GenerateRandom", || {
        let session = module()?.session(SessionHandle(hSession))?;
        let length = usize::try_from(ulRandomLen).unwrap_or(usize::MAX);
        if length > MOST_RANDOM || (length != 0 && RandomData.is_null()) {
            return Err(Error::ArgumentsBad(
                "RandomData is NULL, or ulRandomLen is more than 16 MiB",
            ));
        }
        let mut chunk = [0; RANDOM_CHUNK];
        let mut done = 0;
        while done < length {
            let part = &mut chunk[..RANDOM_CHUNK.min(length - done)];
            session.slot.random(part)?;
            // SAFETY: not NULL; `done` and the part together stay within the length that the
            // caller has room for; `chunk` is ours and overlaps nothing of the caller's.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), RandomData.add(done), part.len()) };
            done += part.len();
        }
        Ok(())
    })
}
