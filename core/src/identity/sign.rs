//! Signs messages with keys of the device, in formats that other programs verify.

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

/// A signed message, and the signature scheme that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// The signed message in the requested format.
    pub bytes: Vec<u8>,
    /// The signature scheme.
    pub scheme: SignatureScheme,
}

impl SignedMessage {
    /// Returns the signed message in base64 (RFC 4648, section 4).
    pub fn base64(&self) -> String {
        Base64::encode_string(&self.bytes)
    }
}

impl Device {
    /// Signs content in a format that other programs verify. Includes the certificates of the key
    /// and of its issuers, if the format permits that. The PIN is tried only if the configuration
    /// names none. The TPM counts a wrong PIN.
    ///
    /// # Errors
    ///
    /// Fails if the private key or its certificate is missing, if the key does not sign, or if the
    /// format has no name for the algorithm.
    pub fn sign_message(
        &self,
        entry: &TokenEntry,
        content: &[u8],
        form: &MessageForm,
        pin: Option<&Secret>,
    ) -> Result<SignedMessage, IdentityError> {
        refuse_secret_key(entry, "a secret key cannot sign messages for other parties")?;
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

    /// Signs content with the factory's attestation key (IAK). This key signs only data that the
    /// TPM hashed itself. It signs no data that a verifier could take for a statement of the TPM.
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
                format!("{label}: this device does not have the private key"),
            )
        })?;
        let scheme = key.scheme().ok_or_else(|| {
            IdentityError::failed(format!("{label}: the key has no fixed scheme"))
        })?;
        if let MessageForm::Raw { hash: Some(hash) } = form
            && *hash != scheme.hash()
        {
            return Err(IdentityError::refused(format!(
                "{label} is an attestation key, which signs only by {scheme}, not by {hash}"
            )));
        }
        let _try = key.lock_try(&self.tpm)?;
        let sign = |message: &[u8]| -> Result<Vec<u8>, IdentityError> {
            refuse_statement(label, message)?;
            let signature = self.tpm.sign_hashed(&key, scheme, message)?;
            let signature = signature.ok_or_else(|| {
                IdentityError::refused(format!(
                    "{label}: the TPM returns no ticket for these data, so its attestation key \
                     cannot sign them"
                ))
            })?;
            let whole = signature.fixed(public.signature_width())?;
            let digest = scheme.hash().digest(&[message]);
            match verify(public, SignRequest::of(scheme, &digest), &whole) {
                true => Ok(whole),
                false => Err(IdentityError::failed(format!(
                    "{label}: the signature of the TPM cannot be verified with the public key"
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

    /// Signs bytes. Returns the scheme and the signature. An ECDSA signature is r ‖ s. An RSA
    /// signature has the length of the modulus. The strength of the default hash matches the key.
    ///
    /// # Errors
    ///
    /// Fails for the reasons of [`Self::sign_message`].
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

/// Returns the signature scheme with the hash `hash` instead of its own hash.
fn by_hash(scheme: SignatureScheme, hash: Hash) -> SignatureScheme {
    match scheme {
        SignatureScheme::Ecdsa(_) => SignatureScheme::Ecdsa(hash),
        SignatureScheme::Rsassa(_) => SignatureScheme::Rsassa(hash),
        SignatureScheme::Rsapss(_) => SignatureScheme::Rsapss(hash),
    }
}

/// Fails for data that an attestation key must not sign: data that begin like a statement of the
/// TPM, data shorter than such a beginning, and data that would keep the TPM busy for long.
fn refuse_statement(label: &str, message: &[u8]) -> Result<(), IdentityError> {
    /// The largest size of the data in bytes. The TPM needs a command for each piece of 1024 bytes.
    const LONGEST: usize = 1 << 20;
    let why = match message.len() {
        _ if message.starts_with(&TPM_GENERATED.to_be_bytes()) => {
            "the data begin with FF 54 43 47 (TPM_GENERATED_VALUE) like statements of the TPM, so \
             a verifier could take them for such a statement"
        }
        0..=3 => "the TPM returns no ticket for fewer than 4 bytes",
        4..=LONGEST => return Ok(()),
        _ => {
            "the data are longer than 1 MiB, and the TPM would have to hash them in small pieces; \
             --cms signs a digest of the data instead"
        }
    };
    Err(IdentityError::refused(format!(
        "{label} is an attestation key, which signs only data that the TPM hashed itself: {why}"
    )))
}
