//! Unwrapping mechanisms with their parameters (PKCS#11 3.0, sections 6.1.23, 6.7 and 6.16). The
//! wrapped data is a PrivateKeyInfo in DER (RFC 5958, section 2).
//!
//! CKM_AES_KEY_WRAP_PAD is not supported, because its padding is not clear. Version 2.40 does not
//! define the padding, and version 3.0 demands PKCS#7. Older modules use the padding of
//! CKM_AES_KEY_WRAP_KWP.

use crate::error::Error;
use crate::mechanism::encrypt::EncryptMechanism;
use crate::mechanism::params::Parameter;
use crate::mechanism::table::{Algorithm, Mechanism, UnwrapAlgorithm};
use aes_kw::aes::{Aes128, Aes192, Aes256};
use aes_kw::cipher::consts::U16;
use aes_kw::cipher::{BlockCipherDecrypt, KeyInit};
use aes_kw::{AesKw, AesKwp, InnerInit};
use cryptoki_sys::*;
use der::asn1::AnyRef;
use der::{Decode, Reader, SliceReader};
use devid_core::tpm::Secret;

/// The possible lengths of an AES key in bytes.
pub(crate) const AES_KEYS: [usize; 3] = [16, 24, 32];
/// The length in bytes of the longest wrapped key. An RSA key of 4096 bits has about 3000 bytes.
const LONGEST: usize = 16 * 1024;
/// The block size of the AES key wrap in bytes. Its initial value has the same length.
const SEMIBLOCK: usize = 8;

/// An unwrapping mechanism with its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnwrapMechanism {
    pub(crate) row: &'static Mechanism,
    pub(crate) scheme: UnwrapScheme,
}

/// Tells which key unwraps the data: a secret key of the token, or an AES key encrypted by RSA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnwrapScheme {
    /// There is no such data. A secret key of the token unwraps the key.
    Aes(AesWrap),
    /// An AES key, encrypted by RSA (CKM_RSA_AES_KEY_WRAP). The AES key unwraps the wrapped key.
    RsaAes {
        /// The length of the AES key in bytes.
        key: usize,
        /// The encryption of the AES key.
        oaep: EncryptMechanism,
    },
}

/// An AES key wrap algorithm (NIST SP 800-38F).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AesWrap {
    /// KW (RFC 3394).
    Kw,
    /// KWP (RFC 5649).
    Kwp,
}

impl UnwrapMechanism {
    /// Reads the parameter. Only the initial value of the standard is supported.
    ///
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] if the mechanism does not unwrap.
    /// [`Error::MechanismParamInvalid`] if the parameter is not supported.
    pub(crate) fn new(row: &'static Mechanism, parameter: Parameter) -> Result<Self, Error> {
        let Algorithm::Unwrap(algorithm) = row.algorithm else {
            return Err(Error::MechanismInvalid);
        };
        row.check_shape(&parameter)?;
        let scheme = match algorithm {
            UnwrapAlgorithm::RsaAes => rsa_aes(parameter)?,
            UnwrapAlgorithm::Kw => AesWrap::Kw.with(&parameter)?,
            UnwrapAlgorithm::Kwp => AesWrap::Kwp.with(&parameter)?,
        };
        Ok(Self { row, scheme })
    }
}

fn rsa_aes(parameter: Parameter) -> Result<UnwrapScheme, Error> {
    let Parameter::RsaAes { bits, oaep } = parameter else {
        return Err(Error::MechanismParamInvalid);
    };
    let mut keys = AES_KEYS.into_iter();
    let key = keys.find(|bytes| 8 * *bytes as CK_ULONG == bits);
    let row = Mechanism::find(CKM_RSA_PKCS_OAEP, CKF_ENCRYPT)?;
    Ok(UnwrapScheme::RsaAes {
        key: key.ok_or(Error::MechanismParamInvalid)?,
        oaep: EncryptMechanism::new(row, *oaep)?,
    })
}

impl AesWrap {
    fn with(self, parameter: &Parameter) -> Result<UnwrapScheme, Error> {
        match parameter {
            Parameter::Initial(value) if *value != self.initial() => {
                Err(Error::MechanismParamInvalid)
            }
            _ => Ok(UnwrapScheme::Aes(self)),
        }
    }

    const fn initial(self) -> &'static [u8] {
        match self {
            Self::Kw => &[0xA6; SEMIBLOCK],
            Self::Kwp => &[0xA6, 0x59, 0x59, 0xA6],
        }
    }

    /// Checks that wrapped data of this length is possible.
    pub(crate) fn check_length(self, length: usize) -> Result<(), Error> {
        let least = match self {
            Self::Kw => 3 * SEMIBLOCK,
            Self::Kwp => 2 * SEMIBLOCK,
        };
        match (least..=LONGEST).contains(&length) && length.is_multiple_of(SEMIBLOCK) {
            true => Ok(()),
            false => Err(Error::WrappedKeyLenRange(length)),
        }
    }

    /// Unwraps a key with this AES key. Returns `None` after every error, so no error differs.
    pub(crate) fn unwrap_key(self, key: &[u8], wrapped: &[u8]) -> Option<Secret> {
        match key.len() {
            16 => self.through::<Aes128>(key, wrapped),
            24 => self.through::<Aes192>(key, wrapped),
            32 => self.through::<Aes256>(key, wrapped),
            _ => None,
        }
    }

    fn through<C>(self, key: &[u8], wrapped: &[u8]) -> Option<Secret>
    where
        C: KeyInit + BlockCipherDecrypt<BlockSize = U16>,
    {
        let cipher = C::new_from_slice(key).ok()?;
        let mut room = Secret::new(vec![0; wrapped.len().checked_sub(SEMIBLOCK)?]);
        let length = match self {
            Self::Kw => {
                let whole = AesKw::inner_init(cipher).unwrap_key(wrapped, &mut room);
                whole.map(without_fill).ok()?
            }
            Self::Kwp => {
                let whole = AesKwp::inner_init(cipher).unwrap_key(wrapped, &mut room);
                whole.map(<[u8]>::len).ok()?
            }
        };
        room.truncate(length);
        Some(room)
    }
}

