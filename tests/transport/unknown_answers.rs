//! A TPM whose answers have more, fewer or other fields than the answers of libtpms. No identity is
//! hidden because of that.

use cryptoki_sys::*;
use testkit::devid::{self, Kind, Own};
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::maker::{INDEX, Maker, OPEN};
use testkit::module::{Opened, loaded, tool};
use testkit::openssl::{Verifier, digest};
use testkit::programs::{Said, program, run};
use testkit::proxy::{Book, Fault, Proxy, command, number_at};
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_both_transports!(
    strange_algorithms_hide_no_rsa_identity,
    what_the_tpm_has_not_is_not_listed,
    properties_that_are_not_told_hide_nothing,
);
over_our_transport!(
    a_key_of_another_kind_at_a_salt_keys_place,
    a_curve_that_is_not_there,
    identities_without_handle_hide_no_other,
    a_context_that_is_refused,
    unsorted_handles_and_no_count_of_them,
);

/// TPM_CAP and TPM_ALG_ID.
const ALGORITHMS: u32 = 0;
const HANDLES: u32 = 1;
const PROPERTIES: u32 = 6;
const SHA1: u16 = 0x0004;
const SHA512: u16 = 0x000D;
const RSAPSS: u16 = 0x0016;

struct Bench {
    tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    fn new(link: Link, options: &[&str]) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            tpm,
            identity,
            proxy,
            home,
        }
    }

    /// The identity signs by this mechanism, and OpenSSL verifies it.
    #[track_caller]
    fn signs(&self, mechanism: CK_MECHANISM_TYPE) {
        let module = Opened::new(&self.home);
        let signature = module
            .sign(mechanism, module.key(), b"data")
            .expect("a signature");
        let judge = Verifier::new(&self.identity.public_key());
        let judged = match mechanism {
            CKM_SHA256_RSA_PKCS => {
                judge.accepts_pkcs1("sha256", &digest("-sha256", b"data"), &signature)
            }
            _ => judge.accepts_message("-sha256", b"data", &signature),
        };
        judged.ok();
        module.raw.finalize().unwrap();
    }

    fn devid(&self, words: &[&str]) -> Said {
        run(self
            .home
            .settle(program(tool().to_str().unwrap()).args(words)))
    }

    /// The mechanisms of a token; each of them has information, and no other of `all`.
    #[track_caller]
    fn mechanisms(&self, token: &str, all: &[CK_MECHANISM_TYPE]) -> Vec<CK_MECHANISM_TYPE> {
        let raw = loaded(&self.home);
        raw.initialize().unwrap();
        let slot = testkit::own::slot_of(&raw, token);
        let listed = raw.mechanisms(slot).unwrap();
        for kind in all {
            let told = raw.mechanism_info(slot, *kind);
            assert_eq!(told.is_ok(), listed.contains(kind), "{token}: {kind:#x}");
        }
        raw.finalize().unwrap();
        listed
    }
}

/// The capability that a TPM2_GetCapability asks for, and from which number on.
fn asked(command: &[u8]) -> (u32, u32) {
    (number_at(command, 10), number_at(command, 14))
}

/// From now on the TPM answers what it has of this capability with other items of so many bytes.
fn tells<const SIZE: usize>(
    book: &Book,
    capability: u32,
    other: impl Fn(Vec<[u8; SIZE]>) -> Vec<[u8; SIZE]> + Send + Sync + 'static,
) {
    book.alter(command::GET_CAPABILITY, move |command, answer| {
        if asked(command).0 != capability {
            return answer;
        }
        // Header, moreData, capability, count.
        let items = answer[19..]
            .chunks_exact(SIZE)
            .map(|one| one.try_into().unwrap());
        let items = other(items.collect());
        let count = u32::try_from(items.len()).unwrap().to_be_bytes();
        [&answer[..15], &count, items.as_flattened()].concat()
    });
}

/// Without these algorithms, and with some that nobody knows.
fn tells_algorithms(book: &Book, without: &'static [u16]) {
    tells::<6>(book, ALGORITHMS, |mut all| {
        all.retain(|one| !without.contains(&u16::from_be_bytes([one[0], one[1]])));
        let strange: [u16; 4] = [0x00A0, 0x00A1, 0x00A2, 0x8001];
        all.extend(strange.map(|one| {
            let [high, low] = one.to_be_bytes();
            [high, low, 0xFF, 0xFF, 0xFF, 0xFF]
        }));
        all
    });
}

fn strange_algorithms_hide_no_rsa_identity(link: Link) {
    let bench = Bench::new(link, &["--template", "h1"]);
    tells_algorithms(bench.proxy.book(), &[]);
    bench.signs(CKM_SHA256_RSA_PKCS);
}

