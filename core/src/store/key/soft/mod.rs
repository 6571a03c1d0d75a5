//! Private keys that the module uses in memory. Their files are not encrypted, or encrypted under
//! keys that the TPM has sealed.
//!
//! A sealed key is useless on another device. The TPM does not protect the key from an attacker who
//! controls this device while the key is decrypted.

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

/// A private key that the module uses in memory.
pub(in crate::store) struct SoftKey {
    public: PublicKey,
    source: SoftKeyForm,
    /// The decrypted key after its first use, if the key needs no login. For a key on a curve this
    /// is the scalar, for an RSA key the PrivateKeyInfo.
    opened: UnlockedKey,
}

/// The form in which the private key is stored.
enum SoftKeyForm {
    Sealed {
        seal: WrappedKey,
        encrypted: Vec<u8>,
    },
    Clear(PrivateKeyInfo),
}

/// Signs a digest by an unencrypted key. An ECDSA signature is r ‖ s.
#[cfg(feature = "evidence")]
pub(crate) fn sign_in_clear(
    private: &PrivateKeyInfo,
    scheme: SignatureScheme,
    digest: &[u8],
) -> Result<Vec<u8>, SignError> {
    let damaged =
        || SignError::Refused("the numbers of the private key do not belong together".into());
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
    /// Creates the value from the content of a file.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the key cannot be used in memory.
    pub(super) fn of(public: &PublicKey, material: &KeyMaterial) -> Result<Self, &'static str> {
        let is_rsa = matches!(public, PublicKey::Rsa { .. });
        if is_rsa && !cfg!(feature = "soft-rsa") {
            return Err("this build uses RSA keys only in the TPM (feature soft-rsa is off)");
        }
        let source = match material {
            KeyMaterial::Wrapped(_) => return Err("only the TPM can use it"),
            KeyMaterial::Sealed { seal, encrypted } => SoftKeyForm::Sealed {
                seal: seal
                    .wrapped()
                    .map_err(|_| "the parent of its seal is not supported")?,
                encrypted: encrypted.clone(),
            },
            KeyMaterial::Clear(key) if is_rsa && rsa::usable(key).is_none() => {
                return Err("the numbers of this RSA key do not belong together");
            }
            KeyMaterial::Clear(key) => SoftKeyForm::Clear(key.clone()),
        };
        Ok(Self {
            public: public.clone(),
            source,
            opened: UnlockedKey::default(),
        })
    }

    /// Generates a private key.
    ///
    /// # Errors
    ///
    /// Fails with [`TpmError::Unsupported`] if the system gives no random bytes, or if this build
    /// lacks the algorithm.
    pub(in crate::store) fn generate(algorithm: KeyAlgorithm) -> Result<PrivateKeyInfo, TpmError> {
        match algorithm {
            KeyAlgorithm::Ec(curve) => ec::generate(curve),
            KeyAlgorithm::Rsa(bits) => rsa::generate(bits),
        }
    }

    /// Seals a private key. The callback `seal` lets the TPM seal the encrypting key.
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

    /// Returns true if the TPM has sealed the key.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.source, SoftKeyForm::Sealed { .. })
    }

    /// Returns the seal of the key. Returns `None` for an unencrypted key.
    pub(super) fn seal(&self) -> Option<&WrappedKey> {
        match &self.source {
            SoftKeyForm::Sealed { seal, .. } => Some(seal),
            SoftKeyForm::Clear(_) => None,
        }
    }

    /// Returns the content of the key's file. `has_value` is true if the seal has an authorisation
    /// value.
    pub(super) fn material(&self, has_value: bool) -> KeyMaterial {
        match &self.source {
            SoftKeyForm::Clear(private) => KeyMaterial::Clear(private.clone()),
            SoftKeyForm::Sealed { seal, encrypted } => KeyMaterial::Sealed {
                seal: Tss2Key::of(Tss2Kind::Sealed, seal, has_value),
                encrypted: encrypted.clone(),
            },
        }
    }

    /// Returns the hashes whose digests the key can sign.
    pub(super) fn hashes(&self) -> &'static [Hash] {
        match self.public {
            PublicKey::Ec { .. } => &Hash::ALL,
            PublicKey::Rsa { .. } => rsa::HASHES,
        }
    }

    /// Returns true if the key can decrypt this padding.
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

    /// Returns the x coordinate of the shared point (SEC 1, section 3.3.1).
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

    /// Checks that the key can be decrypted.
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
        // This check detects a file that combines parts of two keys.
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
        SignError::Refused(
            "its file holds a private key that does not belong to its public key".into(),
        )
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
