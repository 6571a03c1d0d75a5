//! A simulated device for unit tests. Its TPM is in software, and signs any statement that a test
//! needs.

use super::{Evidence, Expected, ExpectedNonce, verify};
use crate::evidence::Bundle;
use crate::evidence::bundle::{AttestationKey, CertifiedKey, Device, qualifying_data};
use crate::evidence::challenge::Activation;
use crate::key::{Curve, PrivateKeyInfo, PublicKey, hex};
use crate::oid::{EXTENDED_KEY_USAGE, SUBJECT_ALT_NAME};
use crate::store::sign_in_clear;
use crate::tpm::{
    ATTEST_CERTIFY, Hash, Signature, SignatureScheme, TPM_GENERATED, handle, name_of,
    qualified_name_below,
};
use crate::x509::issue::{CertificateSigner, IssueError};
use crate::x509::request::{RequestContent, request};
use crate::x509::samples::{
    Extension, IS_CA, IS_NO_CA, Party, SIGNS_CERTIFICATES, Sample, element, in_year,
};
use crate::x509::{Certificate, Subject};

pub(crate) const EK_PURPOSE: Extension = (EXTENDED_KEY_USAGE, false, "300706056781050801");
pub(crate) const AK_PURPOSE: Extension = (EXTENDED_KEY_USAGE, false, "300706056781050803");
/// The attributes fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted and sign.
pub(crate) const AK: u32 = 0x0005_0072;
/// The attributes of an attested key: those of `AK` without restricted.
pub(crate) const KEY: u32 = 0x0004_0072;
/// The attributes of an endorsement key of the TCG's template L.
pub(crate) const EK: u32 = 0x0003_00B2;

/// The algorithm of the simulated device's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ec(Curve),
    #[cfg(feature = "soft-rsa")]
    Rsa,
}

/// The keys, certificates and TPM statements of the simulated device. Tests change single parts.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) ek: PrivateKeyInfo,
    pub(crate) ak: PrivateKeyInfo,
    pub(crate) key: PrivateKeyInfo,
    pub(crate) ek_extensions: Vec<Extension>,
    pub(crate) ek_subject: &'static str,
    pub(crate) ek_attributes: u32,
    /// The key in the endorsement certificate. `None`: the key `ek`.
    pub(crate) ek_certified: Option<PublicKey>,
    pub(crate) ek_issuer: Party,
    pub(crate) ak_attributes: u32,
    pub(crate) ak_scheme: SignatureScheme,
    pub(crate) key_attributes: u32,
    /// The nameAlg of the attested key. `None`: the default nameAlg of its type.
    pub(crate) key_name_hash: Option<Hash>,
    pub(crate) magic: u32,
    pub(crate) statement: u16,
    pub(crate) nonce: Option<Vec<u8>>,
    /// The bytes that the TPM signs instead of the nonce.
    pub(crate) extra_data: Option<Vec<u8>>,
    /// The public area in the TPM's statement. `None`: the public area of `key`.
    pub(crate) certified: Option<Vec<u8>>,
    pub(crate) signer: PrivateKeyInfo,
    pub(crate) signed_by: SignatureScheme,
    /// The hierarchy of the attestation key.
    pub(crate) hierarchy: u32,
    pub(crate) csr_key: PublicKey,
    pub(crate) csr_signer: PrivateKeyInfo,
    pub(crate) csr_subject: &'static str,
    pub(crate) ak_certificate: Option<Sample>,
    pub(crate) ak_certified: Option<PublicKey>,
    /// The certificate that the factory issued for `key`.
    pub(crate) factory: Option<Sample>,
    /// The nonce in the statement about the factory's IDevID. `None`: the bundle has no IDevID.
    pub(crate) idevid_nonce: Option<Vec<u8>>,
    pub(crate) device: Device,
}

/// Returns the root CA of these tests.
pub(crate) fn root() -> Party {
    Party::new("CN=root", 1)
}

