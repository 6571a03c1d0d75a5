//! The attributes that templates of new objects may name (PKCS#11 3.0, section 4.1.1).

use crate::error::Error;
use crate::template::Template;
use crate::template::{flag, number};
use crate::vendor::*;
use cryptoki_sys::*;

/// The kind of object that a template describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TemplateKind {
    Public,
    Private,
    /// The public key of a pair that the token generates.
    GeneratedPublic,
    /// The private key of a pair that the token generates.
    GeneratedPrivate,
    /// A private key from C_UnwrapKey.
    UnwrappedPrivate,
    /// A secret key from C_DeriveKey (key agreement).
    Derived,
    /// A secret key that the token generates.
    GeneratedSecret,
    /// A secret key that a caller imports.
    Secret,
    Certificate,
    Data,
}

impl TemplateKind {
    fn is_key(self) -> bool {
        !matches!(self, Self::Certificate | Self::Data)
    }
}

/// The rule for one attribute in a template.
enum AttributeRule {
    /// The attribute is allowed. Another function reads its value.
    Read,
    /// The attribute is a flag that may be true or false. Another function reads its value.
    Flag,
    /// A flag that must have this value. The other value fails with CKR_TEMPLATE_INCONSISTENT.
    Only(bool),
    /// CKA_COPYABLE. The flag must not be true for a key on a token.
    Copyable,
    /// A flag that only a security officer may set to true.
    OfficerSets,
    /// An attribute that only the token itself sets.
    ReadOnly,
}

/// Refuses a template with an attribute that is not allowed, or with a wrong value of a flag.
pub(super) fn check(template: &Template, template_kind: TemplateKind) -> Result<(), Error> {
    for (kind, value) in &template.0 {
        // The rules of a template kind override the common rules.
        let rule = rule_of(template_kind, *kind).or_else(|| common_rule(*kind));
        match rule.ok_or(Error::AttributeTypeInvalid)? {
            AttributeRule::Read => {}
            AttributeRule::Flag => {
                flag(value)?;
            }
            AttributeRule::Only(only) if flag(value)? == only => {}
            AttributeRule::Only(_) => return Err(Error::TemplateInconsistent),
            AttributeRule::Copyable
                if flag(value)?
                    && template_kind.is_key()
                    && template.flag_or_false(CKA_TOKEN)? =>
            {
                return Err(Error::TemplateInconsistent);
            }
            AttributeRule::Copyable => {}
            AttributeRule::OfficerSets if !flag(value)? => {}
            AttributeRule::OfficerSets | AttributeRule::ReadOnly => {
                return Err(Error::AttributeReadOnly);
            }
        }
    }
    Ok(())
}

/// Returns the attributes that a template may repeat, although the object itself determines their
/// values.
pub(super) fn repeated(class: &[u8]) -> &'static [CK_ATTRIBUTE_TYPE] {
    match number(class) {
        Ok(CKO_CERTIFICATE) => &[
            CKA_SUBJECT,
            CKA_ISSUER,
            CKA_SERIAL_NUMBER,
            CKA_CHECK_VALUE,
            CKA_START_DATE,
            CKA_END_DATE,
            CKA_PUBLIC_KEY_INFO,
            CKA_URL,
            CKA_NAME_HASH_ALGORITHM,
            CKA_JAVA_MIDP_SECURITY_DOMAIN,
        ],
        Ok(CKO_PUBLIC_KEY | CKO_PRIVATE_KEY) => &[CKA_PUBLIC_KEY_INFO],
        _ => &[],
    }
}

fn common_rule(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    Some(match kind {
        CKA_CLASS | CKA_LABEL => AttributeRule::Read,
        CKA_TOKEN | CKA_PRIVATE | CKA_MODIFIABLE | CKA_DESTROYABLE => AttributeRule::Flag,
        CKA_COPYABLE => AttributeRule::Copyable,
        CKA_UNIQUE_ID => AttributeRule::ReadOnly,
        _ => return None,
    })
}

