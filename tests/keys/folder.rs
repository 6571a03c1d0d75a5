//! The key folder: the changes by each function, and folders that are missing, read-only, invalid
//! or very full.

use cryptoki_sys::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::devid::{
    Bench, Inspection, Kind, Own, folder, label, other_process, part, persistent, say_ready, yes,
};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl::certificate_der;
use testkit::programs::{program, run, thread_time};
use testkit::raw::Code;
use testkit::story::test_name;
use testkit::tls::server_identity;

over_our_transport!(
    each_call_changes_one_file,
    nothing_is_changed_on_a_read_only_file_system,
    two_writers_at_once_lose_nothing,
);
// Below here no key is used: the link plays no part.
once!(
    a_missing_folder_is_an_empty_token,
    a_folder_that_everybody_may_write_is_refused,
    a_file_of_somebody_else_is_refused,
    a_link_is_no_object,
    two_files_may_have_one_id,
    ten_thousand_objects_are_listed,
    anothers_change_shows_at_the_next_search,
);

fn each_call_changes_one_file(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let mut said = String::new();
    let mut last = Inspection::of(&bench.folder());
    let mut changes = |what: &str| {
        let now = Inspection::of(&bench.folder());
        let (files, lines) = (last.to(&now), last.lines_to(&now));
        said += &format!("{what}\n");
        for line in files.iter().chain(&lines) {
            said += &format!("    {line}\n");
        }
        last = now;
        let (visible, hidden): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|file| !file[2..].starts_with('.'));
        (visible, hidden.len(), lines)
    };

    own.find(&[]);
    assert_eq!(changes("C_FindObjects").0, [] as [&str; 0]);
    let wrapped = own.make(Kind::P256, "service").unwrap();
    let (files, hidden, lines) = changes("C_GenerateKeyPair");
    // With the serial number, the names of master key and storage root key, and the lock.
    assert!(
        files.len() == 1 && files[0].starts_with("A key-") && hidden == 4,
        "{files:?}"
    );
    let service = [
        "Label: service",
        "Usage: sign",
        "Public-Usage: verify",
        "Origin: generated",
    ];
    assert_eq!(lines, service.map(|line| format!("+ {line}")));
    own.signs(wrapped.private);
    let of_session = own.make_with(Kind::P256, &[], &[]).unwrap();
    own.destroy(of_session.private).unwrap();
    assert_eq!(
        changes("C_Sign, and a key of the session").0,
        [] as [&str; 0]
    );
    let kept = own.make_persistent(Kind::P256, "kept").unwrap();
    let (files, hidden, lines) = changes("C_GenerateKeyPair, CKA_DEVID_PERSISTENT");
    assert!(
        files.len() == 1 && files[0].starts_with("A key-") && hidden == 0,
        "{files:?}"
    );
    assert!(
        lines.contains(&"+ Handle: 0x81000100".to_owned()),
        "{lines:?}"
    );

    own.change(wrapped.private, &[label("renamed")]).unwrap();
    let (files, _, lines) = changes("C_SetAttributeValue of CKA_LABEL");
    assert!(
        files.len() == 1 && files[0].starts_with("M key-"),
        "{files:?}"
    );
    assert!(lines.contains(&"+ Label: renamed".to_owned()), "{lines:?}");
    let refused = own.change(
        wrapped.private,
        &[label("x"), (CKA_KEY_TYPE, ulong(CKK_RSA))],
    );
    assert_eq!(refused, Err(Code(CKR_ATTRIBUTE_READ_ONLY)));
    assert_eq!(changes("C_SetAttributeValue, refused").0, [] as [&str; 0]);

    server_identity(&bench.home);
    let der = certificate_der(&bench.home.path("server.pem"));
    let certificate = own.create(&[
        (CKA_CLASS, ulong(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
        (CKA_VALUE, der),
        yes(CKA_TOKEN),
        label("certificate"),
    ]);
    let (files, ..) = changes("C_CreateObject, a certificate");
    assert!(
        files.len() == 1 && files[0].starts_with("A certificate-"),
        "{files:?}"
    );
    own.create_data("note", b"value").unwrap();
    let (files, ..) = changes("C_CreateObject, data");
    assert!(
        files.len() == 1 && files[0].starts_with("A data-"),
        "{files:?}"
    );

    own.destroy(certificate.unwrap()).unwrap();
    let (files, ..) = changes("C_DestroyObject, a certificate");
    assert!(
        files.len() == 1 && files[0].starts_with("D certificate-"),
        "{files:?}"
    );
    own.destroy(kept.private).unwrap();
    let (files, ..) = changes("C_DestroyObject, a private key");
    assert!(
        files.len() == 1 && files[0].starts_with("M key-"),
        "{files:?}"
    );
    own.destroy(kept.public).unwrap();
    let (files, ..) = changes("C_DestroyObject, its public key");
    assert!(
        files.len() == 1 && files[0].starts_with("D key-"),
        "{files:?}"
    );
    own.signs(wrapped.private);
    println!("\n{said}");
    for entry in fs::read_dir(bench.folder()).unwrap() {
        let about = entry.unwrap().metadata().unwrap();
        assert_eq!(about.permissions().mode() & 0o137, 0, "0640 at most");
    }
    let mode = fs::metadata(bench.folder()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
}

/// Runs the test `name` of this binary with a read-only mount on the key folder. `false` if this
/// system does not allow mounts.
fn on_a_read_only_mount(name: &str, home: &Home) -> bool {
    const SCRIPT: &str = r#"cd / && mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" ||
        exit 77
        exec "$@""#;
    let mut command = program("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT]);
    command
        .arg(folder(home))
        .arg(std::env::current_exe().unwrap());
    command.args(["--exact", test_name(name), "--ignored", "--nocapture"]);
    command.env("DEVID_TEST_PART", "reader");
    let said = run(home.settle(&mut command));
    if matches!(said.status.code(), Some(1 | 77)) {
        println!("\nnobody may mount here: {}", said.err);
        return false;
    }
    assert!(said.text().contains("1 passed"), "{said}");
    true
}

#[test]
#[ignore = "needs the mount that another test makes"]
fn reads_and_cannot_write() {
    if part().is_none() {
        return;
    }
    let own = Own::here();
    let protected = Code(CKR_TOKEN_WRITE_PROTECTED);
    let key = own.key_called("key");
    own.signs(key);
    own.signs(own.key_called("kept"));
    for (what, refused) in [
        ("generate", own.make(Kind::P256, "new").map(drop)),
        (
            "persistent",
            own.make_persistent(Kind::P256, "new").map(drop),
        ),
        ("create", own.create_data("new", b"value").map(drop)),
        ("relabel", own.change(key, &[label("new")])),
        ("destroy", own.destroy(key)),
        ("destroy persistent", own.destroy(own.key_called("kept"))),
    ] {
        assert_eq!(refused, Err(protected), "{what}");
    }
    // Calls that need no folder work.
    let of_session = own.make_with(Kind::P256, &[], &[]).unwrap();
    own.signs(of_session.private);
    own.signs(own.key_called("kept"));
}

fn nothing_is_changed_on_a_read_only_file_system(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "key").unwrap();
    own.make_persistent(Kind::P256, "kept").unwrap();
    let (before, handles) = (Inspection::of(&bench.folder()), persistent(&bench.tpm));
    if !on_a_read_only_mount(
        concat!(module_path!(), "::reads_and_cannot_write"),
        &bench.home,
    ) {
        return;
    }
    assert!(before == Inspection::of(&bench.folder()));
    assert_eq!(persistent(&bench.tpm), handles);
    own.signs(own.key_called("kept"));
}

/// Each makes ten keys, relabels them and destroys every other one.
fn write_ten(own: &Own, name: &str) {
    for number in 0..10 {
        let key = own.make(Kind::P256, "new").unwrap().private;
        own.change(key, &[label(&format!("{name} {number}"))])
            .unwrap();
        if number % 2 == 1 {
            own.destroy(key).unwrap();
        }
    }
}

#[test]
#[ignore = "the other writer of another test"]
fn writes_ten() {
    if let Some(name) = part() {
        let own = Own::here();
        say_ready();
        write_ten(&own, &name);
    }
}

fn two_writers_at_once_lose_nothing(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let mut others = ["a", "b"]
        .map(|name| other_process(concat!(module_path!(), "::writes_ten"), &bench.home, name));
    write_ten(&own, "c");
    for other in &mut others {
        let status = other.wait(Duration::from_secs(60)).expect("it ends");
        assert!(status.success());
    }
    let keys = own.keys();
    assert_eq!(keys.len(), 15);
    keys.iter().for_each(|key| own.signs(*key));
    let mut labels = own.labels(CKO_PRIVATE_KEY);
    labels.dedup();
    assert_eq!(labels.len(), 15, "{labels:?}");
    assert_eq!(
        own.find(&[(CKA_CLASS, ulong(CKO_PUBLIC_KEY))]).len(),
        30,
        "each its own"
    );
}

/// A token with a data object called "first".
fn with_data() -> (Bench, Own) {
    let bench = Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    own.create_data("first", b"value").unwrap();
    (bench, own)
}

fn data_labels(own: &Own) -> Vec<String> {
    own.labels(CKO_DATA)
}

fn a_missing_folder_is_an_empty_token() {
    let (bench, own) = with_data();
    fs::rename(bench.folder(), bench.home.path("state/away")).unwrap();
    assert_eq!(data_labels(&own), [] as [&str; 0]);
    assert!(!bench.folder().exists(), "looking makes none");
    let own = own.anew();
    assert_eq!(own.destroy(4711), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    own.create_data("second", b"value").unwrap();
    assert_eq!(data_labels(&own), ["second"]);
    fs::remove_dir_all(bench.folder()).unwrap();
    fs::rename(bench.home.path("state/away"), bench.folder()).unwrap();
    assert_eq!(data_labels(&own), ["first"], "and back it is");
    // Not even the folder above it.
    fs::remove_dir_all(bench.home.path("state")).unwrap();
    assert_eq!(data_labels(&own), [] as [&str; 0]);
    own.create_data("third", b"value").unwrap();
    assert_eq!(data_labels(&own.anew()), ["third"]);
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn a_folder_that_everybody_may_write_is_refused() {
    let (bench, own) = with_data();
    mode(&bench.folder(), 0o757);
    let refused = own.create_data("second", b"value");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    bench
        .home
        .log_says(&["everybody may write into this folder"]);
    let before = Inspection::of(&bench.folder());
    own.raw.finalize().unwrap();
    own.raw.initialize().unwrap();
    let empty = own.raw.token_info(own.slot).map(drop);
    assert_eq!(empty, Err(Code(CKR_TOKEN_NOT_PRESENT)));
    assert!(before == Inspection::of(&bench.folder()));
    mode(&bench.folder(), 0o750);
    own.raw.finalize().unwrap();
    let own = Own::new(&bench.home);
    assert_eq!(data_labels(&own), ["first"]);
}

/// The file of the only object.
fn only_file(bench: &Bench) -> PathBuf {
    let files = fs::read_dir(bench.folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found = files.filter(|path| path.extension().is_some_and(|end| end == "pem"));
    found.next().expect("a file")
}

fn a_file_of_somebody_else_is_refused() {
    let (bench, own) = with_data();
    let file = only_file(&bench);
    own.create_data("second", b"value").unwrap();
    let refusals = |count: usize| {
        let said = bench.home.log();
        assert_eq!(
            said.matches("holds no valid object").count(),
            count,
            "{said}"
        );
    };
    for wrong in [0o646, 0o642] {
        mode(&file, wrong);
        assert_eq!(data_labels(&own), ["second"], "{wrong:o}");
        mode(&file, 0o640);
        assert_eq!(data_labels(&own), ["first", "second"]);
    }
    refusals(2);
    // SAFETY: asks for our user id, nothing else.
    if unsafe { libc::geteuid() } == 0 {
        chown(&file, Some(12345), None).unwrap();
        assert_eq!(data_labels(&own), ["second"]);
        bench.home.log_says(&["belongs to user 12345"]);
        chown(&file, Some(0), None).unwrap();
        chown(&file, None, Some(12345)).unwrap();
        mode(&file, 0o660);
        assert_eq!(data_labels(&own), ["second"], "another group may write it");
        mode(&file, 0o640);
        assert_eq!(data_labels(&own), ["first", "second"], "or only read");
        refusals(4);
    }
}

fn a_link_is_no_object() {
    let (bench, own) = with_data();
    let (file, elsewhere) = (only_file(&bench), bench.home.path("elsewhere"));
    fs::copy(&file, &elsewhere).unwrap();
    symlink(&elsewhere, bench.folder().join("link.pem")).unwrap();
    symlink("/nowhere", bench.folder().join("dangling.pem")).unwrap();
    fs::create_dir(bench.folder().join("folder.pem")).unwrap();
    run(program("mkfifo").arg(bench.folder().join("pipe.pem"))).ok();
    assert_eq!(data_labels(&own), ["first"]);
    for name in ["link", "dangling", "folder", "pipe"] {
        bench
            .home
            .log_says(&[&format!("\"{name}.pem\""), "holds no valid object"]);
    }
    // The folder itself may be a link: an administrator's.
    fs::rename(bench.folder(), bench.home.path("state/moved")).unwrap();
    symlink("moved", bench.folder()).unwrap();
    assert_eq!(data_labels(&own), ["first"]);
    own.create_data("second", b"value").unwrap();
    assert_eq!(data_labels(&own), ["first", "second"]);
    assert_eq!(fs::read_link(bench.folder()).unwrap(), Path::new("moved"));
}

fn two_files_may_have_one_id() {
    let bench = Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    let id = (CKA_ID, vec![7]);
    let both = [yes(CKA_TOKEN), id.clone()];
    let keys: Vec<_> = ["one", "two"]
        .map(|name| own.make_with(Kind::P256, &[&both[..], &[label(name)]].concat(), &[]))
        .map(Result::unwrap)
        .into();
    let found = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), id.clone()]);
    assert_eq!(found.len(), 2);
    keys.iter().for_each(|pair| own.signs(pair.private));
    // A copy has the same key under two names.
    let file = only_file(&bench);
    fs::copy(&file, bench.folder().join("copy.pem")).unwrap();
    let own = own.anew();
    let found = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), id.clone()]);
    assert_eq!(found.len(), 3);
    found.iter().for_each(|key| own.signs(*key));
    own.destroy(found[0]).unwrap();
    let found = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), id]);
    assert_eq!(found.len(), 2);
    found.iter().for_each(|key| own.signs(*key));
}

