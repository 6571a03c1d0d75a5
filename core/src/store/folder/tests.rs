//! Tests of the key folder with readers and writers. The tests in `crash` start other processes.
//! The tests in `refused` have files that hold no valid object.

mod crash;
mod refused;

use super::samples::{KEY, LEAF, data, numbered, samples};
use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::TempDir;

const LOCK_FILE: &str = ".lock";

/// Returns a key folder that does not exist, inside a temporary folder.
fn empty() -> (TempDir, KeyFolder) {
    let around = tempfile::tempdir().unwrap();
    let folder = KeyFolder::new(around.path().join("state/devid"));
    (around, folder)
}

/// Returns a folder with `count` data objects, as an administrator would store them.
fn filled(count: usize) -> (TempDir, KeyFolder) {
    let (around, folder) = empty();
    fs::create_dir_all(folder.path()).unwrap();
    for number in 0..count {
        let name = format!("data-{number:05}");
        let file = format::render(&name, &numbered(number), &Remarks::default()).unwrap();
        fs::write(folder.path().join(file_name(&name)), file).unwrap();
    }
    (around, folder)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(folder: &KeyFolder) -> Vec<String> {
    let listed = folder.list().unwrap().entries;
    listed.iter().map(|entry| entry.name.clone()).collect()
}

fn all_files(folder: &KeyFolder) -> Vec<String> {
    let files = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits until the stamp of the last change is reliable, and returns the stamp.
fn settled(folder: &KeyFolder) -> FolderStamp {
    loop {
        let stamp = folder.stamp();
        if stamp.unsettled.is_none() {
            return stamp;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_missing_folder_is_empty_and_made_at_the_first_write() {
    let (_around, folder) = empty();
    assert!(folder.list().unwrap().entries.is_empty());
    assert_eq!((folder.serial(), folder.master()), (Ok(None), Ok(None)));
    assert_eq!(
        folder.remove("key-1"),
        Err(FolderError::Gone("key-1".into()))
    );
    assert!(!folder.path().exists(), "reading makes nothing");

    let entry = folder.add(numbered(1)).unwrap();
    assert_eq!(mode(folder.path()) & 0o027, 0, "not for others");
    assert_eq!(mode(&folder.path().join(file_name(&entry.name))), 0o640);
    let serial = folder.serial().unwrap().unwrap();
    assert_eq!(serial.len(), 16);
    let file = file_name(&entry.name);
    assert_eq!(all_files(&folder), [LOCK_FILE, SERIAL, &file]);
    folder.add(numbered(2)).unwrap();
    assert_eq!(folder.serial(), Ok(Some(serial)), "it stays the same");
}

#[test]
fn every_object_is_written_changed_and_removed() {
    let (_around, folder) = empty();
    for content in samples() {
        let added = folder.add(content.clone()).unwrap();
        assert_eq!(added.content, content);
        let listing = folder.list().unwrap();
        assert_eq!(listing.entries.len(), 1);
        assert_eq!(*listing.entries[0], added);
        assert_eq!(listing.refused, []);

        let changed = folder.change::<FolderError>(&added.name, |current| {
            assert_eq!(*current, added);
            Ok(Some(numbered(7)))
        });
        assert_eq!(changed.unwrap().unwrap().content, numbered(7));
        assert_eq!(folder.list().unwrap().entries[0].content, numbered(7));

        folder.remove(&added.name).unwrap();
        assert_eq!(names(&folder), [""; 0]);
        let gone = Err(FolderError::Gone(added.name.clone()));
        assert_eq!(folder.remove(&added.name), gone);
        assert_eq!(
            folder.change(&added.name, |_| Ok(None)),
            gone.map(|()| None)
        );
    }
    let kinds = ["key-", "secret-", "public-", "certificate-", "data-"];
    let added = samples()
        .into_iter()
        .map(|content| folder.add(content).unwrap().name);
    for name in added {
        let digits = kinds
            .iter()
            .find_map(|kind| name.strip_prefix(kind))
            .unwrap();
        assert_eq!(from_hex(digits).unwrap().len(), 8);
    }
    assert_eq!(names(&folder).len(), samples().len());
}

#[test]
fn a_change_can_remove_or_be_refused_and_keeps_what_it_does_not_touch() {
    let (_around, folder) = filled(1);
    let path = folder.path().join("server.pem");
    fs::write(&path, [b"# of the web server\n", KEY].concat()).unwrap();
    set_mode(&path, 0o600);
    let (before, inode) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().ino());

    let refused = folder.change("server", |_| Err(FolderError::Unfit("no".into())));
    assert_eq!(refused, Err(FolderError::Unfit("no".into())));
    let same = folder.change::<FolderError>("server", |current| Ok(Some(current.content.clone())));
    assert_eq!(same.unwrap().unwrap().name, "server");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::metadata(&path).unwrap().ino(),
        inode,
        "what is the same is not written"
    );

    let relabelled = |current: &Entry| match current.content.clone() {
        EntryContent::Pair(mut pair) => {
            pair.private.label = "new".into();
            Ok::<_, FolderError>(Some(EntryContent::Pair(pair)))
        }
        other => panic!("{other:?}"),
    };
    folder.change("server", relabelled).unwrap();
    let after = fs::read_to_string(&path).unwrap();
    assert!(
        after.starts_with("# of the web server\nLabel: new\n"),
        "{after}"
    );
    assert_eq!(
        mode(&path),
        0o600,
        "not wider than the administrator made it"
    );

    assert_eq!(
        folder.change::<FolderError>("server", |_| Ok(None)),
        Ok(None)
    );
    assert_eq!(names(&folder), ["data-00000"]);
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let (_around, folder) = filled(1);
    let large = EntryContent::Data(Data {
        value: vec![0; 70_000],
        ..data()
    });
    assert!(matches!(
        folder.add(large.clone()),
        Err(FolderError::Unfit(_))
    ));
    let changed = folder.change::<FolderError>("data-00000", |_| Ok(Some(large)));
    assert!(matches!(changed, Err(FolderError::Unfit(_))));
    assert_eq!(all_files(&folder), [LOCK_FILE, SERIAL, "data-00000.pem"]);
    assert_eq!(folder.list().unwrap().entries[0].content, numbered(0));
}

#[test]
fn only_names_of_objects_are_changed() {
    let (around, folder) = filled(1);
    fs::write(around.path().join("other.pem"), KEY).unwrap();
    for name in ["../../other", "", ".hidden", "a\0b", "none", "/etc/passwd"] {
        let gone = Err(FolderError::Gone(name.into()));
        assert_eq!(folder.remove(name), gone, "{name:?}");
        assert_eq!(folder.change(name, |_| Ok(None)), gone.map(|()| None));
    }
    assert!(around.path().join("other.pem").exists());
}

#[test]
fn the_masters_name_is_remembered() {
    let (_around, folder) = empty();
    folder.remember_master(&[0x00, 0x0B, 0xFF]).unwrap();
    assert_eq!(folder.master(), Ok(Some(vec![0x00, 0x0B, 0xFF])));
    folder.remember_master(&[1]).unwrap();
    assert_eq!(folder.master(), Ok(Some(vec![1])));
    for (file, wrong) in [(MASTER, "0"), (MASTER, ""), (SERIAL, "0123"), (SERIAL, "x")] {
        fs::write(folder.path().join(file), wrong).unwrap();
        let read = match file {
            MASTER => folder.master().map(|_| ()),
            _ => folder.serial().map(|_| ()),
        };
        assert!(
            matches!(read, Err(FolderError::Damaged { .. })),
            "{file} {wrong:?}"
        );
    }
    assert!(names(&folder).is_empty());
}

#[test]
fn only_what_changed_is_read_again() {
    let (_around, folder) = filled(3);
    let stamp = settled(&folder);
    let first = folder.list().unwrap();
    assert_eq!(first.stamp, stamp);
    let same_as_first = |listing: &FolderListing| -> Vec<_> {
        let both = first.entries.iter().zip(&listing.entries);
        both.map(|(one, other)| Arc::ptr_eq(one, other)).collect()
    };
    let second = folder.list().unwrap();
    assert_eq!(same_as_first(&second), [true; 3]);
    assert_eq!(second.stamp, stamp);

    let path = folder.path().join("data-00000.pem");
    fs::write(&path, fs::read(&path).unwrap()).unwrap();
    let change = |_: &Entry| Ok::<_, FolderError>(Some(numbered(9)));
    folder.change("data-00001", change).unwrap();
    assert_ne!(folder.stamp(), stamp);
    let third = folder.list().unwrap();
    assert_eq!(
        same_as_first(&third),
        [true, false, true],
        "written again is not another"
    );
    assert_eq!(third.entries[1].content, numbered(9));

    settled(&folder);
    folder.list().unwrap();
    misremember(&folder);
    assert_eq!(names(&folder), [""; 0], "nothing was read again");
}

#[test]
fn a_stamp_tells_every_change() {
    let (_around, folder) = empty();
    let mut before = folder.stamp();
    assert_eq!(folder.stamp(), before, "nothing is settled, too");
    let path = folder.path().join("data-00000.pem");
    let file = |number| format::render("data-00000", &numbered(number), &Remarks::default());
    let steps: [(&str, &dyn Fn()); 6] = [
        ("a folder", &|| fs::create_dir_all(folder.path()).unwrap()),
        ("a new file", &|| {
            fs::write(&path, file(1).unwrap()).unwrap()
        }),
        ("another content", &|| {
            fs::write(&path, file(2).unwrap()).unwrap()
        }),
        ("another mode", &|| set_mode(&path, 0o600)),
        ("another object", &|| drop(folder.add(numbered(3)).unwrap())),
        ("no file", &|| fs::remove_file(&path).unwrap()),
    ];
    for (what, step) in steps {
        step();
        let after = settled(&folder);
        assert_ne!(after, before, "{what}");
        assert_eq!(folder.stamp(), after, "{what}");
        before = after;
    }
}

#[test]
fn what_changes_twice_within_a_tick_is_not_missed() {
    let (_around, folder) = filled(2);
    let young = folder.stamp();
    assert_eq!(young, young.clone());
    assert_ne!(
        folder.stamp(),
        young,
        "so shortly after a write, none is like another"
    );

    let listed = folder.list().unwrap();
    assert!(folder.known.lock().files.values().all(|seen| !seen.settled));
    misremember(&folder);
    assert_eq!(folder.list().unwrap().entries, listed.entries);
}

/// Replaces the cached contents of the files, but not the cached stamps.
fn misremember(folder: &KeyFolder) {
    let mut known = folder.known.lock();
    let mut files = known.files.clone();
    for seen in files.values_mut() {
        seen.found = Err(RefusedFile::default());
    }
    *known = Arc::new(FolderCache {
        folder: known.folder,
        files,
        ..FolderCache::default()
    });
}

#[test]
fn two_objects_with_the_same_identifier_are_two() {
    let (_around, folder) = empty();
    for _ in 0..2 {
        folder.add(samples().remove(1)).unwrap();
    }
    let entries = folder.list().unwrap().entries;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].content, entries[1].content);
    assert_ne!(entries[0].name, entries[1].name);
}

#[test]
fn a_child_is_not_blocked_by_its_parents_threads() {
    let (_around, folder) = filled(2);
    settled(&folder);
    let entries = folder.list().unwrap().entries;
    let inherited = folder.for_child().list().unwrap().entries;
    assert!(
        Arc::ptr_eq(&entries[0], &inherited[0]),
        "it need not read again"
    );
    let _held = folder.known.lock();
    assert_eq!(folder.for_child().list().unwrap().entries, entries);
}

/// Returns the processor time of this thread, which other programs do not influence.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn ten_thousand_files_are_listed_fast() {
    let (_around, folder) = filled(10_000);
    settled(&folder);
    assert_eq!(folder.list().unwrap().entries.len(), 10_000);
    let best = |what: &dyn Fn()| {
        let once = |_| {
            let begin = thread_time();
            what();
            thread_time() - begin
        };
        (0..5).map(once).min().unwrap()
    };
    let walk = best(&|| {
        for file in fs::read_dir(folder.path()).unwrap() {
            file.unwrap().metadata().unwrap();
        }
    });
    let stamp = best(&|| drop(folder.stamp()));
    let list = best(&|| drop(folder.list().unwrap()));
    // No file is read again. So a call costs at most a small multiple of the time for one stat(2)
    // of each file.
    assert!(stamp < 20 * walk, "{stamp:?} {walk:?}");
    assert!(list < 40 * walk, "{list:?} {walk:?}");
}
