//! Key objects (PKCS#11 3.0, sections 4.7 to 4.9, 6.1 and 6.3).

use super::{Object, ObjectKey, ObjectScope, allowed, unique_id};
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::{Algorithm, MECHANISMS, Mechanism};
use crate::object::attribute::{Attributes, attribute_of};
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

/// The attributes that both keys of a pair show, as far as they do not come from a template. The
/// private key object shows the public key too, because some clients read only that object.
pub(super) struct PublicPart<'a> {
    public: &'a PublicKey,
    key_type: KeyType,
    local: bool,
    made_by: CK_MECHANISM_TYPE,
    /// The SubjectPublicKeyInfo.
    info: Vec<u8>,
}

impl<'a> PublicPart<'a> {
    /// `local` is CKA_LOCAL.
    pub(super) fn new(public: &'a PublicKey, local: bool) -> Self {
        let makes =
            |row: &&Mechanism| row.algorithm == Algorithm::GenerateKeyPair && row.takes_key(public);
        let made_by = MECHANISMS.iter().find(makes).filter(|_| local);
        Self {
            public,
            key_type: KeyType::from_public(public),
            local,
            made_by: made_by.map_or(CK_UNAVAILABLE_INFORMATION, |row| row.kind),
            info: public.info_der(),
        }
    }

    fn show(&self, described: &ObjectAttributes, them: &mut Attributes) {
        match &described.id {
            Some(id) => them.bytes(CKA_ID, id),
            None => them.bytes(CKA_ID, self.public.id().as_bytes()),
        }
        them.bytes(CKA_SUBJECT, &described.subject);
        them.date(CKA_START_DATE, described.start);
        them.date(CKA_END_DATE, described.end);
        them.number(CKA_KEY_TYPE, self.key_type.number());
        them.flag(CKA_LOCAL, self.local);
        them.number(CKA_KEY_GEN_MECHANISM, self.made_by);
        them.bytes(CKA_PUBLIC_KEY_INFO, &self.info);
        match self.public {
            PublicKey::Ec { curve, point } => {
                them.bytes(CKA_EC_PARAMS, curve.oid_der());
                them.ec_point(CKA_EC_POINT, point);
            }
            PublicKey::Rsa { modulus, exponent } => {
                them.bytes(CKA_MODULUS, modulus);
                them.bytes(CKA_PUBLIC_EXPONENT, exponent);
            }
        }
    }
}

