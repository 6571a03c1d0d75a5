//! Time limits of TPM commands by class, and time limits of waiting threads.
//!
//! Most commands take less than a second. A TPM that makes an RSA key searches primes, which can
//! take minutes on some chips. The Linux kernel allows 300 s for such commands
//! (`drivers/char/tpm/tpm2-cmd.c`).
//!
//! A thread behind a key generation of this process waits until the generation ends. Other
//! processes recognise the generation by a lock ([`ProcessLock::for_generations`]).

use crate::system::Held;
use crate::tpm::algorithm;
use crate::tpm::command_code::{CREATE, CREATE_LOADED, CREATE_PRIMARY, IMPORT};
use crate::tpm::process_lock::{NotLocked, ProcessLock};
use crate::waiting::WaitLines;
use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The message about a TPM that works but does not answer yet.
pub(in crate::tpm) const BUSY: &str = "the TPM is busy: it is making a key for another process";
/// The time limit for taking the generation lock. A check of the lock by another process may delay
/// it.
const A_LOOK: Duration = Duration::from_millis(100);

/// The class of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandClass {
    /// Every command that is not listed for [`CommandClass::Generation`].
    #[default]
    Ordinary,
    /// TPM2_Create, TPM2_CreatePrimary, TPM2_CreateLoaded, and TPM2_Import of an RSA key.
    Generation,
}

impl CommandClass {
    /// Returns the class of the command with this code (TPM_CC) and these parameters.
    pub(in crate::tpm) fn of_command(code: u32, parameters: &[u8]) -> Self {
        match code {
            CREATE_PRIMARY | CREATE | CREATE_LOADED => Self::Generation,
            IMPORT if is_of_rsa(parameters) => Self::Generation,
            _ => Self::Ordinary,
        }
    }
}

/// Returns true if the second parameter of a TPM2_Import, a TPM2B_PUBLIC, is an RSA key (Part 3,
/// section 13.3).
fn is_of_rsa(parameters: &[u8]) -> bool {
    const RSA: [u8; 2] = algorithm::RSA.to_be_bytes();
    let encryption_key = parameters.split_first_chunk();
    let public =
        encryption_key.and_then(|(size, rest)| rest.get(usize::from(u16::from_be_bytes(*size))..));
    public.and_then(|public| public.get(2..4)) == Some(&RSA)
}

/// The time limits of commands, by class of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    ordinary: Duration,
    generation: Duration,
}

impl Limits {
    /// Creates the limits. If `generation` is smaller than `ordinary`, it is raised to `ordinary`.
    pub fn new(ordinary: Duration, generation: Duration) -> Self {
        Self {
            ordinary,
            generation: generation.max(ordinary),
        }
    }

    /// Returns the time limit of a class.
    pub fn for_class(self, class: CommandClass) -> Limit {
        let time = match class {
            CommandClass::Ordinary => self.ordinary,
            CommandClass::Generation => self.generation,
        };
        Limit { class, time }
    }
}

/// A time limit, and the class of commands to which it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The class of the commands.
    pub class: CommandClass,
    /// The maximum time from the sending of a command to its answer.
    pub time: Duration,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.time.as_millis())
    }
}

/// The time limits for one TPM, and the key generations of this TPM that are under way.
#[derive(Debug)]
pub(in crate::tpm) struct Timing {
    limits: Limits,
    /// The number of key generations of this process that are under way.
    under_way: AtomicU32,
    /// Counts the starts and the ends of key generations.
    changes: AtomicU64,
    /// The lock that each process holds while it has a key generation under way.
    busy: ProcessLock,
}

/// A key generation of this process. The generation ends when the value is dropped.
pub(in crate::tpm) struct Generation<'a> {
    timing: &'a Timing,
    _told_to_others: Option<crate::file::Lock>,
}

/// One wait for an answer, a connection or other threads.
pub(in crate::tpm) struct Wait<'a> {
    timing: &'a Timing,
    limit: Cell<Limit>,
    began: Instant,
    lines: WaitLines,
    end: Cell<Instant>,
    /// The value of [`Timing::changes`] when `end` was set.
    changes: Cell<u64>,
}

impl Timing {
    pub(in crate::tpm) fn new(limits: Limits, locks: &Path) -> Self {
        Self::with(limits, ProcessLock::for_generations(locks))
    }

    fn with(limits: Limits, busy: ProcessLock) -> Self {
        Self {
            limits,
            under_way: AtomicU32::new(0),
            changes: AtomicU64::new(0),
            busy,
        }
    }

