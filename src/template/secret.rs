//! Secret keys that come of an agreement, or that a caller brings (PKCS#11 3.0, sections 4.10, 5.18.5,
//! 6.3.17 and 6.8.2).

use super::rules::{self, TemplateKind};
use crate::error::Error;
use crate::mechanism::derive::LONGEST_SECRET;
use crate::mechanism::key_type::KeyType;
use crate::mechanism::unwrap::AES_KEYS;
use crate::template::Template;
use cryptoki_sys::*;
use devid_core::store::folder::{ObjectAttributes, Use};
use devid_core::tpm::Secret;

/// A secret key that is to be kept for a session.
///
/// Where the template says nothing it is sensitive and cannot be extracted, and it unwraps no keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SecretKeyTemplate {
    pub(crate) described: ObjectAttributes,
    pub(crate) key_type: KeyType,
    /// Bytes, if the template names so many.
    pub(crate) length: Option<usize>,
    pub(crate) sensitive: bool,
    pub(crate) extractable: bool,
}

impl SecretKeyTemplate {
    /// For C_DeriveKey.
    pub(crate) fn without_value(template: &Template) -> Result<Self, Error> {
        rules::check(template.consistent()?, TemplateKind::Derived)?;
        let length = template.number(CKA_VALUE_LEN)?;
        let length = length
            .map(|length| usize::try_from(length).map_err(|_| Error::KeySizeRange))
            .transpose()?;
        let key_type = template.number(CKA_KEY_TYPE)?;
        Self::parse(key_type.unwrap_or(CKK_GENERIC_SECRET), length, template)
    }

    /// For C_CreateObject, with its bytes.
    pub(super) fn with_value(template: &Template) -> Result<(Self, Secret), Error> {
        rules::check(template, TemplateKind::Secret)?;
        let key_type = template.number(CKA_KEY_TYPE)?;
        let value = template.required(CKA_VALUE)?;
        if value.len() > LONGEST_SECRET {
            return Err(Error::AttributeValueInvalid);
        }
        let key_type = key_type.ok_or(Error::TemplateIncomplete)?;
        let wanted = Self::parse(key_type, Some(value.len()), template);
        let wanted = wanted.map_err(|error| match error {
            Error::KeySizeRange => Error::AttributeValueInvalid,
            other => other,
        })?;
        Ok((wanted, Secret::new(value.to_vec())))
    }