/// Returns the CA of a TPM manufacturer, which the root has certified.
pub(crate) fn maker() -> Party {
    Party::new("CN=maker", 2)
}

pub(crate) fn private(kind: Kind, number: u8) -> PrivateKeyInfo {
    match kind {
        Kind::Ec(curve) => {
            let mut scalar = vec![number; curve.width()];
            scalar[0] = 0;
            PrivateKeyInfo::from_scalar(curve, &scalar).unwrap()
        }
        #[cfg(feature = "soft-rsa")]
        Kind::Rsa => {
            use aws_lc_rs::encoding::AsDer;
            use aws_lc_rs::rsa::{KeyPair, KeySize};
            let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
            let der: aws_lc_rs::encoding::Pkcs8V1Der = pair.as_der().unwrap();
            PrivateKeyInfo::from_der(der.as_ref()).unwrap()
        }
    }
}

impl Kind {
    pub(crate) fn scheme(self) -> SignatureScheme {
        match self {
            Self::Ec(Curve::P256) => SignatureScheme::Ecdsa(Hash::Sha256),
            Self::Ec(Curve::P384) => SignatureScheme::Ecdsa(Hash::Sha384),
            Self::Ec(Curve::P521) => SignatureScheme::Ecdsa(Hash::Sha512),
            #[cfg(feature = "soft-rsa")]
            Self::Rsa => SignatureScheme::Rsassa(Hash::Sha256),
        }
    }
}

/// Returns a correct device whose TPM answered a challenge.
pub(crate) fn parts(kind: Kind) -> Parts {
    let [ek, ak, key] = [11, 12, 13].map(|number| private(kind, number));
    // A directoryName with TPMManufacturer, TPMModel and TPMVersion.
    let attribute = |last: u8, text: &str| {
        let oid = element(6, &[0x67, 0x81, 5, 2, last]);
        let pair = element(0x30, &[oid, element(12, text.as_bytes())].concat());
        element(0x31, &pair)
    };
    let attributes = [
        attribute(1, "id:494E5443"),
        attribute(2, "SOFT"),
        attribute(3, "id:0001"),
    ];
    let name = element(0xA4, &element(0x30, &attributes.concat()));
    let names = hex(&element(0x30, &name)).leak();
    Parts {
        ek_extensions: vec![EK_PURPOSE, IS_NO_CA, (SUBJECT_ALT_NAME, true, names)],
        ek_subject: "",
        ek_attributes: EK,
        ek_certified: None,
        ek_issuer: maker(),
        ak_attributes: AK,
        ak_scheme: kind.scheme(),
        key_attributes: KEY,
        key_name_hash: None,
        magic: TPM_GENERATED,
        statement: ATTEST_CERTIFY,
        nonce: Some(vec![7; 32]),
        extra_data: None,
        certified: None,
        signer: ak.clone(),
        signed_by: kind.scheme(),
        hierarchy: handle::ENDORSEMENT,
        csr_key: key.public().clone(),
        csr_signer: key.clone(),
        csr_subject: "CN=web",
        ak_certificate: None,
        ak_certified: None,
        factory: None,
        idevid_nonce: None,
        device: Device::default(),
        ek,
        ak,
        key,
    }
}

/// Returns the certificate of an attestation key or of a factory key.
pub(crate) fn leaf(subject: &'static str, purpose: Option<Extension>) -> Sample {
    let mut sample = Sample {
        subject,
        extensions: vec![IS_NO_CA],
        ..Sample::of_device()
    };
    sample.extensions.extend(purpose);
    sample
}

impl Parts {
    pub(crate) fn ak_area(&self) -> Vec<u8> {
        area(self.ak.public(), self.ak_attributes, Some(self.ak_scheme))
    }

    pub(crate) fn key_area(&self) -> Vec<u8> {
        let mut area = area(self.key.public(), self.key_attributes, None);
        if let Some(hash) = self.key_name_hash {
            area[2..4].copy_from_slice(&hash.algorithm().to_be_bytes());
        }
        area
    }

