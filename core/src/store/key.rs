//! A private key in the TPM, and how a request to sign becomes a scheme that it takes.

use super::verify::{has_longest_salt, verify};
use super::{SignError, Templates};
use crate::key::{PublicKey, pad_left};
use crate::tpm::{
    AuthValue, DerivedKey, Hash, PublicArea, ResidentKey, Scheme, Secret, Signature, SigningScheme,
    Tpm, TpmError, WrappedKey,
};
use log::{info, warn};
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A private key in the TPM.
#[derive(Debug)]
pub struct Key {
    place: Place,
    access: Access,
    /// Hashes that the TPM knows; asked only for keys to which it matters.
    hashes: Vec<Hash>,
    pss_salt: AtomicU8,
}

/// What opens a key to its users.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Nothing is asked: its authorisation value is empty.
    #[default]
    Open,
    /// The configuration has its authorisation value.
    Given(Arc<AuthValue>),
    /// Whoever logs in brings it.
    Login(Arc<Login>),
}

/// What a login brought, for as long as somebody is logged in.
#[derive(Default)]
pub struct Login(Mutex<Option<Secret>>);

impl Access {
    /// The value that proves to the TPM that the key may be used.
    fn value(&self) -> Result<AuthValue, SignError> {
        match self {
            Self::Open => Ok(AuthValue::default()),
            Self::Given(value) => Ok(AuthValue::clone(value)),
            Self::Login(login) => login.secret().map(AuthValue::new),
        }
    }
}

impl Login {
    /// From now on the keys can be used.
    pub fn begin(&self, secret: Secret) {
        *self.0.lock() = Some(secret);
    }

    fn secret(&self) -> Result<Secret, SignError> {
        // Held for moments; in a child for ever, if a thread of the parent held it.
        let secret = self
            .0
            .try_lock_for(A_MOMENT)
            .and_then(|secret| secret.clone());
        secret.ok_or(SignError::NotLoggedIn)
    }

