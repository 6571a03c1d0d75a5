//! Findings for users who are not root, and the effect of their commands when root or that user
//! copies them.

use crate::device::mending::{assert_gone, found, mend, named};
use crate::device::{Device, programs};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

const PROVISION: &[&str] = &["provision", "--wait", "0"];
const STRANGER: u32 = 23456;
/// Without an account.
const USER: u32 = 12345;
/// With one.
const NOBODY: u32 = 65534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn bits(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A command of this user, of these groups beside its own.
fn as_user(user: u32, groups: &[u32]) -> Command {
    let mut command = programs::program("setpriv");
    command.arg(format!("--reuid={user}"));
    command.arg(format!("--regid={user}"));
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    match groups.is_empty() {
        true => command.arg("--clear-groups"),
        false => command.arg(format!("--groups={}", groups.join(","))),
    };
    command
}

/// The findings of the doctor for this user.
fn findings(device: &Device, user: u32, groups: &[u32]) -> Vec<Value> {
    mode(device.home.folder(), 0o755);
    let mut command = as_user(user, groups);
    command.args([env!("CARGO_BIN_EXE_devid"), "doctor", "--json"]);
    let said = programs::run(device.home.settle(&mut command));
    let all: Value = serde_json::from_slice(&said.out).unwrap_or_else(|_| panic!("{said}"));
    all.as_array().unwrap().clone()
}

#[track_caller]
fn one(all: &[Value], id: &str) -> Value {
    let mut all = all.iter().filter(|one| one["id"] == id);
    all.next().unwrap_or_else(|| panic!("{id}")).clone()
}

fn has(all: &[Value], id: &str) -> bool {
    all.iter().any(|one| one["id"] == id)
}

/// The commands for sh(1), without those that would change the accounts of this machine.
fn commands(all: &[Value]) -> Vec<String> {
    let commands = all.iter().filter_map(|one| one["command"].as_str());
    commands.map(str::to_owned).collect()
}

fn tss() -> u32 {
    let said = programs::run(programs::program("getent").args(["group", "tss"])).ok();
    let text = said.text();
    let number = text.split(':').nth(2);
    number
        .unwrap()
        .parse()
        .expect("the packages of the TPM make the group tss")
}

fn token(device: &Device, name: &str, folder: &Path) {
    let more = format!("[[token]]\nname = {name:?}\npath = {folder:?}\nallow_file_keys = true\n");
    device.home.write("config.toml", more);
}

/// A user who cannot look into a folder cannot know who may replace its files.
#[test]
fn nothing_is_said_for_root_about_what_is_behind_a_closed_folder() {
    let device = Device::without_tpm();
    let victim = device.home.write("victim", "root's own");
    mode(&victim, 0o755);
    let app = device.path("app");
    let keys = app.join("keys");
    fs::create_dir(&app).unwrap();
    symlink(&victim, &keys).unwrap();
    chown(&app, Some(STRANGER), Some(STRANGER)).expect("the tests run as root");
    mode(&app, 0o700);
    token(&device, "theirs", &keys);
    for user in [USER, NOBODY, 0] {
        let all = findings(&device, user, &[]);
        let mentions = |one: &&Value| one.to_string().contains(keys.to_str().unwrap());
        let about: Vec<&Value> = all.iter().filter(mentions).collect();
        assert!(!about.is_empty(), "{user}: {all:#?}");
        for one in about {
            assert!(one["command"].is_null(), "{user}: {one:#}");
        }
    }
    let all = findings(&device, USER, &[]);
    let closed = one(&all, "keys.unreadable");
    let mend = closed["mend"].as_str().unwrap();
    assert!(
        mend.contains("root") && mend.contains("23456"),
        "{closed:#}"
    );
    assert_eq!(bits(&victim), 0o755);
}

/// As packages install it: who is of no group is put into one, and no mode is changed.
#[test]
fn who_is_not_of_the_group_is_put_into_it() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let (state, keys) = (device.path("state"), device.path("state/devid"));
    let tss = tss();
    for (path, bits) in [(&state, 0o2750), (&keys, 0o2770)] {
        chown(path, Some(0), Some(tss)).unwrap();
        mode(path, bits);
    }
    let all = findings(&device, NOBODY, &[]);
    let closed = one(&all, "keys.unreadable");
    assert_eq!(closed["command"], "usermod -aG tss nobody", "{closed:#}");
    let unknown = one(&all, "identity.unknown");
    assert_eq!(unknown["state"], "note", "{unknown:#}");
    assert_eq!(unknown["command"], "usermod -aG tss nobody", "{unknown:#}");
    for command in commands(&all) {
        let harm = ["provision", "chmod", "chown"];
        assert!(!harm.iter().any(|one| command.contains(one)), "{command}");
    }
    let all = findings(&device, NOBODY, &[tss]);
    assert!(!has(&all, "keys.unreadable"), "{all:#?}");
    // Without an account, and of a group that gives who knows what else.
    let all = findings(&device, USER, &[]);
    assert!(one(&all, "keys.unreadable")["command"].is_null());
    chown(&state, None, Some(0)).unwrap();
    mode(&state, 0o2750);
    let all = findings(&device, NOBODY, &[]);
    assert!(one(&all, "keys.unreadable")["command"].is_null());
    assert_eq!((bits(&state), bits(&keys)), (0o2750, 0o2770));
    // A file alone.
    mode(&state, 0o2755);
    mode(&keys, 0o2755);
    let all = findings(&device, NOBODY, &[]);
    assert!(one(&all, "keys.file")["command"].is_null(), "root's group");
    for entry in fs::read_dir(&keys).unwrap() {
        chown(entry.unwrap().path(), None, Some(tss)).unwrap();
    }
    let all = findings(&device, NOBODY, &[]);
    let file = one(&all, "keys.file");
    assert_eq!(file["command"], "usermod -aG tss nobody", "{file:#}");
}

