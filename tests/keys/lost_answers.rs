//! Connections break while keys of the token `devid` are made, used and destroyed. Each requested
//! change happened or did not happen, and nothing is left over.

use cryptoki_sys::*;
use std::fs;
use std::thread;
use std::time::Duration;
use testkit::devid::{Bench, FIRST, Kind, MASTER, Own, SRK, persistent};
use testkit::link::Link;
use testkit::programs::run;
use testkit::proxy::command::{
    CREATE, CREATE_PRIMARY, EVICT_CONTROL, FLUSH_CONTEXT, GET_CAPABILITY, LOAD, READ_PUBLIC, SIGN,
};
use testkit::proxy::{Fault, answer};
use testkit::raw::Code;
use testkit::story::await_some;

over_both_transports!(
    a_first_key_whose_answers_are_lost,
    a_persistent_key_whose_answers_are_lost,
    a_destruction_whose_answers_are_lost,
    a_signature_whose_answers_are_lost,
    a_full_tpm_is_said_and_nothing_stays,
    an_owners_secret_that_is_missing,
    a_handle_that_another_process_took,
);
// libtss2 has no time limit.
over_our_transport!(a_handle_that_is_filled_too_late_is_named_by_a_file);

/// The faults of a command, and how often in a row: more often than the command is repeated.
const FAULTS: [(Fault, u32); 4] = [
    (Fault::Drop, 1),
    (Fault::Lost, 1),
    (Fault::Half, 1),
    (Fault::Lost, 3),
];

/// Tells a story for each of the commands and each way to break it; the story says when.
fn with_faults(bench: &Bench, codes: &[u32], mut story: impl FnMut(&str, &dyn Fn())) {
    for code in codes {
        for (fault, times) in FAULTS {
            let what = format!("{code:#x}, {fault:?}, {times} times");
            story(&what, &|| {
                bench.proxy.book().break_times(*code, fault, times)
            });
            bench.proxy.book().heal();
        }
    }
}

/// The TPM is cleared and the folder moved away before each: a first key each time.
fn a_first_key_whose_answers_are_lost(link: Link) {
    let bench = Bench::new(link);
    let mut own = Some(Own::new(&bench.home));
    let codes = [
        CREATE_PRIMARY,
        CREATE,
        LOAD,
        EVICT_CONTROL,
        READ_PUBLIC,
        FLUSH_CONTEXT,
    ];
    with_faults(&bench, &codes, |what, breaks| {
        let one = own.take().unwrap();
        breaks();
        let first = one.make(Kind::P256, "first");
        bench.proxy.book().heal();
        let count = one.keys().len();
        assert_eq!(count, usize::from(first.is_ok()), "{what}: {first:?}");
        let second = one.make(Kind::P256, "second");
        let second = second.unwrap_or_else(|code| panic!("{what}: {code:?}"));
        assert_eq!(persistent(&bench.tpm), [SRK, MASTER], "{what}");
        assert_eq!(one.keys().len(), count + 1);
        one.signs(second.private);
        run(&mut bench.tpm.tool("tpm2_clear")).ok();
        fs::remove_dir_all(bench.folder()).unwrap();
        own = Some(one.anew());
    });
}

/// Handles of ours.
fn handles(bench: &Bench) -> Vec<u32> {
    let all = persistent(&bench.tpm);
    all.into_iter().filter(|handle| *handle >= FIRST).collect()
}

fn a_persistent_key_whose_answers_are_lost(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    let (mut made, mut failed) = (0, 0);
    let codes = [
        CREATE,
        LOAD,
        EVICT_CONTROL,
        READ_PUBLIC,
        FLUSH_CONTEXT,
        GET_CAPABILITY,
    ];
    with_faults(&bench, &codes, |what, breaks| {
        let before = handles(&bench);
        breaks();
        let result = own.make_persistent(Kind::P256, what);
        bench.proxy.book().heal();
        match result {
            Ok(pair) => {
                made += 1;
                assert_eq!(handles(&bench).len(), before.len() + 1, "{what}");
                own.signs(pair.private);
            }
            Err(code) => {
                failed += 1;
                assert_eq!(handles(&bench), before, "{what}: {code:?}");
                assert_eq!(own.keys().len(), 1 + made, "{what}: {code:?}");
            }
        }
    });
    println!("\n{made} keys made in spite of a fault, {failed} failed");
    assert!(made > 0 && failed > 0);
    own.signs(own.key_called("first"));
}

