//! Certificate objects (PKCS#11 3.0, section 4.6).

use super::{Object, ObjectScope, unique_id};
use crate::object::attribute::Attributes;
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
    let category = match certificate.is_ca() {
        true => CK_CERTIFICATE_CATEGORY_AUTHORITY,
        false => CK_CERTIFICATE_CATEGORY_TOKEN_USER,
    };
    let unique_id = unique_id(CKO_CERTIFICATE, name);
    let is_private = described.private;
    let more = |them: &mut Attributes| {
        match &described.id {
            Some(id) => them.bytes(CKA_ID, id),
            None => them.bytes(CKA_ID, certificate.key_id().as_bytes()),
        }
        them.number(CKA_CERTIFICATE_TYPE, CKC_X_509);
        them.number(CKA_CERTIFICATE_CATEGORY, category);
        them.flag(CKA_TRUSTED, false);
        them.bytes(CKA_CHECK_VALUE, &digest[..3]);
        them.date(CKA_START_DATE, first);
        them.date(CKA_END_DATE, last);
        them.bytes(CKA_SUBJECT, certificate.subject_der());
        them.bytes(CKA_ISSUER, certificate.issuer_der());
        them.bytes(CKA_SERIAL_NUMBER, certificate.serial_der());
        them.bytes(CKA_VALUE, certificate.der());
        them.bytes(CKA_PUBLIC_KEY_INFO, certificate.public_key_info_der());
        them.bytes(CKA_URL, &[]);
        them.bytes(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, &described.subject_key_hash);
        them.bytes(CKA_HASH_OF_ISSUER_PUBLIC_KEY, &described.issuer_key_hash);
        them.number(CKA_NAME_HASH_ALGORITHM, CKM_SHA_1);
        them.number(
            CKA_JAVA_MIDP_SECURITY_DOMAIN,
            CK_SECURITY_DOMAIN_UNSPECIFIED,
        );
    };
    Object::new(
        CKO_CERTIFICATE,
        &unique_id,
        described,
        is_private,
        scope,
        more,
    )
}
