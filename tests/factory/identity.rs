//! Slot 0 of a device with a factory identity: the token, its objects and all their attributes,
//! compared with the files of the factory.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki_sys::*;
use std::collections::BTreeMap;
use std::fs;
use testkit::PROFILES;
use testkit::der::Certificate;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, initialised, ulong};
use testkit::openssl::{self, certificate_der};
use testkit::raw::{Code, text};
use testkit::tpm::Swtpm;
use testkit::{factory::Identity, programs};

over_both_transports!(
    the_token,
    the_private_key,
    the_public_key,
    the_certificate,
    the_chain,
    every_attribute_finds_its_object,
    identifiers_are_unique_and_stay,
    a_padded_certificate_is_cut,
    identities_at_other_places,
    an_identity_named_by_the_configuration,
    the_crate_cryptoki_agrees,
    the_secret_stays_while_the_rest_is_told,
);

const P256: [u8; 10] = [6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7];

/// A device, its module opened, and what the factory kept.
struct Bench {
    tpm: Swtpm,
    identity: Identity,
    _home: Home,
    module: Opened,
}

impl Bench {
    fn new(link: Link) -> Bench {
        Bench::with(link, &[], |_, _| {})
    }

    fn with(link: Link, options: &[&str], prepare: impl FnOnce(&Home, &Identity)) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        prepare(&home, &identity);
        let module = Opened::new(&home);
        Bench {
            tpm,
            identity,
            _home: home,
            module,
        }
    }

    fn find(&self, template: &[(CK_ULONG, Vec<u8>)]) -> Vec<CK_ULONG> {
        self.module.raw.find(self.module.session, template).unwrap()
    }

    #[track_caller]
    fn one(&self, class: CK_ULONG, label: &str) -> CK_ULONG {
        let found = self.find(&[(CKA_CLASS, ulong(class)), (CKA_LABEL, label.into())]);
        assert_eq!(
            found.len(),
            1,
            "one object of class {class} and label {label}"
        );
        found[0]
    }

    fn read(&self, object: CK_ULONG, kind: CK_ULONG) -> Result<Vec<u8>, Code> {
        self.module.raw.attribute(self.module.session, object, kind)
    }

    /// Compares attributes; all differences at once.
    #[track_caller]
    fn has(&self, object: CK_ULONG, wanted: &[(CK_ULONG, Vec<u8>)]) {
        let wrong: Vec<String> = wanted
            .iter()
            .map(|(kind, value)| (kind, value, self.read(object, *kind)))
            .filter(|(_, value, found)| found.as_ref() != Ok(*value))
            .map(|(kind, value, found)| format!("{kind:#x}: {found:x?} instead of {value:x?}"))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn certificate(&self) -> Certificate {
        Certificate::new(&certificate_der(&self.identity.certificate()))
    }

    /// CKA_ID of the identity: SHA-1 of its public key's bits.
    fn id(&self) -> Vec<u8> {
        openssl::digest("-sha1", &self.certificate().key_bits())
    }
}

fn yes() -> Vec<u8> {
    vec![CK_TRUE]
}

fn no() -> Vec<u8> {
    vec![CK_FALSE]
}

fn the_token(link: Link) {
    let bench = Bench::new(link);
    let (raw, slot) = (&bench.module.raw, bench.module.slot);
    assert_eq!(raw.slots(false).unwrap()[0], raw.slots(true).unwrap()[0]);
    let info = raw.slot_info(slot).unwrap();
    assert_ne!(info.flags & CKF_TOKEN_PRESENT, 0);
    // Without this flag the standard would have the token always there.
    assert_ne!(info.flags & CKF_REMOVABLE_DEVICE, 0);
    assert_ne!(info.flags & CKF_HW_SLOT, 0);
    assert_eq!(text(&info.manufacturerID), "devid-pkcs11");

    let info = raw.token_info(slot).unwrap();
    assert_eq!(text(&info.label), "idev-id");
    assert_eq!(text(&info.manufacturerID), "devid-pkcs11");
    let on = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_WRITE_PROTECTED | CKF_RNG;
    assert_eq!(info.flags & on, on, "{:#x}", info.flags);
    assert_eq!(info.flags & CKF_LOGIN_REQUIRED, 0, "{:#x}", info.flags);
    let alarm = CKF_USER_PIN_COUNT_LOW
        | CKF_USER_PIN_FINAL_TRY
        | CKF_USER_PIN_LOCKED
        | CKF_USER_PIN_TO_BE_CHANGED
        | CKF_ERROR_STATE;
    assert_eq!(info.flags & alarm, 0, "{:#x}", info.flags);

    let name = bench.tpm.state().join("name");
    let mut read = bench.tpm.tool("tpm2_readpublic");
    programs::run(read.args(["-c", "0x81020000", "-n"]).arg(&name)).ok();
    let digest = openssl::digest("-sha256", &fs::read(name).unwrap());
    let serial: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(text(&info.serialNumber).to_lowercase(), serial);

    let mut mechanisms = raw.mechanisms_of_keys(slot).unwrap();
    mechanisms.sort_unstable();
    assert_eq!(
        mechanisms,
        [
            CKM_ECDSA,
            CKM_ECDSA_SHA1,
            CKM_ECDSA_SHA256,
            CKM_ECDSA_SHA384,
            CKM_ECDSA_SHA512
        ]
    );
    for mechanism in mechanisms {
        let info = raw.mechanism_info(slot, mechanism).unwrap();
        assert_eq!(
            (info.ulMinKeySize, info.ulMaxKeySize),
            (256, 256),
            "{mechanism:#x}"
        );
        assert_ne!(info.flags & CKF_SIGN, 0, "{mechanism:#x}");
        let other = CKF_ENCRYPT | CKF_DECRYPT | CKF_DIGEST | CKF_GENERATE_KEY_PAIR | CKF_DERIVE;
        assert_eq!(info.flags & other, 0, "{mechanism:#x}: {:#x}", info.flags);
    }
}

