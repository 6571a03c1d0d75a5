//! C_CopyObject and CKA_COPYABLE: copies within a session, from a session to the token, and from
//! the token to a session.

use cryptoki_sys::*;
use std::fs;
use testkit::devid::{Bench, label, yes};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl::{Verifier, certificate_der};
use testkit::own::{NO, Own, P256, P256_KEY, YES, attributes, ec_public, folder, outside, slot_of};
use testkit::pins;
use testkit::raw::{Code, Item, Raw};

over_our_transport!(
    data_goes_from_a_session_to_the_token_and_back,
    certificates_of_all_tokens_are_copied,
    keys_of_sessions_are_copied_and_those_of_the_token_are_not,
    what_is_private_stays_so,
    what_a_copy_cannot_be,
);

fn copy(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: &[Item],
) -> Result<CK_OBJECT_HANDLE, Code> {
    let (mut items, mut made) = (attributes(template), 0);
    let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
    call!(
        raw.table,
        C_CopyObject(session, object, at, count, &raw mut made)
    )
    .result()?;
    Ok(made)
}

fn data(on_token: &[u8]) -> [Item; 5] {
    [
        (CKA_CLASS, ulong(CKO_DATA)),
        (CKA_TOKEN, on_token.to_vec()),
        (CKA_LABEL, b"some".to_vec()),
        (CKA_APPLICATION, b"a test".to_vec()),
        (CKA_VALUE, vec![0, 1, 2, 255]),
    ]
}

fn no(kind: CK_ATTRIBUTE_TYPE) -> Item {
    (kind, NO.to_vec())
}

fn data_goes_from_a_session_to_the_token_and_back(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let original = own.create(&data(NO)).unwrap();
    assert_eq!(own.attribute(original, CKA_COPYABLE), YES);
    let same = copy(&own.raw, own.session, original, &[]).unwrap();
    assert_ne!(same, original);
    for (kind, value) in data(NO) {
        assert_eq!(own.attribute(same, kind), value, "{kind:#x}");
    }
    let id = |object| own.attribute(object, CKA_UNIQUE_ID);
    assert_ne!(id(same), id(original));
    assert_eq!(folder(&bench.home).len(), 0);
    let changes = [yes(CKA_TOKEN), label("kept"), (CKA_VALUE, b"new".to_vec())];
    let kept = copy(&own.raw, own.session, original, &changes).unwrap();
    for (kind, value) in &changes {
        assert_eq!(own.attribute(kept, *kind), *value, "{kind:#x}");
    }
    assert_eq!(own.attribute(original, CKA_LABEL), b"some");
    assert_eq!(folder(&bench.home).len(), 1);
    // The copy is a file, not an object of another session.
    let own = own.anew();
    let kept = own.labelled("kept")[0];
    let fixed = [no(CKA_TOKEN), no(CKA_MODIFIABLE), no(CKA_COPYABLE)];
    let back = copy(&own.raw, own.session, kept, &fixed).unwrap();
    for (kind, value) in &fixed {
        assert_eq!(own.attribute(back, *kind), *value, "{kind:#x}");
    }
    assert_eq!(own.attribute(back, CKA_VALUE), b"new");
    let prohibited = Code(CKR_ACTION_PROHIBITED);
    assert_eq!(own.change(back, &[label("x")]), Err(prohibited));
    assert_eq!(copy(&own.raw, own.session, back, &[]), Err(prohibited));
    // CKA_COPYABLE is given up, on the token too, and not had again.
    own.change(kept, &[no(CKA_COPYABLE)]).unwrap();
    let again = own.change(kept, &[yes(CKA_COPYABLE)]);
    assert_eq!(again, Err(Code(CKR_ATTRIBUTE_READ_ONLY)));
    let own = own.anew();
    let kept = own.labelled("kept")[0];
    assert_eq!(own.attribute(kept, CKA_COPYABLE), NO);
    assert_eq!(copy(&own.raw, own.session, kept, &[]), Err(prohibited));
    let never = own.create(&[&data(NO)[..], &[no(CKA_COPYABLE)]].concat());
    assert_eq!(
        copy(&own.raw, own.session, never.unwrap(), &[]),
        Err(prohibited)
    );
}

