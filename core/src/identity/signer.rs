//! Signs certificates and certificate requests with keys of the device.

use super::IdentityError;
use super::prove::rsa_scheme;
use crate::key::{Curve, PublicKey};
use crate::signature::SignRequest;
use crate::store::Key;
use crate::tpm::{Hash, SignatureScheme, Tpm};
use crate::x509::issue::{self, CertificateSigner};
use crate::x509::{Certificate, RequestContent, Subject, request};

/// A private key that signs certificates and certificate requests.
pub(crate) struct Signer<'a>(pub(crate) &'a Tpm, pub(crate) &'a Key);

impl Signer<'_> {
    pub(super) fn public(&self) -> &PublicKey {
        self.1.public()
    }

    /// Makes a self-signed certificate whose validity has no end.
    pub(super) fn self_signed(&self, subject: Subject) -> Result<Certificate, IdentityError> {
        self.with(|signer| issue::self_signed(subject, signer))
    }

    /// Makes a certificate request (PKCS#10, DER). Uses `subject` if the content has none.
    pub(crate) fn request(
        &self,
        subject: &Subject,
        content: &RequestContent,
    ) -> Result<Vec<u8>, IdentityError> {
        let asked = content.hash().map(|hash| match self.public() {
            PublicKey::Ec { .. } => SignatureScheme::Ecdsa(hash),
            PublicKey::Rsa { .. } => SignatureScheme::Rsassa(hash),
        });
        match asked.filter(|scheme| self.1.signs(*scheme)) {
            Some(scheme) => self.by(scheme, |signer| request::request(subject, content, signer)),
            None => self.with(|signer| request::request(subject, content, signer)),
        }
    }

    fn with<T>(
        &self,
        make: impl FnOnce(&CertificateSigner<'_, IdentityError>) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        self.by(self.scheme()?, make)
    }

    fn by<T>(
        &self,
        scheme: SignatureScheme,
        make: impl FnOnce(&CertificateSigner<'_, IdentityError>) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        make(&CertificateSigner {
            public: self.public(),
            scheme,
            sign: &|digest| Ok(self.1.sign(self.0, SignRequest::of(scheme, digest))?),
        })
    }

    /// Returns the signature scheme of the key. If the key has no fixed scheme, the strength of the
    /// hash matches the key.
    pub(crate) fn scheme(&self) -> Result<SignatureScheme, IdentityError> {
        match self.public() {
            PublicKey::Ec { curve, .. } => {
                let own = match curve {
                    Curve::P256 => Hash::Sha256,
                    Curve::P384 => Hash::Sha384,
                    Curve::P521 => Hash::Sha512,
                };
                let shorter = [own, Hash::Sha384, Hash::Sha256].map(SignatureScheme::Ecdsa);
                let mut shorter = shorter.into_iter();
                let named = shorter.find(|scheme| self.1.signs(*scheme));
                Ok(named.unwrap_or(SignatureScheme::Ecdsa(own)))
            }
            PublicKey::Rsa { .. } => rsa_scheme(self.1).ok_or_else(|| {
                IdentityError::failed("the key supports neither RSASSA-PKCS1-v1_5 nor RSASSA-PSS")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::identity::software::Software;
    use crate::tpm::Refusals;
    use crate::x509::Profile;
    use crate::x509::path::is_signed_by;

    /// Returns a TPM that is never asked, because the key is used in memory.
    fn no_tpm() -> Tpm {
        config::defaults(&|_| None).tpm(Refusals::default())
    }

    #[test]
    fn a_software_key_certifies_itself() {
        let state = tempfile::tempdir().unwrap();
        let key = Software::in_state(state.path()).make_key().unwrap();
        let subject = Subject::of_key(key.public()).unwrap();
        let certificate = Signer(&no_tpm(), &key).self_signed(subject).unwrap();
        assert_eq!(is_signed_by(&certificate, &certificate), Ok(true));
        let profile = Profile::of(&certificate);
        assert_eq!(profile.not_after, None);
        assert_eq!(profile.subject.len(), "CN=devid-".len() + 16);
        assert_eq!((profile.device_serial, profile.model), (None, None));
        assert!(!profile.authority);
    }

    #[test]
    fn a_copied_subject_keeps_the_hardware_module() {
        let state = tempfile::tempdir().unwrap();
        let key = Software::in_state(state.path()).make_key().unwrap();
        let pem = include_bytes!("../../testdata/leaf.pem");
        let factory = Certificate::parse_all(pem).unwrap().remove(0);
        let subject = Subject::copied(&factory).unwrap();
        let own = Signer(&no_tpm(), &key).self_signed(subject).unwrap();
        assert_eq!(own.subject_der(), factory.subject_der());
        let module = |certificate| Profile::of(certificate).hardware_module;
        assert_eq!(module(&own), module(&factory));
    }

    #[test]
    fn a_subject_of_odd_types_is_copied_as_text() {
        let state = tempfile::tempdir().unwrap();
        let key = Software::in_state(state.path()).make_key().unwrap();
        for (shape, said) in [
            (
                &include_bytes!("../../testdata/shapes/str-universal.der")[..],
                "SERIALNUMBER=SN000123,CN=Gerät 7,O=Gerätebau",
            ),
            (
                include_bytes!("../../testdata/shapes/rdn-multi-unsorted.der"),
                "CN=E+SERIALNUMBER=SN0123456789,O=Ex",
            ),
            (
                include_bytes!("../../testdata/shapes/ext-dup.der"),
                "SERIALNUMBER=SN000123,CN=EX-1000,O=Example Devices",
            ),
        ] {
            let factory = Certificate::from_der(shape).unwrap();
            let subject = Subject::copied(&factory).unwrap();
            let own = Signer(&no_tpm(), &key).self_signed(subject).unwrap();
            assert_eq!(own.subject(), said);
        }
    }
}
