//! One TPM as the house sees it: opened when first needed, shared by threads, retried and
//! reconnected; and the keys that live in its handles.

use super::{Hash, Link, NvPublic, Property, Scheme, Signature, Tcti, TpmError, Used, link};
use log::{debug, warn};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The most that TPM2_NV_Read may be asked for before the TPM was asked for its own limit; no
/// TPM's is smaller than this.
const NV_CHUNK_UNASKED: u16 = 512;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// How long others are given to free a slot for objects.
const OBJECT_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A TPM and the one link to it that this process holds.
///
/// The lock inside is held for one exchange with the TPM: the few commands that belong together, and
/// their repetitions. Whoever waits for it waits at most the time limit.
pub struct Tpm {
    tcti: Tcti,
    limit: Duration,
    link: Mutex<Option<Box<dyn Link>>>,
    /// Counts transport faults. What was known of handles before a fault is in doubt after it.
    faults: AtomicU64,
    refusals: Refusals,
    pss_given_up: AtomicBool,
    nv_chunk: OnceCell<u16>,
    hashes: OnceCell<Vec<Hash>>,
}

/// What answered "wrong authorisation" to the empty value: keys by name, NV indices by number, each
/// with the TPM's place. To be kept for as long as the process lives, since each further try may
/// count towards the lockout of the whole TPM.
#[derive(Debug, Default, Clone)]
pub struct Refusals(Arc<Mutex<HashSet<Refusal>>>);

/// The TPM's place, and the name or number.
type Refusal = (String, Vec<u8>);

impl Refusals {
    /// A copy for a forked child; empty if another thread of the parent held it.
    pub fn for_child(&self) -> Self {
        let known = self.0.try_lock().map(|known| known.clone());
        Self(Arc::new(Mutex::new(known.unwrap_or_default())))
    }
}

/// A key in a persistent handle, with the name by which it was found.
#[derive(Debug)]
pub struct ResidentKey {
    handle: u32,
    name: Vec<u8>,
    /// The count of faults at which the name was last seen behind the handle.
    seen_at: AtomicU64,
}

impl Tpm {
    /// No command is sent and nothing is opened yet.
    ///
    /// `limit` bounds each command, and the wait for one's turn; through libtss2 only the latter.
    pub fn new(tcti: Tcti, limit: Duration, refusals: Refusals) -> Self {
        Self {
            tcti,
            limit,
            link: Mutex::new(None),
            faults: AtomicU64::new(0),
            refusals,
            pss_given_up: AtomicBool::new(false),
            nv_chunk: OnceCell::new(),
            hashes: OnceCell::new(),
        }
    }

    /// The same TPM for a forked child, with a connection of its own to come.
    ///
    /// The parent's connection is closed in the child without a byte to the TPM; if another thread
    /// of the parent was in an exchange when it forked, its connection is left open and unused.
    pub fn for_child(&self, refusals: Refusals) -> Self {
        if let Some(link) = self.link.try_lock().and_then(|mut link| link.take()) {
            link.abandon();
        }
        Self {
            // What was in doubt for the parent stays so, and what was not is so now.
            faults: AtomicU64::new(self.faults() + 1),
            pss_given_up: AtomicBool::new(!self.signs_pss()),
            ..Self::new(self.tcti.clone(), self.limit, refusals)
        }
    }

