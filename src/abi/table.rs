//! The function tables, and the calls that are not supported.

use super::{
    V3_2, args, digest, encrypt, entry, general, keys, objects, random, sessions, sign, slots,
};
use crate::error::Error;
use cryptoki_sys::*;
use std::ffi::{CStr, c_char, c_void};

const V2_40: CK_VERSION = CK_VERSION {
    major: 2,
    minor: 40,
};
const V3_0: CK_VERSION = CK_VERSION { major: 3, minor: 0 };
const INTERFACE_NAME: &CStr = c"PKCS 11";

/// Defines functions that are not supported. Each function returns CKR_FUNCTION_NOT_SUPPORTED.
macro_rules! unsupported {
    ($($name:ident($($argument:ty),*);)*) => {
        $(unsafe extern "C" fn $name($(_: $argument),*) -> CK_RV {
            entry(stringify!($name), || Err(Error::Unsupported))
        })*
    };
}

unsupported! {
    C_SignRecoverInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_SignRecover(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_VerifyRecoverInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_VerifyRecover(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DigestEncryptUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptDigestUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_SignEncryptUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptVerifyUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_WrapKey(
        CK_SESSION_HANDLE,
        *mut CK_MECHANISM,
        CK_OBJECT_HANDLE,
        CK_OBJECT_HANDLE,
        *mut CK_BYTE,
        *mut CK_ULONG
    );
    C_MessageEncryptInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_EncryptMessage(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG
    );
    C_EncryptMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_EncryptMessageNext(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG,
        CK_FLAGS
    );
    C_MessageEncryptFinal(CK_SESSION_HANDLE);
    C_MessageDecryptInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_DecryptMessage(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG
    );
    C_DecryptMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_DecryptMessageNext(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG,
        CK_FLAGS
    );
    C_MessageDecryptFinal(CK_SESSION_HANDLE);
    C_MessageSignInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_SignMessage(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG
    );
    C_SignMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG);
    C_SignMessageNext(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG
    );
    C_MessageSignFinal(CK_SESSION_HANDLE);
    C_MessageVerifyInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_VerifyMessage(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG
    );
    C_VerifyMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG);
    C_VerifyMessageNext(
        CK_SESSION_HANDLE,
        *mut c_void,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG
    );
    C_MessageVerifyFinal(CK_SESSION_HANDLE);
    C_EncapsulateKey(
        CK_SESSION_HANDLE,
        *mut CK_MECHANISM,
        CK_OBJECT_HANDLE,
        *mut CK_ATTRIBUTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG,
        *mut CK_OBJECT_HANDLE
    );
    C_DecapsulateKey(
        CK_SESSION_HANDLE,
        *mut CK_MECHANISM,
        CK_OBJECT_HANDLE,
        *mut CK_ATTRIBUTE,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_OBJECT_HANDLE
    );
    C_VerifySignatureInit(
        CK_SESSION_HANDLE,
        *mut CK_MECHANISM,
        CK_OBJECT_HANDLE,
        *mut CK_BYTE,
        CK_ULONG
    );
    C_VerifySignature(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG);
    C_VerifySignatureUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG);
    C_VerifySignatureFinal(CK_SESSION_HANDLE);
    C_AsyncComplete(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, *mut CK_ASYNC_DATA);
    C_AsyncGetID(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, *mut CK_ULONG);
    C_AsyncJoin(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_WrapKeyAuthenticated(
        CK_SESSION_HANDLE,
        *mut CK_MECHANISM,
        CK_OBJECT_HANDLE,
        CK_OBJECT_HANDLE,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_BYTE,
        *mut CK_ULONG
    );
    C_UnwrapKeyAuthenticated(
        CK_SESSION_HANDLE,
        *mut CK_MECHANISM,
        CK_OBJECT_HANDLE,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_ATTRIBUTE,
        CK_ULONG,
        *mut CK_BYTE,
        CK_ULONG,
        *mut CK_OBJECT_HANDLE
    );
}

