//! Signed messages that other programs verify: CMS (RFC 5652), JWS (RFC 7515), and a signature alone.

mod cms;
mod jws;

use crate::key::PublicKey;
use crate::tpm::{Hash, SignatureScheme};
use crate::x509::algorithms::ecdsa_to_der;
use crate::x509::{Certificate, IssueError};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5911::ID_DATA;

/// What becomes of a content and the signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageForm {
    /// CMS SignedData, DER (RFC 5652, section 5), with the certificates of the signer.
    Cms {
        /// The type of the content, such as id-ct-animaJSONVoucher (RFC 8995, section 3).
        content_type: ObjectIdentifier,
        /// The content is not in the message.
        detached: bool,
    },
    /// JWS in the general JSON serialisation (RFC 7515, section 7.2.1), with `x5c`.
    Jws {
        /// The header parameter `typ` (RFC 7515, section 4.1.9).
        typ: Option<String>,
        /// The content is not in the message (RFC 7515, appendix F).
        detached: bool,
    },
    /// The signature alone: ECDSA-Sig-Value (RFC 3279, section 2.2.3), or a number as wide as the
    /// modulus.
    Raw {
        /// The hash of the content; by default that of the key's own strength.
        hash: Option<Hash>,
    },
}

impl MessageForm {
    /// CMS with a content of this type, as numbers with dots; id-data by default.
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

    /// Whether its readers take the certificates of the signer from it.
    pub fn has_certificates(&self) -> bool {
        !matches!(self, Self::Raw { .. })
    }
}

/// Signs a whole message: r ‖ s, each as wide as the curve's order, or a number as wide as the
/// modulus.
type SignMessage<'a, E> = dyn Fn(&[u8]) -> Result<Vec<u8>, E> + 'a;

/// A key as messages are signed by it.
pub(crate) struct MessageSigner<'a, E> {
    pub(crate) public: &'a PublicKey,
    pub(crate) scheme: SignatureScheme,
    /// The certificate of the key, then those of its issuers; empty for [`MessageForm::Raw`].
    pub(crate) chain: &'a [Certificate],
    pub(crate) sign: &'a SignMessage<'a, E>,
}

impl<E: From<IssueError>> MessageSigner<'_, E> {
    /// The message of this form.
    ///
    /// # Errors
    ///
    /// The signer's own, or [`IssueError`] where the form has no name for the key's algorithm.
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

    /// A signature as X.509 and CMS hold it.
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
