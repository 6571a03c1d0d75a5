//! The client of one TPM. All threads of the process share the client. The client opens its
//! connection at the first command.

use super::algorithms::RetryPause;
use super::connections::Connection;
use super::exchange::{Exchange, Refusals};
use super::process_lock::{NotLocked, ProcessLock};
use super::transport::Timing;
use super::{
    Capabilities, CommandClass, Hash, KnownAlgorithms, Limits, Link, Lockout, Property, SaltKey,
    SignatureScheme, StorageRoot, Tcti, TimeoutMemory, TpmError,
};
use crate::file::Lock;
use crate::key::{Curve, PublicKey};
use crate::system::Held;
use crate::trust::Distrust;
use once_cell::sync::OnceCell;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A TPM and the connections of this process to the TPM.
///
/// A thread locks a link for one exchange: commands that belong together, and their repetitions.
/// Another thread waits for the lock no longer than the time limit of one command. Behind a key
/// generation the wait lasts until the generation ends.
pub struct Tpm {
    tcti: Tcti,
    timing: Arc<Timing>,
    /// The connection for commands. A thread locks it during an exchange with the TPM.
    pub(super) link: Mutex<Option<Link>>,
    /// Separate connections for keys that stay loaded between two uses.
    pub(super) connections: Mutex<Vec<Connection>>,
    /// Guards the TPM's slots for transient objects, which all processes share.
    slots_lock: ProcessLock,
    /// Guards one attempt with a PIN, so that no two processes use up attempts at a time.
    pin_lock: ProcessLock,
    /// Guards the creation of a key that must exist only once.
    new_key_lock: ProcessLock,
    timeout_memory: TimeoutMemory,
    /// True if the TPM has answered at least once.
    answered: AtomicBool,
    /// Counts transport faults. After a fault, a handle may contain another object than before.
    faults: AtomicU64,
    refusals: Refusals,
    /// The TPM names of the keys that this process loads. A transient object with one of these
    /// names may be flushed.
    flushable_names: Mutex<HashSet<Vec<u8>>>,
    /// The handle of the master key. All objects below this key may be flushed.
    pub(super) master: Option<u32>,
    /// The key for salts, and the count of faults at the time when the key was found.
    pub(super) salt_key: Mutex<Option<(u64, SaltKey)>>,
    root: StorageRoot,
    verifies_signatures: bool,
    pss_given_up: AtomicBool,
    pub(super) nv_chunk: OnceCell<u16>,
    known_algorithms: KnownAlgorithms,
    /// A thread locks this value while it asks for [`Tpm::known_algorithms`].
    pub(super) asking: Mutex<RetryPause>,
    /// The schemes for which a signature of this TPM was verified; see [`Tpm::has_proven`].
    proven: AtomicU32,
}

impl Tpm {
    /// Creates the client. The client opens the TPM at its first command.
    ///
    /// `limits` gives the time limit of each command, and of each wait for a lock. `locks` is the
    /// folder with the files for the locks between processes.
    pub fn new(tcti: Tcti, limits: Limits, locks: &Path, refusals: Refusals) -> Self {
        Self {
            slots_lock: ProcessLock::for_object_slots(&tcti, locks),
            pin_lock: ProcessLock::for_pins(&tcti, locks),
            new_key_lock: ProcessLock::for_new_keys(locks),
            timeout_memory: TimeoutMemory::default(),
            timing: Arc::new(Timing::new(limits, locks)),
            tcti,
            link: Mutex::new(None),
            connections: Mutex::default(),
            answered: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            refusals,
            flushable_names: Mutex::default(),
            master: None,
            salt_key: Mutex::default(),
            root: StorageRoot::default(),
            verifies_signatures: false,
            pss_given_up: AtomicBool::new(false),
            nv_chunk: OnceCell::new(),
            known_algorithms: KnownAlgorithms::default(),
            asking: Mutex::default(),
            proven: AtomicU32::new(0),
        }
    }

    /// Returns this client. The client then records its process locks in `held`, so that a forked
    /// child can close them.
    pub fn noting_locks(self, held: &'static Held) -> Self {
        Self {
            slots_lock: self.slots_lock.noting(held),
            pin_lock: self.pin_lock.noting(held),
            new_key_lock: self.new_key_lock.noting(held),
            timing: Arc::new(self.timing.noting(held)),
            ..self
        }
    }

