//! C_DeriveKey with OpenSSL as the other side: both sides must compute the same secret.

use cryptoki_sys::*;
use testkit::ciphers::{Bench, ecdh, mechanism, openssl_agrees, peer, readable};
use testkit::devid::{PROTECTION, SEALED};
use testkit::link::Link;
use testkit::module::{Opened, loaded, ulong};
use testkit::openssl::element;
use testkit::own::{NO, Own, P256, P384, P521, YES};
use testkit::programs::output;
use testkit::raw::{Code, Item};

over_our_transport!(
    a_secret_is_agreed_on_each_curve,
    derived_keys_say_what_they_are,
    a_derived_key_has_the_length_that_is_asked_for,
    derivations_that_are_refused,
    a_derived_key_goes_with_its_session,
    keys_in_memory_agree_as_well,
);

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
    let uses = [CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_DERIVE];
    let uses = uses.map(|kind| (kind, YES.to_vec()));
    let made = own.derive(by, key, &[&readable()[..], &uses].concat());
    let made = made.unwrap();
    assert_eq!(own.attribute(made, CKA_VALUE).len(), 32);
    assert_eq!(own.attribute(made, CKA_ALWAYS_SENSITIVE), NO);
    assert_eq!(own.attribute(made, CKA_NEVER_EXTRACTABLE), NO);
    for (kind, _) in uses {
        assert_eq!(own.attribute(made, kind), NO, "{kind:#x}");
    }
    // A generic secret makes codes.
    assert_eq!(own.attribute(made, CKA_SIGN), YES);
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
    let sized = |parameter: &CK_ECDH1_DERIVE_PARAMS, kind: CK_ULONG, length: Option<CK_ULONG>| {
        let mut template = readable();
        template[1].1 = ulong(kind);
        template.extend(length.map(|length| (CKA_VALUE_LEN, ulong(length))));
        let made = own.derive(mechanism(CKM_ECDH1_DERIVE, Some(parameter)), key, &template)?;
        Ok(own.attribute(made, CKA_VALUE))
    };
    let whole = sized(&plain, CKK_GENERIC_SECRET, None).unwrap();
    // A shorter key loses bytes at its leading end.
    for (kind, length) in [(CKK_GENERIC_SECRET, 20), (CKK_AES, 16), (CKK_AES, 24)] {
        let part = sized(&plain, kind, Some(length)).unwrap();
        assert_eq!(part, whole[32 - length as usize..]);
    }
    let range = Err(Code(CKR_KEY_SIZE_RANGE));
    assert_eq!(sized(&plain, CKK_GENERIC_SECRET, Some(33)), range);
    assert_eq!(sized(&plain, CKK_AES, Some(20)), range);
    assert_eq!(
        sized(&with, CKK_GENERIC_SECRET, Some(1 << (CK_ULONG::BITS - 2))),
        range
    );
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
    let sealed: Item = (PROTECTION, ulong(SEALED));
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
