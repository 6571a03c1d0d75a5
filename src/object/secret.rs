//! Secret key objects of a session or of the token (PKCS#11 3.0, section 4.10). The value of a
//! session's key is readable if its template allows that. The value of a token's key is never
//! readable.

use super::{Object, ObjectKey, ObjectScope, allowed, unique_id};
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::{Algorithm, MECHANISMS, Mechanism};
use crate::mechanism::unwrap::AES_KEYS;
use crate::object::attribute::{Attributes, attribute_of};
use cryptoki_sys::*;
use devid_core::store::SecretKey;
use devid_core::store::folder::{KeyOrigin, ObjectAttributes, Use};
use devid_core::tpm::Secret;
use std::sync::Arc;

/// A secret key and the attributes of its object.
#[derive(Debug, Clone)]
pub(crate) struct SecretKeyObject {
    pub(crate) name: String,
    pub(crate) described: ObjectAttributes,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) sensitive: bool,
    pub(crate) extractable: bool,
    /// True if C_GenerateKey made the key (CKA_LOCAL).
    pub(crate) local: bool,
    /// True if the key and its source were always sensitive. False for an imported key.
    pub(crate) of_always_sensitive: bool,
    pub(crate) of_never_extractable: bool,
}

impl SecretKeyObject {
    /// Makes the object of a secret key that the token stores.
    pub(super) fn stored(
        name: &str,
        key: &Arc<SecretKey>,
        origin: KeyOrigin,
        described: ObjectAttributes,
    ) -> Self {
        let local = origin == KeyOrigin::Generated;
        Self {
            name: name.into(),
            described,
            key: Arc::clone(key),
            sensitive: key.is_sensitive(),
            extractable: false,
            local,
            of_always_sensitive: local,
            of_never_extractable: local,
        }
    }

    fn key_type(&self) -> KeyType {
        KeyType::of_secret(self.key.key_type())
    }

    /// Returns true if the key has this use. Its type and length must allow the use, and its
    /// template must ask for the use.
    fn has(&self, one: Use) -> bool {
        let possible = self.key_type().secret_uses().contains(&one)
            && (one != Use::Unwrap || AES_KEYS.contains(&self.key.length()))
            && self.key.obstacle().is_none();
        // CKA_UNWRAP is the only use that is false by default.
        let unnamed = one != Use::Unwrap;
        let usage = self.described.usage;
        possible && usage.map_or(unnamed, |usage| usage.has(one))
    }

    /// Returns true if the mechanism can use this secret key.
    fn does(&self, row: &Mechanism) -> bool {
        let is_for = row.key_type == Some(self.key_type());
        match row.algorithm {
            Algorithm::Cipher(_) => is_for && (self.has(Use::Encrypt) || self.has(Use::Decrypt)),
            Algorithm::Mac => is_for && (self.has(Use::Sign) || self.has(Use::Verify)),
            Algorithm::Unwrap(_) => row.key_type == Some(KeyType::Aes) && self.has(Use::Unwrap),
            Algorithm::Digest => self.extractable,
            _ => false,
        }
    }

    pub(crate) fn object(&self, scope: ObjectScope) -> Object {
        let described = &self.described;
        let readable = !self.sensitive && self.extractable;
        let value = self.key.bytes_in_memory().filter(|_| readable);
        let generator = MECHANISMS.iter().find(|row| {
            row.algorithm == Algorithm::GenerateKey && row.key_type == Some(self.key_type())
        });
        let made_by = generator.filter(|_| self.local).map(|row| row.kind);
        let allowed = allowed(described);
        let shown = MECHANISMS.iter().filter(|row| self.does(row));
        let shown = shown
            .map(|row| row.kind)
            .filter(|kind| allowed.is_empty() || allowed.contains(kind));
        let shown: Vec<_> = shown.collect();
        let uses = [
            Use::Encrypt,
            Use::Decrypt,
            Use::Sign,
            Use::Verify,
            Use::Wrap,
            Use::Unwrap,
            Use::Derive,
        ];
        let more = |them: &mut Attributes| {
            them.number(CKA_KEY_TYPE, self.key_type().number());
            them.bytes(CKA_ID, described.id.as_deref().unwrap_or_default());
            them.date(CKA_START_DATE, described.start);
            them.date(CKA_END_DATE, described.end);
            them.flag(CKA_LOCAL, self.local);
            let made_by = made_by.unwrap_or(CK_UNAVAILABLE_INFORMATION);
            them.number(CKA_KEY_GEN_MECHANISM, made_by);
            them.flag(CKA_SENSITIVE, self.sensitive);
            let always_sensitive = self.of_always_sensitive && self.sensitive;
            them.flag(CKA_ALWAYS_SENSITIVE, always_sensitive);
            them.flag(CKA_EXTRACTABLE, self.extractable);
            let never_extractable = self.of_never_extractable && !self.extractable;
            them.flag(CKA_NEVER_EXTRACTABLE, never_extractable);
            them.number(CKA_VALUE_LEN, self.key.length() as CK_ULONG);
            match value {
                Some(value) => them.secret(CKA_VALUE, Secret::new(value.to_vec())),
                None => them.sensitive(CKA_VALUE),
            }
            them.numbers(CKA_ALLOWED_MECHANISMS, &shown);
            for one in uses {
                them.flag(attribute_of(one), self.has(one));
            }
            them.flag(CKA_TRUSTED, false);
            them.flag(CKA_WRAP_WITH_TRUSTED, false);
        };
        let (unique_id, is_private) = (unique_id(CKO_SECRET_KEY, &self.name), described.private);
        Object::new(
            CKO_SECRET_KEY,
            &unique_id,
            described,
            is_private,
            scope,
            more,
        )
        .with_key(ObjectKey::Secret(Arc::clone(&self.key), allowed))
    }
}
