//! Several slots: the factory identity, which is read-only, and the device's own keys. Also the
//! current user, and the rights of sessions.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::ptr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use testkit::home::Home;
use testkit::host::host;
use testkit::link::Link;
use testkit::module::{Opened, loaded};
use testkit::own::{NO, Own, YES, create, slot_of, without_tpm};
use testkit::programs::run;
use testkit::raw::{Code, Raw, text};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

once!(
    threads_that_have_ended_leave_no_list,
    sessions_without_end,
    a_host_without_memory
);
over_our_transport!(
    two_tokens_in_one_tpm,
    a_tpm_without_identity_has_the_other_token,
    sessions_read_and_write,
    anybody_is_the_user_where_there_is_no_pin,
);

const READ_WRITE: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;

fn two_tokens_in_one_tpm(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let slots = raw.slots(true).unwrap();
    let tokens: Vec<_> = slots
        .iter()
        .map(|slot| raw.token_info(*slot).unwrap())
        .collect();
    let labels: Vec<_> = tokens.iter().map(|token| text(&token.label)).collect();
    assert_eq!(labels, ["idev-id", "devid", "sessions"]);
    assert_ne!(tokens[0].serialNumber, tokens[1].serialNumber);
    let descriptions: Vec<_> = slots
        .iter()
        .map(|slot| text(&raw.slot_info(*slot).unwrap().slotDescription))
        .collect();
    assert_ne!(descriptions[0], descriptions[1]);
    let both = CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED;
    assert_eq!(tokens[0].flags, both | CKF_WRITE_PROTECTED);
    assert_eq!(tokens[1].flags, both);

    // What keys made there will do is listed before there is one.
    let own = raw.mechanisms(slots[1]).unwrap();
    for (kind, smallest, largest) in [
        (CKM_EC_KEY_PAIR_GEN, 256, 521),
        (CKM_RSA_PKCS_KEY_PAIR_GEN, 2048, 4096),
    ] {
        assert!(own.contains(&kind));
        let info = raw.mechanism_info(slots[1], kind).unwrap();
        let made = CKF_HW | CKF_GENERATE_KEY_PAIR;
        assert_eq!(info.flags & (made | CKF_SIGN), made);
        assert_eq!(info.ulMinKeySize, smallest);
        assert!((smallest..=largest).contains(&info.ulMaxKeySize));
        let refused = raw.mechanism_info(slots[0], kind).map(|_| ());
        assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
    }
    for kind in [
        CKM_ECDSA,
        CKM_ECDSA_SHA256,
        CKM_RSA_PKCS,
        CKM_SHA512_RSA_PKCS,
    ] {
        assert!(own.contains(&kind));
        assert!(raw.mechanism_info(slots[1], kind).unwrap().flags & CKF_SIGN != 0);
    }
    assert!(!raw.mechanisms(slots[0]).unwrap().contains(&CKM_RSA_PKCS));
}

fn a_tpm_without_identity_has_the_other_token(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    assert_eq!(own.raw.slots(true).unwrap(), [own.slot, 256]);
    assert_eq!(own.raw.slots(false).unwrap(), [0, own.slot, 256]);
    own.pair("first");
    assert_eq!(own.labelled("first").len(), 2);
}

fn sessions_read_and_write(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    let Opened { raw, slot, session } = &*own;
    let factory = slot_of(raw, "idev-id");
    let reading = raw.open(*slot, CKF_SERIAL_SESSION).unwrap();
    let info = raw.token_info(*slot).unwrap();
    assert_eq!((info.ulSessionCount, info.ulRwSessionCount), (2, 1));
    let of = |session: &CK_ULONG| {
        let info = raw.session_info(*session).unwrap();
        (info.state, info.flags)
    };
    assert_eq!(of(session), (CKS_RW_PUBLIC_SESSION, READ_WRITE));
    assert_eq!(of(&reading), (CKS_RO_PUBLIC_SESSION, CKF_SERIAL_SESSION));

    // Only the read-write session changes what is on the token; both make objects of their own.
    let data = |token: &[u8]| {
        vec![
            (CKA_CLASS, CKO_DATA.to_ne_bytes().to_vec()),
            (CKA_TOKEN, token.to_vec()),
            (CKA_VALUE, b"some".to_vec()),
        ]
    };
    let only_read = Err(Code(CKR_SESSION_READ_ONLY));
    assert_eq!(create(raw, reading, &data(YES)), only_read);
    let kept = create(raw, *session, &data(YES)).unwrap();
    for session in [reading, *session] {
        create(raw, session, &data(NO)).unwrap();
    }
    let destroyed = call!(raw.table, C_DestroyObject(reading, kept));
    assert_eq!(destroyed, Code(CKR_SESSION_READ_ONLY));
    assert_eq!(own.destroy(kept), Ok(()));

    let foreign = raw.open(factory, CKF_SERIAL_SESSION).unwrap();
    let refused = create(raw, foreign, &data(YES));
    assert_eq!(refused, Err(Code(CKR_TOKEN_WRITE_PROTECTED)));
    create(raw, foreign, &data(NO)).unwrap();
}