fn rule_of(template_kind: TemplateKind, kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    match template_kind {
        TemplateKind::Public => of_key(kind).or_else(|| of_public(kind)).or(match kind {
            CKA_EC_PARAMS | CKA_EC_POINT | CKA_MODULUS | CKA_PUBLIC_EXPONENT => {
                Some(AttributeRule::Read)
            }
            CKA_MODULUS_BITS => Some(AttributeRule::ReadOnly),
            _ => None,
        }),
        TemplateKind::Private => of_key(kind).or_else(|| of_private(kind)).or(match kind {
            CKA_EC_PARAMS | CKA_EC_POINT | CKA_VALUE | CKA_MODULUS | CKA_PUBLIC_EXPONENT
            | CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 | CKA_EXPONENT_1
            | CKA_EXPONENT_2 | CKA_COEFFICIENT => Some(AttributeRule::Read),
            _ => None,
        }),
        TemplateKind::GeneratedPublic => of_key(kind).or_else(|| of_public(kind)).or(match kind {
            CKA_EC_PARAMS | CKA_MODULUS_BITS | CKA_PUBLIC_EXPONENT => Some(AttributeRule::Read),
            CKA_EC_POINT | CKA_MODULUS => Some(AttributeRule::ReadOnly),
            _ => None,
        }),
        TemplateKind::GeneratedPrivate => of_key(kind)
            .or_else(|| of_private(kind))
            .or_else(|| of_value(kind)),
        TemplateKind::UnwrappedPrivate => of_key(kind)
            .or_else(|| of_private(kind))
            .or_else(|| of_value(kind))
            .or(match kind {
                // Programs set all uses in templates, even uses that no such key can have.
                CKA_VERIFY | CKA_VERIFY_RECOVER | CKA_ENCRYPT | CKA_WRAP => {
                    Some(AttributeRule::Flag)
                }
                _ => None,
            }),
        TemplateKind::Derived => match kind {
            CKA_TOKEN => Some(AttributeRule::Only(false)),
            _ => of_secret(kind),
        },
        TemplateKind::GeneratedSecret => of_secret(kind),
        TemplateKind::Secret => match kind {
            CKA_VALUE => Some(AttributeRule::Read),
            CKA_VALUE_LEN => Some(AttributeRule::ReadOnly),
            _ => of_secret(kind),
        },
        TemplateKind::Certificate => of_certificate(kind),
        TemplateKind::Data => match kind {
            CKA_APPLICATION | CKA_OBJECT_ID | CKA_VALUE => Some(AttributeRule::Read),
            _ => None,
        },
    }
}

fn of_key(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    Some(match kind {
        CKA_KEY_TYPE
        | CKA_ID
        | CKA_SUBJECT
        | CKA_START_DATE
        | CKA_END_DATE
        | CKA_PUBLIC_KEY_INFO
        | CKA_ALLOWED_MECHANISMS => AttributeRule::Read,
        CKA_DERIVE => AttributeRule::Flag,
        CKA_LOCAL | CKA_KEY_GEN_MECHANISM => AttributeRule::ReadOnly,
        _ => return None,
    })
}

fn of_public(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    Some(match kind {
        CKA_VERIFY | CKA_VERIFY_RECOVER | CKA_ENCRYPT | CKA_WRAP => AttributeRule::Flag,
        CKA_TRUSTED => AttributeRule::OfficerSets,
        _ => return None,
    })
}

/// Returns the rule for an attribute of a private key. A private key never leaves the TPM in clear,
/// so a template cannot make the key extractable. CKA_WRAP_WITH_TRUSTED is refused, because the
/// module never wraps a private key, and the object could not show the attribute.
fn of_private(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    Some(match kind {
        CKA_SIGN
        | CKA_SIGN_RECOVER
        | CKA_DECRYPT
        | CKA_UNWRAP
        | CKA_ALWAYS_AUTHENTICATE
        | CKA_DEVID_PERSISTENT => AttributeRule::Flag,
        CKA_SENSITIVE => AttributeRule::Only(true),
        CKA_EXTRACTABLE | CKA_WRAP_WITH_TRUSTED => AttributeRule::Only(false),
        CKA_ALWAYS_SENSITIVE
        | CKA_NEVER_EXTRACTABLE
        | CKA_DEVID_TPM_HANDLE
        | CKA_DEVID_TPM_NAME
        | CKA_DEVID_TPM_PUBLIC => AttributeRule::ReadOnly,
        CKA_DEVID_PROTECTION => AttributeRule::Read,
        _ => return None,
    })
}

/// Returns the rule for a number of a private key that is generated or unwrapped.
fn of_value(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    match kind {
        CKA_EC_PARAMS | CKA_EC_POINT | CKA_VALUE | CKA_MODULUS | CKA_PUBLIC_EXPONENT
        | CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 | CKA_EXPONENT_1 | CKA_EXPONENT_2
        | CKA_COEFFICIENT => Some(AttributeRule::ReadOnly),
        _ => None,
    }
}