    /// Creates the client for a forked child. The child opens its own connections.
    ///
    /// The child closes the parent's connections without sending a byte. If another thread of the
    /// parent was in an exchange at the fork, its connection stays open and unused.
    pub fn for_child(&self, refusals: Refusals) -> Self {
        if let Some(link) = self.link.try_lock().and_then(|mut link| link.take()) {
            link.abandon();
        }
        if let Some(mut connections) = self.connections.try_lock() {
            connections.drain(..).for_each(Connection::abandon);
        }
        let flushable_names = self.flushable_names.try_lock().map(|names| names.clone());
        Self {
            slots_lock: self.slots_lock.clone(),
            pin_lock: self.pin_lock.clone(),
            new_key_lock: self.new_key_lock.clone(),
            timeout_memory: self.timeout_memory.clone(),
            answered: AtomicBool::new(self.has_answered()),
            // The fault count grows by one, so that the child checks all handles again.
            faults: AtomicU64::new(self.faults() + 1),
            pss_given_up: AtomicBool::new(!self.signs_pss()),
            flushable_names: Mutex::new(flushable_names.unwrap_or_default()),
            master: self.master,
            tcti: self.tcti.clone(),
            timing: Arc::new(self.timing.for_child()),
            link: Mutex::new(None),
            connections: Mutex::default(),
            refusals,
            salt_key: Mutex::default(),
            root: self.root.clone(),
            verifies_signatures: self.verifies_signatures,
            nv_chunk: OnceCell::new(),
            known_algorithms: self.known_algorithms.clone(),
            asking: Mutex::default(),
            proven: AtomicU32::new(self.proven.load(Ordering::Acquire)),
        }
    }

    /// Returns this client with the known facts about the storage root key.
    #[must_use]
    pub fn with_root(self, root: StorageRoot) -> Self {
        Self { root, ..self }
    }

    /// Returns the known facts about the storage root key.
    pub(crate) fn root(&self) -> &StorageRoot {
        &self.root
    }

    /// Returns this client. With `true`, each signature is verified before the caller receives the
    /// signature.
    #[must_use]
    pub fn verifying_signatures(self, verifies_signatures: bool) -> Self {
        Self {
            verifies_signatures,
            ..self
        }
    }

    /// Returns true if each signature must be verified before the caller receives the signature.
    pub(crate) fn verifies_signatures(&self) -> bool {
        self.verifies_signatures
    }

    /// Returns the TCTI, which is the address of the TPM.
    pub fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// Returns the time limits of commands. A wait for a lock has the limit of ordinary commands.
    pub(super) fn limits(&self) -> Limits {
        self.timing().limits()
    }

