//! Operations with data.

use super::Caller;
use crate::call;
use crate::templates::Kept;
use cryptoki_sys::*;

impl Caller {
    /// Makes the call with this number.
    pub(super) fn call_operations(&mut self, number: usize) {
        let mut kept = Kept::default();
        let table = self.table;
        match number {
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
                        self.output(|out, size| {
                            call!(table, C_Sign, session, bytes, length, out, size)
                        });
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
                        self.output(|out, size| {
                            call!(table, C_EncryptUpdate, session, bytes, length, out, size)
                        });
                        self.output(|out, size| call!(table, C_EncryptFinal, session, out, size));
                    } else {
                        self.output(|out, size| {
                            call!(table, C_Encrypt, session, bytes, length, out, size)
                        });
                    }
                } else {
                    call!(table, C_DecryptInit, session, &raw mut given, object);
                    if in_parts {
                        self.output(|out, size| {
                            call!(table, C_DecryptUpdate, session, bytes, length, out, size)
                        });
                        self.output(|out, size| call!(table, C_DecryptFinal, session, out, size));
                    } else {
                        self.output(|out, size| {
                            call!(table, C_Decrypt, session, bytes, length, out, size)
                        });
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
                    0 => drop(self.output(|out, size| {
                        call!(table, C_Digest, session, bytes, length, out, size)
                    })),
                    1 => {
                        let object = self.object();
                        call!(table, C_DigestKey, session, object);
                    }
                    2 => {
                        call!(table, C_DigestUpdate, session, bytes, length);
                    }
                    _ => drop(
                        self.output(|out, size| call!(table, C_DigestFinal, session, out, size)),
                    ),
                }
            }
            32 => {
                let session = self.session();
                let state =
                    self.output(|out, size| call!(table, C_GetOperationState, session, out, size));
                self.state = state.unwrap_or_default();
            }
            33 => {
                let (session, mut state) = (self.session(), self.state.clone());
                if self.choices.rarely(2) {
                    state = self.choices.some();
                }
                call!(
                    table,
                    C_SetOperationState,
                    session,
                    state.as_mut_ptr(),
                    state.len() as CK_ULONG,
                    0,
                    0
                );
            }
            41 => {
                let session = self.session();
                let mut room = vec![0_u8; self.choices.below(200)].into_boxed_slice();
                call!(
                    table,
                    C_GenerateRandom,
                    session,
                    room.as_mut_ptr(),
                    room.len() as CK_ULONG
                );
                call!(
                    table,
                    C_SeedRandom,
                    session,
                    room.as_mut_ptr(),
                    room.len() as CK_ULONG
                );
            }
            42 => {
                let session = self.session();
                let flags = self.choices.pick(&[
                    CKF_SIGN,
                    CKF_DIGEST | CKF_FIND_OBJECTS,
                    CKF_DECRYPT,
                    CK_FLAGS::MAX,
                ]);
                call!(table, C_SessionCancel, session, flags);
            }
            _ => {}
        }
    }
}
