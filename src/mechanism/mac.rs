//! Message authentication codes of secret keys: HMAC (RFC 2104; PKCS#11 3.0, sections 6.20 and the
//! following), also in parts.

use crate::error::Error;
use crate::mechanism::digest::Digest;
use crate::mechanism::table::{Algorithm, Mechanism};
use devid_core::overwrite_stack;
use hmac::{HmacReset, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

/// A code under way.
///
/// It holds what the key became. So it stays at one address until it is dropped, and is wiped there; a
/// move would leave a copy behind.
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

/// The hash of a mechanism that makes such codes.
///
/// # Errors
///
/// [`Error::MechanismInvalid`] for another mechanism.
pub(crate) fn digest_of(row: &Mechanism) -> Result<Digest, Error> {
    match (row.algorithm, row.digest) {
        (Algorithm::Mac, Some(digest)) => Ok(digest),
        _ => Err(Error::MechanismInvalid),
    }
}

impl Mac {
    /// Over no data yet. HMAC takes a key of any length, so there is always one.
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
        overwrite_stack();
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
        overwrite_stack();
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        // Each stays where it is: `finalize` would move it.
        let code = match &mut *self.0 {
            HmacState::Sha1(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha224(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha256(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha384(mac) => mac.finalize_reset().into_bytes().to_vec(),
            HmacState::Sha512(mac) => mac.finalize_reset().into_bytes().to_vec(),
        };
        overwrite_stack();
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::hex;

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
