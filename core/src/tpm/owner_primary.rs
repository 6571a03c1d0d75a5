//! Attestation keys of services: primary keys of the owner hierarchy. Each key has its own template
//! with random bytes, so nothing links two keys. In the data that an attestation key signs, the TPM
//! obfuscates its firmware version and its restart counters. The obfuscation differs for each key
//! (Part 1, section 36.7).

use super::attestation::{KINDS, first_kind};
use super::exchange::Exchange;
use super::storage::by_owner;
use super::{Auth, AuthHandle, AuthValue, Link, SaltKey, Tpm, TpmError, flush, name_of, template};
use crate::tpm::random_secret;

/// A primary key of the owner hierarchy, described by its template.
#[derive(Debug)]
pub(crate) struct OwnerPrimary {
    template: Vec<u8>,
    area: Vec<u8>,
    name: Vec<u8>,
    owner: AuthValue,
    salt_key: Option<SaltKey>,
}

/// The number of random bytes in the field `unique` of a template.
const UNIQUE: usize = 32;

/// Returns true if a template is that of an attestation key in the owner hierarchy. The field
/// `unique` may have any value.
pub(super) fn is_template(template: &[u8]) -> bool {
    KINDS.iter().any(|(algorithm, scheme)| {
        let made = |unique| template::primary_attestation_key(*algorithm, *scheme, unique);
        template.windows(UNIQUE).any(|unique| {
            unique
                .try_into()
                .is_ok_and(|unique| made(unique).as_deref() == Some(template))
        })
    })
}

impl OwnerPrimary {
    /// Returns the TPMT_PUBLIC of the key as the TPM returned it.
    pub(crate) fn area(&self) -> &[u8] {
        &self.area
    }

    /// Returns the template (a TPMT_PUBLIC) from which the TPM derives the key.
    pub(crate) fn template(&self) -> &[u8] {
        &self.template
    }

    /// Derives the key. Returns a transient handle, which the caller must flush. Sends one command.
    pub(super) fn load(&self, link: &mut Link) -> Result<u32, TpmError> {
        let auth = Auth::by(self.owner.as_bytes(), self.salt_key.as_ref());
        let made = by_owner(link.create_primary(AuthHandle::owner(auth), &self.template));
        let (handle, _, name) = made?;
        if name != self.name {
            flush(link, handle, &Ok(()));
            return Err(TpmError::SeedChanged);
        }
        Ok(handle)
    }
}

impl Tpm {
    /// Makes a new attestation key in the owner hierarchy. The key is on P-256, or RSA-2048 if the
    /// TPM lacks P-256. Sends two commands.
    ///
    /// # Errors
    ///
    /// Fails if the owner's authorisation value is wrong, or if the TPM lacks P-256 and RSA-2048.
    pub(crate) fn create_owner_attestation_key(
        &self,
        owner: &AuthValue,
    ) -> Result<OwnerPrimary, TpmError> {
        let salt_key = self.salt_key_for(owner)?;
        let mut unique = [0; UNIQUE];
        unique.copy_from_slice(&random_secret(UNIQUE)?);
        let (template, area) = first_kind(|algorithm, scheme| {
            let template = template::primary_attestation_key(algorithm, scheme, &unique)?;
            let making = Exchange::new("CreatePrimary")
                .needing_object_slot()
                .showing_owner(owner);
            let made = making.run(self, |link| {
                let auth = Auth::by(owner.as_bytes(), salt_key.as_ref());
                let made = by_owner(link.create_primary(AuthHandle::owner(auth), &template));
                let (handle, area, _) = made?;
                flush(link, handle, &Ok(()));
                Ok(area)
            });
            Some(made.map(|area| (template, area)))
        })?;
        self.owner_attestation_key(template, area, owner)
    }

    /// Returns an attestation key that was made before, from its template.
    ///
    /// # Errors
    ///
    /// Fails if the TPM has no key for the salt of the session that proves the owner's
    /// authorisation value.
    pub(crate) fn owner_attestation_key(
        &self,
        template: Vec<u8>,
        area: Vec<u8>,
        owner: &AuthValue,
    ) -> Result<OwnerPrimary, TpmError> {
        let name = name_of(&area);
        let name = name.ok_or_else(|| {
            TpmError::Unsupported("the public area of the attestation key has no valid name".into())
        })?;
        // If a process is killed, a later process finds the key by this name and flushes it.
        self.register_flushable(&name);
        Ok(OwnerPrimary {
            template,
            area,
            name,
            owner: owner.clone(),
            salt_key: self.salt_key_for(owner)?,
        })
    }

    /// Checks that the TPM still derives this key. Sends two commands.
    ///
    /// # Errors
    ///
    /// [`TpmError::SeedChanged`] if the TPM derives another key: it was cleared, or is another TPM.
    pub(crate) fn check_gives(&self, key: &OwnerPrimary) -> Result<(), TpmError> {
        let loading = Exchange::new("CreatePrimary")
            .needing_object_slot()
            .showing_owner(&key.owner);
        loading.run(self, |link| {
            let handle = key.load(link)?;
            flush(link, handle, &Ok(()));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_with_another_field_is_refused() {
        for (algorithm, scheme) in KINDS {
            let template = template::primary_attestation_key(algorithm, scheme, &[0xA5; UNIQUE]);
            let template = template.expect("a template");
            assert!(is_template(&template));
            for at in 0..template.len() {
                let mut changed = template.clone();
                changed[at] ^= 1;
                let in_unique = template[at] == 0xA5;
                assert_eq!(is_template(&changed), in_unique, "byte {at}");
            }
            assert!(!is_template(&template[1..]));
            assert!(!is_template(&[&template[..], &[0]].concat()));
        }
        assert!(!is_template(&[]));
    }
}
