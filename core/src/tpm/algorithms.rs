//! The algorithms that a TPM reports (TPM_CAP_ALGS), limited to those that matter to keys and
//! signatures.

use super::algorithm::{ECC, ECDH, ECDSA, RSA, RSAPSS, RSASSA};
use super::exchange::Exchange;
use super::{Hash, KeyAlgorithm, KeyPurpose, SignatureScheme, Tpm, TpmError, template};
use crate::key::Curve;
use log::warn;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The set of algorithms that a TPM implements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Algorithms(u32);

/// The algorithms of interest. The index in this list is the number of the bit in [`Algorithms`].
const ASKED: [u16; 10] = [
    RSA,
    ECC,
    ECDSA,
    ECDH,
    RSASSA,
    RSAPSS,
    Hash::Sha1.algorithm(),
    Hash::Sha256.algorithm(),
    Hash::Sha384.algorithm(),
    Hash::Sha512.algorithm(),
];
/// The name of this exchange in the log.
const ALGORITHMS: &str = "GetCapability(algorithms)";
/// A bit that every [`Algorithms`] has. The number 0 means "not asked yet", so an empty set must
/// differ from 0.
const TOLD: u32 = 1 << 31;

/// Returns the bit of an algorithm, or 0 for an algorithm that is not in [`ASKED`].
fn bit(identifier: u16) -> u32 {
    let place = ASKED.iter().position(|asked| *asked == identifier);
    place.map_or(0, |place| 1 << place)
}

impl Algorithms {
    /// All algorithms that the module asks the TPM for. This value is assumed for a TPM that does
    /// not report its algorithms.
    pub const ANY: Self = Self(TOLD | ((1 << ASKED.len()) - 1));

    /// Returns the algorithms with these identifiers. Unknown identifiers are ignored. An empty
    /// list means that the TPM does not report its algorithms, and gives [`Algorithms::ANY`].
    pub fn from_ids(identifiers: &[u16]) -> Self {
        if identifiers.is_empty() {
            return Self::ANY;
        }
        Self(identifiers.iter().fold(TOLD, |all, one| all | bit(*one)))
    }

    fn has(self, identifier: u16) -> bool {
        self.0 & bit(identifier) != 0
    }

    /// Returns true if the TPM supports RSA keys.
    pub fn has_rsa(self) -> bool {
        self.has(RSA)
    }

    /// Returns true if the TPM supports elliptic-curve keys.
    pub fn has_ecc(self) -> bool {
        self.has(ECC)
    }

    /// Returns true if elliptic-curve keys of the TPM can do ECDH.
    pub fn agrees(self) -> bool {
        self.has_ecc() && self.has(ECDH)
    }

    /// Returns the hashes that the TPM supports, in the order of [`Hash::ALL`].
    pub fn hashes(self) -> Vec<Hash> {
        let known = |hash: &Hash| self.has(hash.algorithm());
        Hash::ALL.into_iter().filter(known).collect()
    }

    /// Returns this set of algorithms without the hashes that are not in `hashes`.
    #[must_use]
    pub fn only(self, hashes: &[Hash]) -> Self {
        let unwanted = Hash::ALL.into_iter().filter(|hash| !hashes.contains(hash));
        Self(unwanted.fold(self.0, |all, hash| all & !bit(hash.algorithm())))
    }

    /// Returns true if a key without a fixed scheme can sign by this scheme.
    pub fn sign(self, scheme: SignatureScheme) -> bool {
        let has_key = match scheme {
            SignatureScheme::Ecdsa(_) => self.has_ecc(),
            SignatureScheme::Rsassa(_) | SignatureScheme::Rsapss(_) => self.has_rsa(),
        };
        has_key && self.has(scheme.algorithm()) && self.has(scheme.hash().algorithm())
    }
}

impl fmt::Debug for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = ASKED.iter().filter(|one| self.has(**one));
        f.debug_list().entries(there).finish()
    }
}

/// The algorithms that a TPM reported. All users of the TPM share this value. The value is empty
/// until the TPM was asked. Its fields are atomic instead of locked, so that a forked child can use
/// them.
#[derive(Debug, Clone, Default)]
pub struct KnownAlgorithms(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    algorithms: AtomicU32,
    /// Bits of the largest RSA key that the TPM makes with this project's attributes; 0 if not
    /// asked yet.
    largest_rsa: AtomicU32,
    /// Bits of the largest curve for which the TPM makes keys with this project's attributes; 0 if
    /// not asked yet.
    largest_curve: AtomicU32,
}

