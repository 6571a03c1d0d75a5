//! Cleans the stack after computations with secrets.

use std::hint::black_box;

/// A computation that leaves secrets on the stack. Hash and cipher crates copy the last block there,
/// which may contain a part of a key or authorisation value.
#[derive(Debug, Clone, Copy)]
pub enum Computation {
    /// SHA-1, SHA-224 or SHA-256, or HMAC with one of them.
    ShortHash,
    /// SHA-384 or SHA-512, or HMAC with one of them.
    LongHash,
    /// AES in any mode.
    Cipher,
}

impl Computation {
    /// Returns the kind of a hash with results of `width` bytes, or of an HMAC with this hash. Not
    /// for the truncated variants of SHA-512.
    #[must_use]
    pub const fn of_hash(width: usize) -> Self {
        match width {
            0..=32 => Self::ShortHash,
            _ => Self::LongHash,
        }
    }

    /// The wiped depth in bytes: at least twice the depth that the tests measure in an optimised
    /// build (HMAC-SHA-256 1544 bytes, HMAC-SHA-512 3744, AES-256-GCM 11 752). A build without
    /// optimisation uses far more stack.
    const fn depth(self) -> usize {
        let kib = match self {
            _ if cfg!(debug_assertions) => 32,
            Self::ShortHash => 4,
            Self::LongHash => 8,
            Self::Cipher => 24,
        };
        kib << 10
    }
}

/// Overwrites the leftovers of this computation below its caller's frame. The caller's own frame
/// stays, so compute in a separate function that is not inlined.
#[inline(always)] // a frame of its own would keep what lies there
pub fn overwrite_stack(after: Computation) {
    #[inline(never)]
    fn overwrite<const DEPTH: usize>() {
        black_box(&mut [0_u8; DEPTH]);
    }
    match after {
        Computation::ShortHash => overwrite::<{ Computation::ShortHash.depth() }>(),
        Computation::LongHash => overwrite::<{ Computation::LongHash.depth() }>(),
        Computation::Cipher => overwrite::<{ Computation::Cipher.depth() }>(),
    }
}

/// The result of `compute`, without leftovers on the stack.
pub(crate) fn leaving_nothing<R>(of: Computation, compute: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn apart<R>(compute: impl FnOnce() -> R) -> R {
        compute()
    }
    let result = apart(compute);
    overwrite_stack(of);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes::{Aes128, Aes256};
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    use cfb_mode::cipher::KeyIvInit;
    use cfb_mode::{Decryptor, Encryptor};
    use hmac::{Hmac, Mac};
    use sha1::Sha1;
    use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const PAINTED: usize = 256 << 10;
    const PAINT: u8 = 0xA5;

    /// Paints the stack below the caller's frame. Returns the lowest painted address.
    #[inline(never)]
    fn paint() -> usize {
        let mut painted = [PAINT; PAINTED];
        black_box(&mut painted).as_ptr().addr()
    }

    /// The bytes below the caller's frame that `compute` changes.
    fn depth_of<R>(compute: impl FnOnce() -> R) -> usize {
        #[inline(never)]
        fn apart<R>(compute: impl FnOnce() -> R) -> R {
            compute()
        }
        let memory = File::open("/proc/self/mem").unwrap();
        let mut stack = vec![0; PAINTED];
        let lowest = paint();
        black_box(apart(compute));
        memory.read_exact_at(&mut stack, lowest as u64).unwrap();
        PAINTED - stack.iter().take_while(|&&byte| byte == PAINT).count()
    }

    /// Each computation, and a quarter more; in an optimised build, each twice.
    #[test]
    fn the_wiped_depth_covers_the_computations() {
        let covers = |of: Computation, what: &str, depth: usize| {
            let least = match cfg!(debug_assertions) {
                true => depth * 5 / 4,
                false => depth * 2,
            };
            assert!(least <= of.depth(), "{what}: {depth} of {}", of.depth());
        };
        let data = vec![2; 300];
        macro_rules! hashes {
            ($of:expr, $($hash:ident)*) => {$(
                covers($of, stringify!($hash), depth_of(|| $hash::digest(&data)));
                covers($of, concat!("HMAC ", stringify!($hash)), depth_of(|| {
                    let mut mac = Hmac::<$hash>::new_from_slice(&[1; 200]).unwrap();
                    mac.update(&data);
                    mac.finalize().into_bytes()
                }));
            )*};
        }
        hashes!(Computation::ShortHash, Sha1 Sha224 Sha256);
        hashes!(Computation::LongHash, Sha384 Sha512);
        let mut text = data.clone();
        let iv = [0; 16];
        let depth = depth_of(|| {
            let cipher = Encryptor::<Aes128>::new_from_slices(&[1; 16], &iv).unwrap();
            cipher.encrypt(&mut text);
        });
        covers(Computation::Cipher, "AES-128-CFB", depth);
        let depth = depth_of(|| {
            let cipher = Decryptor::<Aes256>::new_from_slices(&[1; 32], &iv).unwrap();
            cipher.decrypt(&mut text);
        });
        covers(Computation::Cipher, "AES-256-CFB", depth);
        let nonce = [3; 12].into();
        let depth = depth_of(|| {
            let cipher = Aes256Gcm::new_from_slice(&[1; 32]).unwrap();
            let (msg, aad) = (&data[..], &b"about"[..]);
            cipher.encrypt(&nonce, Payload { msg, aad }).unwrap()
        });
        covers(Computation::Cipher, "AES-256-GCM", depth);
    }
}