/// If only root may use the remedy, the doctor says that it is for root.
#[test]
fn commands_for_root_say_so() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    mode(&device.path("state"), 0o755);
    mode(&device.path("state/devid"), 0o755);
    fs::remove_file(device.path("state/tpm_in_use")).unwrap();
    for one in findings(&device, NOBODY, &[]) {
        if one["command"].is_string() {
            assert!(one["mend"].as_str().unwrap().contains("root"), "{one:#}");
        }
    }
}

#[test]
fn a_users_own_folder_stays_his() {
    let device = Device::without_tpm();
    let keys = device.path("mine");
    fs::create_dir(&keys).unwrap();
    chown(&keys, Some(USER), Some(USER)).unwrap();
    token(&device, "mine", &keys);
    for copied_by in [USER, 0] {
        mode(&keys, 0o777);
        let all = findings(&device, USER, &[]);
        let open = one(&all, "keys.unreadable");
        let command = open["command"].as_str().unwrap();
        let mut shell = as_user(copied_by, &[]);
        programs::run(shell.args(["sh", "-ec", command])).ok();
        let about = fs::metadata(&keys).unwrap();
        assert_eq!((about.uid(), bits(&keys)), (USER, 0o775));
        assert!(!has(&findings(&device, USER, &[]), "keys.unreadable"));
    }
    // Closed by its owner to himself.
    mode(&keys, 0o000);
    let all = findings(&device, USER, &[]);
    let closed = one(&all, "keys.unreadable");
    let command = closed["command"].as_str().unwrap();
    programs::run(as_user(USER, &[]).args(["sh", "-ec", command])).ok();
    assert!(!has(&findings(&device, USER, &[]), "keys.unreadable"));
}

