//! Chooses the key that attests: the factory's IAK, else an attestation key of the device's own.

use crate::identity::{Device, IdentityError, Inventory};
use crate::tpm::AttestationKey;
use crate::x509::Certificate;

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
        match Self::of_factory(device, inventory, None)? {
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
        let factory = Self::of_factory(device, inventory, None)?;
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
}
