//! PINs while the lock for PINs is not available. No PIN is then tried, and the TPM's counter does
//! not change. The factory identity signs in each story.

use cryptoki_sys::*;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;
use testkit::fork::Forked;
use testkit::fronts::Device;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, loaded};
use testkit::own::slot_of;
use testkit::pins::{Bench, OFFICER, Token, USER};
use testkit::programs::{self, program, run};
use testkit::raw::Code;
use testkit::story::await_some;

over_our_transport!(
    sixteen_take_turns,
    sixteen_without_a_turn,
    a_folder_that_somebody_else_made,
    a_folder_that_everybody_may_write,
    a_run_folder_that_cannot_be_written,
    a_link_in_the_place_of_the_folder,
    something_else_in_the_place_of_the_file,
    a_file_of_somebody_else,
    a_turn_that_is_never_given_back,
    a_file_system_without_locks,
    the_tpms_own_node_is_the_lock,
    every_way_to_show_a_pin_asks_for_the_turn,
    one_wait_in_vain_is_enough,
    a_child_of_a_process_that_was_killed_keeps_no_turn,
);

const FAILED: CK_RV = CKR_FUNCTION_FAILED;
const STRANGER: u32 = 12345;
const PROCESSES: usize = 16;

/// A device whose token has PINs, and that waits for nobody for long.
fn bench(link: Link) -> (Bench, Token) {
    let bench = Bench::new(link);
    bench.home.write("config.toml", "timeout_ms = 20000\n");
    let token = bench.token();
    token.become_one_with_pins();
    token.raw.finalize().unwrap();
    (bench, token)
}

/// A file that has the place of the folder's lock, with this mode.
fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// This number of processes each try a wrong PIN at the same time. They get one of these codes.
fn all_try(bench: &Bench, token: &Token, allowed: &[CK_RV]) {
    // No connection of the proxy's must be open while the children are made: they would keep it.
    let start = bench.home.write("start", "");
    let held = File::open(&start).unwrap();
    held.lock().unwrap();
    let tries: Vec<_> = (0..PROCESSES)
        .map(|n| {
            Forked::new(|| {
                File::open(&start).unwrap().lock_shared().unwrap();
                token.raw.initialize().unwrap();
                let session = token.read_only();
                let Err(Code(code)) = token.login(session, &format!("wrong {n}")) else {
                    panic!("a wrong PIN let somebody in");
                };
                assert!(allowed.contains(&code), "{code:#x}");
            })
        })
        .collect();
    held.unlock().unwrap();
    tries.into_iter().for_each(Forked::succeeds);
}

/// No PIN is tried, right or wrong, and the log says why with these words.
#[track_caller]
fn nothing_is_tried(bench: &Bench, token: &Token, words: &[&str]) {
    all_try(bench, token, &[FAILED]);
    token.raw.initialize().unwrap();
    let session = token.read_write();
    assert_eq!(token.login(session, USER), Err(Code(FAILED)));
    assert_eq!(token.officer(session, "wrong"), Err(Code(FAILED)));
    bench.idev_id_signs(&token.raw, 0);
    bench.home.log_says(words);
    token.raw.finalize().unwrap();
}

fn sixteen_take_turns(link: Link) {
    let (bench, token) = bench(link);
    all_try(&bench, &token, &[CKR_PIN_INCORRECT, CKR_PIN_LOCKED]);
    token.raw.initialize().unwrap();
    bench.idev_id_signs(&token.raw, 2);
}

fn sixteen_without_a_turn(link: Link) {
    let (bench, token) = bench(link);
    fs::remove_dir_all(bench.path("run/lock")).unwrap();
    bench.home.write("run/lock", "");
    nothing_is_tried(&bench, &token, &["run/lock", "no PIN is tried"]);
    // After the obstacle is removed, the login works.
    fs::remove_file(bench.path("run/lock")).unwrap();
    token.raw.initialize().unwrap();
    let session = token.read_only();
    token.login(session, USER).unwrap();
}