    /// Returns a copy of this value. Each time its lock is taken, the lock is recorded in `held`.
    pub(in crate::tpm) fn noting(&self, held: &'static Held) -> Self {
        Self::with(self.limits, self.busy.clone().noting(held))
    }

    /// Returns a copy for a forked child, which has no key generation under way.
    pub(in crate::tpm) fn for_child(&self) -> Self {
        Self::with(self.limits, self.busy.clone())
    }

    pub(in crate::tpm) fn limits(&self) -> Limits {
        self.limits
    }

    /// Records the start of a command, if the command is a key generation.
    pub(in crate::tpm) fn note_start(&self, class: CommandClass) -> Option<Generation<'_>> {
        (class == CommandClass::Generation).then(|| self.generation())
    }

    /// Records the start of a key generation.
    fn generation(&self) -> Generation<'_> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.changes.fetch_add(1, Ordering::AcqRel);
        Generation {
            timing: self,
            _told_to_others: self.busy.take(A_LOOK).ok().flatten(),
        }
    }

    /// Returns true if another process has a key generation under way, and this process has none.
    pub(in crate::tpm) fn is_busy(&self) -> bool {
        !self.is_generating() && self.busy.is_held()
    }

    fn is_generating(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// Starts a wait with the time limit of this class.
    pub(in crate::tpm) fn wait(&self, class: CommandClass) -> Wait<'_> {
        let (began, limit) = (Instant::now(), self.limits.for_class(class));
        Wait {
            timing: self,
            limit: Cell::new(limit),
            began,
            lines: WaitLines::new(),
            end: Cell::new(began + limit.time),
            changes: Cell::new(self.changes.load(Ordering::Acquire)),
        }
    }

    /// Returns the reason why a lock is not available. If the TPM makes a key for another process,
    /// the text says so.
    pub(in crate::tpm) fn explained(&self, why: &NotLocked) -> String {
        match why {
            NotLocked::Held(_) if self.is_busy() => format!("{why}, and {BUSY}"),
            _ => why.to_string(),
        }
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        self.timing.changes.fetch_add(1, Ordering::AcqRel);
        self.timing.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Wait<'_> {
    /// Returns the time to wait before the next call.
    ///
    /// # Errors
    ///
    /// Fails with the time limit that has passed. Behind a key generation of this process this is
    /// the limit of generations.
    pub(in crate::tpm) fn left(&self) -> Result<Duration, Limit> {
        let now = Instant::now();
        if now >= self.end.get() {
            self.prolong(now)?;
        }
        let left = self.end.get() - now;
        let limit = self.limit.get();
        let what = |waited| self.reason(waited);
        match self.lines.tell((self.began, now), limit.time, what) {
            Some(next) => Ok(next.min(left)),
            None => Ok(left),
        }
    }

    /// Returns true if a key generation of this process is under way, or was under way since `end`
    /// was set.
    pub(in crate::tpm) fn is_behind_generation(&self) -> bool {
        let changes = self.timing.changes.load(Ordering::Acquire);
        self.timing.is_generating() || changes != self.changes.get()
    }

    /// Extends the wait if a key generation of this process is under way, or was under way during
    /// the wait.
    fn prolong(&self, now: Instant) -> Result<(), Limit> {
        let longest = self.timing.limits.for_class(CommandClass::Generation);
        let last = self.began + longest.time;
        if !self.is_behind_generation() || now >= last {
            return Err(self.limit.get());
        }
        self.limit.set(longest);
        self.changes
            .set(self.timing.changes.load(Ordering::Acquire));
        self.end.set(last.min(now + self.timing.limits.ordinary));
        Ok(())
    }

    /// Returns the reason for the wait, for the log.
    fn reason(&self, waited: Duration) -> &'static str {
        match self.limit.get().class {
            CommandClass::Generation => "the TPM is making a key",
            CommandClass::Ordinary if self.timing.is_generating() => {
                "the TPM is making a key for another thread"
            }
            CommandClass::Ordinary if waited < Duration::from_secs(1) => "waiting for the TPM",
            CommandClass::Ordinary if self.timing.is_busy() => BUSY,
            CommandClass::Ordinary => "the TPM has not answered yet",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Curve;
    use crate::tpm::exchange::Exchange;
    use crate::tpm::fake::{FakeTpm, IDENTITY, Reply, p256_area, public};
    use crate::tpm::{
        AuthHandle, KeyAlgorithm, KeyPurpose, ResponseCode, SensitiveCreate, Tpm, TpmError,
        template,
    };
    use std::fs::File;
    use std::sync::mpsc::channel;
    use std::thread;

    const RETRY: Reply = Reply::Code(0x922);
    const LONG: Duration = Duration::from_secs(300);

    fn limits(ordinary: u64) -> Limits {
        Limits::new(Duration::from_millis(ordinary), LONG)
    }

    fn timing(ordinary: u64) -> (tempfile::TempDir, Timing) {
        let folder = tempfile::tempdir().unwrap();
        let timing = Timing::new(limits(ordinary), folder.path());
        (folder, timing)
    }

    fn create(tpm: &Tpm) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let usage = KeyPurpose {
            signs: true,
            decrypts: false,
        };
        let template = template::device_key(KeyAlgorithm::Ec(Curve::P256), usage);
        let parent = AuthHandle::open(0x8100_0100, &[]);
        Exchange::new("Create").run(tpm, |link| {
            link.create(parent, SensitiveCreate::default(), &template)
        })
    }

    #[test]
    fn the_class_is_told_by_the_command() {
        fn generation(code: u32, parameters: &[u8]) -> bool {
            CommandClass::of_command(code, parameters) == CommandClass::Generation
        }
        for code in [0x131, CREATE, 0x191] {
            assert!(generation(code, &[]), "{code:#x}");
        }
        // The codes of Load, Sign, EvictControl, NV_Write, Unseal, RSA_Decrypt, ECDH_ZGen and
        // GetRandom.
        for code in [0x157, 0x15D, 0x120, 0x137, 0x15E, 0x159, 0x154, 0x17B] {
            assert!(!generation(code, &[0, 0, 0, 9, 0, 1]), "{code:#x}");
        }
        let import = |parameters: &[u8]| generation(0x156, parameters);
        assert!(import(&[0, 0, 1, 0x18, 0, 1, 0, 0x0B]));
        assert!(
            import(&[0, 2, 7, 7, 1, 0x18, 0, 1, 0, 0x0B]),
            "a public key before the TPM2B_PUBLIC"
        );
        assert!(!import(&[0, 0, 0, 0x58, 0, 0x23, 0, 0x0B]));
        for short in [&[][..], &[0], &[0, 9, 0, 1], &[0, 0, 1, 0x18, 0]] {
            assert!(!import(short), "{short:x?}");
        }
    }

    /// A TPM may suspend a key generation, and ask for the command again (TPM_RC_YIELDED).
    #[test]
    fn a_generation_is_repeated_for_as_long_as_it_may_take() {
        // The pauses are 1, 2, 4 … ms: more than 20 ms together.
        let retries = || (0..8).map(|_| RETRY);
        let fake = FakeTpm::new(retries().chain([Reply::Code(0x101)]));
        let tpm = fake.tpm_with(limits(20));
        let failed = create(&tpm).unwrap_err();
        assert_eq!(failed, TpmError::Response(ResponseCode(0x101)));
        assert_eq!(fake.seen(), [CREATE; 9]);
    }

    #[test]
    fn another_command_is_not() {
        let fake = FakeTpm::new((0..9).map(|_| RETRY));
        let tpm = fake.tpm_with(limits(20));
        assert!(tpm.random(&mut [0]).is_err());
        assert!(fake.seen().len() < 9);
    }

    #[test]
    fn each_class_has_its_limit() {
        let fake = FakeTpm::new([Reply::Silence, Reply::Silence]);
        let [ordinary, generation] = [10, 40].map(Duration::from_millis);
        let limits = Limits::new(ordinary, generation);
        let tpm = fake.tpm_with(limits);
        let passed = |class| TpmError::Timeout(limits.for_class(class));
        assert_eq!(tpm.random(&mut [0]), Err(passed(CommandClass::Ordinary)));
        let began = Instant::now();
        assert_eq!(create(&tpm).unwrap_err(), passed(CommandClass::Generation));
        assert!(began.elapsed() >= generation);
    }

    #[test]
    fn a_wait_goes_on_behind_a_generation_of_this_process() {
        let (_folder, timing) = timing(0);
        assert_eq!(
            timing.wait(CommandClass::Ordinary).left(),
            Err(timing.limits.for_class(CommandClass::Ordinary))
        );
        let generation = timing.generation();
        let behind = timing.wait(CommandClass::Ordinary);
        assert!(behind.left().is_ok());
        drop(generation);
        // The generation ended during the wait, so the thread may wait for one more limit.
        assert!(behind.left().is_ok());
        let passed = behind.left();
        assert_eq!(
            passed,
            Err(timing.limits.for_class(CommandClass::Generation))
        );
    }

    #[test]
    fn a_wait_behind_generations_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::new(Duration::ZERO, Duration::ZERO);
        let timing = Timing::new(limits, folder.path());
        let _generation = timing.generation();
        let passed = timing.wait(CommandClass::Ordinary).left();
        assert_eq!(passed, Err(limits.for_class(CommandClass::Ordinary)));
    }

    /// Several processes may each have a key generation under way. The TPM is busy until the last
    /// one ends.
    #[test]
    fn what_other_processes_do_is_seen() {
        let (folder, mine) = timing(0);
        let other = |_| Timing::new(limits(0), folder.path());
        let [first, second] = [0, 1].map(other);
        let limit = mine.limits.for_class(CommandClass::Ordinary);
        let silent = TpmError::Timeout(limit);
        assert_eq!(
            TpmError::timed_out(limit, &mine),
            silent,
            "the lock was never taken"
        );
        let one = first.generation();
        let two = second.generation();
        assert_eq!(TpmError::timed_out(limit, &mine), TpmError::Busy(limit));
        drop(one);
        assert_eq!(TpmError::timed_out(limit, &mine), TpmError::Busy(limit));
        drop(two);
        assert_eq!(TpmError::timed_out(limit, &mine), silent);
        let _own = mine.generation();
        assert_eq!(
            TpmError::timed_out(limit, &mine),
            silent,
            "this process makes the key"
        );
    }

    /// The TPM still made a key for another process when the limit of this command passed.
    #[test]
    fn a_generation_behind_one_of_another_process_is_told_so() {
        let fake = FakeTpm::new([Reply::Silence]);
        // On a busy machine the way to the TPM alone can take 10 ms.
        let limit = Duration::from_secs(2);
        let limits = Limits::new(limit, limit);
        let (tpm, other) = (fake.tpm_with(limits), fake.tpm_with(limits));
        let generation = other.timing().generation();
        let busy = TpmError::Busy(limits.for_class(CommandClass::Generation));
        assert_eq!(create(&tpm).unwrap_err(), busy);
        drop(generation);
    }

    /// A process that holds the lock exclusively hides a key generation, but does not prevent it.
    #[test]
    fn a_lock_that_is_kept_stops_no_generation() {
        let (folder, timing) = timing(0);
        drop(timing.generation());
        let kept = File::open(folder.path().join("busy")).unwrap();
        kept.lock().unwrap();
        drop(timing.generation());
    }

    #[test]
    fn threads_wait_for_the_link_while_a_generation_goes_on() {
        let fake = FakeTpm::new([public(&p256_area(IDENTITY, &[0, 0x10]), &[0, 0x0B, 1])]);
        // The limit is long enough for the answer of the simulated TPM on a busy machine.
        let tpm = fake.tpm_with(limits(3000));
        let held = tpm.link.lock();
        let generation = tpm.timing().generation();
        thread::scope(|scope| {
            let (tell, told) = channel();
            let tpm = &tpm;
            let waiter = scope.spawn(move || {
                let asked = tpm.persistent_key(0x8102_0000).map(drop);
                tell.send(()).unwrap();
                asked
            });
            let early = told.recv_timeout(Duration::from_millis(3500));
            assert!(early.is_err(), "the thread waits for more than the limit");
            drop(held);
            drop(generation);
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }

    /// Another thread holds the lock for PIN tries and waits for the TPM.
    #[test]
    fn threads_wait_for_the_turn_to_try_a_pin_while_a_generation_goes_on() {
        let fake = FakeTpm::new([]);
        let tpm = fake.tpm_with(limits(1));
        let generation = tpm.timing().generation();
        let held = ProcessLock::for_pins(tpm.tcti(), &fake.locks());
        let held = held.take(LONG).unwrap();
        thread::scope(|scope| {
            let (tell, told) = channel();
            let tpm = &tpm;
            let waiter = scope.spawn(move || {
                let lock = tpm.lock_pin_try(false).map(drop);
                tell.send(()).unwrap();
                lock
            });
            let early = told.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "the thread waits for fifty times the limit");
            drop(generation);
            let refused = waiter.join().unwrap();
            assert!(
                matches!(refused, Err(TpmError::NoPinLock(_))),
                "{refused:?}"
            );
        });
        drop(held);
    }

    #[test]
    fn whoever_has_the_turn_may_wait_for_another_process() {
        let fake = FakeTpm::new([]);
        let (tpm, other) = (fake.tpm_with(limits(1)), fake.tpm_with(limits(1)));
        let held = ProcessLock::for_pins(tpm.tcti(), &fake.locks());
        let held = held.take(LONG).unwrap();
        let generation = other.timing().generation();
        let why = tpm.lock_pin_try(false).unwrap_err().to_string();
        assert!(why.contains("another process holds the lock"), "{why}");
        assert!(why.contains(BUSY), "{why}");
        drop((held, generation));
    }
}
