//! Private keys that a caller imports, in clear or wrapped (PKCS#11 3.0, sections 6.1.3, 6.3.4 and
//! 6.7). The TPM imports the keys and never returns them.

use super::key_pair::{Persistence, key_usage, persistence, protection};
use super::rules::{self, TemplateKind};
use super::{Template, curve, point_on};
use crate::error::Error;
use crate::mechanism::key_type::KeyType;
use cryptoki_sys::*;
use devid_core::key::{F4, PublicKey, pad_left};
use devid_core::store::Protection;
use devid_core::store::devid::{KeyPurpose, PrivateKey};
use devid_core::store::folder::{ObjectAttributes, Use};
use devid_core::tpm::Secret;

/// A private key that C_CreateObject or C_UnwrapKey imports.
pub(crate) struct PrivateKeyTemplate {
    pub(crate) key: PrivateKey,
    pub(crate) usage: KeyPurpose,
    pub(crate) protection: Option<Protection>,
    pub(crate) described: ObjectAttributes,
    pub(crate) persistence: Persistence,
    /// The public key that the template states.
    public: Option<PublicKey>,
}

impl PrivateKeyTemplate {
    pub(super) fn parse(template: &Template) -> Result<Self, Error> {
        let (key, public) = match template.number(CKA_KEY_TYPE)? {
            Some(CKK_EC) => ec(template)?,
            Some(CKK_RSA) => rsa(template)?,
            Some(_) => return Err(Error::AttributeValueInvalid),
            None => return Err(Error::TemplateIncomplete),
        };
        Self::new(key, public, template)
    }

    /// Reads the template for this private key. `public`: the public key that the template states.
    pub(crate) fn new(
        key: PrivateKey,
        public: Option<PublicKey>,
        template: &Template,
    ) -> Result<Self, Error> {
        let possible = type_of(&key).private_uses();
        let wanted = template.uses(possible, &[Use::Sign])?;
        Ok(Self {
            key,
            usage: key_usage(wanted)?,
            described: ObjectAttributes {
                usage: Some(wanted),
                ..template.description()?
            },
            persistence: persistence(template)?,
            protection: protection(template)?,
            public,
        })
    }

    /// Checks that the public key of the private key is the public key that the template states.
    pub(crate) fn check_public(&self, public: &PublicKey) -> Result<(), Error> {
        match self.public.as_ref().is_none_or(|said| said == public) {
            true => Ok(()),
            false => Err(Error::TemplateInconsistent),
        }
    }
}

/// The type of the private key that is to be unwrapped.
pub(crate) struct UnwrapTemplate(KeyType);

impl UnwrapTemplate {
    /// Reads the template of C_UnwrapKey. The template must name the class and the type. The
    /// template must not name the values of the key (section 4.1.1; Table 10, footnotes 5 and 6).
    pub(crate) fn parse(template: &Template) -> Result<Self, Error> {
        rules::check(template.consistent()?, TemplateKind::UnwrappedPrivate)?;
        let class = template.number(CKA_CLASS)?;
        if class.ok_or(Error::TemplateIncomplete)? != CKO_PRIVATE_KEY {
            return Err(Error::TemplateInconsistent);
        }
        let number = template.number(CKA_KEY_TYPE)?;
        let number = number.ok_or(Error::TemplateIncomplete)?;
        match KeyType::from_number(number) {
            Some(private @ (KeyType::Ec | KeyType::Rsa)) => Ok(Self(private)),
            _ => Err(Error::TemplateInconsistent),
        }
    }

    /// Parses a PrivateKeyInfo and returns the private key. Returns `None` for other data, for a
    /// key of another type, and for a key whose numbers do not match each other.
    pub(crate) fn private(&self, info: &[u8]) -> Option<PrivateKey> {
        let key = PrivateKey::from_info(info).ok();
        key.filter(|key| type_of(key) == self.0 && key.halves().is_ok())
    }
}

