//! Certificates and certificate requests that keys of the device sign (RFC 5280; RFC 2986).

use super::algorithms::{ecdsa_to_der, signature_algorithm};
use super::clock::now;
use crate::ber::as_der;
use crate::key::PublicKey;
use crate::oid::SUBJECT_ALT_NAME;
use crate::system::random;
use crate::tpm::{Hash, SignatureScheme};
use crate::x509::Certificate;
use log::warn;
use signature::Keypair;
use std::time::Duration;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{BitString, GeneralizedTime, OctetString};
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, Document, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};

/// The notBefore of a new certificate is this long before the current time. A verifier whose clock
/// is late must still accept the certificate. EVE uses the same value.
const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);

/// The subject of a certificate, and its subjectAltName if there is one.
#[derive(Debug, Clone)]
pub struct Subject {
    name: Name,
    /// The subject as a Name in DER.
    pub(crate) der: Vec<u8>,
    pub(super) alternative: Option<Extension>,
}

/// A function that signs a digest with a private key.
type SignDigest<'a, E> = dyn Fn(&[u8]) -> Result<Vec<u8>, E> + 'a;

/// A signing key of the device: its public key, its scheme, and a function that signs.
pub(crate) struct CertificateSigner<'a, E> {
    pub(crate) public: &'a PublicKey,
    /// The signature scheme: ECDSA or RSASSA-PKCS1-v1_5.
    pub(crate) scheme: SignatureScheme,
    /// Signs a digest that the hash of `scheme` made. Returns r ‖ s, each as wide as the order of
    /// the curve, or an RSA signature as wide as the modulus.
    pub(crate) sign: &'a SignDigest<'a, E>,
}

/// The reason why a certificate or request could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueError {
    /// The text is not a valid subject in the format of RFC 4514.
    Subject(String),
    /// The encoding failed, or getrandom(2) gave no random bytes.
    Failed(String),
}

impl Subject {
    /// Copies subject and subjectAltName of another certificate. An LDevID names the same device as
    /// its IDevID (IEEE 802.1AR, section 8.6).
    pub(crate) fn copied(certificate: &Certificate) -> Result<Self, IssueError> {
        let whose = || certificate.subject();
        let name = certificate.subject_name().ok();
        let name = name.and_then(|name| Name::from_der(&name.rewritten()?).ok());
        let name = name.ok_or_else(|| {
            IssueError::Failed(format!(
                "the name {} cannot be encoded in a new certificate",
                whose()
            ))
        })?;
        let there = match certificate.extension(SUBJECT_ALT_NAME) {
            Ok(there) => there,
            Err(why) if name.is_empty() => {
                return Err(IssueError::Failed(format!(
                    "the subjectAltName, which is the only name of the device, {why}"
                )));
            }
            Err(why) => {
                warn!("the subjectAltName of {} {why}: it is not copied", whose());
                None
            }
        };
        let alternative = match there {
            Some(there) => Some(Extension {
                extn_id: SUBJECT_ALT_NAME,
                // If the subject is empty, only the subjectAltName names the device (RFC 5280,
                // 4.2.1.6).
                critical: name.is_empty(),
                extn_value: OctetString::new(there.value).map_err(unencodable)?,
            }),
            None => None,
        };
        Self::of(name, alternative)
    }

    /// Copies subject and subjectAltName of another certificate. The bytes are unchanged if they
    /// are DER, because some servers compare the bytes at a renewal (RFC 7030, section 4.2.2).
    ///
    /// # Errors
    ///
    /// The errors of [`Self::copied`].
    pub(crate) fn verbatim(certificate: &Certificate) -> Result<Self, IssueError> {
        let mut subject = Self::copied(certificate)?;
        subject.der = as_der(certificate.subject_der()).unwrap_or(subject.der);
        if let (Some(copied), Ok(Some(there))) = (
            &mut subject.alternative,
            certificate.extension(SUBJECT_ALT_NAME),
        ) {
            copied.critical = there.critical;
        }
        Ok(subject)
    }

    /// Returns the subject of a certificate request, without its subjectAltName.
    #[cfg(feature = "evidence")]
    pub(crate) fn asked_for(
        request: &super::received_request::Request,
    ) -> Result<Self, IssueError> {
        let name = request.subject_der();
        match Name::from_der(name) {
            Ok(name) if !name.is_empty() => Self::of(name, None),
            _ => Err(IssueError::Subject(
                "the request has no subject: give one with --subject".into(),
            )),
        }
    }

    /// Parses a subject in the format of RFC 4514.
    pub fn parse(text: &str) -> Result<Self, IssueError> {
        let name = text.parse().map_err(|error| {
            IssueError::Subject(format!(
                "{text:?} is not a subject ({error}); expected for example CN=web,O=Example"
            ))
        })?;
        Self::of(name, None)
    }

    fn of(name: Name, alternative: Option<Extension>) -> Result<Self, IssueError> {
        let der = name.to_der().map_err(unencodable)?;
        Ok(Self {
            name,
            der,
            alternative,
        })
    }

