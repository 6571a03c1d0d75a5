//! The certificates of the owner for keys of the factory (OpenConfig's oIDevID and oIAK). All these
//! certificates are in one file that only root writes, so a rotation is atomic.

use super::IdentityError;
use super::ca_certificates::above;
use super::device::Device;
use super::entry::TokenEntry;
use super::import::still_valid;
use super::provision::{only_one, tidy};
use super::public_folder::make_public_folder;
use super::software::make_folder;
use crate::file;
use crate::store::idevid::certificates_in;
use crate::trouble::is_there;
use crate::x509::path::{is_signed_by, names};
use crate::x509::{Certificate, certificates_of_answer};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A file with certificates that the owner issued, in PEM, DER or PKCS#7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerFile {
    /// The name of the file, for messages.
    pub source: String,
    /// The content of the file.
    pub bytes: Vec<u8>,
}

/// The result of an import of the owner's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnerImported {
    /// The imported certificates.
    pub certificates: Vec<OwnerCertificate>,
    /// The subjects of the former owner certificates, which the import replaced.
    pub replaced: Vec<String>,
    /// The subjects of CA certificates that the imported certificates do not need. They were not
    /// stored.
    pub unrelated: Vec<String>,
    /// The file to which the imported certificates were written.
    pub file: PathBuf,
    /// Which token shows the certificates: `nowhere`, `instead` (of the factory's), or `token` (a
    /// separate token).
    pub show: &'static str,
}

/// A certificate of the owner, and the factory key that it certifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnerCertificate {
    /// The label of the key on the factory's token.
    pub label: String,
    /// The subject of the certificate.
    pub subject: String,
}

