//! The copy of the own certificate in an NV index, which survives the loss of the disk.

use super::IdentityError;
use super::device::Device;
use crate::key::PublicKey;
use crate::tpm::{NvContent, TpmError};
use crate::x509::Certificate;

/// The content of the configured NV index.
#[derive(Debug)]
pub(super) struct NvCopy {
    index: u32,
    /// True if the index has our attributes.
    pub(super) is_ours: bool,
    /// The certificate in it, if its content is one.
    pub(super) certificate: Option<Certificate>,
}

impl NvCopy {
    pub(super) fn place(&self) -> String {
        format!("NV index 0x{:08X}", self.index)
    }
}

impl Device {
    /// `None` if no index is configured, or if the index is free.
    pub(super) fn nv_copy(&self) -> Result<Option<NvCopy>, IdentityError> {
        let Some(index) = self.config.provision.nv_index else {
            return Ok(None);
        };
        // Only a foreign index needs the owner's value, and then its content does not matter.
        let owner = self.own.owner_auth().unwrap_or_default();
        let (is_ours, bytes) = match self.tpm.nv_content(index, &owner)? {
            NvContent::Free => return Ok(None),
            NvContent::Ours(bytes) => (true, Some(bytes)),
            NvContent::Foreign(bytes) => (false, bytes),
        };
        let found = bytes.and_then(|bytes| Certificate::parse_all(&bytes).ok());
        Ok(Some(NvCopy {
            index,
            is_ours,
            certificate: found.and_then(|all| all.into_iter().next()),
        }))
    }

    /// The previous key of the device's own identity.
    fn former_own_key(&self) -> Option<PublicKey> {
        let read = self.token_contents(&self.own).ok()?;
        let own = read.entries.iter().find(|one| one.protected)?;
        let former = self.own.predecessor(&own.file).ok()??.key?;
        Some(former.public().clone())
    }

    /// Writes the copy. The copy may only replace a certificate for the same key or for the
    /// previous key. Otherwise returns the reason, since the index may hold the last trace of an
    /// identity.
    pub(super) fn keep_copy(
        &self,
        certificate: &Certificate,
    ) -> Result<Option<String>, IdentityError> {
        let Some(index) = self.config.provision.nv_index else {
            return Ok(None);
        };
        let there = self.nv_copy()?;
        let held = there.as_ref().and_then(|there| there.certificate.as_ref());
        if held == Some(certificate) {
            return Ok(None);
        }
        if let Some(why) = self.copy_too_large(certificate)? {
            return Ok(Some(why));
        }
        if let Some(there) = there {
            let place = there.place();
            let whose = match &there.certificate {
                Some(one) => format!("holds the certificate of {}", one.subject()),
                None => "holds something else".to_owned(),
            };
            let same_key = there.certificate.as_ref().is_some_and(|one| {
                let public = one.public_key();
                public.is_some()
                    && (public == certificate.public_key() || public == self.former_own_key())
            });
            if !there.is_ours || !same_key {
                let why = match (there.is_ours, &there.certificate) {
                    (true, Some(_)) => format!("{place} {whose}, which is for another key"),
                    (true, None) => format!("{place} {whose}"),
                    (false, _) => format!("{place} belongs to another program and {whose}"),
                };
                return Ok(Some(format!(
                    "{why}: no copy of the certificate is kept there. If no program needs it: \
                     tpm2_nvundefine -C o 0x{index:08X}; otherwise set another index with \
                     [provision] nv_index"
                )));
            }
        }
        let owner = self.own.owner_auth()?;
        match self.tpm.nv_store(index, certificate.der(), &owner) {
            Ok(()) => Ok(None),
            // The identity is complete without the copy.
            Err(error @ TpmError::OwnerAuth) => Ok(Some(format!(
                "NV index 0x{index:08X}: no copy of the certificate is kept there: {}",
                IdentityError::from(error)
            ))),
            Err(error @ (TpmError::Response(_) | TpmError::Unsupported(_))) => Ok(Some(format!(
                "NV index 0x{index:08X}: no copy of the certificate is kept there: {error}. Make \
                 room in the TPM (devid doctor lists what is in it), or remove nv_index from \
                 [provision] in config.toml"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// The reason why the certificate does not fit into an NV index, and the remedy.
    pub(super) fn copy_too_large(
        &self,
        certificate: &Certificate,
    ) -> Result<Option<String>, IdentityError> {
        let (size, most) = (certificate.der().len(), self.tpm.nv_index_max()?);
        Ok((size > most).then(|| {
            format!(
                "no copy of the certificate is kept in NV: it has {size} bytes, and an index of \
                 this TPM holds {most}. Have the CA issue a smaller one, or remove nv_index from \
                 [provision] in config.toml"
            )
        }))
    }

    /// Removes the copy, whatever its key; a foreign index stays.
    pub(super) fn forget_copy(&self) -> Result<(), IdentityError> {
        if let Some(index) = self.config.provision.nv_index {
            self.tpm.nv_remove(index, &self.own.owner_auth()?)?;
        }
        Ok(())
    }
}
