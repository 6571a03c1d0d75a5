//! C_Decrypt, C_Encrypt and C_DeriveKey, OpenSSL being on the other side.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::ciphers::{
    ecdh, mechanism, oaep, openssl_agrees, openssl_decrypts, openssl_encrypts, pkcs1, readable,
};
use common::home::Home;
use common::module::{Opened, loaded, ulong};
use common::openssl::element;
use common::own::{NO, Own, P256, P256_KEY, P384, P521, RSA_KEY, YES, outside, slot_of};
use common::programs::{output, program, run};
use common::proxy::Proxy;
use common::raw::{Code, Item};
use common::story::Link;
use common::tpm::Swtpm;
use cryptoki_sys::*;
use std::path::PathBuf;

over_both_links!(
    what_openssl_encrypts,
    a_secret_is_agreed_on_each_curve,
    commands_of_a_decryption_and_an_agreement,
);
over_our_link!(
    every_fault_of_a_ciphertext_is_one,
    what_openssl_decrypts,
    the_operation_rule,
    keys_that_do_not,
    keys_say_what_they_do,
    derived_keys_say_what_they_are,
    a_derived_key_has_the_length_that_is_asked_for,
    derivations_that_are_refused,
    a_derived_key_goes_with_its_session,
    keys_in_memory_agree_as_well,
);

const RSA_DECRYPT: u32 = 0x159;
const ECDH_ZGEN: u32 = 0x154;
/// By OpenSSL's names.
const HASHES: [(&str, u64, u64, usize); 4] = [
    ("sha1", CKM_SHA_1, CKG_MGF1_SHA1, 20),
    ("sha256", CKM_SHA256, CKG_MGF1_SHA256, 32),
    ("sha384", CKM_SHA384, CKG_MGF1_SHA384, 48),
    ("sha512", CKM_SHA512, CKG_MGF1_SHA512, 64),
];

struct Bench {
    tpm: Swtpm,
    proxy: Proxy,
    home: Home,
    own: Own,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let tpm = Swtpm::blank();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let own = Own::new(&home);
        Bench {
            tpm,
            proxy,
            home,
            own,
        }
    }

    /// A key pair of OpenSSL's on this curve: its file and its point.
    fn peer(&self, curve: &str, width: usize) -> (PathBuf, Vec<u8>) {
        let file = self.home.path(&format!("{curve}.key"));
        let group = format!("ec_paramgen_curve:{curve}");
        let mut make = program("openssl");
        make.args(["genpkey", "-algorithm", "EC", "-pkeyopt", &group, "-out"]);
        run(make.arg(&file)).ok();
        let name = file.to_str().unwrap();
        let info = output(
            "openssl",
            ["pkey", "-in", name, "-pubout", "-outform", "DER"],
        );
        let point = info[info.len() - 2 * width - 1..].to_vec();
        assert_eq!(point[0], 4, "an uncompressed point");
        (file, point)
    }
}

fn options(hash: &str, mgf: &str, label: &[u8]) -> Vec<String> {
    let mut options = vec![
        "rsa_padding_mode:oaep".to_owned(),
        format!("rsa_oaep_md:{hash}"),
        format!("rsa_mgf1_md:{mgf}"),
    ];
    if !label.is_empty() {
        let digits: String = label.iter().map(|byte| format!("{byte:02x}")).collect();
        options.push(format!("rsa_oaep_label:{digits}"));
    }
    options
}

fn strs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

fn what_openssl_encrypts(link: Link) {
    let bench = Bench::new(link);
    let (public, key) = bench.own.decrypting(&[]);
    let pem = bench.own.pem(&bench.home, public);
    for message in [&b"hello"[..], &[7; 245], &[0; 1]] {
        let hidden = openssl_encrypts(&bench.home, &pem, &[], message);
        let plain = bench.own.decrypt(pkcs1(), key, &hidden);
        assert_eq!(plain, Ok(message.to_vec()));
    }
    for (n, (hash, kind, ..)) in HASHES.into_iter().enumerate() {
        for (name, _, mgf, _) in HASHES {
            let label = &b"a label"[..if n % 2 == 0 { 0 } else { 7 }];
            let options = options(hash, name, label);
            let hidden = openssl_encrypts(&bench.home, &pem, &strs(&options), b"hello");
            let parameter = oaep(kind, mgf, label);
            let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
            let plain = bench.own.decrypt(by, key, &hidden);
            assert_eq!(plain, Ok(b"hello".to_vec()), "{hash} {name}");
        }
    }
    assert_eq!(bench.tpm.transients(), 0);
}

