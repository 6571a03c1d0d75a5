//! Random numbers (PKCS#11 3.0, section 5.20).

use super::{entry, module};
use crate::error::Error;
use crate::handle::SessionHandle;
use cryptoki_sys::*;
use std::ptr;

/// The number of random bytes that are fetched in one step.
const RANDOM_CHUNK: usize = 4096;
/// The largest number of random bytes of one call. The TPM would need hours for this number.
const MOST_RANDOM: usize = 1 << 24;

/// Partly supported: a seed is accepted but not used. The kernel and the TPM seed themselves.
pub(super) unsafe extern "C" fn C_SeedRandom(
    hSession: CK_SESSION_HANDLE,
    pSeed: *mut CK_BYTE,
    ulSeedLen: CK_ULONG,
) -> CK_RV {
    entry("C_SeedRandom", || {
        module()?.session(SessionHandle(hSession))?;
        let can_be = !pSeed.is_null() && isize::try_from(ulSeedLen).is_ok();
        match can_be || ulSeedLen == 0 {
            true => Ok(()),
            false => Err(Error::ArgumentsBad(
                "pSeed is NULL, or ulSeedLen is impossible",
            )),
        }
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
            // SAFETY: the pointer is not NULL. `done` and the part stay within the caller's length.
            // `chunk` belongs to the module and does not overlap the caller's memory.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), RandomData.add(done), part.len()) };
            done += part.len();
        }
        Ok(())
    })
}
