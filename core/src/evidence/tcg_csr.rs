//! TCG-CSR-IDEVID and TCG-CSR-LDEVID (TCG, TPM 2.0 Keys for Device Identity and Attestation,
//! section 13). The structures hold the evidence of a bundle in 4-byte words, big-endian.
//!
//! Readers of other projects expect different forms, so there are two forms ([`TcgCsrForm`]). The
//! reader in this file accepts both.

use super::Bundle;
use crate::tpm::{Hash, TPM_GENERATED};
use std::fmt;

/// The structVer of the contents (without envelope).
const CONTENTS: u32 = 0x0000_0100;
/// The structVer of the envelope.
const ENVELOPE: u32 = 0x0100_0100;
const WORD: usize = 4;
/// The size of structVer, hashAlgoId and hashSz together.
const HEADER: usize = 3 * WORD;
/// The detached form is padded to a multiple of this length, in bytes.
const BLOCK: usize = 16;
/// The largest size of a TCG-CSR structure in bytes.
const LARGEST: usize = 1 << 20;

/// The form of a TCG-CSR structure: which reader it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcgCsrForm {
    /// The form that OpenConfig's attestz reads. It has a hash and padding. Public areas have no
    /// size field. The signature (TPMT_SIGNATURE) is separate.
    Detached,
    /// The form that Flight Control reads. It has neither hash nor padding. Public areas have a
    /// size field (TPM2B_PUBLIC). An envelope holds contents and signature.
    Enveloped,
}

/// The contents of a TCG-CSR-IDEVID. An empty field stands for a missing value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdevidContents {
    /// The product model, as text.
    pub product_model: Vec<u8>,
    /// The serial number of the product, as text.
    pub product_serial: Vec<u8>,
    /// Data for the CA, for example a PKCS#10 request in PEM.
    pub ca_data: Vec<u8>,
    /// The event log of the boot.
    pub boot_event_log: Vec<u8>,
    /// The endorsement certificate in DER, or the TPMT_PUBLIC of the endorsement key.
    pub ek_certificate: Vec<u8>,
    /// The TPMT_PUBLIC of the attestation key.
    pub attestation_public: Vec<u8>,
    /// The creation ticket of the attestation key.
    pub creation_ticket: Vec<u8>,
    /// The TPMS_ATTEST of TPM2_CertifyCreation for the attestation key.
    pub creation_attest: Vec<u8>,
    /// The signature over `creation_attest`.
    pub creation_signature: Vec<u8>,
    /// The TPMT_PUBLIC of the attested key.
    pub signing_public: Vec<u8>,
    /// The TPMS_ATTEST of TPM2_Certify.
    pub certify: Vec<u8>,
    /// The TPMT_SIGNATURE over `certify`.
    pub certify_signature: Vec<u8>,
}

/// The contents of a TCG-CSR-LDEVID. No public program that reads this structure is known, so the
/// writer follows the rules of TCG-CSR-IDEVID.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LdevidContents {
    /// The endorsement certificate in DER.
    pub ek_certificate: Vec<u8>,
    /// The certificate of the attestation key in DER.
    pub iak_certificate: Vec<u8>,
    /// The platform certificate in DER.
    pub platform_certificate: Vec<u8>,
    /// The TPMT_PUBLIC of the attested key.
    pub public: Vec<u8>,
    /// The TPMS_ATTEST of TPM2_Certify.
    pub certify: Vec<u8>,
    /// The TPMT_SIGNATURE over `certify`.
    pub certify_signature: Vec<u8>,
}

/// The contents of a TCG-CSR-IDEVID or a TCG-CSR-LDEVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcgContents {
    /// The contents of a TCG-CSR-IDEVID.
    Idevid(Box<IdevidContents>),
    /// The contents of a TCG-CSR-LDEVID.
    Ldevid(Box<LdevidContents>),
}

/// A parsed TCG-CSR-IDEVID or TCG-CSR-LDEVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcgCsr {
    /// The contents.
    pub contents: TcgContents,
    /// The contents, over which the signature is computed.
    pub signed: Vec<u8>,
    /// The signature in the envelope, if the structure has an envelope. It is an ASN.1 signature or
    /// a TPMT_SIGNATURE.
    pub signature: Option<Vec<u8>>,
    /// True if the hash in the structure is right. `None` if the structure has no hash.
    pub hash_is_right: Option<bool>,
}

/// The reason why bytes are not a TCG-CSR-IDEVID or TCG-CSR-LDEVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoTcgCsr(&'static str);

