//! An identity is verified only if its key signed. Otherwise the reason is reported.

use crate::device::clock::in_1970;
use crate::device::factory::Identity;
use crate::device::programs::{Said, program, run};
use crate::device::tpm::Swtpm;
use crate::device::{Device, programs};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const PROVISION: &[&str] = &["provision", "--wait", "0"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The outcome of a point.
fn outcome(report: &Value, name: &str) -> String {
    let points = report["points"].as_array().unwrap();
    let point = points.iter().find(|one| one["name"] == name);
    point.unwrap()["outcome"].as_str().unwrap().to_owned()
}

/// All else is well, and the CA is known.
fn verify(device: &Device, label: &str, identity: &Identity, more: &[&str]) -> Said {
    let ca = identity.ca();
    let words = ["verify", label, "--ca", text(&ca)];
    device.devid(&[&words[..], more].concat())
}

#[track_caller]
fn is_not_proven(device: &Device, label: &str, identity: &Identity, why: &str) {
    let said = verify(device, label, identity, &[]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(said.err.contains("the key was not proven"), "{said}");
    assert!(said.err.contains(why), "{said}");
    assert!(!said.text().contains("verified"), "{said}");
    let report: Value =
        serde_json::from_slice(&verify(device, label, identity, &["--json"]).out).unwrap();
    assert_eq!(report["verdict"], "not-proven", "{report}");
    assert_eq!(outcome(&report, "key"), "skipped");
    assert_eq!(outcome(&report, "chain"), "passed");
}

#[test]
fn a_key_that_asks_for_a_pin_is_not_verified_until_it_signed() {
    let (tpm, identity) = Swtpm::manufactured_with(&["--auth", "geheim"]);
    let mut device = Device::with(Some(tpm));
    let setting = |auth: &str| format!("[[identity]]\nhandle = 0x81020000\nauth = {auth:?}\n");
    device.home.write("config.toml", setting("pin"));
    is_not_proven(&device, "idev-id", &identity, "--pin-file FILE");
    assert_eq!(device.tpm().lockout_counter(), 0, "nothing was tried");

    let (right, wrong) = (
        device.home.write("right", "geheim\n"),
        device.home.write("wrong", "falsch\n"),
    );
    let said = verify(&device, "idev-id", &identity, &["--pin-file", text(&wrong)]);
    assert_eq!(said.status.code(), Some(1), "{said}");
    assert!(said.err.contains("wrong PIN"), "{said}");
    assert_eq!(device.tpm().lockout_counter(), 1);
    let said = verify(&device, "idev-id", &identity, &["--pin-file", text(&right)]).ok();
    assert!(said.text().contains("it signed random bytes"), "{said}");
    let missing = verify(
        &device,
        "idev-id",
        &identity,
        &["--pin-file", "/nonexistent"],
    );
    assert!(missing.err.contains("/nonexistent"), "{missing}");
    assert_eq!(missing.status.code(), Some(1));

    let named = setting(&format!("file:{}", right.display()));
    device.home.write("config.toml", named);
    verify(&device, "idev-id", &identity, &[]).ok();
}

#[test]
fn an_attestation_key_proves_nothing_by_a_signature() {
    let runs = [vec![], vec!["--iak".to_owned()]];
    let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
    let device = Device::with(Some(tpm));
    verify(&device, "idev-id", &identities[0], &[]).ok();
    is_not_proven(&device, "iak", &identities[1], "an attestation key");
}

#[test]
fn a_key_of_an_unknown_kind_is_not_proven() {
    let (device, identity) = Device::manufactured();
    let (key, request) = (device.path("other.key"), device.path("other.csr"));
    let mut openssl = program("openssl");
    openssl.args([
        "req", "-new", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x",
    ]);
    run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&request)).ok();
    let ca = identity.ca();
    let leaf = device.certified(&request, ca.parent().unwrap());
    device.home.write(
        "config.toml",
        format!("[[identity]]\ncertificate = {leaf:?}\n"),
    );
    is_not_proven(&device, "idev-id-other", &identity, "not supported");
}

