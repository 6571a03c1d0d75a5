//! Certificate objects (PKCS#11 3.0, section 4.6).

use super::{Object, ObjectScope, unique_id};
use crate::object::attribute::AttributeValue;
use cryptoki_sys::*;
use devid_core::store::folder::ObjectAttributes;
use devid_core::x509::Certificate;

pub(super) fn object(
    name: &str,
    certificate: &Certificate,
    described: &ObjectAttributes,
    scope: ObjectScope,
) -> Object {
    let digest = certificate.sha1();
    let (first, last) = certificate.validity();
    let id = described.id.clone();
    let category = match certificate.is_ca() {
        true => CK_CERTIFICATE_CATEGORY_AUTHORITY,
        false => CK_CERTIFICATE_CATEGORY_TOKEN_USER,
    };
    let attributes = [
        (
            CKA_ID,
            AttributeValue::bytes(id.unwrap_or_else(|| certificate.key_id().as_bytes().to_vec())),
        ),
        (CKA_CERTIFICATE_TYPE, AttributeValue::number(CKC_X_509)),
        (CKA_CERTIFICATE_CATEGORY, AttributeValue::number(category)),
        (CKA_TRUSTED, AttributeValue::flag(false)),
        (CKA_CHECK_VALUE, AttributeValue::bytes(&digest[..3])),
        (CKA_START_DATE, AttributeValue::some_date(first)),
        (CKA_END_DATE, AttributeValue::some_date(last)),
        (
            CKA_SUBJECT,
            AttributeValue::bytes(certificate.subject_der()),
        ),
        (CKA_ISSUER, AttributeValue::bytes(certificate.issuer_der())),
        (
            CKA_SERIAL_NUMBER,
            AttributeValue::bytes(certificate.serial_der()),
        ),
        (CKA_VALUE, AttributeValue::bytes(certificate.der())),
        (
            CKA_PUBLIC_KEY_INFO,
            AttributeValue::bytes(certificate.public_key_info_der()),
        ),
        (CKA_URL, AttributeValue::empty()),
        (
            CKA_HASH_OF_SUBJECT_PUBLIC_KEY,
            AttributeValue::bytes(&described.subject_key_hash[..]),
        ),
        (
            CKA_HASH_OF_ISSUER_PUBLIC_KEY,
            AttributeValue::bytes(&described.issuer_key_hash[..]),
        ),
        (CKA_NAME_HASH_ALGORITHM, AttributeValue::number(CKM_SHA_1)),
        (
            CKA_JAVA_MIDP_SECURITY_DOMAIN,
            AttributeValue::number(CK_SECURITY_DOMAIN_UNSPECIFIED),
        ),
    ];
    let unique_id = unique_id(CKO_CERTIFICATE, name);
    Object::new(CKO_CERTIFICATE, unique_id, described, scope, attributes)
}
