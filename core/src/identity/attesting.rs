//! Finds the factory's attestation key (IAK). The key is in a persistent handle, or the TPM derives
//! it from a template of the TCG.

use super::{Device, FACTORY, IdentityError, Inventory};
use crate::key::PublicKey;
use crate::tpm::{AttestationKey, PublicArea, TpmError};
use crate::x509::Certificate;
use log::{info, warn};

impl AttestationKey {
    /// Returns the factory's attestation key and its certificates, or `None` if the TPM has no such
    /// key. Prefers a key in a handle to a key that must be derived. If `wanted` is given, returns
    /// only the key with this public key.
    ///
    /// # Errors
    ///
    /// Fails with the errors of the TPM.
    pub(crate) fn of_factory(
        device: &Device,
        inventory: &Inventory,
        wanted: Option<&PublicKey>,
    ) -> Result<Option<(Self, Vec<Certificate>)>, IdentityError> {
        let tpm = &device.tpm;
        let factory = inventory.entries.iter().filter(|one| one.token == FACTORY);
        let certified: Vec<_> = factory.filter(|one| one.attests).collect();
        for handle in device.factory_handles()? {
            let hint = device.config().identities.iter();
            let hint = hint.clone().find(|hint| hint.handle == Some(handle));
            let (area, resident) = match tpm.persistent_key(handle) {
                Err(TpmError::Response(_) | TpmError::Unsupported(_)) => continue,
                other => other?,
            };
            let Some(public) = PublicArea::parse(&area) else {
                continue;
            };
            let is_wanted = wanted.is_none_or(|wanted| *wanted == public.key);
            if !is_wanted || !public.attests() || !public.is_of_this_tpm() {
                continue;
            }
            // If an `[[identity]]` entry names the handle and no authorisation value, the value is
            // known to be empty.
            let is_open = hint.is_some_and(|hint| hint.auth.is_none());
            let Some(key) = Self::resident(&resident, &area, is_open) else {
                warn!(
                    "handle 0x{handle:08X} holds an attestation key that is not used: it needs an \
                     authorisation value, or a policy that the TCG does not define. If its value \
                     is empty, name the handle under [[identity]] without auth"
                );
                continue;
            };
            info!("the attestation key is in handle 0x{handle:08X}");
            let mut own = certified.iter();
            let own = own.find(|one| one.public.as_ref() == Some(&public.key));
            let chain = own.map(|one| inventory.chain(one)).transpose()?;
            return Ok(Some((key, chain.unwrap_or_default())));
        }
        for one in certified {
            let Some(public) = &one.public else {
                continue;
            };
            if wanted.is_some_and(|wanted| wanted != public) {
                continue;
            }
            if let Some((area, derived)) = tpm.find_attestation_primary(public)?
                && let Some(key) = Self::derived(derived, &area)
            {
                info!("the TPM derived the attestation key from a template of the TCG");
                return Ok(Some((key, inventory.chain(one)?)));
            }
            warn!(
                "{}: the TPM does not have the attestation key of this certificate",
                one.label
            );
        }
        Ok(None)
    }
}
