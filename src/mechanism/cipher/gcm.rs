//! The cipher mode GCM (NIST SP 800-38D), made of GHASH and counter mode. The crate `aes-gcm` is
//! not used. That crate takes whole messages only. Its lengths of initialisation vector and tag are
//! fixed at compile time.

use super::{BLOCK, Direction, LONGEST_MESSAGE};
use crate::error::Error;
use crate::output::Secret;
use aes_kw::aes::{Aes128, Aes192, Aes256};
use aes_kw::cipher::StreamCipherCoreWrapper;
use aes_kw::cipher::array::Array;
use aes_kw::cipher::consts::U16;
use aes_kw::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherSeek};
use cryptoki_sys::CK_ULONG;
use ctr::CtrCore;
use ctr::flavors;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;

/// The length of the longest message in bytes (NIST SP 800-38D, section 5.2.1.1).
const LONGEST: u64 = (1 << 36) - 32;
/// The length in bytes of an initialisation vector from which GCM makes the counter block without
/// GHASH.
const USUAL_IV: usize = 12;

/// Converts the length of a tag from bits to bytes. Returns `None` for a tag below 96 bits. With
/// such a tag, many decryptions let an attacker forge a message (NIST SP 800-38D, appendix C).
pub(crate) fn tag_length(bits: CK_ULONG) -> Option<usize> {
    match bits {
        96 | 104 | 112 | 120 | 128 => usize::try_from(bits / 8).ok(),
        _ => None,
    }
}

/// An AES-GCM message that is being encrypted or decrypted.
#[derive(Clone)]
pub(crate) struct Gcm {
    direction: Direction,
    /// The counter block J0, which NIST SP 800-38D makes from the initialisation vector.
    first: [u8; BLOCK],
    hash: GHash,
    /// The length of the authentication tag in bytes.
    tag: usize,
    /// The length of the additional authenticated data in bits.
    aad_bits: u64,
    /// The number of message bytes that were encrypted or decrypted.
    done: u64,
    /// When encrypting: ciphertext that does not fill a block yet. When decrypting: the whole
    /// ciphertext and the tag.
    held: Vec<u8>,
}

impl Gcm {
    pub(super) fn new(
        key: &[u8],
        iv: &[u8],
        aad: &[u8],
        tag: usize,
        direction: Direction,
    ) -> Option<Self> {
        let mut hash_key = Array([0; BLOCK]);
        encrypt_block(key, &mut hash_key)?;
        let mut hash = GHash::new(&hash_key);
        let first = match iv.len() {
            USUAL_IV => {
                let mut first = [0; BLOCK];
                first[..USUAL_IV].copy_from_slice(iv);
                first[BLOCK - 1] = 1;
                first
            }
            _ => {
                let mut hash = hash.clone();
                hash.update_padded(iv);
                hash.update(&[lengths(0, bits(iv))]);
                hash.finalize().0
            }
        };
        hash.update_padded(aad);
        Some(Self {
            direction,
            first,
            hash,
            tag,
            aad_bits: bits(aad),
            done: 0,
            held: Vec::new(),
        })
    }

    pub(super) fn update_length(&self, part: usize) -> Result<usize, Error> {
        let too_long = match self.direction {
            Direction::Encrypt => part > LONGEST_MESSAGE || self.done + part as u64 > LONGEST,
            Direction::Decrypt => {
                let room = LONGEST_MESSAGE + self.tag - self.held.len();
                part > room
            }
        };
        match (too_long, self.direction) {
            (true, _) => Err(self.direction.length_error(part)),
            (false, Direction::Encrypt) => Ok(part),
            (false, Direction::Decrypt) => Ok(0),
        }
    }

    pub(super) fn finish_length(&self, part: usize) -> Result<usize, Error> {
        match self.direction {
            Direction::Encrypt => Ok(self.tag),
            Direction::Decrypt => {
                let whole = self.held.len() + part;
                let message = whole.checked_sub(self.tag);
                message.ok_or(Error::EncryptedDataLenRange(whole))
            }
        }
    }

    pub(super) fn update(
        &mut self,
        key: &[u8],
        part: &[u8],
        out: &mut Secret,
    ) -> Result<(), Error> {
        if self.direction == Direction::Decrypt {
            self.held
                .try_reserve(part.len())
                .map_err(|_| Error::HostMemory)?;
            self.held.extend_from_slice(part);
            return Ok(());
        }
        let from = out.len();
        out.extend_from_slice(part);
        self.apply(key, self.done, &mut out[from..])?;
        self.done += part.len() as u64;
        self.absorb(&out[from..]);
        Ok(())
    }

