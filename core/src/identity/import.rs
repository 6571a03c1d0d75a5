//! Imports certificates from a CA for keys of this device.

use super::IdentityError;
use super::ca_certificates::above;
use super::device::Device;
use super::entry::TokenEntry;
use super::provision::certificate_attributes;
use super::software::Software;
use crate::file;
#[cfg(feature = "evidence")]
use crate::shell::argument;
use crate::store::devid::DevidStore;
use crate::x509::clock::{now, valid_at};
use crate::x509::files::LARGEST;
use crate::x509::{Certificate, certificates_of_answer};
#[cfg(feature = "evidence")]
use log::warn;
use serde::Serialize;
use std::path::Path;

/// The result of importing a certificate for a key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Imported {
    /// The label of the key that the certificate is for.
    pub label: String,
    /// The subjects of the former certificates of the key, which the import replaced.
    pub replaced: Vec<String>,
    /// The subjects of the CA certificates that were added to the token.
    pub authorities: Vec<String>,
    /// The subjects of certificates that the new certificate does not need. They were not stored.
    pub unrelated: Vec<String>,
    /// True if the token already had the certificate.
    pub known: bool,
    /// True if the certificate was for a new key (succession), which then replaced the old key.
    pub rekeyed: bool,
    /// The reason why the copy in an NV index was not written, if the configuration requests a
    /// copy.
    pub note: Option<String>,
}

impl Device {
    /// Imports a certificate for a key of a token, or for the software identity. The certificate
    /// replaces the earlier certificates of the key. Also imports the CA certificates in the file
    /// that the certificate needs. The file is PEM, DER or PKCS#7.
    ///
    /// # Errors
    ///
    /// Fails if no key belongs to the certificate, or if the certificate is not valid at present.
    /// After an error nothing was changed.
    pub fn import_certificate(&self, path: &Path) -> Result<Imported, IdentityError> {
        let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
        let taken = self.import_answer(&bytes, &path.display().to_string())?;
        self.forget_answered(&bytes, &taken.label)?;
        Ok(taken)
    }

    /// Removes the enrolment record of a key whose certificate the user imported. Keeps the record
    /// while commands of `reload` must still run.
    fn forget_answered(&self, answer: &[u8], label: &str) -> Result<(), IdentityError> {
        let records = self.enrolments().into_iter();
        let records: Vec<_> = records
            .filter(|one| one.label == label && !one.reload_due)
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        let came = certificates_of_answer(answer).unwrap_or_default();
        let inventory = self.inventory();
        for record in records {
            let mut entries = inventory.entries.iter();
            let has = |one: &Certificate| came.contains(one);
            if entries.any(|one| {
                one.token == record.token
                    && one.label == label
                    && one.certificate().is_some_and(has)
            }) {
                self.forget_enrolments_of(&record.token, label)?;
            }
        }
        Ok(())
    }

    /// Imports the certificates in an answer of a CA. `source` is the file name for messages.
    ///
    /// # Errors
    ///
    /// Fails for the reasons of [`import_certificate`](Self::import_certificate).
    pub fn import_answer(&self, bytes: &[u8], source: &str) -> Result<Imported, IdentityError> {
        let all = certificates_of_answer(bytes)
            .map_err(|why| IdentityError::failed(format!("{source}: {why}")))?;
        let (ca_certificates, leaves): (Vec<_>, Vec<_>) =
            all.into_iter().partition(Certificate::is_ca);
        if leaves.is_empty() {
            return Err(self.only_ca_certificates(&ca_certificates, source));
        }
        for leaf in &leaves {
            if let Some((owner, _)) = self.awaiting(leaf)? {
                still_valid(leaf, source)?;
                let taken = self.succeed(&owner, leaf, &ca_certificates);
                self.tell_others();
                return taken;
            }
        }
        let found = self.one_of_ours(&leaves, source);
        // Keys in tokens are searched before attestation keys of services, because the user of a
        // service can write the file of its attestation key.
        #[cfg(feature = "evidence")]
        if found.is_err()
            && let [certificate] = &leaves[..]
            && let Some(store) = self.attested_by(certificate)?
        {
            still_valid(certificate, source)?;
            return take_for_attestation(store, certificate, &ca_certificates);
        }
        let (certificate, owner) = found?;
        still_valid(certificate, source)?;
        let taken = match self.store_of(&owner) {
            Some(store) => self.take(store, &owner, certificate.clone(), &ca_certificates),
            None => self.take_in_software(&owner, certificate, &ca_certificates),
        };
        self.tell_others();
        let mut taken = taken?;
        let others = leaves.iter().filter(|one| *one != certificate);
        taken.unrelated.extend(others.map(Certificate::subject));
        Ok(taken)
    }

