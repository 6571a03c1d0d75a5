//! Message authentication codes with secret keys: HMAC (RFC 2104; PKCS#11 3.0, sections 6.20 and
//! following). The data may arrive in parts.

use crate::error::Error;
use crate::mechanism::digest::Digest;
use crate::mechanism::params::{Parameter, Shape};
use crate::mechanism::table::{Algorithm, Mechanism};
use devid_core::{Computation, overwrite_stack};
use hmac::{HmacReset, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

/// A message authentication code in progress.
///
/// The state depends on the key. Therefore the state stays at one address and is wiped when it is
/// dropped. A move would leave a copy in memory.
#[derive(Clone)]
pub(crate) struct Mac(Box<HmacState>);

#[derive(Clone)]
enum HmacState {
    Sha1(HmacReset<Sha1>),
    Sha224(HmacReset<Sha224>),
    Sha256(HmacReset<Sha256>),
    Sha384(HmacReset<Sha384>),
    Sha512(HmacReset<Sha512>),
}

/// A MAC mechanism with its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MacMechanism {
    pub(crate) row: &'static Mechanism,
    pub(crate) digest: Digest,
    /// The length of the message authentication code in bytes.
    pub(crate) width: usize,
}

impl MacMechanism {
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] if the mechanism makes no message authentication codes.
    /// [`Error::MechanismParamInvalid`] if a code of the requested length is impossible.
    pub(crate) fn new(row: &'static Mechanism, parameter: &Parameter) -> Result<Self, Error> {
        let (Algorithm::Mac, Some(digest)) = (row.algorithm, row.digest) else {
            return Err(Error::MechanismInvalid);
        };
        let whole = digest.width();
        let width = match (row.shape, parameter) {
            (Shape::None, Parameter::None) => Some(whole),
            (Shape::CodeLength, Parameter::CodeLength(length)) => {
                let length = usize::try_from(*length).ok();
                length.filter(|length| (1..=whole).contains(length))
            }
            _ => None,
        };
        let width = width.ok_or(Error::MechanismParamInvalid)?;
        Ok(Self { row, digest, width })
    }
}

impl Mac {
    /// Starts a code. No data is read yet. The result is always `Some`, because HMAC takes a key of
    /// any length.
    pub(crate) fn new(digest: Digest, key: &[u8]) -> Option<Self> {
        #[inline(never)]
        fn of<M: KeyInit>(key: &[u8]) -> Option<M> {
            M::new_from_slice(key).ok()
        }
        let state = match digest {
            Digest::Sha1 => of(key).map(HmacState::Sha1),
            Digest::Sha224 => of(key).map(HmacState::Sha224),
            Digest::Sha256 => of(key).map(HmacState::Sha256),
            Digest::Sha384 => of(key).map(HmacState::Sha384),
            Digest::Sha512 => of(key).map(HmacState::Sha512),
        };
        let mac = state.map(|state| Self(Box::new(state)));
        overwrite_stack(Computation::of_hash(digest.width()));
        mac
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match &mut *self.0 {
            HmacState::Sha1(mac) => mac.update(data),
            HmacState::Sha224(mac) => mac.update(data),
            HmacState::Sha256(mac) => mac.update(data),
            HmacState::Sha384(mac) => mac.update(data),
            HmacState::Sha512(mac) => mac.update(data),
        }
        overwrite_stack(Computation::LongHash);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The code must not call `finalize`, which would move the state to another address. A copy
        // would stay in memory.
        let code = match &mut *self.0 {
            HmacState::Sha1(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha224(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha256(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha384(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha512(mac) => mac.finalize_reset().into_bytes().to_vec(),
        };
        overwrite_stack(Computation::of_hash(code.len()));
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::hex;

    #[test]
    fn a_code_has_the_length_that_is_asked_for() {
        use cryptoki_sys::*;
        let new = |kind, parameter| {
            let row = Mechanism::find(kind, CKF_SIGN)?;
            MacMechanism::new(row, &parameter).map(|mechanism| mechanism.width)
        };
        let wrong = Err(Error::MechanismParamInvalid);
        assert_eq!(new(CKM_SHA256_HMAC, Parameter::None), Ok(32));
        assert_eq!(new(CKM_SHA256_HMAC, Parameter::CodeLength(16)), wrong);
        for (kind, whole) in [
            (CKM_SHA_1_HMAC_GENERAL, 20),
            (CKM_SHA224_HMAC_GENERAL, 28),
            (CKM_SHA256_HMAC_GENERAL, 32),
            (CKM_SHA384_HMAC_GENERAL, 48),
            (CKM_SHA512_HMAC_GENERAL, 64),
        ] {
            for length in [1, whole - 1, whole] {
                let width = new(kind, Parameter::CodeLength(length));
                assert_eq!(width, Ok(length as usize));
            }
            for length in [0, whole + 1, CK_ULONG::MAX] {
                assert_eq!(new(kind, Parameter::CodeLength(length)), wrong, "{length}");
            }
            assert_eq!(new(kind, Parameter::None), wrong);
        }
        let other = new(CKM_ECDSA, Parameter::None);
        assert_eq!(other, Err(Error::MechanismInvalid));
    }

    /// RFC 4231, test case 2, and RFC 2202.
    #[test]
    fn codes_are_as_the_standards_have_them() {
        for (digest, expected) in [
            (Digest::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                Digest::Sha224,
                "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44",
            ),
            (
                Digest::Sha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
        ] {
            let mut mac = Mac::new(digest, b"Jefe").unwrap();
            mac.update(b"what do ya want ");
            let other = mac.clone();
            mac.update(b"for nothing?");
            assert_eq!(hex(&mac.finish()), expected);
            assert_ne!(hex(&other.finish()), expected);
        }
    }
}
