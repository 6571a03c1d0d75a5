//! A program that forks after it used the module, such as nginx or a daemon with OpenSSL's
//! pkcs11-provider. Parent and child must not use each other's key, connection or operation.

use cryptoki_sys::*;
use std::fs;
use std::sync::Barrier;
use std::time::Duration;
use testkit::factory::Identity;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::openssl::Verifier;
use testkit::proxy::{Fault, Proxy, command};
use testkit::raw::Code;
use testkit::story::await_some;
use testkit::tpm::{Swtpm, copy_state};

over_both_transports!(
    the_child_initialises_again,
    the_child_ends_and_initialises_again,
    the_child_goes_on_without_a_word,
    a_fork_in_the_middle_of_a_signature,
    a_fork_in_the_middle_of_an_operation,
    many_children,
    a_child_that_ends_sends_nothing,
    a_grandchild,
    a_child_whose_threads_all_call_at_once,
    a_child_after_the_tpm_was_exchanged,
);
// libtss2 keeps its connection, so a TPM that serves one client is the parent's or the child's.
over_our_transport!(
    a_child_that_holds_the_connection_of_a_signature,
    #[ignore = "about 1 of 100 children hangs: docs/DECISIONS.md, Locks of libraries at a fork"]
    children_with_threads_while_threads_of_the_parent_wait,
);

struct Bench {
    tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
    module: Opened,
    key: CK_OBJECT_HANDLE,
}

impl Bench {
    /// The parent has signed, so whatever is held between signatures is held.
    fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let module = Opened::new(&home);
        let key = module.key();
        let bench = Bench {
            tpm,
            identity,
            proxy,
            home,
            module,
            key,
        };
        bench.parent_signs();
        bench
    }

    #[track_caller]
    fn parent_signs(&self) {
        let digest = [0x11; 32];
        let signature = self
            .module
            .sign(CKM_ECDSA, self.key, &digest)
            .expect("the parent signs");
        self.verify(&digest, &signature);
    }

    #[track_caller]
    fn verify(&self, digest: &[u8], signature: &[u8]) {
        Verifier::new(&self.identity.public_key())
            .accepts_digest(digest, signature)
            .ok();
    }

    /// In a child: signs in `session` and leaves the signature for [`Bench::child_signed`].
    fn child_signs(&self, name: &str, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) {
        let raw = &self.module.raw;
        raw.sign_init(session, CKM_ECDSA, key)
            .expect("C_SignInit in the child");
        let signature = raw.sign(session, &[0x22; 32]).expect("C_Sign in the child");
        fs::write(self.home.path(name), signature).expect("a file");
    }

    #[track_caller]
    fn child_signed(&self, name: &str) {
        self.verify(
            &[0x22; 32],
            &fs::read(self.home.path(name)).expect("the child signed"),
        );
    }

    /// In a child, after C_Initialize: everything from the start.
    fn child_starts_over(&self, name: &str) {
        let raw = &self.module.raw;
        let slot = raw.slots(true).unwrap()[0];
        let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
        let key = raw
            .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
            .unwrap()[0];
        self.child_signs(name, session, key);
    }
}

