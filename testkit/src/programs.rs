//! Real programs: found on the machine, and ended with their test.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A started program; killed by its process id on drop.
pub struct Running {
    name: String,
    child: Child,
    /// True if SIGTERM comes first, for a program that must end its children.
    gently: bool,
}

impl Running {
    /// Starts `command`. The program dies with the calling thread, even if that is killed.
    pub fn start(name: &str, command: &mut Command) -> Running {
        Running::with_signal(name, command, libc::SIGKILL)
    }

    /// Starts a program that must be ended with SIGTERM, such as one with workers.
    pub fn start_gently(name: &str, command: &mut Command) -> Running {
        Running::with_signal(name, command, libc::SIGTERM)
    }

    fn with_signal(name: &str, command: &mut Command, signal: libc::c_int) -> Running {
        // SAFETY: prctl is a plain system call; nothing else happens between fork and exec.
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

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the end, at most `limit`; `None` if still running.
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
        // SAFETY: the child is ours and not yet waited for, so the id is still its own.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }

    /// SIGKILL, and waits for the end.
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

/// Repeats `look` until it gives a value or `limit` has passed.
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

/// The path of `name`; fails with the remedy if the machine lacks it.
pub fn find(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run scripts/setup test"))
}

/// A command for the program `name`.
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

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Both outputs as text.
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

/// Runs `command` with `input`, within this limit.
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

/// The standard output of `run(program(name) with args)`, which must succeed.
#[track_caller]
pub fn output<I, S>(name: &str, args: I) -> Vec<u8>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run(program(name).args(args)).ok().out
}

/// The processor time of this thread, including the kernel's; other programs do not add to it.
pub fn thread_time() -> Duration {
    // SAFETY: zeroed, the record is valid for writing.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        assert_eq!(libc::clock_gettime(clock, &raw mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
