//! Templates of factory keys: from which a TPM derives an IDevID key again that has no handle
//! (TCG, TPM 2.0 Keys for Device Identity and Attestation, sections 7.3.4 and 7.3.6).
//!
//! Makers filled the templates differently, and each difference gives another key; so there are
//! candidates, and a certificate tells the right one.

use crate::key::{Curve, PublicKey};
use crate::tpm::algorithm::{AES, CFB, ECC, ECDSA, KEYEDHASH, NULL, RSA, RSAPSS, RSASSA};
use crate::tpm::{Hash, KeyAlgorithm, KeyPurpose, PublicArea, command_code, handle, sized};

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, adminWithPolicy, sign.
const ATTRIBUTES: u32 = 0x0004_00F2;
/// The hashes of templates: of their names and of their policies.
const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
const LABEL: &[u8] = b"IDEVID";

/// The TPMT_PUBLICs from which a factory may have derived this key, the likeliest first.
pub(crate) fn idevid_candidates(public: &PublicKey) -> Vec<Vec<u8>> {
    match public {
        PublicKey::Ec { curve, .. } => ecc(*curve),
        PublicKey::Rsa { .. } => rsa(public.bits()),
    }
}

/// The storage root key that everybody derives: for `TSS2 PRIVATE KEY` files whose parent is the
/// owner hierarchy, and for the SRK (TCG, TPM 2.0 Provisioning Guidance, section 7.5.1). Its unique
/// field is empty: zeros would give another key.
pub(in crate::tpm) fn storage_root(rsa: bool) -> Vec<u8> {
    /// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
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

/// An endorsement key of the TCG's templates L-1, RSA-2048, and L-2, P-256 (EK Credential Profile for
/// TPM 2.0, sections B.3.3 and B.3.4).
pub(in crate::tpm) fn endorsement(rsa: bool) -> Vec<u8> {
    /// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
    const ENDORSEMENT: u32 = 0x0003_00B2;
    let policy = secret_policy(Hash::Sha256);
    let mut area = words(&[if rsa { RSA } else { ECC }, Hash::Sha256.algorithm()]);
    area.extend(ENDORSEMENT.to_be_bytes());
    area.extend(sized(&policy));
    area.extend(words(&[AES, 128, CFB, NULL])); // symmetric, scheme
    match rsa {
        true => {
            area.extend(words(&[2048]));
            area.extend([0; 4]); // the exponent 65537
            area.extend(sized(&[0; 256]));
        }
        false => {
            area.extend(words(&[curve_id(Curve::P256), NULL])); // curve, kdf
            area.extend(sized(&[0; 32]));
            area.extend(sized(&[0; 32]));
        }
    }
    area
}

/// Whether a public area is as [`storage_root`] makes those on P-256.
pub(in crate::tpm) fn is_storage_root(area: &[u8]) -> bool {
    let template = storage_root(false);
    // But for the two empty coordinates at its end.
    area.starts_with(&template[..template.len() - 4])
}

/// A key that the TPM is to make for the device, and keep to itself: noDA, so that no wrong value
/// for it can lock the whole TPM. Any scheme, so that it signs with every hash.
pub(in crate::tpm) fn device_key(algorithm: KeyAlgorithm, usage: KeyPurpose) -> Vec<u8> {
    const FIXED_TPM: u32 = 1 << 1;
    const FIXED_PARENT: u32 = 1 << 4;
    const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    let bound = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN;
    match algorithm {
        KeyAlgorithm::Ec(curve) => ecc_key(bound, usage, curve, [&[], &[]]),
        KeyAlgorithm::Rsa(bits) => rsa_key(bound, usage, bits as u16, &[]),
    }
}

/// The public area of a key that comes from outside: as [`device_key`], but neither made in this TPM
/// nor bound to it by its history.
pub(in crate::tpm) fn imported_key(public: &PublicKey, usage: KeyPurpose) -> Vec<u8> {
    match public {
        PublicKey::Ec { curve, point } => {
            let (x, y) = point[1..].split_at(curve.width());
            ecc_key(0, usage, *curve, [x, y])
        }
        PublicKey::Rsa { modulus, .. } => rsa_key(0, usage, public.bits() as u16, modulus),
    }
}

/// Sealed data; noDA unless wrong values are to count.
pub(in crate::tpm) fn sealed(counts: bool) -> Vec<u8> {
    const NO_DA: u32 = 1 << 10;
    /// fixedTPM, fixedParent, userWithAuth.
    const ATTRIBUTES: u32 = 0x0000_0052;
    let mut area = words(&[KEYEDHASH, Hash::Sha256.algorithm()]);
    let no_da = if counts { 0 } else { NO_DA };
    area.extend((ATTRIBUTES | no_da).to_be_bytes());
    area.extend(sized(&[])); // no policy
    area.extend(words(&[NULL])); // scheme
    area.extend(sized(&[])); // unique
    area
}

fn ecc_key(bound: u32, usage: KeyPurpose, curve: Curve, point: [&[u8]; 2]) -> Vec<u8> {
    let mut area = key_head(ECC, bound, usage);
    // symmetric, scheme, curve, kdf
    area.extend(words(&[NULL, NULL, curve_id(curve), NULL]));
    point
        .iter()
        .for_each(|coordinate| area.extend(sized(coordinate)));
    area
}

fn rsa_key(bound: u32, usage: KeyPurpose, bits: u16, modulus: &[u8]) -> Vec<u8> {
    let mut area = key_head(RSA, bound, usage);
    area.extend(words(&[NULL, NULL, bits])); // symmetric, scheme
    area.extend([0; 4]); // the exponent 65537
    area.extend(sized(modulus));
    area
}

fn key_head(kind: u16, bound: u32, usage: KeyPurpose) -> Vec<u8> {
    const USER_WITH_AUTH: u32 = 1 << 6;
    const NO_DA: u32 = 1 << 10;
    const DECRYPT: u32 = 1 << 17;
    const SIGN: u32 = 1 << 18;
    let does = (u32::from(usage.signs) * SIGN) | (u32::from(usage.decrypts) * DECRYPT);
    let mut area = words(&[kind, Hash::Sha256.algorithm()]);
    area.extend((bound | USER_WITH_AUTH | NO_DA | does).to_be_bytes());
    area.extend(sized(&[])); // no policy
    area
}

fn curve_id(curve: Curve) -> u16 {
    match curve {
        Curve::P256 => 0x0003,
        Curve::P384 => 0x0004,
        Curve::P521 => 0x0005,
    }
}

/// Whether a public area has the attributes and the policy of an IDevID key, and so may come from
/// one of these templates.
pub(in crate::tpm) fn is_idevid_template(area: &[u8]) -> bool {
    HASHES.into_iter().any(|hash| {
        [RSA, ECC]
            .into_iter()
            .any(|kind| area.starts_with(&head(kind, hash)))
    })
}

/// Whether a public area is as those that [`device_key`] makes.
pub(crate) fn is_device_key(area: &[u8]) -> bool {
    /// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA; it signs or decrypts.
    const OWN: u32 = 0x0000_0472;
    const USES: u32 = 0x0006_0000;
    let attributes = area.get(4..8).and_then(|bytes| bytes.try_into().ok());
    let attributes = attributes.map(u32::from_be_bytes);
    attributes.is_some_and(|attributes| attributes & !USES == OWN)
        && area.get(8..10) == Some(&[0, 0])
}

/// Which of the TCG's templates a public area was made from; `None` for a key of another kind.
pub fn template_name(area: &[u8]) -> Option<String> {
    is_idevid_template(area).then_some(())?;
    let key = PublicArea::parse(area)?.key;
    Some(match (&key, key.bits()) {
        (PublicKey::Rsa { .. }, 2048) => "H-1 (RSA 2048, SHA-256)".into(),
        (PublicKey::Ec { .. }, 256) => "H-2 (P-256, SHA-256)".into(),
        (PublicKey::Ec { .. }, 384) => "H-3 (P-384, SHA-384)".into(),
        (PublicKey::Ec { .. }, 521) => "H-4 (P-521, SHA-512)".into(),
        _ => format!("as the TCG's, for {key}"),
    })
}

fn ecc(curve: Curve) -> Vec<Vec<u8>> {
    let hash = match curve {
        Curve::P256 => Hash::Sha256,
        Curve::P384 => Hash::Sha384,
        Curve::P521 => Hash::Sha512,
    };
    let uniques: [(&[u8], &[u8]); 4] = [(LABEL, LABEL), (LABEL, b""), (b"IDE", b"VID"), (b"", b"")];
    let schemes = [vec![ECDSA, hash.algorithm()], vec![NULL]];
    let mut all = Vec::new();
    for scheme in &schemes {
        for (x, y) in uniques {
            let mut area = head(ECC, hash);
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

fn rsa(bits: u32) -> Vec<Vec<u8>> {
    let hashes: &[Hash] = match bits {
        2048 => &[Hash::Sha256],
        3072 => &[Hash::Sha384],
        4096 => &[Hash::Sha384, Hash::Sha512],
        _ => return Vec::new(),
    };
    let mut all = Vec::new();
    for &hash in hashes {
        for scheme in [
            vec![NULL],
            vec![RSASSA, hash.algorithm()],
            vec![RSAPSS, hash.algorithm()],
        ] {
            let mut area = head(RSA, hash);
            area.extend(words(&[NULL])); // symmetric
            area.extend(words(&scheme));
            area.extend(words(&[bits as u16]));
            area.extend([0; 4]); // the exponent 65537
            area.extend(sized(LABEL));
            all.push(area);
        }
    }
    all
}

fn head(kind: u16, hash: Hash) -> Vec<u8> {
    let mut area = words(&[kind, hash.algorithm()]);
    area.extend(ATTRIBUTES.to_be_bytes());
    area.extend(sized(&idevid_policy(hash)));
    area
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The NV index whose policy may be authorised, of IDevID keys (section 7.3.2).
fn policy_index(hash: Hash) -> u32 {
    match hash {
        Hash::Sha1 | Hash::Sha256 => 0x01C9_0010,
        Hash::Sha384 => 0x01C9_0011,
        Hash::Sha512 => 0x01C9_0012,
    }
}

/// PolicySecret of the endorsement hierarchy: PolicyA of the EK Credential Profile.
fn secret_policy(hash: Hash) -> Vec<u8> {
    const POLICY_SECRET: [u8; 4] = command_code::POLICY_SECRET.to_be_bytes();
    const ENDORSEMENT: [u8; 4] = handle::ENDORSEMENT.to_be_bytes();
    let zeros = vec![0; hash.width()];
    let entity = hash.digest(&[&zeros, &POLICY_SECRET, &ENDORSEMENT]);
    hash.digest(&[&entity]) // the policyRef is empty
}

/// PolicyOR of the endorsement hierarchy's secret, that with certifying, that with activating
/// a credential, and whatever an NV index authorises (section 7.3.6).
fn idevid_policy(hash: Hash) -> Vec<u8> {
    const POLICY_COMMAND_CODE: [u8; 4] = command_code::POLICY_COMMAND_CODE.to_be_bytes();
    const POLICY_AUTHORIZE_NV: [u8; 4] = command_code::POLICY_AUTHORIZE_NV.to_be_bytes();
    const POLICY_OR: [u8; 4] = command_code::POLICY_OR.to_be_bytes();
    const CERTIFY: [u8; 4] = command_code::CERTIFY.to_be_bytes();
    const ACTIVATE_CREDENTIAL: [u8; 4] = command_code::ACTIVATE_CREDENTIAL.to_be_bytes();
    /// POLICYWRITE, WRITEALL, PPREAD, OWNERREAD, AUTHREAD, POLICYREAD, NO_DA, WRITTEN.
    const INDEX_ATTRIBUTES: [u8; 4] = 0x220F_1008_u32.to_be_bytes();

    let zeros = hash.digest(&[]).iter().map(|_| 0).collect::<Vec<u8>>();
    let secret = secret_policy(hash);
    let certify = hash.digest(&[&secret, &POLICY_COMMAND_CODE, &CERTIFY]);
    let activate = hash.digest(&[&secret, &POLICY_COMMAND_CODE, &ACTIVATE_CREDENTIAL]);
    let algorithm = hash.algorithm().to_be_bytes();
    let index = hash.digest(&[
        &policy_index(hash).to_be_bytes(),
        &algorithm,
        &INDEX_ATTRIBUTES,
        &sized(&secret),
        &(zeros.len() as u16 + 2).to_be_bytes(),
    ]);
    let name = [&algorithm[..], &index].concat();
    let authorised = hash.digest(&[&zeros, &POLICY_AUTHORIZE_NV, &name]);
    hash.digest(&[
        &zeros,
        &POLICY_OR,
        &secret,
        &certify,
        &activate,
        &authorised,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The values that three independent implementations have.
    #[test]
    fn policies_are_those_of_the_standard() {
        for (hash, expected) in [
            (
                Hash::Sha256,
                "ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea",
            ),
            (
                Hash::Sha384,
                "4db1aa836d0b5615df6ee53a40ef70c61c217f4303d44695925972bc927006cf\
                 a5cbdf6dc18c4dbe329b2f1542c3dd33",
            ),
            (
                Hash::Sha512,
                "7dd7500fd6c1b94f97a6af910da147301ef28f662fee06f225a4ccadda3b4e6b\
                 38e66b2f3ad5dee1a0503cd2daedb1e68cfe4f84b03a8cd22bb6a976f071a72f",
            ),
        ] {
            assert_eq!(hex(&idevid_policy(hash)), expected);
        }
    }

    #[test]
    fn a_modulus_of_another_size_has_no_template() {
        assert!(rsa(1024).is_empty());
        assert_eq!(
            (rsa(2048).len(), rsa(4096).len(), ecc(Curve::P521).len()),
            (3, 6, 8)
        );
    }
}
