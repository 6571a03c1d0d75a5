//! Digests: the mechanisms, their results, and the start and end of operations (PKCS#11 3.0,
//! section 5.12). The results are compared with OpenSSL and with the vectors of NIST.

use cryptoki_sys::*;
use std::ptr;
use testkit::digests::{DIGESTS, Files, bytes};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::openssl::{self, Verifier};
use testkit::own::{Own, without_tpm};
use testkit::pins;
use testkit::raw::{Code, Raw};
use testkit::tpm::Swtpm;

over_our_transport!(every_token_hashes, no_digest_costs_a_command,);
once!(
    vectors_of_nist,
    a_token_without_tpm_hashes,
    each_length_and_each_part,
    lengths_are_told_and_the_operation_lives,
    an_error_ends_the_operation,
    an_operation_is_begun_once,
    what_begins_no_digest,
    a_digest_beside_a_signature_and_a_search,
    a_digest_goes_on_without_its_tpm,
);

const RIGHT: Result<(), Code> = Ok(());
const ENDED: Code = Code(CKR_OPERATION_NOT_INITIALIZED);

/// The mechanisms are listed for hashing and nothing else, and hash in a read-only session.
#[track_caller]
fn hashes(raw: &Raw, slot: CK_SLOT_ID) {
    let listed = raw.mechanisms(slot).unwrap();
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    for (mechanism, name, _) in DIGESTS {
        assert!(listed.contains(&mechanism), "slot {slot}: no {name}");
        let info = raw.mechanism_info(slot, mechanism).unwrap();
        let said = (info.ulMinKeySize, info.ulMaxKeySize, info.flags);
        assert_eq!(said, (0, 0, CKF_DIGEST), "{name}");
    }
    for mechanism in &listed {
        let flags = raw.mechanism_info(slot, *mechanism).unwrap().flags;
        let is_digest = DIGESTS.iter().any(|(kind, ..)| kind == mechanism);
        assert_eq!(flags & CKF_DIGEST != 0, is_digest, "{mechanism:#x}");
    }
    let mut once = listed.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), listed.len(), "each is listed once");
    raw.digests_as_openssl(session, b"what a device has to say");
    raw.close(session).unwrap();
}

/// The factory's token, the device's own, the token for sessions, a token of files, and a token
/// with a PIN that was not given.
fn every_token_hashes(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    testkit::own::allow_files(&home);
    let module = Opened::new(&home);
    let slots = module.raw.slots(true).unwrap();
    assert_eq!(slots.len(), 4);
    for slot in slots {
        hashes(&module.raw, slot);
    }
    module.raw.finalize().unwrap();
    let (_bench, token) = pins::Bench::with_pins(link);
    hashes(&token.raw, token.slot);
}

fn a_token_without_tpm_hashes() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    hashes(&own.raw, own.slot);
}

fn no_digest_costs_a_command(link: Link) {
    let (bench, token) = pins::Bench::with_pins(link);
    let slots = token.raw.slots(true).unwrap();
    let sessions = slots.iter().map(|slot| {
        token.raw.mechanisms(*slot).unwrap();
        token.raw.open(*slot, CKF_SERIAL_SESSION).unwrap()
    });
    let sessions: Vec<_> = sessions.collect();
    assert_eq!(sessions.len(), 3);
    bench.proxy.book().take();
    for (slot, session) in slots.iter().zip(sessions) {
        for (mechanism, ..) in DIGESTS {
            token.raw.mechanism_info(*slot, mechanism).unwrap();
        }
        token.raw.digests_as_openssl(session, &bytes(1000));
        token.raw.digest_init(session, CKM_SHA256).unwrap();
        token.raw.digest_key(session, 1).unwrap_err();
        token.raw.digest_init(session, CKM_SHA256).unwrap();
        token.raw.digest_cancel(session).unwrap();
    }
    let seen = bench.proxy.book().take();
    assert_eq!(seen.total(), 0, "{seen:?}");
}

