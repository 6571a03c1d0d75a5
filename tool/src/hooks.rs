//! The `reload` commands that run after a new certificate was stored, each with a time limit.

use log::info;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs a command in the shell. The variable DEVID_LABEL has the label. The standard output of the
/// command is dropped, because it is not the output of devid. The standard error is shown.
///
/// # Errors
///
/// Returns the reason why the command failed. After the time limit, the command and its child
/// processes are killed.
pub(crate) fn run(command: &str, label: &str, limit: Duration) -> Result<(), String> {
    info!("{label}: {command}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("DEVID_LABEL", label)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    match wait(&mut child, limit).map_err(|error| error.to_string())? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("ended after {} s", limit.as_secs())),
    }
}

/// Waits for the command, and returns its exit status. Returns `None` if the command exceeded its
/// time limit and was killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    const FIRST_PAUSE: Duration = Duration::from_millis(1);
    const LONGEST_PAUSE: Duration = Duration::from_millis(100);
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() >= limit {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                kill_process_group(group, Signal::KILL)?;
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