    pub(crate) fn ek_area(&self) -> Vec<u8> {
        area(self.ek.public(), self.ek_attributes, None)
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let key_area = self.key_area();
        let nonce = self.nonce.as_deref().map(qualifying_data);
        let extra = self.extra_data.clone().or(nonce.clone());
        let attest = self.attest(
            self.certified.as_ref().unwrap_or(&key_area),
            &extra.unwrap_or_default(),
        );
        let ek_sample = Sample {
            subject: self.ek_subject,
            extensions: self.ek_extensions.clone(),
            ..Sample::of_device()
        };
        let ek_key = self.ek_certified.as_ref().unwrap_or(self.ek.public());
        let ak_key = self.ak_certified.as_ref().unwrap_or(self.ak.public());
        let issued = |sample: &Option<Sample>, key| {
            let issued = sample.iter().map(|one| one.issued_for(&root(), key));
            issued.map(|one| one.der().into()).collect()
        };
        let ca = maker().certified_by(&root(), &[IS_CA, SIGNS_CERTIFICATES]);
        Bundle {
            device: self.device.clone(),
            ek_public: Some(self.ek_area().into()),
            ek_certificates: vec![ek_sample.issued_for(&self.ek_issuer, ek_key).der().into()],
            ek_chain: vec![ca.der().into()],
            attestation_key: AttestationKey {
                public: self.ak_area().into(),
                certificates: issued(&self.ak_certificate, ak_key),
            },
            key: CertifiedKey {
                label: Some("web".into()),
                public: key_area.into(),
                signature: signature(&self.signer, self.signed_by, &attest).into(),
                certify: attest.into(),
                creation_data: None,
                certificates: issued(&self.factory, self.key.public()),
            },
            idevid: self.idevid_nonce.as_deref().map(|nonce| self.idevid(nonce)),
            nonce: nonce.map(Into::into),
            csr: self.csr().into(),
        }
    }

    /// Returns a TPMS_ATTEST of TPM2_Certify, for a public area and with the qualifying data
    /// `extra`.
    fn attest(&self, certified: &[u8], extra: &[u8]) -> Vec<u8> {
        let ak_name = name_of(&self.ak_area()).unwrap();
        let signer = qualified_name_below(&self.hierarchy.to_be_bytes(), &ak_name).unwrap();
        [
            &self.magic.to_be_bytes()[..],
            &self.statement.to_be_bytes(),
            &sized(&signer),
            &sized(extra),
            &[0; 17],
            &[1; 8],
            &sized(&name_of(certified).unwrap()),
            &sized(&[0, 11, 5, 5]),
        ]
        .concat()
    }

    /// Returns the factory's IDevID key, certified with a nonce.
    fn idevid(&self, nonce: &[u8]) -> CertifiedKey {
        let factory = private(Kind::Ec(Curve::P256), 14);
        let public = area(factory.public(), KEY, None);
        let attest = self.attest(&public, nonce);
        CertifiedKey {
            label: Some("idev-id".into()),
            public: public.into(),
            signature: signature(&self.signer, self.signed_by, &attest).into(),
            certify: attest.into(),
            creation_data: None,
            certificates: Vec::new(),
        }
    }

    fn csr(&self) -> Vec<u8> {
        let scheme = match self.csr_signer.public() {
            PublicKey::Ec { .. } => self.csr_hash(),
            PublicKey::Rsa { .. } => SignatureScheme::Rsassa(Hash::Sha256),
        };
        let sign = |digest: &[u8]| {
            let signed = sign_in_clear(&self.csr_signer, scheme, digest);
            Ok::<_, IssueError>(signed.unwrap())
        };
        let signer = CertificateSigner {
            public: &self.csr_key,
            scheme,
            sign: &sign,
        };
        let subject = Subject::parse(self.csr_subject).unwrap();
        request(&subject, &RequestContent::default(), &signer).unwrap()
    }

