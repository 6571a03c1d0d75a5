//! Resource managers: one that behaves like the kernel's, behind a character device, and tpm2-abrmd
//! on a separate D-Bus.

use super::fronts::terminal;
use super::home::Home;
use super::link::Link;
use super::programs::{Running, poll, program, run};
use super::proxy::{Book, Reply, Seen, command, read_packet};
use super::tpm::{Place, Swtpm};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A resource manager behind a device `tpmrm0` in a home. Like Linux, it saves all objects after
/// each command, and loads the named objects before a command. The book records the commands of
/// clients.
pub struct Kernel {
    book: Arc<Book>,
    place: Place,
    path: PathBuf,
    end: Option<End>,
}

/// The end of the device until its next reset.
struct End {
    hung_up: Arc<AtomicBool>,
    /// The other end stays open, so that the terminal exists between two users.
    _other_end: File,
}

impl Kernel {
    pub fn new(tpm: &Swtpm, home: &Home) -> Kernel {
        let mut kernel = Kernel {
            book: Book::new(tpm),
            place: tpm.place().clone(),
            path: home.path("tpmrm0"),
            end: None,
        };
        kernel.begin();
        kernel
    }

    /// Creates a TPM without factory identity, a home, and the manager between them.
    pub fn with_home(link: Link) -> (Swtpm, Home, Kernel) {
        let tpm = Swtpm::blank();
        // The device is in the home, so the configuration names the device afterwards.
        let home = Home::new("");
        let kernel = Kernel::new(&tpm, &home);
        let tcti = link.tcti(&kernel.tcti());
        let settings = format!("tcti = \"{tcti}\"\ntimeout_ms = 5000\n");
        home.write("config.toml", settings);
        (tpm, home, kernel)
    }

    /// Returns the commands since the last call. libtss2 sends TPM2_GetRandom whenever it opens a
    /// device. These commands are left out, and the module's own transport shows the others.
    pub fn taken(&self, link: Link) -> Seen {
        let mut seen = self.book.take();
        if link == Link::Tctildr {
            seen.0.retain(|(code, _)| *code != command::GET_RANDOM);
        }
        seen
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn tcti(&self) -> String {
        format!("device:{}", self.path.display())
    }

    /// Makes the next command fail without an answer. Its connection ends, and its loaded objects
    /// are lost. Clients can open the device again.
    pub fn drop_connections(&mut self) {
        let old = self.end.take();
        self.begin();
        if let Some(old) = old {
            old.hung_up.store(true, Ordering::SeqCst);
        }
    }

    fn begin(&mut self) {
        let (mut ours, path) = terminal();
        let mut options = OpenOptions::new();
        let other_end = options.read(true).write(true).open(&path);
        let new = self.path.with_extension("new");
        symlink(&path, &new).expect("a link");
        fs::rename(&new, &self.path).expect("a link replaces another link");
        let hung_up = Arc::new(AtomicBool::new(false));
        let (ended, book) = (Arc::clone(&hung_up), Arc::clone(&self.book));
        let mut space = Space {
            place: self.place.clone(),
            objects: BTreeMap::new(),
            last: 0x8100_0000,
        };
        thread::spawn(move || -> io::Result<()> {
            loop {
                let command = read_packet(&mut ours)?;
                if ended.load(Ordering::SeqCst) {
                    return Ok(());
                }
                if let Reply::Whole(answer) = space.exchange(&book, command)? {
                    ours.write_all(&answer)?;
                }
            }
        });
        self.end = Some(End {
            hung_up,
            _other_end: other_end.expect("a terminal"),
        });
    }
}

/// The objects of a connection by the handles that the client knows. Each object is a saved
/// context.
struct Space {
    place: Place,
    objects: BTreeMap<u32, Vec<u8>>,
    last: u32,
}

const CONTEXT_LOAD: u32 = 0x161;
const CONTEXT_SAVE: u32 = 0x162;
const FLUSH_CONTEXT: u32 = 0x165;
const CREATE_LOADED: u32 = 0x191;
/// TPM_HT_TRANSIENT. A loaded context may also be a session, which keeps its handle.
const TRANSIENT: u8 = 0x80;

impl Space {
    fn exchange(&mut self, book: &Book, mut command: Vec<u8>) -> io::Result<Reply> {
        let code = number(&command, 6);
        if code == FLUSH_CONTEXT && self.objects.remove(&number(&command, 10)).is_some() {
            return Ok(Reply::Whole(packet(0, &[])));
        }
        let mut loaded = Vec::new();
        for at in (0..handles_of(code)).map(|place| 10 + 4 * place) {
            if let Some(context) = self.objects.get(&number(&command, at)) {
                let answer = self.run(&packet(CONTEXT_LOAD, context))?;
                loaded.push(number(&answer, 10));
                command[at..at + 4].copy_from_slice(&answer[10..14]);
            }
        }
        let mut reply = book.exchange(&command);
        for handle in loaded {
            self.run(&packet(FLUSH_CONTEXT, &handle.to_be_bytes()))?;
        }
        let gives_handle = matches!(code, 0x131 | 0x157 | 0x167 | CONTEXT_LOAD | CREATE_LOADED);
        if let Reply::Whole(answer) = &mut reply
            && gives_handle
            && number(answer, 6) == 0
            && answer[10] == TRANSIENT
        {
            let handle = answer[10..14].to_vec();
            let saved = self.run(&packet(CONTEXT_SAVE, &handle))?;
            self.run(&packet(FLUSH_CONTEXT, &handle))?;
            self.last -= 1;
            self.objects.insert(self.last, saved[10..].to_vec());
            answer[10..14].copy_from_slice(&self.last.to_be_bytes());
        }
        Ok(reply)
    }