/// One code, whichever part of the padding is wrong; and none of them ends more than the operation.
fn every_fault_of_a_ciphertext_is_one(link: Link) {
    let bench = Bench::new(link);
    let (public, key) = bench.own.decrypting(&[]);
    let pem = bench.own.pem(&bench.home, public);
    let invalid = Err(Code(CKR_ENCRYPTED_DATA_INVALID));
    let raw = ["rsa_padding_mode:none"];
    let block = |begin: &[u8], fill: u8, end: &[u8]| {
        let fill = vec![fill; 256 - begin.len() - end.len()];
        openssl_encrypts(&bench.home, &pem, &raw, &[begin, &fill, end].concat())
    };
    for wrong in [
        block(&[0, 1], 7, b"\0hello"),
        block(&[0, 2], 7, b""),
        block(&[0, 2, 7, 7, 0], 7, b"hello"),
        block(&[0, 0], 0, b""),
        vec![0xFF; 256],
        vec![0; 256],
    ] {
        assert_eq!(bench.own.decrypt(pkcs1(), key, &wrong), invalid);
        let parameter = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
        let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
        assert_eq!(bench.own.decrypt(by, key, &wrong), invalid);
    }
    let options = options("sha256", "sha256", b"label");
    let hidden = openssl_encrypts(&bench.home, &pem, &strs(&options), b"hello");
    for (hash, mgf, label) in [
        (CKM_SHA256, CKG_MGF1_SHA256, &b"other"[..]),
        (CKM_SHA256, CKG_MGF1_SHA1, b"label"),
        (CKM_SHA1_RSA_PKCS, CKG_MGF1_SHA256, b"label"),
    ] {
        let parameter = oaep(hash, mgf, label);
        let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
        let expected = match hash {
            CKM_SHA256 => invalid.clone(),
            _ => Err(Code(CKR_MECHANISM_PARAM_INVALID)),
        };
        assert_eq!(bench.own.decrypt(by, key, &hidden), expected);
    }
    for length in [0, 1, 255, 257, 512] {
        bench.proxy.book().take();
        let decrypted = bench.own.decrypt(pkcs1(), key, &vec![1; length]);
        assert_eq!(decrypted, Err(Code(CKR_ENCRYPTED_DATA_LEN_RANGE)));
        assert_eq!(bench.proxy.book().take().total(), 0);
    }
}

fn what_openssl_decrypts(link: Link) {
    let bench = Bench::new(link);
    outside(&bench.home, "other", &RSA_KEY);
    let (private, public) = (bench.home.path("other.key"), bench.home.path("other.pub"));
    let public = public.to_str().unwrap();
    let said = output(
        "openssl",
        ["rsa", "-pubin", "-noout", "-modulus", "-in", public],
    );
    let said = String::from_utf8(said).unwrap();
    let digits = said.trim().strip_prefix("Modulus=").unwrap();
    let modulus: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let template = |encrypts: &[u8]| {
        [
            (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_RSA)),
            (CKA_MODULUS, modulus.clone()),
            (CKA_PUBLIC_EXPONENT, vec![1, 0, 1]),
            (CKA_ENCRYPT, encrypts.to_vec()),
        ]
    };
    let key = bench.own.create(&template(YES)).unwrap();
    bench.proxy.book().take();
    for message in [&b"hello"[..], &[], &[9; 245]] {
        let hidden = bench.own.encrypt(pkcs1(), key, message).unwrap();
        let again = bench.own.encrypt(pkcs1(), key, message).unwrap();
        assert_ne!(hidden, again);
        let plain = openssl_decrypts(&bench.home, &private, &[], &hidden);
        assert_eq!(plain, message);
    }
    let long = bench.own.encrypt(pkcs1(), key, &[9; 246]);
    assert_eq!(long, Err(Code(CKR_DATA_LEN_RANGE)));
    for (hash, kind, _, width) in HASHES {
        for (name, _, mgf, _) in HASHES {
            let parameter = oaep(kind, mgf, b"label");
            let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
            let message = vec![5; 256 - 2 * width - 2];
            let hidden = bench.own.encrypt(by, key, &message).unwrap();
            let options = options(hash, name, b"label");
            let plain = openssl_decrypts(&bench.home, &private, &strs(&options), &hidden);
            assert_eq!(plain, message, "{hash} {name}");
            let long = bench.own.encrypt(by, key, &vec![5; message.len() + 1]);
            assert_eq!(long, Err(Code(CKR_DATA_LEN_RANGE)));
        }
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
    let signs_only = bench.own.create(&template(NO)).unwrap();
    let refused = bench.own.encrypt(pkcs1(), signs_only, b"hello");
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
}

