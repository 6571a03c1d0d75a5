//! File descriptors belong to the host. The host may close descriptors that it does not know, open
//! its own files with their numbers, and start without standard streams. In these tests a forked
//! child is the host, so that the proxy before the TPM keeps its descriptors.

use cryptoki_sys::*;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::factory::Identity;
use testkit::fork::Forked;
use testkit::fronts::Device;
use testkit::home::Home;
use testkit::module::{Opened, loaded, ulong};
use testkit::openssl::Verifier;
use testkit::programs::poll;
use testkit::proxy::{Book, Fault, Proxy, command};
use testkit::raw::{Code, Raw};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

once!(
    a_host_that_closes_all_and_ends_the_module,
    a_host_that_closes_all_and_signs_on,
    a_host_that_opens_the_device_itself_on_the_modules_number,
    a_child_of_a_host_that_closes_all,
    no_standard_streams_and_a_device,
    no_standard_streams_and_a_tcp_socket,
    no_standard_streams_and_a_unix_socket,
    a_device_that_swallows_an_answer,
    a_device_that_answers_late,
);

const DIGEST: [u8; 32] = [0x44; 32];

/// A device behind a character device, its module loaded and not initialised.
struct Bench {
    identity: Identity,
    device: Device,
    home: Home,
    raw: Raw,
    _tpm: Swtpm,
}

impl Bench {
    fn new() -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let device = Device::new(&tpm);
        let home = Home::new(&device.tcti());
        let raw = loaded(&home);
        Bench {
            identity,
            device,
            home,
            raw,
            _tpm: tpm,
        }
    }

    fn verify(&self, name: &str) {
        let signature = fs::read(self.home.path(name)).expect("a signature");
        let judge = Verifier::new(&self.identity.public_key());
        judge.accepts_digest(&DIGEST, &signature).ok();
    }
}

/// In a host: the module is initialised and has found its key.
fn begin(raw: &Raw) -> (CK_SESSION_HANDLE, CK_OBJECT_HANDLE) {
    raw.initialize().unwrap();
    let slots = raw.slots(true).unwrap();
    let slot = slots.first().expect("a token");
    let session = raw.open(*slot, CKF_SERIAL_SESSION).unwrap();
    let keys = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    (session, keys.unwrap()[0])
}

fn sign(raw: &Raw, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Code> {
    raw.sign_init(session, CKM_ECDSA, key)?;
    raw.sign(session, &DIGEST)
}

/// The number by which process `id` (or "self") has `path` open.
fn number_of(id: &str, path: &Path) -> Option<i32> {
    descriptors(id)
        .into_iter()
        .find(|(_, file)| file == path)
        .map(|(number, _)| number)
}

/// The open descriptors of a process: number and what it names.
fn descriptors(id: &str) -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{id}/fd")).expect("/proc");
    let mut found = Vec::new();
    for entry in entries.flatten() {
        // A descriptor that was closed meanwhile is skipped.
        if let Ok(file) = fs::read_link(entry.path()) {
            let number = entry.file_name().to_string_lossy().parse();
            found.push((number.expect("a number"), file));
        }
    }
    found
}

/// Files that a host opened after it had closed all it did not know.
struct OwnFiles(Vec<(File, PathBuf)>);

impl OwnFiles {
    /// Closes everything above the standard streams, then opens files until `number` is theirs.
    fn instead_of_all(home: &Home, number: i32) -> OwnFiles {
        // SAFETY: only the module uses descriptors above 2 in this process, and the story tests
        // exactly this.
        assert_eq!(unsafe { libc::close_range(3, u32::MAX, 0) }, 0);
        let mut files = Vec::new();
        loop {
            let path = home.path(&format!("own-{}", files.len()));
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).open(&path);
            files.push((file.expect("a file"), path));
            if files.iter().any(|(file, _)| file.as_raw_fd() == number) {
                return OwnFiles(files);
            }
        }
    }

    /// Each number still names its file, and nobody wrote to it.
    #[track_caller]
    fn are_untouched(&self) {
        for (file, path) in &self.0 {
            let number = file.as_raw_fd();
            let data = file.metadata();
            let data = data.unwrap_or_else(|why| panic!("descriptor {number}: {why}"));
            let inode = fs::metadata(path).unwrap().ino();
            assert_eq!((data.ino(), data.len()), (inode, 0), "descriptor {number}");
        }
    }
}