    fn run(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut tpm = self.place.connect()?;
        let sent = tpm.write_all(command);
        let answer = sent.and_then(|()| read_packet(&mut tpm));
        tpm.end();
        let answer = answer?;
        assert_eq!(number(&answer, 6), 0, "the manager's own command");
        Ok(answer)
    }
}

/// Returns the number of object handles at the start of a TPM command.
fn handles_of(code: u32) -> usize {
    match code {
        0x120 => 2, // EvictControl
        0x176 => 1, // StartAuthSession
        0x153 | 0x154 | 0x156 | 0x157 | 0x159 | 0x15D | 0x15E | 0x173 | CREATE_LOADED => 1,
        CONTEXT_SAVE => 1,
        _ => 0,
    }
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + body.len()).expect("fits");
    let head = [&[0x80, 1][..], &size.to_be_bytes(), &code.to_be_bytes()].concat();
    [&head, body].concat()
}

fn number(packet: &[u8], at: usize) -> u32 {
    let bytes = packet.get(at..at + 4).expect("four bytes");
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// tpm2-abrmd on its own D-Bus. Both end when this value is dropped.
pub struct Broker {
    _daemon: Running,
    _bus: Running,
}

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

impl Broker {
    /// Starts tpm2-abrmd for the TPM at `tcti`. Sets the bus address in the environment, so the
    /// caller must call it before other threads read the environment.
    pub fn new(tcti: &str, home: &Home) -> Broker {
        let socket = home.path("bus");
        let text = BUS.replace("SOCKET", &socket.display().to_string());
        let log = File::create(home.path("broker.log")).expect("a file");
        let shared = || log.try_clone().expect("dup");
        let mut bus = program("dbus-daemon");
        bus.args(["--nofork", "--nopidfile", "--config-file"])
            .arg(home.write("bus.conf", text));
        let bus = Running::start("dbus-daemon", bus.stdout(shared()).stderr(shared()));
        let said = || fs::read_to_string(home.path("broker.log")).unwrap_or_default();
        let listens = || UnixStream::connect(&socket).ok();
        poll(LIMIT, listens).unwrap_or_else(|| panic!("no bus:\n{}", said()));
        let address = format!("unix:path={}", socket.display());
        // SAFETY: A story runs alone in its process, and starts no threads that read the
        // environment before this call.
        unsafe { std::env::set_var("DBUS_SESSION_BUS_ADDRESS", &address) };
        let mut daemon = program("tpm2-abrmd");
        daemon.args(["--session", &format!("--tcti={tcti}")]);
        // SAFETY: The call has no preconditions. It returns the user id.
        if unsafe { libc::geteuid() } == 0 {
            daemon.arg("--allow-root");
        }
        let daemon = Running::start("tpm2-abrmd", daemon.stdout(shared()).stderr(shared()));
        let owned = || {
            let mut ask = program("dbus-send");
            ask.args(["--session", "--print-reply", "--dest=org.freedesktop.DBus"]);
            ask.args(["/", "org.freedesktop.DBus.NameHasOwner"]);
            let answer = run(ask.arg("string:com.intel.tss2.Tabrmd"));
            answer.text().contains("true").then_some(())
        };
        poll(LIMIT, owned).unwrap_or_else(|| panic!("no tpm2-abrmd:\n{}", said()));
        Broker {
            _daemon: daemon,
            _bus: bus,
        }
    }

    pub fn tcti() -> &'static str {
        "tabrmd:bus_type=session"
    }
}

const LIMIT: Duration = Duration::from_secs(20);
