//! Copies of a digest in progress (PKCS#11 3.0, sections 5.6.4 and 5.6.5).

use cryptoki_sys::*;
use std::ptr;
use testkit::digests::{DIGESTS, Files, bytes};
use testkit::home::Home;
use testkit::module::Opened;
use testkit::openssl;
use testkit::raw::Code;
use testkit::tpm::Swtpm;

once!(a_digest_is_copied_by_its_state, what_has_no_state);

const ENDED: Code = Code(CKR_OPERATION_NOT_INITIALIZED);

/// So do Java and pkcs11-provider copy a digest: TLS does so at each handshake.
fn a_digest_is_copied_by_its_state() {
    let files = Files::new();
    let (raw, session) = (&files.raw, files.session);
    let slot = raw.session_info(session).unwrap().slotID;
    let other = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    for (mechanism, name, _) in DIGESTS {
        for length in [0, 1, 63, 64, 127, 128, 1000] {
            let begun = bytes(length);
            raw.digest_init(session, mechanism).unwrap();
            raw.digest_update(session, &begun).unwrap();
            let state = raw.operation_state(session).unwrap();
            assert_eq!(raw.operation_state(session), Ok(state.clone()));
            // Restoring a state ends the current operation.
            raw.digest_init(other, CKM_SHA_1).unwrap();
            raw.find_init(other, &[]).unwrap();
            assert_eq!(raw.restore(other, &state, [0; 2]), Ok(()), "{name}");
            assert_eq!(raw.find_final(other), Err(ENDED));
            raw.digest_update(other, b"copy").unwrap();
            raw.digest_update(session, b"original").unwrap();
            let of = |more: &[u8]| Ok(openssl::digest(name, &[&begun[..], more].concat()));
            assert_eq!(raw.digest_final(session), of(b"original"), "{name}");
            assert_eq!(raw.digest_final(other), of(b"copy"), "{name}");
            // The state can be used again, in parts as before.
            raw.restore(session, &state, [0; 2]).unwrap();
            let whole = raw.digest(session, b"whole");
            assert_eq!(whole, Err(Code(CKR_OPERATION_ACTIVE)));
            raw.digest_init(session, mechanism).unwrap();
            let fresh = raw.operation_state(session).unwrap();
            raw.digest_cancel(session).unwrap();
            raw.restore(session, &fresh, [0; 2]).unwrap();
            let whole = raw.digest(session, b"whole");
            assert_eq!(whole, Ok(openssl::digest(name, b"whole")));
        }
    }
}

fn what_has_no_state() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let module = Opened::new(&home);
    let (raw, session, key) = (&module.raw, module.session, module.key());
    assert_eq!(raw.operation_state(session), Err(ENDED));
    raw.find_init(session, &[]).unwrap();
    assert_eq!(raw.operation_state(session), Err(ENDED));
    raw.find_final(session).unwrap();
    // A signature has no state, alone or beside a digest, and continues.
    raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    let unsupported = Err(Code(CKR_FUNCTION_NOT_SUPPORTED));
    assert_eq!(raw.operation_state(session), unsupported);
    raw.digest_init(session, CKM_SHA256).unwrap();
    raw.digest_update(session, b"abc").unwrap();
    let unsaveable = Err(Code(CKR_STATE_UNSAVEABLE));
    assert_eq!(raw.operation_state(session), unsaveable);
    raw.sign(session, b"signed").unwrap();
    let state = raw.operation_state(session).unwrap();

    let invalid = Err(Code(CKR_SAVED_STATE_INVALID));
    let longer = [&state[..], &[0]].concat();
    for wrong in [&state[1..], &longer, b"", b"abc", &[0; 500]] {
        assert_eq!(raw.restore(session, wrong, [0; 2]), invalid);
    }
    for place in 0..state.len() {
        let mut damaged = state.clone();
        damaged[place] ^= 0x80;
        assert_eq!(raw.restore(session, &damaged, [0; 2]), invalid, "{place}");
    }
    for keys in [[key, 0], [0, key]] {
        let refused = raw.restore(session, &state, keys);
        assert_eq!(refused, Err(Code(CKR_KEY_NOT_NEEDED)));
    }
    let own = raw.open(testkit::own::slot_of(raw, "devid"), CKF_SERIAL_SESSION);
    let own = own.unwrap();
    assert_eq!(raw.restore(own, &state, [0; 2]), invalid, "another token's");
    // A refused state does not affect the digest.
    let right = openssl::digest("-sha256", b"abc");
    assert_eq!(raw.digest_final(session), Ok(right));
    let bad = Err(Code(CKR_ARGUMENTS_BAD));
    let table = &raw.table;
    let null = ptr::null_mut();
    let restored = call!(table, C_SetOperationState(session, null, 9, 0, 0));
    assert_eq!(restored.result(), bad);
    raw.digest_init(session, CKM_SHA256).unwrap();
    let saved = call!(table, C_GetOperationState(session, null, ptr::null_mut()));
    assert_eq!(saved.result(), bad);
    raw.digest(session, b"goes on").unwrap();
}
