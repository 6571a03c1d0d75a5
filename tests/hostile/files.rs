//! Unexpected files and sockets: FIFOs, devices, unreadable folders, a listener that accepts no
//! connection. A host must neither hang nor crash, and the log must name the problem. A child
//! process with limits makes the scan, so that a failure ends only the child.

use cryptoki_sys::*;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::PROFILES;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::module::{Opened, identity, loaded, ulong};
use testkit::raw::{Code, Raw};
use testkit::story::await_some;
use testkit::tpm::{Place, Swtpm};

once!(
    a_fifo_in_the_chain_folder,
    a_device_in_the_chain_folder,
    what_is_left_out_is_in_the_log,
    a_fifo_as_identity_certificate,
    a_fifo_as_configuration,
    a_fifo_as_drop_in,
    a_fifo_as_log_without_reader,
    a_fifo_as_log_that_nobody_empties,
    a_fifo_as_log_whose_reader_comes_and_goes,
    a_socket_that_takes_nobody,
    a_socket_that_takes_nobody_any_more,
    a_chain_folder_that_may_not_be_read,
    an_unknown_setting_is_told_where_the_file_says,
    an_unknown_setting_in_a_drop_in_is_told_there_too,
);

fn fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a terminated string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0, "mkfifo");
}

/// In a child: it may not take the machine's memory, and dies of SIGPIPE as a program in C does.
fn bounded() {
    let bound = libc::rlimit {
        rlim_cur: 2 << 30,
        rlim_max: 2 << 30,
    };
    // SAFETY: plain system calls on this process, which is a child with one thread.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const bound), 0);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// In a child, an ordinary life: all objects are found, and a signature is made.
fn lives(raw: &Raw) {
    bounded();
    raw.initialize().unwrap();
    let slots = raw.slots(true).unwrap();
    let session = raw.open(slots[0], CKF_SERIAL_SESSION).unwrap();
    let key = (CKA_CLASS, CKO_PRIVATE_KEY.to_ne_bytes().to_vec());
    let found = raw.find(session, &[key]).unwrap();
    raw.sign_init(session, CKM_ECDSA, found[0]).unwrap();
    raw.sign(session, &[1; 32]).expect("a signature");
    raw.finalize().unwrap();
    let peak = peak_memory();
    assert!(peak < 256 << 10, "{peak} KiB of memory");
}

/// The most memory that this process ever held, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("VmHWM")
}

/// In a child: C_Initialize works, and no token is shown.
fn shows_no_token(raw: &Raw) {
    bounded();
    raw.initialize().unwrap();
    assert!(!raw.slots(false).unwrap().is_empty());
    assert_eq!(identity(raw), None);
    raw.finalize().unwrap();
}

fn a_fifo_in_the_chain_folder() {
    beside_the_root(fifo);
}

/// A file without end.
fn a_device_in_the_chain_folder() {
    beside_the_root(|path| symlink("/dev/zero", path).unwrap());
}

/// The object of `make` is skipped, and later files are read.
fn beside_the_root(make: impl FnOnce(&Path)) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    make(&home.path("chain/a.pem"));
    home.write("chain/root.pem", fs::read(identity.root()).unwrap());
    let raw = loaded(&home);
    Forked::new(|| lives(&raw)).succeeds();
    home.log_says(&["chain/a.pem", "regular file"]);
    home.log_says(&[&format!("token idev-id with {} objects", 5 + PROFILES)]);
}