/// A device without battery starts in 1970: it must not refuse its own identity, nor claim more
/// than it saw.
#[test]
fn with_a_clock_before_the_build_nobody_is_out_of_date() {
    let (device, identity) = Device::manufactured();
    let early = |words: &[&str]| {
        let mut command = device.command(words);
        run(in_1970(device.home.folder(), &mut command))
    };
    let ca = identity.ca();
    let said = early(&["verify", "idev-id", "--ca", text(&ca)]).ok();
    assert!(said.text().contains("skipped  validity"), "{said}");
    let summary = said.text();
    let summary = summary.lines().last().unwrap();
    assert!(
        summary.starts_with("idev-id: verified, but its validity"),
        "{said}"
    );
    assert!(summary.contains("the clock is before"), "{said}");
    let report = early(&["verify", "idev-id", "--ca", text(&ca), "--json"]);
    let report: Value = serde_json::from_slice(&report.out).unwrap();
    assert_eq!(report["validity_checked"], false);
    assert_ne!(report["summary"], "idev-id: verified");
    assert_eq!(outcome(&report, "validity"), "skipped");

    // A certificate that is made then is valid now.
    early(PROVISION).ok();
    let report = device.json(&["verify", "devid"]);
    assert_eq!(outcome(&report, "validity"), "passed", "{report}");
    assert_eq!(report["validity_checked"], true);

    // An end that is near is not "without end", and nobody counts days from 1970.
    let request = device.path("devid.csr");
    device.ends(0, &["csr", "devid", "--out", text(&request)]);
    let end = ["--until", &in_days(10)];
    let leaf = device.certified_with(&end, &request, ca.parent().unwrap());
    device.ends(0, &["import-cert", text(&leaf)]);
    let expiry = |said: &Said| {
        let status: Value = serde_json::from_slice(&said.out).unwrap();
        let roles = status["roles"].as_array().unwrap().clone();
        let of =
            |role: &str| roles.iter().find(|one| one["role"] == role).unwrap()["expiry"].clone();
        (of("own"), of("factory"))
    };
    let (own, factory) = expiry(&device.ends(0, &["status", "--json"]));
    assert_eq!(own["ends"], "at");
    assert_eq!(own["days_left"], 10);
    assert_eq!(factory["ends"], "never");
    let (own, factory) = expiry(&early(&["status", "--json"]).ok());
    assert_eq!(own["ends"], "clock-wrong");
    assert!(own["not_after"].as_str().unwrap().starts_with("20"));
    assert_eq!(factory["ends"], "never");
    let words = early(&["status"]).ok().text();
    assert!(words.contains("the clock is wrong"), "{words}");
}

/// The time after this number of days, in the format of `scripts/authority`.
fn in_days(days: u32) -> String {
    let mut date = std::process::Command::new("date");
    date.args(["-u", "-d", &format!("{days} days 1 hour"), "+%Y%m%d%H%M%SZ"]);
    run(&mut date).ok().text().trim().to_owned()
}

#[test]
fn a_certificate_that_is_over_is_not_taken() {
    let (device, identity) = Device::manufactured();
    device.ends(0, PROVISION);
    let request = device.path("devid.csr");
    device.ends(0, &["csr", "devid", "--out", text(&request)]);
    let (ca, before) = (identity.ca(), device.json(&["show", "devid"]));
    let end = ["--until", "20250101000000Z"];
    let leaf = device.certified_with(&end, &request, ca.parent().unwrap());
    let said = device.ends(6, &["import-cert", text(&leaf)]);
    assert!(said.err.contains("was valid until"), "{said}");
    assert_eq!(device.json(&["show", "devid"]), before);
}

