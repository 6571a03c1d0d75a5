//! Key pairs that the token generates (PKCS#11 3.0, sections 5.18.2, 6.1.4 and 6.3.6).

use super::rules::{self, TemplateKind};
use super::{Template, curve};
use crate::error::Error;
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::Mechanism;
use crate::vendor::*;
use cryptoki_sys::*;
use devid_core::key::F4;
use devid_core::store::Protection;
use devid_core::store::devid::{KeyAlgorithm, KeyPurpose};
use devid_core::store::folder::{ObjectAttributes, Usage, Use};

/// Where a new private key is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// The private key is stored nowhere. It ends with its session.
    Session,
    /// The private key is stored in a file, wrapped by the TPM.
    File,
    /// The private key is stored in a file, and also in a persistent handle of the TPM.
    Handle,
}

/// Returns true if clients set this use in every template, although no key of this type can have
/// the use. The use is then shown as false, and the template is not refused. NSS and
/// pkcs11-provider set CKA_WRAP for RSA. The examples of PyKCS11 set CKA_SIGN_RECOVER and
/// CKA_VERIFY_RECOVER for RSA. pkcs11-provider sets CKA_WRAP and CKA_UNWRAP for EC.
fn is_habit(key_type: KeyType, one: Use) -> bool {
    match key_type {
        KeyType::Rsa => matches!(one, Use::Wrap | Use::VerifyRecover | Use::SignRecover),
        KeyType::Ec => matches!(one, Use::Wrap | Use::Unwrap),
        KeyType::Aes | KeyType::GenericSecret => false,
    }
}

/// A key pair to be generated.
///
/// The TPM fixes the uses of a key at its creation. The key signs unless CKA_SIGN is false. An RSA
/// key decrypts if the template has CKA_DECRYPT or CKA_UNWRAP. An EC key agrees on secrets if the
/// template has CKA_DERIVE. Clients often ask for both signing and decryption. Such a key has no
/// fixed scheme, so it signs by every mechanism.
///
/// A use that no key of this type can have is refused, for example CKA_DERIVE for RSA. If the use
/// were shown as false, the caller might not notice. [`is_habit`] lists the exceptions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyPairTemplate {
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) usage: KeyPurpose,
    pub(crate) private: ObjectAttributes,
    pub(crate) public: ObjectAttributes,
    pub(crate) persistence: Persistence,
    pub(crate) protection: Option<Protection>,
    /// True if the public key is stored on the token.
    pub(crate) public_on_token: bool,
}

impl KeyPairTemplate {
    pub(crate) fn parse(
        mechanism: &Mechanism,
        public: &Template,
        private: &Template,
    ) -> Result<Self, Error> {
        let key_type = mechanism.key_type.ok_or(Error::MechanismInvalid)?;
        rules::check(public.consistent()?, TemplateKind::GeneratedPublic)?;
        rules::check(private.consistent()?, TemplateKind::GeneratedPrivate)?;
        for (template, class) in [(public, CKO_PUBLIC_KEY), (private, CKO_PRIVATE_KEY)] {
            let said = [(CKA_CLASS, class), (CKA_KEY_TYPE, key_type.number())];
            for (kind, right) in said {
                if template.number(kind)?.is_some_and(|number| number != right) {
                    return Err(Error::TemplateInconsistent);
                }
            }
            if template
                .value(CKA_PUBLIC_KEY_INFO)
                .is_some_and(|info| !info.is_empty())
            {
                return Err(Error::AttributeReadOnly);
            }
        }
        let algorithm = algorithm(key_type, public)?;
        for (template, possible) in [
            (public, key_type.public_uses()),
            (private, key_type.private_uses()),
        ] {
            let asked = template.uses(&Use::ALL, &[])?;
            let is_answered = |one: Use| possible.contains(&one) || is_habit(key_type, one);
            if !asked.iter().all(is_answered) {
                return Err(Error::TemplateInconsistent);
            }
        }
        let wanted = private.uses(key_type.private_uses(), &[Use::Sign])?;
        Ok(Self {
            algorithm,
            usage: key_usage(wanted)?,
            private: ObjectAttributes {
                usage: Some(wanted),
                ..private.description()?
            },
            public: ObjectAttributes {
                usage: Some(public.uses(key_type.public_uses(), &[Use::Verify])?),
                ..public.description()?
            },
            persistence: persistence(private)?,
            protection: protection(private)?,
            public_on_token: public.flag_or_false(CKA_TOKEN)?,
        })
    }
}

