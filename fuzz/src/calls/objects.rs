//! Sessions, objects and keys.

use super::Caller;
use crate::call;
use crate::templates::{Kept, P256, mechanism, question, template};
use cryptoki_sys::*;

impl Caller {
    /// Makes the call with this number.
    pub(super) fn call_objects(&mut self, number: usize) {
        let mut kept = Kept::default();
        let table = self.table;
        match number {
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
                call!(
                    table,
                    C_GetAttributeValue,
                    session,
                    object,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG
                );
            }
            7 => {
                let (session, object) = (self.session(), self.object());
                let mut items = template(&mut self.choices, &mut kept, &[]);
                call!(
                    table,
                    C_SetAttributeValue,
                    session,
                    object,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG
                );
            }
            8..=10 => {
                let session = self.session();
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut object = 0;
                if call!(
                    table,
                    C_CreateObject,
                    session,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG,
                    &raw mut object
                ) == CKR_OK
                {
                    self.objects.push(object);
                }
            }
            11 => {
                let (session, object) = (self.session(), self.object());
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut copy = 0;
                if call!(
                    table,
                    C_CopyObject,
                    session,
                    object,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG,
                    &raw mut copy
                ) == CKR_OK
                {
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
            34 | 35 => {
                let session = self.session();
                let kind = self.choices.pick(&[CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, 0]);
                let mut given = mechanism(&mut self.choices, &mut kept, kind);
                given.ulParameterLen = 0;
                let mut public = template(&mut self.choices, &mut kept, &[(CKA_EC_PARAMS, P256)]);
                let mut private = template(&mut self.choices, &mut kept, &[]);
                let (mut one, mut other) = (0, 0);
                let rv = call!(
                    table,
                    C_GenerateKeyPair,
                    session,
                    &raw mut given,
                    public.as_mut_ptr(),
                    public.len() as CK_ULONG,
                    private.as_mut_ptr(),
                    private.len() as CK_ULONG,
                    &raw mut one,
                    &raw mut other
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
                if call!(
                    table,
                    C_GenerateKey,
                    session,
                    &raw mut given,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG,
                    &raw mut object
                ) == CKR_OK
                {
                    self.objects.push(object);
                }
            }
            38 | 39 => {
                let (session, object) = (self.session(), self.object());
                let kind =
                    self.choices
                        .pick(&[CKM_ECDH1_DERIVE, CKM_ECDH1_COFACTOR_DERIVE, CKM_AES_CBC]);
                let mut given = mechanism(&mut self.choices, &mut kept, kind);
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut made = 0;
                if call!(
                    table,
                    C_DeriveKey,
                    session,
                    &raw mut given,
                    object,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG,
                    &raw mut made
                ) == CKR_OK
                {
                    self.objects.push(made);
                }
            }
            40 => {
                let (session, object) = (self.session(), self.object());
                let kind = self.choices.pick(&[
                    CKM_AES_KEY_WRAP,
                    CKM_AES_KEY_WRAP_KWP,
                    CKM_RSA_AES_KEY_WRAP,
                ]);
                let mut given = mechanism(&mut self.choices, &mut kept, kind);
                let mut wrapped = self.data();
                let mut items = template(&mut self.choices, &mut kept, &[]);
                let mut made = 0;
                call!(
                    table,
                    C_UnwrapKey,
                    session,
                    &raw mut given,
                    object,
                    wrapped.as_mut_ptr(),
                    wrapped.len() as CK_ULONG,
                    items.as_mut_ptr(),
                    items.len() as CK_ULONG,
                    &raw mut made
                );
            }
            _ => {}
        }
    }
}