    /// Where the TPM is.
    pub fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// Transport faults so far: while it stands still, what was read is still so.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Acquire)
    }

    /// Whether PSS signatures of this TPM are of use, as far as is known.
    pub fn signs_pss(&self) -> bool {
        !self.pss_given_up.load(Ordering::Acquire)
    }

    /// Notes that they are not.
    pub fn give_up_pss(&self) {
        self.pss_given_up.store(true, Ordering::Release);
    }

    /// All handles of `first`'s kind from `first` on, ascending.
    pub fn handles(&self, first: u32) -> Result<Vec<u32>, TpmError> {
        self.exchange("GetCapability(handles)", |link| link.handles(first))
    }

    /// The public area (TPMT_PUBLIC) behind a persistent handle, and the key as found there.
    pub fn resident_key(&self, handle: u32) -> Result<(Vec<u8>, ResidentKey), TpmError> {
        let seen_at = self.faults();
        let (area, name) = self.exchange("ReadPublic", |link| link.read_public(handle))?;
        let key = ResidentKey {
            handle,
            name,
            seen_at: AtomicU64::new(seen_at),
        };
        Ok((area, key))
    }

    /// What an NV index is.
    pub fn nv_public(&self, index: u32) -> Result<NvPublic, TpmError> {
        self.exchange("NV_ReadPublic", |link| link.nv_read_public(index))
    }

    /// `size` bytes of an NV index that its own empty authorisation value opens, read in as many
    /// pieces as the TPM demands.
    pub fn nv_read(&self, index: u32, size: u16) -> Result<Vec<u8>, TpmError> {
        let (id, name) = (index.to_be_bytes(), format!("NV index 0x{index:08X}"));
        let chunk = match size {
            ..=NV_CHUNK_UNASKED => NV_CHUNK_UNASKED,
            _ => self.nv_chunk()?,
        };
        let mut data = Vec::with_capacity(size.into());
        while data.len() < size.into() {
            let offset = data.len() as u16;
            let piece = self.exchange_unless_refused("NV_Read", &id, &name, |link| {
                link.nv_read(index, offset, chunk.min(size - offset))
            })?;
            if piece.is_empty() || piece.len() > usize::from(size - offset) {
                return Err(TpmError::Broken(format!(
                    "NV_Read gave {} bytes",
                    piece.len()
                )));
            }
            data.extend(piece);
        }
        Ok(data)
    }

    /// The hashes that the TPM implements; asked once.
    pub fn hashes(&self) -> Result<Vec<Hash>, TpmError> {
        let known = self.hashes.get_or_try_init(|| {
            let known = self.exchange("GetCapability(algorithms)", |link| link.algorithms())?;
            let implemented = |hash: &Hash| known.contains(&hash.algorithm());
            Ok::<_, TpmError>(Hash::ALL.into_iter().filter(implemented).collect())
        })?;
        Ok(Vec::clone(known))
    }

    fn nv_chunk(&self) -> Result<u16, TpmError> {
        self.nv_chunk
            .get_or_try_init(|| {
                let most = self.exchange("GetCapability(NV_BUFFER_MAX)", |link| {
                    link.property(Property::NvBufferMax)
                })?;
                // A command's own limit lies far below 64 KiB.
                Ok(u16::try_from(most)
                    .unwrap_or(u16::MAX)
                    .clamp(NV_CHUNK_UNASKED, 2048))
            })
            .copied()
    }

    /// Fills `bytes` from the TPM's random number generator, in as many commands as it takes.
    pub fn random(&self, bytes: &mut [u8]) -> Result<(), TpmError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let want = (bytes.len() - filled).min(32) as u16;
            let got = self.exchange("GetRandom", |link| link.random(want))?;
            if got.is_empty() || got.len() > usize::from(want) {
                return Err(TpmError::Broken(format!(
                    "GetRandom gave {} bytes",
                    got.len()
                )));
            }
            bytes[filled..filled + got.len()].copy_from_slice(&got);
            filled += got.len();
        }
        Ok(())
    }

    /// A signature by a resident key with an empty authorisation value; `digest` as wide as the
    /// scheme's hash.
    ///
    /// One command; one more before it where a transport fault put the handle in doubt.
    pub fn sign(
        &self,
        key: &ResidentKey,
        scheme: Scheme,
        digest: &[u8],
    ) -> Result<Signature, TpmError> {
        let name = format!("key 0x{:08X}", key.handle);
        self.exchange_unless_refused("Sign", &key.name, &name, |link| {
            let faults = self.faults();
            if key.seen_at.load(Ordering::Acquire) != faults {
                let (_, name) = link.read_public(key.handle)?;
                if name != key.name {
                    return Err(TpmError::KeyReplaced(key.handle));
                }
                key.seen_at.store(faults, Ordering::Release);
            }
            link.sign(Used::open(key.handle, &key.name), scheme, digest)
        })
    }

    /// An exchange that sends nothing for what refused the empty authorisation value before:
    /// another try could count towards lockout. Asked and noted while the link is ours, so that
    /// threads do not try side by side.
    pub(super) fn exchange_unless_refused<R>(
        &self,
        what: &str,
        id: &[u8],
        name: &str,
        mut commands: impl FnMut(&mut dyn Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let id = (self.tcti.to_string(), id.to_vec());
        let result = self.exchange(what, |link| {
            if self.refusals.0.lock().contains(&id) {
                return Err(TpmError::NeedsAuth(name.to_owned()));
            }
            commands(link).map_err(|error| match error {
                TpmError::Response(code) if code.is_wrong_auth() => {
                    self.refusals.0.lock().insert(id.clone());
                    TpmError::NeedsAuth(name.to_owned())
                }
                other => other,
            })
        });
        if matches!(result, Err(TpmError::Response(code)) if code.is_lockout()) {
            self.tell_lockout();
        }
        result
    }

    fn tell_lockout(&self) {
        let ask = |property| self.exchange("GetCapability", |link| link.property(property));
        match (
            ask(Property::LockoutCounter),
            ask(Property::LockoutInterval),
        ) {
            (Ok(counter), Ok(interval)) => warn!(
                "the TPM is in lockout: {counter} failed tries count, one is forgotten each \
                 {interval} s; until then a key that is not noDA cannot sign"
            ),
            _ => warn!("the TPM is in lockout"),
        }
    }

    /// One exchange of commands that may safely run twice: reads, and signatures whose
    /// authorisation is empty. Nothing that counts towards lockout and nothing that writes.
    ///
    /// Repeats while the TPM asks for it, and once over a new connection after a transport fault.
    pub(super) fn exchange<R>(
        &self,
        what: &str,
        mut commands: impl FnMut(&mut dyn Link) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let began = Instant::now();
        let deadline = began + self.limit;
        let mut guard = self
            .link
            .try_lock_for(self.limit)
            .ok_or(TpmError::Timeout(self.limit))?;
        let mut pause = FIRST_PAUSE;
        let mut reconnected = false;
        loop {
            let link = match &mut *guard {
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
                        Self::reclaim(link.as_mut())?;
                    }
                    thread::sleep(pause);
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
                    debug!("{what}: {error}");
                    return Err(error);
                }
                Ok(answer) => return Ok(answer),
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

impl ResidentKey {
    /// The persistent handle.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// The TPM name: algorithm and digest of the public area (Part 1, section 16).
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::ResponseCode;
    use crate::tpm::fake::{
        FIXED, FakeTpm, GET_CAPABILITY, IDENTITY, READ_PUBLIC, Reply, SIGN, p256_area, public,
        signature,
    };

    const LIMIT: Duration = Duration::from_secs(20);
    const HANDLE: u32 = 0x8102_0000;
    const ECDSA: Scheme = Scheme::Ecdsa(Hash::Sha256);

    fn found() -> Reply {
        public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 1])
    }

    fn key_of(tpm: &Tpm) -> ResidentKey {
        tpm.resident_key(HANDLE).unwrap().1
    }

    #[test]
    fn a_tpm_that_asks_for_it_gets_the_command_again() {
        let codes = [0x922, 0x908, 0x90A, 0x920].map(Reply::Code);
        let replies = [found()]
            .into_iter()
            .chain(codes)
            .chain([signature(&[1], &[2])]);
        let fake = FakeTpm::new(replies);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        let pair = tpm.sign(&key, ECDSA, &[7; 32]).unwrap();
        assert_eq!(
            pair,
            Signature::Ecc {
                r: vec![1],
                s: vec![2]
            }
        );
        assert_eq!(fake.seen(), [READ_PUBLIC, SIGN, SIGN, SIGN, SIGN, SIGN]);
    }

    #[test]
    fn after_a_fault_the_name_is_compared_before_the_next_signature() {
        let fake = FakeTpm::new([
            found(),
            Reply::Hangup,
            found(),
            signature(&[1], &[2]),
            signature(&[3], &[4]),
            Reply::Hangup,
            public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 9]),
        ]);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        let sign = || tpm.sign(&key, ECDSA, &[7; 32]);
        assert!(sign().is_ok() && sign().is_ok());
        assert_eq!(sign(), Err(TpmError::KeyReplaced(HANDLE)));
        let (asked, signed) = (READ_PUBLIC, SIGN);
        assert_eq!(
            fake.seen(),
            [asked, signed, asked, signed, signed, signed, asked]
        );
    }

    #[test]
    fn a_connection_that_keeps_failing_is_given_up() {
        let fake = FakeTpm::new([Reply::Hangup, Reply::Hangup]);
        let tpm = fake.tpm(LIMIT);
        assert!(tpm.handles(0x8100_0000).unwrap_err().is_transport_fault());
        assert_eq!((fake.seen().len(), tpm.faults()), (2, 2));
    }

    #[test]
    fn silence_ends_at_the_limit() {
        let fake = FakeTpm::new([Reply::Silence]);
        let limit = Duration::from_millis(50);
        let began = Instant::now();
        assert_eq!(
            fake.tpm(limit).random(&mut [0]),
            Err(TpmError::Timeout(limit))
        );
        assert!(began.elapsed() >= limit);
    }

    #[test]
    fn a_key_that_wants_an_authorisation_is_asked_once() {
        let fake = FakeTpm::new([found(), Reply::Code(0x98E)]);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        for _ in 0..3 {
            let refused = tpm.sign(&key, ECDSA, &[7; 32]);
            assert_eq!(refused, Err(TpmError::NeedsAuth("key 0x81020000".into())));
        }
        assert_eq!(
            fake.seen(),
            [READ_PUBLIC, SIGN],
            "each try would count towards lockout"
        );
    }

    #[test]
    fn lockout_is_told_and_not_retried() {
        let fake = FakeTpm::new([
            found(),
            Reply::Code(0x921),
            Reply::Code(0x101),
            Reply::Code(0x101),
        ]);
        let tpm = fake.tpm(LIMIT);
        let refused = tpm.sign(&key_of(&tpm), ECDSA, &[7; 32]);
        assert_eq!(refused, Err(TpmError::Response(ResponseCode(0x921))));
        assert_eq!(
            fake.seen(),
            [READ_PUBLIC, SIGN, GET_CAPABILITY, GET_CAPABILITY]
        );
    }
}
