//! Templates of secret keys: for C_DeriveKey, C_CreateObject and C_GenerateKey (PKCS#11 3.0,
//! sections 4.10, 5.18.5, 6.3.17 and 6.8.2).

use super::rules::{self, TemplateKind};
use crate::error::Error;
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::Mechanism;
use crate::template::Template;
use cryptoki_sys::*;
use devid_core::key::SecretKeyType;
use devid_core::store::folder::{ObjectAttributes, Use};
use devid_core::tpm::Secret;

/// The uses that a secret key has if its template does not mention them.
const UNNAMED: [Use; 4] = [Use::Encrypt, Use::Decrypt, Use::Sign, Use::Verify];

/// The description of a secret key that is to be made.
///
/// By default the key is sensitive and not extractable. By default it has all uses of its type
/// except CKA_UNWRAP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SecretKeyTemplate {
    pub(crate) described: ObjectAttributes,
    pub(crate) key_type: SecretKeyType,
    /// The length in bytes. `None` if the template does not state a length.
    pub(crate) length: Option<usize>,
    pub(crate) sensitive: bool,
    pub(crate) extractable: bool,
}

impl SecretKeyTemplate {
    /// Reads a template of C_DeriveKey.
    pub(crate) fn without_value(template: &Template) -> Result<Self, Error> {
        rules::check(template.consistent()?, TemplateKind::Derived)?;
        let length = template.number(CKA_VALUE_LEN)?;
        let length = length
            .map(|length| usize::try_from(length).map_err(|_| Error::KeySizeRange))
            .transpose()?;
        let key_type = template.number(CKA_KEY_TYPE)?;
        Self::parse(key_type.unwrap_or(CKK_GENERIC_SECRET), length, template)
    }

    /// Reads a template of C_GenerateKey. Also returns the length of the key in bytes.
    pub(crate) fn generated(row: &Mechanism, template: &Template) -> Result<(Self, usize), Error> {
        rules::check(template.consistent()?, TemplateKind::GeneratedSecret)?;
        let key_type = row.key_type.ok_or(Error::MechanismInvalid)?.number();
        let said = template.number(CKA_KEY_TYPE)?;
        if said.is_some_and(|said| said != key_type) {
            return Err(Error::TemplateInconsistent);
        }
        let length = template.number(CKA_VALUE_LEN)?;
        let length = length.ok_or(Error::TemplateIncomplete)?;
        let length = usize::try_from(length).map_err(|_| Error::AttributeValueInvalid)?;
        let wanted = Self::parse(key_type, Some(length), template).map_err(of_value)?;
        wanted.check_place(template)?;
        Ok((wanted, length))
    }

    /// Reads a template of C_CreateObject. Also returns the bytes of the key.
    pub(super) fn with_value(template: &Template) -> Result<(Self, Secret), Error> {
        rules::check(template, TemplateKind::Secret)?;
        let key_type = template.number(CKA_KEY_TYPE)?;
        let value = template.required(CKA_VALUE)?;
        let key_type = key_type.ok_or(Error::TemplateIncomplete)?;
        let wanted = Self::parse(key_type, Some(value.len()), template).map_err(of_value)?;
        wanted.check_place(template)?;
        Ok((wanted, Secret::new(value.to_vec())))
    }

    /// Checks that a key of the token is not extractable, because the TPM seals its value.
    fn check_place(&self, template: &Template) -> Result<(), Error> {
        match self.extractable && template.flag_or_false(CKA_TOKEN)? {
            true => Err(Error::TemplateInconsistent),
            false => Ok(()),
        }
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
        let of_number = KeyType::from_number(key_type);
        let of_number = of_number.and_then(|one| Some((one, one.secret()?)));
        let (of_number, key_type) = of_number.ok_or(Error::TemplateInconsistent)?;
        match (key_type, length) {
            (SecretKeyType::Aes, None) => return Err(Error::TemplateIncomplete),
            (_, Some(length)) if !key_type.takes(length) => return Err(Error::KeySizeRange),
            _ => {}
        }
        Ok(Self {
            described: ObjectAttributes {
                usage: Some(template.uses(of_number.secret_uses(), &UNNAMED)?),
                ..template.description()?
            },
            key_type,
            length,
            sensitive: template.flag(CKA_SENSITIVE)?.unwrap_or(true),
            extractable: template.flag_or_false(CKA_EXTRACTABLE)?,
        })
    }
}

