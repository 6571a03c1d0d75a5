//! The attestation key in a key folder. The key belongs to a service, or to a device whose maker
//! put no attestation key into the TPM.

use super::{DevidStore, StoreError};
use crate::shell::word;
use crate::store::folder::{AttestationKeyFile, AttestationKeyForm, Tss2Key, Tss2Kind};
use crate::tpm::{AttestationKey, PublicArea, TpmError, WrappedKey, name_of};
use crate::x509::Certificate;
use log::info;
use std::path::Path;

impl DevidStore {
    /// Returns the attestation key of this folder and its certificates. Creates the key if there is
    /// none. The key of a service is in the owner hierarchy. Every other key is below the storage
    /// root key. The creation costs two TPM commands, and more if the TPM has no storage root key
    /// yet.
    ///
    /// # Errors
    ///
    /// Fails if the TPM does not load the stored key.
    pub(crate) fn attestation_key(&self) -> Result<(AttestationKey, Vec<Certificate>), StoreError> {
        let kept = match self.folder.attestation_key()? {
            Some(kept) => kept,
            None => self.made_attestation_key()?,
        };
        self.usable_attestation_key(kept)
    }

    /// Returns the stored attestation key and its certificates, or `None` if no key is stored.
    ///
    /// # Errors
    ///
    /// Fails if the TPM does not load the stored key.
    pub(crate) fn kept_attestation_key(
        &self,
    ) -> Result<Option<(AttestationKey, Vec<Certificate>)>, StoreError> {
        let kept = self.folder.attestation_key()?;
        kept.map(|kept| self.usable_attestation_key(kept))
            .transpose()
    }

    /// Returns the stored attestation key with this TPM name. Returns `None` if the stored key has
    /// another name. For a key with another name the TPM executes no command.
    ///
    /// # Errors
    ///
    /// Fails if the TPM does not load the stored key.
    pub(crate) fn attestation_key_called(
        &self,
        name: &[u8],
    ) -> Result<Option<AttestationKey>, StoreError> {
        let kept = self.folder.attestation_key()?;
        let kept = kept.filter(|kept| name_of(kept.key.area()).as_deref() == Some(name));
        let key = kept
            .map(|kept| self.usable_attestation_key(kept))
            .transpose()?;
        Ok(key.map(|(key, _)| key))
    }

    fn usable_attestation_key(
        &self,
        kept: AttestationKeyFile,
    ) -> Result<(AttestationKey, Vec<Certificate>), StoreError> {
        let path = self.folder.attestation_key_path();
        let unfit = |why: &str| StoreError::Unsupported(format!("{}: {why}", path.display()));
        let lost = |why: &str| {
            StoreError::Unsupported(format!(
                "{}: the TPM does not load the attestation key: {why}. If the TPM was cleared or \
                 exchanged, the key and its certificates are lost. In this case set the file \
                 aside: {}. The next evidence then uses a new key",
                path.display(),
                aside(&path),
            ))
        };
        let key = match &kept.key {
            AttestationKeyForm::Wrapped(key) => {
                let wrapped = key.wrapped().map_err(unfit)?.below_stranger();
                match self.tpm.check_loads(&wrapped) {
                    Err(TpmError::Unloadable(why)) => return Err(lost(&why.to_string())),
                    other => other?,
                }
                AttestationKey::wrapped(wrapped)
            }
            AttestationKeyForm::Primary { template, area } => {
                // The user of a service can write this file, and root may use the key with the
                // owner's authorisation value. So the template must be checked.
                if !AttestationKey::is_template_of_owner(template, area) {
                    return Err(unfit(
                        "its template is not the template of an attestation key",
                    ));
                }
                let owner = self.owner_auth()?;
                let (template, area) = (template.clone(), area.clone());
                let key = self.tpm.owner_attestation_key(template, area, &owner)?;
                match self.tpm.check_gives(&key) {
                    Err(error @ TpmError::SeedChanged) => return Err(lost(&error.to_string())),
                    other => other?,
                }
                AttestationKey::of_owner(key)
            }
        };
        let none =
            || unfit("it does not hold an attestation key with an empty authorisation value");
        Ok((key.ok_or_else(none)?, kept.certificates))
    }

    fn made_attestation_key(&self) -> Result<AttestationKeyFile, StoreError> {
        // The key folder must exist before the key. It stores the attestation key and the file
        // `.storage-root`.
        self.folder.begin(&self.first_serial()?)?;
        self.folder.check_room()?;
        let _turn = self.tpm.lock_new_key();
        // Another process may have stored an attestation key in the key folder in the meantime.
        if let Some(kept) = self.folder.attestation_key()? {
            return Ok(kept);
        }
        let owner = self.owner_auth()?;
        let key = match self.is_service {
            true => {
                let made = self.tpm.create_owner_attestation_key(&owner);
                let made = made.map_err(StoreError::of_making)?;
                AttestationKeyForm::Primary {
                    template: made.template().to_vec(),
                    area: made.area().to_vec(),
                }
            }
            false => {
                let made = self.tpm.create_attestation_key(&owner);
                let made: WrappedKey = made.map_err(StoreError::of_making)?;
                // The first load of the key runs in an auth session that proves the origin of the
                // key.
                self.tpm.check_loads(&made)?;
                AttestationKeyForm::Wrapped(Tss2Key::of(Tss2Kind::Loadable, &made, false))
            }
        };
        let kept = AttestationKeyFile {
            key,
            certificates: Vec::new(),
        };
        self.folder.keep_attestation_key(&kept)?;
        let path = self.folder.attestation_key_path();
        info!("{}: created a new attestation key", path.display());
        Ok(kept)
    }

    /// Returns true if a certificate belongs to the attestation key of this folder. For a service
    /// the TPM must also have the key, because the user of the service can write the file.
    pub(crate) fn has_attestation_key_of(
        &self,
        certificate: &Certificate,
    ) -> Result<bool, StoreError> {
        let Some(kept) = self.folder.attestation_key()? else {
            return Ok(false);
        };
        let area = PublicArea::parse(kept.key.area());
        let is_for =
            |area: PublicArea| area.attests() && Some(area.key) == certificate.public_key();
        match area.is_some_and(is_for) {
            true if self.is_service => self.usable_attestation_key(kept).map(|_| true),
            is_for => Ok(is_for),
        }
    }

    /// Stores the certificates that a CA issued for the attestation key.
    pub(crate) fn certify_attestation_key(
        &self,
        certificates: Vec<Certificate>,
    ) -> Result<(), StoreError> {
        Ok(self.folder.certify_attestation_key(certificates)?)
    }
}

fn aside(path: &Path) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".old");
    format!("mv -T {} {}", word(path), word(Path::new(&aside)))
}
