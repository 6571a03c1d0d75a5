//! An exchange: a few TPM commands that belong together, and their repetitions.
//!
//! Only this module repeats commands. After a transport fault it opens a new connection, and
//! repeats only exchanges that may run twice.

use super::transport::TimeoutCause;
use super::{AuthValue, CommandClass, Hash, Link, Lockout, SaltKey, Tpm, TpmError};
use crate::system;
use crate::waiting::WaitLines;
use log::{debug, warn};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// The time that other processes have to free a slot for transient objects.
const OBJECT_PATIENCE: Duration = Duration::from_secs(2);
/// The minimum number of tries if the TPM has no free slot for a transient object.
const OBJECT_TRIES: u32 = 2;

/// The set of authorisation values that the TPM answered with "wrong authorisation". A key is
/// listed by its name, an NV index by its number, each together with the TCTI. The set lives as
/// long as the process, because each further try may count towards the lockout of the whole TPM.
#[derive(Debug, Default, Clone)]
pub struct Refusals(Arc<Mutex<HashSet<RefusedValue>>>);

/// The TCTI, the name or number of the object, and a hash of the value. The hash is empty for the
/// empty value.
type RefusedValue = (String, Vec<u8>, Vec<u8>);

impl Refusals {
    /// Returns a copy for a forked child. The copy is empty if another thread of the parent had the
    /// set locked at the fork.
    pub fn for_child(&self) -> Self {
        let known = self.0.try_lock().map(|known| known.clone());
        Self(Arc::new(Mutex::new(known.unwrap_or_default())))
    }
}

/// The object that an exchange uses, and the authorisation value that the commands prove.
#[derive(Clone, Copy)]
pub(super) struct AuthSubject<'a> {
    /// The TPM name of a key, or the number of an NV index.
    pub(super) id: &'a [u8],
    /// The words for the object in error messages: `key`, and the handle if the object has a
    /// handle.
    pub(super) called: &'a str,
    pub(super) handle: Option<u32>,
    pub(super) value: &'a [u8],
}

impl<'a> AuthSubject<'a> {
    /// Creates an [`AuthSubject`] without handle, with this authorisation value.
    pub(super) fn new(id: &'a [u8], called: &'a str, value: &'a AuthValue) -> Self {
        Self {
            id,
            called,
            handle: None,
            value: value.as_bytes(),
        }
    }

    /// Creates an [`AuthSubject`] without handle, with the empty authorisation value.
    pub(super) fn open(id: &'a [u8], called: &'a str) -> Self {
        Self {
            id,
            called,
            handle: None,
            value: &[],
        }
    }

    /// Returns the entry for [`Refusals`]: the TCTI, the subject, and a hash of the value.
    fn refusal(&self, tpm: &Tpm) -> RefusedValue {
        // The entry contains a hash, so that no copy of the value stays in memory.
        let mark = match self.value {
            [] => Vec::new(),
            value => Hash::Sha256.hmac(self.id, &[value])[..4].to_vec(),
        };
        (tpm.tcti().to_string(), self.id.to_vec(), mark)
    }

    fn error(&self) -> TpmError {
        let called = match self.handle {
            Some(handle) => format!("{} 0x{handle:08X}", self.called),
            None => self.called.to_owned(),
        };
        match self.value {
            [] => TpmError::NeedsAuth(called),
            _ => TpmError::WrongAuth(called),
        }
    }
}

/// The rules for a group of commands: whether they may run twice, and what they need.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    /// The name of the exchange in the log.
    what: &'a str,
    /// True if the whole exchange may run twice: reads, and signatures with the empty value. False
    /// if a try may count towards lockout or if a command writes.
    retryable: bool,
    /// True if the exchange needs a slot for a transient object. Without a resource manager all
    /// processes share these slots.
    needs_object_slot: bool,
    subject: Option<AuthSubject<'a>>,
}

/// Counts the responses "no room for objects", and records the time of the first such response.
#[derive(Default)]
struct Crowded {
    since: Option<Instant>,
    tries: u32,
}

impl Crowded {
    /// Counts one more "no room" answer. Returns true if another try is worthwhile.
    fn goes_on(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.tries += 1;
        self.tries <= OBJECT_TRIES || since.elapsed() < OBJECT_PATIENCE
    }