    /// Returns the number of transport faults so far. While this number does not change, earlier
    /// answers about handles remain valid.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Acquire)
    }

    /// Returns true if the TPM has answered this process, or its parent before a fork.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns true unless a PSS signature of this TPM had an unusable salt length.
    pub fn signs_pss(&self) -> bool {
        !self.pss_given_up.load(Ordering::Acquire)
    }

    /// Records that PSS signatures of this TPM are unusable because of their salt length.
    pub fn give_up_pss(&self) {
        self.pss_given_up.store(true, Ordering::Release);
    }

    /// Returns the algorithms that the TPM reported; see [`Tpm::algorithms`].
    pub fn known_algorithms(&self) -> &KnownAlgorithms {
        &self.known_algorithms
    }

    /// Returns the capabilities of the TPM that are known now. Sends no TPM command.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            algorithms: self.known_algorithms.known(),
            pss: self.signs_pss(),
        }
    }

    /// Returns true if a signature by this scheme and type of key was verified. Signatures of the
    /// parent before a fork count too. `None` as scheme means the raw RSA operation.
    pub fn has_proven(&self, scheme: Option<SignatureScheme>, key: &PublicKey) -> bool {
        self.proven.load(Ordering::Acquire) & proof(scheme, key) != 0
    }

    /// Records that a signature by this scheme and type of key was verified.
    pub fn note_proven(&self, scheme: Option<SignatureScheme>, key: &PublicKey) {
        self.proven.fetch_or(proof(scheme, key), Ordering::AcqRel);
    }

    /// Registers a key by its TPM name. A transient object of this name may be flushed when the TPM
    /// has no slot left.
    pub fn register_flushable(&self, name: &[u8]) {
        self.flushable_names.lock().insert(name.to_vec());
    }

    /// Locks a mutex that another thread may hold during a TPM command. Waits no longer than the
    /// time limit of one command.
    pub(crate) fn wait_for<'a, T>(
        &self,
        held: &'a Mutex<T>,
    ) -> Result<MutexGuard<'a, T>, TpmError> {
        let patience = self.timing().wait(CommandClass::Ordinary);
        loop {
            let left = patience
                .left()
                .map_err(|passed| TpmError::timed_out(passed, self.timing()))?;
            if let Some(guard) = held.try_lock_for(left) {
                return Ok(guard);
            }
        }
    }

    /// Creates a link to the TPM. The link opens its connection at its first command.
    pub(super) fn new_link(&self) -> Result<Link, TpmError> {
        Link::new(&self.tcti, Arc::clone(&self.timing))
    }

    /// Locks the slots for transient objects that all processes share. Returns `None` if the lock
    /// cannot be taken.
    pub(super) fn lock_object_slots(&self) -> Option<Lock> {
        self.slots_lock.take_if_free(self.patience())
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Returns the time limit for a wait until other processes release a lock.
    fn patience(&self) -> Duration {
        self.limits().for_class(CommandClass::Ordinary).time
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Counts a transport fault.
    pub(super) fn note_fault(&self) {
        self.faults.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn note_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_flushable(&self, name: &[u8]) -> bool {
        self.flushable_names.lock().contains(name)
    }

    /// Reads the state of the dictionary-attack counter. Sends one command.
    pub fn lockout(&self) -> Result<Lockout, TpmError> {
        Exchange::new("GetCapability(lockout)").run(self, |link| link.lockout())
    }

    /// Takes the lock for tries of authorisation values that may be wrong. The lock excludes all
    /// other threads and processes. With `last`, takes the lock even if a wrong value would cause
    /// lockout.
    ///
    /// # Errors
    ///
    /// [`TpmError::NoPinLock`] if no trustworthy lock is available, [`TpmError::NoTryLeft`] before
    /// lockout. The caller must then send no value.
    pub(crate) fn lock_pin_try(&self, last: bool) -> Result<Option<Lock>, TpmError> {
        let patience = self.timing().wait(CommandClass::Ordinary);
        let mut lock = self.pin_lock.take(self.patience());
        // Another thread of this process may hold the lock while it waits for a key generation.
        while let Err(NotLocked::Held(_)) = &lock
            && patience.is_behind_generation()
            && let Ok(left) = patience.left()
        {
            lock = self.pin_lock.take(left);
        }
        let lock = lock.map_err(|why| TpmError::NoPinLock(self.timing().explained(&why)))?;
        match self.lockout()?.tries_left() {
            0 => Err(TpmError::NoTryLeft(self.tcti.clone())),
            1 if !last => Err(TpmError::NoTryLeft(self.tcti.clone())),
            _ => Ok(lock),
        }
    }

    /// Returns the reason why the PIN lock cannot be taken; without the lock no PIN is tried.
    /// Creates no file and sends no command.
    pub(crate) fn pin_lock_fault(&self) -> Option<Distrust> {
        self.pin_lock.fault()
    }

    /// Returns the device node or file that is locked while a PIN is tried.
    pub(crate) fn pin_lock_path(&self) -> Option<PathBuf> {
        self.pin_lock.path()
    }

    /// Locks the creation of a key that must exist only once. The lock works between all processes
    /// with the same lock folder. Returns `None` if the lock is not available.
    pub(crate) fn lock_new_key(&self) -> Option<Lock> {
        self.new_key_lock.take_if_free(self.patience())
    }

    /// Returns this client with the handle of the master key. Objects below the master key may be
    /// flushed.
    #[must_use]
    pub fn with_master(self, handle: u32) -> Self {
        Self {
            master: Some(handle),
            ..self
        }
    }

    /// Returns this client with a memory of timeouts. All clients with the same memory stop sending
    /// commands after one timeout.
    pub fn with_timeout_memory(self, timeout_memory: TimeoutMemory) -> Self {
        Self {
            timeout_memory,
            ..self
        }
    }

    pub(crate) fn timeout_memory(&self) -> &TimeoutMemory {
        &self.timeout_memory
    }

    /// Reads a property of the TPM (TPM_CAP_TPM_PROPERTIES).
    ///
    /// Returns `None` if the TPM does not report the property.
    pub fn property(&self, property: Property) -> Result<Option<u32>, TpmError> {
        let what = "GetCapability(properties)";
        Exchange::new(what).run(self, |link| link.property(property))
    }

    /// Fills `bytes` from the TPM's random number generator, in as many commands as needed.
    pub fn random(&self, bytes: &mut [u8]) -> Result<(), TpmError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let want = (bytes.len() - filled).min(32) as u16;
            let got = Exchange::new("GetRandom").run(self, |link| link.random(want))?;
            if got.is_empty() || got.len() > usize::from(want) {
                return Err(TpmError::WrongAnswer(format!(
                    "TPM2_GetRandom returned {} bytes",
                    got.len()
                )));
            }
            bytes[filled..filled + got.len()].copy_from_slice(&got);
            filled += got.len();
        }
        Ok(())
    }
}

/// Returns the bit that stands for a combination of scheme, hash and type of key. Each signature
/// reads the bit.
#[inline(always)]
fn proof(scheme: Option<SignatureScheme>, key: &PublicKey) -> u32 {
    let Some(scheme) = scheme else {
        return 1 << 31;
    };
    let (kind, hash) = match (scheme, key) {
        (SignatureScheme::Rsassa(hash), _) => (0, hash),
        (SignatureScheme::Rsapss(hash), _) => (1, hash),
        (SignatureScheme::Ecdsa(hash), PublicKey::Ec { curve, .. }) => match curve {
            Curve::P256 => (2, hash),
            Curve::P384 => (3, hash),
            Curve::P521 => (4, hash),
        },
        // RSA keys never sign by ECDSA.
        (SignatureScheme::Ecdsa(hash), PublicKey::Rsa { .. }) => (5, hash),
    };
    let hash = match hash {
        Hash::Sha1 => 0,
        Hash::Sha256 => 1,
        Hash::Sha384 => 2,
        Hash::Sha512 => 3,
    };
    1 << (4 * kind + hash)
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm")
            .field("tcti", &self.tcti)
            .finish_non_exhaustive()
    }
}