/// Attributes of both keys of the pair.
fn of_the_key(bench: &Bench) -> Vec<(CK_ULONG, Vec<u8>)> {
    let point = bench.certificate().key_bits();
    assert_eq!(point, openssl::point(&bench.identity.public_key()));
    vec![
        (CKA_TOKEN, yes()),
        (CKA_PRIVATE, no()),
        (CKA_MODIFIABLE, no()),
        (CKA_COPYABLE, no()),
        (CKA_DESTROYABLE, no()),
        (CKA_LABEL, b"idev-id".to_vec()),
        (CKA_ID, bench.id()),
        (CKA_KEY_TYPE, ulong(CKK_EC)),
        (CKA_SUBJECT, bench.certificate().subject),
        (CKA_DERIVE, no()),
        (CKA_LOCAL, yes()),
        (CKA_EC_PARAMS, P256.to_vec()),
        (CKA_EC_POINT, openssl::element(4, &point)),
        (CKA_PUBLIC_KEY_INFO, bench.certificate().public_key_info),
    ]
}

fn the_private_key(link: Link) {
    let bench = Bench::new(link);
    let key = bench.one(CKO_PRIVATE_KEY, "idev-id");
    bench.has(key, &of_the_key(&bench));
    bench.has(
        key,
        &[
            (CKA_SENSITIVE, yes()),
            (CKA_ALWAYS_SENSITIVE, yes()),
            (CKA_EXTRACTABLE, no()),
            (CKA_NEVER_EXTRACTABLE, yes()),
            (CKA_ALWAYS_AUTHENTICATE, no()),
            (CKA_WRAP_WITH_TRUSTED, no()),
            (CKA_SIGN, yes()),
            (CKA_SIGN_RECOVER, no()),
            (CKA_DECRYPT, no()),
            (CKA_UNWRAP, no()),
        ],
    );
}

fn the_public_key(link: Link) {
    let bench = Bench::new(link);
    let key = bench.one(CKO_PUBLIC_KEY, "idev-id");
    bench.has(key, &of_the_key(&bench));
    bench.has(
        key,
        &[
            (CKA_ENCRYPT, no()),
            (CKA_WRAP, no()),
            (CKA_VERIFY_RECOVER, no()),
            (CKA_TRUSTED, no()),
        ],
    );
}

fn the_certificate(link: Link) {
    let bench = Bench::new(link);
    let der = certificate_der(&bench.identity.certificate());
    check_certificate(&bench, &der, "idev-id", CK_CERTIFICATE_CATEGORY_TOKEN_USER);
}

