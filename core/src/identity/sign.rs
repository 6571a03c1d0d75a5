//! Signed messages for other parties.

use super::IdentityError;
use super::device::Device;
use super::entry::TokenEntry;
use super::keys::refuse_secret_key;
use super::signer::Signer;
use crate::message::{MessageForm, MessageSigner};
use crate::signature::SignRequest;
#[cfg(feature = "evidence")]
use crate::tpm::Hash;
use crate::tpm::{Secret, SignatureScheme};
use base64ct::{Base64, Encoding};

/// A signed message, with its algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// The message in its format.
    pub bytes: Vec<u8>,
    /// The signature scheme.
    pub scheme: SignatureScheme,
}

impl SignedMessage {
    /// The message in base64 (RFC 4648, section 4).
    pub fn base64(&self) -> String {
        Base64::encode_string(&self.bytes)
    }
}

impl Device {
    /// Signs a content in a format that other programs verify. The certificates of the key and of
    /// its issuers are included if the format permits. The PIN is tried only if the configuration
    /// has none; the TPM counts a wrong PIN.
    ///
    /// # Errors
    ///
    /// The private key is missing or does not sign, its certificate is missing, or the format has
    /// no name for its algorithm.
    pub fn sign_message(
        &self,
        entry: &TokenEntry,
        content: &[u8],
        form: &MessageForm,
        pin: Option<&Secret>,
    ) -> Result<SignedMessage, IdentityError> {
        refuse_secret_key(entry, "a secret key signs no message for others")?;
        let chain = match form.has_certificates() {
            true => self.chain(entry)?,
            false => Vec::new(),
        };
        let key = self.signing_key(entry, pin)?;
        let signer = Signer(&self.tpm, &key);
        let scheme = signer.scheme()?;
        let sign = |message: &[u8]| -> Result<Vec<u8>, IdentityError> {
            let digest = scheme.hash().digest(&[message]);
            Ok(key.sign(&self.tpm, SignRequest::of(scheme, &digest))?)
        };
        let signer = MessageSigner {
            public: key.public(),
            scheme,
            chain: &chain,
            sign: &sign,
        };
        let bytes = signer.message(content, form)?;
        Ok(SignedMessage { bytes, scheme })
    }

    /// Signs bytes; returns the scheme and the signature: r ‖ s, or a number as wide as the
    /// modulus. The default hash matches the strength of the key.
    ///
    /// # Errors
    ///
    /// Those of [`Self::sign_message`].
    #[cfg(feature = "evidence")]
    pub(crate) fn plain_signature(
        &self,
        entry: &TokenEntry,
        bytes: &[u8],
        hash: Option<Hash>,
        pin: Option<&Secret>,
    ) -> Result<(SignatureScheme, Vec<u8>), IdentityError> {
        let key = self.signing_key(entry, pin)?;
        let scheme = Signer(&self.tpm, &key).scheme()?;
        let scheme = match (scheme, hash) {
            (SignatureScheme::Ecdsa(_), Some(hash)) => SignatureScheme::Ecdsa(hash),
            (SignatureScheme::Rsassa(_), Some(hash)) => SignatureScheme::Rsassa(hash),
            (scheme, _) => scheme,
        };
        let digest = scheme.hash().digest(&[bytes]);
        let signature = key.sign(&self.tpm, SignRequest::of(scheme, &digest))?;
        Ok((scheme, signature))
    }
}
