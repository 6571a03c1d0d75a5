//! Certificates that a CA issues for keys of devices (IEEE 802.1AR, section 8; TCG, TPM 2.0 Keys for
//! Device Identity and Attestation, section 8).

use super::issue::{CertificateSigner, IssueError, Subject, serial_number, signed, unbuildable};
use super::issue::{unencodable, usable_from};
use crate::ber::{OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, encoded};
use crate::key::PublicKey;
use crate::oid::{
    AUTHORITY_KEY_ID, CERTIFICATE_POLICIES, EXTENDED_KEY_USAGE, SUBJECT_ALT_NAME,
    TCG_CAP_VERIFIED_TPM_FIXED, TCG_CAP_VERIFIED_TPM_RESIDENCY, TCG_KP_AIK_CERTIFICATE,
    TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION,
};
use crate::x509::Certificate;
use std::time::Duration;
use x509_cert::builder::CertificateBuilder;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier, OctetString};
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

/// id-on-permanentIdentifier (RFC 4043).
const PERMANENT_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.3");
/// The identifier tcg-on-ekPermIdSha256, for a digest of an EK certificate.
const EK_PERM_ID_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.12.1");

/// The CA that issues a certificate: its certificate and its signing key.
pub(crate) struct Authority<'a, E> {
    pub(crate) certificate: &'a Certificate,
    pub(crate) signer: CertificateSigner<'a, E>,
}

/// The type of the certified key, with the names for the certificate.
pub(crate) enum Certified {
    /// A key of the device that signs any data (an LDevID).
    Device(Subject),
    /// An attestation key, with the names of its TPM for the certificate.
    Attestation(AttestationNames),
    /// An attestation key of a service. The certificate contains no name of the TPM.
    ServiceAttestation(Subject),
}

/// The names in the certificate of an attestation key.
pub(crate) struct AttestationNames {
    /// TPMManufacturer, TPMModel and TPMVersion from the endorsement key's certificate.
    pub(crate) tpm: [String; 3],
    pub(crate) identifier: PermanentIdentifier,
}

/// A PermanentIdentifier (RFC 4043).
pub(crate) enum PermanentIdentifier {
    /// The SHA-256 hash of the endorsement key's certificate, in hexadecimal digits.
    OfEkCertificate(String),
    /// A permanent identifier that the CA chose.
    Named(String),
}

/// Issues a certificate for the public key of a device. The certificate is valid from a day ago
/// until `until`, but no longer than the CA's certificate.
///
/// # Errors
///
/// The errors of the signer, or [`IssueError`].
pub(crate) fn certify<E: From<IssueError>>(
    key: &PublicKey,
    certified: Certified,
    lifetime: Duration,
    by: &Authority<'_, E>,
) -> Result<Certificate, E> {
    let issuer = Name::from_der(by.certificate.subject_der()).ok();
    let issuer = issuer.filter(|name| {
        name.to_der().ok().as_deref() == Some(by.certificate.subject_der()) && !name.is_empty()
    });
    let issuer = issuer.ok_or_else(|| {
        IssueError::Failed(format!(
            "the name {} of the CA cannot be encoded in the new certificate",
            by.certificate.subject()
        ))
    })?;
    let authority = by.certificate.subject_key_id().ok().flatten();
    let authority =
        authority.map_or_else(|| by.signer.public.id().as_bytes().to_vec(), <[u8]>::to_vec);
    let profile = Issued {
        issuer,
        authority,
        certified,
    };
    let validity = validity(lifetime, by.certificate)?;
    let info = SubjectPublicKeyInfoOwned::from_der(&key.info_der()).map_err(unencodable)?;
    let builder = CertificateBuilder::new(profile, serial_number()?, validity, info);
    let certificate = signed(builder.map_err(unbuildable)?, &by.signer)?;
    let der = certificate.to_der().map_err(unencodable)?;
    Ok(Certificate::from_der(&der).map_err(|error| IssueError::Failed(error.to_string()))?)
}