fn the_operation_rule(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (public, key) = own.decrypting(&[]);
    let pem = own.pem(&bench.home, public);
    let hidden = openssl_encrypts(&bench.home, &pem, &[], b"hello");
    let other = openssl_encrypts(&bench.home, &pem, &[], b"other!");
    let none = Err(Code(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(own.decrypt_on(&hidden), none);
    own.decrypt_init(pkcs1(), key).unwrap();
    let again = own.decrypt_init(pkcs1(), key);
    assert_eq!(again, Err(Code(CKR_OPERATION_ACTIVE)));
    // Asking for a length is free, and says no more than the key's width does.
    bench.proxy.book().take();
    let asked = own.decrypt_into(&hidden, None);
    assert_eq!(asked, (Code(CKR_OK), 245));
    assert_eq!(bench.proxy.book().take().total(), 0);
    // Too little room: the message waits, and comes without the TPM.
    let small = own.decrypt_into(&hidden, Some(&mut [0; 4]));
    assert_eq!(small, (Code(CKR_BUFFER_TOO_SMALL), 5));
    assert_eq!(bench.proxy.book().take().of(RSA_DECRYPT), 1);
    let mut room = [0; 5];
    let fits = own.decrypt_into(&hidden, Some(&mut room));
    assert_eq!((fits, &room), ((Code(CKR_OK), 5), b"hello"));
    assert_eq!(bench.proxy.book().take().total(), 0);
    assert_eq!(own.decrypt_on(&hidden), none);
    // What waits is of its own ciphertext only.
    own.decrypt_init(pkcs1(), key).unwrap();
    own.decrypt_into(&hidden, Some(&mut []))
        .0
        .result()
        .unwrap_err();
    assert_eq!(own.decrypt_on(&other), Ok(b"other!".to_vec()));
    // A fault ends it, and nothing but it.
    own.decrypt_init(pkcs1(), key).unwrap();
    own.decrypt_on(&[1; 256]).unwrap_err();
    assert_eq!(own.decrypt_on(&hidden), none);
    // As does a length pointer that is none, or data that is none.
    let (data, null) = (hidden.as_ptr().cast_mut(), std::ptr::null_mut());
    let table = &own.raw.table;
    own.decrypt_init(pkcs1(), key).unwrap();
    let mut room = [0; 256];
    let bad = Code(CKR_ARGUMENTS_BAD);
    let to = room.as_mut_ptr();
    let answer = call!(
        table,
        C_Decrypt(own.session, data, 256, to, std::ptr::null_mut())
    );
    assert_eq!((answer, own.decrypt_on(&hidden)), (bad, none.clone()));
    own.decrypt_init(pkcs1(), key).unwrap();
    let mut length = 256;
    let answer = call!(
        table,
        C_Decrypt(own.session, null, 256, to, &raw mut length)
    );
    assert_eq!((answer, own.decrypt_on(&hidden)), (bad, none.clone()));
    // Cancelled in either way.
    own.decrypt_init(pkcs1(), key).unwrap();
    let null = std::ptr::null_mut();
    let cancelled = call!(own.raw.table, C_DecryptInit(own.session, null, key));
    assert_eq!(cancelled, Code(CKR_OK));
    assert_eq!(own.decrypt_on(&hidden), none);
    let v3: *const CK_FUNCTION_LIST_3_0 = own.raw.interface(Some((3, 0))).unwrap().cast();
    // SAFETY: the table of version 3.0 lives as long as the module.
    let v3 = unsafe { &*v3 };
    own.decrypt_init(pkcs1(), key).unwrap();
    let cancelled = call!(v3, C_SessionCancel(own.session, CKF_ENCRYPT | CKF_SIGN));
    assert_eq!(cancelled, Code(CKR_OK));
    assert_eq!(own.decrypt_on(&hidden), Ok(b"hello".to_vec()));
    own.decrypt_init(pkcs1(), key).unwrap();
    let cancelled = call!(v3, C_SessionCancel(own.session, CKF_DECRYPT));
    assert_eq!(cancelled, Code(CKR_OK));
    assert_eq!(own.decrypt_on(&hidden), none);
}

fn a_secret_is_agreed_on_each_curve(link: Link) {
    let bench = Bench::new(link);
    for (curve, oid, width) in [
        ("P-256", &P256[..], 32),
        ("P-384", &P384, 48),
        ("P-521", &P521, 66),
    ] {
        let (public, key) = bench.own.agreeing(oid, &[]);
        let (peer, point) = bench.peer(curve, width);
        let theirs = openssl_agrees(&bench.home, &peer, &bench.own.pem(&bench.home, public));
        for kind in [CKM_ECDH1_DERIVE, CKM_ECDH1_COFACTOR_DERIVE] {
            for public in [point.clone(), element(0x04, &point)] {
                let parameter = ecdh(CKD_NULL, &[], &public);
                let by = mechanism(kind, Some(&parameter));
                let made = bench.own.derive(by, key, &readable()).unwrap();
                assert_eq!(bench.own.attribute(made, CKA_VALUE), theirs, "{curve}");
            }
        }
        // A function of the secret, by OpenSSL.
        let parameter = ecdh(CKD_SHA256_KDF, b"shared", &point);
        let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
        let template = [&readable()[..], &[(CKA_VALUE_LEN, ulong(48))]].concat();
        let made = bench.own.derive(by, key, &template).unwrap();
        let digits =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let secret = format!("hexkey:{}", digits(&theirs));
        let info = format!("hexinfo:{}", digits(b"shared"));
        let options = [
            "-kdfopt",
            "digest:SHA256",
            "-kdfopt",
            &secret,
            "-kdfopt",
            &info,
        ];
        let function = [
            &["kdf", "-binary", "-keylen", "48"][..],
            &options,
            &["X963KDF"],
        ];
        let theirs = output("openssl", function.concat());
        assert_eq!(bench.own.attribute(made, CKA_VALUE), theirs, "{curve}");
    }
    assert_eq!(bench.tpm.transients(), 0);
}

/// What an operation costs: Load, the command, FlushContext; one with a persistent handle.
fn commands_of_a_decryption_and_an_agreement(link: Link) {
    let bench = Bench::new(link);
    let persistent: Item = (CKA_VENDOR_DEFINED | 0x4445_0005, YES.to_vec());
    let (_, point) = bench.peer("P-256", 32);
    for (also, commands) in [(&[][..], 3), (&[persistent][..], 1)] {
        let (public, key) = bench.own.decrypting(also);
        let hidden = bench.own.encrypt(pkcs1(), public, b"hello").unwrap();
        let decrypt = || bench.own.decrypt(pkcs1(), key, &hidden).unwrap();
        decrypt();
        bench.proxy.book().take();
        decrypt();
        let book = bench.proxy.book().take();
        assert_eq!((book.of(RSA_DECRYPT), book.total()), (1, commands));

        let (_, key) = bench.own.agreeing(&P256, also);
        let parameter = ecdh(CKD_NULL, &[], &point);
        let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
        let derive = || bench.own.derive(by, key, &readable()).unwrap();
        derive();
        bench.proxy.book().take();
        derive();
        let book = bench.proxy.book().take();
        assert_eq!((book.of(ECDH_ZGEN), book.total()), (1, commands));
    }
}

fn keys_that_do_not(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--template", "h1"]);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let slot = raw.slots(true).unwrap()[0];
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    // The factory's identity signs, and that is all: nothing new is listed.
    for kind in raw.mechanisms(slot).unwrap() {
        let flags = raw.mechanism_info(slot, kind).unwrap().flags;
        assert_eq!(flags & (CKF_DECRYPT | CKF_ENCRYPT | CKF_DERIVE), 0);
        assert!(![CKM_RSA_PKCS_OAEP, CKM_ECDH1_DERIVE].contains(&kind));
    }
    let find = |class| raw.find(session, &[(CKA_CLASS, ulong(class))]).unwrap()[0];
    let (key, public) = (find(CKO_PRIVATE_KEY), find(CKO_PUBLIC_KEY));
    let own = Own(Opened { raw, slot, session });
    let refused = Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED));
    assert_eq!(own.decrypt_init(pkcs1(), key), refused);
    let encrypted = own.encrypt(pkcs1(), public, b"hello");
    assert_eq!(encrypted, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));

    let own = bench_keys(own);
    let (public, key) = own.pair("signs");
    let (_, point) = peer(&home);
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    let refused = Code(CKR_KEY_FUNCTION_NOT_PERMITTED);
    assert_eq!(own.derive(by, key, &readable()), Err(refused));
    let refused = Code(CKR_KEY_HANDLE_INVALID);
    assert_eq!(own.derive(by, public, &readable()), Err(refused));
    assert_eq!(own.decrypt_init(pkcs1(), public), Err(refused));
    let inconsistent = Err(Code(CKR_KEY_TYPE_INCONSISTENT));
    assert_eq!(own.decrypt_init(pkcs1(), key), inconsistent);
    let limited = [(CKA_ALLOWED_MECHANISMS, ulong(CKM_RSA_PKCS))];
    let (_, key) = own.decrypting(&limited);
    let parameter = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
    let invalid = Err(Code(CKR_MECHANISM_INVALID));
    assert_eq!(own.decrypt_init(by, key), invalid);
    assert_eq!(own.attribute(key, CKA_ALLOWED_MECHANISMS), limited[0].1);
}

