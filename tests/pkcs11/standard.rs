//! States and codes of the standard: sessions, searches, signatures, attributes. The tests that
//! every module must pass also run against SoftHSM, to check the tests themselves.

use cryptoki_sys::*;
use std::ptr;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::programs::{program, run};
use testkit::raw::{Code, Item, Raw};
use testkit::softhsm::{PIN, SoftHsm, library};
use testkit::tpm::Swtpm;

over_our_transport!(our_module_keeps_the_standard,);
once!(softhsm_keeps_the_standard);

/// A module with a session and an EC key that can sign.
struct Ground {
    raw: Raw,
    slot: CK_SLOT_ID,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
}

fn our_module_keeps_the_standard(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    rows(ours(&home));
}

fn ours(home: &Home) -> Ground {
    let module = Opened::new(home);
    let key = module.key();
    Ground {
        raw: module.raw,
        slot: module.slot,
        session: module.session,
        key,
    }
}

fn softhsm_keeps_the_standard() {
    let (_soft, raw) = SoftHsm::enter();
    let mut generate = program("pkcs11-tool");
    generate
        .arg("--module")
        .arg(library())
        .args(["--token-label", "soft"]);
    generate.args([
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "k",
        "--id",
        "01",
    ]);
    run(generate.args(["--usage-sign", "--pin", PIN])).ok();
    raw.initialize().unwrap();
    let slot = raw.slots(true).unwrap()[0];
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    let key = raw
        .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
        .unwrap()[0];
    rows(Ground {
        raw,
        slot,
        session,
        key,
    });
}

fn rows(ground: Ground) {
    sessions(&ground);
    searches(&ground);
    signatures(&ground);
    attributes(&ground);
    lists(&ground);
    the_end(ground);
}

fn sessions(ground: &Ground) {
    let Ground { raw, slot, .. } = ground;
    let nowhere = raw.open(0xDEAD, CKF_SERIAL_SESSION);
    assert_eq!(nowhere, Err(Code(CKR_SLOT_ID_INVALID)));
    assert_eq!(
        raw.open(*slot, 0),
        Err(Code(CKR_SESSION_PARALLEL_NOT_SUPPORTED))
    );
    let (one, two) = (
        raw.open(*slot, CKF_SERIAL_SESSION),
        raw.open(*slot, CKF_SERIAL_SESSION),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one, two);
    let info = raw.session_info(one).unwrap();
    assert_eq!(
        (info.slotID, info.flags & CKF_SERIAL_SESSION),
        (*slot, CKF_SERIAL_SESSION)
    );
    assert_eq!(info.flags & CKF_RW_SESSION, 0);
    raw.close(one).unwrap();
    for stale in [one, 0, 0xDEAD_BEEF] {
        let invalid = Err(Code(CKR_SESSION_HANDLE_INVALID));
        assert_eq!(raw.close(stale), invalid);
        assert_eq!(raw.session_info(stale).map(|_| ()), invalid);
        assert_eq!(raw.find_init(stale, &[]), invalid);
        assert_eq!(raw.find_next(stale, 1).map(|_| ()), invalid);
        assert_eq!(raw.sign_init(stale, CKM_ECDSA, ground.key), invalid);
        assert_eq!(raw.sign(stale, &[0; 32]).map(|_| ()), invalid);
        assert_eq!(raw.random(stale, 8).map(|_| ()), invalid);
        assert_eq!(
            raw.attribute(stale, ground.key, CKA_CLASS).map(|_| ()),
            invalid
        );
    }
    raw.session_info(two).expect("the other one lives");
    raw.close(two).unwrap();
}

fn searches(ground: &Ground) {
    let Ground { raw, session, .. } = ground;
    let idle = Code(CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(raw.find_next(*session, 1), Err(idle));
    assert_eq!(raw.find_final(*session), Err(idle));

    raw.find_init(*session, &[]).unwrap();
    assert_eq!(
        raw.find_init(*session, &[]),
        Err(Code(CKR_OPERATION_ACTIVE))
    );
    let mut all = Vec::new();
    loop {
        let some = raw.find_next(*session, 1).unwrap();
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    assert!(all.len() >= 2, "at least two keys: {all:?}");
    assert!(
        raw.find_next(*session, 10).unwrap().is_empty(),
        "nothing after the end"
    );
    raw.find_final(*session).unwrap();
    assert_eq!(raw.find_final(*session), Err(idle));

    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), all.len(), "each object once");
    assert!(!all.contains(&0), "an object handle is never 0");

    let nothing: [Item; 1] = [(CKA_LABEL, b"no such label".to_vec())];
    assert!(raw.find(*session, &nothing).unwrap().is_empty());
    let both: [Item; 2] = [
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_EC)),
    ];
    assert_eq!(raw.find(*session, &both).unwrap(), [ground.key]);
    let contradiction: [Item; 2] = [
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_RSA)),
    ];
    assert!(raw.find(*session, &contradiction).unwrap().is_empty());

    // A search of one session is none of another.
    let other = raw.open(ground.slot, CKF_SERIAL_SESSION).unwrap();
    raw.find_init(*session, &[]).unwrap();
    assert_eq!(raw.find_next(other, 1), Err(idle));
    raw.close(other).unwrap();
    raw.find_final(*session).unwrap();
}

