//! Keys of ours in persistent handles whose files were lost.

use super::IdentityError;
use super::device::Device;
use crate::key::{Curve, PublicKey};
use crate::store::devid::KeyInHandle;
use crate::tpm::{PublicArea, is_device_key};

/// A key of ours in a persistent handle, without a file in any token.
#[derive(Debug)]
pub(super) struct Orphan(pub(super) KeyInHandle);

impl Orphan {
    /// True if it has the kind of the device's own key; only its file could confirm this.
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
    /// All orphans, considering the files of all tokens.
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
