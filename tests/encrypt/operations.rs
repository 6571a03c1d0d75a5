//! Operations that encrypt and decrypt, with keys of each type: which operations can be active at
//! the same time, and how a message can be divided into parts.

use cryptoki_sys::*;
use testkit::ciphers::{Bench, mechanism, pkcs1};
use testkit::link::Link;
use testkit::own::Own;
use testkit::raw::Code;

over_our_transport!(
    one_operation_of_each_kind,
    the_first_call_decides_how_a_message_comes,
    an_rsa_key_takes_its_message_in_parts,
);

fn one_operation_of_each_kind(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (public, private) = own.decrypting(&[]);
    let (aes, hmac) = (own.aes_key(&[]), own.generic_secret(&[]));
    let cbc = mechanism(CKM_AES_CBC_PAD, Some(&[0_u8; 16]));
    let active = Err(Code(CKR_OPERATION_ACTIVE));
    let by_rsa = |kind| own.raw.sign_init(own.session, kind, private);
    // One operation of each kind can run at the same time.
    own.encrypt_init(cbc, aes).unwrap();
    own.decrypt_init(cbc, aes).unwrap();
    own.raw
        .sign_init(own.session, CKM_SHA256_HMAC, hmac)
        .unwrap();
    for by in [cbc, mechanism::<u8>(CKM_AES_ECB, None)] {
        assert_eq!(own.encrypt_init(by, aes), active);
        assert_eq!(own.decrypt_init(by, aes), active);
    }
    assert_eq!(own.encrypt_init(pkcs1(), public), active);
    assert_eq!(own.decrypt_init(pkcs1(), private), active);
    assert_eq!(
        own.raw.sign_init(own.session, CKM_SHA512_HMAC, hmac),
        active
    );
    assert_eq!(by_rsa(CKM_SHA256_RSA_PKCS), active);
    // A refused call does not end an operation.
    assert!(own.decrypt_on(&[7; 15]).is_err());
    assert!(own.raw.sign(own.session, b"data").is_ok());
    own.encrypt_cancel(aes).unwrap();
    assert!(own.encrypt_cancel(aes).is_err());
    // And the other way round.
    own.encrypt_init(pkcs1(), public).unwrap();
    own.decrypt_init(pkcs1(), private).unwrap();
    by_rsa(CKM_SHA256_RSA_PKCS).unwrap();
    assert_eq!(own.encrypt_init(cbc, aes), active);
    assert_eq!(own.decrypt_init(cbc, aes), active);
    assert_eq!(
        own.raw.sign_init(own.session, CKM_SHA256_HMAC, hmac),
        active
    );
    assert!(own.raw.sign(own.session, b"data").is_ok());
}

fn update(own: &Own, part: &[u8], room: &mut [u8]) -> (Code, CK_ULONG) {
    let (at, count) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
    let (out, mut length) = (room.as_mut_ptr(), room.len() as CK_ULONG);
    let (table, session) = (own.raw.table, own.session);
    let code = call!(
        table,
        C_EncryptUpdate(session, at, count, out, &raw mut length)
    );
    (code, length)
}

