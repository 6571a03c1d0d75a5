//! Results that third-party conformance suites require: codes, parts, uses, and private objects.

use cryptoki_sys::*;
use std::ptr;
use testkit::devid::{Bench, label, yes};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{NO, Own, P256, YES, generate};
use testkit::pins;
use testkit::raw::{Code, Item, Raw};

over_our_transport!(
    arguments_that_are_none,
    a_key_of_another_class_may_not_do_that,
    parts_are_gathered_where_the_mechanism_makes_no_hash,
    uses_that_no_key_of_the_type_has_are_refused,
    a_public_key_says_that_it_may_agree,
    a_session_key_that_is_not_private_needs_no_login,
    a_data_object_gets_another_value,
    what_is_supported_in_part,
);

const EC: CK_MECHANISM_TYPE = CKM_EC_KEY_PAIR_GEN;
const RSA: CK_MECHANISM_TYPE = CKM_RSA_PKCS_KEY_PAIR_GEN;

fn no(kind: CK_ATTRIBUTE_TYPE) -> Item {
    (kind, NO.to_vec())
}

fn p256() -> Item {
    (CKA_EC_PARAMS, P256.to_vec())
}

fn bits() -> Item {
    (CKA_MODULUS_BITS, ulong(2048))
}

fn by(mechanism: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    }
}

fn verify_init(own: &Own, mechanism: CK_MECHANISM_TYPE, key: CK_OBJECT_HANDLE) -> Code {
    let mut mechanism = by(mechanism);
    call!(
        own.raw.table,
        C_VerifyInit(own.session, &raw mut mechanism, key)
    )
}

