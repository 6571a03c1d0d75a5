//! Audit lines: which process used a private key, and what `devid` changed.
//!
//! A line goes to the journal (systemd's native protocol), or to syslog (RFC 3164) if there is no
//! journal. A line never contains data, a digest or a PIN. Audit lines are not a proof, because the
//! program that uses a key writes them itself. A program that may open the TPM can sign without
//! this library.
//!
//! The module keeps no connection open and does not wait. A line that cannot be written is lost.
//! The next line contains the number of lost lines.

use crate::printable::printable;
use parking_lot::Mutex;
use rustix::process::{geteuid, getuid};
use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The socket of the journal (systemd.journal-fields(7), and "Native Journal Protocol" of systemd).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The socket of syslog(3).
const SYSLOG: &str = "/dev/log";
const IDENTIFIER: &str = "devid-pkcs11";
/// LOG_AUTHPRIV of syslog(3). Users who may read this log may know who uses which key.
const FACILITY: u8 = 10;
/// LOG_NOTICE and LOG_INFO of syslog(3).
const NOTICE: u8 = 5;
const INFO: u8 = 6;
/// The maximum length of a value in characters. Longer values are truncated, because a long label
/// could make a line too large to send.
const LONGEST: usize = 256;

/// The number of audit lines that the uses of a key may write without a pause.
const BURST: u32 = 20;
/// The time after which the uses of a key may write one more audit line.
const REFILL: Duration = Duration::from_secs(1);
/// The number of keys that are counted separately. All other keys are counted together.
const MOST_KEYS: usize = 256;

/// The subject of a line: the use of a key, or a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction<'a> {
    /// A private or secret key was used with this mechanism of PKCS#11.
    Mechanism(&'a str),
    /// `devid` ran this command.
    Verb(&'a str),
}

/// The key that was used or changed, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AuditSubject {
    /// The label of the key's token.
    pub token: Option<String>,
    /// The label of the key.
    pub label: Option<String>,
    /// The TPM name of the key, in hexadecimal digits.
    pub key_name: Option<String>,
    /// The SHA-1 hash of the public key, as in a subjectKeyIdentifier (RFC 5280, section 4.2.1.2),
    /// in hexadecimal digits.
    pub key_id: Option<String>,
}

/// The audit log of a slot, or of one run of `devid`.
#[derive(Debug, Default)]
pub struct AuditLog {
    keys: Mutex<HashMap<Counted, Allowance>>,
    /// The number of audit lines that could not be sent since the last sent line.
    lost: AtomicU64,
}

/// The unit of counting: the successes or the failures of one key. All keys that are not counted
/// separately share a unit without subject.
type Counted = (Option<AuditSubject>, bool);

/// The number of audit lines that the uses of a key may still write.
#[derive(Debug)]
struct Allowance {
    lines: u32,
    since: Instant,
    /// The number of uses of the key that wrote no audit line since its last audit line.
    limited: u64,
}

