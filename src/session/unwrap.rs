//! C_UnwrapKey (PKCS#11 3.0, section 5.18.4). An unwrapped private key is imported in the same way
//! as a key of C_CreateObject.
//!
//! Every error of the wrapped data has the same code and the same log line. If errors of the
//! padding, the checksum and the key differed, an attacker could use the unwrapping key as an
//! oracle. The log gives another reason only if the TPM refuses a valid key.

use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::encrypt::EncryptMechanism;
use crate::mechanism::unwrap::{AES_KEYS, AesWrap, UnwrapMechanism, UnwrapScheme};
use crate::object::Object;
use crate::session::Session;
use crate::template::Template;
use crate::template::private::{PrivateKeyTemplate, UnwrapTemplate};
use cryptoki_sys::CKA_PRIVATE;
use devid_core::store::devid::StoreError;
use devid_core::store::folder::Use;
use devid_core::store::longest_message;
use devid_core::tpm::Secret;
use log::warn;

impl Session {
    /// Implements C_UnwrapKey. Returns the handle of the new private key.
    pub(crate) fn unwrap(
        &self,
        mechanism: &UnwrapMechanism,
        key: ObjectHandle,
        wrapped: Option<&[u8]>,
        template: &Template,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        self.check_may_create(template)?;
        // A token without a key folder imports no keys, so it does not have this mechanism.
        self.slot.folder().map_err(|_| Error::MechanismInvalid)?;
        let wanted = UnwrapTemplate::parse(template)?;
        self.check_may_hold(template.flag_or_false(CKA_PRIVATE)?)?;
        let key = self.slot.object(key).map_err(|error| match error {
            Error::ObjectHandleInvalid => Error::UnwrappingKeyHandleInvalid,
            other => other,
        })?;
        check_key(mechanism, &key)?;
        let wrapped = wrapped.ok_or(Error::ArgumentsBad("pWrappedKey is NULL"))?;
        let taken = self.unwrap_by(mechanism, &key, wrapped, &wanted, template, mint);
        if let Some(audit) = &self.slot.audit {
            self.note_use(audit, &key, mechanism.row, &taken);
        }
        taken
    }

    /// Unwraps the private key with an unwrapping key that was already checked.
    fn unwrap_by(
        &self,
        mechanism: &UnwrapMechanism,
        key: &Object,
        wrapped: &[u8],
        wanted: &UnwrapTemplate,
        template: &Template,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        let info = match &mechanism.scheme {
            UnwrapScheme::Aes(aes) => {
                aes.check_length(wrapped.len())?;
                let secret = key.secret().ok_or(other_kind(key))?;
                aes.unwrap_key(&self.slot.open_secret_key(secret)?, wrapped)
            }
            UnwrapScheme::RsaAes { key: bytes, oaep } => {
                self.unwrap_by_rsa(*bytes, oaep, key, wrapped)?
            }
        };
        let private = info.and_then(|info| wanted.private(&info));
        let private = match private {
            Some(private) => PrivateKeyTemplate::new(private, None, template)?,
            None => {
                warn!(
                    "unwrapping: the wrapped data holds no private key of the requested type for this unwrapping key"
                );
                return Err(Error::WrappedKeyInvalid);
            }
        };
        let taken = self.import(template, &private, mint);
        taken.map_err(|error| match error {
            Error::Store(
                StoreError::BadKey(_) | StoreError::Unsupported(_) | StoreError::NoCurve(_),
            ) => Error::WrappedKeyInvalid,
            other => other,
        })
    }

    /// Unwraps data that starts with an AES key of `bytes` bytes, encrypted by RSA. Fails if the
    /// data has a wrong length. Returns `None` for every other error of the data.
    fn unwrap_by_rsa(
        &self,
        bytes: usize,
        oaep: &EncryptMechanism,
        object: &Object,
        wrapped: &[u8],
    ) -> Result<Option<Secret>, Error> {
        let key = object.private();
        let key = key.ok_or(Error::UnwrappingKeyTypeInconsistent)?;
        let (front, rest) = wrapped
            .split_at_checked(key.public().signature_width())
            .ok_or(Error::WrappedKeyLenRange(wrapped.len()))?;
        AesWrap::Kwp
            .check_length(rest.len())
            .map_err(|_| Error::WrappedKeyLenRange(wrapped.len()))?;
        let aes = self.slot.transport_key(key, oaep.request(), front)?;
        let aes = aes.filter(|aes| aes.len() == bytes);
        Ok(aes.and_then(|aes| AesWrap::Kwp.unwrap_key(&aes, rest)))
    }
}

/// Checks that the unwrapping key has the right type for the mechanism, and that the key allows the
/// mechanism.
fn check_key(mechanism: &UnwrapMechanism, object: &Object) -> Result<(), Error> {
    match &mechanism.scheme {
        UnwrapScheme::Aes(_) => {
            let secret = object.secret().ok_or(other_kind(object))?;
            if !AES_KEYS.contains(&secret.length()) {
                return Err(Error::UnwrappingKeySizeRange);
            }
        }
        UnwrapScheme::RsaAes { key: bytes, oaep } => {
            let key = object.private().ok_or(other_kind(object))?;
            if !mechanism.row.takes_key(key.public()) {
                return Err(Error::UnwrappingKeyTypeInconsistent);
            }
            if longest_message(key.public(), oaep.request()) < Some(*bytes) {
                return Err(Error::UnwrappingKeySizeRange);
            }
        }
    }
    object.check_use(Use::Unwrap, mechanism.row.kind)
}

/// Returns the error for an object that this mechanism cannot use as an unwrapping key.
fn other_kind(object: &Object) -> Error {
    match object.private().is_some() || object.secret().is_some() {
        true => Error::UnwrappingKeyTypeInconsistent,
        false => Error::UnwrappingKeyHandleInvalid,
    }
}
