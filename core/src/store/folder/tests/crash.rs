//! Tests with writers that are killed, that wait for each other, or that have no write permission.
//!
//! The other processes run this test binary. An environment variable makes the binary a writer.

use super::*;
use rustix::fs::{FlockOperation, flock};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// The environment variable with the key folder of the other process.
const PLACE: &str = "DEVID_TEST_FOLDER";
const READY: &str = "ready";
const VALUE: usize = 6_000;

/// Returns an object that is too large for a single write(2). The object is complete if all bytes
/// are equal.
fn large(byte: u8) -> EntryContent {
    EntryContent::Data(Data {
        value: vec![byte; VALUE],
        ..data()
    })
}

fn is_whole(content: &EntryContent) -> bool {
    match content {
        EntryContent::Data(data) => {
            data.value.len() == VALUE && data.value.iter().all(|&byte| byte == data.value[0])
        }
        _ => false,
    }
}

fn leftovers(folder: &KeyFolder) -> usize {
    let files = all_files(folder);
    files
        .iter()
        .filter(|file| file.starts_with(".new-"))
        .count()
}

/// Returns a command that runs one ignored test of this binary.
fn other_process(test: &str, folder: &KeyFolder) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "--quiet"]);
    command.arg(format!("store::folder::tests::crash::{test}"));
    command.env(PLACE, folder.path()).stdout(Stdio::piped());
    command
}

fn given_folder() -> Option<KeyFolder> {
    std::env::var_os(PLACE).map(|path| KeyFolder::new(path.into()))
}

fn started(mut command: Command) -> Child {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == READY);
    assert!(ready, "the other process did not begin");
    child
}

