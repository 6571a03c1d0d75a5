//! One TPM as the house sees it: opened when first needed, shared by threads, retried and
//! reconnected.

use super::session::Salt;
use super::turn::Turn;
use super::wrapped::Nest;
use super::{
    AuthValue, Hash, Link, Lockout, Property, SRK, SaltKey, Silence, Tcti, TpmError, link,
};
use crate::config::Config;
use crate::file::Lock;
use crate::system::Held;
use log::{debug, warn};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How long others are given to free a slot for objects.
const OBJECT_PATIENCE: Duration = Duration::from_secs(2);

/// A TPM and the links to it that this process holds.
///
/// The lock of a link is held for one exchange with the TPM: the few commands that belong together,
/// and their repetitions. Whoever waits for it waits at most the time limit.
pub struct Tpm {
    tcti: Tcti,
    limit: Duration,
    link: Mutex<Option<Box<dyn Link>>>,
    /// Links of their own for keys that stay loaded.
    pub(super) nests: Mutex<Vec<Nest>>,
    /// Keeps the other processes of ours away while a key of ours is in a slot that all share.
    turn: Turn,
    /// Keeps the others from trying a PIN while one is tried here.
    pin_turn: Turn,
    /// Keeps the others from keeping a key while one is kept here.
    keeping_turn: Turn,
    silence: Silence,
    /// Whether it has ever answered.
    answered: AtomicBool,
    /// Counts transport faults. What was known of handles before a fault is in doubt after it.
    faults: AtomicU64,
    refusals: Refusals,
    /// Names of keys that this process loads: what bears one in a shared slot may be flushed.
    own_names: Mutex<HashSet<Vec<u8>>>,
    /// The handle of the master key: what lies below it is ours too, whoever made it.
    pub(super) master: Option<u32>,
    salt_key: Mutex<Option<(u64, Option<SaltKey>)>>,
    pss_given_up: AtomicBool,
    pub(super) nv_chunk: OnceCell<u16>,
    pub(super) hashes: OnceCell<Vec<Hash>>,
}

/// What answered "wrong authorisation" to a value: keys by name, NV indices by number, each with the
/// TPM's place. To be kept for as long as the process lives, since each further try may count
/// towards the lockout of the whole TPM.
#[derive(Debug, Default, Clone)]
pub struct Refusals(Arc<Mutex<HashSet<Refusal>>>);

/// The TPM's place, the name or number, and a mark of the value; none of the empty one.
type Refusal = (String, Vec<u8>, Vec<u8>);

/// By which value something is used.
#[derive(Clone, Copy)]
pub(super) struct Proof<'a> {
    /// A key's name, or an index's number.
    pub(super) id: &'a [u8],
    /// What it is called in an error.
    pub(super) called: &'a str,
    /// The authorisation value that the commands show.
    pub(super) value: &'a [u8],
}

impl<'a> Proof<'a> {
    pub(super) fn new(id: &'a [u8], called: &'a str, value: &'a AuthValue) -> Self {
        Self {
            id,
            called,
            value: value.as_bytes(),
        }
    }

    pub(super) fn empty(id: &'a [u8], called: &'a str) -> Self {
        Self {
            id,
            called,
            value: &[],
        }
    }
}

/// How an exchange may be conducted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Whether all of it may run twice: reads, and signatures by an empty authorisation. Nothing
    /// that counts towards lockout and nothing that writes.
    pub(super) repeats: bool,
    /// Whether it needs a slot that all processes share, where the TPM has no manager.
    pub(super) loads: bool,
}

impl Manner {
    /// Commands about what lies in the TPM.
    pub(super) const READS: Self = Self {
        repeats: true,
        loads: false,
    };
    /// Commands about a key that is loaded for them and flushed after them.
    pub(super) const LOADS: Self = Self {
        repeats: true,
        loads: true,
    };

    /// For commands that show this authorisation value: a wrong one counts towards lockout each
    /// time it arrives.
    pub(super) fn showing(self, value: &AuthValue) -> Self {
        Self {
            repeats: self.repeats && value.is_empty(),
            ..self
        }
    }

    /// For commands that write to the TPM.
    pub(super) fn writing(self) -> Self {
        Self {
            repeats: false,
            ..self
        }
    }
}

