//! Refusals of C_UnwrapKey: errors of the wrapped data, which all have one code, keys that cannot
//! unwrap, and wrong templates.

use cryptoki_sys::*;
use testkit::ciphers::{Bench, mechanism, oaep, openssl_encrypts, pkcs1};
use testkit::devid::PERSISTENT;
use testkit::link::Link;
use testkit::module::{Opened, loaded, ulong};
use testkit::openssl::public_key_der;
use testkit::own::{NO, Own, P256, YES, folder};
use testkit::programs::output;
use testkit::raw::{Code, Item};
use testkit::wrapping::{
    AesWrap, keys, oaep_options, openssl_wraps, private_key_info, random, rsa_aes, signs_as, wanted,
};

over_our_transport!(
    every_fault_of_a_wrapped_key_is_one,
    keys_that_do_not_unwrap,
    templates_of_wrapped_keys,
);

const INVALID: Result<CK_ULONG, Code> = Err(Code(CKR_WRAPPED_KEY_INVALID));

/// Every fault has one code, and no object is made.
fn every_fault_of_a_wrapped_key_is_one(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let (public, key) = own.unwrapping(&[]);
    let pem = own.pem(home, public);
    let ec = private_key_info(home, "p256");
    let before = folder(home);
    let (sha256, sha1) = (
        oaep(CKM_SHA256, CKG_MGF1_SHA256, b""),
        oaep(CKM_SHA_1, CKG_MGF1_SHA1, b""),
    );
    let labelled = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"label");
    let template = wanted(CKK_EC, &[(CKA_TOKEN, YES.to_vec())]);
    let by_rsa = |bits, inner: &CK_RSA_PKCS_OAEP_PARAMS, wrapped: &[u8]| {
        let parameter = rsa_aes(bits, inner);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        own.unwrap(by, key, wrapped, &template)
    };
    let wrapped = openssl_wraps(home, &pem, (256, "sha256"), &ec);
    let changed = |at: usize| {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        changed
    };
    // The padding around the AES key.
    assert_eq!(by_rsa(256, &sha1, &wrapped), INVALID);
    assert_eq!(by_rsa(256, &labelled, &wrapped), INVALID);
    for at in [0, 1, 255] {
        assert_eq!(by_rsa(256, &sha256, &changed(at)), INVALID);
    }
    let beyond = [&[0xFF; 256], &wrapped[256..]].concat();
    assert_eq!(by_rsa(256, &sha256, &beyond), INVALID);
    // An AES key of another length than stated, or of an impossible length.
    assert_eq!(by_rsa(128, &sha256, &wrapped), INVALID);
    let front = openssl_encrypts(home, &pem, &oaep_options("sha256"), b"x");
    let odd = [&front, &wrapped[256..]].concat();
    assert_eq!(by_rsa(256, &sha256, &odd), INVALID);
    // The checksum.
    for at in [256, 264, wrapped.len() - 1] {
        assert_eq!(by_rsa(256, &sha256, &changed(at)), INVALID);
    }
    let shorter = &wrapped[..wrapped.len() - 8];
    assert_eq!(by_rsa(256, &sha256, shorter), INVALID);
    // The content of the wrapped data.
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    let rsa = private_key_info(home, "rsa");
    let file = home.path("p256.key");
    let sec1 = ["ec", "-outform", "DER", "-in", file.to_str().unwrap()];
    let mut outside_of_the_curve = ec.clone();
    let scalar = ec.windows(2).position(|two| two == [0x04, 0x20]).unwrap() + 2;
    outside_of_the_curve[scalar..scalar + 32].fill(0xFF);
    let mut of_another = ec.clone();
    of_another[scalar + 31] ^= 1;
    for wrong in [
        vec![7; 40],
        b"\x30\x00\0\0\0\0\0\0".to_vec(),
        ec[..ec.len() - 1].to_vec(),
        [&ec[..], b"x"].concat(),
        [&ec[..], &[0]].concat(),
        output("openssl", sec1),
        outside_of_the_curve,
        of_another,
        // A key, but none of the type that is asked for.
        rsa.clone(),
    ] {
        let wrapped = AesWrap::Kwp.wraps(home, &value, &wrong);
        let made = own.unwrap(AesWrap::Kwp.plain(), transport, &wrapped, &template);
        assert_eq!(made, INVALID);
    }
    let mut composite = rsa.clone();
    // Changes one bit of the first prime.
    let prime = rsa.windows(3).rposition(|three| three == [2, 1, 3]);
    assert!(prime.is_none_or(|at| at > 0));
    let at = rsa.len() / 2 + 60;
    composite[at] ^= 4;
    for (wrong, key_type) in [(composite, CKK_RSA), (ec.clone(), CKK_RSA)] {
        let wrapped = AesWrap::Kwp.wraps(home, &value, &wrong);
        let by = AesWrap::Kwp.plain();
        let made = own.unwrap(by, transport, &wrapped, &wanted(key_type, &[]));
        assert_eq!(made, INVALID);
    }
    // By the other way of wrapping, and under another key.
    let wrapped = AesWrap::Kwp.wraps(home, &value, &ec);
    let made = own.unwrap(AesWrap::Kw.plain(), transport, &wrapped, &template);
    assert_eq!(made, INVALID);
    let other = own.transport(CKK_AES, &random(32)).unwrap();
    let made = own.unwrap(AesWrap::Kwp.plain(), other, &wrapped, &template);
    assert_eq!(made, INVALID);
    // Lengths that nothing wrapped has say so, and cost nothing.
    bench.proxy.book().take();
    let range = Err(Code(CKR_WRAPPED_KEY_LEN_RANGE));
    for length in [0, 1, 255, 256, 264, 271, 273, 256 + 16 * 1024 + 8] {
        assert_eq!(by_rsa(256, &sha256, &vec![1; length]), range, "{length}");
    }
    for (by, lengths) in [(AesWrap::Kw, [0, 16, 25]), (AesWrap::Kwp, [0, 8, 17])] {
        for length in lengths {
            let made = own.unwrap(by.plain(), transport, &vec![1; length], &template);
            assert_eq!(made, range, "{by:?} {length}");
        }
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
    assert_eq!(folder(home), before);
    assert_eq!(bench.tpm.transients(), 0);
    // All of it reads the same in the log.
    let log = home.log();
    assert!(!log.contains("nothing is changed"), "{log}");
    let lines = log.lines().filter(|line| line.contains("unwrapping: "));
    let said: std::collections::BTreeSet<_> = lines
        .map(|line| line.split_once("unwrapping: ").unwrap().1)
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
}