fn signatures(ground: &Ground) {
    let Ground {
        raw, session, key, ..
    } = ground;
    let idle = Code(CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(raw.sign(*session, &[0; 32]), Err(idle));
    assert_eq!(raw.sign_update(*session, &[0; 32]), Err(idle));
    assert_eq!(raw.sign_final(*session), Err(idle));
    let wrong = raw.sign_init(*session, 0x7FFF_0000, *key);
    assert_eq!(wrong, Err(Code(CKR_MECHANISM_INVALID)));
    let nothing = raw.sign(*session, &[0; 32]);
    assert_eq!(nothing, Err(idle), "a failed C_SignInit starts nothing");
    assert!(raw.sign_init(*session, CKM_ECDSA, 0).is_err());
    assert!(raw.sign_init(*session, CKM_ECDSA, 0xDEAD_BEEF).is_err());
    let public = raw
        .find(*session, &[(CKA_CLASS, ulong(CKO_PUBLIC_KEY))])
        .unwrap()[0];
    assert!(
        raw.sign_init(*session, CKM_ECDSA, public).is_err(),
        "a public key cannot sign"
    );

    raw.sign_init(*session, CKM_ECDSA, *key).unwrap();
    let again = raw.sign_init(*session, CKM_ECDSA, *key);
    assert_eq!(again, Err(Code(CKR_OPERATION_ACTIVE)));
    let other = raw.open(ground.slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(
        raw.sign(other, &[0; 32]),
        Err(idle),
        "an operation belongs to its session"
    );
    raw.sign_init(other, CKM_ECDSA, *key).unwrap();
    raw.close(other).unwrap();
    assert_eq!(raw.sign_into(*session, &[0; 32], None), (Code(CKR_OK), 64));
    let small = raw.sign_into(*session, &[0; 32], Some(&mut [0; 8]));
    assert_eq!(small, (Code(CKR_BUFFER_TOO_SMALL), 64));
    let one = raw.sign(*session, &[0; 32]).unwrap();
    assert_eq!(one.len(), 64);
    assert_eq!(
        raw.sign(*session, &[0; 32]),
        Err(idle),
        "a signature ends the operation"
    );
    raw.sign_init(*session, CKM_ECDSA, *key).unwrap();
    assert_ne!(
        raw.sign(*session, &[0; 32]).unwrap(),
        one,
        "each signature has its own nonce"
    );
}

fn attributes(ground: &Ground) {
    let Ground {
        raw, session, key, ..
    } = ground;
    assert_eq!(
        raw.attribute(*session, *key, CKA_CLASS).unwrap(),
        ulong(CKO_PRIVATE_KEY)
    );
    assert_eq!(raw.attribute(*session, *key, CKA_TOKEN).unwrap(), [CK_TRUE]);
    let unknown = raw.attribute(*session, *key, CKA_MODULUS);
    assert_eq!(unknown, Err(Code(CKR_ATTRIBUTE_TYPE_INVALID)));
    let secret = raw.attribute(*session, *key, CKA_VALUE);
    assert_eq!(secret, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
    let nobody = raw.attribute(*session, 0xDEAD_BEEF, CKA_CLASS);
    assert_eq!(nobody, Err(Code(CKR_OBJECT_HANDLE_INVALID)));

    // A bad item does not prevent the values of the others.
    let (mut class, mut modulus, mut token) = ([0_u8; 8], [0_u8; 8], [0xEE_u8; 4]);
    let mut items = [
        item(CKA_MODULUS, &mut modulus),
        item(CKA_CLASS, &mut class),
        item(CKA_VALUE, &mut []),
        item(CKA_TOKEN, &mut token),
    ];
    let code = call!(
        raw.table,
        C_GetAttributeValue(*session, *key, items.as_mut_ptr(), 4)
    );
    let codes = [
        Code(CKR_ATTRIBUTE_TYPE_INVALID),
        Code(CKR_ATTRIBUTE_SENSITIVE),
    ];
    assert!(codes.contains(&code), "{code:?}");
    let lengths = items.map(|item| item.ulValueLen);
    let none = CK_UNAVAILABLE_INFORMATION;
    assert_eq!(lengths, [none, 8, none, 1]);
    assert_eq!(
        (class.to_vec(), token),
        (ulong(CKO_PRIVATE_KEY), [1, 0xEE, 0xEE, 0xEE])
    );

    // Too little room for one item: that is said, the others are filled.
    let (mut class, mut token) = ([0_u8; 3], [0_u8]);
    let mut items = [item(CKA_CLASS, &mut class), item(CKA_TOKEN, &mut token)];
    let code = call!(
        raw.table,
        C_GetAttributeValue(*session, *key, items.as_mut_ptr(), 2)
    );
    assert_eq!(code, Code(CKR_BUFFER_TOO_SMALL));
    assert_eq!(
        (items[0].ulValueLen, items[1].ulValueLen),
        (CK_UNAVAILABLE_INFORMATION, 1)
    );
    assert_eq!((class, token), ([0; 3], [1]));
}

fn item(kind: CK_ATTRIBUTE_TYPE, room: &mut [u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: room.as_mut_ptr().cast(),
        ulValueLen: room.len() as CK_ULONG,
    }
}

fn lists(ground: &Ground) {
    let Ground { raw, slot, .. } = ground;
    let mut count = 0;
    let (mut one_slot, null) = ([0; 1], ptr::null_mut());
    let code = call!(
        raw.table,
        C_GetSlotList(0, one_slot.as_mut_ptr(), &raw mut count)
    );
    assert_eq!(code, Code(CKR_BUFFER_TOO_SMALL));
    assert!(count > 0, "the number of slots is told");
    assert_eq!(
        call!(raw.table, C_GetSlotList(0, null, null)),
        Code(CKR_ARGUMENTS_BAD)
    );
    let (mut one_mechanism, mut count) = ([0; 1], 1);
    let code = call!(
        raw.table,
        C_GetMechanismList(*slot, one_mechanism.as_mut_ptr(), &raw mut count)
    );
    assert_eq!(code, Code(CKR_BUFFER_TOO_SMALL));
    assert_eq!(count as usize, raw.mechanisms(*slot).unwrap().len());
    let code = raw.mechanism_info(*slot, 0x7FFF_0000).map(|_| ());
    assert_eq!(code, Err(Code(CKR_MECHANISM_INVALID)));
    let info = raw.mechanism_info(*slot, CKM_ECDSA).unwrap();
    assert_ne!(info.flags & CKF_SIGN, 0);
    for bad in [99, 0xDEAD_BEEF] {
        let invalid = Err(Code(CKR_SLOT_ID_INVALID));
        assert_eq!(raw.slot_info(bad).map(|_| ()), invalid);
        assert_eq!(raw.token_info(bad).map(|_| ()), invalid);
        assert_eq!(raw.mechanisms(bad).map(|_| ()), invalid);
        assert_eq!(raw.mechanism_info(bad, CKM_ECDSA).map(|_| ()), invalid);
        assert_eq!(call!(raw.table, C_CloseAllSessions(bad)).result(), invalid);
    }
}

fn the_end(ground: Ground) {
    let Ground {
        raw, slot, session, ..
    } = ground;
    let more = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(call!(raw.table, C_CloseAllSessions(slot)), Code(CKR_OK));
    for stale in [session, more] {
        assert_eq!(raw.close(stale), Err(Code(CKR_SESSION_HANDLE_INVALID)));
    }
    assert_eq!(
        raw.initialize(),
        Err(Code(CKR_CRYPTOKI_ALREADY_INITIALIZED))
    );
    let reserved = std::ptr::from_ref(&raw).cast_mut().cast();
    assert_eq!(
        call!(raw.table, C_Finalize(reserved)),
        Code(CKR_ARGUMENTS_BAD)
    );
    let last = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.finalize().unwrap();

    let gone = Err(Code(CKR_CRYPTOKI_NOT_INITIALIZED));
    let mut info = CK_INFO::default();
    assert_eq!(raw.finalize(), gone);
    assert_eq!(call!(raw.table, C_GetInfo(&raw mut info)).result(), gone);
    assert_eq!(raw.slots(false).map(|_| ()), gone);
    assert_eq!(raw.slot_info(slot).map(|_| ()), gone);
    assert_eq!(raw.token_info(slot).map(|_| ()), gone);
    assert_eq!(raw.mechanisms(slot).map(|_| ()), gone);
    assert_eq!(raw.mechanism_info(slot, CKM_ECDSA).map(|_| ()), gone);
    assert_eq!(raw.open(slot, CKF_SERIAL_SESSION).map(|_| ()), gone);
    assert_eq!(raw.close(last), gone);
    assert_eq!(raw.session_info(last).map(|_| ()), gone);
    assert_eq!(raw.login(last, CKU_USER, b"1234"), gone);
    assert_eq!(raw.logout(last), gone);
    assert_eq!(raw.find_init(last, &[]), gone);
    assert_eq!(raw.find_next(last, 1).map(|_| ()), gone);
    assert_eq!(raw.find_final(last), gone);
    assert_eq!(raw.attribute(last, 1, CKA_CLASS).map(|_| ()), gone);
    assert_eq!(raw.sign_init(last, CKM_ECDSA, 1), gone);
    assert_eq!(raw.sign(last, &[0; 32]).map(|_| ()), gone);
    assert_eq!(raw.sign_update(last, &[]), gone);
    assert_eq!(raw.sign_final(last).map(|_| ()), gone);
    assert_eq!(raw.random(last, 8).map(|_| ()), gone);

    raw.initialize().expect("an end is no end for good");
    let fresh = raw.open(slot, CKF_SERIAL_SESSION).expect("a session");
    assert!(raw.find_next(fresh, 1).is_err());
    raw.finalize().unwrap();
}