/// The fields of an audit line, as names and values.
type Fields = Vec<(&'static str, String)>;

impl AuditLog {
    /// Writes that a key was used, unless the key wrote too many lines lately. `result` is `ok`, or
    /// the error.
    pub fn key_used(&self, mechanism: &str, subject: &AuditSubject, result: Result<(), String>) {
        let Some(limited) = self.allowed(subject, result.is_ok(), Instant::now()) else {
            return;
        };
        let mut fields = fields(AuditAction::Mechanism(mechanism), subject, &result);
        if limited > 0 {
            fields.push(("DEVID_LIMITED", limited.to_string()));
        }
        self.write(fields, if result.is_ok() { INFO } else { NOTICE });
    }

    /// Writes that `devid` changed something.
    ///
    /// # Errors
    ///
    /// Fails if the line was lost.
    pub fn changed(
        &self,
        verb: &str,
        subject: &AuditSubject,
        result: Result<(), String>,
    ) -> io::Result<()> {
        send(&fields(AuditAction::Verb(verb), subject, &result), NOTICE)
    }

    /// Writes the counts that were not written yet. The module calls it at C_Finalize, `devid` at
    /// its end.
    pub fn finish(&self) {
        let Some(mut keys) = self.keys.try_lock() else {
            return;
        };
        let untold = keys.drain().filter(|(_, allowance)| allowance.limited > 0);
        for ((subject, is_ok), Allowance { limited, .. }) in untold.collect::<Vec<_>>() {
            let mut fields = vec![("DEVID_EVENT", "limited".to_owned())];
            fields.extend(subject.unwrap_or_default().fields());
            let result = if is_ok { "ok" } else { "failed" };
            fields.push(("DEVID_RESULT", result.to_owned()));
            fields.push(("DEVID_LIMITED", limited.to_string()));
            self.write(fields, INFO);
        }
        drop(keys);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let event = ("DEVID_EVENT", "lost".to_owned());
        if lost > 0 && send(&[event, ("DEVID_LOST", lost.to_string())], NOTICE).is_err() {
            log::warn!("audit: {lost} lines were lost");
        }
    }

    /// Returns the number of uses that wrote no line since the last line. Returns `None` if this
    /// use writes no line either. If another thread has the counters locked, for example since a
    /// fork, the line is written.
    fn allowed(&self, subject: &AuditSubject, is_ok: bool, now: Instant) -> Option<u64> {
        let Some(mut keys) = self.keys.try_lock_for(Duration::from_millis(10)) else {
            return Some(0);
        };
        let mut counted = (Some(subject.clone()), is_ok);
        if keys.len() >= MOST_KEYS && !keys.contains_key(&counted) {
            keys.retain(|_, allowance| !allowance.is_idle(now));
            if keys.len() >= MOST_KEYS {
                counted.0 = None;
            }
        }
        let allowance = keys.entry(counted).or_insert_with(|| Allowance {
            lines: BURST,
            since: now,
            limited: 0,
        });
        allowance.take(now)
    }

    fn write(&self, mut fields: Fields, severity: u8) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            fields.push(("DEVID_LOST", lost.to_string()));
        }
        if let Err(error) = send(&fields, severity) {
            let before = self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            // A series of lost audit lines causes only one warning.
            if lost + before == 0 {
                log::warn!("audit: a line was lost: {error}");
            }
        }
    }
}

impl Allowance {
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.since).as_secs() / REFILL.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.lines = self.lines.saturating_add(earned).min(BURST);
            self.since = now;
        }
        match self.lines.checked_sub(1) {
            Some(left) => {
                self.lines = left;
                Some(std::mem::take(&mut self.limited))
            }
            None => {
                self.limited += 1;
                None
            }
        }
    }

    /// Returns true if the counter contains no information any more, so that it can be removed.
    fn is_idle(&self, now: Instant) -> bool {
        self.limited == 0 && now.saturating_duration_since(self.since) >= REFILL * BURST
    }
}

impl AuditSubject {
    fn fields(self) -> impl Iterator<Item = (&'static str, String)> {
        let named = [
            ("DEVID_TOKEN", self.token),
            ("DEVID_LABEL", self.label),
            ("DEVID_KEY_NAME", self.key_name),
            ("DEVID_KEY_ID", self.key_id),
        ];
        let known = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        known.filter(|(_, value)| !value.is_empty())
    }
}

fn fields(action: AuditAction, subject: &AuditSubject, result: &Result<(), String>) -> Fields {
    let (event, name, what) = match action {
        AuditAction::Mechanism(name) => ("key-use", "DEVID_MECHANISM", name),
        AuditAction::Verb(verb) => ("change", "DEVID_VERB", verb),
    };
    let mut fields = vec![("DEVID_EVENT", event.to_owned()), (name, what.to_owned())];
    fields.extend(subject.clone().fields());
    let result = result.as_ref().map_or_else(String::as_str, |()| "ok");
    fields.push(("DEVID_RESULT", result.to_owned()));
    fields
}

