//! Certificates and requests of the device's own (RFC 5280; RFC 2986), signed by its keys.

use super::Fault;
use super::prove::rsa_scheme;
use super::time::now;
use crate::certificate::Certificate;
use crate::certificate::extensions::SUBJECT_ALT_NAME;
use crate::key::{Curve, PublicKey};
use crate::store::{Key, SignRequest};
use crate::tpm::{Hash, SignatureScheme, Tpm};
use log::warn;
use signature::Keypair;
use std::time::Duration;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, ObjectIdentifier, OctetString};
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::request::RequestBuilder;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, Document, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};

/// EVE's habit: a clock that is a little late elsewhere must not refuse a new certificate.
const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);

/// Whom a certificate is to name.
#[derive(Debug, Clone)]
pub struct Subject {
    name: Name,
    alternative: Option<Extension>,
}

/// A private key that signs certificates and requests.
pub(super) struct Signer<'a>(pub(super) &'a Tpm, pub(super) &'a Key);

impl Subject {
    /// The subject and the subjectAltName of another certificate: an LDevID names the same device
    /// as its IDevID (IEEE 802.1AR, section 8.6).
    pub(super) fn copied(certificate: &Certificate) -> Result<Self, Fault> {
        let whose = || certificate.subject();
        let name = certificate.subject_name().ok();
        let name = name.and_then(|name| Name::from_der(&name.rewritten()?).ok());
        let name = name.ok_or_else(|| {
            Fault::failed(format!("the name {} cannot be written again", whose()))
        })?;
        let there = match certificate.extension(SUBJECT_ALT_NAME) {
            Ok(there) => there,
            Err(why) if name.is_empty() => {
                return Err(Fault::failed(format!("the only name of the device {why}")));
            }
            Err(why) => {
                warn!("the subjectAltName of {} {why}: it is not copied", whose());
                None
            }
        };
        let alternative = match there {
            Some(there) => Some(Extension {
                extn_id: SUBJECT_ALT_NAME,
                // With an empty subject nothing else names the device (RFC 5280, 4.2.1.6).
                critical: name.is_empty(),
                extn_value: OctetString::new(there.value).map_err(unencodable)?,
            }),
            None => None,
        };
        Ok(Self { name, alternative })
    }

    /// As RFC 4514 writes it, and nothing beside.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let name = text.parse().map_err(|error| {
            Fault::new(
                super::FaultKind::Usage,
                format!("{text:?}: no subject ({error}); expected for example CN=web,O=Example"),
            )
        })?;
        Ok(Self {
            name,
            alternative: None,
        })
    }

    /// Of a service's key: its label, and nothing that tells of the device.
    pub(super) fn named(label: &str) -> Result<Self, Fault> {
        let special = |one: char| ",+\"\\<>;=#/".contains(one);
        match label.chars().any(special) {
            true => Err(Fault::new(
                super::FaultKind::Usage,
                format!("{label}: no name for a subject; say it with --subject"),
            )),
            false => Self::parse(&format!("CN={label}")),
        }
    }

    /// Of a device that nobody named: after its own key. No serialNumber, which would be a
    /// device's (IEEE 802.1AR, section 8.6).
    pub(super) fn of_key(public: &PublicKey) -> Result<Self, Fault> {
        let digest = Hash::Sha256.digest(&[&public.info_der()]);
        let digits = crate::key::hex(&digest[..8]);
        Self::parse(&format!("CN=devid-{digits}"))
    }
}

