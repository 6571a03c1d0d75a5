//! Audit lines for each use of a private key, in the journal or in syslog, and audit lines that no
//! reader takes.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;
use testkit::ciphers::{Bench, ecdh, mechanism, oaep, openssl_encrypts, pkcs1, readable};
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::host::compiled;
use testkit::journal::{Fields, JOURNAL, Receiver, SYSLOG, ask_for_audit, inside, number, tells};
use testkit::link::Link;
use testkit::module::library;
use testkit::openssl::digest;
use testkit::own::{Own, P256, without_tpm};
use testkit::programs::run;
use testkit::raw::Code;
use testkit::tpm::Swtpm;
use testkit::wrapping::{keys, openssl_wraps, private_key_info, rsa_aes, wanted};

once!(
    every_use_of_a_private_key,
    nothing_is_written_unless_somebody_asks,
    a_label_forges_nothing,
    syslog_where_there_is_no_journal,
    a_full_socket_blocks_nobody,
    no_socket,
    a_busy_key_is_counted,
    a_child_has_its_own_lines,
    more_rights_than_the_caller,
);

fn every_use_of_a_private_key() {
    if !inside() {
        return;
    }
    ask_for_audit("");
    let journal = Receiver::new(JOURNAL);
    let bench = Bench::new(Link::Ours);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let (_, signing) = own.pair("signing");
    let (decrypting_public, decrypting) = own.decrypting(&[(CKA_LABEL, b"decrypting".into())]);
    let (_, agreeing) = own.agreeing(&P256, &[(CKA_LABEL, b"agreeing".into())]);
    let (unwrapping_public, unwrapping) = own.unwrapping(&[(CKA_LABEL, b"unwrapping".into())]);
    assert_eq!(journal.lines(), [], "to make a key is not to use it");

    let data = [0xA5; 32];
    let signature = own.sign(CKM_ECDSA, signing, &data).unwrap();
    let (pid, uid) = (std::process::id().to_string(), "0");
    let program = std::env::current_exe().unwrap();
    let line = journal.line();
    tells(
        &line,
        &[
            ("DEVID_EVENT", "key-use"),
            ("DEVID_MECHANISM", "CKM_ECDSA"),
            ("DEVID_TOKEN", "devid"),
            ("DEVID_LABEL", "signing"),
            ("DEVID_RESULT", "ok"),
            ("DEVID_UID", uid),
            ("DEVID_PID", &pid),
            ("DEVID_PROGRAM", program.to_str().unwrap()),
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "devid-pkcs11"),
            ("SYSLOG_FACILITY", "10"),
        ],
    );
    // The TPM's name: the number of SHA-256, and a digest.
    let name = &line["DEVID_KEY_NAME"];
    assert!(name.starts_with("000b") && name.len() == 68, "{name}");
    assert_eq!(line["DEVID_KEY_ID"].len(), 40);
    holds_no_data(&line, &[&data, &signature]);

    // In parts; a length query is no use.
    own.raw
        .sign_init(own.session, CKM_ECDSA_SHA256, signing)
        .unwrap();
    own.raw.sign_update(own.session, &data).unwrap();
    let (code, _) = own.raw.sign_final_into(own.session, None);
    assert_eq!(code, Code(CKR_OK));
    assert_eq!(journal.lines(), []);
    own.raw.sign_final(own.session).unwrap();
    let line = journal.line();
    tells(&line, &[("DEVID_MECHANISM", "CKM_ECDSA_SHA256")]);
    holds_no_data(&line, &[&data, &digest("-sha256", &data)]);

    let pem = own.pem(home, decrypting_public);
    let hidden = openssl_encrypts(home, &pem, &[], b"a secret message");
    own.decrypt(pkcs1(), decrypting, &hidden).unwrap();
    let line = journal.line();
    let fields = [
        ("DEVID_MECHANISM", "CKM_RSA_PKCS"),
        ("DEVID_LABEL", "decrypting"),
    ];
    tells(&line, &fields);
    holds_no_data(&line, &[b"a secret message", &hidden]);
    let wrong = own.decrypt(pkcs1(), decrypting, &[0; 256]);
    assert_eq!(wrong, Err(Code(CKR_ENCRYPTED_DATA_INVALID)));
    let line = journal.line();
    tells(&line, &[("DEVID_LABEL", "decrypting"), ("PRIORITY", "5")]);
    assert!(line["DEVID_RESULT"].starts_with("0x00000040"), "{line:#?}");

    let (_, point) = bench.peer("P-256", 32);
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    own.derive(by, agreeing, &readable()).unwrap();
    let fields = [
        ("DEVID_MECHANISM", "CKM_ECDH1_DERIVE"),
        ("DEVID_LABEL", "agreeing"),
    ];
    tells(&journal.line(), &fields);

    let info = private_key_info(home, "rsa");
    let pem = own.pem(home, unwrapping_public);
    let wrapped = openssl_wraps(home, &pem, (256, "sha256"), &info);
    let inner = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &inner);
    let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    let made = own.unwrap(by, unwrapping, &wrapped, &wanted(CKK_RSA, &[]));
    let made = made.unwrap();
    let fields = [
        ("DEVID_MECHANISM", "CKM_RSA_AES_KEY_WRAP"),
        ("DEVID_LABEL", "unwrapping"),
    ];
    let line = journal.line();
    tells(&line, &fields);
    holds_no_data(&line, &[&info]);
    // The key that came wrapped is one of the session.
    own.sign(CKM_SHA256_RSA_PKCS, made, b"data").unwrap();
    tells(
        &journal.line(),
        &[("DEVID_MECHANISM", "CKM_SHA256_RSA_PKCS")],
    );

    own.raw.finalize().unwrap();
    assert_eq!(journal.lines(), []);
}

