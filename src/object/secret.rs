//! Secret keys of a session (PKCS#11 3.0, section 4.10): agreed upon or brought. Whoever may reads
//! them, and those that are AES keys by their length unwrap others.

use super::{Object, ObjectKey, ObjectScope, allowed, unique_id};
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::{Algorithm, MECHANISMS, Mechanism};
use crate::mechanism::unwrap::AES_KEYS;
use crate::object::attribute::AttributeValue;
use cryptoki_sys::*;
use devid_core::store::folder::{ObjectAttributes, Usage, Use};
use devid_core::tpm::Secret;
use std::fmt;
use std::sync::Arc;

/// A secret key that a session keeps.
#[derive(Clone)]
pub(crate) struct SecretKey {
    pub(crate) name: String,
    pub(crate) described: ObjectAttributes,
    pub(crate) key_type: KeyType,
    pub(crate) value: Secret,
    pub(crate) sensitive: bool,
    pub(crate) extractable: bool,
    /// Whether the key that it comes from was so always, too; never of one that was brought.
    pub(crate) of_always_sensitive: bool,
    pub(crate) of_never_extractable: bool,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl SecretKey {
    /// Whether it unwraps others: its length is that of an AES key, and its owner wants it.
    fn unwraps(&self) -> bool {
        let wanted = |usage: Usage| usage.has(Use::Unwrap);
        AES_KEYS.contains(&self.value.len()) && self.described.usage.is_some_and(wanted)
    }

    pub(crate) fn object(self: &Arc<Self>) -> Object {
        let described = &self.described;
        let id = described.id.clone().unwrap_or_default();
        let value = match !self.sensitive && self.extractable {
            true => AttributeValue::Secret(self.value.clone()),
            false => AttributeValue::Sensitive,
        };
        let mut attributes = vec![
            (CKA_KEY_TYPE, AttributeValue::number(self.key_type.number())),
            (CKA_ID, AttributeValue::bytes(id)),
            (CKA_START_DATE, AttributeValue::some_date(described.start)),
            (CKA_END_DATE, AttributeValue::some_date(described.end)),
            (CKA_LOCAL, AttributeValue::flag(false)),
            (
                CKA_KEY_GEN_MECHANISM,
                AttributeValue::number(CK_UNAVAILABLE_INFORMATION),
            ),
            (CKA_SENSITIVE, AttributeValue::flag(self.sensitive)),
            (
                CKA_ALWAYS_SENSITIVE,
                AttributeValue::flag(self.of_always_sensitive && self.sensitive),
            ),
            (CKA_EXTRACTABLE, AttributeValue::flag(self.extractable)),
            (
                CKA_NEVER_EXTRACTABLE,
                AttributeValue::flag(self.of_never_extractable && !self.extractable),
            ),
            (
                CKA_VALUE_LEN,
                AttributeValue::number(self.value.len() as CK_ULONG),
            ),
            (CKA_VALUE, value),
        ];
        let allowed = allowed(described);
        let does = |row: &&Mechanism| match row.algorithm {
            Algorithm::Unwrap(_) => row.key_type == Some(KeyType::Aes) && self.unwraps(),
            Algorithm::Digest => self.extractable,
            _ => false,
        };
        let shown = MECHANISMS.iter().filter(does).map(|row| row.kind);
        let shown: Vec<_> = shown
            .filter(|kind| allowed.is_empty() || allowed.contains(kind))
            .collect();
        attributes.extend([
            (CKA_UNWRAP, AttributeValue::flag(self.unwraps())),
            (CKA_ALLOWED_MECHANISMS, AttributeValue::numbers(&shown)),
        ]);
        // Nothing else here works with it.
        let never = [
            CKA_ENCRYPT,
            CKA_DECRYPT,
            CKA_SIGN,
            CKA_VERIFY,
            CKA_WRAP,
            CKA_DERIVE,
            CKA_TRUSTED,
            CKA_WRAP_WITH_TRUSTED,
        ];
        attributes.extend(never.map(|kind| (kind, AttributeValue::flag(false))));
        let unique_id = unique_id(CKO_SECRET_KEY, &self.name);
        Object::new(
            CKO_SECRET_KEY,
            unique_id,
            described,
            ObjectScope::Session,
            attributes,
        )
        .with_key(ObjectKey::Secret(Arc::clone(self)))
    }
}