/// Ten calls by RSA: PKCS#1 v1.5 and PSS.
const BY_RSA: [CK_MECHANISM_TYPE; 9] = [
    CKM_RSA_PKCS,
    CKM_SHA1_RSA_PKCS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
];

fn what_the_tpm_has_not_is_not_listed(link: Link) {
    let bench = Bench::new(link, &["--template", "h1"]);
    for token in ["idev-id", "devid"] {
        let listed = bench.mechanisms(token, &BY_RSA);
        assert!(BY_RSA.iter().all(|one| listed.contains(one)), "{token}");
    }
    tells_algorithms(bench.proxy.book(), &[SHA1, SHA512, RSAPSS]);
    let book = bench.proxy.book();
    for token in ["idev-id", "devid"] {
        book.take();
        let listed = bench.mechanisms(token, &BY_RSA);
        let left: Vec<_> = BY_RSA
            .into_iter()
            .filter(|one| listed.contains(one))
            .collect();
        assert_eq!(
            left,
            [CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS, CKM_SHA384_RSA_PKCS],
            "{token}"
        );
        // Mechanisms that need no TPM, or only its SHA-256, are listed as before.
        let mut others = vec![CKM_SHA_1, CKM_SHA512];
        if token == "devid" {
            others.extend([CKM_ECDSA, CKM_ECDSA_SHA512]);
        }
        let missing: Vec<_> = others.iter().filter(|one| !listed.contains(one)).collect();
        assert!(missing.is_empty(), "{token}: {missing:x?}");
    }
    // A key that the TPM makes says so itself, and keeps to it.
    let own = Own::new(&bench.home);
    let key = own.make(Kind::Rsa(2048), "key").unwrap().private;
    let raw = &own.raw;
    raw.sign_init(own.session, CKM_SHA384_RSA_PKCS, key)
        .unwrap();
    raw.sign(own.session, b"data").unwrap();
    let refused = raw.sign_init(own.session, CKM_SHA512_RSA_PKCS, key);
    assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
    let asked = book.take();
    raw.sign_init(own.session, CKM_SHA256_RSA_PKCS, key)
        .unwrap();
    raw.sign(own.session, b"data").unwrap();
    let again = book.take();
    assert!(asked.of(command::GET_CAPABILITY) > 0);
    assert_eq!(
        again.of(command::GET_CAPABILITY),
        0,
        "asked once: {again:?}"
    );
    // No RSA at all.
    bench.proxy.book().heal();
    raw.finalize().unwrap();
    tells_algorithms(bench.proxy.book(), &[0x0001]);
    let key_types = [
        CKM_RSA_PKCS_KEY_PAIR_GEN,
        CKM_EC_KEY_PAIR_GEN,
        CKM_RSA_PKCS_OAEP,
    ];
    let listed = bench.mechanisms("devid", &key_types);
    assert!(
        !listed.contains(&CKM_RSA_PKCS_KEY_PAIR_GEN)
            && !BY_RSA.iter().any(|one| listed.contains(one))
    );
    assert!(listed.contains(&CKM_EC_KEY_PAIR_GEN) && listed.contains(&CKM_ECDSA));
}

/// TPM_PT_NV_BUFFER_MAX, TPM_PT_NV_INDEX_MAX; others have tags that nobody knows.
fn properties_that_are_not_told_hide_nothing(link: Link) {
    const UNTOLD: [u32; 2] = [0x12C, 0x117];
    let bench = Bench::new(link, &[]);
    tells::<8>(bench.proxy.book(), PROPERTIES, |mut all| {
        all.retain(|one| !UNTOLD.contains(&number_at(one, 0)));
        all.push([0x7F, 0, 0, 1, 0, 0, 0, 9]);
        all
    });
    // As large as to be read in pieces.
    let maker = Maker::new(&bench.tpm);
    let certificate = std::fs::read(bench.identity.certificate()).unwrap();
    maker.forget_index(INDEX);
    let size = certificate.len();
    assert!(size > 512, "{size}");
    maker.index(INDEX, OPEN, "", &certificate);
    bench.signs(CKM_ECDSA_SHA256);
    assert!(bench.devid(&["status"]).ok().text().contains("idev-id"));
    let provisioned = bench.devid(&["provision"]).ok().all();
    let shown = bench.devid(&["csr", "devid"]).ok();
    let request = bench.home.write("request.pem", shown.out);
    let mut read = program("openssl");
    let subject = run(read.args(["req", "-noout", "-subject", "-in"]).arg(request));
    let subject = subject.ok().text();
    assert!(subject.contains("SN-000001"), "{subject}\n{provisioned}");
}

