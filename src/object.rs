//! Objects: what a session finds on a token, with all attributes (PKCS#11 3.0, chapter 4).

use crate::attribute::{Template, Value};
use crate::error::Error;
use crate::handle::ObjectHandle;
use crate::mechanism::Mechanism;
use crate::vendor::*;
use cryptoki_sys::*;
use devid_core::certificate::Certificate;
use devid_core::key::{KeyId, PublicKey, hex};
use devid_core::store::Key;
use devid_core::store::idevid::{Authority, Found, Identity};
use devid_core::tpm::Hash;
use std::collections::HashSet;
use std::sync::Arc;

/// An object, its attributes encoded once and for all.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) handle: ObjectHandle,
    /// CKA_UNIQUE_ID: the same wherever and whenever the object is found.
    pub(crate) unique_id: String,
    attributes: Vec<(CK_ATTRIBUTE_TYPE, Value)>,
    role: Role,
}

/// What an object is there for, beside its attributes.
#[derive(Debug)]
enum Role {
    /// To be read.
    Data,
    /// To sign.
    Private(Arc<Key>),
    /// To verify.
    Public(PublicKey),
}

/// An object without a handle yet.
pub(crate) struct Draft {
    pub(crate) unique_id: String,
    attributes: Vec<(CK_ATTRIBUTE_TYPE, Value)>,
    role: Role,
}

impl Object {
    /// What signs, behind a private key.
    pub(crate) fn private(&self) -> Option<&Key> {
        match &self.role {
            Role::Private(key) => Some(key),
            Role::Public(_) | Role::Data => None,
        }
    }

    /// What signs, to be kept for an operation.
    pub(crate) fn shared_private(&self) -> Option<Arc<Key>> {
        match &self.role {
            Role::Private(key) => Some(Arc::clone(key)),
            Role::Public(_) | Role::Data => None,
        }
    }

    /// What verifies, behind a public key.
    pub(crate) fn public(&self) -> Option<&PublicKey> {
        match &self.role {
            Role::Public(key) => Some(key),
            Role::Private(_) | Role::Data => None,
        }
    }

    /// The value of one attribute.
    pub(crate) fn attribute(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8], Error> {
        match self.attributes.iter().find(|(one, _)| *one == kind) {
            Some((_, Value::Bytes(bytes))) => Ok(bytes),
            Some((_, Value::Sensitive)) => Err(Error::AttributeSensitive),
            None => Err(Error::AttributeTypeInvalid),
        }
    }

    /// Whether every attribute of the template has its value here; an empty one fits all.
    pub(crate) fn matches(&self, template: &Template) -> bool {
        template
            .0
            .iter()
            .all(|(kind, value)| self.attribute(*kind) == Ok(value))
    }
}

impl Draft {
    /// All objects of a token: of each identity private key, public key and certificate, then the
    /// certificates of its issuers.
    pub(crate) fn all(found: &Found) -> Vec<Self> {
        let mut drafts: Vec<Self> = found.identities.iter().flat_map(identity).collect();
        drafts.extend(found.authorities.iter().map(authority));
        drafts.extend(profiles(found).into_iter().map(profile));
        // Two certificates for one key share its key objects.
        let mut seen = HashSet::new();
        drafts.retain(|draft| seen.insert(draft.unique_id.clone()));
        drafts
    }

    /// A public key with all its attributes but those of the key itself.
    pub(crate) fn public(
        unique_id: String,
        mut attributes: Vec<(CK_ATTRIBUTE_TYPE, Value)>,
        public: PublicKey,
    ) -> Self {
        attributes.extend(key_values(&public));
        Self {
            unique_id,
            attributes,
            role: Role::Public(public),
        }
    }

    pub(crate) fn with_handle(self, handle: ObjectHandle) -> Object {
        let Self {
            unique_id,
            attributes,
            role,
        } = self;
        Object {
            handle,
            unique_id,
            attributes,
            role,
        }
    }

    fn new(
        class: CK_OBJECT_CLASS,
        unique_id: String,
        label: &str,
        id: KeyId,
        more: impl IntoIterator<Item = (CK_ATTRIBUTE_TYPE, Value)>,
    ) -> Self {
        let mut attributes = common(class, &unique_id, label);
        attributes.push((CKA_ID, Value::bytes(id.as_bytes())));
        attributes.extend(more);
        Self {
            unique_id,
            attributes,
            role: Role::Data,
        }
    }
}

