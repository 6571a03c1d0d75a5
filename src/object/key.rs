//! Key objects (PKCS#11 3.0, sections 4.7 to 4.9, 6.1 and 6.3).

use super::{Object, ObjectKey, ObjectScope, allowed, unique_id};
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::{Algorithm, MECHANISMS, Mechanism};
use crate::object::attribute::{AttributeValue, attribute_of};
use crate::vendor::*;
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::store::folder::{KeyOrigin, ObjectAttributes, Use};
use devid_core::store::{Key, Protection};
use std::sync::Arc;

/// Returns the value of CKA_DEVID_PROTECTION.
fn protection(key: &Key) -> CK_ULONG {
    match key.protection() {
        Protection::Tpm => CK_DEVID_PROTECTION_TPM,
        Protection::Sealed => CK_DEVID_PROTECTION_SEALED,
        Protection::File => CK_DEVID_PROTECTION_FILE,
    }
}

/// Returns true if the key was generated where it is stored now, and not imported (CKA_LOCAL).
pub(super) fn is_local(key: &Key, origin: KeyOrigin) -> bool {
    match origin {
        KeyOrigin::Generated => true,
        KeyOrigin::Imported => false,
        KeyOrigin::Unknown => key.is_of_this_tpm(),
    }
}

pub(super) fn private_object(
    name: &str,
    key: &Arc<Key>,
    origin: KeyOrigin,
    described: &ObjectAttributes,
    scope: ObjectScope,
) -> Object {
    let public = key.public();
    let local = is_local(key, origin);
    let can = |one: &Use| match one {
        Use::Sign => key.is_signing(),
        // C_DeriveKey is a single call without an Init call before it. The user could not enter a
        // PIN between two calls.
        Use::Derive => key.decrypts() && !described.always_authenticate,
        Use::Unwrap => key.decrypts() && !described.always_authenticate && scope.takes_keys(),
        _ => key.decrypts(),
    };
    let key_type = KeyType::from_public(public);
    let possible = key_type.private_uses();
    let possible: Vec<_> = possible.iter().copied().filter(can).collect();
    let allowed = allowed(described);
    let does = |one| possible.contains(&one) && described.usage.is_none_or(|it| it.has(one));
    let can_do = |row: &&Mechanism| match row.algorithm {
        Algorithm::Sign(algorithm) => {
            row.signs_with(key) && does(Use::Sign) && (algorithm.is_padded() || does(Use::Decrypt))
        }
        Algorithm::Encrypt(_) => row.takes_key(public) && does(Use::Decrypt),
        Algorithm::Derive => row.takes_key(public) && does(Use::Derive),
        Algorithm::Unwrap(_) => row.takes_key(public) && does(Use::Unwrap),
        Algorithm::GenerateKeyPair
        | Algorithm::GenerateKey
        | Algorithm::Cipher(_)
        | Algorithm::Mac
        | Algorithm::Digest => false,
    };
    let mut shown = Vec::new();
    for row in MECHANISMS.iter().filter(can_do) {
        let is_allowed = allowed.is_empty() || allowed.contains(&row.kind);
        // CKM_RSA_PKCS has two rows in the table of mechanisms, but is listed once.
        if is_allowed && !shown.contains(&row.kind) {
            shown.push(row.kind);
        }
    }
    let mut attributes = common(public, described, local);
    let shown_uses = [
        Use::Sign,
        Use::SignRecover,
        Use::Decrypt,
        Use::Unwrap,
        Use::Derive,
    ];
    attributes.extend(uses(&shown_uses, &possible, described));
    attributes.extend([
        (CKA_SENSITIVE, AttributeValue::flag(true)),
        (
            CKA_ALWAYS_SENSITIVE,
            AttributeValue::flag(local && key.protection() != Protection::File),
        ),
        (CKA_EXTRACTABLE, AttributeValue::flag(false)),
        (
            CKA_NEVER_EXTRACTABLE,
            AttributeValue::flag(local && key.protection() == Protection::Tpm),
        ),
        (CKA_WRAP_WITH_TRUSTED, AttributeValue::flag(false)),
        (
            CKA_ALWAYS_AUTHENTICATE,
            AttributeValue::flag(described.always_authenticate),
        ),
        (CKA_ALLOWED_MECHANISMS, AttributeValue::numbers(&shown)),
        (
            CKA_DEVID_PROTECTION,
            AttributeValue::number(protection(key)),
        ),
        (
            CKA_DEVID_PERSISTENT,
            AttributeValue::flag(key.handle().is_some()),
        ),
    ]);
    let tpm = [
        key.handle()
            .map(|handle| (CKA_DEVID_TPM_HANDLE, AttributeValue::number(handle.into()))),
        key.name()
            .map(|name| (CKA_DEVID_TPM_NAME, AttributeValue::bytes(name))),
        key.public_area()
            .map(|area| (CKA_DEVID_TPM_PUBLIC, AttributeValue::bytes(area))),
    ];
    attributes.extend(tpm.into_iter().flatten());
    let secret = match public {
        PublicKey::Ec { .. } => &[CKA_VALUE][..],
        PublicKey::Rsa { .. } => &[
            CKA_PRIVATE_EXPONENT,
            CKA_PRIME_1,
            CKA_PRIME_2,
            CKA_EXPONENT_1,
            CKA_EXPONENT_2,
            CKA_COEFFICIENT,
        ],
    };
    attributes.extend(secret.iter().map(|kind| (*kind, AttributeValue::Sensitive)));
    let unique_id = unique_id(CKO_PRIVATE_KEY, name);
    Object::new(CKO_PRIVATE_KEY, unique_id, described, scope, attributes)
        .with_key(ObjectKey::Private(Arc::clone(key), allowed))
}