fn the_child_initialises_again(link: Link) {
    let bench = Bench::new(link);
    let child = Forked::new(|| {
        let raw = &bench.module.raw;
        raw.initialize()
            .expect("the first C_Initialize of a child is CKR_OK");
        let stale = raw.session_info(bench.module.session).map(|_| ());
        assert_eq!(
            stale,
            Err(Code(CKR_SESSION_HANDLE_INVALID)),
            "sessions are the parent's"
        );
        bench.child_starts_over("child");
        assert_eq!(
            raw.initialize(),
            Err(Code(CKR_CRYPTOKI_ALREADY_INITIALIZED))
        );
        raw.finalize().unwrap();
    });
    bench.parent_signs();
    child.succeeds();
    bench.child_signed("child");
    bench.parent_signs();
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

/// As pkcs11-provider does in a child.
fn the_child_ends_and_initialises_again(link: Link) {
    let bench = Bench::new(link);
    for round in 0..3 {
        let name = format!("child-{round}");
        let child = Forked::new(|| {
            bench
                .module
                .raw
                .finalize()
                .expect("C_Finalize in the child");
            bench
                .module
                .raw
                .initialize()
                .expect("C_Initialize in the child");
            bench.child_starts_over(&name);
        });
        child.succeeds();
        bench.child_signed(&name);
        bench.parent_signs();
    }
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn the_child_goes_on_without_a_word(link: Link) {
    let bench = Bench::new(link);
    let child = Forked::new(|| {
        let session = bench.module.raw.open(bench.module.slot, CKF_SERIAL_SESSION);
        bench.child_signs("child", session.expect("a session"), bench.key);
    });
    bench.parent_signs();
    child.succeeds();
    bench.child_signed("child");
    bench.parent_signs();
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

/// Whatever lock that other thread holds is held in the child for ever.
fn a_fork_in_the_middle_of_a_signature(link: Link) {
    let bench = Bench::new(link);
    for initialises in [true, false] {
        bench.proxy.book().break_next(command::SIGN, Fault::Stall);
        std::thread::scope(|scope| {
            let raw = &bench.module.raw;
            let signature = scope.spawn(|| {
                let session = raw.open(bench.module.slot, CKF_SERIAL_SESSION).unwrap();
                raw.sign_init(session, CKM_ECDSA, bench.key).unwrap();
                raw.sign(session, &[0x33; 32])
                    .expect("the parent's thread signs")
            });
            bench.proxy.book().await_stall();
            let child = Forked::new(|| {
                if initialises {
                    raw.initialize().expect("C_Initialize in the child");
                    bench.child_starts_over("child");
                } else {
                    let session = raw.open(bench.module.slot, CKF_SERIAL_SESSION);
                    bench.child_signs("child", session.expect("a session"), bench.key);
                }
            });
            child.succeeds();
            assert!(!signature.is_finished());
            bench.proxy.book().release();
            bench.verify(&[0x33; 32], &signature.join().unwrap());
        });
        bench.child_signed("child");
        bench.parent_signs();
    }
}

/// The parent's operation stays the parent's.
fn a_fork_in_the_middle_of_an_operation(link: Link) {
    let bench = Bench::new(link);
    let (raw, session) = (&bench.module.raw, bench.module.session);
    raw.sign_init(session, CKM_ECDSA_SHA256, bench.key).unwrap();
    raw.sign_update(session, b"one part, ").unwrap();
    let child = Forked::new(|| {
        raw.finalize().unwrap();
        raw.initialize().unwrap();
        bench.child_starts_over("child");
    });
    child.succeeds();
    raw.sign_update(session, b"and another").unwrap();
    let signature = raw.sign_final(session).unwrap();
    let judge = Verifier::new(&bench.identity.public_key());
    judge
        .accepts_message("-sha256", b"one part, and another", &signature)
        .ok();
}

fn many_children(link: Link) {
    let bench = Bench::new(link);
    let names: Vec<String> = (0..6).map(|child| format!("child-{child}")).collect();
    let children: Vec<Forked> = names
        .iter()
        .map(|name| {
            Forked::new(|| {
                bench.module.raw.finalize().unwrap();
                bench.module.raw.initialize().unwrap();
                (0..10).for_each(|_| bench.child_starts_over(name));
            })
        })
        .collect();
    (0..10).for_each(|_| bench.parent_signs());
    children.into_iter().for_each(Forked::succeeds);
    names.iter().for_each(|name| bench.child_signed(name));
    bench.parent_signs();
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn a_child_that_ends_sends_nothing(link: Link) {
    let bench = Bench::new(link);
    bench.proxy.book().take();
    Forked::new(|| bench.module.raw.finalize().unwrap()).succeeds();
    let child = Forked::new(|| {
        bench.module.raw.initialize().unwrap();
        bench.module.raw.finalize().unwrap();
    });
    child.succeeds();
    let seen = bench.proxy.book().take();
    assert_eq!(seen.total(), 0, "{seen:?}");
    bench.parent_signs();
}

fn a_grandchild(link: Link) {
    let bench = Bench::new(link);
    let child = Forked::new(|| {
        bench.module.raw.initialize().unwrap();
        bench.child_starts_over("child");
        let grandchild = Forked::new(|| {
            bench.module.raw.initialize().unwrap();
            bench.child_starts_over("grandchild");
        });
        grandchild.succeeds();
        bench.child_starts_over("child again");
    });
    child.succeeds();
    ["child", "grandchild", "child again"]
        .iter()
        .for_each(|name| bench.child_signed(name));
    bench.parent_signs();
}

/// One thread takes over the parent's state, and the others wait for it.
fn a_child_whose_threads_all_call_at_once(link: Link) {
    const THREADS: usize = 4;
    let bench = Bench::new(link);
    let (raw, session) = (&bench.module.raw, bench.module.session);
    for _ in 0..50 {
        let child = Forked::new(|| {
            let start = Barrier::new(THREADS);
            std::thread::scope(|scope| {
                let first_call = || {
                    start.wait();
                    raw.session_info(session).map(|_| ())
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(first_call)).collect();
                for thread in threads {
                    assert_eq!(
                        thread.join().unwrap(),
                        Ok(()),
                        "the inherited module is lost"
                    );
                }
            });
            raw.session_info(session).expect("the inherited session");
        });
        child.succeeds();
    }
    Forked::new(|| bench.child_signs("child", session, bench.key)).succeeds();
    bench.child_signed("child");
    bench.parent_signs();
}

/// One thread of the parent uses the TPM, and seven wait for it. None of them is in the child, whose
/// own threads wait for each other too.
fn children_with_threads_while_threads_of_the_parent_wait(link: Link) {
    const THREADS: u8 = 8;
    let bench = Bench::new(link);
    let raw = &bench.module.raw;
    let signs = |digest: u8| {
        let session = raw.open(bench.module.slot, CKF_SERIAL_SESSION).unwrap();
        raw.sign_init(session, CKM_ECDSA, bench.key).unwrap();
        raw.sign(session, &[digest; 32]).expect("C_Sign")
    };
    bench.proxy.book().break_next(command::SIGN, Fault::Stall);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|digest| scope.spawn(move || signs(digest)))
            .collect();
        bench.proxy.book().await_stall();
        await_some("threads that wait", Duration::from_secs(60), || {
            (sleeping() >= usize::from(THREADS)).then_some(())
        });
        let children = (0..children()).map(|_| {
            let child = Forked::new(|| {
                std::thread::scope(|scope| {
                    for digest in 0..THREADS {
                        scope.spawn(move || (0..4).for_each(|_| drop(signs(digest))));
                    }
                });
            });
            child.ends(Duration::from_secs(10))
        });
        let ends: Vec<_> = children.collect();
        bench.proxy.book().release();
        let bad = ends.iter().filter(|end| **end != Some(0)).count();
        assert_eq!(bad, 0, "of {} children: {ends:?}", ends.len());
        for (digest, thread) in (0..).zip(threads) {
            bench.verify(&[digest; 32], &thread.join().unwrap());
        }
    });
    bench.parent_signs();
}

/// How many threads of this process wait.
fn sleeping() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| stat.contains(") S "))
        .count()
}

