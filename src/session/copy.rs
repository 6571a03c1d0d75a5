//! C_CopyObject (PKCS#11 3.0, section 5.7.2) of data objects, of certificates, and of all session
//! objects. Keys of a token have CKA_COPYABLE false.

use super::Session;
use super::changes::Changes;
use super::objects::failed;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::object::{session_name, unique_id};
use crate::slot::session_objects::ObjectSource;
use crate::template::Template;
use cryptoki_sys::*;
use devid_core::store::{ObjectKind, ObjectPart, StoredObject, folder};
use std::sync::Arc;

impl Session {
    /// Implements C_CopyObject. The copy is a token object if its original is a token object,
    /// unless the template sets CKA_TOKEN.
    pub(crate) fn copy(
        &self,
        handle: ObjectHandle,
        template: &Template,
        mint: &Mint,
    ) -> Result<ObjectHandle, Error> {
        let object = self.slot.object(handle)?;
        let on_token = template.consistent()?.flag(CKA_TOKEN)?;
        let on_token = on_token.unwrap_or(object.has_flag(CKA_TOKEN));
        if on_token {
            self.check_may_write()?;
        }
        if !object.has_flag(CKA_COPYABLE) {
            return Err(Error::ActionProhibited);
        }
        if on_token && object.is_key() && template.flag_or_false(CKA_COPYABLE)? {
            return Err(Error::TemplateInconsistent);
        }
        let changes = Changes::of_copy(template, &object)?;
        let private = template.flag(CKA_PRIVATE)?;
        self.check_may_hold(private.unwrap_or(object.has_flag(CKA_PRIVATE)))?;
        let original = match object.has_flag(CKA_TOKEN) {
            false => self.slot.session_objects.lock().source(handle),
            true => {
                let shown = self.slot.token_object(handle)?.shown;
                shown.map(|(shown, half)| ObjectSource::Stored(shown, half))
            }
        };
        let original = original.ok_or(Error::ObjectHandleInvalid)?;
        let name = session_name(mint.object().0);
        let copy = original.changed(name, |object| changes.apply(object))?;
        if on_token {
            return self.store_copy(&copy, mint);
        }
        Ok(self.hold(copy, mint))
    }

    fn store_copy(&self, copy: &ObjectSource, mint: &Mint) -> Result<ObjectHandle, Error> {
        let ObjectSource::Stored(shown, half) = copy else {
            return Err(Error::TemplateInconsistent);
        };
        let folder = self.slot.folder()?;
        let (class, name) = match (&shown.kind, half) {
            (
                ObjectKind::Pair {
                    key,
                    origin,
                    private,
                    ..
                },
                ObjectPart::Private,
            ) => {
                let name = folder.keep(key, *origin, private.clone(), None, false);
                (CKO_PRIVATE_KEY, name)
            }
            _ => {
                let (class, content) = content_of(shown).ok_or(Error::ObjectHandleInvalid)?;
                (class, folder.add(content))
            }
        };
        self.handle_after(&unique_id(class, &name.map_err(failed)?), mint)
    }
}

/// Returns the content of an object that needs no TPM, in the form of the key folder. For a key
/// pair the content is the public key.
fn content_of(shown: &Arc<StoredObject>) -> Option<(CK_OBJECT_CLASS, folder::EntryContent)> {
    Some(match &shown.kind {
        ObjectKind::Pair { key, public, .. } => (
            CKO_PUBLIC_KEY,
            folder::EntryContent::Public(key.public().clone(), public.clone()?),
        ),
        // A secret key of the token has CKA_COPYABLE false.
        ObjectKind::SecretKey(..) => return None,
        ObjectKind::Public(public, described) => (
            CKO_PUBLIC_KEY,
            folder::EntryContent::Public(public.clone(), described.clone()),
        ),
        ObjectKind::Certificate(certificate, described) => (
            CKO_CERTIFICATE,
            folder::EntryContent::Certificate(certificate.clone(), described.clone()),
        ),
        ObjectKind::Data(data) => (CKO_DATA, folder::EntryContent::Data(data.clone())),
    })
}
