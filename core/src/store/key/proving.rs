//! Proves that the TPM has the private key of a new key pair. The key signs random bytes. A key
//! that cannot sign decrypts random bytes, or agrees on a secret.

use super::{DecryptRequest, Key};
use crate::key::{Curve, PrivateKeyInfo, PublicKey};
use crate::signature::{SignRequest, verify};
use crate::store::{SignError, encrypt};
use crate::tpm::{Hash, SignatureScheme, Tpm, TpmError, random_scalar, random_secret};

/// The number of random bytes for a proof.
const FRESH: usize = 32;

impl Key {
    /// Lets the TPM use the key, and checks the result with the public key. Costs as many commands
    /// as one use of the key.
    ///
    /// # Errors
    ///
    /// Fails with [`TpmError::Unproven`] if another key gave the result.
    pub(in crate::store) fn prove_itself(&self, tpm: &Tpm) -> Result<(), SignError> {
        let is_proven = match self.public() {
            _ if self.is_signing() => self.proves_by_signature(tpm)?,
            PublicKey::Rsa { .. } => self.proves_by_decryption(tpm)?,
            PublicKey::Ec { curve, .. } => self.proves_by_agreement(tpm, *curve)?,
        };
        match is_proven {
            true => Ok(()),
            false => Err(TpmError::Unproven(
                "the result comes from another key than the new key: an attacker between this \
                 program and the TPM presents a key of his own, or the TPM is defective"
                    .into(),
            )
            .into()),
        }
    }

    fn proves_by_signature(&self, tpm: &Tpm) -> Result<bool, SignError> {
        let scheme = match self.public() {
            PublicKey::Ec { .. } => SignatureScheme::Ecdsa(Hash::Sha256),
            PublicKey::Rsa { .. } => SignatureScheme::Rsassa(Hash::Sha256),
        };
        let digest = random_secret(scheme.hash().width())?;
        let request = SignRequest::of(scheme, &digest);
        let signature = self.sign(tpm, request)?;
        Ok(verify(self.public(), request, &signature))
    }

    fn proves_by_decryption(&self, tpm: &Tpm) -> Result<bool, SignError> {
        let request = DecryptRequest::Oaep {
            hash: Hash::Sha256,
            mgf: Hash::Sha256,
            label: &[],
        };
        let message = random_secret(FRESH)?;
        let encrypted = encrypt(self.public(), request, &message).ok_or(SignError::Scheme)?;
        match self.decrypt(tpm, request, &encrypted) {
            Ok(plain) => Ok(plain == message),
            Err(SignError::Ciphertext) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn proves_by_agreement(&self, tpm: &Tpm, curve: Curve) -> Result<bool, SignError> {
        let unfit = || SignError::Scheme;
        let other = PrivateKeyInfo::from_scalar(curve, &random_scalar(curve)?).ok_or_else(unfit)?;
        let point = |public: &PublicKey| match public {
            PublicKey::Ec { point, .. } => Ok(point.clone()),
            PublicKey::Rsa { .. } => Err(SignError::Scheme),
        };
        let (ours, theirs) = (point(self.public())?, point(other.public())?);
        let other = Self::in_clear(other).map_err(|_| unfit())?;
        Ok(self.agree(tpm, &theirs)? == other.agree(tpm, &ours)?)
    }
}
