//! C_DeriveKey (PKCS#11 3.0, section 5.18.5). The derived key is a secret key of the session.

use super::Session;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::derive::DeriveMechanism;
use crate::template::secret::SecretKeyTemplate;
use crate::template::{Template, point_on};
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::store::folder::Use;

impl Session {
    /// Implements C_DeriveKey. The new object is a secret key of this session.
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
        // By default the new key is private if its base key is private.
        if template.value(CKA_PRIVATE).is_none() {
            wanted.described.private = object.has_flag(CKA_PRIVATE);
        }
        self.check_may_hold(wanted.described.private)?;
        let length = mechanism.derived_key_length(*curve, wanted.length)?;
        let Some(PublicKey::Ec { point, .. }) = point_on(*curve, &mechanism.public) else {
            return Err(Error::MechanismParamInvalid);
        };
        let secret = self.slot.agree(key, &point);
        if let Some(audit) = &self.slot.audit {
            self.note_use(audit, &object, mechanism.row, &secret);
        }
        let secret = secret?;
        let value = mechanism.key(&secret, length);
        let always = (
            object.has_flag(CKA_ALWAYS_SENSITIVE),
            object.has_flag(CKA_NEVER_EXTRACTABLE),
        );
        Ok(self.keep_secret(wanted, value, false, always, mint))
    }
}
