//! Templates of keys. From a factory template a TPM derives an IDevID key or IAK that has no handle
//! (TCG, TPM 2.0 Keys for Device Identity and Attestation, section 7.3.4).
//!
//! Manufacturers filled the templates differently, and each difference gives another key. This file
//! therefore has several candidates. The certificate shows which candidate is right.

use super::policy::{DevIdKind, devid};
use crate::key::{Curve, PublicKey};
use crate::tpm::algorithm::{AES, CFB, ECC, ECDSA, KEYEDHASH, NULL, RSA, RSAPSS, RSASSA};
use crate::tpm::{Hash, KeyAlgorithm, KeyPurpose, PublicArea, SignatureScheme, sized};

const SIGN: u32 = 1 << 18;
const RESTRICTED: u32 = 1 << 16;
/// The attributes fixedTPM, fixedParent and sensitiveDataOrigin.
const BOUND: u32 = 0x0000_0032;
/// The hashes in the names and policies of templates.
const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

/// Returns the TPMT_PUBLICs that a factory may have used for this key, the likeliest first.
pub(in crate::tpm) fn devid_candidates(kind: DevIdKind, public: &PublicKey) -> Vec<Vec<u8>> {
    match public {
        PublicKey::Ec { curve, .. } => ecc(kind, *curve),
        PublicKey::Rsa { .. } => rsa(kind, public.bits()),
    }
}

/// The position of the label in an ECC template. Manufacturers filled the two coordinates
/// differently, and each variant gives another key. An RSA template has only one position.
#[cfg(feature = "manufacture")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UniqueLabel {
    /// The label is in both coordinates of the field `unique`.
    #[default]
    Both,
    /// The label is in the x coordinate of the field `unique`; y is empty.
    X,
    /// The first half of the label is in x, the second half in y.
    Split,
}

/// Returns the TPMT_PUBLIC from which a manufacturer derives a new key. Returns `None` for a size
/// without template.
#[cfg(feature = "manufacture")]
pub(in crate::tpm) fn devid_template(
    kind: DevIdKind,
    algorithm: KeyAlgorithm,
    label: UniqueLabel,
) -> Option<Vec<u8>> {
    let (candidates, at) = match algorithm {
        KeyAlgorithm::Ec(curve) => (ecc(kind, curve), label as usize),
        KeyAlgorithm::Rsa(bits) => (rsa(kind, bits), 0),
    };
    candidates.into_iter().nth(at)
}

/// Returns the template of the storage root key that every program can derive (TCG, TPM 2.0
/// Provisioning Guidance, section 7.5.1). The key serves as the SRK, and as the parent in
/// `TSS2 PRIVATE KEY` files that name the owner hierarchy. The unique field is empty, because zeros
/// would give another key.
pub(in crate::tpm) fn storage_root(rsa: bool) -> Vec<u8> {
    /// The attributes fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted
    /// and decrypt.
    const STORAGE: u32 = 0x0003_0472;
    let mut area = words(&[if rsa { RSA } else { ECC }, Hash::Sha256.algorithm()]);
    area.extend(STORAGE.to_be_bytes());
    area.extend(sized(&[])); // no policy
    area.extend(words(&[AES, 128, CFB, NULL])); // symmetric, scheme
    match rsa {
        true => {
            area.extend(words(&[2048]));
            area.extend([0; 4]); // the exponent 65537
            area.extend(sized(&[]));
        }
        false => {
            area.extend(words(&[curve_id(Curve::P256), NULL])); // curve, kdf
            area.extend(sized(&[]));
            area.extend(sized(&[]));
        }
    }
    area
}

/// Returns true if a public area has the P-256 template of [`storage_root`].
pub(in crate::tpm) fn is_storage_root(area: &[u8]) -> bool {
    let template = storage_root(false);
    // The two empty coordinates at the end of the template are not compared.
    area.starts_with(&template[..template.len() - 4])
}

