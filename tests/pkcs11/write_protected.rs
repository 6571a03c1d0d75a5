//! Tokens that cannot be written: the factory identity, with and without PIN. Read-write sessions
//! can be opened, because some clients open only such sessions. The token refuses each write, and a
//! session has its own session objects.

use cryptoki_sys::*;
use std::ptr;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{loaded, ulong};
use testkit::own::{NO, P256, YES, change, create, generate, slot_of};
use testkit::proxy::Proxy;
use testkit::raw::{Code, Item, Raw, text};
use testkit::tpm::Swtpm;

over_our_transport!(
    a_read_write_session_opens,
    each_write_to_the_token_is_refused,
    a_session_keeps_objects_of_its_own,
    there_is_no_security_officer,
);

const READ_WRITE: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;
const PIN: &[u8] = b"open sesame";
/// The base point of P-256, as CKA_EC_POINT has it.
const POINT: &str = concat!(
    "044104",
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
);

/// A token of this kind, open in a module of its own.
struct Protected {
    _tpm: Swtpm,
    proxy: Proxy,
    _home: Home,
    raw: Raw,
    slot: CK_SLOT_ID,
}

impl Protected {
    fn new(link: Link, factory: &[&str], settings: &str) -> Self {
        let (tpm, _identity) = Swtpm::manufactured_with(factory);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        home.write("config.toml", settings);
        let raw = loaded(&home);
        raw.initialize().unwrap();
        let slot = slot_of(&raw, "idev-id");
        proxy.book().take();
        Self {
            _tpm: tpm,
            proxy,
            _home: home,
            raw,
            slot,
        }
    }

    fn of_rsa(link: Link) -> Self {
        Self::new(link, &["--template", "h1"], "")
    }

    fn with_pin(link: Link) -> Self {
        let settings = "[[identity]]\nhandle = 0x81020000\nauth = \"pin\"\n";
        let auth = str::from_utf8(PIN).unwrap();
        Self::new(link, &["--auth", auth], settings)
    }

    fn open(&self, flags: CK_FLAGS) -> CK_SESSION_HANDLE {
        self.raw.open(self.slot, flags).expect("C_OpenSession")
    }

    /// A private key, a public key and a certificate of the token.
    fn objects(&self, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
        let found = self.raw.find(session, &[(CKA_TOKEN, YES.to_vec())]);
        let found = found.unwrap();
        assert!(found.len() >= 3, "{found:?}");
        found
    }

    /// The attributes of all its objects.
    fn told(&self, session: CK_SESSION_HANDLE) -> Vec<Result<Vec<u8>, Code>> {
        let each = [CKA_LABEL, CKA_ID, CKA_CLASS, CKA_UNIQUE_ID];
        let objects = self.objects(session).into_iter();
        objects
            .flat_map(|object| each.map(|kind| self.raw.attribute(session, object, kind)))
            .collect()
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(digit).collect()
}

fn public_key() -> Vec<Item> {
    vec![
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_EC)),
        (CKA_EC_PARAMS, P256.to_vec()),
        (CKA_EC_POINT, bytes(POINT)),
    ]
}

fn of_token(mut template: Vec<Item>, token: &[u8]) -> Vec<Item> {
    template.push((CKA_TOKEN, token.to_vec()));
    template
}

type Make = fn(Link) -> Protected;

const KINDS: [(&str, Make); 3] = [
    ("EC", |link| Protected::new(link, &[], "")),
    ("RSA", Protected::of_rsa),
    ("behind a PIN", Protected::with_pin),
];

fn for_each_kind(link: Link, story: fn(&Protected, &str)) {
    for (kind, token) in KINDS {
        let token = token(link);
        story(&token, kind);
        token.raw.finalize().unwrap();
    }
}

