//! The TPM's endorsement keys (TCG, EK Credential Profile for TPM 2.0).

use super::command::Hierarchy;
use super::root::is_answer;
pub(super) use super::structures::endorsement::CERTIFICATES;
use super::structures::endorsement::{
    EndorsementTemplate, stored_template, template_indices, with_nonce,
};
use super::{AuthValue, KeyAlgorithm, SaltKey, Tpm, TpmError, handle};
use crate::key::PublicKey;
use log::warn;
use std::ops::RangeInclusive;

/// An endorsement key that the TPM has, in a handle or from a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementKey {
    salt_key: SaltKey,
    area: Vec<u8>,
}

impl EndorsementKey {
    /// Returns the endorsement key as a key for salts.
    pub(super) fn salt_key(&self) -> &SaltKey {
        &self.salt_key
    }

    /// Returns the TPMT_PUBLIC as the TPM gave it.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Returns the TPM name.
    pub fn name(&self) -> &[u8] {
        &self.salt_key.name
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.salt_key.public
    }
}

impl Tpm {
    /// Returns the TPM's endorsement key with this public key, from a handle or derived from a
    /// template. Returns `None` if the TPM has no such key. `index` is the NV index of the
    /// certificate. Each template that is tried costs a key generation.
    ///
    /// # Errors
    ///
    /// [`TpmError::EndorsementAuth`] if deriving keys needs an authorisation value.
    pub(crate) fn endorsement_key_of(
        &self,
        public: &PublicKey,
        index: Option<u32>,
    ) -> Result<Option<EndorsementKey>, TpmError> {
        let is_it = |key: EndorsementKey| Ok(Some(key).filter(|key| key.public() == public));
        self.first_endorsement_key(KeyAlgorithm::of(public), index, is_it)
    }

    /// Calls `look` for the endorsement keys of this algorithm: first those in handles, then those
    /// that templates give. Returns the first result that is not `None`. `index` is the NV index of
    /// the certificate.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::endorsement_key_of`] and of `look`.
    pub(crate) fn first_endorsement_key<R, E: From<TpmError>>(
        &self,
        algorithm: KeyAlgorithm,
        index: Option<u32>,
        mut look: impl FnMut(EndorsementKey) -> Result<Option<R>, E>,
    ) -> Result<Option<R>, E> {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut look = |key: EndorsementKey| {
            let is_new = KeyAlgorithm::of(key.public()) == algorithm && !seen.contains(&key.area);
            seen.push(key.area.clone());
            match is_new {
                true => look(key),
                false => Ok(None),
            }
        };
        for key in self.endorsement_keys_in_handles()? {
            if let Some(found) = look(key)? {
                return Ok(Some(found));
            }
        }
        let candidates = EndorsementTemplate::candidates(algorithm, index);
        let areas: Vec<_> = candidates.iter().map(|one| one.area()).collect();
        for area in areas.clone() {
            let derived = self.derived_endorsement_key(area)?;
            if let Some(found) = derived.map(&mut look).transpose()?.flatten() {
                return Ok(Some(found));
            }
        }
        for (certificate, template) in CERTIFICATES {
            if !candidates.contains(&template) || index.is_some_and(|index| index != certificate) {
                continue;
            }
            for area in self.stored_templates(certificate, &template.area())? {
                if areas.contains(&area) {
                    continue;
                }
                let derived = self.derived_endorsement_key(area)?;
                if let Some(found) = derived.map(&mut look).transpose()?.flatten() {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Returns the endorsement keys in persistent handles.
    pub(crate) fn endorsement_keys_in_handles(&self) -> Result<Vec<EndorsementKey>, TpmError> {
        self.storage_keys_in(handle::ENDORSEMENT_KEYS)
    }

    /// Returns the storage keys in the persistent handles of the platform hierarchy. If the
    /// manufacturer certified no endorsement key, these platform primary keys serve as endorsement
    /// keys (OpenConfig, enrollz).
    #[cfg(feature = "evidence")]
    pub(crate) fn platform_keys_in_handles(&self) -> Result<Vec<EndorsementKey>, TpmError> {
        self.storage_keys_in(handle::PLATFORM_OBJECTS)
    }

    fn storage_keys_in(&self, range: RangeInclusive<u32>) -> Result<Vec<EndorsementKey>, TpmError> {
        let mut found = Vec::new();
        for handle in self.handles(*range.start())? {
            if !range.contains(&handle) {
                continue;
            }
            let there = match self.public_at(handle) {
                Err(error) if is_answer(&error) => None,
                other => other?,
            };
            if let Some((area, _)) = there
                && let Some(salt_key) = SaltKey::from_area(handle, &area)
            {
                found.push(EndorsementKey { salt_key, area });
            }
        }
        Ok(found)
    }

    /// Returns the endorsement key of a TPM that has neither a certificate nor an endorsement key
    /// in a persistent handle. The TPM derives the key: P-256, or RSA-2048 if the TPM lacks P-256.
    #[cfg(feature = "evidence")]
    pub(crate) fn usual_endorsement_key(&self) -> Result<Option<EndorsementKey>, TpmError> {
        use crate::key::Curve;
        for algorithm in [KeyAlgorithm::Ec(Curve::P256), KeyAlgorithm::Rsa(2048)] {
            let area = EndorsementTemplate::low(algorithm).area();
            if let Some(key) = self.derived_endorsement_key(area)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Derives an endorsement key from this template. Returns `None` if the TPM cannot make such a
    /// key.
    fn derived_endorsement_key(&self, area: Vec<u8>) -> Result<Option<EndorsementKey>, TpmError> {
        match self.saved_primary(Hierarchy::Endorsement, area) {
            Ok((salt_key, area)) => Ok(Some(EndorsementKey { salt_key, area })),
            Err(TpmError::Response(code)) if code.is_wrong_auth() => Err(TpmError::EndorsementAuth),
            Err(TpmError::Response(code)) if code.is_definite() || code.is_parameter() => {
                warn!("the endorsement key cannot be derived: the TPM answered {code}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the templates for the certificate at this index. The result contains the template of
    /// the profile (`usual`) and the template that the TPM stores in NV. The result also contains
    /// both templates with each nonce in NV.
    fn stored_templates(&self, certificate: u32, usual: &[u8]) -> Result<Vec<Vec<u8>>, TpmError> {
        let mut templates = vec![usual.to_vec()];
        let mut nonces = Vec::new();
        for index in template_indices(certificate) {
            let Some(content) = self.open_nv(index)? else {
                continue;
            };
            match stored_template(&content) {
                Some(template) => templates.insert(0, template),
                None => nonces.push(content),
            }
        }
        let filled = |template: &Vec<u8>| {
            let mut all = nonces.iter();
            let all = all.by_ref().filter_map(|nonce| with_nonce(template, nonce));
            all.collect::<Vec<_>>()
        };
        let with_nonces: Vec<_> = templates.iter().flat_map(filled).collect();
        templates.extend(with_nonces);
        Ok(templates)
    }

    /// Reads an NV index that every user may read, or that the owner may read with the empty value.
    /// Returns `None` for any other index.
    pub(crate) fn open_nv(&self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let about = match self.nv_public(index) {
            Err(error) if is_answer(&error) => return Ok(None),
            other => other?,
        };
        self.nv_of_others(index, about, &AuthValue::default())
    }
}
