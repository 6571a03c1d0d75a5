//! The attestation key of a key folder: of the device's own, for a TPM whose factory gave it none, or of a
//! service.

use super::{DevidStore, StoreError};
use crate::shell::word;
use crate::store::folder::{AttestationKeyFile, AttestationKeyForm, Tss2Key, Tss2Kind};
use crate::tpm::{AttestationKey, PublicArea, TpmError, WrappedKey, name_of};
use crate::x509::Certificate;
use log::info;
use std::path::Path;

impl DevidStore {
    /// The attestation key of this folder, and its certificates; made if there is none: of a service in
    /// the owner hierarchy, else below the storage root key. Two commands for that, and more where the
    /// storage root key is made.
    ///
    /// # Errors
    ///
    /// The TPM does not load the stored key.
    pub(crate) fn attestation_key(&self) -> Result<(AttestationKey, Vec<Certificate>), StoreError> {
        let kept = match self.folder.attestation_key()? {
            Some(kept) => kept,
            None => self.made_attestation_key()?,
        };
        self.usable_attestation_key(kept)
    }

    /// The stored attestation key with its certificates; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`attestation_key`](Self::attestation_key).
    pub(crate) fn kept_attestation_key(
        &self,
    ) -> Result<Option<(AttestationKey, Vec<Certificate>)>, StoreError> {
        let kept = self.folder.attestation_key()?;
        kept.map(|kept| self.usable_attestation_key(kept))
            .transpose()
    }

    /// The stored attestation key with this TPM name; `None` if the stored key has another name. The TPM
    /// executes no command for a key with another name.
    ///
    /// # Errors
    ///
    /// Those of [`attestation_key`](Self::attestation_key).
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
                 exchanged, the key and its certificates are lost: {} sets the file aside, and the \
                 next evidence uses a new key",
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
                // A service's user writes this file, and root may use it with the owner's value.
                if !AttestationKey::is_template_of_owner(template, area) {
                    return Err(unfit("its template is not that of an attestation key"));
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
        let none = || unfit("its key is not an attestation key with an empty authorisation value");
        Ok((key.ok_or_else(none)?, kept.certificates))
    }

    fn made_attestation_key(&self) -> Result<AttestationKeyFile, StoreError> {
        // The folder must exist first: it holds the record of the storage root key and the key
        // itself.
        self.folder.begin(&self.first_serial()?)?;
        self.folder.check_room()?;
        let _turn = self.tpm.lock_new_key();
        // Another process may have stored one meanwhile.
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
                // Its first load is in a session that proves where it comes from.
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
        info!("{}: a new attestation key", path.display());
        Ok(kept)
    }

    /// True if a certificate is for the attestation key of this folder. For a service, whose user
    /// writes the file, the TPM must have the key.
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