    pub(super) fn finish(mut self, key: &[u8], out: &mut Secret) -> Result<(), Error> {
        if self.direction == Direction::Encrypt {
            let rest = std::mem::take(&mut self.held);
            let tag = self.tag_of(key, &rest, self.done)?;
            out.extend_from_slice(&tag[..self.tag]);
            return Ok(());
        }
        let length = self.finish_length(0)?;
        let held = std::mem::take(&mut self.held);
        let (ciphertext, given) = held.split_at(length);
        let tag = self.tag_of(key, ciphertext, length as u64)?;
        if !bool::from(tag[..self.tag].ct_eq(given)) {
            return Err(Error::EncryptedDataInvalid);
        }
        let from = out.len();
        out.extend_from_slice(ciphertext);
        self.apply(key, 0, &mut out[from..])
    }

    /// Returns the tag of a message. `rest` is the ciphertext that GHASH has not read yet. `length`
    /// is the length of the message in bytes.
    fn tag_of(&self, key: &[u8], rest: &[u8], length: u64) -> Result<[u8; BLOCK], Error> {
        let mut hash = self.hash.clone();
        hash.update_padded(rest);
        hash.update(&[lengths(self.aad_bits, length * 8)]);
        let mut tag = hash.finalize();
        let mut mask = Array(self.first);
        encrypt_block(key, &mut mask).ok_or(Error::KeySizeRange)?;
        tag.iter_mut()
            .zip(&mask)
            .for_each(|(byte, mask)| *byte ^= mask);
        Ok(tag.0)
    }

    /// Adds ciphertext to GHASH. Keeps the bytes that do not fill a block for the next call.
    fn absorb(&mut self, ciphertext: &[u8]) {
        let missing = match self.held.len() {
            0 => 0,
            held => BLOCK - held,
        };
        let (head, rest) = ciphertext.split_at(missing.min(ciphertext.len()));
        self.held.extend_from_slice(head);
        if self.held.len() == BLOCK {
            self.hash.update_padded(&self.held);
            self.held.clear();
        }
        let whole = rest.len() - rest.len() % BLOCK;
        self.hash.update_padded(&rest[..whole]);
        self.held.extend_from_slice(&rest[whole..]);
    }

    /// Encrypts or decrypts `data` in place. `place` is the position of `data` in the message.
    fn apply(&self, key: &[u8], place: u64, data: &mut [u8]) -> Result<(), Error> {
        let applied = match key.len() {
            16 => self.apply_by::<Aes128>(key, place, data),
            24 => self.apply_by::<Aes192>(key, place, data),
            32 => self.apply_by::<Aes256>(key, place, data),
            _ => None,
        };
        applied.ok_or(Error::KeySizeRange)
    }

    #[inline(never)]
    fn apply_by<C>(&self, key: &[u8], place: u64, data: &mut [u8]) -> Option<()>
    where
        C: KeyInit + BlockCipherEncrypt<BlockSize = U16>,
    {
        let cipher = C::new_from_slice(key).ok()?;
        let stream = CtrCore::<C, flavors::Ctr32BE>::inner_iv_init(cipher, &Array(self.first));
        let mut stream = StreamCipherCoreWrapper::from_core(stream);
        // The first block of the key stream encrypts the authentication tag.
        stream.try_seek(place + BLOCK as u64).ok()?;
        stream.try_apply_keystream(data).ok()
    }
}

fn bits(bytes: &[u8]) -> u64 {
    8 * bytes.len() as u64
}

/// Returns the last block of GHASH, which holds the lengths.
fn lengths(aad_bits: u64, bits: u64) -> ghash::Block {
    let mut block = Array([0; BLOCK]);
    block[..8].copy_from_slice(&aad_bits.to_be_bytes());
    block[8..].copy_from_slice(&bits.to_be_bytes());
    block
}

fn encrypt_block(key: &[u8], block: &mut Array<u8, U16>) -> Option<()> {
    #[inline(never)]
    fn by<C>(key: &[u8], block: &mut Array<u8, U16>) -> Option<()>
    where
        C: KeyInit + BlockCipherEncrypt<BlockSize = U16>,
    {
        C::new_from_slice(key).ok()?.encrypt_block(block);
        Some(())
    }
    match key.len() {
        16 => by::<Aes128>(key, block),
        24 => by::<Aes192>(key, block),
        32 => by::<Aes256>(key, block),
        _ => None,
    }
}
