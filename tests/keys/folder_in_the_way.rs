//! Objects of other programs in a key folder that have the names of temporary files. They are
//! reported and not changed, and they prevent only the affected calls.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use testkit::link::Link;
use testkit::own::YES;
use testkit::pins::{Bench, Token};
use testkit::programs::{program, run};
use testkit::raw::Code;

over_our_transport!(
    a_lock_that_is_none_is_named,
    what_only_looks_like_a_leftover_stops_nobody,
);

fn pair(token: &Token, label: &str) -> Result<(), Code> {
    let session = token.read_write();
    let both = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, label.into())];
    let public = [&both[..], &[(CKA_EC_PARAMS, testkit::own::P256.to_vec())]].concat();
    let by = CKM_EC_KEY_PAIR_GEN;
    let made = testkit::own::generate(&token.raw, session, by, &public, &both);
    token.raw.close(session).unwrap();
    made.map(drop)
}

fn a_lock_that_is_none_is_named(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    pair(&token, "before").unwrap();
    let lock = bench.home.path("state/devid/.lock");
    let other = bench.home.write("other", "somebody's");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o604)).unwrap();
    let put: [(&dyn Fn(), &str); 4] = [
        (&|| fs::create_dir(&lock).unwrap(), "a folder"),
        (&|| drop(run(program("mkfifo").arg(&lock))), "a pipe"),
        (&|| symlink(&other, &lock).unwrap(), "a symbolic link"),
        (&|| fs::hard_link(&other, &lock).unwrap(), "a second name"),
    ];
    for (put, what) in put {
        fs::remove_file(&lock)
            .or_else(|_| fs::remove_dir(&lock))
            .unwrap();
        put();
        let made = pair(&token, what);
        assert_eq!(made, Err(Code(CKR_TOKEN_WRITE_PROTECTED)), "{what}");
        bench.home.log_says(&["state/devid/.lock", what]);
    }
    // The object was read, and not changed.
    let mode = fs::metadata(&other).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o604);
    assert_eq!(fs::read(&other).unwrap(), b"somebody's");
    fs::remove_file(&lock).unwrap();
    pair(&token, "after").unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

fn what_only_looks_like_a_leftover_stops_nobody(link: Link) {
    let bench = Bench::new(link);
    let token = bench.token();
    pair(&token, "before").unwrap();
    let at = |name: &str| bench.home.path("state/devid").join(name);
    fs::create_dir(at(".new-x")).unwrap();
    fs::create_dir(at(".new-1-0123456789abcdef")).unwrap();
    symlink("nowhere", at(".new-2-0123456789abcdef")).unwrap();
    fs::write(at(".new-ideas"), "somebody's").unwrap();
    fs::write(at(".new-3-0123456789abcdef"), "half a key").unwrap();
    pair(&token, "after").unwrap();
    assert!(!at(".new-3-0123456789abcdef").exists());
    for stays in [".new-x", ".new-1-0123456789abcdef", ".new-ideas"] {
        assert!(at(stays).exists(), "{stays}");
    }
    assert!(at(".new-2-0123456789abcdef").is_symlink());
    bench.idev_id_signs(&token.raw, 0);
}
