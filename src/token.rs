//! A slot and the token in it (PKCS#11 3.0, sections 2.4 and 3.2).
//!
//! The slot looks for its token when it is first asked, never at C_Initialize. What it found is a
//! [`Token`], immutable and shared: whoever reads attributes holds one and waits for nobody.

use crate::attribute::Template;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SlotId};
use crate::mechanism::Mechanism;
use crate::object::{Draft, Object};
use devid_core::config::{Config, Random};
use devid_core::store::idevid::{IdevidStore, LABEL, LookError, Stamp};
use devid_core::store::{Key, SignRequest};
use devid_core::tpm::{Refusals, Tpm};
use log::{error, info, warn};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A slot that found nothing looks again at most this often: a program that asks all the time must
/// not wait for a dead TPM all the time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The slot of one TPM's factory identity.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    source: Source,
    /// Held during a look, for as long as the TPM takes.
    look: Mutex<Look>,
    /// Held for the moment of reading or replacing.
    token: RwLock<Option<Arc<Token>>>,
}

/// Where the slot's token comes from.
#[derive(Debug)]
enum Source {
    /// The configuration is wrong, and the log says how: no token.
    None,
    Tpm(Box<TpmSource>),
}

#[derive(Debug)]
struct TpmSource {
    tpm: Tpm,
    store: IdevidStore,
    random: Random,
}

/// What the last look told about the next.
#[derive(Debug, Default, Clone)]
struct Look {
    /// What was looked at, if the look gave an answer.
    seen: Option<Stamp>,
    failed: Option<Failure>,
}

/// A look that found nothing.
#[derive(Debug, Clone)]
struct Failure {
    ended: Instant,
    /// How long none is tried again: as long as this one took, and not less than [`LOOK_AGAIN`].
    rest: Duration,
    why: String,
}

/// A token: what one look found.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: &'static str,
    pub(crate) serial: String,
    objects: Vec<Arc<Object>>,
}

impl Slot {
    /// Sends nothing to the TPM.
    pub(crate) fn new(id: SlotId, config: Option<&Config>, refusals: Refusals) -> Self {
        let source = config.map_or(Source::None, |config| {
            Source::Tpm(Box::new(TpmSource {
                tpm: Tpm::new(config.tcti.clone(), config.limit, refusals),
                store: IdevidStore::new(config),
                random: config.random,
            }))
        });
        Self {
            id,
            source,
            look: Mutex::default(),
            token: RwLock::default(),
        }
    }

    /// The slot in a forked child: its own way to the TPM, and the token as the parent knew it.
    ///
    /// What another thread of the parent held locked when it forked is made anew.
    pub(crate) fn for_child(&self, refusals: Refusals) -> Self {
        let source = match &self.source {
            Source::None => Source::None,
            Source::Tpm(source) => Source::Tpm(Box::new(TpmSource {
                tpm: source.tpm.for_child(refusals),
                store: source.store.for_child(),
                random: source.random,
            })),
        };
        let token = self.token.try_read().and_then(|token| token.clone());
        let look = self
            .look
            .try_lock()
            .map(|look| look.clone())
            .unwrap_or_default();
        Self {
            id: self.id,
            source,
            look: Mutex::new(look),
            token: RwLock::new(token),
        }
    }

    /// The token as last found, without a look.
    pub(crate) fn known(&self) -> Option<Arc<Token>> {
        self.token.read().clone()
    }

    /// The token, looked for again if something changed since the last time.
    pub(crate) fn token(&self, mint: &Mint) -> Result<Arc<Token>, Error> {
        let Source::Tpm(source) = &self.source else {
            return Err(Error::TokenNotPresent);
        };
        let known = self.known();
        let mut look = match &known {
            None => self.look.lock(),
            // Somebody looks already: what is known is good enough meanwhile.
            Some(token) => match self.look.try_lock() {
                Some(look) => look,
                None => return Ok(Arc::clone(token)),
            },
        };
        let stamp = source.store.stamp(&source.tpm);
        let wait = look
            .failed
            .as_ref()
            .is_some_and(|failure| failure.ended.elapsed() < failure.rest);
        if !wait && look.seen.as_ref() != Some(&stamp) {
            *look = self.look(source, stamp, &look, mint);
        }
        self.known().ok_or(Error::TokenNotPresent)
    }

