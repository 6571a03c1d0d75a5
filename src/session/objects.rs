//! Functions of a session that make, change and destroy objects (PKCS#11 3.0, sections 5.7 and
//! 5.18).
//!
//! Each function scans the token again before it returns. The function returns handles of the new
//! scan, and the next search sees the change.

use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::table::Mechanism;
use crate::object::{Object, ObjectScope, session_name, unique_id};
use crate::session::Session;
use crate::session::changes::Changes;
use crate::slot::session_objects::ObjectSource;
use crate::slot::token::Token;
use crate::template::Template;
use crate::template::create::CreateTemplate;
use crate::template::key_pair::{KeyPairTemplate, Persistence};
use crate::template::private::PrivateKeyTemplate;
use cryptoki_sys::*;
use devid_core::store::devid::{KeyAlgorithm, OpenedBy, StoreError};
use devid_core::store::folder::{EntryContent, KeyOrigin, ObjectAttributes};
use devid_core::store::{Key, ObjectKind, ObjectPart, StoredObject};
use log::warn;
use std::sync::Arc;

impl Session {
    /// Implements C_CreateObject.
    pub(crate) fn create(&self, template: &Template, mint: &Mint) -> Result<ObjectHandle, Error> {
        let on_token = self.check_may_create(template)?;
        self.check_may_hold(template.flag_or_false(CKA_PRIVATE)?)?;
        match CreateTemplate::parse(template, self.slot.is_writable())? {
            CreateTemplate::Plain(plain) => {
                let shown = Arc::new(StoredObject {
                    name: session_name(mint.object().0),
                    kind: plain.kind(),
                });
                check_repeated(template, &shown)?;
                if !on_token {
                    return Ok(self.keep(&shown, ObjectPart::Whole, mint));
                }
                let class = plain.class();
                let name = self.slot.folder()?.add(plain.into_content());
                self.handle_after(&unique_id(class, &name.map_err(failed)?), mint)
            }
            CreateTemplate::Private(private) => self.import(template, &private, mint),
            CreateTemplate::Secret(wanted, value) => {
                self.create_secret_key(template, *wanted, value, mint)
            }
        }
    }

    /// Imports a private key that the caller gave in clear, or that C_UnwrapKey decrypted.
    pub(crate) fn import(
        &self,
        template: &Template,
        private: &PrivateKeyTemplate,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        let folder = self.slot.folder()?;
        let mut described = private.described.clone();
        self.apply_login_policy(template, &mut described)?;
        let key = folder
            .import(
                &private.key,
                private.usage,
                folder.protection(private.protection),
                self.opened_by(&described),
            )
            .map_err(failed)?;
        private.check_public(key.public())?;
        let origin = KeyOrigin::Imported;
        let shown = pair(&key, origin, described.clone(), None, mint);
        check_repeated(template, &shown)?;
        let handle = private.persistence == Persistence::Handle;
        match private.persistence {
            Persistence::Session => Ok(self.keep(&shown, ObjectPart::Private, mint)),
            Persistence::File | Persistence::Handle => {
                let name = folder.keep(&key, origin, described, None, handle);
                let name = name.map_err(failed)?;
                self.handle_after(&unique_id(CKO_PRIVATE_KEY, &name), mint)
            }
        }
    }