impl IdevidContents {
    /// Returns the TCG-CSR-IDEVID contents for an evidence bundle. `ca_data` holds a PKCS#10
    /// request, which some readers need and other readers ignore.
    pub fn of(bundle: &Bundle) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
        let ek = bundle.ek_certificates.first().or(bundle.ek_public.as_ref());
        Self {
            product_model: text(&bundle.device.model),
            product_serial: text(&bundle.device.serial),
            ca_data: crate::x509::request_pem(&bundle.csr).into_bytes(),
            ek_certificate: ek.map(|der| der.to_vec()).unwrap_or_default(),
            attestation_public: bundle.attestation_key.public.to_vec(),
            signing_public: bundle.key.public.to_vec(),
            certify: bundle.key.certify.to_vec(),
            certify_signature: bundle.key.signature.to_vec(),
            ..Self::default()
        }
    }

    /// Returns the encoded contents, which the attested key must sign.
    pub fn encode(&self, form: TcgCsrForm) -> Vec<u8> {
        let public = |area: &[u8]| match form {
            TcgCsrForm::Detached => area.to_vec(),
            TcgCsrForm::Enveloped if area.is_empty() => Vec::new(),
            TcgCsrForm::Enveloped => sized(area),
        };
        let (attestation, signing) = (
            public(&self.attestation_public),
            public(&self.signing_public),
        );
        let fields = [
            &self.product_model[..],
            &self.product_serial,
            &self.ca_data,
            &self.boot_event_log,
            &self.ek_certificate,
            &attestation,
            &self.creation_ticket,
            &self.creation_attest,
            &self.creation_signature,
            &signing,
            &self.certify,
            &self.certify_signature,
        ];
        encode(&fields, form, hash_of(&self.signing_public))
    }

    fn read(fields: &[&[u8]; 13]) -> Self {
        let own = |at: usize| fields[at].to_vec();
        Self {
            product_model: own(0),
            product_serial: own(1),
            ca_data: own(2),
            boot_event_log: own(3),
            ek_certificate: own(4),
            attestation_public: bare(fields[5]),
            creation_ticket: own(6),
            creation_attest: own(7),
            creation_signature: own(8),
            signing_public: bare(fields[9]),
            certify: bare(fields[10]),
            certify_signature: own(11),
        }
    }
}

impl LdevidContents {
    /// Returns the TCG-CSR-LDEVID contents for an evidence bundle.
    pub fn of(bundle: &Bundle) -> Self {
        let first = |all: &[super::Bytes]| all.first().map(|der| der.to_vec()).unwrap_or_default();
        Self {
            ek_certificate: first(&bundle.ek_certificates),
            iak_certificate: first(&bundle.attestation_key.certificates),
            platform_certificate: Vec::new(),
            public: bundle.key.public.to_vec(),
            certify: bundle.key.certify.to_vec(),
            certify_signature: bundle.key.signature.to_vec(),
        }
    }

    /// Returns the encoded contents, which the attested key must sign.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [
            &self.ek_certificate[..],
            &self.iak_certificate,
            &self.platform_certificate,
            &self.public,
            &self.certify,
            &self.certify_signature,
        ];
        encode(&fields, TcgCsrForm::Detached, hash_of(&self.public))
    }

    fn read(fields: &[&[u8]; 7]) -> Self {
        Self {
            ek_certificate: fields[0].to_vec(),
            iak_certificate: fields[1].to_vec(),
            platform_certificate: fields[2].to_vec(),
            public: bare(fields[3]),
            certify: bare(fields[4]),
            certify_signature: fields[5].to_vec(),
        }
    }
}

/// Returns an envelope with the contents and their signature.
pub fn enveloped(contents: &[u8], signature: &[u8]) -> Vec<u8> {
    let words = [ENVELOPE, contents.len() as u32, signature.len() as u32];
    [&words_of(&words)[..], contents, signature].concat()
}

impl TcgCsr {
    /// Parses a TCG-CSR-IDEVID or a TCG-CSR-LDEVID, in either form. Ignores bytes after an
    /// envelope, as other readers do.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not such a structure.
    pub fn read(bytes: &[u8]) -> Result<Self, NoTcgCsr> {
        if bytes.len() > LARGEST {
            return Err(NoTcgCsr("the structure is too long"));
        }
        let (contents, signature) = match word(bytes, 0) {
            Some(ENVELOPE) => {
                let size = |at| word(bytes, at).and_then(|size| usize::try_from(size).ok());
                let cut = || NoTcgCsr("its envelope is incomplete");
                let (contents, signature) = size(1).zip(size(2)).ok_or_else(cut)?;
                let rest = &bytes[HEADER..];
                let (contents, rest) = rest.split_at_checked(contents).ok_or_else(cut)?;
                let signature = rest.get(..signature).ok_or_else(cut)?;
                (contents, Some(signature.to_vec()))
            }
            Some(CONTENTS) => (bytes, None),
            _ => return Err(NoTcgCsr("its structVer is unknown")),
        };
        if word(contents, 0) != Some(CONTENTS) {
            return Err(NoTcgCsr("the structVer of its contents is unknown"));
        }
        let found = Layout::find::<13>(contents).map(|(fields, hash)| {
            let read = IdevidContents::read(&fields);
            (TcgContents::Idevid(read.into()), hash)
        });
        let found = found.or_else(|| {
            let (fields, hash) = Layout::find::<7>(contents)?;
            let read = LdevidContents::read(&fields);
            // The sizes of a truncated TCG-CSR-IDEVID may look like a TCG-CSR-LDEVID. The magic
            // number of TPMS_ATTEST shows the difference.
            let is_attest = read.certify.starts_with(&TPM_GENERATED.to_be_bytes());
            is_attest.then(|| (TcgContents::Ldevid(read.into()), hash))
        });
        let (read, hash_is_right) =
            found.ok_or(NoTcgCsr("the sum of its sizes differs from its length"))?;
        Ok(Self {
            contents: read,
            signed: contents.to_vec(),
            signature,
            hash_is_right,
        })
    }
}

