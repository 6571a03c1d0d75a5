//! C_UnwrapKey of private keys that OpenSSL has wrapped, with every mechanism, into token objects
//! and session objects.

use cryptoki_sys::*;
use testkit::ciphers::{Bench, ecdh, mechanism, oaep, openssl_agrees, openssl_encrypts, pkcs1};
use testkit::devid::{PERSISTENT, PROTECTION};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, loaded, ulong};
use testkit::own::{NO, Own, P256, RSA_KEY, YES, folder, outside, slot_of};
use testkit::pins::{OFFICER, Token};
use testkit::raw::{Code, Item, Raw};
use testkit::softhsm::{self, SoftHsm};
use testkit::tpm::Swtpm;
use testkit::wrapping::{
    AesWrap, KEYS, keys, openssl_wraps, private_key_info, random, rsa_aes, signs_as, wanted,
};

over_our_transport!(
    a_key_wrapped_for_an_rsa_key,
    a_key_wrapped_under_an_agreed_secret,
    a_key_wrapped_under_a_transport_key,
    keys_in_memory_come_wrapped_too,
    a_token_with_pins,
);
once!(softhsm_unwraps_the_same);

fn a_key_wrapped_for_an_rsa_key(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let persistent: Item = (PERSISTENT, YES.to_vec());
    let unwrapping = [own.unwrapping(&[]), own.unwrapping(&[persistent])];
    let hashes = [
        ("sha1", CKM_SHA_1, CKG_MGF1_SHA1),
        ("sha256", CKM_SHA256, CKG_MGF1_SHA256),
        ("sha512", CKM_SHA512, CKG_MGF1_SHA512),
    ];
    for (((name, _, key_type), (hash, kind, mgf)), bits) in
        KEYS.into_iter().zip(hashes).zip([128, 192, 256])
    {
        let info = private_key_info(home, name);
        // A key in a file, and a key in a persistent handle.
        let (public, key) = unwrapping[usize::from(bits == 256)];
        let wrapped = openssl_wraps(home, &own.pem(home, public), (bits, hash), &info);
        let inner = oaep(kind, mgf, b"");
        let parameter = rsa_aes(bits as CK_ULONG, &inner);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        for token in [NO, YES] {
            let more = [
                (CKA_TOKEN, token.to_vec()),
                (CKA_LABEL, name.into()),
                (CKA_DECRYPT, YES.to_vec()),
            ];
            let made = own.unwrap(by, key, &wrapped, &wanted(key_type, &more));
            let made = made.unwrap();
            for (kind, value) in [
                (CKA_TOKEN, token.to_vec()),
                (CKA_KEY_TYPE, ulong(key_type)),
                (CKA_LOCAL, NO.to_vec()),
                (CKA_SENSITIVE, YES.to_vec()),
                (CKA_ALWAYS_SENSITIVE, NO.to_vec()),
                (CKA_EXTRACTABLE, NO.to_vec()),
                (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
                (CKA_KEY_GEN_MECHANISM, ulong(CK_UNAVAILABLE_INFORMATION)),
                (CKA_LABEL, name.into()),
            ] {
                assert_eq!(own.attribute(made, kind), value, "{name} {kind:#x}");
            }
            signs_as(own, home, made, name);
            if name == "rsa" {
                let hidden = openssl_encrypts(home, &home.path("rsa.pub"), &[], b"hello");
                let plain = own.decrypt(pkcs1(), made, &hidden);
                assert_eq!(plain, Ok(b"hello".to_vec()));
            }
        }
    }
    assert_eq!(folder(home).len(), unwrapping.len() + KEYS.len());
    // Another process finds them.
    own.raw.finalize().unwrap();
    let own = Own::new(home);
    for (name, ..) in KEYS {
        let [key] = own.labelled(name)[..] else {
            panic!("one {name}")
        };
        signs_as(&own, home, key, name);
    }
    assert_eq!(bench.tpm.transients(), 0);
}

fn a_key_wrapped_under_an_agreed_secret(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let (public, key) = own.agreeing(&P256, &[]);
    let (peer, point) = bench.peer("P-256", 32);
    let theirs = openssl_agrees(home, &peer, &own.pem(home, public));
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    for (key_kind, more) in [
        (CKK_AES, vec![(CKA_VALUE_LEN, ulong(32))]),
        (CKK_GENERIC_SECRET, vec![]),
    ] {
        let unwraps = [
            (CKA_KEY_TYPE, ulong(key_kind)),
            (CKA_UNWRAP, YES.to_vec()),
            (CKA_WRAP, YES.to_vec()),
        ];
        let agreed = own
            .derive(by, key, &[&unwraps[..], &more].concat())
            .unwrap();
        for (kind, value) in [(CKA_UNWRAP, YES), (CKA_WRAP, NO), (CKA_SENSITIVE, YES)] {
            assert_eq!(own.attribute(agreed, kind), value);
        }
        for (name, _, key_type) in KEYS {
            let info = private_key_info(home, name);
            let wrapped = AesWrap::Kwp.wraps(home, &theirs, &info);
            let template = wanted(key_type, &[(CKA_TOKEN, YES.to_vec())]);
            let made = own.unwrap(AesWrap::Kwp.plain(), agreed, &wrapped, &template);
            signs_as(own, home, made.unwrap(), name);
        }
    }
    // Its own wish decides.
    let silent = own.derive(by, key, &[]).unwrap();
    assert_eq!(own.attribute(silent, CKA_UNWRAP), NO);
    let refused = own.unwrap(AesWrap::Kwp.plain(), silent, &[7; 64], &wanted(CKK_EC, &[]));
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
}

fn a_key_wrapped_under_a_transport_key(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    for (length, kind) in [(16, CKK_AES), (24, CKK_GENERIC_SECRET), (32, CKK_AES)] {
        let value = random(length);
        let transport = own.transport(kind, &value).unwrap();
        for (name, _, key_type) in KEYS {
            let mut info = private_key_info(home, name);
            let wrapped = AesWrap::Kwp.wraps(home, &value, &info);
            let initial = *b"\xA6\x59\x59\xA6";
            for by in [
                AesWrap::Kwp.plain(),
                mechanism(CKM_AES_KEY_WRAP_KWP, Some(&initial)),
            ] {
                let made = own.unwrap(by, transport, &wrapped, &wanted(key_type, &[]));
                signs_as(own, home, made.unwrap(), name);
            }
            // RFC 3394 takes whole blocks only: the wrapper fills up with zeros.
            info.resize(info.len().next_multiple_of(8), 0);
            let wrapped = AesWrap::Kw.wraps(home, &value, &info);
            let initial = [0xA6_u8; 8];
            for by in [
                AesWrap::Kw.plain(),
                mechanism(CKM_AES_KEY_WRAP, Some(&initial)),
            ] {
                let made = own.unwrap(by, transport, &wrapped, &wanted(key_type, &[]));
                signs_as(own, home, made.unwrap(), name);
            }
        }
    }
}

fn keys_in_memory_come_wrapped_too(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    let by = AesWrap::Kwp.plain();
    let sealed = [(CKA_TOKEN, YES.to_vec()), (PROTECTION, ulong(2))];
    for (name, _, key_type) in KEYS {
        let info = private_key_info(home, name);
        let wrapped = AesWrap::Kwp.wraps(home, &value, &info);
        let made = own.unwrap(by, transport, &wrapped, &wanted(key_type, &sealed));
        let made = made.unwrap();
        assert_eq!(own.attribute(made, PROTECTION), ulong(2));
        assert_eq!(own.attribute(made, CKA_LOCAL), NO);
        signs_as(own, home, made, name);
        bench.proxy.book().take();
        signs_as(own, home, made, name);
        assert_eq!(bench.proxy.book().take().total(), 0);
        let file = [(PROTECTION, ulong(3))];
        let refused = own.unwrap(by, transport, &wrapped, &wanted(key_type, &file));
        assert_eq!(refused, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    }
    own.raw.finalize().unwrap();

    // A token of files takes it without any TPM.
    let tokens = "[[token]]\nname = \"files\"\nallow_file_keys = true\n";
    home.write("config.toml", tokens);
    let raw = loaded(home);
    raw.initialize().unwrap();
    let slot = slot_of(&raw, "files");
    let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
    let files = Own(Opened { raw, slot, session });
    let transport = files.transport(CKK_AES, &value).unwrap();
    let wrapped = AesWrap::Kwp.wraps(home, &value, &private_key_info(home, "p256"));
    bench.proxy.book().take();
    let template = wanted(CKK_EC, &[(CKA_TOKEN, YES.to_vec())]);
    let made = files.unwrap(by, transport, &wrapped, &template).unwrap();
    assert_eq!(files.attribute(made, PROTECTION), ulong(3));
    signs_as(&files, home, made, "p256");
    assert_eq!(bench.proxy.book().take().total(), 0);
}

fn a_token_with_pins(link: Link) {
    let (bench, token) = testkit::pins::Bench::with_pins(link);
    let home = &bench.home;
    keys(home);
    let session = token.read_write();
    let Token { raw, slot } = &token;
    let slot = *slot;
    let own = Own(Opened {
        raw: Raw::load(&testkit::module::library()),
        slot,
        session,
    });
    let value = random(32);
    let open = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_AES)),
        (CKA_VALUE, value.clone()),
        (CKA_UNWRAP, YES.to_vec()),
        (CKA_PRIVATE, NO.to_vec()),
    ];
    // Secret keys are private unless the template says otherwise.
    let refused = own.create(&open[..4]);
    assert_eq!(refused, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    let transport = own.create(&open).unwrap();
    let wrapped = AesWrap::Kwp.wraps(home, &value, &private_key_info(home, "p256"));
    let by = AesWrap::Kwp.plain();
    for more in [
        vec![],
        vec![(CKA_PRIVATE, YES.to_vec())],
        vec![(CKA_TOKEN, YES.to_vec())],
    ] {
        let refused = own.unwrap(by, transport, &wrapped, &wanted(CKK_EC, &more));
        assert_eq!(refused, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    }
    token.login(session, testkit::pins::USER).unwrap();
    let template = wanted(CKK_EC, &[(CKA_TOKEN, YES.to_vec())]);
    let made = own.unwrap(by, transport, &wrapped, &template).unwrap();
    assert_eq!(own.attribute(made, CKA_PRIVATE), YES);
    signs_as(&own, home, made, "p256");
    // For an RSA key behind the PIN, and one that asks for it each time.
    let sha256 = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &sha256);
    let by_rsa = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    let (public, key) = own.unwrapping(&[]);
    let pem = own.pem(home, public);
    let info = private_key_info(home, "p384");
    let for_rsa = openssl_wraps(home, &pem, (256, "sha256"), &info);
    let made = own.unwrap(by_rsa, key, &for_rsa, &template).unwrap();
    signs_as(&own, home, made, "p384");
    let always = [
        (CKA_ALWAYS_AUTHENTICATE, YES.to_vec()),
        (CKA_PRIVATE, YES.to_vec()),
    ];
    let (_, asks) = own.unwrapping(&always);
    assert_eq!(own.attribute(asks, CKA_UNWRAP), NO);
    let refused = own.unwrap(by_rsa, asks, &for_rsa, &template);
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
    raw.logout(session).unwrap();
    let refused = own.unwrap(by_rsa, key, &for_rsa, &template);
    assert_eq!(refused, Err(Code(CKR_UNWRAPPING_KEY_HANDLE_INVALID)));
    token.officer(session, OFFICER).unwrap();
    let refused = own.unwrap(by, transport, &wrapped, &template);
    assert_eq!(refused, Err(Code(CKR_USER_NOT_LOGGED_IN)));
}

