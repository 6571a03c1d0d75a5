//! The module as a C caller sees it: a device in memory that was used before, and a sequence of calls.

use crate::bytes::Bytes;
use crate::host::{self, Files};
use crate::memory::Installed;
use crate::templates::{Kept, MECHANISMS, P256, attribute, mechanism, question, template};
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

/// A command of the TPM waits 100 ms at most, so that no input is slow.
const CONFIG: &str = "timeout_ms = 100\ngeneration_timeout_ms = 60000\n\
    [[token]]\nname = \"pins\"\n\
    [[token]]\nname = \"files\"\nallow_file_keys = true\nallow_raw_rsa = true\n";

/// The function table of PKCS#11 3.0.
pub fn table() -> &'static CK_FUNCTION_LIST_3_0 {
    let mut version = CK_VERSION { major: 3, minor: 0 };
    let mut interface = ptr::null_mut();
    // SAFETY: the places are valid; what comes back lives for ever.
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
        // SAFETY: each pointer is NULL or valid for the length beside it.
        unsafe { ($table.$name.expect("in the table"))($($argument),*) }
    };
}

/// The device before each input: what its TPM keeps and the files beside it.
struct Device {
    permanent: Vec<u8>,
    files: Files,
}

thread_local! {
    static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Switches the device on as it was before the first input.
pub fn reset() {
    DEVICE.with(|device| {
        let mut device = device.borrow_mut();
        let device = device.get_or_insert_with(prepare);
        libtpms::start(&device.permanent);
        device.files.restore(&folder().join("state"));
    });
}

/// Makes the module end the process where it panics, and gives it its files. No TPM is needed.
pub fn prepared() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // SAFETY: the place is valid.
        unsafe { C_GetFunctionList(&mut ptr::null_mut()) };
        // A panic of the module is caught at its border, and its own hook keeps it silent.
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }));
        host::settle(CONFIG);
    });
}

/// The slots with tokens.
pub fn slots(table: &CK_FUNCTION_LIST_3_0) -> Vec<CK_SLOT_ID> {
    let mut slots = [0; 16];
    let mut count = slots.len() as CK_ULONG;
    match call!(table, C_GetSlotList, CK_TRUE, slots.as_mut_ptr(), &raw mut count) {
        CKR_OK => slots[..count as usize].to_vec(),
        _ => Vec::new(),
    }
}

/// A device with an identity, keys on the token `devid`, and PINs and keys on the token `pins`.
fn prepare() -> Device {
    prepared();
    libtpms::start(libtpms::FACTORY_STATE);
    let _tpm = Installed::new(Box::new(|command| Some(libtpms::execute(command))));
    let table = table();
    ok(call!(table, C_Initialize, ptr::null_mut()));
    let slots = slots(table);
    // idev-id, devid, sessions (256), pins, files.
    let own = slots[1];
    let session = open(table, own);
    for (kind, parameters) in [(CKM_EC_KEY_PAIR_GEN, P256), (CKM_RSA_PKCS_KEY_PAIR_GEN, &[])] {
        pair(table, session, kind, parameters);
    }
    secret(table, session, true);
    let pins = token(table, &slots, b"pins");
    let (pin, length) = (OFFICER.as_ptr().cast_mut(), OFFICER.len() as CK_ULONG);
    let mut label = [b' '; 32];
    label[..4].copy_from_slice(b"pins");
    ok(call!(table, C_InitToken, pins, pin, length, label.as_mut_ptr()));
    let session = open(table, pins);
    ok(call!(table, C_Login, session, CKU_SO, pin, length));
    let (pin, length) = (USER.as_ptr().cast_mut(), USER.len() as CK_ULONG);
    ok(call!(table, C_InitPIN, session, pin, length));
    ok(call!(table, C_Logout, session));
    ok(call!(table, C_Login, session, CKU_USER, pin, length));
    pair(table, session, CKM_EC_KEY_PAIR_GEN, P256);
    secret(table, session, true);
    ok(call!(table, C_Finalize, ptr::null_mut()));
    Device { permanent: libtpms::permanent(), files: Files::of(&folder().join("state")) }
}

#[track_caller]
fn ok(rv: CK_RV) {
    assert_eq!(rv, CKR_OK, "{rv:#x}");
}

