//! Objects with all their attributes, as a session sees the objects (PKCS#11 3.0, chapter 4).
//!
//! Every object is made in two steps. A stored object or a session object becomes a draft. The
//! draft gets its handle from its token or its session.

pub(crate) mod attribute;
mod certificate;
mod key;
mod other;
mod secret;

use crate::error::Error;
use crate::object::attribute::{Attributes, attribute_of};
use cryptoki_sys::*;
use devid_core::key::{PublicKey, hex};
use devid_core::store::folder::{ObjectAttributes, Usage, Use, is_random};
use devid_core::store::{Key, ObjectKind, ObjectPart, SecretKey, StoredObject};
pub(crate) use other::profile;
pub(crate) use secret::SecretKeyObject;
use std::sync::Arc;

/// An object. Its attributes are encoded when the object is made, and not again.
#[derive(Debug)]
pub(crate) struct Object {
    attributes: Attributes,
    key: ObjectKey,
}

/// The key of an object, and its CKA_ALLOWED_MECHANISMS. If the list has entries, only these
/// mechanisms may use the key. An empty list allows all mechanisms.
#[derive(Debug)]
enum ObjectKey {
    None,
    Private(Arc<Key>, Vec<CK_MECHANISM_TYPE>),
    Public(PublicKey, Vec<CK_MECHANISM_TYPE>),
    Secret(Arc<SecretKey>, Vec<CK_MECHANISM_TYPE>),
}

/// Tells whether an object belongs to a token or to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectScope {
    /// On a token. `asks_login`: only a logged-in user sees private keys. `takes_keys`: the token
    /// imports private keys.
    Token { asks_login: bool, takes_keys: bool },
    /// The object belongs to a session. A secret key of a session can always unwrap keys, because
    /// its token imports private keys.
    Session,
}

impl ObjectScope {
    const fn asks_login(self) -> bool {
        matches!(self, Self::Token { asks_login, .. } if asks_login)
    }

    const fn takes_keys(self) -> bool {
        match self {
            Self::Token { takes_keys, .. } => takes_keys,
            Self::Session => true,
        }
    }
}

impl Object {
    /// Returns the PKCS#11 objects of a stored object. Each object comes with the part of the
    /// stored object that it shows.
    pub(crate) fn all(shown: &StoredObject, scope: ObjectScope) -> Vec<(ObjectPart, Self)> {
        let name = &shown.name;
        match &shown.kind {
            ObjectKind::Pair {
                key,
                origin,
                private,
                public,
            } => {
                let is_private = private.private || (scope.asks_login() && !key.is_for_everybody());
                let shared = key::PublicPart::new(key.public(), key::is_local(key, *origin));
                let public = public.as_ref().map(|described| {
                    let object = key::public_object(name, &shared, described, scope);
                    (ObjectPart::Public, object)
                });
                let private = key::private_object(name, key, &shared, private, is_private, scope);
                let mut objects = vec![(ObjectPart::Private, private)];
                objects.extend(public);
                objects
            }
            ObjectKind::SecretKey(key, origin, described) => {
                let hidden = ObjectAttributes {
                    private: described.private || (scope.asks_login() && !key.is_for_everybody()),
                    ..described.clone()
                };
                let secret = SecretKeyObject::stored(name, key, *origin, hidden);
                vec![(ObjectPart::Whole, secret.object(scope))]
            }
            ObjectKind::Public(public, described) => {
                let shared = key::PublicPart::new(public, false);
                let object = key::public_object(name, &shared, described, scope);
                vec![(ObjectPart::Whole, object)]
            }
            ObjectKind::Certificate(certificate, described) => {
                let object = certificate::object(name, certificate, described, scope);
                vec![(ObjectPart::Whole, object)]
            }
            ObjectKind::Data(data) => vec![(ObjectPart::Whole, other::data(name, data, scope))],
        }
    }