    fn parse(
        key_type: CK_KEY_TYPE,
        length: Option<usize>,
        template: &Template,
    ) -> Result<Self, Error> {
        let class = template.number(CKA_CLASS)?.unwrap_or(CKO_SECRET_KEY);
        if class != CKO_SECRET_KEY {
            return Err(Error::TemplateInconsistent);
        }
        let key_type = KeyType::from_number(key_type).ok_or(Error::TemplateInconsistent)?;
        match (key_type, length) {
            (KeyType::GenericSecret, Some(0)) => return Err(Error::KeySizeRange),
            (KeyType::GenericSecret, _) => {}
            (KeyType::Aes, Some(length)) if AES_KEYS.contains(&length) => {}
            (KeyType::Aes, Some(_)) => return Err(Error::KeySizeRange),
            (KeyType::Aes, None) => return Err(Error::TemplateIncomplete),
            (KeyType::Ec | KeyType::Rsa, _) => return Err(Error::TemplateInconsistent),
        }
        Ok(Self {
            described: ObjectAttributes {
                usage: Some(template.uses(&[Use::Unwrap], &[])?),
                ..template.description()?
            },
            key_type,
            length,
            sensitive: template.flag(CKA_SENSITIVE)?.unwrap_or(true),
            extractable: template.flag_or_false(CKA_EXTRACTABLE)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_kept_is_promised() {
        let (yes, no) = (&[CK_TRUE][..], &[CK_FALSE][..]);
        let aes = CKK_AES.to_ne_bytes();
        let length = |length: CK_ULONG| length.to_ne_bytes();
        let parse = |items: &[(CK_ATTRIBUTE_TYPE, &[u8])]| {
            let mut template = Template::default();
            for (kind, value) in items {
                let value = Secret::new(value.to_vec());
                template.0.push((*kind, value));
            }
            SecretKeyTemplate::without_value(&template)
        };
        let plain = parse(&[]).unwrap();
        assert!(plain.sensitive && !plain.extractable && plain.length.is_none());
        assert_eq!(plain.key_type.number(), CKK_GENERIC_SECRET);
        // As clients ask for it.
        let shown = [(CKA_SENSITIVE, no), (CKA_EXTRACTABLE, yes)];
        let uses = [(CKA_ENCRYPT, yes), (CKA_UNWRAP, yes)];
        let shown = parse(&[&shown[..], &uses].concat()).unwrap();
        assert!(!shown.sensitive && shown.extractable);
        let sized = |size| parse(&[(CKA_KEY_TYPE, &aes), (CKA_VALUE_LEN, &length(size))]);
        assert_eq!(sized(24).unwrap().length, Some(24));
        assert_eq!(sized(20), Err(Error::KeySizeRange));
        let unsized_key = parse(&[(CKA_KEY_TYPE, &aes)]);
        assert_eq!(unsized_key, Err(Error::TemplateIncomplete));
        for (kind, value, error) in [
            (CKA_TOKEN, yes, Error::TemplateInconsistent),
            (
                CKA_CLASS,
                &CKO_PRIVATE_KEY.to_ne_bytes(),
                Error::TemplateInconsistent,
            ),
            (
                CKA_KEY_TYPE,
                &CKK_DES3.to_ne_bytes(),
                Error::TemplateInconsistent,
            ),
            (CKA_VALUE, b"x", Error::AttributeReadOnly),
            (CKA_VALUE_LEN, &length(0), Error::KeySizeRange),
            (CKA_VALUE_LEN, b"x", Error::AttributeValueInvalid),
            (CKA_EC_POINT, b"x", Error::AttributeTypeInvalid),
        ] {
            assert_eq!(parse(&[(kind, value)]), Err(error), "{kind:#x}");
        }
    }

    #[test]
    fn a_secret_that_is_brought_says_its_bytes_and_no_length() {
        let (yes, value) = (&[CK_TRUE][..], &[7; 32][..]);
        let kind = |kind: CK_KEY_TYPE| kind.to_ne_bytes();
        let (aes, generic, des) = (kind(CKK_AES), kind(CKK_GENERIC_SECRET), kind(CKK_DES3));
        let parse = |key_type: &[u8], value: &[u8], more: (CK_ATTRIBUTE_TYPE, &[u8])| {
            let template = Template::from([(CKA_KEY_TYPE, key_type), (CKA_VALUE, value), more]);
            SecretKeyTemplate::with_value(&template).map(|(wanted, _)| wanted)
        };
        let unwraps = parse(&aes, value, (CKA_UNWRAP, yes)).unwrap();
        assert!(unwraps.sensitive && !unwraps.extractable);
        assert!(unwraps.described.usage.unwrap().has(Use::Unwrap));
        let plain = parse(&generic, &value[..7], (CKA_ENCRYPT, yes)).unwrap();
        assert_eq!(
            plain.described.usage,
            Some(devid_core::store::folder::Usage::NONE)
        );
        let long = [7; LONGEST_SECRET + 1];
        for (key_type, value, more, error) in [
            (
                &aes,
                &value[..20],
                (CKA_LABEL, &b""[..]),
                Error::AttributeValueInvalid,
            ),
            (
                &generic,
                &[],
                (CKA_LABEL, b""),
                Error::AttributeValueInvalid,
            ),
            (
                &generic,
                &long,
                (CKA_LABEL, b""),
                Error::AttributeValueInvalid,
            ),
            (
                &des,
                &value[..24],
                (CKA_LABEL, b""),
                Error::TemplateInconsistent,
            ),
            (&aes, value, (CKA_TOKEN, yes), Error::TemplateInconsistent),
            (
                &aes,
                value,
                (CKA_VALUE_LEN, &generic),
                Error::AttributeReadOnly,
            ),
            (&aes, value, (CKA_LOCAL, yes), Error::AttributeReadOnly),
        ] {
            assert_eq!(parse(key_type, value, more), Err(error));
        }
        let nothing = Template::from([(CKA_KEY_TYPE, &aes[..])]);
        assert_eq!(
            SecretKeyTemplate::with_value(&nothing).err(),
            Some(Error::TemplateIncomplete)
        );
    }
}