    /// Implements C_GenerateKeyPair. Returns the handle of the public key and the handle of the
    /// private key.
    pub(crate) fn generate(
        &self,
        mechanism: &'static Mechanism,
        public: &Template,
        private: &Template,
        mint: &Mint,
    ) -> Result<[ObjectHandle; 2], Error> {
        self.check_may_create(public)?;
        self.check_may_create(private)?;
        // A token without a key folder makes no keys, so it does not have this mechanism.
        let folder = self.slot.folder().map_err(|_| Error::MechanismInvalid)?;
        let mut wanted = KeyPairTemplate::parse(mechanism, public, private)?;
        self.apply_login_policy(private, &mut wanted.private)?;
        let algorithm = wanted.algorithm;
        let key = folder
            .generate(
                algorithm,
                wanted.usage,
                folder.protection(wanted.protection),
                self.opened_by(&wanted.private),
            )
            .map_err(|error| not_made(algorithm, error))?;
        let origin = KeyOrigin::Generated;
        let described = Some(wanted.public.clone());
        let of_session = pair(
            &key,
            origin,
            wanted.private.clone(),
            described.clone(),
            mint,
        );
        if wanted.persistence == Persistence::Session {
            // The steps that can fail come first. Therefore a failure never leaves only one key of
            // the pair.
            let public = match wanted.public_on_token {
                true => {
                    let content = EntryContent::Public(key.public().clone(), wanted.public);
                    let name = folder.add(content).map_err(failed)?;
                    self.handle_after(&unique_id(CKO_PUBLIC_KEY, &name), mint)?
                }
                false => self.keep(&of_session, ObjectPart::Public, mint),
            };
            return Ok([public, self.keep(&of_session, ObjectPart::Private, mint)]);
        }
        let described = described.filter(|_| wanted.public_on_token);
        let persistent = wanted.persistence == Persistence::Handle;
        let name = folder.keep(&key, origin, wanted.private, described, persistent);
        let name = name.map_err(failed)?;
        let token = self.slot.rescan(mint)?;
        let private = in_token(&token, &unique_id(CKO_PRIVATE_KEY, &name))?;
        let public = match wanted.public_on_token {
            true => in_token(&token, &unique_id(CKO_PUBLIC_KEY, &name))?,
            false => self.keep(&of_session, ObjectPart::Public, mint),
        };
        Ok([public, private])
    }

    /// Implements C_DestroyObject.
    pub(crate) fn destroy(&self, handle: ObjectHandle, mint: &Mint) -> Result<(), Error> {
        let object = self.slot.object(handle)?;
        self.check_may_change(&object)?;
        if !object.has_flag(CKA_DESTROYABLE) {
            return Err(Error::ActionProhibited);
        }
        if !object.has_flag(CKA_TOKEN) {
            return match self.slot.session_objects.lock().remove(handle) {
                true => Ok(()),
                false => Err(Error::ObjectHandleInvalid),
            };
        }
        let found = self.slot.token_object(handle)?;
        let (shown, half) = found.shown.ok_or(Error::ActionProhibited)?;
        let destroyed = self
            .slot
            .folder()?
            .destroy(&shown.name, half)
            .map_err(failed);
        // The scan removes the objects that another process destroyed.
        let seen = self.slot.rescan(mint);
        destroyed.and(seen.map(drop))
    }

    /// Implements C_SetAttributeValue. Applies the whole template, or changes nothing.
    pub(crate) fn change(
        &self,
        handle: ObjectHandle,
        template: &Template,
        mint: &Mint,
    ) -> Result<(), Error> {
        let object = self.slot.object(handle)?;
        self.check_may_change(&object)?;
        if !object.has_flag(CKA_MODIFIABLE) {
            return Err(Error::ActionProhibited);
        }
        let changes = Changes::parse(template.consistent()?, &object)?;
        if !object.has_flag(CKA_TOKEN) {
            let mut kept = self.slot.session_objects.lock();
            return kept.edit(handle, |object| changes.apply(object));
        }
        let found = self.slot.token_object(handle)?;
        let (shown, half) = found.shown.ok_or(Error::ActionProhibited)?;
        let folder = self.slot.folder()?;
        let applied = folder.edit(&shown.name, half, |object| changes.apply(object));
        let applied = applied.map_err(failed);
        let seen = self.slot.rescan(mint);
        applied?.and(seen.map(drop))
    }

    /// Returns true if the template describes a token object.
    ///
    /// # Errors
    ///
    /// Fails if this session must not make such an object.
    pub(crate) fn check_may_create(&self, template: &Template) -> Result<bool, Error> {
        let on_token = template.flag_or_false(CKA_TOKEN)?;
        if on_token {
            self.check_may_write()?;
        }
        Ok(on_token)
    }