/// Replaces the error for the length of a derived key by the error for an attribute value.
fn of_value(error: Error) -> Error {
    match error {
        Error::KeySizeRange => Error::AttributeValueInvalid,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::LONGEST_SECRET_KEY;

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
        assert_eq!(plain.key_type, SecretKeyType::GenericSecret);
        // The attributes that programs usually set in the template of a secret key.
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
    fn a_key_that_is_generated_says_its_length_and_is_shown_to_nobody() {
        let yes = &[CK_TRUE][..];
        let length = |length: CK_ULONG| length.to_ne_bytes();
        let parse = |kind, more: &[(CK_ATTRIBUTE_TYPE, &[u8])]| {
            let mut template = Template::default();
            for (kind, value) in more {
                template.0.push((*kind, Secret::new(value.to_vec())));
            }
            SecretKeyTemplate::generated(Mechanism::find(kind, CKF_GENERATE).unwrap(), &template)
        };
        let (aes, generic) = (CKM_AES_KEY_GEN, CKM_GENERIC_SECRET_KEY_GEN);
        for (kind, lengths) in [(aes, &[16, 24, 32][..]), (generic, &[1, 32, 64, 1024])] {
            for size in lengths {
                let (made, bytes) = parse(kind, &[(CKA_VALUE_LEN, &length(*size))]).unwrap();
                assert_eq!(bytes as CK_ULONG, *size);
                assert!(made.sensitive && !made.extractable);
            }
        }
        let uses = |kind| {
            let (made, _) = parse(kind, &[(CKA_VALUE_LEN, &length(16)), (CKA_WRAP, yes)]).unwrap();
            made.described.usage.unwrap().iter().collect::<Vec<_>>()
        };
        assert_eq!(uses(aes), [Use::Decrypt, Use::Encrypt]);
        assert_eq!(uses(generic), [Use::Sign, Use::Verify]);
        assert_eq!(parse(aes, &[]), Err(Error::TemplateIncomplete));
        let (sixteen, other) = (length(16), CKK_GENERIC_SECRET.to_ne_bytes());
        for (kind, value, error) in [
            (CKA_VALUE_LEN, &length(0)[..], Error::AttributeValueInvalid),
            (CKA_VALUE_LEN, &length(20), Error::AttributeValueInvalid),
            (
                CKA_VALUE_LEN,
                &length(1 << 31),
                Error::AttributeValueInvalid,
            ),
            (CKA_VALUE_LEN, &[16], Error::AttributeValueInvalid),
            (CKA_SENSITIVE, &[2], Error::AttributeValueInvalid),
            (CKA_KEY_TYPE, &other, Error::TemplateInconsistent),
            (CKA_VALUE, b"0123456789abcdef", Error::AttributeReadOnly),
            (CKA_EC_POINT, b"x", Error::AttributeTypeInvalid),
        ] {
            let mut template = vec![(kind, value)];
            if kind != CKA_VALUE_LEN {
                template.push((CKA_VALUE_LEN, &sixteen));
            }
            assert_eq!(parse(aes, &template), Err(error), "{kind:#x}");
        }
        let length = (CKA_VALUE_LEN, &sixteen[..]);
        let (shown, sensitive) = ((CKA_EXTRACTABLE, yes), (CKA_SENSITIVE, &[CK_FALSE][..]));
        let (of_session, _) = parse(aes, &[length, shown, sensitive]).unwrap();
        assert!(of_session.extractable && !of_session.sensitive);
        let on_token = parse(aes, &[length, shown, (CKA_TOKEN, yes)]);
        assert_eq!(on_token, Err(Error::TemplateInconsistent));
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
        let usage = plain.described.usage.unwrap();
        assert!(usage.iter().eq([Use::Sign, Use::Verify]));
        let long = [7; LONGEST_SECRET_KEY + 1];
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
        assert!(parse(&aes, value, (CKA_TOKEN, yes)).is_ok());
        let on_token = |more| {
            let kind = (CKA_KEY_TYPE, &aes[..]);
            let template = Template::from([kind, (CKA_VALUE, value), (CKA_TOKEN, yes), more]);
            SecretKeyTemplate::with_value(&template)
        };
        let extractable = on_token((CKA_EXTRACTABLE, yes));
        assert_eq!(extractable.err(), Some(Error::TemplateInconsistent));
        assert!(on_token((CKA_SENSITIVE, &[CK_FALSE])).is_ok());
        let nothing = Template::from([(CKA_KEY_TYPE, &aes[..])]);
        assert_eq!(
            SecretKeyTemplate::with_value(&nothing).err(),
            Some(Error::TemplateIncomplete)
        );
    }
}