fn verify_in_parts(own: &Own, parts: &[&[u8]], signature: &[u8]) -> Code {
    for part in parts {
        let (at, length) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
        let code = call!(own.raw.table, C_VerifyUpdate(own.session, at, length));
        if code != Code(CKR_OK) {
            return code;
        }
    }
    let (at, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
    call!(own.raw.table, C_VerifyFinal(own.session, at, length))
}

fn arguments_that_are_none(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (raw, session, null) = (&own.raw, own.session, ptr::null_mut());
    let bad = Code(CKR_ARGUMENTS_BAD);
    let mut seed = [7; 8];
    let seeded = call!(raw.table, C_SeedRandom(session, seed.as_mut_ptr(), 8));
    assert_eq!(seeded, Code(CKR_OK));
    assert_eq!(
        call!(raw.table, C_SeedRandom(session, null, 0)),
        Code(CKR_OK)
    );
    assert_eq!(call!(raw.table, C_SeedRandom(session, null, 1)), bad);
    assert_ne!(raw.random(session, 16), raw.random(session, 16));
    assert_eq!(raw.interface(Some((9, 9))), Err(bad));
    // There is no operation, but NULL is still an error.
    let state = call!(
        raw.table,
        C_GetOperationState(session, null, ptr::null_mut())
    );
    assert_eq!(state, bad);
    let state = call!(raw.table, C_SetOperationState(session, null, 0, 0, 0));
    assert_eq!(state, bad);
    let data = own.create(&[(CKA_CLASS, ulong(CKO_DATA))]).unwrap();
    let copied = call!(
        raw.table,
        C_CopyObject(session, data, ptr::null_mut(), 0, ptr::null_mut())
    );
    assert_eq!(copied, bad);
}

fn a_key_of_another_class_may_not_do_that(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (table, session) = (&own.raw.table, own.session);
    let (public, private) = own.generate(RSA, &[bits()], &[yes(CKA_DECRYPT)]).unwrap();
    let data = own.create(&[(CKA_CLASS, ulong(CKO_DATA))]).unwrap();
    let not_permitted = Code(CKR_KEY_FUNCTION_NOT_PERMITTED);
    let no_key = Code(CKR_KEY_HANDLE_INVALID);
    for (object, code) in [
        (public, not_permitted),
        (data, no_key),
        (0, no_key),
        (77_777, no_key),
    ] {
        let mut pkcs = by(CKM_RSA_PKCS);
        assert_eq!(own.raw.sign_init(session, CKM_RSA_PKCS, object), Err(code));
        let decrypt = call!(table, C_DecryptInit(session, &raw mut pkcs, object));
        assert_eq!(decrypt, code);
    }
    for (object, code) in [(private, not_permitted), (data, no_key)] {
        let mut pkcs = by(CKM_RSA_PKCS);
        assert_eq!(verify_init(&own, CKM_RSA_PKCS, object), code);
        let encrypt = call!(table, C_EncryptInit(session, &raw mut pkcs, object));
        assert_eq!(encrypt, code);
    }
    // No operation began.
    assert_eq!(
        own.raw.sign(session, b"data"),
        Err(Code(CKR_OPERATION_NOT_INITIALIZED))
    );
}

/// pkcs11-tool and p11-kit send parts to every mechanism. The signature is equal to that of C_Sign.
fn parts_are_gathered_where_the_mechanism_makes_no_hash(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let raw = &own.raw;
    let ec = own.generate(EC, &[p256()], &[]).unwrap();
    let rsa = own.generate(RSA, &[bits()], &[]).unwrap();
    let digest: Vec<u8> = (0..32).collect();
    let info = testkit::signing::Hash::named("sha256").digest_info(&digest);
    for (mechanism, (public, key), data) in [(CKM_ECDSA, ec, &digest), (CKM_RSA_PKCS, rsa, &info)] {
        raw.sign_init(own.session, mechanism, key).unwrap();
        let (first, second) = data.split_at(5);
        for part in [first, b"", second] {
            raw.sign_update(own.session, part).unwrap();
        }
        // A length query ends nothing.
        let (code, length) = raw.sign_final_into(own.session, None);
        assert_eq!(code, Code(CKR_OK));
        let signature = raw.sign_final(own.session).unwrap();
        assert_eq!(signature.len() as CK_ULONG, length);
        let judge = own.verifier(&bench.home, public);
        match mechanism {
            CKM_ECDSA => judge.accepts_digest(&digest, &signature).ok(),
            _ => judge.accepts_pkcs1("sha256", &digest, &signature).ok(),
        };
        let parts = [second, first];
        assert_eq!(verify_init(&own, mechanism, public), Code(CKR_OK));
        let verified = verify_in_parts(&own, &[first, second], &signature);
        assert_eq!(verified, Code(CKR_OK));
        assert_eq!(verify_init(&own, mechanism, public), Code(CKR_OK));
        let verified = verify_in_parts(&own, &parts, &signature);
        assert_eq!(verified, Code(CKR_SIGNATURE_INVALID));
        // C_Sign does not end what was begun in parts.
        raw.sign_init(own.session, mechanism, key).unwrap();
        raw.sign_update(own.session, data).unwrap();
        let mixed = raw.sign(own.session, data);
        assert_eq!(mixed, Err(Code(CKR_OPERATION_ACTIVE)));
        // More than can be signed is not gathered.
        raw.sign_init(own.session, mechanism, key).unwrap();
        raw.sign_update(own.session, data).unwrap();
        let long = raw.sign_update(own.session, &[0; 1 << 20]);
        assert_eq!(long, Err(Code(CKR_DATA_LEN_RANGE)));
        let over = raw.sign_final(own.session);
        assert_eq!(over, Err(Code(CKR_OPERATION_NOT_INITIALIZED)));
    }
    // Empty data is not a digest.
    raw.sign_init(own.session, CKM_ECDSA, ec.1).unwrap();
    let empty = raw.sign_final(own.session);
    assert_eq!(empty, Err(Code(CKR_DATA_LEN_RANGE)));
}

fn uses_that_no_key_of_the_type_has_are_refused(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, private) = (true, false);
    let inconsistent = Err(Code(CKR_TEMPLATE_INCONSISTENT));
    for (mechanism, size, half, kinds) in [
        (EC, p256(), public, &[CKA_ENCRYPT, CKA_VERIFY_RECOVER][..]),
        (EC, p256(), private, &[CKA_DECRYPT, CKA_SIGN_RECOVER]),
        (RSA, bits(), public, &[CKA_DERIVE]),
        (RSA, bits(), private, &[CKA_DERIVE]),
    ] {
        for kind in kinds {
            let (mut public, mut private) = (vec![size.clone()], vec![]);
            let asked = if half { &mut public } else { &mut private };
            asked.push(yes(*kind));
            let made = own.generate(mechanism, &public, &private);
            assert_eq!(made, inconsistent, "{kind:#x}");
        }
    }
    // Uses that clients ask of each RSA key are shown as false. A use set to false is no request.
    let public = [
        bits(),
        yes(CKA_VERIFY_RECOVER),
        yes(CKA_WRAP),
        no(CKA_DERIVE),
    ];
    let private = [yes(CKA_SIGN_RECOVER), no(CKA_DERIVE)];
    let (key, private) = own.generate(RSA, &public, &private).unwrap();
    for (key, kind) in [
        (key, CKA_WRAP),
        (key, CKA_VERIFY_RECOVER),
        (private, CKA_SIGN_RECOVER),
    ] {
        assert_eq!(own.attribute(key, kind), NO, "{kind:#x}");
    }
    // pkcs11-provider asks for both of each EC key.
    let (public, private) = ([p256(), yes(CKA_WRAP)], [yes(CKA_UNWRAP)]);
    let (public, private) = own.generate(EC, &public, &private).unwrap();
    assert_eq!(own.attribute(public, CKA_WRAP), NO);
    assert_eq!(own.attribute(private, CKA_UNWRAP), NO);
}

