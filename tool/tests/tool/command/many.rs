//! Fifty services on one device: the output for a user, and the output for monitoring programs.

use crate::device::{Device, clock, evict, programs, proxy::Proxy, tpm::Swtpm};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use testkit::budgets::commands::STATUS;
use testkit::budgets::is_exactly;

const SERVICES: i64 = 50;
const DAY: i64 = 24 * 60 * 60;

/// A key in a file of the key folder, with a certificate for so many days.
fn service(device: &Device, label: &str, days: i64) {
    let path = device.path(&format!("state/devid/{label}.pem"));
    let certificate = device.path(&format!("state/devid/{label}-certificate.pem"));
    let mut openssl = programs::program("openssl");
    openssl.args(["req", "-x509", "-new", "-nodes", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-subj", &format!("/CN={label}"), "-days", &days.to_string()]);
    openssl
        .arg("-keyout")
        .arg(&path)
        .arg("-out")
        .arg(certificate);
    programs::run(&mut openssl).ok();
}

/// Fifty services, which end in one to fifty days, and an identity of the device's own.
fn fleet() -> (Device, Proxy) {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let mut device = Device::with(Some(tpm));
    device.home = device.home.with_tcti(&proxy.tcti());
    device.home.write(
        "config.toml",
        "[[token]]\nname = \"devid\"\nallow_file_keys = true\n",
    );
    device.ends(0, &["provision"]);
    for day in 1..=SERVICES {
        service(&device, &format!("web{day}"), day);
    }
    (device, proxy)
}

/// The output ten minutes after the certificates were made, so that one second does not change the
/// number of days.
fn later(device: &Device, words: &[&str]) -> programs::Said {
    let mut command = device.command(words);
    let then = seconds_now() + 600;
    programs::run(clock::at(then, device.home.folder(), &mut command))
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn json_at(device: &Device, seconds: i64, words: &[&str]) -> Value {
    let mut command = device.command(&[words, &["--json"]].concat());
    let said = programs::run(clock::at(seconds, device.home.folder(), &mut command));
    serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn states(check: &Value, state: &str) -> Vec<String> {
    let all = check["certificates"].as_array().unwrap().iter();
    all.filter(|one| one["state"] == state)
        .map(|one| one["label"].as_str().unwrap().to_owned())
        .collect()
}

/// The metrics of a file as Prometheus's own client library for Python reads them.
fn parsed(file: &Path) -> Value {
    let script = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
seen, found = set(), []
for family in families(open(sys.argv[1]).read()):
    assert family.documentation and family.type == 'gauge', family
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in seen, key
        seen.add(key)
        found.append({'name': sample.name, 'labels': sample.labels, 'value': sample.value})
json.dump(found, sys.stdout)
";
    let mut python = Command::new("/usr/bin/python3");
    let said = programs::run(python.args(["-c", script]).arg(file)).ok();
    serde_json::from_slice(&said.out).unwrap()
}

#[test]
fn fifty_services_stay_readable_and_cost_no_commands() {
    let (mut device, proxy) = fleet();
    proxy.book().take();
    let text = later(&device, &["status"]).ok().text();
    is_exactly("devid status", &proxy.book().take(), STATUS);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() < 65, "{text}");
    let at = |name: &str| {
        let found = lines.iter().position(|line| line.contains(name));
        found.unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert!(at(" devid: p256") < at("web1: "), "{text}");
    assert_eq!(at("web9: ") + 1, at("web10: "), "{text}");
    assert!(text.contains("web1: p256, less than a day left"), "{text}");
    assert!(text.contains("web2: p256, 1 day left"), "{text}");
    let listed = device.ends(0, &["list"]).text();
    let at = |label: &str| listed.find(&format!("\n{label}\n")).expect(label);
    assert!(
        at("devid") < at("web1") && at("web9") < at("web10"),
        "{listed}"
    );
    // Findings of one kind stand together, and the doctor repeats no remedy.
    let doctor = later(&device, &["doctor"]).text();
    assert!(
        doctor.contains("30 findings of this kind (certificate.ends-soon)"),
        "{doctor}"
    );
    assert_eq!(doctor.matches("devid csr").count(), 1, "{doctor}");
    assert!(doctor.contains("devid doctor --json"), "{doctor}");
    // The number of commands does not grow with the number of services.
    for day in 3..=SERVICES {
        for end in [".pem", "-certificate.pem"] {
            fs::remove_file(device.path(&format!("state/devid/web{day}{end}"))).unwrap();
        }
    }
    proxy.book().take();
    device.ends(0, &["status"]);
    is_exactly("devid status, two services", &proxy.book().take(), STATUS);
    // Whose key is lost is given no advice.
    device.ends(0, &["key", "generate", "lost"]);
    evict(&mut device, "0x81000080");
    let status = device.devid(&["status"]).text();
    assert!(status.contains("lost: p256, lost with"), "{status}");
}

#[test]
fn monitoring_reads_codes_documents_and_metrics() {
    let (device, _proxy) = fleet();
    let begun = seconds_now();
    let said = later(&device, &["status", "--check"]);
    assert_eq!(said.status.code(), Some(8), "{said}");
    assert!(said.text().contains("web1: less than a day left"), "{said}");
    let check = device.json(&["status", "--check", "--expiring", "14d"]);
    assert_eq!(states(&check, "expiring").len(), 14, "{check}");
    assert_eq!(
        states(&check, "valid").len(),
        37,
        "the device's own has no end"
    );
    assert_eq!(check["attention"], "soon");
    device.ends(0, &["status", "--check", "--expiring", "1s"]);
    device.ends(2, &["status", "--check", "--expiring", "soon"]);
    device.ends(2, &["status", "--expiring", "14d"]);
    // Later, and with a clock that stands before the certificates or before the build.
    let later = json_at(&device, begun + 20 * DAY + 600, &["status", "--check"]);
    assert_eq!(states(&later, "over").len(), 20, "{later}");
    assert_eq!(later["attention"], "now");
    let early = json_at(&device, begun - 600, &["status", "--check"]);
    if states(&early, "clock-wrong").is_empty() {
        assert_eq!(states(&early, "not-yet").len(), 50, "{early}");
    }
    let wrong = json_at(&device, 10, &["status", "--check"]);
    assert_eq!(states(&wrong, "clock-wrong").len(), 50, "{wrong}");
    assert_eq!(states(&wrong, "valid"), ["devid"]);
    // Metrics go into one file twice, and never over a foreign file.
    let file = device.path("devid.prom");
    let textfile = ["status", "--check", "--textfile", file.to_str().unwrap()];
    for _ in 0..2 {
        device.ends(8, &textfile);
        let metrics = parsed(&file);
        let named = |name: &str| {
            let all = metrics.as_array().unwrap().iter();
            all.filter(|one| one["name"] == name)
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            named("devid_certificate_not_after_timestamp_seconds").len(),
            51
        );
        assert_eq!(named("devid_certificate_state").len(), 51);
        assert_eq!(named("devid_tpm_up")[0]["value"], 1.0);
        assert_eq!(named("devid_findings")[0]["value"], 14.0);
        let ends = named("devid_certificate_not_after_timestamp_seconds");
        let of = |label: &str| {
            let found = ends.iter().find(|one| one["labels"]["label"] == label);
            found.expect(label)["value"].as_f64().unwrap()
        };
        assert_eq!(of("devid"), 253_402_300_799.0);
        let left = of("web50") - begun as f64;
        assert!((left - 50.0 * 86_400.0).abs() < 3600.0, "{left}");
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    fs::write(&file, "node_load1 1\n").unwrap();
    device.ends(6, &textfile);
    assert_eq!(fs::read_to_string(&file).unwrap(), "node_load1 1\n");
    let printed = device.ends(8, &["status", "--check", "--textfile", "-"]);
    assert!(printed.text().starts_with("# HELP devid_"), "{printed}");
}
