//! Keys that are used in memory. Their files are in clear, or encrypted under keys that the TPM has
//! sealed.
//!
//! A sealed key cannot be used on another device. The TPM does not protect it from an attacker who
//! controls this device while the key is open.

mod ec;
mod envelope;
#[cfg(feature = "soft-rsa")]
mod rsa;
#[cfg(not(feature = "soft-rsa"))]
#[path = "no_rsa.rs"]
mod rsa;

use super::DecryptRequest;
use super::access::Access;
use super::locked_memory::Locked;
use super::login::{OpenedKeyId, UnlockedKey};
use crate::key::{PrivateKeyInfo, PublicKey};
use crate::store::SignError;
use crate::store::folder::{KeyMaterial, Tss2Key, Tss2Kind};
use crate::tpm::{
    Hash, KeyAlgorithm, Secret, SignatureScheme, Tpm, TpmError, WrappedKey, random_secret,
};
use envelope::{decrypted, encrypted};
use std::fmt;
use std::sync::Arc;

/// A private key that is used in memory.
pub(in crate::store) struct SoftKey {
    public: PublicKey,
    source: SoftKeyForm,
    /// The opened key after its first use, if no login is needed. For a key on a curve it is the
    /// scalar, for an RSA key the PrivateKeyInfo.
    opened: UnlockedKey,
}

/// The form of the private key.
enum SoftKeyForm {
    Sealed {
        seal: WrappedKey,
        encrypted: Vec<u8>,
    },
    Clear(PrivateKeyInfo),
}

/// Signs a digest by a key in clear. An ECDSA signature is r ‖ s.
#[cfg(feature = "evidence")]
pub(crate) fn sign_in_clear(
    private: &PrivateKeyInfo,
    scheme: SignatureScheme,
    digest: &[u8],
) -> Result<Vec<u8>, SignError> {
    let damaged = || SignError::Refused("its numbers are inconsistent".into());
    match private.public() {
        PublicKey::Ec { curve, .. } => {
            ec::sign(*curve, &private.scalar().ok_or_else(damaged)?, digest)
        }
        PublicKey::Rsa { .. } => {
            rsa::sign(&rsa::usable(private).ok_or_else(damaged)?, scheme, digest)
        }
    }
}