/// Returns the validity of the new certificate. The validity ends no later than that of the CA's
/// certificate.
fn validity(lifetime: Duration, ca: &Certificate) -> Result<Validity, IssueError> {
    let unread = |why| IssueError::Failed(format!("the validity of the CA's certificate {why}"));
    let (first, last) = (
        ca.not_before().map_err(unread)?.unix_seconds(),
        ca.not_after().map_err(unread)?,
    );
    let from = usable_from()?;
    let now = from.0.unix_duration();
    let end = now.saturating_add(lifetime).as_secs();
    let ca_end = match last.is_no_end() {
        true => u64::MAX,
        false => u64::try_from(last.unix_seconds()).unwrap_or_default(),
    };
    let start = from.1.unix_duration().as_secs();
    let start = start.max(u64::try_from(first).unwrap_or_default());
    let time = |seconds: u64| {
        let time = DateTime::from_unix_duration(Duration::from_secs(seconds));
        let time = time.unwrap_or(DateTime::INFINITY);
        Time::GeneralTime(GeneralizedTime::from_date_time(time))
    };
    Ok(Validity::new(time(start), time(end.min(ca_end))))
}

struct Issued {
    issuer: Name,
    /// The key identifier of the CA, for the extension authorityKeyIdentifier.
    authority: Vec<u8>,
    certified: Certified,
}

impl BuilderProfile for Issued {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        match &self.certified {
            Certified::Device(subject) | Certified::ServiceAttestation(subject) => {
                subject.name().clone()
            }
            Certified::Attestation(_) => Name::default(),
        }
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let mut extensions = Vec::new();
        let usage = KeyUsage(KeyUsages::DigitalSignature.into());
        extensions.push(usage.to_extension(tbs.subject(), &extensions)?);
        let leaf = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        extensions.push(leaf.to_extension(tbs.subject(), &extensions)?);
        // In AuthorityKeyIdentifier, keyIdentifier has the tag [0].
        let authority = encoded(SEQUENCE, &encoded(0x80, &self.authority));
        extensions.push(extension(AUTHORITY_KEY_ID, false, authority)?);
        match &self.certified {
            Certified::Device(subject) => {
                extensions.extend(subject.alternative().cloned());
                let policies = [TCG_CAP_VERIFIED_TPM_RESIDENCY, TCG_CAP_VERIFIED_TPM_FIXED];
                let policies = policies.map(|policy| encoded(SEQUENCE, &identifier(policy)));
                let policies = encoded(SEQUENCE, &policies.concat());
                extensions.push(extension(CERTIFICATE_POLICIES, false, policies)?);
            }
            Certified::Attestation(names) => {
                extensions.push(extension(SUBJECT_ALT_NAME, true, names.encoded())?);
                extensions.push(attestation_purpose()?);
            }
            Certified::ServiceAttestation(_) => extensions.push(attestation_purpose()?),
        }
        Ok(extensions)
    }
}

impl AttestationNames {
    /// Returns the GeneralNames for the subjectAltName: a directoryName (TCG, EK Credential
    /// Profile, section 3.2.9) and an otherName.
    fn encoded(&self) -> Vec<u8> {
        const SET: u8 = 0x31;
        const UTF8_STRING: u8 = 0x0C;
        let utf8 = |text: &str| encoded(UTF8_STRING, text.as_bytes());
        let kinds = [TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION];
        let relative = kinds.into_iter().zip(&self.tpm).map(|(kind, text)| {
            let pair = encoded(SEQUENCE, &[identifier(kind), utf8(text)].concat());
            encoded(SET, &pair)
        });
        let name = encoded(SEQUENCE, &relative.collect::<Vec<_>>().concat());
        let value = match &self.identifier {
            PermanentIdentifier::OfEkCertificate(digits) => {
                [utf8(digits), identifier(EK_PERM_ID_SHA256)].concat()
            }
            PermanentIdentifier::Named(text) => utf8(text),
        };
        let value = encoded(0xA0, &encoded(SEQUENCE, &value));
        let other = [identifier(PERMANENT_IDENTIFIER), value].concat();
        encoded(
            SEQUENCE,
            &[encoded(0xA4, &name), encoded(0xA0, &other)].concat(),
        )
    }
}

fn attestation_purpose() -> x509_cert::der::Result<Extension> {
    let purposes = encoded(SEQUENCE, &identifier(TCG_KP_AIK_CERTIFICATE));
    extension(EXTENDED_KEY_USAGE, false, purposes)
}

fn identifier(oid: ObjectIdentifier) -> Vec<u8> {
    encoded(OBJECT_IDENTIFIER, oid.as_bytes())
}

fn extension(
    id: ObjectIdentifier,
    critical: bool,
    value: Vec<u8>,
) -> x509_cert::der::Result<Extension> {
    debug_assert_ne!(value.first(), Some(&OCTET_STRING));
    Ok(Extension {
        extn_id: id,
        critical,
        extn_value: OctetString::new(value)?,
    })
}