/// A certificate that the key itself signs, without end.
pub(super) fn self_signed(subject: Subject, signer: &Signer) -> Result<Certificate, Fault> {
    let mut serial = [0; 16];
    getrandom::rand_core::TryRng::try_fill_bytes(&mut getrandom::SysRng, &mut serial)
        .map_err(|error| Fault::failed(format!("no random bytes: {error}")))?;
    serial[0] = serial[0] & 0x7F | 0x40;
    // A clock that stands before the build is wrong; the build was before now in any case.
    let from = now().unwrap_or_else(|built| built).unix_duration();
    let from = DateTime::from_unix_duration(from.saturating_sub(BACKDATED)).map_err(unencodable)?;
    // The builder writes it as UTCTime as long as that can be.
    let from = Time::GeneralTime(GeneralizedTime::from_date_time(from));
    let validity = Validity::new(from, Time::INFINITY);
    let info = SubjectPublicKeyInfoOwned::from_der(&signer.public().info_der());
    let builder = CertificateBuilder::new(
        SelfIssued(subject),
        SerialNumber::new(&serial).map_err(unencodable)?,
        validity,
        info.map_err(unencodable)?,
    );
    let certificate = signed(builder.map_err(unbuildable)?, signer)?;
    let der = certificate.to_der().map_err(unencodable)?;
    Certificate::from_der(&der).map_err(|error| Fault::failed(error.to_string()))
}

/// A PKCS#10 request, PEM.
pub(super) fn request(subject: Subject, signer: &Signer) -> Result<String, Fault> {
    let mut builder = RequestBuilder::new(subject.name).map_err(unbuildable)?;
    let usage = KeyUsage(KeyUsages::DigitalSignature.into());
    builder.add_extension(&usage).map_err(unencodable)?;
    if let Some(alternative) = subject.alternative {
        builder.add_extension(alternative).map_err(unencodable)?;
    }
    let request = signed(builder, signer)?;
    use x509_cert::der::EncodePem;
    request
        .to_pem(x509_cert::der::pem::LineEnding::LF)
        .map_err(unencodable)
}

/// Not by `Builder::build`: that would take the TPM's own words out of an error.
fn signed<B: Builder>(mut builder: B, signer: &Signer) -> Result<B::Output, Fault> {
    let described = Described {
        public: signer.public().clone(),
        scheme: signer.scheme()?,
    };
    let message = builder.finalize(&described).map_err(unbuildable)?;
    let signature = signer.sign(described.scheme, &message)?;
    let bits = BitString::from_bytes(&signature).map_err(unencodable)?;
    builder.assemble(bits, &described).map_err(unbuildable)
}

/// The profile of IEEE 802.1AR, section 8, for what a device says of itself.
struct SelfIssued(Subject);

impl BuilderProfile for SelfIssued {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.0.name.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        issuer: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let mut extensions = Vec::new();
        let usage = KeyUsage(KeyUsages::DigitalSignature.into());
        extensions.push(usage.to_extension(tbs.subject(), &extensions)?);
        let authority = AuthorityKeyIdentifier::try_from(issuer)?;
        extensions.push(authority.to_extension(tbs.subject(), &extensions)?);
        extensions.extend(self.0.alternative.clone());
        Ok(extensions)
    }
}

impl Signer<'_> {
    pub(super) fn public(&self) -> &PublicKey {
        self.1.public()
    }

    /// The scheme in which the key signs digests of its own strength.
    fn scheme(&self) -> Result<SignatureScheme, Fault> {
        match self.public() {
            PublicKey::Ec { curve, .. } => Ok(SignatureScheme::Ecdsa(match curve {
                Curve::P256 => Hash::Sha256,
                Curve::P384 => Hash::Sha384,
                Curve::P521 => Hash::Sha512,
            })),
            PublicKey::Rsa { .. } => match rsa_scheme(self.1) {
                Some(SignatureScheme::Rsassa(hash)) => Ok(SignatureScheme::Rsassa(hash)),
                _ => Err(Fault::failed(
                    "the key signs neither by ECDSA nor by RSASSA-PKCS1-v1_5",
                )),
            },
        }
    }

    /// A signature as X.509 has it.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let digest = scheme.hash().digest(&[message]);
        let signature = self.1.sign(self.0, SignRequest::of(scheme, &digest))?;
        match self.public() {
            PublicKey::Ec { curve, .. } => sig_value(*curve, &signature),
            PublicKey::Rsa { .. } => Ok(signature),
        }
    }
}