/// Any PIN is taken, and none reaches the TPM.
fn anybody_is_the_user_where_there_is_no_pin(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    let Opened { raw, slot, session } = &*own;
    assert_eq!(raw.login(*session, CKU_USER, b"whatever"), Ok(()));
    let again = raw.login(*session, CKU_USER, b"whatever");
    assert_eq!(again, Err(Code(CKR_USER_ALREADY_LOGGED_IN)));
    let info = raw.session_info(*session).unwrap();
    assert_eq!(info.state, CKS_RW_USER_FUNCTIONS);
    let officer = |raw: &Raw| raw.login(*session, CKU_SO, b"whatever");
    assert_eq!(officer(raw), Err(Code(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)));
    assert_eq!(raw.logout(*session), Ok(()));
    assert_eq!(raw.logout(*session), Err(Code(CKR_USER_NOT_LOGGED_IN)));
    // There is no security officer's PIN that could be the right one.
    assert_eq!(officer(raw), Err(Code(CKR_PIN_INCORRECT)));
    let reading = raw.open(*slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(officer(raw), Err(Code(CKR_SESSION_READ_ONLY_EXISTS)));
    // Logged in, everything is there as before; one token's user is not another's.
    let null = ptr::null_mut();
    assert_eq!(
        call!(raw.table, C_Login(reading, CKU_USER, null, 0)),
        Code(CKR_OK)
    );
    let state = raw.session_info(reading).unwrap().state;
    assert_eq!(state, CKS_RO_USER_FUNCTIONS);
    let foreign = slot_of(raw, "idev-id");
    let foreign = raw.open(foreign, CKF_SERIAL_SESSION).unwrap();
    let state = raw.session_info(foreign).unwrap().state;
    assert_eq!(state, CKS_RO_PUBLIC_SESSION);
    // With its last session the login ends.
    assert_eq!(call!(raw.table, C_CloseAllSessions(*slot)), Code(CKR_OK));
    let fresh = raw.open(*slot, READ_WRITE).unwrap();
    let state = raw.session_info(fresh).unwrap().state;
    assert_eq!(state, CKS_RW_PUBLIC_SESSION);
    assert_eq!(tpm.lockout_counter(), 0);
}

/// A new thread may be where one was that has ended.
fn threads_that_have_ended_leave_no_list() {
    const THREADS: usize = 16;
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first");
    own.raw.finalize().unwrap();
    let raw = loaded(&home);
    let folder = home.path("files");
    let mode = |mode: u32| {
        fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(0o777);
    raw.initialize().unwrap();
    let list = |slots: &mut [CK_SLOT_ID]| {
        let mut count = slots.len() as CK_ULONG;
        let at = match slots.is_empty() {
            true => ptr::null_mut(),
            false => slots.as_mut_ptr(),
        };
        let given = call!(raw.table, C_GetSlotList(CK_TRUE, at, &raw mut count)).result();
        given.map(|()| count)
    };
    let all_at_once = |room: usize| {
        let barrier = Barrier::new(THREADS);
        let ask = || {
            let told = list(&mut vec![0; room]);
            barrier.wait();
            told
        };
        thread::scope(|scope| {
            let asking = [(); THREADS].map(|()| scope.spawn(ask));
            asking.map(|thread| thread.join().unwrap())
        })
    };
    let before = list(&mut []).unwrap();
    assert_eq!(all_at_once(0), [Ok(before); THREADS]);
    mode(0o750);
    let now = await_some("the token", Duration::from_secs(60), || {
        let now = list(&mut [0; 8]).unwrap();
        (now > before).then_some(now)
    });
    assert_eq!(all_at_once(8), [Ok(now); THREADS]);
}

/// A program that never closes a session gets an error, and keeps its sessions.
fn sessions_without_end() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (slot, raw) = (own.slot, &own.raw);
    let told = raw.token_info(slot).unwrap();
    let most = told.ulMaxSessionCount;
    assert_eq!(told.ulMaxRwSessionCount, most);
    assert!((1000..100_000).contains(&most), "{most}");
    for one in 1..most {
        let flags = [CKF_SERIAL_SESSION, READ_WRITE][(one % 2) as usize];
        raw.open(slot, flags)
            .unwrap_or_else(|code| panic!("{one}: {code:?}"));
    }
    assert_eq!(raw.token_info(slot).unwrap().ulSessionCount, most);
    for flags in [CKF_SERIAL_SESSION, READ_WRITE] {
        assert_eq!(raw.open(slot, flags), Err(Code(CKR_SESSION_COUNT)));
    }
    own.pair("pair");
    raw.close(own.session).unwrap();
    let last = raw.open(slot, READ_WRITE).unwrap();
    assert_eq!(raw.open(slot, READ_WRITE), Err(Code(CKR_SESSION_COUNT)));
    raw.close(last).unwrap();
    call!(raw.table, C_CloseAllSessions(slot)).result().unwrap();
    assert_eq!(raw.token_info(slot).unwrap().ulSessionCount, 0);
    raw.open(slot, READ_WRITE).unwrap();
}

fn a_host_without_memory() {
    let home = without_tpm();
    Own::on(&home, "files").raw.finalize().unwrap();
    for what in ["sessions", "searches", "objects"] {
        let said = run(&mut host(&home, "memory", &[what])).ok().text();
        assert!(said.starts_with("ended after"), "{said}");
    }
    let said = run(&mut host(&home, "messages", &[])).ok().text();
    assert!(said.starts_with("done"), "{said}");
}
