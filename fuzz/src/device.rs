//! A device in memory with keys and PINs from an earlier use, and the module with its C interface.

use crate::host::{self, Files};
use crate::memory::Installed;
use crate::templates::{Kept, P256, attribute};
use crate::{folder, libtpms};
use cryptoki_sys::*;
use std::cell::RefCell;
use std::ptr;
use std::sync::Once;

extern crate devid_pkcs11 as _;

unsafe extern "C" {
    fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV;
    fn C_GetInterface(
        name: *mut CK_UTF8CHAR,
        version: *mut CK_VERSION,
        interface: *mut *mut CK_INTERFACE,
        flags: CK_FLAGS,
    ) -> CK_RV;
}

pub const OFFICER: &[u8] = b"officer's own";
pub const USER: &[u8] = b"open sesame";

/// The time limits are long, so that no limit passes on a slow machine. A TPM in memory always
/// answers.
const CONFIG: &str = "timeout_ms = 300000\ngeneration_timeout_ms = 300000\n\
    [[token]]\nname = \"pins\"\n\
    [[token]]\nname = \"files\"\nallow_file_keys = true\nallow_raw_rsa = true\n";

/// Returns the function table of PKCS#11 3.0.
pub fn table() -> &'static CK_FUNCTION_LIST_3_0 {
    let mut version = CK_VERSION { major: 3, minor: 0 };
    let mut interface = ptr::null_mut();
    // SAFETY: The pointers are valid. The returned table is static.
    unsafe {
        let rv = C_GetInterface(ptr::null_mut(), &raw mut version, &raw mut interface, 0);
        assert_eq!(rv, CKR_OK);
        &*(*interface).pFunctionList.cast()
    }
}

/// Calls a function of the table.
#[macro_export]
macro_rules! call {
    ($table:expr, $name:ident $(, $argument:expr)*) => {
        // SAFETY: Each pointer is NULL or valid for the length that is passed with it.
        unsafe { ($table.$name.expect("in the table"))($($argument),*) }
    };
}

/// The device before each input: the permanent state of the TPM, and the files.
struct Device {
    permanent: Vec<u8>,
    files: Files,
}

thread_local! {
    static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Restores the state of the device before the first input.
pub fn reset() {
    DEVICE.with(|device| {
        let mut device = device.borrow_mut();
        let device = device.get_or_insert_with(prepare);
        libtpms::start(&device.permanent);
        device.files.restore(&folder().join("state"));
    });
}

/// Makes a panic of the module end the process, and writes the module's files. Needs no TPM.
pub fn prepared() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // SAFETY: The pointer is valid.
        unsafe { C_GetFunctionList(&mut ptr::null_mut()) };
        // The module catches panics at the C interface, and its own hook prints nothing. The hook
        // below replaces that hook.
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }));
        host::settle(CONFIG);
    });
}

/// Returns the slots with tokens.
pub fn slots(table: &CK_FUNCTION_LIST_3_0) -> Vec<CK_SLOT_ID> {
    let mut slots = [0; 16];
    let mut count = slots.len() as CK_ULONG;
    match call!(
        table,
        C_GetSlotList,
        CK_TRUE,
        slots.as_mut_ptr(),
        &raw mut count
    ) {
        CKR_OK => slots[..count as usize].to_vec(),
        _ => Vec::new(),
    }
}

/// Makes a device with an identity, keys on the token `devid`, and PINs and keys on the token
/// `pins`.
fn prepare() -> Device {
    prepared();
    libtpms::start(libtpms::FACTORY_STATE);
    let _tpm = Installed::new(Box::new(|command| Some(libtpms::execute(command))));
    let table = table();
    ok(call!(table, C_Initialize, ptr::null_mut()));
    let slots = slots(table);
    // The order of the slots is idev-id, devid, sessions (256), pins, files.
    let own = slots[1];
    let session = open(table, own);
    for (kind, parameters) in [
        (CKM_EC_KEY_PAIR_GEN, P256),
        (CKM_RSA_PKCS_KEY_PAIR_GEN, &[]),
    ] {
        pair(table, session, kind, parameters);
    }
    secret(table, session, true);
    let pins = token(table, &slots, b"pins");
    let (pin, length) = (OFFICER.as_ptr().cast_mut(), OFFICER.len() as CK_ULONG);
    let mut label = [b' '; 32];
    label[..4].copy_from_slice(b"pins");
    ok(call!(
        table,
        C_InitToken,
        pins,
        pin,
        length,
        label.as_mut_ptr()
    ));
    let session = open(table, pins);
    ok(call!(table, C_Login, session, CKU_SO, pin, length));
    let (pin, length) = (USER.as_ptr().cast_mut(), USER.len() as CK_ULONG);
    ok(call!(table, C_InitPIN, session, pin, length));
    ok(call!(table, C_Logout, session));
    ok(call!(table, C_Login, session, CKU_USER, pin, length));
    pair(table, session, CKM_EC_KEY_PAIR_GEN, P256);
    secret(table, session, true);
    ok(call!(table, C_Finalize, ptr::null_mut()));
    Device {
        permanent: libtpms::permanent(),
        files: Files::of(&folder().join("state")),
    }
}

