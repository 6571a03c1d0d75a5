//! The certificates of the owner for keys of the factory (OpenConfig's oIDevID and oIAK). Another
//! CA certifies the key of the factory. A token shows one end-entity certificate for each key. Two
//! certificates for a key, on two tokens, have different identifiers.

use super::location::{CertificateLocation, LocatedCertificate};
use super::{FACTORY, Identity};
use crate::config::OWNER;
use crate::x509::Certificate;
use sha1::{Digest, Sha1};
use std::path::Path;

/// The label of the certificate that the device's owner issued for an attestation key.
const OWNER_ATTESTATION: &str = "oiak";

/// The issuers of the certificates that a store shows for factory keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificateOrigin {
    /// Only the certificates of the device's manufacturer.
    Factory,
    /// The certificates of the factory, and a separate list of the owner's certificates.
    Both,
    /// The certificates of the owner if they exist, with the labels of the factory's certificates.
    OwnerFirst,
    /// Only the certificates that the device's owner issued, with their own labels.
    Owner,
}

impl CertificateOrigin {
    /// Returns true if the store reads the certificates that the device's owner issued.
    pub(super) fn reads_owner(self) -> bool {
        self != Self::Factory
    }

    /// Returns the label of a token whose keys are all attestation keys. The text is also the
    /// prefix of the labels of CA certificates.
    pub(super) fn base_label(self) -> &'static str {
        match self {
            Self::Factory | Self::Both | Self::OwnerFirst => FACTORY,
            Self::Owner => OWNER,
        }
    }

    /// Adds the certificates of the owner, or replaces those of the factory by them.
    pub(super) fn apply(
        self,
        owner: Vec<Certificate>,
        file: &Path,
        identities: &mut Vec<Identity>,
        authorities: &mut Vec<LocatedCertificate>,
    ) {
        if matches!(self, Self::Factory | Self::Both) {
            return;
        }
        let (issuers, leaves): (Vec<_>, Vec<_>) = owner.into_iter().partition(Certificate::is_ca);
        identities.retain_mut(|identity| {
            let is_for_it = |one: &&Certificate| {
                identity.public.is_some() && one.public_key() == identity.public
            };
            match leaves.iter().find(is_for_it) {
                Some(certificate) => {
                    identity.certificate = certificate.clone();
                    identity.place = file.display().to_string();
                    if self == Self::Owner {
                        identity.id = Some(owner_id(certificate));
                        identity.label = owner_label(&identity.label);
                    }
                    true
                }
                None => self != Self::Owner,
            }
        });
        if self == Self::Owner {
            authorities.clear();
        }
        let place = CertificateLocation::File(file.to_owned());
        authorities.extend(issuers.into_iter().map(|one| (place.clone(), one)));
    }
}

/// Returns the label of the owner's certificate: `oidevid` for `idev-id`, `oidevid-rsa2048` for
/// `idev-id-rsa2048`, `oiak` for `iak`.
fn owner_label(label: &str) -> String {
    match (label.strip_prefix(FACTORY), label.strip_prefix("iak")) {
        (Some(rest), _) => format!("{OWNER}{rest}"),
        (_, Some(rest)) => format!("{OWNER_ATTESTATION}{rest}"),
        _ => format!("{OWNER}-{label}"),
    }
}

/// Returns a CKA_ID that differs from the CKA_ID of the factory's certificate. Java's KeyStore
/// fails if two certificates of a key have the same CKA_ID.
fn owner_id(certificate: &Certificate) -> Vec<u8> {
    let digest = Sha1::new().chain_update(OWNER);
    digest
        .chain_update(certificate.key_id().as_bytes())
        .finalize()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_those_of_the_factory() {
        let labels = ["idev-id", "idev-id-rsa2048", "iak", "iak-2"].map(owner_label);
        assert_eq!(labels, ["oidevid", "oidevid-rsa2048", "oiak", "oiak-2"]);
    }

    #[test]
    fn the_identifier_is_another_and_stays() {
        let leaf = include_bytes!("../../../testdata/leaf.pem");
        let leaf = Certificate::parse_all(leaf).unwrap().remove(0);
        assert_ne!(owner_id(&leaf), leaf.key_id().as_bytes());
        assert_eq!(owner_id(&leaf), owner_id(&leaf));
        assert_eq!(owner_id(&leaf).len(), 20);
    }
}
