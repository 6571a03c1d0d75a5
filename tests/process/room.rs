//! Missing space: a full disk, a quota, a limit of the process. Calls that free space work, and
//! calls that need space change nothing. Limits of the host do not end the process.

use cryptoki_sys::*;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::devid::{Bench, FIRST, Inspection, Kind, MASTER, Own, SRK, folder, persistent};
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, library, loaded, tool, ulong};
use testkit::own::{P256, YES, without_tpm};
use testkit::programs::run;
use testkit::raw::Code;
use testkit::tpm::Swtpm;
use testkit::trouble::{ALL, Trouble, for_program};

troubled!(
    a_disk_that_takes_no_byte,
    a_disk_that_does_not_confirm,
    a_first_key_without_room,
    a_pair_is_reduced_or_destroyed,
    systems_that_cannot_rename_or_ask,
);
once!(
    a_file_system_that_is_full,
    files_may_not_grow,
    a_log_may_not_grow,
    pages_may_not_be_locked,
);

/// CKR_DEVICE_MEMORY, as the standard has it for no room.
const FULL: Code = Code(CKR_DEVICE_MEMORY);

/// The ways in which a new file of the folder fails.
fn no_room(folder: &Path) -> Vec<(&'static str, PathBuf, i32)> {
    let fresh = folder.join(".new-*");
    vec![
        ("write", fresh.clone(), libc::ENOSPC),
        ("write", fresh.clone(), libc::EDQUOT),
        ("open", fresh.clone(), libc::ENOSPC),
        ("fsync", fresh.clone(), libc::ENOSPC),
        ("write", fresh, libc::EFBIG),
    ]
}

/// Calls that need space fail, and change nothing.
fn nothing_can_be_made(own: &Own, home: &Home, key: CK_OBJECT_HANDLE, public: CK_OBJECT_HANDLE) {
    let before = Inspection::of(&folder(home));
    let label = [(CKA_LABEL, b"other".to_vec())];
    assert_eq!(own.change(key, &label), Err(FULL));
    assert_eq!(own.create_data("more", b"more"), Err(FULL));
    assert_eq!(own.make(Kind::P256, "more").err(), Some(FULL));
    assert_eq!(own.make_persistent(Kind::P256, "more").err(), Some(FULL));
    assert_eq!(own.destroy(public), Err(FULL));
    let changed = before.to(&Inspection::of(&folder(home)));
    assert_eq!(changed, [] as [String; 0]);
    own.signs(key);
}

fn a_disk_that_takes_no_byte() {
    let bench = Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    for (call, file, error) in no_room(&bench.folder()) {
        let what = format!("{call}: {error}");
        let wrapped = own.make(Kind::P256, "wrapped").unwrap();
        let kept = own.make_persistent(Kind::P256, "kept").unwrap();
        let data = own.create_data("data", &[7; 5000]).unwrap();
        let trouble = Trouble::new(call, &file, 0, ALL, error);
        nothing_can_be_made(&own, &bench.home, wrapped.private, wrapped.public);
        assert_eq!(persistent(&bench.tpm), [SRK, MASTER, FIRST], "{what}");
        for object in [wrapped.private, kept.private, data] {
            assert_eq!(own.destroy(object), Ok(()), "{what}");
        }
        assert!(trouble.over() > 0, "{what}");
        assert_eq!(
            own.find(&[
                (CKA_TOKEN, YES.to_vec()),
                (CKA_CLASS, ulong(CKO_PUBLIC_KEY))
            ]),
            []
        );
        assert_eq!(own.keys(), [] as [CK_OBJECT_HANDLE; 0], "{what}");
        assert_eq!(persistent(&bench.tpm), [SRK, MASTER], "{what}");
        assert_eq!(bench.tpm.transients(), 0, "{what}");
        let names = Inspection::of(&bench.folder());
        assert_eq!(
            names.len(),
            4,
            "{what}: the lock, the serial number, the storage root key, the master key"
        );
        bench.home.log_says(&["the whole object is destroyed"]);
        // The tool, in a process of its own.
        own.make(Kind::P256, "service").unwrap();
        let mut command = Command::new(tool());
        command.args(["key", "delete", "service", "--yes"]);
        for_program(bench.home.settle(&mut command), call, &file, 0, ALL, error);
        run(&mut command).ok();
        assert_eq!(own.keys(), [] as [CK_OBJECT_HANDLE; 0], "{what}");
    }
}

/// Not even the master key is made, which no folder could name.
fn a_first_key_without_room() {
    let bench = Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    for (call, file, error) in no_room(&bench.folder()) {
        let trouble = Trouble::new(call, &file, 0, ALL, error);
        let refused = own.make(Kind::P256, "first").err();
        assert_eq!(refused, Some(FULL), "{call}: {error}");
        assert!(trouble.over() > 0);
        let made = persistent(&bench.tpm);
        assert!(!made.contains(&MASTER), "{call}: {error}: {made:x?}");
        assert!(own.keys().is_empty());
    }
    let first = own.make(Kind::P256, "first").unwrap();
    own.signs(first.private);
}