fn a_destruction_whose_answers_are_lost(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    with_faults(&bench, &[EVICT_CONTROL, READ_PUBLIC], |what, breaks| {
        let pair = own.make_persistent(Kind::P256, what).unwrap();
        let key = pair.private;
        own.signs(key);
        breaks();
        let result = own.destroy(key);
        bench.proxy.book().heal();
        if result.is_err() {
            own.signs(key);
            own.destroy(key).unwrap();
        }
        assert_eq!(
            own.keys(),
            [] as [CK_OBJECT_HANDLE; 0],
            "{what}: {result:?}"
        );
        assert_eq!(handles(&bench), [] as [u32; 0], "{what}: {result:?}");
    });
}

fn a_signature_whose_answers_are_lost(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let keys = [
        own.make(Kind::P256, "wrapped").unwrap().private,
        own.make_persistent(Kind::P256, "kept").unwrap().private,
    ];
    with_faults(&bench, &[LOAD, SIGN, FLUSH_CONTEXT], |_, breaks| {
        breaks();
        for key in keys {
            if let Ok(signature) = own.sign_data(key, b"data") {
                own.judge(key).accepts(b"data", &signature).ok();
            }
        }
        bench.proxy.book().heal();
        keys.iter().for_each(|key| own.signs(*key));
    });
    keys.iter().for_each(|key| own.signs(*key));
}

/// TPM_RC_NV_SPACE for the persistent key; the wrapped one needs no room.
fn a_full_tpm_is_said_and_nothing_stays(link: Link) {
    const NV_SPACE: u32 = 0x14B;
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    bench
        .proxy
        .book()
        .break_next(EVICT_CONTROL, Fault::Code(NV_SPACE));
    let refused = own.make_persistent(Kind::P256, "kept");
    assert_eq!(refused, Err(Code(CKR_DEVICE_MEMORY)));
    assert_eq!((own.keys().len(), handles(&bench)), (1, vec![]));
    bench
        .proxy
        .book()
        .break_next(EVICT_CONTROL, Fault::Code(answer::RETRY));
    let kept = own.make_persistent(Kind::P256, "kept").unwrap().private;
    own.signs(kept);
    assert_eq!(handles(&bench), [FIRST]);
    assert_eq!(bench.tpm.transients(), 0);
}

/// The setting names a missing file. No key is made that was refused. Keys that need no owner value
/// can still be made and destroyed.
fn an_owners_secret_that_is_missing(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    let setting = "[master]\nowner_auth = \"file:/nowhere\"\n";
    bench.home.write("config.toml", setting);
    let own = own.anew();
    assert!(own.make_persistent(Kind::P256, "kept").is_err());
    assert_eq!(own.labels(CKO_PRIVATE_KEY), ["first"]);
    bench.home.log_says(&["owner_auth", "/nowhere"]);
    own.destroy(own.make(Kind::P256, "second").unwrap().private)
        .unwrap();
    assert_eq!(own.labels(CKO_PRIVATE_KEY), ["first"]);
}

/// TPM_RC_NV_DEFINED: between the look for a free handle and its use.
fn a_handle_that_another_process_took(link: Link) {
    const NV_DEFINED: u32 = 0x14C;
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    let book = bench.proxy.book();
    book.break_times(EVICT_CONTROL, Fault::Code(NV_DEFINED), 3);
    let kept = own.make_persistent(Kind::P256, "kept").unwrap().private;
    assert_eq!(handles(&bench), [FIRST + 3]);
    own.signs(kept);
    // No handle is left: nothing stays of the key.
    book.break_times(EVICT_CONTROL, Fault::Code(NV_DEFINED), 300);
    let refused = own.make_persistent(Kind::P256, "refused");
    assert_eq!(refused, Err(Code(CKR_DEVICE_MEMORY)));
    book.heal();
    assert_eq!(own.labels(CKO_PRIVATE_KEY), ["first", "kept"]);
    assert_eq!(handles(&bench), [FIRST + 3]);
}

/// The state of the key is unknown: its file stays, and names the handle.
fn a_handle_that_is_filled_too_late_is_named_by_a_file(link: Link) {
    let bench = Bench::new(link);
    bench.home.write("config.toml", "timeout_ms = 3000\n");
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    bench.proxy.book().break_next(EVICT_CONTROL, Fault::Stall);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            bench.proxy.book().await_stall();
            bench.tpm.pause();
            bench.proxy.book().release();
        });
        own.make_persistent(Kind::P256, "kept")
    });
    assert!(result.is_err());
    bench.tpm.go_on();
    let filled = || (handles(&bench) == [FIRST]).then_some(());
    await_some("the late command", Duration::from_secs(60), filled);
    own.signs(own.key_called("kept"));
    own.destroy(own.key_called("kept")).unwrap();
    assert_eq!(handles(&bench), [] as [u32; 0]);
}
