//! Objects that a caller makes (PKCS#11 3.0, section 5.7.1): public keys that live as long as their
//! session, to verify with.

use crate::attribute::{Template, Value};
use crate::error::Error;
use crate::object::Draft;
use cryptoki_sys::*;
use der::Decode;
use der::asn1::OctetStringRef;
use devid_core::key::{Curve, PublicKey};

/// What a template may say of a public key, and what holds where it says nothing.
fn defaults() -> Vec<(CK_ATTRIBUTE_TYPE, Value)> {
    vec![
        (CKA_TOKEN, Value::flag(false)),
        (CKA_PRIVATE, Value::flag(false)),
        (CKA_MODIFIABLE, Value::flag(false)),
        (CKA_COPYABLE, Value::flag(false)),
        (CKA_DESTROYABLE, Value::flag(true)),
        (CKA_LABEL, Value::empty()),
        (CKA_ID, Value::empty()),
        (CKA_SUBJECT, Value::empty()),
        (CKA_START_DATE, Value::empty()),
        (CKA_END_DATE, Value::empty()),
        (CKA_PUBLIC_KEY_INFO, Value::empty()),
        (CKA_TRUSTED, Value::flag(false)),
        (CKA_VERIFY, Value::flag(true)),
        (CKA_VERIFY_RECOVER, Value::flag(false)),
        (CKA_ENCRYPT, Value::flag(false)),
        (CKA_WRAP, Value::flag(false)),
        (CKA_DERIVE, Value::flag(false)),
    ]
}

/// What the key itself is made of; all else that a template names is unknown.
const MATERIAL: [CK_ATTRIBUTE_TYPE; 6] = [
    CKA_CLASS,
    CKA_KEY_TYPE,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_MODULUS,
    CKA_PUBLIC_EXPONENT,
];
/// What only the token may say.
const OURS: [CK_ATTRIBUTE_TYPE; 4] = [
    CKA_LOCAL,
    CKA_KEY_GEN_MECHANISM,
    CKA_UNIQUE_ID,
    CKA_MODULUS_BITS,
];

/// The public key that a template describes; `unique_id` becomes its CKA_UNIQUE_ID.
pub(crate) fn public_key(template: &Template, unique_id: String) -> Result<Draft, Error> {
    if flag(template, CKA_TOKEN)? {
        return Err(Error::TokenWriteProtected);
    }
    let mut attributes = defaults();
    for (n, (kind, value)) in template.0.iter().enumerate() {
        if template.0[..n].iter().any(|(before, _)| before == kind) {
            return Err(Error::TemplateInconsistent);
        }
        if OURS.contains(kind) {
            return Err(Error::AttributeReadOnly);
        }
        match attributes.iter_mut().find(|(one, _)| one == kind) {
            Some((_, default)) => *default = Value::bytes(&value[..]),
            None if MATERIAL.contains(kind) => {}
            None => return Err(Error::AttributeTypeInvalid),
        }
    }
    if number(template, CKA_CLASS)? != CKO_PUBLIC_KEY {
        return Err(Error::AttributeValueInvalid);
    }
    for kind in [
        CKA_VERIFY,
        CKA_VERIFY_RECOVER,
        CKA_ENCRYPT,
        CKA_WRAP,
        CKA_DERIVE,
    ] {
        flag(template, kind)?;
    }
    // What only a security officer may say, and what an object of a session cannot be.
    for (kind, refused) in [
        (CKA_TRUSTED, true),
        (CKA_PRIVATE, true),
        (CKA_COPYABLE, true),
        (CKA_MODIFIABLE, true),
    ] {
        if flag(template, kind)? == refused {
            return Err(Error::TemplateInconsistent);
        }
    }
    if value(template, CKA_DESTROYABLE).is_some() && !flag(template, CKA_DESTROYABLE)? {
        return Err(Error::TemplateInconsistent);
    }
    let public = material(template)?;
    attributes.extend([
        (CKA_CLASS, Value::number(CKO_PUBLIC_KEY)),
        (CKA_UNIQUE_ID, Value::text(&unique_id)),
        (CKA_LOCAL, Value::flag(false)),
        (
            CKA_KEY_GEN_MECHANISM,
            Value::number(CK_UNAVAILABLE_INFORMATION),
        ),
    ]);
    Ok(Draft::public(unique_id, attributes, public))
}

fn material(template: &Template) -> Result<PublicKey, Error> {
    let key = match number(template, CKA_KEY_TYPE)? {
        CKK_EC => {
            let named = required(template, CKA_EC_PARAMS)?;
            let curve = Curve::ALL
                .into_iter()
                .find(|curve| curve.oid_der() == named);
            let point = required(template, CKA_EC_POINT)?;
            let curve = curve.ok_or(Error::CurveNotSupported)?;
            // Some clients leave the OCTET STRING out, and a bare point can look like one.
            let wrapped = <&OctetStringRef>::from_der(point).ok();
            wrapped
                .and_then(|wrapped| PublicKey::from_point(curve, wrapped.as_bytes()))
                .or_else(|| PublicKey::from_point(curve, point))
        }
        CKK_RSA => PublicKey::from_rsa(
            required(template, CKA_MODULUS)?,
            required(template, CKA_PUBLIC_EXPONENT)?,
        ),
        _ => None,
    };
    key.ok_or(Error::AttributeValueInvalid)
}

fn value(template: &Template, kind: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
    let found = template.0.iter().find(|(one, _)| *one == kind);
    found.map(|(_, value)| &value[..])
}

fn required(template: &Template, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8], Error> {
    value(template, kind).ok_or(Error::TemplateIncomplete)
}

fn number(template: &Template, kind: CK_ATTRIBUTE_TYPE) -> Result<CK_ULONG, Error> {
    let bytes = required(template, kind)?.try_into();
    bytes
        .map(CK_ULONG::from_ne_bytes)
        .map_err(|_| Error::AttributeValueInvalid)
}

fn flag(template: &Template, kind: CK_ATTRIBUTE_TYPE) -> Result<bool, Error> {
    match value(template, kind) {
        None | Some([CK_FALSE]) => Ok(false),
        Some([CK_TRUE]) => Ok(true),
        Some(_) => Err(Error::AttributeValueInvalid),
    }
}
