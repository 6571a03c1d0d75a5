//! Audit lines of `devid`: changes are always recorded, and uses of keys are recorded if the
//! settings ask for that.

use crate::device::Device;
use std::fs;
use testkit::journal::{Fields, JOURNAL, Receiver, SYSLOG, ask_for_audit, inside, tells};

testkit::once!(
    each_change_has_its_line,
    uses_on_request,
    each_renewed_certificate_has_its_line,
    a_line_that_nobody_takes
);

/// The only line, which is about this verb.
#[track_caller]
fn line(journal: &Receiver, verb: &str, result: &str) -> Fields {
    let line = journal.line();
    let fields = [
        ("DEVID_EVENT", "change"),
        ("DEVID_VERB", verb),
        ("DEVID_RESULT", result),
        ("DEVID_UID", "0"),
        ("DEVID_PROGRAM", env!("CARGO_BIN_EXE_devid")),
    ];
    tells(&line, &fields);
    line
}

fn each_change_has_its_line() {
    if !inside() {
        return;
    }
    let journal = Receiver::new(JOURNAL);
    let device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    let made = line(&journal, "key generate", "ok");
    tells(&made, &[("DEVID_TOKEN", "devid"), ("DEVID_LABEL", "web")]);
    let name = made["DEVID_KEY_NAME"].clone();
    // Verbs that only read write no audit line.
    for reads in [
        &["status"][..],
        &["list"],
        &["show", "web"],
        &["doctor"],
        &["key", "list"],
    ] {
        device.devid(reads);
        assert_eq!(journal.lines(), [], "{reads:?}");
    }
    // Refused, failed, and done.
    device.ends(6, &["key", "delete", "web"]);
    tells(
        &line(&journal, "key delete", "refused"),
        &[("DEVID_LABEL", "web")],
    );
    device.ends(5, &["key", "delete", "--yes", "x\nDEVID_RESULT=ok"]);
    let forged = line(&journal, "key delete", "not-found");
    tells(&forged, &[("DEVID_LABEL", r"x\nDEVID_RESULT=ok")]);
    device.ends(0, &["key", "delete", "--yes", "web"]);
    tells(
        &line(&journal, "key delete", "ok"),
        &[("DEVID_KEY_NAME", &name)],
    );

    device.ends(0, &["provision"]);
    tells(
        &line(&journal, "provision", "ok"),
        &[("DEVID_LABEL", "devid")],
    );
    // Each start runs it, and nothing is left to be done.
    device.ends(0, &["provision"]);
    assert_eq!(journal.lines(), []);

    let request = device.path("devid.csr");
    device.ends(0, &["csr", "devid", "--out", request.to_str().unwrap()]);
    assert_eq!(journal.lines(), [], "a use, which nobody asked to be told");
    let certificate = device.certified(&request, &device.path(""));
    let certificate = certificate.to_str().unwrap();
    device.ends(0, &["import-cert", certificate]);
    let taken = line(&journal, "import-cert", "ok");
    tells(
        &taken,
        &[("DEVID_LABEL", "devid"), ("DEVID_TOKEN", "devid")],
    );
    device.ends(0, &["import-cert", certificate]);
    assert_eq!(journal.lines(), [], "it was there already");
    device.ends(6, &["reset", "--factory"]);
    line(&journal, "reset", "refused");
    device.ends(0, &["reset", "--factory", "--yes"]);
    line(&journal, "reset", "ok");
    // A variable turns nothing off.
    let mut quiet = device.command(&["key", "generate", "other"]);
    quiet.env("DEVID_PKCS11_LOG", "off");
    testkit::programs::run(&mut quiet).ok();
    line(&journal, "key generate", "ok");
}

fn each_renewed_certificate_has_its_line() {
    if !inside() {
        return;
    }
    let journal = Receiver::new(JOURNAL);
    let (device, est) = crate::enrolment::est::bench();
    let root = est.certificate("root");
    let one = |label: &str, fault: &str| {
        let url = est.url("good", fault);
        format!("[[certificate]]\nlabel = \"{label}\"\nest = \"{url}\"\ntrust = \"{root}\"\n")
    };
    let all = [
        one("a", ""),
        one("b", "broken"),
        one("c", "later-9"),
        one("d", ""),
    ];
    device.home.write("config.toml", all.concat());
    device.ends(1, &["renew"]);
    let written = journal.lines();
    let expected = [("a", "ok"), ("b", "failed"), ("c", "pending"), ("d", "ok")];
    assert_eq!(written.len(), expected.len(), "{written:?}");
    for (line, (label, result)) in written.iter().zip(expected) {
        let fields = [
            ("DEVID_VERB", "renew"),
            ("DEVID_TOKEN", "devid"),
            ("DEVID_LABEL", label),
            ("DEVID_RESULT", result),
        ];
        tells(line, &fields);
    }
    // No renewal is due, or the last try is too recent.
    device.ends(0, &["renew"]);
    assert_eq!(journal.lines(), []);
    device.ends(1, &["renew", "b"]);
    tells(&line(&journal, "renew", "failed"), &[("DEVID_LABEL", "b")]);
}

fn uses_on_request() {
    if !inside() {
        return;
    }
    ask_for_audit("");
    let syslog = Receiver::new(SYSLOG);
    let device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    let made = &syslog.line()["MESSAGE"];
    // LOG_AUTHPRIV and LOG_NOTICE.
    assert!(made.starts_with("<85>devid-pkcs11["), "{made}");
    assert!(made.contains("verb=\"key generate\""), "{made}");
    let file = device.home.write("data", "to be signed");
    for uses in [
        &["csr", "web"][..],
        &["sign", "web", file.to_str().unwrap(), "--raw"],
    ] {
        device.ends(0, uses);
        let line = &syslog.line()["MESSAGE"];
        let verb = format!("verb=\"{}\"", uses[0]);
        for field in [&verb, "label=\"web\"", "token=\"devid\"", "key_name=\"000b"] {
            assert!(line.contains(field), "{field} in {line}");
        }
    }
}

fn a_line_that_nobody_takes() {
    if !inside() {
        return;
    }
    let device = Device::blank();
    let said = device.ends(0, &["key", "generate", "web"]);
    assert!(!said.err.contains("audit"), "{said}");
    ask_for_audit("");
    let said = device.ends(0, &["key", "generate", "mail"]);
    assert!(said.err.contains("the audit line was lost"), "{said}");
    fs::write(SYSLOG, "").unwrap();
    device.ends(0, &["key", "delete", "--yes", "mail"]);
    assert_eq!(fs::read(SYSLOG).unwrap(), b"");
}