fn ten_thousand_objects_are_listed() {
    const OBJECTS: usize = 10_000;
    /// Limit of processor time.
    const REASONABLE: Duration = Duration::from_secs(30);
    let (bench, own) = with_data();
    let text = fs::read_to_string(only_file(&bench)).unwrap();
    for number in 1..OBJECTS {
        let text = text.replace("Label: first\n", &format!("Label: {number}\n"));
        fs::write(bench.folder().join(format!("copy-{number}.pem")), text).unwrap();
    }
    let begun = thread_time();
    let all = own.find(&[(CKA_CLASS, ulong(CKO_DATA))]);
    let listed = thread_time() - begun;
    assert_eq!(all.len(), OBJECTS);
    let one = thread_time();
    assert_eq!(own.find(&[label("4711")]).len(), 1);
    let searched = thread_time() - one;
    let one = thread_time();
    own.create_data("one more", b"value").unwrap();
    let added = thread_time() - one;
    let one = thread_time();
    own.destroy(own.find(&[label("one more")])[0]).unwrap();
    let destroyed = thread_time() - one;
    println!(
        "\n{OBJECTS} objects: listed in {listed:?}, one found in {searched:?}, made in \
         {added:?}, destroyed in {destroyed:?}"
    );
    assert!(thread_time() - begun < REASONABLE);
}

