//! Keys with CKA_PRIVATE false on a token with a PIN. Every user sees and uses them without the
//! PIN, for each class of key.

use cryptoki_sys::*;
use testkit::devid::{PERSISTENT, PROTECTION, SEALED};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{NO, P256, YES, create, folder, generate};
use testkit::pins::{Bench, OFFICER, Token, USER};
use testkit::raw::{Code, Item};

over_our_transport!(
    a_key_that_is_not_private_needs_no_pin,
    a_key_from_elsewhere_stays_private,
);

const AGAIN: &str = "another-1234";

fn on_token(label: &str) -> Vec<Item> {
    vec![
        (CKA_TOKEN, YES.to_vec()),
        (CKA_LABEL, label.into()),
        (CKA_PRIVATE, NO.to_vec()),
    ]
}

/// A key of each kind, made without a login.
fn make(token: &Token, session: CK_SESSION_HANDLE) {
    let public = [&on_token("pair")[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
    for more in [
        vec![],
        vec![(PROTECTION, ulong(SEALED))],
        vec![(PERSISTENT, YES.to_vec())],
    ] {
        let private = [&on_token("pair")[..], &more].concat();
        generate(&token.raw, session, CKM_EC_KEY_PAIR_GEN, &public, &private).unwrap();
    }
    let imported = [
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_EC)),
        (CKA_EC_PARAMS, P256.to_vec()),
        (CKA_VALUE, vec![7; 32]),
    ];
    create(
        &token.raw,
        session,
        &[&on_token("imported")[..], &imported].concat(),
    )
    .unwrap();
    let secret = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
        (CKA_VALUE, vec![7; 32]),
    ];
    create(
        &token.raw,
        session,
        &[&on_token("secret")[..], &secret].concat(),
    )
    .unwrap();
}

#[track_caller]
fn all_work(token: &Token, session: CK_SESSION_HANDLE) {
    let private = token.private_keys(session);
    assert_eq!(private.len(), 4);
    for key in private {
        assert_eq!(
            token.raw.attribute(session, key, CKA_PRIVATE),
            Ok(NO.to_vec())
        );
        assert_eq!(
            token.sign(session, key).map(|signature| signature.len()),
            Ok(64)
        );
    }
    let secret = token
        .raw
        .find(session, &[(CKA_CLASS, ulong(CKO_SECRET_KEY))]);
    let secret = secret.unwrap()[0];
    assert_eq!(
        token.raw.attribute(session, secret, CKA_PRIVATE),
        Ok(NO.to_vec())
    );
    token
        .raw
        .sign_init(session, CKM_SHA256_HMAC, secret)
        .unwrap();
    assert_eq!(
        token.raw.sign(session, b"data").map(|code| code.len()),
        Ok(32)
    );
}

fn a_key_that_is_not_private_needs_no_pin(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    make(&token, session);
    all_work(&token, session);
    // As a file says it, not only as it was made.
    token.raw.finalize().unwrap();
    let token = bench.token();
    let session = token.read_write();
    all_work(&token, session);
    token.login(session, USER).unwrap();
    all_work(&token, session);
    token.raw.logout(session).unwrap();
    all_work(&token, session);
    // They keep nobody from another PIN, and it changes nothing for them.
    token.officer(session, OFFICER).unwrap();
    token.init_pin(session, AGAIN).unwrap();
    token.raw.logout(session).unwrap();
    all_work(&token, session);
    assert_eq!(token.login(session, USER), Err(Code(CKR_PIN_INCORRECT)));
    token.login(session, AGAIN).unwrap();
    token.raw.logout(session).unwrap();
    // A copy of a session key works too. A private copy does not, because no PIN would open it.
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let open = [(CKA_PRIVATE, NO.to_vec())];
    let made = generate(&token.raw, session, CKM_EC_KEY_PAIR_GEN, &curve, &open);
    let (_, key) = made.unwrap();
    let copy = |session, template: &[Item]| {
        let (mut items, mut made) = (testkit::own::attributes(template), 0);
        let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
        let table = token.raw.table;
        let code = call!(table, C_CopyObject(session, key, at, count, &raw mut made));
        code.result().map(|()| made)
    };
    let kept = copy(session, &[(CKA_TOKEN, YES.to_vec())]).unwrap();
    assert!(token.sign(session, kept).is_ok());
    token.login(session, AGAIN).unwrap();
    let hidden = [(CKA_TOKEN, YES.to_vec()), (CKA_PRIVATE, YES.to_vec())];
    assert_eq!(copy(session, &hidden), Err(Code(CKR_TEMPLATE_INCONSISTENT)));
}

/// The file of such a key does not say that the key needs no PIN.
fn a_key_from_elsewhere_stays_private(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    let session = token.read_write();
    make(&token, session);
    let files = folder(&bench.home);
    let kept: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    // Somebody takes the keys away, and puts them back when the token has PINs.
    token.raw.close(session).unwrap();
    files
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
    token.become_one_with_pins();
    for (file, bytes) in files.iter().zip(kept) {
        std::fs::write(file, bytes).unwrap();
    }
    let session = token.read_write();
    assert!(token.private_keys(session).is_empty());
    let secrets = [(CKA_CLASS, ulong(CKO_SECRET_KEY))];
    assert_eq!(token.raw.find(session, &secrets), Ok(vec![]));
    token.officer(session, OFFICER).unwrap();
    assert_eq!(
        token.init_pin(session, AGAIN),
        Err(Code(CKR_ACTION_PROHIBITED))
    );
    token.raw.logout(session).unwrap();
    token.login(session, USER).unwrap();
    assert!(token.private_keys(session).len() >= 3);
    assert_eq!(token.raw.find(session, &secrets).unwrap().len(), 1);
}
