//! Data that a program gets by two calls, of which the first asks for the length (PKCS#11 3.0,
//! sections 5.2 and 5.5.1). Also changes between the two calls.

use cryptoki_sys::*;
use std::ptr;
use std::thread;
use std::time::Duration;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::maker::{INDEX, Maker, OPEN};
use testkit::module::loaded;
use testkit::openssl::certificate_der;
use testkit::own::{Own, attributes};
use testkit::proxy::{Fault, Proxy, answer, command};
use testkit::raw::{Code, Raw};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

over_our_transport!(
    a_token_that_appears,
    a_token_that_goes,
    a_mechanism_that_appears,
    an_attribute_that_changes,
);

/// No token for sessions.
const TWO_SLOTS: &str = "session_slot = false\n";
/// The slots of `idev-id` and of `devid`.
const FACTORY: CK_SLOT_ID = 0;
const OWN: CK_SLOT_ID = 1;

/// How many slots there are with a token.
fn count_slots(raw: &Raw) -> Result<CK_ULONG, Code> {
    let mut count = 0;
    let null = ptr::null_mut();
    call!(raw.table, C_GetSlotList(CK_TRUE, null, &raw mut count)).result()?;
    Ok(count)
}

/// The slots with a token, into room for `room`; the count that was told where that is too little.
fn list_slots(raw: &Raw, room: CK_ULONG) -> Result<Vec<CK_SLOT_ID>, (Code, CK_ULONG)> {
    let (mut count, mut slots) = (room, vec![99; room as usize]);
    let to = slots.as_mut_ptr();
    let code = call!(raw.table, C_GetSlotList(CK_TRUE, to, &raw mut count));
    code.result().map_err(|code| (code, count))?;
    slots.truncate(count as usize);
    Ok(slots)
}

fn count_mechanisms(raw: &Raw) -> Result<CK_ULONG, Code> {
    let mut count = 0;
    let null = ptr::null_mut();
    let code = call!(raw.table, C_GetMechanismList(FACTORY, null, &raw mut count));
    code.result().map(|()| count)
}

fn list_mechanisms(raw: &Raw, room: CK_ULONG) -> Result<Vec<CK_MECHANISM_TYPE>, Code> {
    let (mut count, mut list) = (room, vec![0; room as usize]);
    let to = list.as_mut_ptr();
    call!(raw.table, C_GetMechanismList(FACTORY, to, &raw mut count)).result()?;
    list.truncate(count as usize);
    Ok(list)
}

/// Waits until the slot of `idev-id` says that it has a token, or that it has none.
#[track_caller]
fn await_token(raw: &Raw, present: bool) {
    await_some("the change", Duration::from_secs(60), || {
        let info = raw.slot_info(FACTORY).unwrap();
        (present == (info.flags & CKF_TOKEN_PRESENT != 0)).then_some(())
    });
}

/// A device whose identity cannot be read until [`Late::appear`].
struct Late {
    raw: Raw,
    proxy: Proxy,
    _home: Home,
    _tpm: Swtpm,
}

