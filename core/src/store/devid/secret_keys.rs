//! Creates and imports secret keys.

use super::{DevidStore, OpenedBy, StoreError};
use crate::key::SecretKeyType;
use crate::store::SecretKey;
use crate::store::folder::{EntryContent, KeyOrigin, ObjectAttributes, SecretKeyFile};
use crate::tpm::{Secret, random_secret};

impl DevidStore {
    /// Creates a random secret key and stores it in the folder. Returns the name of the object. A
    /// private object needs a login if the token has a PIN.
    ///
    /// Costs two TPM commands: an auth session and TPM2_Create. Costs more if the token has no
    /// master key yet.
    ///
    /// # Errors
    ///
    /// After an error nothing is stored.
    pub fn generate_secret_key(
        &self,
        key_type: SecretKeyType,
        length: usize,
        sensitive: bool,
        description: ObjectAttributes,
    ) -> Result<String, StoreError> {
        let value = random_secret(length)?;
        let origin = KeyOrigin::Generated;
        self.keep_secret_key(key_type, &value, origin, sensitive, description)
    }

    /// Stores a secret key that the caller provides, as [`Self::generate_secret_key`] does.
    ///
    /// # Errors
    ///
    /// After an error nothing is stored.
    pub fn import_secret_key(
        &self,
        key_type: SecretKeyType,
        value: &Secret,
        sensitive: bool,
        description: ObjectAttributes,
    ) -> Result<String, StoreError> {
        let origin = KeyOrigin::Imported;
        self.keep_secret_key(key_type, value, origin, sensitive, description)
    }

    fn keep_secret_key(
        &self,
        key_type: SecretKeyType,
        value: &Secret,
        origin: KeyOrigin,
        sensitive: bool,
        description: ObjectAttributes,
    ) -> Result<String, StoreError> {
        if !key_type.takes(value.len()) {
            return Err(StoreError::BadKey(
                "the length is not a valid length of a key of this type".into(),
            ));
        }
        // A public object needs no login, even if the token has a PIN.
        let opened_by = match description.private {
            true => OpenedBy::User,
            false => OpenedBy::Anybody,
        };
        let (access, auth_value) = self.access_for_new_key(opened_by)?;
        let auth = access.kept();
        let has_value = auth.salt().is_some();
        let master = self.master_for_new_keys()?;
        let seal = |key: &Secret| {
            let sealed = self.tpm.seal(&master, &auth_value, key, false);
            sealed.map_err(StoreError::from)
        };
        let (seal, encrypted) = SecretKey::sealed(key_type, value, seal, has_value)?;
        self.folder.begin(&self.first_serial()?)?;
        if has_value {
            self.check_login()?;
        }
        let file = SecretKeyFile {
            key_type,
            seal,
            encrypted,
            auth,
            origin,
            sensitive,
            description,
        };
        Ok(self.folder.add(EntryContent::SecretKey(file))?.name)
    }
}
