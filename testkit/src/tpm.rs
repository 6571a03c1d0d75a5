//! A TPM: swtpm with its own state, on a pair of TCP ports or on a Unix socket.

use super::ports::Pair;
use super::programs::{self, Running};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// The address of a swtpm.
#[derive(Clone, Debug)]
pub enum Place {
    Tcp(Arc<Pair>),
    Unix(PathBuf),
}

impl Place {
    /// Opens a connection for commands.
    pub fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Place::Tcp(ports) => {
                let stream = TcpStream::connect(("127.0.0.1", ports.first))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Place::Unix(path) => Box::new(UnixStream::connect(path)?),
        })
    }

    fn tcti(&self) -> String {
        match self {
            Place::Tcp(ports) => format!("swtpm:host=127.0.0.1,port={}", ports.first),
            Place::Unix(path) => format!("swtpm:path={}", path.display()),
        }
    }

    fn arguments(&self, server: bool) -> String {
        match self {
            Place::Tcp(ports) => format!("type=tcp,port={}", ports.first + u16::from(!server)),
            Place::Unix(path) if server => format!("type=unixio,path={}", path.display()),
            Place::Unix(path) => format!("type=unixio,path={}.ctrl", path.display()),
        }
    }
}

/// A connection by TCP or by a Unix socket.
pub trait Stream: Read + Write + Send {
    /// Ends the connection even if a forked child has a copy of its descriptor. swtpm serves one
    /// connection at a time, so an open copy would block all other connections.
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Both).ok();
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Both).ok();
    }
}

/// A running swtpm that is ready for commands. The process ends when this value is dropped.
pub struct Swtpm {
    folder: TempDir,
    place: Place,
    running: Option<Running>,
    /// Another swtpm program, with additional arguments.
    other: Option<(PathBuf, Vec<String>)>,
}

impl Swtpm {
    /// Starts a blank TPM on TCP ports.
    pub fn blank() -> Swtpm {
        Swtpm::stopped().started_on_ports()
    }

    /// Returns a swtpm with an empty state that is not running.
    fn stopped() -> Swtpm {
        let folder = TempDir::new().expect("a temporary folder");
        fs::create_dir(folder.path().join("state")).expect("a folder for the state");
        Swtpm::of(folder, Place::Tcp(Arc::new(Pair::claim())))
    }

    fn of(folder: TempDir, place: Place) -> Swtpm {
        Swtpm {
            folder,
            place,
            running: None,
            other: None,
        }
    }

    /// Starts a blank TPM with only these algorithms, in the format of swtpm's profiles. The
    /// program `swtpm` needs libtpms 0.10 or newer.
    pub fn with_algorithms(swtpm: PathBuf, algorithms: &str) -> Swtpm {
        let profile =
            format!("profile={{\"Name\":\"custom:tests\",\"Algorithms\":\"{algorithms}\"}}");
        let mut tpm = Swtpm::stopped();
        tpm.other = Some((swtpm, vec!["--profile".to_owned(), profile]));
        tpm.started_on_ports()
    }

    /// Starts a copy of a TPM at another address. The original does not run.
    pub fn with_state_of(other: &Swtpm) -> Swtpm {
        let tpm = Swtpm::stopped();
        copy_state(&other.state(), &tpm.state());
        tpm.started_on_ports()
    }

    /// Uses another program from the next start on, with the same state.
    pub fn becomes(&mut self, swtpm: PathBuf) {
        self.other = Some((swtpm, Vec::new()));
    }

    /// Starts swtpm with the state below `folder`, on ports.
    pub(super) fn on_ports(folder: TempDir) -> Swtpm {
        Swtpm::of(folder, Place::Tcp(Arc::new(Pair::claim()))).started_on_ports()
    }

    /// Starts swtpm with the state below `folder`, on a Unix socket.
    pub(super) fn on_unix_socket(folder: TempDir) -> Swtpm {
        let place = Place::Unix(folder.path().join("socket"));
        let mut tpm = Swtpm::of(folder, place);
        assert!(tpm.start(), "swtpm: {}", tpm.log());
        tpm
    }

    fn started_on_ports(self) -> Swtpm {
        let mut tpm = self;
        for _ in 0..5 {
            if tpm.start() {
                return tpm;
            }
            tpm.place = Place::Tcp(Arc::new(Pair::claim())); // another program took the port
        }
        panic!("swtpm did not start:\n{}", tpm.log());
    }

