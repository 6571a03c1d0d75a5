//! Choices of the token `idev-id` that the standard leaves open: no PIN, no writing, and the codes
//! in cases in which the standard allows several codes.

use cryptoki_sys::*;
use std::ptr;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::proxy::Proxy;
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_our_transport!(a_login_is_harmless, a_search_and_a_signature_at_once,);
once!(codes_where_we_are_stricter);

/// SoftHSM allows one operation per session; the standard means more.
fn a_search_and_a_signature_at_once(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let (key, Opened { raw, session, .. }) = (module.key(), module);
    let all = raw.find(session, &[]).unwrap();
    raw.find_init(session, &[]).unwrap();
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    assert_eq!(raw.find_next(session, 100).unwrap(), all);
    raw.sign(session, &[7; 32]).unwrap();
    raw.find_final(session).unwrap();
}

/// A token without PIN accepts any login, keeps the login state of the standard, and does not ask
/// the TPM.
fn a_login_is_harmless(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let module = Opened::new(&home);
    let (key, Opened { raw, slot, session }) = (module.key(), module);
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[1; 32]).unwrap();
    proxy.book().take();

    let state = |session| raw.session_info(session).unwrap().state;
    assert_eq!(raw.logout(session), Err(Code(CKR_USER_NOT_LOGGED_IN)));
    for pin in [&b""[..], b"1234", &[0xFF; 200]] {
        assert_eq!(state(session), CKS_RO_PUBLIC_SESSION);
        raw.login(session, CKU_USER, pin).unwrap();
        assert_eq!(state(session), CKS_RO_USER_FUNCTIONS);
        let other = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
        assert_eq!(
            state(other),
            CKS_RO_USER_FUNCTIONS,
            "a login is the token's"
        );
        raw.close(other).unwrap();
        let twice = raw.login(session, CKU_USER, pin);
        assert_eq!(twice, Err(Code(CKR_USER_ALREADY_LOGGED_IN)));
        raw.logout(session).unwrap();
    }
    let null = call!(raw.table, C_Login(session, CKU_USER, ptr::null_mut(), 0));
    assert_eq!(null, Code(CKR_OK));
    raw.close(session).unwrap();
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(
        state(session),
        CKS_RO_PUBLIC_SESSION,
        "the last session's end is a logout"
    );

    assert_eq!(
        raw.login(session, 77, b"1"),
        Err(Code(CKR_USER_TYPE_INVALID))
    );
    let so = raw
        .login(session, CKU_SO, b"1")
        .expect_err("there is no security officer");
    assert_ne!(so, Code(CKR_GENERAL_ERROR));
    let context = raw.login(session, CKU_CONTEXT_SPECIFIC, b"1");
    assert_eq!(context, Err(Code(CKR_OPERATION_NOT_INITIALIZED)));
    let seen = proxy.book().take();
    assert_eq!(seen.total(), 0, "{seen:?}");
    assert_eq!(tpm.lockout_counter(), 0);
    raw.sign_init(session, CKM_ECDSA, key)
        .expect("token objects outlive sessions");
    raw.sign(session, &[1; 32]).unwrap();
}

/// Codes that SoftHSM gets wrong or the standard gives a choice in.
fn codes_where_we_are_stricter() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let module = Opened::new(&home);
    let (key, Opened { raw, slot, session }) = (module.key(), module);
    for stale in [0, 0xDEAD_BEEF] {
        let invalid = Err(Code(CKR_KEY_HANDLE_INVALID));
        assert_eq!(raw.sign_init(session, CKM_ECDSA, stale), invalid);
    }
    for wrong in [CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS, CKM_SHA256] {
        let invalid = Err(Code(CKR_MECHANISM_INVALID));
        assert_eq!(raw.sign_init(session, wrong, key), invalid);
    }
    for class in [CKO_PUBLIC_KEY, CKO_CERTIFICATE] {
        let object = raw.find(session, &[(CKA_CLASS, ulong(class))]).unwrap()[0];
        let code = raw
            .sign_init(session, CKM_ECDSA, object)
            .expect_err("it cannot sign");
        let right = match class {
            CKO_PUBLIC_KEY => CKR_KEY_FUNCTION_NOT_PERMITTED,
            _ => CKR_KEY_HANDLE_INVALID,
        };
        assert_eq!(code, Code(right));
    }
    let mut parameter = [0_u8; 4];
    let mut mechanism = CK_MECHANISM {
        mechanism: CKM_ECDSA,
        pParameter: parameter.as_mut_ptr().cast(),
        ulParameterLen: 4,
    };
    let code = call!(raw.table, C_SignInit(session, &raw mut mechanism, key));
    assert_eq!(code, Code(CKR_MECHANISM_PARAM_INVALID));

    // Handles are never used twice, so a stale one is never another's.
    let mut before = session;
    for _ in 0..100 {
        let next = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
        assert!(next > before, "{next} after {before}");
        raw.close(next).unwrap();
        before = next;
    }

    let none = ptr::null_mut();
    let bad = Code(CKR_ARGUMENTS_BAD);
    let table = &raw.table;
    assert_eq!(call!(table, C_GetInfo(ptr::null_mut())), bad);
    assert_eq!(call!(table, C_GetSlotInfo(slot, ptr::null_mut())), bad);
    assert_eq!(call!(table, C_GetTokenInfo(slot, ptr::null_mut())), bad);
    assert_eq!(
        call!(table, C_GetMechanismList(slot, none, ptr::null_mut())),
        bad
    );
    assert_eq!(
        call!(table, C_GetMechanismInfo(slot, CKM_ECDSA, ptr::null_mut())),
        bad
    );
    let flags = CKF_SERIAL_SESSION;
    assert_eq!(
        call!(
            table,
            C_OpenSession(slot, flags, ptr::null_mut(), None, none)
        ),
        bad
    );
    assert_eq!(
        call!(table, C_GetSessionInfo(session, ptr::null_mut())),
        bad
    );
    assert_eq!(
        call!(table, C_FindObjectsInit(session, ptr::null_mut(), 1)),
        bad
    );
    raw.find_init(session, &[]).unwrap();
    assert_eq!(
        call!(table, C_FindObjects(session, none, 1, &raw mut before)),
        bad
    );
    assert_eq!(
        call!(table, C_FindObjects(session, &raw mut before, 1, none)),
        bad
    );
    raw.find_final(session).unwrap();
    assert_eq!(
        call!(table, C_GetAttributeValue(session, key, ptr::null_mut(), 1)),
        bad
    );
    assert!(
        call!(table, C_SignInit(session, ptr::null_mut(), key))
            .result()
            .is_err()
    );
    assert_eq!(
        call!(table, C_GenerateRandom(session, ptr::null_mut(), 8)),
        bad
    );
    assert_eq!(raw.random(session, 0).unwrap(), []);
    assert_ne!(
        raw.random(session, 32).unwrap(),
        raw.random(session, 32).unwrap()
    );
    let mut seed = [1_u8; 8];
    let code = call!(table, C_SeedRandom(session, seed.as_mut_ptr(), 8));
    assert_eq!(code, Code(CKR_OK));
}