impl Late {
    fn new(link: Link) -> Late {
        let (tpm, _identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        home.write("config.toml", TWO_SLOTS);
        let raw = loaded(&home);
        let late = Late {
            raw,
            proxy,
            _home: home,
            _tpm: tpm,
        };
        late.begin();
        late
    }

    /// From the beginning, the identity hidden.
    fn begin(&self) {
        self.raw.finalize().ok();
        let failure = Fault::Code(answer::FAILURE);
        let book = self.proxy.book();
        book.break_times(command::NV_READ, failure, u32::MAX);
        self.raw.initialize().unwrap();
        assert_eq!(count_slots(&self.raw), Ok(1));
    }

    fn appear(&self) {
        self.proxy.book().heal();
        await_token(&self.raw, true);
    }
}

fn a_token_that_appears(link: Link) {
    let late = Late::new(link);
    let raw = &late.raw;
    let both = Ok(vec![FACTORY, OWN]);
    let own = Ok(vec![OWN]);

    // The usual order of a program. A call without length query sees the current state.
    late.appear();
    assert_eq!(list_slots(raw, 1), own, "what its length was told of");
    assert_eq!(list_slots(raw, 8), both, "what is there now");
    let small = Err((Code(CKR_BUFFER_TOO_SMALL), 2));
    assert_eq!(list_slots(raw, 0), small);

    // More room than was asked for; and too little, which is told and loses nothing.
    late.begin();
    late.appear();
    assert_eq!(list_slots(raw, 8), own);
    assert_eq!(count_slots(raw), Ok(2));
    assert_eq!(list_slots(raw, 1), small);
    assert_eq!(list_slots(raw, 2), both);

    // The list of all slots is another list.
    late.begin();
    late.appear();
    assert_eq!(raw.slots(false), Ok(vec![FACTORY, OWN]));
    assert_eq!(list_slots(raw, 1), own);

    // Two threads, one before and one after the change; a third fetches what it did not ask for.
    late.begin();
    late.appear();
    thread::scope(|scope| {
        let other = scope.spawn(|| (count_slots(raw), list_slots(raw, 2)));
        let fetches = scope.spawn(|| list_slots(raw, 1));
        assert_eq!(other.join().unwrap(), (Ok(2), both.clone()));
        assert_eq!(fetches.join().unwrap(), own);
    });
    assert_eq!(list_slots(raw, 1), own);

    // A child goes on where its parent was; C_Initialize begins anew.
    late.begin();
    late.appear();
    Forked::new(|| assert_eq!(list_slots(raw, 1), own)).succeeds();
    Forked::new(|| {
        raw.initialize().unwrap();
        assert_eq!(list_slots(raw, 1), small);
        assert_eq!(list_slots(raw, 2), both);
    })
    .succeeds();
    raw.finalize().unwrap();
    raw.initialize().unwrap();
    assert_eq!(list_slots(raw, 8), both);
}

fn a_token_that_goes(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    home.write("config.toml", TWO_SLOTS);
    let raw = loaded(&home);
    raw.initialize().unwrap();
    assert_eq!(count_slots(&raw), Ok(2));
    assert!(count_mechanisms(&raw).is_ok());
    Maker::new(&tpm).forget_index(INDEX);
    home.next_generation();
    await_token(&raw, false);
    assert_eq!(list_slots(&raw, 2), Ok(vec![FACTORY, OWN]));
    assert_eq!(list_slots(&raw, 2), Ok(vec![OWN]));
    // All slots that are listed can be asked about; a token that is gone has no mechanisms.
    assert_eq!(raw.slot_info(FACTORY).unwrap().flags & CKF_TOKEN_PRESENT, 0);
    let gone = list_mechanisms(&raw, 99);
    assert_eq!(gone, Err(Code(CKR_TOKEN_NOT_PRESENT)));
}

fn a_mechanism_that_appears(link: Link) {
    let rsa = "--template h1 --name rsa --handle 0x81020001 --nv 0x01C90300";
    let rsa = rsa.split(' ').map(str::to_owned).collect();
    let (tpm, identities) = Swtpm::manufactured_in_runs(&[vec![], rsa]);
    let maker = Maker::new(&tpm);
    maker.forget_index("0x01C90300");
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let count = count_mechanisms(&raw).unwrap();
    let certificate = certificate_der(&identities[1].certificate());
    maker.index("0x01C90300", OPEN, "", &certificate);
    home.next_generation();
    raw.mechanism_info(FACTORY, CKM_RSA_PKCS)
        .expect("the token has an RSA key now");
    let told = list_mechanisms(&raw, count).expect("the list whose length was told");
    assert_eq!(told.len() as CK_ULONG, count);
    assert!(!told.contains(&CKM_RSA_PKCS), "{told:x?}");
    let small = list_mechanisms(&raw, count);
    assert_eq!(small, Err(Code(CKR_BUFFER_TOO_SMALL)));
    let now = raw.mechanisms(FACTORY).unwrap();
    assert!(now.contains(&CKM_RSA_PKCS), "{now:x?}");
    // The same list of the other slot was never asked for.
    assert_eq!(count_mechanisms(&raw), Ok(now.len() as CK_ULONG));
    let mut own = 0;
    let null = ptr::null_mut();
    let asked = call!(raw.table, C_GetMechanismList(OWN, null, &raw mut own));
    assert_eq!((asked, own == now.len() as CK_ULONG), (Code(CKR_OK), false));
}

/// One call answers from one object. A value that has grown does not fit, and is not cut.
fn an_attribute_that_changes(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    let named = |name: &str| {
        [
            (CKA_LABEL, format!("label {name}").into()),
            (CKA_ID, format!("identifier {name}").into()),
        ]
    };
    let (object, _) = own.pair("before");
    own.change(object, &named("a")).unwrap();
    let lengths = named("a").map(|(_, value): (_, Vec<u8>)| value.len());
    let get = |room: [usize; 2]| {
        let mut rooms = room.map(|room| vec![0_u8; room]);
        let mut items = attributes(&named("a"));
        for (item, room) in items.iter_mut().zip(&mut rooms) {
            (item.pValue, item.ulValueLen) = (room.as_mut_ptr().cast(), room.len() as CK_ULONG);
        }
        let at = items.as_mut_ptr();
        let code = call!(
            own.raw.table,
            C_GetAttributeValue(own.session, object, at, 2)
        );
        let told = [items[0].ulValueLen, items[1].ulValueLen];
        let text = |n: usize| {
            let length = usize::try_from(told[n]).ok();
            let value = length.and_then(|length| rooms[n].get(..length));
            value.map(|value| String::from_utf8(value.to_vec()).unwrap())
        };
        (code, [text(0), text(1)])
    };
    let whole = |name: &str| named(name).map(|(_, value)| String::from_utf8(value).ok());
    assert_eq!(get(lengths), (Code(CKR_OK), whole("a")));
    // Another process gives it longer values, then shorter ones; and this one sees that by a search.
    for (name, fits) in [("of more letters", false), ("", true), ("b", true)] {
        let change = named(name);
        Forked::new(|| own.change(object, &change).expect("C_SetAttributeValue")).succeeds();
        assert_eq!(own.labelled(&format!("label {name}")), [object]);
        match fits {
            true => assert_eq!(get(lengths), (Code(CKR_OK), whole(name))),
            false => assert_eq!(get(lengths), (Code(CKR_BUFFER_TOO_SMALL), [None, None])),
        }
        assert_eq!(get([64; 2]), (Code(CKR_OK), whole(name)));
    }
    // An item that does not fit does not affect the other.
    let half = get([lengths[0], 3]);
    let [label, _] = whole("b");
    assert_eq!(half, (Code(CKR_BUFFER_TOO_SMALL), [label, None]));

    // A search that began keeps its handles; one whose object is gone meanwhile says so.
    own.raw.find_init(own.session, &named("b")).unwrap();
    Forked::new(|| own.destroy(object).expect("C_DestroyObject")).succeeds();
    let found = own.raw.find_next(own.session, 9).unwrap();
    own.raw.find_final(own.session).unwrap();
    assert_eq!(found, [object]);
    assert_eq!(own.find(&named("b")), []);
    let gone = own.raw.attribute(own.session, object, CKA_LABEL);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
}
