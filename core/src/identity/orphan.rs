//! Device keys in persistent handles that no file of a key folder names.

use super::IdentityError;
use super::device::Device;
use crate::key::{Curve, PublicKey};
use crate::store::devid::KeyInHandle;
use crate::tpm::{PublicArea, is_device_key};

/// A device key in a persistent handle that no file of any token names.
#[derive(Debug)]
pub(super) struct Orphan(pub(super) KeyInHandle);

impl Orphan {
    /// Returns true if the key has the type of the key `devid`. Only the missing file could confirm
    /// that it is this key.
    pub(super) fn could_be_identity(&self) -> bool {
        let is_p256 = |key: &PublicKey| {
            let PublicKey::Ec { curve, .. } = key else {
                return false;
            };
            *curve == Curve::P256
        };
        let area = PublicArea::parse(&self.0.area);
        let fits = |area: &PublicArea| is_p256(&area.key) && area.signs() && !area.decrypts();
        is_device_key(&self.0.area) && area.as_ref().is_some_and(fits)
    }
}

impl Device {
    /// Returns the device keys that no file of any token names.
    pub(super) fn orphans(&self) -> Result<Vec<Orphan>, IdentityError> {
        let mut filed = Vec::new();
        for store in self.stores() {
            filed.extend(store.wrapped_names()?);
        }
        let there = self.own.keys_in_handles()?.into_iter();
        let lost = there.filter(|key| !filed.contains(&key.name));
        Ok(lost.map(Orphan).collect())
    }
}
