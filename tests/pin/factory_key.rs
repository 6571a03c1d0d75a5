//! An identity whose key needs an authorisation value. The value is in the configuration, or is the
//! PIN of a separate slot. Wrong values never lock the TPM.

use cryptoki_sys::*;
use std::fs;
use std::ptr;
use testkit::budgets::commands::{LOGIN_OF_A_FACTORY_KEY, NOTHING, SIGNATURE_BY_PIN_WITHOUT_ROOT};
use testkit::budgets::is_exactly;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, loaded, ulong};
use testkit::openssl::Verifier;
use testkit::own::{NO, YES, create, slot_of};
use testkit::programs::{Said, program, run};
use testkit::proxy::Proxy;
use testkit::raw::{Code, Raw};
use testkit::tpm::Swtpm;

over_our_transport!(
    who_logs_in_signs,
    nobody_sees_the_key_who_has_not_logged_in,
    private_objects_of_a_session_go_with_the_user,
    a_wrong_pin_costs_one_try_and_the_last_is_never_made,
    the_last_try_is_made_where_the_configuration_says_so,
    the_configuration_gives_the_value_and_nobody_needs_a_pin,
    the_end_of_a_session_ends_the_login,
    pkcs11_tool_logs_in,
);

const PIN: &str = "open sesame";
const NAME: &str = "idev-id";

struct Bench {
    tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    /// `auth` is what the configuration says of the key.
    fn new(link: Link, auth: &str) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(&["--auth", PIN]);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        home.write(
            "config.toml",
            format!("[[identity]]\nhandle = 0x81020000\n{auth}\n"),
        );
        Bench {
            tpm,
            identity,
            proxy,
            home,
        }
    }

    fn raw(&self) -> (Raw, CK_SLOT_ID, CK_SESSION_HANDLE) {
        let raw = loaded(&self.home);
        raw.initialize().unwrap();
        let slot = slot_of(&raw, NAME);
        let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
        (raw, slot, session)
    }

    #[track_caller]
    fn counts(&self, tries: u32) {
        assert_eq!(self.tpm.lockout_counter(), tries, "failed tries");
    }

    #[track_caller]
    fn signs(&self, raw: &Raw, session: CK_SESSION_HANDLE) {
        let key = private(raw, session)[0];
        raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
        let signature = raw.sign(session, b"data").unwrap();
        let verifier = Verifier::new(&self.identity.public_key());
        verifier
            .accepts_message("-sha256", b"data", &signature)
            .ok();
    }

    fn pkcs11_tool(&self, arguments: &[&str]) -> Said {
        let mut command = program("pkcs11-tool");
        command.arg("--module").arg(library()).args(arguments);
        run(self.home.settle(&mut command))
    }
}

fn private(raw: &Raw, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
    let template = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
    raw.find(session, &template).unwrap()
}

fn who_logs_in_signs(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"");
    let (raw, slot, session) = bench.raw();
    let info = raw.token_info(slot).unwrap();
    let low = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
    assert_eq!(info.flags & (CKF_LOGIN_REQUIRED | low), CKF_LOGIN_REQUIRED);
    assert_eq!((info.ulMinPinLen, info.ulMaxPinLen), (1, 64));

    assert_eq!(raw.login(session, CKU_USER, PIN.as_bytes()), Ok(()));
    let again = raw.login(session, CKU_USER, PIN.as_bytes());
    assert_eq!(again, Err(Code(CKR_USER_ALREADY_LOGGED_IN)));
    let info = raw.session_info(session).unwrap();
    assert_eq!(info.state, CKS_RO_USER_FUNCTIONS);
    bench.signs(&raw, session);
    let key = private(&raw, session)[0];
    assert_eq!(raw.attribute(session, key, CKA_PRIVATE).unwrap(), YES);

    // This TPM has neither a storage root key nor an endorsement key in a handle.
    bench.proxy.book().take();
    bench.signs(&raw, session);
    let seen = bench.proxy.book().take();
    is_exactly("C_Sign", &seen, SIGNATURE_BY_PIN_WITHOUT_ROOT);
    raw.logout(session).unwrap();
    is_exactly("C_Logout", &bench.proxy.book().take(), NOTHING);
    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    let seen = bench.proxy.book().take();
    is_exactly("C_Login", &seen, LOGIN_OF_A_FACTORY_KEY);
    assert_eq!(bench.tpm.transients(), 0);
    bench.counts(0);
    assert!(!bench.home.log().contains(PIN));
}

