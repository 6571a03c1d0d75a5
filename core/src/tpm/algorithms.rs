//! Which algorithms a TPM says that it implements (TPM_CAP_ALGS), as far as that matters to keys and
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

/// Algorithms that a TPM implements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Algorithms(u32);

/// What is asked for; the place in this list is the bit.
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
/// What the log calls the question for algorithms.
const ALGORITHMS: &str = "GetCapability(algorithms)";
/// Set in the number of every [`Algorithms`].
const TOLD: u32 = 1 << 31;

/// The bit of an algorithm; none of what is not asked for.
fn bit(identifier: u16) -> u32 {
    let place = ASKED.iter().position(|asked| *asked == identifier);
    place.map_or(0, |place| 1 << place)
}

impl Algorithms {
    /// All that any TPM may implement: what is supposed of one that does not tell.
    pub const ANY: Self = Self(TOLD | ((1 << ASKED.len()) - 1));

    /// Those with these identifiers. An identifier that is not known here adds nothing. A TPM whose
    /// list is empty does not tell.
    pub fn from_ids(identifiers: &[u16]) -> Self {
        if identifiers.is_empty() {
            return Self::ANY;
        }
        Self(identifiers.iter().fold(TOLD, |all, one| all | bit(*one)))
    }

    fn has(self, identifier: u16) -> bool {
        self.0 & bit(identifier) != 0
    }

    /// True if there can be RSA keys.
    pub fn has_rsa(self) -> bool {
        self.has(RSA)
    }

    /// True if there can be keys on curves.
    pub fn has_ecc(self) -> bool {
        self.has(ECC)
    }

    /// True if keys on curves agree on secrets.
    pub fn agrees(self) -> bool {
        self.has_ecc() && self.has(ECDH)
    }

    /// The hashes, in the order of [`Hash::ALL`].
    pub fn hashes(self) -> Vec<Hash> {
        let known = |hash: &Hash| self.has(hash.algorithm());
        Hash::ALL.into_iter().filter(known).collect()
    }

    /// The same with these hashes and no others.
    #[must_use]
    pub fn only(self, hashes: &[Hash]) -> Self {
        let unwanted = Hash::ALL.into_iter().filter(|hash| !hashes.contains(hash));
        Self(unwanted.fold(self.0, |all, hash| all & !bit(hash.algorithm())))
    }

    /// True if a key that takes any scheme signs by this one.
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

/// What a TPM told of its algorithms, shared by all who want to know: until somebody asked, nothing.
/// No lock: a forked child may go on with it.
#[derive(Debug, Clone, Default)]
pub struct KnownAlgorithms(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    algorithms: AtomicU32,
    /// Bits of the largest RSA key that the TPM makes for us; 0: it was not asked.
    largest_rsa: AtomicU32,
    /// Bits of the largest curve that the TPM makes keys on for us; 0: it was not asked.
    largest_curve: AtomicU32,
}

impl KnownAlgorithms {
    /// What is known already.
    pub fn known(&self) -> Option<Algorithms> {
        let told = self.0.algorithms.load(Ordering::Acquire);
        (told & TOLD != 0).then_some(Algorithms(told))
    }

    /// What is known already, or else all that any TPM may implement.
    pub fn or_any(&self) -> Algorithms {
        self.known().unwrap_or(Algorithms::ANY)
    }

    pub(super) fn note(&self, algorithms: Algorithms) {
        self.0.algorithms.store(algorithms.0, Ordering::Release);
    }

    /// Bits of the largest key on a curve or of the largest RSA key that the TPM makes for us, if it was
    /// asked.
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

/// A kind of keys, whatever their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyKind {
    Ec,
    Rsa,
}

impl KeyKind {
    /// The keys of the kind that a TPM may lack, the largest first; and the bits of the smallest, which
    /// every TPM has.
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

/// What is known of what a TPM can do; attributes of keys depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What it told, if it was asked.
    pub algorithms: Option<Algorithms>,
    /// True if its PSS signatures are of use, as far as is known.
    pub pss: bool,
}

/// How long a TPM that did not tell its algorithms is not asked again.
#[derive(Debug, Default)]
pub(super) struct RetryPause(Option<Instant>);

impl RetryPause {
    /// True if it may be asked.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_none_or(|end| Instant::now() >= end)
    }

    /// Begins after a question that began then: as long as that took, and not less than a second. Behind
    /// a key of another process no longer.
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
        assert!(self.0.is_some(), "it has begun");
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
    /// The algorithms that the TPM implements; asked once. A TPM that does not tell may implement
    /// all.
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
                warn!("the TPM does not tell its algorithms: {code}");
                Algorithms::ANY
            }
            Err(TpmError::Unsupported(why)) => {
                warn!("the TPM's list of algorithms is not understood: {why}");
                Algorithms::ANY
            }
            Err(error) => return Err(error),
        };
        self.known_algorithms().note(algorithms);
        Ok(algorithms)
    }

    /// The same, or all that any TPM may implement while this one does not answer, or another thread
    /// asks. After a fault it is not asked again for a while: each time would wait as long.
    pub fn algorithms_or_any(&self) -> Algorithms {
        if self.known_algorithms().known().is_none()
            && let Some(mut rest) = self.asking.try_lock()
            && rest.is_over()
        {
            self.ask(&mut rest, || self.algorithms());
        }
        self.known_algorithms().or_any()
    }

    /// Asks for the algorithms, if they are not known and that waits for nobody: no thread uses the TPM,
    /// and no process has it make a key. Whether they are known then.
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

    /// True if [`Tpm::learn_algorithms`] would ask now.
    pub fn can_ask_algorithms(&self) -> bool {
        self.known_algorithms().known().is_none()
            && self.asking.try_lock().is_some_and(|rest| rest.is_over())
            && self.link.try_lock().is_some()
            && !self.timing().is_busy()
    }

    fn ask(&self, rest: &mut RetryPause, asked: impl FnOnce() -> Result<Algorithms, TpmError>) {
        let began = Instant::now();
        if let Err(error) = asked() {
            warn!("the TPM does not tell its algorithms now: {error}");
            rest.begin(began, &error);
        }
    }

    /// Asks for the largest key of this kind: two commands at most, once. Nothing is asked of a TPM that
    /// did not tell its algorithms.
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
                    warn!("the TPM does not tell now which keys it makes: {error}");
                    return rest.begin(began, &error);
                }
            }
        }
        known.largest_of(kind).store(smallest, Ordering::Release);
    }

    /// True if the TPM can hold keys of this kind, as we make them.
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