impl Device {
    /// Imports certificates of the owner for factory keys, with the CA certificates that they need.
    /// Each certificate must meet these conditions:
    ///
    /// - it is for a factory key of this device;
    /// - it is valid now;
    /// - its issuer has signed it. The certificate of the issuer is among the given files, in
    ///   `chain/` or in `trust/`.
    ///
    /// Certificates for other keys stay.
    ///
    /// # Errors
    ///
    /// Fails if a certificate does not pass a check. After an error nothing was changed.
    pub fn import_owner_certificates(
        &self,
        files: &[OwnerFile],
    ) -> Result<OwnerImported, IdentityError> {
        let mut given = Vec::new();
        for OwnerFile { source, bytes } in files {
            let read = whole(bytes).map_err(|why| refused(&format!("{source}: {why}")))?;
            given.extend(read.into_iter().map(|one| (source.clone(), one)));
        }
        let (issuers, leaves): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|(_, one)| one.is_ca());
        let issuers: Vec<Certificate> = issuers.into_iter().map(|(_, one)| one).collect();
        if leaves.is_empty() {
            return Err(refused(
                "the files hold only certificates of CAs, and no certificate of a device",
            ));
        }
        let keys = self.factory_keys()?;
        let mut taken: Vec<(&TokenEntry, Certificate)> = Vec::new();
        for (source, leaf) in leaves {
            let key = self.factory_key_of(&keys, &leaf, &source)?;
            still_valid(&leaf, &source)?;
            self.check_issuer(&leaf, &issuers, &source)?;
            if taken.iter().any(|(other, _)| other.label == key.label) {
                return Err(refused(&format!(
                    "{source}: two certificates are for the key {}",
                    key.label
                )));
            }
            taken.push((key, leaf));
        }
        make_folder(&self.config.state)?;
        let _only_one = only_one(&self.config.state)?;
        tidy(self);
        let file = &self.config.owner.certificates;
        let before = self.owner_certificates()?;
        let is_replaced = |one: &&Certificate| {
            !one.is_ca()
                && taken
                    .iter()
                    .any(|(_, new)| new.public_key() == one.public_key())
        };
        let (replaced, kept): (Vec<_>, Vec<_>) = before.iter().partition(is_replaced);
        let leaves: Vec<&Certificate> = taken.iter().map(|(_, one)| one).collect();
        let kept_leaves = kept.iter().copied().filter(|one| !one.is_ca());
        let all_leaves: Vec<&Certificate> = leaves.iter().copied().chain(kept_leaves).collect();
        let mut all_issuers = issuers.clone();
        all_issuers.extend(
            kept.iter()
                .filter(|one| one.is_ca())
                .map(|one| (*one).clone()),
        );
        let needed = above(&all_leaves, &all_issuers);
        let mut content = String::new();
        let mut written: Vec<&Certificate> = Vec::new();
        for one in all_leaves.iter().copied().chain(needed.iter().copied()) {
            if !written.contains(&one) {
                content.push_str(&one.pem());
                written.push(one);
            }
        }
        make_public_folder(file.parent().unwrap_or(Path::new("/")))?;
        file::write(file, content.as_bytes(), 0o644).map_err(IdentityError::file(file))?;
        self.tell_others();
        let is_new = |one: &&&Certificate| !leaves.contains(*one);
        Ok(OwnerImported {
            certificates: taken
                .iter()
                .map(|(key, one)| OwnerCertificate {
                    label: key.label.clone(),
                    subject: one.subject(),
                })
                .collect(),
            replaced: replaced
                .iter()
                .filter(is_new)
                .map(|one| one.subject())
                .collect(),
            unrelated: issuers
                .iter()
                .filter(|one| !needed.contains(one))
                .map(Certificate::subject)
                .collect(),
            file: file.clone(),
            show: self.config.owner.show.word(),
        })
    }

    /// Returns the certificates of the owner and of their CAs. Returns no certificate if the file
    /// does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if other users may write to it.
    pub fn owner_certificates(&self) -> Result<Vec<Certificate>, IdentityError> {
        let file = &self.config.owner.certificates;
        match is_there(file).map_err(IdentityError::file(file))? {
            false => Ok(Vec::new()),
            true => certificates_in(file)
                .map_err(|why| IdentityError::failed(format!("{}: {why}", file.display()))),
        }
    }

    /// Removes the certificates of the owner. A factory reset calls this function.
    pub(super) fn forget_owner(&self) -> Result<(), IdentityError> {
        let file = &self.config.owner.certificates;
        file::remove(file).map_err(IdentityError::file(file))
    }

    fn factory_keys(&self) -> Result<Vec<TokenEntry>, IdentityError> {
        let contents = self.factory_contents().map_err(|(_, fault)| fault)?;
        let is_key = |one: &TokenEntry| one.key.is_some() || one.attests;
        Ok(contents.entries.into_iter().filter(is_key).collect())
    }

    fn factory_key_of<'a>(
        &self,
        keys: &'a [TokenEntry],
        leaf: &Certificate,
        source: &str,
    ) -> Result<&'a TokenEntry, IdentityError> {
        let public = leaf.public_key();
        let found = keys
            .iter()
            .find(|key| public.is_some() && key.public == public);
        let key = found.ok_or_else(|| {
            let labels: Vec<&str> = keys.iter().map(|key| key.label.as_str()).collect();
            refused(&format!(
                "{source}: the certificate of {} belongs to no factory key of this device ({})",
                leaf.subject(),
                labels.join(", ")
            ))
        })?;
        let ours = self.config.owner.certificates.display().to_string();
        let is_factorys =
            |one: &super::CertificateEntry| one.certificate == *leaf && one.place != ours;
        match key.certificates.iter().any(is_factorys) {
            true => Err(refused(&format!(
                "{source}: this certificate of {} is already the factory's certificate for the key \
                 {}",
                leaf.subject(),
                key.label
            ))),
            false => Ok(key),
        }
    }

    /// Verifies the signature of each certificate by its issuer, for all issuers whose certificates
    /// are available.
    fn check_issuer(
        &self,
        leaf: &Certificate,
        issuers: &[Certificate],
        source: &str,
    ) -> Result<(), IdentityError> {
        let mut known = self.known_ca_certificates();
        known.extend(self.trusted(None)?.certificates);
        let mut child = leaf;
        let mut steps = 0;
        loop {
            let named = |one: &&Certificate| names(child, one);
            let candidates: Vec<&Certificate> =
                issuers.iter().chain(&known).filter(named).collect();
            let signed = candidates
                .iter()
                .find(|one| is_signed_by(child, one) == Ok(true));
            match signed {
                Some(one) if *one == child || steps > issuers.len() + known.len() => return Ok(()),
                Some(one) => child = one,
                None if steps > 0 && !issuers.iter().any(|one| names(child, one)) => return Ok(()),
                None if !issuers.iter().any(|one| names(child, one)) => {
                    return Err(refused(&format!(
                        "{source}: the certificate of the issuer of {} is missing: append it to \
                         this file, after the certificate of the device",
                        leaf.subject()
                    )));
                }
                None => {
                    return Err(refused(&format!(
                        "{source}: the signature of the certificate of {} was not made by the \
                         issuer {}",
                        child.subject(),
                        candidates[0].subject()
                    )));
                }
            }
            steps += 1;
        }
    }
}

/// Returns all certificates of a file. Fails if any part of the file is not a certificate.
fn whole(bytes: &[u8]) -> Result<Vec<Certificate>, String> {
    let read = Certificate::read_all(bytes);
    match (read.certificates.is_empty(), read.unread.first()) {
        (true, _) => certificates_of_answer(bytes).map_err(|why| why.to_string()),
        (false, None) => Ok(read.certificates),
        (false, Some(why)) => Err(why.clone()),
    }
}

fn refused(why: &str) -> IdentityError {
    IdentityError::refused(format!("{why}; nothing was changed"))
}
