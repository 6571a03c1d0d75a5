use super::*;
use crate::mechanism::table::Mechanism;
use cryptoki_sys::*;
use devid_core::key::from_hex;

fn cipher(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<CipherMechanism, Error> {
    CipherMechanism::new(Mechanism::find(kind, CKF_ENCRYPT)?, parameter)
}

fn gcm(iv: &[u8], aad: &[u8], tag_bits: CK_ULONG) -> Result<CipherMechanism, Error> {
    let (iv, aad) = (iv.to_vec(), aad.to_vec());
    cipher(CKM_AES_GCM, Parameter::Gcm { iv, aad, tag_bits })
}

/// Encrypts or decrypts the message in parts of this length.
fn run(
    mechanism: &CipherMechanism,
    key: &[u8],
    direction: Direction,
    data: &[u8],
    step: usize,
) -> Result<Vec<u8>, Error> {
    let mut state = mechanism.begin(key, direction)?;
    let mut out = Secret::default();
    for part in data.chunks(step) {
        let (before, expected) = (out.len(), state.update_length(part.len())?);
        state.update(key, part, &mut out)?;
        assert_eq!(out.len() - before, expected);
    }
    let (before, most) = (out.len(), state.finish_length(0)?);
    state.finish(key, &mut out)?;
    assert!(out.len() - before <= most);
    Ok(out.to_vec())
}

/// Appendix B of the paper "The Galois/Counter Mode of Operation", test cases 4, 6 and 18.
#[test]
fn gcm_is_as_its_authors_have_it() {
    let bytes = |digits| from_hex(digits).unwrap();
    let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let plain = bytes(concat!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525",
        "b16aedf5aa0de657ba637b39"
    ));
    let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let long_iv = bytes(concat!(
        "9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728c3c0c95156809539fcf0e2429a6b5254",
        "16aedbf5a0de6a57a637b39b"
    ));
    for (key, iv, cipher, tag) in [
        (
            &key[..16],
            bytes("cafebabefacedbaddecaf888"),
            bytes(concat!(
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5a",
                "ac84aa051ba30b396a0aac973d58e091"
            )),
            bytes("5bc94fbc3221a5db94fae95ae7121a47"),
        ),
        (
            &key[..16],
            long_iv.clone(),
            bytes(concat!(
                "8ce24998625615b603a033aca13fb894be9112a5c3a211a8ba262a3cca7e2ca701e4a9a4fba43c90ccdcb281",
                "d48c7c6fd62875d2aca417034c34aee5"
            )),
            bytes("619cc5aefffe0bfa462af43c1699d050"),
        ),
        (
            &key[..],
            long_iv,
            bytes(concat!(
                "5a8def2f0c9e53f1f75d7853659e2a20eeb2b22aafde6419a058ab4f6f746bf40fc0c3b780f244452da3ebf1",
                "c5d82cdea2418997200ef82e44ae7e3f"
            )),
            bytes("a44a8266ee1c8eb0c8b5d4cf5ae9f19a"),
        ),
    ] {
        for bits in [96, 104, 112, 120, 128] {
            let mechanism = gcm(&iv, &aad, bits).unwrap();
            let expected = [&cipher[..], &tag[..bits as usize / 8]].concat();
            for step in [1, 7, 15, 16, 17, 60, 1000] {
                let hidden = run(&mechanism, key, Direction::Encrypt, &plain, step).unwrap();
                assert_eq!(hidden, expected);
                let opened = run(&mechanism, key, Direction::Decrypt, &hidden, step).unwrap();
                assert_eq!(opened, plain);
            }
            for at in 0..expected.len() {
                let mut forged = expected.clone();
                forged[at] ^= 0x10;
                let opened = run(&mechanism, key, Direction::Decrypt, &forged, 1000);
                assert_eq!(opened, Err(Error::EncryptedDataInvalid));
            }
        }
    }
}

#[test]
fn gcm_gives_out_nothing_before_its_tag() {
    let (key, mechanism) = ([1; 32], gcm(&[2; 12], &[], 128).unwrap());
    let mut state = mechanism.begin(&key, Direction::Decrypt).unwrap();
    let mut out = Secret::default();
    state.update(&key, &[7; 1000], &mut out).unwrap();
    assert!(out.is_empty());
    assert_eq!(
        state.finish(&key, &mut out),
        Err(Error::EncryptedDataInvalid)
    );
    assert!(out.is_empty());
    let short = mechanism.begin(&key, Direction::Decrypt).unwrap();
    assert_eq!(
        short.finish(&key, &mut out),
        Err(Error::EncryptedDataLenRange(0))
    );
}

