//! Makes sequences of PKCS#11 calls. The input chooses the calls.

mod objects;
mod operations;
mod tokens;

use crate::bytes::Bytes;
use crate::call;
use crate::device::{OFFICER, USER, slots, table};
use crate::templates::{Kept, MECHANISMS, mechanism};
use cryptoki_sys::*;
use std::ptr;

/// A caller of the module. The input chooses its calls.
pub struct Caller {
    choices: Bytes,
    table: &'static CK_FUNCTION_LIST_3_0,
    slots: Vec<CK_SLOT_ID>,
    sessions: Vec<CK_SESSION_HANDLE>,
    objects: Vec<CK_OBJECT_HANDLE>,
    state: Vec<u8>,
    /// The number of refused PINs.
    pub wrong_pins: u32,
}

impl Caller {
    /// Creates a caller. The module must be initialised.
    pub fn new(choices: Bytes) -> Self {
        let table = table();
        Self {
            choices,
            table,
            slots: slots(table),
            sessions: Vec::new(),
            objects: Vec::new(),
            state: Vec::new(),
            wrong_pins: 0,
        }
    }

    /// Creates a caller that uses these slots only.
    pub fn with_slots(choices: Bytes, slots: &[CK_SLOT_ID]) -> Self {
        let table = table();
        Self {
            choices,
            table,
            slots: slots.to_vec(),
            sessions: Vec::new(),
            objects: Vec::new(),
            state: Vec::new(),
            wrong_pins: 0,
        }
    }

    /// Makes all calls of the input, at most 60.
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

    /// Opens a session and finds all objects of the token.
    fn begin(&mut self) -> CK_SESSION_HANDLE {
        let slot = self.slot();
        let flags = self.choices.pick(&[
            CKF_SERIAL_SESSION | CKF_RW_SESSION,
            CKF_SERIAL_SESSION,
            0,
            CKF_RW_SESSION,
        ]);
        let mut session = 0;
        let rv = call!(
            self.table,
            C_OpenSession,
            slot,
            flags,
            ptr::null_mut(),
            None,
            &raw mut session
        );
        if rv == CKR_OK {
            self.sessions.push(session);
            self.find(session, &mut []);
        }
        session
    }

    fn find(&mut self, session: CK_SESSION_HANDLE, items: &mut [CK_ATTRIBUTE]) {
        let table = self.table;
        let rv = call!(
            table,
            C_FindObjectsInit,
            session,
            items.as_mut_ptr(),
            items.len() as CK_ULONG
        );
        if rv != CKR_OK {
            return;
        }
        let mut found = vec![0; self.choices.pick(&[64, 1, 0])];
        let mut count = 0;
        let rv = call!(
            table,
            C_FindObjects,
            session,
            found.as_mut_ptr(),
            found.len() as CK_ULONG,
            &raw mut count
        );
        if rv == CKR_OK {
            assert!(count as usize <= found.len());
            self.objects.extend(&found[..count as usize]);
            self.objects.truncate(200);
        }
        if !self.choices.rarely(8) {
            call!(table, C_FindObjectsFinal, session);
        }
    }

    /// Makes a call that writes bytes. The call queries the length, has a buffer that is too small,
    /// or has a buffer that is large enough.
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
        match self.choices.below(48) {
            number @ (0..14 | 34..41) => self.call_objects(number),
            number @ (14..20 | 43..) => self.call_tokens(number),
            number => self.call_operations(number),
        }
    }
}
