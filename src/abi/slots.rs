//! Slot and token calls (PKCS#11 3.0, section 5.5).

use super::{args, entry, host, library_version, manufacturer, module};
use crate::error::Error;
use crate::handle::SlotId;
use crate::module::MOST_SESSIONS;
use cryptoki_sys::*;
use std::ffi::c_void;

const MODEL: &str = "TPM 2.0";

pub(super) unsafe extern "C" fn C_GetSlotList(
    tokenPresent: CK_BBOOL,
    pSlotList: *mut CK_SLOT_ID,
    pulCount: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetSlotList", || {
        let module = module()?;
        let slots = |room| match tokenPresent {
            // The list of all slots stays unchanged from C_Initialize to C_Finalize.
            CK_FALSE => module.slots().iter().map(|slot| slot.id.0).collect(),
            _ => module.slots_with_token(host::caller(), room),
        };
        // SAFETY: `pSlotList` is NULL or valid for `*pulCount` items.
        unsafe { args::give_list(pSlotList, pulCount, slots) }
    })
}

pub(super) unsafe extern "C" fn C_GetSlotInfo(
    slotID: CK_SLOT_ID,
    pInfo: *mut CK_SLOT_INFO,
) -> CK_RV {
    entry("C_GetSlotInfo", || {
        let module = module()?;
        let slot = module.slot(SlotId(slotID))?;
        let present = match module.token(slot) {
            Ok(_) => CKF_TOKEN_PRESENT,
            Err(_) => 0,
        };
        let info = CK_SLOT_INFO {
            slotDescription: args::padded(slot.description),
            manufacturerID: manufacturer(),
            flags: CKF_HW_SLOT | CKF_REMOVABLE_DEVICE | present,
            hardwareVersion: CK_VERSION { major: 2, minor: 0 },
            firmwareVersion: CK_VERSION { major: 0, minor: 0 },
        };
        // SAFETY: the caller's pointer is NULL or valid for a CK_SLOT_INFO.
        unsafe { args::write(pInfo, info, "pInfo is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_GetTokenInfo(
    slotID: CK_SLOT_ID,
    pInfo: *mut CK_TOKEN_INFO,
) -> CK_RV {
    entry("C_GetTokenInfo", || {
        let module = module()?;
        let slot = module.slot(SlotId(slotID))?;
        let token = module.token(slot)?;
        let (sessions, read_write) = module.session_counts(slot.id);
        let (shortest, longest) = slot.pin_lengths()?;
        let info = CK_TOKEN_INFO {
            label: args::padded(&token.label),
            manufacturerID: manufacturer(),
            model: args::padded(MODEL),
            serialNumber: args::padded(&token.serial),
            flags: slot.token_flags(),
            ulMaxSessionCount: MOST_SESSIONS as CK_ULONG,
            ulSessionCount: sessions as CK_ULONG,
            ulMaxRwSessionCount: MOST_SESSIONS as CK_ULONG,
            ulRwSessionCount: read_write as CK_ULONG,
            ulMaxPinLen: longest,
            ulMinPinLen: shortest,
            ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
            hardwareVersion: CK_VERSION { major: 2, minor: 0 },
            firmwareVersion: library_version(),
            utcTime: [b' '; 16],
        };
        // SAFETY: the caller's pointer is NULL or valid for a CK_TOKEN_INFO.
        unsafe { args::write(pInfo, info, "pInfo is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_GetMechanismList(
    slotID: CK_SLOT_ID,
    pMechanismList: *mut CK_MECHANISM_TYPE,
    pulCount: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetMechanismList", || {
        let module = module()?;
        let slot = module.slot(SlotId(slotID))?;
        let token = module.token(slot)?;
        let kinds = |room| module.mechanisms(slot, &token, host::caller(), room);
        // SAFETY: `pMechanismList` is NULL or valid for `*pulCount` items.
        unsafe { args::give_list(pMechanismList, pulCount, kinds) }
    })
}

pub(super) unsafe extern "C" fn C_GetMechanismInfo(
    slotID: CK_SLOT_ID,
    kind: CK_MECHANISM_TYPE,
    pInfo: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    entry("C_GetMechanismInfo", || {
        let module = module()?;
        let info = module.mechanism_info(module.slot(SlotId(slotID))?, kind)?;
        // SAFETY: the caller's pointer is NULL or valid for a CK_MECHANISM_INFO.
        unsafe { args::write(pInfo, info, "pInfo is NULL") }
    })
}

pub(super) unsafe extern "C" fn C_InitToken(
    slotID: CK_SLOT_ID,
    pPin: *mut CK_UTF8CHAR,
    ulPinLen: CK_ULONG,
    pLabel: *mut CK_UTF8CHAR,
) -> CK_RV {
    /// The length of a label. Blanks fill the label, and no NUL ends it (section 5.5.8).
    const LABEL: CK_ULONG = 32;
    entry("C_InitToken", || {
        let module = module()?;
        // SAFETY: `pPin` is NULL or valid for `ulPinLen` bytes.
        let pin = unsafe { args::pin(pPin, ulPinLen) }?;
        let pin = pin.ok_or(Error::ArgumentsBad("pPin is NULL"))?;
        // SAFETY: `pLabel` is NULL or valid for 32 bytes.
        unsafe {
            args::borrow(pLabel, LABEL, |label| {
                let label = label.ok_or(Error::ArgumentsBad("pLabel is NULL"))?;
                module.init_token(SlotId(slotID), &pin, label)
            })
        }
    })
}

/// Asks the TPM at each call, because the module has no thread that could watch the TPM.
///
/// Partly supported: a call that waits for an event answers CKR_FUNCTION_NOT_SUPPORTED.
pub(super) unsafe extern "C" fn C_WaitForSlotEvent(
    flags: CK_FLAGS,
    _pSlot: *mut CK_SLOT_ID,
    pReserved: *mut c_void,
) -> CK_RV {
    entry("C_WaitForSlotEvent", || {
        module()?;
        match flags & CKF_DONT_BLOCK {
            _ if !pReserved.is_null() => Err(Error::ArgumentsBad("pReserved is not NULL")),
            0 => Err(Error::Unsupported),
            _ => Err(Error::NoEvent),
        }
    })
}
