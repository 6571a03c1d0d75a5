//! Objects that a caller makes with C_CreateObject (PKCS#11 3.0, section 5.7.1): the rules for the
//! template, and the described object.

use crate::error::Error;
use crate::mechanism::key_type::KeyType;
use crate::object::Object;
use crate::template::private::PrivateKeyTemplate;
use crate::template::rules::{self, TemplateKind};
use crate::template::secret::SecretKeyTemplate;
use crate::template::{Template, curve, point_on, text};
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::store::ObjectKind;
use devid_core::store::folder::{Data, EntryContent, ObjectAttributes, Use};
use devid_core::tpm::Secret;
use devid_core::x509::Certificate;

/// The object that a template of C_CreateObject describes.
pub(crate) enum CreateTemplate {
    /// An object that is not a key of the TPM: data, a certificate or a public key.
    Plain(Box<PlainObject>),
    /// A private key for import into the TPM.
    Private(Box<PrivateKeyTemplate>),
    /// A secret key of a session, and its bytes.
    Secret(Box<SecretKeyTemplate>, Secret),
}

/// An object that is not a key of the TPM: data, a certificate or a public key.
#[allow(clippy::large_enum_variant, reason = "it lives in a Box, for one call")]
pub(crate) enum PlainObject {
    Public(PublicKey, ObjectAttributes),
    Certificate(Certificate, ObjectAttributes),
    Data(Data),
}

impl PlainObject {
    pub(crate) fn class(&self) -> CK_OBJECT_CLASS {
        match self {
            Self::Public(..) => CKO_PUBLIC_KEY,
            Self::Certificate(..) => CKO_CERTIFICATE,
            Self::Data(_) => CKO_DATA,
        }
    }

    /// Returns the object as a stored object has it.
    pub(crate) fn kind(&self) -> ObjectKind {
        match self {
            Self::Public(public, described) => {
                ObjectKind::Public(public.clone(), described.clone())
            }
            Self::Certificate(certificate, described) => {
                ObjectKind::Certificate(certificate.clone(), described.clone())
            }
            Self::Data(data) => ObjectKind::Data(data.clone()),
        }
    }

    /// Returns the object as the key folder stores it.
    pub(crate) fn into_content(self) -> EntryContent {
        match self {
            Self::Public(public, described) => EntryContent::Public(public, described),
            Self::Certificate(certificate, described) => {
                EntryContent::Certificate(certificate, described)
            }
            Self::Data(data) => EntryContent::Data(data),
        }
    }
}

impl CreateTemplate {
    /// Reads the template. `takes_keys`: the token imports private keys. Other tokens refuse secret
    /// keys too, because a secret key would have no use on them.
    pub(crate) fn parse(template: &Template, takes_keys: bool) -> Result<Self, Error> {
        let class = template.consistent()?.number(CKA_CLASS)?;
        let plain = match class.ok_or(Error::TemplateIncomplete)? {
            CKO_PUBLIC_KEY => {
                rules::check(template, TemplateKind::Public)?;
                let public = public_key(template)?;
                let described = public_description(template, &public)?;
                PlainObject::Public(public, described)
            }
            CKO_CERTIFICATE => {
                rules::check(template, TemplateKind::Certificate)?;
                let (certificate, described) = certificate(template)?;
                PlainObject::Certificate(certificate, described)
            }
            CKO_DATA => {
                rules::check(template, TemplateKind::Data)?;
                PlainObject::Data(data(template)?)
            }
            CKO_PRIVATE_KEY if takes_keys => {
                rules::check(template, TemplateKind::Private)?;
                return Ok(Self::Private(Box::new(PrivateKeyTemplate::parse(
                    template,
                )?)));
            }
            CKO_SECRET_KEY if takes_keys => {
                let (wanted, value) = SecretKeyTemplate::with_value(template)?;
                return Ok(Self::Secret(Box::new(wanted), value));
            }
            _ => return Err(Error::AttributeValueInvalid),
        };
        Ok(Self::Plain(Box::new(plain)))
    }

    /// Checks the attributes whose values the object itself determines. A template may repeat such
    /// a value, or leave it empty.
    pub(crate) fn check_repeated(template: &Template, object: &Object) -> Result<(), Error> {
        let kinds = rules::repeated(object.attribute(CKA_CLASS)?);
        let differs = kinds.iter().any(|kind| match template.value(*kind) {
            None | Some([]) => false,
            // Java gives CKA_SERIAL_NUMBER without the DER header of the INTEGER.
            Some(value) if *kind == CKA_SERIAL_NUMBER => {
                let whole = object.attribute(*kind).unwrap_or_default();
                ![Some(whole), whole.get(2..)].contains(&Some(value))
            }
            Some(value) => object.attribute(*kind) != Ok(value),
        });
        match differs {
            true => Err(Error::TemplateInconsistent),
            false => Ok(()),
        }
    }
}

