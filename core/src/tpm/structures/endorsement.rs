//! Templates of endorsement keys, and the NV indices of their certificates (TCG, EK Credential
//! Profile for TPM 2.0, sections 2.2.1.4, 2.2.1.5 and B.3 to B.5).

use super::policy;
use super::public::is_storage_key;
use super::template::{curve_id, words};
use crate::key::Curve;
use crate::tpm::algorithm::{AES, CFB, ECC, NULL, RSA};
use crate::tpm::{Hash, KeyAlgorithm, sized};
use tpm2_protocol::data::{
    Tpm2bEccParameter, Tpm2bPublicKeyRsa, TpmsEccPoint, TpmtPublic, TpmuPublicId, TpmuPublicParms,
};
use tpm2_protocol::{TpmMarshal, TpmUnmarshal, TpmWriter};

/// The NV indices for certificates of endorsement keys, each with the template of the key. P-256
/// comes before RSA-2048, because RSA keys are slow to derive.
pub(in crate::tpm) const CERTIFICATES: [(u32, EndorsementTemplate); 8] = [
    (
        0x01C0_000A,
        EndorsementTemplate::low(KeyAlgorithm::Ec(Curve::P256)),
    ),
    (
        0x01C0_0014,
        EndorsementTemplate::high(KeyAlgorithm::Ec(Curve::P256), Hash::Sha256),
    ),
    (
        0x01C0_0016,
        EndorsementTemplate::high(KeyAlgorithm::Ec(Curve::P384), Hash::Sha384),
    ),
    (
        0x01C0_0018,
        EndorsementTemplate::high(KeyAlgorithm::Ec(Curve::P521), Hash::Sha512),
    ),
    (
        0x01C0_0002,
        EndorsementTemplate::low(KeyAlgorithm::Rsa(2048)),
    ),
    (
        0x01C0_0012,
        EndorsementTemplate::high(KeyAlgorithm::Rsa(2048), Hash::Sha256),
    ),
    (
        0x01C0_001C,
        EndorsementTemplate::high(KeyAlgorithm::Rsa(3072), Hash::Sha384),
    ),
    (
        0x01C0_001E,
        EndorsementTemplate::high(KeyAlgorithm::Rsa(4096), Hash::Sha384),
    ),
];

/// The template of an endorsement key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) struct EndorsementTemplate {
    algorithm: KeyAlgorithm,
    hash: Hash,
    /// True for the templates of the high range. Their policy is PolicyB, and their unique field is
    /// empty.
    is_high: bool,
}

impl EndorsementTemplate {
    /// Returns a template of the low range: L-1 (RSA-2048) or L-2 (P-256).
    pub(in crate::tpm) const fn low(algorithm: KeyAlgorithm) -> Self {
        Self {
            algorithm,
            hash: Hash::Sha256,
            is_high: false,
        }
    }

    /// Returns a template of the high range: H-1 to H-7, without SM2.
    const fn high(algorithm: KeyAlgorithm, hash: Hash) -> Self {
        Self {
            algorithm,
            hash,
            is_high: true,
        }
    }

    /// Returns the templates that may give a key of this algorithm, the likeliest first. `index` is
    /// the NV index of the certificate.
    pub(in crate::tpm) fn candidates(algorithm: KeyAlgorithm, index: Option<u32>) -> Vec<Self> {
        let mut all: Vec<_> = CERTIFICATES.to_vec();
        // Manufacturers use different hashes with RSA-4096.
        let other = Self::high(KeyAlgorithm::Rsa(4096), Hash::Sha512);
        all.push((0x01C0_001E, other));
        all.sort_by_key(|(there, _)| Some(*there) != index);
        all.into_iter()
            .map(|(_, template)| template)
            .filter(|template| template.algorithm == algorithm)
            .collect()
    }

    /// Returns the TPMT_PUBLIC of the template.
    pub(in crate::tpm) fn area(self) -> Vec<u8> {
        /// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
        const LOW: u32 = 0x0003_00B2;
        /// The attributes of [`LOW`] and userWithAuth.
        const HIGH: u32 = 0x0003_00F2;
        let (attributes, policy) = match self.is_high {
            true => (HIGH, policy::endorsement(self.hash)),
            false => (LOW, policy::secret(self.hash)),
        };
        let kind = match self.algorithm {
            KeyAlgorithm::Ec(_) => ECC,
            KeyAlgorithm::Rsa(_) => RSA,
        };
        let key_bits = match self.hash {
            Hash::Sha1 | Hash::Sha256 => 128,
            Hash::Sha384 | Hash::Sha512 => 256,
        };
        let mut area = words(&[kind, self.hash.algorithm()]);
        area.extend(attributes.to_be_bytes());
        area.extend(sized(&policy));
        area.extend(words(&[AES, key_bits, CFB, NULL])); // symmetric, scheme
        let zeros = |count| match self.is_high {
            true => Vec::new(),
            false => vec![0; count],
        };
        match self.algorithm {
            KeyAlgorithm::Rsa(bits) => {
                area.extend(words(&[bits as u16]));
                area.extend([0; 4]); // the exponent 65537
                area.extend(sized(&zeros(bits as usize / 8)));
            }
            KeyAlgorithm::Ec(curve) => {
                area.extend(words(&[curve_id(curve), NULL])); // curve, kdf
                area.extend(sized(&zeros(curve.width())));
                area.extend(sized(&zeros(curve.width())));
            }
        }
        area
    }
}