/// Returns the rule for an attribute of a secret key. Clients name all uses. A use that this type
/// of key cannot have is shown as false.
fn of_secret(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    Some(match kind {
        CKA_WRAP_WITH_TRUSTED => AttributeRule::Only(false),
        CKA_KEY_TYPE
        | CKA_ID
        | CKA_START_DATE
        | CKA_END_DATE
        | CKA_ALLOWED_MECHANISMS
        | CKA_VALUE_LEN => AttributeRule::Read,
        CKA_SENSITIVE | CKA_EXTRACTABLE | CKA_ENCRYPT | CKA_DECRYPT | CKA_SIGN | CKA_VERIFY
        | CKA_WRAP | CKA_UNWRAP | CKA_DERIVE => AttributeRule::Flag,
        CKA_TRUSTED => AttributeRule::OfficerSets,
        CKA_VALUE
        | CKA_CHECK_VALUE
        | CKA_LOCAL
        | CKA_KEY_GEN_MECHANISM
        | CKA_ALWAYS_SENSITIVE
        | CKA_NEVER_EXTRACTABLE => AttributeRule::ReadOnly,
        _ => return None,
    })
}

fn of_certificate(kind: CK_ATTRIBUTE_TYPE) -> Option<AttributeRule> {
    Some(match kind {
        CKA_CERTIFICATE_TYPE
        | CKA_CERTIFICATE_CATEGORY
        | CKA_VALUE
        | CKA_ID
        | CKA_SUBJECT
        | CKA_ISSUER
        | CKA_SERIAL_NUMBER
        | CKA_CHECK_VALUE
        | CKA_START_DATE
        | CKA_END_DATE
        | CKA_PUBLIC_KEY_INFO
        | CKA_URL
        | CKA_HASH_OF_SUBJECT_PUBLIC_KEY
        | CKA_HASH_OF_ISSUER_PUBLIC_KEY
        | CKA_NAME_HASH_ALGORITHM
        | CKA_JAVA_MIDP_SECURITY_DOMAIN => AttributeRule::Read,
        CKA_TRUSTED => AttributeRule::OfficerSets,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wish_has_its_answer() {
        let (yes, no) = (&[CK_TRUE][..], &[CK_FALSE][..]);
        let inconsistent = Err(Error::TemplateInconsistent);
        let read_only = Err(Error::AttributeReadOnly);
        for (made, kind, value, answer) in [
            (TemplateKind::GeneratedPrivate, CKA_SENSITIVE, yes, Ok(())),
            (
                TemplateKind::GeneratedPrivate,
                CKA_SENSITIVE,
                no,
                inconsistent.clone(),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_EXTRACTABLE,
                yes,
                inconsistent.clone(),
            ),
            (TemplateKind::GeneratedPrivate, CKA_EXTRACTABLE, no, Ok(())),
            (
                TemplateKind::GeneratedPrivate,
                CKA_WRAP_WITH_TRUSTED,
                yes,
                inconsistent.clone(),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_ALWAYS_AUTHENTICATE,
                yes,
                Ok(()),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_SIGN_RECOVER,
                yes,
                Ok(()),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_SIGN,
                &[2],
                Err(Error::AttributeValueInvalid),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_VALUE,
                b"x",
                read_only.clone(),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_LOCAL,
                yes,
                read_only.clone(),
            ),
            (
                TemplateKind::GeneratedPrivate,
                CKA_VERIFY,
                yes,
                Err(Error::AttributeTypeInvalid),
            ),
            (TemplateKind::Private, CKA_VALUE, b"x", Ok(())),
            (TemplateKind::Public, CKA_TRUSTED, yes, read_only.clone()),
            (TemplateKind::Public, CKA_TRUSTED, no, Ok(())),
            (
                TemplateKind::Certificate,
                CKA_TRUSTED,
                yes,
                read_only.clone(),
            ),
            (TemplateKind::Data, CKA_COPYABLE, yes, Ok(())),
            (TemplateKind::Data, CKA_COPYABLE, no, Ok(())),
            (TemplateKind::Private, CKA_COPYABLE, yes, Ok(())),
            (TemplateKind::Data, CKA_UNIQUE_ID, b"x", read_only),
            (
                TemplateKind::Data,
                CKA_ID,
                b"x",
                Err(Error::AttributeTypeInvalid),
            ),
        ] {
            let template = Template::from([(kind, value)]);
            assert_eq!(
                check(&template, made),
                answer,
                "{made:?} {kind:#x} {value:?}"
            );
        }
    }
}
