//! Token entries as users see them. An entry is a key with its certificates, or a certificate
//! without key.

use crate::audit::AuditSubject;
pub use crate::config::{FACTORY, OWN};
use crate::key::{PublicKey, hex};
use crate::store::folder::KeyOrigin;
use crate::store::{Key, SecretKey};
use crate::x509::Certificate;
use std::path::PathBuf;
use std::sync::Arc;

/// The name under which `devid` lists a software identity, as if it were a token.
pub const SOFTWARE: &str = "software";
/// The label of an identity that another program made (`[provision] existing`), if its key and
/// certificate are in files.
pub const EXISTING: &str = "existing";

/// A key with its certificates, or a certificate without key.
#[derive(Debug, Clone)]
pub struct TokenEntry {
    /// The name of the token in the configuration.
    pub token: String,
    /// The label of the token, which the security officer may have changed.
    pub token_label: String,
    /// The label of the key or certificate.
    pub label: String,
    /// The name of the entry's file in the key folder, without `.pem`. Empty if the entry has no
    /// file.
    pub file: String,
    /// The CKA_ID, which connects the key and its certificates.
    pub id: Vec<u8>,
    /// The private key, if a token of the device has it.
    pub key: Option<Arc<Key>>,
    /// The secret key, if the entry is a secret key.
    pub secret: Option<Arc<SecretKey>>,
    /// The file of the private key, if the entry is a software identity.
    pub software: Option<PathBuf>,
    /// The public key, if this project supports its type.
    pub public: Option<PublicKey>,
    /// Tells whether the key was generated or imported.
    pub origin: KeyOrigin,
    /// The certificates of the key. Valid certificates come first, and newer ones before older
    /// ones.
    pub certificates: Vec<CertificateEntry>,
    /// True if the key is an attestation key, which signs only data that the TPM created.
    pub attests: bool,
    /// True for the identity `devid`, which applications cannot destroy.
    pub protected: bool,
}

/// A certificate, with the place where it is stored.
#[derive(Debug, Clone)]
pub struct CertificateEntry {
    /// The certificate.
    pub certificate: Certificate,
    /// The CKA_LABEL of the certificate, which may differ from the label of its key.
    pub label: String,
    /// The CKA_ID of the certificate.
    pub id: Vec<u8>,
    /// Where the certificate is stored: an NV index or a file.
    pub place: String,
    /// The name of the certificate's file in the key folder, without `.pem`. Empty if the
    /// certificate has no file.
    pub file: String,
}

impl TokenEntry {
    /// Returns true if a token has the private or secret key of the entry.
    pub fn has_key(&self) -> bool {
        self.key.is_some() || self.secret.is_some()
    }

    /// Returns the token and the label of the entry, for the audit log.
    pub fn audit_subject(&self) -> AuditSubject {
        let key = self.key.as_deref();
        let public = self.public.as_ref();
        AuditSubject {
            token: Some(self.token_label.clone()),
            label: Some(self.label.clone()),
            key_name: key.and_then(Key::name).map(hex),
            key_id: public.map(|public| hex(public.id().as_bytes())),
        }
    }

    /// Returns the preferred certificate of the entry, which is the first.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificates.first().map(|placed| &placed.certificate)
    }
}

/// Adds a certificate to the entry of its key. If there is no such entry, adds a new entry.
pub(super) fn add_certificate(
    placed: CertificateEntry,
    token: (&str, &str),
    all: &mut Vec<TokenEntry>,
) {
    let public = placed.certificate.public_key();
    let owner = all
        .iter_mut()
        .find(|one| one.key.is_some() && one.public == public && public.is_some());
    match owner {
        Some(owner) => owner.certificates.push(placed),
        None => all.push(TokenEntry {
            token: token.0.to_owned(),
            token_label: token.1.to_owned(),
            label: placed.label.clone(),
            file: String::new(),
            id: placed.id.clone(),
            key: None,
            secret: None,
            software: None,
            public,
            origin: KeyOrigin::Unknown,
            certificates: vec![placed],
            attests: false,
            protected: false,
        }),
    }
}

pub(super) fn ca_label(label: &str, number: usize) -> String {
    format!("{label}-ca-{number}")
}

/// Returns true if [`ca_label`] made `label` for the key `name`. Early versions wrote no number.
pub(super) fn is_ca_label_of(name: &str, label: &str) -> bool {
    let rest = name
        .strip_prefix(label)
        .and_then(|rest| rest.strip_prefix("-ca"));
    rest.is_some_and(|rest| {
        let number = rest.strip_prefix('-');
        rest.is_empty() || number.is_some_and(|number| number.parse::<usize>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_whose_they_are() {
        for (name, is) in [
            ("web-ca", true),
            ("web-ca-12", true),
            ("web-ca-x", false),
            ("web-cable", false),
            ("web", false),
            ("other-ca-1", false),
        ] {
            assert_eq!(is_ca_label_of(name, "web"), is, "{name}");
        }
    }
}
