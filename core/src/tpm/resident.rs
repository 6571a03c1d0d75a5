//! What lies in the TPM: handles, NV indices, what the TPM can do, and the keys in persistent
//! handles.

use super::algorithms::Rest;
use super::exchange::{Exchange, Subject};
use super::own::by_owner;
use super::{
    Algorithm, Algorithms, Auth, AuthValue, KeyUsage, Link, NvPublic, Property, Tpm, TpmError,
    Used, template,
};
use log::warn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The most that TPM2_NV_Read may be asked for before the TPM was asked for its own limit, and where it
/// does not tell it.
const NV_CHUNK_UNASKED: u16 = 512;
const NV_CHUNK_MOST: u32 = 2048;

/// What the log calls the question for algorithms.
const ALGORITHMS: &str = "GetCapability(algorithms)";

/// A key in a persistent handle, with the name by which it was found.
#[derive(Debug)]
pub struct ResidentKey {
    handle: u32,
    name: Vec<u8>,
    /// The count of faults at which the name was last seen behind the handle.
    seen_at: AtomicU64,
}

impl Tpm {
    /// All handles of `first`'s kind from `first` on, ascending.
    pub fn handles(&self, first: u32) -> Result<Vec<u32>, TpmError> {
        Exchange::new("GetCapability(handles)").run(self, |link| link.handles(first))
    }

    /// The public area (TPMT_PUBLIC) behind a persistent handle, and the key as found there.
    pub fn resident_key(&self, handle: u32) -> Result<(Vec<u8>, ResidentKey), TpmError> {
        let seen_at = self.faults();
        let (area, name) =
            Exchange::new("ReadPublic").run(self, |link| link.read_public(handle))?;
        let key = ResidentKey {
            handle,
            name,
            seen_at: AtomicU64::new(seen_at),
        };
        Ok((area, key))
    }

    /// What an NV index is.
    pub fn nv_public(&self, index: u32) -> Result<NvPublic, TpmError> {
        Exchange::new("NV_ReadPublic").run(self, |link| link.nv_read_public(index))
    }

    /// `size` bytes of an NV index that its own empty authorisation value opens, read in as many
    /// pieces as the TPM demands.
    pub fn nv_read(&self, index: u32, size: u16) -> Result<Vec<u8>, TpmError> {
        let (id, name) = (index.to_be_bytes(), format!("NV index 0x{index:08X}"));
        self.in_pieces(size, |offset, size| {
            let exchange = Exchange::by("NV_Read", Subject::open(&id, &name), None);
            exchange.run(self, |link| {
                // The empty value needs no name.
                link.nv_read(Used::open(index, &[]), (index, &[]), offset, size)
            })
        })
    }

    /// The same by the owner's authorisation value.
    pub(super) fn nv_read_by_owner(
        &self,
        index: u32,
        about: NvPublic,
        owner: &AuthValue,
    ) -> Result<Vec<u8>, TpmError> {
        let salt_key = self.salt_key_for(owner)?;
        let used = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let name = about.name(index);
        self.in_pieces(about.size, |offset, size| {
            let reading = Exchange::new("NV_Read")
                .salted(salt_key.as_ref())
                .showing_owner(owner);
            by_owner(reading.run(self, |link| {
                link.nv_read(used, (index, &name), offset, size)
            }))
        })
    }

    fn in_pieces(
        &self,
        size: u16,
        read: impl Fn(u16, u16) -> Result<Vec<u8>, TpmError>,
    ) -> Result<Vec<u8>, TpmError> {
        let chunk = match size {
            ..=NV_CHUNK_UNASKED => NV_CHUNK_UNASKED,
            _ => self.nv_chunk()?,
        };
        let mut data = Vec::with_capacity(size.into());
        while data.len() < size.into() {
            let offset = data.len() as u16;
            let piece = read(offset, chunk.min(size - offset))?;
            if piece.is_empty() || piece.len() > usize::from(size - offset) {
                return Err(TpmError::WrongAnswer(format!(
                    "NV_Read gave {} bytes",
                    piece.len()
                )));
            }
            data.extend(piece);
        }
        Ok(data)
    }

    /// The algorithms that the TPM implements; asked once. A TPM that does not tell may implement
    /// all.
    pub fn algorithms(&self) -> Result<Algorithms, TpmError> {
        if let Some(known) = self.told().known() {
            return Ok(known);
        }
        self.note_algorithms(Exchange::new(ALGORITHMS).run(self, |link| link.algorithms()))
    }

    fn note_algorithms(&self, asked: Result<Vec<u16>, TpmError>) -> Result<Algorithms, TpmError> {
        let algorithms = match asked {
            Ok(identifiers) => Algorithms::of(&identifiers),
            Err(TpmError::Response(code)) if code.is_definite() => {
                warn!("the TPM does not tell its algorithms: {code}");
                Algorithms::ANY
            }
            Err(TpmError::Unsupported(why)) => {
                warn!("the TPM's list of algorithms is not understood: {why}");
                Algorithms::ANY
            }
            Err(error) => return Err(error),
        };
        self.told().note(algorithms);
        Ok(algorithms)
    }

    /// The same, or all that any TPM may implement while this one does not answer, or another thread
    /// asks. After a fault it is not asked again for a while: each time would wait as long.
    pub fn algorithms_or_any(&self) -> Algorithms {
        if self.told().known().is_none()
            && let Some(mut rest) = self.asking.try_lock()
            && rest.is_over()
        {
            self.ask(&mut rest, || self.algorithms());
        }
        self.told().or_any()
    }

