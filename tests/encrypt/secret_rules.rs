//! Rules for secret keys: parameters of their mechanisms, lengths, uses and attributes.

use cryptoki_sys::*;
use testkit::ciphers::{Bench, gcm, mechanism, pkcs1};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{NO, P256, YES, generate_key};
use testkit::raw::{Code, Item};

over_our_transport!(
    parameters_of_gcm,
    parameters_of_cbc,
    a_code_of_general_length,
    lengths_are_those_that_are_told,
    uses_that_were_not_given,
    what_secret_keys_say,
    nobody_finds_a_key_by_its_value,
    a_key_of_the_session_can_be_read_if_its_owner_wants_that,
);

const WRONG: Result<(), Code> = Err(Code(CKR_MECHANISM_PARAM_INVALID));

fn on_token(yes: bool) -> Item {
    (CKA_TOKEN, if yes { YES } else { NO }.to_vec())
}

fn parameters_of_gcm(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let key = own.aes_key(&[]);
    let by = |parameter: &CK_GCM_PARAMS| mechanism(CKM_AES_GCM, Some(parameter));
    let long = vec![3; (1 << 16) + 1];
    let most = &long[1..];
    for (iv, aad, tag_bits) in [
        (&long[..1], &[][..], 128),
        (&long[..12], most, 96),
        (most, most, 104),
        (&long[..16], &long[..1], 112),
        (&long[..13], &[], 120),
    ] {
        let right = gcm(iv, aad, tag_bits);
        let hidden = own.encrypt(by(&right), key, b"message").unwrap();
        assert_eq!(hidden.len(), 7 + tag_bits as usize / 8);
        let opened = own.decrypt(by(&right), key, &hidden);
        assert_eq!(opened, Ok(b"message".to_vec()));
        let (other_iv, other_aad) = ([&[9], iv].concat(), [&[9], aad].concat());
        let (other_iv, other_aad) = (&other_iv[..iv.len()], &other_aad[1..]);
        let mut others = vec![gcm(other_iv, aad, tag_bits)];
        if !aad.is_empty() {
            let changed: Vec<u8> = other_aad.iter().map(|byte| byte ^ 1).collect();
            let wrong = gcm(iv, &changed, tag_bits);
            let opened = own.decrypt(by(&wrong), key, &hidden);
            assert_eq!(opened, Err(Code(CKR_ENCRYPTED_DATA_INVALID)));
            others.push(gcm(iv, &aad[1..], tag_bits));
        }
        for wrong in others {
            let opened = own.decrypt(by(&wrong), key, &hidden);
            assert_eq!(opened, Err(Code(CKR_ENCRYPTED_DATA_INVALID)));
        }
    }
    for (iv, aad, tag_bits) in [
        (&[][..], &[][..], 128),
        (&long[..], &[], 128),
        (&long[..12], &long[..], 128),
    ] {
        let refused = gcm(iv, aad, tag_bits);
        assert_eq!(own.encrypt_init(by(&refused), key), WRONG);
        assert_eq!(own.decrypt_init(by(&refused), key), WRONG);
    }
    for tag_bits in [0, 1, 8, 64, 88, 95, 97, 127, 129, 256, CK_ULONG::MAX] {
        let refused = gcm(&long[..12], &[], tag_bits);
        assert_eq!(own.encrypt_init(by(&refused), key), WRONG, "{tag_bits}");
    }
    let right = gcm(&long[..12], &[], 128);
    let null = std::ptr::null_mut();
    for refused in [
        CK_GCM_PARAMS { pIv: null, ..right },
        CK_GCM_PARAMS {
            pAAD: null,
            ulAADLen: 5,
            ..right
        },
        CK_GCM_PARAMS {
            ulIvLen: 0,
            ..right
        },
    ] {
        assert_eq!(own.encrypt_init(by(&refused), key), WRONG);
    }
    // NULL names no data where there is none.
    let none = CK_GCM_PARAMS {
        pAAD: null,
        ..right
    };
    assert!(own.encrypt(by(&none), key, b"").is_ok());
    let cut = CK_MECHANISM {
        ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG - 1,
        ..by(&right)
    };
    let missing = mechanism::<u8>(CKM_AES_GCM, None);
    for refused in [cut, missing] {
        assert_eq!(own.encrypt_init(refused, key), WRONG);
    }
}