fn keys_that_do_not_unwrap(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let sha256 = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &sha256);
    let by_rsa = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    let by_aes = AesWrap::Kwp.plain();
    let (public, key) = own.unwrapping(&[]);
    let (_, decrypts) = own.decrypting(&[]);
    let (_, signs) = own.pair("signs");
    let only_cipher = [(CKA_ALLOWED_MECHANISMS, ulong(CKM_RSA_PKCS_OAEP))];
    let (_, limited) = own.unwrapping(&only_cipher);
    let transport = own.transport(CKK_AES, &[7; 32]).unwrap();
    let short = own.transport(CKK_GENERIC_SECRET, &[7; 20]).unwrap();
    let data = own.create(&[(CKA_CLASS, ulong(CKO_DATA))]).unwrap();
    let handle = CKR_UNWRAPPING_KEY_HANDLE_INVALID;
    let other_type = CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT;
    bench.proxy.book().take();
    for (by, key, code) in [
        (by_rsa, 0, handle),
        (by_rsa, 0x7777_7777, handle),
        (by_rsa, public, handle),
        (by_rsa, data, handle),
        (by_rsa, signs, other_type),
        (by_rsa, transport, other_type),
        (by_rsa, decrypts, CKR_KEY_FUNCTION_NOT_PERMITTED),
        (by_rsa, limited, CKR_MECHANISM_INVALID),
        (by_aes, public, handle),
        (by_aes, key, other_type),
        (by_aes, short, CKR_UNWRAPPING_KEY_SIZE_RANGE),
        (
            mechanism::<u8>(CKM_AES_KEY_WRAP_PAD, None),
            transport,
            CKR_MECHANISM_INVALID,
        ),
        (pkcs1(), key, CKR_MECHANISM_INVALID),
    ] {
        let refused = own.unwrap(by, key, &[7; 512], &wanted(CKK_EC, &[]));
        assert_eq!(refused, Err(Code(code)), "{:#x} {key}", by.mechanism);
    }
    assert_eq!(own.attribute(short, CKA_UNWRAP), NO);
    assert_eq!(
        own.attribute(limited, CKA_ALLOWED_MECHANISMS),
        only_cipher[0].1[..0]
    );
    // Parameters.
    let wrong = Err(Code(CKR_MECHANISM_PARAM_INVALID));
    let template = wanted(CKK_EC, &[]);
    let none = mechanism::<u8>(CKM_RSA_AES_KEY_WRAP, None);
    assert_eq!(own.unwrap(none, key, &[7; 512], &template), wrong);
    for bits in [0, 100, 512] {
        let parameter = rsa_aes(bits, &sha256);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        assert_eq!(own.unwrap(by, key, &[7; 512], &template), wrong);
    }
    let unknown = oaep(CKM_MD5, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &unknown);
    let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    assert_eq!(own.unwrap(by, key, &[7; 512], &template), wrong);
    let initial = [0xA5_u8; 8];
    let by = mechanism(CKM_AES_KEY_WRAP, Some(&initial));
    assert_eq!(own.unwrap(by, transport, &[7; 32], &template), wrong);
    assert_eq!(bench.proxy.book().take().total(), 0);
    // The key no longer has a use that its owner gave up.
    own.change(key, &[(CKA_UNWRAP, NO.to_vec())]).unwrap();
    own.change(transport, &[(CKA_UNWRAP, NO.to_vec())]).unwrap();
    for (by, key) in [(by_rsa, key), (by_aes, transport)] {
        let refused = own.unwrap(by, key, &[7; 512], &template);
        assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
    }
}