impl KnownAlgorithms {
    /// Returns the algorithms of the TPM, if the TPM has reported them already.
    pub fn known(&self) -> Option<Algorithms> {
        let told = self.0.algorithms.load(Ordering::Acquire);
        (told & TOLD != 0).then_some(Algorithms(told))
    }

    /// Returns the algorithms if they are known, else [`Algorithms::ANY`].
    pub fn or_any(&self) -> Algorithms {
        self.known().unwrap_or(Algorithms::ANY)
    }

    pub(super) fn note(&self, algorithms: Algorithms) {
        self.0.algorithms.store(algorithms.0, Ordering::Release);
    }

    /// Returns the bits of the largest key of this kind that the TPM makes with this project's
    /// attributes. Returns `None` if the TPM was not asked yet.
    pub fn largest(&self, kind: KeyKind) -> Option<u32> {
        let bits = self.largest_of(kind).load(Ordering::Acquire);
        (bits != 0).then_some(bits)
    }

    fn largest_of(&self, kind: KeyKind) -> &AtomicU32 {
        match kind {
            KeyKind::Ec => &self.0.largest_curve,
            KeyKind::Rsa => &self.0.largest_rsa,
        }
    }
}

/// The type of a key, RSA or elliptic curve, without its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyKind {
    Ec,
    Rsa,
}

impl KeyKind {
    /// Returns the optional sizes of this kind, largest first, and the bits of the smallest size.
    /// Every TPM has the smallest size.
    const fn optional(self) -> ([(KeyAlgorithm, u32); 2], u32) {
        match self {
            Self::Ec => (
                [
                    (KeyAlgorithm::Ec(Curve::P521), 521),
                    (KeyAlgorithm::Ec(Curve::P384), 384),
                ],
                256,
            ),
            Self::Rsa => (
                [
                    (KeyAlgorithm::Rsa(4096), 4096),
                    (KeyAlgorithm::Rsa(3072), 3072),
                ],
                2048,
            ),
        }
    }
}

/// The known abilities of a TPM. Attributes of keys depend on these abilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The algorithms that the TPM reported. `None` if the TPM was not asked.
    pub algorithms: Option<Algorithms>,
    /// False if a PSS signature of the TPM had an unusable salt length.
    pub pss: bool,
}

/// The pause before a TPM that did not report its algorithms is asked again.
#[derive(Debug, Default)]
pub(super) struct RetryPause(Option<Instant>);

impl RetryPause {
    /// Returns true if the pause is over and the TPM may be asked again.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_none_or(|end| Instant::now() >= end)
    }

    /// Starts the pause after a request that began at `asked` and failed. The pause is as long as
    /// the request, and at least one second. After [`TpmError::Busy`] it is one second.
    pub(super) fn begin(&mut self, asked: Instant, error: &TpmError) {
        const LEAST: Duration = Duration::from_secs(1);
        let rest = match error {
            TpmError::Busy(_) => LEAST,
            _ => LEAST.max(asked.elapsed()),
        };
        self.0 = Some(Instant::now() + rest);
    }

    #[cfg(test)]
    pub(super) fn takes(&mut self, rest: Duration) {
        assert!(self.0.is_some(), "the pause has begun");
        self.0 = Some(Instant::now() + rest);
    }
}

impl From<Algorithms> for KnownAlgorithms {
    fn from(algorithms: Algorithms) -> Self {
        let told = Self::default();
        told.note(algorithms);
        told
    }
}

impl Tpm {
    /// Returns the algorithms that the TPM implements. The TPM is asked only once. For a TPM that
    /// does not report its algorithms, all algorithms are assumed.
    pub fn algorithms(&self) -> Result<Algorithms, TpmError> {
        if let Some(known) = self.known_algorithms().known() {
            return Ok(known);
        }
        self.note_algorithms(Exchange::new(ALGORITHMS).run(self, |link| link.algorithms()))
    }

    fn note_algorithms(&self, asked: Result<Vec<u16>, TpmError>) -> Result<Algorithms, TpmError> {
        let algorithms = match asked {
            Ok(identifiers) => Algorithms::from_ids(&identifiers),
            Err(TpmError::Response(code)) if code.is_definite() => {
                warn!("the TPM does not report its algorithms: {code}");
                Algorithms::ANY
            }
            Err(TpmError::Unsupported(why)) => {
                warn!("the TPM's list of algorithms is not valid: {why}");
                Algorithms::ANY
            }
            Err(error) => return Err(error),
        };
        self.known_algorithms().note(algorithms);
        Ok(algorithms)
    }