    /// Makes an object without key. `is_private` is CKA_PRIVATE. `more` adds the attributes that not
    /// every object has.
    fn new(
        class: CK_OBJECT_CLASS,
        unique_id: &str,
        described: &ObjectAttributes,
        is_private: bool,
        scope: ObjectScope,
        more: impl FnOnce(&mut Attributes),
    ) -> Self {
        // pkcs11-provider copies a token's keys if CKA_COPYABLE is true, and these copies block
        // pkcs11-provider after a fork.
        let is_key = [CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY].contains(&class);
        let is_copyable = described.copyable && !(is_key && scope != ObjectScope::Session);
        let mut attributes = Attributes::with_room();
        attributes.number(CKA_CLASS, class);
        attributes.flag(CKA_TOKEN, scope != ObjectScope::Session);
        attributes.flag(CKA_PRIVATE, is_private);
        attributes.flag(CKA_MODIFIABLE, described.modifiable);
        attributes.flag(CKA_COPYABLE, is_copyable);
        attributes.flag(CKA_DESTROYABLE, described.destroyable);
        attributes.text(CKA_LABEL, &described.label);
        attributes.text(CKA_UNIQUE_ID, unique_id);
        more(&mut attributes);
        Self {
            attributes: attributes.fitted(),
            key: ObjectKey::None,
        }
    }

    fn with_key(self, key: ObjectKey) -> Self {
        Self { key, ..self }
    }

    /// Returns the private key. Returns `None` if the object is not a private key object.
    pub(crate) fn private(&self) -> Option<&Arc<Key>> {
        match &self.key {
            ObjectKey::Private(key, _) => Some(key),
            ObjectKey::Public(..) | ObjectKey::Secret(..) | ObjectKey::None => None,
        }
    }

    /// Returns the public key. Returns `None` if the object is not a public key object.
    pub(crate) fn public(&self) -> Option<&PublicKey> {
        match &self.key {
            ObjectKey::Public(key, _) => Some(key),
            ObjectKey::Private(..) | ObjectKey::Secret(..) | ObjectKey::None => None,
        }
    }

    /// Returns the private key, for a call that needs a private key.
    ///
    /// # Errors
    ///
    /// Fails as [`Object::other_class`] describes if the object has another class.
    pub(crate) fn private_key(&self) -> Result<&Arc<Key>, Error> {
        self.private().ok_or_else(|| self.other_class())
    }

    /// Returns the public key, for a call that needs a public key.
    ///
    /// # Errors
    ///
    /// Fails as [`Object::other_class`] describes if the object has another class.
    pub(crate) fn public_key(&self) -> Result<&PublicKey, Error> {
        self.public().ok_or_else(|| self.other_class())
    }

    /// Returns the error for a call that needs a key of another class.
    ///
    /// - For the other key of a pair: [`Error::KeyFunctionNotPermitted`].
    /// - For a secret key: [`Error::KeyTypeInconsistent`], because mechanisms of its own type can
    ///   use it.
    /// - For an object that is not a key: [`Error::KeyHandleInvalid`].
    pub(crate) fn other_class(&self) -> Error {
        match &self.key {
            ObjectKey::Secret(..) => Error::KeyTypeInconsistent,
            ObjectKey::Private(..) | ObjectKey::Public(..) => Error::KeyFunctionNotPermitted,
            ObjectKey::None => Error::KeyHandleInvalid,
        }
    }

    /// Returns the secret key. Returns `None` if the object is not a secret key object.
    pub(crate) fn secret(&self) -> Option<&Arc<SecretKey>> {
        match &self.key {
            ObjectKey::Secret(key, _) => Some(key),
            ObjectKey::Private(..) | ObjectKey::Public(..) | ObjectKey::None => None,
        }
    }

    /// Returns true if the object is a public, private or secret key.
    pub(crate) fn is_key(&self) -> bool {
        !matches!(self.key, ObjectKey::None)
    }

    /// Returns true if CKA_ALLOWED_MECHANISMS of the key allows the mechanism.
    pub(crate) fn allows(&self, mechanism: CK_MECHANISM_TYPE) -> bool {
        let allowed = match &self.key {
            ObjectKey::Private(_, allowed)
            | ObjectKey::Public(_, allowed)
            | ObjectKey::Secret(_, allowed) => allowed,
            ObjectKey::None => return true,
        };
        allowed.is_empty() || allowed.contains(&mechanism)
    }

    /// Checks that the key has this use and allows this mechanism.
    pub(crate) fn check_use(&self, wanted: Use, mechanism: CK_MECHANISM_TYPE) -> Result<(), Error> {
        if !self.has_use(wanted) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        match self.allows(mechanism) {
            true => Ok(()),
            false => Err(Error::MechanismInvalid),
        }
    }

    /// Returns true if the key has this use.
    pub(crate) fn has_use(&self, wanted: Use) -> bool {
        self.has_flag(attribute_of(wanted))
    }

    /// Returns the uses of the key.
    pub(crate) fn usage(&self) -> Usage {
        Use::ALL
            .into_iter()
            .filter(|one| self.has_use(*one))
            .collect()
    }