pub fn open(table: &CK_FUNCTION_LIST_3_0, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
    let mut session = 0;
    let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    ok(call!(table, C_OpenSession, slot, flags, ptr::null_mut(), None, &raw mut session));
    session
}

/// The slot of the token with this label.
pub fn token(table: &CK_FUNCTION_LIST_3_0, slots: &[CK_SLOT_ID], label: &[u8]) -> CK_SLOT_ID {
    let is_it = |slot: &&CK_SLOT_ID| {
        let mut info = CK_TOKEN_INFO::default();
        ok(call!(table, C_GetTokenInfo, **slot, &raw mut info));
        info.label.starts_with(label)
    };
    *slots.iter().find(is_it).expect("a token")
}

fn pair(table: &CK_FUNCTION_LIST_3_0, session: CK_SESSION_HANDLE, kind: CK_MECHANISM_TYPE, curve: &[u8]) {
    let mut kept = Kept::default();
    let mut mechanism = CK_MECHANISM { mechanism: kind, pParameter: ptr::null_mut(), ulParameterLen: 0 };
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
        table, C_GenerateKeyPair, session, &raw mut mechanism,
        public.as_mut_ptr(), public.len() as CK_ULONG,
        private.as_mut_ptr(), private.len() as CK_ULONG,
        &raw mut one, &raw mut other
    ));
}

/// An AES key of 32 bytes.
pub fn secret(table: &CK_FUNCTION_LIST_3_0, session: CK_SESSION_HANDLE, on_token: bool) -> CK_OBJECT_HANDLE {
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
    ok(call!(table, C_CreateObject, session, items.as_mut_ptr(), items.len() as CK_ULONG, &raw mut object));
    object
}

/// The value of that key.
pub const WRAPPING: [u8; 32] = [0x42; 32];

/// A caller that makes whatever calls the input says.
pub struct Caller {
    choices: Bytes,
    table: &'static CK_FUNCTION_LIST_3_0,
    slots: Vec<CK_SLOT_ID>,
    sessions: Vec<CK_SESSION_HANDLE>,
    objects: Vec<CK_OBJECT_HANDLE>,
    state: Vec<u8>,
}

impl Caller {
    /// The module is initialised.
    pub fn new(choices: Bytes) -> Self {
        let table = table();
        Self { choices, table, slots: slots(table), sessions: Vec::new(), objects: Vec::new(), state: Vec::new() }
    }

    /// The same, which knows these slots.
    pub fn with_slots(choices: Bytes, slots: &[CK_SLOT_ID]) -> Self {
        let table = table();
        Self { choices, table, slots: slots.to_vec(), sessions: Vec::new(), objects: Vec::new(), state: Vec::new() }
    }

    /// All calls of the input, 60 at most.
    pub fn run(&mut self) {
        for _ in 0..60 {
            if self.choices.is_empty() {
                break;
            }
            self.one();
        }
    }

    fn slot(&mut self) -> CK_SLOT_ID {
        match self.choices.below(32) {
            0 => CK_SLOT_ID::from(self.choices.long()),
            _ if self.slots.is_empty() => 0,
            which => self.slots[which % self.slots.len()],
        }
    }

    fn session(&mut self) -> CK_SESSION_HANDLE {
        match self.choices.below(32) {
            0 => CK_SESSION_HANDLE::from(self.choices.word()),
            _ if self.sessions.is_empty() => self.begin(),
            which => self.sessions[which % self.sessions.len()],
        }
    }

    fn object(&mut self) -> CK_OBJECT_HANDLE {
        match self.choices.below(32) {
            0 => CK_OBJECT_HANDLE::from(self.choices.word()),
            _ if self.objects.is_empty() => 0,
            which => self.objects[which % self.objects.len()],
        }
    }

    fn mechanism(&mut self, kept: &mut Kept) -> CK_MECHANISM {
        let kind = self.choices.pick(&MECHANISMS);
        mechanism(&mut self.choices, kept, kind)
    }

    /// Opens a session and finds all objects there.
    fn begin(&mut self) -> CK_SESSION_HANDLE {
        let slot = self.slot();
        let flags = self.choices.pick(&[CKF_SERIAL_SESSION | CKF_RW_SESSION, CKF_SERIAL_SESSION, 0, CKF_RW_SESSION]);
        let mut session = 0;
        let rv = call!(self.table, C_OpenSession, slot, flags, ptr::null_mut(), None, &raw mut session);
        if rv == CKR_OK {
            self.sessions.push(session);
            self.find(session, &mut []);
        }
        session
    }