fn anothers_change_shows_at_the_next_search() {
    let (bench, own) = with_data();
    let first = own.find(&[label("first")])[0];
    let file = only_file(&bench);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("Label: first\n", "Label: renamed\n")).unwrap();
    assert_eq!(data_labels(&own), ["renamed"]);
    assert_eq!(
        own.label(first),
        "renamed",
        "the same object, so the same handle"
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(data_labels(&own), [] as [&str; 0]);
    let gone = own.raw.attribute(own.session, first, CKA_LABEL);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    assert_eq!(
        own.change(first, &[label("x")]),
        Err(Code(CKR_OBJECT_HANDLE_INVALID))
    );
    assert_eq!(own.destroy(first), Err(Code(CKR_OBJECT_HANDLE_INVALID)));

    // A key that another process destroyed, whether that was seen by a search or not.
    let key = own.make(Kind::P256, "key").unwrap().private;
    let seen = own.make(Kind::P256, "seen").unwrap().private;
    for entry in fs::read_dir(bench.folder()).unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(&path).is_ok_and(|text| text.contains("Label: seen\n")) {
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(own.destroy(seen), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    assert_eq!(own.keys(), [key]);
    let gone = own.raw.sign_init(own.session, CKM_ECDSA, seen);
    assert_eq!(gone, Err(Code(CKR_KEY_HANDLE_INVALID)));
    own.signs(key);
}