/// Returns the template of a key that the TPM makes for the device and that never leaves the TPM.
/// The attribute noDA prevents that a wrong value locks the whole TPM. The template has no fixed
/// scheme, so the key signs with every hash.
pub(in crate::tpm) fn device_key(algorithm: KeyAlgorithm, usage: KeyPurpose) -> Vec<u8> {
    let attributes = BOUND | used(usage);
    match algorithm {
        KeyAlgorithm::Ec(curve) => ecc_key(attributes, None, curve, [&[], &[]]),
        KeyAlgorithm::Rsa(bits) => rsa_key(attributes, None, bits as u16, &[]),
    }
}

/// Returns the template [`device_key`] with a fixed scheme. Returns `None` if the scheme belongs to
/// another algorithm.
pub(in crate::tpm) fn signing_key(
    algorithm: KeyAlgorithm,
    scheme: SignatureScheme,
) -> Option<Vec<u8>> {
    by_scheme(BOUND | SIGN, algorithm, scheme, &[])
}

/// Returns the template of a key that signs only data that the TPM itself made.
#[cfg(feature = "evidence")]
pub(in crate::tpm) fn attestation_key(
    algorithm: KeyAlgorithm,
    scheme: SignatureScheme,
) -> Option<Vec<u8>> {
    by_scheme(BOUND | SIGN | RESTRICTED, algorithm, scheme, &[])
}

/// Returns [`attestation_key`] as a template of a primary key. Other bytes in `unique` give another
/// key. A coordinate of the smallest curve has room for 32 bytes.
#[cfg(feature = "evidence")]
pub(in crate::tpm) fn primary_attestation_key(
    algorithm: KeyAlgorithm,
    scheme: SignatureScheme,
    unique: &[u8; 32],
) -> Option<Vec<u8>> {
    by_scheme(BOUND | SIGN | RESTRICTED, algorithm, scheme, unique)
}

fn by_scheme(
    attributes: u32,
    algorithm: KeyAlgorithm,
    scheme: SignatureScheme,
    unique: &[u8],
) -> Option<Vec<u8>> {
    match (algorithm, scheme) {
        (KeyAlgorithm::Ec(curve), SignatureScheme::Ecdsa(_)) => {
            Some(ecc_key(attributes, Some(scheme), curve, [unique, &[]]))
        }
        (KeyAlgorithm::Rsa(bits), SignatureScheme::Rsassa(_) | SignatureScheme::Rsapss(_)) => {
            Some(rsa_key(attributes, Some(scheme), bits as u16, unique))
        }
        _ => None,
    }
}

/// Returns the public area of an imported key: [`device_key`] without fixedTPM, fixedParent and
/// sensitiveDataOrigin.
pub(in crate::tpm) fn imported_key(public: &PublicKey, usage: KeyPurpose) -> Vec<u8> {
    match public {
        PublicKey::Ec { curve, point } => {
            let (x, y) = point[1..].split_at(curve.width());
            ecc_key(used(usage), None, *curve, [x, y])
        }
        PublicKey::Rsa { modulus, .. } => rsa_key(used(usage), None, public.bits() as u16, modulus),
    }
}

/// Returns the template of sealed data. The template has noDA unless `counts` says that wrong
/// values must count.
pub(in crate::tpm) fn sealed(counts: bool) -> Vec<u8> {
    const NO_DA: u32 = 1 << 10;
    /// The attributes fixedTPM, fixedParent and userWithAuth.
    const ATTRIBUTES: u32 = 0x0000_0052;
    let mut area = words(&[KEYEDHASH, Hash::Sha256.algorithm()]);
    let no_da = if counts { 0 } else { NO_DA };
    area.extend((ATTRIBUTES | no_da).to_be_bytes());
    area.extend(sized(&[])); // no policy
    area.extend(words(&[NULL])); // scheme
    area.extend(sized(&[])); // unique
    area
}

fn ecc_key(
    attributes: u32,
    scheme: Option<SignatureScheme>,
    curve: Curve,
    point: [&[u8]; 2],
) -> Vec<u8> {
    let mut area = key_head(ECC, attributes, scheme);
    area.extend(words(&[curve_id(curve), NULL])); // curve, kdf
    point
        .iter()
        .for_each(|coordinate| area.extend(sized(coordinate)));
    area
}

