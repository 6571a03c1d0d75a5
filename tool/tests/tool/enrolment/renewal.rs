//! `devid renew` renews the certificates that the configuration names, before they end.

use super::est::{bench, is_whole};
use super::faults::FAULTS;
use crate::device::clock::in_1970;
use crate::device::est::Est;
use crate::device::{Device, programs};
use serde_json::Value;
use std::fs;

/// The configuration of `web`, with these further lines.
fn configure(device: &Device, est: &Est, kind: &str, fault: &str, more: &str) {
    let (url, root) = (est.url(kind, fault), est.certificate("root"));
    let text = format!(
        "[[certificate]]\nlabel = \"web\"\nest = \"{url}\"\ntrust = \"{root}\"\nsan = \"web.example\"\n{more}\n"
    );
    device.home.write("config.toml", text);
}

/// The answer of the verb for the only certificate.
#[track_caller]
fn renewed(device: &Device, code: i32, words: &[&str]) -> Value {
    let said = device.ends(code, &[&["renew", "--json"], words].concat());
    let all: Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].clone()
}

#[test]
fn a_certificate_comes_is_left_alone_and_is_renewed_in_time() {
    let (device, est) = bench();
    assert_eq!(device.ends(0, &["renew"]).text(), "", "nothing is named");
    configure(&device, &est, "good", "", "subject = \"CN=web,O=Example\"");
    assert_eq!(
        renewed(&device, 0, &[])["result"],
        "renewed",
        "the first one"
    );
    let first = is_whole(&device, &est, "web");
    assert!(first.contains("O = Example"), "{first}");
    let said = renewed(&device, 0, &[]);
    assert_eq!(
        (&said["result"], &said["need"]["need"]),
        (&"not-due".into(), &"later".into()),
        "{said}"
    );
    assert_eq!(is_whole(&device, &est, "web"), first);
    // 30 days, of which all are left.
    assert_eq!(
        renewed(&device, 0, &["--within", "20d"])["result"],
        "not-due"
    );
    assert_eq!(
        renewed(&device, 0, &["--within", "40d"])["result"],
        "renewed"
    );
    let second = is_whole(&device, &est, "web");
    assert_ne!(second, first);
    let names: Vec<String> = est.operations().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| *name == "simplereenroll")
            .count(),
        1,
        "{names:?}"
    );
    // By a fingerprint, too.
    let mut openssl = programs::program("openssl");
    let words = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let print = programs::run(openssl.args(words).arg(est.certificate("root")))
        .ok()
        .text();
    let print = print.trim().split_once('=').unwrap().1.to_owned();
    let text = fs::read_to_string(device.path("config.toml")).unwrap();
    let text = text.replace(&est.certificate("root"), &format!("sha256:{print}"));
    device.home.write("config.toml", text);
    assert_eq!(
        renewed(&device, 0, &["--within", "40d"])["result"],
        "renewed"
    );
    is_whole(&device, &est, "web");
    // And back.
    device.ends(0, &["renew", "web", "--rollback"]);
    device.ends(5, &["renew", "other"]);
    for wrong in ["x", "2/1", "0d"] {
        device.ends(2, &["renew", "--within", wrong]);
    }
}

/// An hour of its life is over, and half an hour is left.
#[test]
fn a_certificate_that_ends_soon_is_renewed_unasked() {
    let (device, est) = bench();
    configure(&device, &est, "good", "short-life", "within = \"1/2\"");
    renewed(&device, 0, &[]);
    let first = is_whole(&device, &est, "web");
    configure(&device, &est, "good", "", "within = \"1/2\"");
    let said = renewed(&device, 0, &[]);
    assert_eq!(
        (&said["result"], &said["need"]["need"]),
        (&"renewed".into(), &"due".into())
    );
    assert_ne!(is_whole(&device, &est, "web"), first);
    assert_eq!(renewed(&device, 0, &[])["result"], "not-due");
}

#[test]
fn a_failure_keeps_the_old_one_is_told_and_is_tried_later() {
    let (device, est) = bench();
    configure(&device, &est, "good", "", "");
    renewed(&device, 0, &[]);
    let first = is_whole(&device, &est, "web");
    let all = "within = \"40d\"";
    let limited = format!("{all}\nserver_timeout = \"2s\"");
    let faults = FAULTS.into_iter().filter(|one| one.0 != "unauthorized");
    let last = ("unauthorized", "401: who are you?");
    for (number, (fault, words)) in (1..).zip(faults.chain([last])) {
        let more = match fault {
            "silent" | "drip" => &limited,
            _ => all,
        };
        configure(&device, &est, "good", fault, more);
        // By name it is tried, whatever failed before.
        let said = renewed(&device, 1, &["web"]);
        assert_eq!(said["result"], "failed", "{said}");
        assert!(
            said["fault"].as_str().unwrap().contains(words),
            "{fault}: {said}"
        );
        assert_eq!(is_whole(&device, &est, "web"), first, "{fault}");
        let status = device.devid(&["status"]).text();
        let told = format!("web: failed, {number} in a row");
        assert!(number == 1 || status.contains(&told), "{fault}: {status}");
    }
    let status = device.devid(&["status"]).text();
    assert!(status.contains("401"), "{status}");
    assert!(status.contains("asks again in"), "{status}");
    let asked = est.requests().len();
    let said = renewed(&device, 0, &[]);
    assert_eq!(said["result"], "resting", "{said}");
    assert_eq!(est.requests().len(), asked, "the server is left alone");
    configure(&device, &est, "good", "", all);
    assert_eq!(renewed(&device, 0, &["web"])["result"], "renewed");
    assert_ne!(is_whole(&device, &est, "web"), first);
    assert!(!device.devid(&["status"]).text().contains("enrolment"));
}

