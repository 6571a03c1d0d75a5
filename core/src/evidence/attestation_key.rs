//! Chooses the key that attests: the factory's IAK, else an attestation key of the device's own.

use crate::identity::{Device, FACTORY, IdentityError, Inventory};
use crate::tpm::{AttestationKey, PublicArea, TpmError};
use crate::x509::Certificate;
use log::{info, warn};

impl AttestationKey {
    /// The attestation key of a device, and its certificates. The device takes the first key that
    /// exists, in this order:
    ///
    /// - a key in a handle of `[[identity]]`;
    /// - the factory's key in a handle of the TCG's range;
    /// - the factory's key, made again from its certificate and a template;
    /// - the device's own key, which is made if there is none.
    pub(super) fn of_device(
        device: &Device,
        inventory: &Inventory,
    ) -> Result<(Self, Vec<Certificate>), IdentityError> {
        match Self::of_factory(device, inventory)? {
            Some(found) => Ok(found),
            None => Ok(device.own.attestation_key()?),
        }
    }

    /// The attestation key with this TPM name, for a caller that knows the name.
    pub(super) fn called(
        device: &Device,
        inventory: &Inventory,
        name: &[u8],
    ) -> Result<Self, IdentityError> {
        let factory = Self::of_factory(device, inventory)?;
        if let Some((key, _)) = factory.filter(|(key, _)| key.name() == name) {
            return Ok(key);
        }
        let own = device.own.kept_attestation_key()?;
        match own.filter(|(key, _)| key.name() == name) {
            Some((key, _)) => Ok(key),
            None => Err(IdentityError::refused(format!(
                "the challenge is for an attestation key with the TPM name {}, and this device \
                 has no such key: it was made for another device, or for a key that a factory \
                 reset removed. Make new evidence with devid attest, and have the CA make a \
                 challenge for that evidence",
                crate::key::hex(name)
            ))),
        }
    }

    fn of_factory(
        device: &Device,
        inventory: &Inventory,
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
            if !public.attests() || !public.is_of_this_tpm() {
                continue;
            }
            // If the configuration names the handle without a value, the value is empty.
            let is_open = hint.is_some_and(|hint| hint.auth.is_none());
            let Some(key) = Self::resident(&resident, &area, is_open) else {
                warn!(
                    "handle 0x{handle:08X} holds an attestation key that is used only by an authorisation \
                     value, or by a policy that is none of the TCG's: it is not tried"
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
            if let Some((area, derived)) = tpm.find_attestation_primary(public)?
                && let Some(key) = Self::derived(derived, &area)
            {
                info!("the attestation key is derived from a TCG template");
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
