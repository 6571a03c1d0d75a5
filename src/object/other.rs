//! Data objects (PKCS#11 3.0, section 4.5) and profile objects (section 4.4).

use super::{Object, ObjectScope, unique_id};
use crate::object::attribute::AttributeValue;
use cryptoki_sys::*;
use devid_core::store::folder::{Data, ObjectAttributes};

pub(super) fn data(name: &str, data: &Data, scope: ObjectScope) -> Object {
    let attributes = [
        (CKA_APPLICATION, AttributeValue::text(&data.application)),
        (CKA_OBJECT_ID, AttributeValue::bytes(&data.object_id[..])),
        (CKA_VALUE, AttributeValue::bytes(&data.value[..])),
    ];
    let unique_id = unique_id(CKO_DATA, name);
    Object::new(CKO_DATA, unique_id, &data.description, scope, attributes)
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
    let attributes = [(CKA_PROFILE_ID, AttributeValue::number(id))];
    Object::new(
        CKO_PROFILE,
        format!("profile-{id}"),
        &fixed,
        scope,
        attributes,
    )
}
