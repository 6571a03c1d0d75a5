//! C_UnwrapKey: private keys that OpenSSL has wrapped, and C_WrapKey, which there is not.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::ciphers::{Bench, ecdh, mechanism, oaep, openssl_agrees, openssl_encrypts, pkcs1};
use common::home::Home;
use common::module::{Opened, loaded, ulong};
use common::openssl::Verifier;
use common::own::{NO, Own, P256, P256_KEY, RSA_KEY, YES, folder, outside, slot_of};
use common::pins::{OFFICER, Token};
use common::programs::output;
use common::proxy::command;
use common::raw::{Code, Item, Raw};
use common::softhsm::{self, SoftHsm};
use common::story::Link;
use common::tpm::Swtpm;
use common::wrapping::{AesWrap, openssl_wraps, private_key_info, random, rsa_aes, wanted};
use cryptoki_sys::*;
use std::fs;

over_both_links!(
    a_key_wrapped_for_an_rsa_key,
    a_key_wrapped_under_an_agreed_secret
);
over_our_link!(
    a_key_wrapped_under_a_transport_key,
    every_fault_of_a_wrapped_key_is_one,
    keys_that_do_not_unwrap,
    templates_of_wrapped_keys,
    what_an_unwrapping_costs_and_shows,
    keys_in_memory_come_wrapped_too,
    a_token_with_pins,
    who_unwraps_says_so,
    secret_keys_that_are_brought,
);
once!(softhsm_unwraps_the_same);

const P384_KEY: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const PROTECTION: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0004;
const RSA_DECRYPT: u32 = 0x159;
const IMPORT: u32 = 0x156;
const INVALID: Result<u64, Code> = Err(Code(CKR_WRAPPED_KEY_INVALID));

/// The keys that come wrapped: `NAME.key` and `NAME.pub` in the home.
const KEYS: [(&str, [&str; 4], u64); 3] = [
    ("rsa", RSA_KEY, CKK_RSA),
    ("p256", P256_KEY, CKK_EC),
    ("p384", P384_KEY, CKK_EC),
];

fn keys(home: &Home) {
    for (name, algorithm, _) in KEYS {
        outside(home, name, &algorithm);
    }
}

/// OpenSSL accepts a signature of this key with the public half that it had before.
#[track_caller]
fn signs_as(own: &Own, home: &Home, key: u64, name: &str) {
    let verifier = Verifier::new(&home.path(&format!("{name}.pub")));
    let digest = common::openssl::digest("-sha256", b"data");
    match name {
        "rsa" => {
            let signature = own.sign(CKM_SHA256_RSA_PKCS, key, b"data").unwrap();
            verifier.accepts_pkcs1("sha256", &digest, &signature).ok();
        }
        _ => {
            let signature = own.sign(CKM_ECDSA_SHA256, key, b"data").unwrap();
            let said = verifier.accepts_message("-sha256", b"data", &signature);
            said.ok();
        }
    }
}