/// The owner's password is proven in a salted auth session. The module looks for the key of the
/// salt in three places.
fn a_key_of_another_kind_at_a_salt_keys_place(link: Link) {
    const PLACES: [u32; 2] = [0x8101_0001, 0x8101_0002];
    let bench = Bench::new(link, &[]);
    for (place, kind) in PLACES.into_iter().zip(["rsa", "ecc"]) {
        let mut make = bench.tpm.tool("tpm2_createek");
        run(make
            .args(["-G", kind, "-u", "/dev/null", "-c"])
            .arg(format!("{place:#x}")))
        .ok();
    }
    run(bench
        .tpm
        .tool("tpm2_changeauth")
        .args(["-c", "o", "owner's"]))
    .ok();
    let owner = bench.home.write("owner", "owner's");
    let config = format!("[master]\nowner_auth = \"file:{}\"\n", owner.display());
    bench.home.write("config.toml", config);
    // An ML-KEM key has a type and parameters that only level 1.85 knows.
    bench
        .proxy
        .book()
        .alter(command::READ_PUBLIC, |command, mut answer| {
            if number_at(command, 10) == PLACES[0] {
                answer[12..14].copy_from_slice(&[0x00, 0xA0]);
            }
            answer
        });
    let said = bench.devid(&["provision"]).ok().all();
    assert!(
        said.contains("0x81010001") && said.contains("0x00A0"),
        "{said}"
    );
    let seen = bench.proxy.book().take();
    assert!(seen.of(command::START_AUTH_SESSION) > 0, "{seen:?}");
}

fn a_curve_that_is_not_there(link: Link) {
    let bench = devid::Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    for code in [0x0A6, 0x2E6, 0x084, 0x2C4] {
        bench
            .proxy
            .book()
            .break_next(command::CREATE, Fault::Code(code));
        let refused = own.make(Kind::P521, "key").map(drop);
        assert_eq!(refused, Err(Code(CKR_CURVE_NOT_SUPPORTED)), "{code:#x}");
    }
    bench.home.log_says(&["P521", "devid doctor"]);
    own.make(Kind::P521, "key").unwrap();
}

/// Two P-521 certificates without handle, which the TPM refuses to derive keys for.
fn identities_without_handle_hide_no_other(link: Link) {
    for code in [0x0A6, 0x083, 0x501, 0x185, 0x12F] {
        let bench = Bench::new(link, &[]);
        let maker = Maker::new(&bench.tpm);
        for index in ["0x01C90300", "0x01C90301"] {
            let key = bench.home.path("other.pem");
            let mut make = program("openssl");
            make.args(["ecparam", "-name", "secp521r1", "-genkey", "-noout", "-out"]);
            run(make.arg(&key)).ok();
            let public = bench.home.path("public.pem");
            let mut write = program("openssl");
            write
                .args(["pkey", "-pubout", "-in"])
                .arg(&key)
                .arg("-out")
                .arg(&public);
            run(&mut write).ok();
            maker.index(index, OPEN, "", &maker.certificate(&public));
        }
        let book = bench.proxy.book();
        book.break_times(command::CREATE_PRIMARY, Fault::Code(code), 1000);
        bench.signs(CKM_ECDSA_SHA256);
        assert!(
            book.take().answered(command::CREATE_PRIMARY, code) > 0,
            "{code:#x}"
        );
    }
}

/// The key has no handle; its context is of no use after the object was flushed.
fn a_context_that_is_refused(link: Link) {
    for code in [0x1DF, 0x09F, 0x08B, 0x18B, 0x501] {
        let bench = Bench::new(link, &["--no-persist"]);
        let module = Opened::new(&bench.home);
        let key = module.key();
        bench
            .proxy
            .book()
            .break_times(command::CONTEXT_LOAD, Fault::Code(code), 1000);
        for _ in 0..2 {
            let signature = module
                .sign(CKM_ECDSA_SHA256, key, b"data")
                .expect("a signature");
            let judge = Verifier::new(&bench.identity.public_key());
            judge.accepts_message("-sha256", b"data", &signature).ok();
        }
        module.raw.finalize().unwrap();
    }
}

fn unsorted_handles_and_no_count_of_them(link: Link) {
    let bench = Bench::new(link, &[]);
    tells::<4>(bench.proxy.book(), HANDLES, |mut all| {
        all.reverse();
        let again = all.clone();
        all.extend(again);
        all
    });
    tells::<8>(bench.proxy.book(), PROPERTIES, |mut all| {
        for one in all
            .iter_mut()
            .filter(|one| [0x208, 0x209].contains(&number_at(*one, 0)))
        {
            one[4..].fill(0);
        }
        all
    });
    bench.signs(CKM_ECDSA_SHA256);
    let said = bench.devid(&["doctor"]).all();
    assert!(said.contains("1 persistent handles are in use"), "{said}");
    assert!(
        said.contains("does not report how many more keys fit"),
        "{said}"
    );
}