/// The token of own keys, after another was looked at.
fn bench_keys(before: Own) -> Own {
    let Own(Opened { raw, .. }) = before;
    let slot = slot_of(&raw, "devid");
    let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
    Own(Opened { raw, slot, session })
}

fn peer(home: &Home) -> (PathBuf, Vec<u8>) {
    outside(home, "peer", &P256_KEY);
    let point = common::openssl::point(&home.path("peer.pub"));
    (home.path("peer.key"), point)
}

fn keys_say_what_they_do(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let info = |kind| own.raw.mechanism_info(own.slot, kind).unwrap().flags;
    let both = CKF_SIGN | CKF_VERIFY | CKF_DECRYPT | CKF_ENCRYPT;
    assert_eq!(info(CKM_RSA_PKCS) & both, both);
    let opens = CKF_DECRYPT | CKF_ENCRYPT;
    assert_eq!(info(CKM_RSA_PKCS_OAEP) & both, opens);
    for kind in [CKM_ECDH1_DERIVE, CKM_ECDH1_COFACTOR_DERIVE] {
        assert_eq!(info(kind) & (both | CKF_DERIVE), CKF_DERIVE);
    }
    let mechanisms = own.raw.mechanisms(own.slot).unwrap();
    let count = |kind| mechanisms.iter().filter(|one| **one == kind).count();
    assert!(mechanisms.iter().all(|kind| count(*kind) == 1));
    let allowed = |key, kind: u64| {
        let allowed = own.attribute(key, CKA_ALLOWED_MECHANISMS);
        allowed.chunks(8).any(|one| one == kind.to_ne_bytes())
    };
    let ((public, decrypts), (_, agrees)) = (own.decrypting(&[]), own.agreeing(&P256, &[]));
    let (other_public, signs) = own.pair("signs");
    for (key, attribute, mechanism, does) in [
        (decrypts, CKA_DECRYPT, CKM_RSA_PKCS_OAEP, true),
        (agrees, CKA_DERIVE, CKM_ECDH1_DERIVE, true),
        (signs, CKA_DERIVE, CKM_ECDH1_DERIVE, false),
    ] {
        assert_eq!(own.attribute(key, attribute) == YES, does);
        assert_eq!(allowed(key, mechanism), does);
    }
    assert_eq!(own.attribute(public, CKA_ENCRYPT), YES);
    assert_eq!(own.attribute(other_public, CKA_ENCRYPT), NO);
    // What its owner gives up, it no longer says.
    own.change(agrees, &[(CKA_DERIVE, NO.to_vec())]).unwrap();
    assert!(!allowed(agrees, CKM_ECDH1_DERIVE));
}