    /// Returns true if the object has this attribute with the value CK_TRUE.
    pub(crate) fn has_flag(&self, flag: CK_ATTRIBUTE_TYPE) -> bool {
        matches!(self.attribute(flag), Ok([CK_TRUE]))
    }

    /// Returns the value of one attribute.
    pub(crate) fn attribute(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8], Error> {
        self.attributes.value(kind)
    }

    /// Returns CKA_UNIQUE_ID. The value is equal in every process and after every scan.
    pub(crate) fn unique_id(&self) -> &[u8] {
        self.attribute(CKA_UNIQUE_ID).unwrap_or_default()
    }

    /// Returns true if `before` is the same object at an earlier time. Its attributes may differ.
    pub(crate) fn is_same(&self, before: &Self) -> bool {
        self.unique_id() == before.unique_id()
            && self.public_half() == before.public_half()
            && match (self.secret(), before.secret()) {
                (Some(one), Some(other)) => one.is_same(other),
                (one, other) => one.is_none() && other.is_none(),
            }
            && (self.attribute(CKA_CLASS) == Ok(&CKO_DATA.to_ne_bytes())
                || self.attribute(CKA_VALUE) == before.attribute(CKA_VALUE))
    }

    fn public_half(&self) -> Option<&PublicKey> {
        let private = self.private().map(|key| key.public());
        private.or(self.public())
    }

    /// Returns the sum of the lengths of all values in bytes. Section 5.7.4 does not define the
    /// size of an object.
    pub(crate) fn size(&self) -> usize {
        self.attributes.size()
    }
}

/// Returns CKA_UNIQUE_ID for the object of this class that shows the stored object `name`.
pub(crate) fn unique_id(class: CK_OBJECT_CLASS, name: &str) -> String {
    let kind = match class {
        CKO_PRIVATE_KEY => "private",
        CKO_PUBLIC_KEY => "public",
        CKO_CERTIFICATE => "certificate",
        CKO_SECRET_KEY => "secret",
        _ => "data",
    };
    // The name of a generated object already starts with its class. A file name may consist only of
    // such digits. The unique identifier of that file must still differ.
    let made = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    match made {
        Some(digits) if is_random(digits) => name.to_owned(),
        _ if is_random(name) => format!("{kind}:{name}"),
        _ => format!("{kind}-{name}"),
    }
}

/// Returns the internal name of a session object. No store uses such a name.
pub(crate) fn session_name(number: CK_ULONG) -> String {
    format!("session-{}", hex(&number.to_be_bytes()))
}

/// Returns CKA_ALLOWED_MECHANISMS of a key. Returns an empty list if all mechanisms are allowed. If
/// CK_ULONG has 32 bits, a larger number in a file becomes CK_ULONG::MAX. No mechanism has that
/// number, so this entry allows no mechanism.
fn allowed(described: &ObjectAttributes) -> Vec<CK_MECHANISM_TYPE> {
    let kinds = described.mechanisms.iter();
    kinds
        .map(|&kind| CK_MECHANISM_TYPE::try_from(kind).unwrap_or(CK_MECHANISM_TYPE::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identifier_says_its_kind_twice_and_no_two_are_the_same() {
        let digits = "00112233445566ff";
        let names = [
            "certificate",
            "public",
            "private",
            "data",
            "key",
            "secret",
            "session",
            "x",
            "",
        ]
        .map(|kind| format!("{kind}-{digits}"));
        let names = names.iter().map(String::as_str);
        let names = names.chain([digits, "certificate", "certificate-1", "my-own"]);
        let classes = [
            CKO_CERTIFICATE,
            CKO_PUBLIC_KEY,
            CKO_PRIVATE_KEY,
            CKO_DATA,
            CKO_SECRET_KEY,
        ];
        for class in classes {
            let ids = names.clone().map(|name| unique_id(class, name));
            let ids: Vec<_> = ids.collect();
            let different: std::collections::HashSet<_> = ids.iter().collect();
            assert_eq!(different.len(), ids.len(), "{ids:?}");
        }
        let id = |class, name: &str| unique_id(class, &format!("{name}-{digits}"));
        assert_eq!(
            id(CKO_CERTIFICATE, "certificate"),
            "certificate-00112233445566ff"
        );
        assert_eq!(id(CKO_DATA, "data"), "data-00112233445566ff");
        assert_eq!(id(CKO_PRIVATE_KEY, "key"), "private-key-00112233445566ff");
    }
}