/// A doubt of the parent is also a doubt of the child: a handle is only a number.
fn a_child_after_the_tpm_was_exchanged(link: Link) {
    let (mut tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let key = module.key();
    module.sign(CKM_ECDSA, key, &[1; 32]).expect("a signature");
    tpm.shut_down();
    module
        .sign(CKM_ECDSA, key, &[1; 32])
        .expect_err("there is no TPM");
    let (mut other, other_identity) = Swtpm::manufactured_with(&["--serial", "another"]);
    other.shut_down();
    copy_state(&other.state(), &tpm.state());
    tpm.restart();
    let child = Forked::new(|| {
        if let Ok(signature) = module.sign(CKM_ECDSA, key, &[2; 32]) {
            home.write("child", signature);
        }
    });
    child.succeeds();
    if let Ok(signature) = fs::read(home.path("child")) {
        let judge = Verifier::new(&other_identity.public_key());
        let others = judge.accepts_digest(&[2; 32], &signature).status.success();
        assert!(!others, "the child signed with another key");
    }
}

/// swtpm serves one client at a time. A connection that a child keeps open unknowingly would block
/// all others.
fn a_child_that_holds_the_connection_of_a_signature(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    home.write("config.toml", "timeout_ms = 60000\n");
    let module = Opened::new(&home);
    let key = module.key();
    let sign = |digest: u8| module.sign(CKM_ECDSA, key, &[digest; 32]);
    sign(1).expect("a signature");
    let begun = sockets();
    tpm.pause();
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| sign(2));
        await_some("a connection", Duration::from_secs(60), || {
            (sockets() > begun).then_some(())
        });
        let child = Forked::new(|| {
            let limit = Duration::from_secs(60);
            await_some("the word", limit, || fs::metadata(home.path("go")).ok());
            let raw = &module.raw;
            let session = raw
                .open(module.slot, CKF_SERIAL_SESSION)
                .expect("a session");
            raw.sign_init(session, CKM_ECDSA, key).unwrap();
            let signature = raw.sign(session, &[4; 32]).expect("the child signs");
            home.write("child", signature);
        });
        tpm.go_on();
        let judge = Verifier::new(&identity.public_key());
        let verify = |digest: u8, signature: &[u8]| {
            judge.accepts_digest(&[digest; 32], signature).ok();
        };
        verify(2, &stalled.join().unwrap().expect("the stalled signature"));
        // The child is there, has done nothing yet, and holds what it inherited.
        for _ in 0..3 {
            verify(3, &sign(3).expect("the parent signs on"));
        }
        home.write("go", "");
        child.succeeds();
        verify(4, &fs::read(home.path("child")).expect("the child signed"));
        verify(5, &sign(5).expect("the parent signs after the child"));
    });
    assert_eq!(tpm.lockout_counter(), 0);
}

/// How many sockets this process has open.
fn sockets() -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|file| file.to_string_lossy().starts_with("socket:"))
        .count()
}

fn children() -> u32 {
    std::env::var("DEVID_CHILDREN").map_or(200, |text| text.parse().expect("a number"))
}