fn parameters_of_cbc(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let key = own.aes_key(&[]);
    let iv = [4_u8; 32];
    for kind in [CKM_AES_CBC, CKM_AES_CBC_PAD] {
        let with = |at: *const u8, length: CK_ULONG| CK_MECHANISM {
            mechanism: kind,
            pParameter: at.cast_mut().cast(),
            ulParameterLen: length,
        };
        for length in [0, 1, 15, 17, 32, CK_ULONG::MAX] {
            let refused = with(iv.as_ptr(), length);
            assert_eq!(own.encrypt_init(refused, key), WRONG, "{length}");
            assert_eq!(own.decrypt_init(refused, key), WRONG, "{length}");
        }
        assert_eq!(own.encrypt_init(with(std::ptr::null(), 16), key), WRONG);
        assert_eq!(own.encrypt_init(with(iv.as_ptr(), 16), key), Ok(()));
        own.encrypt_cancel(key).unwrap();
    }
    let ecb = mechanism(CKM_AES_ECB, Some(&[4_u8; 16]));
    assert_eq!(own.encrypt_init(ecb, key), WRONG);
    // Every wrong padding has one code, and so has every length that none can have.
    let cbc = mechanism(CKM_AES_CBC, Some(&[4_u8; 16]));
    let padded = mechanism(CKM_AES_CBC_PAD, Some(&[4_u8; 16]));
    for last in [0, 2, 15, 16, 17, 255] {
        let mut block = vec![7; 32];
        block[31] = last;
        let hidden = own.encrypt(cbc, key, &block).unwrap();
        let opened = own.decrypt(padded, key, &hidden);
        assert_eq!(opened, Err(Code(CKR_ENCRYPTED_DATA_INVALID)), "{last}");
    }
    for length in [0, 1, 15, 17] {
        let opened = own.decrypt(padded, key, &vec![7; length]);
        assert_eq!(opened, Err(Code(CKR_ENCRYPTED_DATA_LEN_RANGE)), "{length}");
    }
}

fn a_code_of_general_length(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let key = own.generic_secret(&[]);
    let begin = |length: CK_ULONG| {
        own.raw
            .sign_init_with(own.session, CKM_SHA256_HMAC_GENERAL, &[length], key)
    };
    own.raw
        .sign_init(own.session, CKM_SHA256_HMAC, key)
        .unwrap();
    let whole = own.raw.sign(own.session, b"data").unwrap();
    for length in [1, 12, 31, 32] {
        begin(length).unwrap();
        let code = own.raw.sign(own.session, b"data").unwrap();
        assert_eq!(code, whole[..length as usize]);
        begin(length).unwrap();
        own.raw.sign_update(own.session, b"da").unwrap();
        own.raw.sign_update(own.session, b"ta").unwrap();
        let code = own.raw.sign_final(own.session).unwrap();
        assert_eq!(code, whole[..length as usize]);
        let verified = |code: &[u8]| {
            let mut wanted = length;
            let mut by = mechanism(CKM_SHA256_HMAC_GENERAL, Some(&wanted));
            by.pParameter = (&raw mut wanted).cast();
            let (table, session) = (own.raw.table, own.session);
            call!(table, C_VerifyInit(session, &raw mut by, key)).result()?;
            let (data, at) = (b"data".as_ptr().cast_mut(), code.as_ptr().cast_mut());
            let count = code.len() as CK_ULONG;
            call!(table, C_Verify(session, data, 4, at, count)).result()
        };
        assert_eq!(verified(&code), Ok(()));
        let mut wrong = code.clone();
        wrong[length as usize - 1] ^= 1;
        assert_eq!(verified(&wrong), Err(Code(CKR_SIGNATURE_INVALID)));
        let longer = [&code[..], &[0]].concat();
        assert_eq!(verified(&longer), Err(Code(CKR_SIGNATURE_LEN_RANGE)));
    }
    for length in [0, 33, CK_ULONG::MAX] {
        assert_eq!(begin(length), WRONG, "{length}");
    }
}