    fn find(&mut self, session: CK_SESSION_HANDLE, items: &mut [CK_ATTRIBUTE]) {
        let table = self.table;
        let rv = call!(table, C_FindObjectsInit, session, items.as_mut_ptr(), items.len() as CK_ULONG);
        if rv != CKR_OK {
            return;
        }
        let mut found = vec![0; self.choices.pick(&[64, 1, 0])];
        let mut count = 0;
        let rv = call!(table, C_FindObjects, session, found.as_mut_ptr(), found.len() as CK_ULONG, &raw mut count);
        if rv == CKR_OK {
            assert!(count as usize <= found.len());
            self.objects.extend(&found[..count as usize]);
            self.objects.truncate(200);
        }
        if !self.choices.rarely(8) {
            call!(table, C_FindObjectsFinal, session);
        }
    }

    /// A call that writes bytes: asked for the length, given too little room, or enough.
    fn output(&mut self, call: impl Fn(*mut CK_BYTE, *mut CK_ULONG) -> CK_RV) -> Option<Vec<u8>> {
        let mut told = 0;
        match self.choices.below(16) {
            0 => {
                call(ptr::null_mut(), ptr::null_mut());
                return None;
            }
            1 | 2 => {
                call(ptr::null_mut(), &raw mut told);
                return None;
            }
            3 => {
                let mut room = vec![0_u8; self.choices.below(64)].into_boxed_slice();
                told = room.len() as CK_ULONG;
                call(room.as_mut_ptr(), &raw mut told);
                return None;
            }
            4..=7 => {
                if call(ptr::null_mut(), &raw mut told) != CKR_OK || told > 1 << 20 {
                    return None;
                }
            }
            _ => told = 4096,
        }
        let mut room = vec![0_u8; told as usize].into_boxed_slice();
        let rv = call(room.as_mut_ptr(), &raw mut told);
        assert!(rv != CKR_OK || told as usize <= room.len(), "wrote {told}");
        (rv == CKR_OK).then(|| room[..told as usize].to_vec())
    }

    fn data(&mut self) -> Box<[u8]> {
        match self.choices.below(4) {
            0 => vec![0x5A; 32].into(),
            1 => vec![0x5A; 256].into(),
            _ => self.choices.some().into(),
        }
    }

    fn pin(&mut self) -> Box<[u8]> {
        match self.choices.below(8) {
            0 => self.choices.some().into(),
            1..=3 => OFFICER.into(),
            _ => USER.into(),
        }
    }