/// With room the other half stays.
fn a_pair_is_reduced_or_destroyed() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (public, private) = own.pair("pair");
    own.destroy(private).unwrap();
    assert_eq!(own.labelled("pair"), [public]);
    own.destroy(public).unwrap();
    let (public, private) = own.pair("pair");
    own.destroy(public).unwrap();
    assert_eq!(own.labelled("pair"), [private]);
    // And without a public half there is nothing to write.
    let file = home.path("files/.new-*");
    let trouble = Trouble::new("write", &file, 0, ALL, libc::ENOSPC);
    own.destroy(private).unwrap();
    assert_eq!(trouble.over(), 0);
    // No room even for the lock.
    let (_, private) = own.pair("pair");
    fs::remove_file(home.path("files/.lock")).unwrap();
    let trouble = Trouble::new("open", &home.path("files/.lock"), 0, ALL, libc::ENOSPC);
    own.destroy(private).unwrap();
    assert!(trouble.over() > 0);
}

/// Success is reported if all processes see the change. Otherwise nothing is changed.
fn a_disk_that_does_not_confirm() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first");
    let files = home.path("files");
    let names = || {
        let entries = fs::read_dir(&files).unwrap();
        let mut names: Vec<_> = entries.map(|one| one.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let public = [(CKA_TOKEN, YES.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
    for error in [libc::EIO, libc::ENOSPC, libc::EPERM, libc::ENOSYS] {
        let unconfirmed = |times: usize| {
            let log = home.log();
            let says = |line: &&str| line.contains("did not confirm");
            assert_eq!(log.lines().filter(says).count(), times, "{error}\n{log}");
            assert_eq!(log.contains("nothing is changed"), times == 0, "{log}");
            fs::remove_file(home.path("log")).unwrap();
        };
        let _ = fs::remove_file(home.path("log"));
        let trouble = Trouble::new("fsync", &files, 0, ALL, error);
        let made = own.generate(CKM_EC_KEY_PAIR_GEN, &public, &public[..1]);
        let code = match error {
            libc::EIO => CKR_DEVICE_ERROR,
            libc::ENOSPC => CKR_DEVICE_MEMORY,
            _ => CKR_FUNCTION_FAILED,
        };
        assert_eq!(made, Err(Code(code)), "{error}");
        assert!(trouble.over() > 0);
        assert_eq!(names(), before, "{error}");
        unconfirmed(0);

        let (public, private) = own.pair("pair");
        let trouble = Trouble::new("fsync", &files, 0, ALL, error);
        let label = [(CKA_LABEL, b"other".to_vec())];
        assert_eq!(own.change(private, &label), Ok(()), "{error}");
        assert_eq!(own.labelled("other"), [private]);
        assert_eq!(own.destroy(public), Ok(()), "{error}");
        assert_eq!(own.labelled("other"), [private]);
        assert_eq!(own.destroy(private), Ok(()), "{error}");
        assert_eq!(names(), before, "{error}");
        unconfirmed(3);
        trouble.over();

        // The smaller file is in its place: the public half stays.
        let (public, private) = own.pair("pair");
        let trouble = Trouble::new("fsync", &files, 0, ALL, error);
        assert_eq!(own.destroy(private), Ok(()), "{error}");
        assert_eq!(own.labelled("pair"), [public], "{error}");
        assert_eq!(own.destroy(public), Ok(()), "{error}");
        unconfirmed(2);
        trouble.over();
        assert_eq!(names(), before, "{error}");
    }
}

/// Old kernels, file systems of their own, and filters of old containers.
fn systems_that_cannot_rename_or_ask() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first");
    for error in [libc::EOPNOTSUPP, libc::EPERM, libc::ENOSYS, libc::EINVAL] {
        let trouble = Trouble::new("rename2", &home.path("files/*"), 0, ALL, error);
        let (public, private) = own.pair("pair");
        assert!(trouble.over() > 0, "{error}");
        assert_eq!(own.labelled("pair"), [private, public], "{error}");
        if error != libc::EOPNOTSUPP {
            let trouble = Trouble::new("access2", &home.path("files"), 0, ALL, error);
            let label = [(CKA_LABEL, b"other".to_vec())];
            assert_eq!(own.change(private, &label), Ok(()), "{error}");
            assert!(trouble.over() > 0, "{error}");
        }
        own.destroy(private).unwrap();
        own.destroy(public).unwrap();
    }
}

/// A file system of 256 KiB, as long as the value lives.
struct Small(CString);

impl Small {
    /// `None` where this process may mount nothing.
    fn at(path: &Path) -> Option<Small> {
        fs::create_dir_all(path).unwrap();
        let place = CString::new(path.as_os_str().as_bytes()).unwrap();
        let (kind, size) = (c"tmpfs".as_ptr(), c"size=256k,mode=0750".as_ptr());
        // SAFETY: terminated strings.
        let mounted = unsafe { libc::mount(kind, place.as_ptr(), kind, 0, size.cast()) };
        (mounted == 0).then_some(Small(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // SAFETY: a terminated string; the file system is ours.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

fn a_file_system_that_is_full() {
    let bench = Bench::new(Link::Ours);
    let Some(_small) = Small::at(&bench.folder()) else {
        println!("\nnot told: only root mounts a file system");
        return;
    };
    let own = Own::new(&bench.home);
    let wrapped = own.make(Kind::P256, "wrapped").unwrap();
    let kept = own.make_persistent(Kind::P256, "kept").unwrap();
    let data = own.create_data("data", &[7; 300]).unwrap();
    let filler = bench.folder().join("filler");
    assert!(fs::write(&filler, vec![0; 1 << 20]).is_err());
    nothing_can_be_made(&own, &bench.home, wrapped.private, wrapped.public);
    for object in [wrapped.private, kept.private, data] {
        assert_eq!(own.destroy(object), Ok(()));
        // Whatever room that made is used up at once.
        fs::write(filler.with_extension("more"), vec![0; 1 << 20]).ok();
    }
    assert_eq!(own.keys(), [] as [CK_OBJECT_HANDLE; 0]);
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
}

fn limited(resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: plain system call on this process, which is a child with one thread.
    unsafe { assert_eq!(libc::setrlimit(resource, &raw const limit), 0) };
}

/// SIGXFSZ would end the host: a key without handle leaves no hint, a new key is refused.
fn files_may_not_grow() {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--no-persist"]);
    let home = Home::new(&tpm.tcti());
    home.enter();
    let _loaded = library();
    for most in [0, 8] {
        Forked::new(|| {
            limited(libc::RLIMIT_FSIZE, most);
            let module = Opened::new(&home);
            module
                .sign(CKM_ECDSA, module.key(), &[1; 32])
                .expect("a signature");
            let own = Own::with(module.raw, "devid");
            assert_eq!(own.make(Kind::P256, "more").err(), Some(FULL));
        })
        .succeeds();
        let run: Vec<_> = fs::read_dir(home.path("run")).unwrap().collect();
        let hints = run.iter().map(|one| one.as_ref().unwrap().file_name());
        let hints: Vec<_> = hints.filter(|name| name != "lock").collect();
        assert_eq!(hints, [] as [std::ffi::OsString; 0], "{most}");
        assert!(!home.path("log").exists() || fs::read(home.path("log")).unwrap().is_empty());
        let left = Inspection::of(&folder(&home));
        assert!(left.len() <= 1, "at most the lock");
    }
}

/// A log that has as many bytes as a file may have gets no more.
fn a_log_may_not_grow() {
    let home = without_tpm();
    let raw = loaded(&home);
    home.write("log", [b'\n'; 1000]);
    Forked::new(|| {
        limited(libc::RLIMIT_FSIZE, 1010);
        raw.initialize().unwrap();
        raw.slots(true).ok();
        raw.finalize().unwrap();
    })
    .succeeds();
    assert_eq!(fs::read(home.path("log")).unwrap().len(), 1000);
}

/// A sealed key works, and the log says that it may be swapped out.
fn pages_may_not_be_locked() {
    let bench = Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    let sealed = [(testkit::devid::PROTECTION, ulong(testkit::devid::SEALED))];
    let both = [testkit::devid::label("sealed"), (CKA_TOKEN, YES.to_vec())];
    own.make_with(Kind::P256, &both, &sealed).unwrap();
    own.raw.finalize().unwrap();
    Forked::new(|| {
        limited(libc::RLIMIT_MEMLOCK, 0);
        give_up(14); // CAP_IPC_LOCK
        let own = Own::new(&bench.home);
        own.signs(own.key_called("sealed"));
    })
    .succeeds();
    bench
        .home
        .log_says(&["WARN", "swapped out", "RLIMIT_MEMLOCK"]);
}

/// Gives up a capability, if this process has it.
fn give_up(capability: u32) {
    #[repr(C)]
    #[derive(Default, Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header: [u32; 2] = [0x2008_0522, 0]; // _LINUX_CAPABILITY_VERSION_3, this process
    let mut data = [Data::default(); 2];
    // SAFETY: both are as capget(2) and capset(2) have them.
    unsafe {
        let got = libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr());
        assert_eq!(got, 0, "capget");
        data[0].effective &= !(1 << capability);
        let set = libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr());
        assert_eq!(set, 0, "capset");
    }
}