#[track_caller]
fn ok(rv: CK_RV) {
    assert_eq!(rv, CKR_OK, "{rv:#x}");
}

pub fn open(table: &CK_FUNCTION_LIST_3_0, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
    let mut session = 0;
    let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    ok(call!(
        table,
        C_OpenSession,
        slot,
        flags,
        ptr::null_mut(),
        None,
        &raw mut session
    ));
    session
}

/// Returns the slot of the token with this label.
pub fn token(table: &CK_FUNCTION_LIST_3_0, slots: &[CK_SLOT_ID], label: &[u8]) -> CK_SLOT_ID {
    let is_it = |slot: &&CK_SLOT_ID| {
        let mut info = CK_TOKEN_INFO::default();
        ok(call!(table, C_GetTokenInfo, **slot, &raw mut info));
        info.label.starts_with(label)
    };
    *slots.iter().find(is_it).expect("a token")
}

fn pair(
    table: &CK_FUNCTION_LIST_3_0,
    session: CK_SESSION_HANDLE,
    kind: CK_MECHANISM_TYPE,
    curve: &[u8],
) {
    let mut kept = Kept::default();
    let mut mechanism = CK_MECHANISM {
        mechanism: kind,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let mut public = vec![attribute(&mut kept, CKA_TOKEN, &[1])];
    match curve {
        [] => {
            let bits: CK_ULONG = 2048;
            public.push(attribute(&mut kept, CKA_MODULUS_BITS, &bits.to_ne_bytes()));
        }
        curve => public.push(attribute(&mut kept, CKA_EC_PARAMS, curve)),
    }
    let mut private = vec![attribute(&mut kept, CKA_TOKEN, &[1])];
    let (mut one, mut other) = (0, 0);
    ok(call!(
        table,
        C_GenerateKeyPair,
        session,
        &raw mut mechanism,
        public.as_mut_ptr(),
        public.len() as CK_ULONG,
        private.as_mut_ptr(),
        private.len() as CK_ULONG,
        &raw mut one,
        &raw mut other
    ));
}

/// Creates an AES key of 32 bytes.
pub fn secret(
    table: &CK_FUNCTION_LIST_3_0,
    session: CK_SESSION_HANDLE,
    on_token: bool,
) -> CK_OBJECT_HANDLE {
    let mut kept = Kept::default();
    let class: CK_ULONG = CKO_SECRET_KEY;
    let kind: CK_ULONG = CKK_AES;
    let mut items = [
        attribute(&mut kept, CKA_CLASS, &class.to_ne_bytes()),
        attribute(&mut kept, CKA_KEY_TYPE, &kind.to_ne_bytes()),
        attribute(&mut kept, CKA_VALUE, &WRAPPING),
        attribute(&mut kept, CKA_TOKEN, &[u8::from(on_token)]),
        attribute(&mut kept, CKA_ENCRYPT, &[1]),
        attribute(&mut kept, CKA_DECRYPT, &[1]),
        attribute(&mut kept, CKA_UNWRAP, &[1]),
    ];
    let mut object = 0;
    ok(call!(
        table,
        C_CreateObject,
        session,
        items.as_mut_ptr(),
        items.len() as CK_ULONG,
        &raw mut object
    ));
    object
}

/// The value of the AES key that [`secret`] creates.
pub const WRAPPING: [u8; 32] = [0x42; 32];
