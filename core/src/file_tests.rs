//! Tests of files, their stamps and locks.

use super::*;
use std::time::{Duration, SystemTime};

/// Sizes and times have more than 32 bits, also on 32-bit systems.
#[test]
fn sizes_over_4_gib_and_times_after_2038_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    let mut stamps = Vec::new();
    let day = Duration::from_secs(24 * 60 * 60);
    for (size, days) in [(5, 30_000), (5 + (1 << 32), 30_000), (5, 30_000 + 49_711)] {
        file.set_len(size).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + day * days)
            .unwrap();
        let stamp = FileStamp::from(&fstat(File::open(&path).unwrap()).unwrap());
        let time = nanoseconds(i64::from(days) * 24 * 60 * 60, 0);
        assert_eq!((stamp.size, stamp.content_changed), (size, time));
        stamps.push(stamp);
        let read = read(&path, 5).map_err(|error| error.kind());
        match size {
            5 => assert_eq!(read.unwrap(), [0; 5]),
            _ => assert_eq!(read.unwrap_err(), io::ErrorKind::FileTooLarge),
        }
    }
    assert!(stamps[0] != stamps[1] && stamps[0] != stamps[2]);
}

#[test]
fn only_regular_files_of_a_sane_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"12345").unwrap();
    let content = read(&path, 5).unwrap();
    assert_eq!(content, b"12345");
    // The buffer never grows: a grown buffer leaves copies of a secret.
    assert!((6..=5 + 64).contains(&content.capacity()));
    assert!(read(&path, 4).is_err());
    assert!(read(folder.path(), 5).is_err());
    let fifo = folder.path().join("fifo");
    let fifo_mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, fifo_mode, 0).unwrap();
    assert_eq!(
        read(&fifo, 5).unwrap_err().to_string(),
        "not a regular file"
    );
    assert!(read(Path::new("/dev/zero"), 5).is_err());
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(read(&link, 5).unwrap(), b"12345");
    let fd = open(folder.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    assert_eq!(read_in(&fd, "file", 5).unwrap().0, b"12345");
    let why = read_in(&fd, "link", 5).unwrap_err().to_string();
    assert!(why.contains("symbolic link"), "{why}");
    assert_eq!(
        read_in(&fd, "none", 5).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write(&path, b"one", 0o600).unwrap();
    write(&path, b"two", 0o640).unwrap();
    assert_eq!(read(&path, 5).unwrap(), b"two");
    let mode = std::fs::metadata(&path).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o640
    );
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(write(&folder.path().join("taken"), b"x", 0o600).is_err());
    rename(&path, &folder.path().join("other")).unwrap();
    assert_eq!(read(&folder.path().join("other"), 5).unwrap(), b"two");
    remove(&folder.path().join("other")).unwrap();
    remove(&path).unwrap();
    assert!(remove(&folder.path().join("taken")).is_err());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(
        left.len(),
        1,
        "only the folder that has the name remains: {left:?}"
    );
}

#[test]
fn a_path_without_folder_is_in_the_working_folder() {
    let cases = [("file", "."), ("folder/file", "folder"), ("/file", "/")];
    for (path, folder) in cases {
        assert_eq!(folder_of(Path::new(path)), Path::new(folder));
    }
}

#[test]
fn an_existing_file_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write_new(&path, b"one", 0o600).unwrap();
    let error = write_new(&path, b"two", 0o600).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read(&path, 5).unwrap(), b"one");
    assert_eq!(names_at(folder.path()).unwrap(), [c"file".to_owned()]);
}

/// fsync(2) fails for a descriptor that was opened with O_PATH.
#[test]
fn a_folder_that_the_disk_does_not_confirm() {
    let home = tempfile::tempdir().unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(home.path(), flags, Mode::empty()).unwrap();
    let put = |name: &str, place| put(&folder, name, b"x", place, |_| Ok(()));
    let undone = put("new", WriteMode::CreateNew).unwrap_err();
    assert!(matches!(undone, Undone::Unchanged(_)), "{undone:?}");
    assert!(names_at(home.path()).unwrap().is_empty());
    let undone = put("replaced", WriteMode::Replace).unwrap_err();
    assert!(matches!(undone, Undone::Unsettled(_)), "{undone:?}");
    assert_eq!(read(&home.path().join("replaced"), 5).unwrap(), b"x");
}

#[test]
fn a_lock_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let take = |patience| {
        let file = File::create(&path).unwrap();
        Lock::take(file.into(), patience).unwrap()
    };
    let held = take(Duration::ZERO).unwrap();
    assert!(held_by_another(&held.file).ends_with("/lock"));
    assert!(take(Duration::from_millis(1)).is_none());
    let (waits, begins) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            waits.send(()).unwrap();
            take(Duration::from_secs(600))
        });
        begins.recv().unwrap();
        // Not a limit: the thread has begun to wait in most runs.
        std::thread::sleep(Duration::from_millis(20));
        drop(held);
        assert!(waiter.join().unwrap().is_some());
    });
}

#[test]
fn pauses_grow_to_5_ms() {
    let pauses = [200, 400, 3_000, 5_000].map(Duration::from_micros);
    let next = [400, 800, 5_000, 5_000].map(Duration::from_micros);
    assert_eq!(pauses.map(next_pause), next);
}

#[test]
fn times_have_nanoseconds_also_before_1970() {
    assert_eq!(nanoseconds(3, 7), 3_000_000_007);
    let time = Duration::new(3, 7);
    assert_eq!(Moment::from(UNIX_EPOCH + time), Moment(3_000_000_007));
    assert_eq!(Moment::from(UNIX_EPOCH - time), Moment(-3_000_000_007));
}

#[test]
fn a_child_that_was_forked_meanwhile_keeps_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let take = || {
        let file = File::create(folder.path().join("lock")).unwrap();
        Lock::take(file.into(), Duration::ZERO).unwrap()
    };
    let lock = take().unwrap();
    let held_by_child = rustix::io::dup(&lock.file).unwrap();
    assert!(take().is_none());
    drop(lock);
    assert!(take().is_some());
    drop(held_by_child);
}

#[test]
fn a_stamp_is_settled_when_the_clock_has_left_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"12345").unwrap();
    let (_, stamp) = read_stamped(&path, 5).unwrap();
    assert!(!stamp.is_settled(Moment(stamp.inode_changed)));
    assert!(!stamp.is_settled(Moment(stamp.inode_changed + TICK)));
    assert!(stamp.is_settled(Moment(stamp.inode_changed + TICK + 1)));
    assert!(stamp.is_settled(Moment(stamp.inode_changed - TICK - 1)));
    assert!(!stamp.is_settled(Moment::now()));
}