/// Failures before a request are remembered like others. Otherwise a server that is down would be
/// asked each hour, and later certificates might never be renewed.
#[test]
fn a_server_that_cannot_be_reached_is_left_alone_too() {
    let (device, est) = bench();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("https://{}", free.local_addr().unwrap());
    drop(free);
    for (url, words) in [
        (est.url("alert", ""), "TLS"),
        (nobody, "refused"),
        (est.url("other-name", ""), "another name"),
        (est.url("plain", ""), "TLS"),
        (est.url("good", "no-cacerts"), "500"),
    ] {
        let root = est.certificate("root");
        let one = |label: &str, url: &str| {
            format!("[[certificate]]\nlabel = \"{label}\"\nest = \"{url}\"\ntrust = \"{root}\"\n")
        };
        let text = one("first", &url) + &one("second", &est.url("good", ""));
        device.home.write("config.toml", text);
        let said = device.ends(1, &["renew", "--json"]);
        let all: Value = serde_json::from_slice(&said.out).unwrap();
        assert_eq!(all[0]["result"], "failed", "{all}");
        assert!(all[0]["fault"].as_str().unwrap().contains(words), "{all}");
        // The other one has its turn.
        let others = ["renewed", "not-due"];
        assert!(
            others.contains(&all[1]["result"].as_str().unwrap()),
            "{all}"
        );
        is_whole(&device, &est, "second");
        let status = device.devid(&["status"]).text();
        assert!(status.contains("first: failed"), "{status}");
        let said = device.ends(0, &["renew", "--json"]);
        let all: Value = serde_json::from_slice(&said.out).unwrap();
        assert_eq!(all[0]["result"], "resting", "{all}");
        assert!(all[0]["fault"].as_str().unwrap().contains(words), "{all}");
    }
    // Another server than the one that failed is asked at once.
    let (root, url) = (est.certificate("root"), est.url("good", ""));
    let text = format!("[[certificate]]\nlabel = \"first\"\nest = \"{url}\"\ntrust = \"{root}\"\n");
    device.home.write("config.toml", text);
    assert_eq!(renewed(&device, 0, &[])["result"], "renewed");
    is_whole(&device, &est, "first");
    assert!(!device.devid(&["status"]).text().contains("first: failed"));
}

#[test]
fn a_server_that_asks_for_patience_is_asked_again_when_it_is_time() {
    let (device, est) = bench();
    configure(&device, &est, "good", "later-2", "");
    assert_eq!(renewed(&device, 0, &[])["result"], "pending");
    assert!(
        device
            .devid(&["status"])
            .text()
            .contains("has not decided yet")
    );
    assert_eq!(renewed(&device, 0, &[])["result"], "resting");
    assert_eq!(renewed(&device, 0, &["web"])["result"], "pending");
    assert_eq!(renewed(&device, 0, &["web"])["result"], "renewed");
    is_whole(&device, &est, "web");
}

