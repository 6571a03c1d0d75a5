//! Secret keys that a session makes or imports (PKCS#11 3.0, sections 5.7.1 and 5.18.1), and the
//! search for the secret key of an operation.

use super::Session;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::table::Mechanism;
use crate::object::{Object, SecretKeyObject, session_name, unique_id};
use crate::session::objects::failed;
use crate::slot::session_objects::ObjectSource;
use crate::template::Template;
use crate::template::secret::SecretKeyTemplate;
use cryptoki_sys::CKO_SECRET_KEY;
use devid_core::store::SecretKey;
use devid_core::store::devid::StoreError;
use devid_core::tpm::{Secret, random_secret};
use log::warn;
use std::sync::Arc;

impl Session {
    /// Implements C_GenerateKey.
    pub(crate) fn generate_secret_key(
        &self,
        row: &'static Mechanism,
        template: &Template,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        let on_token = self.check_may_create(template)?;
        // A token without a key folder makes no keys, so it does not have this mechanism.
        let folder = self.slot.folder().map_err(|_| Error::MechanismInvalid)?;
        let (mut wanted, length) = SecretKeyTemplate::generated(row, template)?;
        self.apply_login_policy(template, &mut wanted.described)?;
        self.check_may_hold(wanted.described.private)?;
        if !on_token {
            let value = random_secret(length).map_err(|error| {
                warn!("nothing is changed: {error}");
                Error::RandomFailed
            })?;
            let always = (wanted.sensitive, !wanted.extractable);
            return Ok(self.keep_secret(wanted, value, true, always, mint));
        }
        let name =
            folder.generate_secret_key(wanted.key_type, length, wanted.sensitive, wanted.described);
        self.secret_key_handle(name, mint)
    }

    /// Implements C_CreateObject for a secret key.
    pub(super) fn create_secret_key(
        &self,
        template: &Template,
        mut wanted: SecretKeyTemplate,
        value: Secret,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        self.apply_login_policy(template, &mut wanted.described)?;
        self.check_may_hold(wanted.described.private)?;
        if !self.check_may_create(template)? {
            return Ok(self.keep_secret(wanted, value, false, (false, false), mint));
        }
        let folder = self.slot.folder()?;
        let name =
            folder.import_secret_key(wanted.key_type, &value, wanted.sensitive, wanted.described);
        self.secret_key_handle(name, mint)
    }

    fn secret_key_handle(
        &self,
        name: Result<String, StoreError>,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        self.handle_after(&unique_id(CKO_SECRET_KEY, &name.map_err(failed)?), mint)
    }

    /// Returns the secret key with this handle. Fails if the key cannot be used with the mechanism.
    pub(super) fn secret_key(
        &self,
        row: &Mechanism,
        key: ObjectHandle,
    ) -> Result<(Arc<Object>, Arc<SecretKey>), Error> {
        let object = self.key_object(key)?;
        let key = match object.secret() {
            Some(key) => Arc::clone(key),
            None if object.is_key() => return Err(Error::KeyTypeInconsistent),
            None => return Err(Error::KeyHandleInvalid),
        };
        match row.key_type.and_then(|one| one.secret()) == Some(key.key_type()) {
            true => Ok((object, key)),
            false => Err(Error::KeyTypeInconsistent),
        }
    }

    /// Makes a session object for a secret key. `local`: the token generated the key. `always`: the
    /// source of the key was always sensitive and never extractable.
    pub(crate) fn keep_secret(
        &self,
        wanted: SecretKeyTemplate,
        value: Secret,
        local: bool,
        always: (bool, bool),
        mint: &Mint,
    ) -> ObjectHandle {
        let readable = !wanted.sensitive && wanted.extractable;
        let made = SecretKeyObject {
            name: session_name(mint.object().0),
            described: wanted.described,
            key: Arc::new(SecretKey::in_memory(wanted.key_type, value, readable)),
            sensitive: wanted.sensitive,
            extractable: wanted.extractable,
            local,
            of_always_sensitive: always.0,
            of_never_extractable: always.1,
        };
        self.hold(ObjectSource::Secret(Arc::new(made)), mint)
    }
}
