//! Hash functions (PKCS#11 3.0, sections 6.17 to 6.21), and hashes in progress.

use devid_core::tpm::Hash;
use devid_core::{Computation, overwrite_stack};
use sha1::Sha1;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// A hash in progress. The hash is computed in software.
///
/// The data may be a secret key. Therefore the state stays at one address and is wiped when it is
/// dropped. A move would leave a copy in memory.
#[derive(Clone)]
pub(crate) struct Hasher(Box<HashState>);

#[derive(Clone)]
enum HashState {
    Sha1(Sha1),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Digest {
    /// Returns the length of the digest in bytes.
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Returns the TPM's hash algorithm. Returns `None` for SHA-224, because no TPM has SHA-224.
    pub(crate) const fn hash(self) -> Option<Hash> {
        match self {
            Self::Sha1 => Some(Hash::Sha1),
            Self::Sha224 => None,
            Self::Sha256 => Some(Hash::Sha256),
            Self::Sha384 => Some(Hash::Sha384),
            Self::Sha512 => Some(Hash::Sha512),
        }
    }

    /// Starts a hash computation. No data is hashed yet.
    pub(crate) fn hasher(self) -> Hasher {
        Hasher(Box::new(match self {
            Self::Sha1 => HashState::Sha1(Sha1::new()),
            Self::Sha224 => HashState::Sha224(Sha224::new()),
            Self::Sha256 => HashState::Sha256(Sha256::new()),
            Self::Sha384 => HashState::Sha384(Sha384::new()),
            Self::Sha512 => HashState::Sha512(Sha512::new()),
        }))
    }

    /// Restores a hash from the bytes that [`Hasher::save`] returned. Returns `None` if the bytes
    /// are invalid.
    pub(crate) fn restore(self, saved: &[u8]) -> Option<Hasher> {
        fn of<H: SerializableState>(saved: &[u8]) -> Option<H> {
            H::deserialize(<&SerializedState<H>>::try_from(saved).ok()?).ok()
        }
        let state = match self {
            Self::Sha1 => of(saved).map(HashState::Sha1),
            Self::Sha224 => of(saved).map(HashState::Sha224),
            Self::Sha256 => of(saved).map(HashState::Sha256),
            Self::Sha384 => of(saved).map(HashState::Sha384),
            Self::Sha512 => of(saved).map(HashState::Sha512),
        };
        state.map(|state| Hasher(Box::new(state)))
    }
}

impl From<Hash> for Digest {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Sha1 => Self::Sha1,
            Hash::Sha256 => Self::Sha256,
            Hash::Sha384 => Self::Sha384,
            Hash::Sha512 => Self::Sha512,
        }
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, data: &[u8]) {
        match &mut *self.0 {
            HashState::Sha1(hash) => hash.update(data),
            HashState::Sha224(hash) => hash.update(data),
            HashState::Sha256(hash) => hash.update(data),
            HashState::Sha384(hash) => hash.update(data),
            HashState::Sha512(hash) => hash.update(data),
        }
    }

    /// Returns the complete state as bytes. The state contains the last bytes of the data in clear.
    pub(crate) fn save(&self) -> Vec<u8> {
        match &*self.0 {
            HashState::Sha1(hash) => hash.serialize().to_vec(),
            HashState::Sha224(hash) => hash.serialize().to_vec(),
            HashState::Sha256(hash) => hash.serialize().to_vec(),
            HashState::Sha384(hash) => hash.serialize().to_vec(),
            HashState::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The code must not call `finalize`, which would move the state to another address. A copy
        // would stay in memory.
        let result = match &mut *self.0 {
            HashState::Sha1(hash) => hash.finalize_reset().to_vec(),
            HashState::Sha224(hash) => hash.finalize_reset().to_vec(),
            HashState::Sha256(hash) => hash.finalize_reset().to_vec(),
            HashState::Sha384(hash) => hash.finalize_reset().to_vec(),
            HashState::Sha512(hash) => hash.finalize_reset().to_vec(),
        };
        overwrite_stack(Computation::of_hash(result.len()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devid_core::key::hex;

    const ALL: [Digest; 5] = [
        Digest::Sha1,
        Digest::Sha224,
        Digest::Sha256,
        Digest::Sha384,
        Digest::Sha512,
    ];

    #[test]
    fn each_result_has_the_width_that_is_told() {
        for digest in ALL {
            assert_eq!(digest.hasher().finish().len(), digest.width(), "{digest:?}");
        }
    }

    #[test]
    fn a_copy_goes_on_by_itself() {
        let mut one = Digest::Sha224.hasher();
        one.update(b"a");
        let mut other = one.clone();
        one.update(b"bc");
        other.update(b"b");
        other.update(b"c");
        let abc = "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7";
        assert_eq!(hex(&one.finish()), abc);
        assert_eq!(hex(&other.finish()), abc);
    }

    #[test]
    fn what_was_saved_goes_on_and_nothing_else_does() {
        for digest in ALL {
            let mut one = digest.hasher();
            one.update(&[7; 300]);
            let saved = one.save();
            let mut other = digest.restore(&saved).unwrap();
            one.update(b"more");
            other.update(b"more");
            assert_eq!(one.finish(), other.finish(), "{digest:?}");
            for wrong in [&saved[1..], &[&saved[..], &[0]].concat(), &[]] {
                assert!(digest.restore(wrong).is_none(), "{digest:?}");
            }
        }
    }
}