    /// Asks for the algorithms, if they are not known and that waits for nobody: no thread uses the TPM,
    /// and no process has it make a key. Whether they are known then.
    pub fn learn_algorithms(&self) -> bool {
        if self.told().known().is_none()
            && let Some(mut rest) = self.asking.try_lock()
            && rest.is_over()
            && !self.pace().is_busy()
            && let Some(mut link) = self.link.try_lock()
        {
            self.ask(&mut rest, || {
                self.note_algorithms(
                    Exchange::new(ALGORITHMS).run_over(&mut link, self, |link| link.algorithms()),
                )
            });
        }
        self.told().known().is_some()
    }

    /// Whether [`Tpm::learn_algorithms`] would ask now.
    pub fn is_free_to_tell(&self) -> bool {
        self.told().known().is_none()
            && self.asking.try_lock().is_some_and(|rest| rest.is_over())
            && self.link.try_lock().is_some()
            && !self.pace().is_busy()
    }

    fn ask(&self, rest: &mut Rest, asked: impl FnOnce() -> Result<Algorithms, TpmError>) {
        let began = Instant::now();
        if let Err(error) = asked() {
            warn!("the TPM does not tell its algorithms now: {error}");
            rest.begin(began, &error);
        }
    }

    /// Whether the TPM can hold keys of this kind, as we make them.
    pub fn implements(&self, algorithm: Algorithm) -> Result<bool, TpmError> {
        let usage = KeyUsage {
            signs: true,
            decrypts: false,
        };
        let area = template::own_key(algorithm, usage);
        let tested = Exchange::new("TestParms").run(self, |link| link.test_parameters(&area));
        match tested {
            Ok(()) => Ok(true),
            Err(TpmError::Response(code)) if code.is_unsupported_value() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn nv_chunk(&self) -> Result<u16, TpmError> {
        self.nv_chunk
            .get_or_try_init(|| {
                // A command's own limit lies far below 64 KiB.
                let most = self.property(Property::NvBufferMax)?;
                let most = most.filter(|most| *most > 0);
                Ok(most.map_or(NV_CHUNK_UNASKED, |most| most.min(NV_CHUNK_MOST) as u16))
            })
            .copied()
    }

    /// Fills `bytes` from the TPM's random number generator, in as many commands as it takes.
    pub fn random(&self, bytes: &mut [u8]) -> Result<(), TpmError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let want = (bytes.len() - filled).min(32) as u16;
            let got = Exchange::new("GetRandom").run(self, |link| link.random(want))?;
            if got.is_empty() || got.len() > usize::from(want) {
                return Err(TpmError::WrongAnswer(format!(
                    "GetRandom gave {} bytes",
                    got.len()
                )));
            }
            bytes[filled..filled + got.len()].copy_from_slice(&got);
            filled += got.len();
        }
        Ok(())
    }

    /// Runs commands with a resident key; `value` is its authorisation value, which may be empty.
    ///
    /// One command more before them where a transport fault put the handle in doubt, and one for
    /// each that shows a value. They may run twice if it is empty.
    pub(crate) fn with_resident<R>(
        &self,
        what: &str,
        key: &ResidentKey,
        value: &AuthValue,
        mut commands: impl FnMut(&mut Link, Used) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let salt_key = self.salt_key_for(value)?;
        let subject = Subject {
            id: &key.name,
            called: "key",
            handle: Some(key.handle),
            value: value.as_bytes(),
        };
        let exchange = Exchange::by(what, subject, salt_key.as_ref());
        exchange.run(self, |link| {
            let faults = self.faults();
            if key.seen_at.load(Ordering::Acquire) != faults {
                let (_, name) = link.read_public(key.handle)?;
                if name != key.name {
                    return Err(TpmError::KeyReplaced(key.handle));
                }
                key.seen_at.store(faults, Ordering::Release);
            }
            let auth = Auth::by(value.as_bytes(), salt_key.as_ref());
            commands(link, Used::new(key.handle, &key.name, auth))
        })
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
    use crate::tpm::fake::{
        FIXED, FakeTpm, GET_CAPABILITY, IDENTITY, READ_PUBLIC, Reply, SIGN, p256_area, public,
        signature,
    };
    use crate::tpm::{Class, Hash, Scheme, Signature};

    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(20);
    const HANDLE: u32 = 0x8102_0000;
    const ECDSA: Scheme = Scheme::Ecdsa(Hash::Sha256);

    fn sign(tpm: &Tpm, key: &ResidentKey) -> Result<Signature, TpmError> {
        tpm.with_resident("Sign", key, &AuthValue::default(), |link, used| {
            link.sign(used, ECDSA, &[7; 32])
        })
    }

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
        let pair = sign(&tpm, &key).unwrap();
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
        let sign = || sign(&tpm, &key);
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
        let tpm = fake.tpm(limit);
        let began = Instant::now();
        assert_eq!(
            tpm.random(&mut [0]),
            Err(TpmError::Timeout(tpm.limits().of(Class::Ordinary)))
        );
        assert!(began.elapsed() >= limit);
    }

    #[test]
    fn a_key_that_wants_an_authorisation_is_asked_once() {
        let fake = FakeTpm::new([found(), Reply::Code(0x98E)]);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        for _ in 0..3 {
            let refused = sign(&tpm, &key);
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
        let fake = FakeTpm::new([found(), Reply::Code(0x921), Reply::Code(0x101)]);
        let tpm = fake.tpm(LIMIT);
        let refused = sign(&tpm, &key_of(&tpm));
        assert_eq!(refused, Err(TpmError::Lockout(tpm.tcti().clone())));
        assert_eq!(fake.seen(), [READ_PUBLIC, SIGN, GET_CAPABILITY]);
    }
}