    /// Returns true if the "no room" responses have lasted long enough for other processes to free
    /// slots.
    fn is_long(&self) -> bool {
        let long = |since: Instant| since.elapsed() > OBJECT_PATIENCE / 2;
        self.since.is_some_and(long)
    }
}

impl<'a> Exchange<'a> {
    /// Creates an exchange of commands that only read from the TPM. The exchange may run twice.
    pub(super) fn new(what: &'a str) -> Self {
        Self {
            what,
            retryable: true,
            needs_object_slot: false,
            subject: None,
        }
    }

    /// Marks the exchange as needing a slot for a transient object.
    pub(super) fn needing_object_slot(self) -> Self {
        Self {
            needs_object_slot: true,
            ..self
        }
    }

    /// Marks the exchange as running in an auth session that is salted to this key. A key without
    /// handle must be loaded first, so it needs a slot.
    pub(super) fn salted(self, key: Option<&SaltKey>) -> Self {
        let is_loaded = key.is_some_and(|key| key.handle().is_none());
        Self {
            needs_object_slot: self.needs_object_slot || is_loaded,
            ..self
        }
    }

    /// Marks the exchange as writing to the TPM. The exchange is then not repeated.
    pub(super) fn writing(self) -> Self {
        Self {
            retryable: false,
            ..self
        }
    }

    /// Marks the exchange as proving the owner's authorisation value. A refused owner value is not
    /// remembered.
    pub(super) fn showing_owner(self, value: &AuthValue) -> Self {
        Self {
            retryable: self.retryable && value.is_empty(),
            ..self
        }
    }

    /// Creates an exchange that proves the authorisation value of a subject. Each wrong value
    /// counts towards lockout. No command is sent if the subject refused this value before.
    /// `salt_key` is the key for the salt of the session.
    pub(super) fn authorised(
        what: &'a str,
        subject: AuthSubject<'a>,
        salt_key: Option<&SaltKey>,
    ) -> Self {
        Self {
            what,
            retryable: subject.value.is_empty(),
            needs_object_slot: salt_key.is_some_and(|key| key.handle().is_none()),
            subject: Some(subject),
        }
    }