const fn type_of(key: &PrivateKey) -> KeyType {
    match key {
        PrivateKey::Ec(..) => KeyType::Ec,
        PrivateKey::Rsa { .. } => KeyType::Rsa,
    }
}

fn ec(template: &Template) -> Result<(PrivateKey, Option<PublicKey>), Error> {
    let curve = curve(template.required(CKA_EC_PARAMS)?)?;
    // Some clients omit leading zeros of the number, or add a leading zero.
    let scalar = pad_left(template.required(CKA_VALUE)?, curve.width()).map(Secret::new);
    let scalar = scalar.ok_or(Error::AttributeValueInvalid)?;
    let point = template
        .value(CKA_EC_POINT)
        .filter(|point| !point.is_empty());
    let public = match point {
        Some(point) => Some(point_on(curve, point).ok_or(Error::AttributeValueInvalid)?),
        None => None,
    };
    Ok((PrivateKey::Ec(curve, scalar), public))
}

/// Reads an RSA key. One prime is required and sufficient, because a TPM stores only one prime of
/// the private key.
fn rsa(template: &Template) -> Result<(PrivateKey, Option<PublicKey>), Error> {
    let modulus = template.required(CKA_MODULUS)?;
    let exponent = template.value(CKA_PUBLIC_EXPONENT).unwrap_or(&F4);
    let public = PublicKey::from_rsa(modulus, exponent).ok_or(Error::AttributeValueInvalid)?;
    let PublicKey::Rsa { modulus, exponent } = &public else {
        return Err(Error::AttributeValueInvalid);
    };
    if exponent[..] != F4 {
        return Err(Error::AttributeValueInvalid);
    }
    let prime = [CKA_PRIME_1, CKA_PRIME_2]
        .iter()
        .find_map(|kind| template.value(*kind).filter(|prime| !prime.is_empty()));
    let prime = prime.ok_or(Error::TemplateIncomplete)?;
    let zeros = prime.iter().take_while(|&&byte| byte == 0).count();
    let key = PrivateKey::Rsa {
        modulus: modulus.clone(),
        prime: Secret::new(prime[zeros..].to_vec()),
    };
    Ok((key, Some(public)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::Curve;

    #[test]
    fn a_scalar_is_as_wide_as_the_order() {
        let parse = |value: &[u8]| {
            let kind = CKK_EC.to_ne_bytes();
            PrivateKeyTemplate::parse(&Template::from([
                (CKA_KEY_TYPE, &kind[..]),
                (CKA_EC_PARAMS, Curve::P256.oid_der()),
                (CKA_VALUE, value),
            ]))
        };
        for value in [&[7; 32][..], &[7; 31], &[&[0][..], &[7; 32]].concat()] {
            let PrivateKey::Ec(Curve::P256, scalar) = parse(value).ok().unwrap().key else {
                unreachable!()
            };
            assert_eq!(scalar.len(), 32);
        }
        assert_eq!(parse(&[7; 33]).err(), Some(Error::AttributeValueInvalid));
    }

    #[test]
    fn one_prime_there_must_be() {
        let kind = CKK_RSA.to_ne_bytes();
        let modulus = [0xC1; 256];
        let parse = |exponent: &[u8], prime: &[u8]| {
            PrivateKeyTemplate::parse(&Template::from([
                (CKA_KEY_TYPE, &kind[..]),
                (CKA_MODULUS, &modulus[..]),
                (CKA_PUBLIC_EXPONENT, exponent),
                (CKA_PRIME_2, prime),
            ]))
        };
        assert!(parse(&[1, 0, 1], &[0xC3; 128]).is_ok());
        assert_eq!(
            parse(&[1, 0, 1], &[]).err(),
            Some(Error::TemplateIncomplete)
        );
        assert_eq!(
            parse(&[3], &[0xC3; 128]).err(),
            Some(Error::AttributeValueInvalid)
        );
    }
}
