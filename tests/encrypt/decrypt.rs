//! C_Decrypt and C_Encrypt with OpenSSL as the other side, and the attributes of keys that decrypt.

use cryptoki_sys::*;
use testkit::ciphers::{
    Bench, ecdh, mechanism, oaep, openssl_decrypts, openssl_encrypts, peer, pkcs1, readable,
};
use testkit::home::Home;
use testkit::link::Link;
use testkit::memory::contains;
use testkit::module::{Opened, loaded, ulong};
use testkit::own::{NO, Own, P256, RSA_KEY, YES, outside, slot_of};
use testkit::programs::output;
use testkit::proxy::command;
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_both_transports!(what_openssl_encrypts, nobody_on_the_bus_reads_along,);
over_our_transport!(
    every_fault_of_a_ciphertext_is_one,
    what_openssl_decrypts,
    the_operation_rule,
    each_decryption_asks_for_its_user,
    keys_that_do_not,
    keys_say_what_they_do,
);

/// By OpenSSL's names.
const HASHES: [(&str, CK_ULONG, CK_ULONG, usize); 4] = [
    ("sha1", CKM_SHA_1, CKG_MGF1_SHA1, 20),
    ("sha256", CKM_SHA256, CKG_MGF1_SHA256, 32),
    ("sha384", CKM_SHA384, CKG_MGF1_SHA384, 48),
    ("sha512", CKM_SHA512, CKG_MGF1_SHA512, 64),
];

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

/// Every fault of the padding has one code, and ends only the operation.
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
    assert_eq!(bench.proxy.book().take().of(command::RSA_DECRYPT), 1);
    let mut room = [0; 5];
    let fits = own.decrypt_into(&hidden, Some(&mut room));
    assert_eq!((fits, &room), ((Code(CKR_OK), 5), b"hello"));
    assert_eq!(bench.proxy.book().take().total(), 0);
    assert_eq!(own.decrypt_on(&hidden), none);
    // A waiting message belongs to its own ciphertext only.
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
    // A NULL length pointer and NULL data end the operation too.
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

/// The result of a key without authorisation value crosses the bus encrypted.
fn nobody_on_the_bus_reads_along(link: Link) {
    let bench = Bench::new(link);
    let (public, key) = bench.own.decrypting(&[]);
    let message = b"for these eyes only";
    let hidden = bench.own.encrypt(pkcs1(), public, message).unwrap();
    let (_, agreeing) = bench.own.agreeing(&P256, &[]);
    let (_, point) = bench.peer("P-256", 32);
    bench.proxy.book().keep();
    assert_eq!(
        bench.own.decrypt(pkcs1(), key, &hidden),
        Ok(message.to_vec())
    );
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    let secret = bench.own.derive(by, agreeing, &readable()).unwrap();
    let secret = bench.own.attribute(secret, CKA_VALUE);
    let wire = bench.proxy.book().wire();
    let carried = |bytes: &[u8]| wire.iter().any(|packet| contains(packet, bytes));
    // The search finds data that did cross the bus.
    assert!(carried(&hidden) && carried(&point[1..33]));
    assert!(!carried(message) && !carried(&secret));
}

/// CKA_ALWAYS_AUTHENTICATE: the PIN is given again after each C_DecryptInit.
fn each_decryption_asks_for_its_user(link: Link) {
    let bench = Bench::new(link);
    let Opened { raw, slot, session } = bench.own.0;
    raw.close(session).unwrap();
    let (mut officer, mut pin, mut label) = (*b"officer-pin", *b"user-pin", [b' '; 32]);
    label[..5].copy_from_slice(b"devid");
    let (at, length) = (officer.as_mut_ptr(), officer.len() as CK_ULONG);
    let made = call!(raw.table, C_InitToken(slot, at, length, label.as_mut_ptr()));
    made.result().unwrap();
    let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    let session = raw.open(slot, flags).unwrap();
    raw.login(session, CKU_SO, &officer).unwrap();
    let (at, length) = (pin.as_mut_ptr(), pin.len() as CK_ULONG);
    call!(raw.table, C_InitPIN(session, at, length))
        .result()
        .unwrap();
    raw.logout(session).unwrap();
    raw.login(session, CKU_USER, &pin).unwrap();
    let own = Own(Opened { raw, slot, session });
    let always = [
        (CKA_ALWAYS_AUTHENTICATE, YES.to_vec()),
        (CKA_PRIVATE, YES.to_vec()),
    ];
    let (public, key) = own.decrypting(&always);
    let hidden = own.encrypt(pkcs1(), public, b"hello").unwrap();
    let again = |pin: &[u8]| own.raw.login(own.session, CKU_CONTEXT_SPECIFIC, pin);
    for _ in 0..2 {
        own.decrypt_init(pkcs1(), key).unwrap();
        again(&pin).unwrap();
        assert_eq!(own.decrypt_on(&hidden), Ok(b"hello".to_vec()));
        let unproven = own.decrypt(pkcs1(), key, &hidden);
        assert_eq!(unproven, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    }
    let idle = again(&pin);
    assert_eq!(idle, Err(Code(CKR_OPERATION_NOT_INITIALIZED)));
    // An agreement has no beginning at which to ask.
    let (_, key) = own.agreeing(&P256, &always);
    assert_eq!(own.attribute(key, CKA_DERIVE), NO);
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
    let allowed = |key, kind: CK_ULONG| {
        let allowed = own.attribute(key, CKA_ALLOWED_MECHANISMS);
        allowed
            .chunks(size_of::<CK_ULONG>())
            .any(|one| one == kind.to_ne_bytes())
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
    // The key no longer shows a use that its owner gave up.
    own.change(agrees, &[(CKA_DERIVE, NO.to_vec())]).unwrap();
    assert!(!allowed(agrees, CKM_ECDH1_DERIVE));
}
