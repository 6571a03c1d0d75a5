//! Measures the speed of the TPM with keys that are made for the measurement, used and flushed. The
//! measurement writes nothing to the TPM, and uses no authorisation value of the owner.
//!
//! The keys are below a storage key of the NULL hierarchy, which every user of the TPM may use. The
//! keys are noDA, so a failed command does not count towards lockout.

use super::command::Hierarchy;
use super::exchange::Exchange;
use super::{
    Auth, AuthHandle, Hash, KeyAlgorithm, KeyPurpose, Link, SaltKey, SensitiveCreate,
    SignatureScheme, StorageKey, Tpm, TpmError, flush, handle, name_of, random_secret, template,
};
use crate::key::Curve;
use std::time::{Duration, Instant};

/// A measured operation. The description of each variant lists the measured TPM commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// TPM2_Create of a key pair: one command.
    Generate(KeyAlgorithm),
    /// TPM2_Sign by a loaded key: one command.
    Sign(KeyAlgorithm),
    /// TPM2_Load, Sign and FlushContext: a signature by a key from a file, on a TPM without
    /// resource manager.
    LoadAndSign(KeyAlgorithm),
    /// TPM2_Load, StartAuthSession, Unseal and FlushContext: a sealed key is unsealed.
    Unseal,
    /// TPM2_GetCapability and the commands of [`Operation::Unseal`]: a PIN is checked.
    Login,
}

/// The measured times of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationTiming {
    /// The measured operation.
    pub operation: Operation,
    /// The measured times in ascending order; at least one.
    pub times: Vec<Duration>,
}

/// The measured speed of a TPM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Speed {
    /// The operations, in the order of the measurement.
    pub timings: Vec<OperationTiming>,
    /// The kinds of keys that the TPM does not make.
    pub lacks: Vec<KeyAlgorithm>,
    /// True if the caller ended the measurement before all operations were measured.
    pub is_cut: bool,
}

/// The number of repetitions of an operation: at least `least`, at most `most`. Between these
/// bounds the repetitions stop when `time` has passed.
struct Rounds {
    least: usize,
    most: usize,
    time: Duration,
}

/// The number of measurements of operations with an existing key.
const OFTEN: Rounds = Rounds {
    least: 5,
    most: 25,
    time: Duration::from_secs(2),
};
/// The number of measurements of key generations, which take a minute on some TPMs.
const SELDOM: Rounds = Rounds {
    least: 1,
    most: 5,
    time: Duration::from_secs(6),
};
/// The measured sizes, P-256 and RSA-2048. Every TPM that supports the algorithm supports this size
/// (TCG, PC Client Platform TPM Profile).
const ALGORITHMS: [KeyAlgorithm; 2] = [KeyAlgorithm::Ec(Curve::P256), KeyAlgorithm::Rsa(2048)];
const SIGNS: KeyPurpose = KeyPurpose {
    signs: true,
    decrypts: false,
};

/// A storage key of the NULL hierarchy, which is loaded for each use, and the function that ends
/// the measurement.
struct Bench<'a> {
    tpm: &'a Tpm,
    parent: SaltKey,
    area: Vec<u8>,
    is_ended: &'a dyn Fn() -> bool,
}

impl Tpm {
    /// Measures the TPM. Each object is flushed before the function returns, also after an error.
    /// `is_ended` is called between two commands. If it returns true, the measurement ends.
    ///
    /// # Errors
    ///
    /// The errors of the TPM commands. A kind of key that the TPM lacks is no error.
    pub fn speed(&self, is_ended: &dyn Fn() -> bool) -> Result<Speed, TpmError> {
        let faults = self.faults();
        let measured = self.measured(is_ended);
        if self.faults() != faults {
            // An answer that was lost may have contained the handle of an object, so all known
            // names are flushed.
            self.flush_registered()?;
        }
        measured
    }

    fn measured(&self, is_ended: &dyn Fn() -> bool) -> Result<Speed, TpmError> {
        let mut speed = Speed::default();
        let algorithms = self.algorithms()?;
        // On a TPM without elliptic curves, the storage key is RSA.
        let root = template::storage_root(!algorithms.has_ecc());
        let (parent, area) = self.saved_primary(Hierarchy::Null, root)?;
        let bench = Bench {
            tpm: self,
            parent,
            area,
            is_ended,
        };
        for algorithm in ALGORITHMS {
            if is_ended() {
                break;
            }
            if !self.implements(algorithm)? {
                speed.lacks.push(algorithm);
                continue;
            }
            bench.key(algorithm, &mut speed)?;
        }
        if !is_ended() {
            bench.seal(&mut speed)?;
        }
        speed.is_cut = is_ended();
        Ok(speed)
    }

