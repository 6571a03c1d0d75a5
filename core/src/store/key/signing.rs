//! How a request to sign becomes a scheme that the key takes, and its answer a signature.

use super::{Key, Place};
use crate::key::{PublicKey, pad_left};
use crate::store::SignError;
use crate::store::verify::{has_longest_salt, verify};
use crate::tpm::{AuthValue, Hash, Scheme, Signature, SigningScheme, Tpm, TpmError};
use log::warn;
use std::sync::atomic::Ordering;

/// What is known of the salt that the TPM gives its PSS signatures: the specification lets it be as
/// long as the digest (FIPS 186-5), which TLS demands, or as long as there is room.
pub(super) const SALT_UNKNOWN: u8 = 0;
pub(super) const SALT_AS_LONG_AS_DIGEST: u8 = 1;
pub(super) const SALT_OF_OTHER_LENGTH: u8 = 2;

/// What to sign, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignRequest<'a> {
    /// ECDSA over a digest of any hash; the answer is r ‖ s, each as wide as the curve's order.
    Ecdsa(&'a [u8]),
    /// RSASSA-PKCS1-v1_5 over a digest of this hash.
    Pkcs1(Hash, &'a [u8]),
    /// RSASSA-PKCS1-v1_5 with this in the place of the DigestInfo.
    Pkcs1Of(&'a [u8]),
    /// The private RSA operation on this number, big-endian, at most as wide as the modulus and
    /// below it.
    Unpadded(&'a [u8]),
    /// RSASSA-PSS over a digest of this hash, MGF1 with the same, a salt as long as the digest.
    Pss(Hash, &'a [u8]),
}

impl<'a> SignRequest<'a> {
    /// By this scheme, over a digest of its hash.
    pub fn of(scheme: Scheme, digest: &'a [u8]) -> Self {
        match scheme {
            Scheme::Ecdsa(_) => Self::Ecdsa(digest),
            Scheme::Rsassa(hash) => Self::Pkcs1(hash, digest),
            Scheme::Rsapss(hash) => Self::Pss(hash, digest),
        }
    }
}

impl Key {
    /// Whether it signs, and nothing but its TPM limits by which scheme.
    pub fn signs_by_any_scheme(&self) -> bool {
        self.is_signing() && self.scheme() == SigningScheme::Any
    }

    /// Whether it signs digests of the scheme's hash by this scheme. ECDSA takes those of other
    /// hashes than its own too, as far as `fit` makes them fit.
    pub fn signs(&self, scheme: Scheme) -> bool {
        self.is_signing() && (self.signs_by_itself(scheme) || self.pads_by(scheme))
    }

    /// Whether the padding is whoever's who has the key: the TPM's, or aws-lc's.
    fn signs_by_itself(&self, scheme: Scheme) -> bool {
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

    /// Signs: one command, or three for a key that must be loaded; one more if it has an
    /// authorisation value.
    ///
    /// # Errors
    ///
    /// [`SignError::DigestLength`] for a digest that the key cannot sign rightly, and
    /// [`SignError::Scheme`] for a scheme that it does not have: nothing is sent then.
    pub fn sign(&self, tpm: &Tpm, request: SignRequest) -> Result<Vec<u8>, SignError> {
        self.prepare(tpm)?;
        if let (SignRequest::Pkcs1Of(_), true) | (SignRequest::Unpadded(_), true) =
            (request, self.pads())
        {
            return self.sign_padded(tpm, request);
        }
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
        if !self.signs_by_itself(scheme) {
            return self.sign_padded(tpm, request);
        }
        if let Place::Memory(soft) = &self.place {
            let signed = soft.sign(tpm, &self.access, scheme, &digest);
            return signed.map_err(|error| self.judged(tpm, error));
        }
        let value = self.access.value()?;
        let (signature, doubtful) = self.with(tpm, "Sign", &value, |link, key| {
            link.sign(key, scheme, &digest)
        })?;
        let width = self.public().signature_width();
        let whole = match &signature {
            Signature::Ecc { r, s } => pad_left(r, width / 2)
                .zip(pad_left(s, width / 2))
                .map(|(r, s)| [r, s].concat()),
            Signature::Rsa(number) => pad_left(number, width),
        };
        let too_wide = || TpmError::Broken("a signature wider than its key".into());
        let whole = whole.ok_or_else(too_wide)?;
        let salted = match scheme {
            Scheme::Rsapss(hash) if !self.knows_salt() => Some(hash),
            _ => None,
        };
        if salted.is_none() && !doubtful && !tpm.verifies_signatures() {
            return Ok(whole);
        }
        match verify(self.public(), request, &whole) {
            true => self.pss_salt_is(salted, SALT_AS_LONG_AS_DIGEST),
            // Gone from there before the signature; the file has it still.
            false if self.leave_handle() => return self.sign(tpm, request),
            false => {
                return match self.not_verified(tpm, salted, &digest, &whole) {
                    SignError::Scheme if self.pads_by(scheme) => self.sign_padded(tpm, request),
                    error => Err(error),
                };
            }
        }
        Ok(whole)
    }

    /// Whether this is the key's authorisation value: a signature over random bytes, which is of no
    /// use to anybody.
    pub(in crate::store) fn prove(&self, tpm: &Tpm, value: &AuthValue) -> Result<(), SignError> {
        let scheme = match (self.scheme(), self.public()) {
            (SigningScheme::Fixed(scheme), _) => scheme,
            (_, PublicKey::Ec { curve, .. }) => Scheme::Ecdsa(self.ecdsa_hash(curve.width())),
            (_, PublicKey::Rsa { .. }) => Scheme::Rsassa(Hash::Sha256),
        };
        let mut digest = vec![0; scheme.hash().width()];
        tpm.random(&mut digest)?;
        self.with(tpm, "Sign", value, |link, key| {
            link.sign(key, scheme, &digest)
        })?;
        Ok(())
    }

    /// Why a signature is none. The first by PSS tells of the salt: if it is not as long as the
    /// digest, nobody who asked for one accepts it, and no key of this TPM signs by PSS from then on.
    fn not_verified(
        &self,
        tpm: &Tpm,
        salted: Option<Hash>,
        digest: &[u8],
        signature: &[u8],
    ) -> SignError {
        let Some(hash) = salted else {
            return TpmError::Broken("another key signed".into()).into();
        };
        if has_longest_salt(self.public(), hash, digest, signature) {
            warn!(
                "the TPM's PSS signatures have the longest salt: nobody takes them, none is made"
            );
            self.pss_salt_is(salted, SALT_OF_OTHER_LENGTH);
            tpm.give_up_pss();
            return SignError::Scheme;
        }
        TpmError::Broken("a signature came that does not verify".into()).into()
    }

    fn knows_salt(&self) -> bool {
        self.pss_salt.load(Ordering::Relaxed) == SALT_AS_LONG_AS_DIGEST
    }

    fn pss_salt_is(&self, salted: Option<Hash>, length: u8) {
        if salted.is_some() {
            self.pss_salt.store(length, Ordering::Relaxed);
        }
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
    use crate::store::key::Abilities;
    use crate::tpm::PublicArea;
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
        area.extend(include_bytes!("../../../testdata/rsa-modulus.bin"));
        let good = include_bytes!("../../../testdata/pss-salt-digest.bin");
        let longest = include_bytes!("../../../testdata/pss-salt-max.bin");
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