fn nobody_sees_the_key_who_has_not_logged_in(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"");
    let (raw, _, session) = bench.raw();
    // Public objects are visible without a login.
    let certificates = [(CKA_CLASS, ulong(CKO_CERTIFICATE))];
    assert!(!raw.find(session, &certificates).unwrap().is_empty());
    let publics = [(CKA_CLASS, ulong(CKO_PUBLIC_KEY))];
    let public = raw.find(session, &publics).unwrap()[0];
    assert_eq!(private(&raw, session), [0; 0]);

    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    let key = private(&raw, session)[0];
    // A search and a signature under way when the user goes.
    raw.find_init(session, &[]).unwrap();
    let other = raw.open(slot_of(&raw, NAME), CKF_SERIAL_SESSION).unwrap();
    raw.sign_init(other, CKM_ECDSA_SHA256, key).unwrap();
    assert_eq!(raw.logout(session), Ok(()));
    let left = raw.find_next(session, 100).unwrap();
    assert!(!left.contains(&key) && left.contains(&public));
    raw.find_final(session).unwrap();
    assert_eq!(raw.sign(other, b"data"), Err(Code(CKR_USER_NOT_LOGGED_IN)));

    let invalid = Err(Code(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(raw.attribute(session, key, CKA_LABEL), invalid);
    let refused = raw.sign_init(session, CKM_ECDSA_SHA256, key);
    assert_eq!(refused, Err(Code(CKR_KEY_HANDLE_INVALID)));
    // A handle that was lost does not come back with the next login.
    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    assert_eq!(raw.attribute(session, key, CKA_LABEL), invalid);
    bench.signs(&raw, session);
    assert_eq!(
        raw.attribute(session, public, CKA_LABEL).unwrap(),
        NAME.as_bytes()
    );
    bench.counts(0);
}

fn private_objects_of_a_session_go_with_the_user(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"");
    let (raw, _, session) = bench.raw();
    let data = |private: &[u8]| {
        let class = (CKA_CLASS, ulong(CKO_DATA));
        create(&raw, session, &[class, (CKA_PRIVATE, private.to_vec())])
    };
    assert_eq!(data(YES), Err(Code(CKR_USER_NOT_LOGGED_IN)));
    let open = data(NO).unwrap();
    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    let private = data(YES).unwrap();
    let all = [(CKA_CLASS, ulong(CKO_DATA))];
    assert_eq!(raw.find(session, &all).unwrap(), [open, private]);
    raw.logout(session).unwrap();
    assert_eq!(raw.find(session, &all).unwrap(), [open]);
    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    assert_eq!(raw.find(session, &all).unwrap(), [open]);
}

