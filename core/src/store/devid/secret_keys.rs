//! Secret keys on their way into the folder.

use super::{DevidStore, StoreError};
use crate::key::SecretKeyType;
use crate::store::SecretKey;
use crate::store::folder::{Content, KeyOrigin, ObjectAttributes, SecretKeyFile};
use crate::tpm::{Secret, random_secret};

impl DevidStore {
    /// A new secret key of random bytes, kept in the folder. Gives the name of the object.
    ///
    /// Two commands, an auth session and TPM2_Create; more the very first time, when the token makes its
    /// master key.
    ///
    /// # Errors
    ///
    /// Nothing is kept then.
    pub fn generate_secret_key(
        &self,
        key_type: SecretKeyType,
        length: usize,
        description: ObjectAttributes,
    ) -> Result<String, StoreError> {
        let value = random_secret(length)?;
        self.keep_secret_key(key_type, &value, KeyOrigin::Generated, description)
    }

    /// Keeps a secret key that comes from outside, as [`Self::generate_secret_key`] does.
    ///
    /// # Errors
    ///
    /// Nothing is kept then.
    pub fn import_secret_key(
        &self,
        key_type: SecretKeyType,
        value: &Secret,
        description: ObjectAttributes,
    ) -> Result<String, StoreError> {
        self.keep_secret_key(key_type, value, KeyOrigin::Imported, description)
    }

    fn keep_secret_key(
        &self,
        key_type: SecretKeyType,
        value: &Secret,
        origin: KeyOrigin,
        description: ObjectAttributes,
    ) -> Result<String, StoreError> {
        if !key_type.takes(value.len()) {
            return Err(StoreError::BadKey(
                "no key of its type has this length".into(),
            ));
        }
        let (access, auth_value) = self.access_for_new_key()?;
        let auth = access.salt().map(<[u8]>::to_vec);
        let master = self.master_for_new_keys()?;
        let seal = |key: &Secret| {
            let sealed = self.tpm.seal(&master, &auth_value, key, false);
            sealed.map_err(StoreError::from)
        };
        let (seal, encrypted) = SecretKey::sealed(key_type, value, seal, auth.is_some())?;
        self.folder.begin(&self.first_serial()?)?;
        if auth.is_some() {
            self.check_login()?;
        }
        let file = SecretKeyFile {
            key_type,
            seal,
            encrypted,
            auth,
            origin,
            description,
        };
        Ok(self.folder.add(Content::SecretKey(file))?.name)
    }
}
