//! Logins, PINs, and calls that read properties of tokens.

use super::Caller;
use crate::call;
use crate::templates::MECHANISMS;
use cryptoki_sys::*;
use std::ptr;

impl Caller {
    /// Makes the call with this number.
    pub(super) fn call_tokens(&mut self, number: usize) {
        let table = self.table;
        match number {
            14 | 15 => {
                let (session, pin) = (self.session(), self.pin());
                let user = self
                    .choices
                    .pick(&[CKU_USER, CKU_SO, CKU_CONTEXT_SPECIFIC, 9]);
                let rv = call!(
                    table,
                    C_Login,
                    session,
                    user,
                    pin.as_ptr().cast_mut(),
                    pin.len() as CK_ULONG
                );
                self.note_pin(rv);
            }
            16 => {
                let session = self.session();
                call!(table, C_Logout, session);
            }
            17 => {
                let (session, old, new) = (self.session(), self.pin(), self.pin());
                let rv = call!(
                    table,
                    C_SetPIN,
                    session,
                    old.as_ptr().cast_mut(),
                    old.len() as CK_ULONG,
                    new.as_ptr().cast_mut(),
                    new.len() as CK_ULONG
                );
                self.note_pin(rv);
            }
            18 => {
                let (session, pin) = (self.session(), self.pin());
                let rv = call!(
                    table,
                    C_InitPIN,
                    session,
                    pin.as_ptr().cast_mut(),
                    pin.len() as CK_ULONG
                );
                self.note_pin(rv);
            }
            19 => {
                let (slot, pin) = (self.slot(), self.pin());
                let mut label = [self.choices.byte(); 32];
                let rv = call!(
                    table,
                    C_InitToken,
                    slot,
                    pin.as_ptr().cast_mut(),
                    pin.len() as CK_ULONG,
                    label.as_mut_ptr()
                );
                self.note_pin(rv);
            }
            43 => {
                let slot = self.slot();
                let kind = self.choices.pick(&MECHANISMS);
                let mut info = CK_MECHANISM_INFO::default();
                call!(table, C_GetMechanismInfo, slot, kind, &raw mut info);
                let mut count = CK_ULONG::from(self.choices.byte());
                let mut list = vec![0; count as usize].into_boxed_slice();
                call!(
                    table,
                    C_GetMechanismList,
                    slot,
                    list.as_mut_ptr(),
                    &raw mut count
                );
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
                let rv = call!(
                    table,
                    C_LoginUser,
                    session,
                    CKU_USER,
                    pin.as_ptr().cast_mut(),
                    pin.len() as CK_ULONG,
                    name.as_ptr().cast_mut(),
                    name.len() as CK_ULONG
                );
                self.note_pin(rv);
            }
            _ => {
                call!(table, C_Finalize, ptr::null_mut());
                call!(table, C_Initialize, ptr::null_mut());
                self.sessions.clear();
                self.objects.clear();
            }
        }
    }

    /// Counts a refused PIN.
    fn note_pin(&mut self, rv: CK_RV) {
        self.wrong_pins += u32::from(rv == CKR_PIN_INCORRECT);
    }
}
