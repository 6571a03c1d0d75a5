//! Certificates become valid and expire while a program runs. At each search the valid certificates
//! come first, the newest before the others. Each keeps its handle.

use cryptoki_sys::*;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use testkit::devid::Bench;
use testkit::link::Link;
use testkit::module::{tool, ulong};
use testkit::own::{Own, without_tpm};
use testkit::programs::{output, program, run};
use testkit::trouble::stop_clock;

troubled!(a_running_program_sees_validities_begin_and_end);
once!(the_tool_takes_the_certificate_that_is_valid);

const HOUR: u64 = 3600;

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn date(second: u64) -> String {
    let second = format!("@{second}");
    let date = output("date", ["-u", "-d", &second, "+%Y%m%d%H%M%SZ"]);
    String::from_utf8(date).unwrap().trim().to_owned()
}

/// A CA, and the certificates that it issued for one request.
struct Authority<'a>(&'a Path);

impl Authority<'_> {
    fn new(folder: &Path) -> Authority<'_> {
        fs::create_dir_all(folder).unwrap();
        let settings = "[ca]\ndefault_ca = c\n[c]\ndatabase = index\nnew_certs_dir = .\n\
                        rand_serial = yes\ndefault_md = sha256\npolicy = p\npreserve = yes\n\
                        unique_subject = no\n[p]\nCN = optional\n";
        fs::write(folder.join("short.cnf"), settings).unwrap();
        fs::write(folder.join("index"), "").unwrap();
        let authority = Authority(folder);
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key \
             -out ca.pem -subj /CN=CA -days 3650",
        );
        authority
    }

    fn openssl(&self, words: &str) {
        let mut openssl = program("openssl");
        run(openssl.current_dir(self.0).args(words.split_whitespace())).ok();
    }

    /// PEM of a certificate for `request.csr` that is valid from one second to another.
    fn certified(&self, from: u64, until: u64) -> Vec<u8> {
        let (from, until) = (date(from), date(until));
        self.openssl(&format!(
            "ca -batch -notext -config short.cnf -cert ca.pem -keyfile ca.key -out one.pem \
             -in request.csr -startdate {from} -enddate {until}"
        ));
        fs::read(self.0.join("one.pem")).unwrap()
    }
}

fn order(own: &Own) -> Vec<(String, CK_OBJECT_HANDLE)> {
    let found = own.find(&[(CKA_CLASS, ulong(CKO_CERTIFICATE))]);
    let label = |object: CK_OBJECT_HANDLE| {
        let label = own.attribute(object, CKA_LABEL);
        (String::from_utf8(label).unwrap(), object)
    };
    found.into_iter().map(label).collect()
}

fn a_running_program_sees_validities_begin_and_end() {
    let home = without_tpm();
    let folder = home.path("authority");
    let authority = Authority::new(&folder);
    authority.openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out request.csr \
         -subj /CN=device",
    );
    // The middle of a day: days tell nothing.
    let noon = now() / (24 * HOUR) * 24 * HOUR + 12 * HOUR;
    let endless = 253_402_300_799;
    let own = Own::on(&home, "files");
    own.pair("key");
    for (name, from, until) in [
        ("over", noon - HOUR, noon - 60),
        ("good", noon - 3 * HOUR, noon + 600),
        ("longer", noon - 3 * HOUR, noon + 900),
        ("soon", noon + 300, endless),
        ("old", noon - 5 * HOUR, noon - 4 * HOUR),
    ] {
        home.write(
            &format!("files/{name}.pem"),
            authority.certified(from, until),
        );
    }
    let mut handles: Option<Vec<_>> = None;
    for (what, second, expected) in [
        ("now", noon, "longer good soon over old"),
        ("its last second", noon - 60, "over longer good soon old"),
        (
            "the second after that",
            noon - 59,
            "longer good soon over old",
        ),
        ("before it begins", noon + 299, "longer good soon over old"),
        ("as it begins", noon + 300, "soon longer good over old"),
        (
            "the last second of another",
            noon + 600,
            "soon longer good over old",
        ),
        ("after that", noon + 601, "soon longer over good old"),
        (
            "when all others are over",
            noon + 901,
            "soon over longer good old",
        ),
        ("as the clock goes back", noon, "longer good soon over old"),
        ("a clock that was never set", 0, "soon over longer good old"),
        (
            "the last second of all",
            endless,
            "soon over longer good old",
        ),
    ] {
        stop_clock(Some(second));
        let found = order(&own);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{what}");
        let mut sorted = found.clone();
        sorted.sort();
        let known = handles.get_or_insert_with(|| sorted.clone());
        assert_eq!(*known, sorted, "{what}: the same handles");
    }
    stop_clock(None);
}

fn the_tool_takes_the_certificate_that_is_valid() {
    let bench = Bench::new(Link::Ours);
    let devid = |words: &[&str]| {
        let mut command = Command::new(tool());
        run(bench.home.settle(command.args(words))).ok().text()
    };
    devid(&["key", "generate", "web"]);
    let folder = bench.home.path("authority");
    let authority = Authority::new(&folder);
    let request = folder.join("request.csr");
    devid(&["csr", "web", "--out", request.to_str().unwrap()]);
    let now = now();
    let good = authority.certified(now - 2 * HOUR, now + 2 * HOUR);
    for round in 0..4 {
        // Names in either order.
        let (first, second) = if round % 2 == 0 {
            ("a", "b")
        } else {
            ("b", "a")
        };
        let over = authority.certified(now - HOUR, now - 1);
        bench.home.write(&format!("state/devid/{first}.pem"), over);
        bench
            .home
            .write(&format!("state/devid/{second}.pem"), &good);
        let shown = devid(&["show", "web"]);
        let first = shown.lines().find(|line| line.contains("valid from"));
        let from = date(now - 2 * HOUR);
        let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
        assert_eq!(digits(first.unwrap()), digits(&from), "{shown}");
    }
}
