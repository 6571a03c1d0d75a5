//! The token for session objects, on which pkcs11-provider stores the public keys of its peers. It
//! is empty, accepts any login, never sends a TPM command, and exists only in addition to other
//! tokens.

use cryptoki_sys::*;
use std::fs;
use std::ptr;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, loaded, ulong};
use testkit::openssl::rsa_numbers;
use testkit::own::{NO, Own, P256, RSA_KEY, YES, create, ec_public, generate, outside, slot_of};
use testkit::programs::{program, run};
use testkit::proxy::Proxy;
use testkit::raw::{Code, Item, Raw, text};
use testkit::tpm::Swtpm;

over_our_transport!(
    it_stands_behind_the_other_two,
    any_login_is_taken_and_none_is_needed,
    a_session_keeps_a_peers_key_and_verifies,
    nothing_is_written_to_it,
    programs_ask_nobody_for_a_pin,
    a_setting_takes_it_away,
);
once!(without_other_tokens_there_is_none);

const READ_WRITE: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;
const LABEL: &str = "sessions";

struct Bench {
    tpm: Swtpm,
    identity: testkit::factory::Identity,
    proxy: Proxy,
    home: Home,
    raw: Raw,
}

impl Bench {
    fn new(link: Link, settings: &str) -> Self {
        let (tpm, identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        home.write("config.toml", settings);
        let raw = loaded(&home);
        raw.initialize().unwrap();
        Self {
            tpm,
            identity,
            proxy,
            home,
            raw,
        }
    }

    /// The slot, and a session on it; the TPM has been asked what it is asked once.
    fn session(&self, flags: CK_FLAGS) -> (CK_SLOT_ID, CK_SESSION_HANDLE) {
        let slot = slot_of(&self.raw, LABEL);
        let session = self.raw.open(slot, flags).unwrap();
        self.proxy.book().take();
        (slot, session)
    }

    #[track_caller]
    fn asked_nothing(&self) {
        let seen = self.proxy.book().take();
        assert_eq!(seen.total(), 0, "{seen:?}");
        assert_eq!(self.tpm.lockout_counter(), 0);
    }

    fn labels(&self) -> Vec<String> {
        let slots = self.raw.slots(true).unwrap();
        let label = |slot: &CK_SLOT_ID| text(&self.raw.token_info(*slot).unwrap().label);
        slots.iter().map(label).collect()
    }
}

fn it_stands_behind_the_other_two(link: Link) {
    let bench = Bench::new(link, "[[token]]\nname = \"further\"\n");
    assert_eq!(bench.labels(), ["idev-id", "devid", LABEL, "further"]);
    // The others keep their numbers, whether it is there or not.
    assert_eq!(bench.raw.slots(false).unwrap(), [0, 1, 256, 2]);
    let (slot, _) = bench.session(READ_WRITE);
    let info = bench.raw.token_info(slot).unwrap();
    let flags = CKF_RNG
        | CKF_TOKEN_INITIALIZED
        | CKF_USER_PIN_INITIALIZED
        | CKF_LOGIN_REQUIRED
        | CKF_PROTECTED_AUTHENTICATION_PATH;
    assert_eq!(info.flags, flags);
    assert_eq!((info.ulSessionCount, info.ulRwSessionCount), (1, 1));
    let others = [0, 1].map(|slot| bench.raw.token_info(slot).unwrap());
    for other in others {
        assert_ne!(other.serialNumber, info.serialNumber);
        assert_eq!(other.flags & CKF_LOGIN_REQUIRED, 0);
    }
    bench.asked_nothing();
    let mechanisms = bench.raw.mechanisms(slot).unwrap();
    for kind in [
        CKM_ECDSA,
        CKM_ECDSA_SHA384,
        CKM_SHA256_RSA_PKCS,
        CKM_SHA512_RSA_PKCS_PSS,
    ] {
        assert!(mechanisms.contains(&kind), "{kind:#x}");
        let info = bench.raw.mechanism_info(slot, kind).unwrap();
        let signs = CKF_SIGN | CKF_VERIFY | CKF_HW;
        assert_eq!(info.flags & signs, CKF_VERIFY, "{kind:#x}");
        assert!(info.ulMinKeySize < info.ulMaxKeySize, "{kind:#x}");
    }
    assert!(!mechanisms.contains(&CKM_EC_KEY_PAIR_GEN));
    bench.asked_nothing();
}

fn any_login_is_taken_and_none_is_needed(link: Link) {
    let bench = Bench::new(link, "");
    let raw = &bench.raw;
    let (_, session) = bench.session(READ_WRITE);
    let key = create(raw, session, &ec_public(&bench.identity.public_key())).unwrap();
    let found = || raw.find(session, &[(CKA_TOKEN, NO.to_vec())]).unwrap();
    assert!(found().contains(&key));
    // NSS would ask a person for a PIN.
    let state = raw.session_info(session).unwrap().state;
    assert_eq!(state, CKS_RW_USER_FUNCTIONS);
    for pin in [&b""[..], b"1234", &[0xFF; 200]] {
        raw.login(session, CKU_USER, pin).unwrap();
        let state = raw.session_info(session).unwrap().state;
        assert_eq!(state, CKS_RW_USER_FUNCTIONS);
        let again = raw.login(session, CKU_USER, pin);
        assert_eq!(again, Err(Code(CKR_USER_ALREADY_LOGGED_IN)));
        raw.logout(session).unwrap();
        assert!(found().contains(&key), "a logout takes nothing away");
    }
    let null = call!(raw.table, C_Login(session, CKU_USER, ptr::null_mut(), 0));
    assert_eq!(null, Code(CKR_OK));
    raw.logout(session).unwrap();
    let officer = raw.login(session, CKU_SO, b"1234");
    assert_eq!(officer, Err(Code(CKR_PIN_INCORRECT)));
    bench.asked_nothing();
}

fn a_session_keeps_a_peers_key_and_verifies(link: Link) {
    let bench = Bench::new(link, "");
    let raw = &bench.raw;
    let factory = raw
        .open(slot_of(raw, "idev-id"), CKF_SERIAL_SESSION)
        .unwrap();
    let private = raw.find(factory, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    raw.sign_init(factory, CKM_ECDSA_SHA256, private.unwrap()[0])
        .unwrap();
    let by_ec = raw.sign(factory, b"data").unwrap();
    outside(&bench.home, "peer", &RSA_KEY);
    let data = bench.home.write("data", b"data");
    let by_rsa = bench.home.path("signature");
    run(program("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(bench.home.path("peer.key"))
        .arg("-out")
        .arg(&by_rsa)
        .arg(data))
    .ok();
    let modulus = rsa_numbers(&bench.home.path("peer.key"), &["modulus"]).remove(0);
    let skip = modulus.iter().take_while(|byte| **byte == 0).count();
    let rsa: Vec<Item> = vec![
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_RSA)),
        (CKA_MODULUS, modulus[skip..].to_vec()),
        (CKA_PUBLIC_EXPONENT, vec![1, 0, 1]),
    ];
    for flags in [READ_WRITE, CKF_SERIAL_SESSION] {
        let (slot, session) = bench.session(flags);
        for (template, kind, signature) in [
            (
                ec_public(&bench.identity.public_key()),
                CKM_ECDSA_SHA256,
                by_ec.clone(),
            ),
            (rsa.clone(), CKM_SHA256_RSA_PKCS, fs::read(&by_rsa).unwrap()),
        ] {
            let key = create(raw, session, &template).unwrap();
            let mut wrong = signature.clone();
            wrong[9] ^= 1;
            assert_eq!(verify(raw, session, kind, key, signature), Code(CKR_OK));
            let code = verify(raw, session, kind, key, wrong);
            assert_eq!(code, Code(CKR_SIGNATURE_INVALID));
        }
        raw.close(session).unwrap();
        let other = raw.open(slot, flags).unwrap();
        let keys = raw.find(other, &[(CKA_CLASS, ulong(CKO_PUBLIC_KEY))]);
        assert_eq!(keys.unwrap(), [], "they go with their session");
        raw.close(other).unwrap();
        bench.asked_nothing();
    }
}

fn verify(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    kind: CK_MECHANISM_TYPE,
    key: CK_OBJECT_HANDLE,
    mut signature: Vec<u8>,
) -> Code {
    let mut mechanism = CK_MECHANISM {
        mechanism: kind,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let init = call!(raw.table, C_VerifyInit(session, &raw mut mechanism, key));
    assert_eq!(init, Code(CKR_OK));
    let mut data = *b"data";
    let length = signature.len() as CK_ULONG;
    call!(
        raw.table,
        C_Verify(
            session,
            data.as_mut_ptr(),
            4,
            signature.as_mut_ptr(),
            length
        )
    )
}

fn nothing_is_written_to_it(link: Link) {
    let bench = Bench::new(link, "");
    let raw = &bench.raw;
    let (slot, session) = bench.session(READ_WRITE);
    let on_token = || (CKA_TOKEN, YES.to_vec());
    let refused = Code(CKR_TOKEN_WRITE_PROTECTED);
    let key = [ec_public(&bench.identity.public_key()), vec![on_token()]].concat();
    assert_eq!(create(raw, session, &key), Err(refused));
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let pair = generate(raw, session, CKM_EC_KEY_PAIR_GEN, &curve, &[on_token()]);
    assert_eq!(pair.map(drop), Err(refused));
    let pair = generate(raw, session, CKM_EC_KEY_PAIR_GEN, &curve, &[]);
    assert_eq!(pair.map(drop), Err(Code(CKR_MECHANISM_INVALID)));
    let mut pin = *b"12345678";
    let pin = pin.as_mut_ptr();
    for code in [
        call!(raw.table, C_InitPIN(session, pin, 8)),
        call!(raw.table, C_SetPIN(session, pin, 8, pin, 8)),
    ] {
        assert_eq!(code, refused);
    }
    raw.close(session).unwrap();
    let mut label = [b' '; 32];
    let code = call!(raw.table, C_InitToken(slot, pin, 8, label.as_mut_ptr()));
    assert_eq!(code, refused);
    bench.asked_nothing();
}

/// Programs without a terminal: whoever asks for a PIN fails.
fn programs_ask_nobody_for_a_pin(link: Link) {
    let bench = Bench::new(link, "");
    let module = library();
    let own = Own::with(loaded(&bench.home), "devid");
    own.pair("service");
    own.raw.finalize().unwrap();
    let said = |name: &str, arguments: &[&str]| {
        let mut command = program("setsid");
        command.args(["--wait", name]).args(arguments);
        run(bench.home.settle(&mut command)).ok().all()
    };
    let module = module.to_str().unwrap();
    let all = said(
        "p11tool",
        &["--provider", module, "--batch", "--list-all", "pkcs11:"],
    );
    let tokens = said("p11tool", &["--provider", module, "--list-tokens"]);
    assert!(tokens.contains("token=sessions"), "{tokens}");
    let login = ["--batch", "--login", "--list-all", "pkcs11:token=sessions"];
    let inside = said("p11tool", &[&["--provider", module], &login[..]].concat());
    let tool = ["--module", module, "--token-label"];
    let objects = said(
        "pkcs11-tool",
        &[&tool[..], &["sessions", "--login", "--list-objects"]].concat(),
    );
    let keys = said("ssh-keygen", &["-D", module]);
    assert!(
        keys.contains(" idev-id\n") && keys.contains(" service\n"),
        "{keys}"
    );
    for text in [all, tokens, inside, objects, keys] {
        let text = text.to_lowercase();
        assert!(
            !text.contains("enter pin") && !text.contains("pin:"),
            "{text}"
        );
    }
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn a_setting_takes_it_away(link: Link) {
    let bench = Bench::new(link, "session_slot = false\n");
    assert_eq!(bench.labels(), ["idev-id", "devid"]);
    assert_eq!(bench.raw.slots(false).unwrap(), [0, 1]);
    let gone = bench.raw.token_info(256).map(drop);
    assert_eq!(gone, Err(Code(CKR_SLOT_ID_INVALID)));
}

fn without_other_tokens_there_is_none() {
    let home = Home::new("swtpm:path=/nonexistent/tpm");
    let raw = loaded(&home);
    raw.initialize().unwrap();
    assert_eq!(raw.slots(true).unwrap(), []);
    let absent = Code(CKR_TOKEN_NOT_PRESENT);
    assert_eq!(raw.token_info(256).map(drop), Err(absent));
    assert_eq!(raw.open(256, CKF_SERIAL_SESSION), Err(absent));
    let present = raw.slot_info(256).unwrap().flags & CKF_TOKEN_PRESENT;
    assert_eq!(present, 0);
}