/// Reads the algorithm and the size from the template of the public key.
fn algorithm(key_type: KeyType, public: &Template) -> Result<KeyAlgorithm, Error> {
    match key_type {
        KeyType::Ec => {
            let foreign = [CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT];
            if foreign.iter().any(|kind| public.value(*kind).is_some()) {
                return Err(Error::TemplateInconsistent);
            }
            curve(public.required(CKA_EC_PARAMS)?).map(KeyAlgorithm::Ec)
        }
        KeyType::Rsa => {
            if public.value(CKA_EC_PARAMS).is_some() {
                return Err(Error::TemplateInconsistent);
            }
            let exponent = public.value(CKA_PUBLIC_EXPONENT).unwrap_or(&F4);
            let zeros = exponent.iter().take_while(|&&byte| byte == 0).count();
            if exponent[zeros..] != F4 {
                // An odd number above 1 is a valid public exponent (section 6.1.2). The keys of
                // this token have the exponent 65537 only.
                return Err(match &exponent[zeros..] {
                    [] | [1] => Error::AttributeValueInvalid,
                    [.., last] if last % 2 == 0 => Error::AttributeValueInvalid,
                    _ => Error::TemplateInconsistent,
                });
            }
            let bits = public.number(CKA_MODULUS_BITS)?;
            match bits.ok_or(Error::TemplateIncomplete)? {
                bits @ (2048 | 3072 | 4096) => Ok(KeyAlgorithm::Rsa(bits as u32)),
                // The size is valid, but the token does not make such keys (section 4.1.1, last
                // example).
                _ => Err(Error::TemplateInconsistent),
            }
        }
        KeyType::Aes | KeyType::GenericSecret => Err(Error::MechanismInvalid),
    }
}

/// Returns the purpose that the TPM must give a key for these uses. Fails without any use, because
/// the TPM makes no such key.
pub(super) fn key_usage(wanted: Usage) -> Result<KeyPurpose, Error> {
    let usage = KeyPurpose {
        signs: wanted.has(Use::Sign),
        decrypts: [Use::Decrypt, Use::Unwrap, Use::Derive]
            .into_iter()
            .any(|one| wanted.has(one)),
    };
    match usage.signs || usage.decrypts {
        true => Ok(usage),
        false => Err(Error::TemplateInconsistent),
    }
}

/// Reads CKA_DEVID_PROTECTION of a private key. Returns `None` if the token's default applies.
pub(super) fn protection(template: &Template) -> Result<Option<Protection>, Error> {
    Ok(match template.number(CKA_DEVID_PROTECTION)? {
        None => None,
        Some(CK_DEVID_PROTECTION_TPM) => Some(Protection::Tpm),
        Some(CK_DEVID_PROTECTION_SEALED) => Some(Protection::Sealed),
        Some(CK_DEVID_PROTECTION_FILE) => Some(Protection::File),
        Some(_) => return Err(Error::AttributeValueInvalid),
    })
}

