//! C_DeriveKey (PKCS#11 3.0, section 5.18.5): a secret key of the session.

use super::Session;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::derive::DeriveMechanism;
use crate::object::{SecretKeyObject, session_name};
use crate::slot::session_objects::ObjectSource;
use crate::template::secret::SecretKeyTemplate;
use crate::template::{Template, point_on};
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::store::SecretKey;
use devid_core::store::folder::Use;
use devid_core::tpm::Secret;
use std::sync::Arc;

impl Session {
    /// C_DeriveKey: a secret key of this session.
    pub(crate) fn derive(
        &self,
        mechanism: &DeriveMechanism,
        base: ObjectHandle,
        template: &Template,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        self.check_may_create(template)?;
        let object = self.key_object(base)?;
        let key = object.private_key()?;
        let PublicKey::Ec { curve, .. } = key.public() else {
            return Err(Error::KeyTypeInconsistent);
        };
        object.check_use(Use::Derive, mechanism.row.kind)?;
        let mut wanted = SecretKeyTemplate::without_value(template)?;
        // As the key that it comes from, unless the template says otherwise.
        if template.value(CKA_PRIVATE).is_none() {
            wanted.described.private = object.has_flag(CKA_PRIVATE);
        }
        self.check_may_hold(wanted.described.private)?;
        let length = mechanism.derived_key_length(*curve, wanted.length)?;
        let Some(PublicKey::Ec { point, .. }) = point_on(*curve, &mechanism.public) else {
            return Err(Error::MechanismParamInvalid);
        };
        let secret = self.slot.agree(key, &point)?;
        let value = mechanism.key(&secret, length);
        let always = (
            object.has_flag(CKA_ALWAYS_SENSITIVE),
            object.has_flag(CKA_NEVER_EXTRACTABLE),
        );
        Ok(self.keep_secret(wanted, value, always, mint))
    }

    /// Keeps a secret key. `always`: whether what it comes from was always sensitive, and never
    /// extractable.
    pub(crate) fn keep_secret(
        &self,
        wanted: SecretKeyTemplate,
        value: Secret,
        always: (bool, bool),
        mint: &Mint,
    ) -> ObjectHandle {
        let readable = !wanted.sensitive && wanted.extractable;
        let key = SecretKey::in_memory(wanted.key_type, value, readable);
        self.keep_secret_key(wanted, key, false, always, mint)
    }

    /// The same of a key whose bytes are where they are to be. `local`: it was generated here.
    pub(crate) fn keep_secret_key(
        &self,
        wanted: SecretKeyTemplate,
        key: SecretKey,
        local: bool,
        always: (bool, bool),
        mint: &Mint,
    ) -> ObjectHandle {
        let made = SecretKeyObject {
            name: session_name(mint.object().0),
            described: wanted.described,
            key: Arc::new(key),
            sensitive: wanted.sensitive,
            extractable: wanted.extractable,
            local,
            of_always_sensitive: always.0,
            of_never_extractable: always.1,
        };
        let handle = mint.object();
        let source = ObjectSource::Secret(Arc::new(made));
        self.slot
            .session_objects
            .lock()
            .insert(self.handle, handle, source);
        handle
    }
}