    /// Checks that this session may change the object.
    pub(super) fn check_may_change(&self, object: &Object) -> Result<(), Error> {
        match object.has_flag(CKA_TOKEN) {
            true => self.check_may_write(),
            false => Ok(()),
        }
    }

    /// Checks that this session may change the token.
    pub(crate) fn check_may_write(&self) -> Result<(), Error> {
        match self.is_read_write {
            _ if !self.slot.is_writable() => Err(Error::TokenWriteProtected),
            true => Ok(()),
            false => Err(Error::SessionReadOnly),
        }
    }

    /// Checks that the session may use a private object now. If `private` is false, there is no
    /// check.
    pub(crate) fn check_may_hold(&self, private: bool) -> Result<(), Error> {
        match private && !self.slot.has_user() && self.slot.asks_login() {
            true => Err(Error::UserNotLoggedIn),
            false => Ok(()),
        }
    }

    /// Applies the token's rules for logins to a new key. If the token has a PIN, a private or
    /// secret key gets CKA_PRIVATE true unless the template sets the attribute. If the token has no
    /// PIN, CKA_ALWAYS_AUTHENTICATE is refused.
    pub(super) fn apply_login_policy(
        &self,
        template: &Template,
        described: &mut ObjectAttributes,
    ) -> Result<(), Error> {
        let asks_login = self.slot.asks_login();
        if asks_login && template.value(CKA_PRIVATE).is_none() {
            described.private = true;
        }
        match described.always_authenticate && !(asks_login && described.private) {
            true => Err(Error::TemplateInconsistent),
            false => Ok(()),
        }
    }

    /// Returns who can use a new private key: anybody, or only the logged-in user.
    fn opened_by(&self, described: &ObjectAttributes) -> OpenedBy {
        match self.slot.asks_login() && !described.private {
            true => OpenedBy::Anybody,
            false => OpenedBy::User,
        }
    }

    fn keep(&self, shown: &Arc<StoredObject>, half: ObjectPart, mint: &Mint) -> ObjectHandle {
        self.hold(ObjectSource::Stored(Arc::clone(shown), half), mint)
    }

    /// Adds a session object that ends with this session.
    pub(super) fn hold(&self, source: ObjectSource, mint: &Mint) -> ObjectHandle {
        let handle = mint.object();
        let mut objects = self.slot.session_objects.lock();
        objects.insert(self.handle, handle, source);
        handle
    }

    pub(super) fn handle_after(&self, unique_id: &str, mint: &Mint) -> Result<ObjectHandle, Error> {
        in_token(&*self.slot.rescan(mint)?, unique_id)
    }
}

fn in_token(token: &Token, unique_id: &str) -> Result<ObjectHandle, Error> {
    let handle = token.handle_of(unique_id);
    // Another process destroyed the object during this call.
    handle.ok_or(Error::Store(StoreError::Gone))
}

fn pair(
    key: &Arc<Key>,
    origin: KeyOrigin,
    private: ObjectAttributes,
    public: Option<ObjectAttributes>,
    mint: &Mint,
) -> Arc<StoredObject> {
    Arc::new(StoredObject {
        name: session_name(mint.object().0),
        kind: ObjectKind::Pair {
            key: Arc::clone(key),
            origin,
            private,
            public,
        },
    })
}

fn check_repeated(template: &Template, shown: &StoredObject) -> Result<(), Error> {
    let made = Object::all(shown, ObjectScope::Session);
    let mut made = made.iter();
    made.try_for_each(|(_, object)| CreateTemplate::check_repeated(template, object))
}

pub(super) fn failed(error: StoreError) -> Error {
    warn!("nothing is changed: {error}");
    error.into()
}

/// Returns the error if this TPM does not make keys of this type.
fn not_made(algorithm: KeyAlgorithm, error: StoreError) -> Error {
    match (failed(error), algorithm) {
        (Error::Store(StoreError::Unsupported(_)), KeyAlgorithm::Ec(_)) => Error::CurveNotSupported,
        (Error::Store(StoreError::Unsupported(_)), KeyAlgorithm::Rsa(_)) => {
            Error::TemplateInconsistent
        }
        (other, _) => other,
    }
}
