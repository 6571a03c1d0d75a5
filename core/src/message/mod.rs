//! Signed messages that other programs verify: CMS (RFC 5652), JWS (RFC 7515), and plain
//! signatures.

mod cms;
mod jws;

use crate::key::PublicKey;
use crate::tpm::{Hash, SignatureScheme};
use crate::x509::algorithms::ecdsa_to_der;
use crate::x509::{Certificate, IssueError};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5911::ID_DATA;

/// The format of a signed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageForm {
    /// A CMS SignedData in DER (RFC 5652, section 5), with the certificates of the signer.
    Cms {
        /// The type of the content, for example id-ct-animaJSONVoucher (RFC 8995, section 3).
        content_type: ObjectIdentifier,
        /// True if the CMS message omits the signed content.
        detached: bool,
    },
    /// A JWS in the general JSON serialisation (RFC 7515, section 7.2.1), with `x5c`.
    Jws {
        /// The header parameter `typ` (RFC 7515, section 4.1.9).
        typ: Option<String>,
        /// True if the JWS omits the signed content (RFC 7515, appendix F).
        detached: bool,
    },
    /// A signature without content and certificates: an ECDSA-Sig-Value (RFC 3279, section 2.2.3),
    /// or an RSA signature with the length of the modulus.
    Raw {
        /// The hash of the content. `None`: the hash that matches the strength of the key.
        hash: Option<Hash>,
    },
}

impl MessageForm {
    /// Returns the CMS form. `content_type` is an object identifier in dotted notation. The default
    /// type is id-data.
    ///
    /// # Errors
    ///
    /// Fails if the text is not an object identifier.
    pub fn cms(content_type: Option<&str>, detached: bool) -> Result<Self, String> {
        let content_type = match content_type {
            None => ID_DATA,
            Some(text) => ObjectIdentifier::new(text).map_err(|_| {
                format!(
                    "{text}: this is not an object identifier; an example is {ID_DATA} (id-data)"
                )
            })?,
        };
        Ok(Self::Cms {
            content_type,
            detached,
        })
    }

    /// Returns true if the message contains the certificates of the signer.
    pub fn has_certificates(&self) -> bool {
        !matches!(self, Self::Raw { .. })
    }
}

/// A function that signs a whole message. For ECDSA, returns r ‖ s, each with the length of the
/// curve's order. For RSA, returns a signature with the length of the modulus.
type SignMessage<'a, E> = dyn Fn(&[u8]) -> Result<Vec<u8>, E> + 'a;

/// A key that signs messages, and its certificates.
pub(crate) struct MessageSigner<'a, E> {
    pub(crate) public: &'a PublicKey,
    pub(crate) scheme: SignatureScheme,
    /// The certificate of the key, then the certificates of its issuers. Empty for
    /// [`MessageForm::Raw`].
    pub(crate) chain: &'a [Certificate],
    pub(crate) sign: &'a SignMessage<'a, E>,
}

impl<E: From<IssueError>> MessageSigner<'_, E> {
    /// Creates a signed message of `content` in the format `form`.
    ///
    /// # Errors
    ///
    /// Fails with the error of `sign`, or with [`IssueError`] if the form does not support the
    /// key's algorithm.
    pub(crate) fn message(&self, content: &[u8], form: &MessageForm) -> Result<Vec<u8>, E> {
        match form {
            MessageForm::Cms {
                content_type,
                detached,
            } => cms::signed_data(self, content, *content_type, *detached),
            MessageForm::Jws { typ, detached } => {
                jws::general_json(self, content, typ.as_deref(), *detached)
            }
            MessageForm::Raw { .. } => self.signature_der(content),
        }
    }

    /// Signs the message. Returns the signature in the encoding of X.509 and CMS.
    fn signature_der(&self, message: &[u8]) -> Result<Vec<u8>, E> {
        let signature = (self.sign)(message)?;
        match self.public {
            PublicKey::Ec { curve, .. } => {
                Ok(ecdsa_to_der(*curve, &signature).ok_or_else(|| {
                    IssueError::Failed("the signature is not one of this curve".into())
                })?)
            }
            PublicKey::Rsa { .. } => Ok(signature),
        }
    }

    /// Returns the certificate of the signing key.
    fn certificate(&self) -> Result<&Certificate, IssueError> {
        let none = || IssueError::Failed("the key has no certificate".into());
        self.chain.first().ok_or_else(none)
    }
}