    /// Starts swtpm. Returns false if swtpm ended at once. swtpm starts the TPM itself, so
    /// TPM2_Startup is not needed.
    fn start(&mut self) -> bool {
        let log = File::create(self.folder.path().join("log")).expect("a log file");
        let mut command = match &self.other {
            Some((swtpm, _)) => std::process::Command::new(swtpm),
            None => programs::program("swtpm"),
        };
        command
            .args([
                "socket",
                "--tpm2",
                "--flags",
                "startup-clear,not-need-init",
                "--tpmstate",
            ])
            .arg(format!("dir={}", self.state().display()))
            .args(["--server", &self.place.arguments(true)])
            .args(["--ctrl", &self.place.arguments(false)])
            .args(self.other.iter().flat_map(|(_, more)| more))
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .stdin(Stdio::null());
        let mut running = Running::start("swtpm", &mut command);
        let answered = programs::poll(PATIENCE, || {
            if !running.is_running() {
                return Some(false);
            }
            self.place.connect().is_ok().then_some(true)
        });
        self.running = Some(running);
        // Another program may have answered on the port, so check that this swtpm still runs.
        answered == Some(true) && self.running.as_mut().is_some_and(Running::is_running)
    }

    /// Returns the folder of the state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns the output of swtpm.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the TCTI of this TPM, for the module and for libtss2.
    pub fn tcti(&self) -> String {
        self.place.tcti()
    }

    /// Returns the port of the control channel, which libtss2 opens too.
    pub fn control_port(&self) -> u16 {
        match &self.place {
            Place::Tcp(ports) => ports.first + 1,
            Place::Unix(path) => panic!("{} has no ports", path.display()),
        }
    }

    pub fn id(&self) -> u32 {
        self.running.as_ref().expect("swtpm runs").id()
    }

    /// Kills swtpm without TPM2_Shutdown. If a key without noDA was used since its start, the TPM
    /// counts this as a failed authorisation.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Shuts the TPM down: TPM2_Shutdown, then the end of swtpm.
    pub fn shut_down(&mut self) {
        let mut stream = self.place.connect().expect("swtpm answers");
        stream
            .write_all(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 0])
            .expect("written");
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[6..], [0; 4], "TPM2_Shutdown");
        self.kill();
    }

    /// Starts swtpm again, with its address and state.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "swtpm must be killed first");
        assert!(self.start(), "swtpm did not start again:\n{}", self.log());
    }

    /// Pauses swtpm until [`Swtpm::go_on`]. swtpm answers nothing, but the kernel still accepts
    /// connections.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let id = libc::pid_t::try_from(self.id()).expect("a process id fits");
        // SAFETY: The child belongs to this process, which has not waited for it, so no other
        // process has the id.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0, "kill");
    }

    /// Returns a tpm2-tools command for this TPM.
    pub fn tool(&self, name: &str) -> std::process::Command {
        tool(name, &self.tcti())
    }

    /// Returns the number of transient objects in the TPM.
    pub fn transients(&self) -> usize {
        let listed = programs::run(self.tool("tpm2_getcap").arg("handles-transient"));
        listed.ok().text().lines().count()
    }

    /// Returns the lockout counter: the number of failed tries that the TPM counts.
    pub fn lockout_counter(&self) -> u32 {
        let all = programs::run(self.tool("tpm2_getcap").arg("properties-variable"))
            .ok()
            .text();
        let line = all
            .lines()
            .find(|line| line.contains("TPM2_PT_LOCKOUT_COUNTER"));
        let (_, value) = line
            .and_then(|line| line.split_once("0x"))
            .expect("a counter");
        u32::from_str_radix(value.trim(), 16).expect("a number")
    }
}

/// Returns the tpm2-tools command `name` for the TPM at `tcti`.
pub fn tool(name: &str, tcti: &str) -> std::process::Command {
    let mut command = programs::program(name);
    command.env("TPM2TOOLS_TCTI", tcti);
    command
}

/// Copies the files of a TPM's state.
pub fn copy_state(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for the state");
    for entry in fs::read_dir(from).expect("a state") {
        let entry = entry.expect("an entry");
        if entry.file_name() != ".lock" {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}