/// Messages of FIPS 180 and of CAVS (SHA*ShortMsg.rsp), with their digests.
const VECTORS: [(CK_MECHANISM_TYPE, &[u8], &str); 22] = [
    (CKM_SHA_1, b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    (
        CKM_SHA_1,
        b"\x36",
        "c1dfd96eea8cc2b62785275bca38ac261256e278",
    ),
    (
        CKM_SHA_1,
        b"\xdf\x4b\xd2",
        "bf36ed5d74727dfd5d7854ec6b1d49468d8ee8aa",
    ),
    (
        CKM_SHA_1,
        b"abc",
        "a9993e364706816aba3e25717850c26c9cd0d89d",
    ),
    (
        CKM_SHA_1,
        TWO_BLOCKS,
        "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
    ),
    (
        CKM_SHA224,
        b"",
        "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f",
    ),
    (
        CKM_SHA224,
        b"\x84",
        "3cd36921df5d6963e73739cf4d20211e2d8877c19cff087ade9d0e3a",
    ),
    (
        CKM_SHA224,
        b"abc",
        "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
    ),
    (
        CKM_SHA224,
        TWO_BLOCKS,
        "75388b16512776cc5dba5da1fd890150b0c6455cb4f58b1952522525",
    ),
    (
        CKM_SHA256,
        b"",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    (
        CKM_SHA256,
        b"\xd3",
        "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1",
    ),
    (
        CKM_SHA256,
        b"\xb4\x19\x0e",
        "dff2e73091f6c05e528896c4c831b9448653dc2ff043528f6769437bc7b975c2",
    ),
    (
        CKM_SHA256,
        b"abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    (
        CKM_SHA256,
        TWO_BLOCKS,
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        CKM_SHA384,
        b"",
        concat!(
            "38b060a751ac96384cd9327eb1b1e36a21fdb71114be0743",
            "4c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b"
        ),
    ),
    (
        CKM_SHA384,
        b"\xc5",
        concat!(
            "b52b72da75d0666379e20f9b4a79c33a329a01f06a2fb786",
            "5c9062a28c1de860ba432edfd86b4cb1cb8a75b46076e3b1"
        ),
    ),
    (
        CKM_SHA384,
        b"abc",
        concat!(
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163",
            "1a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        ),
    ),
    (
        CKM_SHA384,
        FOUR_BLOCKS,
        concat!(
            "09330c33f71147e83d192fc782cd1b4753111b173b3b05d2",
            "2fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039"
        ),
    ),
    (
        CKM_SHA512,
        b"",
        concat!(
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce",
            "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
        ),
    ),
    (
        CKM_SHA512,
        b"\x21",
        concat!(
            "3831a6a6155e509dee59a7f451eb35324d8f8f2df6e3708894740f98fdee2388",
            "9f4de5adb0c5010dfb555cda77c8ab5dc902094c52de3278f35a75ebc25f093a"
        ),
    ),
    (
        CKM_SHA512,
        b"abc",
        concat!(
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a",
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
    ),
    (
        CKM_SHA512,
        FOUR_BLOCKS,
        concat!(
            "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018",
            "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"
        ),
    ),
];
/// Two blocks of 64 bytes with their padding.
const TWO_BLOCKS: &[u8] = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
/// Two blocks of 128 bytes with their padding.
const FOUR_BLOCKS: &[u8] = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn\
hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";

fn vectors_of_nist() {
    let files = Files::new();
    let (raw, session) = (&files.raw, files.session);
    for (mechanism, message, right) in VECTORS {
        raw.digest_init(session, mechanism).unwrap();
        let whole = raw.digest(session, message).unwrap();
        raw.digest_init(session, mechanism).unwrap();
        for byte in message {
            raw.digest_update(session, &[*byte]).unwrap();
        }
        let parts = raw.digest_final(session).unwrap();
        for made in [whole, parts] {
            assert_eq!(pins::hex(&made), right, "{mechanism:#x} of {message:x?}");
        }
    }
}

fn each_length_and_each_part() {
    let files = Files::new();
    for length in [1, 55, 56, 63, 64, 65, 111, 112, 119, 127, 128, 129, 100_000] {
        files.raw.digests_as_openssl(files.session, &bytes(length));
    }
}

fn lengths_are_told_and_the_operation_lives() {
    let files = Files::new();
    let (raw, session) = (&files.raw, files.session);
    let data = bytes(300);
    for (mechanism, name, width) in DIGESTS {
        let (size, right) = (width as CK_ULONG, openssl::digest(name, &data));
        let small = (Code(CKR_BUFFER_TOO_SMALL), size);
        let told = (Code(CKR_OK), size);
        raw.digest_init(session, mechanism).unwrap();
        for _ in 0..2 {
            assert_eq!(raw.digest_into(session, &data, None), told, "{name}");
            for room in [0, 1, width - 1] {
                let mut room = vec![0xEE; room];
                let answer = raw.digest_into(session, &data, Some(&mut room));
                assert_eq!(answer, small, "{name}");
                assert!(room.iter().all(|byte| *byte == 0xEE), "nothing is written");
            }
        }
        let mut exact = vec![0xEE; width];
        let made = raw.digest_into(session, &data, Some(&mut exact));
        assert_eq!((made, &exact), (told, &right), "{name}");
        assert_eq!(raw.digest_into(session, &data, None).0, ENDED);

        raw.digest_init(session, mechanism).unwrap();
        for part in data.chunks(100) {
            assert_eq!(raw.digest_final_into(session, None), told, "{name}");
            let answer = raw.digest_final_into(session, Some(&mut vec![0; width - 1]));
            assert_eq!(answer, small, "{name}");
            raw.digest_update(session, part).unwrap();
        }
        assert_eq!(raw.digest_final_into(session, None), told, "{name}");
        let mut room = vec![0xEE; width + 9];
        let made = raw.digest_final_into(session, Some(&mut room));
        assert_eq!((made, &room[..width]), (told, &right[..]), "{name}");
        assert_eq!(room[width..], [0xEE; 9], "nothing beyond is written");
        assert_eq!(raw.digest_final_into(session, None).0, ENDED);
    }
}

fn an_error_ends_the_operation() {
    let files = Files::new();
    let (raw, session) = (&files.raw, files.session);
    let table = &raw.table;
    let (null, mut length) = (ptr::null_mut(), 64);
    let mut room = [0; 64];
    let (to, size) = (room.as_mut_ptr(), &raw mut length);
    let bad = Code(CKR_ARGUMENTS_BAD);
    let wrong: [(&str, &dyn Fn() -> Code, Code); 7] = [
        (
            "no data",
            &|| call!(table, C_Digest(session, null, 5, to, size)),
            bad,
        ),
        (
            "no length of the digest",
            &|| call!(table, C_Digest(session, to, 5, to, ptr::null_mut())),
            bad,
        ),
        (
            "no part",
            &|| call!(table, C_DigestUpdate(session, null, 5)),
            bad,
        ),
        (
            "a part that no memory holds",
            &|| call!(table, C_DigestUpdate(session, to, CK_ULONG::MAX)),
            bad,
        ),
        (
            "no length at the end",
            &|| call!(table, C_DigestFinal(session, to, ptr::null_mut())),
            bad,
        ),
        (
            "no such key",
            &|| call!(table, C_DigestKey(session, 4711)),
            Code(CKR_KEY_HANDLE_INVALID),
        ),
        (
            "the whole after a part",
            &|| {
                raw.digest_update(session, b"a part").unwrap();
                raw.digest_into(session, b"and the whole", Some(&mut [0; 64]))
                    .0
            },
            Code(CKR_OPERATION_ACTIVE),
        ),
    ];
    for (what, make, code) in wrong {
        raw.digest_init(session, CKM_SHA256).unwrap();
        assert_eq!(make(), code, "{what}");
        assert_eq!(raw.digest_update(session, b"more"), Err(ENDED), "{what}");
        // And the next has nothing of it.
        raw.digest_init(session, CKM_SHA256).unwrap();
        let made = raw.digest(session, b"abc").unwrap();
        assert_eq!(made, openssl::digest("-sha256", b"abc"), "{what}");
    }
}

fn an_operation_is_begun_once() {
    let files = Files::new();
    let (raw, session) = (&files.raw, files.session);
    let nothing = || {
        assert_eq!(raw.digest(session, b"x"), Err(ENDED));
        assert_eq!(raw.digest_update(session, b"x"), Err(ENDED));
        assert_eq!(raw.digest_key(session, 1), Err(ENDED));
        assert_eq!(raw.digest_final(session), Err(ENDED));
    };
    nothing();
    raw.digest_init(session, CKM_SHA256).unwrap();
    raw.digest_update(session, b"ab").unwrap();
    let again = raw.digest_init(session, CKM_SHA512);
    assert_eq!(again, Err(Code(CKR_OPERATION_ACTIVE)));
    raw.digest_update(session, b"c").unwrap();
    let right = openssl::digest("-sha256", b"abc");
    assert_eq!(raw.digest_final(session), Ok(right.clone()));
    nothing();
    // Another session has another one.
    let slot = raw.session_info(session).unwrap().slotID;
    let other = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.digest_init(session, CKM_SHA256).unwrap();
    raw.digest_init(other, CKM_SHA_1).unwrap();
    raw.digest_update(other, b"abc").unwrap();
    assert_eq!(raw.digest(session, b"abc"), Ok(right));
    let right = openssl::digest("-sha1", b"abc");
    assert_eq!(raw.digest_final(other), Ok(right));
    // By NULL, by C_SessionCancel, and with the session.
    raw.digest_init(session, CKM_SHA384).unwrap();
    assert_eq!(raw.digest_cancel(session), RIGHT);
    nothing();
    assert_eq!(raw.digest_cancel(session), Err(Code(CKR_ARGUMENTS_BAD)));
    let v3: *const CK_FUNCTION_LIST_3_0 = raw.interface(Some((3, 0))).unwrap().cast();
    // SAFETY: the table of version 3.0 lives as long as the module.
    let v3 = unsafe { &*v3 };
    let cancel = |flags| call!(v3, C_SessionCancel(session, flags)).result();
    raw.digest_init(session, CKM_SHA384).unwrap();
    raw.digest_update(session, b"a part").unwrap();
    assert_eq!(cancel(CKF_SIGN | CKF_VERIFY | CKF_FIND_OBJECTS), RIGHT);
    raw.digest_update(session, b"goes on").unwrap();
    assert_eq!(cancel(CKF_DIGEST), RIGHT);
    nothing();
    assert_eq!(cancel(CKF_DIGEST), RIGHT, "with nothing to cancel");
    raw.digest_init(other, CKM_SHA_1).unwrap();
    raw.close(other).unwrap();
    let closed = Err(Code(CKR_SESSION_HANDLE_INVALID));
    assert_eq!(raw.digest_update(other, b"x"), closed);
    assert_eq!(raw.digest_init(other, CKM_SHA_1), closed);
}

fn what_begins_no_digest() {
    let files = Files::new();
    let (raw, session) = (&files.raw, files.session);
    let bytes = [0; 64];
    let parameter = Err(Code(CKR_MECHANISM_PARAM_INVALID));
    let pss = size_of::<CK_RSA_PKCS_PSS_PARAMS>();
    for (mechanism, ..) in DIGESTS {
        for length in [1, 8, pss, 64] {
            let begun = raw.digest_init_with(session, mechanism, bytes.as_ptr(), length);
            assert_eq!(begun, parameter);
        }
        let begun = raw.digest_init_with(session, mechanism, ptr::null(), 8);
        assert_eq!(begun, parameter);
        // A pointer to nothing is no parameter.
        let begun = raw.digest_init_with(session, mechanism, bytes.as_ptr(), 0);
        assert_eq!(begun, RIGHT);
        raw.digest_cancel(session).unwrap();
    }
    for mechanism in [CKM_MD5, CKM_ECDSA_SHA256, CKM_SHA256_HMAC, CKM_SHA512_256] {
        let begun = raw.digest_init(session, mechanism);
        assert_eq!(begun, Err(Code(CKR_MECHANISM_INVALID)), "{mechanism:#x}");
    }
    assert_eq!(raw.digest_update(session, b"x"), Err(ENDED));
}

fn a_digest_beside_a_signature_and_a_search() {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let module = Opened::new(&home);
    let (raw, session, key) = (&module.raw, module.session, module.key());
    let (signed, hashed) = (bytes(500), bytes(300));
    raw.digest_init(session, CKM_SHA384).unwrap();
    raw.find_init(session, &[]).unwrap();
    raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    for (of_signature, of_digest) in signed.chunks(50).zip(hashed.chunks(30)) {
        raw.sign_update(session, of_signature).unwrap();
        raw.digest_update(session, of_digest).unwrap();
    }
    assert!(!raw.find_next(session, 1).unwrap().is_empty());
    let signature = raw.sign_final(session).unwrap();
    let judge = Verifier::new(&identity.public_key());
    judge.accepts_message("-sha256", &signed, &signature).ok();
    let right = openssl::digest("-sha384", &hashed);
    assert_eq!(raw.digest_final(session), Ok(right));
    raw.find_final(session).unwrap();
    // An object that cannot be digested does not affect the signature.
    raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    raw.sign_update(session, &signed).unwrap();
    raw.digest_init(session, CKM_SHA256).unwrap();
    let refused = raw.digest_key(session, key);
    assert_eq!(refused, Err(Code(CKR_KEY_INDIGESTIBLE)));
    let signature = raw.sign_final(session).unwrap();
    judge.accepts_message("-sha256", &signed, &signature).ok();
    // Nor is a certificate a key, nor a public key a secret one.
    for (class, code) in [
        (CKO_PUBLIC_KEY, CKR_KEY_INDIGESTIBLE),
        (CKO_CERTIFICATE, CKR_KEY_HANDLE_INVALID),
    ] {
        let object = raw.find(session, &[(CKA_CLASS, ulong(class))]).unwrap()[0];
        raw.digest_init(session, CKM_SHA256).unwrap();
        assert_eq!(raw.digest_key(session, object), Err(Code(code)));
        assert_eq!(raw.digest_final(session), Err(ENDED));
    }
}

fn a_digest_goes_on_without_its_tpm() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let module = Opened::new(&home);
    let (raw, session) = (&module.raw, module.session);
    raw.digest_init(session, CKM_SHA256).unwrap();
    raw.digest_update(session, b"ab").unwrap();
    drop(tpm);
    raw.digest_update(session, b"c").unwrap();
    let right = openssl::digest("-sha256", b"abc");
    assert_eq!(raw.digest_final(session), Ok(right));
    raw.digests_as_openssl(session, b"and the next");
}
