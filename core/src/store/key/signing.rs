//! Signs: chooses a scheme for a request, and verifies the signature.

use super::padding::has_room;
use super::{Key, KeyLocation};
use crate::key::{Curve, PublicKey, pad_left};
use crate::signature::{SignRequest, has_longest_salt, verify};
use crate::store::SignError;
use crate::tpm::{AuthValue, Hash, KeyScheme, KnownAlgorithms, PublicArea, SignatureScheme, Tpm};
use log::warn;
use std::sync::atomic::Ordering;

/// What is known about the salt of the TPM's PSS signatures. The TPM specification permits two
/// lengths: the length of the digest (FIPS 186-5), which TLS requires, or the longest that fits.
pub(super) const SALT_UNKNOWN: u8 = 0;
pub(super) const SALT_AS_LONG_AS_DIGEST: u8 = 1;
pub(super) const SALT_OF_OTHER_LENGTH: u8 = 2;

impl Key {
    /// Returns true if the key signs by every scheme that its TPM supports. Such a key has no fixed
    /// scheme, and its modulus is long enough for every scheme.
    pub fn signs_by_any_scheme(&self) -> bool {
        let has_room_for_all = match self.public() {
            PublicKey::Ec { .. } => true,
            public @ PublicKey::Rsa { .. } => {
                let mut hashes = Hash::ALL.into_iter();
                hashes.all(|hash| has_room(public, SignatureScheme::Rsapss(hash)))
            }
        };
        self.is_signing() && self.own_scheme() == KeyScheme::Any && has_room_for_all
    }

    /// Returns true if the key signs by this scheme a digest of the scheme's hash. For ECDSA the
    /// key also signs digests of other hashes, if `fit` succeeds.
    pub fn signs(&self, scheme: SignatureScheme) -> bool {
        self.is_signing() && (self.signs_by_itself(scheme) || self.pads_by(scheme))
    }

    /// Returns true if the TPM, or aws-lc for a key in memory, makes the padding of this scheme.
    fn signs_by_itself(&self, scheme: SignatureScheme) -> bool {
        if self.area().is_some_and(|area| !area.signs()) {
            return false;
        }
        match (self.public(), self.own_scheme(), scheme) {
            (PublicKey::Ec { curve, .. }, _, SignatureScheme::Ecdsa(hash)) => {
                let own = ecdsa_hash(self.area(), *curve, &self.algorithms).width();
                hash.width() <= own || own >= curve.width()
            }
            (PublicKey::Ec { .. }, _, _)
            | (PublicKey::Rsa { .. }, _, SignatureScheme::Ecdsa(_)) => false,
            (PublicKey::Rsa { .. }, _, SignatureScheme::Rsapss(_))
                if self.pss_salt.load(Ordering::Relaxed) == SALT_OF_OTHER_LENGTH =>
            {
                false
            }
            // The modulus is too short for the salt. A TPM would use a shorter salt.
            (public @ PublicKey::Rsa { .. }, ..) if !has_room(public, scheme) => false,
            (PublicKey::Rsa { .. }, KeyScheme::Fixed(fixed), scheme) => fixed == scheme,
            (PublicKey::Rsa { .. }, KeyScheme::Any, scheme) => {
                self.algorithms.or_any().sign(scheme)
            }
        }
    }

    /// Signs a digest. Costs one command for a key in a handle, and three commands for a key that
    /// must be loaded. An authorisation value costs one more command.
    ///
    /// # Errors
    ///
    /// In the first two cases no command is sent.
    ///
    /// - [`SignError::DigestLength`] for a digest that the key cannot sign.
    /// - [`SignError::Scheme`] for a scheme that is not supported.
    /// - The errors of the TPM.
    pub fn sign(&self, tpm: &Tpm, request: SignRequest) -> Result<Vec<u8>, SignError> {
        self.prepare(tpm)?;
        let Some((scheme, digest)) = self.scheme_and_digest(request)? else {
            return self.sign_padded(tpm, request);
        };
        if let KeyLocation::Memory(soft) = &self.place {
            let signed = soft.sign(tpm, &self.access, scheme, &digest);
            return signed.map_err(|error| self.judged(tpm, error));
        }
        let value = self.access.value()?;
        let (signature, doubtful) = self.with(tpm, "Sign", &value, |link, key| {
            link.sign(key, scheme, &digest)
        })?;
        let whole = signature.fixed(self.public().signature_width())?;
        let salted = match scheme {
            SignatureScheme::Rsapss(hash) if !self.knows_salt() => Some(hash),
            _ => None,
        };
        let proven = tpm.has_proven(Some(scheme), self.public()) && !tpm.verifies_signatures();
        if salted.is_none() && proven && !doubtful {
            return Ok(whole);
        }
        if verify(self.public(), request, &whole) {
            tpm.note_proven(Some(scheme), self.public());
            self.pss_salt_is(salted, SALT_AS_LONG_AS_DIGEST);
            return Ok(whole);
        }
        // Another key was in the handle or context when the TPM signed. The right key can still be
        // loaded from its file, or derived again.
        if self.leave_handle() || self.leave_context() {
            return self.sign(tpm, request);
        }
        let error = self.not_verified(tpm, scheme, salted, &digest, &whole);
        match self.pads_by(scheme) {
            true => {
                warn!("{error}; the module makes the padding in software instead");
                self.sign_padded(tpm, request)
            }
            false => Err(error),
        }
    }