fn a_host_that_closes_all_and_ends_the_module() {
    let bench = Bench::new();
    let host = Forked::new(|| {
        let (session, key) = host_begins(&bench);
        sign(&bench.raw, session, key).expect("a signature");
        let number = number_of("self", bench.device.path()).expect("the device is open");
        let own = OwnFiles::instead_of_all(&bench.home, number);
        bench.raw.finalize().unwrap();
        own.are_untouched();
        bench.raw.initialize().unwrap();
        own.are_untouched();
    });
    host.succeeds();
}

/// As a host has it that did not make the terminal: no descriptor of the story's is left.
fn host_begins(bench: &Bench) -> (CK_SESSION_HANDLE, CK_OBJECT_HANDLE) {
    // SAFETY: what the story holds is the parent's; this process has copies that it does not use.
    assert_eq!(unsafe { libc::close_range(3, u32::MAX, 0) }, 0);
    begin(&bench.raw)
}

fn a_host_that_closes_all_and_signs_on() {
    let bench = Bench::new();
    let host = Forked::new(|| {
        let (session, key) = host_begins(&bench);
        let number = number_of("self", bench.device.path()).expect("the device is open");
        let own = OwnFiles::instead_of_all(&bench.home, number);
        let signature = sign(&bench.raw, session, key).expect("the device is opened again");
        bench.home.write("signature", signature);
        own.are_untouched();
        bench.raw.finalize().unwrap();
        own.are_untouched();
    });
    host.succeeds();
    bench.verify("signature");
}

fn a_child_of_a_host_that_closes_all() {
    let bench = Bench::new();
    let host = Forked::new(|| {
        let (session, key) = host_begins(&bench);
        let number = number_of("self", bench.device.path()).expect("the device is open");
        let own = OwnFiles::instead_of_all(&bench.home, number);
        let child = Forked::new(|| {
            bench.raw.session_info(session).expect("inherited");
            own.are_untouched();
            let signature = sign(&bench.raw, session, key).expect("the child signs");
            bench.home.write("child", signature);
            own.are_untouched();
        });
        child.succeeds();
        own.are_untouched();
        let signature = sign(&bench.raw, session, key).expect("the host signs");
        bench.home.write("host", signature);
        own.are_untouched();
    });
    host.succeeds();
    ["child", "host"].iter().for_each(|name| bench.verify(name));
}

/// The number then names another connection to the device, which knows other objects.
fn a_host_that_opens_the_device_itself_on_the_modules_number() {
    let bench = Bench::new();
    let host = Forked::new(|| {
        let (session, key) = host_begins(&bench);
        sign(&bench.raw, session, key).expect("a signature");
        let number = number_of("self", bench.device.path()).expect("the device is open");
        let mut options = OpenOptions::new();
        let own = options.read(true).write(true).open(bench.device.path());
        let own = own.expect("the device");
        // SAFETY: closes the module's descriptor, and puts this program's file on its number. The
        // story tests exactly this.
        assert_eq!(unsafe { libc::dup2(own.as_raw_fd(), number) }, number);
        drop(own);
        let signature = sign(&bench.raw, session, key).expect("the device is opened again");
        bench.home.write("signature", signature);
        let uses = |(_, file): &(i32, PathBuf)| file == bench.device.path();
        let open = descriptors("self").into_iter().filter(uses);
        assert_eq!(open.count(), 2, "the host's and the module's");
        bench.raw.finalize().unwrap();
        let left = number_of("self", bench.device.path());
        assert_eq!(left, Some(number), "the host's stays open");
    });
    host.succeeds();
    bench.verify("signature");
}

/// A host without standard streams, which signs once its file `go` is there.
fn host_without_streams<'a>(home: &'a Home, raw: &'a Raw) -> Forked {
    Forked::new(move || {
        // SAFETY: closes all that this process inherited, which does not use it.
        assert_eq!(unsafe { libc::close_range(0, u32::MAX, 0) }, 0);
        let (session, key) = begin(raw);
        home.write("ready", "");
        let limit = Duration::from_secs(60);
        poll(limit, || home.path("go").exists().then_some(())).expect("the word");
        let signature = sign(raw, session, key).expect("a signature");
        home.write("signature", signature);
    })
}