fn a_read_write_session_opens(link: Link) {
    for_each_kind(link, |token, kind| {
        let raw = &token.raw;
        let info = raw.token_info(token.slot).unwrap();
        assert_eq!(text(&info.label), "idev-id", "{kind}");
        // Clients that look stay with read-only sessions.
        assert_ne!(info.flags & CKF_WRITE_PROTECTED, 0, "{kind}");
        assert_ne!(info.ulMaxRwSessionCount, 0, "{kind}");
        assert_eq!(info.ulMaxRwSessionCount, info.ulMaxSessionCount, "{kind}");

        let writing = token.open(READ_WRITE);
        let reading = token.open(CKF_SERIAL_SESSION);
        let info = raw.token_info(token.slot).unwrap();
        assert_eq!(
            (info.ulSessionCount, info.ulRwSessionCount),
            (2, 1),
            "{kind}"
        );
        let of = |session| {
            let info = raw.session_info(session).unwrap();
            (info.state, info.flags)
        };
        assert_eq!(of(writing), (CKS_RW_PUBLIC_SESSION, READ_WRITE), "{kind}");
        let only_reads = (CKS_RO_PUBLIC_SESSION, CKF_SERIAL_SESSION);
        assert_eq!(of(reading), only_reads, "{kind}");
        raw.login(reading, CKU_USER, PIN).unwrap();
        assert_eq!(of(writing), (CKS_RW_USER_FUNCTIONS, READ_WRITE), "{kind}");
        assert_eq!(of(reading).0, CKS_RO_USER_FUNCTIONS, "{kind}");

        let keys = raw.find(writing, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        let mechanism = match kind {
            "RSA" => CKM_SHA256_RSA_PKCS,
            _ => CKM_ECDSA_SHA256,
        };
        raw.sign_init(writing, mechanism, keys.unwrap()[0]).unwrap();
        raw.sign(writing, b"data").unwrap();

        raw.close(writing).unwrap();
        let info = raw.token_info(token.slot).unwrap();
        assert_eq!(
            (info.ulSessionCount, info.ulRwSessionCount),
            (1, 0),
            "{kind}"
        );
    });
}

fn each_write_to_the_token_is_refused(link: Link) {
    for_each_kind(link, |token, kind| {
        let raw = &token.raw;
        for flags in [READ_WRITE, CKF_SERIAL_SESSION] {
            let session = token.open(flags);
            raw.login(session, CKU_USER, PIN).unwrap();
            let before = token.told(session);
            token.proxy.book().take();
            for (what, code) in writes(raw, session, &token.objects(session)) {
                assert_eq!(code, Code(CKR_TOKEN_WRITE_PROTECTED), "{kind}: {what}");
            }
            assert_eq!(token.proxy.book().take().total(), 0, "{kind}");
            assert_eq!(token.told(session), before, "{kind}");
            raw.close(session).unwrap();
        }
        // Without a session, which it asks for.
        let (mut pin, mut label) = (*b"12345678", [b' '; 32]);
        let code = call!(
            raw.table,
            C_InitToken(token.slot, pin.as_mut_ptr(), 8, label.as_mut_ptr())
        );
        assert_eq!(code, Code(CKR_TOKEN_WRITE_PROTECTED), "{kind}");
    });
}

/// Each call that would change the token, and its code.
fn writes(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    objects: &[CK_OBJECT_HANDLE],
) -> Vec<(String, Code)> {
    let code = |result: Result<CK_OBJECT_HANDLE, Code>| result.err().unwrap_or(Code(CKR_OK));
    let certificate = objects
        .iter()
        .find_map(|object| raw.attribute(session, *object, CKA_VALUE).ok())
        .expect("a certificate");
    let created = [
        ("public key", public_key()),
        ("data", vec![(CKA_CLASS, ulong(CKO_DATA))]),
        (
            "certificate",
            vec![
                (CKA_CLASS, ulong(CKO_CERTIFICATE)),
                (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
                (CKA_VALUE, certificate),
            ],
        ),
        (
            "private key",
            vec![
                (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
                (CKA_KEY_TYPE, ulong(CKK_EC)),
                (CKA_EC_PARAMS, P256.to_vec()),
                (CKA_VALUE, vec![1; 32]),
            ],
        ),
        (
            "secret key",
            vec![
                (CKA_CLASS, ulong(CKO_SECRET_KEY)),
                (CKA_KEY_TYPE, ulong(CKK_AES)),
                (CKA_VALUE, vec![1; 32]),
            ],
        ),
        ("nothing that is known", Vec::new()),
    ];
    let mut told: Vec<(String, Code)> = Vec::new();
    for (what, template) in created {
        let made = create(raw, session, &of_token(template, YES));
        told.push((format!("C_CreateObject of a {what}"), code(made)));
    }
    let curve = || vec![(CKA_EC_PARAMS, P256.to_vec())];
    for (what, public, private) in [
        ("both halves", YES, YES),
        ("the private half", NO, YES),
        ("the public half", YES, NO),
    ] {
        let made = generate(
            raw,
            session,
            CKM_EC_KEY_PAIR_GEN,
            &of_token(curve(), public),
            &of_token(Vec::new(), private),
        );
        let made = code(made.map(|(public, _)| public));
        told.push((format!("C_GenerateKeyPair of {what}"), made));
    }
    for object in objects {
        let label = [(CKA_LABEL, b"other".to_vec())];
        let changed = change(raw, session, *object, &label).err();
        told.push((
            format!("C_SetAttributeValue of {object}"),
            changed.unwrap_or(Code(CKR_OK)),
        ));
        let destroyed = call!(raw.table, C_DestroyObject(session, *object));
        told.push((format!("C_DestroyObject of {object}"), destroyed));
        for (what, template) in [
            ("as it is", Vec::new()),
            ("to the token", of_token(Vec::new(), YES)),
        ] {
            let copied = copy(raw, session, *object, &template);
            told.push((format!("C_CopyObject of {object} {what}"), copied));
        }
    }
    let token = of_token(Vec::new(), YES);
    let mut template = testkit::own::attributes(&token);
    let (at, count) = (template.as_mut_ptr(), template.len() as CK_ULONG);
    let key = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    let (key, mut made) = (key.unwrap()[0], 0);
    let mut parameter = CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: ptr::null_mut(),
        ulPublicDataLen: 65,
        pPublicData: bytes(POINT)[2..].to_vec().leak().as_mut_ptr(),
    };
    let mut ecdh = CK_MECHANISM {
        mechanism: CKM_ECDH1_DERIVE,
        pParameter: (&raw mut parameter).cast(),
        ulParameterLen: size_of::<CK_ECDH1_DERIVE_PARAMS>() as CK_ULONG,
    };
    let derived = call!(
        raw.table,
        C_DeriveKey(session, &raw mut ecdh, key, at, count, &raw mut made)
    );
    told.push(("C_DeriveKey".into(), derived));
    let mut wrap = CK_MECHANISM {
        mechanism: CKM_AES_KEY_WRAP,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let mut wrapped = [7; 40];
    let unwrapped = call!(
        raw.table,
        C_UnwrapKey(
            session,
            &raw mut wrap,
            key,
            wrapped.as_mut_ptr(),
            40,
            at,
            count,
            &raw mut made
        )
    );
    told.push(("C_UnwrapKey".into(), unwrapped));
    let mut pin = *b"12345678";
    let pin = pin.as_mut_ptr();
    told.push((
        "C_InitPIN".into(),
        call!(raw.table, C_InitPIN(session, pin, 8)),
    ));
    let changed = call!(raw.table, C_SetPIN(session, pin, 8, pin, 8));
    told.push(("C_SetPIN".into(), changed));
    told
}

fn copy(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: &[Item],
) -> Code {
    let mut attributes = testkit::own::attributes(template);
    let (at, count) = (attributes.as_mut_ptr(), attributes.len() as CK_ULONG);
    let mut made = 0;
    call!(
        raw.table,
        C_CopyObject(session, object, at, count, &raw mut made)
    )
}

fn a_session_keeps_objects_of_its_own(link: Link) {
    for_each_kind(link, |token, kind| {
        let raw = &token.raw;
        for flags in [READ_WRITE, CKF_SERIAL_SESSION] {
            let session = token.open(flags);
            let made = [
                create(raw, session, &of_token(public_key(), NO)),
                create(raw, session, &public_key()),
                create(raw, session, &[(CKA_CLASS, ulong(CKO_DATA))]),
            ];
            let made = made.map(|made| made.expect(kind));
            for object in made {
                let label = [(CKA_LABEL, b"other".to_vec())];
                change(raw, session, object, &label).expect(kind);
                let label = raw.attribute(session, object, CKA_LABEL);
                assert_eq!(label.unwrap(), b"other", "{kind}");
            }
            let destroyed = call!(raw.table, C_DestroyObject(session, made[0]));
            assert_eq!(destroyed, Code(CKR_OK), "{kind}");
            // They go with their session.
            raw.close(session).unwrap();
            let other = token.open(flags);
            let left = raw.find(other, &[(CKA_TOKEN, NO.to_vec())]).unwrap();
            let is_profile = |object: &CK_OBJECT_HANDLE| {
                raw.attribute(other, *object, CKA_CLASS).unwrap() == ulong(CKO_PROFILE)
            };
            assert!(left.iter().all(is_profile), "{kind}: {left:?}");
            raw.close(other).unwrap();
        }
        // A copy of the token's objects for the session is no write, and there is none either.
        let session = token.open(READ_WRITE);
        let template = of_token(Vec::new(), NO);
        let copied = copy(raw, session, token.objects(session)[0], &template);
        assert_eq!(copied, Code(CKR_ACTION_PROHIBITED), "{kind}");
    });
}

/// The token has no security officer. No value can be its PIN, and none reaches the TPM.
fn there_is_no_security_officer(link: Link) {
    for_each_kind(link, |token, kind| {
        let raw = &token.raw;
        let session = token.open(READ_WRITE);
        token.proxy.book().take();
        for pin in [&b""[..], b"12345678", PIN] {
            let officer = raw.login(session, CKU_SO, pin);
            assert_eq!(officer, Err(Code(CKR_PIN_INCORRECT)), "{kind}");
        }
        let null = call!(raw.table, C_Login(session, CKU_SO, ptr::null_mut(), 0));
        assert_eq!(null, Code(CKR_PIN_INCORRECT), "{kind}");
        let state = raw.session_info(session).unwrap().state;
        assert_eq!(state, CKS_RW_PUBLIC_SESSION, "{kind}");
        let reading = token.open(CKF_SERIAL_SESSION);
        let officer = raw.login(session, CKU_SO, PIN);
        assert_eq!(officer, Err(Code(CKR_SESSION_READ_ONLY_EXISTS)), "{kind}");
        raw.close(reading).unwrap();
        assert_eq!(token.proxy.book().take().total(), 0, "{kind}");
    });
}
