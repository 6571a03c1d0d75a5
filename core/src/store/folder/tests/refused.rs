//! Tests of files and folders that hold no valid object, and of the messages about them.

use super::*;
use rustix::fs::Mode;
use rustix::process::geteuid;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, symlink};

#[test]
fn one_damaged_file_costs_one_object() {
    let (_around, folder) = filled(2);
    let put = |file: &str, content: &[u8]| fs::write(folder.path().join(file), content).unwrap();
    put("cut.pem", &KEY[..100]);
    put("guessed.pem", &[b"Private: perhaps\n", KEY].concat());
    put("large.pem", &vec![b'\n'; 70_000]);
    put("server.pem", KEY);
    put("ca.pem", LEAF);
    put("readme.txt", b"not ours");
    put(".hidden.pem", b"not ours either");
    put(".pem", b"nor this");
    put("key.pem.new", b"nor this");
    let odd = OsStr::from_bytes(b"\xFF.pem");
    fs::write(folder.path().join(odd), KEY).unwrap();

    let expected = ["ca", "data-00000", "data-00001", "server"];
    assert_eq!(names(&folder), expected);
    let listing = folder.list().unwrap();
    let why: HashMap<_, _> = listing
        .refused
        .into_iter()
        .map(|one| (one.file, one.why))
        .collect();
    assert!(why["cut.pem"].contains("no end"));
    assert!(why["guessed.pem"].contains("Private"));
    assert!(why["large.pem"].contains("65536"));
    assert!(why["\u{FFFD}.pem"].contains("UTF-8"));
    assert_eq!(why.len(), 4);

    folder.add(numbered(3)).unwrap();
    let damaged = folder.change::<FolderError>("cut", |_| Ok(None));
    assert!(matches!(damaged, Err(FolderError::Damaged { file, .. }) if file == "cut.pem"));
    assert_eq!(
        fs::read(folder.path().join("cut.pem")).unwrap(),
        &KEY[..100]
    );

    put("cut.pem", KEY);
    assert!(names(&folder).contains(&"cut".to_owned()), "mended");
}

#[test]
fn what_is_damaged_is_said_once_until_it_changes() {
    struct Log(Mutex<Vec<String>>);
    impl log::Log for Log {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().push(record.args().to_string());
        }
        fn flush(&self) {}
    }
    static LOG: Log = Log(Mutex::new(Vec::new()));
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Warn);

    let (_around, folder) = filled(1);
    let here = folder.path().display().to_string();
    let said = || {
        let log = LOG.0.lock();
        log.iter()
            .filter(|line| line.contains(&here))
            .cloned()
            .collect::<Vec<_>>()
    };
    let path = folder.path().join("new\nline.pem");
    fs::write(&path, "").unwrap();
    for _ in 0..2 {
        folder.list().unwrap();
        settled(&folder);
    }
    let first = format!(r#"{here}: "new\nline.pem" holds no valid object: there is no PEM block"#);
    assert_eq!(said(), [first]);
    fs::write(&path, "-----BEGIN DATA-----").unwrap();
    for _ in 0..2 {
        folder.list().unwrap();
        settled(&folder);
    }
    assert_eq!(said().len(), 2);
    assert!(said()[1].contains("has no end"));
}

#[test]
fn what_is_no_file_is_no_object_and_nobody_waits_for_it() {
    let (around, folder) = filled(1);
    let target = around.path().join("outside.pem");
    fs::write(&target, KEY).unwrap();
    symlink(&target, folder.path().join("link.pem")).unwrap();
    symlink("nowhere", folder.path().join("broken.pem")).unwrap();
    fs::create_dir(folder.path().join("folder.pem")).unwrap();
    let fifo = folder.path().join("fifo.pem");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, Mode::from_raw_mode(0o600), 0).unwrap();
    let listing = folder.list().unwrap();
    assert_eq!(names(&folder), ["data-00000"]);
    let why: Vec<_> = listing
        .refused
        .iter()
        .map(|one| (&*one.file, &*one.why))
        .collect();
    let link = "a symbolic link, which is not followed";
    assert_eq!(
        why,
        [
            ("broken.pem", link),
            ("fifo.pem", "not a regular file"),
            ("folder.pem", "not a regular file"),
            ("link.pem", link),
        ]
    );
    // A writer does not wait for a lock file that is not a regular file.
    fs::remove_file(folder.path().join(LOCK_FILE)).ok();
    symlink(&target, folder.path().join(LOCK_FILE)).unwrap();
    assert!(folder.add(numbered(1)).is_err());
}

#[test]
fn what_others_may_write_is_refused() {
    let (_around, folder) = filled(3);
    let path = |number| folder.path().join(format!("data-0000{number}.pem"));
    set_mode(&path(0), 0o646);
    assert_eq!(names(&folder), ["data-00001", "data-00002"]);
    assert!(folder.list().unwrap().refused[0].why.contains("everybody"));
    let changed = folder.change::<FolderError>("data-00000", |_| Ok(None));
    assert!(matches!(changed, Err(FolderError::Unsafe { .. })));
    if geteuid().is_root() {
        chown(path(1), Some(12345), None).unwrap();
        chown(path(2), None, Some(12345)).unwrap();
        assert_eq!(names(&folder), ["data-00002"], "a file of somebody else");
        set_mode(&path(2), 0o660);
        assert_eq!(names(&folder), [""; 0], "a group of others");
        // The files are checked again, because the owner of the folder has changed.
        settled(&folder);
        chown(folder.path(), Some(12345), Some(12345)).unwrap();
        assert_eq!(names(&folder), ["data-00001", "data-00002"]);
        settled(&folder);
        folder.list().unwrap();
        chown(folder.path(), Some(0), Some(0)).unwrap();
        assert_eq!(names(&folder), [""; 0]);
    }
    set_mode(folder.path(), 0o777);
    let unsafe_here = FolderError::Unsafe {
        path: folder.path().into(),
        reason: "everybody may write into this folder".into(),
    };
    assert_eq!(folder.list().unwrap_err(), unsafe_here);
    assert_ne!(
        settled(&folder),
        FolderStamp::default(),
        "another than of no folder"
    );
    assert_eq!(folder.add(numbered(1)).unwrap_err(), unsafe_here);
}

#[test]
fn a_new_file_is_for_the_folders_group() {
    if !geteuid().is_root() {
        return;
    }
    let (_around, folder) = filled(1);
    chown(folder.path(), None, Some(12345)).unwrap();
    let name = folder.add(numbered(1)).unwrap().name;
    let group = |name: &str| {
        let about = fs::metadata(folder.path().join(file_name(name))).unwrap();
        (about.uid(), about.gid())
    };
    assert_eq!(group(&name), (0, 12345));
    chown(folder.path(), Some(777), Some(12345)).unwrap();
    chown(folder.path().join("data-00000.pem"), Some(777), Some(778)).unwrap();
    folder
        .change::<FolderError>("data-00000", |_| Ok(Some(numbered(5))))
        .unwrap();
    assert_eq!(group("data-00000"), (777, 778), "it stays whose it was");
}