    /// Returns true if the subject is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_empty()
    }

    /// Parses a Name in DER and keeps its encoding.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a Name.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, IssueError> {
        Ok(Self {
            der: der.to_vec(),
            ..Self::of(Name::from_der(der).map_err(unencodable)?, None)?
        })
    }

    /// Returns the subject for a service's key. The subject has the label of the key, and does not
    /// name the device.
    pub(crate) fn named(label: &str) -> Result<Self, IssueError> {
        let special = |one: char| ",+\"\\<>;=#".contains(one);
        match label.chars().any(special) {
            true => Err(IssueError::Subject(format!(
                "{label} is not valid in a subject; give a subject with --subject"
            ))),
            false => Self::parse(&format!("CN={label}")),
        }
    }

    #[cfg(feature = "evidence")]
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    #[cfg(feature = "evidence")]
    pub(super) fn alternative(&self) -> Option<&Extension> {
        self.alternative.as_ref()
    }

    /// Returns a subject that is derived from a public key, for a device whose name is unknown. The
    /// subject has no serialNumber, because a serialNumber would name a device (IEEE 802.1AR,
    /// section 8.6).
    pub(crate) fn of_key(public: &PublicKey) -> Result<Self, IssueError> {
        let digest = Hash::Sha256.digest(&[&public.info_der()]);
        let digits = crate::key::hex(&digest[..8]);
        Self::parse(&format!("CN=devid-{digits}"))
    }
}

/// Issues a self-signed certificate without end of validity (notAfter 99991231235959Z).
///
/// # Errors
///
/// The errors of the signer, or [`IssueError`].
pub(crate) fn self_signed<E: From<IssueError>>(
    subject: Subject,
    signer: &CertificateSigner<'_, E>,
) -> Result<Certificate, E> {
    let (_, from) = usable_from()?;
    // The encoder writes UTCTime for years before 2050, as RFC 5280 requires.
    let from = Time::GeneralTime(GeneralizedTime::from_date_time(from));
    let validity = Validity::new(from, Time::INFINITY);
    let info = SubjectPublicKeyInfoOwned::from_der(&signer.public.info_der());
    let builder = CertificateBuilder::new(
        SelfIssued(subject),
        serial_number()?,
        validity,
        info.map_err(unencodable)?,
    );
    let certificate = signed(builder.map_err(unbuildable)?, signer)?;
    let der = certificate.to_der().map_err(unencodable)?;
    Ok(Certificate::from_der(&der).map_err(|error| IssueError::Failed(error.to_string()))?)
}

/// Returns a positive serial number with 126 random bits (RFC 5280, section 4.1.2.2).
pub(super) fn serial_number() -> Result<SerialNumber, IssueError> {
    let mut serial = [0; 16];
    random(&mut serial).map_err(|error| IssueError::Failed(format!("no random bytes: {error}")))?;
    serial[0] = serial[0] & 0x7F | 0x40;
    SerialNumber::new(&serial).map_err(unencodable)
}

/// Returns the current time, and the notBefore of a new certificate.
pub(super) fn usable_from() -> Result<(DateTime, DateTime), IssueError> {
    // A clock before the build time is wrong. The build time is then used as the current time.
    let now = now().unwrap_or_else(|built| built);
    let from = now.unix_duration().saturating_sub(BACKDATED);
    let from = DateTime::from_unix_duration(from).map_err(unencodable)?;
    Ok((now, from))
}

/// Builds and signs a certificate or a certificate request. `Builder::build` of x509-cert would
/// lose the TPM's error message.
pub(super) fn signed<B: Builder, E: From<IssueError>>(
    mut builder: B,
    signer: &CertificateSigner<'_, E>,
) -> Result<B::Output, E> {
    let described = Described {
        public: signer.public.clone(),
        scheme: signer.scheme,
    };
    let message = builder.finalize(&described).map_err(unbuildable)?;
    let bits = BitString::from_bytes(&signer.signature(&message)?).map_err(unencodable)?;
    Ok(builder.assemble(bits, &described).map_err(unbuildable)?)
}

impl<E: From<IssueError>> CertificateSigner<'_, E> {
    /// Signs a message. Returns the signature in the encoding of certificates and certificate
    /// requests.
    pub(super) fn signature(&self, message: &[u8]) -> Result<Vec<u8>, E> {
        let signature = (self.sign)(&self.scheme.hash().digest(&[message]))?;
        Ok(match self.public {
            PublicKey::Ec { curve, .. } => ecdsa_to_der(*curve, &signature).ok_or_else(|| {
                IssueError::Failed("the signature does not have the size of the curve".into())
            })?,
            PublicKey::Rsa { .. } => signature,
        })
    }

    /// Returns the AlgorithmIdentifier of this key's signatures in DER.
    pub(super) fn algorithm(&self) -> Result<Vec<u8>, IssueError> {
        signature_algorithm(self.scheme)
            .and_then(|algorithm| algorithm.to_der())
            .map_err(unencodable)
    }
}

/// The profile of IEEE 802.1AR, section 8, for self-signed certificates.
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

/// A public key and its scheme, in the signer type that x509-cert needs. This value cannot sign.
struct Described {
    public: PublicKey,
    scheme: SignatureScheme,
}

#[derive(Clone)]
struct SubjectKeyInfo(Vec<u8>);

impl Keypair for Described {
    type VerifyingKey = SubjectKeyInfo;

    fn verifying_key(&self) -> SubjectKeyInfo {
        SubjectKeyInfo(self.public.info_der())
    }
}

impl EncodePublicKey for SubjectKeyInfo {
    fn to_public_key_der(&self) -> x509_cert::spki::Result<Document> {
        Ok(Document::try_from(self.0.as_slice())?)
    }
}

impl DynSignatureAlgorithmIdentifier for Described {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        Ok(signature_algorithm(self.scheme)?)
    }
}

pub(super) fn unencodable(error: x509_cert::der::Error) -> IssueError {
    IssueError::Failed(format!("X.509: {error}"))
}

pub(super) fn unbuildable(error: x509_cert::builder::Error) -> IssueError {
    IssueError::Failed(format!("X.509: {error}"))
}

impl std::fmt::Display for IssueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Subject(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for IssueError {}