fn derived_keys_say_what_they_are(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (_, key) = own.agreeing(&P256, &[]);
    let (_, point) = peer(&bench.home);
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    let named = [(CKA_LABEL, b"brief".to_vec()), (CKA_ID, vec![7])];
    let made = own.derive(by, key, &named).unwrap();
    assert_eq!(own.labelled("brief"), [made]);
    for (kind, value) in [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
        (CKA_TOKEN, NO.to_vec()),
        (CKA_LOCAL, NO.to_vec()),
        (CKA_SENSITIVE, YES.to_vec()),
        (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
        (CKA_EXTRACTABLE, NO.to_vec()),
        (CKA_NEVER_EXTRACTABLE, YES.to_vec()),
        (CKA_VALUE_LEN, ulong(32)),
        (CKA_ID, vec![7]),
    ] {
        assert_eq!(own.attribute(made, kind), value, "{kind:#x}");
    }
    let hidden = |made| own.raw.attribute(own.session, made, CKA_VALUE);
    let sensitive = Err(Code(CKR_ATTRIBUTE_SENSITIVE));
    assert_eq!(hidden(made), sensitive);
    // Only both together let it be read.
    for (kind, value) in [(CKA_SENSITIVE, NO), (CKA_EXTRACTABLE, YES)] {
        let made = own.derive(by, key, &[(kind, value.to_vec())]).unwrap();
        assert_eq!(hidden(made), sensitive);
    }
    let uses = [CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_SIGN];
    let uses = uses.map(|kind| (kind, YES.to_vec()));
    let made = own.derive(by, key, &[&readable()[..], &uses].concat());
    let made = made.unwrap();
    assert_eq!(own.attribute(made, CKA_VALUE).len(), 32);
    assert_eq!(own.attribute(made, CKA_ALWAYS_SENSITIVE), NO);
    assert_eq!(own.attribute(made, CKA_NEVER_EXTRACTABLE), NO);
    for (kind, _) in uses {
        assert_eq!(own.attribute(made, kind), NO, "{kind:#x}");
    }
    let value = own.attribute(made, CKA_VALUE);
    own.change(made, &[(CKA_LABEL, b"named".to_vec())]).unwrap();
    assert_eq!(own.labelled("named"), [made]);
    assert_eq!(own.attribute(made, CKA_VALUE), value);
    own.destroy(made).unwrap();
    assert_eq!(own.labelled("named"), []);
}

fn a_derived_key_has_the_length_that_is_asked_for(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (_, key) = own.agreeing(&P256, &[]);
    let (_, point) = peer(&bench.home);
    let (plain, with) = (
        ecdh(CKD_NULL, &[], &point),
        ecdh(CKD_SHA512_KDF, b"", &point),
    );
    let sized = |parameter: &CK_ECDH1_DERIVE_PARAMS, kind: u64, length: Option<u64>| {
        let mut template = readable();
        template[1].1 = ulong(kind);
        template.extend(length.map(|length| (CKA_VALUE_LEN, ulong(length))));
        let made = own.derive(mechanism(CKM_ECDH1_DERIVE, Some(parameter)), key, &template)?;
        Ok(own.attribute(made, CKA_VALUE))
    };
    let whole = sized(&plain, CKK_GENERIC_SECRET, None).unwrap();
    // What is too much goes from the leading end.
    for (kind, length) in [(CKK_GENERIC_SECRET, 20), (CKK_AES, 16), (CKK_AES, 24)] {
        let part = sized(&plain, kind, Some(length)).unwrap();
        assert_eq!(part, whole[32 - length as usize..]);
    }
    let range = Err(Code(CKR_KEY_SIZE_RANGE));
    assert_eq!(sized(&plain, CKK_GENERIC_SECRET, Some(33)), range);
    assert_eq!(sized(&plain, CKK_AES, Some(20)), range);
    assert_eq!(sized(&with, CKK_GENERIC_SECRET, Some(1 << 40)), range);
    let long = sized(&with, CKK_GENERIC_SECRET, Some(100)).unwrap();
    assert_eq!(sized(&with, CKK_AES, Some(32)).unwrap(), long[..32]);
    assert_eq!(sized(&with, CKK_GENERIC_SECRET, None).unwrap(), long[..64]);
}

fn derivations_that_are_refused(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (_, key) = own.agreeing(&P256, &[]);
    let (_, point) = peer(&bench.home);
    bench.proxy.book().take();
    let refused = |kdf, shared: &[u8], point: &[u8], also: Option<Item>| {
        let parameter = ecdh(kdf, shared, point);
        let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
        let mut template = readable();
        template.extend(also);
        own.derive(by, key, &template).unwrap_err()
    };
    let wrong = Code(CKR_MECHANISM_PARAM_INVALID);
    let mut outside = point.clone();
    outside[64] ^= 1;
    let infinity = [0];
    for public in [&outside[..], &point[..64], &[], &infinity, &[4; 133]] {
        assert_eq!(refused(CKD_NULL, &[], public, None), wrong);
    }
    assert_eq!(refused(CKD_NULL, b"shared", &point, None), wrong);
    assert_eq!(refused(CKD_SHA224_KDF, &[], &point, None), wrong);
    let none = own.derive(mechanism::<u8>(CKM_ECDH1_DERIVE, None), key, &readable());
    assert_eq!(none, Err(wrong));
    let inconsistent = Code(CKR_TEMPLATE_INCONSISTENT);
    for (item, code) in [
        ((CKA_TOKEN, YES.to_vec()), inconsistent),
        ((CKA_CLASS, ulong(CKO_DATA)), inconsistent),
        ((CKA_VALUE, vec![7; 32]), Code(CKR_ATTRIBUTE_READ_ONLY)),
        ((CKA_MODULUS, vec![7]), Code(CKR_ATTRIBUTE_TYPE_INVALID)),
    ] {
        assert_eq!(refused(CKD_NULL, &[], &point, Some(item)), code);
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
}

fn a_derived_key_goes_with_its_session(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (_, key) = own.agreeing(&P256, &[]);
    let (_, point) = peer(&bench.home);
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    let raw = loaded(&bench.home);
    let session = raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let slot = own.slot;
    let brief = Own(Opened { raw, slot, session });
    let made = brief.derive(by, key, &readable()).unwrap();
    assert_eq!(own.attribute(made, CKA_VALUE).len(), 32);
    own.raw.close(session).unwrap();
    let gone = own.raw.attribute(own.session, made, CKA_VALUE);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
}

/// Sealed keys: the TPM opens them once, and then nothing goes to it.
fn keys_in_memory_agree_as_well(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let sealed: Item = (CKA_VENDOR_DEFINED | 0x4445_0004, ulong(2));
    let (public, key) = own.agreeing(&P256, &[sealed]);
    let (private, point) = peer(&bench.home);
    let theirs = openssl_agrees(&bench.home, &private, &own.pem(&bench.home, public));
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    let made = own.derive(by, key, &readable()).unwrap();
    assert_eq!(own.attribute(made, CKA_VALUE), theirs);
    bench.proxy.book().take();
    own.derive(by, key, &readable()).unwrap();
    assert_eq!(bench.proxy.book().take().total(), 0);
}