/// The calls on another module. OpenSSL made the wrapped data, without our code.
fn softhsm_unwraps_the_same() {
    let tpm = Swtpm::blank();
    let home = Home::new(&tpm.tcti());
    outside(&home, "rsa", &RSA_KEY);
    let mut info = private_key_info(&home, "rsa");
    // SoftHSM wants whole blocks.
    for _ in 0..100 {
        if info.len().is_multiple_of(8) {
            break;
        }
        outside(&home, "rsa", &RSA_KEY);
        info = private_key_info(&home, "rsa");
    }
    let value = random(32);
    let wrapped = AesWrap::Kw.wraps(&home, &value, &info);
    let (_hsm, raw) = SoftHsm::enter();
    raw.initialize().unwrap();
    let slot = raw.slots(true).unwrap()[0];
    let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
    raw.login(session, CKU_USER, softhsm::PIN.as_bytes())
        .unwrap();
    let theirs = Own(Opened { raw, slot, session });
    let ours = Own::new(&home);
    for own in [theirs, ours] {
        let transport = own.transport(CKK_AES, &value).unwrap();
        let by = AesWrap::Kw.plain();
        let more = [(CKA_SIGN, YES.to_vec()), (CKA_TOKEN, NO.to_vec())];
        let template = wanted(CKK_RSA, &more);
        let made = own.unwrap(by, transport, &wrapped, &template).unwrap();
        signs_as(&own, &home, made, "rsa");
        for (kind, value) in [
            (CKA_LOCAL, NO),
            (CKA_ALWAYS_SENSITIVE, NO),
            (CKA_NEVER_EXTRACTABLE, NO),
        ] {
            assert_eq!(own.attribute(made, kind), value, "{kind:#x}");
        }
        let range = own.unwrap(by, transport, &wrapped[1..], &template);
        assert_eq!(range, Err(Code(CKR_WRAPPED_KEY_LEN_RANGE)));
        let handle = own.unwrap(by, 0x7777_7777, &wrapped, &template);
        assert_eq!(handle, Err(Code(CKR_UNWRAPPING_KEY_HANDLE_INVALID)));
    }
}