fn templates_of_wrapped_keys(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    let wrapped = AesWrap::Kwp.wraps(home, &value, &private_key_info(home, "p256"));
    let by = AesWrap::Kwp.plain();
    let unwrap = |template: &[Item]| own.unwrap(by, transport, &wrapped, template);
    bench.proxy.book().take();
    let whole = wanted(CKK_EC, &[]);
    for one in &whole {
        let refused = unwrap(std::slice::from_ref(one));
        assert_eq!(refused, Err(Code(CKR_TEMPLATE_INCOMPLETE)));
    }
    assert_eq!(unwrap(&wanted(CKK_RSA, &[])), INVALID);
    for (item, code) in [
        (
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        ((CKA_KEY_TYPE, ulong(CKK_DSA)), CKR_TEMPLATE_INCONSISTENT),
    ] {
        let mut template = whole.clone();
        let place = template.iter().position(|(kind, _)| *kind == item.0);
        template[place.unwrap()] = item;
        assert_eq!(unwrap(&template), Err(Code(code)));
    }
    let persistent: Item = (PERSISTENT, YES.to_vec());
    for (item, code) in [
        ((CKA_SENSITIVE, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_EXTRACTABLE, YES.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_SIGN, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        (persistent, CKR_TEMPLATE_INCONSISTENT),
        ((CKA_SIGN, vec![2]), CKR_ATTRIBUTE_VALUE_INVALID),
        // The wrapped key determines these attributes.
        ((CKA_EC_PARAMS, P256.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_VALUE, vec![7; 32]), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_MODULUS, vec![7; 256]), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_LOCAL, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        (
            (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
            CKR_ATTRIBUTE_READ_ONLY,
        ),
        ((CKA_TRUSTED, YES.to_vec()), CKR_ATTRIBUTE_TYPE_INVALID),
        ((CKA_VERIFY, vec![2]), CKR_ATTRIBUTE_VALUE_INVALID),
    ] {
        let kind = item.0;
        assert_eq!(
            unwrap(&wanted(CKK_EC, &[item])),
            Err(Code(code)),
            "{kind:#x}"
        );
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
    let info = public_key_der(&home.path("p384.pub"));
    let other = unwrap(&wanted(CKK_EC, &[(CKA_PUBLIC_KEY_INFO, info)]));
    assert_eq!(other, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    let info = public_key_der(&home.path("p256.pub"));
    unwrap(&wanted(CKK_EC, &[(CKA_PUBLIC_KEY_INFO, info)])).unwrap();
    // Clients name all uses that there are.
    let uses = [CKA_SIGN, CKA_VERIFY, CKA_ENCRYPT, CKA_WRAP, CKA_UNWRAP];
    let uses = uses.map(|kind| (kind, YES.to_vec()));
    let made = unwrap(&wanted(CKK_EC, &uses)).unwrap();
    assert_eq!(own.attribute(made, CKA_SIGN), YES);
    assert_eq!(own.attribute(made, CKA_UNWRAP), NO);
    assert_eq!(folder(home).len(), 0);

    // A session that only reads makes keys for itself.
    let raw = loaded(home);
    let session = raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let slot = own.slot;
    let reader = Own(Opened { raw, slot, session });
    let on_token = wanted(CKK_EC, &[(CKA_TOKEN, YES.to_vec())]);
    let refused = reader.unwrap(by, transport, &wrapped, &on_token);
    assert_eq!(refused, Err(Code(CKR_SESSION_READ_ONLY)));
    let brief = reader.unwrap(by, transport, &wrapped, &whole).unwrap();
    signs_as(own, home, brief, "p256");
    own.raw.close(session).unwrap();
    let gone = own.raw.attribute(own.session, brief, CKA_CLASS);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
}