/// C_GetMechanismInfo tells the sizes: bytes of AES keys, bits of generic secrets.
fn lengths_are_those_that_are_told(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let info = |kind| own.raw.mechanism_info(own.slot, kind).unwrap();
    let made = |kind, length: CK_ULONG, on: bool| {
        let template = [(CKA_VALUE_LEN, ulong(length)), on_token(on)];
        generate_key(&own.raw, own.session, kind, &template)
    };
    let brought = |key_type, length: CK_ULONG| {
        own.create(&[
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(key_type)),
            (CKA_VALUE, vec![7; length as usize]),
        ])
    };
    let wrong = Err(Code(CKR_ATTRIBUTE_VALUE_INVALID));
    for (kind, key_type, unit) in [
        (CKM_AES_KEY_GEN, CKK_AES, 1),
        (CKM_GENERIC_SECRET_KEY_GEN, CKK_GENERIC_SECRET, 8),
    ] {
        let told = info(kind);
        let (least, most) = (told.ulMinKeySize / unit, told.ulMaxKeySize / unit);
        for on in [false, true] {
            for length in [least, most] {
                let key = made(kind, length, on).unwrap();
                assert_eq!(own.attribute(key, CKA_VALUE_LEN), ulong(length));
            }
            for length in [0, least - 1, most + 1, 1 << 31, CK_ULONG::MAX] {
                assert_eq!(made(kind, length, on), wrong, "{length}");
            }
        }
        assert!(brought(key_type, least).is_ok() && brought(key_type, most).is_ok());
        for length in [0, least - 1, most + 1] {
            assert_eq!(brought(key_type, length), wrong, "{length}");
        }
        let template: [Item; 0] = [];
        let incomplete = generate_key(&own.raw, own.session, kind, &template);
        assert_eq!(incomplete, Err(Code(CKR_TEMPLATE_INCOMPLETE)));
    }
    assert!(made(CKM_AES_KEY_GEN, 24, true).is_ok());
    for between in [17, 20, 23, 25, 31] {
        assert_eq!(made(CKM_AES_KEY_GEN, between, false), wrong, "{between}");
    }
    // Each mechanism works with the smallest and the largest key.
    for kind in own.raw.mechanisms(own.slot).unwrap() {
        let told = info(kind);
        if told.flags & (CKF_ENCRYPT | CKF_SIGN) == 0 || told.flags & CKF_HW != 0 {
            continue;
        }
        let is_cipher = told.flags & CKF_ENCRYPT != 0;
        for size in [told.ulMinKeySize, told.ulMaxKeySize] {
            if is_cipher {
                let key = made(CKM_AES_KEY_GEN, size, false).unwrap();
                let parameter = gcm(&[1; 12], &[], 128);
                let by = match kind {
                    CKM_AES_GCM => mechanism(kind, Some(&parameter)),
                    CKM_AES_ECB => mechanism::<u8>(kind, None),
                    _ => mechanism(kind, Some(&[0_u8; 16])),
                };
                let hidden = own.encrypt(by, key, &[7; 32]).unwrap();
                assert_eq!(own.decrypt(by, key, &hidden), Ok(vec![7; 32]), "{kind:#x}");
            } else {
                let key = made(CKM_GENERIC_SECRET_KEY_GEN, size / 8, false).unwrap();
                let begun = match own.raw.sign_init(own.session, kind, key) {
                    Err(Code(CKR_MECHANISM_PARAM_INVALID)) => {
                        own.raw.sign_init_with(own.session, kind, &[10], key)
                    }
                    begun => begun,
                };
                begun.unwrap();
                assert!(own.raw.sign(own.session, b"data").is_ok(), "{kind:#x}");
            }
        }
    }
}

