//! Decodes values that may be BER, and defines the errors for values that cannot be read.

use crate::ber;
use x509_cert::der::Decode;

/// The error for an ASN.1 value that cannot be read. The text describes the value, or is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub(super) String);

/// The reason why bytes are not a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCertificate(pub(super) String);

/// Decodes an ASN.1 value in DER, or in BER with the same meaning.
pub(super) fn decoded<T: for<'b> Decode<'b>>(bytes: &[u8]) -> Result<T, Unreadable> {
    let strict = T::from_der(bytes).ok();
    strict
        .or_else(|| T::from_der(&ber::as_der(bytes)?).ok())
        .ok_or_else(Unreadable::nothing)
}

impl Unreadable {
    pub(super) fn nothing() -> Self {
        Self(String::new())
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_str() {
            "" => f.write_str("cannot be read"),
            what => write!(f, "cannot be read: {what}"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl std::fmt::Display for NoCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoCertificate {}
