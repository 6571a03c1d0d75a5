//! `devid` while files cannot be read. Objects in such files never count as missing: nothing
//! replaces them, nothing is deleted because of them, and no remedy destroys them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::devid::{Bench, persistent};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::tool;
use testkit::programs::{Said, run};
use testkit::tpm::Swtpm;
use testkit::trouble::{ALL, for_program};

troubled!(
    provisioning_makes_no_second_identity,
    a_reset_leaves_no_half,
    keys_are_neither_doubled_nor_lost,
    what_was_put_aside_stays,
    an_existing_identity_is_not_missing,
    a_tpm_is_not_missing,
    trust_is_not_missing,
    a_refused_pin_is_not_tried_again,
);

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const ERRORS: [i32; 3] = [libc::EIO, libc::EMFILE, libc::EACCES];

fn devid(home: &Home, words: &[&str]) -> Command {
    let mut command = Command::new(tool());
    home.settle(command.args(words).stdin(Stdio::null()));
    command
}

#[track_caller]
fn ends(home: &Home, code: i32, words: &[&str]) -> Said {
    let said = run(&mut devid(home, words));
    assert_eq!(said.status.code(), Some(code), "{said}");
    said
}

/// Runs it while these calls on this path fail.
fn troubled_by(home: &Home, words: &[&str], call: &str, path: &Path, error: i32) -> Said {
    let mut command = devid(home, words);
    for_program(&mut command, call, path, 0, ALL, error);
    run(&mut command)
}

/// All that lies below a folder, but for empty files: those are locks.
fn below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(below(&path)),
            false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all.retain(|_, content| !content.is_empty());
    all
}

/// The files of a key folder that are objects of this kind.
fn objects(home: &Home, kind: &str) -> Vec<PathBuf> {
    let all = below(&home.path("state/devid")).into_keys();
    let is = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(kind) && name.ends_with(".pem")
    };
    all.filter(is).collect()
}

fn provisioned() -> Bench {
    let bench = Bench::new(Link::Ours);
    ends(&bench.home, 0, PROVISION);
    bench
}

/// The files that identify the identity, and the calls that read them.
fn of_identity(home: &Home) -> Vec<(PathBuf, Vec<&'static str>)> {
    let folder = home.path("state/devid");
    let of_file = || vec!["open", "stat", "read"];
    let mut all = vec![
        (folder.clone(), vec!["open", "stat", "list"]),
        (folder.join(".serial"), of_file()),
        (folder.join(".master"), of_file()),
        (home.path("state/tpm_in_use"), of_file()),
        (home.path("state/factory-reset"), vec!["stat"]),
        (home.path("state/software/devid.key.pem"), vec!["stat"]),
    ];
    let objects = objects(home, "key")
        .into_iter()
        .chain(objects(home, "certificate"));
    all.extend(objects.map(|file| (file, of_file())));
    all
}

fn provisioning_makes_no_second_identity() {
    let bench = provisioned();
    let home = &bench.home;
    let (before, handles) = (below(&home.path("state")), persistent(&bench.tpm));
    let (mut failed, mut runs) = (0, 0);
    for (file, calls) in of_identity(home) {
        for (call, error) in calls
            .iter()
            .flat_map(|call| ERRORS.map(|error| (call, error)))
        {
            let said = troubled_by(home, PROVISION, call, &file, error);
            let what = format!("{call} {}: {error}: {said}", file.display());
            assert!(before == below(&home.path("state")), "{what}");
            assert_eq!(persistent(&bench.tpm), handles, "{what}");
            runs += 1;
            failed += usize::from(!said.status.success());
            for words in [&["status"][..], &["doctor"]] {
                let text = troubled_by(home, words, call, &file, error).all();
                assert!(!text.contains("reset --factory"), "{what}: {text}");
                assert!(!text.contains("evict"), "{what}: {text}");
            }
        }
    }
    println!("\n{failed} of {runs} runs failed, and none changed anything");
    assert!(failed > runs / 2);
    ends(home, 0, PROVISION);
    assert!(before == below(&home.path("state")));
}

/// An unreadable object stays, and so do the objects that it needs.
fn a_reset_leaves_no_half() {
    const RESET: &[&str] = &["reset", "--factory", "--yes"];
    let bench = provisioned();
    let home = &bench.home;
    ends(home, 0, &["key", "generate", "web"]);
    let (before, handles) = (below(&home.path("state")), persistent(&bench.tpm));
    for (call, error) in ["open", "stat", "read"]
        .iter()
        .flat_map(|call| ERRORS.map(|error| (call, error)))
    {
        for file in objects(home, "key") {
            let said = troubled_by(home, RESET, call, &file, error);
            assert!(!said.status.success(), "{said}");
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(said.all().contains(&name), "{said}");
            let mut after = below(&home.path("state"));
            assert!(after.remove(&home.path("state/factory-reset")).is_some());
            assert!(before == after, "{call} {name}: {error}: {said}");
            assert_eq!(persistent(&bench.tpm), handles);
            fs::remove_file(home.path("state/factory-reset")).unwrap();
        }
    }
    ends(home, 0, RESET);
    assert_eq!(objects(home, "key").len(), 1);
}