impl Refusals {
    /// A copy for a forked child; empty if another thread of the parent held it.
    pub fn for_child(&self) -> Self {
        let known = self.0.try_lock().map(|known| known.clone());
        Self(Arc::new(Mutex::new(known.unwrap_or_default())))
    }
}

impl Tpm {
    /// The TPM of this configuration; as [`Tpm::new`].
    pub fn of(config: &Config, refusals: Refusals) -> Self {
        Self {
            master: Some(config.master.handle),
            ..Self::new(config.tcti.clone(), config.limit, &config.locks, refusals)
        }
    }

    /// No command is sent and nothing is opened yet.
    ///
    /// `limit` bounds each command, and the wait for one's turn; through libtss2 only the latter.
    /// `locks` is the folder where processes agree on whose turn it is.
    pub fn new(tcti: Tcti, limit: Duration, locks: &Path, refusals: Refusals) -> Self {
        Self {
            turn: Turn::of_slots(&tcti, locks),
            pin_turn: Turn::of_pins(&tcti, locks),
            keeping_turn: Turn::of_keeping(locks),
            silence: Silence::default(),
            tcti,
            limit,
            link: Mutex::new(None),
            nests: Mutex::default(),
            answered: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            refusals,
            own_names: Mutex::default(),
            master: None,
            salt_key: Mutex::default(),
            pss_given_up: AtomicBool::new(false),
            nv_chunk: OnceCell::new(),
            hashes: OnceCell::new(),
        }
    }

    /// The same TPM, whose locks between processes are noted there for forked children.
    pub fn noting_locks(self, held: &'static Held) -> Self {
        Self {
            turn: self.turn.noting(held),
            pin_turn: self.pin_turn.noting(held),
            keeping_turn: self.keeping_turn.noting(held),
            ..self
        }
    }

    /// The same TPM for a forked child, with connections of its own to come.
    ///
    /// The parent's connections are closed in the child without a byte to the TPM; if another
    /// thread of the parent was in an exchange when it forked, its connection is left open and
    /// unused.
    pub fn for_child(&self, refusals: Refusals) -> Self {
        if let Some(link) = self.link.try_lock().and_then(|mut link| link.take()) {
            link.abandon();
        }
        if let Some(mut nests) = self.nests.try_lock() {
            nests.drain(..).for_each(Nest::abandon);
        }
        let own_names = self.own_names.try_lock().map(|names| names.clone());
        Self {
            turn: self.turn.clone(),
            pin_turn: self.pin_turn.clone(),
            keeping_turn: self.keeping_turn.clone(),
            silence: self.silence.clone(),
            answered: AtomicBool::new(self.has_answered()),
            // What was in doubt for the parent stays so, and what was not is so now.
            faults: AtomicU64::new(self.faults() + 1),
            pss_given_up: AtomicBool::new(!self.signs_pss()),
            own_names: Mutex::new(own_names.unwrap_or_default()),
            master: self.master,
            tcti: self.tcti.clone(),
            limit: self.limit,
            link: Mutex::new(None),
            nests: Mutex::default(),
            refusals,
            salt_key: Mutex::default(),
            nv_chunk: OnceCell::new(),
            hashes: OnceCell::new(),
        }
    }