/// r ‖ s as ECDSA-Sig-Value (RFC 3279, section 2.2.3).
fn sig_value(curve: Curve, signature: &[u8]) -> Result<Vec<u8>, Fault> {
    macro_rules! through {
        ($curve:ident) => {
            $curve::ecdsa::Signature::from_slice(signature)
                .map(|signature| signature.to_der().as_bytes().to_vec())
                .map_err(|error| Fault::failed(error.to_string()))
        };
    }
    match curve {
        Curve::P256 => through!(p256),
        Curve::P384 => through!(p384),
        Curve::P521 => through!(p521),
    }
}

/// What x509-cert wants to know of a signer; it does not sign.
struct Described {
    public: PublicKey,
    scheme: SignatureScheme,
}

#[derive(Clone)]
struct Info(Vec<u8>);

impl Keypair for Described {
    type VerifyingKey = Info;

    fn verifying_key(&self) -> Info {
        Info(self.public.info_der())
    }
}

impl EncodePublicKey for Info {
    fn to_public_key_der(&self) -> x509_cert::spki::Result<Document> {
        Ok(Document::try_from(self.0.as_slice())?)
    }
}

impl DynSignatureAlgorithmIdentifier for Described {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        let (oid, parameters) = match self.scheme {
            SignatureScheme::Ecdsa(Hash::Sha384) => ("1.2.840.10045.4.3.3", None),
            SignatureScheme::Ecdsa(Hash::Sha512) => ("1.2.840.10045.4.3.4", None),
            SignatureScheme::Ecdsa(_) => ("1.2.840.10045.4.3.2", None),
            SignatureScheme::Rsassa(Hash::Sha384) => ("1.2.840.113549.1.1.12", Some(Any::null())),
            SignatureScheme::Rsassa(Hash::Sha512) => ("1.2.840.113549.1.1.13", Some(Any::null())),
            SignatureScheme::Rsassa(_) | SignatureScheme::Rsapss(_) => {
                ("1.2.840.113549.1.1.11", Some(Any::null()))
            }
        };
        Ok(AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap(oid),
            parameters,
        })
    }
}

fn unencodable(error: x509_cert::der::Error) -> Fault {
    Fault::failed(format!("X.509: {error}"))
}

fn unbuildable(error: x509_cert::builder::Error) -> Fault {
    Fault::failed(format!("X.509: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::identity::Profile;
    use crate::identity::chain::is_signed_by;
    use crate::identity::software::Software;
    use crate::tpm::Refusals;

    /// A key in memory asks none.
    fn no_tpm() -> Tpm {
        config::defaults(&|_| None).tpm(Refusals::default())
    }

    #[test]
    fn a_software_key_certifies_itself() {
        let state = tempfile::tempdir().unwrap();
        let key = Software::of(state.path()).make_key().unwrap();
        let subject = Subject::of_key(key.public()).unwrap();
        let certificate = self_signed(subject, &Signer(&no_tpm(), &key)).unwrap();
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
        let key = Software::of(state.path()).make_key().unwrap();
        let pem = include_bytes!("../../testdata/leaf.pem");
        let factory = Certificate::parse_all(pem).unwrap().remove(0);
        let subject = Subject::copied(&factory).unwrap();
        let own = self_signed(subject, &Signer(&no_tpm(), &key)).unwrap();
        assert_eq!(own.subject_der(), factory.subject_der());
        let module = |certificate| Profile::of(certificate).hardware_module;
        assert_eq!(module(&own), module(&factory));
    }

    #[test]
    fn a_subject_of_odd_types_is_copied_as_text() {
        let state = tempfile::tempdir().unwrap();
        let key = Software::of(state.path()).make_key().unwrap();
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
            let own = self_signed(subject, &Signer(&no_tpm(), &key)).unwrap();
            assert_eq!(own.subject(), said);
        }
    }
}
