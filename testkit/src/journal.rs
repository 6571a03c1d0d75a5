//! A receiver that replaces systemd's journal or syslog, in a mount namespace with separate `/run`,
//! `/dev` and `/etc`.

use super::programs::{program, run};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::{env, iter};
use tempfile::TempDir;

pub const JOURNAL: &str = "/run/systemd/journal/socket";
pub const SYSLOG: &str = "/dev/log";
const INSIDE: &str = "DEVID_TEST_NAMESPACE";
/// The exit code on a system that does not permit mounts.
const NO_MOUNTS: i32 = 77;

/// The script that starts in the namespace. `$0` is a folder; the other arguments are the program
/// to run.
const SCRIPT: &str = r#"
    trap 'exit 77' EXIT
    mount -t tmpfs none "$0"
    mkdir -p "$0/dev/shm" "$0/dev/pts" "$0/etc" "$0/work" "$0/run"
    for node in null zero full random urandom tty; do
        touch "$0/dev/$node"
        mount --bind "/dev/$node" "$0/dev/$node"
    done
    mount --rbind /dev/shm "$0/dev/shm"
    mount --rbind /dev/pts "$0/dev/pts"
    mount --rbind "$0/dev" /dev
    mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/work" /etc
    mkdir -p /etc/devid-pkcs11
    mount --bind "$0/run" /run
    mkdir -p /run/systemd/journal
    trap - EXIT
    exec "$@"
"#;

/// The fields of a received line, by name. A syslog line has only the field `MESSAGE`.
pub type Fields = BTreeMap<String, String>;

/// A socket that receives lines in place of the journal or syslog.
pub struct Receiver(UnixDatagram);

impl Receiver {
    #[track_caller]
    pub fn new(path: &str) -> Receiver {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("a socket");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(path, open).expect("permissions");
        socket.set_nonblocking(true).expect("a flag");
        Receiver(socket)
    }

    /// Returns all lines so far. A sender has sent its line when its call returns.
    #[track_caller]
    pub fn lines(&self) -> Vec<Fields> {
        iter::from_fn(|| self.next()).collect()
    }

    /// Returns the only line that the socket has received.
    #[track_caller]
    pub fn line(&self) -> Fields {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.remove(0)
    }

    fn next(&self) -> Option<Fields> {
        let mut bytes = vec![0; 1 << 16];
        let length = match self.0.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        };
        let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
        if text.starts_with('<') {
            return Some([("MESSAGE".to_owned(), text)].into());
        }
        Some(parsed(&text))
    }
}

/// Parses the native protocol of the journal. Names must be unique, and values must have no line
/// ends.
fn parsed(text: &str) -> Fields {
    let mut fields = Fields::new();
    for line in text.lines() {
        let (name, value) = line.split_once('=').expect("NAME=value");
        let is_plain = |one: char| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_';
        assert!(name.chars().all(is_plain) && name.len() <= 64, "{name}");
        let before = fields.insert(name.to_owned(), value.to_owned());
        assert_eq!(before, None, "{name} occurs twice in {text}");
    }
    fields
}

/// Returns a folder for the namespace, and the command that runs a program in it.
fn namespace(arguments: impl IntoIterator<Item = OsString>) -> (TempDir, Command) {
    let folder = TempDir::new().expect("a temporary folder");
    let mut command = program("unshare");
    // SAFETY: The system call has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "sh", "-euc", SCRIPT])
        .arg(folder.path());
    command.args(arguments);
    (folder, command)
}

/// Returns true if this process has its own `/run`, `/dev` and `/etc`. Otherwise runs the test in
/// another process with these folders. Skips the test if the system does not permit mounts.
#[track_caller]
pub fn inside() -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let here = env::current_exe().expect("this program has a path");
    let (_folder, mut command) = namespace(iter::once(here.into()).chain(env::args_os().skip(1)));
    let said = run(command.env(INSIDE, "yes"));
    if said.status.code() == Some(NO_MOUNTS) {
        println!("skipped: this system does not permit mounts: {}", said.err);
        return false;
    }
    assert!(said.text().contains("1 passed"), "{said}");
    false
}

/// Enables audit lines in the system's configuration file. No environment variable names this file.
pub fn ask_for_audit(more: &str) {
    let file = Path::new("/etc/devid-pkcs11/config.toml");
    fs::write(
        file,
        format!("{more}[log]\nlevel = \"off\"\naudit = true\n"),
    )
    .expect("a file");
}

/// Returns the number in a field of a line; 0 if the field is missing.
pub fn number(line: &Fields, name: &str) -> u64 {
    let number = line.get(name).map(|number| number.parse::<u64>());
    number.map_or(0, |number| number.expect("a number"))
}

/// Fails unless a line has these fields.
#[track_caller]
pub fn tells(line: &Fields, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let told = line.get(*name).map(AsRef::<OsStr>::as_ref);
        assert_eq!(told, Some(OsStr::new(value)), "{name} in {line:#?}");
    }
}