    fn flush_registered(&self) -> Result<(), TpmError> {
        Exchange::new("FlushContext").run(self, |link| {
            for handle in link.handles(handle::TRANSIENT)? {
                match link.read_public(handle) {
                    Ok((_, name)) if self.is_flushable(&name) => link.flush(handle)?,
                    Err(error) if error.is_transport_fault() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
            Ok(())
        })
    }
}

impl Bench<'_> {
    fn key(&self, algorithm: KeyAlgorithm, speed: &mut Speed) -> Result<(), TpmError> {
        let template = template::device_key(algorithm, SIGNS);
        let scheme = match algorithm {
            KeyAlgorithm::Ec(_) => SignatureScheme::Ecdsa(Hash::Sha256),
            KeyAlgorithm::Rsa(_) => SignatureScheme::Rsassa(Hash::Sha256),
        };
        let sign = |link: &mut Link, key: u32| {
            let key = AuthHandle::open(key, &[]);
            link.sign(key, scheme, &[0x5A; 32]).map(drop)
        };
        let (made, times) = self.below(|link, parent| {
            let parent = AuthHandle::open(parent.handle(), parent.name());
            let mut made = None;
            let times = self.repeated(&SELDOM, || {
                made = Some(link.create(parent, SensitiveCreate::default(), &template)?);
                Ok(())
            })?;
            Ok((made, times))
        })?;
        speed.note(Operation::Generate(algorithm), times);
        let Some(made) = made else { return Ok(()) };
        self.register(&made);
        let times = self.below(|link, parent| {
            with_loaded(link, parent, &made, |link, key| {
                self.repeated(&OFTEN, || sign(link, key))
            })
        })?;
        speed.note(Operation::Sign(algorithm), times);
        let times = self.below(|link, parent| {
            self.repeated(&OFTEN, || with_loaded(link, parent, &made, sign))
        })?;
        speed.note(Operation::LoadAndSign(algorithm), times);
        Ok(())
    }

    fn seal(&self, speed: &mut Speed) -> Result<(), TpmError> {
        let (value, data) = (random_secret(32)?, random_secret(32)?);
        let secrets = SensitiveCreate {
            value: &value,
            data: &data,
        };
        let template = template::sealed(false);
        let sealed = self.below(|link, parent| {
            let salt_key = parent.salt_key();
            link.create(parent.used(&salt_key), secrets, &template)
        })?;
        let name = self.register(&sealed);
        let open = |link: &mut Link, parent: &StorageKey| {
            let salt_key = parent.salt_key();
            with_loaded(link, parent, &sealed, |link, handle| {
                let auth = Auth::Value(&value, Some(&salt_key));
                match link.unseal(AuthHandle::new(handle, &name, auth))? == data {
                    true => Ok(()),
                    false => Err(TpmError::WrongAnswer("the TPM unsealed other data".into())),
                }
            })
        };
        let times = self.below(|link, parent| self.repeated(&OFTEN, || open(link, parent)))?;
        speed.note(Operation::Unseal, times);
        let times = self.below(|link, parent| {
            self.repeated(&OFTEN, || {
                link.lockout()?;
                open(link, parent)
            })
        })?;
        speed.note(Operation::Login, times);
        Ok(())
    }

    /// Registers the name of an object, so that the object is flushed in any handle. Returns the
    /// name.
    fn register(&self, (area, _): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
        let name = name_of(area).unwrap_or_default();
        self.tpm.register_flushable(&name);
        name
    }

    /// Runs the commands of a measurement while the parent key is loaded.
    fn below<R>(
        &self,
        mut commands: impl FnMut(&mut Link, &StorageKey) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let unfit =
            || TpmError::Unsupported("the TPM made a key that cannot wrap other keys".into());
        let measuring = Exchange::new("measuring").needing_object_slot();
        measuring.run(self.tpm, |link| {
            let (now, handle, _) = link.with_salt_key(&self.parent)?;
            let parent = StorageKey::from_area(handle, &self.area)
                .filter(|parent| parent.name() == now.name)
                .ok_or_else(unfit);
            let answer = parent.and_then(|parent| commands(link, &parent));
            flush(link, handle, &answer);
            answer
        })
    }

    /// Repeats an operation and returns the times. Returns an empty list if the measurement ends
    /// before the first repetition.
    fn repeated(
        &self,
        rounds: &Rounds,
        mut operation: impl FnMut() -> Result<(), TpmError>,
    ) -> Result<Vec<Duration>, TpmError> {
        let (mut times, began) = (Vec::new(), Instant::now());
        while !(self.is_ended)()
            && times.len() < rounds.most
            && (times.len() < rounds.least || began.elapsed() < rounds.time)
        {
            let began = Instant::now();
            operation()?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        Ok(times)
    }
}

impl Speed {
    fn note(&mut self, operation: Operation, times: Vec<Duration>) {
        if !times.is_empty() {
            self.timings.push(OperationTiming { operation, times });
        }
    }
}

/// Runs commands with a loaded child of `parent`. The child is a TPMT_PUBLIC and the content of a
/// TPM2B_PRIVATE.
fn with_loaded<R>(
    link: &mut Link,
    parent: &StorageKey,
    (area, private): &(Vec<u8>, Vec<u8>),
    commands: impl FnOnce(&mut Link, u32) -> Result<R, TpmError>,
) -> Result<R, TpmError> {
    let parent = AuthHandle::open(parent.handle(), parent.name());
    let (handle, _) = link.load(parent, area, private)?;
    let answer = commands(link, handle);
    flush(link, handle, &answer);
    answer
}
