//! Chooses the key that signs evidence: the attestation key of the service, else the IAK of the
//! factory, else an attestation key that the device created.

use crate::identity::{Device, IdentityError, Inventory, TokenEntry};
use crate::shell::argument;
use crate::tpm::AttestationKey;
use crate::x509::Certificate;
use log::warn;

/// Who reads the evidence: any verifier, or the CA of the attestation key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// Any verifier. Evidence about a service's key then names nothing of the device.
    #[default]
    Anybody,
    /// A CA that certifies the attestation key. The CA must know the TPM, so the evidence names the
    /// TPM.
    Ca,
}

impl AttestationKey {
    /// Returns the attestation key for evidence about a key, and its certificates. For a key in the
    /// token of a service, this is the attestation key of the service. For other keys, this is the
    /// attestation key of the device.
    ///
    /// # Errors
    ///
    /// Fails if a service's attestation key has no certificate, and the evidence is not for the CA
    /// that certifies it.
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
                "{}: no CA has certified the attestation key of this service, so no verifier would \
                 trust its evidence. Make evidence for the CA with devid attest {} --to-ca. The CA \
                 answers with devid ca issue --attestation-key --for {}. Import the answer with \
                 devid import-cert",
                entry.label,
                argument(&format!("{}/{}", entry.token, entry.label)),
                argument(store.name()),
            ))),
        }
    }

    /// Returns the attestation key of a device, and its certificates. The device uses the first key
    /// that exists, in this order:
    ///
    /// - a key in a handle that `[[identity]]` names;
    /// - a key of the factory in a handle of the TCG's range;
    /// - a key of the factory that the TPM derives from a template and that has a certificate;
    /// - an attestation key that the device created. The device creates this key if no other
    ///   exists.
    pub(super) fn of_device(
        device: &Device,
        inventory: &Inventory,
    ) -> Result<(Self, Vec<Certificate>), IdentityError> {
        match Self::of_factory(device, inventory, None)? {
            Some(found) => Ok(found),
            None => Ok(device.own.attestation_key()?),
        }
    }

    /// Returns the attestation key of this device whose TPM name is `name`.
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
                // A damaged folder of a service must not affect other tokens.
                Err(error) if store.is_service() => warn!("token {}: {error}", store.name()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::refused(format!(
            "the challenge is for an attestation key with the TPM name {}, which this device does \
             not have: it was made for another device, or for a key that a factory reset removed. \
             Make new evidence with devid attest, and ask the CA for a challenge for that evidence",
            crate::key::hex(name)
        )))
    }
}