fn say_ready() {
    let mut out = std::io::stdout();
    out.write_all(format!("\n{READY}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn random(below: u64) -> u64 {
    let digits = crate::system::random_digits().unwrap();
    u64::from_str_radix(&digits, 16).unwrap() % below
}

#[test]
#[ignore = "the killed process of another test"]
fn writes_until_it_is_killed() {
    let Some(folder) = given_folder() else {
        return;
    };
    say_ready();
    for round in 0_u64.. {
        let listed = names(&folder);
        // The first object is changed; the other objects are added and removed.
        let result = match (round % 3, &listed[..]) {
            (1, [name, ..]) => folder
                .change::<FolderError>(name, |_| Ok(Some(large(round as u8))))
                .map(|_| ()),
            (2, [_, name, _, ..]) => folder.remove(name),
            _ => folder.add(large(round as u8)).map(|_| ()),
        };
        result.unwrap();
    }
}

#[test]
fn a_killed_writer_leaves_whole_objects() {
    let (_around, folder) = filled(1);
    folder
        .change::<FolderError>("data-00000", |_| Ok(Some(large(0))))
        .unwrap();
    let (mut rounds, mut left, mut changed) = (0, 0, 0);
    let mut before = folder.list().unwrap();
    // On a busy machine many writers are killed before they begin to write.
    while rounds < 200 || left < 5 || changed < 50 {
        let mut child = started(other_process("writes_until_it_is_killed", &folder));
        std::thread::sleep(Duration::from_micros(random(30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let listing = folder.list().unwrap();
        assert_eq!(listing.refused, []);
        assert_eq!(listing.entries[0].name, "data-00000");
        assert!(listing.entries.iter().all(|entry| is_whole(&entry.content)));
        assert!(leftovers(&folder) <= 1);
        rounds += 1;
        left += leftovers(&folder);
        changed += usize::from(listing.stamp != before.stamp);
        before = listing;
        assert!(rounds < 5_000, "killed at no interesting moment");
    }
    fs::write(folder.path().join(".new-1-0123456789abcdef"), "left").unwrap();
    folder.remove(&before.entries[0].name).unwrap();
    assert_eq!(
        leftovers(&folder),
        0,
        "the next writer removes what was left"
    );
}

#[test]
#[ignore = "the other writer of another test"]
fn counts_to_fifty() {
    if let Some(folder) = given_folder() {
        say_ready();
        count(&folder, 50);
    }
}

/// Increments the number in the folder `times` times.
fn count(folder: &KeyFolder, times: usize) {
    for _ in 0..times {
        let counted = folder.change::<FolderError>("data-00000", |current| {
            let EntryContent::Data(data) = &current.content else {
                panic!("{current:?}");
            };
            let number: usize = str::from_utf8(&data.value).unwrap().parse().unwrap();
            Ok(Some(numbered(number + 1)))
        });
        counted.unwrap();
    }
}

#[test]
fn writers_at_once_lose_nothing() {
    let (_around, folder) = filled(1);
    let mut process = started(other_process("counts_to_fifty", &folder));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| count(&folder, 25));
        }
        scope.spawn(|| (0..25).for_each(|number| drop(folder.add(numbered(number)).unwrap())));
        let reader = scope.spawn(|| {
            (0..100).all(|_| {
                let listing = folder.list().unwrap();
                listing.refused.is_empty() && listing.entries[0].name == "data-00000"
            })
        });
        assert!(reader.join().unwrap());
    });
    assert!(process.wait().unwrap().success());
    let listing = folder.list().unwrap();
    assert_eq!(listing.entries.len(), 1 + 25);
    assert_eq!(listing.entries[0].content, numbered(100));
    assert_eq!(leftovers(&folder), 0);
}

#[test]
fn a_lock_that_is_never_given_up_is_not_waited_for_without_end() {
    let (_around, folder) = filled(1);
    let folder = KeyFolder {
        patience: Duration::from_millis(20),
        ..folder
    };
    let lock = fs::File::create(folder.path().join(LOCK_FILE)).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let Err(FolderError::Locked(who)) = folder.add(numbered(1)) else {
        panic!("there is a lock");
    };
    assert!(
        who.contains(&format!("process {}", std::process::id())),
        "{who}"
    );
    assert_eq!(names(&folder), ["data-00000"], "readers take no lock");
    drop(lock);
    folder.add(numbered(1)).unwrap();
}

/// Runs one ignored test of this binary with its own mount on the folder. Returns `false` if this
/// system permits no mount.
fn on_a_mount(test: &str, folder: &KeyFolder, mount: &str) -> bool {
    let process = other_process(test, folder);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    let script = format!("cd / && {mount} || exit 77; exec \"$@\"");
    command
        .args([&script, "sh"])
        .arg(process.get_program())
        .args(process.get_args());
    command.env(PLACE, folder.path()).stdout(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => true,
        Ok(status) if matches!(status.code(), Some(1 | 77)) => false,
        Err(_) => false,
        Ok(status) => panic!("{test}: {status}"),
    }
}

#[test]
#[ignore = "needs the mount that another test makes"]
fn cannot_write_but_reads() {
    let Some(folder) = given_folder() else {
        return;
    };
    let path = folder.path();
    assert_eq!(names(&folder), ["data-00000"]);
    let is_read_only = |fault: FolderError| match fault {
        FolderError::ReadOnly(place) => assert!(place.starts_with(path), "{}", place.display()),
        other => panic!("{other}"),
    };
    let changed = folder.change::<FolderError>("data-00000", |_| Ok(Some(numbered(1))));
    is_read_only(changed.unwrap_err());
    is_read_only(folder.remove("data-00000").unwrap_err());
    is_read_only(folder.add(numbered(1)).unwrap_err());
    assert_eq!(names(&folder), ["data-00000"]);
}

#[test]
fn a_read_only_file_system_is_read() {
    const READ_ONLY: &str = r#"mount --bind "$DEVID_TEST_FOLDER" "$DEVID_TEST_FOLDER" &&
        mount -o remount,bind,ro "$DEVID_TEST_FOLDER""#;
    let (_around, folder) = filled(1);
    if on_a_mount("cannot_write_but_reads", &folder, READ_ONLY) {
        fs::write(folder.path().join(LOCK_FILE), "").unwrap();
        assert!(on_a_mount("cannot_write_but_reads", &folder, READ_ONLY));
    }
}

#[test]
#[ignore = "needs the mount that another test makes"]
fn writes_until_there_is_no_room() {
    let Some(folder) = given_folder() else {
        return;
    };
    let fault = (0..100).find_map(|_| folder.add(large(1)).err()).unwrap();
    assert!(matches!(fault, FolderError::NoSpace(_)), "{fault}");
    let listing = folder.list().unwrap();
    assert!(listing.entries.iter().all(|entry| is_whole(&entry.content)));
    assert_eq!((leftovers(&folder), listing.refused), (0, vec![]));
    folder.remove(&listing.entries[0].name).unwrap();
    folder.add(large(2)).unwrap();
}

#[test]
fn a_full_disk_costs_nothing_that_was_there() {
    const SMALL: &str = r#"mount -t tmpfs -o size=128k,mode=750 tmpfs "$DEVID_TEST_FOLDER""#;
    let (_around, folder) = filled(0);
    on_a_mount("writes_until_there_is_no_room", &folder, SMALL);
}