fn rsa_key(attributes: u32, scheme: Option<SignatureScheme>, bits: u16, modulus: &[u8]) -> Vec<u8> {
    let mut area = key_head(RSA, attributes, scheme);
    area.extend(words(&[bits]));
    area.extend([0; 4]); // the exponent 65537
    area.extend(sized(modulus));
    area
}

/// Returns the TPMA_OBJECT bits for the uses of a key.
fn used(usage: KeyPurpose) -> u32 {
    const DECRYPT: u32 = 1 << 17;
    (u32::from(usage.signs) * SIGN) | (u32::from(usage.decrypts) * DECRYPT)
}

/// Returns the start of a public area, up to and including the signature scheme.
fn key_head(kind: u16, attributes: u32, scheme: Option<SignatureScheme>) -> Vec<u8> {
    const USER_WITH_AUTH: u32 = 1 << 6;
    const NO_DA: u32 = 1 << 10;
    let mut area = words(&[kind, Hash::Sha256.algorithm()]);
    area.extend((attributes | USER_WITH_AUTH | NO_DA).to_be_bytes());
    area.extend(sized(&[])); // no policy
    area.extend(words(&[NULL])); // symmetric
    area.extend(match scheme {
        Some(scheme) => words(&[scheme.algorithm(), scheme.hash().algorithm()]),
        None => words(&[NULL]),
    });
    area
}

pub(super) fn curve_id(curve: Curve) -> u16 {
    match curve {
        Curve::P256 => 0x0003,
        Curve::P384 => 0x0004,
        Curve::P521 => 0x0005,
    }
}

/// Returns true if a public area has the attributes and policy of an IDevID key or an IAK. The key
/// may then come from a factory template.
pub(in crate::tpm) fn is_devid_template(area: &[u8]) -> bool {
    let kinds = [DevIdKind::Identity, DevIdKind::Attestation];
    kinds.into_iter().any(|kind| is_template_of(kind, area))
}

/// Returns true if a public area may come from a template of this kind.
pub(in crate::tpm) fn is_template_of(kind: DevIdKind, area: &[u8]) -> bool {
    HASHES.into_iter().any(|hash| {
        [RSA, ECC]
            .into_iter()
            .any(|algorithm| area.starts_with(&head(kind, algorithm, hash)))
    })
}

/// The attributes fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth and noDA.
const OWN: u32 = 0x0000_0472;

/// Returns true if a public area has the attributes of [`device_key`], whether the key signs or
/// decrypts.
pub(crate) fn is_device_key(area: &[u8]) -> bool {
    const USES: u32 = 0x0006_0000;
    open_attributes(area).is_some_and(|attributes| attributes & !USES == OWN)
}

/// Returns true if a public area has the attributes of an attestation key that this project makes.
pub(in crate::tpm) fn is_attestation_key(area: &[u8]) -> bool {
    const SIGNS_ATTESTATIONS: u32 = 0x0005_0000;
    open_attributes(area) == Some(OWN | SIGNS_ATTESTATIONS)
}

/// Returns the attributes of a public area; `None` if the public area has a policy.
fn open_attributes(area: &[u8]) -> Option<u32> {
    let attributes = area.get(4..8)?.try_into().ok()?;
    (area.get(8..10)? == [0, 0]).then_some(u32::from_be_bytes(attributes))
}

/// Returns the name of the TCG template of a public area; `None` for a key of another kind.
pub fn template_name(area: &[u8]) -> Option<String> {
    is_template_of(DevIdKind::Identity, area).then_some(())?;
    let key = PublicArea::parse(area)?.key;
    Some(match (&key, key.bits()) {
        (PublicKey::Rsa { .. }, 2048) => "H-1 (RSA 2048, SHA-256)".into(),
        (PublicKey::Ec { .. }, 256) => "H-2 (P-256, SHA-256)".into(),
        (PublicKey::Ec { .. }, 384) => "H-3 (P-384, SHA-384)".into(),
        (PublicKey::Ec { .. }, 521) => "H-4 (P-521, SHA-512)".into(),
        _ => format!("like a template of the TCG, for {key}"),
    })
}

