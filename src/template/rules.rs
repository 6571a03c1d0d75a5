//! What the templates of new objects may name (PKCS#11 3.0, section 4.1.1).

use crate::error::Error;
use crate::template::Template;
use crate::template::{flag, number};
use crate::vendor::*;
use cryptoki_sys::*;

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Public,
    Private,
    /// The public half of a pair that the token makes.
    GeneratedPublic,
    /// The private half of one.
    GeneratedPrivate,
    /// A private key that comes wrapped.
    UnwrappedPrivate,
    /// A secret key that comes of an agreement.
    Derived,
    /// A secret key that the token makes.
    GeneratedSecret,
    /// A secret key that a caller brings.
    Secret,
    Certificate,
    Data,
}

impl Made {
    fn is_key(self) -> bool {
        !matches!(self, Self::Certificate | Self::Data)
    }
}

/// What holds for one attribute.
enum Rule {
    /// It is read elsewhere.
    Read,
    /// A flag that is read elsewhere.
    Flag,
    /// A flag that can have this value only: the other is a wish that this token cannot fulfil.
    Only(bool),
    /// CKA_COPYABLE: keys of a token cannot be copied.
    Copyable,
    /// A flag that a security officer alone may set.
    OfficerSets,
    /// Only the token says this.
    ReadOnly,
}

/// Refuses what a template must not say, whatever it says of the rest.
pub(super) fn check(template: &Template, made: Made) -> Result<(), Error> {
    for (kind, value) in &template.0 {
        // What is said of one kind of object goes before what is said of all.
        let rule = special(made, *kind).or_else(|| common(*kind));
        match rule.ok_or(Error::AttributeTypeInvalid)? {
            Rule::Read => {}
            Rule::Flag => {
                flag(value)?;
            }
            Rule::Only(only) if flag(value)? == only => {}
            Rule::Only(_) => return Err(Error::TemplateInconsistent),
            Rule::Copyable if flag(value)? && made.is_key() && template.says(CKA_TOKEN)? => {
                return Err(Error::TemplateInconsistent);
            }
            Rule::Copyable => {}
            Rule::OfficerSets if !flag(value)? => {}
            Rule::OfficerSets | Rule::ReadOnly => return Err(Error::AttributeReadOnly),
        }
    }
    Ok(())
}

/// What a template may repeat of what the object's own content says.
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

fn common(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    Some(match kind {
        CKA_CLASS | CKA_LABEL => Rule::Read,
        CKA_TOKEN | CKA_PRIVATE | CKA_MODIFIABLE | CKA_DESTROYABLE => Rule::Flag,
        CKA_COPYABLE => Rule::Copyable,
        CKA_UNIQUE_ID => Rule::ReadOnly,
        _ => return None,
    })
}

fn special(made: Made, kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    match made {
        Made::Public => of_key(kind).or_else(|| of_public(kind)).or(match kind {
            CKA_EC_PARAMS | CKA_EC_POINT | CKA_MODULUS | CKA_PUBLIC_EXPONENT => Some(Rule::Read),
            CKA_MODULUS_BITS => Some(Rule::ReadOnly),
            _ => None,
        }),
        Made::Private => of_key(kind).or_else(|| of_private(kind)).or(match kind {
            CKA_EC_PARAMS | CKA_EC_POINT | CKA_VALUE | CKA_MODULUS | CKA_PUBLIC_EXPONENT
            | CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 | CKA_EXPONENT_1
            | CKA_EXPONENT_2 | CKA_COEFFICIENT => Some(Rule::Read),
            _ => None,
        }),
        Made::GeneratedPublic => of_key(kind).or_else(|| of_public(kind)).or(match kind {
            CKA_EC_PARAMS | CKA_MODULUS_BITS | CKA_PUBLIC_EXPONENT => Some(Rule::Read),
            CKA_EC_POINT | CKA_MODULUS => Some(Rule::ReadOnly),
            _ => None,
        }),
        Made::GeneratedPrivate => of_key(kind)
            .or_else(|| of_private(kind))
            .or_else(|| said_by_itself(kind)),
        Made::UnwrappedPrivate => of_key(kind)
            .or_else(|| of_private(kind))
            .or_else(|| said_by_itself(kind))
            .or(match kind {
                // Clients name all uses that there are, whatever comes out.
                CKA_VERIFY | CKA_VERIFY_RECOVER | CKA_ENCRYPT | CKA_WRAP => Some(Rule::Flag),
                _ => None,
            }),
        Made::Derived => match kind {
            CKA_TOKEN => Some(Rule::Only(false)),
            _ => of_secret(kind),
        },
        Made::GeneratedSecret => match kind {
            CKA_EXTRACTABLE => Some(Rule::Only(false)),
            _ => of_secret(kind),
        },
        Made::Secret => match kind {
            CKA_VALUE => Some(Rule::Read),
            CKA_VALUE_LEN => Some(Rule::ReadOnly),
            _ => of_secret(kind),
        },
        Made::Certificate => of_certificate(kind),
        Made::Data => match kind {
            CKA_APPLICATION | CKA_OBJECT_ID | CKA_VALUE => Some(Rule::Read),
            _ => None,
        },
    }
}

