//! Derives the factory keys from templates, and makes them persistent.

use super::steps::{Step, StepState};
use super::{KeyPlace, KeyTemplate, Maker};
use crate::identity::{IdentityError, IdentityErrorKind};
use crate::key::PublicKey;
use crate::store::Key;
use crate::tpm::{
    AttestationKey, DevIdKind, PrimaryKey, PublicArea, TpmError, handle, template_name,
};
use crate::x509::Certificate;

/// A factory key in its persistent handle, with its public area and TPM name.
pub(super) struct ResidentKey {
    pub(super) area: PublicArea,
    pub(super) name: Vec<u8>,
    pub(super) key: Key,
}

impl Maker {
    /// Derives the factory keys from their templates, and makes them persistent. With `dry_run`,
    /// only returns the steps. Each key costs a key generation, and four commands to make it
    /// persistent.
    ///
    /// # Errors
    ///
    /// Fails with a refusal if the TPM holds another identity, or if a handle is in use.
    pub fn keys(
        &self,
        wanted: &[(KeyPlace, KeyTemplate)],
        dry_run: bool,
    ) -> Result<Vec<Step>, IdentityError> {
        let derived = wanted
            .iter()
            .map(|(place, template)| self.derived(place, template))
            .collect::<Result<Vec<_>, _>>()?;
        let areas: Vec<_> = derived.iter().map(|(area, _)| area.key.clone()).collect();
        self.refuse_others(&areas)?;
        let mut missing = Vec::new();
        for ((place, _), (_, key)) in wanted.iter().zip(&derived) {
            missing.push(match self.tpm.name_at(place.handle)? {
                None => true,
                Some(name) if name == key.name() => false,
                Some(_) => return Err(self.occupied(place)),
            });
        }
        let mut steps = Vec::new();
        for (((place, _), (_, key)), is_missing) in wanted.iter().zip(&derived).zip(missing) {
            let state = match (is_missing, dry_run) {
                (false, _) => StepState::Already,
                (true, true) => StepState::Planned,
                (true, false) => {
                    self.persist(place, key)?;
                    StepState::Done
                }
            };
            steps.push(Step::persist(place, state));
        }
        Ok(steps)
    }

    fn derived(
        &self,
        place: &KeyPlace,
        template: &KeyTemplate,
    ) -> Result<(PublicArea, PrimaryKey), IdentityError> {
        let made = self
            .tpm
            .factory_key(place.kind, template.algorithm, template.label);
        made.map_err(|error| match error {
            TpmError::NeedsAuth(_) => TpmError::EndorsementAuth.into(),
            TpmError::Response(code) if code.is_unsupported_value() => {
                IdentityError::failed(format!(
                    "this TPM does not support this {} key ({:?}; it returned {code}); choose \
                     another template with --template",
                    place.called(),
                    template.algorithm
                ))
            }
            other => other.into(),
        })
    }

    fn persist(&self, place: &KeyPlace, key: &PrimaryKey) -> Result<(), IdentityError> {
        match self.tpm.persist_primary(key, place.handle, &self.owner) {
            Err(TpmError::KeyReplaced(_)) => Err(self.occupied(place)),
            // The connection failed after the TPM executed the command: the handle holds the key.
            Err(error)
                if error.is_transport_fault() && self.tpm.holds(place.handle, key.name())? =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn occupied(&self, place: &KeyPlace) -> IdentityError {
        IdentityError::refused(format!(
            "handle 0x{:08X} does not hold the {} key that this TPM derives from this template. \
             The handle was not changed, and nothing was written. The TPM already has an identity, \
             or its identity was made with another --template, --iak or --unique",
            place.handle,
            place.called()
        ))
    }

    /// Fails if the TPM has a factory key or certificate that does not belong to the keys `ours`.
    pub(super) fn refuse_others(&self, ours: &[PublicKey]) -> Result<(), IdentityError> {
        for handle in self.tpm.handles(*handle::DEVID_KEYS.start())? {
            if !handle::DEVID_KEYS.contains(&handle) {
                continue;
            }
            let (area, _) = match self.tpm.persistent_key(handle) {
                Err(TpmError::Response(_) | TpmError::Unsupported(_)) => continue,
                other => other?,
            };
            let Some(area) = PublicArea::parse(&area) else {
                continue;
            };
            let kinds = [DevIdKind::Identity, DevIdKind::Attestation];
            let is_factory_key = kinds.into_iter().any(|kind| area.is_factory_key(kind));
            if (is_factory_key || area.is_identity()) && !ours.contains(&area.key) {
                let called = template_name(area.as_bytes());
                return Err(IdentityError::refused(format!(
                    "handle 0x{handle:08X} holds the key of another identity ({}), so nothing was \
                     written",
                    called.unwrap_or_else(|| area.key.to_string())
                )));
            }
        }
        for index in self.tpm.handles(*handle::DEVID_CERTIFICATES.start())? {
            if !handle::DEVID_CERTIFICATES.contains(&index) {
                continue;
            }
            let Some(content) = self.tpm.open_nv(index)? else {
                continue;
            };
            for certificate in Certificate::read_all(&content).certificates {
                let key = certificate.public_key();
                if !certificate.is_ca() && !key.is_some_and(|key| ours.contains(&key)) {
                    return Err(IdentityError::refused(format!(
                        "NV index 0x{index:08X} holds a certificate of another identity ({}), so \
                         nothing was written",
                        certificate.subject()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Returns the factory key in the persistent handle of `place`.
    pub(super) fn resident(&self, place: &KeyPlace) -> Result<ResidentKey, IdentityError> {
        let missing = |what: &str| {
            IdentityError::new(
                IdentityErrorKind::NotFound,
                format!(
                    "handle 0x{:08X} holds {what}, but no {} key; run devid-manufacture keys",
                    place.handle,
                    place.called()
                ),
            )
        };
        let (area, resident) = match self.tpm.persistent_key(place.handle) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => {
                return Err(missing("nothing"));
            }
            other => other?,
        };
        let area = PublicArea::parse(&area);
        let area = area.filter(|area| area.is_factory_key(place.kind));
        let area = area.ok_or_else(|| missing("an object of another type"))?;
        Ok(ResidentKey {
            name: resident.name().to_vec(),
            key: Key::in_handle(resident, area.clone()),
            area,
        })
    }

    /// Returns the IAK in its persistent handle, ready to certify other keys (TPM2_Certify).
    pub(super) fn attestation_key(&self, iak: &KeyPlace) -> Result<AttestationKey, IdentityError> {
        let area = self.resident(iak)?.area;
        let (_, resident) = self.tpm.persistent_key(iak.handle)?;
        AttestationKey::resident(&resident, area.as_bytes(), false).ok_or_else(|| {
            IdentityError::failed(format!(
                "handle 0x{:08X}: this IAK cannot certify keys",
                iak.handle
            ))
        })
    }
}