fn check_certificate(bench: &Bench, der: &[u8], label: &str, category: CK_ULONG) {
    let fields = Certificate::new(der);
    let found = bench.one(CKO_CERTIFICATE, label);
    bench.has(
        found,
        &[
            (CKA_TOKEN, yes()),
            (CKA_PRIVATE, no()),
            (CKA_MODIFIABLE, no()),
            (CKA_COPYABLE, yes()),
            (CKA_DESTROYABLE, no()),
            (CKA_LABEL, label.into()),
            (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
            (CKA_CERTIFICATE_CATEGORY, ulong(category)),
            (CKA_TRUSTED, no()),
            (CKA_ID, openssl::digest("-sha1", &fields.key_bits())),
            (CKA_SUBJECT, fields.subject.clone()),
            (CKA_ISSUER, fields.issuer.clone()),
            (CKA_SERIAL_NUMBER, fields.serial.clone()),
            (CKA_PUBLIC_KEY_INFO, fields.public_key_info.clone()),
            (CKA_CHECK_VALUE, openssl::digest("-sha1", der)[..3].to_vec()),
            (CKA_VALUE, der.to_vec()),
        ],
    );
}

/// The issuing CA comes from NV, its issuer from a file beside the configuration.
fn the_chain(link: Link) {
    let bench = Bench::with(link, &[], |home, identity| {
        home.write("chain/root.pem", fs::read(identity.root()).unwrap());
    });
    let category = CK_CERTIFICATE_CATEGORY_AUTHORITY;
    let ca = certificate_der(&bench.identity.ca());
    check_certificate(&bench, &ca, "idev-id-ca-1", category);
    let root = certificate_der(&bench.identity.root());
    check_certificate(&bench, &root, "idev-id-ca-2", category);
    assert_eq!(bench.find(&[(CKA_CLASS, ulong(CKO_CERTIFICATE))]).len(), 3);
    // A chain is followed from issuer to subject.
    let issuer = Certificate::new(&certificate_der(&bench.identity.certificate())).issuer;
    assert_eq!(
        bench.find(&[(CKA_SUBJECT, issuer)]),
        [bench.one(CKO_CERTIFICATE, "idev-id-ca-1")]
    );
    // A certificate from two places is one object.
    assert_eq!(bench.find(&[(CKA_VALUE, ca)]).len(), 1);
}

/// The searches of pkcs11-provider, GnuTLS, OpenSSH, NSS and Java, and further searches.
fn every_attribute_finds_its_object(link: Link) {
    let bench = Bench::new(link);
    let kinds = [
        CKA_CLASS,
        CKA_TOKEN,
        CKA_PRIVATE,
        CKA_LABEL,
        CKA_UNIQUE_ID,
        CKA_ID,
        CKA_KEY_TYPE,
        CKA_SUBJECT,
        CKA_ISSUER,
        CKA_SERIAL_NUMBER,
        CKA_VALUE,
        CKA_CERTIFICATE_TYPE,
        CKA_CERTIFICATE_CATEGORY,
        CKA_TRUSTED,
        CKA_SIGN,
        CKA_VERIFY,
        CKA_DERIVE,
        CKA_EC_PARAMS,
        CKA_EC_POINT,
        CKA_PUBLIC_KEY_INFO,
        CKA_SENSITIVE,
        CKA_EXTRACTABLE,
        CKA_CHECK_VALUE,
        CKA_MODIFIABLE,
        CKA_LOCAL,
        CKA_ALWAYS_AUTHENTICATE,
    ];
    let all = bench.find(&[]);
    assert_eq!(
        all.len(),
        4 + PROFILES,
        "two keys, the certificate and the issuing CA's"
    );
    for object in &all {
        let class = (CKA_CLASS, bench.read(*object, CKA_CLASS).unwrap());
        for kind in kinds {
            let Ok(value) = bench.read(*object, kind) else {
                let found = bench.find(&[(kind, Vec::new()), class.clone()]);
                assert!(!found.contains(object), "{kind:#x} that it does not have");
                continue;
            };
            let found = bench.find(&[(kind, value.clone())]);
            assert!(
                found.contains(object),
                "{kind:#x} = {value:x?} finds {found:?}"
            );
            for other in &found {
                assert_eq!(bench.read(*other, kind).as_ref(), Ok(&value), "{kind:#x}");
            }
            let mut wrong = value.clone();
            if let Some(last) = wrong.last_mut() {
                *last ^= 0x40;
                assert!(
                    !bench.find(&[(kind, wrong)]).contains(object),
                    "{kind:#x} wrong"
                );
            }
            let longer = [value, vec![0]].concat();
            assert!(
                !bench.find(&[(kind, longer)]).contains(object),
                "{kind:#x} longer"
            );
        }
    }
    let pair = bench.find(&[(CKA_ID, bench.id())]);
    assert_eq!(
        pair.len(),
        3,
        "both keys and the certificate have one CKA_ID"
    );
    let secret = bench.find(&[
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_VALUE, vec![0; 32]),
    ]);
    assert!(secret.is_empty(), "a secret is nothing to search for");
}

fn identifiers_are_unique_and_stay(link: Link) {
    let bench = Bench::new(link);
    let read = |bench: &Bench| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let all = bench.find(&[]).into_iter();
        all.map(|object| {
            let class = bench.read(object, CKA_CLASS).unwrap();
            let label = bench.read(object, CKA_LABEL).unwrap();
            (
                bench.read(object, CKA_UNIQUE_ID).unwrap(),
                [class, label].concat(),
            )
        })
        .collect()
    };
    let before = read(&bench);
    assert_eq!(
        before.len(),
        bench.find(&[]).len(),
        "each CKA_UNIQUE_ID once"
    );
    assert!(before.keys().all(|id| !id.is_empty()));
    let raw = &bench.module.raw;
    raw.finalize().unwrap();
    raw.initialize().unwrap();
    let slot = raw.slots(true).unwrap()[0];
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    let module = Opened {
        session,
        slot,
        raw: testkit::raw::Raw::load(&testkit::module::library()),
    };
    assert_eq!(
        read(&Bench { module, ..bench }),
        before,
        "after C_Finalize and C_Initialize"
    );
}