fn whole_length(own: &Own, data: &[u8]) -> Code {
    let (at, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
    let (none, mut length) = (std::ptr::null_mut(), 0);
    let (table, session) = (own.raw.table, own.session);
    call!(table, C_Encrypt(session, at, count, none, &raw mut length))
}

/// A query of the length is a call, too. The call of the other kind ends the operation.
fn the_first_call_decides_how_a_message_comes(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (public, _) = own.decrypting(&[]);
    let key = own.aes_key(&[]);
    let cbc = mechanism(CKM_AES_CBC, Some(&[0_u8; 16]));
    let over = Code(CKR_OPERATION_NOT_INITIALIZED);
    let mut room = [0; 300];
    for (by, key) in [(cbc, key), (pkcs1(), public)] {
        own.encrypt_init(by, key).unwrap();
        assert_eq!(whole_length(own, &[7; 16]), Code(CKR_OK));
        let (code, _) = update(own, &[7; 16], &mut room);
        assert_eq!(code, Code(CKR_OPERATION_ACTIVE));
        assert_eq!(whole_length(own, &[7; 16]), over);
        own.encrypt_init(by, key).unwrap();
        assert_eq!(update(own, &[7; 16], &mut room).0, Code(CKR_OK));
        assert_eq!(whole_length(own, &[7; 16]), Code(CKR_OPERATION_ACTIVE));
        assert_eq!(update(own, &[7; 16], &mut room).0, over);
    }
    let hmac = own.generic_secret(&[]);
    let (raw, session) = (&own.raw, own.session);
    raw.sign_init(session, CKM_SHA256_HMAC, hmac).unwrap();
    let (_, code) = (
        raw.sign_into(session, b"data", None),
        raw.sign_update(session, b"data"),
    );
    assert_eq!(code, Err(Code(CKR_OPERATION_ACTIVE)));
    assert_eq!(raw.sign(session, b"data"), Err(over));
}

/// PKCS#11 calls the mechanism single-part. Clients send parts to every mechanism.
fn an_rsa_key_takes_its_message_in_parts(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (public, private) = own.decrypting(&[]);
    let (table, session) = (own.raw.table, own.session);
    let mut room = [0_u8; 300];
    own.encrypt_init(pkcs1(), public).unwrap();
    for part in [&b"mess"[..], b"", b"age"] {
        assert_eq!(update(own, part, &mut room), (Code(CKR_OK), 0));
    }
    let (none, mut length) = (std::ptr::null_mut(), 0);
    let told = call!(table, C_EncryptFinal(session, none, &raw mut length));
    assert_eq!((told, length), (Code(CKR_OK), 256));
    length = 255;
    let out = room.as_mut_ptr();
    let small = call!(table, C_EncryptFinal(session, out, &raw mut length));
    assert_eq!((small, length), (Code(CKR_BUFFER_TOO_SMALL), 256));
    let made = call!(table, C_EncryptFinal(session, out, &raw mut length));
    assert_eq!((made, length), (Code(CKR_OK), 256));
    let hidden = room[..256].to_vec();
    assert_eq!(
        own.decrypt(pkcs1(), private, &hidden),
        Ok(b"message".to_vec())
    );
    let decrypt_update = |part: &[u8]| {
        let (at, count) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
        let (mut out, mut length) = ([0_u8; 300], 300);
        let (out, length) = (out.as_mut_ptr(), &raw mut length);
        call!(table, C_DecryptUpdate(session, at, count, out, length)).result()
    };
    own.decrypt_init(pkcs1(), private).unwrap();
    for part in hidden.chunks(100) {
        decrypt_update(part).unwrap();
    }
    length = 300;
    let opened = call!(table, C_DecryptFinal(session, out, &raw mut length));
    assert_eq!((opened, length), (Code(CKR_OK), 7));
    assert_eq!(room[..7], *b"message");
    // More than the key takes.
    own.decrypt_init(pkcs1(), private).unwrap();
    decrypt_update(&hidden).unwrap();
    assert_eq!(
        decrypt_update(b"x"),
        Err(Code(CKR_ENCRYPTED_DATA_LEN_RANGE))
    );
    assert_eq!(
        decrypt_update(b"x"),
        Err(Code(CKR_OPERATION_NOT_INITIALIZED))
    );
    own.decrypt_init(pkcs1(), private).unwrap();
    decrypt_update(&hidden[1..]).unwrap();
    length = 300;
    let cut = call!(table, C_DecryptFinal(session, out, &raw mut length));
    assert_eq!(cut, Code(CKR_ENCRYPTED_DATA_LEN_RANGE));
    own.encrypt_init(pkcs1(), public).unwrap();
    assert_eq!(update(own, &[7; 245], &mut room).0, Code(CKR_OK));
    assert_eq!(update(own, &[7], &mut room).0, Code(CKR_DATA_LEN_RANGE));
}
