//! Objects of sessions (PKCS#11 3.0, section 2.4): gone with the session that made them, seen by all
//! of the token meanwhile.

use crate::error::Error;
use crate::handle::{ObjectHandle, SessionHandle};
use crate::object::{Object, Place, SecretKeyObject};
use cryptoki_sys::CKA_PRIVATE;
use devid_core::store::folder::ObjectAttributes;
use devid_core::store::{ObjectKind, ObjectPart, StoredObject};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The objects of a slot's sessions, in the order of their making.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kept(BTreeMap<ObjectHandle, One>);

#[derive(Debug, Clone)]
struct One {
    session: SessionHandle,
    /// What it was made from, to be made again when its description changes.
    content: Content,
    object: Arc<Object>,
}

/// What a session keeps.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// This half of something that a store could show.
    StoredObject(Arc<StoredObject>, ObjectPart),
    /// What no store has.
    Secret(Arc<SecretKeyObject>),
}

impl Kept {
    /// Keeps something for as long as its session lives.
    pub(crate) fn keep(&mut self, session: SessionHandle, handle: ObjectHandle, content: Content) {
        let object = Arc::new(content.object());
        let one = One {
            session,
            content,
            object,
        };
        self.0.insert(handle, one);
    }

    pub(crate) fn object(&self, handle: ObjectHandle) -> Option<Arc<Object>> {
        self.0.get(&handle).map(|one| Arc::clone(&one.object))
    }

    /// The handles of those that are wanted.
    pub(crate) fn find(&self, is_wanted: impl Fn(&Object) -> bool) -> Vec<ObjectHandle> {
        let found = self.0.iter().filter(|(_, one)| is_wanted(&one.object));
        found.map(|(handle, _)| *handle).collect()
    }

    /// Changes the description of an object; on failure it stays as it was.
    pub(crate) fn describe(
        &mut self,
        handle: ObjectHandle,
        change: impl FnOnce(&mut ObjectAttributes) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let one = self.0.get_mut(&handle).ok_or(Error::ObjectHandleInvalid)?;
        one.content = one.content.changed(change)?;
        one.object = Arc::new(one.content.object());
        Ok(())
    }

    /// Forgets an object; `false` if there is none such.
    pub(crate) fn forget(&mut self, handle: ObjectHandle) -> bool {
        self.0.remove(&handle).is_some()
    }

    /// Forgets all objects of a session, or of all.
    pub(crate) fn forget_session(&mut self, session: Option<SessionHandle>) {
        self.0
            .retain(|_, one| session.is_some_and(|session| one.session != session));
    }

    /// Forgets what only a user who has logged in may see.
    pub(crate) fn forget_private(&mut self) {
        self.0.retain(|_, one| !one.object.is(CKA_PRIVATE));
    }
}

impl Content {
    fn object(&self) -> Object {
        match self {
            Self::StoredObject(shown, half) => object(shown, *half),
            Self::Secret(key) => key.object(Place::Session),
        }
    }

    /// The same described anew.
    fn changed(
        &self,
        change: impl FnOnce(&mut ObjectAttributes) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        Ok(match self {
            Self::StoredObject(shown, half) => {
                Self::StoredObject(Arc::new(changed(shown, *half, change)?), *half)
            }
            Self::Secret(key) => {
                let mut key = SecretKeyObject::clone(key);
                change(&mut key.described)?;
                Self::Secret(Arc::new(key))
            }
        })
    }
}

fn object(shown: &StoredObject, half: ObjectPart) -> Object {
    let mut all = Object::all(shown, Place::Session);
    let place = all.iter().position(|(one, _)| *one == half);
    // What is kept has the half that it was kept for; a session never takes one away.
    all.swap_remove(place.unwrap_or_default()).1
}

/// The same thing with one half described anew.
fn changed(
    shown: &StoredObject,
    half: ObjectPart,
    change: impl FnOnce(&mut ObjectAttributes) -> Result<(), Error>,
) -> Result<StoredObject, Error> {
    let mut kind = match &shown.kind {
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
        (ObjectKind::Data(data), _) => Some(&mut data.description),
    };
    change(described.ok_or(Error::ObjectHandleInvalid)?)?;
    let name = shown.name.clone();
    Ok(StoredObject { name, kind })
}
