//! Signed messages that other programs verify: CMS (RFC 5652), JWS (RFC 7515), and a signature alone.

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
    /// CMS SignedData, DER (RFC 5652, section 5), with the certificates of the signer.
    Cms {
        /// The type of the content, such as id-ct-animaJSONVoucher (RFC 8995, section 3).
        content_type: ObjectIdentifier,
        /// True if the message omits the content.
        detached: bool,
    },
    /// JWS in the general JSON serialisation (RFC 7515, section 7.2.1), with `x5c`.
    Jws {
        /// The header parameter `typ` (RFC 7515, section 4.1.9).
        typ: Option<String>,
        /// True if the message omits the content (RFC 7515, appendix F).
        detached: bool,
    },
    /// Only the signature: ECDSA-Sig-Value (RFC 3279, section 2.2.3), or a number as wide as the
    /// modulus.
    Raw {
        /// The hash of the content; by default that of the key's own strength.
        hash: Option<Hash>,
    },
}

impl MessageForm {
    /// CMS with this content type in dotted notation; id-data by default.
    ///
    /// # Errors
    ///
    /// The text is no object identifier.
    pub fn cms(content_type: Option<&str>, detached: bool) -> Result<Self, String> {
        let content_type = match content_type {
            None => ID_DATA,
            Some(text) => ObjectIdentifier::new(text).map_err(|_| {
                format!("{text}: no object identifier; expected for example {ID_DATA} (id-data)")
            })?,
        };
        Ok(Self::Cms {
            content_type,
            detached,
        })
    }

    /// True if the message contains the certificates of the signer.
    pub fn has_certificates(&self) -> bool {
        !matches!(self, Self::Raw { .. })
    }
}

/// Signs a whole message. Returns r ‖ s, each as wide as the order of the curve, or a number as
/// wide as the modulus.
type SignMessage<'a, E> = dyn Fn(&[u8]) -> Result<Vec<u8>, E> + 'a;

/// A key that signs messages.
pub(crate) struct MessageSigner<'a, E> {
    pub(crate) public: &'a PublicKey,
    pub(crate) scheme: SignatureScheme,
    /// The certificate of the key, then those of its issuers; empty for [`MessageForm::Raw`].
    pub(crate) chain: &'a [Certificate],
    pub(crate) sign: &'a SignMessage<'a, E>,
}

impl<E: From<IssueError>> MessageSigner<'_, E> {
    /// Makes the message in this format.
    ///
    /// # Errors
    ///
    /// Those of the signer, or [`IssueError`] if the format does not support the key's algorithm.
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

    /// A signature in the encoding of X.509 and CMS.
    fn signature_der(&self, message: &[u8]) -> Result<Vec<u8>, E> {
        let signature = (self.sign)(message)?;
        match self.public {
            PublicKey::Ec { curve, .. } => Ok(ecdsa_to_der(*curve, &signature)
                .ok_or_else(|| IssueError::Failed("no signature of this curve".into()))?),
            PublicKey::Rsa { .. } => Ok(signature),
        }
    }

    /// The certificate of the key.
    fn certificate(&self) -> Result<&Certificate, IssueError> {
        let none = || IssueError::Failed("there is no certificate for the key".into());
        self.chain.first().ok_or_else(none)
    }
}