    fn csr_hash(&self) -> SignatureScheme {
        SignatureScheme::Ecdsa(match self.csr_signer.public() {
            PublicKey::Ec { curve, .. } if *curve == Curve::P384 => Hash::Sha384,
            PublicKey::Ec { curve, .. } if *curve == Curve::P521 => Hash::Sha512,
            _ => Hash::Sha256,
        })
    }

    /// Returns what a right answer to the challenge proves.
    pub(crate) fn activation(&self) -> Activation {
        Activation {
            attestation_key_name: name_of(&self.ak_area()).unwrap().into(),
            endorsement_key: self.ek.public().info_der().into(),
            ek_public_sha256: Some(Hash::Sha256.digest(&[&self.ek_area()]).into()),
        }
    }
}

/// Verifies a bundle with the nonce of these tests and an answered challenge.
pub(crate) fn judged(bundle: &Bundle, activation: Option<Activation>) -> Evidence {
    judged_by(bundle, activation.map(Ok), &[7; 32])
}

pub(crate) fn judged_by(
    bundle: &Bundle,
    activation: Option<Result<Activation, String>>,
    nonce: &[u8],
) -> Evidence {
    let root = root_certificate();
    verify(
        bundle,
        &Expected {
            roots: &[root],
            nonce: ExpectedNonce::Given(nonce, Ok(())),
            activation,
            now: in_year(2026),
        },
    )
}

pub(crate) fn root_certificate() -> Certificate {
    root().certified_by(&root(), &[IS_CA, SIGNS_CERTIFICATES])
}

/// Returns the names of the checks that failed.
pub(crate) fn failed(evidence: &Evidence) -> Vec<&'static str> {
    let failed = evidence.report.checks.iter().filter(|check| !check.ok);
    let names: Vec<_> = failed.map(|check| check.name).collect();
    assert_eq!(names.is_empty(), evidence.report.verified);
    names
}

/// Encodes a TPMT_PUBLIC. An endorsement key has AES, other keys have no symmetric cipher.
fn area(public: &PublicKey, attributes: u32, scheme: Option<SignatureScheme>) -> Vec<u8> {
    let words =
        |words: &[u16]| -> Vec<u8> { words.iter().flat_map(|it| it.to_be_bytes()).collect() };
    let (kind, name_hash, key_bits) = match public {
        PublicKey::Rsa { .. } => (1, Hash::Sha256, 128),
        PublicKey::Ec { curve, .. } => match curve {
            Curve::P256 => (0x23, Hash::Sha256, 128),
            Curve::P384 => (0x23, Hash::Sha384, 256),
            Curve::P521 => (0x23, Hash::Sha512, 256),
        },
    };
    let mut area = words(&[kind, name_hash.algorithm()]);
    area.extend(attributes.to_be_bytes());
    area.extend(sized(&[]));
    match attributes {
        EK => area.extend(words(&[6, key_bits, 0x43])),
        _ => area.extend(words(&[0x10])),
    }
    match scheme {
        Some(scheme) => area.extend(words(&[scheme.algorithm(), scheme.hash().algorithm()])),
        None => area.extend(words(&[0x10])),
    }
    match public {
        PublicKey::Rsa { modulus, .. } => {
            area.extend(words(&[8 * modulus.len() as u16, 0, 0]));
            area.extend(sized(modulus));
        }
        PublicKey::Ec { curve, point } => {
            let id = match curve {
                Curve::P256 => 3,
                Curve::P384 => 4,
                Curve::P521 => 5,
            };
            area.extend(words(&[id, 0x10]));
            area.extend(sized(&point[1..=curve.width()]));
            area.extend(sized(&point[1 + curve.width()..]));
        }
    }
    area
}

/// Encodes the TPMT_SIGNATURE of a key over an attestation structure.
fn signature(key: &PrivateKeyInfo, scheme: SignatureScheme, attest: &[u8]) -> Vec<u8> {
    let digest = scheme.hash().digest(&[attest]);
    let signed = sign_in_clear(key, scheme, &digest).unwrap();
    let bytes = Signature::marshalled(scheme, &signed);
    assert!(Signature::read(&bytes).is_some());
    bytes
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