    fn one(&mut self) {
        let mut kept = Kept::default();
        let table = self.table;
        match self.choices.below(48) {
            0 => drop(self.begin()),
            1 => {
                let session = self.session();
                call!(table, C_CloseSession, session);
                self.sessions.retain(|one| *one != session);
            }
            2 => {
                let slot = self.slot();
                call!(table, C_CloseAllSessions, slot);
            }
            3 => {
                let session = self.session();
                let mut items = template(&mut self.choices, &mut kept, &[]);
                self.find(session, &mut items);
            }
            4..=6 => {
                let (session, object) = (self.session(), self.object());
                let mut items = question(&mut self.choices, &mut kept);
                call!(table, C_GetAttributeValue, session, object, items.as_mut_ptr(), items.len() as CK_ULONG);
            }
            7 => {
                let (session, object) = (self.session(), self.object());
                let mut items = template(&mut self.choices, &mut kept, &[]);
                call!(table, C_SetAttributeValue, session, object, items.as_mut_ptr(), items.len() as CK_ULONG);
            }
            8..=10 => {
                let session = self.session();
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut object = 0;
                if call!(table, C_CreateObject, session, items.as_mut_ptr(), items.len() as CK_ULONG, &raw mut object) == CKR_OK {
                    self.objects.push(object);
                }
            }
            11 => {
                let (session, object) = (self.session(), self.object());
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut copy = 0;
                if call!(table, C_CopyObject, session, object, items.as_mut_ptr(), items.len() as CK_ULONG, &raw mut copy) == CKR_OK {
                    self.objects.push(copy);
                }
            }
            12 => {
                let (session, object) = (self.session(), self.object());
                call!(table, C_DestroyObject, session, object);
            }
            13 => {
                let (session, object) = (self.session(), self.object());
                let mut size = 0;
                call!(table, C_GetObjectSize, session, object, &raw mut size);
            }
            14 | 15 => {
                let (session, pin) = (self.session(), self.pin());
                let user = self.choices.pick(&[CKU_USER, CKU_SO, CKU_CONTEXT_SPECIFIC, 9]);
                call!(table, C_Login, session, user, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG);
            }
            16 => {
                let session = self.session();
                call!(table, C_Logout, session);
            }
            17 => {
                let (session, old, new) = (self.session(), self.pin(), self.pin());
                call!(
                    table, C_SetPIN, session, old.as_ptr().cast_mut(), old.len() as CK_ULONG,
                    new.as_ptr().cast_mut(), new.len() as CK_ULONG
                );
            }
            18 => {
                let (session, pin) = (self.session(), self.pin());
                call!(table, C_InitPIN, session, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG);
            }
            19 => {
                let (slot, pin) = (self.slot(), self.pin());
                let mut label = [self.choices.byte(); 32];
                call!(table, C_InitToken, slot, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG, label.as_mut_ptr());
            }
            20..=23 => {
                let (session, object) = (self.session(), self.object());
                let mut given = self.mechanism(&mut kept);
                call!(table, C_SignInit, session, &raw mut given, object);
                let data = self.data();
                let (bytes, length) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                match self.choices.below(4) {
                    0 => {
                        call!(table, C_SignUpdate, session, bytes, length);
                        self.output(|out, size| call!(table, C_SignFinal, session, out, size));
                    }
                    1 => {}
                    _ => {
                        self.output(|out, size| call!(table, C_Sign, session, bytes, length, out, size));
                    }
                }
            }
            24 | 25 => {
                let (session, object) = (self.session(), self.object());
                let mut given = self.mechanism(&mut kept);
                call!(table, C_VerifyInit, session, &raw mut given, object);
                let (data, signature) = (self.data(), self.data());
                let (bytes, length) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                let (signed, long) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
                if self.choices.rarely(3) {
                    call!(table, C_VerifyUpdate, session, bytes, length);
                    call!(table, C_VerifyFinal, session, signed, long);
                } else {
                    call!(table, C_Verify, session, bytes, length, signed, long);
                }
            }
            26..=29 => {
                let (session, object) = (self.session(), self.object());
                let mut given = self.mechanism(&mut kept);
                let encrypts = self.choices.rarely(2);
                let data = self.data();
                let (bytes, length) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                let in_parts = self.choices.rarely(3);
                if encrypts {
                    call!(table, C_EncryptInit, session, &raw mut given, object);
                    if in_parts {
                        self.output(|out, size| call!(table, C_EncryptUpdate, session, bytes, length, out, size));
                        self.output(|out, size| call!(table, C_EncryptFinal, session, out, size));
                    } else {
                        self.output(|out, size| call!(table, C_Encrypt, session, bytes, length, out, size));
                    }
                } else {
                    call!(table, C_DecryptInit, session, &raw mut given, object);
                    if in_parts {
                        self.output(|out, size| call!(table, C_DecryptUpdate, session, bytes, length, out, size));
                        self.output(|out, size| call!(table, C_DecryptFinal, session, out, size));
                    } else {
                        self.output(|out, size| call!(table, C_Decrypt, session, bytes, length, out, size));
                    }
                }
            }
            30 | 31 => {
                let session = self.session();
                let mut given = self.mechanism(&mut kept);
                call!(table, C_DigestInit, session, &raw mut given);
                let data = self.data();
                let (bytes, length) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                match self.choices.below(4) {
                    0 => drop(self.output(|out, size| call!(table, C_Digest, session, bytes, length, out, size))),
                    1 => {
                        let object = self.object();
                        call!(table, C_DigestKey, session, object);
                    }
                    2 => {
                        call!(table, C_DigestUpdate, session, bytes, length);
                    }
                    _ => drop(self.output(|out, size| call!(table, C_DigestFinal, session, out, size))),
                }
            }
            32 => {
                let session = self.session();
                let state = self.output(|out, size| call!(table, C_GetOperationState, session, out, size));
                self.state = state.unwrap_or_default();
            }
            33 => {
                let (session, mut state) = (self.session(), self.state.clone());
                if self.choices.rarely(2) {
                    state = self.choices.some();
                }
                call!(table, C_SetOperationState, session, state.as_mut_ptr(), state.len() as CK_ULONG, 0, 0);
            }
            34 | 35 => {
                let session = self.session();
                let kind = self.choices.pick(&[CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, 0]);
                let mut given = mechanism(&mut self.choices, &mut kept, kind);
                given.ulParameterLen = 0;
                let mut public = template(&mut self.choices, &mut kept, &[(CKA_EC_PARAMS, P256)]);
                let mut private = template(&mut self.choices, &mut kept, &[]);
                let (mut one, mut other) = (0, 0);
                let rv = call!(
                    table, C_GenerateKeyPair, session, &raw mut given,
                    public.as_mut_ptr(), public.len() as CK_ULONG,
                    private.as_mut_ptr(), private.len() as CK_ULONG, &raw mut one, &raw mut other
                );
                if rv == CKR_OK {
                    self.objects.extend([one, other]);
                }
            }
            36 | 37 => {
                let session = self.session();
                let mut given = self.mechanism(&mut kept);
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut object = 0;
                if call!(table, C_GenerateKey, session, &raw mut given, items.as_mut_ptr(), items.len() as CK_ULONG, &raw mut object) == CKR_OK {
                    self.objects.push(object);
                }
            }
            38 | 39 => {
                let (session, object) = (self.session(), self.object());
                let kind = self.choices.pick(&[CKM_ECDH1_DERIVE, CKM_ECDH1_COFACTOR_DERIVE, CKM_AES_CBC]);
                let mut given = mechanism(&mut self.choices, &mut kept, kind);
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut made = 0;
                if call!(table, C_DeriveKey, session, &raw mut given, object, items.as_mut_ptr(), items.len() as CK_ULONG, &raw mut made) == CKR_OK {
                    self.objects.push(made);
                }
            }
            40 => {
                let (session, object) = (self.session(), self.object());
                let kind = self.choices.pick(&[CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP, CKM_RSA_AES_KEY_WRAP]);
                let mut given = mechanism(&mut self.choices, &mut kept, kind);
                let mut wrapped = self.data();
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut made = 0;
                call!(
                    table, C_UnwrapKey, session, &raw mut given, object, wrapped.as_mut_ptr(),
                    wrapped.len() as CK_ULONG, items.as_mut_ptr(), items.len() as CK_ULONG, &raw mut made
                );
            }
            41 => {
                let session = self.session();
                let mut room = vec![0_u8; self.choices.below(200)].into_boxed_slice();
                call!(table, C_GenerateRandom, session, room.as_mut_ptr(), room.len() as CK_ULONG);
                call!(table, C_SeedRandom, session, room.as_mut_ptr(), room.len() as CK_ULONG);
            }
            42 => {
                let session = self.session();
                let flags = self.choices.pick(&[CKF_SIGN, CKF_DIGEST | CKF_FIND_OBJECTS, CKF_DECRYPT, CK_FLAGS::MAX]);
                call!(table, C_SessionCancel, session, flags);
            }
            43 => {
                let slot = self.slot();
                let kind = self.choices.pick(&MECHANISMS);
                let mut info = CK_MECHANISM_INFO::default();
                call!(table, C_GetMechanismInfo, slot, kind, &raw mut info);
                let mut count = CK_ULONG::from(self.choices.byte());
                let mut list = vec![0; count as usize].into_boxed_slice();
                call!(table, C_GetMechanismList, slot, list.as_mut_ptr(), &raw mut count);
            }
            44 => {
                let slot = self.slot();
                let mut info = CK_TOKEN_INFO::default();
                call!(table, C_GetTokenInfo, slot, &raw mut info);
            }
            45 => {
                let session = self.session();
                let mut info = CK_SESSION_INFO::default();
                call!(table, C_GetSessionInfo, session, &raw mut info);
            }
            46 => {
                let (session, pin) = (self.session(), self.pin());
                let name = self.choices.some();
                call!(
                    table, C_LoginUser, session, CKU_USER, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG,
                    name.as_ptr().cast_mut(), name.len() as CK_ULONG
                );
            }
            _ => {
                call!(table, C_Finalize, ptr::null_mut());
                call!(table, C_Initialize, ptr::null_mut());
                self.sessions.clear();
                self.objects.clear();
            }
        }
    }
}