#[test]
fn a_software_key_signs_too() {
    let device = Device::without_tpm();
    device
        .home
        .write("config.toml", "[provision]\nfallback = \"software\"\n");
    device.ends(0, PROVISION);
    let said = device.ends(3, &["verify", "devid"]);
    assert!(said.err.contains("it is self-signed"), "{said}");
    assert!(said.err.contains("devid csr devid"), "{said}");
    let own = device.path("state/software/devid.cert.pem");
    let said = device.ends(0, &["verify", "devid", "--ca", text(&own)]);
    assert!(
        said.text().contains("note     key: it signed random bytes"),
        "{said}"
    );
}

/// A key and a certificate of a CA, in files that the configuration names.
struct InFiles {
    device: Device,
    key: PathBuf,
    request: PathBuf,
    folder: PathBuf,
}

impl InFiles {
    fn new() -> Self {
        let device = Device::blank();
        let folder = device.path("authority");
        fs::create_dir(&folder).unwrap();
        let (key, request) = (device.path("cloud.key"), device.path("cloud.csr"));
        new_key(&key, &request);
        Self {
            device,
            key,
            request,
            folder,
        }
    }

    /// With the certificate that the CA gives with these options.
    fn certified(&self, options: &[&str]) {
        let leaf = self
            .device
            .certified_with(options, &self.request, &self.folder);
        let ca = self.folder.join("ca.pem");
        let whole = fs::read_to_string(&leaf).unwrap() + &fs::read_to_string(ca).unwrap();
        fs::write(&leaf, whole).unwrap();
        self.device.trust(&self.folder.join("root.pem"));
        let key = &self.key;
        self.device.home.write(
            "config.toml",
            format!("[provision]\nexisting = {{ certificate = {leaf:?}, key = {key:?} }}\n"),
        );
    }
}

fn new_key(key: &Path, request: &Path) {
    let mut openssl = program("openssl");
    openssl.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-nodes",
        "-subj",
        "/CN=cloud",
    ]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout"]);
    run(openssl.arg(key).arg("-out").arg(request)).ok();
}

#[test]
fn an_identity_in_files_is_shown_and_proven_like_any_other() {
    let cloud = InFiles::new();
    cloud.certified(&[]);
    let device = &cloud.device;
    device.ends(0, PROVISION);
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "software");
    let role = &status["roles"][0];
    assert_eq!(role["role"], "existing", "{status}");
    assert!(role["key"].as_str().unwrap().contains("cloud.key"));
    assert!(device.ends(0, &["list"]).text().contains("existing"));
    let shown = device.ends(0, &["show", "existing"]).text();
    assert!(shown.contains("device serial SN-7"), "{shown}");
    let said = device.ends(0, &["verify", "existing"]);
    assert!(
        said.text().contains("note     key: it signed random bytes"),
        "{said}"
    );

    // Another key in its place.
    new_key(&cloud.key, &device.path("other.csr"));
    let said = device.ends(1, &["verify", "existing"]);
    assert!(said.err.contains("do not belong together"), "{said}");
    device.ends(6, PROVISION);
    fs::remove_file(&cloud.key).unwrap();
    device.ends(1, &["verify", "existing"]);
}

#[test]
fn an_existing_identity_that_is_over_or_a_ca_is_not_used() {
    let cloud = InFiles::new();
    for (options, why) in [
        (["--until", "20250101000000Z"], "was valid until"),
        (["--constraints", "CA:TRUE"], "CA:TRUE"),
    ] {
        cloud.certified(&options);
        let said = cloud.device.ends(6, PROVISION);
        assert!(said.err.contains(why), "{said}");
        assert_eq!(cloud.device.json(&["status"])["mode"], "error");
    }
    cloud.certified(&[]);
    cloud.device.ends(0, PROVISION);
    let wrong = cloud.device.home.write("no-pem", "nothing");
    let said = cloud
        .device
        .ends(1, &["verify", "existing", "--ca", text(&wrong)]);
    assert!(said.err.contains("no-pem"), "{said}");
    let listed = programs::run(&mut cloud.device.command(&["key", "list"])).ok();
    assert!(listed.text().is_empty(), "nothing was made beside it");
}
