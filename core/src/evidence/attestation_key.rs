//! Chooses the key that attests: the service's own; else the factory's IAK; else one of the device's own.

use crate::identity::{Device, IdentityError, Inventory, TokenEntry};
use crate::shell::argument;
use crate::tpm::AttestationKey;
use crate::x509::Certificate;
use log::warn;

/// The reader of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// Any verifier. Evidence of a service's key then names nothing of the device.
    #[default]
    Anybody,
    /// A CA that certifies the attestation key. The CA must know the TPM, so the evidence names it.
    Ca,
}

impl AttestationKey {
    /// The attestation key for the evidence of a key, and its certificates: the service's, if the key is in
    /// the token of one; else the device's.
    ///
    /// # Errors
    ///
    /// A service's has no certificate, and the evidence is not for the CA that gives it one.
    pub(super) fn of_entry(
        device: &Device,
        inventory: &Inventory,
        entry: &TokenEntry,
        audience: Audience,
    ) -> Result<(Self, Vec<Certificate>), IdentityError> {
        let Some(store) = device.service_of(entry) else {
            return Self::of_device(device, inventory);
        };
        let kept = match audience {
            Audience::Anybody => store.kept_attestation_key()?,
            Audience::Ca => return Ok(store.attestation_key()?),
        };
        match kept.filter(|(_, certificates)| !certificates.is_empty()) {
            Some(found) => Ok(found),
            None => Err(IdentityError::refused(format!(
                "{}: no CA has certified the attestation key of this service, so no verifier could trust its \
                 evidence. Make evidence for the CA with devid attest {} --to-ca. The CA answers with devid ca \
                 issue --attestation-key --for {}. Import the answer with devid import-cert",
                entry.label,
                argument(&format!("{}/{}", entry.token, entry.label)),
                argument(store.name()),
            ))),
        }
    }

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
        for store in device.attesting_stores() {
            match store.attestation_key_called(name) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {}
                // The folder of a service is no reason to fail for the others.
                Err(error) if store.is_service() => warn!("token {}: {error}", store.name()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::refused(format!(
            "the challenge is for an attestation key with the TPM name {}, and this device has no such \
             key: it was made for another device, or for a key that a factory reset removed. Make \
             new evidence with devid attest, and have the CA make a challenge for that evidence",
            crate::key::hex(name)
        )))
    }
}