fn a_key_wrapped_for_an_rsa_key(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let (public, key) = own.unwrapping(&[]);
    let pem = own.pem(home, public);
    let hashes = [
        ("sha1", CKM_SHA_1, CKG_MGF1_SHA1),
        ("sha256", CKM_SHA256, CKG_MGF1_SHA256),
        ("sha512", CKM_SHA512, CKG_MGF1_SHA512),
    ];
    for (((name, _, key_type), (hash, kind, mgf)), bits) in
        KEYS.into_iter().zip(hashes).zip([128, 192, 256])
    {
        let info = private_key_info(home, name);
        let wrapped = openssl_wraps(home, &pem, (bits, hash), &info);
        let inner = oaep(kind, mgf, b"");
        let parameter = rsa_aes(bits as u64, &inner);
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
    assert_eq!(folder(home).len(), 1 + KEYS.len());
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

/// One code, whichever part of it is wrong, and nothing is made of it.
fn every_fault_of_a_wrapped_key_is_one(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let (public, key) = own.unwrapping(&[]);
    let pem = own.pem(home, public);
    let ec = private_key_info(home, "p256");
    let before = folder(home);
    let (sha256, sha1) = (
        oaep(CKM_SHA256, CKG_MGF1_SHA256, b""),
        oaep(CKM_SHA_1, CKG_MGF1_SHA1, b""),
    );
    let labelled = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"label");
    let template = wanted(CKK_EC, &[(CKA_TOKEN, YES.to_vec())]);
    let by_rsa = |bits, inner: &CK_RSA_PKCS_OAEP_PARAMS, wrapped: &[u8]| {
        let parameter = rsa_aes(bits, inner);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        own.unwrap(by, key, wrapped, &template)
    };
    let wrapped = openssl_wraps(home, &pem, (256, "sha256"), &ec);
    let changed = |at: usize| {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        changed
    };
    // The padding around the AES key.
    assert_eq!(by_rsa(256, &sha1, &wrapped), INVALID);
    assert_eq!(by_rsa(256, &labelled, &wrapped), INVALID);
    for at in [0, 1, 255] {
        assert_eq!(by_rsa(256, &sha256, &changed(at)), INVALID);
    }
    let beyond = [&[0xFF; 256], &wrapped[256..]].concat();
    assert_eq!(by_rsa(256, &sha256, &beyond), INVALID);
    // An AES key of another length than is said, or of none.
    assert_eq!(by_rsa(128, &sha256, &wrapped), INVALID);
    let front = openssl_encrypts(home, &pem, &common::wrapping::oaep_options("sha256"), b"x");
    let odd = [&front, &wrapped[256..]].concat();
    assert_eq!(by_rsa(256, &sha256, &odd), INVALID);
    // The checksum.
    for at in [256, 264, wrapped.len() - 1] {
        assert_eq!(by_rsa(256, &sha256, &changed(at)), INVALID);
    }
    let shorter = &wrapped[..wrapped.len() - 8];
    assert_eq!(by_rsa(256, &sha256, shorter), INVALID);
    // What is inside.
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    let rsa = private_key_info(home, "rsa");
    let file = home.path("p256.key");
    let sec1 = ["ec", "-outform", "DER", "-in", file.to_str().unwrap()];
    let mut outside_of_the_curve = ec.clone();
    let scalar = ec.windows(2).position(|two| two == [0x04, 0x20]).unwrap() + 2;
    outside_of_the_curve[scalar..scalar + 32].fill(0xFF);
    let mut of_another = ec.clone();
    of_another[scalar + 31] ^= 1;
    for wrong in [
        vec![7; 40],
        b"\x30\x00\0\0\0\0\0\0".to_vec(),
        ec[..ec.len() - 1].to_vec(),
        [&ec[..], b"x"].concat(),
        [&ec[..], &[0]].concat(),
        output("openssl", sec1),
        outside_of_the_curve,
        of_another,
        // A key, but none of the type that is asked for.
        rsa.clone(),
    ] {
        let wrapped = AesWrap::Kwp.wraps(home, &value, &wrong);
        let made = own.unwrap(AesWrap::Kwp.plain(), transport, &wrapped, &template);
        assert_eq!(made, INVALID);
    }
    let mut composite = rsa.clone();
    // One bit of the first prime.
    let prime = rsa.windows(3).rposition(|three| three == [2, 1, 3]);
    assert!(prime.is_none_or(|at| at > 0));
    let at = rsa.len() / 2 + 60;
    composite[at] ^= 4;
    for (wrong, key_type) in [(composite, CKK_RSA), (ec.clone(), CKK_RSA)] {
        let wrapped = AesWrap::Kwp.wraps(home, &value, &wrong);
        let by = AesWrap::Kwp.plain();
        let made = own.unwrap(by, transport, &wrapped, &wanted(key_type, &[]));
        assert_eq!(made, INVALID);
    }
    // By the other way of wrapping, and under another key.
    let wrapped = AesWrap::Kwp.wraps(home, &value, &ec);
    let made = own.unwrap(AesWrap::Kw.plain(), transport, &wrapped, &template);
    assert_eq!(made, INVALID);
    let other = own.transport(CKK_AES, &random(32)).unwrap();
    let made = own.unwrap(AesWrap::Kwp.plain(), other, &wrapped, &template);
    assert_eq!(made, INVALID);
    // Lengths that nothing wrapped has say so, and cost nothing.
    bench.proxy.book().take();
    let range = Err(Code(CKR_WRAPPED_KEY_LEN_RANGE));
    for length in [0, 1, 255, 256, 264, 271, 273, 256 + 16 * 1024 + 8] {
        assert_eq!(by_rsa(256, &sha256, &vec![1; length]), range, "{length}");
    }
    for (by, lengths) in [(AesWrap::Kw, [0, 16, 25]), (AesWrap::Kwp, [0, 8, 17])] {
        for length in lengths {
            let made = own.unwrap(by.plain(), transport, &vec![1; length], &template);
            assert_eq!(made, range, "{by:?} {length}");
        }
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
    assert_eq!(folder(home), before);
    assert_eq!(bench.tpm.transients(), 0);
    // All of it reads the same in the log.
    let log = home.log();
    let lines = log.lines().filter(|line| line.contains("unwrapping: "));
    let said: std::collections::BTreeSet<_> = lines
        .map(|line| line.split_once("unwrapping: ").unwrap().1)
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
}

fn keys_that_do_not_unwrap(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let sha256 = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &sha256);
    let by_rsa = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    let by_aes = AesWrap::Kwp.plain();
    let (public, key) = own.unwrapping(&[]);
    let (_, decrypts) = own.decrypting(&[]);
    let (_, signs) = own.pair("signs");
    let only_cipher = [(CKA_ALLOWED_MECHANISMS, ulong(CKM_RSA_PKCS_OAEP))];
    let (_, limited) = own.unwrapping(&only_cipher);
    let transport = own.transport(CKK_AES, &[7; 32]).unwrap();
    let short = own.transport(CKK_GENERIC_SECRET, &[7; 20]).unwrap();
    let data = own.create(&[(CKA_CLASS, ulong(CKO_DATA))]).unwrap();
    let handle = CKR_UNWRAPPING_KEY_HANDLE_INVALID;
    let other_type = CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT;
    bench.proxy.book().take();
    for (by, key, code) in [
        (by_rsa, 0, handle),
        (by_rsa, 0x7777_7777, handle),
        (by_rsa, public, handle),
        (by_rsa, data, handle),
        (by_rsa, signs, other_type),
        (by_rsa, transport, other_type),
        (by_rsa, decrypts, CKR_KEY_FUNCTION_NOT_PERMITTED),
        (by_rsa, limited, CKR_MECHANISM_INVALID),
        (by_aes, public, handle),
        (by_aes, key, other_type),
        (by_aes, short, CKR_UNWRAPPING_KEY_SIZE_RANGE),
        (
            mechanism::<u8>(CKM_AES_KEY_WRAP_PAD, None),
            transport,
            CKR_MECHANISM_INVALID,
        ),
        (pkcs1(), key, CKR_MECHANISM_INVALID),
    ] {
        let refused = own.unwrap(by, key, &[7; 512], &wanted(CKK_EC, &[]));
        assert_eq!(refused, Err(Code(code)), "{:#x} {key}", by.mechanism);
    }
    assert_eq!(own.attribute(short, CKA_UNWRAP), NO);
    assert_eq!(
        own.attribute(limited, CKA_ALLOWED_MECHANISMS),
        only_cipher[0].1[..0]
    );
    // Parameters.
    let wrong = Err(Code(CKR_MECHANISM_PARAM_INVALID));
    let template = wanted(CKK_EC, &[]);
    let none = mechanism::<u8>(CKM_RSA_AES_KEY_WRAP, None);
    assert_eq!(own.unwrap(none, key, &[7; 512], &template), wrong);
    for bits in [0, 100, 512] {
        let parameter = rsa_aes(bits, &sha256);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        assert_eq!(own.unwrap(by, key, &[7; 512], &template), wrong);
    }
    let unknown = oaep(CKM_MD5, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &unknown);
    let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    assert_eq!(own.unwrap(by, key, &[7; 512], &template), wrong);
    let initial = [0xA5_u8; 8];
    let by = mechanism(CKM_AES_KEY_WRAP, Some(&initial));
    assert_eq!(own.unwrap(by, transport, &[7; 32], &template), wrong);
    assert_eq!(bench.proxy.book().take().total(), 0);
    // What its owner gives up, it no longer does.
    own.change(key, &[(CKA_UNWRAP, NO.to_vec())]).unwrap();
    own.change(transport, &[(CKA_UNWRAP, NO.to_vec())]).unwrap();
    for (by, key) in [(by_rsa, key), (by_aes, transport)] {
        let refused = own.unwrap(by, key, &[7; 512], &template);
        assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
    }
}

fn templates_of_wrapped_keys(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    let wrapped = AesWrap::Kwp.wraps(home, &value, &private_key_info(home, "p256"));
    let by = AesWrap::Kwp.plain();
    let unwrap = |template: &[Item]| own.unwrap(by, transport, &wrapped, template);
    bench.proxy.book().take();
    let whole = wanted(CKK_EC, &[]);
    for one in &whole {
        let refused = unwrap(&[one.clone()]);
        assert_eq!(refused, Err(Code(CKR_TEMPLATE_INCOMPLETE)));
    }
    assert_eq!(unwrap(&wanted(CKK_RSA, &[])), INVALID);
    for (item, code) in [
        (
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        ((CKA_KEY_TYPE, ulong(CKK_DSA)), CKR_TEMPLATE_INCONSISTENT),
    ] {
        let mut template = whole.clone();
        let place = template.iter().position(|(kind, _)| *kind == item.0);
        template[place.unwrap()] = item;
        assert_eq!(unwrap(&template), Err(Code(code)));
    }
    let persistent: Item = (CKA_VENDOR_DEFINED | 0x4445_0005, YES.to_vec());
    for (item, code) in [
        ((CKA_SENSITIVE, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_EXTRACTABLE, YES.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_SIGN, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        (persistent, CKR_TEMPLATE_INCONSISTENT),
        ((CKA_SIGN, vec![2]), CKR_ATTRIBUTE_VALUE_INVALID),
        // What is wrapped says these itself.
        ((CKA_EC_PARAMS, P256.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_VALUE, vec![7; 32]), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_MODULUS, vec![7; 256]), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_LOCAL, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        (
            (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
            CKR_ATTRIBUTE_READ_ONLY,
        ),
        ((CKA_VERIFY, YES.to_vec()), CKR_ATTRIBUTE_TYPE_INVALID),
    ] {
        let kind = item.0;
        assert_eq!(
            unwrap(&wanted(CKK_EC, &[item])),
            Err(Code(code)),
            "{kind:#x}"
        );
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
    let info = common::openssl::public_key_der(&home.path("p384.pub"));
    let other = unwrap(&wanted(CKK_EC, &[(CKA_PUBLIC_KEY_INFO, info)]));
    assert_eq!(other, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    let info = common::openssl::public_key_der(&home.path("p256.pub"));
    unwrap(&wanted(CKK_EC, &[(CKA_PUBLIC_KEY_INFO, info)])).unwrap();
    assert_eq!(folder(home).len(), 0);

    // A session that only reads makes keys for itself.
    let raw = loaded(home);
    let session = raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let slot = own.slot;
    let reader = Own(Opened { raw, slot, session });
    let on_token = wanted(CKK_EC, &[(CKA_TOKEN, YES.to_vec())]);
    let refused = reader.unwrap(by, transport, &wrapped, &on_token);
    assert_eq!(refused, Err(Code(CKR_SESSION_READ_ONLY)));
    let brief = reader.unwrap(by, transport, &wrapped, &whole).unwrap();
    signs_as(own, home, brief, "p256");
    own.raw.close(session).unwrap();
    let gone = own.raw.attribute(own.session, brief, CKA_CLASS);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
}

/// Four commands for a key that is wrapped for an RSA key, one for others; and none of them carries
/// the private key, or what unwraps it.
fn what_an_unwrapping_costs_and_shows(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let (public, key) = own.unwrapping(&[]);
    let pem = own.pem(home, public);
    let sha256 = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &sha256);
    let by_rsa = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    for (name, _, key_type) in KEYS {
        let info = private_key_info(home, name);
        let aes = random(32);
        let front = openssl_encrypts(home, &pem, &common::wrapping::oaep_options("sha256"), &aes);
        let for_rsa = [front, AesWrap::Kwp.wraps(home, &aes, &info)].concat();
        let for_aes = AesWrap::Kwp.wraps(home, &value, &info);
        for (by, with, wrapped, decryptions, commands) in [
            (by_rsa, key, &for_rsa, 1, 5),
            (AesWrap::Kwp.plain(), transport, &for_aes, 0, 1),
        ] {
            bench.proxy.book().take();
            bench.proxy.book().keep();
            let made = own.unwrap(by, with, wrapped, &wanted(key_type, &[]));
            let made = made.unwrap();
            let book = bench.proxy.book().take();
            let counted = (book.of(RSA_DECRYPT), book.of(IMPORT), book.total());
            assert_eq!(counted, (decryptions, 1, commands), "{book:?}");
            signs_as(own, home, made, name);
            let wire = bench.proxy.book().wire();
            let is_seen = |bytes: &[u8]| {
                let mut packets = wire.iter();
                packets.any(|packet| packet.windows(bytes.len()).any(|part| part == bytes))
            };
            // What is on it is found: the public key.
            let public = common::openssl::public_key_der(&home.path(&format!("{name}.pub")));
            let (x, number) = match name {
                "rsa" => (&public[40..72], &info[info.len() / 2..]),
                _ => (&public[public.len() - 32..], &info[36..]),
            };
            assert!(is_seen(x));
            for part in number.chunks_exact(16) {
                assert!(!is_seen(part), "{name}: a part of the private key");
            }
            for secret in [&aes, &value] {
                assert!(!is_seen(secret), "{name}: what unwraps it");
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
        if name == "rsa" {
            assert_eq!(made, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
            continue;
        }
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
    let own = Own::new(home);
    let raw = loaded(home);
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
    drop(own);
}

fn a_token_with_pins(link: Link) {
    let (bench, token) = common::pins::Bench::with_pins(link);
    let home = &bench.home;
    keys(home);
    let session = token.read_write();
    let Token { raw, slot } = &token;
    let slot = *slot;
    let own = Own(Opened {
        raw: Raw::load(&common::module::library()),
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
    token.login(session, common::pins::USER).unwrap();
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

/// Flags and mechanisms promise what there is; of keys whose files say more, too.
fn who_unwraps_says_so(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--template", "h1"]);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    let kinds = [CKM_RSA_AES_KEY_WRAP, CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP];
    let factory = own.raw.slots(true).unwrap()[0];
    for kind in own.raw.mechanisms(factory).unwrap() {
        let flags = own.raw.mechanism_info(factory, kind).unwrap().flags;
        assert_eq!(flags & (CKF_WRAP | CKF_UNWRAP), 0);
        assert!(!kinds.contains(&kind));
    }
    let listed = own.raw.mechanisms(own.slot).unwrap();
    for kind in &listed {
        let info = own.raw.mechanism_info(own.slot, *kind).unwrap();
        let unwraps = kinds.contains(kind);
        assert_eq!(info.flags & CKF_UNWRAP != 0, unwraps, "{kind:#x}");
        assert_eq!(info.flags & CKF_WRAP, 0, "{kind:#x}");
    }
    assert!(kinds.iter().all(|kind| listed.contains(kind)));
    let sizes = |kind| {
        let info = own.raw.mechanism_info(own.slot, kind).unwrap();
        (info.ulMinKeySize, info.ulMaxKeySize)
    };
    assert_eq!(sizes(CKM_AES_KEY_WRAP), (16, 32));
    assert_eq!(sizes(CKM_RSA_AES_KEY_WRAP), (2048, 4096));

    let all = [CKA_WRAP, CKA_ENCRYPT].map(|kind| (kind, YES.to_vec()));
    let public = [
        &all[..],
        &[(CKA_MODULUS_BITS, ulong(2048)), (CKA_TOKEN, YES.to_vec())],
    ]
    .concat();
    let private = [CKA_UNWRAP, CKA_TOKEN].map(|kind| (kind, YES.to_vec()));
    let kind = CKM_RSA_PKCS_KEY_PAIR_GEN;
    let (public, private) = own.generate(kind, &public, &private).unwrap();
    let (other_public, other) = own.pair("ec");
    for (key, attribute, value) in [
        (public, CKA_WRAP, NO),
        (public, CKA_ENCRYPT, YES),
        (private, CKA_UNWRAP, YES),
        (private, CKA_DECRYPT, NO),
        (other_public, CKA_WRAP, NO),
        (other, CKA_UNWRAP, NO),
    ] {
        assert_eq!(own.attribute(key, attribute), value, "{attribute:#x}");
    }
    let allowed = own.attribute(private, CKA_ALLOWED_MECHANISMS);
    let mut allowed = allowed.chunks(8);
    assert!(allowed.any(|one| one == CKM_RSA_AES_KEY_WRAP.to_ne_bytes()));
    // A file of old says that its public half wraps, and its private half on a curve unwraps.
    own.raw.finalize().unwrap();
    for file in folder(&home) {
        let text = fs::read_to_string(&file).unwrap();
        let said = text.replace("Usage: verify, encrypt", "Usage: verify, encrypt, wrap");
        let said = said.replace("Usage: verify\n", "Usage: verify, wrap\n");
        let said = said.replace("Usage: sign\n", "Usage: sign, unwrap\n");
        assert!(said.contains("wrap"), "{text}");
        fs::write(&file, said).unwrap();
    }
    let own = Own::new(&home);
    for (class, attribute, count) in [
        (CKO_PUBLIC_KEY, CKA_WRAP, 0),
        (CKO_PRIVATE_KEY, CKA_UNWRAP, 1),
    ] {
        let found = own.find(&[(CKA_CLASS, ulong(class)), (attribute, YES.to_vec())]);
        assert_eq!(found.len(), count);
        assert_eq!(own.find(&[(CKA_CLASS, ulong(class))]).len(), 2);
    }
}

fn secret_keys_that_are_brought(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    bench.proxy.book().take();
    let transport = own.transport(CKK_AES, &[7; 24]).unwrap();
    for (kind, value) in [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_AES)),
        (CKA_TOKEN, NO.to_vec()),
        (CKA_LOCAL, NO.to_vec()),
        (CKA_SENSITIVE, YES.to_vec()),
        (CKA_ALWAYS_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, NO.to_vec()),
        (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
        (CKA_VALUE_LEN, ulong(24)),
        (CKA_UNWRAP, YES.to_vec()),
        (CKA_WRAP, NO.to_vec()),
    ] {
        assert_eq!(own.attribute(transport, kind), value, "{kind:#x}");
    }
    let allowed = [ulong(CKM_AES_KEY_WRAP), ulong(CKM_AES_KEY_WRAP_KWP)].concat();
    assert_eq!(own.attribute(transport, CKA_ALLOWED_MECHANISMS), allowed);
    let hidden = own.raw.attribute(own.session, transport, CKA_VALUE);
    assert_eq!(hidden, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
    let base = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_AES)),
        (CKA_VALUE, vec![7; 16]),
    ];
    let open = [
        (CKA_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, YES.to_vec()),
    ];
    let readable = own.create(&[&base[..], &open].concat()).unwrap();
    assert_eq!(own.attribute(readable, CKA_VALUE), [7; 16]);
    let silent = own.create(&base).unwrap();
    assert_eq!(own.attribute(silent, CKA_UNWRAP), NO);
    assert_eq!(own.attribute(silent, CKA_ALLOWED_MECHANISMS), []);
    for (at, item, code) in [
        (2, (CKA_VALUE, vec![7; 20]), CKR_ATTRIBUTE_VALUE_INVALID),
        (2, (CKA_LABEL, vec![]), CKR_TEMPLATE_INCOMPLETE),
        (1, (CKA_LABEL, vec![]), CKR_TEMPLATE_INCOMPLETE),
        (
            1,
            (CKA_KEY_TYPE, ulong(CKK_DES3)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
    ] {
        let mut template = base.clone();
        template[at] = item;
        assert_eq!(own.create(&template), Err(Code(code)));
    }
    let on_token = [&base[..], &[(CKA_TOKEN, YES.to_vec())]].concat();
    assert_eq!(own.create(&on_token), Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    own.destroy(transport).unwrap();
    let refused = own.unwrap(
        AesWrap::Kwp.plain(),
        transport,
        &[7; 64],
        &wanted(CKK_EC, &[]),
    );
    assert_eq!(refused, Err(Code(CKR_UNWRAPPING_KEY_HANDLE_INVALID)));
    assert_eq!(bench.proxy.book().take().total(), 0);
}

/// The same calls on another module: what OpenSSL wrapped is no private form of ours.
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
