//! Entries of tokens for users: a key with its certificates, or a certificate without key.

use crate::audit::AuditSubject;
pub use crate::config::{FACTORY, OWN};
use crate::key::{PublicKey, hex};
use crate::store::folder::KeyOrigin;
use crate::store::{Key, SecretKey};
use crate::x509::Certificate;
use std::path::PathBuf;
use std::sync::Arc;

/// The name under which `devid` lists a software identity, beside the tokens.
pub const SOFTWARE: &str = "software";
/// The label of an existing identity in files.
pub const EXISTING: &str = "existing";

/// A key with its certificates, or a certificate without key.
#[derive(Debug, Clone)]
pub struct TokenEntry {
    /// The name of its token in the configuration.
    pub token: String,
    /// The label of its token, which the security officer may have changed.
    pub token_label: String,
    /// Its label.
    pub label: String,
    /// The file name in the key folder, without `.pem`; empty if there is no such file.
    pub file: String,
    /// The identifier that links its parts.
    pub id: Vec<u8>,
    /// The private key, if the device has it in its TPM.
    pub key: Option<Arc<Key>>,
    /// The secret key, if it is one.
    pub secret: Option<Arc<SecretKey>>,
    /// The private key's file, if it is a software key.
    pub software: Option<PathBuf>,
    /// The public key, if it is of a known kind.
    pub public: Option<PublicKey>,
    /// The origin of the key.
    pub origin: KeyOrigin,
    /// The certificates for the key: valid ones first, then the newest.
    pub certificates: Vec<CertificateEntry>,
    /// True for an attestation key.
    pub attests: bool,
    /// True for the device's own identity, which applications cannot destroy.
    pub protected: bool,
}

/// A certificate with its location.
#[derive(Debug, Clone)]
pub struct CertificateEntry {
    /// The certificate.
    pub certificate: Certificate,
    /// Its CKA_LABEL, which may differ from the label of its key.
    pub label: String,
    /// Its CKA_ID.
    pub id: Vec<u8>,
    /// NV index or file.
    pub place: String,
    /// The file name in the key folder, without `.pem`; empty if there is no such file.
    pub file: String,
}

impl TokenEntry {
    /// True if a token holds a private or secret key of the entry.
    pub fn has_key(&self) -> bool {
        self.key.is_some() || self.secret.is_some()
    }

    /// The object as an audit line names it.
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

    /// The certificate to show first.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificates.first().map(|placed| &placed.certificate)
    }
}

/// Adds a certificate to the entry of its key, or as a separate entry if there is none.
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

/// True for a label made by [`ca_label`]. Early releases wrote no number.
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
