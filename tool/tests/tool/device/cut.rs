//! Kills programs at one of their steps. A step is a system call that changes the entries of a
//! folder or the content of a file, calls fsync, sends a TPM command, or starts or awaits a child
//! process.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Killed at the step.
    Cut,
    /// By itself, with this code, before it came to that step.
    Exited(i32),
}

/// The calls that count.
fn steps() -> Vec<libc::c_long> {
    vec![
        libc::SYS_connect,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
        libc::SYS_clone,
        libc::SYS_clone3,
        #[cfg(not(target_arch = "aarch64"))]
        libc::SYS_fork,
        #[cfg(not(target_arch = "aarch64"))]
        libc::SYS_vfork,
        #[cfg(not(target_arch = "aarch64"))]
        libc::SYS_rename,
        #[cfg(not(target_arch = "aarch64"))]
        libc::SYS_unlink,
        #[cfg(not(target_arch = "aarch64"))]
        libc::SYS_mkdir,
    ]
}

/// The calls that count where they are about a file, and not about a socket or the log.
fn file_steps() -> Vec<libc::c_long> {
    vec![
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_ftruncate,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
    ]
}

#[allow(clippy::zombie_processes, reason = "waitpid waits, as ptrace wants it")]
/// Runs `command`, which must have one thread only, and kills it when it begins its `nth` step.
pub fn run_until(command: &mut Command, nth: usize) -> End {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: ptrace is a plain system call; nothing else happens between fork and exec.
    let command = unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    let mut child = command.spawn().expect("spawned");
    let id = libc::pid_t::try_from(child.id()).expect("a process id fits");
    let (steps, file_steps) = (steps(), file_steps());
    let is_step = |(call, first): (libc::c_long, u64)| {
        steps.contains(&call) || file_steps.contains(&call) && is_of_file(id, first)
    };
    let (mut seen, mut prepared) = (0, false);
    loop {
        let mut status = 0;
        // SAFETY: the child is ours and not yet waited for; `status` is a place for its state.
        let waited = unsafe { libc::waitpid(id, &mut status, 0) };
        assert_eq!(waited, id, "{}", std::io::Error::last_os_error());
        if libc::WIFEXITED(status) {
            return End::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return End::Cut;
        }
        if !prepared {
            let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
            // SAFETY: the child is stopped and traced by this thread.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, id, 0, options) };
            prepared = true;
        }
        let mut passed_on = 0;
        match libc::WSTOPSIG(status) {
            signal if signal == libc::SIGTRAP | 0x80 => {
                seen += usize::from(begins(id).is_some_and(is_step));
                if seen == nth {
                    child.kill().expect("killed");
                    child.wait().expect("waited for");
                    return End::Cut;
                }
            }
            libc::SIGTRAP => {}
            signal => passed_on = signal,
        }
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, id, 0, passed_on) };
    }
}

/// Whether a descriptor of the process is a file that lasts.
fn is_of_file(id: libc::pid_t, descriptor: u64) -> bool {
    let path = fs::read_link(format!("/proc/{id}/fd/{descriptor}")).unwrap_or_default();
    let lasts = path.is_absolute() && !path.starts_with("/dev") && !path.starts_with("/proc");
    lasts && !path.ends_with("log")
}

/// The number of the call that the stopped process is about to make, and the call's first argument; `None`
/// behind one.
fn begins(id: libc::pid_t) -> Option<(libc::c_long, u64)> {
    // SAFETY: all zeros are a value of this structure.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: the child is stopped and traced by this thread; `info` has `size` bytes.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, id, size, &mut info) };
    assert!(got > 0, "{}", std::io::Error::last_os_error());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says which member of the union is set.
    let (number, first) = unsafe { (info.u.entry.nr, info.u.entry.args[0]) };
    libc::c_long::try_from(number)
        .ok()
        .map(|number| (number, first))
}
