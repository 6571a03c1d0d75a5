//! Keys beside the device's own identity: one for each service, and nothing that links them.

use super::device::{Device, Entity, FACTORY, OWN};
use super::issue::{Signer, Subject, request};
use super::software::SoftwareKey;
use super::time::{now, valid_at};
use super::verify::certificates_of;
use super::{Fault, FaultKind};
use crate::certificate::Certificate;
use crate::file;
use crate::store::devid::{Algorithm, KeyUsage};
use crate::store::folder::{Content, Description, Origin, Usage, Use};
use crate::store::{KeyStore, Kind, Protection};
use serde::Serialize;
use std::path::Path;

const TSS2_BEGIN: &str = "-----BEGIN TSS2 PRIVATE KEY-----";
const TSS2_END: &str = "-----END TSS2 PRIVATE KEY-----";
/// More bytes than a file of the key folder has.
const LARGEST: u64 = 64 << 10;

/// What was made of a certificate that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The key's label.
    pub label: String,
    /// Subjects of certificates that it took the place of.
    pub replaced: Vec<String>,
    /// Subjects of CA certificates that came with it and are new.
    pub authorities: Vec<String>,
    /// Whether it was there already.
    pub known: bool,
}

impl Device {
    /// Makes a key for a service.
    ///
    /// # Errors
    ///
    /// Something is called so already; or those of the store.
    pub fn generate_key(
        &self,
        label: &str,
        algorithm: Algorithm,
        usage: KeyUsage,
        persistent: bool,
    ) -> Result<Entity, Fault> {
        if label.is_empty() || label.chars().any(char::is_control) {
            return Err(Fault::new(FaultKind::Usage, "a label is printable text"));
        }
        if label == OWN {
            return Err(Fault::refused(format!(
                "{OWN} is what the device's own identity is called: devid provision makes that"
            )));
        }
        if self.own_entities()?.iter().any(|one| one.label == label) {
            return Err(Fault::refused(format!(
                "{label}: there is such an object already; take another label, or devid key \
                 delete {label}"
            )));
        }
        self.unlock()?;
        let key = self.own.generate(algorithm, usage, Protection::Tpm)?;
        let described = |signs, decrypts| {
            let uses = [(usage.signs, signs), (usage.decrypts, decrypts)];
            let uses = uses.into_iter().filter(|(has, _)| *has).map(|(_, one)| one);
            Description {
                usage: Some(uses.collect::<Usage>()),
                ..Description::labelled(label)
            }
        };
        let (for_private, for_public) = match algorithm {
            Algorithm::Ec(_) => (Use::Derive, Use::Derive),
            Algorithm::Rsa(_) => (Use::Decrypt, Use::Encrypt),
        };
        let private = described(Use::Sign, for_private);
        let public = described(Use::Verify, for_public);
        let origin = Origin::Generated;
        let name = self
            .own
            .keep(&key, origin, private, Some(public), persistent)?;
        self.tell_others();
        let mut all = self.own_entities()?.into_iter();
        all.find(|one| one.file == name)
            .ok_or_else(|| Fault::failed("the key was made, and is gone"))
    }

    /// Deletes a key and its certificates; gives the files' names.
    ///
    /// # Errors
    ///
    /// It is the device's own, or the factory's.
    pub fn delete_key(&self, entity: &Entity) -> Result<Vec<String>, Fault> {
        if entity.token == FACTORY {
            return Err(Fault::refused(format!(
                "{}: the factory's identity is not ours to delete",
                entity.label
            )));
        }
        if entity.protected {
            return Err(Fault::refused(format!(
                "{}: this is the device's own identity; only devid reset --factory gives it up",
                entity.label
            )));
        }
        let mut files: Vec<String> = entity
            .certificates
            .iter()
            .map(|one| one.file.clone())
            .collect();
        files.extend(Some(entity.file.clone()).filter(|file| !file.is_empty()));
        for file in &files {
            self.own.destroy_whole(file)?;
        }
        self.tell_others();
        Ok(files)
    }