/// No file is left out without a word, and each is named once as long as nothing changes.
fn what_is_left_out_is_in_the_log() {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let root = fs::read(identity.root()).unwrap();
    home.write("chain/root.CRT", &root);
    let links = home.path("chain/gone.pem");
    symlink(home.path("later"), &links).unwrap();
    fs::create_dir(home.path("chain/folder.cer")).unwrap();
    fs::create_dir_all(home.path("state/devid")).unwrap();
    home.write("chain/root.txt", &root);
    home.write("chain/root.pem~", &root);
    home.write("config.d/10-log.conf", "nonsense");
    home.write("state/devid/web.tpm", "nonsense");
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let with_root = format!("token idev-id with {} objects", 5 + PROFILES);
    // No further scan happens while nothing changes.
    for _ in 0..3 {
        assert!(!raw.slots(true).unwrap().is_empty());
    }
    home.log_says(&[&with_root]);
    for (path, why) in [
        ("chain/gone.pem", "to a missing file"),
        ("chain/folder.cer", "not a regular file"),
        ("chain/root.txt", "does not end in .pem, .crt, .cer or .der"),
        ("config.d/10-log.conf", "does not end in .toml"),
        ("state/devid/web.tpm", "does not end in .pem"),
    ] {
        let path = home.path(path).display().to_string();
        let log = home.log();
        let lines = log.lines();
        let said = lines.filter(|line| line.contains(&format!("{path}: ")) && line.contains(why));
        assert_eq!(said.count(), 1, "{path}");
    }
    let leftover = home.path("chain/root.pem~").display().to_string();
    let log = home.log();
    let mut lines = log.lines();
    assert!(!lines.any(|line| line.contains("WARN") && line.contains(&leftover)));
    // The target of the link appears, and is another certificate.
    let certificates = || {
        let session = raw.open(raw.slots(true).unwrap()[0], CKF_SERIAL_SESSION);
        let session = session.unwrap();
        let class = [(CKA_CLASS, ulong(CKO_CERTIFICATE))];
        let found = raw.find(session, &class).unwrap().len();
        raw.close(session).unwrap();
        found
    };
    let before = certificates();
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/testdata/root.pem");
    home.write("later", fs::read(other).unwrap());
    assert_eq!(certificates(), before + 1);
}

fn a_fifo_as_identity_certificate() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let certificate = home.path("certificate.pem");
    fifo(&certificate);
    let text = format!(
        "[[identity]]\ncertificate = \"{}\"\n",
        certificate.display()
    );
    home.write("config.toml", text);
    let raw = loaded(&home);
    Forked::new(|| lives(&raw)).succeeds();
    home.log_says(&["certificate.pem", "regular file"]);
}

fn a_fifo_as_configuration() {
    let home = Home::new("");
    fs::remove_file(home.path("config.toml")).unwrap();
    fifo(&home.path("config.toml"));
    let raw = loaded(&home);
    Forked::new(|| shows_no_token(&raw)).succeeds();
    home.log_says(&["config.toml", "regular file"]);
}

fn a_fifo_as_drop_in() {
    let home = Home::new("");
    fifo(&home.path("config.d/10-site.toml"));
    let raw = loaded(&home);
    Forked::new(|| shows_no_token(&raw)).succeeds();
    home.log_says(&["10-site.toml", "regular file"]);
}

/// The log as a FIFO; gone before anybody reads the log to show it.
struct LogFifo(PathBuf);

impl LogFifo {
    fn new(home: &Home) -> LogFifo {
        let path = home.path("log");
        fifo(&path);
        LogFifo(path)
    }

    fn reader(&self) -> File {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(&self.0).expect("the FIFO")
    }
}

impl Drop for LogFifo {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn a_fifo_as_log_without_reader() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    let _fifo = LogFifo::new(&home);
    Forked::new(|| lives(&raw)).succeeds();
}

fn a_fifo_as_log_that_nobody_empties() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    let fifo = LogFifo::new(&home);
    let reader = fifo.reader();
    // SAFETY: a descriptor of ours; it holds a page then, which is a few dozen lines.
    let room = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(room, 4096);
    let child = Forked::new(|| {
        (0..40).for_each(|_| lives(&raw));
    });
    child.succeeds();
}

/// Whatever the module has opened may be without a reader when it writes.
fn a_fifo_as_log_whose_reader_comes_and_goes() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    let fifo = LogFifo::new(&home);
    let child = Forked::new(|| (0..20).for_each(|_| lives(&raw)));
    while child.is_running() {
        let _some = fifo.reader().read(&mut [0; 64]);
    }
    child.succeeds();
}