    /// Where the TPM is.
    pub fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// How long one command may take, and the wait for one's turn.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Transport faults so far: while it stands still, what was read is still so.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Acquire)
    }

    /// Whether it has ever answered to this process or to one that it was forked from.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether PSS signatures of this TPM are of use, as far as is known.
    pub fn signs_pss(&self) -> bool {
        !self.pss_given_up.load(Ordering::Acquire)
    }

    /// Notes that they are not.
    pub fn give_up_pss(&self) {
        self.pss_given_up.store(true, Ordering::Release);
    }

    /// Names a key that is ours to flush wherever it stands in a slot that processes share.
    pub fn own(&self, name: &[u8]) {
        let mut names = self.own_names.lock();
        if !names.contains(name) {
            names.insert(name.to_vec());
        }
    }

    pub(super) fn is_own(&self, name: &[u8]) -> bool {
        self.own_names.lock().contains(name)
    }

    /// The salt key for commands that show this authorisation value, or hide their response.
    pub(super) fn salt_key_for(&self, value: &AuthValue) -> Result<Option<SaltKey>, TpmError> {
        match &value.salt {
            _ if value.is_empty() && !value.hides => Ok(None),
            Salt::For(key) => Ok(Some(key.clone())),
            Salt::Needless => Ok(None),
            Salt::ForAny => self.salt_key(),
        }
    }

    /// The TPM's key that reads the salt of an auth session: the storage root key, else an
    /// endorsement key; `None` if there is none. Read once, and again after a transport fault.
    pub fn salt_key(&self) -> Result<Option<SaltKey>, TpmError> {
        /// SRK, then the EKs of RSA-2048 and P-256 (TCG, TPM 2.0 Provisioning Guidance, 7.8).
        const PLACES: [u32; 3] = [SRK, 0x8101_0001, 0x8101_0002];
        let faults = self.faults();
        if let Some((at, known)) = &*self.salt_key.lock()
            && *at == faults
        {
            return Ok(known.clone());
        }
        let mut found = None;
        for handle in PLACES {
            let public = self.exchange("ReadPublic", Manner::READS, |link| {
                match link.read_public(handle) {
                    Err(TpmError::Response(code)) if code.is_definite() => Ok(None),
                    other => other.map(Some),
                }
            })?;
            if let Some((area, _)) = public
                && let Some(key) = SaltKey::of(handle, &area)
            {
                found = Some(key);
                break;
            }
        }
        *self.salt_key.lock() = Some((faults, found.clone()));
        Ok(found)
    }

    /// An exchange that sends nothing for what refused this authorisation value before: another try
    /// could count towards lockout. Asked and noted while the link is ours, so that threads do not
    /// try side by side.
    pub(super) fn exchange_unless_refused<R>(
        &self,
        what: &str,
        proof: Proof,
        manner: Manner,
        mut commands: impl FnMut(&mut dyn Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let result = self.exchange(what, manner, |link| {
            self.unless_refused(proof, || commands(link))
        });
        self.telling_lockout(result)
    }

    /// The same for commands over a link that is held already.
    pub(super) fn unless_refused<R>(
        &self,
        proof: Proof,
        commands: impl FnOnce() -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        // Not the value: it is to be found nowhere in memory when it has gone.
        let mark = match proof.value {
            [] => Vec::new(),
            value => Hash::Sha256.hmac(proof.id, &[value])[..4].to_vec(),
        };
        let refusal = (self.tcti.to_string(), proof.id.to_vec(), mark);
        let refused = || match proof.value {
            [] => TpmError::NeedsAuth(proof.called.to_owned()),
            _ => TpmError::WrongAuth(proof.called.to_owned()),
        };
        if self.refusals.0.lock().contains(&refusal) {
            return Err(refused());
        }
        commands().map_err(|error| match error {
            TpmError::Response(code) if code.is_wrong_auth() => {
                self.refusals.0.lock().insert(refusal);
                refused()
            }
            other => other,
        })
    }

    pub(super) fn telling_lockout<R>(&self, result: Result<R, TpmError>) -> Result<R, TpmError> {
        if matches!(result, Err(TpmError::Response(code)) if code.is_lockout()) {
            self.tell_lockout();
        }
        result
    }

    fn tell_lockout(&self) {
        match self.lockout() {
            Ok(Lockout {
                counter, interval, ..
            }) => warn!(
                "the TPM is in lockout: {counter} failed tries count, one is forgotten each \
                 {interval} s; until then a key that is not noDA cannot sign"
            ),
            Err(_) => warn!("the TPM is in lockout"),
        }
    }

    /// How near the TPM is to lockout: one command.
    pub fn lockout(&self) -> Result<Lockout, TpmError> {
        self.exchange("GetCapability(lockout)", Manner::READS, |link| {
            link.lockout()
        })
    }

    /// The turn to show a value that may be wrong, among all threads and processes: as long as it
    /// is held, no try of theirs comes between. `last`: also where a wrong one would put the TPM
    /// into lockout.
    ///
    /// # Errors
    ///
    /// [`TpmError::NoTurn`] without a lock that others could not take away, and
    /// [`TpmError::NoTryLeft`]: then nothing is to be shown.
    pub(crate) fn turn_to_try(&self, last: bool) -> Result<Option<Lock>, TpmError> {
        let turn = self.pin_turn.take(self.limit);
        let turn = turn.map_err(|why| TpmError::NoTurn(why.to_string()))?;
        match self.lockout()?.tries_left() {
            0 => Err(TpmError::NoTryLeft),
            1 if !last => Err(TpmError::NoTryLeft),
            _ => Ok(turn),
        }
    }

    /// Why no PIN can be tried, if that is for want of a lock. Nothing is made, no command is sent.
    pub(crate) fn no_turn_to_try(&self) -> Option<String> {
        self.pin_turn.fault().map(|why| why.to_string())
    }

    /// The turn to keep a key, among all processes: as long as it is held, what lies in the key
    /// folders changes by none of theirs that takes turns. `None` if none can be had.
    pub(crate) fn keeping_turn(&self) -> Option<Lock> {
        self.keeping_turn.take_if_free(self.limit)
    }

    /// The same TPM, asked no more once it let a command wait in vain, here or at a copy of this.
    pub fn remembering(self, silence: Silence) -> Self {
        Self { silence, ..self }
    }

    pub(crate) fn silence(&self) -> &Silence {
        &self.silence
    }

    /// A number that the TPM tells of itself.
    pub fn property(&self, property: Property) -> Result<u32, TpmError> {
        let what = "GetCapability(properties)";
        self.exchange(what, Manner::READS, |link| link.property(property))
    }

    /// One exchange of commands over the link that all of them share.
    ///
    /// Repeats while the TPM asks for it, and once over a new connection after a transport fault if
    /// the manner allows it.
    pub(super) fn exchange<R>(
        &self,
        what: &str,
        manner: Manner,
        commands: impl FnMut(&mut dyn Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let mut link = self
            .link
            .try_lock_for(self.limit)
            .ok_or(TpmError::Timeout(self.limit))?;
        let _turn = match manner.loads {
            true => self.turn.take_if_free(self.limit),
            false => None,
        };
        self.exchange_over(&mut link, what, manner, commands)
    }

    /// The same over a link that is held already.
    pub(super) fn exchange_over<R>(
        &self,
        place: &mut Option<Box<dyn Link>>,
        what: &str,
        manner: Manner,
        mut commands: impl FnMut(&mut dyn Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        if self.silence.is_known() {
            return Err(TpmError::Timeout(self.limit));
        }
        let began = Instant::now();
        let deadline = began + self.limit;
        let mut pause = FIRST_PAUSE;
        let mut reconnected = !manner.repeats;
        loop {
            let link = match &mut *place {
                Some(link) => link,
                none => none.insert(link::open(&self.tcti, self.limit)?),
            };
            match commands(link.as_mut()) {
                Err(TpmError::Response(code))
                    if (code.asks_for_resend() && Instant::now() + pause < deadline)
                        || (code.is_out_of_objects() && began.elapsed() < OBJECT_PATIENCE) =>
                {
                    debug!(
                        "{what}: TPM answered {code}, sent again in {} ms",
                        pause.as_millis()
                    );
                    if code.is_out_of_objects() {
                        // Whoever uses a slot now has had the time to give it back.
                        let is_long = began.elapsed() > OBJECT_PATIENCE / 2;
                        self.reclaim(link.as_mut(), is_long)?;
                    }
                    crate::system::pause(pause);
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Err(error) if error.is_transport_fault() => {
                    self.faults.fetch_add(1, Ordering::AcqRel);
                    if reconnected || Instant::now() >= deadline {
                        warn!("{what}: {error}");
                        return Err(error);
                    }
                    warn!("{what}: {error}; sent again over a new connection");
                    reconnected = true;
                }
                Err(error) => {
                    if matches!(error, TpmError::Unreachable(_)) {
                        // Whoever answers next may be another TPM, or this one after a reset.
                        self.faults.fetch_add(1, Ordering::AcqRel);
                    }
                    if matches!(error, TpmError::Timeout(_)) {
                        self.silence.note();
                    }
                    debug!("{what}: {error}");
                    return Err(error);
                }
                Ok(answer) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
            }
        }
    }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm")
            .field("tcti", &self.tcti)
            .finish_non_exhaustive()
    }
}
