//! A token for each service. Its user sees and renews only its own key, and two services share no
//! data.

use crate::device::est::Est;
use crate::device::{Device, cut, programs};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use testkit::pages::block;

/// Users of every Debian system, each with a group of the same name and number.
pub(super) const SERVICES: [(&str, &str, u32); 2] =
    [("mail-relay", "mail", 8), ("news-feed", "news", 9)];

pub(super) fn bench() -> (Device, Est) {
    let (device, identity) = Device::manufactured();
    device.ends(0, &["provision"]);
    let est = Est::start(&device, &identity);
    fs::copy(env!("CARGO_BIN_EXE_devid"), device.path("devid")).unwrap();
    open_for_all(device.home.folder());
    (device, est)
}

/// Lets all enter and read, but for what a service owns.
pub(super) fn open_for_all(path: &Path) {
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(path, 0o755);
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true if name == "state" => mode(&path, 0o750),
            true => open_for_all(&path),
            false if name == "devid" => mode(&path, 0o755),
            false => mode(&path, 0o644),
        }
    }
    // The log is written by each of them.
    fs::write(path.join("log"), "").unwrap();
    mode(&path.join("log"), 0o666);
}

/// `devid` as the user of a service, without any right of root's.
pub(super) fn as_user(device: &Device, user: u32, words: &[&str]) -> programs::Said {
    let id = user.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
    command.arg(device.path("devid")).args(words);
    programs::run(device.home.settle(&mut command))
}

fn configure(device: &Device, est: &Est, more: &str) {
    let tables = SERVICES.map(|(service, ..)| {
        format!(
            "[[certificate]]\nlabel = \"{service}/{service}\"\nest = \"{}\"\ntrust = \"{}\"\n{more}\n",
            est.url("good", ""),
            est.certificate("root"),
        )
    });
    device.home.write("config.toml", tables.concat());
    fs::copy(est.certificate("root"), device.path("trust/est.pem")).unwrap();
}

fn shown(device: &Device, user: u32, words: &[&str]) -> Value {
    let said = as_user(device, user, &[words, &["--json"]].concat());
    serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn two_services_have_nothing_in_common() {
    let (device, est) = bench();
    configure(&device, &est, "");
    let mut seen = Vec::new();
    for (service, group, user) in SERVICES {
        device.ends(0, &["token", "add", service, "--group", group]);
        let folder = device.path(&format!("state-services/{service}"));
        let about = fs::metadata(&folder).unwrap();
        assert_eq!(
            (about.uid(), about.gid(), about.mode() & 0o7777),
            (user, user, 0o2750)
        );
        let drop_in = device.path(&format!("config.d/service-{service}.toml"));
        let about = fs::metadata(drop_in).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777), (0, 0o644));
        let root = est.certificate("root");
        let url = est.url("good", "");
        let enroll = ["enroll", "--for", service, "--est", &url, "--trust", &root];
        let said = as_user(&device, user, &enroll);
        assert_eq!(said.status.code(), Some(0), "{said}");
        let listed = shown(&device, user, &["list"]);
        let own: Vec<&Value> = listed["objects"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["token"] != "idev-id" && !one["key"].is_null())
            .collect();
        assert_eq!(own.len(), 1, "its key alone: {listed}");
        let name = format!("{service}/{service}");
        let certificate = own[0]["certificates"][0].clone();
        let csr = as_user(&device, user, &["csr", &name, "--subject", "CN=x"])
            .ok()
            .text();
        let serials = listed["tokens"].as_array().unwrap();
        let serial = serials.iter().find(|one| one["token"] == service).unwrap();
        seen.push((own[0].clone(), certificate, serial["serial"].clone(), csr));
    }
    let [
        (first, one, serial, csr),
        (second, other, other_serial, other_csr),
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_ne!(first["id"], second["id"]);
    assert_ne!(first["key"]["tpm_name"], second["key"]["tpm_name"]);
    assert_ne!(serial, other_serial);
    assert_ne!(csr, other_csr);
    // Field by field: what both certificates say alike is the CA's, or of each certificate of its kind.
    let fields: BTreeSet<&String> = one.as_object().unwrap().keys().collect();
    let alike: BTreeSet<&str> = fields
        .iter()
        .filter(|name| one[name.as_str()] == other[name.as_str()] && !one[name.as_str()].is_null())
        .map(|name| name.as_str())
        .collect();
    for name in ["subject", "certificate_serial", "sha256", "sha1", "place"] {
        assert!(
            !alike.contains(name) && fields.iter().any(|one| *one == name),
            "{name}: {one}"
        );
    }
    for (service, certificate) in [(&SERVICES[0], one), (&SERVICES[1], other)] {
        let text = certificate.to_string();
        for device_word in ["SN-000001", "Example-1000"] {
            assert!(!text.contains(device_word), "{}: {text}", service.0);
        }
    }
}