/// Reads where the template wants the private key to be stored.
pub(super) fn persistence(template: &Template) -> Result<Persistence, Error> {
    match (
        template.flag_or_false(CKA_TOKEN)?,
        template.flag_or_false(CKA_DEVID_PERSISTENT)?,
    ) {
        (true, true) => Ok(Persistence::Handle),
        (true, false) => Ok(Persistence::File),
        (false, false) => Ok(Persistence::Session),
        (false, true) => Err(Error::TemplateInconsistent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::Curve;

    const YES: &[u8] = &[CK_TRUE];
    const NO: &[u8] = &[CK_FALSE];

    const EC: CK_MECHANISM_TYPE = CKM_EC_KEY_PAIR_GEN;
    const RSA: CK_MECHANISM_TYPE = CKM_RSA_PKCS_KEY_PAIR_GEN;

    fn parse(
        kind: CK_MECHANISM_TYPE,
        public: &Template,
        private: &Template,
    ) -> Result<KeyPairTemplate, Error> {
        KeyPairTemplate::parse(
            Mechanism::find(kind, CKF_GENERATE_KEY_PAIR)?,
            public,
            private,
        )
    }

    fn p256() -> Template {
        Template::from([(CKA_EC_PARAMS, Curve::P256.oid_der())])
    }

    #[test]
    fn nothing_said_is_a_signing_key_of_the_session() {
        let pair = parse(EC, &p256(), &Template::default()).unwrap();
        assert_eq!(pair.algorithm, KeyAlgorithm::Ec(Curve::P256));
        assert_eq!(pair.persistence, Persistence::Session);
        assert!(pair.usage.signs && !pair.usage.decrypts && !pair.public_on_token);
        assert_eq!(pair.private.usage, Some(Usage::NONE.with(Use::Sign)));
        assert_eq!(pair.public.usage, Some(Usage::NONE.with(Use::Verify)));
    }

    #[test]
    fn a_key_that_decrypts_signs_all_the_same() {
        let bits = CK_ULONG::to_ne_bytes(3072);
        let public = Template::from([(CKA_MODULUS_BITS, &bits[..]), (CKA_TOKEN, YES)]);
        let private = Template::from([
            (CKA_TOKEN, YES),
            (CKA_DECRYPT, YES),
            (CKA_DERIVE, NO),
            (CKA_SIGN_RECOVER, NO),
            (CKA_DEVID_PERSISTENT, YES),
        ]);
        let pair = parse(RSA, &public, &private).unwrap();
        assert!(pair.usage.signs && pair.usage.decrypts && pair.public_on_token);
        assert_eq!(pair.persistence, Persistence::Handle);
        let shown = Usage::NONE.with(Use::Sign).with(Use::Decrypt);
        assert_eq!(pair.private.usage, Some(shown));
    }

    #[test]
    fn what_no_tpm_makes_is_refused() {
        let bits = |bits: CK_ULONG| Template::from([(CKA_MODULUS_BITS, &bits.to_ne_bytes()[..])]);
        let exponent = Template::from([
            (CKA_MODULUS_BITS, &CK_ULONG::to_ne_bytes(2048)[..]),
            (CKA_PUBLIC_EXPONENT, &[3]),
        ]);
        let none = Template::default();
        let class = Template::from([(CKA_CLASS, &CKO_PUBLIC_KEY.to_ne_bytes()[..])]);
        for (kind, public, private, error) in [
            (RSA, bits(1024), none.clone(), Error::TemplateInconsistent),
            (RSA, exponent, none.clone(), Error::TemplateInconsistent),
            (RSA, p256(), none.clone(), Error::TemplateInconsistent),
            (RSA, none.clone(), none.clone(), Error::TemplateIncomplete),
            (EC, bits(2048), none.clone(), Error::TemplateInconsistent),
            (EC, none.clone(), none, Error::TemplateIncomplete),
            (EC, p256(), class, Error::TemplateInconsistent),
            (
                EC,
                p256(),
                Template::from([(CKA_SIGN, NO)]),
                Error::TemplateInconsistent,
            ),
            (
                EC,
                p256(),
                Template::from([(CKA_DEVID_PERSISTENT, YES)]),
                Error::TemplateInconsistent,
            ),
        ] {
            assert_eq!(parse(kind, &public, &private), Err(error));
        }
    }
}