fn uses_that_were_not_given(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let cbc = mechanism(CKM_AES_CBC_PAD, Some(&[0_u8; 16]));
    let refused = Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED));
    for on in [false, true] {
        let key = own.aes_key(&[(CKA_ENCRYPT, NO.to_vec()), on_token(on)]);
        assert_eq!(own.encrypt_init(cbc, key), refused);
        assert_eq!(own.decrypt_init(cbc, key), Ok(()));
        own.decrypt_init(cbc, key).unwrap_err();
        let _ = own.decrypt_on(&[7; 16]);
        let key = own.aes_key(&[(CKA_DECRYPT, NO.to_vec()), on_token(on)]);
        assert_eq!(own.decrypt_init(cbc, key), refused);
        assert!(own.encrypt(cbc, key, b"data").is_ok());
        let key = own.generic_secret(&[(CKA_SIGN, NO.to_vec()), on_token(on)]);
        let begun = own.raw.sign_init(own.session, CKM_SHA256_HMAC, key);
        assert_eq!(begun, refused);
        let allowed = ulong(CKM_SHA256_HMAC);
        let key = own.generic_secret(&[(CKA_ALLOWED_MECHANISMS, allowed), on_token(on)]);
        let begun = own.raw.sign_init(own.session, CKM_SHA512_HMAC, key);
        assert_eq!(begun, Err(Code(CKR_MECHANISM_INVALID)));
        own.raw
            .sign_init(own.session, CKM_SHA256_HMAC, key)
            .unwrap();
        own.raw.sign(own.session, b"data").unwrap();
    }
    // Keys of another type, and of another class.
    let (aes, generic) = (own.aes_key(&[]), own.generic_secret(&[]));
    let other_type = Err(Code(CKR_KEY_TYPE_INCONSISTENT));
    assert_eq!(own.encrypt_init(cbc, generic), other_type);
    let begun = own.raw.sign_init(own.session, CKM_SHA256_HMAC, aes);
    assert_eq!(begun, other_type);
    let (_, private) = own.agreeing(&P256, &[]);
    assert_eq!(own.encrypt_init(cbc, private), other_type);
    assert_eq!(own.decrypt_init(pkcs1(), aes), other_type);
}