/// A private key in clear is for its owner alone.
#[test]
fn a_clear_key_that_others_may_read_is_closed() {
    let device = Device::without_tpm();
    let keys = device.path("files");
    fs::create_dir(&keys).unwrap();
    chown(&keys, None, Some(STRANGER)).unwrap();
    mode(&keys, 0o2750);
    token(&device, "files", &keys);
    let file = keys.join("web.pem");
    let mut openssl = programs::program("openssl");
    openssl.args(["genpkey", "-algorithm", "EC", "-pkeyopt"]);
    openssl.args(["ec_paramgen_curve:P-256", "-out"]).arg(&file);
    programs::run(&mut openssl).ok();
    for (owner, open) in [
        (0, 0o644),
        (0, 0o640),
        (0, 0o666),
        (USER, 0o600),
        (USER, 0o646),
    ] {
        chown(&file, Some(owner), Some(STRANGER)).unwrap();
        mode(&file, open);
        mend(&device, "keys.file");
        assert_eq!(bits(&file), 0o600, "{open:o}");
        assert_eq!(fs::metadata(&file).unwrap().uid(), 0);
    }
}

/// No existing file is overwritten.
#[test]
fn a_file_without_certificate_is_not_written_over() {
    let device = Device::without_tpm();
    let file = device.home.write("trust/ca.pem", "-----BEGIN NOTES-----\n");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/testdata/root.pem");
    device.home.write("CA.pem", fs::read(root).unwrap());
    mend(&device, "trust.none");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "-----BEGIN NOTES-----\n"
    );
    assert!(device.path("trust/ca-2.pem").exists());
    fs::remove_dir_all(device.path("trust")).unwrap();
    mend(&device, "trust.none");
    assert!(device.path("trust/ca.pem").exists());
}

fn with_pins(device: &Device) {
    let identity = "[[identity]]\nhandle = 0x81020000\nauth = \"pin\"\n";
    device.home.write("config.toml", identity);
}

#[test]
fn a_lock_that_the_next_login_makes_is_not_missed() {
    let device = Device::blank();
    with_pins(&device);
    let lock = device.path("run/lock");
    fs::remove_dir_all(&lock).ok();
    fs::create_dir(&lock).unwrap();
    mode(&lock, 0o700);
    for name in ["slots", "keep"] {
        fs::write(lock.join(name), "").unwrap();
    }
    assert_gone(&device, "lock.none");
    // As a user, with a folder of his own.
    chown(&lock, Some(USER), Some(USER)).unwrap();
    chown(device.path("run"), Some(USER), Some(USER)).unwrap();
    let all = findings(&device, USER, &[]);
    assert!(!has(&all, "lock.none"), "{all:#?}");
    let own = one(&all, "lock.own");
    assert!(own["text"].as_str().unwrap().contains("lockout"), "{own:#}");
    fs::remove_dir_all(&lock).unwrap();
    let all = findings(&device, USER, &[]);
    assert!(!has(&all, "lock.none"), "{all:#?}");
    assert!(!lock.exists());
    // A user without PIN gets no finding about PINs.
    device.home.write("config.toml", "");
    assert!(!has(&findings(&device, USER, &[]), "lock.own"));
}

#[test]
fn who_may_not_use_the_lock_is_told_who_may() {
    let device = Device::blank();
    with_pins(&device);
    let (lock, tss) = (device.path("run/lock"), tss());
    fs::remove_dir_all(&lock).ok();
    fs::create_dir(&lock).unwrap();
    fs::write(lock.join("pin"), "").unwrap();
    for (path, bits) in [(&lock, 0o750), (&lock.join("pin"), 0o640)] {
        chown(path, None, Some(tss)).unwrap();
        mode(path, bits);
    }
    let none = one(&findings(&device, NOBODY, &[]), "lock.none");
    assert_eq!(none["command"], "usermod -aG tss nobody", "{none:#}");
    assert!(!has(&findings(&device, NOBODY, &[tss]), "lock.none"));
    // Only the file.
    mode(&lock, 0o755);
    let none = one(&findings(&device, NOBODY, &[]), "lock.none");
    assert_eq!(none["command"], "usermod -aG tss nobody", "{none:#}");
    // A run folder in which this user can make no folder, and which no other command makes.
    fs::remove_dir_all(&lock).unwrap();
    let none = one(&findings(&device, NOBODY, &[]), "lock.none");
    assert!(none["command"].is_null(), "{none:#}");
    let mend = none["mend"].as_str().unwrap();
    assert!(mend.contains("DEVID_PKCS11_RUN"), "{none:#}");
}