    /// Runs the commands over the shared link.
    ///
    /// Repeats the commands while the TPM asks for a repetition. After a transport fault it repeats
    /// them once over a new connection, if the exchange may run twice.
    pub(super) fn run<R>(
        self,
        tpm: &Tpm,
        commands: impl FnMut(&mut Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let mut link = match tpm.link.try_lock() {
            Some(link) => link,
            None => tpm.wait_for(&tpm.link)?,
        };
        let lock = self
            .needs_object_slot
            .then(|| tpm.lock_object_slots())
            .flatten();
        let result = self.run_over(&mut link, tpm, commands);
        drop((lock, link));
        if let Err(TpmError::Lockout(_)) = result {
            self.tell_lockout(tpm);
        }
        result
    }

    /// Logs a warning that the TPM is in lockout. The caller must not have the link locked, because
    /// this function reads the duration of the lockout from the TPM.
    pub(super) fn tell_lockout(self, tpm: &Tpm) {
        if self.subject.is_none() {
            return;
        }
        match tpm.lockout() {
            Ok(Lockout {
                counter, interval, ..
            }) => warn!(
                "the TPM is in lockout: it counts {counter} failed tries, and forgets one try each \
                 {interval} s; until then a key that is not noDA cannot sign"
            ),
            Err(_) => warn!("the TPM is in lockout"),
        }
    }

    /// Runs the commands of the exchange over a link that the caller has locked.
    pub(super) fn run_over<R>(
        self,
        place: &mut Option<Link>,
        tpm: &Tpm,
        mut commands: impl FnMut(&mut Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let Self { what, subject, .. } = self;
        match tpm.timeout_memory().cause() {
            Some(TimeoutCause::Silent) => {
                return Err(TpmError::Timeout(
                    tpm.limits().for_class(CommandClass::Ordinary),
                ));
            }
            Some(TimeoutCause::Busy) if tpm.timing().is_busy() => {
                return Err(TpmError::Busy(
                    tpm.limits().for_class(CommandClass::Ordinary),
                ));
            }
            Some(TimeoutCause::Busy) | None => {}
        }
        // The link is locked while the authorisation value is checked and its refusal is stored. So
        // two threads never try the same value.
        if let Some(subject) = &subject {
            let refused = tpm.refusals().0.lock();
            if !refused.is_empty() && refused.contains(&subject.refusal(tpm)) {
                let error = subject.error();
                debug!("{what}: {error}");
                return Err(error);
            }
        }
        let (began, lines) = (Instant::now(), WaitLines::new());
        let mut slowest = CommandClass::Ordinary;
        let mut crowded = Crowded::default();
        let mut pause = FIRST_PAUSE;
        let mut reconnected = !self.retryable;
        loop {
            let link = match &mut *place {
                Some(link) => link,
                none => none.insert(tpm.new_link()?),
            };
            link.slowest = slowest;
            let answered = commands(link);
            slowest = link.slowest;
            let in_time =
                |pause| Instant::now() + pause < began + tpm.limits().for_class(slowest).time;
            match answered {
                Ok(answer) => {
                    tpm.note_answer();
                    return Ok(answer);
                }
                Err(TpmError::Response(code))
                    if (code.asks_for_resend() && in_time(pause))
                        || (code.is_out_of_objects() && crowded.goes_on()) =>
                {
                    debug!(
                        "{what}: the TPM answered {code}; the commands are sent again in {} ms",
                        pause.as_millis()
                    );
                    if code.is_out_of_objects() {
                        tpm.reclaim(link, code, crowded.is_long())?;
                    }
                    let most = tpm.limits().for_class(slowest).time;
                    let what = |_| format!("the TPM asks to wait ({code})");
                    lines.tell((began, Instant::now()), most, what);
                    system::pause(pause);
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Err(error) if error.is_transport_fault() => {
                    tpm.note_fault();
                    if reconnected || !in_time(Duration::ZERO) {
                        warn!("{what}: {error}");
                        return Err(error);
                    }
                    warn!("{what}: {error}; the commands are sent again over a new connection");
                    reconnected = true;
                }
                Err(TpmError::Response(code)) if code.is_lockout() => {
                    debug!("{what}: the TPM answered {code}");
                    return Err(TpmError::Lockout(tpm.tcti().clone()));
                }
                Err(error) => {
                    let error = match (error, subject) {
                        (TpmError::Response(code), Some(subject)) if code.is_wrong_auth() => {
                            tpm.refusals().0.lock().insert(subject.refusal(tpm));
                            subject.error()
                        }
                        (error @ TpmError::Unreachable(_), _) => {
                            // The next answer may come from another TPM, or from the same TPM after
                            // a reset.
                            tpm.note_fault();
                            error
                        }
                        (error @ TpmError::Busy(_), _) => {
                            tpm.note_fault();
                            tpm.timeout_memory().note(TimeoutCause::Busy);
                            warn!("{what}: {error}");
                            return Err(error);
                        }
                        (error @ TpmError::Timeout(_), _) => {
                            // The connection may be reopened before the TPM's response arrives.
                            tpm.note_fault();
                            tpm.timeout_memory().note(TimeoutCause::Silent);
                            error
                        }
                        (error, _) => error,
                    };
                    debug!("{what}: {error}");
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of tries counts, not only the time: one try with a key generation may exceed the
    /// whole limit.
    #[test]
    fn a_crowded_tpm_is_asked_again_however_slow_it_is() {
        let mut crowded = Crowded::default();
        assert!(crowded.goes_on());
        assert!(!crowded.is_long(), "other processes have had no time yet");
        crowded.since = Instant::now().checked_sub(OBJECT_PATIENCE);
        assert!(crowded.is_long());
        assert!(crowded.goes_on(), "the second answer");
        assert!(!crowded.goes_on(), "the third");
    }

    #[test]
    fn a_fast_tpm_is_asked_for_the_whole_patience() {
        let mut crowded = Crowded::default();
        for _ in 0..20 {
            assert!(crowded.goes_on());
        }
    }
}