pub(super) fn public_object(
    name: &str,
    public: &PublicKey,
    described: &ObjectAttributes,
    local: bool,
    scope: ObjectScope,
) -> Object {
    let mut attributes = common(public, described, local);
    let shown_uses = [
        Use::Verify,
        Use::VerifyRecover,
        Use::Encrypt,
        Use::Wrap,
        Use::Derive,
    ];
    // By default a public key verifies. CKA_DERIVE is set only if its template named the uses.
    let possible = KeyType::from_public(public).public_uses().iter().copied();
    let possible: Vec<_> = possible
        .filter(|one| *one != Use::Derive || described.usage.is_some())
        .collect();
    attributes.extend(uses(&shown_uses, &possible, described));
    attributes.push((CKA_TRUSTED, AttributeValue::flag(false)));
    if let PublicKey::Rsa { .. } = public {
        attributes.push((
            CKA_MODULUS_BITS,
            AttributeValue::number(public.bits().into()),
        ));
    }
    let allowed = allowed(described);
    if !allowed.is_empty() {
        attributes.push((CKA_ALLOWED_MECHANISMS, AttributeValue::numbers(&allowed)));
    }
    let unique_id = unique_id(CKO_PUBLIC_KEY, name);
    Object::new(CKO_PUBLIC_KEY, unique_id, described, scope, attributes)
        .with_key(ObjectKey::Public(public.clone(), allowed))
}

/// Returns an attribute for each use. Its flag is true if the key can have the use and its template
/// asks for the use.
fn uses(
    shown: &[Use],
    possible: &[Use],
    described: &ObjectAttributes,
) -> Vec<(CK_ATTRIBUTE_TYPE, AttributeValue)> {
    let set =
        |one: Use| possible.contains(&one) && described.usage.is_none_or(|wanted| wanted.has(one));
    let flags = shown
        .iter()
        .map(|&one| (attribute_of(one), AttributeValue::flag(set(one))));
    flags.collect()
}

/// Returns the attributes that both keys of a pair have. The private key shows the public key too,
/// because some clients read the public key only from the private key object.
fn common(
    public: &PublicKey,
    described: &ObjectAttributes,
    local: bool,
) -> Vec<(CK_ATTRIBUTE_TYPE, AttributeValue)> {
    let id = described.id.clone();
    let key_type = KeyType::from_public(public);
    let makes =
        |row: &&Mechanism| row.algorithm == Algorithm::GenerateKeyPair && row.takes_key(public);
    let made_by = MECHANISMS.iter().find(makes).filter(|_| local);
    let made_by = made_by.map_or(CK_UNAVAILABLE_INFORMATION, |row| row.kind);
    let mut attributes = vec![
        (
            CKA_ID,
            AttributeValue::bytes(id.unwrap_or_else(|| public.id().as_bytes().to_vec())),
        ),
        (CKA_SUBJECT, AttributeValue::bytes(&described.subject[..])),
        (CKA_START_DATE, AttributeValue::some_date(described.start)),
        (CKA_END_DATE, AttributeValue::some_date(described.end)),
        (CKA_KEY_TYPE, AttributeValue::number(key_type.number())),
        (CKA_LOCAL, AttributeValue::flag(local)),
        (CKA_KEY_GEN_MECHANISM, AttributeValue::number(made_by)),
        (
            CKA_PUBLIC_KEY_INFO,
            AttributeValue::bytes(public.info_der()),
        ),
    ];
    attributes.extend(match public {
        PublicKey::Ec { curve, point } => vec![
            (CKA_EC_PARAMS, AttributeValue::bytes(curve.oid_der())),
            (CKA_EC_POINT, AttributeValue::ec_point(point)),
        ],
        PublicKey::Rsa { modulus, exponent } => vec![
            (CKA_MODULUS, AttributeValue::bytes(&modulus[..])),
            (CKA_PUBLIC_EXPONENT, AttributeValue::bytes(&exponent[..])),
        ],
    });
    attributes
}
