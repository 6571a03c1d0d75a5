//! The cost of a search on a token with PINs.

use cryptoki_sys::*;
use std::path::Path;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::YES;
use testkit::pins::{Bench, Token, USER};
use testkit::raw::Item;
use testkit::trouble::Trouble;

troubled!(a_search_asks_once_whether_there_are_pins);

/// The objects that a search finds, and how often the process looks for the user's PIN meanwhile.
fn search(token: &Token, session: CK_SESSION_HANDLE, template: &[Item]) -> (usize, i32) {
    let looks = Trouble::counted("stat", Path::new("/.user.pem"));
    token
        .raw
        .find_init(session, template)
        .expect("C_FindObjectsInit");
    let found = token.raw.find_next(session, 99).expect("C_FindObjects");
    token.raw.find_final(session).expect("C_FindObjectsFinal");
    let count = looks.met();
    looks.over();
    (found.len(), count)
}

fn a_search_asks_once_whether_there_are_pins() {
    let (_bench, token) = Bench::with_pins(Link::Ours);
    let session = token.read_write();
    let private = [
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_TOKEN, YES.to_vec()),
    ];
    let public = [
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_TOKEN, YES.to_vec()),
    ];
    const KEYS: usize = 9;
    token.login(session, USER).expect("C_Login");
    for n in 0..KEYS {
        token.pair(session, &format!("{n}"), &[]);
    }
    let mut counts = Vec::new();
    let mut costs = |template: &[Item], expected: usize| {
        let (found, count) = search(&token, session, template);
        assert_eq!(found, expected);
        counts.push(count);
    };
    costs(&private, KEYS);
    token.raw.logout(session).expect("C_Logout");
    costs(&private, 0);
    costs(&public, KEYS);
    // One scan for changes, one question of C_FindObjectsInit, one of C_FindObjects. One more scan
    // if files have just changed.
    println!("{KEYS} private keys, looks for the PIN: {counts:?}");
    assert!(counts.iter().all(|&count| count <= 4), "{counts:?}");
}
