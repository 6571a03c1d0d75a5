//! Writes log lines to syslog or to a file, never to the standard streams of the host.
//!
//! No file descriptor stays open. A host may close a descriptor that it does not know, and another
//! file may then get the same number. A log line never holds a PIN, data or a digest.

pub(crate) use devid_core::config::{LogSettings, LogTarget};

use der::DateTime;
use devid_core::{fits_limit, printable};
use log::{Level, Record};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::SystemTime;

const SYSLOG: &str = "/dev/log";
const NAME: &str = "devid-pkcs11";
/// LOG_DAEMON of syslog(3), shifted to the facility bits of a message's priority.
const FACILITY: u8 = 3 << 3;

/// Returns a log line in the format of its target: syslog or a file.
pub(crate) fn rendered(target: &LogTarget, record: &Record) -> String {
    let said = printable(record.args());
    match target {
        LogTarget::Syslog => message(record.level(), &said),
        LogTarget::File(_) => line(record.level(), &said),
    }
}

/// Writes a line that [`rendered`] made. If the target cannot be written, the line is lost and the
/// call of the host continues.
pub(crate) fn write(target: &LogTarget, line: &str) -> std::io::Result<()> {
    match target {
        LogTarget::Syslog => syslog(line),
        LogTarget::File(path) => file(path, line),
    }
}

/// Returns true if the process lacked file descriptors or memory, which may be free later. The line
/// can then be written later.
pub(crate) fn can_wait(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Writes to a regular file only. A FIFO could block. A FIFO without a reader would raise SIGPIPE.
/// The file stays smaller than the process's file size limit, because a larger file would raise
/// SIGXFSZ.
fn file(path: &Path, line: &str) -> std::io::Result<()> {
    if !fits_limit(line.len() as u64) {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NONBLOCK.bits() as i32 | OFlags::NOCTTY.bits() as i32)
        .open(path)?;
    let about = file.metadata()?;
    match about.is_file() && fits_limit(about.len().saturating_add(line.len() as u64)) {
        true => file.write_all(line.as_bytes()),
        false => Ok(()),
    }
}

fn syslog(message: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SYSLOG)?;
    socket.send(message.as_bytes()).map(drop)
}

fn message(level: Level, said: &str) -> String {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let pid = std::process::id();
    format!("<{}>{NAME}[{pid}]: {said}", FACILITY | severity)
}

fn line(level: Level, said: &str) -> String {
    let now = DateTime::from_system_time(SystemTime::now());
    let now = now.map(|now| now.to_string()).unwrap_or_default();
    let pid = std::process::id();
    format!("{now} {NAME}[{pid}] {level}: {said}\n")
}
