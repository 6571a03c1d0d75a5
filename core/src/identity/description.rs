//! Describes token entries (keys and certificates) for people and programs.

use super::IdentityError;
use super::device::Device;
use super::entry::TokenEntry;
use crate::key::hex;
use crate::store::folder::KeyOrigin;
use crate::store::{Key, Protection, SecretKey};
use crate::tpm::template_name;
use crate::x509::{Profile, certificates_of_answer};
use serde::Serialize;

/// A description of a [`TokenEntry`], for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct EntryDescription {
    /// The name of the token that shows the entry.
    pub token: String,
    /// The label of the key or certificate.
    pub label: String,
    /// The CKA_ID in hexadecimal digits.
    pub id: String,
    /// The private or secret key, if the entry has a key.
    pub key: Option<KeyDescription>,
    /// True for an attestation key, which signs only data that the TPM itself created.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attests: bool,
    /// The certificates of the token entry.
    pub certificates: Vec<CertificateDescription>,
}

/// A description of a private or secret key.
#[derive(Debug, Clone, Serialize)]
pub struct KeyDescription {
    /// The algorithm: `p256`, `rsa2048`, `aes256`, `generic-secret256`, …
    pub algorithm: String,
    /// Where the key is stored: a handle or a file, as text.
    pub place: String,
    /// The persistent handle of the key, if it has one.
    pub handle: Option<String>,
    /// The TPM name of the key in hexadecimal digits, if it is known.
    pub tpm_name: Option<String>,
    /// How the key came to the token: `generated`, `imported` or `unknown`.
    pub origin: &'static str,
    /// The factory template of the key, if it has a known template.
    pub template: Option<String>,
}

/// A description of a certificate.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateDescription {
    /// Where the certificate is stored: an NV index or a file, as text.
    pub place: String,
    /// The content of the certificate.
    #[serde(flatten)]
    pub profile: Profile,
}

/// Describes certificates that are in no token. The bytes are PEM, DER or PKCS#7. `source` is the
/// file name for messages.
///
/// # Errors
///
/// Fails if the bytes hold no certificate. The error tells what the bytes are.
pub fn describe_certificates(
    bytes: &[u8],
    source: &str,
) -> Result<Vec<CertificateDescription>, IdentityError> {
    let found = certificates_of_answer(bytes)
        .map_err(|why| IdentityError::failed(format!("{source}: {why}")))?;
    let is_one = found.len() == 1;
    let described = found.iter().zip(1..).map(|(certificate, number)| {
        let place = match is_one {
            true => source.to_owned(),
            false => format!("{source}, certificate {number}"),
        };
        let profile = Profile::of(certificate);
        CertificateDescription { place, profile }
    });
    Ok(described.collect())
}

impl Device {
    /// Returns the description of a token entry.
    pub fn describe(&self, entry: &TokenEntry) -> EntryDescription {
        let certificates = entry.certificates.iter().map(|placed| {
            let profile = Profile::of(&placed.certificate);
            let place = placed.place.clone();
            CertificateDescription { place, profile }
        });
        EntryDescription {
            token: entry.token.clone(),
            label: entry.label.clone(),
            id: hex(&entry.id),
            attests: entry.attests,
            key: match (&entry.key, &entry.software, &entry.public) {
                (Some(key), _, _) => Some(self.describe_key(entry, key)),
                (None, None, None) => {
                    let secret = entry.secret.as_ref();
                    secret.map(|key| self.describe_secret_key(entry, key))
                }
                (None, Some(path), Some(public)) => Some(KeyDescription {
                    algorithm: public.to_string(),
                    place: format!("in software: {}", path.display()),
                    handle: None,
                    tpm_name: None,
                    origin: said(entry.origin),
                    template: None,
                }),
                _ => None,
            },
            certificates: certificates.collect(),
        }
    }

    fn describe_secret_key(&self, entry: &TokenEntry, key: &SecretKey) -> KeyDescription {
        let store = self.store_of(entry).unwrap_or(&self.own);
        let file = store.file(&entry.file);
        KeyDescription {
            algorithm: key.to_string(),
            place: format!("sealed in {}; used in memory", file.display()),
            handle: None,
            tpm_name: None,
            origin: said(entry.origin),
            template: None,
        }
    }

    fn describe_key(&self, entry: &TokenEntry, key: &Key) -> KeyDescription {
        let store = self.store_of(entry).unwrap_or(&self.own);
        let file = store.file(&entry.file);
        let file = file.display();
        let place = match (key.handle(), key.protection()) {
            (_, Protection::Sealed) => format!("sealed in {file}; used in memory"),
            (_, Protection::File) => format!("unencrypted in {file}"),
            (Some(handle), _) if entry.file.is_empty() => {
                format!("persistent handle 0x{handle:08X}")
            }
            (None, _) if entry.file.is_empty() => {
                "in no handle: the TPM derives the key when it is needed".into()
            }
            (Some(handle), _) if self.lives_in_handle_alone(entry) => format!(
                "in the persistent handle 0x{handle:08X} only: the master key that wrapped {file} \
                 is lost"
            ),
            (Some(handle), _) => {
                format!("in the persistent handle 0x{handle:08X}, and wrapped in {file}")
            }
            (None, _) => format!("wrapped in {file}"),
        };
        KeyDescription {
            algorithm: key.public().to_string(),
            place,
            handle: key.handle().map(|handle| format!("0x{handle:08X}")),
            tpm_name: key.name().map(hex),
            origin: said(entry.origin),
            template: key.public_area().and_then(template_name),
        }
    }
}

fn said(origin: KeyOrigin) -> &'static str {
    match origin {
        KeyOrigin::Generated => "generated",
        KeyOrigin::Imported => "imported",
        KeyOrigin::Unknown => "unknown",
    }
}
