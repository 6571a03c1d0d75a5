//! The cipher modes ECB and CBC (NIST SP 800-38A), and CBC with the padding of PKCS#7 (RFC 5652,
//! section 6.3).

use super::{BLOCK, Direction, LONGEST_MESSAGE};
use crate::error::Error;
use crate::output::Secret;
use aes_kw::aes::{Aes128, Aes192, Aes256};
use aes_kw::cipher::array::Array;
use aes_kw::cipher::consts::U16;
use aes_kw::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit,
};
use subtle::{Choice, ConstantTimeEq, ConstantTimeLess};

/// An AES-ECB or AES-CBC message that is being encrypted or decrypted.
#[derive(Clone)]
pub(crate) struct Blocks {
    direction: Direction,
    padded: bool,
    /// For CBC: the previous ciphertext block or the initialisation vector.
    chain: Option<[u8; BLOCK]>,
    /// Input bytes that have no output yet: an incomplete block, or a last block that may hold the
    /// padding.
    pending: Secret,
}

impl Blocks {
    pub(super) fn new(iv: Option<[u8; BLOCK]>, padded: bool, direction: Direction) -> Self {
        Self {
            direction,
            padded,
            chain: iv,
            pending: Secret::new(Vec::with_capacity(BLOCK)),
        }
    }

    pub(super) fn takes_padding_off(&self) -> bool {
        self.padded && self.direction == Direction::Decrypt
    }

    pub(super) fn update_length(&self, part: usize) -> Result<usize, Error> {
        if part > LONGEST_MESSAGE {
            return Err(self.direction.length_error(part));
        }
        let total = self.pending.len() + part;
        Ok(total - self.kept_of(total))
    }

    /// Returns how many of `total` input bytes stay buffered until more input arrives.
    fn kept_of(&self, total: usize) -> usize {
        match (self.padded, self.direction) {
            (true, Direction::Decrypt) if total > 0 => (total - 1) % BLOCK + 1,
            _ => total % BLOCK,
        }
    }

    pub(super) fn finish_length(&self, part: usize) -> Result<usize, Error> {
        let total = self.pending.len() + part;
        let kept = self.kept_of(total);
        match (self.padded, self.direction) {
            (true, Direction::Encrypt) => Ok(BLOCK),
            (true, Direction::Decrypt) if kept == BLOCK => Ok(BLOCK),
            (false, _) if kept == 0 => Ok(0),
            _ => Err(self.direction.length_error(total)),
        }
    }

    pub(super) fn update(
        &mut self,
        key: &[u8],
        part: &[u8],
        out: &mut Secret,
    ) -> Result<(), Error> {
        let ready = self.update_length(part.len())?;
        if ready == 0 {
            self.pending.extend_from_slice(part);
            return Ok(());
        }
        // `pending` has at most one block, and `ready` includes its bytes.
        let (now, later) = part.split_at(ready - self.pending.len());
        let from = out.len();
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(now);
        self.pending.clear();
        self.pending.extend_from_slice(later);
        self.process(key, &mut out[from..])
    }

    pub(super) fn finish(mut self, key: &[u8], out: &mut Secret) -> Result<(), Error> {
        if self.finish_length(0)? == 0 {
            return Ok(());
        }
        let mut last = Secret::new(vec![0; BLOCK]);
        let length = self.pending.len();
        last[..length].copy_from_slice(&self.pending);
        match self.direction {
            Direction::Encrypt => {
                let fill = BLOCK - length;
                last[length..].fill(fill as u8);
                self.process(key, &mut last)?;
                out.extend_from_slice(&last);
            }
            Direction::Decrypt => {
                self.process(key, &mut last)?;
                let length = unpadded(&last).ok_or(Error::EncryptedDataInvalid)?;
                out.extend_from_slice(&last[..length]);
            }
        }
        Ok(())
    }

    /// Encrypts or decrypts whole blocks in place.
    fn process(&mut self, key: &[u8], blocks: &mut [u8]) -> Result<(), Error> {
        let processed = match key.len() {
            16 => self.through::<Aes128>(key, blocks),
            24 => self.through::<Aes192>(key, blocks),
            32 => self.through::<Aes256>(key, blocks),
            _ => None,
        };
        processed.ok_or(Error::KeySizeRange)
    }

    #[inline(never)]
    fn through<C>(&mut self, key: &[u8], bytes: &mut [u8]) -> Option<()>
    where
        C: KeyInit + BlockCipherEncrypt<BlockSize = U16> + BlockCipherDecrypt<BlockSize = U16>,
    {
        let cipher = C::new_from_slice(key).ok()?;
        let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(bytes);
        let last = blocks.last().map(|block| block.0);
        match (&mut self.chain, self.direction) {
            (None, Direction::Encrypt) => cipher.encrypt_blocks(blocks),
            (None, Direction::Decrypt) => cipher.decrypt_blocks(blocks),
            (Some(chain), Direction::Encrypt) => {
                cbc::Encryptor::inner_iv_init(cipher, &Array(*chain)).encrypt_blocks(blocks);
                *chain = blocks.last().map_or(*chain, |block| block.0);
            }
            (Some(chain), Direction::Decrypt) => {
                cbc::Decryptor::inner_iv_init(cipher, &Array(*chain)).decrypt_blocks(blocks);
                *chain = last.unwrap_or(*chain);
            }
        }
        Some(())
    }
}

/// Returns the length of the last block without its padding. Returns `None` for a wrong padding.
/// Runs in constant time. Otherwise an attacker could distinguish wrong paddings, and decrypt
/// without the key (Vaudenay 2002).
fn unpadded(last: &[u8]) -> Option<usize> {
    let fill = *last.last()?;
    let mut sound = !fill.ct_eq(&0) & !(BLOCK as u8).ct_lt(&fill);
    for (place, byte) in last.iter().rev().enumerate() {
        let is_fill: Choice = (place as u8).ct_lt(&fill);
        sound &= !is_fill | byte.ct_eq(&fill);
    }
    bool::from(sound).then(|| last.len().saturating_sub(fill.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padding_is_the_standards_or_wrong() {
        let mut block = [7_u8; BLOCK];
        assert_eq!(unpadded(&block), Some(BLOCK - 7));
        for fill in 0..=255_u8 {
            block = [fill; BLOCK];
            let expected = (1..=16).contains(&fill).then(|| BLOCK - usize::from(fill));
            assert_eq!(unpadded(&block), expected, "{fill}");
        }
        for (place, wrong) in [(BLOCK - 3, 4), (BLOCK - 2, 0), (BLOCK - 3, 0xFF)] {
            block = [3; BLOCK];
            block[place] = wrong;
            assert_eq!(unpadded(&block), None, "{place}");
        }
        block = [3; BLOCK];
        block[BLOCK - 4] = 9;
        assert_eq!(unpadded(&block), Some(BLOCK - 3));
    }
}