/// Connections that fill the queue of the listener at `path`: the next one would wait.
fn fill(path: &Path) -> Vec<OwnedFd> {
    let mut queue = Vec::new();
    // SAFETY: plain system calls; the address is zeroed, then has a terminated path, and each
    // descriptor gets one owner.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap();
        let bytes = path.as_os_str().as_bytes();
        assert!(bytes.len() < address.sun_path.len(), "a path that fits");
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        let size = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        for _ in 0..10_000 {
            let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let fd = libc::socket(libc::AF_UNIX, kind, 0);
            assert!(fd >= 0, "socket");
            queue.push(OwnedFd::from_raw_fd(fd));
            if libc::connect(fd, (&raw const address).cast(), size) != 0 {
                return queue;
            }
        }
    }
    panic!("the queue is never full");
}

fn a_socket_that_takes_nobody() {
    let home = Home::new("");
    let path = home.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: a listener of ours; this only makes its queue shorter.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    let _queue = fill(&path);
    let tcti = format!("tcti = \"swtpm:path={}\"\n", path.display());
    home.write("config.toml", tcti + "timeout_ms = 1000\n");
    let raw = loaded(&home);
    let child = Forked::new(|| {
        shows_no_token(&raw);
    });
    child.succeeds();
    home.log_says(&["slot 0", "no token", "1000 ms"]);
}

fn a_socket_that_takes_nobody_any_more() {
    let (tpm, _identity) = Swtpm::manufactured_on_unix_socket();
    let Place::Unix(path) = tpm.place().clone() else {
        panic!("a unix socket")
    };
    let home = Home::new(&tpm.tcti());
    home.write("config.toml", "timeout_ms = 1000\n");
    let module = Opened::new(&home);
    let key = module.key();
    tpm.pause();
    let queue = fill(&path);
    let child = Forked::new(|| {
        // As long as the TPM is silent only the limit can end the call.
        let failed = module.sign(CKM_ECDSA, key, &[1; 32]);
        assert_eq!(failed, Err(Code(CKR_DEVICE_ERROR)));
        let known = module.raw.find(module.session, &[]).unwrap();
        assert_eq!(known.len(), 4 + PROFILES, "what is known needs no TPM");
    });
    child.succeeds();
    home.log_says(&["1000 ms"]);
    drop(queue);
    tpm.go_on();
    await_some("a signature", Duration::from_secs(60), || {
        module.sign(CKM_ECDSA, key, &[1; 32]).ok()
    });
}

fn a_chain_folder_that_may_not_be_read() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    mode(home.folder(), 0o755).unwrap();
    mode(&home.write("log", ""), 0o666).unwrap();
    mode(&home.path("chain"), 0).unwrap();
    // Root could read everything: the look is a child's that is nobody.
    let child = Forked::new(|| {
        // SAFETY: plain system calls; the child ends with this closure.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::setresgid(65534, 65534, 65534), 0);
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
            }
        }
        assert!(fs::read_dir(home.path("chain")).is_err());
        lives(&raw);
    });
    child.succeeds();
    mode(&home.path("chain"), 0o700).unwrap();
    let chain = home.path("chain");
    home.log_says(&[chain.to_str().unwrap(), "permission denied"]);
}

/// The log's own settings hold though another one is wrong.
fn an_unknown_setting_is_told_where_the_file_says() {
    is_told("config.toml", "config.toml:1");
}

fn an_unknown_setting_in_a_drop_in_is_told_there_too() {
    is_told("config.d/10-site.toml", "10-site.toml:1");
}

/// `file` has an unknown setting, and `config.toml` says where the log is.
fn is_told(file: &str, place: &str) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let log = home.path("site.log");
    let wrong = "colour = \"red\"\n";
    let table = format!(
        "[log]\nlevel = \"warn\"\ntarget = \"file:{}\"\n",
        log.display()
    );
    home.write(file, wrong);
    let first = fs::read_to_string(home.path("config.toml")).unwrap();
    home.write("config.toml", first + &table);
    let raw = loaded(&home);
    // SAFETY: the story has its process to itself, and no thread reads the environment now.
    unsafe { std::env::remove_var("DEVID_PKCS11_LOG") };
    raw.initialize().unwrap();
    assert_eq!(raw.slots(true).unwrap(), []);
    let said = fs::read_to_string(&log).expect("the log is the one that the file names");
    for word in [place, "colour"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
