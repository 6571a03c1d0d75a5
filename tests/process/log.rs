//! The log: a text of another program cannot forge a log line, and an error of the log does not end
//! the host.

use cryptoki_sys::CKR_GENERAL_ERROR;
use std::fs;
use std::path::Path;
use testkit::module::loaded;
use testkit::own::{Own, without_tpm};
use testkit::raw::Code;
use testkit::trouble::{ALL, Trouble};

once!(names_of_files_forge_no_line);
troubled!(a_log_line_that_panics);

const FORGED: &str = "2026-11-28T00:00:00Z devid-pkcs11[1] ERROR: ";
/// Each is the name of a file in a key folder.
const NAMES: [&str; 6] = [
    "a\n2026-11-28T00:00:00Z devid-pkcs11[1] ERROR: forged",
    "b\r2026-11-28T00:00:00Z devid-pkcs11[1] ERROR: forged",
    "c\u{1b}[2J\u{1b}]0;title\u{7}",
    "d\u{9b}31m",
    "e\u{202e}txt",
    "f\u{2028}g\u{7f}",
];

fn names_of_files_forge_no_line() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("pair");
    own.raw.finalize().unwrap();
    for name in NAMES {
        home.write(&format!("files/{name}"), "none");
        home.write(&format!("files/{name}.pem"), "none");
    }
    let own = Own::on(&home, "files");
    let log = fs::read(home.path("log")).unwrap();
    let log = String::from_utf8(log).expect("text");
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let time = line.get(..20).unwrap_or_default();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(!line.contains(['\u{202e}', '\u{2028}']), "{line:?}");
        assert!(!line.starts_with(FORGED), "{line:?}");
    }
    for begin in ["a", "b", "c", "d", "e", "f"] {
        let named = format!("files/{begin}");
        assert!(log.contains(&named), "{named}\n{log}");
    }
    own.raw.finalize().unwrap();
}

/// The clock fails: the line cannot be made.
fn a_log_line_that_panics() {
    let home = without_tpm();
    let raw = loaded(&home);
    let trouble = Trouble::new("clock", Path::new("/"), 0, ALL, libc::EPERM);
    assert_eq!(raw.initialize(), Err(Code(CKR_GENERAL_ERROR)));
    assert!(trouble.over() > 0);
    let _ = raw.finalize();
    raw.initialize().unwrap();
    Own::with(raw.clone(), "files").pair("pair");
    raw.finalize().unwrap();
}