#[test]
fn commands_follow_the_new_certificate_and_their_failure_changes_nothing() {
    let (device, est) = bench();
    let log = device.path("reloaded");
    let reload = format!(
        "reload = [\"echo $DEVID_LABEL >> {}\", \"exit 3\"]",
        log.display()
    );
    configure(&device, &est, "good", "", &reload);
    let said = renewed(&device, 1, &[]);
    assert_eq!(said["result"], "renewed");
    assert!(
        said["failed_commands"][0]
            .as_str()
            .unwrap()
            .contains("exit 3"),
        "{said}"
    );
    is_whole(&device, &est, "web");
    assert_eq!(fs::read_to_string(&log).unwrap(), "web\n");
    // Not again, since nothing is new.
    assert_eq!(renewed(&device, 0, &[])["result"], "not-due");
    assert_eq!(fs::read_to_string(&log).unwrap(), "web\n");
    configure(
        &device,
        &est,
        "good",
        "broken",
        &format!("within = \"40d\"\n{reload}"),
    );
    renewed(&device, 1, &[]);
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "web\n",
        "no new certificate, no command"
    );
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let (device, est) = bench();
    let (pids, log) = (device.path("pids"), device.path("reloaded"));
    let reload = format!(
        "reload = [\"echo $$ > {pids}; sleep 3600 & echo $! >> {pids}; wait\", \"echo next > {log}\"]\n\
         reload_limit = \"1s\"",
        pids = pids.display(),
        log = log.display()
    );
    configure(&device, &est, "good", "", &reload);
    let said = renewed(&device, 1, &[]);
    assert_eq!(said["result"], "renewed");
    let failed = said["failed_commands"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{said}");
    assert!(
        failed[0].as_str().unwrap().contains("ended after 1 s"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&log).unwrap(), "next\n");
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        let gone = programs::poll(std::time::Duration::from_secs(60), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        assert!(gone.is_some(), "{pid} lives");
    }
    is_whole(&device, &est, "web");
    assert_eq!(
        renewed(&device, 0, &[])["result"],
        "not-due",
        "it is done with"
    );
}

#[test]
fn a_new_certificate_opens_a_session_before_it_is_used() {
    let (device, est) = bench();
    let prove = |kind: &str| {
        let url = est.url(kind, "");
        let place = url
            .trim_start_matches("https://")
            .split('/')
            .next()
            .unwrap();
        format!("within = \"40d\"\nprove = \"{place}\"\nkey = \"new\"")
    };
    configure(&device, &est, "good", "", &prove("good"));
    assert_eq!(renewed(&device, 0, &[])["result"], "renewed");
    let first = is_whole(&device, &est, "web");
    for (kind, words) in [
        ("alert", "does not know the CA"),
        ("no-question", "asks for no certificate"),
        ("other-name", "another name"),
    ] {
        configure(&device, &est, "good", "", &prove(kind));
        let said = renewed(&device, 1, &["web"]);
        let fault = said["fault"].as_str().unwrap();
        assert!(
            fault.contains("did not pass the additional check") && fault.contains(words),
            "{said}"
        );
        assert_eq!(is_whole(&device, &est, "web"), first);
    }
    let before = device.ends(0, &["uri", "web"]).text();
    configure(&device, &est, "good", "", &prove("tls12"));
    let said = renewed(&device, 0, &["web"]);
    assert_eq!(said["outcome"]["enrolled"]["rekeyed"], true, "{said}");
    assert_ne!(is_whole(&device, &est, "web"), first);
    assert_eq!(device.ends(0, &["uri", "web"]).text(), before);
}

/// A device without battery asks the server, and takes nothing older than it has.
#[test]
fn with_a_wrong_clock_the_server_is_asked() {
    let (device, est) = bench();
    configure(&device, &est, "good", "", "");
    renewed(&device, 0, &[]);
    let first = is_whole(&device, &est, "web");
    let early = |words: &[&str]| {
        let mut command = device.command(words);
        programs::run(in_1970(&device.path(""), &mut command))
    };
    let said = early(&["renew", "web"]);
    assert!(said.status.success(), "{said}");
    assert!(said.text().contains("the clock is wrong"), "{said}");
    let second = is_whole(&device, &est, "web");
    assert_ne!(second, first);
    configure(&device, &est, "good", "older", "");
    let said = early(&["renew", "web"]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(said.err.contains("is older"), "{said}");
    assert_eq!(is_whole(&device, &est, "web"), second);
}

#[test]
fn what_the_configuration_says_wrongly_is_named() {
    let (device, est) = bench();
    let root = est.certificate("root");
    let whole = format!("label = \"web\"\nest = \"https://a\"\ntrust = \"{root}\"\n");
    for (text, words) in [
        ("label = \"web\"\nest = \"https://a\"\n".to_owned(), "trust"),
        (
            format!("est = \"https://a\"\ntrust = \"{root}\"\n"),
            "label",
        ),
        (format!("label = \"web\"\ntrust = \"{root}\"\n"), "est"),
        (whole.replace("https", "http"), "expected https://"),
        (whole.replace(&root, "sha256:abc"), "64 hexadecimal"),
        (format!("{whole}within = \"3/2\"\n"), "1/3"),
        (format!("{whole}key = \"old\"\n"), "\"same\" or \"new\""),
        (format!("{whole}user = \"x\"\n"), "given together"),
        (format!("{whole}san = [1]\n"), "text in quotes"),
        (format!("{whole}prove = \"host\"\n"), "HOST:PORT"),
        (format!("{whole}subjct = \"CN=x\"\n"), "subject"),
    ] {
        device
            .home
            .write("config.toml", format!("[[certificate]]\n{text}"));
        let said = device.ends(1, &["renew"]);
        assert!(
            said.err.contains(words) && said.err.contains("config.toml"),
            "{words}: {said}"
        );
    }
}
