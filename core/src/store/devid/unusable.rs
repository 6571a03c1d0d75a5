//! Finds keys that cannot be used although their files look valid.

use super::{DevidStore, StoreError};
use crate::store::listing::ObjectKind;
use crate::store::{Key, ScanError, SignError, unloadable};
use crate::tpm::{Obstacle, TpmError};
use std::fmt;

/// A key that cannot be used, for example because the TPM does not load its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableKey {
    /// The name of the key's file, without `.pem`.
    pub name: String,
    /// The reason why the key cannot be used, with the path of the file.
    pub why: String,
    /// True if the TPM rejects the content of the file.
    pub is_damaged: bool,
}

impl DevidStore {
    /// Returns the unusable keys, sorted by name. If the TPM answers, it loads each key from its
    /// file. This costs two commands for each key. The commands do not count towards lockout.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub fn unusable_keys(&self) -> Result<Vec<UnusableKey>, StoreError> {
        let listing = match self.scan() {
            Ok(listing) => listing,
            Err(ScanError::Tpm(error)) => return Err(error.into()),
            Err(ScanError::Folder(_) | ScanError::Unread(_) | ScanError::NoIdentity(_)) => {
                return Ok(Vec::new());
            }
        };
        let mut found = Vec::new();
        for shown in &listing.objects {
            let file = self.file(&shown.name);
            let of_file = |why: &dyn fmt::Display| format!("{}: {why}", file.display());
            let (obstacle, checked) = match &shown.kind {
                // The key was created below a lost master key. Only its handle still has the key,
                // so its file cannot be loaded.
                ObjectKind::Pair { key, .. } if self.lives_in_handle_alone(key) => continue,
                ObjectKind::Pair { key, .. } => (key.obstacle(), key.check_file(&self.tpm)),
                ObjectKind::SecretKey(key, ..) => (None, key.check_file(&self.tpm)),
                ObjectKind::Public(..) | ObjectKind::Certificate(..) | ObjectKind::Data(_) => {
                    continue;
                }
            };
            let (why, is_damaged) = match (obstacle, checked) {
                (Some(why), _) => (why, false),
                (None, Err(SignError::Tpm(TpmError::Unloadable(what)))) => (
                    of_file(&unloadable(&what)),
                    matches!(what.why, Obstacle::NotWrapped(_)),
                ),
                (None, Err(SignError::Refused(why))) => (of_file(&why), true),
                (None, _) => continue,
            };
            found.push(UnusableKey {
                name: shown.name.clone(),
                why,
                is_damaged,
            });
        }
        Ok(found)
    }

    /// Returns true if the TPM holds the key in its handle, and the parent was a former master key.
    pub fn lives_in_handle_alone(&self, key: &Key) -> bool {
        let (Some(handle), Some(name)) = (key.handle(), key.name()) else {
            return false;
        };
        if self.tpm.holds(handle, name) != Ok(true) {
            return false;
        }
        let names = self.master_names().unwrap_or_default();
        let there = self.tpm.name_at(self.master.handle).ok().flatten();
        let mut gone = names.iter().filter(|one| there.as_ref() != Some(*one));
        gone.any(|parent| match self.tpm.lay_below(parent, handle, name) {
            Ok(Some(lay_below)) => lay_below,
            // The TPM returns no qualified name. So the file of the key decides.
            Ok(None) => matches!(
                key.check_file(&self.tpm),
                Err(SignError::Tpm(TpmError::Unloadable(_)))
            ),
            Err(_) => false,
        })
    }
}
