//! A device identity for TLS clients: a certificate chain, and a key that signs handshakes.

use super::IdentityError;
use super::device::Device;
use super::entry::TokenEntry;
use super::key_file::read_key;
use crate::key::PublicKey;
use crate::signature::SignRequest;
use crate::store::Key;
use crate::system::random;
use crate::tpm::{Hash, Secret, SignatureScheme, Tpm};
use crate::x509::Certificate;
use crate::x509::algorithms::ecdsa_to_der;
use std::sync::Arc;

/// A certificate chain and a key for TLS handshakes.
#[derive(Debug)]
pub struct TlsIdentity {
    tpm: Arc<Tpm>,
    key: Arc<Key>,
    label: String,
    chain: Vec<Certificate>,
}

impl Device {
    /// Returns the identity of an entry, with its key loaded. An RSA key signs once. This tells
    /// whether its PSS signatures have the salt length that TLS requires.
    ///
    /// # Errors
    ///
    /// Fails if the certificate or the key is missing, or if the key is an attestation key.
    pub fn tls_identity(
        &self,
        entry: &TokenEntry,
        pin: Option<&Secret>,
    ) -> Result<TlsIdentity, IdentityError> {
        self.identity_with(entry, &self.chain(entry)?, pin)
    }

    /// Returns a TLS identity for the key of a token entry, with certificates that the token does
    /// not have yet.
    pub(super) fn new_identity(
        &self,
        entry: &TokenEntry,
        chain: &[Certificate],
    ) -> Result<TlsIdentity, IdentityError> {
        self.identity_with(entry, chain, None)
    }

    fn identity_with(
        &self,
        entry: &TokenEntry,
        chain: &[Certificate],
        pin: Option<&Secret>,
    ) -> Result<TlsIdentity, IdentityError> {
        let key = match &entry.software {
            Some(path) => Arc::new(read_key(path).map_err(|unread| unread.fault(path))?),
            None => self.signing_key(entry, pin)?,
        };
        key.prepare(&self.tpm)?;
        if !key.is_signing() {
            return Err(IdentityError::refused(format!(
                "{}: this key signs only data that the TPM itself created, so it cannot \
                 authenticate a TLS session",
                entry.label
            )));
        }
        // The root certificate is omitted, because the server must already have it.
        let is_root = |one: &Certificate| one.subject_der() == one.issuer_der();
        let (leaf, above) = chain.split_at(1);
        let shown = leaf.iter().chain(above.iter().filter(|one| !is_root(one)));
        let identity = TlsIdentity {
            tpm: Arc::clone(&self.tpm),
            label: entry.label.clone(),
            chain: shown.cloned().collect(),
            key,
        };
        let pss = SignatureScheme::Rsapss(Hash::Sha256);
        if matches!(identity.public(), PublicKey::Rsa { .. }) && identity.signs(pss) {
            let mut fresh = [0; 32];
            random(&mut fresh).map_err(|error| IdentityError::failed(error.to_string()))?;
            // The key remembers whether its PSS salt has the length of the digest, so the signature
            // is discarded.
            let _ = identity.sign(pss, &fresh);
        }
        Ok(identity)
    }
}

impl TlsIdentity {
    /// Returns the label of the key.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the certificate, then the CA certificates above it. The root certificate is omitted.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// Returns the public key of the TLS identity.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Returns true if the key supports the signature scheme.
    pub fn signs(&self, scheme: SignatureScheme) -> bool {
        self.key.signs(scheme)
    }

    /// Signs a message for a TLS handshake. An ECDSA signature is in DER.
    ///
    /// # Errors
    ///
    /// Fails if the TPM makes no signature.
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let digest = scheme.hash().digest(&[message]);
        let signature = self.key.sign(&self.tpm, SignRequest::of(scheme, &digest))?;
        match self.public() {
            PublicKey::Ec { curve, .. } => ecdsa_to_der(*curve, &signature)
                .ok_or_else(|| IdentityError::failed("the signature is not one of this curve")),
            PublicKey::Rsa { .. } => Ok(signature),
        }
    }
}