#[test]
fn the_user_of_a_service_renews_its_certificate_alone() {
    let (device, est) = bench();
    let ran = device.path("ran");
    configure(
        &device,
        &est,
        &format!("reload = \"touch {}\"\nkey = \"new\"\n", ran.display()),
    );
    for (service, group, _) in SERVICES {
        device.ends(0, &["token", "add", service, "--group", group]);
    }
    let (service, _, user) = SERVICES[0];
    for _ in 0..2 {
        let said = as_user(&device, user, &["renew", &format!("{service}/{service}")]);
        assert_eq!(said.status.code(), Some(0), "{said}");
    }
    let name = format!("{service}/{service}");
    let before = shown(&device, user, &["show", &name]);
    let due = as_user(&device, user, &["renew", "--within", "9999d"]);
    assert_eq!(due.status.code(), Some(0), "{due}");
    let after = shown(&device, user, &["show", &name]);
    assert_ne!(
        before["certificates"][0]["sha256"],
        after["certificates"][0]["sha256"]
    );
    assert!(!ran.exists(), "no commands of root's run as that user");
    let other = device.path(&format!("state-services/{}", SERVICES[1].0));
    assert_eq!(
        fs::read_dir(&other).unwrap().count(),
        0,
        "nor another's certificate"
    );
    // Root leaves these to their users.
    let renewed = device.json(&["renew", "--within", "9999d"]);
    assert_eq!(renewed, Value::Array(Vec::new()));
    // Objects of the other service cannot be reached.
    let said = as_user(&device, SERVICES[1].2, &["csr", &name]);
    assert_ne!(said.status.code(), Some(0), "{said}");
}

#[test]
fn a_token_is_made_whole_or_again_and_never_over_another() {
    let device = Device::blank();
    let (service, group, user) = SERVICES[0];
    let add = ["token", "add", service, "--group", group];
    // Killed at each step, and run again.
    for step in 1.. {
        let end = cut::run_until(&mut device.command(&add), step);
        let drop_in = device.path(&format!("config.d/service-{service}.toml"));
        let folder = device.path(&format!("state-services/{service}"));
        if drop_in.exists() {
            assert_eq!(fs::metadata(&folder).unwrap().uid(), user, "step {step}");
        }
        device.ends(0, &add);
        let again = device.json(&add);
        assert_eq!(again["changed"], false, "{again}");
        let tree = device.json(&["tree"]).to_string();
        assert!(tree.contains(service), "{tree}");
        device.ends(0, &["token", "remove", service]);
        assert!(!drop_in.exists() && !folder.exists(), "nothing was in it");
        if end != cut::End::Cut {
            break;
        }
    }
    for name in [
        "", "..", "../x", "a/b", "/etc", ".x", "-x", "devid", "idev-id", "software", "a\nb", "a b",
        "é",
    ] {
        let said = device.devid(&["token", "add", "--group", group, "--", name]);
        assert_eq!(said.status.code(), Some(2), "{name:?}: {said}");
    }
    assert!(!device.path("state-services/x").exists());
    for words in [
        &["token", "add", service, "--group", "no-such-group"][..],
        &[
            "token",
            "add",
            service,
            "--group",
            group,
            "--user",
            "no-such-user",
        ],
    ] {
        device.ends(6, words);
        assert!(!device.path(&format!("state-services/{service}")).exists());
    }
    device.ends(5, &["token", "remove", service]);
    // Another user's folder, and a link, are not given away; keys survive the removal.
    device.ends(0, &add);
    device.ends(6, &["token", "add", service, "--group", SERVICES[1].1]);
    device.ends(0, &["key", "generate", &format!("{service}/web")]);
    let said = device.ends(0, &["token", "remove", service]);
    assert!(said.text().contains("keys stay in"), "{said}");
    device.ends(0, &add);
    device.ends(0, &["show", &format!("{service}/web")]);
    std::os::unix::fs::symlink("/etc", device.path("state-services/link")).unwrap();
    let said = device.devid(&["token", "add", "link", "--group", group]);
    assert_ne!(said.status.code(), Some(0), "{said}");
    assert_eq!(fs::metadata("/etc").unwrap().uid(), 0);
    assert!(!device.path("config.d/service-link.toml").exists());
}

/// The commands of docs/ENROLMENT.md for a service's token: each line runs as root or as the service.
#[test]
fn the_commands_of_the_page() {
    let (device, est) = bench();
    let (_, _, user) = SERVICES[0];
    fs::copy(est.certificate("root"), device.path("est-ca.pem")).unwrap();
    let root = Permissions::from_mode(0o644);
    fs::set_permissions(device.path("est-ca.pem"), root).unwrap();
    let page = block("docs/ENROLMENT.md", "service-token");
    let page = page.replace(
        "https://est.example:8443/.well-known/est/mail",
        &est.url("good", ""),
    );
    let path = format!(
        "{}:{}",
        device.path("").display(),
        std::env::var("PATH").unwrap()
    );
    let (id, mut who, mut count) = (user.to_string(), "", 0);
    for line in page.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            who = comment.split(':').next().unwrap();
            continue;
        }
        let mut shell = programs::program("setpriv");
        if who == "service" {
            shell.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        shell
            .args(["--", "sh", "-ec", line])
            .current_dir(device.home.folder())
            .env("PATH", &path);
        let said = programs::run(device.home.settle(&mut shell)).ok();
        if line.starts_with("devid show") {
            assert!(said.text().contains("mail-relay"), "{said}");
        }
        count += 1;
    }
    assert_eq!(count, 4, "{page}");
    let kept = fs::read_dir(device.path("state-services/mail-relay")).unwrap();
    let is_key = |name: &str| name.starts_with("key-");
    let mut names = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| is_key(&name)), "the key stays");
}