/// Finds the size fields and the data fields in the contents.
struct Layout;

impl Layout {
    /// Returns the data fields of the contents. If the contents have a hash, also returns whether
    /// the hash is right.
    fn find<const FIELDS: usize>(contents: &[u8]) -> Option<([&[u8]; FIELDS], Option<bool>)> {
        let size = usize::try_from(word(contents, 2)?).ok()?;
        let with_hash = || {
            let hash = contents.get(HEADER..)?.get(..size)?;
            let fields = Self::fields(contents, HEADER + size)?;
            let algorithm = u16::try_from(word(contents, 1)?).ok();
            let algorithm = algorithm.and_then(Hash::of_algorithm);
            let covered = &contents[HEADER + size..];
            let is_right = algorithm.is_some_and(|hash_by| hash_by.digest(&[covered]) == hash);
            Some((fields, Some(is_right)))
        };
        let without = || Some((Self::fields(contents, HEADER)?, None));
        match (with_hash(), without()) {
            (Some(with), Some(without)) => Some(match with.1 {
                Some(true) => with,
                _ => without,
            }),
            (with, without) => with.or(without),
        }
    }

    /// Reads `FIELDS` size fields, then data fields of exactly these sizes.
    fn fields<const FIELDS: usize>(contents: &[u8], start: usize) -> Option<[&[u8]; FIELDS]> {
        let sizes = contents.get(start..)?;
        let (sizes, mut rest) = sizes.split_at_checked(FIELDS * WORD)?;
        let mut fields = [&[][..]; FIELDS];
        for (at, field) in fields.iter_mut().enumerate() {
            let size = usize::try_from(word(sizes, at)?).ok()?;
            (*field, rest) = rest.split_at_checked(size)?;
        }
        rest.is_empty().then_some(fields)
    }
}

fn encode(fields: &[&[u8]], form: TcgCsrForm, hash: Hash) -> Vec<u8> {
    let payload = fields.concat();
    let sizes = (fields.len() + 1) * WORD;
    let padding = match form {
        TcgCsrForm::Detached => {
            let length = HEADER + hash.width() + sizes + payload.len();
            length.next_multiple_of(BLOCK) - length
        }
        TcgCsrForm::Enveloped => 0,
    };
    let mut words: Vec<u32> = fields.iter().map(|field| field.len() as u32).collect();
    words.push(padding as u32);
    let covered = [&words_of(&words)[..], &payload, &vec![0; padding]].concat();
    let header = [CONTENTS, hash.algorithm().into(), hash.width() as u32];
    let digest = match form {
        TcgCsrForm::Detached => hash.digest(&[&covered]),
        TcgCsrForm::Enveloped => Vec::new(),
    };
    [&words_of(&header)[..], &digest, &covered].concat()
}

/// Returns the nameAlg of a public area.
fn hash_of(area: &[u8]) -> Hash {
    let algorithm = area.get(2..4).and_then(|bytes| bytes.first_chunk());
    let named = algorithm.and_then(|bytes| Hash::of_algorithm(u16::from_be_bytes(*bytes)));
    named.unwrap_or(Hash::Sha256)
}

/// Removes the size field of a TPM2B, if there is one. No TPMT structure begins with its own
/// length.
fn bare(bytes: &[u8]) -> Vec<u8> {
    match bytes.split_first_chunk() {
        Some((size, rest)) if usize::from(u16::from_be_bytes(*size)) == rest.len() => rest.to_vec(),
        _ => bytes.to_vec(),
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn words_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at * WORD..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

impl fmt::Display for NoTcgCsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a TCG-CSR: {}", self.0)
    }
}

impl std::error::Error for NoTcgCsr {}

#[cfg(test)]
#[path = "tcg_csr_tests.rs"]
mod tests;
