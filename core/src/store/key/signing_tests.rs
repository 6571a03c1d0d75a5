//! Tests of signatures with prepared responses of a TPM.

use super::signing::{ecdsa_hash, fit};
use super::{Abilities, Key};
use crate::key::{Curve, pad_left};
use crate::signature::SignRequest;
use crate::store::SignError;
use crate::tpm::fake::{FIXED, FakeTpm, IDENTITY, Reply, p256_area, public, rsa_area, signature};
use crate::tpm::{Algorithms, PublicArea};
use crate::tpm::{Hash, SignatureScheme, TpmError};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};

#[test]
fn digests_keep_their_value_or_are_refused() {
    assert_eq!(fit(&[], 32, 32), None);
    assert_eq!(fit(&[9], 4, 4), Some(vec![0, 0, 0, 9]));
    assert_eq!(fit(&[1, 2, 3, 4, 5], 4, 4), Some(vec![1, 2, 3, 4]));
    // The hash is longer than the order: only its left bytes count.
    assert_eq!(fit(&[9], 6, 4), Some(vec![0, 0, 0, 9, 0, 0]));
    assert_eq!(fit(&[1, 2, 3, 4, 5], 6, 4), Some(vec![1, 2, 3, 4, 0, 0]));
    // The hash is shorter than the order: a cut would lose significant bits.
    assert_eq!(fit(&[1, 2, 3, 4, 5], 4, 6), None);
    assert_eq!(fit(&[0, 0, 3, 4, 5], 4, 6), None);
    assert_eq!(fit(&[1, 2, 3], 4, 6), Some(vec![0, 1, 2, 3]));
}

#[test]
fn short_halves_of_a_signature_are_padded_and_long_ones_refused() {
    let area = p256_area(IDENTITY, FIXED);
    let fake = FakeTpm::new([
        public(&area, &[0, 0x0B, 1]),
        signature(&[5; 31], &[6; 30]),
        signature(&[5; 33], &[6; 32]),
    ]);
    let tpm = fake.tpm(std::time::Duration::from_secs(20));
    let (_, resident) = tpm.persistent_key(0x8102_0000).unwrap();
    let area = PublicArea::parse(&area).unwrap();
    tpm.note_proven(Some(SignatureScheme::Ecdsa(Hash::Sha256)), &area.key);
    let key = Key::resident(resident, area, Abilities::default());
    let signature = key.sign(&tpm, SignRequest::Ecdsa(&[1; 20])).unwrap();
    assert_eq!(signature, [&[0][..], &[5; 31], &[0, 0], &[6; 30]].concat());
    assert!(key.sign(&tpm, SignRequest::Ecdsa(&[1; 20])).is_err());
    assert_eq!(
        key.sign(&tpm, SignRequest::Pkcs1(Hash::Sha256, &[1; 32])),
        Err(SignError::Scheme)
    );
}

/// Returns a signature by the scalar 1. Its public key is the generator of the curve.
fn by_the_generator(digest: &[u8]) -> Reply {
    let one = SigningKey::from_slice(&pad_left(&[1], 32).unwrap()).unwrap();
    let signed: Signature = one.sign_prehash(digest).unwrap();
    signature(&signed.r().to_bytes(), &signed.s().to_bytes())
}

#[test]
fn a_scheme_is_proven_by_one_signature_that_verifies() {
    let area = p256_area(IDENTITY, FIXED);
    let fake = FakeTpm::new([
        public(&area, &[0, 0x0B, 1]),
        by_the_generator(&[8; 32]),
        public(&area, &[0, 0x0B, 1]),
        by_the_generator(&[7; 32]),
        signature(&[5; 32], &[6; 32]),
    ]);
    let tpm = fake.tpm(std::time::Duration::from_secs(20));
    let key = || {
        let (_, resident) = tpm.persistent_key(0x8102_0000).unwrap();
        let area = PublicArea::parse(&area).unwrap();
        Key::resident(resident, area, Abilities::default())
    };
    let request = SignRequest::Ecdsa(&[7; 32]);
    let error = key().sign(&tpm, request).unwrap_err().to_string();
    for said in [
        "cannot be verified with the public key",
        "(ECDSA with SHA-256)",
        "Sign again",
    ] {
        assert!(error.contains(said), "{error}");
    }
    assert!(!error.contains("connection"), "{error}");
    let key = key();
    assert!(key.sign(&tpm, request).is_ok());
    // Later signatures are not verified, unless another key may have signed.
    assert_eq!(
        key.sign(&tpm, request),
        Ok([[5; 32], [6; 32]].concat().to_vec())
    );
}

#[test]
fn a_curve_takes_a_hash_that_the_tpm_has() {
    let (sha256, sha384, sha512) = (0x0B, 0x0C, 0x0D);
    for (hashes, curve, chosen) in [
        (vec![sha256, sha384, sha512], Curve::P384, Hash::Sha384),
        (vec![sha256, sha512], Curve::P384, Hash::Sha512),
        (vec![sha256], Curve::P384, Hash::Sha256),
        (vec![sha256, sha384], Curve::P521, Hash::Sha384),
        (vec![sha256, sha384, sha512], Curve::P521, Hash::Sha512),
        (vec![sha256, sha384], Curve::P256, Hash::Sha256),
        (vec![0x27], Curve::P384, Hash::Sha256),
    ] {
        let told = Algorithms::from_ids(&hashes).into();
        assert_eq!(
            ecdsa_hash(None, curve, &told),
            chosen,
            "{hashes:x?} {curve:?}"
        );
    }
}

