//! The content of a valid key wrap for C_UnwrapKey, and the data that CKM_RSA_PKCS signs
//! (DigestInfo). The fuzzer chooses the content. This target wraps the content.
#![no_main]

use aes_kw::cipher::KeyInit;
use aes_kw::{KwAes256, KwpAes256};
use cryptoki_sys::*;
use devid_fuzz::bytes::Bytes;
use devid_fuzz::device::{WRAPPING, open, reset, secret, slots, table, token};
use devid_fuzz::memory::Installed;
use devid_fuzz::templates::{Kept, mechanism, template};
use devid_fuzz::{call, libtpms};
use libfuzzer_sys::fuzz_target;
use std::ptr;

fuzz_target!(|data: &[u8]| {
    reset();
    let _tpm = Installed::new(Box::new(|command| Some(libtpms::execute(command))));
    let table = table();
    assert_eq!(call!(table, C_Initialize, ptr::null_mut()), 0);
    let mut choices = Bytes::new(data);
    let own = token(table, &slots(table), b"devid");
    let session = open(table, own);
    let mut kept = Kept::default();
    if choices.rarely(2) {
        let key = secret(table, session, false);
        let padded = choices.rarely(2);
        let class: CK_ULONG = CKO_PRIVATE_KEY;
        let kind: CK_ULONG = choices.pick(&[CKK_EC, CKK_RSA, CKK_AES]);
        let class = class.to_ne_bytes();
        let kind = kind.to_ne_bytes();
        let on_token = [choices.byte() & 1];
        let first: [(CK_ATTRIBUTE_TYPE, &[u8]); 3] = [
            (CKA_CLASS, &class),
            (CKA_KEY_TYPE, &kind),
            (CKA_TOKEN, &on_token),
        ];
        let mut items = template(&mut choices, &mut kept, &first);
        let (name, mut wrapped) = wrap(padded, choices.rest());
        let mut given = CK_MECHANISM {
            mechanism: name,
            pParameter: ptr::null_mut(),
            ulParameterLen: 0,
        };
        let mut made = 0;
        call!(
            table,
            C_UnwrapKey,
            session,
            &raw mut given,
            key,
            wrapped.as_mut_ptr(),
            wrapped.len() as CK_ULONG,
            items.as_mut_ptr(),
            items.len() as CK_ULONG,
            &raw mut made
        );
    } else {
        let class: CK_ULONG = CKO_PRIVATE_KEY;
        let kind: CK_ULONG = CKK_RSA;
        let mut items = [
            devid_fuzz::templates::attribute(&mut kept, CKA_CLASS, &class.to_ne_bytes()),
            devid_fuzz::templates::attribute(&mut kept, CKA_KEY_TYPE, &kind.to_ne_bytes()),
        ];
        let (mut key, mut count) = (0, 0);
        call!(table, C_FindObjectsInit, session, items.as_mut_ptr(), 2);
        call!(
            table,
            C_FindObjects,
            session,
            &raw mut key,
            1,
            &raw mut count
        );
        call!(table, C_FindObjectsFinal, session);
        assert_eq!(count, 1, "the RSA key");
        let name = choices.pick(&[CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_RSA_X_509]);
        let mut given = mechanism(&mut choices, &mut kept, name);
        call!(table, C_SignInit, session, &raw mut given, key);
        let mut signed = choices.rest().into_boxed_slice();
        let mut signature = [0; 512];
        let mut length = signature.len() as CK_ULONG;
        call!(
            table,
            C_Sign,
            session,
            signed.as_mut_ptr(),
            signed.len() as CK_ULONG,
            signature.as_mut_ptr(),
            &raw mut length
        );
    }
    call!(table, C_Finalize, ptr::null_mut());
});

/// Wraps the content with KW or KWP. Returns the mechanism and the wrapped content.
fn wrap(padded: bool, mut content: Vec<u8>) -> (CK_MECHANISM_TYPE, Box<[u8]>) {
    let mut room = vec![0; content.len() + 32];
    let key = (&WRAPPING).into();
    let wrapped = if padded {
        KwpAes256::new(key).wrap_key(&content, &mut room)
    } else {
        content.resize(content.len().max(9).next_multiple_of(8), 0);
        KwAes256::new(key).wrap_key(&content, &mut room)
    };
    let wrapped = wrapped.map(<[u8]>::to_vec).unwrap_or(content);
    let name = if padded {
        CKM_AES_KEY_WRAP_KWP
    } else {
        CKM_AES_KEY_WRAP
    };
    (name, wrapped.into())
}