    /// It is wiped.
    pub fn end(&self) {
        *self.0.lock() = None;
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What the TPM can do, as far as it matters to a key.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    /// The hashes that it implements.
    pub(super) hashes: Vec<Hash>,
    /// Whether its PSS signatures are of use, as far as is known.
    pub(super) pss: bool,
}

/// Where the TPM has the key.
#[derive(Debug)]
enum Place {
    /// In a persistent handle.
    Handle(ResidentKey, PublicArea),
    /// Nowhere: it is derived from one of the factories' templates, which one is to be found out.
    Template(
        PublicKey,
        Templates,
        OnceLock<(PublicArea, DerivedKey)>,
        Mutex<()>,
    ),
    /// On the disk, wrapped; in a persistent handle as well if it says so and that is true.
    Disk(WrappedKey, PublicArea, Option<Persisted>),
    /// On the disk, in a form that is not supported; the text says why.
    Refused(PublicArea, &'static str),
}

/// A persistent handle that is said to hold a key, and the key as found there when it was first
/// needed: `None` if something else is there.
#[derive(Debug)]
struct Persisted(u32, OnceLock<Option<ResidentKey>>);

/// Longer than a lock is held that no TPM is waited under.
const A_MOMENT: Duration = Duration::from_secs(1);
/// How long one derivation may take, of which others wait for the end.
const DERIVATION: Duration = Duration::from_secs(60);

/// What is known of the salt that the TPM gives its PSS signatures: the specification lets it be as
/// long as the digest (FIPS 186-5), which TLS demands, or as long as there is room.
const SALT_UNKNOWN: u8 = 0;
const SALT_AS_LONG_AS_DIGEST: u8 = 1;
const SALT_OF_OTHER_LENGTH: u8 = 2;

/// What to sign, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignRequest<'a> {
    /// ECDSA over a digest of any hash; the answer is r ‖ s, each as wide as the curve's order.
    Ecdsa(&'a [u8]),
    /// RSASSA-PKCS1-v1_5 over a digest of this hash.
    Pkcs1(Hash, &'a [u8]),
    /// RSASSA-PSS over a digest of this hash, MGF1 with the same, a salt as long as the digest.
    Pss(Hash, &'a [u8]),
}

impl Key {
    /// A key in a persistent handle.
    pub(super) fn resident(resident: ResidentKey, area: PublicArea, abilities: Abilities) -> Self {
        Self::new(Place::Handle(resident, area), abilities)
    }

    /// A key that the TPM may derive; that is tried when it is first needed.
    pub(super) fn derivable(public: PublicKey, templates: Templates, abilities: Abilities) -> Self {
        Self::new(
            Place::Template(public, templates, OnceLock::new(), Mutex::new(())),
            abilities,
        )
    }

    /// A key on the disk, which the TPM is said to hold at `handle` as well.
    pub(super) fn wrapped(
        wrapped: WrappedKey,
        area: PublicArea,
        handle: Option<u32>,
        abilities: Abilities,
    ) -> Self {
        let persisted = handle.map(|handle| Persisted(handle, OnceLock::new()));
        Self::new(Place::Disk(wrapped, area, persisted), abilities)
    }

    /// A key on the disk that cannot be used.
    pub(super) fn refused(area: PublicArea, why: &'static str, abilities: Abilities) -> Self {
        Self::new(Place::Refused(area, why), abilities)
    }

    /// Its wrapped form, if it has one.
    pub(super) fn on_disk(&self) -> Option<&WrappedKey> {
        match &self.place {
            Place::Disk(wrapped, ..) => Some(wrapped),
            Place::Handle(..) | Place::Template(..) | Place::Refused(..) => None,
        }
    }

    /// The key as the TPM derives it, if it was derived.
    pub(crate) fn derived(&self) -> Option<&DerivedKey> {
        match &self.place {
            Place::Template(_, _, derived, _) => derived.get().map(|(_, key)| key),
            Place::Handle(..) | Place::Disk(..) | Place::Refused(..) => None,
        }
    }

    /// The key, opened by this.
    #[must_use]
    pub(super) fn opened_by(self, access: Access) -> Self {
        Self { access, ..self }
    }

    fn new(place: Place, abilities: Abilities) -> Self {
        let salt = if abilities.pss {
            SALT_UNKNOWN
        } else {
            SALT_OF_OTHER_LENGTH
        };
        Self {
            place,
            access: Access::Open,
            hashes: abilities.hashes,
            pss_salt: AtomicU8::new(salt),
        }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        match &self.place {
            Place::Handle(_, area) | Place::Disk(_, area, _) | Place::Refused(area, _) => &area.key,
            Place::Template(public, ..) => public,
        }
    }

    /// The TPM's persistent handle of it, if it has one.
    pub fn handle(&self) -> Option<u32> {
        match &self.place {
            Place::Handle(resident, _) => Some(resident.handle()),
            Place::Disk(_, _, persisted) => persisted.as_ref().map(|Persisted(handle, _)| *handle),
            Place::Template(..) | Place::Refused(..) => None,
        }
    }

    /// The TPM's name of it; of a key without handle unknown until it is derived.
    pub fn name(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Handle(resident, _) => Some(resident.name()),
            Place::Disk(wrapped, ..) => Some(wrapped.name()),
            Place::Refused(..) => None,
            Place::Template(_, _, derived, _) => derived.get().map(|(_, key)| key.name()),
        }
    }

    /// Its public area: TPMT_PUBLIC as bytes; unknown as the name is.
    pub fn public_area(&self) -> Option<&[u8]> {
        self.area().map(PublicArea::as_bytes)
    }

    fn area(&self) -> Option<&PublicArea> {
        match &self.place {
            Place::Handle(_, area) | Place::Disk(_, area, _) | Place::Refused(area, _) => {
                Some(area)
            }
            Place::Template(_, _, derived, _) => derived.get().map(|(area, _)| area),
        }
    }

    /// How it signs; anything goes for a key that is not derived yet.
    fn scheme(&self) -> SigningScheme {
        self.area().map_or(SigningScheme::Any, |area| area.scheme)
    }

    /// Makes sure that the key is there: derives one without handle, if that was not done before.
    ///
    /// # Errors
    ///
    /// [`SignError::NotInThisTpm`] if no template gives the certified key.
    pub fn prepare(&self, tpm: &Tpm) -> Result<(), SignError> {
        let Place::Template(public, templates, derived, turn) = &self.place else {
            return Ok(());
        };
        if derived.get().is_some() {
            return Ok(());
        }
        // One thread derives; a limit, for a child of a parent that was at it when it forked.
        let _turn = turn
            .try_lock_for(DERIVATION)
            .ok_or(TpmError::Timeout(DERIVATION))?;
        if derived.get().is_some() {
            return Ok(());
        }
        if templates.is_given_up(public) {
            return Err(SignError::NotInThisTpm);
        }
        match tpm.derive(public, templates.remembered(public))? {
            Some((area, key)) => {
                templates.remember(public, key.template());
                let _ = derived.set((area, key));
                Ok(())
            }
            None => {
                templates.give_up(public);
                Err(SignError::NotInThisTpm)
            }
        }
    }

    /// Whether it signs digests of the scheme's hash by this scheme. ECDSA takes those of other
    /// hashes than its own too, as far as `fit` makes them fit.
    pub fn signs(&self, scheme: Scheme) -> bool {
        if self.area().is_some_and(|area| !area.signs()) {
            return false;
        }
        match (self.public(), self.scheme(), scheme) {
            (PublicKey::Ec { curve, .. }, _, Scheme::Ecdsa(hash)) => {
                let own = self.ecdsa_hash(curve.width()).width();
                hash.width() <= own || own >= curve.width()
            }
            (PublicKey::Ec { .. }, _, _) | (PublicKey::Rsa { .. }, _, Scheme::Ecdsa(_)) => false,
            (PublicKey::Rsa { .. }, _, Scheme::Rsapss(_))
                if self.pss_salt.load(Ordering::Relaxed) == SALT_OF_OTHER_LENGTH =>
            {
                false
            }
            (PublicKey::Rsa { .. }, SigningScheme::Fixed(fixed), scheme) => fixed == scheme,
            (PublicKey::Rsa { .. }, SigningScheme::Any, scheme) => {
                self.hashes.contains(&scheme.hash())
            }
        }
    }

    /// The persistent key that a key on the disk is said to be; one command when first asked.
    fn persisted<'a>(
        tpm: &Tpm,
        wrapped: &WrappedKey,
        persisted: Option<&'a Persisted>,
    ) -> Result<Option<&'a ResidentKey>, TpmError> {
        let Some(Persisted(handle, found)) = persisted else {
            return Ok(None);
        };
        if let Some(found) = found.get() {
            return Ok(found.as_ref());
        }
        let there = match tpm.resident_key(*handle) {
            Ok((_, there)) if there.name() == wrapped.name() => Some(there),
            Ok(_) => None,
            Err(TpmError::Response(code)) if code.is_definite() => None,
            Err(error) => return Err(error),
        };
        if there.is_none() {
            info!("handle 0x{handle:08X} does not hold the key; it is loaded from its file");
        }
        Ok(found.get_or_init(|| there).as_ref())
    }