/// Returns the length of a DER element without the zeros after it. By version 2.40,
/// CKM_AES_KEY_WRAP appends zeros to a key until it fills the last block. By version 3.0,
/// CKM_AES_KEY_WRAP takes only keys that fill their blocks.
fn without_fill(element: &[u8]) -> usize {
    let rest = SliceReader::new(element).and_then(|mut reader| {
        AnyRef::decode(&mut reader)?;
        Ok(usize::try_from(reader.remaining_len()).unwrap_or_default())
    });
    let length = element.len() - rest.unwrap_or_default();
    let fill = &element[length..];
    match fill.len() < SEMIBLOCK && fill.iter().all(|byte| *byte == 0) {
        true => length,
        false => element.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::from_hex;

    /// RFC 3394, section 4.6; RFC 5649, section 6.
    #[test]
    fn keys_unwrap_as_the_standards_have_it() {
        let bytes = |digits| from_hex(digits).unwrap();
        let kek = bytes("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
        let wrapped = bytes(concat!(
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326",
            "cbc7f0e71a99f43bfb988b9b7a02dd21"
        ));
        let data = bytes("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
        let plain = AesWrap::Kw.unwrap_key(&kek, &wrapped);
        assert_eq!(plain.unwrap()[..], data);
        assert_eq!(AesWrap::Kwp.unwrap_key(&kek, &wrapped), None);

        let kek = bytes("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8");
        let wrapped = bytes("138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a");
        let data = bytes("c37b7e6492584340bed12207808941155068f738");
        let plain = AesWrap::Kwp.unwrap_key(&kek, &wrapped);
        assert_eq!(plain.unwrap()[..], data);
        for at in 0..wrapped.len() {
            let mut wrong = wrapped.clone();
            wrong[at] ^= 1;
            assert_eq!(AesWrap::Kwp.unwrap_key(&kek, &wrong), None);
        }
        assert_eq!(AesWrap::Kwp.unwrap_key(&kek[..20], &wrapped), None);
        assert_eq!(AesWrap::Kwp.unwrap_key(&kek, &[]), None);
    }

    #[test]
    fn zeros_behind_an_element_are_no_part_of_it() {
        let element = b"\x30\x03\x02\x01\x07";
        let filled = |fill: &[u8]| without_fill(&[element, fill].concat());
        assert_eq!(filled(&[]), 5);
        assert_eq!(filled(&[0; 3]), 5);
        assert_eq!(filled(&[0; 7]), 5);
        assert_eq!(filled(&[0; 8]), 13);
        assert_eq!(filled(&[0, 1]), 7);
        for whole in [&b""[..], b"\x30\x7F\x00", b"\x00\x00\x00", b"\x30"] {
            assert!(whole.starts_with(&whole[..without_fill(whole)]));
        }
    }

    fn parse(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<UnwrapScheme, Error> {
        let row = Mechanism::find(kind, CKF_UNWRAP)?;
        UnwrapMechanism::new(row, parameter).map(|mechanism| mechanism.scheme)
    }

    #[test]
    fn a_parameter_is_the_standards_own_or_wrong() {
        let initial = |bytes: &[u8]| Parameter::Initial(bytes.to_vec());
        let (kw, kwp) = (CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP);
        let wrong = Err(Error::MechanismParamInvalid);
        for (kind, parameter, expected) in [
            (kw, Parameter::None, Ok(UnwrapScheme::Aes(AesWrap::Kw))),
            (kw, initial(&[0xA6; 8]), Ok(UnwrapScheme::Aes(AesWrap::Kw))),
            (kw, initial(&[0xA5; 8]), wrong.clone()),
            (
                kwp,
                initial(b"\xA6\x59\x59\xA6"),
                Ok(UnwrapScheme::Aes(AesWrap::Kwp)),
            ),
            (kwp, initial(&[0xA6; 8]), wrong.clone()),
            (kwp, Parameter::Other, wrong.clone()),
            (CKM_RSA_AES_KEY_WRAP, Parameter::None, wrong),
            (
                CKM_AES_KEY_WRAP_PAD,
                Parameter::None,
                Err(Error::MechanismInvalid),
            ),
        ] {
            assert_eq!(parse(kind, parameter), expected);
        }
        let rsa_aes = |bits| {
            let oaep = Parameter::Oaep {
                hash: CKM_SHA256,
                mgf: CKG_MGF1_SHA256,
                source: CKZ_DATA_SPECIFIED,
                label: Vec::new(),
            };
            let oaep = Box::new(oaep);
            parse(CKM_RSA_AES_KEY_WRAP, Parameter::RsaAes { bits, oaep })
        };
        for bits in [128, 192, 256] {
            let parsed = rsa_aes(bits).unwrap();
            assert!(
                matches!(parsed, UnwrapScheme::RsaAes { key, .. } if 8 * key as CK_ULONG == bits)
            );
        }
        for bits in [0, 16, 255, 512, CK_ULONG::MAX] {
            assert_eq!(rsa_aes(bits), Err(Error::MechanismParamInvalid));
        }
    }
}