/// Reads the attributes of a public key. By default the key has CKA_VERIFY.
fn public_description(template: &Template, public: &PublicKey) -> Result<ObjectAttributes, Error> {
    let possible = KeyType::from_public(public).public_uses();
    Ok(ObjectAttributes {
        usage: Some(template.uses(possible, &[Use::Verify])?),
        ..template.description()?
    })
}

fn public_key(template: &Template) -> Result<PublicKey, Error> {
    let kind = template.number(CKA_KEY_TYPE)?;
    let key = match kind.ok_or(Error::TemplateIncomplete)? {
        CKK_EC => {
            let curve = curve(template.required(CKA_EC_PARAMS)?);
            let point = template.required(CKA_EC_POINT)?;
            point_on(curve?, point)
        }
        CKK_RSA => PublicKey::from_rsa(
            template.required(CKA_MODULUS)?,
            template.required(CKA_PUBLIC_EXPONENT)?,
        ),
        _ => None,
    };
    key.ok_or(Error::AttributeValueInvalid)
}

/// Reads a certificate. CKA_VALUE must be exactly one DER certificate. Other data would be lost.
fn certificate(template: &Template) -> Result<(Certificate, ObjectAttributes), Error> {
    match template.number(CKA_CERTIFICATE_TYPE)? {
        Some(CKC_X_509) => {}
        Some(_) => return Err(Error::AttributeValueInvalid),
        None => return Err(Error::TemplateIncomplete),
    }
    // The certificate itself determines its category. Therefore CKA_CERTIFICATE_CATEGORY only needs
    // a valid number.
    if template.number(CKA_CERTIFICATE_CATEGORY)? > Some(CK_CERTIFICATE_CATEGORY_OTHER_ENTITY) {
        return Err(Error::AttributeValueInvalid);
    }
    let der = template.required(CKA_VALUE)?;
    let certificate = Certificate::from_der(der).map_err(|_| Error::AttributeValueInvalid)?;
    let described = ObjectAttributes {
        // The content of the certificate determines these attributes.
        subject: Vec::new(),
        start: None,
        end: None,
        ..template.description()?
    };
    Ok((certificate, described))
}

fn data(template: &Template) -> Result<Data, Error> {
    let value = |kind| template.value(kind).unwrap_or_default();
    Ok(Data {
        description: template.description()?,
        application: text(value(CKA_APPLICATION))?,
        object_id: value(CKA_OBJECT_ID).to_vec(),
        value: value(CKA_VALUE).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_one_and_nothing_more() {
        let pem = include_bytes!("../../core/testdata/leaf.pem");
        let leaf = Certificate::parse_all(pem).unwrap().remove(0);
        let parse = |value: &[u8]| {
            let kind = CKC_X_509.to_ne_bytes();
            certificate(&Template::from([
                (CKA_CERTIFICATE_TYPE, &kind[..]),
                (CKA_VALUE, value),
            ]))
        };
        assert_eq!(
            parse(leaf.der()).map(|(parsed, _)| parsed),
            Ok(leaf.clone())
        );
        let (padded, twice) = (
            [leaf.der(), &[0]].concat(),
            [leaf.der(), leaf.der()].concat(),
        );
        for wrong in [&pem[..], &padded, &twice, &leaf.der()[1..], b""] {
            assert_eq!(parse(wrong).err(), Some(Error::AttributeValueInvalid));
        }
    }

    #[test]
    fn data_may_say_nothing_and_its_text_must_be_text() {
        let class = CKO_DATA.to_ne_bytes();
        let empty = Template::from([(CKA_CLASS, &class[..])]);
        let Ok(CreateTemplate::Plain(plain)) = CreateTemplate::parse(&empty, false) else {
            unreachable!()
        };
        assert!(matches!(*plain, PlainObject::Data(_)));
        let broken = Template::from([(CKA_CLASS, &class[..]), (CKA_APPLICATION, b"\xFF")]);
        assert_eq!(
            CreateTemplate::parse(&broken, false).err(),
            Some(Error::AttributeValueInvalid)
        );
    }
}
