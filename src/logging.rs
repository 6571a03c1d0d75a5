//! Where log lines go: syslog or a file, never the host's standard streams.
//!
//! Nothing is kept open: a host may close descriptors that it does not know, and a line must not
//! end up in whatever file then has the number. No line ever holds a PIN, data or a digest.

pub(crate) use devid_core::config::{LogSettings, LogTarget};

use der::DateTime;
use log::{Level, Record};
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::SystemTime;

const SYSLOG: &str = "/dev/log";
const NAME: &str = "devid-pkcs11";
/// LOG_DAEMON of syslog(3), shifted as it stands in a message.
const FACILITY: u8 = 3 << 3;

/// Writes one line. A target that cannot be written costs the line, never the caller's call.
pub(crate) fn write(target: &LogTarget, record: &Record) {
    let _ = match target {
        LogTarget::Syslog => syslog(record),
        LogTarget::File(path) => file(path, record),
    };
}

/// Only a regular file: a FIFO would be waited for, and one whose reader goes would raise SIGPIPE.
fn file(path: &Path, record: &Record) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NONBLOCK.bits() as i32 | OFlags::NOCTTY.bits() as i32)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => file.write_all(line(record).as_bytes()),
        false => Ok(()),
    }
}

fn syslog(record: &Record) -> std::io::Result<()> {
    let severity = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SYSLOG)?;
    let pid = std::process::id();
    let text = format!("<{}>{NAME}[{pid}]: {}", FACILITY | severity, record.args());
    socket.send(text.as_bytes()).map(drop)
}

fn line(record: &Record) -> String {
    let now = DateTime::from_system_time(SystemTime::now());
    let now = now.map(|now| now.to_string()).unwrap_or_default();
    format!(
        "{now} {NAME}[{}] {}: {}\n",
        std::process::id(),
        record.level(),
        record.args()
    )
}
