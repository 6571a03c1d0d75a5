//! A slot without a token: no TPM, no permission, no identity, a wrong configuration. The host must
//! continue, and the log must have the reason.

use cryptoki_sys::*;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use testkit::PROFILES;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, identity, loaded};
use testkit::programs::poll;
use testkit::raw::{Code, Raw, text};
use testkit::story::await_some;
use testkit::tpm::{Place, Swtpm};

over_our_transport!(
    no_tpm,
    a_tpm_without_identity,
    a_key_without_certificate,
    a_tpm_that_comes_later,
);
once!(
    no_permission,
    an_unknown_setting,
    a_wrong_value_in_a_drop_in,
    a_wrong_word_in_the_environment,
    a_wrong_line_shows_no_secret,
    settings_come_from_file_and_drop_in,
    a_failed_look_is_not_repeated_at_once,
);

/// The module starts, slot 0 is there and empty, and everything about it says so.
#[track_caller]
fn slot_is_empty(raw: &Raw) -> CK_SLOT_ID {
    raw.initialize()
        .expect("C_Initialize never fails for want of a TPM");
    let slots = raw.slots(false).unwrap();
    assert!(!slots.is_empty(), "the slot is there");
    let slot = slots[0];
    assert_eq!(identity(raw), None);
    assert_eq!(raw.slot_info(slot).unwrap().flags & CKF_TOKEN_PRESENT, 0);
    let absent = Err(Code(CKR_TOKEN_NOT_PRESENT));
    assert_eq!(raw.token_info(slot).map(|_| ()), absent);
    assert_eq!(raw.mechanisms(slot).map(|_| ()), absent);
    assert_eq!(raw.mechanism_info(slot, CKM_ECDSA).map(|_| ()), absent);
    assert_eq!(raw.open(slot, CKF_SERIAL_SESSION).map(|_| ()), absent);
    slot
}

/// The log has a line with all of `words`, whatever their case.
#[track_caller]
fn log_says(home: &Home, words: &[&str]) {
    let log = home.log();
    let said = log.lines().any(|line| {
        let line = line.to_lowercase();
        words.iter().all(|word| line.contains(&word.to_lowercase()))
    });
    assert!(said, "no line of the log has {words:?}:\n{log}");
}

fn no_tpm(link: Link) {
    let ports = testkit::ports::Pair::claim();
    let place = format!("swtpm:host=127.0.0.1,port={}", ports.first);
    let home = Home::new(&link.tcti(&place));
    let raw = loaded(&home);
    slot_is_empty(&raw);
    log_says(&home, &[&ports.first.to_string(), "not reachable"]);
    log_says(&home, &[&ports.first.to_string(), "refused"]);
    raw.finalize().unwrap();
    slot_is_empty(&raw);
}

fn no_permission() {
    let (tpm, _identity) = Swtpm::manufactured_on_unix_socket();
    let Place::Unix(socket) = tpm.place().clone() else {
        panic!("a unix socket")
    };
    let home = Home::new(&tpm.tcti());
    // The child writes the log. The folder is not for all: then its configuration is not obeyed.
    let log = home.write("log", "");
    for (path, mode) in [
        (home.folder(), 0o755),
        (&*log, 0o666),
        (socket.parent().unwrap(), 0o755),
        (&*socket, 0),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let raw = loaded(&home);
    // Root could open everything: the look is a child's that is nobody.
    let child = Forked::new(|| {
        // SAFETY: plain system calls; the child ends with this closure.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
            }
        }
        let refused = tpm.place().connect().err().map(|why| why.kind());
        assert_eq!(refused, Some(ErrorKind::PermissionDenied));
        slot_is_empty(&raw);
    });
    child.succeeds();
    log_says(&home, &[socket.to_str().unwrap(), "permission denied"]);
}

fn a_tpm_without_identity(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    slot_is_empty(&loaded(&home));
    log_says(&home, &["certificate", "1c9"]);
}

fn a_key_without_certificate(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--no-cert"]);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    slot_is_empty(&loaded(&home));
    log_says(&home, &["certificate", "1c9"]);
}