#[test]
fn parameters_are_those_of_the_mechanism() {
    let wrong = || Err(Error::MechanismParamInvalid);
    let tag = |bits| gcm(&[1; 12], &[], bits).map(drop);
    for bits in [96, 104, 112, 120, 128] {
        assert_eq!(tag(bits), Ok(()));
    }
    for bits in [0, 8, 32, 64, 88, 97, 127, 129, 136, CK_ULONG::MAX] {
        assert_eq!(tag(bits), wrong());
    }
    assert_eq!(gcm(&[], &[], 128).map(drop), wrong());
    assert!(gcm(&[1], &[], 128).is_ok());
    for kind in [CKM_AES_CBC, CKM_AES_CBC_PAD] {
        assert!(cipher(kind, Parameter::Iv([0; BLOCK])).is_ok());
        assert_eq!(cipher(kind, Parameter::None).map(drop), wrong());
        assert_eq!(cipher(kind, Parameter::Other).map(drop), wrong());
    }
    assert!(cipher(CKM_AES_ECB, Parameter::None).is_ok());
    assert_eq!(
        cipher(CKM_AES_ECB, Parameter::Iv([0; BLOCK])).map(drop),
        wrong()
    );
}

/// NIST SP 800-38A, F.1.1 and F.2.1: the first two blocks.
#[test]
fn blocks_are_as_the_standard_has_them() {
    let bytes = |digits| from_hex(digits).unwrap();
    let key = bytes("2b7e151628aed2a6abf7158809cf4f3c");
    let plain = bytes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let ecb = bytes("3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf");
    let cbc = bytes("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
    let iv: [u8; BLOCK] = std::array::from_fn(|n| n as u8);
    for (mechanism, expected) in [
        (cipher(CKM_AES_ECB, Parameter::None).unwrap(), ecb),
        (cipher(CKM_AES_CBC, Parameter::Iv(iv)).unwrap(), cbc),
    ] {
        for step in [1, 15, 16, 17, 32, 100] {
            let hidden = run(&mechanism, &key, Direction::Encrypt, &plain, step).unwrap();
            assert_eq!(hidden, expected);
            let opened = run(&mechanism, &key, Direction::Decrypt, &hidden, step).unwrap();
            assert_eq!(opened, plain);
            let cut = run(&mechanism, &key, Direction::Encrypt, &plain[1..], step);
            assert_eq!(cut.unwrap_err().rv(), CKR_DATA_LEN_RANGE);
            let cut = run(&mechanism, &key, Direction::Decrypt, &hidden[1..], step);
            assert_eq!(cut.unwrap_err().rv(), CKR_ENCRYPTED_DATA_LEN_RANGE);
        }
    }
}

#[test]
fn a_padded_message_has_any_length() {
    let (key, iv) = ([3; 24], [4; BLOCK]);
    let mechanism = cipher(CKM_AES_CBC_PAD, Parameter::Iv(iv)).unwrap();
    for length in 0..50_usize {
        let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
        for step in [1, 15, 16, 17, 100] {
            let hidden = run(&mechanism, &key, Direction::Encrypt, &plain, step).unwrap();
            assert_eq!(hidden.len(), length / BLOCK * BLOCK + BLOCK);
            let opened = run(&mechanism, &key, Direction::Decrypt, &hidden, step).unwrap();
            assert_eq!(opened, plain);
        }
    }
    for length in [0, 1, 15, 17] {
        let opened = run(&mechanism, &key, Direction::Decrypt, &vec![0; length], 100);
        assert_eq!(opened.unwrap_err().rv(), CKR_ENCRYPTED_DATA_LEN_RANGE);
    }
}

#[test]
fn lengths_have_ceilings() {
    let key = [5; 16];
    let longest = LONGEST_MESSAGE;
    for mechanism in [
        cipher(CKM_AES_CBC, Parameter::Iv([0; BLOCK])).unwrap(),
        gcm(&[1; 12], &[], 128).unwrap(),
    ] {
        for (direction, code) in [
            (Direction::Encrypt, CKR_DATA_LEN_RANGE),
            (Direction::Decrypt, CKR_ENCRYPTED_DATA_LEN_RANGE),
        ] {
            let state = mechanism.begin(&key, direction).unwrap();
            assert!(state.update_length(longest).is_ok());
            for length in [longest + BLOCK + 1, 1 << 31, usize::MAX / 2] {
                let refused = state.update_length(length).unwrap_err();
                assert_eq!(refused.rv(), code);
            }
        }
    }
}