#[test]
fn an_rsa_key_signs_by_what_the_tpm_has() {
    let area = rsa_area(256);
    let fake = FakeTpm::new([public(&area, &[0, 0x0B, 1])]);
    let tpm = fake.tpm(std::time::Duration::from_secs(20));
    let (_, resident) = tpm.persistent_key(0x8102_0000).unwrap();
    let abilities = Abilities {
        algorithms: Algorithms::from_ids(&[0x01, 0x14, 0x0B, 0x00A0]).into(),
        pss: true,
    };
    let key = Key::resident(resident, PublicArea::parse(&area).unwrap(), abilities);
    assert!(key.signs(SignatureScheme::Rsassa(Hash::Sha256)));
    for scheme in [
        SignatureScheme::Rsapss(Hash::Sha256),
        SignatureScheme::Rsassa(Hash::Sha1),
        SignatureScheme::Rsassa(Hash::Sha512),
    ] {
        assert!(!key.signs(scheme), "{scheme:?}");
        let digest = vec![7; scheme.hash().width()];
        let refused = key.sign(&tpm, SignRequest::of(scheme, &digest));
        assert_eq!(refused, Err(SignError::Scheme), "and nothing is sent");
    }
}

/// With SHA-512 and a key of 1024 bits, the TPM can use a salt of at most 62 bytes.
#[test]
fn a_key_that_is_too_narrow_for_the_salt_says_nothing_of_the_tpm() {
    let area = rsa_area(128);
    let fake = FakeTpm::new([public(&area, &[0, 0x0B, 1])]);
    let tpm = fake.tpm(std::time::Duration::from_secs(20));
    let (_, resident) = tpm.persistent_key(0x8102_0000).unwrap();
    let abilities = Abilities {
        algorithms: Algorithms::ANY.into(),
        pss: true,
    };
    let key = Key::resident(resident, PublicArea::parse(&area).unwrap(), abilities);
    assert!(
        !key.signs_by_any_scheme(),
        "it takes no mechanism off a list"
    );
    let refused = key.sign(&tpm, SignRequest::Pss(Hash::Sha512, &[7; 64]));
    assert_eq!(refused, Err(SignError::Scheme), "and nothing is sent");
    assert!(tpm.signs_pss());
    for hash in Hash::ALL {
        let has_room = hash != Hash::Sha512;
        assert_eq!(
            key.signs(SignatureScheme::Rsapss(hash)),
            has_room,
            "{hash:?}"
        );
        assert!(key.signs(SignatureScheme::Rsassa(hash)), "{hash:?}");
    }
}

/// Returns an answer with a signature that OpenSSL made over 32 bytes 7, with a salt of this
/// length.
fn pss_answer(signature: &[u8]) -> Reply {
    let mut body = vec![0x00, 0x16, 0x00, 0x0B, 0x01, 0x00];
    body.extend(signature);
    Reply::AuthorisedBody(body)
}

#[test]
fn a_tpm_with_another_salt_signs_no_pss_and_a_damaged_answer_is_only_that() {
    let area = rsa_area(256);
    let good = include_bytes!("../../../testdata/pss-salt-digest.bin");
    let longest = include_bytes!("../../../testdata/pss-salt-max.bin");
    let mut damaged = *good;
    damaged[100] ^= 1;
    let pss = SignRequest::Pss(Hash::Sha256, &[7; 32]);
    let fake = FakeTpm::new([
        public(&area, &[0, 0x0B, 1]),
        pss_answer(&damaged),
        pss_answer(good),
        public(&area, &[0, 0x0B, 1]),
        pss_answer(longest),
    ]);
    let tpm = fake.tpm(std::time::Duration::from_secs(20));
    let key = || {
        let (_, resident) = tpm.persistent_key(0x8102_0000).unwrap();
        let abilities = Abilities {
            algorithms: Algorithms::ANY.only(&[Hash::Sha256]).into(),
            pss: tpm.signs_pss(),
        };
        Key::resident(resident, PublicArea::parse(&area).unwrap(), abilities)
    };
    let first = key();
    assert!(matches!(
        first.sign(&tpm, pss),
        Err(SignError::Tpm(TpmError::WrongAnswer(_)))
    ));
    assert_eq!(first.sign(&tpm, pss).as_deref(), Ok(&good[..]));
    let second = key();
    assert_eq!(second.sign(&tpm, pss), Err(SignError::Scheme));
    assert!(!second.signs(SignatureScheme::Rsapss(Hash::Sha256)) && !tpm.signs_pss());
    assert_eq!(
        second.sign(&tpm, pss),
        Err(SignError::Scheme),
        "and nothing is sent"
    );
}