impl SoftKey {
    /// Creates the key from the content of a file.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be used in memory.
    pub(super) fn of(public: &PublicKey, material: &KeyMaterial) -> Result<Self, &'static str> {
        let is_rsa = matches!(public, PublicKey::Rsa { .. });
        if is_rsa && !cfg!(feature = "soft-rsa") {
            return Err("RSA keys are for the TPM only in this build (feature soft-rsa)");
        }
        let source = match material {
            KeyMaterial::Wrapped(_) => return Err("the TPM alone uses it"),
            KeyMaterial::Sealed { seal, encrypted } => SoftKeyForm::Sealed {
                seal: seal
                    .wrapped()
                    .map_err(|_| "its seal does not belong to this TPM")?,
                encrypted: encrypted.clone(),
            },
            KeyMaterial::Clear(key) if is_rsa && rsa::usable(key).is_none() => {
                return Err("the numbers of this RSA key are inconsistent");
            }
            KeyMaterial::Clear(key) => SoftKeyForm::Clear(key.clone()),
        };
        Ok(Self {
            public: public.clone(),
            source,
            opened: UnlockedKey::default(),
        })
    }

    /// Generates a key.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if random bytes are missing, or if this build lacks the algorithm.
    pub(in crate::store) fn generate(algorithm: KeyAlgorithm) -> Result<PrivateKeyInfo, TpmError> {
        match algorithm {
            KeyAlgorithm::Ec(curve) => ec::generate(curve),
            KeyAlgorithm::Rsa(bits) => rsa::generate(bits),
        }
    }

    /// Seals a key. The callback `seal` has the TPM seal the encrypting key.
    pub(in crate::store) fn sealed<E: From<TpmError>>(
        private: &PrivateKeyInfo,
        seal: impl FnOnce(&Secret) -> Result<WrappedKey, E>,
    ) -> Result<KeyMaterial, E> {
        let key = random_secret(envelope::KEY)?;
        let encrypted = encrypted(private, &key);
        let encrypted = encrypted.ok_or_else(|| TpmError::Unsupported("PBES2".into()))?;
        Ok(KeyMaterial::Sealed {
            seal: Tss2Key::of(Tss2Kind::Sealed, &seal(&key)?, false),
            encrypted,
        })
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// True if the key is sealed by the TPM.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.source, SoftKeyForm::Sealed { .. })
    }

    /// The seal; `None` for a key in clear.
    pub(super) fn seal(&self) -> Option<&WrappedKey> {
        match &self.source {
            SoftKeyForm::Sealed { seal, .. } => Some(seal),
            SoftKeyForm::Clear(_) => None,
        }
    }

    /// The content of its file. `has_value`: the seal has an authorisation value.
    pub(super) fn material(&self, has_value: bool) -> KeyMaterial {
        match &self.source {
            SoftKeyForm::Clear(private) => KeyMaterial::Clear(private.clone()),
            SoftKeyForm::Sealed { seal, encrypted } => KeyMaterial::Sealed {
                seal: Tss2Key::of(Tss2Kind::Sealed, seal, has_value),
                encrypted: encrypted.clone(),
            },
        }
    }

    /// The hashes whose digests it signs.
    pub(super) fn hashes(&self) -> &'static [Hash] {
        match self.public {
            PublicKey::Ec { .. } => &Hash::ALL,
            PublicKey::Rsa { .. } => rsa::HASHES,
        }
    }

    /// True if it can decrypt this padding.
    pub(super) fn opens(&self, request: DecryptRequest) -> bool {
        matches!(self.public, PublicKey::Rsa { .. }) && rsa::opens(request)
    }

    /// Signs a digest. An ECDSA signature is r ‖ s.
    pub(super) fn sign(
        &self,
        tpm: &Tpm,
        access: &Access,
        scheme: SignatureScheme,
        digest: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        let opened = self.open(tpm, access)?;
        match &self.public {
            PublicKey::Ec { curve, .. } => ec::sign(*curve, opened.bytes(), digest),
            PublicKey::Rsa { .. } => rsa::sign(opened.bytes(), scheme, digest),
        }
    }

    /// Decrypts a ciphertext.
    pub(super) fn decrypt(
        &self,
        tpm: &Tpm,
        access: &Access,
        request: DecryptRequest,
        ciphertext: &[u8],
    ) -> Result<Secret, SignError> {
        if !self.opens(request) {
            return Err(SignError::Scheme);
        }
        let opened = self.open(tpm, access)?;
        rsa::decrypt(opened.bytes(), request, ciphertext)
    }

    /// The x coordinate of the shared point (SEC 1, section 3.3.1).
    pub(super) fn agree(
        &self,
        tpm: &Tpm,
        access: &Access,
        point: &[u8],
    ) -> Result<Secret, SignError> {
        let PublicKey::Ec { curve, .. } = &self.public else {
            return Err(SignError::Scheme);
        };
        let opened = self.open(tpm, access)?;
        ec::agree(*curve, opened.bytes(), point)
    }

    /// Checks that the key can be opened.
    pub(super) fn check(&self, tpm: &Tpm, access: &Access) -> Result<(), SignError> {
        self.open(tpm, access).map(drop)
    }

    fn open(&self, tpm: &Tpm, access: &Access) -> Result<Arc<Locked>, SignError> {
        let visit = access.visit()?;
        if let Some(opened) = visit.opened(OpenedKeyId::Private(&self.public), &self.opened) {
            return Ok(opened);
        }
        let private = match &self.source {
            SoftKeyForm::Clear(private) => private.clone(),
            SoftKeyForm::Sealed { seal, encrypted } => {
                let key = tpm.unseal(seal, &visit.value)?;
                let info = decrypted(encrypted, &key).ok_or_else(|| self.damaged())?;
                PrivateKeyInfo::from_der(&info).map_err(|_| self.damaged())?
            }
        };
        // Guards against a file that combines parts of two keys.
        if *private.public() != self.public {
            return Err(self.damaged());
        }
        let usable = match &self.public {
            PublicKey::Ec { .. } => private.scalar(),
            PublicKey::Rsa { .. } => rsa::usable(&private),
        };
        let opened = Arc::new(Locked::new(&usable.ok_or_else(|| self.damaged())?));
        visit.keep(OpenedKeyId::Private(&self.public), &self.opened, &opened);
        Ok(opened)
    }

    fn damaged(&self) -> SignError {
        SignError::Refused("its file holds another private key than it says".into())
    }
}

impl fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftKey({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Curve;

    #[test]
    fn what_was_encrypted_opens_with_its_key_and_no_other() {
        for curve in Curve::ALL {
            let mut scalar = vec![3; curve.width()];
            scalar[0] = 0;
            let private = PrivateKeyInfo::from_scalar(curve, &scalar).unwrap();
            let (right, wrong) = (
                Secret::new(vec![1; envelope::KEY]),
                Secret::new(vec![2; envelope::KEY]),
            );
            let hidden = encrypted(&private, &right).unwrap();
            let opened = |key| decrypted(&hidden, key).map(|info| info.to_vec());
            assert_eq!(opened(&right).as_deref(), Some(private.der()));
            assert_ne!(opened(&wrong).as_deref(), Some(private.der()));
            assert_eq!(private.scalar().as_deref(), Some(&scalar));
        }
    }
}