    fn look(&self, source: &TpmSource, stamp: Stamp, last: &Look, mint: &Mint) -> Look {
        let tcti = source.tpm.tcti();
        let began = Instant::now();
        match source.store.look(&source.tpm) {
            Ok(found) => {
                let before = self.known();
                let token = Token {
                    label: LABEL,
                    objects: with_handles(Draft::all(&found), before.as_deref(), mint),
                    serial: found.serial,
                };
                info!(
                    "token {LABEL} with {} objects at {tcti}",
                    token.objects.len()
                );
                *self.token.write() = Some(Arc::new(token));
                Look {
                    seen: Some(stamp),
                    failed: None,
                }
            }
            Err(fault) => {
                let why = fault.to_string();
                match &fault {
                    // The TPM is out of reach, not the certificate that is known already.
                    LookError::Tpm(_) => {}
                    LookError::NoIdentity(_) => *self.token.write() = None,
                }
                // Said once, not each second.
                if last
                    .failed
                    .as_ref()
                    .is_none_or(|failure| failure.why != why)
                {
                    error!("no identity from {tcti}: {why}");
                }
                Look {
                    seen: None,
                    failed: Some(Failure {
                        ended: Instant::now(),
                        rest: LOOK_AGAIN.max(began.elapsed()),
                        why,
                    }),
                }
            }
        }
    }

    /// Makes sure that a key is there to sign.
    pub(crate) fn prepare(&self, key: &Key) -> Result<(), Error> {
        Ok(key.prepare(&self.source()?.tpm)?)
    }

    /// A signature as PKCS#11 has it: r ‖ s, or as wide as the modulus.
    pub(crate) fn sign(&self, key: &Key, request: SignRequest) -> Result<Vec<u8>, Error> {
        let source = self.source()?;
        key.sign(&source.tpm, request).map_err(|error| {
            warn!("signature: {error}");
            error.into()
        })
    }

    /// Fills `bytes` with random ones, from the kernel or the TPM as configured.
    pub(crate) fn random(&self, bytes: &mut [u8]) -> Result<(), Error> {
        let source = self.source()?;
        match source.random {
            Random::Kernel => kernel_random(bytes),
            Random::Tpm => Ok(source.tpm.random(bytes)?),
        }
    }

    fn source(&self) -> Result<&TpmSource, Error> {
        match &self.source {
            Source::Tpm(source) => Ok(source),
            Source::None => Err(Error::TokenNotPresent),
        }
    }
}

impl Token {
    pub(crate) fn find(&self, template: &Template) -> Vec<ObjectHandle> {
        self.objects
            .iter()
            .filter(|object| object.matches(template))
            .map(|object| object.handle)
            .collect()
    }

    pub(crate) fn object(&self, handle: ObjectHandle) -> Result<&Arc<Object>, Error> {
        let found = self.objects.iter().find(|object| object.handle == handle);
        found.ok_or(Error::ObjectHandleInvalid)
    }

    /// What every key of a mechanism's type can do: a client that sees it in the list asks it of
    /// any of them.
    pub(crate) fn mechanisms(&self) -> Vec<Mechanism> {
        let refuses =
            |key: &Key, mechanism: Mechanism| mechanism.is_of_type(key) && !mechanism.suits(key);
        let all = Mechanism::ALL.into_iter();
        let wanted = all.filter(|one| self.keys().any(|key| one.suits(key)));
        wanted
            .filter(|one| !self.keys().any(|key| refuses(key, *one)))
            .collect()
    }

    /// Whether the mechanism stands in the list, whatever its parameter.
    pub(crate) fn lists(&self, mechanism: Mechanism) -> bool {
        self.mechanisms()
            .iter()
            .any(|one| one.kind() == mechanism.kind())
    }

    /// The smallest and the largest key, in bits, of a mechanism's type.
    pub(crate) fn key_sizes(&self, mechanism: Mechanism) -> (u32, u32) {
        let keys = self.keys().filter(|key| mechanism.is_of_type(key));
        let sizes: Vec<u32> = keys.map(|key| key.public().bits()).collect();
        let smallest = sizes.iter().min().copied().unwrap_or_default();
        (smallest, sizes.iter().max().copied().unwrap_or_default())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects
            .iter()
            .filter_map(|object| object.key.as_deref())
    }
}

/// An object that was there before keeps its handle.
fn with_handles(drafts: Vec<Draft>, before: Option<&Token>, mint: &Mint) -> Vec<Arc<Object>> {
    let known = before.map_or(&[][..], |token| &token.objects);
    drafts
        .into_iter()
        .map(|draft| {
            let same = known
                .iter()
                .find(|object| object.unique_id == draft.unique_id);
            let handle = same.map_or_else(|| mint.object(), |object| object.handle);
            Arc::new(draft.with_handle(handle))
        })
        .collect()
}

fn kernel_random(bytes: &mut [u8]) -> Result<(), Error> {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                error!("getrandom: {errno}");
                return Err(Error::RandomFailed);
            }
        }
    }
    Ok(())
}