/// What every object of a read-only token without PIN says.
fn common(class: CK_OBJECT_CLASS, unique_id: &str, label: &str) -> Vec<(CK_ATTRIBUTE_TYPE, Value)> {
    vec![
        (CKA_CLASS, Value::number(class)),
        (CKA_TOKEN, Value::flag(true)),
        (CKA_PRIVATE, Value::flag(false)),
        (CKA_MODIFIABLE, Value::flag(false)),
        // A client that may copy keys does so, and stalls on the copies after a fork.
        (CKA_COPYABLE, Value::flag(false)),
        (CKA_DESTROYABLE, Value::flag(false)),
        (CKA_LABEL, Value::text(label)),
        (CKA_UNIQUE_ID, Value::text(unique_id)),
    ]
}

fn identity(identity: &Identity) -> Vec<Draft> {
    let Identity {
        label,
        certificate,
        public,
        key,
    } = identity;
    let mut drafts = Vec::new();
    if let (Some(public), Some(key)) = (public, key) {
        drafts.push(private_key(label, certificate, public, key));
    }
    if let Some(public) = public {
        drafts.push(public_key(label, certificate, public, key.is_some()));
    }
    drafts.push(certificate_object(
        label,
        certificate,
        CK_CERTIFICATE_CATEGORY_TOKEN_USER,
    ));
    drafts
}

/// The profiles whose calls and objects are all there (PKCS#11 Profiles 3.0).
fn profiles(found: &Found) -> Vec<CK_PROFILE_ID> {
    let mut claimed = vec![CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER];
    let keys: Vec<_> = found
        .identities
        .iter()
        .filter_map(|one| one.key.as_ref())
        .collect();
    // The test of an authentication token signs with CKM_SHA256_RSA_PKCS.
    let rsa = Mechanism::RsaPkcsOver(Hash::Sha256);
    if keys.iter().any(|key| rsa.suits(key)) {
        claimed.push(CKP_AUTHENTICATION_TOKEN);
    }
    if !keys.is_empty() {
        claimed.push(CKP_PUBLIC_CERTIFICATES_TOKEN);
    }
    claimed
}

fn profile(id: CK_PROFILE_ID) -> Draft {
    let unique_id = format!("profile-{id}");
    let mut attributes = common(CKO_PROFILE, &unique_id, "");
    attributes.push((CKA_PROFILE_ID, Value::number(id)));
    Draft {
        unique_id,
        attributes,
        role: Role::Data,
    }
}

fn authority(authority: &Authority) -> Draft {
    let Authority { label, certificate } = authority;
    certificate_object(label, certificate, CK_CERTIFICATE_CATEGORY_AUTHORITY)
}

fn private_key(
    label: &str,
    certificate: &Certificate,
    public: &PublicKey,
    key: &Arc<Key>,
) -> Draft {
    let unique_id = format!("private-{}", hex(public.id().as_bytes()));
    let allowed: Vec<_> = Mechanism::of(key).map(Mechanism::kind).collect();
    let more = key_attributes(certificate, public, true)
        .into_iter()
        .chain([
            (CKA_SENSITIVE, Value::flag(true)),
            (CKA_ALWAYS_SENSITIVE, Value::flag(true)),
            (CKA_EXTRACTABLE, Value::flag(false)),
            (CKA_NEVER_EXTRACTABLE, Value::flag(true)),
            (CKA_SIGN, Value::flag(true)),
            (CKA_SIGN_RECOVER, Value::flag(false)),
            (CKA_DECRYPT, Value::flag(false)),
            (CKA_UNWRAP, Value::flag(false)),
            (CKA_WRAP_WITH_TRUSTED, Value::flag(false)),
            (CKA_ALWAYS_AUTHENTICATE, Value::flag(false)),
            (CKA_ALLOWED_MECHANISMS, Value::numbers(&allowed)),
            (CKA_DEVID_PROTECTION, Value::number(CK_DEVID_PROTECTION_TPM)),
            (CKA_DEVID_PERSISTENT, Value::flag(key.handle().is_some())),
        ]);
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
    let tpm = [
        key.handle()
            .map(|handle| (CKA_DEVID_TPM_HANDLE, Value::number(handle.into()))),
        key.name()
            .map(|name| (CKA_DEVID_TPM_NAME, Value::bytes(name))),
        key.public_area()
            .map(|area| (CKA_DEVID_TPM_PUBLIC, Value::bytes(area))),
    ];
    let more = more.chain(tpm.into_iter().flatten());
    let more = more.chain(secret.iter().map(|kind| (*kind, Value::Sensitive)));
    let draft = Draft::new(CKO_PRIVATE_KEY, unique_id, label, public.id(), more);
    Draft {
        role: Role::Private(Arc::clone(key)),
        ..draft
    }
}

