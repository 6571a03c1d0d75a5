//! Where log lines go: syslog or a file, never the host's standard streams.
//!
//! Nothing is kept open: a host may close descriptors that it does not know, and a line must not
//! end up in whatever file then has the number. No line ever holds a PIN, data or a digest.

pub(crate) use devid_core::config::{LogSettings, LogTarget};

use der::DateTime;
use log::{Level, Record};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::SystemTime;

const SYSLOG: &str = "/dev/log";
const NAME: &str = "devid-pkcs11";
/// LOG_DAEMON of syslog(3), shifted as it stands in a message.
const FACILITY: u8 = 3 << 3;

/// Writes one line. A target that cannot be written costs the line, never the caller's call.
pub(crate) fn write(target: &LogTarget, record: &Record) {
    let _ = match target {
        LogTarget::Syslog => syslog(record),
        LogTarget::File(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(line(record).as_bytes())),
    };
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
