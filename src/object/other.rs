//! Data objects (PKCS#11 3.0, section 4.5) and profile objects (section 4.4).

use super::{Object, ObjectScope, unique_id};
use crate::object::attribute::Attributes;
use cryptoki_sys::*;
use devid_core::store::folder::{Data, ObjectAttributes};

pub(super) fn data(name: &str, data: &Data, scope: ObjectScope) -> Object {
    let described = &data.description;
    let unique_id = unique_id(CKO_DATA, name);
    let is_private = described.private;
    let more = |them: &mut Attributes| {
        them.text(CKA_APPLICATION, &data.application);
        them.bytes(CKA_OBJECT_ID, &data.object_id);
        them.bytes(CKA_VALUE, &data.value);
    };
    Object::new(CKO_DATA, &unique_id, described, is_private, scope, more)
}

/// Returns the object that shows that the token fulfils this PKCS#11 profile.
pub(crate) fn profile(id: CK_PROFILE_ID) -> Object {
    let fixed = ObjectAttributes {
        modifiable: false,
        copyable: false,
        destroyable: false,
        ..ObjectAttributes::labelled("")
    };
    let scope = ObjectScope::Token {
        asks_login: false,
        takes_keys: false,
    };
    let unique_id = format!("profile-{id}");
    let more = |them: &mut Attributes| them.number(CKA_PROFILE_ID, id);
    Object::new(CKO_PROFILE, &unique_id, &fixed, false, scope, more)
}