fn public_key(label: &str, certificate: &Certificate, public: &PublicKey, local: bool) -> Draft {
    let unique_id = format!("public-{}", hex(public.id().as_bytes()));
    let more = key_attributes(certificate, public, local)
        .into_iter()
        .chain([
            (CKA_VERIFY, Value::flag(true)),
            (CKA_VERIFY_RECOVER, Value::flag(false)),
            (CKA_ENCRYPT, Value::flag(false)),
            (CKA_WRAP, Value::flag(false)),
            (CKA_TRUSTED, Value::flag(false)),
        ]);
    let size = match public {
        PublicKey::Ec { .. } => None,
        PublicKey::Rsa { .. } => Some((CKA_MODULUS_BITS, Value::number(public.bits().into()))),
    };
    let more = more.chain(size);
    let draft = Draft::new(CKO_PUBLIC_KEY, unique_id, label, public.id(), more);
    Draft {
        role: Role::Public(public.clone()),
        ..draft
    }
}

/// What both halves of a key pair say of themselves. `local` says that this TPM holds the private
/// half, and so made it: an identity's key has `sensitiveDataOrigin`. The public half stands on the private key too: some
/// clients know no other way to it.
fn key_attributes(
    certificate: &Certificate,
    public: &PublicKey,
    local: bool,
) -> Vec<(CK_ATTRIBUTE_TYPE, Value)> {
    let mut attributes = vec![
        (CKA_SUBJECT, Value::bytes(certificate.subject_der())),
        (CKA_START_DATE, Value::empty()),
        (CKA_END_DATE, Value::empty()),
        (CKA_DERIVE, Value::flag(false)),
        (CKA_LOCAL, Value::flag(local)),
        (
            CKA_PUBLIC_KEY_INFO,
            Value::bytes(certificate.public_key_info_der()),
        ),
    ];
    attributes.push((
        CKA_KEY_GEN_MECHANISM,
        Value::number(match public {
            PublicKey::Ec { .. } => CKM_EC_KEY_PAIR_GEN,
            PublicKey::Rsa { .. } => CKM_RSA_PKCS_KEY_PAIR_GEN,
        }),
    ));
    attributes.extend(key_values(public));
    attributes
}

/// The values of a public key.
fn key_values(public: &PublicKey) -> Vec<(CK_ATTRIBUTE_TYPE, Value)> {
    match public {
        PublicKey::Ec { curve, point } => vec![
            (CKA_KEY_TYPE, Value::number(CKK_EC)),
            (CKA_EC_PARAMS, Value::bytes(curve.oid_der())),
            (CKA_EC_POINT, Value::ec_point(point)),
        ],
        PublicKey::Rsa { modulus, exponent } => vec![
            (CKA_KEY_TYPE, Value::number(CKK_RSA)),
            (CKA_MODULUS, Value::bytes(&modulus[..])),
            (CKA_PUBLIC_EXPONENT, Value::bytes(&exponent[..])),
        ],
    }
}

fn certificate_object(
    label: &str,
    certificate: &Certificate,
    category: CK_CERTIFICATE_CATEGORY,
) -> Draft {
    let digest = certificate.sha1();
    let (first, last) = certificate.validity();
    Draft::new(
        CKO_CERTIFICATE,
        format!("certificate-{}", hex(&digest)),
        label,
        certificate.key_id(),
        [
            (CKA_CERTIFICATE_TYPE, Value::number(CKC_X_509)),
            (CKA_CERTIFICATE_CATEGORY, Value::number(category)),
            (CKA_TRUSTED, Value::flag(false)),
            (CKA_CHECK_VALUE, Value::bytes(&digest[..3])),
            (CKA_START_DATE, Value::date(first)),
            (CKA_END_DATE, Value::date(last)),
            (CKA_SUBJECT, Value::bytes(certificate.subject_der())),
            (CKA_ISSUER, Value::bytes(certificate.issuer_der())),
            (CKA_SERIAL_NUMBER, Value::bytes(certificate.serial_der())),
            (CKA_VALUE, Value::bytes(certificate.der())),
            (
                CKA_PUBLIC_KEY_INFO,
                Value::bytes(certificate.public_key_info_der()),
            ),
            (CKA_URL, Value::empty()),
            (CKA_HASH_OF_SUBJECT_PUBLIC_KEY, Value::empty()),
            (CKA_HASH_OF_ISSUER_PUBLIC_KEY, Value::empty()),
            (CKA_NAME_HASH_ALGORITHM, Value::number(CKM_SHA_1)),
            (
                CKA_JAVA_MIDP_SECURITY_DOMAIN,
                Value::number(CK_SECURITY_DOMAIN_UNSPECIFIED),
            ),
        ],
    )
}