/// No sixteen bytes of these stand in a line, as they are or in hexadecimal digits.
#[track_caller]
fn holds_no_data(line: &Fields, secrets: &[&[u8]]) {
    let all = format!("{line:?}");
    for part in secrets.iter().flat_map(|secret| secret.chunks_exact(16)) {
        let digits: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!all.to_lowercase().contains(&digits), "{all}");
        let text = String::from_utf8_lossy(part);
        assert!(!all.contains(&*text), "{all}");
    }
}

fn nothing_is_written_unless_somebody_asks() {
    if !inside() {
        return;
    }
    let journal = Receiver::new(JOURNAL);
    let syslog = Receiver::new(SYSLOG);
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (_, key) = own.pair("key");
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    own.raw.finalize().unwrap();
    assert_eq!((journal.lines(), syslog.lines()), (vec![], vec![]));
    // The file that a variable names may ask for it, too.
    let path = home.path("config.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{settings}[log]\naudit = true\n")).unwrap();
    let own = Own::on(&home, "files");
    let key = own.key_called("key");
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    tells(&journal.line(), &[("DEVID_TOKEN", "files")]);
    own.raw.finalize().unwrap();
    // The file cannot switch off a setting of the administrator, even if the administrator's file
    // is invalid.
    fs::write(&path, format!("{settings}[log]\naudit = false\n")).unwrap();
    for administrator in ["[log]\naudit = true\n", "[log]\naudit = yes\n", "["] {
        fs::write("/etc/devid-pkcs11/config.toml", administrator).unwrap();
        let own = Own::on(&home, "files");
        own.sign(CKM_ECDSA, own.key_called("key"), &[1; 32])
            .unwrap();
        assert_eq!(journal.lines().len(), 1, "{administrator:?}");
        own.raw.finalize().unwrap();
    }
    fs::write("/etc/devid-pkcs11/config.toml", "").unwrap();
    let own = Own::on(&home, "files");
    own.sign(CKM_ECDSA, own.key_called("key"), &[1; 32])
        .unwrap();
    own.raw.finalize().unwrap();
    assert_eq!(journal.lines(), []);
}