/// Adds the process to the line, and sends the line to the journal or to syslog.
fn send(fields: &[(&'static str, String)], severity: u8) -> io::Result<()> {
    let mut all: Fields = fields
        .iter()
        .map(|(name, value)| (*name, one_line(value)))
        .collect();
    all.push(("DEVID_UID", getuid().as_raw().to_string()));
    if geteuid() != getuid() {
        all.push(("DEVID_EUID", geteuid().as_raw().to_string()));
    }
    all.push(("DEVID_PID", std::process::id().to_string()));
    if let Ok(program) = std::fs::read_link("/proc/self/exe") {
        all.push(("DEVID_PROGRAM", one_line(&program.to_string_lossy())));
    }
    let journal = datagram(Path::new(JOURNAL), &journal_line(&all, severity));
    journal.or_else(|_| datagram(Path::new(SYSLOG), &syslog_line(&all, severity)))
}

/// Returns text from outside as one line of limited length.
fn one_line(value: &str) -> String {
    let short: String = value.chars().take(LONGEST).collect();
    printable(short)
}

fn message(fields: &Fields) -> String {
    let mut message = String::from("audit:");
    for (name, value) in fields {
        let name = name.strip_prefix("DEVID_").unwrap_or(name);
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(message, " {}=\"{value}\"", name.to_ascii_lowercase());
    }
    message
}

/// Returns a line in the journal's native format: one `NAME=value` per line. The values contain no
/// end of line.
fn journal_line(fields: &Fields, severity: u8) -> String {
    let mut line = format!(
        "MESSAGE={}\nPRIORITY={severity}\nSYSLOG_FACILITY={FACILITY}\nSYSLOG_IDENTIFIER={IDENTIFIER}\n",
        message(fields)
    );
    for (name, value) in fields {
        let _ = writeln!(line, "{name}={value}");
    }
    line
}

/// Returns a line in the format of RFC 3164 without time and host, which the receiver adds.
fn syslog_line(fields: &Fields, severity: u8) -> String {
    let priority = FACILITY << 3 | severity;
    let pid = std::process::id();
    format!("<{priority}>{IDENTIFIER}[{pid}]: {}", message(fields))
}

/// Sends a line without waiting. If the queue of the receiver is full, the line is lost.
fn datagram(path: &Path, line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    socket.send(line.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(label: &str) -> AuditSubject {
        AuditSubject {
            label: Some(label.into()),
            ..AuditSubject::default()
        }
    }

    #[test]
    fn a_label_forges_neither_a_line_nor_a_field() {
        let forged = "x\" result=\"ok\"\nDEVID_UID=0\r\u{2028}\\";
        let (verb, failed) = (AuditAction::Verb("csr"), Err("failed".to_owned()));
        let made = fields(verb, &key(forged), &failed);
        let made: Fields = made
            .into_iter()
            .map(|(name, value)| (name, one_line(&value)))
            .collect();
        let journal = journal_line(&made, NOTICE);
        assert!(!journal.lines().any(|line| line.starts_with("DEVID_UID")));
        assert_eq!(journal.lines().count(), 4 + made.len(), "{journal}");
        let syslog = syslog_line(&made, NOTICE);
        assert_eq!(syslog.lines().count(), 1, "{syslog}");
        assert!(
            syslog.contains(r#"label="x\" result=\"ok\"\\nDEVID_UID=0"#),
            "{syslog}"
        );
        assert!(syslog.ends_with(r#"result="failed""#), "{syslog}");
    }

    #[test]
    fn a_long_label_makes_no_line_that_cannot_be_sent() {
        let made = fields(
            AuditAction::Verb("csr"),
            &key(&"ü".repeat(1 << 20)),
            &Ok(()),
        );
        let made = made
            .into_iter()
            .map(|(name, value)| (name, one_line(&value)));
        let line = journal_line(&made.collect(), INFO);
        assert!(line.len() < 4096, "{}", line.len());
    }

    #[test]
    fn each_key_has_its_own_allowance_and_so_have_its_failures() {
        let (log, begin) = (AuditLog::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(log.allowed(&key("a"), true, begin), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(log.allowed(&key("a"), true, begin), None);
        }
        assert_eq!(log.allowed(&key("b"), true, begin), Some(0));
        assert_eq!(log.allowed(&key("a"), false, begin), Some(0));
        assert_eq!(log.allowed(&key("a"), true, begin + REFILL), Some(7));
        assert_eq!(log.allowed(&key("a"), true, begin + REFILL), None);
        let later = begin + REFILL * 1000;
        assert_eq!(log.allowed(&key("a"), true, later), Some(1));
        for _ in 1..BURST {
            assert_eq!(log.allowed(&key("a"), true, later), Some(0));
        }
        assert_eq!(log.allowed(&key("a"), true, later), None);
    }

    #[test]
    fn keys_of_sessions_without_number_take_no_memory_without_end() {
        let (log, begin) = (AuditLog::default(), Instant::now());
        let lines = (0..5000)
            .filter(|n| log.allowed(&key(&n.to_string()), true, begin).is_some())
            .count();
        assert_eq!(lines, MOST_KEYS + BURST as usize);
        assert_eq!(log.keys.lock().len(), MOST_KEYS + 1);
        let later = begin + REFILL * BURST;
        assert_eq!(log.allowed(&key("new"), true, later), Some(0));
        assert!(log.keys.lock().len() <= 3);
    }
}
