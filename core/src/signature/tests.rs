//! aws-lc and the portable crates give the same verdict.

use super::*;
use crate::key::PrivateKeyInfo;

/// The signature, and signatures that differ from it: each byte in turn, zeros, and other lengths.
fn altered(signature: &[u8]) -> Vec<Vec<u8>> {
    let half = signature.len() / 2;
    let mut all = vec![
        Vec::new(),
        vec![0; signature.len()],
        vec![0xFF; signature.len()],
        signature[1..].to_vec(),
        [signature, &[0]].concat(),
        [&[0], signature].concat(),
        [&signature[half..], &signature[..half]].concat(),
        [&signature[..half], &vec![0; signature.len() - half]].concat(),
        [&vec![0; half], &signature[half..]].concat(),
    ];
    for at in 0..signature.len() {
        let mut wrong = signature.to_vec();
        wrong[at] ^= 1 << (at % 8);
        all.push(wrong);
    }
    all
}

#[test]
fn ecdsa_verdicts_agree() {
    for curve in Curve::ALL {
        let mut scalar = vec![3; curve.width()];
        scalar[0] = 0;
        let private = PrivateKeyInfo::from_scalar(curve, &scalar).unwrap();
        let PublicKey::Ec { point, .. } = private.public() else {
            panic!("{private:?}");
        };
        // Shorter and longer than the order.
        for length in [1, 20, 32, 47, 64] {
            let digest: Vec<u8> = (1..=length).collect();
            let number = ecdsa_number(curve, &digest).unwrap();
            let signature = by_curve!(curve, c => {
                use c::ecdsa::signature::hazmat::PrehashSigner;
                let key = c::ecdsa::SigningKey::from_slice(&scalar).unwrap();
                let signature: c::ecdsa::Signature = key.sign_prehash(&number).unwrap();
                signature.to_bytes().to_vec()
            });
            assert!(ecdsa(curve, point, &number, &signature));
            assert!(verify(
                private.public(),
                SignRequest::Ecdsa(&digest),
                &signature
            ));
            let decides = cfg!(feature = "soft-rsa").then_some(true);
            assert_eq!(aws_lc::ecdsa(curve, point, &number, &signature), decides);
            for wrong in altered(&signature) {
                let portable = ecdsa(curve, point, &number, &wrong);
                let verdict = verify(private.public(), SignRequest::Ecdsa(&digest), &wrong);
                assert_eq!(verdict, portable, "{wrong:02X?}");
            }
            let mut other = digest.clone();
            other[0] ^= 1;
            assert!(!verify(
                private.public(),
                SignRequest::Ecdsa(&other),
                &signature
            ));
        }
    }
}

/// The order of P-521 is wider than any hash. CKM_ECDSA still signs such a number.
#[test]
fn a_number_wider_than_every_hash_is_verified() {
    let (curve, mut scalar) = (Curve::P521, vec![3; 66]);
    scalar[0] = 0;
    let private = PrivateKeyInfo::from_scalar(curve, &scalar).unwrap();
    let mut digest = vec![9; 66];
    digest[0] = 1;
    let key = p521::ecdsa::SigningKey::from_slice(&scalar).unwrap();
    use p521::ecdsa::signature::hazmat::PrehashSigner;
    let signature: p521::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
    let signature = signature.to_bytes().to_vec();
    assert!(verify(
        private.public(),
        SignRequest::Ecdsa(&digest),
        &signature
    ));
    digest[65] ^= 1;
    assert!(!verify(
        private.public(),
        SignRequest::Ecdsa(&digest),
        &signature
    ));
}

#[cfg(feature = "soft-rsa")]
#[test]
fn rsa_verdicts_agree() {
    use aws_lc_rs::digest as of;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature as by;
    use aws_lc_rs::signature::KeyPair as _;
    use pkcs1::der::Decode as _;
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pkcs1::RsaPublicKeyRef::from_der(pair.public_key().as_ref()).unwrap();
    let modulus = public.modulus.as_bytes().to_vec();
    let exponent = public.public_exponent.as_bytes().to_vec();
    let key = PublicKey::from_rsa(&modulus, &exponent).unwrap();
    for (hash, digest_of, pkcs1_by, pss_by) in [
        (
            Hash::Sha256,
            &of::SHA256,
            &by::RSA_PKCS1_SHA256,
            &by::RSA_PSS_SHA256,
        ),
        (
            Hash::Sha384,
            &of::SHA384,
            &by::RSA_PKCS1_SHA384,
            &by::RSA_PSS_SHA384,
        ),
        (
            Hash::Sha512,
            &of::SHA512,
            &by::RSA_PKCS1_SHA512,
            &by::RSA_PSS_SHA512,
        ),
    ] {
        let digest = vec![7; hash.width()];
        let imported = of::Digest::import_less_safe(&digest, digest_of).unwrap();
        let sign = |scheme| {
            let mut signature = vec![0; modulus.len()];
            pair.sign_digest(scheme, &imported, &mut signature).unwrap();
            signature
        };
        let (v15, salted) = (sign(pkcs1_by), sign(pss_by));
        let numbers = (&modulus[..], &exponent[..]);
        assert_eq!(aws_lc::pkcs1(numbers, hash, &digest, &v15), Some(true));
        assert_eq!(aws_lc::pss(numbers, hash, &digest, &salted), Some(true));
        assert!(pkcs1(&key, hash, &digest, &v15));
        assert!(verify_pss(&key, hash, hash.width(), &digest, &salted));
        for wrong in altered(&v15).iter().chain([&salted]).step_by(16) {
            let portable = pkcs1(&key, hash, &digest, wrong);
            assert!(!portable);
            assert!(!verify(&key, SignRequest::Pkcs1(hash, &digest), wrong));
        }
        for wrong in altered(&salted).iter().chain([&v15]).step_by(16) {
            assert!(!verify(&key, SignRequest::Pss(hash, &digest), wrong));
        }
    }
    let digest = [7; 32];
    let imported = of::Digest::import_less_safe(&digest, &of::SHA256).unwrap();
    let longest = &const { by::RSA_PSS_SHA256.with_pss_salt_length(by::RsaPssSaltLength::Max) };
    let mut signature = vec![0; modulus.len()];
    pair.sign_digest(longest, &imported, &mut signature)
        .unwrap();
    assert!(has_longest_salt(&key, Hash::Sha256, &digest, &signature));
    assert!(!verify(
        &key,
        SignRequest::Pss(Hash::Sha256, &digest),
        &signature
    ));
}