fn a_wrong_pin_costs_one_try_and_the_last_is_never_made(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"");
    let (raw, slot, session) = bench.raw();
    let login = |pin: &[u8]| raw.login(session, CKU_USER, pin);
    let null = ptr::null_mut();
    let nothing = call!(raw.table, C_Login(session, CKU_USER, null, 0));
    assert_eq!(nothing, Code(CKR_ARGUMENTS_BAD));
    for impossible in [&b""[..], &[b'1'; 65]] {
        assert_eq!(login(impossible), Err(Code(CKR_PIN_LEN_RANGE)));
    }
    bench.counts(0);
    // swtpm locks at the third failed try.
    let low = |raw: &Raw| {
        let all = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
        raw.token_info(slot).unwrap().flags & all
    };
    assert_eq!(login(b"wrong"), Err(Code(CKR_PIN_INCORRECT)));
    bench.counts(1);
    assert_eq!(low(&raw), CKF_USER_PIN_COUNT_LOW);
    assert_eq!(login(b"another"), Err(Code(CKR_PIN_INCORRECT)));
    bench.counts(2);
    assert_ne!(low(&raw) & CKF_USER_PIN_FINAL_TRY, 0);
    for pin in ["a third", PIN] {
        assert_eq!(login(pin.as_bytes()), Err(Code(CKR_PIN_LOCKED)));
    }
    bench.counts(2);
    assert!(raw.session_info(session).unwrap().state == CKS_RO_PUBLIC_SESSION);
    bench.home.log_says(&["login", "lock"]);
    assert!(!bench.home.log().contains("another"));
}

fn the_last_try_is_made_where_the_configuration_says_so(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"\nallow_last_try = true");
    let (raw, _, session) = bench.raw();
    for wrong in ["wrong", "another"] {
        let refused = raw.login(session, CKU_USER, wrong.as_bytes());
        assert_eq!(refused, Err(Code(CKR_PIN_INCORRECT)));
    }
    raw.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    bench.signs(&raw, session);
    bench.counts(2);
}

fn the_configuration_gives_the_value_and_nobody_needs_a_pin(link: Link) {
    let hex: String = PIN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let bench = Bench::new(link, &format!("auth = \"hex:{hex}\""));
    let (raw, slot, session) = bench.raw();
    assert_eq!(raw.slots(true).unwrap(), [0, 1, 256], "no slot of its own");
    assert_eq!(raw.token_info(slot).unwrap().flags & CKF_LOGIN_REQUIRED, 0);
    bench.signs(&raw, session);
    bench.counts(0);
    assert!(!bench.home.log().contains(&hex));
}

fn the_end_of_a_session_ends_the_login(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"");
    let (raw, slot, first) = bench.raw();
    let own = slot_of(&raw, "devid");
    let second = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.login(first, CKU_USER, PIN.as_bytes()).unwrap();
    raw.close(first).unwrap();
    bench.signs(&raw, second);
    raw.close(second).unwrap();
    let third = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(private(&raw, third), [0; 0]);
    raw.login(third, CKU_USER, PIN.as_bytes()).unwrap();
    // Another token's sessions are another matter.
    assert_eq!(call!(raw.table, C_CloseAllSessions(own)), Code(CKR_OK));
    bench.signs(&raw, third);
    assert_eq!(call!(raw.table, C_CloseAllSessions(slot)), Code(CKR_OK));
    let fourth = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(private(&raw, fourth), [0; 0]);
    raw.login(fourth, CKU_USER, PIN.as_bytes()).unwrap();
    raw.finalize().unwrap();
    raw.initialize().unwrap();
    let fifth = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(private(&raw, fifth), [0; 0]);
    bench.counts(0);
}

fn pkcs11_tool_logs_in(link: Link) {
    let bench = Bench::new(link, "auth = \"pin\"");
    let data = bench.home.write("data", b"data");
    let signature = bench.home.path("signature");
    let sign = |pin: &str| {
        bench.pkcs11_tool(&[
            "--token-label",
            NAME,
            "--login",
            "--pin",
            pin,
            "--sign",
            "-m",
            "ECDSA-SHA256",
            "--signature-format",
            "openssl",
            "-i",
            data.to_str().unwrap(),
            "-o",
            signature.to_str().unwrap(),
        ])
    };
    sign(PIN).ok();
    let verifier = Verifier::new(&bench.identity.public_key());
    let made = fs::read(&signature).unwrap();
    verifier.accepts_der("-sha256", b"data", &made).ok();
    let refused = sign("wrong").all();
    assert!(refused.contains("CKR_PIN_INCORRECT"), "{refused}");
    bench.counts(1);
}