/// Whoever may read the node may hold its lock.
#[test]
fn a_node_that_outsiders_may_read_is_named() {
    let device = Device::without_tpm();
    let node = device.path("tpmrm9");
    let made = programs::run(programs::program("mknod").arg(&node).args(["c", "1", "3"]));
    if !made.status.success() || fs::File::open(&node).is_err() {
        return; // no device nodes in this container
    }
    let device = Device {
        tpm: None,
        home: device.home.with_tcti(&format!("device:{}", node.display())),
    };
    for (open, sound) in [(0o664, 0o660), (0o640, 0o600), (0o644, 0o600)] {
        mode(&node, open);
        let one = found(&device, "lock.outsiders");
        assert_eq!(one["state"], "note", "{one:#}");
        mend(&device, "lock.outsiders");
        assert_eq!(bits(&node), sound);
    }
    mode(&node, 0o666);
    assert_eq!(named(&device, "lock.outsiders").len(), 0, "all may use it");
}

/// The command that cancels a reset names the file as one shell word, or there is no command.
#[test]
fn a_reset_is_taken_back_by_what_is_said() {
    let mut device = Device::blank();
    device.ends(0, PROVISION);
    let home = device.path("");
    for (tool, words) in [
        ("tpm2_evictcontrol", "-C o -c 0x81000080"),
        ("tpm2_createprimary", "-C o -c primary"),
        ("tpm2_evictcontrol", "-C o -c primary 0x81000080"),
    ] {
        let mut command = device.tpm().tool(tool);
        programs::run(command.args(words.split(' ')).current_dir(&home)).ok();
    }
    let state = device.path("it's; mine");
    fs::rename(device.path("state"), &state).unwrap();
    let reset = |device: &Device| {
        let mut command = device.command(&["reset", "--factory", "--yes"]);
        programs::run(command.env("DEVID_PKCS11_STATE", &state))
    };
    let said = reset(&device);
    assert_eq!(said.status.code(), Some(6), "{said}");
    let (_, command) = said
        .err
        .rsplit_once("To cancel the reset: ")
        .expect("a command");
    programs::run(Command::new("sh").args(["-ec", command])).ok();
    assert!(!state.join("factory-reset").exists());
    chown(&state, None, Some(STRANGER)).unwrap();
    mode(&state, 0o770);
    let said = reset(&device);
    assert!(
        !said.err.contains("rm ") || said.err.contains("chmod"),
        "{said}"
    );
}

/// Whoever may make keys chooses their labels.
#[test]
fn a_label_is_one_word_of_what_is_said() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    for label in ["a;touch victim", "$(touch victim)", "it's", "-rf"] {
        device.ends(0, &["key", "generate", "--", label]);
        for words in [
            ["verify", "--", label].as_slice(),
            &["key", "generate", "--", label],
        ] {
            let said = device.devid(words);
            assert!(!said.status.success(), "{said}");
            let (_, command) = said
                .err
                .split_once("devid csr ")
                .or_else(|| said.err.split_once("devid key delete "))
                .expect("a command");
            let command = command.split(" makes").next().unwrap();
            let mut shell = Command::new("sh");
            shell.args(["-ec", &format!("printf '%s\\n' {command}")]);
            let printed = programs::run(shell.current_dir(device.home.folder())).ok();
            let printed = printed.text();
            let named = printed.lines().last().unwrap();
            let named = named.strip_prefix("devid/").unwrap_or(named);
            assert_eq!(named, label, "{said}");
        }
    }
    assert!(!device.path("victim").exists());
}