fn await_ready(home: &Home) {
    let ready = || home.path("ready").exists().then_some(());
    await_some("the host", Duration::from_secs(60), ready);
}

#[track_caller]
fn no_standard_stream_is_open(host: &Forked) {
    let open = descriptors(&host.id().to_string());
    assert!(open.iter().any(|(number, _)| *number > 2), "{open:?}");
    assert!(open.iter().all(|(number, _)| *number > 2), "{open:?}");
}

fn no_standard_streams_and_a_device() {
    let bench = Bench::new();
    let host = host_without_streams(&bench.home, &bench.raw);
    while_a_signature_stalls(&bench.home, bench.device.book(), &host);
    host.succeeds();
    bench.verify("signature");
}

fn while_a_signature_stalls(home: &Home, book: &Book, host: &Forked) {
    await_ready(home);
    book.break_next(command::SIGN, Fault::Stall);
    home.write("go", "");
    book.await_stall();
    no_standard_stream_is_open(host);
    book.release();
}

fn no_standard_streams_and_a_tcp_socket() {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&proxy.tcti());
    let raw = loaded(&home);
    let host = host_without_streams(&home, &raw);
    while_a_signature_stalls(&home, proxy.book(), &host);
    host.succeeds();
}

fn no_standard_streams_and_a_unix_socket() {
    let (tpm, _identity) = Swtpm::manufactured_on_unix_socket();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    let host = host_without_streams(&home, &raw);
    await_ready(&home);
    tpm.pause();
    home.write("go", "");
    let id = host.id().to_string();
    await_some("a connection", Duration::from_secs(60), || {
        let socket = |file: &Path| file.to_string_lossy().starts_with("socket:");
        let open = descriptors(&id);
        open.iter().any(|(_, file)| socket(file)).then_some(())
    });
    // The kernel accepts the command, and no answer comes. The descriptor stays open.
    let settled = || {
        let open = descriptors(&id);
        open.iter().all(|(number, _)| *number > 2).then_some(())
    };
    let settled = poll(Duration::from_secs(20), settled);
    tpm.go_on();
    assert!(settled.is_some(), "a socket has a standard stream's number");
    host.succeeds();
}

/// The kernel throws an answer away that was not fetched in time; it never comes.
fn a_device_that_swallows_an_answer() {
    let (tpm, identity) = Swtpm::manufactured();
    let device = Device::new(&tpm);
    let home = Home::new(&device.tcti());
    home.write("config.toml", "timeout_ms = 1000\n");
    let module = Opened::new(&home);
    let key = module.key();
    for fault in [Fault::Lost, Fault::Drop] {
        device.book().break_next(command::SIGN, fault);
        let failed = module.sign(CKM_ECDSA, key, &DIGEST);
        assert_eq!(failed, Err(Code(CKR_DEVICE_ERROR)), "{fault:?}");
        home.log_says(&["1000 ms"]);
        assert!(device.book().all_broken());
        // One call may still wait for the answer; the next does not.
        let signature = (0..3).find_map(|_| module.sign(CKM_ECDSA, key, &DIGEST).ok());
        let signature = signature.unwrap_or_else(|| panic!("{fault:?}: it never recovers"));
        let judge = Verifier::new(&identity.public_key());
        judge.accepts_digest(&DIGEST, &signature).ok();
    }
}

/// The next answer belongs to another command.
fn a_device_that_answers_late() {
    let (tpm, identity) = Swtpm::manufactured();
    let device = Device::new(&tpm);
    let home = Home::new(&device.tcti());
    home.write("config.toml", "timeout_ms = 3000\n");
    let module = Opened::new(&home);
    let key = module.key();
    device.book().break_next(command::SIGN, Fault::Stall);
    let failed = module.sign(CKM_ECDSA, key, &[0x55; 32]);
    assert_eq!(failed, Err(Code(CKR_DEVICE_ERROR)));
    device.book().release();
    let judge = Verifier::new(&identity.public_key());
    for digest in [[0x66; 32], [0x77; 32]] {
        let signature = module.sign(CKM_ECDSA, key, &digest).expect("a signature");
        judge.accepts_digest(&digest, &signature).ok();
    }
}