fn ecc(kind: DevIdKind, curve: Curve) -> Vec<Vec<u8>> {
    let hash = match curve {
        Curve::P256 => Hash::Sha256,
        Curve::P384 => Hash::Sha384,
        Curve::P521 => Hash::Sha512,
    };
    let label = label(kind);
    let (left, right) = match kind {
        DevIdKind::Identity => (&b"IDE"[..], &b"VID"[..]),
        DevIdKind::Attestation => (&b"I"[..], &b"A"[..]),
    };
    let uniques: [(&[u8], &[u8]); 4] = [(label, label), (label, b""), (left, right), (b"", b"")];
    let named = vec![ECDSA, hash.algorithm()];
    let schemes = match kind {
        DevIdKind::Identity => vec![named, vec![NULL]],
        // A restricted key always has a fixed scheme.
        DevIdKind::Attestation => vec![named],
    };
    let mut all = Vec::new();
    for scheme in &schemes {
        for (x, y) in uniques {
            let mut area = head(kind, ECC, hash);
            area.extend(words(&[NULL])); // symmetric
            area.extend(words(scheme));
            area.extend(words(&[curve_id(curve), NULL])); // curve, kdf
            area.extend(sized(x));
            area.extend(sized(y));
            all.push(area);
        }
    }
    all
}

fn rsa(kind: DevIdKind, bits: u32) -> Vec<Vec<u8>> {
    let hashes: &[Hash] = match bits {
        2048 => &[Hash::Sha256],
        3072 => &[Hash::Sha384],
        4096 => &[Hash::Sha384, Hash::Sha512],
        _ => return Vec::new(),
    };
    let mut all = Vec::new();
    for &hash in hashes {
        let by = |scheme| vec![scheme, hash.algorithm()];
        let schemes = match kind {
            DevIdKind::Identity => vec![vec![NULL], by(RSASSA), by(RSAPSS)],
            DevIdKind::Attestation => vec![by(RSAPSS), by(RSASSA)],
        };
        for scheme in schemes {
            let mut area = head(kind, RSA, hash);
            area.extend(words(&[NULL])); // symmetric
            area.extend(words(&scheme));
            area.extend(words(&[bits as u16]));
            area.extend([0; 4]); // the exponent 65537
            area.extend(sized(label(kind)));
            all.push(area);
        }
    }
    all
}

/// Returns the label that the template contains in the field `unique`.
fn label(kind: DevIdKind) -> &'static [u8] {
    match kind {
        DevIdKind::Identity => b"IDEVID",
        DevIdKind::Attestation => b"IAK",
    }
}

fn head(kind: DevIdKind, algorithm: u16, hash: Hash) -> Vec<u8> {
    /// The attributes userWithAuth and adminWithPolicy.
    const BOTH: u32 = 0x0000_00C0;
    let restricted = match kind {
        DevIdKind::Identity => 0,
        DevIdKind::Attestation => RESTRICTED,
    };
    let mut area = words(&[algorithm, hash.algorithm()]);
    area.extend((BOUND | BOTH | SIGN | restricted).to_be_bytes());
    area.extend(sized(&devid(kind, hash)));
    area
}

pub(super) fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "evidence")]
    #[test]
    fn an_attestation_key_is_told_from_others() {
        let algorithm = KeyAlgorithm::Ec(Curve::P256);
        let scheme = SignatureScheme::Ecdsa(Hash::Sha256);
        let key = attestation_key(algorithm, scheme).unwrap();
        assert!(is_attestation_key(&key) && !is_device_key(&key));
        let signs = signing_key(algorithm, scheme).unwrap();
        assert!(!is_attestation_key(&signs) && !is_attestation_key(&storage_root(false)));
    }

    #[test]
    fn a_modulus_of_another_size_has_no_template() {
        const IDENTITY: DevIdKind = DevIdKind::Identity;
        assert!(rsa(IDENTITY, 1024).is_empty());
        assert_eq!(
            (
                rsa(IDENTITY, 2048).len(),
                rsa(IDENTITY, 4096).len(),
                ecc(IDENTITY, Curve::P521).len()
            ),
            (3, 6, 8)
        );
    }
}