    /// Returns the scheme and the digest for the TPM, or for the key in memory. Returns `None` if
    /// this module must make the padding.
    fn scheme_and_digest(
        &self,
        request: SignRequest,
    ) -> Result<Option<(SignatureScheme, Vec<u8>)>, SignError> {
        let (scheme, digest) = match (self.public(), request) {
            (PublicKey::Ec { curve, .. }, SignRequest::Ecdsa(digest)) => {
                let area = self.area();
                if area.is_some_and(|area| !area.signs()) {
                    return Err(SignError::Scheme);
                }
                let hash = ecdsa_hash(area, *curve, &self.algorithms);
                let widths = (hash.width(), curve.width());
                let fitted = match digest.len() {
                    length if (length, length) == widths => Some(digest.to_vec()),
                    _ => fit(digest, widths.0, widths.1),
                };
                let fitted = fitted.ok_or(SignError::DigestLength(digest.len()))?;
                return Ok(Some((SignatureScheme::Ecdsa(hash), fitted)));
            }
            (PublicKey::Rsa { .. }, SignRequest::Pkcs1(hash, digest)) => {
                (SignatureScheme::Rsassa(hash), of_width(digest, hash)?)
            }
            (PublicKey::Rsa { .. }, SignRequest::Pss(hash, digest)) => {
                (SignatureScheme::Rsapss(hash), of_width(digest, hash)?)
            }
            (_, SignRequest::Pkcs1Of(_) | SignRequest::Unpadded(_)) if self.pads() => {
                return Ok(None);
            }
            _ => return Err(SignError::Scheme),
        };
        match scheme {
            scheme if self.signs_by_itself(scheme) => Ok(Some((scheme, digest))),
            scheme if self.pads_by(scheme) => Ok(None),
            _ => Err(SignError::Scheme),
        }
    }

    /// Tries an authorisation value by a signature over random bytes. Such a signature is useless
    /// to an attacker.
    pub(in crate::store) fn prove(&self, tpm: &Tpm, value: &AuthValue) -> Result<(), SignError> {
        let scheme = match (self.own_scheme(), self.public()) {
            (KeyScheme::Fixed(scheme), _) => scheme,
            (_, PublicKey::Ec { curve, .. }) => {
                SignatureScheme::Ecdsa(ecdsa_hash(self.area(), *curve, &self.algorithms))
            }
            (_, PublicKey::Rsa { .. }) => SignatureScheme::Rsassa(Hash::Sha256),
        };
        let mut digest = vec![0; scheme.hash().width()];
        tpm.random(&mut digest)?;
        self.with(tpm, "Sign", value, |link, key| {
            link.sign(key, scheme, &digest)
        })?;
        Ok(())
    }

    /// Explains a signature that cannot be verified. The first PSS signature shows the length of
    /// the salt. If the salt is not as long as the digest, verifiers reject the signature. In this
    /// case PSS is disabled for all keys of this TPM.
    fn not_verified(
        &self,
        tpm: &Tpm,
        scheme: SignatureScheme,
        salted: Option<Hash>,
        digest: &[u8],
        signature: &[u8],
    ) -> SignError {
        if let Some(hash) = salted
            && has_longest_salt(self.public(), hash, digest, signature)
        {
            warn!(
                "the TPM signs by PSS with the longest possible salt, which verifiers reject; so \
                 PSS is disabled for this TPM"
            );
            self.pss_salt_is(salted, SALT_OF_OTHER_LENGTH);
            tpm.give_up_pss();
            return SignError::Scheme;
        }
        SignError::unverified(&scheme.to_string())
    }

    /// Records that verifiers reject the PSS signatures of the TPM.
    pub(in crate::store) fn give_up_pss(&self) {
        if !matches!(self.place, KeyLocation::Memory(_)) {
            self.pss_salt.store(SALT_OF_OTHER_LENGTH, Ordering::Relaxed);
        }
    }

    fn knows_salt(&self) -> bool {
        self.pss_salt.load(Ordering::Relaxed) == SALT_AS_LONG_AS_DIGEST
    }

    fn pss_salt_is(&self, salted: Option<Hash>, length: u8) {
        if salted.is_some() {
            self.pss_salt.store(length, Ordering::Relaxed);
        }
    }
}

/// Returns the hash whose length the TPM expects for a digest. A key without a fixed scheme uses a
/// hash that is at least as long as the order of the curve. If the TPM has no such hash, the key
/// uses the longest hash.
pub(super) fn ecdsa_hash(area: Option<&PublicArea>, curve: Curve, told: &KnownAlgorithms) -> Hash {
    match (area.map(|area| area.scheme), curve) {
        (Some(KeyScheme::Fixed(fixed)), _) => fixed.hash(),
        // Every TPM has SHA-256.
        (_, Curve::P256) => Hash::Sha256,
        (_, Curve::P384 | Curve::P521) => {
            let hashes = told.or_any().hashes();
            let by_width = |hash: &&Hash| hash.width();
            let wide = hashes.iter().filter(|hash| hash.width() >= curve.width());
            let widest = hashes.iter().max_by_key(by_width);
            let chosen = wide.min_by_key(by_width).or(widest);
            chosen.copied().unwrap_or(Hash::Sha256)
        }
    }
}

fn of_width(digest: &[u8], hash: Hash) -> Result<Vec<u8>, SignError> {
    match digest.len() == hash.width() {
        true => Ok(digest.to_vec()),
        false => Err(SignError::DigestLength(digest.len())),
    }
}

/// Converts a digest to `hash` bytes that stand for the same number in ECDSA. ECDSA uses only the
/// left `order` bytes of a longer digest, and all bytes of a shorter digest (FIPS 186-5, section
/// 6.4.1).
///
/// - If `hash` is at least `order`, the number stands left, followed by zeros.
/// - If `hash` is less than `order`, the number stands right, after zeros. A digest longer than
///   `hash` is refused.
pub(super) fn fit(digest: &[u8], hash: usize, order: usize) -> Option<Vec<u8>> {
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