    /// Returns the algorithms of the TPM. Returns [`Algorithms::ANY`] if the TPM does not answer,
    /// or if another thread asks the TPM now. After a failed request there is a pause, because each
    /// request could wait for its whole time limit.
    pub fn algorithms_or_any(&self) -> Algorithms {
        if self.known_algorithms().known().is_none()
            && let Some(mut rest) = self.asking.try_lock()
            && rest.is_over()
        {
            self.ask(&mut rest, || self.algorithms());
        }
        self.known_algorithms().or_any()
    }

    /// Asks for the algorithms if they are unknown and the request would not wait. The request
    /// would wait if a thread uses the TPM, or if the TPM makes a key for any process. Returns true
    /// if the algorithms are known afterwards.
    pub fn learn_algorithms(&self) -> bool {
        if self.known_algorithms().known().is_none()
            && let Some(mut rest) = self.asking.try_lock()
            && rest.is_over()
            && !self.timing().is_busy()
            && let Some(mut link) = self.link.try_lock()
        {
            self.ask(&mut rest, || {
                self.note_algorithms(
                    Exchange::new(ALGORITHMS).run_over(&mut link, self, |link| link.algorithms()),
                )
            });
        }
        self.known_algorithms().known().is_some()
    }

    /// Returns true if [`Tpm::learn_algorithms`] would send a command now.
    pub fn can_ask_algorithms(&self) -> bool {
        self.known_algorithms().known().is_none()
            && self.asking.try_lock().is_some_and(|rest| rest.is_over())
            && self.link.try_lock().is_some()
            && !self.timing().is_busy()
    }

    fn ask(&self, rest: &mut RetryPause, asked: impl FnOnce() -> Result<Algorithms, TpmError>) {
        let began = Instant::now();
        if let Err(error) = asked() {
            warn!("the TPM does not report its algorithms now: {error}");
            rest.begin(began, &error);
        }
    }

    /// Asks once for the largest key of this kind. Sends two commands at most. A TPM that did not
    /// report its algorithms is not asked.
    pub fn learn_largest(&self, kind: KeyKind) {
        let known = self.known_algorithms();
        if known.known().is_none() || known.largest(kind).is_some() {
            return;
        }
        let Some(mut rest) = self.asking.try_lock().filter(|rest| rest.is_over()) else {
            return;
        };
        let began = Instant::now();
        let (optional, smallest) = kind.optional();
        for (algorithm, bits) in optional {
            match self.implements(algorithm) {
                Ok(true) => return known.largest_of(kind).store(bits, Ordering::Release),
                Ok(false) => {}
                Err(error) => {
                    warn!("the TPM does not report now which keys it makes: {error}");
                    return rest.begin(began, &error);
                }
            }
        }
        known.largest_of(kind).store(smallest, Ordering::Release);
    }

    /// Returns true if the TPM can make keys of this kind with this project's attributes.
    pub fn implements(&self, algorithm: KeyAlgorithm) -> Result<bool, TpmError> {
        let usage = KeyPurpose {
            signs: true,
            decrypts: false,
        };
        let area = template::device_key(algorithm, usage);
        let tested = Exchange::new("TestParms").run(self, |link| link.test_parameters(&area));
        match tested {
            Ok(()) => Ok(true),
            Err(TpmError::Response(code)) if code.is_unsupported_value() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_list_is_not_there() {
        let told = Algorithms::from_ids(&[0x0001, 0x0014, 0x000B, 0x00A0, 0x8001]);
        assert!(told.sign(SignatureScheme::Rsassa(Hash::Sha256)));
        for scheme in [
            SignatureScheme::Rsassa(Hash::Sha1),
            SignatureScheme::Rsapss(Hash::Sha256),
            SignatureScheme::Ecdsa(Hash::Sha256),
        ] {
            assert!(!told.sign(scheme), "{scheme:?}");
        }
        assert_eq!(told.hashes(), [Hash::Sha256]);
        assert!(told.has_rsa() && !told.has_ecc() && !told.agrees());
    }

    #[test]
    fn a_list_of_strangers_is_an_answer_and_an_empty_one_is_none() {
        assert_eq!(Algorithms::from_ids(&[]), Algorithms::ANY);
        assert!(!Algorithms::from_ids(&[0x00A0]).has_rsa());
        let told = KnownAlgorithms::from(Algorithms::from_ids(&[0x00A0]));
        assert_eq!(told.known(), Some(Algorithms::from_ids(&[0x00A0])));
        assert_eq!(KnownAlgorithms::default().or_any(), Algorithms::ANY);
    }
}
