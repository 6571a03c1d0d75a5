//! Secret keys that come of an agreement (PKCS#11 3.0, sections 4.10, 5.18.5 and 6.3.17).

use super::rules::{self, Made};
use crate::attribute::Template;
use crate::error::Error;
use cryptoki_sys::*;
use devid_core::store::folder::{Description, Usage};

/// A secret key that is to be derived.
///
/// Where the template says nothing it is sensitive and cannot be extracted. It is of use only to
/// whoever may read it: nothing here works with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Derived {
    pub(crate) described: Description,
    pub(crate) key_type: CK_KEY_TYPE,
    /// Bytes, if the template names so many.
    pub(crate) length: Option<usize>,
    pub(crate) sensitive: bool,
    pub(crate) extractable: bool,
}

impl Derived {
    pub(crate) fn parse(template: &Template) -> Result<Self, Error> {
        rules::check(template.consistent()?, Made::Derived)?;
        let class = template.number(CKA_CLASS)?.unwrap_or(CKO_SECRET_KEY);
        if class != CKO_SECRET_KEY {
            return Err(Error::TemplateInconsistent);
        }
        let key_type = template.number(CKA_KEY_TYPE)?;
        let length = template.number(CKA_VALUE_LEN)?;
        let length = length
            .map(|length| usize::try_from(length).map_err(|_| Error::KeySizeRange))
            .transpose()?;
        match (key_type.unwrap_or(CKK_GENERIC_SECRET), length) {
            (CKK_GENERIC_SECRET, Some(0)) => return Err(Error::KeySizeRange),
            (CKK_GENERIC_SECRET, _) | (CKK_AES, Some(16 | 24 | 32)) => {}
            (CKK_AES, Some(_)) => return Err(Error::KeySizeRange),
            (CKK_AES, None) => return Err(Error::TemplateIncomplete),
            _ => return Err(Error::TemplateInconsistent),
        }
        Ok(Self {
            described: Description {
                usage: Some(Usage::NONE),
                ..template.description()?
            },
            key_type: key_type.unwrap_or(CKK_GENERIC_SECRET),
            length,
            sensitive: template.flag(CKA_SENSITIVE)?.unwrap_or(true),
            extractable: template.says(CKA_EXTRACTABLE)?,
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
                let value = crate::attribute::Secret::new(value.to_vec());
                template.0.push((*kind, value));
            }
            Derived::parse(&template)
        };
        let plain = parse(&[]).unwrap();
        assert!(plain.sensitive && !plain.extractable && plain.length.is_none());
        assert_eq!(plain.key_type, CKK_GENERIC_SECRET);
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
}