    /// Signs: one command, or three for a key that must be loaded; one more if it has an
    /// authorisation value.
    ///
    /// # Errors
    ///
    /// [`SignError::DigestLength`] for a digest that the key cannot sign rightly, and
    /// [`SignError::Scheme`] for a scheme that it does not have: nothing is sent then.
    pub fn sign(&self, tpm: &Tpm, request: SignRequest) -> Result<Vec<u8>, SignError> {
        self.prepare(tpm)?;
        let (scheme, digest) = match (self.public(), request) {
            (PublicKey::Ec { curve, .. }, SignRequest::Ecdsa(digest)) => {
                let hash = self.ecdsa_hash(curve.width());
                let fitted = fit(digest, hash.width(), curve.width());
                (
                    Scheme::Ecdsa(hash),
                    fitted.ok_or(SignError::DigestLength(digest.len()))?,
                )
            }
            (PublicKey::Rsa { .. }, SignRequest::Pkcs1(hash, digest)) => {
                (Scheme::Rsassa(hash), of_width(digest, hash)?)
            }
            (PublicKey::Rsa { .. }, SignRequest::Pss(hash, digest)) => {
                (Scheme::Rsapss(hash), of_width(digest, hash)?)
            }
            _ => return Err(SignError::Scheme),
        };
        if !self.signs(scheme) {
            return Err(SignError::Scheme);
        }
        let value = self.access.value()?;
        let mut loaded = true;
        let signature = match &self.place {
            Place::Handle(resident, _) => {
                loaded = false;
                tpm.sign(resident, &value, scheme, &digest)?
            }
            Place::Disk(wrapped, _, persisted) => {
                match Self::persisted(tpm, wrapped, persisted.as_ref())? {
                    Some(resident) => {
                        loaded = false;
                        tpm.sign(resident, &value, scheme, &digest)?
                    }
                    None => tpm.sign_wrapped(wrapped, &value, scheme, &digest)?,
                }
            }
            Place::Refused(_, why) => return Err(SignError::Refused(why)),
            Place::Template(_, _, derived, _) => {
                let (_, key) = derived.get().ok_or(SignError::NotInThisTpm)?;
                tpm.sign_derived(key, scheme, &digest)?
            }
        };
        let width = self.public().signature_width();
        let whole = match &signature {
            Signature::Ecc { r, s } => pad_left(r, width / 2)
                .zip(pad_left(s, width / 2))
                .map(|(r, s)| [r, s].concat()),
            Signature::Rsa(number) => pad_left(number, width),
        };
        let too_wide = || TpmError::Broken("a signature wider than its key".into());
        let whole = whole.ok_or_else(too_wide)?;
        if let Scheme::Rsapss(hash) = scheme {
            self.check_salt(tpm, hash, &digest, &whole)?;
        } else if loaded && !verify(self.public(), request, &whole) {
            // Between loading and signing a transient handle can become another's key.
            return Err(TpmError::Broken("another key signed".into()).into());
        }
        Ok(whole)
    }

