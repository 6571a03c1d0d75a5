//! System calls that a real kernel filter denies (seccomp(2)), as in containers and services. The
//! host must not crash, and the code and the message must be right.

use cryptoki_sys::*;
use std::ffi::{c_int, c_long};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::Duration;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::module::{loaded, ulong};
use testkit::own::{Own, RSA_KEY, allow_files, outside};
use testkit::raw::{Code, Raw};
use testkit::seccomp::deny;
use testkit::story::await_some;
use testkit::tpm::Swtpm;

once!(
    calls_that_the_module_can_do_without,
    calls_that_it_needs,
    waiting_is_denied,
);

const DENIALS: [c_int; 2] = [libc::EPERM, libc::ENOSYS];

/// The steps of a host, and the result of each.
type Steps = Vec<(&'static str, Result<(), Code>)>;

struct Bench {
    home: Home,
    raw: Raw,
    _tpm: Swtpm,
}

impl Bench {
    /// With a factory identity, the token `devid`, and the token `files` with keys in clear.
    fn new() -> Bench {
        let (tpm, _identity) = Swtpm::manufactured();
        let home = Home::new(&tpm.tcti());
        allow_files(&home);
        let own = Own::on(&home, "files");
        own.pair("ec");
        own.raw.finalize().unwrap();
        outside(&home, "rsa", &RSA_KEY);
        // A file whose key is for the owner only, as others make them.
        let key = fs::read(home.path("rsa.key")).unwrap();
        let place = home.write("files/rsa.pem", key);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(place, mode).unwrap();
        let raw = loaded(&home);
        Bench {
            home,
            raw,
            _tpm: tpm,
        }
    }

    /// The steps in a child to which these calls are denied, and what it logged.
    #[track_caller]
    fn without(&self, calls: &[c_long], error: c_int) -> (String, String) {
        let _ = fs::remove_file(self.home.path("log"));
        let said = File::create(self.home.path("stderr")).unwrap();
        let child = Forked::new(|| {
            // SAFETY: both descriptors are open, and the child's standard error is its own.
            assert!(unsafe { libc::dup2(said.as_raw_fd(), 2) } >= 0);
            let before = File::create(self.home.path("steps")).unwrap();
            deny(calls, error);
            let steps = life(&self.raw);
            let text = steps
                .iter()
                .map(|(step, gave)| format!("{step} {gave:?}\n"));
            std::io::Write::write_all(&mut &before, text.collect::<String>().as_bytes()).unwrap();
        });
        child.succeeds();
        let stderr = fs::read_to_string(self.home.path("stderr")).unwrap();
        assert_eq!(stderr, "", "{calls:?} {error}: on the host's stderr");
        let steps = fs::read_to_string(self.home.path("steps")).unwrap();
        (steps, self.home.log())
    }
}

/// Lists, signs with keys of each kind, makes a key, destroys it.
fn life(raw: &Raw) -> Steps {
    let mut steps = Steps::new();
    steps.push(("initialize", raw.initialize()));
    let slots = raw.slots(true).unwrap_or_default();
    for slot in slots {
        let info = raw.token_info(slot).expect("C_GetTokenInfo");
        let label = testkit::raw::text(&info.label);
        let (token, flags) = match label.as_str() {
            "idev-id" => ("idev-id", 0),
            // No object of a token can be made there.
            "sessions" => ("sessions", 0),
            "devid" => ("devid", CKF_RW_SESSION),
            _ => ("files", CKF_RW_SESSION),
        };
        let session = match raw.open(slot, CKF_SERIAL_SESSION | flags) {
            Ok(session) => session,
            Err(code) => {
                steps.push((token, Err(code)));
                continue;
            }
        };
        let keys = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        for key in keys.unwrap_or_default() {
            let kind = raw.attribute(session, key, CKA_KEY_TYPE).unwrap();
            let (step, mechanism) = match kind == ulong(CKK_RSA) {
                true => ("rsa", CKM_SHA256_RSA_PKCS),
                false => ("ec", CKM_ECDSA),
            };
            let begun = raw.sign_init(session, mechanism, key);
            let signed = begun.and_then(|()| raw.sign(session, &[7; 32])).map(drop);
            steps.push((step, signed));
        }
        steps.push(("random", raw.random(session, 16).map(drop)));
        if flags == 0 {
            continue;
        }
        let own = Own(testkit::module::Opened {
            raw: raw.clone(),
            slot,
            session,
        });
        let yes = (CKA_TOKEN, testkit::own::YES.to_vec());
        let curve = (CKA_EC_PARAMS, testkit::own::P256.to_vec());
        let made = own.generate(CKM_EC_KEY_PAIR_GEN, &[yes.clone(), curve], &[yes]);
        steps.push(("generate", made.map(drop)));
        if let Ok((public, private)) = made {
            steps.push(("destroy public", own.destroy(public)));
            steps.push(("destroy private", own.destroy(private)));
        }
    }
    steps.push(("finalize", raw.finalize()));
    steps
}

/// Each is refused by some filter that is in use, or missing from some kernel.
fn calls_that_the_module_can_do_without() {
    let bench = Bench::new();
    let (usual, _) = bench.without(&[], 0);
    assert!(!usual.contains("Err"), "{usual}");
    assert_eq!(usual.matches("generate").count(), 2, "{usual}");
    assert!(usual.contains("rsa"), "{usual}");
    for (name, calls) in [
        ("faccessat2", &[libc::SYS_faccessat2][..]),
        ("faccessat", &[libc::SYS_faccessat]),
        (
            "faccessat both",
            &[libc::SYS_faccessat, libc::SYS_faccessat2],
        ),
        ("renameat2", &[libc::SYS_renameat2]),
        ("statx", &[libc::SYS_statx]),
        ("prlimit64", &[libc::SYS_prlimit64]),
        ("madvise", &[libc::SYS_madvise]),
        ("mlock", &[libc::SYS_mlock, libc::SYS_munlock]),
        ("clone3", &[libc::SYS_clone3]),
        ("sched_yield", &[libc::SYS_sched_yield]),
        ("fchown", &[libc::SYS_fchown]),
    ] {
        for error in DENIALS {
            let (steps, log) = bench.without(calls, error);
            assert_eq!(steps, usual, "{name} answers {error}\n{log}");
        }
    }
}

/// Each failure has its true reason: not the rights of a folder, and not a write-protected token.
fn calls_that_it_needs() {
    let bench = Bench::new();
    let protected = format!("{:?}", Code(CKR_TOKEN_WRITE_PROTECTED));
    let internal = format!("{:?}", Code(CKR_GENERAL_ERROR));
    for (name, calls) in [
        ("fsync", &[libc::SYS_fsync][..]),
        ("fchmod", &[libc::SYS_fchmod]),
        ("getrandom", &[libc::SYS_getrandom]),
        ("flock", &[libc::SYS_flock]),
        ("fcntl", &[libc::SYS_fcntl]),
        ("lseek", &[libc::SYS_lseek]),
        ("ppoll", &[libc::SYS_ppoll]),
        ("socket", &[libc::SYS_socket]),
        ("connect", &[libc::SYS_connect]),
        ("sendto", &[libc::SYS_sendto]),
        ("recvfrom", &[libc::SYS_recvfrom]),
        ("setsockopt", &[libc::SYS_setsockopt]),
        ("shutdown", &[libc::SYS_shutdown]),
        ("getdents64", &[libc::SYS_getdents64]),
        ("unlinkat", &[libc::SYS_unlinkat]),
        ("readlinkat", &[libc::SYS_readlinkat]),
        ("fstatfs", &[libc::SYS_fstatfs]),
    ] {
        for error in DENIALS {
            let (steps, log) = bench.without(calls, error);
            assert!(steps.contains("finalize Ok"), "{name} {error}\n{steps}");
            assert!(!steps.contains(&internal), "{name} {error}\n{steps}{log}");
            if ["fsync", "fchmod", "flock", "getrandom"].contains(&name) {
                assert!(!steps.contains(&protected), "{name} {error}\n{steps}{log}");
                let says = |line: &str| line.contains("lacks the permission");
                assert!(!log.lines().any(says), "{name} {error}\n{log}");
                let named = log.lines().any(|line| line.contains(name));
                assert!(named || !steps.contains("Err"), "{name} {error}\n{log}");
            }
        }
    }
}

/// A second process holds the folder's lock, and the first cannot sleep until it is free.
fn waiting_is_denied() {
    let bench = Bench::new();
    let place = bench.home.path("files/.lock");
    let lock = File::open(&place).unwrap();
    lock.lock().unwrap();
    let child = Forked::new(|| {
        let own = Own::on(&bench.home, "files");
        deny(
            &[libc::SYS_clock_nanosleep, libc::SYS_nanosleep],
            libc::EPERM,
        );
        own.pair("waited for");
        own.raw.finalize().unwrap();
    });
    let descriptors = format!("/proc/{}/fd", child.id());
    await_some("the child waits", Duration::from_secs(60), || {
        assert!(child.is_running());
        let open = fs::read_dir(&descriptors).unwrap().flatten();
        // The inherited descriptor, and the one that it opened itself.
        let of_lock = open.filter(|one| fs::read_link(one.path()).is_ok_and(|to| to == place));
        (of_lock.count() > 1).then_some(())
    });
    // Closing is not enough: the child has inherited the descriptor.
    lock.unlock().unwrap();
    child.succeeds();
}