fn a_padded_certificate_is_cut(link: Link) {
    let bench = Bench::with(link, &["--padding", "100"], |_, _| {});
    let der = certificate_der(&bench.identity.certificate());
    check_certificate(&bench, &der, "idev-id", CK_CERTIFICATE_CATEGORY_TOKEN_USER);
}

/// Handle and index are the maker's choice; the pair is found by its public key.
fn identities_at_other_places(link: Link) {
    let options = [
        "--handle",
        "0x81000007",
        "--nv",
        "0x01C90020",
        "--ca-nv",
        "none",
    ];
    let bench = Bench::with(link, &options, |_, _| {});
    let der = certificate_der(&bench.identity.certificate());
    check_certificate(&bench, &der, "idev-id", CK_CERTIFICATE_CATEGORY_TOKEN_USER);
    assert_eq!(
        bench.find(&[]).len(),
        3 + PROFILES,
        "no CA certificate anywhere"
    );
    let signature = bench
        .module
        .sign(CKM_ECDSA, bench.module.key(), &[9; 32])
        .unwrap();
    let judge = openssl::Verifier::new(&bench.identity.public_key());
    judge.accepts_digest(&[9; 32], &signature).ok();
}

fn an_identity_named_by_the_configuration(link: Link) {
    let options = [
        "--handle",
        "0x81000009",
        "--nv",
        "0x01800001",
        "--ca-nv",
        "none",
    ];
    let bench = Bench::with(link, &options, |home, _| {
        home.write(
            "config.toml",
            "[[identity]]\nnv = 0x01800001\nhandle = 0x81000009\n",
        );
    });
    let der = certificate_der(&bench.identity.certificate());
    check_certificate(&bench, &der, "idev-id", CK_CERTIFICATE_CATEGORY_TOKEN_USER);
}

fn the_crate_cryptoki_agrees(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = initialised(&home);
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let token = module.get_token_info(slot).unwrap();
    assert_eq!((token.label(), token.login_required()), ("idev-id", false));
    let session = module.open_ro_session(slot).unwrap();
    let certificate = [
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::Label(b"idev-id".into()),
    ];
    let found = session.find_objects(&certificate).unwrap();
    let value = session
        .get_attributes(found[0], &[AttributeType::Value])
        .unwrap();
    let der = certificate_der(&identity.certificate());
    assert!(matches!(&value[..], [Attribute::Value(value)] if *value == der));
    let key = session
        .find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])
        .unwrap()[0];
    let signature = session
        .sign(&Mechanism::EcdsaSha256, key, b"a message")
        .unwrap();
    let judge = openssl::Verifier::new(&identity.public_key());
    judge
        .accepts_message("-sha256", b"a message", &signature)
        .ok();
    drop(session);
    module.finalize().unwrap();
}

fn the_secret_stays_while_the_rest_is_told(link: Link) {
    let bench = Bench::new(link);
    let key = bench.one(CKO_PRIVATE_KEY, "idev-id");
    const WORD: usize = size_of::<CK_ULONG>();
    let (mut label, mut value, mut class) = ([0_u8; 16], [0xEE_u8; 64], [0_u8; WORD]);
    let item = |type_, room: &mut [u8]| CK_ATTRIBUTE {
        type_,
        pValue: room.as_mut_ptr().cast(),
        ulValueLen: room.len() as CK_ULONG,
    };
    let mut items = [
        item(CKA_LABEL, &mut label),
        item(CKA_VALUE, &mut value),
        item(CKA_CLASS, &mut class),
    ];
    let (table, session) = (&bench.module.raw.table, bench.module.session);
    let code = call!(
        table,
        C_GetAttributeValue(session, key, items.as_mut_ptr(), 3)
    );
    assert_eq!(code, Code(CKR_ATTRIBUTE_SENSITIVE));
    let lengths = items.map(|item| item.ulValueLen);
    assert_eq!(lengths, [7, CK_UNAVAILABLE_INFORMATION, WORD as CK_ULONG]);
    assert_eq!(
        (&label[..7], class.to_vec()),
        (&b"idev-id"[..], ulong(CKO_PRIVATE_KEY))
    );
    assert_eq!(value, [0xEE; 64], "nothing was written");
}