    /// Returns the certificate that certifies a key of this device, and that key. If several certificates
    /// certify the key, returns the newest certificate.
    fn one_of_ours<'a>(
        &self,
        leaves: &'a [Certificate],
        source: &str,
    ) -> Result<(&'a Certificate, TokenEntry), IdentityError> {
        let mut found: Option<(&Certificate, TokenEntry)> = None;
        let mut fault = None;
        for leaf in leaves {
            let owner = match self.owner_of(leaf, source) {
                Ok(owner) => owner,
                Err(why) => {
                    fault = fault.or(Some(why));
                    continue;
                }
            };
            let is_newer = |one: &Certificate| leaf.not_before().ok() > one.not_before().ok();
            match &found {
                Some((other, first)) if first.public != owner.public => {
                    return Err(IdentityError::refused(format!(
                        "{source}: the file has certificates for two keys of this device: {} (for \
                         {}) and {} (for {}). Import each certificate from its own file",
                        other.subject(),
                        first.label,
                        leaf.subject(),
                        owner.label
                    )));
                }
                Some((other, _)) if !is_newer(other) => {}
                _ => found = Some((leaf, owner)),
            }
        }
        let none = || IdentityError::refused(format!("{source}: the file has no certificate"));
        found.ok_or_else(|| fault.unwrap_or_else(none))
    }

    /// Returns the token whose attestation key the certificate certifies. Ignores a damaged key
    /// folder of a service.
    #[cfg(feature = "evidence")]
    fn attested_by(&self, certificate: &Certificate) -> Result<Option<&DevidStore>, IdentityError> {
        for store in self.attesting_stores() {
            match store.has_attestation_key_of(certificate) {
                Ok(true) => return Ok(Some(store)),
                Ok(false) => {}
                Err(error) if store.is_service() => warn!("token {}: {error}", store.name()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Returns the error for a file that contains only CA certificates. The message tells if a CA
    /// certificate is for a key of this device.
    fn only_ca_certificates(&self, ca_certificates: &[Certificate], source: &str) -> IdentityError {
        let mut told = Vec::new();
        for one in ca_certificates {
            let why = one.why_ca().unwrap_or_default();
            let whose = match self.owner_of(one, source) {
                Ok(owner) => format!("is for the key {}, but {why}", owner.label),
                Err(_) => why,
            };
            told.push(format!("the certificate of {}: {whose}", one.subject()));
        }
        IdentityError::refused(format!(
            "{source}: the file has only certificates of CAs ({}). The certificate of a device \
             must not be a CA certificate: ask the CA to issue one with CA:FALSE. Nothing was \
             changed",
            told.join("; ")
        ))
    }

    /// Finds the token entry of the key that the certificate certifies.
    fn owner_of(
        &self,
        certificate: &Certificate,
        source: &str,
    ) -> Result<TokenEntry, IdentityError> {
        let public = certificate.public_key();
        let inventory = self.inventory();
        let mut keys = inventory.entries.into_iter().filter(|one| {
            (one.software.is_some() || (self.store_of(one).is_some() && one.key.is_some()))
                && one.public.is_some()
        });
        keys.find(|one| one.public == public).ok_or_else(|| {
            // The key may be in a token that could not be read.
            let unread = inventory
                .faults
                .iter()
                .chain(&inventory.unread)
                .filter(|(_, fault)| fault.kind != super::IdentityErrorKind::NotFound);
            let unread: String = unread
                .map(|(token, fault)| format!(" Token {token}: {fault}."))
                .collect();
            IdentityError::refused(format!(
                "{source}: the certificate of {} belongs to no key of this device (devid list \
                 shows the keys); nothing was changed.{unread}",
                certificate.subject()
            ))
        })
    }

    pub(super) fn take(
        &self,
        store: &DevidStore,
        owner: &TokenEntry,
        certificate: Certificate,
        ca_certificates: &[Certificate],
    ) -> Result<Imported, IdentityError> {
        store.check_readable()?;
        let label = &owner.label;
        let (added, unrelated) =
            self.add_ca_certificates(store, label, &certificate, ca_certificates)?;
        let is_new = |one: &&super::CertificateEntry| one.certificate != certificate;
        let (old, same): (Vec<_>, Vec<_>) = owner.certificates.iter().partition(is_new);
        let known = !same.is_empty();
        if let (false, Some(replaced)) = (known, old.first()) {
            let about = certificate_attributes(label, !owner.protected);
            let above_old = self.above_of(owner);
            store.renew_certificate(
                &owner.file,
                &replaced.file,
                &certificate,
                about,
                &above_old,
            )?;
        } else if !known {
            self.keep_certificate(store, certificate.clone(), label, !owner.protected)?;
        }
        let note = match owner.protected {
            true => self.keep_copy(&certificate)?,
            false => None,
        };
        if known {
            // An earlier import may have been killed before it removed the former CA certificates.
            self.drop_former_ca_certificates(store, owner)?;
        }
        // The new certificate is stored before the old certificates are removed. A program that
        // reads in between finds two certificates, never none.
        let going: Vec<_> = old.iter().map(|old| &old.certificate).collect();
        self.drop_ca_certificates(store, label, &going)?;
        for old in old.iter().skip(usize::from(!known)) {
            store.destroy_whole(&old.file)?;
        }
        Ok(Imported {
            label: label.clone(),
            replaced: going.iter().map(|old| old.subject()).collect(),
            authorities: added,
            unrelated,
            known,
            rekeyed: false,
            note,
        })
    }

    pub(super) fn take_in_software(
        &self,
        owner: &TokenEntry,
        certificate: &Certificate,
        ca_certificates: &[Certificate],
    ) -> Result<Imported, IdentityError> {
        let software = Software::in_state(&self.config.state);
        let mut all = ca_certificates.to_vec();
        for (_, known) in software.ca_certificates()? {
            if !all.contains(&known) {
                all.push(known);
            }
        }
        let kept = above(&[certificate], &all);
        let is_kept = |one: &&Certificate| kept.contains(one);
        let (needed, others): (Vec<_>, Vec<_>) = ca_certificates.iter().partition(is_kept);
        let subjects = |all: &[&Certificate]| all.iter().map(|one| one.subject()).collect();
        let had = owner.certificate();
        software.keep(certificate, &kept)?;
        Ok(Imported {
            label: owner.label.clone(),
            known: had == Some(certificate),
            replaced: had
                .filter(|one| *one != certificate)
                .map(Certificate::subject)
                .into_iter()
                .collect(),
            authorities: subjects(&needed),
            unrelated: subjects(&others),
            rekeyed: false,
            note: None,
        })
    }
}

/// Stores a certificate for the attestation key of a token.
#[cfg(feature = "evidence")]
fn take_for_attestation(
    store: &DevidStore,
    certificate: &Certificate,
    ca_certificates: &[Certificate],
) -> Result<Imported, IdentityError> {
    if store.is_service() && certificate.has_alt_name() {
        return Err(IdentityError::refused(format!(
            "the certificate for the attestation key of {0} has a subjectAltName, which names the \
             TPM: all evidence of this service would show the name. Ask the CA to issue the \
             certificate again, by devid ca issue --attestation-key --for {0}. Nothing was changed",
            argument(store.name()),
        )));
    }
    let kept = above(&[certificate], ca_certificates);
    let is_kept = |one: &&Certificate| kept.contains(one);
    let (needed, others): (Vec<_>, Vec<_>) = ca_certificates.iter().partition(is_kept);
    let subjects = |all: &[&Certificate]| all.iter().map(|one| one.subject()).collect();
    let chain = std::iter::once(certificate).chain(needed.iter().copied());
    store.certify_attestation_key(chain.cloned().collect())?;
    Ok(Imported {
        label: match store.is_service() {
            true => format!("attestation key of {}", store.name()),
            false => "attestation key".into(),
        },
        authorities: subjects(&needed),
        unrelated: subjects(&others),
        ..Imported::default()
    })
}

/// Checks that a certificate is valid now. If the clock is wrong, the validity is not checked.
pub(super) fn still_valid(certificate: &Certificate, source: &str) -> Result<(), IdentityError> {
    let valid = now().map_or(Ok(()), |now| valid_at(certificate, now));
    valid.map_err(|why| {
        IdentityError::refused(format!(
            "{source}: the certificate {why}; nothing was changed"
        ))
    })
}