    /// Whether this is the key's authorisation value: a signature over random bytes, which is of no
    /// use to anybody.
    pub(super) fn prove(&self, tpm: &Tpm, value: &AuthValue) -> Result<(), SignError> {
        let scheme = match (self.scheme(), self.public()) {
            (SigningScheme::Fixed(scheme), _) => scheme,
            (_, PublicKey::Ec { curve, .. }) => Scheme::Ecdsa(self.ecdsa_hash(curve.width())),
            (_, PublicKey::Rsa { .. }) => Scheme::Rsassa(Hash::Sha256),
        };
        let mut digest = vec![0; scheme.hash().width()];
        tpm.random(&mut digest)?;
        match &self.place {
            Place::Handle(resident, _) => tpm.sign(resident, value, scheme, &digest)?,
            _ => return Err(SignError::Scheme),
        };
        Ok(())
    }

    /// Whether a wrong authorisation value counts towards the lockout of the whole TPM.
    pub(super) fn counts_wrong_auth(&self) -> bool {
        self.area().is_none_or(|area| !area.is_no_da())
    }

    /// The first PSS signature is verified: if its salt is not as long as the digest, nobody who
    /// asked for one accepts it, and no key of this TPM signs by PSS from then on.
    fn check_salt(
        &self,
        tpm: &Tpm,
        hash: Hash,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), SignError> {
        if self.pss_salt.load(Ordering::Relaxed) == SALT_AS_LONG_AS_DIGEST {
            return Ok(());
        }
        let request = SignRequest::Pss(hash, digest);
        if verify(self.public(), request, signature) {
            self.pss_salt
                .store(SALT_AS_LONG_AS_DIGEST, Ordering::Relaxed);
            return Ok(());
        }
        if has_longest_salt(self.public(), hash, digest, signature) {
            warn!(
                "the TPM's PSS signatures have the longest salt: nobody takes them, none is made"
            );
            self.pss_salt.store(SALT_OF_OTHER_LENGTH, Ordering::Relaxed);
            tpm.give_up_pss();
            return Err(SignError::Scheme);
        }
        Err(TpmError::Broken("a signature came that does not verify".into()).into())
    }