    /// A request for a certificate (PKCS#10, PEM). The device's own identity names the device as
    /// the factory did; a service's key names itself and nothing else.
    pub fn request(&self, entity: &Entity, subject: Option<Subject>) -> Result<String, Fault> {
        if let (Some(path), Some(public)) = (&entity.software, &entity.public) {
            let key = SoftwareKey::read(path)?;
            let subject = subject.map_or_else(|| self.own_subject(public), Ok)?;
            return request(subject, &Signer::Software(&key));
        }
        let Some(key) = &entity.key else {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!("{}: this device has no key for it", entity.label),
            ));
        };
        self.unlock()?;
        let subject = match subject {
            Some(subject) => subject,
            None if entity.protected => self.own_subject(key.public())?,
            None if entity.token == FACTORY => match entity.certificate() {
                Some(certificate) => Subject::copied(certificate)?,
                None => Subject::of_key(key.public())?,
            },
            None => Subject::named(&entity.label)?,
        };
        request(subject, &Signer::Tpm(&self.tpm, key))
    }

    /// Takes a certificate for a key of the token `devid`, in the place of those that the key had;
    /// and certificates of CAs that come in the same file.
    ///
    /// # Errors
    ///
    /// It is for none of the keys, or not valid now. Then nothing was changed.
    pub fn import_certificate(&self, path: &Path) -> Result<Imported, Fault> {
        let all = certificates_of(path)?;
        let (authorities, mut leaves): (Vec<_>, Vec<_>) =
            all.into_iter().partition(Certificate::is_authority);
        let certificate = match leaves.len() {
            1 => leaves.remove(0),
            count => {
                return Err(Fault::refused(format!(
                    "{}: {count} certificates that are no CA's; one is taken at a time",
                    path.display()
                )));
            }
        };
        let public = certificate.public_key();
        let own = self.own_entities()?;
        let owner = own
            .iter()
            .find(|one| one.key.is_some() && one.public.is_some() && one.public == public);
        let Some(owner) = owner else {
            return Err(Fault::refused(format!(
                "{}: the certificate of {} is for none of the keys of the token {OWN} (devid key \
                 list shows them); nothing was changed",
                path.display(),
                certificate.subject()
            )));
        };
        if let Ok(now) = now() {
            valid_at(&certificate, now).map_err(|why| {
                Fault::refused(format!(
                    "{}: the certificate {why}; nothing was changed",
                    path.display()
                ))
            })?;
        }
        let mut imported = Imported {
            label: owner.label.clone(),
            replaced: Vec::new(),
            authorities: self.add_authorities(&owner.label, authorities)?,
            known: owner
                .certificates
                .iter()
                .any(|one| one.certificate == certificate),
        };
        if !imported.known {
            self.keep_certificate(certificate.clone(), &owner.label, !owner.protected)?;
        }
        // Only now: whoever looks in between finds two, and never none.
        for old in owner
            .certificates
            .iter()
            .filter(|old| old.certificate != certificate)
        {
            self.own.destroy_whole(&old.file)?;
            imported.replaced.push(old.certificate.subject());
        }
        if owner.protected
            && let Some(index) = self.config.provision.nv_index
        {
            self.tpm
                .nv_keep(index, certificate.der(), &self.own.owner_auth()?)?;
        }
        self.tell_others();
        Ok(imported)
    }

    fn add_authorities(&self, label: &str, all: Vec<Certificate>) -> Result<Vec<String>, Fault> {
        let mut known = Vec::new();
        for shown in &self.own.look()?.objects {
            if let Kind::Certificate(certificate, _) = &shown.kind {
                known.push(certificate.clone());
            }
        }
        let mut added = Vec::new();
        for authority in all {
            if !known.contains(&authority) {
                let description = Description::labelled(format!("{label}-ca"));
                self.own
                    .add(Content::Certificate(authority.clone(), description))?;
                added.push(authority.subject());
                known.push(authority);
            }
        }
        Ok(added)
    }

    /// The key as other programs take it: PEM, `TSS2 PRIVATE KEY`. Only this TPM can use it.
    ///
    /// # Errors
    ///
    /// It has no wrapped form: a factory's key is nowhere but in the TPM.
    pub fn wrapped_key(&self, entity: &Entity) -> Result<String, Fault> {
        if entity.file.is_empty() {
            return Err(Fault::refused(format!(
                "{}: there is no wrapped form of this key; devid uri {0} names it to programs",
                entity.label
            )));
        }
        let path = self.file_of(&entity.file);
        let bytes = file::read(&path, LARGEST).map_err(Fault::file(&path))?;
        let text = String::from_utf8_lossy(&bytes);
        let block = text.find(TSS2_BEGIN).and_then(|begin| {
            let end = text[begin..].find(TSS2_END)? + TSS2_END.len();
            text.get(begin..begin + end)
        });
        let missing = || Fault::failed(format!("{}: no {TSS2_BEGIN}", path.display()));
        Ok(format!("{}\n", block.ok_or_else(missing)?))
    }

    /// Puts a factory key that has no handle into a persistent one; gives the handle. Writes to the
    /// TPM, so only by explicit wish.
    ///
    /// # Errors
    ///
    /// No template gives the key, or something else is at the handle.
    pub fn persist(&self, entity: &Entity, handle: u32) -> Result<u32, Fault> {
        let Some(key) = &entity.key else {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!("{}: this TPM has no key for it", entity.label),
            ));
        };
        if let Some(handle) = key.handle() {
            return match entity.file.is_empty() {
                true => Ok(handle),
                false => Ok(self.own.persist_again(&entity.file)?),
            };
        }
        if !entity.file.is_empty() {
            return Ok(self.own.persist_again(&entity.file)?);
        }
        key.prepare(&self.tpm)?;
        let derived = key
            .derived()
            .ok_or_else(|| Fault::failed("the key was not derived"))?;
        let owner = self.own.owner_auth()?;
        match self.tpm.persist_derived(derived, handle, &owner) {
            Err(crate::tpm::TpmError::KeyReplaced(_)) => Err(Fault::refused(format!(
                "handle 0x{handle:08X} is taken; give another with --handle"
            ))),
            other => {
                other?;
                self.tell_others();
                Ok(handle)
            }
        }
    }

    pub(super) fn own_entities(&self) -> Result<Vec<Entity>, Fault> {
        match self.own() {
            Ok((_, _, entities)) => Ok(entities),
            Err((_, fault)) => Err(fault),
        }
    }
}