fn a_folder_that_somebody_else_made(link: Link) {
    let (bench, token) = bench(link);
    let lock = bench.home.path("run/lock");
    fs::remove_dir_all(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    for bits in [0o755, 0o1777] {
        mode(&lock, bits);
        chown(&lock, Some(STRANGER), None).expect("the tests run as root");
        nothing_is_tried(&bench, &token, &["run/lock", "user 12345"]);
    }
    // The folder above it, too: its owner can exchange what is in it.
    chown(&lock, Some(0), None).unwrap();
    mode(&lock, 0o700);
    chown(bench.path("run"), Some(STRANGER), None).unwrap();
    nothing_is_tried(&bench, &token, &["run", "user 12345"]);
}

fn a_folder_that_everybody_may_write(link: Link) {
    let (bench, token) = bench(link);
    for (place, bits) in [("run/lock", 0o777), ("run/lock", 0o1777), ("run", 0o777)] {
        mode(&bench.home.path("run"), 0o755);
        mode(&bench.home.path("run/lock"), 0o755);
        mode(&bench.home.path(place), bits);
        nothing_is_tried(&bench, &token, &[place, "everybody may write"]);
    }
}

/// As in a container, where nobody made it.
fn a_run_folder_that_cannot_be_written(link: Link) {
    let (bench, token) = bench(link);
    // SAFETY: nothing else reads the environment now.
    unsafe { std::env::set_var("DEVID_PKCS11_RUN", "/proc/nowhere/run") };
    nothing_is_tried(
        &bench,
        &token,
        &["/proc/nowhere/run/lock", "no PIN is tried"],
    );
}

fn a_link_in_the_place_of_the_folder(link: Link) {
    let (bench, token) = bench(link);
    let lock = bench.home.path("run/lock");
    fs::remove_dir_all(&lock).unwrap();
    symlink("/tmp", &lock).unwrap();
    nothing_is_tried(&bench, &token, &["/tmp", "everybody may write"]);
    fs::remove_file(&lock).unwrap();
    symlink("nowhere", &lock).unwrap();
    nothing_is_tried(&bench, &token, &["run/lock", "no PIN is tried"]);
    // A link to one of our folders is as good as the folder.
    fs::remove_file(&lock).unwrap();
    fs::create_dir(bench.path("elsewhere")).unwrap();
    symlink(bench.path("elsewhere"), &lock).unwrap();
    all_try(&bench, &token, &[CKR_PIN_INCORRECT, CKR_PIN_LOCKED]);
    token.raw.initialize().unwrap();
    bench.idev_id_signs(&token.raw, 2);
}

fn something_else_in_the_place_of_the_file(link: Link) {
    let (bench, token) = bench(link);
    let pin = bench.home.path("run/lock/pin");
    let other = bench.home.write("other", "");
    fs::remove_file(&pin).unwrap();
    fs::create_dir(&pin).unwrap();
    nothing_is_tried(&bench, &token, &["lock/pin", "a folder"]);
    fs::remove_dir(&pin).unwrap();
    symlink(&other, &pin).unwrap();
    nothing_is_tried(&bench, &token, &["lock/pin", "a symbolic link"]);
    fs::remove_file(&pin).unwrap();
    fs::hard_link(&other, &pin).unwrap();
    nothing_is_tried(&bench, &token, &["lock/pin", "a second name"]);
    fs::remove_file(&pin).unwrap();
    run(program("mkfifo").arg(&pin)).ok();
    nothing_is_tried(&bench, &token, &["lock/pin", "a pipe"]);
}

/// In a folder for a group each member can make the file, and its owner can exchange it.
fn a_file_of_somebody_else(link: Link) {
    let (bench, token) = bench(link);
    let lock = bench.home.path("run/lock");
    chown(&lock, None, Some(STRANGER)).unwrap();
    mode(&lock, 0o1770);
    chown(lock.join("pin"), Some(STRANGER), None).unwrap();
    nothing_is_tried(&bench, &token, &["lock/pin", "user 12345"]);
    chown(lock.join("pin"), Some(0), Some(STRANGER)).unwrap();
    all_try(&bench, &token, &[CKR_PIN_INCORRECT, CKR_PIN_LOCKED]);
    token.raw.initialize().unwrap();
    bench.idev_id_signs(&token.raw, 2);
}

fn a_turn_that_is_never_given_back(link: Link) {
    let (bench, token) = bench(link);
    bench.home.write("config.toml", "timeout_ms = 1500\n");
    let file = File::open(bench.home.path("run/lock/pin")).unwrap();
    file.lock().unwrap();
    nothing_is_tried(&bench, &token, &["lock/pin", "another process"]);
    // The held lock only delays logins.
    file.unlock().unwrap();
    token.raw.initialize().unwrap();
    let session = token.read_only();
    token.login(session, USER).unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

fn a_file_system_without_locks(link: Link) {
    let (bench, token) = bench(link);
    for errno in ["ENOLCK", "ENOSYS", "EOPNOTSUPP"] {
        let source = format!(
            "#include <errno.h>\nint flock(int fd, int how) {{ (void)fd; (void)how; errno = {errno}; \
             return -1; }}\n"
        );
        let source = bench.home.write("flock.c", source);
        let preloaded = bench.home.path("flock.so");
        let mut compiler = program("cc");
        run(compiler
            .args(["-shared", "-fPIC", "-o"])
            .arg(&preloaded)
            .arg(&source))
        .ok();
        for n in 0..PROCESSES / 4 {
            let mut tool = program("pkcs11-tool");
            let pin = format!("wrong {n}");
            tool.arg("--module").arg(library());
            tool.args([
                "--token-label",
                "device keys",
                "--login",
                "--pin",
                &pin,
                "-O",
            ]);
            tool.env("LD_PRELOAD", &preloaded);
            let said = run(bench.home.settle(&mut tool)).all();
            assert!(said.contains("CKR_FUNCTION_FAILED"), "{said}");
        }
        bench.counts(0);
    }
    bench.home.log_says(&["lock/pin", "no PIN is tried"]);
    token.raw.initialize().unwrap();
    bench.idev_id_signs(&token.raw, 0);
}

/// A user of a kernel TPM needs no folder, and no other program holds the lock.
fn the_tpms_own_node_is_the_lock(link: Link) {
    let (bench, token) = bench(link);
    let device = Device::new(&bench.tpm);
    let home = &bench.home;
    fs::remove_dir_all(home.path("run/lock")).unwrap();
    home.write("run/lock", "");
    home.write("config.toml", "timeout_ms = 1500\n");
    // SAFETY: nothing else reads the environment now.
    unsafe { std::env::set_var("DEVID_PKCS11_TCTI", device.tcti()) };
    token.raw.initialize().unwrap();
    let session = token.read_write();
    let wrong = token.login(session, "wrong");
    assert_eq!(wrong, Err(Code(CKR_PIN_INCORRECT)));
    bench.counts(1);
    let node = File::open(device.path()).unwrap();
    node.lock().unwrap();
    assert_eq!(token.login(session, "wronger"), Err(Code(FAILED)));
    assert_eq!(token.login(session, USER), Err(Code(FAILED)));
    home.log_says(&["another process", device.path().to_str().unwrap()]);
    bench.counts(1);
    node.unlock().unwrap();
    token.login(session, USER).unwrap();
    bench.idev_id_signs(&token.raw, 1);
}

fn every_way_to_show_a_pin_asks_for_the_turn(link: Link) {
    let (bench, token) = bench(link);
    token.raw.initialize().unwrap();
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let always = [(CKA_ALWAYS_AUTHENTICATE, testkit::own::YES.to_vec())];
    let (_, key) = token.pair(session, "asks again", &always);
    chown(bench.path("run/lock"), Some(STRANGER), None).unwrap();
    token.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    assert_eq!(token.prove(session, "wrong"), Err(Code(FAILED)));
    let changed = token.set_pin(session, "wrong", "another PIN");
    assert_eq!(changed, Err(Code(FAILED)));
    token.raw.logout(session).unwrap();
    assert_eq!(token.officer(session, "wrong"), Err(Code(FAILED)));
    let changed = token.set_pin(session, "wrong", "another PIN");
    assert_eq!(changed, Err(Code(FAILED)));
    token.raw.close(session).unwrap();
    assert_eq!(token.init("wrong", "label"), Err(Code(FAILED)));
    assert_eq!(token.init(OFFICER, "label"), Err(Code(FAILED)));
    bench.idev_id_signs(&token.raw, 0);
    token.raw.finalize().unwrap();

    // The identity's own: by whoever logs in, and by the configuration.
    let (tpm, _identity) = testkit::tpm::Swtpm::manufactured_with(&["--auth", "open sesame"]);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let hint = |auth: &str| format!("[[identity]]\nhandle = 0x81020000\nauth = \"{auth}\"\n");
    home.write("config.toml", hint("pin"));
    let raw = loaded(&home);
    fs::create_dir_all(home.path("run/lock")).unwrap();
    chown(home.path("run/lock"), Some(STRANGER), None).unwrap();
    raw.initialize().unwrap();
    let session = raw
        .open(slot_of(&raw, "idev-id"), CKF_SERIAL_SESSION)
        .unwrap();
    let refused = raw.login(session, CKU_USER, b"wrong");
    assert_eq!(refused, Err(Code(FAILED)));
    raw.finalize().unwrap();
    home.write("config.toml", hint("hex:77726f6e67"));
    for n in 0..PROCESSES {
        Forked::new(|| {
            raw.initialize().unwrap();
            let session = raw.open(slot_of(&raw, "idev-id"), CKF_SERIAL_SESSION);
            let session = session.unwrap();
            let template = [(CKA_CLASS, testkit::module::ulong(CKO_PRIVATE_KEY))];
            let key = raw.find(session, &template).unwrap()[0];
            raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
            let refused = raw.sign(session, b"data");
            // With a turn the TPM is asked, and the last try is left.
            match n {
                0..8 => assert_eq!(refused, Err(Code(FAILED))),
                _ => assert!(refused.is_err()),
            }
        })
        .succeeds();
        if n == 7 {
            assert_eq!(tpm.lockout_counter(), 0);
            chown(home.path("run/lock"), Some(0), None).unwrap();
        }
    }
    assert_eq!(tpm.lockout_counter(), 2);
}

/// A stranger cannot hold what keys are loaded under; a friend costs each process one wait.
fn one_wait_in_vain_is_enough(link: Link) {
    let (bench, token) = bench(link);
    bench.home.write("config.toml", "timeout_ms = 1500\n");
    token.raw.initialize().unwrap();
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let (_, key) = token.pair(session, "wrapped", &[]);
    let file = File::open(bench.home.path("run/lock/slots")).unwrap();
    file.lock().unwrap();
    for _ in 0..5 {
        token.sign(session, key).unwrap();
    }
    let waits = bench.home.log().matches("another process").count();
    assert_eq!(waits, 1);
    // Whoever got it back waits for the next one again.
    file.unlock().unwrap();
    token.sign(session, key).unwrap();
    file.lock().unwrap();
    token.sign(session, key).unwrap();
    let waits = bench.home.log().matches("another process").count();
    assert_eq!(waits, 2);
    let modes = [".", "pin", "slots"].map(|name| {
        let about = fs::metadata(bench.home.path("run/lock").join(name));
        about.unwrap().permissions().mode() & 0o007
    });
    assert_eq!(modes, [0; 3], "others hold it");
}

/// A process dies while it has the turn, and a child that it forked meanwhile lives on.
fn a_child_of_a_process_that_was_killed_keeps_no_turn(link: Link) {
    let (bench, token) = bench(link);
    let lock = bench.home.path("run/lock/pin");
    let is_free = || File::open(&lock).is_ok_and(|file| file.try_lock().is_ok());
    bench.proxy.book().take();
    let child = bench.home.path("child");
    let host = Forked::new(|| {
        token.raw.initialize().unwrap();
        let session = token.read_write();
        bench.home.write("ready", "");
        await_file(&bench.home.path("go"));
        std::thread::scope(|scope| {
            scope.spawn(|| token.login(session, USER));
            let taken = || (!is_free()).then_some(());
            await_some("the turn", LIMIT, taken);
            // SAFETY: the child makes two system calls, and ends when it is killed.
            let id = unsafe { libc::fork() };
            if id == 0 {
                loop {
                    // SAFETY: waits for a signal.
                    unsafe { libc::pause() };
                }
            }
            bench.home.write("child", id.to_string());
            // SAFETY: this process ends at once, in the middle of its other thread's login.
            unsafe { libc::_exit(0) };
        });
    });
    await_file(&bench.home.path("ready"));
    bench.tpm.pause();
    bench.home.write("go", "");
    host.succeeds();
    let id: libc::pid_t = fs::read_to_string(&child).unwrap().parse().unwrap();
    // The kernel may run the host to its end before the child closes what it inherited.
    let freed = programs::poll(SOON, || is_free().then_some(()));
    // SAFETY: the child of ours that only waits; 0 asks whether it lives.
    let lives = unsafe { libc::kill(id, 0) };
    // SAFETY: as before.
    unsafe { libc::kill(id, libc::SIGKILL) };
    bench.tpm.go_on();
    assert_eq!(lives, 0);
    assert!(freed.is_some(), "the child keeps the turn");
}

const LIMIT: Duration = Duration::from_secs(60);
/// How long a child that keeps the turn is asked again.
const SOON: Duration = Duration::from_secs(20);

fn await_file(path: &Path) {
    await_some("a file", LIMIT, || path.exists().then_some(()));
}