    /// The hash whose width the TPM demands of a digest. Where the key leaves it open, one that
    /// takes all bits that the curve's order has, if there is such a one.
    fn ecdsa_hash(&self, order: usize) -> Hash {
        match self.scheme() {
            SigningScheme::Fixed(fixed) => fixed.hash(),
            SigningScheme::Any => match order {
                ..=32 => Hash::Sha256,
                33..=48 => Hash::Sha384,
                _ => Hash::Sha512,
            },
        }
    }
}

fn of_width(digest: &[u8], hash: Hash) -> Result<Vec<u8>, SignError> {
    match digest.len() == hash.width() {
        true => Ok(digest.to_vec()),
        false => Err(SignError::DigestLength(digest.len())),
    }
}

/// A digest as `hash` bytes that ECDSA reads as the same number: it takes the left `order` bytes of
/// what it is given, and all of something shorter (FIPS 186-5, section 6.4.1).
///
/// Where the hash is at least as wide as the order, the number goes to the left, with zeros after
/// it; else to the right, with zeros before it, and a digest that has no room is refused.
fn fit(digest: &[u8], hash: usize, order: usize) -> Option<Vec<u8>> {
    if digest.is_empty() {
        return None;
    }
    if hash < order {
        return (digest.len() <= hash).then(|| pad_left(digest, hash))?;
    }
    let mut fitted = pad_left(&digest[..digest.len().min(order)], order)?;
    fitted.resize(hash, 0);
    Some(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fake::{FIXED, FakeTpm, IDENTITY, Reply, p256_area, public, signature};

    #[test]
    fn digests_keep_their_value_or_are_refused() {
        assert_eq!(fit(&[], 32, 32), None);
        assert_eq!(fit(&[9], 4, 4), Some(vec![0, 0, 0, 9]));
        assert_eq!(fit(&[1, 2, 3, 4, 5], 4, 4), Some(vec![1, 2, 3, 4]));
        // A hash wider than the order: only its left bytes count.
        assert_eq!(fit(&[9], 6, 4), Some(vec![0, 0, 0, 9, 0, 0]));
        assert_eq!(fit(&[1, 2, 3, 4, 5], 6, 4), Some(vec![1, 2, 3, 4, 0, 0]));
        // A hash narrower than the order: cutting would lose bits that count.
        assert_eq!(fit(&[1, 2, 3, 4, 5], 4, 6), None);
        assert_eq!(fit(&[0, 0, 3, 4, 5], 4, 6), None);
        assert_eq!(fit(&[1, 2, 3], 4, 6), Some(vec![0, 1, 2, 3]));
    }

    #[test]
    fn short_halves_of_a_signature_are_padded_and_long_ones_refused() {
        let area = p256_area(IDENTITY, FIXED);
        let fake = FakeTpm::new([
            public(&area, &[0, 0x0B, 1]),
            signature(&[5; 31], &[6; 30]),
            signature(&[5; 33], &[6; 32]),
        ]);
        let tpm = fake.tpm(std::time::Duration::from_secs(20));
        let (_, resident) = tpm.resident_key(0x8102_0000).unwrap();
        let key = Key::resident(
            resident,
            PublicArea::parse(&area).unwrap(),
            Abilities::default(),
        );
        let signature = key.sign(&tpm, SignRequest::Ecdsa(&[1; 20])).unwrap();
        assert_eq!(signature, [&[0][..], &[5; 31], &[0, 0], &[6; 30]].concat());
        assert!(key.sign(&tpm, SignRequest::Ecdsa(&[1; 20])).is_err());
        assert_eq!(
            key.sign(&tpm, SignRequest::Pkcs1(Hash::Sha256, &[1; 32])),
            Err(SignError::Scheme)
        );
    }

    /// A signature that OpenSSL made over 32 bytes 7, with a salt of this length.
    fn pss_answer(signature: &[u8]) -> Reply {
        let mut body = vec![0x00, 0x16, 0x00, 0x0B, 0x01, 0x00];
        body.extend(signature);
        Reply::AuthorisedBody(body)
    }

    #[test]
    fn a_tpm_with_another_salt_signs_no_pss_and_a_damaged_answer_is_only_that() {
        let mut area = vec![0x00, 0x01, 0x00, 0x0B];
        area.extend(IDENTITY.to_be_bytes());
        area.extend([
            0, 0, 0x00, 0x10, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0, 0x01, 0x00,
        ]);
        area.extend(include_bytes!("../../testdata/rsa-modulus.bin"));
        let good = include_bytes!("../../testdata/pss-salt-digest.bin");
        let longest = include_bytes!("../../testdata/pss-salt-max.bin");
        let mut damaged = *good;
        damaged[100] ^= 1;
        let pss = SignRequest::Pss(Hash::Sha256, &[7; 32]);
        let fake = FakeTpm::new([
            public(&area, &[0, 0x0B, 1]),
            pss_answer(&damaged),
            pss_answer(good),
            public(&area, &[0, 0x0B, 1]),
            pss_answer(longest),
        ]);
        let tpm = fake.tpm(std::time::Duration::from_secs(20));
        let key = || {
            let (_, resident) = tpm.resident_key(0x8102_0000).unwrap();
            let abilities = Abilities {
                hashes: vec![Hash::Sha256],
                pss: tpm.signs_pss(),
            };
            Key::resident(resident, PublicArea::parse(&area).unwrap(), abilities)
        };
        let first = key();
        assert!(matches!(
            first.sign(&tpm, pss),
            Err(SignError::Tpm(TpmError::Broken(_)))
        ));
        assert_eq!(first.sign(&tpm, pss).as_deref(), Ok(&good[..]));
        let second = key();
        assert_eq!(second.sign(&tpm, pss), Err(SignError::Scheme));
        assert!(!second.signs(Scheme::Rsapss(Hash::Sha256)) && !tpm.signs_pss());
        assert_eq!(
            second.sign(&tpm, pss),
            Err(SignError::Scheme),
            "and nothing is sent"
        );
    }
}