/// Makes the fields that all tables have, in the order of the standard.
macro_rules! table {
    ($list:ident, $version:expr, { $($more:tt)* }) => {
        $list {
            version: $version,
            C_Initialize: Some(general::C_Initialize),
            C_Finalize: Some(general::C_Finalize),
            C_GetInfo: Some(general::C_GetInfo),
            C_GetFunctionList: Some(C_GetFunctionList),
            C_GetSlotList: Some(slots::C_GetSlotList),
            C_GetSlotInfo: Some(slots::C_GetSlotInfo),
            C_GetTokenInfo: Some(slots::C_GetTokenInfo),
            C_GetMechanismList: Some(slots::C_GetMechanismList),
            C_GetMechanismInfo: Some(slots::C_GetMechanismInfo),
            C_InitToken: Some(slots::C_InitToken),
            C_InitPIN: Some(sessions::C_InitPIN),
            C_SetPIN: Some(sessions::C_SetPIN),
            C_OpenSession: Some(sessions::C_OpenSession),
            C_CloseSession: Some(sessions::C_CloseSession),
            C_CloseAllSessions: Some(sessions::C_CloseAllSessions),
            C_GetSessionInfo: Some(sessions::C_GetSessionInfo),
            C_GetOperationState: Some(digest::C_GetOperationState),
            C_SetOperationState: Some(digest::C_SetOperationState),
            C_Login: Some(sessions::C_Login),
            C_Logout: Some(sessions::C_Logout),
            C_CreateObject: Some(objects::C_CreateObject),
            C_CopyObject: Some(objects::C_CopyObject),
            C_DestroyObject: Some(objects::C_DestroyObject),
            C_GetObjectSize: Some(objects::C_GetObjectSize),
            C_GetAttributeValue: Some(objects::C_GetAttributeValue),
            C_SetAttributeValue: Some(objects::C_SetAttributeValue),
            C_FindObjectsInit: Some(objects::C_FindObjectsInit),
            C_FindObjects: Some(objects::C_FindObjects),
            C_FindObjectsFinal: Some(objects::C_FindObjectsFinal),
            C_EncryptInit: Some(encrypt::C_EncryptInit),
            C_Encrypt: Some(encrypt::C_Encrypt),
            C_EncryptUpdate: Some(encrypt::C_EncryptUpdate),
            C_EncryptFinal: Some(encrypt::C_EncryptFinal),
            C_DecryptInit: Some(encrypt::C_DecryptInit),
            C_Decrypt: Some(encrypt::C_Decrypt),
            C_DecryptUpdate: Some(encrypt::C_DecryptUpdate),
            C_DecryptFinal: Some(encrypt::C_DecryptFinal),
            C_DigestInit: Some(digest::C_DigestInit),
            C_Digest: Some(digest::C_Digest),
            C_DigestUpdate: Some(digest::C_DigestUpdate),
            C_DigestKey: Some(digest::C_DigestKey),
            C_DigestFinal: Some(digest::C_DigestFinal),
            C_SignInit: Some(sign::C_SignInit),
            C_Sign: Some(sign::C_Sign),
            C_SignUpdate: Some(sign::C_SignUpdate),
            C_SignFinal: Some(sign::C_SignFinal),
            C_SignRecoverInit: Some(C_SignRecoverInit),
            C_SignRecover: Some(C_SignRecover),
            C_VerifyInit: Some(sign::C_VerifyInit),
            C_Verify: Some(sign::C_Verify),
            C_VerifyUpdate: Some(sign::C_VerifyUpdate),
            C_VerifyFinal: Some(sign::C_VerifyFinal),
            C_VerifyRecoverInit: Some(C_VerifyRecoverInit),
            C_VerifyRecover: Some(C_VerifyRecover),
            C_DigestEncryptUpdate: Some(C_DigestEncryptUpdate),
            C_DecryptDigestUpdate: Some(C_DecryptDigestUpdate),
            C_SignEncryptUpdate: Some(C_SignEncryptUpdate),
            C_DecryptVerifyUpdate: Some(C_DecryptVerifyUpdate),
            C_GenerateKey: Some(keys::C_GenerateKey),
            C_GenerateKeyPair: Some(keys::C_GenerateKeyPair),
            C_WrapKey: Some(C_WrapKey),
            C_UnwrapKey: Some(keys::C_UnwrapKey),
            C_DeriveKey: Some(keys::C_DeriveKey),
            C_SeedRandom: Some(random::C_SeedRandom),
            C_GenerateRandom: Some(random::C_GenerateRandom),
            C_GetFunctionStatus: Some(general::C_GetFunctionStatus),
            C_CancelFunction: Some(general::C_CancelFunction),
            C_WaitForSlotEvent: Some(slots::C_WaitForSlotEvent),
            $($more)*
        }
    };
}

/// Makes the fields that the tables of version 3.0 and later have.
macro_rules! table_3 {
    ($list:ident, $version:expr, { $($more:tt)* }) => {
        table!($list, $version, {
            C_GetInterfaceList: Some(C_GetInterfaceList),
            C_GetInterface: Some(C_GetInterface),
            C_LoginUser: Some(sessions::C_LoginUser),
            C_SessionCancel: Some(sessions::C_SessionCancel),
            C_MessageEncryptInit: Some(C_MessageEncryptInit),
            C_EncryptMessage: Some(C_EncryptMessage),
            C_EncryptMessageBegin: Some(C_EncryptMessageBegin),
            C_EncryptMessageNext: Some(C_EncryptMessageNext),
            C_MessageEncryptFinal: Some(C_MessageEncryptFinal),
            C_MessageDecryptInit: Some(C_MessageDecryptInit),
            C_DecryptMessage: Some(C_DecryptMessage),
            C_DecryptMessageBegin: Some(C_DecryptMessageBegin),
            C_DecryptMessageNext: Some(C_DecryptMessageNext),
            C_MessageDecryptFinal: Some(C_MessageDecryptFinal),
            C_MessageSignInit: Some(C_MessageSignInit),
            C_SignMessage: Some(C_SignMessage),
            C_SignMessageBegin: Some(C_SignMessageBegin),
            C_SignMessageNext: Some(C_SignMessageNext),
            C_MessageSignFinal: Some(C_MessageSignFinal),
            C_MessageVerifyInit: Some(C_MessageVerifyInit),
            C_VerifyMessage: Some(C_VerifyMessage),
            C_VerifyMessageBegin: Some(C_VerifyMessageBegin),
            C_VerifyMessageNext: Some(C_VerifyMessageNext),
            C_MessageVerifyFinal: Some(C_MessageVerifyFinal),
            $($more)*
        })
    };
}