fn a_public_key_says_that_it_may_agree(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let token = yes(CKA_TOKEN);
    for (asked, value) in [
        (yes(CKA_DERIVE), YES),
        (no(CKA_DERIVE), NO),
        (label("x"), NO),
    ] {
        let public = [p256(), token.clone(), asked];
        let private = [token.clone(), yes(CKA_DERIVE)];
        let (key, _) = own.generate(EC, &public, &private).unwrap();
        assert_eq!(own.attribute(key, CKA_DERIVE), value);
        assert_eq!(own.attribute(key, CKA_VERIFY), YES);
    }
    // As a file says it, not only as it was made.
    let own = own.anew();
    let says = [(CKA_CLASS, ulong(CKO_PUBLIC_KEY)), yes(CKA_DERIVE)];
    assert_eq!(own.find(&says).len(), 1);
}

fn signs(raw: &Raw, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Code> {
    raw.sign_init(session, CKM_ECDSA_SHA256, key)?;
    raw.sign(session, b"data")
}

fn a_session_key_that_is_not_private_needs_no_login(link: Link) {
    let (bench, token) = pins::Bench::with_pins(link);
    let session = token.read_write();
    let pair = |private: &[Item]| generate(&token.raw, session, EC, &[p256()], private);
    let not_logged_in = Err(Code(CKR_USER_NOT_LOGGED_IN));
    assert_eq!(pair(&[]), not_logged_in, "private is what it is by default");
    assert_eq!(pair(&[yes(CKA_PRIVATE)]), not_logged_in);
    let (public, key) = pair(&[no(CKA_PRIVATE)]).unwrap();
    let value = token.raw.attribute(session, key, CKA_PRIVATE);
    assert_eq!(value, Ok(NO.to_vec()));
    let signature = signs(&token.raw, session, key).unwrap();
    let judge = token.verifier(&bench, session, public);
    judge.accepts_message("-sha256", b"data", &signature).ok();
    token.login(session, pins::USER).unwrap();
    assert!(signs(&token.raw, session, key).is_ok());
    let (_, hidden) = pair(&[]).unwrap();
    token.raw.logout(session).unwrap();
    assert!(signs(&token.raw, session, key).is_ok(), "it stays");
    let gone = token.raw.attribute(session, hidden, CKA_LABEL);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    bench.counts(0);
}

fn a_data_object_gets_another_value(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for on_token in [YES, NO] {
        let data = [
            (CKA_CLASS, ulong(CKO_DATA)),
            (CKA_TOKEN, on_token.to_vec()),
            (CKA_VALUE, b"before".to_vec()),
        ];
        let object = own.create(&data).unwrap();
        let id = own.attribute(object, CKA_UNIQUE_ID);
        let changes = [
            (CKA_VALUE, b"after".to_vec()),
            (CKA_APPLICATION, b"a test".to_vec()),
            (CKA_OBJECT_ID, vec![0x06, 0x01, 0x2A]),
        ];
        own.change(object, &changes).unwrap();
        for (kind, value) in &changes {
            assert_eq!(own.attribute(object, *kind), *value, "{kind:#x}");
        }
        assert_eq!(own.attribute(object, CKA_UNIQUE_ID), id);
        assert_eq!(own.find(&[(CKA_VALUE, b"after".to_vec())]), [object]);
        // All or nothing.
        let half = [(CKA_VALUE, b"half".to_vec()), (CKA_APPLICATION, vec![0xFF])];
        let refused = own.change(object, &half);
        assert_eq!(refused, Err(Code(CKR_ATTRIBUTE_VALUE_INVALID)));
        assert_eq!(own.attribute(object, CKA_VALUE), b"after");
        own.destroy(object).unwrap();
    }
}

/// docs/SUPPORT.md says "in part" for exactly these calls. Each does something, and lacks the part
/// that the page names.
fn what_is_supported_in_part(link: Link) {
    let page = testkit::folders::root().join("docs/SUPPORT.md");
    let page = std::fs::read_to_string(page).unwrap();
    let in_part = page.lines().filter(|line| line.contains("| in part |"));
    let mut in_part: Vec<_> = in_part
        .map(|line| line.split(' ').nth(1).unwrap())
        .collect();
    for call in &in_part {
        let named = format!("- {call}: ");
        assert!(page.lines().any(|line| line.starts_with(&named)), "{call}");
    }
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (table, session) = (&own.raw.table, own.session);
    let mut tried = |call: &str, does: Code, leaves_out: (Code, CK_RV)| {
        assert_eq!(does, Code(CKR_OK), "{call}");
        assert_eq!(leaves_out.0, Code(leaves_out.1), "{call}");
        in_part.retain(|one| *one != call);
    };
    let (_, key) = own.pair("of the token");
    let data = own.create(&[(CKA_CLASS, ulong(CKO_DATA))]).unwrap();
    let mut made = 0;
    let mut copy = |object| {
        call!(
            table,
            C_CopyObject(session, object, ptr::null_mut(), 0, &raw mut made)
        )
    };
    tried(
        "C_CopyObject",
        copy(data),
        (copy(key), CKR_ACTION_PROHIBITED),
    );

    let wait = |flags| {
        call!(
            table,
            C_WaitForSlotEvent(flags, ptr::null_mut(), ptr::null_mut())
        )
    };
    assert_eq!(wait(CKF_DONT_BLOCK), Code(CKR_NO_EVENT));
    let blocks = wait(0);
    tried(
        "C_WaitForSlotEvent",
        Code(CKR_OK),
        (blocks, CKR_FUNCTION_NOT_SUPPORTED),
    );

    own.raw.sign_init(session, CKM_ECDSA, key).unwrap();
    let mut state = vec![0; 4096];
    let mut length = state.len() as CK_ULONG;
    let of_signature = call!(
        table,
        C_GetOperationState(session, state.as_mut_ptr(), &raw mut length)
    );
    own.raw.sign(session, &[7; 32]).unwrap();
    let mut sha256 = by(CKM_SHA256);
    let begun = call!(table, C_DigestInit(session, &raw mut sha256));
    assert_eq!(begun, Code(CKR_OK));
    length = state.len() as CK_ULONG;
    let of_digest = call!(
        table,
        C_GetOperationState(session, state.as_mut_ptr(), &raw mut length)
    );
    let unsupported = CKR_FUNCTION_NOT_SUPPORTED;
    tried(
        "C_GetOperationState",
        of_digest,
        (of_signature, unsupported),
    );
    let mut set = |length| {
        call!(
            table,
            C_SetOperationState(session, state.as_mut_ptr(), length, 0, 0)
        )
    };
    let whole = set(length);
    let invalid = CKR_SAVED_STATE_INVALID;
    tried("C_SetOperationState", whole, (set(length - 1), invalid));

    let secret = |extractable: &[u8]| {
        own.create(&[
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
            (CKA_VALUE, vec![7; 16]),
            (CKA_EXTRACTABLE, extractable.to_vec()),
        ])
        .unwrap()
    };
    let digest = |key| call!(table, C_DigestKey(session, key));
    let taken = digest(secret(YES));
    let indigestible = CKR_KEY_INDIGESTIBLE;
    tried("C_DigestKey", taken, (digest(secret(NO)), indigestible));

    // A seed is accepted; that it is not used, nobody can see.
    let seeded = call!(table, C_SeedRandom(session, state.as_mut_ptr(), 8));
    tried("C_SeedRandom", seeded, (Code(CKR_OK), CKR_OK));

    // tests/encrypt/unwrap.rs shows that private keys can be unwrapped.
    let template = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_AES)),
    ];
    let mut items = testkit::own::attributes(&template);
    let mut kw = by(CKM_AES_KEY_WRAP);
    let (unwrapping, wrapped) = (secret(YES), [7; 24].as_ptr().cast_mut());
    let refused = call!(
        table,
        C_UnwrapKey(
            session,
            &raw mut kw,
            unwrapping,
            wrapped,
            24,
            items.as_mut_ptr(),
            2,
            &raw mut length
        )
    );
    tried(
        "C_UnwrapKey",
        Code(CKR_OK),
        (refused, CKR_TEMPLATE_INCONSISTENT),
    );
    assert_eq!(in_part, [""; 0], "tried, and not told in part");
}
