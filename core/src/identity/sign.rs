//! Signed messages for other parties.

use super::device::Device;
use super::entry::TokenEntry;
use super::keys::refuse_secret_key;
use super::signer::Signer;
use super::{IdentityError, IdentityErrorKind};
use crate::message::{MessageForm, MessageSigner};
use crate::signature::{SignRequest, verify};
use crate::tpm::{AttestationKey, Hash, Secret, SignatureScheme, TPM_GENERATED};
use crate::x509::Certificate;
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
        if entry.attests && entry.key.is_none() {
            let before = self.tpm.trace_with_sequences()?;
            let signed = self.signed_by_ticket(entry, content, form, &chain);
            self.tpm.sweep(&before);
            return signed;
        }
        let key = self.signing_key(entry, pin)?;
        let scheme = Signer(&self.tpm, &key).scheme()?;
        let scheme = match form {
            MessageForm::Raw { hash: Some(hash) } => by_hash(scheme, *hash),
            _ => scheme,
        };
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

    /// The same by the factory's attestation key, which signs only what the TPM hashes for it, and nothing
    /// that could be taken for a statement of the TPM.
    fn signed_by_ticket(
        &self,
        entry: &TokenEntry,
        content: &[u8],
        form: &MessageForm,
        chain: &[Certificate],
    ) -> Result<SignedMessage, IdentityError> {
        let label = &entry.label;
        let public = entry.public.as_ref();
        let found = AttestationKey::of_factory(self, &self.inventory(), public)?;
        let (public, (key, _)) = public.zip(found).ok_or_else(|| {
            IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{label}: this device has no key for it"),
            )
        })?;
        let scheme = key.scheme().ok_or_else(|| {
            IdentityError::failed(format!("{label}: the key has no scheme of its own"))
        })?;
        if let MessageForm::Raw { hash: Some(hash) } = form
            && *hash != scheme.hash()
        {
            return Err(IdentityError::refused(format!(
                "{label} is an attestation key, which signs by {scheme} alone, and not by {hash}"
            )));
        }
        let _try = key.lock_try(&self.tpm)?;
        let sign = |message: &[u8]| -> Result<Vec<u8>, IdentityError> {
            refuse_statement(label, message)?;
            let signature = self.tpm.sign_hashed(&key, scheme, message)?;
            let signature = signature.ok_or_else(|| {
                IdentityError::refused(format!(
                    "{label}: the TPM gives no ticket for these data, so its attestation key does not sign \
                     them"
                ))
            })?;
            let whole = signature.fixed(public.signature_width())?;
            let digest = scheme.hash().digest(&[message]);
            match verify(public, SignRequest::of(scheme, &digest), &whole) {
                true => Ok(whole),
                false => Err(IdentityError::failed(format!(
                    "{label}: the TPM gave a signature that its public key does not verify"
                ))),
            }
        };
        let signer = MessageSigner {
            public,
            scheme,
            chain,
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
            (SignatureScheme::Rsapss(_), _) | (_, None) => scheme,
            (_, Some(hash)) => by_hash(scheme, hash),
        };
        let digest = scheme.hash().digest(&[bytes]);
        let signature = key.sign(&self.tpm, SignRequest::of(scheme, &digest))?;
        Ok((scheme, signature))
    }
}

/// The scheme with another hash.
fn by_hash(scheme: SignatureScheme, hash: Hash) -> SignatureScheme {
    match scheme {
        SignatureScheme::Ecdsa(_) => SignatureScheme::Ecdsa(hash),
        SignatureScheme::Rsassa(_) => SignatureScheme::Rsassa(hash),
        SignatureScheme::Rsapss(_) => SignatureScheme::Rsapss(hash),
    }
}

/// An attestation key signs nothing that begins as the TPM's own statements do, nothing that is shorter
/// than such a beginning, and nothing that would keep the TPM busy for long.
fn refuse_statement(label: &str, message: &[u8]) -> Result<(), IdentityError> {
    /// Each piece of 1024 bytes is a command.
    const LONGEST: usize = 1 << 20;
    let why = match message.len() {
        _ if message.starts_with(&TPM_GENERATED.to_be_bytes()) => {
            "the data begin with FF 54 43 47 (TPM_GENERATED_VALUE), as statements of the TPM do, and must \
             not be taken for one"
        }
        0..=3 => "the TPM gives no ticket for fewer than 4 bytes",
        4..=LONGEST => return Ok(()),
        _ => {
            "these are over 1 MiB, and the TPM would hash them piece by piece; --cms signs a digest of \
             them in its place"
        }
    };
    Err(IdentityError::refused(format!(
        "{label} is an attestation key, which signs only what the TPM hashes for it: {why}"
    )))
}