/// A home with a key `label` in a file, and the module in this process.
fn with_key(label: &str) -> (Home, Own, CK_OBJECT_HANDLE) {
    ask_for_audit("");
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (_, key) = own.pair(label);
    (home, own, key)
}

fn a_label_forges_nothing() {
    if !inside() {
        return;
    }
    let forged = "x\" result=\"ok\"\nDEVID_UID=4711\nDEVID_RESULT=ok\r\n\u{2028}<0>y\u{1b}[2J";
    let (_home, own, key) = with_key(forged);
    let long = "l".repeat(60_000);
    let (_, long_key) = own.pair(&long);
    let journal = Receiver::new(JOURNAL);
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    let line = journal.line();
    tells(&line, &[("DEVID_UID", "0"), ("DEVID_RESULT", "ok")]);
    let label = &line["DEVID_LABEL"];
    assert!(label.contains(r"\nDEVID_UID=4711\n"), "{label}");
    assert!(
        !label.contains(|one: char| one.is_control() || one == '\u{2028}'),
        "{label}"
    );
    let message = &line["MESSAGE"];
    assert_eq!(message.matches(" uid=\"").count(), 1, "{message}");
    assert!(message.contains(r#"label="x\" result=\"ok\""#), "{message}");
    own.sign(CKM_ECDSA, long_key, &[1; 32]).unwrap();
    let line = journal.line();
    assert!(line["DEVID_LABEL"].len() < 1000);
    drop(journal);
    let syslog = Receiver::new(SYSLOG);
    fs::remove_file(JOURNAL).unwrap();
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    let line = &syslog.line()["MESSAGE"];
    assert!(!line.contains(|one: char| one.is_control()), "{line}");
}

fn syslog_where_there_is_no_journal() {
    if !inside() {
        return;
    }
    let (_home, own, key) = with_key("key");
    let syslog = Receiver::new(SYSLOG);
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    let line = &syslog.line()["MESSAGE"];
    // LOG_AUTHPRIV and LOG_INFO.
    let begin = format!(
        "<86>devid-pkcs11[{}]: audit: event=\"key-use\"",
        std::process::id()
    );
    assert!(line.starts_with(&begin), "{line}");
    for field in [
        "mechanism=\"CKM_ECDSA\"",
        "token=\"files\"",
        "label=\"key\"",
        "result=\"ok\"",
        "uid=\"0\"",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    // The journal goes first as soon as it is there.
    let journal = Receiver::new(JOURNAL);
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    journal.line();
    assert_eq!(syslog.lines(), []);
}

fn a_full_socket_blocks_nobody() {
    if !inside() {
        return;
    }
    let (home, own, key) = with_key("key");
    let journal = Receiver::new(JOURNAL);
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"FULL=1\n", JOURNAL).is_ok() {}
    for _ in 0..3 {
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    }
    home.log_says(&["audit", "line was lost"]);
    assert_eq!(home.log().matches("a line was lost").count(), 1);
    assert!(journal.lines().iter().all(|line| line.contains_key("FULL")));
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    assert_eq!(number(&journal.line(), "DEVID_LOST"), 3);
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    assert_eq!(number(&journal.line(), "DEVID_LOST"), 0);
}

fn no_socket() {
    if !inside() {
        return;
    }
    let (home, own, key) = with_key("key");
    for _ in 0..3 {
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    }
    // A file, a listener of another kind and a dead socket take no line either.
    fs::write(SYSLOG, "").unwrap();
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    drop(Receiver::new(JOURNAL));
    own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    assert_eq!(fs::read(SYSLOG).unwrap(), b"");
    let journal = Receiver::new(JOURNAL);
    own.raw.finalize().unwrap();
    let line = journal.line();
    tells(&line, &[("DEVID_EVENT", "lost")]);
    assert_eq!(number(&line, "DEVID_LOST"), 5);
    // If there is still no reader at the end, the log has the number.
    drop(journal);
    let own = Own::on(&home, "files");
    own.sign(CKM_ECDSA, own.key_called("key"), &[1; 32])
        .unwrap();
    own.raw.finalize().unwrap();
    home.log_says(&["audit: 1 lines were lost"]);
}

fn a_busy_key_is_counted() {
    if !inside() {
        return;
    }
    const SIGNATURES: u64 = 300;
    let (_home, own, key) = with_key("busy");
    let (_, quiet) = own.pair("quiet");
    let journal = Receiver::new(JOURNAL);
    let (begin, mut lines) = (Instant::now(), Vec::new());
    for _ in 0..SIGNATURES {
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
        lines.extend(journal.lines());
    }
    let most = 20 + begin.elapsed().as_secs() + 1;
    assert!(
        (20..=most).contains(&(lines.len() as u64)),
        "{}",
        lines.len()
    );
    // Another key has its line all the same.
    own.sign(CKM_ECDSA, quiet, &[1; 32]).unwrap();
    tells(&journal.line(), &[("DEVID_LABEL", "quiet")]);
    own.raw.finalize().unwrap();
    let end = journal.lines();
    if let [end] = &end[..] {
        tells(end, &[("DEVID_EVENT", "limited"), ("DEVID_LABEL", "busy")]);
    }
    let limited = lines
        .iter()
        .chain(&end)
        .map(|line| number(line, "DEVID_LIMITED"));
    assert_eq!(lines.len() as u64 + limited.sum::<u64>(), SIGNATURES);
}

fn a_child_has_its_own_lines() {
    if !inside() {
        return;
    }
    let (_home, own, key) = with_key("key");
    // Two lines are lost, which is the parent's to tell.
    for _ in 0..2 {
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    }
    let journal = Receiver::new(JOURNAL);
    own.raw.sign_init(own.session, CKM_ECDSA, key).unwrap();
    let child = Forked::new(|| {
        // The operation of the parent goes on in both.
        own.raw.sign(own.session, &[1; 32]).unwrap();
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    });
    let id = child.id().to_string();
    child.succeeds();
    let lines = journal.lines();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        tells(line, &[("DEVID_PID", &id), ("DEVID_LABEL", "key")]);
        assert_eq!(number(line, "DEVID_LOST"), 0);
    }
    own.raw.sign(own.session, &[1; 32]).unwrap();
    let line = journal.line();
    tells(&line, &[("DEVID_PID", &std::process::id().to_string())]);
    assert_eq!(number(&line, "DEVID_LOST"), 2);
}

/// A setuid program obeys the administrator's file alone, and tells both users.
fn more_rights_than_the_caller() {
    const CALLER: u32 = 65534;
    const OWNER: u32 = 65533;
    // SAFETY: a plain system call.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root || !inside() {
        return;
    }
    let (tpm, _identity) = Swtpm::manufactured();
    ask_for_audit(&format!("tcti = {:?}\n", tpm.tcti()));
    let home = Home::new(&tpm.tcti());
    let module = home.path("module.so");
    fs::copy(library(), &module).unwrap();
    fs::set_permissions(home.folder(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = compiled(&home, "costs");
    chown(&program, Some(OWNER), None).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let journal = Receiver::new(JOURNAL);
    let mut command = Command::new(&program);
    command.arg(&module).arg("1");
    run(home.settle(&mut command).uid(CALLER).gid(CALLER)).ok();
    let (caller, owner) = (CALLER.to_string(), OWNER.to_string());
    tells(
        &journal.line(),
        &[
            ("DEVID_TOKEN", "idev-id"),
            ("DEVID_UID", &caller),
            ("DEVID_EUID", &owner),
            ("DEVID_PROGRAM", program.to_str().unwrap()),
            ("DEVID_RESULT", "ok"),
        ],
    );
}
