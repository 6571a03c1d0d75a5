//! The copy of the certificate `devid` in an NV index. The copy survives the loss of the disk.

use super::IdentityError;
use super::device::Device;
use crate::key::PublicKey;
use crate::tpm::{NvContent, TpmError};
use crate::x509::Certificate;

/// The content of the NV index for the copy of the certificate.
#[derive(Debug)]
pub(super) struct NvCopy {
    index: u32,
    /// True if devid defined the NV index, as its attributes show.
    pub(super) is_ours: bool,
    /// The certificate in the NV index, if the content is a certificate.
    pub(super) certificate: Option<Certificate>,
}

impl NvCopy {
    pub(super) fn place(&self) -> String {
        format!("NV index 0x{:08X}", self.index)
    }
}

impl Device {
    /// Reads the copy of the certificate from its NV index. Returns `None` if no index is
    /// configured, or if the index does not exist.
    pub(super) fn nv_copy(&self) -> Result<Option<NvCopy>, IdentityError> {
        let Some(index) = self.config.provision.nv_index else {
            return Ok(None);
        };
        // Only an index of another program needs the owner's value, and the content of such an
        // index does not matter.
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

    /// Returns the former key of the identity `devid`, if its file is still stored.
    fn former_own_key(&self) -> Option<PublicKey> {
        let read = self.token_contents(&self.own).ok()?;
        let own = read.entries.iter().find(|one| one.protected)?;
        let former = self.own.predecessor(&own.file).ok()??.key?;
        Some(former.public().clone())
    }

    /// Writes the copy of the certificate to its NV index. The copy may replace only a certificate
    /// for the current or the former key. Otherwise returns the reason why no copy was written. The
    /// index may hold the last trace of another identity.
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
                None => "holds data that are not a certificate".to_owned(),
            };
            let same_key = there.certificate.as_ref().is_some_and(|one| {
                let public = one.public_key();
                public.is_some()
                    && (public == certificate.public_key() || public == self.former_own_key())
            });
            if !there.is_ours || !same_key {
                let why = match (there.is_ours, &there.certificate) {
                    (true, Some(_)) => format!("{place} {whose}, which belongs to another key"),
                    (true, None) => format!("{place} {whose}"),
                    (false, _) => format!("{place} belongs to another program and {whose}"),
                };
                return Ok(Some(format!(
                    "{why}: no copy of the certificate was written to it. If no program needs the \
                     index, remove it with tpm2_nvundefine -C o 0x{index:08X}. Otherwise set \
                     nv_index to another index under [provision] in config.toml"
                )));
            }
        }
        let owner = self.own.owner_auth()?;
        match self.tpm.nv_store(index, certificate.der(), &owner) {
            Ok(()) => Ok(None),
            // A failure is only a note, because the identity is complete even without the copy.
            Err(error @ TpmError::OwnerAuth) => Ok(Some(format!(
                "NV index 0x{index:08X}: no copy of the certificate was written: {}",
                IdentityError::from(error)
            ))),
            Err(error @ (TpmError::Response(_) | TpmError::Unsupported(_))) => Ok(Some(format!(
                "NV index 0x{index:08X}: no copy of the certificate was written: {error}. Free NV \
                 memory in the TPM (devid doctor lists its content), or remove nv_index under \
                 [provision] from config.toml"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the reason why the certificate does not fit into an NV index, with the remedy.
    pub(super) fn copy_too_large(
        &self,
        certificate: &Certificate,
    ) -> Result<Option<String>, IdentityError> {
        let (size, most) = (certificate.der().len(), self.tpm.nv_index_max()?);
        Ok((size > most).then(|| {
            format!(
                "no copy of the certificate was written to NV memory: it has {size} bytes, but an \
                 index of this TPM holds at most {most}. Ask the CA to issue a smaller \
                 certificate, or remove nv_index under [provision] from config.toml"
            )
        }))
    }

    /// Removes the copy from its NV index, even if the copy is for another key. Does not remove an
    /// index of another program.
    pub(super) fn forget_copy(&self) -> Result<(), IdentityError> {
        if let Some(index) = self.config.provision.nv_index {
            self.tpm.nv_remove(index, &self.own.owner_auth()?)?;
        }
        Ok(())
    }
}
