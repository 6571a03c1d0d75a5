//! Session objects (PKCS#11 3.0, section 2.4). A session object ends with the session that made it.
//! All sessions of the token see it.

use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use crate::object::{Object, ObjectScope, SecretKeyObject};
use cryptoki_sys::CKA_PRIVATE;
use devid_core::store::folder::Editable;
use devid_core::store::{ObjectKind, ObjectPart, StoredObject};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The session objects of a slot, in the order of their creation.
#[derive(Debug, Default, Clone)]
pub(crate) struct SessionObjects(BTreeMap<ObjectHandle, SessionObject>);

#[derive(Debug, Clone)]
struct SessionObject {
    session: SessionHandle,
    /// The source of the object. When attributes change, the object is made again from this source.
    source: ObjectSource,
    object: Arc<Object>,
}

/// The content of a session object.
#[derive(Debug, Clone)]
pub(crate) enum ObjectSource {
    /// A part of an object of a type that a key folder could also store.
    Stored(Arc<StoredObject>, ObjectPart),
    /// A secret key that exists only as a session object.
    Secret(Arc<SecretKeyObject>),
}

impl SessionObjects {
    /// Adds an object, which exists until its session ends.
    pub(crate) fn insert(
        &mut self,
        session: SessionHandle,
        handle: ObjectHandle,
        source: ObjectSource,
    ) {
        let object = Arc::new(source.object());
        let one = SessionObject {
            session,
            source,
            object,
        };
        self.0.insert(handle, one);
    }

    pub(crate) fn object(&self, handle: ObjectHandle) -> Option<Arc<Object>> {
        self.0.get(&handle).map(|one| Arc::clone(&one.object))
    }

    /// Returns the content from which the session object with this handle was made.
    pub(crate) fn source(&self, handle: ObjectHandle) -> Option<ObjectSource> {
        self.0.get(&handle).map(|one| one.source.clone())
    }

    /// Returns the handles of the session objects for which `is_wanted` returns true.
    pub(crate) fn find(&self, is_wanted: impl Fn(&Object) -> bool) -> Vec<ObjectHandle> {
        let found = self.0.iter().filter(|(_, one)| is_wanted(&one.object));
        found.map(|(handle, _)| *handle).collect()
    }

    /// Changes the attributes of a session object. A failure leaves the object unchanged.
    pub(crate) fn edit(
        &mut self,
        handle: ObjectHandle,
        change: impl FnOnce(Editable<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let one = self.0.get_mut(&handle).ok_or(Error::ObjectHandleInvalid)?;
        let name = one.source.name().to_owned();
        one.source = one.source.changed(name, change)?;
        one.object = Arc::new(one.source.object());
        Ok(())
    }

    /// Removes a session object. Returns `false` if no session object has this handle.
    pub(crate) fn remove(&mut self, handle: ObjectHandle) -> bool {
        self.0.remove(&handle).is_some()
    }

    /// Removes all objects of a session, or of all sessions if `session` is `None`.
    pub(crate) fn remove_of_session(&mut self, session: Option<SessionHandle>) {
        self.0
            .retain(|_, one| session.is_some_and(|session| one.session != session));
    }

    /// Removes the session objects that only a logged-in user may see (CKA_PRIVATE).
    pub(crate) fn remove_private(&mut self) {
        self.0.retain(|_, one| !one.object.has_flag(CKA_PRIVATE));
    }
}

impl ObjectSource {
    fn object(&self) -> Object {
        match self {
            Self::Stored(shown, half) => object(shown, *half),
            Self::Secret(key) => key.object(ObjectScope::Session),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Stored(shown, _) => &shown.name,
            Self::Secret(key) => &key.name,
        }
    }

    /// Returns a copy of the source, with this name and with changed attributes.
    pub(crate) fn changed(
        &self,
        name: String,
        change: impl FnOnce(Editable<'_>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        Ok(match self {
            Self::Stored(shown, half) => {
                let kind = changed(&shown.kind, *half, change)?;
                Self::Stored(Arc::new(StoredObject { name, kind }), *half)
            }
            Self::Secret(key) => {
                let mut key = SecretKeyObject::clone(key);
                key.name = name;
                change(Editable::Attributes(&mut key.described))?;
                Self::Secret(Arc::new(key))
            }
        })
    }
}

fn object(shown: &StoredObject, half: ObjectPart) -> Object {
    let mut all = Object::all(shown, ObjectScope::Session);
    let place = all.iter().position(|(one, _)| *one == half);
    // The new object has this part, because a change of attributes removes no parts.
    all.swap_remove(place.unwrap_or_default()).1
}

/// Returns a copy of the stored object in which the attributes of one part are changed.
fn changed(
    kind: &ObjectKind,
    half: ObjectPart,
    change: impl FnOnce(Editable<'_>) -> Result<(), Error>,
) -> Result<ObjectKind, Error> {
    let mut kind = match kind {
        ObjectKind::Pair {
            key,
            origin,
            private,
            public,
        } => ObjectKind::Pair {
            key: Arc::clone(key),
            origin: *origin,
            private: private.clone(),
            public: public.clone(),
        },
        ObjectKind::SecretKey(key, origin, described) => {
            ObjectKind::SecretKey(Arc::clone(key), *origin, described.clone())
        }
        ObjectKind::Public(public, described) => {
            ObjectKind::Public(public.clone(), described.clone())
        }
        ObjectKind::Certificate(certificate, described) => {
            ObjectKind::Certificate(certificate.clone(), described.clone())
        }
        ObjectKind::Data(data) => ObjectKind::Data(data.clone()),
    };
    let described = match (&mut kind, half) {
        (ObjectKind::Pair { public, .. }, ObjectPart::Public) => public.as_mut(),
        (ObjectKind::Pair { private, .. }, _) => Some(private),
        (ObjectKind::Public(_, described) | ObjectKind::Certificate(_, described), _) => {
            Some(described)
        }
        (ObjectKind::SecretKey(_, _, described), _) => Some(described),
        (ObjectKind::Data(data), _) => {
            change(Editable::Data(data))?;
            return Ok(kind);
        }
    };
    let described = described.ok_or(Error::ObjectHandleInvalid)?;
    change(Editable::Attributes(described))?;
    Ok(kind)
}
