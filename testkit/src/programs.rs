//! Real programs: finds them on the machine, runs them, and ends them with their test.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A started program. The program is killed by its process id when this value is dropped.
pub struct Running {
    name: String,
    child: Child,
    /// True if the program is ended by SIGTERM first, because it must end its children.
    gently: bool,
}

impl Running {
    /// Starts `command`. The program ends with the calling thread, even if that thread is killed.
    pub fn start(name: &str, command: &mut Command) -> Running {
        Running::with_signal(name, command, libc::SIGKILL)
    }

    /// Starts a program that must be ended with SIGTERM, such as a server with worker processes.
    pub fn start_gently(name: &str, command: &mut Command) -> Running {
        Running::with_signal(name, command, libc::SIGTERM)
    }

    fn with_signal(name: &str, command: &mut Command, signal: libc::c_int) -> Running {
        // SAFETY: prctl(2) is safe between fork and exec. Nothing else happens between them.
        let command = unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, signal);
                Ok(())
            })
        };
        let child = command
            .spawn()
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        Running {
            name: name.to_owned(),
            child,
            gently: signal == libc::SIGTERM,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the end of the program, at most `limit`. Returns `None` if it still runs.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll(limit, || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Sends SIGTERM.
    pub fn ask_to_end(&self) {
        let id = libc::pid_t::try_from(self.child.id()).expect("a process id fits");
        // SAFETY: The child belongs to this process, which has not waited for it, so no other
        // process has the id.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child
            .wait()
            .unwrap_or_else(|why| panic!("{}: {why}", self.name));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.gently && self.is_running() {
            self.ask_to_end();
            self.wait(Duration::from_secs(5));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Calls `look` again and again until it returns a value or `limit` has passed.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Returns the path of the program `name`. Fails with the remedy if the machine lacks the program.
pub fn find(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run scripts/setup test"))
}

/// Returns a command for the program `name`.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(find(name));
    command.stdin(Stdio::null());
    command
}

/// The output and status of a program.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: String,
    what: String,
}

impl Said {
    /// Fails with all output unless the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Returns standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Returns standard output and standard error as text.
    pub fn all(&self) -> String {
        self.text() + &self.err
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            to,
            "{}: {}\n{}{}",
            self.what,
            self.status,
            self.text(),
            self.err
        )
    }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Said {
    run_with(command, &[])
}

/// Runs `command` with `input` on its standard input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Said {
    run_within(Duration::from_secs(120), command, input)
}

/// Runs `command` with `input`, within this time limit.
pub fn run_within(limit: Duration, command: &mut Command, input: &[u8]) -> Said {
    let mut what = String::new();
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        write!(what, "{} ", word.to_string_lossy()).expect("a string takes all");
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut running = Running::start(&what, command);
    let pipes = running.child();
    let (mut to, out, err) = (pipes.stdin.take(), pipes.stdout.take(), pipes.stderr.take());
    let Output {
        status,
        stdout,
        stderr,
    } = thread::scope(|scope| {
        let out = scope.spawn(move || slurp(out));
        let err = scope.spawn(move || slurp(err));
        if let Some(pipe) = to.as_mut() {
            pipe.write_all(input).ok();
        }
        drop(to);
        let status = running.wait(limit);
        let status = status.unwrap_or_else(|| {
            running.kill();
            panic!("{what}: still running after {limit:?}");
        });
        Output {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
        }
    });
    Said {
        status,
        out: stdout,
        err: String::from_utf8_lossy(&stderr).into_owned(),
        what,
    }
}

fn slurp(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.expect("piped")
        .read_to_end(&mut bytes)
        .expect("a pipe can be read");
    bytes
}

/// Runs the program `name` with `args`, which must succeed. Returns its standard output.
#[track_caller]
pub fn output<I, S>(name: &str, args: I) -> Vec<u8>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run(program(name).args(args)).ok().out
}

/// Returns the processor time of this thread, including the time in the kernel. Other programs do
/// not affect it.
pub fn thread_time() -> Duration {
    // SAFETY: A zeroed record is valid, and the call writes to it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        assert_eq!(libc::clock_gettime(clock, &raw mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