/// Sections 4.7 to 4.10 of PKCS#11 3.0.
fn what_secret_keys_say(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let never = CK_UNAVAILABLE_INFORMATION;
    let dates = [
        (CKA_START_DATE, b"20260101".to_vec()),
        (CKA_END_DATE, b"20361231".to_vec()),
    ];
    let mut said: Vec<(CK_OBJECT_HANDLE, Vec<Item>)> = Vec::new();
    for on in [false, true] {
        let token = if on { YES } else { NO };
        for (sensitive, always) in [(YES, YES), (NO, NO)] {
            let more = [
                &dates[..],
                &[on_token(on), (CKA_SENSITIVE, sensitive.to_vec())],
            ]
            .concat();
            let expected = vec![
                (CKA_CLASS, ulong(CKO_SECRET_KEY)),
                (CKA_KEY_TYPE, ulong(CKK_AES)),
                (CKA_VALUE_LEN, ulong(32)),
                (CKA_TOKEN, token.to_vec()),
                (CKA_SENSITIVE, sensitive.to_vec()),
                (CKA_ALWAYS_SENSITIVE, always.to_vec()),
                (CKA_EXTRACTABLE, NO.to_vec()),
                (CKA_NEVER_EXTRACTABLE, YES.to_vec()),
                (CKA_LOCAL, YES.to_vec()),
                (CKA_KEY_GEN_MECHANISM, ulong(CKM_AES_KEY_GEN)),
                (CKA_WRAP, NO.to_vec()),
                (CKA_UNWRAP, NO.to_vec()),
                (CKA_DERIVE, NO.to_vec()),
                (CKA_TRUSTED, NO.to_vec()),
                (CKA_WRAP_WITH_TRUSTED, NO.to_vec()),
                (CKA_START_DATE, b"20260101".to_vec()),
                (CKA_END_DATE, b"20361231".to_vec()),
            ];
            said.push((own.aes_key(&more), expected));
        }
        let brought = own.create(&[
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
            (CKA_VALUE, vec![7; 20]),
            on_token(on),
        ]);
        let expected = vec![
            (CKA_VALUE_LEN, ulong(20)),
            (CKA_SENSITIVE, YES.to_vec()),
            (CKA_ALWAYS_SENSITIVE, NO.to_vec()),
            (CKA_EXTRACTABLE, NO.to_vec()),
            (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
            (CKA_LOCAL, NO.to_vec()),
            (CKA_KEY_GEN_MECHANISM, ulong(never)),
            (CKA_START_DATE, Vec::new()),
            (CKA_END_DATE, Vec::new()),
        ];
        said.push((brought.unwrap(), expected));
    }
    for (key, expected) in &said {
        for (kind, value) in expected {
            assert_eq!(
                own.attribute(*key, *kind),
                *value,
                "{kind:#x} of {expected:x?}"
            );
        }
        let value = own.raw.attribute(own.session, *key, CKA_VALUE);
        assert_eq!(value, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
        // No call can change these attributes.
        for item in [
            (CKA_EXTRACTABLE, YES.to_vec()),
            (CKA_LOCAL, YES.to_vec()),
            (CKA_VALUE, vec![1; 32]),
            (CKA_VALUE_LEN, ulong(16)),
            (CKA_KEY_TYPE, ulong(CKK_DES3)),
            (CKA_KEY_GEN_MECHANISM, ulong(never)),
            (CKA_NEVER_EXTRACTABLE, YES.to_vec()),
        ] {
            let changed = own.change(*key, std::slice::from_ref(&item));
            let same = own.raw.attribute(own.session, *key, item.0) == Ok(item.1.clone());
            assert!(changed.is_err() || same, "{item:x?}");
        }
    }
    let found = |template: &[Item]| own.find(template).len();
    assert_eq!(found(&[(CKA_CLASS, ulong(CKO_SECRET_KEY))]), 6);
    assert_eq!(found(&[(CKA_KEY_TYPE, ulong(CKK_AES))]), 4);
    assert_eq!(found(&[(CKA_KEY_TYPE, ulong(CKK_AES)), on_token(true)]), 2);
    assert_eq!(found(&[(CKA_VALUE_LEN, ulong(20))]), 2);
    assert_eq!(found(&[(CKA_SENSITIVE, NO.to_vec()), on_token(true)]), 1);
    assert_eq!(found(&[(CKA_START_DATE, b"20260101".to_vec())]), 4);
}

/// A search by value could otherwise find a hidden value byte by byte.
fn nobody_finds_a_key_by_its_value(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let value = (CKA_VALUE, vec![7; 32]);
    let brought = |more: &[Item]| {
        let template = [
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_AES)),
            value.clone(),
        ];
        own.create(&[&template[..], more].concat()).unwrap()
    };
    brought(&[]);
    brought(&[on_token(true)]);
    brought(&[on_token(true), (CKA_SENSITIVE, NO.to_vec())]);
    brought(&[(CKA_SENSITIVE, NO.to_vec())]);
    brought(&[(CKA_EXTRACTABLE, YES.to_vec())]);
    assert_eq!(own.find(std::slice::from_ref(&value)), []);
    let open = [
        (CKA_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, YES.to_vec()),
    ];
    let readable = brought(&open);
    assert_eq!(own.find(std::slice::from_ref(&value)), [readable]);
}

/// As a key that comes of an agreement. The token keeps no such key.
fn a_key_of_the_session_can_be_read_if_its_owner_wants_that(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let shown = [
        (CKA_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, YES.to_vec()),
    ];
    let key = own.aes_key(&shown);
    assert_eq!(own.attribute(key, CKA_VALUE).len(), 32);
    for (kind, value) in [
        (CKA_LOCAL, YES),
        (CKA_ALWAYS_SENSITIVE, NO),
        (CKA_NEVER_EXTRACTABLE, NO),
    ] {
        assert_eq!(own.attribute(key, kind), value, "{kind:#x}");
    }
    // A use that was given up cannot be regained.
    own.change(key, &[(CKA_EXTRACTABLE, YES.to_vec())]).unwrap();
    let other = own.aes_key(&shown[1..]);
    let hidden = own.raw.attribute(own.session, other, CKA_VALUE);
    assert_eq!(hidden, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
    assert_eq!(own.attribute(other, CKA_ALWAYS_SENSITIVE), YES);
    let template = [&[(CKA_VALUE_LEN, ulong(32)), on_token(true)], &shown[..]].concat();
    let kept = generate_key(&own.raw, own.session, CKM_AES_KEY_GEN, &template);
    assert_eq!(kept, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
}