fn keys_are_neither_doubled_nor_lost() {
    let bench = Bench::new(Link::Ours);
    let home = &bench.home;
    ends(home, 0, &["key", "generate", "web"]);
    let before = below(&home.path("state"));
    let file = objects(home, "key").remove(0);
    for (call, error) in ["open", "stat", "read"]
        .iter()
        .flat_map(|call| ERRORS.map(|error| (call, error)))
    {
        for words in [
            &["key", "generate", "web"][..],
            &["key", "delete", "web", "--yes"],
            &["csr", "web"],
        ] {
            let said = troubled_by(home, words, call, &file, error);
            assert!(!said.status.success(), "{call}: {error}: {said}");
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(said.all().contains(&name), "{said}");
            assert!(
                before == below(&home.path("state")),
                "{call}: {error}: {said}"
            );
        }
    }
    ends(home, 0, &["key", "delete", "web", "--yes"]);
}

/// Files of the software identity from before the TPM.
fn what_was_put_aside_stays() {
    let bench = provisioned();
    let home = &bench.home;
    let folder = home.path("state/software");
    fs::create_dir(&folder).unwrap();
    let aside = home.write("state/software/devid.key.pem.pre-tpm", "a key");
    for (path, call) in [
        (&folder, "open"),
        (&folder, "list"),
        (&home.path("state"), "stat"),
        (&aside, "stat"),
    ] {
        let said = troubled_by(home, &["prune"], call, path, libc::EIO);
        assert!(!said.status.success(), "{call}: {said}");
        assert!(aside.exists());
    }
    ends(home, 0, &["prune"]);
    assert!(!aside.exists());
}

fn an_existing_identity_is_not_missing() {
    let bench = Bench::new(Link::Ours);
    let home = &bench.home;
    let (certificate, key) = (home.write("cloud.pem", "x"), home.write("cloud.key", "x"));
    let settings = format!(
        "[provision]\nexisting = {{ certificate = \"{}\", key = \"{}\" }}\n",
        certificate.display(),
        key.display()
    );
    home.write("config.toml", settings);
    for (file, other) in [(&certificate, &key), (&key, &certificate)] {
        fs::remove_file(other).unwrap();
        let said = troubled_by(home, PROVISION, "stat", file, libc::EIO);
        assert!(!said.status.success(), "{said}");
        assert_eq!(objects(home, "key"), [] as [PathBuf; 0]);
        fs::write(other, "x").unwrap();
    }
}

/// If it is unknown whether there is a TPM, no identity is made in files.
fn a_tpm_is_not_missing() {
    let home = Home::new("");
    let device = home.path("tpm0");
    let settings = format!(
        "tcti = \"device:{}\"\n[provision]\nfallback = \"software\"\n",
        device.display()
    );
    home.write("config.toml", settings);
    let key = home.path("state/software/devid.key.pem");
    for error in ERRORS {
        let said = troubled_by(&home, PROVISION, "stat", &device, error);
        assert!(!said.status.success() && !key.exists(), "{error}: {said}");
    }
    ends(&home, 0, PROVISION);
    assert!(key.exists());
}

fn trust_is_not_missing() {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    fs::create_dir(home.path("trust")).unwrap();
    let ca = home.write("trust/ca.pem", fs::read(identity.ca()).unwrap());
    ends(&home, 0, &["verify", "idev-id"]);
    for (path, call) in [
        (&home.path("trust"), "open"),
        (&home.path("trust"), "list"),
        (&ca, "open"),
        (&ca, "read"),
    ] {
        for error in ERRORS {
            let said = troubled_by(&home, &["verify", "idev-id"], call, path, error);
            assert_ne!(said.status.code(), Some(3), "{call}: {said}");
            assert!(!said.status.success(), "{call}: {said}");
            assert!(said.all().contains("trust"), "{call}: {said}");
        }
    }
}

/// The mark of a wrong PIN cannot be read: it may say that the PIN is wrong.
fn a_refused_pin_is_not_tried_again() {
    let (bench, _token) = testkit::pins::Bench::with_pins(Link::Ours);
    let home = &bench.home;
    let pin = home.write("pin", "wrong");
    let settings = format!(
        "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
        pin.display()
    );
    home.write("config.toml", settings);
    let generate = &["key", "generate", "web"];
    assert!(!run(&mut devid(home, generate)).status.success());
    bench.counts(1);
    let mark = home.path("run/wrong-pin-devid");
    assert!(mark.exists());
    for call in ["open", "stat", "read"] {
        for error in ERRORS {
            let said = troubled_by(home, generate, call, &mark, error);
            assert!(!said.status.success(), "{said}");
            assert!(said.all().contains("wrong-pin-devid"), "{said}");
        }
    }
    bench.counts(1);
}