/// The table of C_GetFunctionList.
static LIST_2_40: CK_FUNCTION_LIST = table!(CK_FUNCTION_LIST, V2_40, {});

static LIST_3_0: CK_FUNCTION_LIST_3_0 = table_3!(CK_FUNCTION_LIST_3_0, V3_0, {});

static LIST_3_2: CK_FUNCTION_LIST_3_2 = table_3!(CK_FUNCTION_LIST_3_2, V3_2, {
    C_EncapsulateKey: Some(C_EncapsulateKey),
    C_DecapsulateKey: Some(C_DecapsulateKey),
    C_VerifySignatureInit: Some(C_VerifySignatureInit),
    C_VerifySignature: Some(C_VerifySignature),
    C_VerifySignatureUpdate: Some(C_VerifySignatureUpdate),
    C_VerifySignatureFinal: Some(C_VerifySignatureFinal),
    C_GetSessionValidationFlags: Some(sessions::C_GetSessionValidationFlags),
    C_AsyncComplete: Some(C_AsyncComplete),
    C_AsyncGetID: Some(C_AsyncGetID),
    C_AsyncJoin: Some(C_AsyncJoin),
    C_WrapKeyAuthenticated: Some(C_WrapKeyAuthenticated),
    C_UnwrapKeyAuthenticated: Some(C_UnwrapKeyAuthenticated),
});

/// A PKCS#11 interface (CK_INTERFACE), and the version of its function table.
struct Versioned {
    version: CK_VERSION,
    interface: CK_INTERFACE,
}

// SAFETY: the pointers point to statics that are never written. The C types have no `const`. By the
// standard a caller only reads a function list and the name of an interface.
unsafe impl Sync for Versioned {}

impl Versioned {
    const fn new<T>(version: CK_VERSION, list: &'static T) -> Self {
        Self {
            version,
            interface: CK_INTERFACE {
                pInterfaceName: INTERFACE_NAME.as_ptr().cast::<CK_UTF8CHAR>().cast_mut(),
                pFunctionList: (&raw const *list).cast_mut().cast::<c_void>(),
                flags: 0,
            },
        }
    }
}

/// The interfaces, the default first.
///
/// CKF_INTERFACE_FORK_SAFE is not set. The flag promises a child a copy of every session. A session
/// that another thread of the parent used during the fork is not copied.
static INTERFACES: [Versioned; 3] = [
    Versioned::new(V3_2, &LIST_3_2),
    Versioned::new(V3_0, &LIST_3_0),
    Versioned::new(V2_40, &LIST_2_40),
];

/// # Safety
///
/// By the standard: `ppFunctionList` is NULL or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetFunctionList(ppFunctionList: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    entry("C_GetFunctionList", || {
        let list = (&raw const LIST_2_40).cast_mut();
        // SAFETY: each caller obeys the section `# Safety` of this function.
        unsafe { args::write(ppFunctionList, list, "ppFunctionList is NULL") }
    })
}

/// # Safety
///
/// By the standard: `pulCount` is NULL or valid. `pInterfacesList` is NULL or valid for writes of
/// `*pulCount` items.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetInterfaceList(
    pInterfacesList: *mut CK_INTERFACE,
    pulCount: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetInterfaceList", || {
        let interfaces = INTERFACES.each_ref().map(|one| one.interface);
        // SAFETY: each caller obeys the section `# Safety` of this function.
        unsafe { args::give_list(pInterfacesList, pulCount, |_| interfaces) }
    })
}

/// # Safety
///
/// By the standard: `pInterfaceName` is NULL or a NUL-terminated string, `pVersion` is NULL or
/// valid for a read, and `ppInterface` is NULL or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetInterface(
    pInterfaceName: *mut CK_UTF8CHAR,
    pVersion: *mut CK_VERSION,
    ppInterface: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    entry("C_GetInterface", || {
        let named = pInterfaceName.is_null() || {
            // SAFETY: the pointer is not NULL, so by this function's contract it points to a
            // NUL-terminated string.
            let name = unsafe { CStr::from_ptr(pInterfaceName.cast::<c_char>()) };
            name == INTERFACE_NAME
        };
        // SAFETY: each caller obeys the section `# Safety` of this function.
        let version = unsafe { args::read(pVersion) };
        let found = INTERFACES.iter().find(|one| {
            named
                && version.is_none_or(|wanted| {
                    (wanted.major, wanted.minor) == (one.version.major, one.version.minor)
                })
                && flags & !one.interface.flags == 0
        });
        let interface = &raw const found
            .ok_or(Error::ArgumentsBad(
                "no interface has this name, version and flags",
            ))?
            .interface;
        // SAFETY: each caller obeys the section `# Safety` of this function.
        unsafe { args::write(ppInterface, interface.cast_mut(), "ppInterface is NULL") }
    })
}