fn certificates_of_all_tokens_are_copied(link: Link) {
    let bench = pins::Bench::new(link);
    let raw = bench.token().raw;
    let is = [(CKA_CLASS, ulong(CKO_CERTIFICATE))];
    let factory = raw
        .open(slot_of(&raw, "idev-id"), CKF_SERIAL_SESSION)
        .unwrap();
    let original = raw.find(factory, &is).unwrap()[0];
    let copied = copy(&raw, factory, original, &[no(CKA_TOKEN)]).unwrap();
    for kind in [CKA_VALUE, CKA_ID, CKA_SUBJECT] {
        let (one, other) = (
            raw.attribute(factory, original, kind),
            raw.attribute(factory, copied, kind),
        );
        assert_eq!(one, other, "{kind:#x}");
    }
    let protected = copy(&raw, factory, original, &[]);
    assert_eq!(protected, Err(Code(CKR_TOKEN_WRITE_PROTECTED)));
    // A copy on the device's own token keeps the hashes of its template.
    let own = Own::with(raw, "devid");
    let pem = bench.identity.certificate();
    let hashes = [
        (CKA_HASH_OF_SUBJECT_PUBLIC_KEY, vec![7; 20]),
        (CKA_HASH_OF_ISSUER_PUBLIC_KEY, vec![8; 20]),
    ];
    let template = [
        &is[..],
        &[
            yes(CKA_TOKEN),
            (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
            (CKA_VALUE, certificate_der(&pem)),
        ],
        &hashes,
    ]
    .concat();
    own.create(&template).unwrap();
    let own = own.anew();
    let kept = own.find(&is)[0];
    let copied = copy(&own.raw, own.session, kept, &[no(CKA_TOKEN)]).unwrap();
    for (kind, value) in &hashes {
        assert_eq!(own.attribute(kept, *kind), *value, "{kind:#x}");
        assert_eq!(own.attribute(copied, *kind), *value, "{kind:#x}");
    }
    let unsaid = own.create(&template[..4]).unwrap();
    assert_eq!(own.attribute(unsaid, CKA_HASH_OF_SUBJECT_PUBLIC_KEY), b"");
}

fn keys_of_sessions_are_copied_and_those_of_the_token_are_not(link: Link) {
    let bench = Bench::new(link);
    outside(&bench.home, "other", &P256_KEY);
    let own = Own::new(&bench.home);
    let prohibited = Err(Code(CKR_ACTION_PROHIBITED));
    let (public, private) = own.pair("of the token");
    for key in [public, private] {
        assert_eq!(own.attribute(key, CKA_COPYABLE), NO);
        assert_eq!(copy(&own.raw, own.session, key, &[]), prohibited);
    }
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let (public, private) = own.generate(CKM_EC_KEY_PAIR_GEN, &curve, &[]).unwrap();
    for (key, name) in [(public, "public"), (private, "private")] {
        assert_eq!(own.attribute(key, CKA_COPYABLE), YES);
        let again = copy(&own.raw, own.session, key, &[label("again")]).unwrap();
        assert_eq!(own.attribute(again, CKA_LABEL), b"again");
        // As Java's keytool keeps a key that was made for a session.
        let kept = copy(&own.raw, own.session, key, &[yes(CKA_TOKEN), label(name)]);
        assert_eq!(own.attribute(kept.unwrap(), CKA_COPYABLE), NO);
    }
    let brought = ec_public(&bench.home.path("other.pub"));
    let brought = own.create(&brought).unwrap();
    assert!(copy(&own.raw, own.session, brought, &[]).is_ok());
    let own = own.anew();
    let kept = own.key_called("private");
    let public = own.labelled("public")[0];
    let signature = own.sign(CKM_ECDSA_SHA256, kept, b"data").unwrap();
    let judge: Verifier = own.verifier(&bench.home, public);
    judge.accepts_message("-sha256", b"data", &signature).ok();
    assert_eq!(own.attribute(kept, CKA_LOCAL), YES);
    assert_eq!(own.attribute(kept, CKA_NEVER_EXTRACTABLE), YES);
}

fn what_is_private_stays_so(link: Link) {
    let (_bench, token) = pins::Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, pins::USER).unwrap();
    let own = |template: &[Item]| testkit::own::create(&token.raw, session, template);
    let hidden = own(&[&data(YES)[..], &[yes(CKA_PRIVATE)]].concat()).unwrap();
    let open = own(&data(YES)).unwrap();
    let shown = copy(&token.raw, session, hidden, &[no(CKA_PRIVATE)]);
    assert_eq!(shown, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    assert!(copy(&token.raw, session, hidden, &[]).is_ok());
    assert!(copy(&token.raw, session, open, &[yes(CKA_PRIVATE)]).is_ok());
    // No PIN opens a key that was made for everybody: so its copy cannot be private.
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let made = |private: &[Item]| {
        testkit::own::generate(&token.raw, session, CKM_EC_KEY_PAIR_GEN, &curve, private)
    };
    let (_, open) = made(&[no(CKA_PRIVATE)]).unwrap();
    let private = [yes(CKA_TOKEN), yes(CKA_PRIVATE)];
    let kept = copy(&token.raw, session, open, &private);
    assert_eq!(kept, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    let (_, hidden) = made(&[]).unwrap();
    let kept = copy(&token.raw, session, hidden, &[yes(CKA_TOKEN)]).unwrap();
    assert!(token.sign(session, kept).is_ok());
    token.raw.logout(session).unwrap();
    let objects = token
        .raw
        .find(session, &[(CKA_APPLICATION, b"a test".to_vec())]);
    assert_eq!(objects.unwrap().len(), 1, "the one that was open");
}

fn what_a_copy_cannot_be(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let kept = own.create(&data(YES)).unwrap();
    let before = fs::read(&folder(&bench.home)[0]).unwrap();
    for (item, code) in [
        ((CKA_CLASS, ulong(CKO_DATA)), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_CLASS, ulong(CKO_PUBLIC_KEY)), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_UNIQUE_ID, b"mine".to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_ID, vec![1]), CKR_ATTRIBUTE_TYPE_INVALID),
        ((CKA_TOKEN, vec![2]), CKR_ATTRIBUTE_VALUE_INVALID),
        ((CKA_LABEL, vec![0xFF]), CKR_ATTRIBUTE_VALUE_INVALID),
    ] {
        let template = [label("copy"), item.clone()];
        let refused = if item.0 == CKA_LABEL {
            &template[1..]
        } else {
            &template
        };
        let refused = copy(&own.raw, own.session, kept, refused);
        assert_eq!(refused, Err(Code(code)), "{item:x?}");
    }
    let gone = copy(&own.raw, own.session, 77_777, &[]);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    let profile = own.find(&[(CKA_CLASS, ulong(CKO_PROFILE))])[0];
    let refused = copy(&own.raw, own.session, profile, &[no(CKA_TOKEN)]);
    assert_eq!(refused, Err(Code(CKR_ACTION_PROHIBITED)));
    let reader = own.raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let read_only = copy(&own.raw, reader, kept, &[]);
    assert_eq!(read_only, Err(Code(CKR_SESSION_READ_ONLY)));
    assert!(copy(&own.raw, reader, kept, &[no(CKA_TOKEN)]).is_ok());
    assert_eq!(folder(&bench.home).len(), 1);
    assert_eq!(fs::read(&folder(&bench.home)[0]).unwrap(), before);
}