fn of_key(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    Some(match kind {
        CKA_KEY_TYPE
        | CKA_ID
        | CKA_SUBJECT
        | CKA_START_DATE
        | CKA_END_DATE
        | CKA_PUBLIC_KEY_INFO
        | CKA_ALLOWED_MECHANISMS => Rule::Read,
        CKA_DERIVE => Rule::Flag,
        CKA_LOCAL | CKA_KEY_GEN_MECHANISM => Rule::ReadOnly,
        _ => return None,
    })
}

fn of_public(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    Some(match kind {
        CKA_VERIFY | CKA_VERIFY_RECOVER | CKA_ENCRYPT | CKA_WRAP => Rule::Flag,
        CKA_TRUSTED => Rule::OfficerSets,
        _ => return None,
    })
}

/// The private key never leaves the TPM in clear, so nothing else can be wished for.
/// CKA_WRAP_WITH_TRUSTED would be a condition for something that never happens; it is refused, as it
/// could not be shown again.
fn of_private(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    Some(match kind {
        CKA_SIGN
        | CKA_SIGN_RECOVER
        | CKA_DECRYPT
        | CKA_UNWRAP
        | CKA_ALWAYS_AUTHENTICATE
        | CKA_DEVID_PERSISTENT => Rule::Flag,
        CKA_SENSITIVE => Rule::Only(true),
        CKA_EXTRACTABLE | CKA_WRAP_WITH_TRUSTED => Rule::Only(false),
        CKA_ALWAYS_SENSITIVE
        | CKA_NEVER_EXTRACTABLE
        | CKA_DEVID_TPM_HANDLE
        | CKA_DEVID_TPM_NAME
        | CKA_DEVID_TPM_PUBLIC => Rule::ReadOnly,
        CKA_DEVID_PROTECTION => Rule::Read,
        _ => return None,
    })
}

/// The numbers of a private key that is made here, or comes wrapped.
fn said_by_itself(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    match kind {
        CKA_EC_PARAMS | CKA_EC_POINT | CKA_VALUE | CKA_MODULUS | CKA_PUBLIC_EXPONENT
        | CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 | CKA_EXPONENT_1 | CKA_EXPONENT_2
        | CKA_COEFFICIENT => Some(Rule::ReadOnly),
        _ => None,
    }
}

/// Uses that its type has not are shown as false though they are wished for: clients name all that there
/// are.
fn of_secret(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
    Some(match kind {
        CKA_WRAP_WITH_TRUSTED => Rule::Only(false),
        CKA_KEY_TYPE
        | CKA_ID
        | CKA_START_DATE
        | CKA_END_DATE
        | CKA_ALLOWED_MECHANISMS
        | CKA_VALUE_LEN => Rule::Read,
        CKA_SENSITIVE | CKA_EXTRACTABLE | CKA_ENCRYPT | CKA_DECRYPT | CKA_SIGN | CKA_VERIFY
        | CKA_WRAP | CKA_UNWRAP | CKA_DERIVE => Rule::Flag,
        CKA_TRUSTED => Rule::OfficerSets,
        CKA_VALUE
        | CKA_CHECK_VALUE
        | CKA_LOCAL
        | CKA_KEY_GEN_MECHANISM
        | CKA_ALWAYS_SENSITIVE
        | CKA_NEVER_EXTRACTABLE => Rule::ReadOnly,
        _ => return None,
    })
}

fn of_certificate(kind: CK_ATTRIBUTE_TYPE) -> Option<Rule> {
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
        | CKA_JAVA_MIDP_SECURITY_DOMAIN => Rule::Read,
        CKA_TRUSTED => Rule::OfficerSets,
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
            (Made::GeneratedPrivate, CKA_SENSITIVE, yes, Ok(())),
            (
                Made::GeneratedPrivate,
                CKA_SENSITIVE,
                no,
                inconsistent.clone(),
            ),
            (
                Made::GeneratedPrivate,
                CKA_EXTRACTABLE,
                yes,
                inconsistent.clone(),
            ),
            (Made::GeneratedPrivate, CKA_EXTRACTABLE, no, Ok(())),
            (
                Made::GeneratedPrivate,
                CKA_WRAP_WITH_TRUSTED,
                yes,
                inconsistent.clone(),
            ),
            (Made::GeneratedPrivate, CKA_ALWAYS_AUTHENTICATE, yes, Ok(())),
            (Made::GeneratedPrivate, CKA_SIGN_RECOVER, yes, Ok(())),
            (
                Made::GeneratedPrivate,
                CKA_SIGN,
                &[2],
                Err(Error::AttributeValueInvalid),
            ),
            (Made::GeneratedPrivate, CKA_VALUE, b"x", read_only.clone()),
            (Made::GeneratedPrivate, CKA_LOCAL, yes, read_only.clone()),
            (
                Made::GeneratedPrivate,
                CKA_VERIFY,
                yes,
                Err(Error::AttributeTypeInvalid),
            ),
            (Made::Private, CKA_VALUE, b"x", Ok(())),
            (Made::Public, CKA_TRUSTED, yes, read_only.clone()),
            (Made::Public, CKA_TRUSTED, no, Ok(())),
            (Made::Certificate, CKA_TRUSTED, yes, read_only.clone()),
            (Made::Data, CKA_COPYABLE, yes, Ok(())),
            (Made::Data, CKA_COPYABLE, no, Ok(())),
            (Made::Private, CKA_COPYABLE, yes, Ok(())),
            (Made::Data, CKA_UNIQUE_ID, b"x", read_only),
            (Made::Data, CKA_ID, b"x", Err(Error::AttributeTypeInvalid)),
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