/// Returns true if a public area has the template of an endorsement key. The unique field may have
/// any value.
pub(in crate::tpm) fn is_endorsement_key(area: &[u8]) -> bool {
    let all = CERTIFICATES.iter().map(|(_, template)| template);
    all.into_iter().any(|template| {
        let whole = template.area();
        let unique = match (template.is_high, template.algorithm) {
            (true, KeyAlgorithm::Rsa(_)) => 2,
            (true, KeyAlgorithm::Ec(_)) => 4,
            (false, KeyAlgorithm::Rsa(bits)) => 2 + bits as usize / 8,
            (false, KeyAlgorithm::Ec(curve)) => 2 * (2 + curve.width()),
        };
        area.starts_with(&whole[..whole.len() - unique])
    })
}

/// Returns two NV indices that belong to the certificate index. They are for the template of the
/// key and for the nonce of the template. For P-256, manufacturers disagree which of the two
/// contains the template.
pub(in crate::tpm) fn template_indices(certificate: u32) -> Vec<u32> {
    match certificate {
        0x01C0_0002 => vec![0x01C0_0003, 0x01C0_0004],
        0x01C0_000A => vec![0x01C0_000B, 0x01C0_000C],
        high => vec![high + 1],
    }
}

/// Returns the template in the content of an NV index; `None` for other content.
pub(in crate::tpm) fn stored_template(content: &[u8]) -> Option<Vec<u8>> {
    let (area, _) = TpmtPublic::unmarshal(content).ok()?;
    let area = marshalled(&area)?;
    (content.starts_with(&area) && is_storage_key(&area)).then_some(area)
}

/// Returns the template with this nonce in its unique field (section B.2).
pub(in crate::tpm) fn with_nonce(template: &[u8], nonce: &[u8]) -> Option<Vec<u8>> {
    let (mut area, _) = TpmtPublic::unmarshal(template).ok()?;
    let padded = |count: usize| {
        let mut padded = nonce.to_vec();
        padded.resize(count, 0);
        padded
    };
    area.unique = match area.parameters {
        TpmuPublicParms::Rsa(_) => {
            TpmuPublicId::Rsa(Tpm2bPublicKeyRsa::try_from(&padded(256)[..]).ok()?)
        }
        TpmuPublicParms::Ecc(_) => TpmuPublicId::Ecc(TpmsEccPoint {
            x: Tpm2bEccParameter::try_from(&padded(32)[..]).ok()?,
            y: Tpm2bEccParameter::try_from(&[0; 32][..]).ok()?,
        }),
        _ => return None,
    };
    marshalled(&area)
}

fn marshalled(area: &TpmtPublic) -> Option<Vec<u8>> {
    let mut bytes = [0; 2048];
    let mut writer = TpmWriter::new(&mut bytes);
    area.marshal(&mut writer).ok()?;
    Some(writer.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the templates in swtpm and tpm2-tools.
    #[test]
    fn templates_have_the_lengths_of_the_profile() {
        let length = |index: u32| {
            let found = CERTIFICATES.iter().find(|(there, _)| *there == index);
            found.unwrap().1.area().len()
        };
        let without_unique = |index, unique: usize| length(index) + unique;
        assert_eq!(length(0x01C0_0002), 314);
        assert_eq!(length(0x01C0_000A), 122);
        assert_eq!(without_unique(0x01C0_0012, 256), 314);
        assert_eq!(without_unique(0x01C0_0014, 64), 122);
        assert_eq!(without_unique(0x01C0_0016, 96), 170);
        assert_eq!(without_unique(0x01C0_0018, 132), 222);
        assert_eq!(without_unique(0x01C0_001C, 384), 458);
    }

    #[test]
    fn an_endorsement_key_is_known_by_its_template() {
        for (index, template) in CERTIFICATES {
            let mut key = template.area();
            assert!(is_endorsement_key(&key), "{index:x}");
            let last = key.len() - 1;
            key[last] ^= 1;
            assert!(
                is_endorsement_key(&key),
                "{index:x}, the area of a key from the template"
            );
            key[8] ^= 1;
            assert!(!is_endorsement_key(&key), "{index:x}, another policy");
        }
        let root = crate::tpm::template::storage_root(false);
        assert!(!is_endorsement_key(&root) && !is_endorsement_key(&[]));
    }

    #[test]
    fn a_nonce_stands_at_the_head_of_the_unique_field() {
        let area = |index: u32| {
            let found = CERTIFICATES.iter().find(|(there, _)| *there == index);
            found.unwrap().1.area()
        };
        let (rsa, ecc) = (area(0x01C0_0002), area(0x01C0_000A));
        let with = with_nonce(&rsa, &[7; 20]).unwrap();
        assert_eq!((with.len(), &with[58..78]), (rsa.len(), &[7; 20][..]));
        assert_eq!((&with[..58], &with[78..]), (&rsa[..58], &rsa[78..]));
        let with = with_nonce(&ecc, &[7; 20]).unwrap();
        let x = ecc.len() - 66;
        assert_eq!((&with[..x], &with[x + 20..]), (&ecc[..x], &ecc[x + 20..]));
        assert_eq!(with[x..x + 20], [7; 20]);
        assert_eq!(stored_template(&rsa), Some(rsa.clone()));
        assert_eq!(stored_template(&[7; 20]), None);
    }
}