/// `is_private` is CKA_PRIVATE.
pub(super) fn private_object(
    name: &str,
    key: &Arc<Key>,
    shared: &PublicPart<'_>,
    described: &ObjectAttributes,
    is_private: bool,
    scope: ObjectScope,
) -> Object {
    let (public, local) = (shared.public, shared.local);
    let can = |one: &Use| match one {
        Use::Sign => key.is_signing(),
        // C_DeriveKey is a single call without an Init call before it. The user could not enter a
        // PIN between two calls.
        Use::Derive => key.decrypts() && !described.always_authenticate,
        Use::Unwrap => key.decrypts() && !described.always_authenticate && scope.takes_keys(),
        _ => key.decrypts(),
    };
    let possible = shared.key_type.private_uses();
    let possible: Vec<_> = possible.iter().copied().filter(can).collect();
    let allowed = allowed(described);
    let does = |one| possible.contains(&one) && described.usage.is_none_or(|it| it.has(one));
    let can_do = |row: &&Mechanism| match row.algorithm {
        Algorithm::Sign(algorithm) => {
            does(Use::Sign) && (algorithm.is_padded() || does(Use::Decrypt)) && row.signs_with(key)
        }
        Algorithm::Encrypt(_) => does(Use::Decrypt),
        Algorithm::Derive => does(Use::Derive),
        Algorithm::Unwrap(_) => does(Use::Unwrap),
        Algorithm::GenerateKeyPair
        | Algorithm::GenerateKey
        | Algorithm::Cipher(_)
        | Algorithm::Mac
        | Algorithm::Digest => false,
    };
    let mut shown = Vec::new();
    let rows = MECHANISMS.iter().filter(|row| row.takes_key(public));
    for row in rows.filter(can_do) {
        let is_allowed = allowed.is_empty() || allowed.contains(&row.kind);
        // CKM_RSA_PKCS has two rows in the table of mechanisms, but is listed once.
        if is_allowed && !shown.contains(&row.kind) {
            shown.push(row.kind);
        }
    }
    let shown_uses = [
        Use::Sign,
        Use::SignRecover,
        Use::Decrypt,
        Use::Unwrap,
        Use::Derive,
    ];
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
    let more = |them: &mut Attributes| {
        shared.show(described, them);
        show_uses(&shown_uses, &possible, described, them);
        them.flag(CKA_SENSITIVE, true);
        let always_sensitive = local && key.protection() != Protection::File;
        them.flag(CKA_ALWAYS_SENSITIVE, always_sensitive);
        them.flag(CKA_EXTRACTABLE, false);
        let never_extractable = local && key.protection() == Protection::Tpm;
        them.flag(CKA_NEVER_EXTRACTABLE, never_extractable);
        them.flag(CKA_WRAP_WITH_TRUSTED, false);
        them.flag(CKA_ALWAYS_AUTHENTICATE, described.always_authenticate);
        them.numbers(CKA_ALLOWED_MECHANISMS, &shown);
        them.number(CKA_DEVID_PROTECTION, protection(key));
        them.flag(CKA_DEVID_PERSISTENT, key.handle().is_some());
        if let Some(handle) = key.handle() {
            them.number(CKA_DEVID_TPM_HANDLE, handle.into());
        }
        if let Some(name) = key.name() {
            them.bytes(CKA_DEVID_TPM_NAME, name);
        }
        if let Some(area) = key.public_area() {
            them.bytes(CKA_DEVID_TPM_PUBLIC, area);
        }
        for kind in secret {
            them.sensitive(*kind);
        }
    };
    let unique_id = unique_id(CKO_PRIVATE_KEY, name);
    Object::new(
        CKO_PRIVATE_KEY,
        &unique_id,
        described,
        is_private,
        scope,
        more,
    )
    .with_key(ObjectKey::Private(Arc::clone(key), allowed))
}

pub(super) fn public_object(
    name: &str,
    shared: &PublicPart<'_>,
    described: &ObjectAttributes,
    scope: ObjectScope,
) -> Object {
    let public = shared.public;
    let shown_uses = [
        Use::Verify,
        Use::VerifyRecover,
        Use::Encrypt,
        Use::Wrap,
        Use::Derive,
    ];
    // By default a public key verifies. CKA_DERIVE is set only if its template named the uses.
    let possible = shared.key_type.public_uses().iter().copied();
    let possible: Vec<_> = possible
        .filter(|one| *one != Use::Derive || described.usage.is_some())
        .collect();
    let allowed = allowed(described);
    let more = |them: &mut Attributes| {
        shared.show(described, them);
        show_uses(&shown_uses, &possible, described, them);
        them.flag(CKA_TRUSTED, false);
        if let PublicKey::Rsa { .. } = public {
            them.number(CKA_MODULUS_BITS, public.bits().into());
        }
        if !allowed.is_empty() {
            them.numbers(CKA_ALLOWED_MECHANISMS, &allowed);
        }
    };
    let unique_id = unique_id(CKO_PUBLIC_KEY, name);
    let is_private = described.private;
    let object = Object::new(
        CKO_PUBLIC_KEY,
        &unique_id,
        described,
        is_private,
        scope,
        more,
    );
    object.with_key(ObjectKey::Public(public.clone(), allowed))
}

/// Adds an attribute for each use. Its flag is true if the key can have the use and its template
/// asks for the use.
fn show_uses(shown: &[Use], possible: &[Use], described: &ObjectAttributes, them: &mut Attributes) {
    let set =
        |one: Use| possible.contains(&one) && described.usage.is_none_or(|wanted| wanted.has(one));
    for &one in shown {
        them.flag(attribute_of(one), set(one));
    }
}