fn a_tpm_that_comes_later(link: Link) {
    let (mut tpm, _identity) = Swtpm::manufactured();
    tpm.shut_down();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let raw = loaded(&home);
    let slot = slot_is_empty(&raw);
    tpm.restart();
    await_some("a token", Duration::from_secs(60), || identity(&raw));
    assert_eq!(text(&raw.token_info(slot).unwrap().label), "idev-id");
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(raw.find(session, &[]).unwrap().len(), 4 + PROFILES);
}

/// The configuration `text` leaves the slot empty, and a log line has all of `words`.
fn is_refused(file: &str, text: &str, words: &[&str]) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    home.write(file, text);
    let raw = loaded(&home);
    slot_is_empty(&raw);
    log_says(&home, words);
    raw.finalize().unwrap();
    home.write(file, "");
    Opened::new(&home);
}

fn an_unknown_setting() {
    is_refused(
        "config.toml",
        "# ours\n\ncolour = \"red\"\n",
        &["config.toml", "3", "colour"],
    );
}

fn a_wrong_value_in_a_drop_in() {
    let text = "random = \"kernel\"\ntimeout_ms = \"soon\"\n";
    is_refused(
        "config.d/10-site.toml",
        text,
        &["10-site.toml", "2", "timeout_ms"],
    );
}

fn a_wrong_word_in_the_environment() {
    let home = Home::new("carrier-pigeon:loft=3");
    slot_is_empty(&loaded(&home));
    log_says(&home, &["DEVID_PKCS11_TCTI", "carrier-pigeon"]);
}

/// Each level of the log is on.
fn a_wrong_line_shows_no_secret() {
    const SECRET: &str = "not-a-real-pin";
    let home = Home::new("swtpm:path=/nonexistent/tpm");
    let raw = loaded(&home);
    for (line, words) in [
        ("pin: \"not-a-real-pin\"", ["pin", "colon"]),
        ("pin \"not-a-real-pin\"", ["pin", "equals sign"]),
        ("pin =\n\"not-a-real-pin\"", ["pin", "another line"]),
        ("pin = \"not-a-real-pin", ["pin", "not closed"]),
        ("pin = not-a-real-pin", ["pin", "quotes"]),
        ("pin = [\"not-a-real-pin\"]", ["pin", "text in quotes"]),
        ("pin = \"not-a-real-pin\"", ["pin", "hex:digits"]),
    ] {
        home.write(
            "config.toml",
            format!("[[token]]\nname = \"devid\"\n{line}\n"),
        );
        slot_is_empty(&raw);
        let place = [&["config.toml:3:"][..], &words].concat();
        log_says(&home, &place);
        assert!(!home.log().contains(SECRET), "{line}: {}", home.log());
        raw.finalize().unwrap();
        home.write("log", "");
    }
}

fn settings_come_from_file_and_drop_in() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new("");
    home.write("config.toml", "tcti = \"swtpm:path=/nonexistent/socket\"\n");
    home.write(
        "config.d/10-site.toml",
        format!("tcti = \"{}\"\n", tpm.tcti()),
    );
    Opened::new(&home);
}

/// Programs ask for slots again and again; an absent TPM must not cost each of them a search.
fn a_failed_look_is_not_repeated_at_once() {
    let (ports, listener, _control) = testkit::proxy::listeners();
    listener.set_nonblocking(true).unwrap();
    let home = Home::new(&format!("swtpm:host=127.0.0.1,port={}", ports.first));
    let raw = loaded(&home);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let begin = Instant::now();
            slot_is_empty(&raw);
            (0..200).for_each(|_| assert_eq!(raw.slots(true).unwrap(), []));
            begin.elapsed()
        });
        let mut connections = 0;
        while !looks.is_finished() {
            // Accepted and closed at once.
            let looked = poll(Duration::from_millis(5), || listener.accept().ok());
            connections += u64::from(looked.is_some());
        }
        let seconds = looks.join().unwrap().as_secs();
        // One scan may try twice, because the fault may be in the connection.
        assert!(
            connections <= 4 * (seconds + 1),
            "{connections} connections in {seconds} s"
        );
    });
}
