//! Changes of attributes by C_SetAttributeValue, and changes that C_CopyObject makes on the copy
//! (PKCS#11 3.0, sections 5.7.2 and 5.7.6).

use crate::error::Error;
use crate::object::Object;
use crate::object::attribute::use_of;
use crate::template::{Template, describe, flag, text};
use cryptoki_sys::*;
use devid_core::store::folder::{Editable, ObjectAttributes, Usage};
use devid_core::tpm::Secret;

/// The attributes to be changed. Table 10, footnote 8, and the tables of each attribute define the
/// attributes that may change. A use can change from true to false, but not from false to true. The
/// same rule applies to CKA_COPYABLE.
pub(super) struct Changes {
    attributes: Vec<(CK_ATTRIBUTE_TYPE, Secret)>,
    /// The permitted uses of the key before and after the change.
    usage: Option<(Usage, Usage)>,
}

impl Changes {
    /// Reads the template of C_SetAttributeValue.
    pub(super) fn parse(template: &Template, object: &Object) -> Result<Self, Error> {
        Self::of(&template.0, object)
    }

    /// Reads the template of C_CopyObject. Some attributes may change only on the copy. Another
    /// function reads CKA_TOKEN. The copy of a private object is private.
    pub(super) fn of_copy(template: &Template, object: &Object) -> Result<Self, Error> {
        let is_of_copy = |kind: CK_ATTRIBUTE_TYPE| {
            [CKA_TOKEN, CKA_PRIVATE, CKA_MODIFIABLE, CKA_DESTROYABLE].contains(&kind)
        };
        let (of_copy, others) = template
            .0
            .iter()
            .cloned()
            .partition::<Vec<_>, _>(|one| is_of_copy(one.0));
        let mut changes = Self::of(&others, object)?;
        for (kind, value) in of_copy {
            let is_set = flag(&value)?;
            match kind {
                CKA_TOKEN => continue,
                CKA_PRIVATE if !is_set && object.has_flag(CKA_PRIVATE) => {
                    return Err(Error::TemplateInconsistent);
                }
                _ => changes.attributes.push((kind, value)),
            }
        }
        Ok(changes)
    }

    fn of(items: &[(CK_ATTRIBUTE_TYPE, Secret)], object: &Object) -> Result<Self, Error> {
        let class = object.attribute(CKA_CLASS)?;
        let is = |one: CK_OBJECT_CLASS| class == one.to_ne_bytes();
        let before = object.usage();
        let (mut attributes, mut after) = (Vec::new(), before);
        for (kind, value) in items {
            let now = match object.attribute(*kind) {
                Err(Error::AttributeTypeInvalid) => return Err(Error::AttributeTypeInvalid),
                now => now,
            };
            match *kind {
                // The content of the certificate determines these attributes.
                CKA_SUBJECT | CKA_START_DATE | CKA_END_DATE if is(CKO_CERTIFICATE) => {
                    return Err(Error::AttributeReadOnly);
                }
                CKA_LABEL | CKA_ID | CKA_SUBJECT | CKA_START_DATE | CKA_END_DATE => {
                    describe(&mut ObjectAttributes::labelled(""), *kind, value)?;
                    attributes.push((*kind, value.clone()));
                }
                CKA_APPLICATION | CKA_OBJECT_ID | CKA_VALUE if is(CKO_DATA) => {
                    if *kind == CKA_APPLICATION {
                        text(value)?;
                    }
                    attributes.push((*kind, value.clone()));
                }
                CKA_SENSITIVE | CKA_EXTRACTABLE => {
                    flag(value)?;
                    if now != Ok(value) {
                        return Err(Error::AttributeReadOnly);
                    }
                }
                CKA_COPYABLE => match flag(value)? {
                    true if now != Ok(value) => return Err(Error::AttributeReadOnly),
                    true => {}
                    false => attributes.push((*kind, value.clone())),
                },
                other => match (use_of(other), flag(value)) {
                    (None, _) => return Err(Error::AttributeReadOnly),
                    (Some(_), Err(wrong)) => return Err(wrong),
                    (Some(one), Ok(true)) if !before.has(one) => {
                        return Err(Error::AttributeReadOnly);
                    }
                    (Some(_), Ok(true)) => {}
                    (Some(one), Ok(false)) => after = after.without(one),
                },
            }
        }
        let usage = (before != after).then_some((before, after));
        Ok(Self { attributes, usage })
    }

    pub(super) fn apply(&self, mut object: Editable<'_>) -> Result<(), Error> {
        for (kind, value) in &self.attributes {
            match (*kind, &mut object) {
                (CKA_APPLICATION, Editable::Data(data)) => data.application = text(value)?,
                (CKA_OBJECT_ID, Editable::Data(data)) => data.object_id = value.to_vec(),
                (CKA_VALUE, Editable::Data(data)) => data.value = value.to_vec(),
                (_, object) => describe(object.description(), *kind, value)?,
            }
        }
        if let Some((before, after)) = self.usage {
            let described = object.description();
            // Another process may have set some uses of the key to false in the meantime.
            let now = described.usage.unwrap_or(before);
            described.usage = Some(now.iter().filter(|one| after.has(*one)).collect());
        }
        Ok(())
    }
}
